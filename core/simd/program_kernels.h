/* program.h - the operations of score and mask programs over the pairs of a row. */
#ifndef AT_SIMD_PROGRAM_H
#define AT_SIMD_PROGRAM_H

#include "attune.h"
#include "simd/tile.h"

/* Values of an operand: step apart, 1, or 0 where one serves all. Whole vectors are read. */
typedef struct at_values {
    const float *p;
    int step;
} at_values;

typedef struct at_program_kernels {
    /* n values of an operation but READ, LOG, POW and the leaves, whole vectors written. to may be
     * an operand. TANH: b and c are factors of its operand and of its value, one for all. */
    void (*apply)(attune_op op, at_values a, at_values b, at_values c, float *to, int n);
    /* Of gradients, n values exactly; where a gradient is zero so is its product, whatever the
     * other factor. gradient: step 1. */
    float (*sum_products)(at_values gradient, at_values slope, int n);
    void (*add_products)(at_values gradient, at_values slope, float *sums, int n);
    void (*multiply)(at_values slope, float factor, float *gradient,
                     int n); /* gradient *= slope factor */
} at_program_kernels;

#endif
