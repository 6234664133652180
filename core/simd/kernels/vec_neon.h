/* vec_neon.h - the vector layer over Advanced SIMD of AArch64. */
#ifndef AT_SIMD_VEC_NEON_H
#define AT_SIMD_VEC_NEON_H

#include <arm_neon.h>

/* 32 registers: 12 rows x 2 vectors of sums, 2 of columns, the rest for elements of rows. */
enum { AT_LANES = 4 };
#define AT_ROWS 12
#define AT_HAS_DOT_BF16 0
#define AT_HAS_DOT_I8 0

typedef float32x4_t vf;
typedef uint32x4_t vm;

AT_INLINE vf vf_load(const float *p) { return vld1q_f32(p); }
AT_INLINE void vf_store(float *p, vf a) { vst1q_f32(p, a); }
AT_INLINE vf vf_set1(float x) { return vdupq_n_f32(x); }
AT_INLINE vf vf_zero(void) { return vdupq_n_f32(0); }
AT_INLINE vf vf_load_part(const float *p, int n) {
    float x[4] = {0, 0, 0, 0};
    memcpy(x, p, (size_t)n * sizeof *p);
    return vld1q_f32(x);
}
AT_INLINE void vf_store_part(float *p, vf a, int n) {
    float x[4];
    vst1q_f32(x, a);
    memcpy(p, x, (size_t)n * sizeof *p);
}

AT_INLINE vf vf_add(vf a, vf b) { return vaddq_f32(a, b); }
AT_INLINE vf vf_sub(vf a, vf b) { return vsubq_f32(a, b); }
AT_INLINE vf vf_mul(vf a, vf b) { return vmulq_f32(a, b); }
AT_INLINE vf vf_div(vf a, vf b) { return vdivq_f32(a, b); }
AT_INLINE vf vf_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
/* Like the x86 instructions: b where either is NaN. */
AT_INLINE vf vf_max(vf a, vf b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
AT_INLINE vf vf_min(vf a, vf b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
AT_INLINE vf vf_abs(vf a) { return vabsq_f32(a); }
AT_INLINE vf vf_sqrt(vf a) { return vsqrtq_f32(a); }
AT_INLINE vf vf_copysign(vf a, vf b) { return vbslq_f32(vdupq_n_u32(0x80000000u), b, a); }
AT_INLINE vf vf_round(vf a) { return vrndnq_f32(a); }
AT_INLINE vf vf_scale2(vf a, vf n) {
    return vreinterpretq_f32_s32(
        vaddq_s32(vreinterpretq_s32_f32(a), vshlq_n_s32(vcvtnq_s32_f32(n), 23)));
}

AT_INLINE vm vf_less(vf a, vf b) { return vcltq_f32(a, b); }
AT_INLINE vm vf_not_less(vf a, vf b) { return vmvnq_u32(vcltq_f32(a, b)); }
AT_INLINE vm vf_equal(vf a, vf b) { return vceqq_f32(a, b); }
AT_INLINE vm vf_unordered(vf a, vf b) {
    return vmvnq_u32(vandq_u32(vceqq_f32(a, a), vceqq_f32(b, b)));
}
AT_INLINE vf vf_select(vm m, vf a, vf b) { return vbslq_f32(m, a, b); }
AT_INLINE vf vf_keep(vm m, vf a) {
    return vreinterpretq_f32_u32(vandq_u32(m, vreinterpretq_u32_f32(a)));
}
AT_INLINE vf vf_within(vf a, int first, int last, vf fill) {
    static const int32_t numbers[4] = {0, 1, 2, 3};
    const int32x4_t lane = vld1q_s32(numbers);
    return vbslq_f32(
        vandq_u32(vcgeq_s32(lane, vdupq_n_s32(first)), vcltq_s32(lane, vdupq_n_s32(last))), a,
        fill);
}

AT_INLINE float vf_reduce_add(vf a) { return vaddvq_f32(a); }
AT_INLINE float vf_reduce_max(vf a) { return vmaxvq_f32(a); }

AT_INLINE vf vf_load_i8(const int8_t *p) {
    uint32_t word;
    memcpy(&word, p, sizeof word);
    const int16x4_t wide = vget_low_s16(vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(word))));
    return vcvtq_f32_s32(vmovl_s16(wide));
}
AT_INLINE vf vf_load_bf16(const uint16_t *p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}
/* A 32-bit lane holds a pair: a shift makes f32 of the even element, a mask of the odd one. */
AT_INLINE void vf_load_bf16_pairs(const uint16_t *p, vf *even, vf *odd) {
    const uint32x4_t pair = vreinterpretq_u32_u16(vld1q_u16(p));
    *even = vreinterpretq_f32_u32(vshlq_n_u32(pair, 16));
    *odd = vreinterpretq_f32_u32(vandq_u32(pair, vdupq_n_u32(0xffff0000u)));
}
/* The reverse: two bf16 in a 32-bit lane, rounded to nearest even, NaN kept. */
AT_INLINE uint32x4_t vec_round_bf16(vf a) {
    const uint32x4_t u = vreinterpretq_u32_f32(a);
    const uint32x4_t even =
        vaddq_u32(vaddq_u32(u, vdupq_n_u32(0x7fff)), vandq_u32(vshrq_n_u32(u, 16), vdupq_n_u32(1)));
    return vbslq_u32(vceqq_f32(a, a), even, vorrq_u32(u, vdupq_n_u32(0x400000)));
}
AT_INLINE vf vf_pairs(vf even, vf odd) {
    return vreinterpretq_f32_u32(vorrq_u32(vandq_u32(vec_round_bf16(odd), vdupq_n_u32(0xffff0000u)),
                                           vshrq_n_u32(vec_round_bf16(even), 16)));
}
AT_INLINE void vf_store_bf16(uint16_t *p, vf a) { vst1_u16(p, vshrn_n_u32(vec_round_bf16(a), 16)); }
AT_INLINE vf vf_load_f16(const uint16_t *p) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}
AT_INLINE void vf_store_f16(uint16_t *p, vf a) {
    vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(a)));
}
/* A 32-bit lane of x and y holds two integers of 16 bits; their products are added to the i32 in
 * the lane of sum. */
AT_INLINE vf vf_dot_words(vf x, vf y, vf sum) {
    const int16x8_t a = vreinterpretq_s16_f32(x), b = vreinterpretq_s16_f32(y);
    const int32x4_t low = vmull_s16(vget_low_s16(a), vget_low_s16(b)), high = vmull_high_s16(a, b);
    return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(sum), vpaddq_s32(low, high)));
}
AT_INLINE vf vf_of_i32(vf a) { return vcvtq_f32_s32(vreinterpretq_s32_f32(a)); }
/* 2 AT_LANES integers of 8 bits, extended to 16 bits. */
AT_INLINE vf vf_load_words(const int8_t *p) { return vreinterpretq_f32_s16(vmovl_s8(vld1_s8(p))); }
/* To nearest even; |a| and |b| are at most 127. a[i] goes to p[2 i], b[i] to p[2 i + 1]. */
AT_INLINE void vf_store_i8_pairs(int8_t *p, vf a, vf b) {
    const int32x4_t words = vorrq_s32(vandq_s32(vcvtnq_s32_f32(a), vdupq_n_s32(0xffff)),
                                      vshlq_n_s32(vcvtnq_s32_f32(b), 16));
    vst1_s8(p, vqmovn_s16(vreinterpretq_s16_s32(words)));
}
/* To nearest even; |a| is at most 32767. */
AT_INLINE void vf_store_i16(int16_t *p, vf a) { vst1_s16(p, vqmovn_s32(vcvtnq_s32_f32(a))); }

/* x[i] lane j becomes x[j] lane i. */
AT_INLINE void vf_transpose(vf x[AT_LANES]) {
    const float32x4x2_t a = vtrnq_f32(x[0], x[1]), b = vtrnq_f32(x[2], x[3]);
    x[0] = vcombine_f32(vget_low_f32(a.val[0]), vget_low_f32(b.val[0]));
    x[1] = vcombine_f32(vget_low_f32(a.val[1]), vget_low_f32(b.val[1]));
    x[2] = vcombine_f32(vget_high_f32(a.val[0]), vget_high_f32(b.val[0]));
    x[3] = vcombine_f32(vget_high_f32(a.val[1]), vget_high_f32(b.val[1]));
}

#endif
