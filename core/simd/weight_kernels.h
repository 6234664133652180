/* weight_kernels.h - one row of activations times rows of a matrix of weights that stay in the
 * format of their file (quant/blocks.h): what decoding a token reads from memory. */
#ifndef AT_SIMD_WEIGHT_H
#define AT_SIMD_WEIGHT_H

#include <stdint.h>

/* The formats of weights. */
enum at_weight_kind {
    AT_WEIGHT_F32,
    AT_WEIGHT_F16,
    AT_WEIGHT_BF16,
    AT_WEIGHT_Q8_0,
    AT_WEIGHT_Q4_0,
    AT_WEIGHT_Q4_1,
    AT_WEIGHT_Q5_0,
    AT_WEIGHT_Q5_1,
    AT_WEIGHT_Q4_K,
    AT_WEIGHT_Q5_K,
    AT_WEIGHT_Q6_K,
    AT_WEIGHT_KINDS
};

typedef struct at_weight_kernels {
    /* out[r] = sum over i of weight[r][i] x[i], r < rows: weight has rows of row_bytes bytes, x
     * [n]. sums [n / 32]: the sums of each 32 of x, which formats with an offset per block need:
     * Q4_0, Q4_1, Q5_1, Q4_K, Q5_K. n is a multiple of the format's block. */
    void (*dot[AT_WEIGHT_KINDS])(const uint8_t *weight, int64_t row_bytes, int64_t rows,
                                 const float *x, const float *sums, int64_t n, float *out);
    void (*sum_32)(const float *x, int64_t blocks, float *sums);
} at_weight_kernels;

#endif
