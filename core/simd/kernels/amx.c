/* amx.c - scores and values through the tile registers of AMX, for bf16 and i8. The packed tiles of
 * keys and values (simd/tile.h) have the layout that the instructions take.
 *
 * A line is what one row of a tile register holds: a bf16 row is one line, an i8 row is two lines,
 * one per digit. One step takes up to 32 lines times 32 columns: 2 x 2 tile registers of sums (C),
 * 2 of lines (A) and 2 of columns (B).
 *
 *   C 0 1    lines 0 .. 15 times columns 0 .. 15 and 16 .. 31      A 4    B 6 7
 *     2 3    lines 16 .. 31 times the same columns                   5
 *
 * The packed rows are [lines][depth]. A depth that is not a multiple of a tile register's depth
 * goes to the set's vector kernels.
 */
#if defined AT_ISA_amx || defined AT_ISA_amx_emulated
#include "simd/attention_kernels.h"
#include "simd/kernels/product.h"
#include "simd/kernels/tiles.h"
#include "simd/kernels/vector_steps.h"
#include "simd/limit_kernels.h"

void AT_KERNEL(amx)(at_attention_kernels *table, at_limit_kernels *limits, at_geometry *geometry);

enum {
    LINES = 32,
    TILE_COLUMNS = 16,
    TILE_BYTES = 64,
    PANEL_TILES = AT_PANEL / TILE_COLUMNS,
    MIN_ROWS = 8
};

/* Elements of the depth in one row of a tile register. */
static int64_t tile_depth(at_product product) { return product == AT_DOT_I8 ? 64 : 32; }
static int lines_of(const at_step *s) { return s->product == AT_DOT_I8 ? 2 * s->rows : s->rows; }
/* With few rows the tile registers are mostly empty, and the vectors read memory faster. */
static bool takes(at_product product, int rows, int64_t D) {
    return product != AT_FMA && rows >= MIN_ROWS && D % tile_depth(product) == 0 && D <= 512;
}

/* Runs a vector kernel, which takes fewer rows at a time. */
static void in_groups(at_step *s, void (*kernel)(at_step *)) {
    const int64_t Dp = at_round_up(s->D, AT_DIM), Dvp = at_round_up(s->Dv, AT_DIM);
    const int max_rows = vector_rows(s->product);
    at_step part = *s;
    for (int r = 0; r < s->rows; r += max_rows) {
        part.rows = s->rows - r < max_rows ? s->rows - r : max_rows;
        part.q = (const float *)s->q + r * Dp;
        part.q_scale = s->q_scale + 3 * r;
        part.o = s->o + r * Dvp;
        part.scores = s->scores + r * AT_SCORE_STRIDE;
        /* A row of weights is bf16, or two lines of bytes. */
        part.weights = (char *)s->weights + r * AT_SCORE_STRIDE * 2;
        memcpy(part.alpha, s->alpha + r, (size_t)part.rows * sizeof *s->alpha);
        memcpy(part.weight_scale, s->weight_scale + r, (size_t)part.rows * sizeof *s->weight_scale);
        kernel(&part);
    }
}

static void configure(int lines) {
    tile_shapes shapes = {.palette = 1};
    for (int t = 0; t < 8; t++) {
        const bool lower = t == 2 || t == 3 || t == 5;
        const int rows = t >= 6 ? 16 : lower ? lines - 16 : lines;
        shapes.rows[t] = (uint8_t)(rows > 16 ? 16 : rows < 1 ? 1 : rows);
        shapes.bytes[t] = TILE_BYTES;
    }
    TILE_CONFIGURE(&shapes);
}

/* One step of the depth, for one or two tile registers of lines and of columns. Each is loaded just
 * before its first use. */
#define STEP(dot, lines, stride, columns, column_stride, lower, right) \
    do {                                                               \
        TILE_LOAD(4, lines, stride);                                   \
        TILE_LOAD(6, columns, column_stride);                          \
        dot(0, 4, 6);                                                  \
        if (right) {                                                   \
            TILE_LOAD(7, (columns) + TILE_BYTES, column_stride);       \
            dot(1, 4, 7);                                              \
        }                                                              \
        if (lower) {                                                   \
            TILE_LOAD(5, (lines) + 16 * (stride), stride);             \
            dot(2, 5, 6);                                              \
            if (right) dot(3, 5, 7);                                   \
        }                                                              \
    } while (0)

static void store_sums(float *to, int64_t stride, bool lower, bool right) {
    TILE_STORE(0, to, stride * 4);
    if (right) TILE_STORE(1, to + TILE_COLUMNS, stride * 4);
    if (lower) TILE_STORE(2, to + 16 * stride, stride * 4);
    if (lower && right) TILE_STORE(3, to + 16 * stride + TILE_COLUMNS, stride * 4);
}

static void load_sums(const float *from, int64_t stride, bool lower, bool right) {
    TILE_LOAD(0, from, stride * 4);
    if (right) TILE_LOAD(1, from + TILE_COLUMNS, stride * 4);
    if (lower) TILE_LOAD(2, from + 16 * stride, stride * 4);
    if (lower && right) TILE_LOAD(3, from + 16 * stride + TILE_COLUMNS, stride * 4);
}

static void zero_sums(void) {
    TILE_ZERO(0);
    TILE_ZERO(1);
    TILE_ZERO(2);
    TILE_ZERO(3);
}

/* Prefetches this step's part of `bytes` bytes at prefetch + offset: every part_count-th cache
 * line. */
static void prefetch_part(const at_step *s, const void *prefetch, int64_t offset, int64_t bytes) {
    if (!prefetch) return;
    for (int64_t at = s->part_index * 64; at < bytes; at += s->part_count * 64)
        __builtin_prefetch((const char *)prefetch + offset + at, 0, 2);
}

/* ---- scores ---------------------------------------------------------------------------------- */

/* Scores from the sums of digits and from the scales. sums: [lines][AT_PANEL], two lines per row.
 * Sums and biases are integers below 2^24, which f32 holds exactly. */
static void store_i8_scores(const at_step *s, const float *sums, int column) {
    const float *scale = s->k_scale[column / AT_TILE] + column % AT_TILE;
    for (int r = 0; r < s->rows; r++) {
        int32_t bias[2];
        memcpy(bias, &s->q_scale[s->rows + 2 * r], 8);
        const vf high_bias = vf_set1((float)bias[0]), low_bias = vf_set1((float)bias[1]),
                 row_scale = vf_set1(s->q_scale[r]);
        for (int j = 0; j < AT_PANEL; j += AT_LANES) {
            const vf high = vf_add(vf_of_i32(vf_load(sums + 2 * r * AT_PANEL + j)), high_bias);
            const vf low = vf_add(vf_of_i32(vf_load(sums + (2 * r + 1) * AT_PANEL + j)), low_bias);
            const vf x = vf_fma(high, vf_set1(128.0f), low);
            vf_store(s->scores + r * AT_SCORE_STRIDE + column + j,
                     vf_mul(vf_mul(x, row_scale), vf_load(scale + j)));
        }
    }
}

static void scores(at_step *s) {
    if (s->product == AT_FMA) {
        AT_KERNEL(vector_scores)(s);
        return;
    }
    if (!takes(s->product, s->rows, s->D)) {
        in_groups(s, AT_KERNEL(vector_scores));
        return;
    }
    const int lines = lines_of(s), left = s->from / AT_PANEL * AT_PANEL,
              right = (s->to + AT_PANEL - 1) / AT_PANEL * AT_PANEL;
    const bool lower = lines > 16, two = PANEL_TILES > 1, i8 = s->product == AT_DOT_I8;
    const int64_t line_bytes = i8 ? s->D : 2 * s->D,
                  panel_bytes = AT_PANEL * 4; /* of a step of the depth, over a panel */
    configure(lines);
    for (int column = left; column < right; column += AT_PANEL) {
        const int64_t offset = column % AT_TILE * at_round_up(s->D, AT_DIM) * (i8 ? 1 : 2);
        const char *k = (const char *)s->k[column / AT_TILE] + offset, *q = s->q;
        zero_sums();
        for (int64_t at = 0; at < line_bytes; at += TILE_BYTES) {
            if (i8)
                STEP(TILE_DOT_S8U8, q + at, line_bytes, k + at / 4 * panel_bytes, panel_bytes,
                     lower, two);
            else
                STEP(TILE_DOT_BF16, q + at, line_bytes, k + at / 4 * panel_bytes, panel_bytes,
                     lower, two);
            prefetch_part(s, s->k_prefetch[column / AT_TILE], offset + at / 4 * panel_bytes,
                          TILE_BYTES / 4 * panel_bytes);
        }
        if (i8) {
            float sums[LINES * AT_PANEL];
            store_sums(sums, AT_PANEL, lower, two);
            store_i8_scores(s, sums, column);
        } else {
            store_sums(s->scores + column, AT_SCORE_STRIDE, lower, two);
        }
    }
    TILE_RELEASE();
}

/* ---- values ---------------------------------------------------------------------------------- */

/* A tile register takes 32 or 64 tokens of the depth. The weights of tokens outside the computed
 * panels become zero. */
static void pad_weights(const at_step *s, int lines, int64_t bytes, int begin, int end) {
    const int left = s->from / AT_PANEL * AT_PANEL,
              right = (s->to + AT_PANEL - 1) / AT_PANEL * AT_PANEL;
    for (int i = 0; i < lines; i++) {
        char *line = (char *)s->weights + i * AT_SCORE_STRIDE * bytes;
        memset(line + begin * bytes, 0, (size_t)((left - begin) * bytes));
        memset(line + right * bytes, 0, (size_t)((end - right) * bytes));
    }
}

static void add_i8_values(const at_step *s, const float *sums, int64_t d, int64_t width,
                          int64_t Dvp) {
    for (int r = 0; r < s->rows; r++) {
        const vf alpha = vf_set1(s->alpha[r]), scale = vf_set1(s->weight_scale[r]);
        for (int64_t j = 0; j < width; j += AT_LANES) {
            float *o = s->o + r * Dvp + d + j;
            const vf high = vf_of_i32(vf_load(sums + 2 * r * AT_PANEL + j)),
                     low = vf_of_i32(vf_load(sums + (2 * r + 1) * AT_PANEL + j));
            vf_store(o,
                     vf_fma(vf_fma(high, vf_set1(256.0f), low), scale, vf_mul(alpha, vf_load(o))));
        }
    }
}

/* Most rows reach their max score after a few tiles; from then on alpha is 1. */
static void scale_sums(const at_step *s, int64_t Dvp) {
    for (int r = 0; r < s->rows; r++) {
        if (s->alpha[r] == 1.0f) continue;
        const vf alpha = vf_set1(s->alpha[r]);
        for (float *o = s->o + r * Dvp, *end = o + Dvp; o < end; o += AT_LANES)
            vf_store(o, vf_mul(alpha, vf_load(o)));
    }
}

static void values(at_step *s) {
    if (s->product == AT_FMA || !s->v_finite) {
        AT_KERNEL(vector_values)(s);
        return;
    }
    if (s->rows < MIN_ROWS) {
        in_groups(s, AT_KERNEL(vector_values));
        return;
    }
    const bool i8 = s->product == AT_DOT_I8;
    const int64_t Dvp = at_round_up(s->Dv, AT_DIM), bytes = i8 ? 1 : 2,
                  stride = AT_SCORE_STRIDE * bytes;
    const int lines = lines_of(s), depth = (int)tile_depth(s->product),
              begin = s->from / depth * depth, end = (int)at_round_up(s->to, depth);
    const bool lower = lines > 16;
    pad_weights(s, lines, bytes, begin, end);
    if (!i8) scale_sums(s, Dvp);
    configure(lines);
    for (int64_t d = 0; d < Dvp; d += AT_PANEL) {
        const int64_t width = Dvp - d < AT_PANEL ? Dvp - d : AT_PANEL, step_bytes = width * 4;
        const bool two = width > TILE_COLUMNS;
        if (i8)
            zero_sums();
        else
            load_sums(s->o + d, Dvp, lower, two);
        for (int j = begin; j < end; j += depth) {
            const int64_t offset = d * AT_TILE * bytes + j % AT_TILE * bytes / 4 * step_bytes;
            const char *v = (const char *)s->v[j / AT_TILE] + offset;
            const char *weights = (const char *)s->weights + j * bytes;
            if (i8)
                STEP(TILE_DOT_U8S8, weights, stride, v, step_bytes, lower, two);
            else
                STEP(TILE_DOT_BF16, weights, stride, v, step_bytes, lower, two);
            prefetch_part(s, s->v_prefetch[j / AT_TILE], offset, TILE_BYTES / 4 * step_bytes);
        }
        if (i8) {
            float sums[LINES * AT_PANEL];
            store_sums(sums, AT_PANEL, lower, two);
            add_i8_values(s, sums, d, width, Dvp);
        } else {
            store_sums(s->o + d, Dvp, lower, two);
        }
    }
    TILE_RELEASE();
}

/* ---- rows ------------------------------------------------------------------------------------ */

static void pack_queries(at_product product, const float *x, int64_t stride, int rows, int64_t D,
                         float factor, void *to, float *q_scale) {
    if (!takes(product, rows, D)) {
        const int max_rows = vector_rows(product);
        for (int r = 0; r < rows; r += max_rows) AT_KERNEL(vector_pack_queries)
        (product, x + r * stride, stride, rows - r < max_rows ? rows - r : max_rows, D, factor,
         (float *)to + r * at_round_up(D, AT_DIM), q_scale + 3 * r);
        return;
    }
    if (product == AT_DOT_BF16) {
        const vf by = vf_set1(factor);
        for (int r = 0; r < rows; r++)
            for (int64_t d = 0; d < D; d += 2 * AT_LANES) {
                const float *from = x + r * stride + d;
                vf_store_bf16_two((uint16_t *)to + r * D + d, vf_mul(vf_load(from), by),
                                  vf_mul(vf_load(from + AT_LANES), by));
            }
        return;
    }
    /* The vector kernel packs the digits of one row at a time; each quad of a line is copied to its
     * offset in the line. */
    for (int r = 0; r < rows; r++) {
        uint32_t digits[2 * 512];
        float scale[3];
        AT_KERNEL(vector_pack_queries)
        (product, x + r * stride, stride, 1, D, factor, digits, scale);
        for (int line = 0; line < 2; line++)
            for (int64_t quad = 0; quad < D / 4; quad++)
                memcpy((char *)to + (2 * r + line) * D + 4 * quad, &digits[2 * quad + line], 4);
        q_scale[r] = scale[0];
        q_scale[rows + 2 * r] = scale[1];
        q_scale[rows + 2 * r + 1] = scale[2];
    }
}

/* Each step is 4 products of 16 lines x 16 columns x a depth of 32, with no loads. The sums stay
 * zero. */
static double peak(int64_t steps) {
    configure(LINES);
    zero_sums();
    TILE_ZERO(4);
    TILE_ZERO(5);
    TILE_ZERO(6);
    TILE_ZERO(7);
    for (int64_t i = 0; i < steps; i++) {
        TILE_DOT_BF16(0, 4, 6);
        TILE_DOT_BF16(1, 4, 7);
        TILE_DOT_BF16(2, 5, 6);
        TILE_DOT_BF16(3, 5, 7);
    }
    TILE_RELEASE();
    return (double)steps * 4 * 16 * 16 * 32 * 2;
}

void AT_KERNEL(amx)(at_attention_kernels *table, at_limit_kernels *limits, at_geometry *geometry) {
    geometry->rows[AT_DOT_BF16] = LINES;
    geometry->min_rows = MIN_ROWS;
    geometry->rows[AT_DOT_I8] = LINES / 2;
    limits->peak[AT_DOT_BF16] = peak;
    table->scores = scores;
    table->values = values;
    table->pack_queries = pack_queries;
}

#else
typedef int no_tiles_in_this_set;
#endif
