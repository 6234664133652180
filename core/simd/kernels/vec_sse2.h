/* vec_sse2.h - the vector layer over SSE2, which every x86-64 processor has. */
#ifndef AT_SIMD_VEC_SSE2_H
#define AT_SIMD_VEC_SSE2_H

#include <emmintrin.h>

/* 16 registers: 6 rows x 2 vectors of sums, 2 of columns, 1 broadcast, 1 for the product before it
 * is added. */
enum { AT_LANES = 4 };
#define AT_ROWS 6
#define AT_HAS_DOT_BF16 0
#define AT_HAS_DOT_I8 0

typedef __m128 vf;
typedef __m128 vm;

AT_INLINE vf vf_load(const float *p) { return _mm_loadu_ps(p); }
AT_INLINE void vf_store(float *p, vf a) { _mm_storeu_ps(p, a); }
AT_INLINE vf vf_set1(float x) { return _mm_set1_ps(x); }
AT_INLINE vf vf_zero(void) { return _mm_setzero_ps(); }
AT_INLINE vf vf_load_part(const float *p, int n) {
    float x[4] = {0, 0, 0, 0};
    memcpy(x, p, (size_t)n * sizeof *p);
    return _mm_loadu_ps(x);
}
AT_INLINE void vf_store_part(float *p, vf a, int n) {
    float x[4];
    _mm_storeu_ps(x, a);
    memcpy(p, x, (size_t)n * sizeof *p);
}

AT_INLINE vf vf_add(vf a, vf b) { return _mm_add_ps(a, b); }
AT_INLINE vf vf_sub(vf a, vf b) { return _mm_sub_ps(a, b); }
AT_INLINE vf vf_mul(vf a, vf b) { return _mm_mul_ps(a, b); }
AT_INLINE vf vf_div(vf a, vf b) { return _mm_div_ps(a, b); }
AT_INLINE vf vf_fma(vf a, vf b, vf c) { return _mm_add_ps(_mm_mul_ps(a, b), c); }
AT_INLINE vf vf_max(vf a, vf b) { return _mm_max_ps(a, b); } /* b where either is NaN */
AT_INLINE vf vf_min(vf a, vf b) { return _mm_min_ps(a, b); }
AT_INLINE vf vf_abs(vf a) { return _mm_andnot_ps(_mm_set1_ps(-0.0f), a); }
AT_INLINE vf vf_sqrt(vf a) { return _mm_sqrt_ps(a); }
AT_INLINE vf vf_select(vm m, vf a, vf b) {
    return _mm_or_ps(_mm_and_ps(m, a), _mm_andnot_ps(m, b));
}
AT_INLINE vf vf_copysign(vf a, vf b) { return vf_select(_mm_set1_ps(-0.0f), b, a); }
/* For |x| below 2^22: adding 1.5 * 2^23 leaves no bits for a fraction. */
AT_INLINE vf vf_round(vf a) {
    const __m128 magic = _mm_set1_ps(12582912.0f);
    return _mm_sub_ps(_mm_add_ps(a, magic), magic);
}
AT_INLINE vf vf_scale2(vf a, vf n) {
    return _mm_castsi128_ps(
        _mm_add_epi32(_mm_castps_si128(a), _mm_slli_epi32(_mm_cvtps_epi32(n), 23)));
}

AT_INLINE vm vf_less(vf a, vf b) { return _mm_cmplt_ps(a, b); }
AT_INLINE vm vf_not_less(vf a, vf b) { return _mm_cmpnlt_ps(a, b); }
AT_INLINE vm vf_equal(vf a, vf b) { return _mm_cmpeq_ps(a, b); }
AT_INLINE vm vf_unordered(vf a, vf b) { return _mm_cmpunord_ps(a, b); }
AT_INLINE vf vf_keep(vm m, vf a) { return _mm_and_ps(m, a); }
AT_INLINE vf vf_within(vf a, int first, int last, vf fill) {
    const __m128i lane = _mm_setr_epi32(0, 1, 2, 3);
    const __m128i below = _mm_cmpgt_epi32(_mm_set1_epi32(first), lane),
                  in = _mm_cmpgt_epi32(_mm_set1_epi32(last), lane);
    return vf_select(_mm_castsi128_ps(_mm_andnot_si128(below, in)), a, fill);
}

AT_INLINE float vf_reduce_add(vf a) {
    a = _mm_add_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_add_ss(a, _mm_shuffle_ps(a, a, 1)));
}
AT_INLINE float vf_reduce_max(vf a) {
    a = _mm_max_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_max_ss(a, _mm_shuffle_ps(a, a, 1)));
}

AT_INLINE vf vf_load_i8(const int8_t *p) {
    int32_t word;
    memcpy(&word, p, sizeof word);
    __m128i x = _mm_cvtsi32_si128(word);
    x = _mm_unpacklo_epi8(x, x);
    return _mm_cvtepi32_ps(_mm_srai_epi32(_mm_unpacklo_epi16(x, x), 24));
}
AT_INLINE vf vf_load_bf16(const uint16_t *p) {
    return _mm_castsi128_ps(
        _mm_unpacklo_epi16(_mm_setzero_si128(), _mm_loadl_epi64((const __m128i *)p)));
}
/* A 32-bit lane holds a pair: a shift makes f32 of the even element, a mask of the odd one. */
AT_INLINE void vf_load_bf16_pairs(const uint16_t *p, vf *even, vf *odd) {
    const __m128i pair = _mm_loadu_si128((const __m128i *)p);
    *even = _mm_castsi128_ps(_mm_slli_epi32(pair, 16));
    *odd = _mm_castsi128_ps(_mm_and_si128(pair, _mm_set1_epi32((int)0xffff0000u)));
}
/* The reverse: two bf16 in a 32-bit lane, rounded to nearest even, NaN kept. */
AT_INLINE __m128i vec_round_bf16(vf a) {
    const __m128i u = _mm_castps_si128(a);
    const __m128i even = _mm_add_epi32(_mm_add_epi32(u, _mm_set1_epi32(0x7fff)),
                                       _mm_and_si128(_mm_srli_epi32(u, 16), _mm_set1_epi32(1)));
    const __m128 nan = _mm_castsi128_ps(_mm_or_si128(u, _mm_set1_epi32(0x400000)));
    return _mm_castps_si128(vf_select(_mm_cmpunord_ps(a, a), nan, _mm_castsi128_ps(even)));
}
AT_INLINE vf vf_pairs(vf even, vf odd) {
    return _mm_castsi128_ps(
        _mm_or_si128(_mm_and_si128(vec_round_bf16(odd), _mm_set1_epi32((int)0xffff0000u)),
                     _mm_srli_epi32(vec_round_bf16(even), 16)));
}
AT_INLINE void vf_store_bf16(uint16_t *p, vf a) {
    /* packs saturates signed words, so the halves are sign-extended first */
    const __m128i r = _mm_srai_epi32(vec_round_bf16(a), 16);
    _mm_storel_epi64((__m128i *)p, _mm_packs_epi32(r, r));
}
/* Exponent and fraction are shifted to their f32 positions, then times 2^112 for the difference in
 * bias, which makes subnormals right too; Inf and NaN get the max exponent. */
AT_INLINE vf vf_load_f16(const uint16_t *p) {
    const __m128i h = _mm_unpacklo_epi16(_mm_loadl_epi64((const __m128i *)p), _mm_setzero_si128());
    const __m128i sign = _mm_slli_epi32(_mm_and_si128(h, _mm_set1_epi32(0x8000)), 16),
                  rest = _mm_and_si128(h, _mm_set1_epi32(0x7fff));
    const __m128 scaled = _mm_mul_ps(_mm_castsi128_ps(_mm_slli_epi32(rest, 13)),
                                     _mm_castsi128_ps(_mm_set1_epi32((112 + 127) << 23)));
    const __m128i special =
        _mm_and_si128(_mm_cmpgt_epi32(rest, _mm_set1_epi32(0x7bff)), _mm_set1_epi32(0x7f800000));
    return _mm_castsi128_ps(_mm_or_si128(_mm_or_si128(_mm_castps_si128(scaled), special), sign));
}
AT_INLINE void vf_store_f16(uint16_t *p, vf a) {
    float x[4];
    _mm_storeu_ps(x, a);
    for (int i = 0; i < 4; i++) p[i] = at_f32_to_f16(x[i]);
}
/* A 32-bit lane of x and y holds two integers of 16 bits; their products are added to the i32 in
 * the lane of sum. */
AT_INLINE vf vf_dot_words(vf x, vf y, vf sum) {
    return _mm_castsi128_ps(_mm_add_epi32(
        _mm_castps_si128(sum), _mm_madd_epi16(_mm_castps_si128(x), _mm_castps_si128(y))));
}
AT_INLINE vf vf_of_i32(vf a) { return _mm_cvtepi32_ps(_mm_castps_si128(a)); }
/* 2 AT_LANES integers of 8 bits, extended to 16 bits. */
AT_INLINE vf vf_load_words(const int8_t *p) {
    const __m128i x = _mm_loadl_epi64((const __m128i *)p);
    return _mm_castsi128_ps(_mm_srai_epi16(_mm_unpacklo_epi8(x, x), 8));
}
/* To nearest even; |a| and |b| are at most 127. a[i] goes to p[2 i], b[i] to p[2 i + 1]. */
AT_INLINE void vf_store_i8_pairs(int8_t *p, vf a, vf b) {
    const __m128i words = _mm_or_si128(_mm_and_si128(_mm_cvtps_epi32(a), _mm_set1_epi32(0xffff)),
                                       _mm_slli_epi32(_mm_cvtps_epi32(b), 16));
    _mm_storel_epi64((__m128i *)p, _mm_packs_epi16(words, words));
}
/* To nearest even; |a| is at most 32767. */
AT_INLINE void vf_store_i16(int16_t *p, vf a) {
    const __m128i u = _mm_cvtps_epi32(a);
    _mm_storel_epi64((__m128i *)p, _mm_packs_epi32(u, u));
}

/* x[i] lane j becomes x[j] lane i. */
AT_INLINE void vf_transpose(vf x[AT_LANES]) { _MM_TRANSPOSE4_PS(x[0], x[1], x[2], x[3]); }

#endif
