/* attention.c - one step of the online softmax (Milakov and Gimelshein 2018, arXiv 1805.02867; Dao et al. 2022,
 * arXiv 2205.14135, algorithm 1): a panel of rows against a block of packed keys and values.
 *
 *   s = q k^T        m' = max(m, max s)        p = 2^(s - m')
 *   l' = 2^(m - m') l + sum p                  o' = 2^(m - m') o + p v
 *
 * Both products are the same register tile: AT_ROWS rows times 2 vectors of columns, whose sums stay in registers over the
 * whole depth, while a step loads a panel's row and multiplies it by one broadcast element of each row.
 */
#include "simd/attention.h"
#include "simd/kernels/vec.h"

enum { PANEL = 2 * AT_LANES, PANELS = AT_TILE / PANEL };

void AT_KERNEL(attention)(at_attention_kernels *table);

/* One or two steps' worth of a panel's row, as f32: bf16 comes in pairs of steps. */
AT_INLINE void load_step(attune_dtype dtype, const void *b, int64_t step, int vectors, int width, vf out[2]) {
    for (int j = 0; j < vectors; j++) {
        if (dtype == ATTUNE_F16)
            out[j] = vf_load_f16((const uint16_t *)b + step * width + j * AT_LANES);
        else
            out[j] = vf_load((const float *)b + step * width + j * AT_LANES);
    }
}

/* acc[r][j] += a(r, k) * b(k, j) for k in [from, to). a(r, k) lies at a[r * row + k * step].
 * rows, vectors, dtype, row and step are constants where this is inlined. */
AT_INLINE void accumulate(int rows, int vectors, attune_dtype dtype, int64_t row, int64_t step, const float *a, const void *b, int64_t from, int64_t to,
                          vf acc[AT_ROWS][2]) {
    const int width = vectors * AT_LANES;
    if (dtype == ATTUNE_BF16) {
        for (int64_t k = from; k < to; k += 2) {
            vf even[2], odd[2];
#pragma GCC unroll 2
            for (int j = 0; j < vectors; j++) vf_load_bf16_pairs((const uint16_t *)b + k * width + 2 * j * AT_LANES, &even[j], &odd[j]);
#pragma GCC unroll 16
            for (int r = 0; r < rows; r++) {
                vf x = vf_set1(a[r * row + k * step]);
#pragma GCC unroll 2
                for (int j = 0; j < vectors; j++) acc[r][j] = vf_fma(x, even[j], acc[r][j]);
            }
#pragma GCC unroll 16
            for (int r = 0; r < rows; r++) {
                vf x = vf_set1(a[r * row + (k + 1) * step]);
#pragma GCC unroll 2
                for (int j = 0; j < vectors; j++) acc[r][j] = vf_fma(x, odd[j], acc[r][j]);
            }
        }
        return;
    }
    for (int64_t k = from; k < to; k++) {
        vf column[2];
        load_step(dtype, b, k, vectors, width, column);
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            vf x = vf_set1(a[r * row + k * step]);
#pragma GCC unroll 2
            for (int j = 0; j < vectors; j++) acc[r][j] = vf_fma(x, column[j], acc[r][j]);
        }
    }
}

/* scores[r][j] = sum over d of q[d][r] k[d][j], one K panel. */
AT_INLINE void scores_of_panel(int rows, attune_dtype dtype, const float *q, const void *k, int64_t depth, float *scores) {
    vf acc[AT_ROWS][2];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) acc[r][0] = acc[r][1] = vf_zero();
    accumulate(rows, 2, dtype, 1, rows, q, k, 0, depth, acc);
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
        vf_store(scores + r * AT_SCORE_STRIDE, acc[r][0]);
        vf_store(scores + r * AT_SCORE_STRIDE + AT_LANES, acc[r][1]);
    }
}

/* o[r][j] = alpha[r] o[r][j] + sum over keys from .. to - 1 of p[r][key] v[key][j], one panel of V's dims over consecutive tiles.
 * v[t] is the panel within tile t. */
AT_INLINE void values_of_panel(int rows, int vectors, attune_dtype dtype, const float *p, const char *const *v, int from, int to, const float *alpha, float *o,
                               int64_t o_stride) {
    vf acc[AT_ROWS][2];
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
        vf a = vf_set1(alpha[r]);
#pragma GCC unroll 2
        for (int j = 0; j < vectors; j++) acc[r][j] = vf_mul(a, vf_load(o + r * o_stride + j * AT_LANES));
    }
    for (int t = from / AT_TILE; t * AT_TILE < to; t++) {
        int base = t * AT_TILE, begin = from > base ? from - base : 0, end = to - base < AT_TILE ? to - base : AT_TILE;
        accumulate(rows, vectors, dtype, AT_SCORE_STRIDE, 1, p + base, v[t], begin, end, acc);
    }
#pragma GCC unroll 16
    for (int r = 0; r < rows; r++) {
#pragma GCC unroll 2
        for (int j = 0; j < vectors; j++) vf_store(o + r * o_stride + j * AT_LANES, acc[r][j]);
    }
}

/* A function for each number of rows, dtype and width, since a register tile must be of constant size. */
typedef void (*scores_function)(const float *q, const void *k, int64_t depth, float *scores);
typedef void (*values_function)(const float *p, const char *const *v, int from, int to, const float *alpha, float *o, int64_t o_stride);

#define INSTANCE(rows, name, dtype)                                                                                                                        \
    static void scores_##name##_##rows(const float *q, const void *k, int64_t depth, float *scores) { scores_of_panel(rows, dtype, q, k, depth, scores); } \
    static void values_##name##_##rows(const float *p, const char *const *v, int from, int to, const float *alpha, float *o, int64_t o_stride) {           \
        values_of_panel(rows, 2, dtype, p, v, from, to, alpha, o, o_stride);                                                                               \
    }                                                                                                                                                      \
    static void narrow_##name##_##rows(const float *p, const char *const *v, int from, int to, const float *alpha, float *o, int64_t o_stride) {           \
        values_of_panel(rows, 1, dtype, p, v, from, to, alpha, o, o_stride);                                                                               \
    }
#define INSTANCES(rows) INSTANCE(rows, f32, ATTUNE_F32) INSTANCE(rows, bf16, ATTUNE_BF16) INSTANCE(rows, f16, ATTUNE_F16)
INSTANCES(1)
INSTANCES(2)
#if defined AT_ISA_avx2 || defined AT_ISA_avx512
INSTANCES(3)
INSTANCES(4)
INSTANCES(5)
INSTANCES(6)
#define UP_TO_6(kind, name) kind##_##name##_1, kind##_##name##_2, kind##_##name##_3, kind##_##name##_4, kind##_##name##_5, kind##_##name##_6
#endif
#if defined AT_ISA_avx512
INSTANCES(7)
INSTANCES(8)
INSTANCES(9)
INSTANCES(10)
INSTANCES(11)
INSTANCES(12)
INSTANCES(13)
INSTANCES(14)
#define ALL_ROWS(kind, name)                                                                                                                  \
    UP_TO_6(kind, name), kind##_##name##_7, kind##_##name##_8, kind##_##name##_9, kind##_##name##_10, kind##_##name##_11, kind##_##name##_12, \
        kind##_##name##_13, kind##_##name##_14
#elif defined AT_ISA_avx2
#define ALL_ROWS(kind, name) UP_TO_6(kind, name)
#else
#define ALL_ROWS(kind, name) kind##_##name##_1, kind##_##name##_2
#endif

/* Indexed by rows - 1. */
static const scores_function scores_table[3][AT_ROWS] = {{ALL_ROWS(scores, f32)}, {ALL_ROWS(scores, bf16)}, {ALL_ROWS(scores, f16)}};
static const values_function values_table[3][AT_ROWS] = {{ALL_ROWS(values, f32)}, {ALL_ROWS(values, bf16)}, {ALL_ROWS(values, f16)}};
static const values_function narrow_table[3][AT_ROWS] = {{ALL_ROWS(narrow, f32)}, {ALL_ROWS(narrow, bf16)}, {ALL_ROWS(narrow, f16)}};

static int table_index(attune_dtype dtype) { return dtype == ATTUNE_F32 ? 0 : dtype == ATTUNE_BF16 ? 1 : 2; }

/* Exponentials of one row in place. Columns from .. to - 1 (multiples of AT_LANES) were multiplied out; the row sees first ..
 * last - 1 of them, and the others become zero. Returns what the row's earlier sums are to be multiplied by. */
static float softmax_row(float *s, int from, int to, int first, int last, float *max, float *sum) {
    const vf nothing = vf_set1(-INFINITY);
    if (first >= last) {
        for (int j = from; j < to; j += AT_LANES) vf_store(s + j, vf_zero());
        return 1.0f;
    }
    int left = first / AT_LANES * AT_LANES, right = (last + AT_LANES - 1) / AT_LANES * AT_LANES;
    if (first > left) vf_store(s + left, vf_within(vf_load(s + left), first - left, AT_LANES, nothing));
    if (last < right) vf_store(s + right - AT_LANES, vf_within(vf_load(s + right - AT_LANES), 0, last - right + AT_LANES, nothing));

    /* vf_max gives its second argument where either is NaN: a NaN score does not hide the others, and comes out of exp2. */
    vf m0 = vf_set1(*max), m1 = m0;
    int j = left;
    for (; j + 2 * AT_LANES <= right; j += 2 * AT_LANES) m0 = vf_max(vf_load(s + j), m0), m1 = vf_max(vf_load(s + j + AT_LANES), m1);
    if (j < right) m0 = vf_max(vf_load(s + j), m0);
    float greatest = vf_reduce_max(vf_max(m0, m1));
    float origin = greatest == -INFINITY ? 0.0f : greatest; /* all -inf: 2^(-inf - 0) is the zero that is wanted */

    vf o = vf_set1(origin), l0 = vf_zero(), l1 = vf_zero();
    for (j = left; j + 2 * AT_LANES <= right; j += 2 * AT_LANES) {
        vf p0 = vf_exp2(vf_sub(vf_load(s + j), o)), p1 = vf_exp2(vf_sub(vf_load(s + j + AT_LANES), o));
        vf_store(s + j, p0), vf_store(s + j + AT_LANES, p1);
        l0 = vf_add(l0, p0), l1 = vf_add(l1, p1);
    }
    if (j < right) {
        vf p0 = vf_exp2(vf_sub(vf_load(s + j), o));
        vf_store(s + j, p0);
        l0 = vf_add(l0, p0);
    }
    for (j = from; j < left; j += AT_LANES) vf_store(s + j, vf_zero());
    for (j = right; j < to; j += AT_LANES) vf_store(s + j, vf_zero());

    float alpha = 1.0f;
    if (greatest > *max) {
        float lanes[AT_LANES];
        vf_store(lanes, vf_exp2(vf_set1(*max - greatest)));
        alpha = lanes[0];
    }
    *max = greatest;
    *sum = *sum * alpha + vf_reduce_add(vf_add(l0, l1));
    return alpha;
}

static float value_at(attune_dtype dtype, const char *panel, int width, int token, int dim) {
    if (dtype == ATTUNE_F32) return ((const float *)panel)[token * width + dim];
    if (dtype == ATTUNE_F16) return at_f16_to_f32(((const uint16_t *)panel)[token * width + dim]);
    return at_bf16_to_f32(((const uint16_t *)panel)[(token / 2 * width + dim) * 2 + token % 2]);
}

/* p v where v holds an Inf or NaN: term by term, so that 0 * Inf of a token that a row does not see is never formed. */
static void values_term_by_term(const at_row_panel *rows, const at_key_block *block, const float *alpha, int64_t offset, int width, const char *const *v,
                                int64_t o_stride) {
    int end = block->tiles * AT_TILE;
    for (int r = 0; r < rows->rows; r++) {
        int first = rows->first[r] - block->begin, last = rows->last[r] - block->begin;
        const float *p = block->scores + r * AT_SCORE_STRIDE;
        for (int d = 0; d < width; d++) {
            float sum = alpha[r] * rows->o[r * o_stride + offset + d];
            for (int j = first > 0 ? first : 0; j < last && j < end; j++) sum += p[j] * value_at(block->dtype, v[j / AT_TILE], width, j % AT_TILE, d);
            rows->o[r * o_stride + offset + d] = sum;
        }
    }
}

static void cap_scores(float *s, int from, int to, float cap) {
    vf c = vf_set1(cap * 1.44269504088896340736f);
    for (int j = from; j < to; j += AT_LANES) vf_store(s + j, vf_mul(c, vf_tanh(vf_load(s + j))));
}

static void attend(const at_row_panel *rows, const at_key_block *block) {
    const int count = rows->rows, kind = table_index(block->dtype), end = block->tiles * AT_TILE;
    int first[AT_MAX_ROWS], last[AT_MAX_ROWS], from = end, to = 0;
    for (int r = 0; r < count; r++) {
        first[r] = rows->first[r] - block->begin, last[r] = rows->last[r] - block->begin;
        if (first[r] < 0) first[r] = 0;
        if (last[r] > end) last[r] = end;
        if (first[r] >= last[r]) continue;
        if (first[r] < from) from = first[r];
        if (last[r] > to) to = last[r];
    }
    if (from >= to) return;

    /* Whole panels that some row sees. */
    const int64_t size = attune_dtype_size(block->dtype), Dp = at_round_up(block->D, AT_DIM), Dvp = at_round_up(block->Dv, AT_DIM);
    const int left = from / PANEL * PANEL, right = (to + PANEL - 1) / PANEL * PANEL;
    for (int j = left; j < right; j += PANEL) {
        const char *panel = (const char *)block->k[j / AT_TILE] + (int64_t)(j % AT_TILE) * Dp * size;
        scores_table[kind][count - 1](rows->q, panel, block->D, block->scores + j);
    }

    float alpha[AT_MAX_ROWS];
    for (int r = 0; r < count; r++) {
        float *s = block->scores + r * AT_SCORE_STRIDE;
        if (block->softcap > 0) cap_scores(s, left, right, block->softcap);
        alpha[r] = softmax_row(s, left, right, first[r], last[r], &rows->max[r], &rows->sum[r]);
    }

    for (int64_t d = 0; d < Dvp; d += PANEL) {
        const char *v[AT_BLOCK_TILES];
        for (int t = 0; t < block->tiles; t++) v[t] = (const char *)block->v[t] + d * AT_TILE * size;
        const bool narrow = Dvp - d < PANEL;
        /* bf16 goes by pairs of tokens; the one before an odd start has p = 0 in every row. */
        const int begin = from & ~1, stop = (to + 1) & ~1;
        if (!block->v_finite)
            values_term_by_term(rows, block, alpha, d, narrow ? AT_LANES : PANEL, v, Dvp);
        else
            (narrow ? narrow_table : values_table)[kind][count - 1](block->scores, v, begin, stop, alpha, rows->o + d, Dvp);
    }
}

void AT_KERNEL(attention)(at_attention_kernels *table) {
    table->rows = AT_ROWS;
    table->panel = PANEL;
    table->attend = attend;
}
