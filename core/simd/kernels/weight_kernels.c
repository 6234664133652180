/* weight_kernels.c - see simd/weight_kernels.h. Products are f32 and added in lanes; factors of
 * blocks are multiplied once per block. */
#include "simd/weight_kernels.h"

#include "vec.h"

void AT_KERNEL(weights)(at_weight_kernels *table);

enum { BLOCK = 32 };

static float f16_at(const uint8_t *p) { return vec_f16((uint16_t)(p[0] | p[1] << 8)); }

/* ---- plain numbers --------------------------------------------------------------------------- */

/* dot_NAME for elements of `type`, loaded into lanes by `load` and singly by `single`. */
#define DOT_PLAIN(name, type, load, single)                                                        \
    static void dot_##name(const uint8_t *weight, int64_t row_bytes, int64_t rows, const float *x, \
                           const float *sums, int64_t n, float *out) {                             \
        (void)sums;                                                                                \
        for (int64_t r = 0; r < rows; r++) {                                                       \
            const type *w = (const type *)(const void *)(weight + r * row_bytes);                  \
            vf a = vf_zero(), b = vf_zero(), c = vf_zero(), d = vf_zero();                         \
            int64_t i = 0;                                                                         \
            for (; i + 4 * AT_LANES <= n; i += 4 * AT_LANES) {                                     \
                a = vf_fma(load(w + i), vf_load(x + i), a);                                        \
                b = vf_fma(load(w + i + AT_LANES), vf_load(x + i + AT_LANES), b);                  \
                c = vf_fma(load(w + i + 2 * AT_LANES), vf_load(x + i + 2 * AT_LANES), c);          \
                d = vf_fma(load(w + i + 3 * AT_LANES), vf_load(x + i + 3 * AT_LANES), d);          \
            }                                                                                      \
            for (; i + AT_LANES <= n; i += AT_LANES) a = vf_fma(load(w + i), vf_load(x + i), a);   \
            float sum = vf_reduce_add(vf_add(vf_add(a, b), vf_add(c, d)));                         \
            for (; i < n; i++) sum += single(w[i]) * x[i];                                         \
            out[r] = sum;                                                                          \
        }                                                                                          \
    }

static float same(float x) { return x; }

DOT_PLAIN(f32, float, vf_load, same)
DOT_PLAIN(f16, uint16_t, vf_load_f16, at_f16_to_f32)
DOT_PLAIN(bf16, uint16_t, vf_load_bf16, at_bf16_to_f32)

/* ---- blocks of 32 ---------------------------------------------------------------------------- */

/* The products of 32 integers with x, in lanes. */
AT_INLINE vf dot_block(const int8_t *q, const float *x) {
    vf a = vf_mul(vf_load_i8(q), vf_load(x)),
       b = vf_mul(vf_load_i8(q + AT_LANES), vf_load(x + AT_LANES));
    for (int i = 2 * AT_LANES; i < BLOCK; i += 2 * AT_LANES) {
        a = vf_fma(vf_load_i8(q + i), vf_load(x + i), a);
        b = vf_fma(vf_load_i8(q + i + AT_LANES), vf_load(x + i + AT_LANES), b);
    }
    return vf_add(a, b);
}

/* The same for 16 bytes: byte i holds element i in its low half and element i + 16 in its high
 * half.
 */
AT_INLINE vf dot_halves(const uint8_t *q, const float *x) {
    vf low = vf_mul(vf_load_low4(q), vf_load(x)), high = vf_mul(vf_load_high4(q), vf_load(x + 16));
    for (int i = AT_LANES; i < 16; i += AT_LANES) {
        low = vf_fma(vf_load_low4(q + i), vf_load(x + i), low);
        high = vf_fma(vf_load_high4(q + i), vf_load(x + 16 + i), high);
    }
    return vf_add(low, high);
}

static void dot_q8_0(const uint8_t *weight, int64_t row_bytes, int64_t rows, const float *x,
                     const float *sums, int64_t n, float *out) {
    (void)sums;
    for (int64_t r = 0; r < rows; r++) {
        const uint8_t *block = weight + r * row_bytes;
        vf total = vf_zero();
        for (int64_t i = 0; i < n; i += BLOCK, block += 34) {
            const vf products = dot_block((const int8_t *)block + 2, x + i);
            total = vf_fma(vf_set1(f16_at(block)), products, total);
        }
        out[r] = vf_reduce_add(total);
    }
}

/* d (q - 8): the 8 is taken off through the sums of x. */
static void dot_q4_0(const uint8_t *weight, int64_t row_bytes, int64_t rows, const float *x,
                     const float *sums, int64_t n, float *out) {
    for (int64_t r = 0; r < rows; r++) {
        const uint8_t *block = weight + r * row_bytes;
        vf total = vf_zero();
        float offset = 0.0f;
        for (int64_t i = 0; i < n; i += BLOCK, block += 18) {
            const float d = f16_at(block);
            total = vf_fma(vf_set1(d), dot_halves(block + 2, x + i), total);
            offset += d * sums[i / BLOCK];
        }
        out[r] = vf_reduce_add(total) - 8.0f * offset;
    }
}

static void dot_q4_1(const uint8_t *weight, int64_t row_bytes, int64_t rows, const float *x,
                     const float *sums, int64_t n, float *out) {
    for (int64_t r = 0; r < rows; r++) {
        const uint8_t *block = weight + r * row_bytes;
        vf total = vf_zero();
        float offset = 0.0f;
        for (int64_t i = 0; i < n; i += BLOCK, block += 20) {
            total = vf_fma(vf_set1(f16_at(block)), dot_halves(block + 4, x + i), total);
            offset += f16_at(block + 2) * sums[i / BLOCK];
        }
        out[r] = vf_reduce_add(total) + offset;
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

void AT_KERNEL(weights)(at_weight_kernels *table) {
    table->dot[AT_WEIGHT_F32] = dot_f32;
    table->dot[AT_WEIGHT_F16] = dot_f16;
    table->dot[AT_WEIGHT_BF16] = dot_bf16;
    table->dot[AT_WEIGHT_Q8_0] = dot_q8_0;
    table->dot[AT_WEIGHT_Q4_0] = dot_q4_0;
    table->dot[AT_WEIGHT_Q4_1] = dot_q4_1;
    table->sum_32 = sum_32;
}
