/* test_kernels.c - every set's kernels against plain loops in double precision: packing, steps of
 * the softmax, products with panels, exponentials. It needs neither BLIS nor files, and so runs
 * cross-compiled too. */
#include <stdio.h>

#include "base/numbers.h"
#include "simd/dispatch.h"
#include "test.h"

static at_simd set; /* the one under test */
static const char *set_name;

static uint32_t state_of_draws = 1;
static float draw_number(void) {
    state_of_draws = state_of_draws * 1664525u + 1013904223u;
    return (float)(state_of_draws >> 8) / 8388608.0f - 1.0f;
}
static void draw_numbers(float *x, int64_t n) {
    for (int64_t i = 0; i < n; i++) x[i] = draw_number();
}

static float round_to(attune_dtype dtype, float x) {
    return dtype == ATTUNE_BF16  ? at_bf16_to_f32(at_f32_to_bf16(x))
           : dtype == ATTUNE_F16 ? at_f16_to_f32(at_f32_to_f16(x))
                                 : x;
}

/* As 8-bit integers times a scale, which is the max magnitude over 127. */
static void round_row_to_i8(float *x, int64_t n) {
    float max = 0;
    for (int64_t i = 0; i < n; i++) max = fmaxf(max, fabsf(x[i]));
    for (int64_t i = 0; i < n && max > 0; i++) x[i] = rintf(x[i] * (127.0f / max)) * (max / 127.0f);
}

/* ---- steps ----------------------------------------------------------------------------------- */

enum { BLOCKS = 2, TOKENS = AT_TILE * AT_BLOCK_TILES * BLOCKS };

typedef struct attention_case {
    attune_dtype tile, rows_dtype;
    int64_t D, Dv;
    int rows;
    bool capped;
} attention_case;

static void run_case(const attention_case *c, int number) {
    const at_attention_kernels *kernels = &set.attention;
    const at_product product = kernels->product(c->tile, c->rows_dtype);
    const int64_t D = c->D, Dv = c->Dv, Dvp = at_round_up(Dv, AT_DIM),
                  k_bytes = at_tile_bytes(c->tile, D), v_bytes = at_tile_bytes(c->tile, Dv);
    const int tiles = TOKENS / AT_TILE;
    char *k = calloc((size_t)tiles, (size_t)k_bytes), *v = calloc((size_t)tiles, (size_t)v_bytes);
    float *k_scale = calloc(TOKENS, 4), *v_scale = calloc(TOKENS, 4),
          *keys = malloc((size_t)(TOKENS * D) * 4), *values = malloc((size_t)(TOKENS * Dv) * 4);
    float *x = malloc((size_t)(c->rows * D) * 4), *q = malloc((size_t)at_queries_bytes(c->rows, D)),
          q_scale[3 * AT_MAX_ROWS];
    float *o = aligned_alloc(64, (size_t)(c->rows * Dvp) * 4), max[AT_MAX_ROWS], sum[AT_MAX_ROWS];
    float *scores = aligned_alloc(64, AT_MAX_ROWS * AT_SCORE_STRIDE * 4),
          *weights = aligned_alloc(64, AT_MAX_ROWS * AT_SCORE_STRIDE * 4);
    draw_numbers(keys, TOKENS * D);
    draw_numbers(values, TOKENS * Dv);
    draw_numbers(x, c->rows * D);
    for (int64_t i = 0; i < c->rows * D; i++) x[i] = round_to(c->rows_dtype, x[i]);

    /* Tokens come in runs of uneven length, as appends do. */
    for (int first = 0, run = 1 + number % 7, next; first < TOKENS; run = next) {
        const int slot = first % AT_TILE;
        if (run > AT_TILE - slot) run = AT_TILE - slot;
        const int64_t tile = first / AT_TILE;
        kernels->pack_keys(keys + first * D, D, slot, run, D, c->tile, k + tile * k_bytes,
                           k_scale + tile * AT_TILE);
        assert_true(kernels->pack_values(values + first * Dv, Dv, slot, run, Dv, c->tile,
                                         v + tile * v_bytes, v_scale + tile * AT_TILE));
        next = 1 + (run * 5 + number) % 40;
        first += run;
    }
    for (int j = 0; j < TOKENS; j++) {
        for (int64_t d = 0; d < D; d++) keys[j * D + d] = round_to(c->tile, keys[j * D + d]);
        for (int64_t d = 0; d < Dv; d++) values[j * Dv + d] = round_to(c->tile, values[j * Dv + d]);
        if (c->tile == ATTUNE_I8) {
            round_row_to_i8(keys + j * D, D);
            round_row_to_i8(values + j * Dv, Dv);
        }
    }
    kernels->pack_queries(product, x, D, c->rows, D, 1, q, q_scale);
    memset(o, 0, (size_t)(c->rows * Dvp) * 4);
    for (int r = 0; r < c->rows; r++) {
        max[r] = -INFINITY;
        sum[r] = 0;
    }

    /* The tokens 3 r .. TOKENS - 5 r - 1 are visible to row r. To some rows no token of one key
     * block is visible. */
    at_step step = {.product = product,
                    .rows = c->rows,
                    .q = q,
                    .q_scale = q_scale,
                    .o = o,
                    .max = max,
                    .sum = sum,
                    .dtype = c->tile,
                    .D = D,
                    .Dv = Dv,
                    .part_count = 1,
                    .factor = c->capped ? 1.44269504f : 0.3f * 1.44269504f,
                    .scale = 0.3f,
                    .softcap = c->capped ? 1.25f : 0,
                    .scores = scores,
                    .weights = weights};
    for (int block = 0; block < BLOCKS; block++) {
        const int begin = block * AT_TILE * AT_BLOCK_TILES, end = AT_TILE * AT_BLOCK_TILES;
        step.tiles = AT_BLOCK_TILES;
        step.v_finite = number % 5 != 4; /* false tests the term-by-term path */
        for (int t = 0; t < AT_BLOCK_TILES; t++) {
            const int64_t tile = block * AT_BLOCK_TILES + t;
            step.k[t] = k + tile * k_bytes;
            step.v[t] = v + tile * v_bytes;
            step.k_scale[t] = k_scale + tile * AT_TILE;
            step.v_scale[t] = v_scale + tile * AT_TILE;
            step.k_prefetch[t] = block ? NULL : step.k[t];
            step.v_prefetch[t] = block ? NULL : step.v[t];
        }
        step.from = end;
        step.to = 0;
        for (int r = 0; r < c->rows; r++) {
            int first = 3 * r - begin, last = TOKENS - 5 * r - begin;
            if (r % 6 == 5) {
                first = block ? 0 : end;
                last = block ? 3 : 0;
            }
            first = first < 0 ? 0 : first > end ? end : first;
            last = last > end ? end : last < 0 ? 0 : last;
            if (first >= last) first = last = 0;
            step.first[r] = first;
            step.last[r] = last;
            if (first < last) {
                step.from = first < step.from ? first : step.from;
                step.to = last > step.to ? last : step.to;
            }
        }
        if (step.from >= step.to) continue;
        kernels->scores(&step);
        if (c->capped) kernels->cap(&step);
        kernels->softmax(&step);
        kernels->values(&step);
    }

    double *s = malloc(TOKENS * sizeof *s);
    for (int r = 0; r < c->rows; r++) {
        double max_score = -INFINITY, total = 0, terms = 0, max_v = 0;
        int first = 3 * r, last = TOKENS - 5 * r;
        if (r % 6 == 5) {
            first = AT_TILE * AT_BLOCK_TILES;
            last = first + 3;
        }
        for (int j = first; j < last; j++) {
            double dot = 0, sizes = 0;
            for (int64_t d = 0; d < D; d++) {
                dot += (double)x[r * D + d] * (double)keys[j * D + d];
                sizes += fabs((double)x[r * D + d] * (double)keys[j * D + d]);
            }
            s[j] = 0.3 * dot;
            if (c->capped) s[j] = 1.25 * tanh(s[j] / 1.25);
            max_score = fmax(max_score, s[j]);
            terms = fmax(terms, 0.3 * sizes);
        }
        for (int j = first; j < last; j++) total += exp(s[j] - max_score);
        for (int64_t d = 0; d < Dv; d++)
            for (int j = first; j < last; j++)
                max_v = fmax(max_v, fabs((double)values[j * Dv + d]));
        /* The error of a score is half a unit per term. The error of a weight is a few units plus
         * |s| units, or the rounding error of bf16 or of the digits of i8, where rows have 14 bits.
         */
        const double unit = 0x1p-24,
                     score = 2 * unit * (terms + 8) + (product == AT_DOT_I8 ? 0x1p-13 * terms : 0);
        const double weight = product == AT_DOT_BF16 ? 0x1p-8 : product == AT_DOT_I8 ? 0x1p-15 : 0;
        const double lse =
                         at_origin(max[r], step.factor) * 0.6931471805599453 + log((double)sum[r]),
                     wanted = max_score + log(total);
        if (!(fabs(lse - wanted) <= 2 * score + 16 * unit))
            fail_msg("%s: case %d, row %d: lse %g, wanted %g (%s tiles, D %d)", set_name, number, r,
                     lse, wanted, attune_dtype_name(c->tile), (int)D);
        for (int64_t d = 0; d < Dv; d++) {
            double right = 0;
            for (int j = first; j < last; j++)
                right += exp(s[j] - max_score) / total * (double)values[j * Dv + d];
            const double got = (double)o[r * Dvp + d] / (double)sum[r],
                         bound = max_v * (2 * score + weight + 24 * unit * sqrt((double)TOKENS));
            if (!(fabs(got - right) <= bound))
                fail_msg("%s: case %d, row %d, dim %d: %g, wanted %g, bound %g (%s tiles, %s rows, "
                         "D %d)",
                         set_name, number, r, (int)d, got, right, bound, attune_dtype_name(c->tile),
                         attune_dtype_name(c->rows_dtype), (int)D);
        }
    }
    free(s);
    free(k);
    free(v);
    free(k_scale);
    free(v_scale);
    free(keys);
    free(values);
    free(x);
    free(q);
    free(o);
    free(scores);
    free(weights);
}

static void steps_follow_the_formula(void **state) {
    (void)state;
    static const attune_dtype tiles[] = {ATTUNE_F32, ATTUNE_BF16, ATTUNE_F16, ATTUNE_I8};
    static const int64_t dims[] = {1, 3, 16, 17, 32, 40, 64, 80, 96, 128};
    for (int n = 0; n < 400; n++) {
        attention_case c = {.tile = tiles[n % 4],
                            .rows_dtype = n / 4 % 2 ? ATTUNE_BF16 : ATTUNE_F32,
                            .D = dims[n % 10],
                            .capped = n % 7 == 0};
        c.Dv = n % 3 ? c.D : dims[(n + 4) % 10];
        const int max_rows = set.geometry.rows[set.attention.product(c.tile, c.rows_dtype)];
        c.rows = 1 + n * 5 % max_rows;
        run_case(&c, n);
    }
}

/* Sums of i8 products are i32. Every dim here adds the max product, and there are many dims. */
static void long_i8_scores_do_not_overflow(void **state) {
    (void)state;
    enum { DIMS = 2048 };
    const at_product product = set.attention.product(ATTUNE_I8, ATTUNE_F32);
    float *x = malloc(DIMS * sizeof *x), *q = malloc((size_t)at_queries_bytes(1, DIMS)), q_scale[3],
          k_scale[AT_TILE] = {0};
    float *scores = aligned_alloc(64, AT_SCORE_STRIDE * 4);
    char *k = calloc(AT_TILE, DIMS);
    for (int d = 0; d < DIMS; d++) x[d] = 1;
    set.attention.pack_keys(x, DIMS, 0, 1, DIMS, ATTUNE_I8, k, k_scale);
    set.attention.pack_queries(product, x, DIMS, 1, DIMS, 1, q, q_scale);
    at_step step = {.product = product,
                    .rows = 1,
                    .q = q,
                    .q_scale = q_scale,
                    .dtype = ATTUNE_I8,
                    .D = DIMS,
                    .Dv = DIMS,
                    .tiles = 1,
                    .part_count = 1,
                    .scores = scores,
                    .to = 1};
    step.k[0] = k;
    step.k_scale[0] = k_scale;
    step.last[0] = 1;
    set.attention.scores(&step);
    if (!(fabsf(scores[0] - DIMS) <= 0x1p-13f * DIMS))
        fail_msg("%s: %g, wanted %d", set_name, (double)scores[0], DIMS);
    free(x);
    free(q);
    free(scores);
    free(k);
}

/* ---- gradients and panels -------------------------------------------------------------------- */

static void panels_multiply(void **state) {
    (void)state;
    const int64_t panel = set.geometry.panel;
    for (int n = 0; n < 60; n++) {
        const int64_t rows = 1 + n * 7 % 50, columns = 1 + n * 11 % 70, depth = 1 + n * 13 % 90,
                      panel_rows = depth + n % 3;
        const int64_t padded = at_round_up(columns, panel / 2);
        const bool a_in_panels = n % 2, add = n % 3 == 0;
        float *a = malloc((size_t)(rows * depth) * 4), *b = malloc((size_t)(depth * columns) * 4),
              *c = malloc((size_t)(rows * (padded + 3)) * 4);
        float *packed_b = malloc((size_t)(panel_rows * at_round_up(columns, panel)) * 4),
              *packed_a = malloc((size_t)(rows * at_round_up(depth, panel)) * 4);
        draw_numbers(a, rows * depth);
        draw_numbers(b, depth * columns);
        draw_numbers(c, rows * (padded + 3));
        float *before = malloc((size_t)(rows * (padded + 3)) * 4);
        memcpy(before, c, (size_t)(rows * (padded + 3)) * 4);
        set.panels.pack_rows(b, columns, depth, columns, panel_rows, packed_b);
        if (a_in_panels) set.panels.pack_rows(a, depth, rows, depth, rows, packed_a);
        const at_panel_product p = {.rows = rows,
                                    .columns = padded,
                                    .depth = depth,
                                    .a = a_in_panels ? packed_a : a,
                                    .a_row = a_in_panels ? panel : depth,
                                    .a_step = 1,
                                    .a_panel = a_in_panels ? rows * panel : 0,
                                    .b = packed_b,
                                    .b_panel = panel_rows * panel,
                                    .c = c,
                                    .c_row = padded + 3,
                                    .add = add};
        set.panels.multiply(&p);
        for (int64_t i = 0; i < rows; i++) {
            for (int64_t j = 0; j < columns; j++) {
                double sum = add ? (double)before[i * (padded + 3) + j] : 0, sizes = fabs(sum);
                for (int64_t t = 0; t < depth; t++) {
                    const double term = (double)a[i * depth + t] * (double)b[t * columns + j];
                    sum += term;
                    sizes += fabs(term);
                }
                /* The error of each addition is at most half a unit of the sum so far. */
                if (!(fabs((double)c[i * (padded + 3) + j] - sum) <=
                      0x1p-24 * (double)(depth + 1) * sizes))
                    fail_msg("%s: case %d, element %d %d", set_name, n, (int)i, (int)j);
            }
            for (int64_t j = padded; j < padded + 3; j++)
                assert_true(c[i * (padded + 3) + j] == before[i * (padded + 3) + j]);
        }
        /* columns: the transpose, panel by panel */
        const int64_t deep = at_round_up(columns, AT_DIM);
        float *across = malloc((size_t)(at_round_up(depth, panel) * deep) * 4);
        set.panels.pack_columns(b, columns, depth, columns, across);
        for (int64_t i = 0; i < at_round_up(depth, panel); i++)
            for (int64_t j = 0; j < columns; j++)
                assert_true(across[i / panel * panel * deep + j * panel + i % panel] ==
                            (i < depth ? b[i * columns + j] : 0));
        free(a);
        free(b);
        free(c);
        free(packed_a);
        free(packed_b);
        free(before);
        free(across);
    }
}

static void gradients_go_through_the_softmax(void **state) {
    (void)state;
    enum { ROWS = 5, STRIDE = 80, COLUMNS = 64 };
    for (int capped = 0; capped < 2; capped++) {
        float p[ROWS * STRIDE], d[ROWS * STRIDE], s[ROWS * STRIDE], dp[ROWS * STRIDE], lse[ROWS],
            delta[ROWS], origin[ROWS] = {0};
        int first[ROWS] = {0, 3, 17, 0, 60}, last[ROWS] = {64, 64, 18, 0, 63};
        draw_numbers(s, ROWS * STRIDE);
        draw_numbers(dp, ROWS * STRIDE);
        draw_numbers(delta, ROWS);
        if (!capped) { /* scores of 2^20 and more: their differences are exact */
            origin[2] = 0x1p20f;
            for (int i = 2 * STRIDE; i < 3 * STRIDE; i++) s[i] = 0x1p20f + rintf(4 * s[i]);
        }
        memcpy(p, s, sizeof p);
        memcpy(d, dp, sizeof d);
        for (int r = 0; r < ROWS; r++) lse[r] = r == 3 ? INFINITY : 2 + draw_number();
        const at_gradient_step step = {.rows = ROWS,
                                       .columns = COLUMNS,
                                       .stride = STRIDE,
                                       .weights = p,
                                       .scores = d,
                                       .first = first,
                                       .last = last,
                                       .origin = origin,
                                       .lse = lse,
                                       .delta = delta,
                                       .scale = 0.7f,
                                       .softcap = capped ? 0.9f : 0};
        set.attention.gradients(&step);
        for (int r = 0; r < ROWS; r++) {
            for (int j = 0; j < COLUMNS; j++) {
                double weight = 0, slope = 0.7, e = 0.7 * (double)(s[r * STRIDE + j] - origin[r]);
                if (capped) {
                    const double t = tanh(e / 0.9);
                    e = 0.9 * t;
                    slope *= 1 - t * t;
                }
                if (j >= first[r] && j < last[r])
                    weight = exp2(e * 1.4426950408889634 - (double)lse[r]);
                const double score =
                    weight * ((double)dp[r * STRIDE + j] - (double)delta[r]) * slope;
                assert_true(fabs((double)p[r * STRIDE + j] - weight) <= 0x1p-21 * weight);
                assert_true(fabs((double)d[r * STRIDE + j] - score) <=
                            0x1p-21 * (weight * 2 + fabs(score)));
            }
        }
    }
}

/* ---- exponentials and the rest --------------------------------------------------------------- */

static double ulps(float got, double wanted) {
    const double unit = ldexp(1, ilogb((float)wanted) - 23);
    return fabs((double)got - wanted) / unit;
}

/* The softmax's exp2 on [-126, 0], tested with a step whose max exponent is 0. */
static void exp2_is_within_3_units(void **state) {
    (void)state;
    float scores[AT_MAX_ROWS * AT_SCORE_STRIDE], weights[AT_MAX_ROWS * AT_SCORE_STRIDE], max, sum,
        x[AT_TILE];
    double worst = 0;
    for (int n = 0; n < 6000; n++) {
        at_step step = {.rows = 1,
                        .dtype = ATTUNE_F32,
                        .tiles = 1,
                        .max = &max,
                        .sum = &sum,
                        .scores = scores,
                        .weights = weights,
                        .factor = 1,
                        .to = AT_TILE};
        step.last[0] = AT_TILE;
        max = 0;
        sum = 1;
        for (int j = 0; j < AT_TILE; j++)
            x[j] = scores[j] = n % 2 ? -126.0f * (draw_number() + 1) / 2 : -(draw_number() + 1);
        set.attention.softmax(&step);
        for (int j = 0; j < AT_TILE; j++) worst = fmax(worst, ulps(scores[j], exp2((double)x[j])));
    }
    if (!(worst <= 3)) fail_msg("%s: exp2 errs by %g units", set_name, worst);
    at_step step = {.rows = 1,
                    .dtype = ATTUNE_F32,
                    .tiles = 1,
                    .max = &max,
                    .sum = &sum,
                    .scores = scores,
                    .weights = weights,
                    .factor = 1,
                    .to = AT_TILE};
    step.last[0] = AT_TILE;
    max = 0;
    for (int j = 0; j < AT_TILE; j++) scores[j] = 0;
    scores[0] = -126.5f;
    scores[1] = -INFINITY;
    scores[2] = NAN;
    scores[3] = -1e30f;
    set.attention.softmax(&step);
    assert_true(scores[0] == 0 && scores[1] == 0 && isnan(scores[2]) && scores[3] == 0);
}

static void exp_is_within_2_units(void **state) {
    (void)state;
    float x[4096], y[4096];
    double worst = 0;
    for (int n = 0; n < 50; n++) {
        for (int i = 0; i < 4096; i++) x[i] = 87.0f * draw_number();
        set.elementwise.exp(x, y, 4096);
        for (int i = 0; i < 4096; i++) worst = fmax(worst, ulps(y[i], exp((double)x[i])));
    }
    if (!(worst <= 2)) fail_msg("%s: exp errs by %g units", set_name, worst);
}

static void sixteen_bits_convert(void **state) {
    (void)state;
    uint16_t half[65536], back[65536];
    float *full = malloc(sizeof(float) * 65536);
    for (int i = 0; i < 65536; i++) half[i] = (uint16_t)i;
    set.elementwise.f16_to_f32(half, full, 65536);
    for (int i = 0; i < 65536; i++)
        assert_true(full[i] == at_f16_to_f32((uint16_t)i) ||
                    (isnan(full[i]) && isnan(at_f16_to_f32((uint16_t)i))));
    set.elementwise.f32_to_f16(full, back, 65536);
    for (int i = 0; i < 65536; i++) assert_true(back[i] == i || isnan(full[i]));
    set.elementwise.bf16_to_f32(half, full, 65536);
    set.elementwise.f32_to_bf16(full, back, 65536);
    for (int i = 0; i < 65536; i++)
        assert_true(back[i] == i || (isnan(full[i]) && isnan(at_bf16_to_f32(back[i]))));
    for (int i = 0; i < 65536; i++) full[i] = draw_number() * exp2f(20 * draw_number());
    set.elementwise.f32_to_bf16(full, back, 65536);
    for (int i = 0; i < 65536; i++) assert_int_equal(back[i], at_f32_to_bf16(full[i]));
    set.elementwise.f32_to_f16(full, back, 65536);
    for (int i = 0; i < 65536; i++) assert_int_equal(back[i], at_f32_to_f16(full[i]));
    free(full);
}

static void rotations_follow_the_formula(void **state) {
    (void)state;
    for (int64_t pairs = 1; pairs < 40; pairs++) {
        float x[80], c[40], s[40], y[80], z[80];
        draw_numbers(x, 80);
        draw_numbers(c, 40);
        draw_numbers(s, 40);
        set.elementwise.rotate_halves(x, c, s, 1, pairs, y);
        set.elementwise.rotate_pairs(x, c, s, -1, pairs, z);
        for (int64_t i = 0; i < pairs; i++) {
            assert_true(fabsf(y[i] - (x[i] * c[i] - x[i + pairs] * s[i])) < 1e-6f &&
                        fabsf(y[i + pairs] - (x[i + pairs] * c[i] + x[i] * s[i])) < 1e-6f);
            assert_true(fabsf(z[2 * i] - (x[2 * i] * c[i] + x[2 * i + 1] * s[i])) < 1e-6f &&
                        fabsf(z[2 * i + 1] - (x[2 * i + 1] * c[i] - x[2 * i] * s[i])) < 1e-6f);
        }
    }
}

/* Rows of features, each kernel against a plain loop. */
static void features_follow_the_formulas(void **state) {
    (void)state;
    enum { ROWS = 5, STRIDE = 112 };
    const at_linear_kernels *kernels = &set.linear;
    for (int64_t n = 1; n <= 100; n += n < 40 ? 1 : 13) {
        float x[ROWS * STRIDE], y[ROWS * STRIDE], z[ROWS * STRIDE], sums[STRIDE], max[ROWS],
            products[ROWS], squares[ROWS], through[ROWS];
        draw_numbers(x, ROWS * STRIDE);
        draw_numbers(y, ROWS * STRIDE);
        draw_numbers(sums, STRIDE);
        for (int i = 0; i < ROWS * STRIDE; i++) x[i] *= 8;
        kernels->max(x, STRIDE, ROWS, n, max);
        kernels->dot(x, STRIDE, ROWS, n, y, products);
        kernels->squares(x, STRIDE, ROWS, n, 0.25f, squares);
        for (int r = 0; r < ROWS; r++) {
            double best = -INFINITY, dot = 0, square = 0;
            for (int64_t i = 0; i < n; i++) {
                const double a = (double)x[r * STRIDE + i];
                best = fmax(best, a);
                dot += a * (double)y[i];
                square += 0.25 * a * a;
            }
            assert_true((double)max[r] == best);
            assert_true(fabs((double)products[r] - dot) <= 1e-3 &&
                        fabs((double)squares[r] - square) <= 1e-5 * square);
        }
        for (int kind = 0; kind < 3; kind++) {
            memcpy(z, x, sizeof z);
            if (kind == 0) kernels->exp(z, STRIDE, ROWS, n, max, 0.125f);
            if (kind == 1) kernels->relu(z, STRIDE, ROWS, n, 0.125f);
            if (kind == 2) kernels->elu(x, STRIDE, ROWS, n, 0.125f, z, STRIDE);
            for (int i = 0; i < ROWS * STRIDE; i++) {
                const double a = (double)x[i], e = kind == 0   ? exp(a - (double)max[i / STRIDE])
                                                   : kind == 1 ? fmax(a, 0)
                                                   : a > 0     ? a + 1
                                                               : exp(a);
                if (i % STRIDE >= n)
                    assert_true(z[i] == x[i]); /* beyond the row nothing is written */
                else if (!(fabs((double)z[i] - 0.125 - e) <= 4e-6 * (1 + e)))
                    fail_msg("%s: kind %d, n %d, element %d: %g, expected %g", set_name, kind,
                             (int)n, i, (double)z[i] - 0.125, e);
            }
        }
        for (int kind = 0; kind < 3; kind++) {
            memcpy(z, y, sizeof z);
            if (kind == 0) kernels->exp_backward(z, x, STRIDE, ROWS, n, 0.125f, through);
            if (kind == 1) kernels->relu_backward(z, x, STRIDE, ROWS, n, 0.125f);
            if (kind == 2) kernels->elu_backward(z, x, STRIDE, ROWS, n, 0.125f);
            for (int r = 0; r < ROWS; r++) {
                double sum = 0;
                for (int64_t i = r * STRIDE; i < (r + 1) * STRIDE; i++) {
                    const double f = (double)x[i] - 0.125,
                                 want = i - r * STRIDE >= n
                                            ? (double)y[i]
                                            : (double)y[i] * (kind == 0   ? f
                                                              : kind == 1 ? f > 0
                                                                          : fmin(f, 1));
                    if (!(fabs((double)z[i] - want) <= 1e-6 * (1 + fabs(want))))
                        fail_msg("%s: backward of kind %d, n %d: %g, expected %g", set_name, kind,
                                 (int)n, (double)z[i], want);
                    if (i - r * STRIDE < n) sum += want;
                }
                if (kind == 0) assert_true(fabs((double)through[r] - sum) <= 1e-3);
            }
        }
        kernels->dots(x, y, STRIDE, ROWS, n, through);
        for (int r = 0; r < ROWS; r++) {
            double dot = 0;
            for (int64_t i = r * STRIDE; i < r * STRIDE + n; i++)
                dot += (double)x[i] * (double)y[i];
            assert_true(fabs((double)through[r] - dot) <= 1e-3);
        }
        memcpy(z, sums, sizeof sums);
        kernels->sum(y, STRIDE, ROWS, n, z);
        kernels->prefix_dot(x, y, STRIDE, ROWS, n, sums, through);
        for (int64_t i = 0; i < STRIDE; i++) assert_true(fabsf(z[i] - sums[i]) <= 1e-5f);
        for (int r = 0; r < ROWS; r++) {
            double dot = 0;
            for (int64_t i = 0; i < n; i++) {
                double prefix = (double)sums[i];
                for (int later = r + 1; later < ROWS; later++)
                    prefix -= (double)y[later * STRIDE + i];
                dot += (double)x[r * STRIDE + i] * prefix;
            }
            assert_true(fabs((double)through[r] - dot) <= 2e-3);
        }
    }
}

/* Each product that the set has runs, and counts its operations by steps. */
static void peaks_run(void **state) {
    (void)state;
    for (int product = 0; product < AT_PRODUCTS; product++) {
        double (*peak)(int64_t) = set.limits.peak[product];
        assert_true(product != AT_FMA || peak);
        if (!peak) continue;
        const double one = peak(1);
        assert_true(one > 0 && peak(1000) == 1000 * one);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(steps_follow_the_formula),
                                       cmocka_unit_test(long_i8_scores_do_not_overflow),
                                       cmocka_unit_test(panels_multiply),
                                       cmocka_unit_test(gradients_go_through_the_softmax),
                                       cmocka_unit_test(exp2_is_within_3_units),
                                       cmocka_unit_test(exp_is_within_2_units),
                                       cmocka_unit_test(sixteen_bits_convert),
                                       cmocka_unit_test(rotations_follow_the_formula),
                                       cmocka_unit_test(features_follow_the_formulas),
                                       cmocka_unit_test(peaks_run)};
    const char *names[12];
    int count = at_simd_available(names, 11), failed = 0;
    names[count++] = "amx_emulated";
    for (int i = 0; i < count; i++) {
        if (!at_simd_table(names[i], &set)) return 1;
        set_name = names[i];
        failed += cmocka_run_group_tests_name(set_name, tests, NULL, NULL);
    }
    return failed;
}
