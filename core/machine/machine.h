/* machine.h - cache sizes of this machine. */
#ifndef AT_MACHINE_MACHINE_H
#define AT_MACHINE_MACHINE_H

#include "attune.h"

/* Bytes of the data or unified cache of this level, 1 to 3, of one core; 0: unknown. */
int64_t at_cache_bytes(int level);

#endif
