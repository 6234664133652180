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

/* ---- blocks whose integers are put together first -------------------------------------------- */

/* Bit i of `bits` as byte i: a product copies the bits to all bytes, the mask leaves one each. */
AT_INLINE uint64_t spread_bits(uint8_t bits) {
    const uint64_t own = (bits * 0x0101010101010101u) & 0x8040201008040201u;
    return (own + 0x7f7f7f7f7f7f7f7fu) >> 7 & 0x0101010101010101u;
}

/* Byte i of `nibbles` holds elements i and i + 16; bit i of the 4 bytes at `high` is the fifth bit
 * of element i. out = q - zero. */
AT_INLINE void integers_of_5(const uint8_t *high, const uint8_t *nibbles, int zero, int8_t *out) {
    uint8_t fifth[BLOCK];
    for (int i = 0; i < 4; i++) {
        const uint64_t eight = spread_bits(high[i]);
        memcpy(fifth + 8 * i, &eight, 8);
    }
    for (int i = 0; i < 16; i++) {
        out[i] = (int8_t)(((nibbles[i] & 15) | fifth[i] << 4) - zero);
        out[i + 16] = (int8_t)(((nibbles[i] >> 4) | fifth[i + 16] << 4) - zero);
    }
}

static void dot_q5_0(const uint8_t *weight, int64_t row_bytes, int64_t rows, const float *x,
                     const float *sums, int64_t n, float *out) {
    (void)sums;
    for (int64_t r = 0; r < rows; r++) {
        const uint8_t *block = weight + r * row_bytes;
        vf total = vf_zero();
        for (int64_t i = 0; i < n; i += BLOCK, block += 22) {
            int8_t q[BLOCK];
            integers_of_5(block + 2, block + 6, 16, q);
            total = vf_fma(vf_set1(f16_at(block)), dot_block(q, x + i), total);
        }
        out[r] = vf_reduce_add(total);
    }
}

static void dot_q5_1(const uint8_t *weight, int64_t row_bytes, int64_t rows, const float *x,
                     const float *sums, int64_t n, float *out) {
    for (int64_t r = 0; r < rows; r++) {
        const uint8_t *block = weight + r * row_bytes;
        vf total = vf_zero();
        float offset = 0.0f;
        for (int64_t i = 0; i < n; i += BLOCK, block += 24) {
            int8_t q[BLOCK];
            integers_of_5(block + 4, block + 8, 0, q);
            total = vf_fma(vf_set1(f16_at(block)), dot_block(q, x + i), total);
            offset += f16_at(block + 2) * sums[i / BLOCK];
        }
        out[r] = vf_reduce_add(total) + offset;
    }
}

/* ---- blocks of 256 --------------------------------------------------------------------------- */

enum { RUNS = 8, LARGE_BLOCK = 256 };

/* The 6-bit scales and minima of 8 runs of 32 elements, out of 12 bytes. */
AT_INLINE void scales_and_mins(const uint8_t *packed, float scale[RUNS], float min[RUNS]) {
    for (int j = 0; j < 4; j++) {
        scale[j] = (float)(packed[j] & 63);
        min[j] = (float)(packed[j + 4] & 63);
        scale[j + 4] = (float)((packed[j + 8] & 15) | (packed[j] >> 6) << 4);
        min[j + 4] = (float)((packed[j + 8] >> 4) | (packed[j + 4] >> 6) << 4);
    }
}

/* Runs 2 k and 2 k + 1 are the low and high halves of bytes 32 k .. 32 k + 31 of `nibbles`; bit j
 * of byte i of `high` is the fifth bit of element i of run j. high: NULL for Q4_K. */
AT_INLINE void dot_4_or_5(const uint8_t *block, const uint8_t *high, const uint8_t *nibbles,
                          const float *x, const float *sums, vf *total, float *offset) {
    const float d = f16_at(block), m = f16_at(block + 2);
    float scale[RUNS], min[RUNS], mins = 0.0f;
    scales_and_mins(block + 4, scale, min);
    for (int j = 0; j < RUNS; j++) {
        int8_t q[BLOCK];
        const uint8_t *from = nibbles + BLOCK * (j / 2);
        const int shift = 4 * (j % 2);
        for (int i = 0; i < BLOCK; i++) {
            const int fifth = high ? high[i] >> j & 1 : 0;
            q[i] = (int8_t)((from[i] >> shift & 15) | fifth << 4);
        }
        *total = vf_fma(vf_set1(d * scale[j]), dot_block(q, x + BLOCK * j), *total);
        mins += min[j] * sums[j];
    }
    *offset += m * mins;
}

static void dot_q4_k(const uint8_t *weight, int64_t row_bytes, int64_t rows, const float *x,
                     const float *sums, int64_t n, float *out) {
    for (int64_t r = 0; r < rows; r++) {
        const uint8_t *block = weight + r * row_bytes;
        vf total = vf_zero();
        float offset = 0.0f;
        for (int64_t i = 0; i < n; i += LARGE_BLOCK, block += 144)
            dot_4_or_5(block, NULL, block + 16, x + i, sums + i / BLOCK, &total, &offset);
        out[r] = vf_reduce_add(total) - offset;
    }
}

static void dot_q5_k(const uint8_t *weight, int64_t row_bytes, int64_t rows, const float *x,
                     const float *sums, int64_t n, float *out) {
    for (int64_t r = 0; r < rows; r++) {
        const uint8_t *block = weight + r * row_bytes;
        vf total = vf_zero();
        float offset = 0.0f;
        for (int64_t i = 0; i < n; i += LARGE_BLOCK, block += 176)
            dot_4_or_5(block, block + 16, block + 48, x + i, sums + i / BLOCK, &total, &offset);
        out[r] = vf_reduce_add(total) - offset;
    }
}

/* 16 elements of one scale. */
AT_INLINE vf dot_half_block(const int8_t *q, const float *x) {
    vf sum = vf_mul(vf_load_i8(q), vf_load(x));
    for (int i = AT_LANES; i < BLOCK / 2; i += AT_LANES)
        sum = vf_fma(vf_load_i8(q + i), vf_load(x + i), sum);
    return sum;
}

/* Each half of a block is four runs of 32: `low` has 4 bits of each element and `high` 2. */
static void dot_q6_k(const uint8_t *weight, int64_t row_bytes, int64_t rows, const float *x,
                     const float *sums, int64_t n, float *out) {
    (void)sums;
    for (int64_t r = 0; r < rows; r++) {
        vf total = vf_zero();
        for (int64_t i = 0; i < n; i += BLOCK) {
            const uint8_t *block = weight + r * row_bytes + i / LARGE_BLOCK * 210;
            const int half = (int)(i % LARGE_BLOCK / 128), run = (int)(i % 128 / BLOCK);
            const uint8_t *low = block + 64 * half + BLOCK * (run % 2);
            const uint8_t *high = block + 128 + BLOCK * half;
            const int8_t *scales = (const int8_t *)block + 192 + 8 * half + 2 * run;
            const float d = f16_at(block + 208);
            int8_t q[BLOCK];
            for (int e = 0; e < BLOCK; e++) {
                const int nibble = low[e] >> (run < 2 ? 0 : 4) & 15;
                q[e] = (int8_t)((nibble | (high[e] >> (2 * run) & 3) << 4) - 32);
            }
            total = vf_fma(vf_set1(d * (float)scales[0]), dot_half_block(q, x + i), total);
            total =
                vf_fma(vf_set1(d * (float)scales[1]), dot_half_block(q + 16, x + i + 16), total);
        }
        out[r] = vf_reduce_add(total);
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
    table->dot[AT_WEIGHT_Q5_0] = dot_q5_0;
    table->dot[AT_WEIGHT_Q5_1] = dot_q5_1;
    table->dot[AT_WEIGHT_Q4_K] = dot_q4_k;
    table->dot[AT_WEIGHT_Q5_K] = dot_q5_k;
    table->dot[AT_WEIGHT_Q6_K] = dot_q6_k;
    table->sum_32 = sum_32;
}
