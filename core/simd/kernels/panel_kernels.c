/* panel_kernels.c - products with panels, and packing them. */
#include "simd/panel_kernels.h"
#include "simd/tile.h"
#include "simd/kernels/product.h"

void AT_KERNEL(panels)(at_panel_kernels *table);

AT_INLINE void multiply_tile(int rows, int vectors, const at_panel_product *p, const float *a,
                             const float *b, float *c) {
    vf acc[AT_ROWS][2];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 2
        for (int j = 0; j < vectors; j++)
            acc[r][j] = p->add ? vf_load(c + r * p->c_row + j * AT_LANES) : vf_zero();
    }
    if (p->a_panel == 0) {
        accumulate(rows, vectors, AT_PANEL, F32, false, p->a_row, p->a_step, a, b, 0, p->depth, acc,
                   NULL, 0);
    } else {
        for (int64_t t = 0; t < p->depth; t += AT_PANEL) {
            const int64_t n = p->depth - t < AT_PANEL ? p->depth - t : AT_PANEL;
            accumulate(rows, vectors, AT_PANEL, F32, false, AT_PANEL, 1,
                       a + t / AT_PANEL * p->a_panel, b + t * AT_PANEL, 0, n, acc, NULL, 0);
        }
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 2
        for (int j = 0; j < vectors; j++) vf_store(c + r * p->c_row + j * AT_LANES, acc[r][j]);
    }
}

typedef void (*tile_function)(const at_panel_product *p, const float *a, const float *b, float *c);
#define TILE(rows, x)                                                                              \
    static void full_##rows(const at_panel_product *p, const float *a, const float *b, float *c) { \
        multiply_tile(rows, 2, p, a, b, c);                                                        \
    }                                                                                              \
    static void half_##rows(const at_panel_product *p, const float *a, const float *b, float *c) { \
        multiply_tile(rows, 1, p, a, b, c);                                                        \
    }
AT_EACH_ROW(TILE, )
#define NAME_OF(rows, kind) kind##_##rows,
static const tile_function full_table[] = {AT_EACH_ROW(NAME_OF, full)},
                           half_table[] = {AT_EACH_ROW(NAME_OF, half)};

/* A panel of B stays in the first-level cache while all rows of A are multiplied by it. */
static void multiply_panels(const at_panel_product *p) {
    const int64_t tiles = (p->rows + AT_ROWS - 1) / AT_ROWS;
    for (int64_t j = 0; j < p->columns; j += AT_PANEL) {
        const float *b = p->b + j / AT_PANEL * p->b_panel;
        const tile_function *table = p->columns - j < AT_PANEL ? half_table : full_table;
        for (int64_t t = 0, i = 0; t < tiles; t++) {
            const int n = (int)(p->rows / tiles + (t < p->rows % tiles));
            table[n - 1](p, p->a + i * p->a_row, b, p->c + i * p->c_row + j);
            i += n;
        }
    }
}

static vf load_up_to(const float *x, int64_t n) {
    return n >= AT_LANES ? vf_load(x) : n > 0 ? vf_load_part(x, (int)n) : vf_zero();
}

static void pack_rows(const float *x, int64_t stride, int64_t rows, int64_t columns,
                      int64_t panel_rows, float *to) {
    for (int64_t j = 0; j < columns; j += AT_PANEL) {
        float *panel = to + j * panel_rows;
        for (int64_t i = 0; i < rows; i++) {
            for (int64_t c = 0; c < AT_PANEL; c += AT_LANES)
                vf_store(panel + i * AT_PANEL + c,
                         load_up_to(x + i * stride + j + c, columns - j - c));
        }
    }
}

static void pack_columns(const float *x, int64_t stride, int64_t rows, int64_t columns, float *to) {
    const int64_t depth = at_round_up(columns, AT_DIM);
    for (int64_t i = 0; i < at_round_up(rows, AT_PANEL); i += AT_LANES) {
        float *panel = to + i / AT_PANEL * AT_PANEL * depth + i % AT_PANEL;
        for (int64_t j = 0; j < columns; j += AT_LANES) {
            vf square[AT_LANES];
            for (int64_t r = 0; r < AT_LANES; r++)
                square[r] =
                    i + r < rows ? load_up_to(x + (i + r) * stride + j, columns - j) : vf_zero();
            vf_transpose(square);
            for (int64_t c = 0; c < AT_LANES && j + c < columns; c++)
                vf_store(panel + (j + c) * AT_PANEL, square[c]);
        }
    }
}

void AT_KERNEL(panels)(at_panel_kernels *table) {
    table->multiply = multiply_panels;
    table->pack_rows = pack_rows;
    table->pack_columns = pack_columns;
}
