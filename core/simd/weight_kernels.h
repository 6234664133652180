/* weight_kernels.h - one row of activations times rows of a matrix of plain numbers, as a file has
 * them: what decoding a token reads from memory. Blocks are packed (simd/quant_kernels.h). */
#ifndef AT_SIMD_WEIGHT_H
#define AT_SIMD_WEIGHT_H

#include <stdint.h>

enum at_weight_kind { AT_WEIGHT_F32, AT_WEIGHT_F16, AT_WEIGHT_BF16, AT_WEIGHT_KINDS };

typedef struct at_weight_kernels {
    /* out[r] = sum over i of weight[r][i] x[i], r < rows: weight has rows of row_bytes bytes, x
     * [n]. */
    void (*dot[AT_WEIGHT_KINDS])(const uint8_t *weight, int64_t row_bytes, int64_t rows,
                                 const float *x, int64_t n, float *out);
} at_weight_kernels;

#endif
