/* vec_c.h - the vector layer in plain C: any compiler takes it, and the other layers are checked
 * against it. */
#ifndef AT_SIMD_VEC_C_H
#define AT_SIMD_VEC_C_H

typedef uint32_t lane_mask;
enum { AT_LANES = 8 };
#define AT_ROWS 2 /* max rows of a register tile */
#if defined AT_ISA_amx_emulated
#define AT_HAS_DOT_BF16 1 /* dot products: at the end of this file */
#define AT_HAS_DOT_I8 1
#else
#define AT_HAS_DOT_BF16 0
#define AT_HAS_DOT_I8 0
#endif

#include "vec_plain.h"

AT_BINARY(vf_copysign, at_f32_of_bits((at_bits_of_f32(a.x[i]) & 0x7fffffffu) |
                                      (at_bits_of_f32(b.x[i]) & 0x80000000u)))
#undef AT_BINARY

AT_INLINE vf vf_abs(vf a) {
    AT_EACH a.x[i] = at_f32_of_bits(at_bits_of_f32(a.x[i]) & 0x7fffffffu);
    return a;
}
AT_INLINE vf vf_sqrt(vf a) {
    AT_EACH a.x[i] = sqrtf(a.x[i]);
    return a;
}
/* To the nearest integer, ties to even, for |x| below 2^22: adding 1.5 * 2^23 leaves no bits for a
 * fraction. */
AT_INLINE vf vf_round(vf a) {
    AT_EACH a.x[i] = (a.x[i] + 12582912.0f) - 12582912.0f;
    return a;
}
/* a * 2^n for integers n that keep the result normal; a NaN stays one. The sum with 1.5 * 2^23 has
 * n in its low bits. */
AT_INLINE vf vf_scale2(vf a, vf n) {
    AT_EACH {
        uint32_t shift = at_bits_of_f32(n.x[i] + 12582912.0f) << 23;
        a.x[i] = a.x[i] != a.x[i] ? a.x[i] : at_f32_of_bits(at_bits_of_f32(a.x[i]) + shift);
    }
    return a;
}

AT_INLINE vf vf_keep(vm m, vf a) {
    AT_EACH a.x[i] = at_f32_of_bits(at_bits_of_f32(a.x[i]) & m.x[i]);
    return a;
}
/* Lanes first .. last - 1 of a, fill elsewhere; first and last may lie outside the register. */
AT_INLINE vf vf_within(vf a, int first, int last, vf fill) {
    AT_EACH a.x[i] = i >= first && i < last ? a.x[i] : fill.x[i];
    return a;
}

AT_INLINE float vf_reduce_add(vf a) {
    return ((a.x[0] + a.x[4]) + (a.x[2] + a.x[6])) + ((a.x[1] + a.x[5]) + (a.x[3] + a.x[7]));
}

/* AT_LANES integers of 8 bits as f32. */
AT_INLINE vf vf_load_i8(const int8_t *p) {
    vf r;
    AT_EACH r.x[i] = (float)p[i];
    return r;
}
AT_INLINE vf vf_load_bf16(const uint16_t *p) {
    vf r;
    AT_EACH r.x[i] = at_bf16_to_f32(p[i]);
    return r;
}
/* 2 AT_LANES bf16 at p: lane i of *even is p[2 i], lane i of *odd is p[2 i + 1]. */
AT_INLINE void vf_load_bf16_pairs(const uint16_t *p, vf *even, vf *odd) {
    AT_EACH {
        even->x[i] = at_bf16_to_f32(p[2 * i]);
        odd->x[i] = at_bf16_to_f32(p[2 * i + 1]);
    }
}
/* The reverse: two bf16 in a 32-bit lane. */
AT_INLINE vf vf_pairs(vf even, vf odd) {
    AT_EACH even.x[i] =
        at_f32_of_bits(at_f32_to_bf16(even.x[i]) | (uint32_t)at_f32_to_bf16(odd.x[i]) << 16);
    return even;
}
AT_INLINE vf vf_load_f16(const uint16_t *p) {
    vf r;
    AT_EACH r.x[i] = at_f16_to_f32(p[i]);
    return r;
}
AT_INLINE void vf_store_bf16(uint16_t *p, vf a) { AT_EACH p[i] = at_f32_to_bf16(a.x[i]); }
AT_INLINE void vf_store_f16(uint16_t *p, vf a) { AT_EACH p[i] = at_f32_to_f16(a.x[i]); }
AT_INLINE vf vf_of_i32(vf a) {
    AT_EACH {
        int32_t n;
        memcpy(&n, &a.x[i], 4);
        a.x[i] = (float)n;
    }
    return a;
}

/* x[i] lane j becomes x[j] lane i. */
AT_INLINE void vf_transpose(vf x[AT_LANES]) {
    for (int i = 1; i < AT_LANES; i++)
        for (int j = 0; j < i; j++) {
            float y = x[i].x[j];
            x[i].x[j] = x[j].x[i];
            x[j].x[i] = y;
        }
}

#if AT_HAS_DOT_BF16
/* A 32-bit lane of x and y holds two bf16; their products are added to the f32 in the lane of sum.
 */
AT_INLINE vf vf_dot_bf16(vf x, vf y, vf sum) {
    AT_EACH {
        const uint32_t a = at_bits_of_f32(x.x[i]), b = at_bits_of_f32(y.x[i]);
        sum.x[i] += at_bf16_to_f32((uint16_t)(a >> 16)) * at_bf16_to_f32((uint16_t)(b >> 16));
        sum.x[i] += at_bf16_to_f32((uint16_t)a) * at_bf16_to_f32((uint16_t)b);
    }
    return sum;
}
AT_INLINE void vf_store_bf16_two(uint16_t *p, vf a, vf b) {
    vf_store_bf16(p, a);
    vf_store_bf16(p + AT_LANES, b);
}
#endif

#if AT_HAS_DOT_I8
/* A 32-bit lane of x and y holds four integers of 8 bits; their products are added to the i32 in
 * the lane of sum. */
AT_INLINE vf vf_dot_u8s8(vf x, vf y, vf sum) {
    AT_EACH {
        uint8_t a[4];
        int8_t b[4];
        int32_t total;
        memcpy(a, &x.x[i], 4);
        memcpy(b, &y.x[i], 4);
        memcpy(&total, &sum.x[i], 4);
        for (int k = 0; k < 4; k++) total += a[k] * b[k];
        memcpy(&sum.x[i], &total, 4);
    }
    return sum;
}
/* Four integers of -127 .. 127 in a 32-bit lane, a the lowest, each plus bias. */
AT_INLINE vf vf_quads(vf a, vf b, vf c, vf d, int bias) {
    AT_EACH {
        const float four[4] = {a.x[i], b.x[i], c.x[i], d.x[i]};
        uint8_t bytes[4];
        for (int k = 0; k < 4; k++)
            bytes[k] = (uint8_t)((four[k] == four[k] ? (int)rintf(four[k]) : 0) + bias);
        memcpy(&a.x[i], bytes, 4);
    }
    return a;
}
/* a is from 0 to 65535: rounded, its upper 8 bits and its lower 8 bits. */
AT_INLINE void vf_store_digits(uint8_t *high, uint8_t *low, vf a) {
    AT_EACH {
        const int n = a.x[i] == a.x[i] ? (int)rintf(a.x[i]) : 0;
        high[i] = (uint8_t)(n >> 8);
        low[i] = (uint8_t)n;
    }
}
#else
/* A 32-bit lane of x and y holds two integers of 16 bits; their products are added to the i32 in
 * the lane of sum. */
AT_INLINE vf vf_dot_words(vf x, vf y, vf sum) {
    AT_EACH {
        int16_t a[2], b[2];
        int32_t total;
        memcpy(a, &x.x[i], 4);
        memcpy(b, &y.x[i], 4);
        memcpy(&total, &sum.x[i], 4);
        total += a[0] * b[0] + a[1] * b[1];
        memcpy(&sum.x[i], &total, 4);
    }
    return sum;
}
/* 2 AT_LANES integers of 8 bits, extended to 16 bits. */
AT_INLINE vf vf_load_words(const int8_t *p) {
    vf r;
    AT_EACH {
        const int16_t two[2] = {p[2 * i], p[2 * i + 1]};
        memcpy(&r.x[i], two, 4);
    }
    return r;
}
AT_INLINE int vec_nearest(float x) { return x == x ? (int)rintf(x) : 0; }
/* To nearest even; |a| and |b| are at most 127. a[i] goes to p[2 i], b[i] to p[2 i + 1]. */
AT_INLINE void vf_store_i8_pairs(int8_t *p, vf a, vf b) {
    AT_EACH {
        p[2 * i] = (int8_t)vec_nearest(a.x[i]);
        p[2 * i + 1] = (int8_t)vec_nearest(b.x[i]);
    }
}
/* To nearest even; |a| is at most 32767. */
AT_INLINE void vf_store_i16(int16_t *p, vf a) { AT_EACH p[i] = (int16_t)vec_nearest(a.x[i]); }
#endif

#undef AT_EACH
#endif
