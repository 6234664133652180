/* vector_steps.h - the set's own vector kernels of attention, by name. They fill the table of every
 * set. The kernels of AMX call them for the steps that do not suit its tiles.
 *
 * At most vector_rows(product) rows at once. */
#ifndef AT_SIMD_VECTOR_STEPS_H
#define AT_SIMD_VECTOR_STEPS_H

#include "simd/attention_kernels.h"
#include "simd/kernels/vec.h"

/* Max rows of the register tile; 0: the set lacks this product. A row of 8-bit quads takes two rows
 * of the register tile, one per digit. */
AT_INLINE int vector_rows(at_product product) {
    if (product == AT_DOT_BF16) return AT_HAS_DOT_BF16 ? AT_ROWS : 0;
    if (product == AT_DOT_I8) return AT_HAS_DOT_I8 ? AT_ROWS / 2 : AT_ROWS;
    return AT_ROWS;
}

void AT_KERNEL(vector_scores)(at_step *step);
void AT_KERNEL(vector_values)(at_step *step);
void AT_KERNEL(vector_pack_queries)(at_product product, const float *x, int64_t stride, int rows,
                                    int64_t D, float factor, void *to, float *q_scale);

#endif
