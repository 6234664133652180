/* vec_avx512.h - the vector layer over AVX-512 F, BW, DQ and VL. The set avx512_vnni also has the
 * dot products of VNNI, avx512_bf16 and amx those of VNNI and BF16. */
#ifndef AT_SIMD_VEC_AVX512_H
#define AT_SIMD_VEC_AVX512_H

#include <immintrin.h>

/* 32 registers: 14 rows x 2 vectors of sums, 2 of columns; the element of a row is broadcast
 * from memory. */
enum { AT_LANES = 16 };
#define AT_ROWS 14
#define AT_AVX512 1
#if defined AT_ISA_avx512_bf16 || defined AT_ISA_amx
#define AT_HAS_DOT_BF16 1
#else
#define AT_HAS_DOT_BF16 0
#endif
#if AT_HAS_DOT_BF16 || defined AT_ISA_avx512_vnni
#define AT_HAS_DOT_I8 1
#else
#define AT_HAS_DOT_I8 0
#endif

typedef __m512 vf;
typedef __mmask16 vm;

AT_INLINE vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
AT_INLINE void vf_store(float *p, vf a) { _mm512_storeu_ps(p, a); }
AT_INLINE vf vf_set1(float x) { return _mm512_set1_ps(x); }
AT_INLINE vf vf_zero(void) { return _mm512_setzero_ps(); }

/* n from 0 to 16 */
AT_INLINE __mmask16 vec_first_lanes(int n) { return (__mmask16)((1u << n) - 1u); }
AT_INLINE vf vf_load_part(const float *p, int n) {
    return _mm512_maskz_loadu_ps(vec_first_lanes(n), p);
}
AT_INLINE void vf_store_part(float *p, vf a, int n) {
    _mm512_mask_storeu_ps(p, vec_first_lanes(n), a);
}

AT_INLINE vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
AT_INLINE vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
AT_INLINE vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
AT_INLINE vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
AT_INLINE vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
AT_INLINE vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); } /* b where either is NaN */
AT_INLINE vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
AT_INLINE vf vf_abs(vf a) { return _mm512_abs_ps(a); }
AT_INLINE vf vf_sqrt(vf a) { return _mm512_sqrt_ps(a); }
AT_INLINE vf vf_copysign(vf a, vf b) {
    /* bitwise choice by the sign mask: a where 0, b where 1 */
    return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_castps_si512(_mm512_set1_ps(-0.0f)),
                                                         _mm512_castps_si512(b),
                                                         _mm512_castps_si512(a), 0xca));
}
AT_INLINE vf vf_round(vf a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
AT_INLINE vf vf_scale2(vf a, vf n) { return _mm512_scalef_ps(a, n); }

AT_INLINE vm vf_less(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
AT_INLINE vm vf_not_less(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_NLT_UQ); }
AT_INLINE vm vf_equal(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
AT_INLINE vm vf_unordered(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_UNORD_Q); }
AT_INLINE vf vf_select(vm m, vf a, vf b) { return _mm512_mask_blend_ps(m, b, a); }
AT_INLINE vf vf_keep(vm m, vf a) { return _mm512_maskz_mov_ps(m, a); }
AT_INLINE vf vf_within(vf a, int first, int last, vf fill) {
    int begin = first < 0    ? 0
                : first > 16 ? 16
                             : first,
        end = last < begin ? begin
              : last > 16  ? 16
                           : last;
    __mmask16 in = (__mmask16)(vec_first_lanes(end) & (uint32_t)~vec_first_lanes(begin));
    return _mm512_mask_blend_ps(in, fill, a);
}

AT_INLINE float vf_reduce_add(vf a) { return _mm512_reduce_add_ps(a); }
AT_INLINE float vf_reduce_max(vf a) { return _mm512_reduce_max_ps(a); }

AT_INLINE vf vf_load_i8(const int8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
AT_INLINE vf vf_load_bf16(const uint16_t *p) {
    return _mm512_castsi512_ps(
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
/* A 32-bit lane holds a pair: a shift makes f32 of the even element, a mask of the odd one. */
AT_INLINE void vf_load_bf16_pairs(const uint16_t *p, vf *even, vf *odd) {
    __m512i pair = _mm512_loadu_si512(p);
    *even = _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16));
    *odd = _mm512_castsi512_ps(_mm512_and_si512(pair, _mm512_set1_epi32((int)0xffff0000u)));
}
/* The reverse: two bf16 in a 32-bit lane, rounded as vf_store_bf16 does. */
AT_INLINE __m512i vec_round_bf16(vf a) {
    __m512i u = _mm512_castps_si512(a);
    __m512i even =
        _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)),
                         _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1)));
    return _mm512_mask_or_epi32(even, _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), u,
                                _mm512_set1_epi32(0x400000));
}
AT_INLINE vf vf_pairs(vf even, vf odd) {
    return _mm512_castsi512_ps(
        _mm512_or_si512(_mm512_and_si512(vec_round_bf16(odd), _mm512_set1_epi32((int)0xffff0000u)),
                        _mm512_srli_epi32(vec_round_bf16(even), 16)));
}
AT_INLINE vf vf_load_f16(const uint16_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
AT_INLINE void vf_store_bf16(uint16_t *p, vf a) {
    _mm256_storeu_si256((__m256i *)p,
                        _mm512_cvtepi32_epi16(_mm512_srli_epi32(vec_round_bf16(a), 16)));
}
AT_INLINE void vf_store_f16(uint16_t *p, vf a) {
    _mm256_storeu_si256((__m256i *)p,
                        _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
AT_INLINE vf vf_of_i32(vf a) { return _mm512_cvtepi32_ps(_mm512_castps_si512(a)); }

/* x[i] lane j becomes x[j] lane i: pairs of rows, then of pairs, of quads, of halves. */
AT_INLINE void vf_transpose(vf x[AT_LANES]) {
    __m512 y[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        y[i] = _mm512_unpacklo_ps(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_ps(x[i], x[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        x[i] = _mm512_shuffle_ps(y[i], y[i + 2], 0x44);
        x[i + 1] = _mm512_shuffle_ps(y[i], y[i + 2], 0xee);
        x[i + 2] = _mm512_shuffle_ps(y[i + 1], y[i + 3], 0x44);
        x[i + 3] = _mm512_shuffle_ps(y[i + 1], y[i + 3], 0xee);
    }
    /* x[4 g + c]: rows 4 g .. 4 g + 3 of the columns c, c + 4, c + 8, c + 12, a 128-bit lane each
     */
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        __m512 a = _mm512_shuffle_f32x4(x[c], x[4 + c], 0x88),
               b = _mm512_shuffle_f32x4(x[c], x[4 + c], 0xdd);
        __m512 d = _mm512_shuffle_f32x4(x[8 + c], x[12 + c], 0x88),
               e = _mm512_shuffle_f32x4(x[8 + c], x[12 + c], 0xdd);
        y[c] = _mm512_shuffle_f32x4(a, d, 0x88);
        y[8 + c] = _mm512_shuffle_f32x4(a, d, 0xdd);
        y[4 + c] = _mm512_shuffle_f32x4(b, e, 0x88);
        y[12 + c] = _mm512_shuffle_f32x4(b, e, 0xdd);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i++) x[i] = y[i];
}

#if AT_HAS_DOT_BF16
/* A 32-bit lane of x and y holds two bf16; their products are added to the f32 in the lane of sum.
 */
AT_INLINE vf vf_dot_bf16(vf x, vf y, vf sum) {
    return _mm512_dpbf16_ps(sum, (__m512bh)x, (__m512bh)y);
}
AT_INLINE void vf_store_bf16_two(uint16_t *p, vf a, vf b) {
    const __m512bh two = _mm512_cvtne2ps_pbh(b, a);
    memcpy(p, &two, sizeof two);
}
#endif

#if AT_HAS_DOT_I8
/* A 32-bit lane of x and y holds four integers of 8 bits; their products are added to the i32 in
 * the lane of sum. As an instruction: with the intrinsic's casts between vectors of floats and of
 * integers gcc 12 copies each sum through memory. */
AT_INLINE vf vf_dot_u8s8(vf x, vf y, vf sum) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(x), "v"(y));
    return sum;
}
/* Four integers of -127 .. 127 in a 32-bit lane, a the lowest, each plus bias. */
AT_INLINE vf vf_quads(vf a, vf b, vf c, vf d, int bias) {
    const __m512i add = _mm512_set1_epi32(bias), byte = _mm512_set1_epi32(255);
    __m512i low = _mm512_and_si512(_mm512_add_epi32(_mm512_cvtps_epi32(a), add), byte),
            next = _mm512_and_si512(_mm512_add_epi32(_mm512_cvtps_epi32(b), add), byte);
    __m512i third = _mm512_and_si512(_mm512_add_epi32(_mm512_cvtps_epi32(c), add), byte),
            high = _mm512_add_epi32(_mm512_cvtps_epi32(d), add);
    low = _mm512_or_si512(low, _mm512_slli_epi32(next, 8));
    high = _mm512_or_si512(_mm512_slli_epi32(third, 16), _mm512_slli_epi32(high, 24));
    return _mm512_castsi512_ps(_mm512_or_si512(low, high));
}
/* a is from 0 to 65535: rounded, its upper 8 bits and its lower 8 bits. */
AT_INLINE void vf_store_digits(uint8_t *high, uint8_t *low, vf a) {
    const __m512i u = _mm512_cvtps_epi32(a);
    _mm_storeu_si128((__m128i *)high, _mm512_cvtepi32_epi8(_mm512_srli_epi32(u, 8)));
    _mm_storeu_si128((__m128i *)low, _mm512_cvtepi32_epi8(u));
}
#else
/* A 32-bit lane of x and y holds two integers of 16 bits; their products are added to the i32 in
 * the lane of sum. */
AT_INLINE vf vf_dot_words(vf x, vf y, vf sum) {
    return _mm512_castsi512_ps(
        _mm512_add_epi32(_mm512_castps_si512(sum),
                         _mm512_madd_epi16(_mm512_castps_si512(x), _mm512_castps_si512(y))));
}
/* 2 AT_LANES integers of 8 bits, extended to 16 bits. */
AT_INLINE vf vf_load_words(const int8_t *p) {
    return _mm512_castsi512_ps(_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)p)));
}
/* To nearest even; |a| and |b| are at most 127. a[i] goes to p[2 i], b[i] to p[2 i + 1]. */
AT_INLINE void vf_store_i8_pairs(int8_t *p, vf a, vf b) {
    const __m512i words =
        _mm512_or_si512(_mm512_and_si512(_mm512_cvtps_epi32(a), _mm512_set1_epi32(0xffff)),
                        _mm512_slli_epi32(_mm512_cvtps_epi32(b), 16));
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi16_epi8(words));
}
/* To nearest even; |a| is at most 32767. */
AT_INLINE void vf_store_i16(int16_t *p, vf a) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(a)));
}
#endif

#endif
