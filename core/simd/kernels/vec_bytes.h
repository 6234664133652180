/* vec_bytes.h - vectors of bytes for quant_kernels.c: a 32-bit lane of w holds 4 neighbouring
 * weights of an output.
 *
 *   vec_bits(w, shift, mask)      each byte: (w >> shift) & mask; shift may be negative. The mask
 *                                 leaves no bit that comes from another byte
 *   vec_or(a, b)                  bitwise
 *   vec_dot_16(w, x, bits, sum)   sum + w[0 .. 3] times the 16 integers at x, in i32 per lane,
 * exact; signed weights count as w + AT_BYTE_BIAS
 *   vec_nibble(w, i)              the 4 bits from bit 4 i of each lane on, as f32
 *   vec_byte(w, e)                byte e of each lane as f32, unsigned
 *   vec_signed_byte(w, e)         the same, signed
 *
 * AT_SPLIT_BITS: up to these bits three such sums cost less than one in f32. Where it is not 0:
 *
 *   vec_store_planes(v, q, plane) v: integers from -8421504 to 8355711, as f32. Each is 65536 a +
 *                                 256 b + c of signed bytes, and a goes to q, b to q + plane and c
 *                                 to q + 2 plane. Returns the sum of v
 *   vec_start_of(p, shift)        the i32 at p times 2^shift, in each lane
 *   vec_of_planes(a, b, c)        65536 a + 256 b + c of i32 as f32; 256 b + c is an i32
 *
 * x is from -127 to 127, and -128 too for weights of AT_SPLIT_BITS. Weights of 4, 5 and 6 bits are
 * unsigned, those of 8 bits are signed. The instruction that multiplies unsigned by signed bytes
 * and adds pairs (maddubs) saturates at 32767. It never does here: the largest sums of 16 bits are
 * 4 * 2 * 31 * 128 = 31744 for 5 bits, 2 * 2 * 63 * 128 = 32256 for 6 bits, and 2 * 128 * 127 =
 * 32512 for |w| of 8 bits times x with w's sign.
 */
#ifndef AT_SIMD_VEC_BYTES_H
#define AT_SIMD_VEC_BYTES_H

#include "vec.h"

#if defined AT_AVX512

AT_INLINE vf vec_or(vf a, vf b) { return _mm512_or_ps(a, b); }
AT_INLINE vf vec_bits(vf w, int shift, int mask) {
    const __m512i u = _mm512_castps_si512(w), moved = shift < 0
                                                          ? _mm512_slli_epi32(u, (unsigned)-shift)
                                                          : _mm512_srli_epi32(u, (unsigned)shift);
    return _mm512_castsi512_ps(_mm512_and_si512(moved, _mm512_set1_epi8((char)mask)));
}

/* A permutation looks at 4 bits of its index, so that a table makes numbers of them at once. */
AT_INLINE vf vec_nibble(vf w, int i) {
    const vf numbers = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_permutexvar_ps(_mm512_srli_epi32(_mm512_castps_si512(w), (unsigned)(4 * i)),
                                 numbers);
}
AT_INLINE vf vec_byte(vf w, int e) {
    const __m512i moved = _mm512_srli_epi32(_mm512_castps_si512(w), (unsigned)(8 * e));
    return _mm512_cvtepi32_ps(e == 3 ? moved : _mm512_and_si512(moved, _mm512_set1_epi32(255)));
}
AT_INLINE vf vec_signed_byte(vf w, int e) {
    const __m512i moved = _mm512_slli_epi32(_mm512_castps_si512(w), (unsigned)(24 - 8 * e));
    return _mm512_cvtepi32_ps(_mm512_srai_epi32(moved, 24));
}

/* Of v + 0x808080 the bytes are a + 128, b + 128 and c + 128. */
AT_INLINE int vec_store_planes(vf v, int8_t *q, int64_t plane) {
    const __m512i n = _mm512_cvtps_epi32(v), half = _mm512_set1_epi32(0x808080),
                  bytes = _mm512_xor_si512(_mm512_add_epi32(n, half), half);
    _mm_storeu_si128((__m128i *)q, _mm512_cvtepi32_epi8(_mm512_srli_epi32(bytes, 16)));
    _mm_storeu_si128((__m128i *)(q + plane), _mm512_cvtepi32_epi8(_mm512_srli_epi32(bytes, 8)));
    _mm_storeu_si128((__m128i *)(q + 2 * plane), _mm512_cvtepi32_epi8(bytes));
    return _mm512_reduce_add_epi32(n);
}
AT_INLINE vf vec_start_of(const int32_t *p, int shift) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_set1_epi32(*p), (unsigned)shift));
}
AT_INLINE vf vec_of_planes(vf a, vf b, vf c) {
    const __m512i low =
        _mm512_add_epi32(_mm512_slli_epi32(_mm512_castps_si512(b), 8), _mm512_castps_si512(c));
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_castps_si512(a)), _mm512_set1_ps(65536.0f),
                           _mm512_cvtepi32_ps(low));
}

#if AT_HAS_DOT_I8
/* The instruction broadcasts the 4 bytes of x itself. */
AT_INLINE vf vec_dot_broadcast(vf w, const int8_t *x, vf sum) {
    typedef int32_t word __attribute__((may_alias, aligned(1)));
    __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(w), "m"(*(const word *)x));
    return sum;
}
#define AT_SPLIT_BITS 8
enum { AT_BYTE_BIAS = 128 };
AT_INLINE vf vec_dot_16(const vf w[4], const int8_t *x, int bits, vf sum) {
#pragma GCC unroll 4
    for (int g = 0; g < 4; g++) {
        vf u = w[g];
        if (bits == 8)
            u = _mm512_castsi512_ps(
                _mm512_xor_si512(_mm512_castps_si512(u), _mm512_set1_epi8((char)0x80)));
        sum = vec_dot_broadcast(u, x + 4 * g, sum);
    }
    return sum;
}
#else
#define AT_SPLIT_BITS 0 /* a permutation makes numbers as fast */
AT_INLINE vf vec_dot_16(const vf w[4], const int8_t *x, int bits, vf sum) {
    const __m512i ones = _mm512_set1_epi16(1);
    __m512i words[4], total = _mm512_castps_si512(sum);
    for (int g = 0; g < 4; g++) {
        int32_t four;
        memcpy(&four, x + 4 * g, 4);
        const __m512i u = _mm512_castps_si512(w[g]), y = _mm512_set1_epi32(four);
        if (bits == 8) {
            const __m512i same =
                _mm512_mask_sub_epi8(y, _mm512_movepi8_mask(u), _mm512_setzero_si512(), y);
            words[g] = _mm512_maddubs_epi16(_mm512_abs_epi8(u), same);
        } else {
            words[g] = _mm512_maddubs_epi16(u, y);
        }
    }
    if (bits == 8) {
        for (int g = 0; g < 4; g++)
            total = _mm512_add_epi32(total, _mm512_madd_epi16(words[g], ones));
        return _mm512_castsi512_ps(total);
    }
    words[0] = _mm512_add_epi16(words[0], words[1]);
    words[2] = _mm512_add_epi16(words[2], words[3]);
    if (bits < 6) {
        words[0] = _mm512_add_epi16(words[0], words[2]);
    } else {
        total = _mm512_add_epi32(total, _mm512_madd_epi16(words[2], ones));
    }
    return _mm512_castsi512_ps(_mm512_add_epi32(total, _mm512_madd_epi16(words[0], ones)));
}
#endif

#elif defined AT_ISA_avx2

#define AT_SPLIT_BITS 6
AT_INLINE vf vec_or(vf a, vf b) { return _mm256_or_ps(a, b); }
AT_INLINE vf vec_bits(vf w, int shift, int mask) {
    const __m256i u = _mm256_castps_si256(w),
                  moved = shift < 0 ? _mm256_slli_epi32(u, -shift) : _mm256_srli_epi32(u, shift);
    return _mm256_castsi256_ps(_mm256_and_si256(moved, _mm256_set1_epi8((char)mask)));
}
AT_INLINE vf vec_nibble(vf w, int i) {
    const __m256i moved = _mm256_srli_epi32(_mm256_castps_si256(w), 4 * i);
    return _mm256_cvtepi32_ps(i == 7 ? moved : _mm256_and_si256(moved, _mm256_set1_epi32(15)));
}
AT_INLINE vf vec_byte(vf w, int e) {
    const __m256i moved = _mm256_srli_epi32(_mm256_castps_si256(w), 8 * e);
    return _mm256_cvtepi32_ps(e == 3 ? moved : _mm256_and_si256(moved, _mm256_set1_epi32(255)));
}
AT_INLINE vf vec_signed_byte(vf w, int e) {
    const __m256i moved = _mm256_slli_epi32(_mm256_castps_si256(w), 24 - 8 * e);
    return _mm256_cvtepi32_ps(_mm256_srai_epi32(moved, 24));
}
/* Of v + 0x808080 the bytes are a + 128, b + 128 and c + 128. */
AT_INLINE int vec_store_planes(vf v, int8_t *q, int64_t plane) {
    const __m256i n = _mm256_cvtps_epi32(v), half = _mm256_set1_epi32(0x808080),
                  bytes = _mm256_xor_si256(_mm256_add_epi32(n, half), half);
    const __m256i by_plane = _mm256_setr_epi8(2, 6, 10, 14, 1, 5, 9, 13, 0, 4, 8, 12, 3, 7, 11, 15,
                                              2, 6, 10, 14, 1, 5, 9, 13, 0, 4, 8, 12, 3, 7, 11, 15);
    const __m256i planes = _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(bytes, by_plane),
                                                       _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    const __m128i ab = _mm256_castsi256_si128(planes);
    _mm_storel_epi64((__m128i *)q, ab);
    _mm_storel_epi64((__m128i *)(q + plane), _mm_srli_si128(ab, 8));
    _mm_storel_epi64((__m128i *)(q + 2 * plane), _mm256_extracti128_si256(planes, 1));
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(n), _mm256_extracti128_si256(n, 1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1)));
}
AT_INLINE vf vec_start_of(const int32_t *p, int shift) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_set1_epi32(*p), shift));
}
AT_INLINE vf vec_of_planes(vf a, vf b, vf c) {
    const __m256i low =
        _mm256_add_epi32(_mm256_slli_epi32(_mm256_castps_si256(b), 8), _mm256_castps_si256(c));
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_castps_si256(a)), _mm256_set1_ps(65536.0f),
                           _mm256_cvtepi32_ps(low));
}
AT_INLINE vf vec_dot_16(const vf w[4], const int8_t *x, int bits, vf sum) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i words[4], total = _mm256_castps_si256(sum);
#pragma GCC unroll 4
    for (int g = 0; g < 4; g++) {
        int32_t four;
        memcpy(&four, x + 4 * g, 4);
        const __m256i u = _mm256_castps_si256(w[g]), y = _mm256_set1_epi32(four);
        words[g] = bits == 8 ? _mm256_maddubs_epi16(_mm256_abs_epi8(u), _mm256_sign_epi8(y, u))
                             : _mm256_maddubs_epi16(u, y);
    }
    if (bits == 8) {
#pragma GCC unroll 4
        for (int g = 0; g < 4; g++)
            total = _mm256_add_epi32(total, _mm256_madd_epi16(words[g], ones));
        return _mm256_castsi256_ps(total);
    }
    words[0] = _mm256_add_epi16(words[0], words[1]);
    words[2] = _mm256_add_epi16(words[2], words[3]);
    if (bits < 6) {
        words[0] = _mm256_add_epi16(words[0], words[2]);
    } else {
        total = _mm256_add_epi32(total, _mm256_madd_epi16(words[2], ones));
    }
    return _mm256_castsi256_ps(_mm256_add_epi32(total, _mm256_madd_epi16(words[0], ones)));
}

#elif defined AT_ISA_sse2

#define AT_SPLIT_BITS 0
AT_INLINE vf vec_or(vf a, vf b) { return _mm_or_ps(a, b); }
AT_INLINE vf vec_bits(vf w, int shift, int mask) {
    const __m128i u = _mm_castps_si128(w),
                  moved = shift < 0 ? _mm_slli_epi32(u, -shift) : _mm_srli_epi32(u, shift);
    return _mm_castsi128_ps(_mm_and_si128(moved, _mm_set1_epi8((char)mask)));
}
AT_INLINE vf vec_nibble(vf w, int i) {
    const __m128i moved = _mm_srli_epi32(_mm_castps_si128(w), 4 * i);
    return _mm_cvtepi32_ps(_mm_and_si128(moved, _mm_set1_epi32(15)));
}
AT_INLINE vf vec_byte(vf w, int e) {
    const __m128i moved = _mm_srli_epi32(_mm_castps_si128(w), 8 * e);
    return _mm_cvtepi32_ps(_mm_and_si128(moved, _mm_set1_epi32(255)));
}
AT_INLINE vf vec_signed_byte(vf w, int e) {
    const __m128i moved = _mm_slli_epi32(_mm_castps_si128(w), 24 - 8 * e);
    return _mm_cvtepi32_ps(_mm_srai_epi32(moved, 24));
}
/* Without maddubs: both sides are extended to 16 bits. A lane's sum is then in two neighbours. */
AT_INLINE vf vec_dot_16(const vf w[4], const int8_t *x, int bits, vf sum) {
    __m128i low = _mm_setzero_si128(), high = low;
    for (int g = 0; g < 4; g++) {
        int32_t four;
        memcpy(&four, x + 4 * g, 4);
        const __m128i u = _mm_castps_si128(w[g]);
        __m128i y = _mm_cvtsi32_si128(four);
        y = _mm_srai_epi16(_mm_unpacklo_epi8(y, y), 8);
        y = _mm_unpacklo_epi64(y, y);
        const __m128i sign =
            bits == 8 ? _mm_cmpgt_epi8(_mm_setzero_si128(), u) : _mm_setzero_si128();
        low = _mm_add_epi32(low, _mm_madd_epi16(_mm_unpacklo_epi8(u, sign), y));
        high = _mm_add_epi32(high, _mm_madd_epi16(_mm_unpackhi_epi8(u, sign), y));
    }
    const __m128 a = _mm_castsi128_ps(low), b = _mm_castsi128_ps(high);
    const __m128i pairs = _mm_add_epi32(_mm_castps_si128(_mm_shuffle_ps(a, b, 0x88)),
                                        _mm_castps_si128(_mm_shuffle_ps(a, b, 0xdd)));
    return _mm_castsi128_ps(_mm_add_epi32(_mm_castps_si128(sum), pairs));
}

#elif defined AT_ISA_neon

#define AT_SPLIT_BITS 0
AT_INLINE vf vec_or(vf a, vf b) {
    return vreinterpretq_f32_u32(vorrq_u32(vreinterpretq_u32_f32(a), vreinterpretq_u32_f32(b)));
}
AT_INLINE vf vec_bits(vf w, int shift, int mask) {
    const uint32x4_t moved = vshlq_u32(vreinterpretq_u32_f32(w), vdupq_n_s32(-shift));
    return vreinterpretq_f32_u8(vandq_u8(vreinterpretq_u8_u32(moved), vdupq_n_u8((uint8_t)mask)));
}
AT_INLINE vf vec_nibble(vf w, int i) {
    const uint32x4_t moved = vshlq_u32(vreinterpretq_u32_f32(w), vdupq_n_s32(-4 * i));
    return vcvtq_f32_u32(vandq_u32(moved, vdupq_n_u32(15)));
}
AT_INLINE vf vec_byte(vf w, int e) {
    const uint32x4_t moved = vshlq_u32(vreinterpretq_u32_f32(w), vdupq_n_s32(-8 * e));
    return vcvtq_f32_u32(vandq_u32(moved, vdupq_n_u32(255)));
}
AT_INLINE vf vec_signed_byte(vf w, int e) {
    const int32x4_t moved = vshlq_s32(vreinterpretq_s32_f32(w), vdupq_n_s32(24 - 8 * e));
    return vcvtq_f32_s32(vshrq_n_s32(moved, 24));
}
/* Weights of at most 6 bits are signed bytes too. */
AT_INLINE vf vec_dot_16(const vf w[4], const int8_t *x, int bits, vf sum) {
    int32x4_t low = vdupq_n_s32(0), high = low;
    (void)bits;
    for (int g = 0; g < 4; g++) {
        int32_t four;
        memcpy(&four, x + 4 * g, 4);
        const int8x16_t u = vreinterpretq_s8_f32(w[g]);
        const int8x16_t y = vreinterpretq_s8_s32(vdupq_n_s32(four));
        low = vpadalq_s16(low, vmull_s8(vget_low_s8(u), vget_low_s8(y)));
        high = vpadalq_s16(high, vmull_high_s8(u, y));
    }
    return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(sum), vpaddq_s32(low, high)));
}

#else

#define AT_SPLIT_BITS 0
AT_INLINE vf vec_or(vf a, vf b) {
    for (int i = 0; i < AT_LANES; i++) {
        const uint32_t u = at_bits_of_f32(a.x[i]) | at_bits_of_f32(b.x[i]);
        memcpy(&a.x[i], &u, 4);
    }
    return a;
}
AT_INLINE vf vec_bits(vf w, int shift, int mask) {
    for (int i = 0; i < AT_LANES; i++) {
        uint32_t u = at_bits_of_f32(w.x[i]);
        u = shift < 0 ? u << -shift : u >> shift;
        u &= (uint32_t)mask * 0x01010101u;
        memcpy(&w.x[i], &u, 4);
    }
    return w;
}
AT_INLINE vf vec_nibble(vf w, int i) {
    for (int lane = 0; lane < AT_LANES; lane++)
        w.x[lane] = (float)(at_bits_of_f32(w.x[lane]) >> 4 * i & 15);
    return w;
}
AT_INLINE vf vec_byte(vf w, int e) {
    for (int lane = 0; lane < AT_LANES; lane++)
        w.x[lane] = (float)(at_bits_of_f32(w.x[lane]) >> 8 * e & 255);
    return w;
}
AT_INLINE vf vec_signed_byte(vf w, int e) {
    for (int lane = 0; lane < AT_LANES; lane++)
        w.x[lane] = (float)(int8_t)(at_bits_of_f32(w.x[lane]) >> 8 * e & 255);
    return w;
}
AT_INLINE vf vec_dot_16(const vf w[4], const int8_t *x, int bits, vf sum) {
    (void)bits; /* weights of at most 6 bits are signed bytes too */
    for (int i = 0; i < AT_LANES; i++) {
        int32_t total;
        memcpy(&total, &sum.x[i], 4);
        for (int g = 0; g < 4; g++) {
            int8_t four[4];
            memcpy(four, &w[g].x[i], 4);
            for (int e = 0; e < 4; e++) total += four[e] * x[4 * g + e];
        }
        memcpy(&sum.x[i], &total, 4);
    }
    return sum;
}

#endif

#if !(defined AT_AVX512 && AT_HAS_DOT_I8)
enum { AT_BYTE_BIAS = 0 };
#endif

#endif
