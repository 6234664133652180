/* product.c - matrix products in f32 over packed panels.
 *
 * The loops are those of Goto and van de Geijn (2008): a panel of a block of B stays in the
 * first-level cache while rows of A are multiplied by it, and the block and these rows stay in the
 * second level. A is packed only where its columns are contiguous: each step along the depth would
 * then read another page. Elsewhere its rows are read where they are, one element at a time.
 */
#include "tensor/product.h"

#include <string.h>

#include "base/arena.h"
#include "base/int_math.h"
#include "base/status.h"
#include "simd/table.h"
#include "tensor/gemm.h"

enum {
    DEPTH = 256,     /* max depth of a block of B */
    BLOCK = 1 << 17, /* max elements of a block of B: 512 KiB */
    MAX_ROWS = 168,  /* rows of A per pass over a block: a multiple of every register tile's */
    LEAST = 16,      /* shorter sides are left to BLIS */
    GRAIN = 32       /* of the depth: a multiple of every panel and of AT_DIM */
};

/* Whether packing pays, the kernels can read B, and they are faster than BLIS's: those with short
 * vectors are not. */
static bool suits(const at_f32_product *p) {
    return at_simd_now()->lanes >= 8 && p->m >= LEAST && p->n >= LEAST && p->k >= LEAST &&
           (p->b_row == 1 || p->b_column == 1);
}

static bool packs_a(const at_f32_product *p) { return p->a_row == 1 && p->a_column != 1; }

/* How a product is cut: blocks of B are [depth, width], multiples of GRAIN and of a panel. */
typedef struct plan {
    int64_t panel, depth, width;
} plan;

static plan plan_of(const at_f32_product *p) {
    const int64_t panel = at_simd_now()->geometry.panel, parts = at_ceil_div(p->k, DEPTH),
                  depth = at_round_up(at_ceil_div(p->k, parts), GRAIN),
                  widest = BLOCK / depth / panel * panel, all = at_round_up(p->n, panel);
    return (plan){.panel = panel, .depth = depth, .width = all < widest ? all : widest};
}

/* The memory of a call: packed rows of A, a block of B, and the columns of C that do not fill half
 * a panel. */
typedef struct scratch {
    float *a, *b, *edge;
} scratch;

static void carve(at_arena *arena, const at_f32_product *p, const plan *cut, scratch *s) {
    s->b = at_arena_take(arena, cut->depth * cut->width, sizeof *s->b);
    s->a = at_arena_take(arena, packs_a(p) ? at_round_up(MAX_ROWS, AT_DIM) * cut->depth : 0,
                         sizeof *s->a);
    s->edge = at_arena_take(arena, MAX_ROWS * cut->panel, sizeof *s->edge);
}

/* Packs a block of B. Returns the floats between two of its panels. */
static int64_t pack_b(const at_f32_product *p, const plan *cut, int64_t step, int64_t steps,
                      int64_t column, int64_t columns, float *to) {
    const at_panel_kernels *panels = &at_simd_now()->panels;
    const float *from = p->b + step * p->b_row + column * p->b_column;
    if (p->b_column == 1) {
        panels->pack_rows(from, p->b_row, steps, columns, steps, to);
        return steps * cut->panel;
    }
    panels->pack_columns(from, p->b_column, columns, steps, to);
    return at_round_up(steps, AT_DIM) * cut->panel;
}

/* C [rows, columns] from rows of A and a block of B. */
static void multiply(at_panel_product t, int64_t panel, int64_t columns, float *edge) {
    const at_panel_kernels *panels = &at_simd_now()->panels;
    const int64_t rest = columns % (panel / 2) ? columns % panel : 0;
    t.columns = columns - rest;
    if (t.columns > 0) panels->multiply(&t);
    if (rest == 0) return;
    float *c = t.c + t.columns;
    const int64_t c_row = t.c_row;
    for (int64_t r = 0; r < t.rows && t.add; r++)
        memcpy(edge + r * panel, c + r * c_row, (size_t)rest * sizeof *c);
    t.b += t.columns / panel * t.b_panel;
    t.columns = at_round_up(rest, panel / 2);
    t.c = edge;
    t.c_row = panel;
    panels->multiply(&t);
    for (int64_t r = 0; r < t.rows; r++)
        memcpy(c + r * c_row, edge + r * panel, (size_t)rest * sizeof *c);
}

/* The product with one block of B, which is packed. */
static void multiply_block(const at_f32_product *p, const plan *cut, const scratch *s, int64_t step,
                           int64_t steps, int64_t column, int64_t columns) {
    at_panel_product t = {.depth = steps, .b = s->b, .c_row = p->c_row, .add = p->add || step > 0};
    t.b_panel = pack_b(p, cut, step, steps, column, columns, s->b);
    for (int64_t row = 0; row < p->m; row += MAX_ROWS) {
        t.rows = p->m - row < MAX_ROWS ? p->m - row : MAX_ROWS;
        t.a = p->a + row * p->a_row + step * p->a_column;
        t.a_row = p->a_row;
        t.a_step = p->a_column;
        if (packs_a(p)) {
            at_simd_now()->panels.pack_columns(t.a, p->a_column, steps, t.rows, s->a);
            t.a = s->a;
            t.a_row = cut->panel;
            t.a_panel = at_round_up(t.rows, AT_DIM) * cut->panel;
        }
        t.c = p->c + row * p->c_row + column;
        multiply(t, cut->panel, columns, s->edge);
    }
}

attune_status at_multiply_f32(const at_f32_product *p) {
    if (!suits(p)) {
        at_gemm_f32(p->m, p->n, p->k, 1, p->a, p->a_row, p->a_column, p->b, p->b_row, p->b_column,
                    (float)p->add, p->c, p->c_row, 1);
        return ATTUNE_OK;
    }
    const plan cut = plan_of(p);
    at_arena arena = {0};
    scratch s;
    carve(&arena, p, &cut, &s);
    AT_TRY(at_arena_alloc(&arena));
    carve(&arena, p, &cut, &s);
    for (int64_t column = 0; column < p->n; column += cut.width) {
        const int64_t columns = p->n - column < cut.width ? p->n - column : cut.width;
        for (int64_t step = 0; step < p->k; step += cut.depth) {
            const int64_t steps = p->k - step < cut.depth ? p->k - step : cut.depth;
            multiply_block(p, &cut, &s, step, steps, column, columns);
        }
    }
    at_arena_free(&arena);
    return ATTUNE_OK;
}
