/* panel_kernels.h - matrix products whose right side is packed in panels (simd/tile.h), for
 * matrices that stay in a core's own cache. Backward and linear attention are made of them.
 *
 *   C[i][j] = sum over t of A(i, t) B(t, j)          t from 0 to depth - 1
 *
 * Panel p of B holds the columns p * panel and following for all t, [depth][panel] floats; b_panel
 * floats lie between the starts of two panels. A(i, t) is a[i * a_row + t * a_step]. Where A itself
 * is packed in panels (a_panel not 0) it is a[t / panel * a_panel + i * panel + t % panel].
 */
#ifndef AT_SIMD_PANELS_H
#define AT_SIMD_PANELS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct at_panel_product {
    int64_t rows, columns, depth; /* columns: a multiple of half a panel; all are written */
    const float *a;
    int64_t a_row, a_step, a_panel;
    const float *b;
    int64_t b_panel;
    float *c;
    int64_t c_row;
    bool add; /* C += instead of C = */
} at_panel_product;

typedef struct at_panel_kernels {
    void (*multiply)(const at_panel_product *product);
    /* Packs x [rows][columns], `stride` floats between two rows, into panels of `panel_rows` rows
     * each. The padding of the last panel is zero. */
    void (*pack_rows)(const float *x, int64_t stride, int64_t rows, int64_t columns,
                      int64_t panel_rows, float *to);
    /* The same transposed: every `panel` rows become one panel [columns rounded up to
     * AT_DIM][panel]. The padding of the last panel is zero. */
    void (*pack_columns)(const float *x, int64_t stride, int64_t rows, int64_t columns, float *to);
} at_panel_kernels;

#endif
