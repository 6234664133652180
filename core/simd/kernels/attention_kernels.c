/* attention_kernels.c - one step of the online softmax (Milakov and Gimelshein 2018, arXiv
 * 1805.02867; Dao et al. 2022, arXiv 2205.14135, algorithm 1): the rows of a register tile against
 * a key block, that is, some packed tiles of keys and values.
 *
 *   s = q k^T        m' = max(m, max s)        p = 2^(s - m')
 *   l' = 2^(m - m') l + sum p                  o' = 2^(m - m') o + p v
 */
#include "simd/attention_kernels.h"
#include "simd/kernels/product.h"
#include "simd/kernels/vector_steps.h"

void AT_KERNEL(attention)(at_attention_kernels *table, at_geometry *geometry);

/* The whole panels that overlap the columns from .. to - 1 are [left_of, right_of). */
static int left_of(const at_step *s) { return s->from / AT_PANEL * AT_PANEL; }
static int right_of(const at_step *s) { return (s->to + AT_PANEL - 1) / AT_PANEL * AT_PANEL; }

/* Floats between two rows of weights as the product takes them. One row of QUADS is two rows of
 * bytes, one per digit. */
AT_INLINE int64_t weight_stride(operand kind) {
    return kind == PAIRS || kind == WORDS ? AT_SCORE_STRIDE / 2
           : kind == QUADS                ? AT_SCORE_STRIDE / 4
                                          : AT_SCORE_STRIDE;
}

AT_INLINE bool is_integer(operand kind) { return kind == WORDS || kind == QUADS; }

/* Rows of the register tile that one row takes: QUADS take one per digit. */
AT_INLINE int lines_of(operand kind) { return kind == QUADS ? 2 : 1; }

/* ---- scores ---------------------------------------------------------------------------------- */

AT_INLINE void store_scores(int rows, int vectors, operand kind, const at_step *s, int column,
                            vf acc[AT_ROWS][2]) {
    float *to = s->scores + column;
    const float *scale = is_integer(kind) ? s->k_scale[column / AT_TILE] + column % AT_TILE : NULL;
#pragma GCC unroll 16
    for (int r = 0; r < rows; r += lines_of(kind)) {
#pragma GCC unroll 2
        for (int j = 0; j < vectors; j++) {
            vf x = acc[r][j];
            if (is_integer(kind)) {
                x = vf_of_i32(x);
                if (kind == QUADS) x = vf_fma(x, vf_set1(128.0f), vf_of_i32(acc[r + 1][j]));
                x = vf_mul(vf_mul(x, vf_set1(s->q_scale[r / lines_of(kind)])),
                           vf_load(scale + j * AT_LANES));
            }
            vf_store(to + r / lines_of(kind) * AT_SCORE_STRIDE + j * AT_LANES, x);
        }
    }
}

AT_INLINE int64_t steps_of(operand kind, const at_step *s) {
    const int64_t steps = (s->D + depth_of(kind) - 1) / depth_of(kind);
    return kind == BF16 ? at_round_up(steps, 2) : steps;
}

AT_INLINE void start_scores(int rows, operand kind, const at_step *s, vf acc[AT_ROWS][2]) {
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++)
        acc[r][0] = acc[r][1] = kind == QUADS ? vf_set1(s->q_scale[s->rows + r]) : vf_zero();
}

/* Half a panel, where no column of the other half is visible to any row. */
AT_INLINE void scores_of_half(int rows, operand kind, const at_step *s, int column) {
    const int panel = column / AT_PANEL * AT_PANEL, width = kind == BF16 ? 4 : bytes_of(kind);
    const int64_t row_bytes = at_round_up(s->D, AT_DIM) * bytes_of(kind) / depth_of(kind);
    const char *k = (const char *)s->k[panel / AT_TILE] + panel % AT_TILE * row_bytes +
                    (column - panel) * width;
    vf acc[AT_ROWS][2];
    start_scores(rows, kind, s, acc);
    accumulate(rows, 1, AT_PANEL, kind, false, 1, rows, s->q, k, 0, steps_of(kind, s), acc, NULL,
               0);
    store_scores(rows, 1, kind, s, column, acc);
}

/* scores[r][j] = sum over d of q[d][r] k[d][j]. rows: of the register tile, not of the step. */
AT_INLINE void scores_of(int rows, operand kind, const at_step *s) {
    const int64_t row_bytes = at_round_up(s->D, AT_DIM) * bytes_of(kind) / depth_of(kind);
    for (int column = left_of(s); column < right_of(s); column += AT_PANEL) {
        const bool left = s->from < column + AT_LANES;
        const bool right = s->to > column + AT_LANES;
        if (!left || !right) {
            scores_of_half(rows, kind, s, left ? column : column + AT_LANES);
            continue;
        }
        const int tile = column / AT_TILE;
        const int64_t offset = column % AT_TILE * row_bytes;
        vf acc[AT_ROWS][2];
        start_scores(rows, kind, s, acc);
        accumulate_and_prefetch(rows, 2, kind, false, 1, rows, s->q,
                                (const char *)s->k[tile] + offset, 0, steps_of(kind, s), acc,
                                s->k_prefetch[tile] ? (const char *)s->k_prefetch[tile] + offset
                                                    : NULL,
                                s->part_index, s->part_count);
        store_scores(rows, 2, kind, s, column, acc);
    }
}

/* ---- values ---------------------------------------------------------------------------------- */

/* o[r][j] = alpha[r] o[r][j] + sum over keys of p[r][key] v[key][j], for one panel of V's dims over
 * all tiles of the key block. */
AT_INLINE void values_of_panel(int rows, int vectors, operand kind, const at_step *s, int64_t d,
                               int64_t Dvp) {
    const int granule = kind == BF16 ? 2 : depth_of(kind), from = s->from / granule * granule,
              to = (s->to + granule - 1) / granule * granule;
    const float *weights = depth_of(kind) > 1 ? s->weights : s->scores;
    vf acc[AT_ROWS][2];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 2
        for (int j = 0; j < vectors; j++)
            acc[r][j] = is_integer(kind) ? vf_zero()
                                         : vf_mul(vf_set1(s->alpha[r]),
                                                  vf_load(s->o + r * Dvp + d + j * AT_LANES));
    }
    for (int t = from / AT_TILE; t * AT_TILE < to; t++) {
        const int base = t * AT_TILE, begin = from > base ? from - base : 0,
                  end = to - base < AT_TILE ? to - base : AT_TILE, depth = depth_of(kind);
        const int64_t offset = d * AT_TILE * bytes_of(kind) / depth;
        accumulate_and_prefetch(rows, vectors, kind, true, weight_stride(kind), 1,
                                weights + base / depth, (const char *)s->v[t] + offset,
                                begin / depth, end / depth, acc,
                                s->v_prefetch[t] ? (const char *)s->v_prefetch[t] + offset : NULL,
                                s->part_index, s->part_count);
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r += lines_of(kind)) {
#pragma GCC unroll 2
        for (int j = 0; j < vectors; j++) {
            const int row = r / lines_of(kind);
            float *o = s->o + row * Dvp + d + j * AT_LANES;
            vf x = acc[r][j];
            if (is_integer(kind)) {
                x = vf_of_i32(x);
                if (kind == QUADS) x = vf_fma(x, vf_set1(256.0f), vf_of_i32(acc[r + 1][j]));
                x = vf_fma(x, vf_set1(s->weight_scale[row]),
                           vf_mul(vf_set1(s->alpha[row]), vf_load(o)));
            }
            vf_store(o, x);
        }
    }
}

AT_INLINE void values_of(int rows, operand kind, const at_step *s) {
    const int64_t Dvp = at_round_up(s->Dv, AT_DIM);
    int64_t d = 0;
    for (; d + AT_PANEL <= Dvp; d += AT_PANEL) values_of_panel(rows, 2, kind, s, d, Dvp);
    if (d < Dvp) values_of_panel(rows, 1, kind, s, d, Dvp);
}

/* ---- tables of functions --------------------------------------------------------------------- */

/* One function per number of rows and kind of columns: the compiler keeps a register tile in
 * registers only where its size is a constant. */
typedef void (*step_function)(const at_step *s);

#define FUNCTIONS(rows, kind)                              \
    static void scores_##kind##_##rows(const at_step *s) { \
        scores_of(rows *lines_of(kind), kind, s);          \
    }                                                      \
    static void values_##kind##_##rows(const at_step *s) { \
        values_of(rows *lines_of(kind), kind, s);          \
    }
AT_EACH_ROW(FUNCTIONS, F32)
AT_EACH_ROW(FUNCTIONS, BF16)
AT_EACH_ROW(FUNCTIONS, F16)
#if AT_HAS_DOT_BF16
AT_EACH_ROW(FUNCTIONS, PAIRS)
#endif
#if AT_HAS_DOT_I8
AT_EACH_HALF(FUNCTIONS, QUADS)
#else
AT_EACH_ROW(FUNCTIONS, WORDS)
#endif

/* Indexed by operand, then by rows - 1. */
#define SCORES(rows, kind) scores_##kind##_##rows,
#define VALUES(rows, kind) values_##kind##_##rows,
#if AT_HAS_DOT_BF16
#define OF_PAIRS(which) [PAIRS] = {AT_EACH_ROW(which, PAIRS)},
#else
#define OF_PAIRS(which)
#endif
#if AT_HAS_DOT_I8
#define OF_INTEGERS(which) [QUADS] = {AT_EACH_HALF(which, QUADS)}
#else
#define OF_INTEGERS(which) [WORDS] = {AT_EACH_ROW(which, WORDS)}
#endif
#define TABLE(which)                                                            \
    {                                                                           \
        [F32] = {AT_EACH_ROW(which, F32)}, [BF16] = {AT_EACH_ROW(which, BF16)}, \
        [F16] = {AT_EACH_ROW(which, F16)}, OF_PAIRS(which) OF_INTEGERS(which)   \
    }
static const step_function scores_table[][AT_ROWS] = TABLE(SCORES),
                           values_table[][AT_ROWS] = TABLE(VALUES);

static operand kind_of(const at_step *s) {
    if (s->product == AT_DOT_BF16) return PAIRS;
    if (s->product == AT_DOT_I8) return AT_HAS_DOT_I8 ? QUADS : WORDS;
    return s->dtype == ATTUNE_F32 ? F32 : s->dtype == ATTUNE_BF16 ? BF16 : F16;
}

void AT_KERNEL(vector_scores)(at_step *s) { scores_table[kind_of(s)][s->rows - 1](s); }

/* ---- softmax --------------------------------------------------------------------------------- */

static void cap(at_step *s) {
    const vf inner = vf_set1(s->scale / s->softcap), outer = vf_set1(s->softcap);
    for (int r = 0; r < s->rows; r++) {
        float *x = s->scores + r * AT_SCORE_STRIDE;
        for (int j = left_of(s); j < right_of(s); j += AT_LANES)
            vf_store(x + j, vf_mul(outer, vf_tanh(vf_mul(inner, vf_load(x + j)))));
    }
}

/* The whole vectors that hold the visible columns of a row are [left_of_row, right_of_row). */
AT_INLINE int left_of_row(const at_step *s, int r) { return s->first[r] / AT_LANES * AT_LANES; }
AT_INLINE int right_of_row(const at_step *s, int r) {
    return (s->last[r] + AT_LANES - 1) / AT_LANES * AT_LANES;
}

/* In the two vectors at the edges of a row, scores of columns that are not visible become -inf;
 * beyond these vectors nothing is read. */
AT_INLINE void hide_edges(const at_step *s, int r) {
    const vf nothing = vf_set1(-INFINITY);
    float *x = s->scores + r * AT_SCORE_STRIDE;
    const int first = s->first[r], last = s->last[r], left = left_of_row(s, r),
              right = right_of_row(s, r);
    if (first > left)
        vf_store(x + left, vf_within(vf_load(x + left), first - left, AT_LANES, nothing));
    if (last < right)
        vf_store(x + right - AT_LANES,
                 vf_within(vf_load(x + right - AT_LANES), 0, last - right + AT_LANES, nothing));
}

/* The max score of a row: of its visible columns, and so far. vf_max returns
 * its second argument where either is NaN: a NaN score does not hide the others, and reaches the
 * result through exp2. */
static float max_score(const at_step *s, int r) {
    const vf nothing = vf_set1(-INFINITY);
    const float *x = s->scores + r * AT_SCORE_STRIDE;
    const int left = left_of_row(s, r), right = right_of_row(s, r);
    hide_edges(s, r);
    vf m0 = nothing, m1 = nothing;
    int j = left;
    for (; j + 2 * AT_LANES <= right; j += 2 * AT_LANES) {
        m0 = vf_max(vf_load(x + j), m0);
        m1 = vf_max(vf_load(x + j + AT_LANES), m1);
    }
    if (j < right) m0 = vf_max(vf_load(x + j), m0);
    const float max = vf_reduce_max(vf_max(m0, m1));
    return max > s->max[r] ? max : s->max[r];
}

static void store_zeros(float *x, int from, int to) {
    for (int j = from; j < to; j += AT_LANES) vf_store(x + j, vf_zero());
}

/* How weights are stored: PLAIN: in place of the scores. SCALED: the same, times the scales of i8
 * values. PAIRED: only as pairs of bf16, in `weights`. */
typedef enum weighing { PLAIN, SCALED, PAIRED } weighing;

static void store_zero_pairs(const at_step *s, int r, int from, int to) {
    uint16_t *x = (uint16_t *)s->weights + r * AT_SCORE_STRIDE;
    memset(x + from, 0, (size_t)(to - from) * sizeof *x);
}

/* The sums of a row's summaries over a key block. Each lane sums its own columns. */
typedef struct tally {
    vf exponents, distances, first;
    vf offset; /* of the next vector's columns from the query */
} tally;

AT_INLINE tally start_tally(const at_step_summaries *to, int r, int left) {
    static const float lane[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const vf zero = vf_zero(), offset = vf_set1((float)left - to->query[r]);
    return (tally){zero, zero, zero, vf_add(vf_load(lane), offset)};
}

/* Counts the weights p = 2^exponent of the vector of columns that begins with j. An exponent of
 * -inf, where p is 0, must not make NaN; vf_max keeps a NaN. */
AT_INLINE void count(tally *t, const at_step_summaries *to, int j, vf exponent, vf p) {
    t->exponents = vf_fma(p, vf_max(vf_set1(-1000.0f), exponent), t->exponents);
    t->distances = vf_fma(p, vf_abs(t->offset), t->distances);
    t->offset = vf_add(t->offset, vf_set1((float)AT_LANES));
    if (j < to->first_columns)
        t->first = vf_add(t->first, vf_within(p, 0, to->first_columns - j, vf_zero()));
}

/* Scores become weights 2^(score factor - origin), zero where a column is not visible. Returns
 * their sum. SCALED: *max_weight becomes the max of the stored weights. summarize: a constant;
 * false: there is no tally. */
AT_INLINE float weights_of_row(const at_step *s, int r, float origin, weighing as,
                               float *max_weight, bool summarize, const at_step_summaries *to,
                               tally *t) {
    const int left = left_of_row(s, r), right = right_of_row(s, r);
    const vf factor = vf_set1(s->factor), o = vf_set1(-origin);
    float *x = s->scores + r * AT_SCORE_STRIDE;
    vf l0 = vf_zero(), l1 = vf_zero(), m = vf_zero();
    int j = left;
    for (; j + 2 * AT_LANES <= right; j += 2 * AT_LANES) {
        const vf e0 = vf_fma(vf_load(x + j), factor, o),
                 e1 = vf_fma(vf_load(x + j + AT_LANES), factor, o);
        vf p0 = vf_exp2(e0), p1 = vf_exp2(e1);
        l0 = vf_add(l0, p0);
        l1 = vf_add(l1, p1);
        if (summarize) {
            count(t, to, j, e0, p0);
            count(t, to, j + AT_LANES, e1, p1);
        }
#if AT_HAS_DOT_BF16
        if (as == PAIRED) {
            vf_store_bf16_two((uint16_t *)s->weights + r * AT_SCORE_STRIDE + j, p0, p1);
            continue;
        }
#endif
        if (as == SCALED) {
            const float *scale = s->v_scale[j / AT_TILE] + j % AT_TILE;
            p0 = vf_mul(p0, vf_load(scale));
            m = vf_max(p0, m);
            scale = s->v_scale[(j + AT_LANES) / AT_TILE] + (j + AT_LANES) % AT_TILE;
            p1 = vf_mul(p1, vf_load(scale));
            m = vf_max(p1, m);
        }
        vf_store(x + j, p0);
        vf_store(x + j + AT_LANES, p1);
    }
    if (j < right) {
        const vf e0 = vf_fma(vf_load(x + j), factor, o);
        vf p0 = vf_exp2(e0);
        l0 = vf_add(l0, p0);
        if (summarize) count(t, to, j, e0, p0);
        if (as == SCALED) {
            p0 = vf_mul(p0, vf_load(s->v_scale[j / AT_TILE] + j % AT_TILE));
            m = vf_max(p0, m);
        }
        if (as == PAIRED)
            vf_store_bf16((uint16_t *)s->weights + r * AT_SCORE_STRIDE + j, p0);
        else
            vf_store(x + j, p0);
    }
    if (as == PAIRED) {
        store_zero_pairs(s, r, left_of(s), left);
        store_zero_pairs(s, r, right, right_of(s));
    } else {
        store_zeros(x, left_of(s), left);
        store_zeros(x, right, right_of(s));
    }
    if (as == SCALED) *max_weight = vf_reduce_max(m);
    return vf_reduce_add(vf_add(l0, l1));
}

/* Each row has one scale per key block, so that the weights of a block whose max is small keep
 * their digits. */
static void weights_as_integers(at_step *s, int r, float max_weight) {
    const float *x = s->scores + r * AT_SCORE_STRIDE;
    const float max_integer = AT_HAS_DOT_I8 ? 65535.0f : 32767.0f;
    const bool any = max_weight > 0x1p-100f;
    const vf digits = vf_set1(any ? max_integer / max_weight : 0.0f);
    s->weight_scale[r] = any ? max_weight / max_integer : 0.0f;
#if AT_HAS_DOT_I8
    uint8_t *high = (uint8_t *)s->weights + 2 * r * AT_SCORE_STRIDE, *low = high + AT_SCORE_STRIDE;
    for (int j = left_of(s), right = right_of(s); j < right; j += AT_LANES)
        vf_store_digits(high + j, low + j, vf_mul(vf_load(x + j), digits));
#else
    int16_t *to = (int16_t *)s->weights + r * AT_SCORE_STRIDE;
    for (int j = left_of(s), right = right_of(s); j < right; j += AT_LANES)
        vf_store_i16(to + j, vf_mul(vf_load(x + j), digits));
#endif
}

/* Keep memory busy during the softmax: prefetch about as many cache lines as can arrive while one
 * row is computed. f32 tiles take so long to read that this gains nothing there. */
static void prefetch_during_softmax(const at_step *s, int r) {
    enum { ROW_LINES = 6 };
    for (int line = 0; line < ROW_LINES; line++)
        __builtin_prefetch((const char *)s->v_prefetch[0] + (ROW_LINES * r + line) * 64, 0, 2);
}

/* A row whose exponents are large, now or before this step: max is its max score now. */
static void softmax_of_large_row(at_step *s, int r, float max) {
    s->alpha[r] = max == s->max[r]
                      ? 1.0f
                      : exp2f((float)(at_origin(s->max[r], s->factor) - at_origin(max, s->factor)));
    if (!at_is_large(max, s->factor)) return;
    float *x = s->scores + r * AT_SCORE_STRIDE;
    const vf origin = vf_set1(max);
    for (int j = s->first[r] / AT_LANES * AT_LANES; j < s->last[r]; j += AT_LANES)
        vf_store(x + j, vf_sub(vf_load(x + j), origin));
}

/* The new max score of each row, the factor alpha for its sums so far, and the origin of its
 * weights: 0 where the scores are already relative to the max score. */
static void find_origins(at_step *s, float origin[AT_MAX_ROWS]) {
    const vf factor = vf_set1(s->factor), nothing = vf_set1(-INFINITY);
    float max[AT_MAX_ROWS] = {0};
    vf largest = vf_zero(); /* of the exponents' magnitudes */
    for (int r = 0; r < s->rows; r++) {
        max[r] = s->first[r] < s->last[r] ? max_score(s, r) : s->max[r];
        /* Where all scores are -inf, the weights are 2^(-inf - 0) = 0. */
        origin[r] = max[r] == -INFINITY ? 0.0f : max[r] * s->factor;
    }
    for (int r = 0; r < s->rows; r += AT_LANES) {
        const int n = s->rows - r < AT_LANES ? s->rows - r : AT_LANES;
        const vf before = vf_mul(vf_load_part(s->max + r, n), factor), now = vf_load(origin + r);
        const vf alpha = vf_exp2(vf_sub(before, now)), none = vf_zero();
        vf_store(s->alpha + r, vf_select(vf_equal(before, now), vf_set1(1.0f), alpha));
        largest = vf_max(largest, vf_abs(now));
        largest = vf_max(largest, vf_select(vf_equal(before, nothing), none, vf_abs(before)));
    }
    if (!(vf_reduce_max(largest) < AT_LARGE_EXPONENT)) {
        for (int r = 0; r < s->rows; r++) {
            if (at_is_large(max[r], s->factor) || at_is_large(s->max[r], s->factor))
                softmax_of_large_row(s, r, max[r]);
            if (at_is_large(max[r], s->factor)) origin[r] = 0;
        }
    }
    for (int r = 0; r < s->rows; r += AT_LANES)
        vf_store_part(s->max + r, vf_load(max + r),
                      s->rows - r < AT_LANES ? s->rows - r : AT_LANES);
}

/* Adds a row's tally to its summaries, which become relative to the new origin: an exponent e that
 * was relative to the origin before is e + (origin before - origin) now. max: before this step. */
AT_INLINE void add_tally(const at_step *s, const at_step_summaries *to, int r, float max,
                         const tally *t) {
    const float alpha = s->alpha[r];
    float moved = 0;
    if (alpha != 1.0f && s->sum[r] != 0)
        moved = (float)(at_origin(max, s->factor) - at_origin(s->max[r], s->factor));
    to->exponents[r] = alpha * (to->exponents[r] + s->sum[r] * moved) + vf_reduce_add(t->exponents);
    to->distances[r] = alpha * to->distances[r] + vf_reduce_add(t->distances);
    to->first[r] = alpha * to->first[r] + vf_reduce_add(t->first);
}

/* summarize: a constant; false: no summaries. */
AT_INLINE void softmax_of(at_step *s, bool summarize, const at_step_summaries *to) {
    float origin[AT_MAX_ROWS] = {0}, max[AT_MAX_ROWS];
    if (summarize) memcpy(max, s->max, (size_t)s->rows * sizeof *max);
    find_origins(s, origin);
    /* Values that are not all finite are multiplied in f32, term by term. */
    const bool paired = s->product == AT_DOT_BF16 && s->v_finite;
    for (int r = 0; r < s->rows; r++) {
        float scaled = 0, sum = 0;
        if (s->tiles == 1 && s->v_prefetch[0] && s->dtype != ATTUNE_F32)
            prefetch_during_softmax(s, r);
        const bool any = s->first[r] < s->last[r];
        tally t;
        if (summarize) t = start_tally(to, r, left_of_row(s, r));
        if (!any && paired)
            store_zero_pairs(s, r, left_of(s), right_of(s));
        else if (!any)
            store_zeros(s->scores + r * AT_SCORE_STRIDE, left_of(s), right_of(s));
        else if (s->dtype == ATTUNE_I8)
            sum = weights_of_row(s, r, origin[r], SCALED, &scaled, summarize, to, &t);
        else if (paired)
            sum = weights_of_row(s, r, origin[r], PAIRED, NULL, summarize, to, &t);
        else
            sum = weights_of_row(s, r, origin[r], PLAIN, NULL, summarize, to, &t);
        if (summarize) add_tally(s, to, r, max[r], &t);
        s->sum[r] = s->sum[r] * s->alpha[r] + sum;
        if (s->product == AT_DOT_I8) weights_as_integers(s, r, scaled);
    }
}

static void softmax(at_step *s) { softmax_of(s, false, NULL); }

static void summarized_softmax(at_step *s, const at_step_summaries *to) { softmax_of(s, true, to); }

/* ---- column sums ----------------------------------------------------------------------------- */

static void columns(const at_step *s, float *const *sums) {
    const vf factor = vf_set1(s->factor);
    for (int r = 0; r < s->rows; r++) {
        float *to = sums[r];
        if (s->sum[r] != s->sum[r]) { /* NaN reaches the visible columns, and no others */
            for (int j = s->first[r]; j < s->last[r]; j++) to[j] = s->sum[r];
            continue;
        }
        if (s->first[r] >= s->last[r] || s->max[r] == -INFINITY) continue;
        const bool large = at_is_large(s->max[r], s->factor);
        const vf max = vf_set1(large ? s->max[r] : 0.0f), by = vf_set1(s->sum[r]),
                 origin = vf_set1(large ? 0.0f : -(s->max[r] * s->factor));
        const float *x = s->scores + r * AT_SCORE_STRIDE;
        hide_edges(s, r);
        for (int j = left_of_row(s, r), right = right_of_row(s, r); j < right; j += AT_LANES) {
            const vf score = vf_sub(vf_load(x + j), max);
            const vf p = vf_exp2(vf_fma(score, factor, origin));
            vf_store(to + j, vf_fma(p, by, vf_load(to + j)));
        }
    }
}

/* ---- values that are not all finite ---------------------------------------------------------- */

static float value_at(const at_step *s, const char *panel, int width, int token, int dim) {
    switch (s->dtype) {
    case ATTUNE_F32: return ((const float *)panel)[token * width + dim];
    case ATTUNE_F16: return at_f16_to_f32(((const uint16_t *)panel)[token * width + dim]);
    case ATTUNE_BF16:
        return at_bf16_to_f32(((const uint16_t *)panel)[(token / 2 * width + dim) * 2 + token % 2]);
    default: {
        const int group = AT_HAS_DOT_I8 ? 4 : 2;
        return (float)((const int8_t *)panel)[(token / group * width + dim) * group +
                                              token % group]; /* the weight includes the scale */
    }
    }
}

/* Term by term, so that 0 * Inf of a token that is not visible to the row is never formed. */
static void values_term_by_term(const at_step *s) {
    const int64_t Dvp = at_round_up(s->Dv, AT_DIM);
    const int64_t size = attune_dtype_size(s->dtype);
    for (int r = 0; r < s->rows; r++) {
        const float *p = s->scores + r * AT_SCORE_STRIDE;
        for (int64_t d = 0; d < Dvp; d++) {
            const int64_t panel = d / AT_PANEL * AT_PANEL,
                          width = Dvp - panel < AT_PANEL ? Dvp - panel : AT_PANEL;
            float sum = s->alpha[r] * s->o[r * Dvp + d];
            for (int j = s->first[r]; j < s->last[r]; j++) {
                const int t = j / AT_TILE;
                if (s->masked && p[j] == 0) continue;
                sum += p[j] * value_at(s, (const char *)s->v[t] + panel * AT_TILE * size,
                                       (int)width, j % AT_TILE, (int)(d - panel));
            }
            s->o[r * Dvp + d] = sum;
        }
    }
}

void AT_KERNEL(vector_values)(at_step *s) {
    if (s->v_finite)
        values_table[kind_of(s)][s->rows - 1](s);
    else
        values_term_by_term(s);
}

static at_product product(attune_dtype tile, attune_dtype rows) {
    if (tile == ATTUNE_I8) return AT_DOT_I8;
    return AT_HAS_DOT_BF16 && tile == ATTUNE_BF16 && rows == ATTUNE_BF16 ? AT_DOT_BF16 : AT_FMA;
}

void AT_KERNEL(attention)(at_attention_kernels *table, at_geometry *geometry) {
    geometry->panel = AT_PANEL;
    for (int i = 0; i < AT_PRODUCTS; i++) geometry->rows[i] = vector_rows((at_product)i);
    geometry->min_rows = 4;
    table->product = product;
    table->scores = AT_KERNEL(vector_scores);
    table->cap = cap;
    table->softmax = softmax;
    table->summarized_softmax = summarized_softmax;
    table->columns = columns;
    table->values = AT_KERNEL(vector_values);
}
