/* pack.c - packs tokens into tiles (simd/tile.h has the layout) and rows for the products. */
#include "simd/attention_kernels.h"
#include "simd/kernels/product.h"
#include "simd/kernels/vector_steps.h"

void AT_KERNEL(pack)(at_attention_kernels *table);

/* Steps of the depth that are interleaved: a group. */
static int group_of(attune_dtype dtype) {
    return dtype == ATTUNE_BF16 ? 2 : dtype == ATTUNE_I8 ? (AT_HAS_DOT_I8 ? 4 : 2) : 1;
}

/* Stores one element of a panel: step `depth`, column `column` of `width`. */
static void put(attune_dtype dtype, void *panel, int64_t width, int64_t depth, int64_t column,
                float x, int bias) {
    const int group = group_of(dtype);
    const int64_t at = (depth / group * width + column) * group + depth % group;
    switch (dtype) {
    case ATTUNE_F32: ((float *)panel)[at] = x; break;
    case ATTUNE_BF16: ((uint16_t *)panel)[at] = at_f32_to_bf16(x); break;
    case ATTUNE_F16: ((uint16_t *)panel)[at] = at_f32_to_f16(x); break;
    default: ((uint8_t *)panel)[at] = (uint8_t)((int)rintf(x) + bias); break;
    }
}

/* Stores a vector of columns, from `column` on, for the group that begins at step `depth`. x: one
 * vector per step of the group. */
static void put_vector(attune_dtype dtype, void *panel, int64_t width, int64_t depth,
                       int64_t column, const vf *x, int bias) {
    const int64_t at = depth * width + column * group_of(dtype);
    switch (dtype) {
    case ATTUNE_F32: vf_store((float *)panel + at, x[0]); break;
    case ATTUNE_BF16: vf_store((float *)panel + at / 2, vf_pairs(x[0], x[1])); break;
    case ATTUNE_F16: vf_store_f16((uint16_t *)panel + at, x[0]); break;
    default:
#if AT_HAS_DOT_I8
        vf_store((float *)panel + at / 4, vf_quads(x[0], x[1], x[2], x[3], bias));
#else
        (void)bias;
        vf_store_i8_pairs((int8_t *)panel + at, x[0], x[1]);
#endif
    }
}

/* Returns the factor that makes integers of a token's elements; *scale is its inverse. A token with
 * an Inf or NaN becomes NaN in every dim: scale NaN, factor 0. */
static float digits_of(const float *x, int64_t n, float *scale) {
    vf m = vf_zero(), finite = vf_zero();
    for (int64_t i = 0; i < n; i += AT_LANES) {
        vf a = n - i < AT_LANES ? vf_load_part(x + i, (int)(n - i)) : vf_load(x + i);
        m = vf_max(vf_abs(a), m);
        finite = vf_fma(a, vf_zero(), finite);
    }
    const float max = vf_reduce_max(m), digits = max > 0x1p-100f ? 127.0f / max : 0.0f;
    if (vf_reduce_add(finite) != 0.0f) {
        *scale = NAN;
        return 0;
    }
    *scale = digits > 0 ? max / 127.0f : 0.0f;
    return digits;
}

/* Where tiles are packed lazily, the next key block is prefetched while this one is multiplied. A
 * prefetch beyond the end of the tensor does no harm. */
static void prefetch_next_block(const float *at, int64_t stride) {
    __builtin_prefetch(
        (const void *)((uintptr_t)at + (uintptr_t)(AT_TILE * AT_BLOCK_TILES * stride) * sizeof *at),
        0, 2);
}

/* ---- keys ------------------------------------------------------------------------------------ */

/* Packs AT_LANES tokens, [AT_LANES][D], into the columns from `column` on of a panel: one square of
 * tokens times dims after another is transposed. */
static void pack_square(const float *x, int64_t stride, int64_t D, attune_dtype dtype, void *panel,
                        int64_t column, const float *digits, int bias) {
    const int group = group_of(dtype);
    for (int64_t d = 0; d < D; d += AT_LANES) {
        vf rows[AT_LANES];
        const int64_t n = D - d < AT_LANES ? D - d : AT_LANES;
        for (int i = 0; i < AT_LANES; i++) {
            prefetch_next_block(x + i * stride + d, stride);
            rows[i] = n < AT_LANES ? vf_load_part(x + i * stride + d, (int)n)
                                   : vf_load(x + i * stride + d);
            if (dtype == ATTUNE_I8) rows[i] = vf_mul(rows[i], vf_set1(digits[i]));
        }
        vf_transpose(rows);
        for (int64_t i = 0; i < at_round_up(n, group); i += group)
            put_vector(dtype, panel, AT_PANEL, d + i, column, rows + i, bias);
    }
}

static void pack_keys(const float *x, int64_t stride, int first, int tokens, int64_t D,
                      attune_dtype dtype, void *tile, float *scale) {
    const int64_t panel_bytes = at_round_up(D, AT_DIM) * AT_PANEL * attune_dtype_size(dtype);
    const int bias = dtype == ATTUNE_I8 && AT_HAS_DOT_I8 ? 128 : 0;
    float digits[AT_TILE];
    for (int i = 0; i < tokens && dtype == ATTUNE_I8; i++)
        digits[i] = digits_of(x + i * stride, D, scale + first + i);
    for (int i = 0; i < tokens;) {
        const int j = first + i, column = j % AT_PANEL;
        void *panel = (char *)tile + j / AT_PANEL * panel_bytes;
        if (column % AT_LANES == 0 && tokens - i >= AT_LANES) {
            pack_square(x + i * stride, stride, D, dtype, panel, column, digits + i, bias);
            i += AT_LANES;
            continue;
        }
        const float *row = x + i * stride;
        for (int64_t d = 0; d < D; d++) {
            /* A token with an Inf or NaN has digits 0; 0 * Inf must not be formed. */
            const float value = dtype != ATTUNE_I8 ? row[d]
                                : digits[i] > 0    ? row[d] * digits[i]
                                                   : 0;
            put(dtype, panel, AT_PANEL, d, column, value, bias);
        }
        i++;
    }
}

/* ---- values ---------------------------------------------------------------------------------- */

/* Packs one group of tokens; the first one is at a multiple of the group. */
static void pack_group(const float *x, int64_t stride, int64_t token, int64_t Dv,
                       attune_dtype dtype, void *tile, const float *digits) {
    const int64_t Dvp = at_round_up(Dv, AT_DIM), size = attune_dtype_size(dtype);
    const int group = group_of(dtype);
    for (int64_t d = 0; d < Dv; d += AT_LANES) {
        const int64_t begin = d / AT_PANEL * AT_PANEL,
                      width = Dvp - begin < AT_PANEL ? Dvp - begin : AT_PANEL;
        vf rows[4];
        for (int i = 0; i < group; i++) {
            rows[i] = Dv - d < AT_LANES ? vf_load_part(x + i * stride + d, (int)(Dv - d))
                                        : vf_load(x + i * stride + d);
            if (dtype == ATTUNE_I8) rows[i] = vf_mul(rows[i], vf_set1(digits[i]));
        }
        put_vector(dtype, (char *)tile + begin * AT_TILE * size, width, token, d - begin, rows, 0);
    }
}

static bool pack_values(const float *x, int64_t stride, int first, int tokens, int64_t Dv,
                        attune_dtype dtype, void *tile, float *scale) {
    const int64_t Dvp = at_round_up(Dv, AT_DIM), size = attune_dtype_size(dtype);
    const int group = group_of(dtype);
    float digits[AT_TILE];
    vf finite = vf_zero();
    for (int i = 0; i < tokens; i++) {
        const float *row = x + i * stride;
        for (int64_t d = 0; d < Dv && tokens == AT_TILE; d += 16)
            prefetch_next_block(row + d, stride);
        for (int64_t d = 0; d < Dv; d += AT_LANES)
            finite =
                vf_fma(Dv - d < AT_LANES ? vf_load_part(row + d, (int)(Dv - d)) : vf_load(row + d),
                       vf_zero(), finite);
        if (dtype == ATTUNE_I8) digits[i] = digits_of(row, Dv, scale + first + i);
    }
    for (int i = 0; i < tokens;) {
        const int j = first + i;
        if (j % group == 0 && tokens - i >= group) {
            pack_group(x + i * stride, stride, j, Dv, dtype, tile, digits + i);
            i += group;
            continue;
        }
        for (int64_t d = 0; d < Dv; d++) {
            const int64_t begin = d / AT_PANEL * AT_PANEL,
                          width = Dvp - begin < AT_PANEL ? Dvp - begin : AT_PANEL;
            const float row = x[i * stride + d], value = dtype != ATTUNE_I8 ? row
                                                         : digits[i] > 0    ? row * digits[i]
                                                                            : 0;
            put(dtype, (char *)tile + begin * AT_TILE * size, width, j, d - begin, value, 0);
        }
        i++;
    }
    return vf_reduce_add(finite) == 0.0f;
}

/* ---- rows ------------------------------------------------------------------------------------ */

/* [D][rows]: a step of the product broadcasts one dim of each row. The number of dims is made even,
 * since BF16 columns are read two dims at a time. */
static void queries_for_fma(const float *x, int64_t stride, int rows, int64_t D, float factor,
                            float *to) {
    for (int r = 0; r < rows; r += AT_LANES) {
        const int n = rows - r < AT_LANES ? rows - r : AT_LANES;
        for (int64_t d = 0; d < D; d += AT_LANES) {
            const int64_t dims = D - d < AT_LANES ? D - d : AT_LANES;
            vf square[AT_LANES];
            for (int i = 0; i < AT_LANES; i++) {
                const float *at = x + (r + (i < n ? i : 0)) * stride + d;
                prefetch_next_block(at, stride);
                square[i] = vf_mul(dims < AT_LANES ? vf_load_part(at, (int)dims) : vf_load(at),
                                   vf_set1(factor));
            }
            vf_transpose(square);
            for (int64_t i = 0; i < dims; i++) vf_store_part(to + (d + i) * rows + r, square[i], n);
        }
    }
    if (D % 2) memset(to + D * rows, 0, (size_t)rows * sizeof *to);
}

/* Returns the factor that makes integers with a magnitude of at most max_integer of a row; *scale
 * is its inverse, NaN where the row holds an Inf or NaN. */
static float query_digits(const float *x, int64_t D, float factor, int max_integer, float *scale) {
    float max = 0;
    bool finite = true;
    for (int64_t d = 0; d < D; d++) {
        const float a = fabsf(x[d] * factor);
        finite = finite && a <= 3.4e38f;
        if (a > max) max = a;
    }
    const float digits = finite && max > 0x1p-100f ? (float)max_integer / max : 0;
    *scale = !finite ? NAN : digits > 0 ? max / (float)max_integer : 0;
    return digits;
}

#if AT_HAS_DOT_BF16
/* [D / 2][rows] pairs of bf16. */
static void queries_for_pairs(const float *x, int64_t stride, int rows, int64_t D, float factor,
                              uint16_t *to) {
    for (int64_t d = 0; d < at_round_up(D, 2); d++)
        for (int r = 0; r < rows; r++)
            to[(d / 2 * rows + r) * 2 + d % 2] =
                d < D ? at_f32_to_bf16(x[r * stride + d] * factor) : 0;
}
#endif

#if AT_HAS_DOT_I8
/* [D / 4][2 rows] quads. Each row is two rows of digits, 128 high + low, both from -64 to 127.
 * q_scale: [rows] scales of the integers, then one number per row of digits that compensates for
 * the 128 in k + 128: the bits of an i32. */
static void queries_for_integers(const float *x, int64_t stride, int rows, int64_t D, float factor,
                                 int8_t *to, float *q_scale) {
    for (int r = 0; r < rows; r++) {
        const float digits = query_digits(x + r * stride, D, factor, 127 * 128 + 63, q_scale + r);
        int sums[2] = {0, 0};
        for (int64_t d = 0; d < at_round_up(D, 4); d++) {
            const int n = d < D && digits > 0 ? (int)rintf(x[r * stride + d] * factor * digits) : 0,
                      high = (n + 64) >> 7, low = n - high * 128;
            int8_t *at = to + (d / 4 * 2 * rows + 2 * r) * 4 + d % 4;
            at[0] = (int8_t)high;
            at[4] = (int8_t)low;
            sums[0] += high;
            sums[1] += low;
        }
        for (int i = 0; i < 2; i++)
            q_scale[rows + 2 * r + i] = at_f32_of_bits((uint32_t)(-128 * sums[i]));
    }
}
#else
/* [D / 2][rows] pairs of 16-bit integers. They are as large as possible while no sum of D products
 * with 8-bit integers overflows 32 bits. q_scale: [rows] scales of the integers. */
static void queries_for_integers(const float *x, int64_t stride, int rows, int64_t D, float factor,
                                 int16_t *to, float *q_scale) {
    const int64_t fits = INT32_MAX / (127 * D);
    for (int r = 0; r < rows; r++) {
        const float digits = query_digits(x + r * stride, D, factor,
                                          fits < INT16_MAX ? (int)fits : INT16_MAX, q_scale + r);
        for (int64_t d = 0; d < at_round_up(D, 2); d++)
            to[(d / 2 * rows + r) * 2 + d % 2] =
                (int16_t)(d < D && digits > 0 ? (int)rintf(x[r * stride + d] * factor * digits)
                                              : 0);
    }
}
#endif

void AT_KERNEL(vector_pack_queries)(at_product product, const float *x, int64_t stride, int rows,
                                    int64_t D, float factor, void *to, float *q_scale) {
#if AT_HAS_DOT_BF16
    if (product == AT_DOT_BF16) queries_for_pairs(x, stride, rows, D, factor, to);
#endif
    if (product == AT_DOT_I8) queries_for_integers(x, stride, rows, D, factor, to, q_scale);
    if (product == AT_FMA) queries_for_fma(x, stride, rows, D, factor, to);
}

void AT_KERNEL(pack)(at_attention_kernels *table) {
    table->pack_keys = pack_keys;
    table->pack_values = pack_values;
    table->pack_queries = AT_KERNEL(vector_pack_queries);
}
