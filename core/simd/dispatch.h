/* dispatch.h - the instruction sets of this machine. */
#ifndef AT_SIMD_DISPATCH_H
#define AT_SIMD_DISPATCH_H

#include "simd/table.h"

/* Names of the sets that run here, worst first; returns how many. */
int at_simd_available(const char *names[], int most);

#endif
