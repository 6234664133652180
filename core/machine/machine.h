/* machine.h - what this machine is. */
#ifndef AT_MACHINE_MACHINE_H
#define AT_MACHINE_MACHINE_H

#include "attune.h"

/* Bytes of a core's data or unified cache of that level; 0: unknown. */
int64_t at_cache_bytes(int level);

#endif
