/* quant_kernels.c - see simd/quant_kernels.h. Integer sums are exact: 32 products of at most 255 *
 * 127 are below 2^24, so that f32 holds them too, and their zero point is subtracted in f32. */
#include "simd/quant_kernels.h"

#include <float.h>

#include "vec_bytes.h"

void AT_KERNEL(quant)(at_quant_kernels *table);

enum { BLOCK = 32 };

/* ---- activations ----------------------------------------------------------------------------- */

static void quantise(const float *x, int64_t blocks, int8_t *q, at_activation_block *of) {
    for (int64_t b = 0; b < blocks; b++, x += BLOCK, q += BLOCK, of++) {
        vf max = vf_zero(), nonfinite = vf_zero(); /* 0 or NaN */
        for (int i = 0; i < BLOCK; i += AT_LANES) {
            const vf v = vf_load(x + i);
            max = vf_max(vf_abs(v), max);
            nonfinite = vf_fma(v, vf_zero(), nonfinite);
        }
        float values[BLOCK];
        const float scale = vf_reduce_max(max) / 127.0f, flag = vf_reduce_add(nonfinite);
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

/* The rows q [rows, n], of [rows, n / 32] times VECTORS * AT_LANES outputs of a panel, from `first`
 * on. rows, vectors and kind are constants of the caller, so that all sums stay in registers. */
AT_INLINE void multiply(const int kind, const int rows, const int vectors, const uint8_t *panel,
                        int64_t n, const int8_t *q, const at_activation_block *of, int first,
                        vf *total) {
    const at_packed_layout *l = &at_packed_layouts[kind];
    const int bytes = AT_CHUNK_BYTES * at_packed_chunks(kind);
    const float zero = (float)(l->bits == 8 ? AT_BYTE_BIAS : l->zero);
    const bool halves = kind == AT_PACKED_Q6_K, offsets = l->head == 64 || l->head == 320;
    const uint8_t *chunks = panel + at_packed_heads(kind, n);
    const int64_t blocks = n / BLOCK;
    for (int i = 0; i < rows * vectors; i++) total[i] = vf_zero();
    for (int64_t b = 0; b < blocks; b++, chunks += bytes) {
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
                    if (zero != 0.0f) integers = vf_sub(integers, vf_set1(zero * part));
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

/* MANY: rows that share each load of weights. One row takes all outputs of a panel at once, as it
 * reads them from memory. */
enum { MANY = AT_LANES == 16 ? 8 : 4, VECTORS = AT_PANEL / AT_LANES };

AT_INLINE void product(const int kind, const uint8_t *panel, int64_t n, const int8_t *q,
                       const at_activation_block *of, int64_t rows, int outputs, float *out,
                       int64_t out_stride) {
    int64_t r = 0;
    for (; r + MANY <= rows; r += MANY) {
        for (int first = 0; first < outputs; first += AT_LANES) {
            vf total[MANY];
            multiply(kind, MANY, 1, panel, n, q + r * n, of + r * (n / BLOCK), first, total);
            store(total, MANY, 1, first, outputs, out + r * out_stride, out_stride);
        }
    }
    for (; r < rows; r++) {
        vf total[VECTORS];
        multiply(kind, 1, VECTORS, panel, n, q + r * n, of + r * (n / BLOCK), 0, total);
        store(total, 1, VECTORS, 0, outputs, out + r * out_stride, out_stride);
    }
}

#define PRODUCT(name, kind)                                                              \
    static void product_##name(const uint8_t *panel, int64_t n, const int8_t *q,         \
                               const at_activation_block *of, int64_t rows, int outputs, \
                               float *out, int64_t out_stride) {                         \
        product(kind, panel, n, q, of, rows, outputs, out, out_stride);                  \
    }

PRODUCT(q8_0, AT_PACKED_Q8_0)
PRODUCT(q4_0, AT_PACKED_Q4_0)
PRODUCT(q4_1, AT_PACKED_Q4_1)
PRODUCT(q5_0, AT_PACKED_Q5_0)
PRODUCT(q5_1, AT_PACKED_Q5_1)
PRODUCT(q4_k, AT_PACKED_Q4_K)
PRODUCT(q5_k, AT_PACKED_Q5_K)
PRODUCT(q6_k, AT_PACKED_Q6_K)

void AT_KERNEL(quant)(at_quant_kernels *table) {
    table->quantise = quantise;
    table->product[AT_PACKED_Q8_0] = product_q8_0;
    table->product[AT_PACKED_Q4_0] = product_q4_0;
    table->product[AT_PACKED_Q4_1] = product_q4_1;
    table->product[AT_PACKED_Q5_0] = product_q5_0;
    table->product[AT_PACKED_Q5_1] = product_q5_1;
    table->product[AT_PACKED_Q4_K] = product_q4_k;
    table->product[AT_PACKED_Q5_K] = product_q5_k;
    table->product[AT_PACKED_Q6_K] = product_q6_k;
}
