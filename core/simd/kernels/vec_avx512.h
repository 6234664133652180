/* vec_avx512.h - the vector layer over AVX-512 F, BW, DQ and VL. */
#ifndef AT_SIMD_VEC_AVX512_H
#define AT_SIMD_VEC_AVX512_H

#include <immintrin.h>

/* 32 registers: 14 rows x 2 vectors of sums, 2 of columns; what a row multiplies by comes broadcast from memory. */
enum { AT_LANES = 16, AT_ROWS = 14 };

typedef __m512 vf;
typedef __mmask16 vm;

AT_INLINE vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
AT_INLINE void vf_store(float *p, vf a) { _mm512_storeu_ps(p, a); }
AT_INLINE vf vf_set1(float x) { return _mm512_set1_ps(x); }
AT_INLINE vf vf_zero(void) { return _mm512_setzero_ps(); }

/* n from 0 to 16 */
AT_INLINE __mmask16 vec_first_lanes(int n) { return (__mmask16)((1u << n) - 1u); }
AT_INLINE vf vf_load_part(const float *p, int n) { return _mm512_maskz_loadu_ps(vec_first_lanes(n), p); }
AT_INLINE void vf_store_part(float *p, vf a, int n) { _mm512_mask_storeu_ps(p, vec_first_lanes(n), a); }

AT_INLINE vf vf_add(vf a, vf b) { return _mm512_add_ps(a, b); }
AT_INLINE vf vf_sub(vf a, vf b) { return _mm512_sub_ps(a, b); }
AT_INLINE vf vf_mul(vf a, vf b) { return _mm512_mul_ps(a, b); }
AT_INLINE vf vf_div(vf a, vf b) { return _mm512_div_ps(a, b); }
AT_INLINE vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
AT_INLINE vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); } /* where either is NaN, b */
AT_INLINE vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
AT_INLINE vf vf_abs(vf a) { return _mm512_abs_ps(a); }
AT_INLINE vf vf_sqrt(vf a) { return _mm512_sqrt_ps(a); }
AT_INLINE vf vf_copysign(vf a, vf b) {
    /* bitwise choice by the sign mask: a where 0, b where 1 */
    return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(_mm512_castps_si512(_mm512_set1_ps(-0.0f)), _mm512_castps_si512(b), _mm512_castps_si512(a), 0xca));
}
AT_INLINE vf vf_round(vf a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
AT_INLINE vf vf_scale2(vf a, vf n) { return _mm512_scalef_ps(a, n); }

AT_INLINE vm vf_less(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
AT_INLINE vm vf_not_less(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_NLT_UQ); }
AT_INLINE vm vf_equal(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ); }
AT_INLINE vm vf_unordered(vf a, vf b) { return _mm512_cmp_ps_mask(a, b, _CMP_UNORD_Q); }
AT_INLINE vf vf_select(vm m, vf a, vf b) { return _mm512_mask_blend_ps(m, b, a); }
AT_INLINE vf vf_keep(vm m, vf a) { return _mm512_maskz_mov_ps(m, a); }
AT_INLINE vf vf_within(vf a, int first, int last, vf fill) {
    int begin = first < 0 ? 0 : first > 16 ? 16 : first, end = last < begin ? begin : last > 16 ? 16 : last;
    __mmask16 in = (__mmask16)(vec_first_lanes(end) & (uint32_t)~vec_first_lanes(begin));
    return _mm512_mask_blend_ps(in, fill, a);
}

AT_INLINE float vf_reduce_add(vf a) { return _mm512_reduce_add_ps(a); }
AT_INLINE float vf_reduce_max(vf a) { return _mm512_reduce_max_ps(a); }

AT_INLINE vf vf_load_bf16(const uint16_t *p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
/* A 32-bit lane holds a pair: shifting brings the even one into place, masking leaves the odd one. */
AT_INLINE void vf_load_bf16_pairs(const uint16_t *p, vf *even, vf *odd) {
    __m512i pair = _mm512_loadu_si512(p);
    *even = _mm512_castsi512_ps(_mm512_slli_epi32(pair, 16));
    *odd = _mm512_castsi512_ps(_mm512_and_si512(pair, _mm512_set1_epi32((int)0xffff0000u)));
}
AT_INLINE vf vf_load_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
AT_INLINE void vf_store_bf16(uint16_t *p, vf a) {
    __m512i u = _mm512_castps_si512(a), high = _mm512_srli_epi32(u, 16);
    __m512i even = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), _mm512_and_si512(high, _mm512_set1_epi32(1)));
    __mmask16 nan = _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
    __m512i r = _mm512_mask_or_epi32(_mm512_srli_epi32(even, 16), nan, high, _mm512_set1_epi32(0x40));
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(r));
}
AT_INLINE void vf_store_f16(uint16_t *p, vf a) { _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)); }

#endif
