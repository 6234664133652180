/* panels.h - matrix products whose right side lies in panels, for tiles that stay in a core's own
 * cache: what backward and linear attention are made of.
 *
 *   C[i][j] = sum over t of A(i, t) B(t, j)          t from 0 to depth - 1
 *
 * B's panel p holds the columns p * panel .. of all steps, [depth][panel] floats, b_panel floats
 * from the panel before. A(i, t) lies at a[i * a_row + t * a_step], or, where A itself lies in
 * panels (a_panel not 0), at a[t / panel * a_panel + i * panel + t % panel].
 */
#ifndef AT_SIMD_PANELS_H
#define AT_SIMD_PANELS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct at_panel_product {
    int64_t rows, columns, depth; /* columns: a multiple of half a panel, and so many are written */
    const float *a;
    int64_t a_row, a_step, a_panel;
    const float *b;
    int64_t b_panel;
    float *c;
    int64_t c_row;
    bool add; /* to what C holds */
} at_panel_product;

typedef struct at_panel_kernels {
    void (*multiply)(const at_panel_product *product);
    /* Rows [rows][columns], `stride` floats apart, into panels that have room for `rows_there` rows
     * each; what pads the last one is zero. */
    void (*pack_rows)(const float *x, int64_t stride, int64_t rows, int64_t columns,
                      int64_t rows_there, float *to);
    /* The same transposed: each `panel` rows become a panel [columns rounded up to AT_DIM][panel];
     * what pads the last one is zero. */
    void (*pack_columns)(const float *x, int64_t stride, int64_t rows, int64_t columns, float *to);
} at_panel_kernels;

#endif
