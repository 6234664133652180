/* program_kernels.h - the operations of score and mask programs over the pairs of a row. */
#ifndef AT_SIMD_PROGRAM_H
#define AT_SIMD_PROGRAM_H

#include "attune.h"
#include "simd/tile.h"

/* The values of an operand. step: 1, or 0 where all pairs share one value. Whole vectors are read.
 */
typedef struct at_values {
    const float *p;
    int step;
} at_values;

typedef struct at_program_kernels {
    /* Computes n values of an operation; whole vectors are written. Not for READ, LOG, POW and the
     * leaves. to may be an operand. TANH: b and c are single factors of the operand and of the
     * result. */
    void (*apply)(attune_op op, at_values a, at_values b, at_values c, float *to, int n);
    /* Exactly n gradients are read or written. Where a gradient is zero its product is zero,
     * whatever the other factor. gradient: step 1. */
    float (*sum_products)(at_values gradient, at_values slope, int n);
    void (*add_products)(at_values gradient, at_values slope, float *sums, int n);
    void (*multiply)(at_values slope, float factor, float *gradient,
                     int n); /* gradient *= slope factor */
} at_program_kernels;

#endif
