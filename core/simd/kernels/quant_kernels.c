/* quant_kernels.c - see simd/quant_kernels.h. Integer sums are exact: 32 products of at most 255 *
 * 127 are below 2^24, so that f32 holds them too, and their zero point is subtracted in f32. A
 * product in f32 makes a number of each integer and leaves the factors to the end of a block. */
#include "simd/quant_kernels.h"

#include <float.h>

#include "vec_bytes.h"

void AT_KERNEL(quant)(at_quant_kernels *table);

enum { BLOCK = 32 };

/* Loops over the parts of a block. In plain C an operation is itself a loop, and they stay loops.
 */
#if defined AT_ISA_c || defined AT_ISA_amx_emulated
#define UNROLL(n)
#else
#define DO_PRAGMA(text) _Pragma(#text)
#define UNROLL(n) DO_PRAGMA(GCC unroll n)
#endif

/* ---- activations ----------------------------------------------------------------------------- */

/* The largest magnitude of a block. *nonfinite becomes NaN where a number is not finite. */
AT_INLINE float largest_of(const float *x, vf *nonfinite) {
    vf max = vf_zero();
    for (int i = 0; i < BLOCK; i += AT_LANES) {
        const vf v = vf_load(x + i);
        max = vf_max(vf_abs(v), max);
        *nonfinite = vf_fma(v, vf_zero(), *nonfinite);
    }
    return vf_reduce_max(max);
}

static void quantise(const float *x, int64_t blocks, int8_t *q, at_activation_block *of) {
    for (int64_t b = 0; b < blocks; b++, x += BLOCK, q += BLOCK, of++) {
        float values[BLOCK];
        vf nonfinite = vf_zero();
        const float scale = largest_of(x, &nonfinite) / 127.0f, flag = vf_reduce_add(nonfinite);
        const bool used = flag == 0.0f && scale >= FLT_MIN;
        const vf inverse = vf_set1(used ? 1.0f / scale : 0.0f);
        for (int i = 0; i < BLOCK; i += AT_LANES)
            vf_store(values + i, vf_round(vf_mul(vf_load(x + i), inverse)));
        int first = 0, second = 0;
        for (int i = 0; i < BLOCK; i++) q[i] = (int8_t)(used ? (int)values[i] : 0);
        for (int i = 0; i < BLOCK / 2; i++) {
            first += q[i];
            second += q[i + BLOCK / 2];
        }
        of->scale = used ? scale : flag;
        of->sum = (float)(first + second);
        of->scaled_sum = of->scale * of->sum;
        of->first_sum = (float)first;
    }
}

#if AT_SPLIT_BITS > 0
/* The least power of two that is not below a normal x > 0, or 0 for x = 0. */
AT_INLINE float power_of_two_from(float x) {
    return at_f32_of_bits((at_bits_of_f32(x) + 0x7fffff) & 0xff800000);
}

/* Of a power of two: exact. Of 0: 2^127. */
AT_INLINE float inverse_of_power(float x) { return at_f32_of_bits(0x7f000000 - at_bits_of_f32(x)); }

/* The largest integer that planes hold. Of x that are not finite or too small, the limits make some
 * integers in range; what they are does not matter. */
static const float MOST = 8355711.0f;

static bool split(const float *x, int64_t blocks, int8_t *q, at_split_block *of) {
    const float of_largest = 1.0f / 8355000.0f; /* below MOST, which rounding does not reach */
    vf nonfinite = vf_zero();
    bool small = false;
    for (int64_t b = 0; b < blocks; b++, x += BLOCK, q += BLOCK, of++) {
        const float largest = largest_of(x, &nonfinite), least = largest * of_largest,
                    scale = power_of_two_from(least), inverse = inverse_of_power(scale);
        small = small || (least < FLT_MIN && largest > 0.0f);
        int sums[3] = {0};
        for (int i = 0; i < BLOCK; i += AT_LANES) {
            vf v = vf_round(vf_mul(vf_load(x + i), vf_set1(inverse)));
            v = vf_min(vf_max(v, vf_set1(-MOST)), vf_set1(MOST));
            sums[1 + i / 16] += vec_store_planes(v, q + i, blocks * BLOCK);
        }
        sums[0] = sums[1] + sums[2];
        of->scale = scale;
        of->scaled_sum = scale * (float)sums[0];
        for (int i = 0; i < 3; i++) {
            of->high[i] = -8 * (sums[i] >> 16);
            of->low[i] = -8 * (sums[i] & 0xffff);
        }
    }
    return !small && vf_reduce_add(nonfinite) == 0.0f;
}
#endif

/* ---- products -------------------------------------------------------------------------------- */

/* The groups 4 half .. 4 half + 3 of a block's chunks, for AT_LANES outputs from `chunks` on. */
AT_INLINE void load_groups(const uint8_t *chunks, int kind, int half, vf w[4]) {
    const int bits = at_packed_layouts[kind].bits;
    const uint8_t *low = chunks + AT_CHUNK_BYTES * at_packed_layouts[kind].high_chunks;
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        if (bits == 8) {
            w[c] = vf_load((const float *)(const void *)(chunks + AT_CHUNK_BYTES * (4 * half + c)));
            continue;
        }
        w[c] = vec_bits(vf_load((const float *)(const void *)(low + AT_CHUNK_BYTES * c)), 4 * half,
                        15);
        if (bits == 5) {
            const vf high = vf_load((const float *)(const void *)chunks);
            w[c] = vec_or(w[c], vec_bits(high, 4 * half + c - 4, 16));
        }
        if (bits == 6) {
            const vf high = vf_load((const float *)(const void *)(chunks + AT_CHUNK_BYTES * half));
            w[c] = vec_or(w[c], vec_bits(high, 2 * c - 4, 48));
        }
    }
}

AT_INLINE bool has_offsets(int kind) {
    return at_packed_layouts[kind].head == 64 || at_packed_layouts[kind].head == 320;
}

/* Factor and offset of AT_LANES outputs, from `first` of the panel on, for block b (of 32): value =
 * factor q + offset. half: of Q6_K, whose factors belong to 16 inputs. */
AT_INLINE void load_factors(const uint8_t *heads, int kind, int64_t b, int half, int first,
                            vf *factor, vf *offset) {
    const at_packed_layout *l = &at_packed_layouts[kind];
    const int per_head = l->inputs / BLOCK, k = (int)(b % per_head);
    const uint8_t *head = heads + b / per_head * l->head;
    const uint16_t *halves = (const uint16_t *)(const void *)head + first;
    *factor = vf_load_f16(halves);
    *offset = vf_zero();
    if (kind == AT_PACKED_Q6_K) {
        const int8_t *s = (const int8_t *)head + 32 + AT_PANEL * (2 * k + half) + first;
        *factor = vf_mul(*factor, vf_load_i8(s));
    } else if (l->inputs > BLOCK) {
        const int8_t *s = (const int8_t *)head + 64 + AT_PANEL * k + first;
        *factor = vf_mul(*factor, vf_load_i8(s));
        *offset =
            vf_sub(vf_zero(), vf_mul(vf_load_f16(halves + AT_PANEL), vf_load_i8(s + 8 * AT_PANEL)));
    } else if (l->head > 2 * AT_PANEL) {
        *offset = vf_load_f16(halves + AT_PANEL);
    }
}

/* What comes AHEAD bytes after these, into the second cache, and what comes SOON, into the first.
 * Panels follow each other in memory, so that the factors and the first chunks of the next one have
 * arrived when it begins. */
enum { AHEAD = 8192, SOON = 2048 };
AT_INLINE void prefetch_later(const uint8_t *p, int bytes) {
    for (int i = 0; i < bytes; i += AT_CHUNK_BYTES) {
        __builtin_prefetch(p + AHEAD + i, 0, 2);
        __builtin_prefetch(p + SOON + i, 0, 3);
    }
}

/* What is subtracted from the integers of a kind, as vec_dot_16() counts them. */
AT_INLINE int zero_of(int kind) {
    const at_packed_layout *l = &at_packed_layouts[kind];
    return l->bits == 8 ? AT_BYTE_BIAS : l->zero;
}

/* The rows q [rows, n], of [rows, n / 32] times VECTORS * AT_LANES outputs of a panel, from `first`
 * on. rows, vectors and kind are constants of the caller, so that all sums stay in registers.
 * fresh: the panel is read for the first time. */
AT_INLINE void multiply(const int kind, const int rows, const int vectors, bool fresh,
                        const uint8_t *panel, int64_t n, const int8_t *q,
                        const at_activation_block *of, int first, vf *total) {
    const at_packed_layout *l = &at_packed_layouts[kind];
    const int bytes = AT_CHUNK_BYTES * at_packed_chunks(kind);
    const float zero = (float)zero_of(kind);
    const bool halves = kind == AT_PACKED_Q6_K, offsets = has_offsets(kind);
    const uint8_t *chunks = panel + at_packed_heads(kind, n);
    const int64_t blocks = n / BLOCK;
    for (int i = 0; i < rows * vectors; i++) total[i] = vf_zero();
    for (int64_t b = 0; b < blocks; b++, chunks += bytes) {
        if (fresh) prefetch_later(chunks, bytes);
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            const int output = first + v * AT_LANES;
            vf sum[8], w[4], factor, offset;
            for (int r = 0; r < rows; r++) sum[r] = vf_zero();
#pragma GCC unroll 2
            for (int half = 0; half < 2; half++) {
                load_groups(chunks + 4 * output, kind, half, w);
                if (half == 0 || halves)
                    load_factors(panel, kind, b, half, output, &factor, &offset);
#pragma GCC unroll 8
                for (int r = 0; r < rows; r++) {
                    const at_activation_block *x = of + r * blocks + b;
                    const int8_t *bytes_of_x = q + r * n + BLOCK * b + 16 * half;
                    vf *t = &total[r * vectors + v];
                    sum[r] = vec_dot_16(w, bytes_of_x, l->bits, sum[r]);
                    if (half == 0 && !halves) continue;
                    const float part = !halves     ? x->sum
                                       : half == 0 ? x->first_sum
                                                   : x->sum - x->first_sum;
                    vf integers = vf_of_i32(sum[r]);
                    if (zero != 0.0f) integers = vf_fma(vf_set1(-zero), vf_set1(part), integers);
                    *t = vf_fma(vf_mul(factor, vf_set1(x->scale)), integers, *t);
                    if (offsets) *t = vf_fma(offset, vf_set1(x->scaled_sum), *t);
                    sum[r] = vf_zero();
                }
            }
        }
    }
}

AT_INLINE void store(const vf *total, int rows, int vectors, int first, int outputs, float *out,
                     int64_t out_stride) {
    for (int r = 0; r < rows; r++) {
        for (int v = 0; v < vectors; v++) {
            const int at = first + v * AT_LANES, left = outputs - at;
            if (left >= AT_LANES)
                vf_store(out + r * out_stride + at, total[r * vectors + v]);
            else if (left > 0)
                vf_store_part(out + r * out_stride + at, total[r * vectors + v], left);
        }
    }
}

/* SEVERAL, MANY, SPLIT_ROWS: rows that share each load of weights. One row takes all outputs of a
 * panel at once, as it reads them from memory. */
enum {
    SEVERAL = 4,
    MANY = AT_LANES == 16 ? 8 : SEVERAL,
    VECTORS = AT_PANEL / AT_LANES,
    SPLIT_ROWS = AT_LANES == 16 ? 4 : 1
};

AT_INLINE void product_of_rows(const int kind, const int count, bool fresh, const uint8_t *panel,
                               int64_t n, const int8_t *q, const at_activation_block *of,
                               int outputs, float *out, int64_t out_stride) {
    for (int first = 0; first < outputs; first += AT_LANES) {
        vf total[MANY];
        multiply(kind, count, 1, fresh, panel, n, q, of, first, total);
        store(total, count, 1, first, outputs, out, out_stride);
    }
}

AT_INLINE void product(const int kind, const uint8_t *panel, int64_t n, const int8_t *q,
                       const at_activation_block *of, int64_t rows, int outputs, float *out,
                       int64_t out_stride) {
    int64_t r = 0;
    for (; r + MANY <= rows; r += MANY)
        product_of_rows(kind, MANY, r == 0, panel, n, q + r * n, of + r * (n / BLOCK), outputs,
                        out + r * out_stride, out_stride);
    if (MANY > SEVERAL && r + SEVERAL <= rows) {
        product_of_rows(kind, SEVERAL, r == 0, panel, n, q + r * n, of + r * (n / BLOCK), outputs,
                        out + r * out_stride, out_stride);
        r += SEVERAL;
    }
    for (; r < rows; r++) {
        vf total[VECTORS];
        multiply(kind, 1, VECTORS, r == 0, panel, n, q + r * n, of + r * (n / BLOCK), 0, total);
        store(total, 1, VECTORS, 0, outputs, out + r * out_stride, out_stride);
    }
}

/* ---- products of planes ---------------------------------------------------------------------- */

#if AT_SPLIT_BITS > 0
/* As multiply(), for AT_LANES outputs and rows in planes. The zero point is where the sums start.
 */
AT_INLINE void multiply_split(const int kind, const int rows, bool fresh, const uint8_t *panel,
                              int64_t n, const int8_t *q, const at_split_block *of, int first,
                              vf *total) {
    const at_packed_layout *l = &at_packed_layouts[kind];
    const int bytes = AT_CHUNK_BYTES * at_packed_chunks(kind), zero = zero_of(kind);
    const int shift = zero > 64 ? 4 : zero > 16 ? 2 : zero > 8 ? 1 : 0;
    const bool halves = kind == AT_PACKED_Q6_K, offsets = has_offsets(kind);
    const uint8_t *chunks = panel + at_packed_heads(kind, n);
    const int64_t blocks = n / BLOCK;
    for (int r = 0; r < rows; r++) total[r] = vf_zero();
    for (int64_t b = 0; b < blocks; b++, chunks += bytes) {
        vf sum[SPLIT_ROWS][AT_PLANES], w[4], factor, offset;
        if (fresh) prefetch_later(chunks, bytes);
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            load_groups(chunks + 4 * first, kind, half, w);
            if (half == 0 || halves) load_factors(panel, kind, b, half, first, &factor, &offset);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                const at_split_block *x = of + r * blocks + b;
                vf *s = sum[r];
                if (half == 0 || halves) {
                    const int part = halves ? 1 + half : 0;
                    s[0] = zero ? vec_start_of(&x->high[part], shift) : vf_zero();
                    s[1] = vf_zero();
                    s[2] = zero ? vec_start_of(&x->low[part], shift) : vf_zero();
                }
#pragma GCC unroll 3
                for (int p = 0; p < AT_PLANES; p++)
                    s[p] = vec_dot_16(w, q + (AT_PLANES * r + p) * n + BLOCK * b + 16 * half,
                                      l->bits, s[p]);
                if (half == 0 && !halves) continue;
                total[r] = vf_fma(vf_mul(factor, vf_set1(x->scale)),
                                  vec_of_planes(s[0], s[1], s[2]), total[r]);
                if (offsets) total[r] = vf_fma(offset, vf_set1(x->scaled_sum), total[r]);
            }
        }
    }
}

AT_INLINE void split_product(const int kind, const uint8_t *panel, int64_t n, const int8_t *q,
                             const at_split_block *of, int64_t rows, int outputs, float *out,
                             int64_t out_stride) {
    for (int first = 0; first < outputs; first += AT_LANES) {
        int64_t r = 0;
        for (; r + SPLIT_ROWS <= rows; r += SPLIT_ROWS) {
            vf total[SPLIT_ROWS];
            multiply_split(kind, SPLIT_ROWS, r == 0, panel, n, q + AT_PLANES * r * n,
                           of + r * (n / BLOCK), first, total);
            store(total, SPLIT_ROWS, 1, first, outputs, out + r * out_stride, out_stride);
        }
        for (; r < rows; r++) {
            vf total;
            multiply_split(kind, 1, r == 0, panel, n, q + AT_PLANES * r * n, of + r * (n / BLOCK),
                           first, &total);
            store(&total, 1, 1, first, outputs, out + r * out_stride, out_stride);
        }
    }
}
#endif

/* ---- products in f32 ------------------------------------------------------------------------- */

/* The 16 inputs of half a block, for AT_LANES outputs from `chunks` on, so that weight_at() can
 * make numbers of them. */
AT_INLINE void load_half(const uint8_t *chunks, int kind, int half, vf w[4]) {
    if (at_packed_layouts[kind].bits != 4) {
        load_groups(chunks, kind, half, w);
        return;
    }
    for (int c = 0; c < 4; c++)
        w[c] = vf_load((const float *)(const void *)(chunks + AT_CHUNK_BYTES * c));
}

/* Input e of group c of that half: an integer, less the zero point for more than 4 bits. */
AT_INLINE vf weight_at(const vf w[4], int kind, int half, int c, int e) {
    const at_packed_layout *l = &at_packed_layouts[kind];
    if (l->bits == 4) return vec_nibble(w[c], 2 * e + half);
    if (l->bits == 8) return vec_signed_byte(w[c], e);
    return l->zero ? vf_sub(vec_byte(w[c], e), vf_set1((float)l->zero)) : vec_byte(w[c], e);
}

/* CHAINS: sums of a row that do not wait for each other. FLOAT_ROWS: rows that share the numbers
 * made of weights. */
enum { CHAINS = 4, FLOAT_ROWS = AT_LANES == 16 ? 4 : 1 };

/* As multiply(), for x [rows, n] in f32. */
AT_INLINE void multiply_floats(const int kind, const int rows, const int vectors,
                               const uint8_t *panel, int64_t n, const float *x, const float *sums,
                               vf *total) {
    const at_packed_layout *l = &at_packed_layouts[kind];
    const int bytes = AT_CHUNK_BYTES * at_packed_chunks(kind);
    const bool halves = kind == AT_PACKED_Q6_K, offsets = has_offsets(kind);
    const uint8_t *chunks = panel + at_packed_heads(kind, n);
    const int64_t blocks = n / BLOCK;
    for (int i = 0; i < rows * vectors; i++) total[i] = vf_zero();
    for (int64_t b = 0; b < blocks; b++, chunks += bytes) {
        prefetch_later(chunks, bytes);
        for (int v = 0; v < vectors; v++) {
            vf sum[FLOAT_ROWS * CHAINS], w[4], factor, offset;
            for (int i = 0; i < rows * CHAINS; i++) sum[i] = vf_zero();
            UNROLL(2)
            for (int half = 0; half < 2; half++) {
                load_half(chunks + 4 * v * AT_LANES, kind, half, w);
                if (half == 0 || halves)
                    load_factors(panel, kind, b, half, v * AT_LANES, &factor, &offset);
                UNROLL(16)
                for (int i = 0; i < BLOCK / 2; i++) {
                    const vf weight = weight_at(w, kind, half, i / 4, i % 4);
                    for (int r = 0; r < rows; r++) {
                        vf *s = &sum[r * CHAINS + i % CHAINS];
                        *s = vf_fma(weight, vf_set1(x[r * n + BLOCK * b + 16 * half + i]), *s);
                    }
                }
                for (int r = 0; r < rows && (half == 1 || halves); r++) {
                    vf *s = &sum[r * CHAINS], *t = &total[r * vectors + v];
                    vf products = vf_add(vf_add(s[0], s[1]), vf_add(s[2], s[3]));
                    const vf of_x = vf_set1(sums[r * blocks + b]);
                    if (l->bits == 4 && l->zero)
                        products = vf_sub(products, vf_mul(vf_set1((float)l->zero), of_x));
                    *t = vf_fma(factor, products, *t);
                    if (offsets) *t = vf_fma(offset, of_x, *t);
                    for (int i = 0; i < CHAINS; i++) s[i] = vf_zero();
                }
            }
        }
    }
}

AT_INLINE void float_product(const int kind, const uint8_t *panel, int64_t n, const float *x,
                             const float *sums, int64_t rows, int outputs, float *out,
                             int64_t out_stride) {
    int64_t r = 0;
    for (; r + FLOAT_ROWS <= rows; r += FLOAT_ROWS) {
        vf total[FLOAT_ROWS * VECTORS];
        multiply_floats(kind, FLOAT_ROWS, VECTORS, panel, n, x + r * n, sums + r * (n / BLOCK),
                        total);
        store(total, FLOAT_ROWS, VECTORS, 0, outputs, out + r * out_stride, out_stride);
    }
    for (; r < rows; r++) {
        vf total[VECTORS];
        multiply_floats(kind, 1, VECTORS, panel, n, x + r * n, sums + r * (n / BLOCK), total);
        store(total, 1, VECTORS, 0, outputs, out + r * out_stride, out_stride);
    }
}

static void sum_32(const float *x, int64_t blocks, float *sums) {
    for (int64_t b = 0; b < blocks; b++) {
        vf sum = vf_load(x + b * BLOCK);
        for (int i = AT_LANES; i < BLOCK; i += AT_LANES)
            sum = vf_add(sum, vf_load(x + b * BLOCK + i));
        sums[b] = vf_reduce_add(sum);
    }
}

/* ---- unpacking ------------------------------------------------------------------------------- */

AT_INLINE void unpack(const int kind, const uint8_t *panel, int64_t n, float *out,
                      int64_t out_stride) {
    const at_packed_layout *l = &at_packed_layouts[kind];
    const int bytes = AT_CHUNK_BYTES * at_packed_chunks(kind);
    const bool halves = kind == AT_PACKED_Q6_K, offsets = has_offsets(kind);
    const uint8_t *chunks = panel + at_packed_heads(kind, n);
    const vf zero = vf_set1(l->bits == 4 ? (float)l->zero : 0.0f);
    for (int64_t b = 0; b < n / BLOCK; b++, chunks += bytes) {
        for (int v = 0; v < VECTORS; v++) {
            vf w[4], factor, offset;
            UNROLL(2)
            for (int half = 0; half < 2; half++) {
                load_half(chunks + 4 * v * AT_LANES, kind, half, w);
                if (half == 0 || halves)
                    load_factors(panel, kind, b, half, v * AT_LANES, &factor, &offset);
                UNROLL(16)
                for (int i = 0; i < BLOCK / 2; i++) {
                    const vf q = vf_sub(weight_at(w, kind, half, i / 4, i % 4), zero);
                    const vf value = vf_mul(factor, q);
                    vf_store(out + (BLOCK * b + 16 * half + i) * out_stride + v * AT_LANES,
                             offsets ? vf_add(value, offset) : value);
                }
            }
        }
    }
}

#define PRODUCT(name, kind)                                                                      \
    static void product_##name(const uint8_t *panel, int64_t n, const int8_t *q,                 \
                               const at_activation_block *of, int64_t rows, int outputs,         \
                               float *out, int64_t out_stride) {                                 \
        product(kind, panel, n, q, of, rows, outputs, out, out_stride);                          \
    }                                                                                            \
    static void float_product_##name(const uint8_t *panel, int64_t n, const float *x,            \
                                     const float *sums, int64_t rows, int outputs, float *out,   \
                                     int64_t out_stride) {                                       \
        float_product(kind, panel, n, x, sums, rows, outputs, out, out_stride);                  \
    }                                                                                            \
    static void unpack_##name(const uint8_t *panel, int64_t n, float *out, int64_t out_stride) { \
        unpack(kind, panel, n, out, out_stride);                                                 \
    }

#define SPLIT_PRODUCT(name, kind)                                                         \
    static void split_product_##name(const uint8_t *panel, int64_t n, const int8_t *q,    \
                                     const at_split_block *of, int64_t rows, int outputs, \
                                     float *out, int64_t out_stride) {                    \
        split_product(kind, panel, n, q, of, rows, outputs, out, out_stride);             \
    }

#define EACH_OF_FEW_BITS(macro)                                                             \
    macro(q4_0, AT_PACKED_Q4_0) macro(q4_1, AT_PACKED_Q4_1) macro(q5_0, AT_PACKED_Q5_0)     \
        macro(q5_1, AT_PACKED_Q5_1) macro(q4_k, AT_PACKED_Q4_K) macro(q5_k, AT_PACKED_Q5_K) \
            macro(q6_k, AT_PACKED_Q6_K)
#define EACH_KIND(macro) macro(q8_0, AT_PACKED_Q8_0) EACH_OF_FEW_BITS(macro)
#if AT_SPLIT_BITS == 8
#define EACH_SPLIT_KIND EACH_KIND
#elif AT_SPLIT_BITS == 6
#define EACH_SPLIT_KIND EACH_OF_FEW_BITS
#else
#define EACH_SPLIT_KIND(macro)
#endif

EACH_KIND(PRODUCT)
EACH_SPLIT_KIND(SPLIT_PRODUCT)

#define ENTER(name, kind)                              \
    table->product[kind] = product_##name;             \
    table->float_product[kind] = float_product_##name; \
    table->unpack[kind] = unpack_##name;

#define ENTER_SPLIT(name, kind) table->split_product[kind] = split_product_##name;

void AT_KERNEL(quant)(at_quant_kernels *table) {
    table->quantise = quantise;
    table->sum_32 = sum_32;
    table->few_rows = FLOAT_ROWS > 1 ? 40 : 8;
    EACH_KIND(ENTER)
#if AT_SPLIT_BITS > 0
    table->split = split;
#endif
    EACH_SPLIT_KIND(ENTER_SPLIT)
}
