/* vec_avx2.h - the vector layer over AVX2, FMA and F16C. */
#ifndef AT_SIMD_VEC_AVX2_H
#define AT_SIMD_VEC_AVX2_H

#include <immintrin.h>

/* 16 registers: 6 rows x 2 vectors of sums, 2 of columns, 1 broadcast, 1 spare. */
enum { AT_LANES = 8 };
#define AT_ROWS 6
#define AT_HAS_DOT_BF16 0
#define AT_HAS_DOT_I8 0

typedef __m256 vf;
typedef __m256 vm;

AT_INLINE vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
AT_INLINE void vf_store(float *p, vf a) { _mm256_storeu_ps(p, a); }
AT_INLINE vf vf_set1(float x) { return _mm256_set1_ps(x); }
AT_INLINE vf vf_zero(void) { return _mm256_setzero_ps(); }

AT_INLINE __m256i vec_lane_numbers(void) { return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7); }
AT_INLINE __m256i vec_first_lanes(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), vec_lane_numbers());
}
AT_INLINE vf vf_load_part(const float *p, int n) {
    return _mm256_maskload_ps(p, vec_first_lanes(n));
}
AT_INLINE void vf_store_part(float *p, vf a, int n) {
    _mm256_maskstore_ps(p, vec_first_lanes(n), a);
}

AT_INLINE vf vf_add(vf a, vf b) { return _mm256_add_ps(a, b); }
AT_INLINE vf vf_sub(vf a, vf b) { return _mm256_sub_ps(a, b); }
AT_INLINE vf vf_mul(vf a, vf b) { return _mm256_mul_ps(a, b); }
AT_INLINE vf vf_div(vf a, vf b) { return _mm256_div_ps(a, b); }
AT_INLINE vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
AT_INLINE vf vf_max(vf a, vf b) { return _mm256_max_ps(a, b); } /* b where either is NaN */
AT_INLINE vf vf_min(vf a, vf b) { return _mm256_min_ps(a, b); }
AT_INLINE vf vf_abs(vf a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
AT_INLINE vf vf_sqrt(vf a) { return _mm256_sqrt_ps(a); }
AT_INLINE vf vf_copysign(vf a, vf b) {
    __m256 sign = _mm256_set1_ps(-0.0f);
    return _mm256_or_ps(_mm256_andnot_ps(sign, a), _mm256_and_ps(sign, b));
}
AT_INLINE vf vf_round(vf a) {
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
AT_INLINE vf vf_scale2(vf a, vf n) {
    __m256i e = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), e));
}

AT_INLINE vm vf_less(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_LT_OQ); }
AT_INLINE vm vf_not_less(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_NLT_UQ); }
AT_INLINE vm vf_equal(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_EQ_OQ); }
AT_INLINE vm vf_unordered(vf a, vf b) { return _mm256_cmp_ps(a, b, _CMP_UNORD_Q); }
AT_INLINE vf vf_select(vm m, vf a, vf b) { return _mm256_blendv_ps(b, a, m); }
AT_INLINE vf vf_keep(vm m, vf a) { return _mm256_and_ps(m, a); }
AT_INLINE vf vf_within(vf a, int first, int last, vf fill) {
    __m256i lane = vec_lane_numbers();
    __m256i below = _mm256_cmpgt_epi32(_mm256_set1_epi32(first), lane),
            in = _mm256_cmpgt_epi32(_mm256_set1_epi32(last), lane);
    return _mm256_blendv_ps(fill, a, _mm256_castsi256_ps(_mm256_andnot_si256(below, in)));
}

AT_INLINE float vf_reduce_add(vf a) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}
AT_INLINE float vf_reduce_max(vf a) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps(s, s, 1)));
}

AT_INLINE vf vf_load_i8(const int8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
AT_INLINE vf vf_load_bf16(const uint16_t *p) {
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}
/* A 32-bit lane holds a pair: a shift makes f32 of the even element, a mask of the odd one. */
AT_INLINE void vf_load_bf16_pairs(const uint16_t *p, vf *even, vf *odd) {
    __m256i pair = _mm256_loadu_si256((const __m256i *)p);
    *even = _mm256_castsi256_ps(_mm256_slli_epi32(pair, 16));
    *odd = _mm256_castsi256_ps(_mm256_and_si256(pair, _mm256_set1_epi32((int)0xffff0000u)));
}
/* The reverse: two bf16 in a 32-bit lane, rounded as vf_store_bf16 does. */
AT_INLINE __m256i vec_round_bf16(vf a) {
    __m256i u = _mm256_castps_si256(a);
    __m256i even =
        _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)),
                         _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1)));
    __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(even, _mm256_or_si256(u, _mm256_set1_epi32(0x400000)), nan);
}
AT_INLINE vf vf_pairs(vf even, vf odd) {
    return _mm256_castsi256_ps(
        _mm256_or_si256(_mm256_and_si256(vec_round_bf16(odd), _mm256_set1_epi32((int)0xffff0000u)),
                        _mm256_srli_epi32(vec_round_bf16(even), 16)));
}
AT_INLINE vf vf_load_f16(const uint16_t *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
AT_INLINE void vf_store_bf16(uint16_t *p, vf a) {
    __m256i r = _mm256_srli_epi32(vec_round_bf16(a), 16);
    __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(r, r), 0x08);
    _mm_storeu_si128((__m128i *)p, _mm256_castsi256_si128(packed));
}
AT_INLINE void vf_store_f16(uint16_t *p, vf a) {
    _mm_storeu_si128((__m128i *)p,
                     _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
/* A 32-bit lane of x and y holds two integers of 16 bits; their products are added to the i32 in
 * the lane of sum. */
AT_INLINE vf vf_dot_words(vf x, vf y, vf sum) {
    return _mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_castps_si256(sum),
                         _mm256_madd_epi16(_mm256_castps_si256(x), _mm256_castps_si256(y))));
}
AT_INLINE vf vf_of_i32(vf a) { return _mm256_cvtepi32_ps(_mm256_castps_si256(a)); }
/* 2 AT_LANES integers of 8 bits, extended to 16 bits. */
AT_INLINE vf vf_load_words(const int8_t *p) {
    return _mm256_castsi256_ps(_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p)));
}
/* To nearest even; |a| and |b| are at most 127. a[i] goes to p[2 i], b[i] to p[2 i + 1]. */
AT_INLINE void vf_store_i8_pairs(int8_t *p, vf a, vf b) {
    __m256i words =
        _mm256_or_si256(_mm256_and_si256(_mm256_cvtps_epi32(a), _mm256_set1_epi32(0xffff)),
                        _mm256_slli_epi32(_mm256_cvtps_epi32(b), 16));
    _mm_storeu_si128((__m128i *)p, _mm_packs_epi16(_mm256_castsi256_si128(words),
                                                   _mm256_extracti128_si256(words, 1)));
}
/* To nearest even; |a| is at most 32767. */
AT_INLINE void vf_store_i16(int16_t *p, vf a) {
    __m256i u = _mm256_cvtps_epi32(a);
    _mm_storeu_si128((__m128i *)p,
                     _mm_packs_epi32(_mm256_castsi256_si128(u), _mm256_extracti128_si256(u, 1)));
}

/* x[i] lane j becomes x[j] lane i. */
AT_INLINE void vf_transpose(vf x[AT_LANES]) {
    __m256 y[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
        y[i] = _mm256_unpacklo_ps(x[i], x[i + 1]);
        y[i + 1] = _mm256_unpackhi_ps(x[i], x[i + 1]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
        x[i] = _mm256_shuffle_ps(y[i], y[i + 2], 0x44);
        x[i + 1] = _mm256_shuffle_ps(y[i], y[i + 2], 0xee);
        x[i + 2] = _mm256_shuffle_ps(y[i + 1], y[i + 3], 0x44);
        x[i + 3] = _mm256_shuffle_ps(y[i + 1], y[i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; c++) {
        y[c] = _mm256_permute2f128_ps(x[c], x[4 + c], 0x20);
        y[4 + c] = _mm256_permute2f128_ps(x[c], x[4 + c], 0x31);
    }
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) x[i] = y[i];
}

#endif
