/* product.h - C = A B, or C += A B, in f32 by attune's own kernels (simd/panel_kernels.h).
 *
 *   A [m, k]   B [k, n]   C [m, n]     strides in elements, per row and per column
 *
 * Each call runs on the calling thread alone, because callers are tasks of at_parallel() already.
 * Every sum is made in the order of the depth, one block of it after the other, so a product that
 * is cut by rows or by columns has the same bits. The exceptions are products that are left to
 * BLIS: those with a side below 16, with a B whose rows and columns both have gaps, and all
 * products on sets with vectors of fewer than 8 floats. */
#ifndef AT_TENSOR_PRODUCT_H
#define AT_TENSOR_PRODUCT_H

#include <stdbool.h>
#include <stdint.h>

#include "attune.h"

typedef struct at_f32_product {
    int64_t m, n, k;
    const float *a;
    int64_t a_row, a_column;
    const float *b;
    int64_t b_row, b_column;
    float *c;
    int64_t c_row; /* C's columns are contiguous */
    bool add;
} at_f32_product;

/* A and B must not overlap C. EMEMORY. */
attune_status at_multiply_f32(const at_f32_product *product);

#endif
