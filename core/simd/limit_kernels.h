/* limit_kernels.h - what one core can do at best: the loops behind the measured peaks and the
 * measured bandwidth. */
#ifndef AT_SIMD_LIMIT_KERNELS_H
#define AT_SIMD_LIMIT_KERNELS_H

#include "simd/tile.h"

typedef struct at_limit_kernels {
    /* Runs the given number of the set's best steps of a product. Returns the number of arithmetic
     * operations done: a multiplication with its addition counts as 2. NULL: the set lacks this
     * product. */
    double (*peak[AT_PRODUCTS])(int64_t steps);
    /* Reads every one of the bytes at p. Returns some sum of them. ahead: with prefetches, which
     * are faster on some machines and slower on others. */
    double (*read)(const void *p, int64_t bytes, bool ahead);
} at_limit_kernels;

#endif
