/* functions.h - functions of vectors, accurate to a few units in the last place of f32. In the set
 * f64 vec_f64.h has those of libm instead. */
#ifndef AT_SIMD_FUNCTIONS_H
#define AT_SIMD_FUNCTIONS_H

#include "base/constants.h"
#include "simd/kernels/vec.h"

#if !defined AT_ISA_f64

/* e^x within 2 ulp: x = n ln 2 + f with ln 2 in two parts (Cody and Waite 1980), so that f keeps
 * its last bits; e^f by the minimax polynomial of degree 7 of Moshier's Cephes on |f| <= ln 2 / 2;
 * times 2^n in two factors, so that results below 2^-126 come out as subnormals and not as zero. */
AT_INLINE vf vf_exp(vf x) {
    /* vf_min and vf_max return their second argument where either is NaN. */
    x = vf_max(vf_set1(-104.0f), vf_min(vf_set1(89.0f), x));
    vf n = vf_round(vf_mul(x, vf_set1((float)AT_LOG2_E)));
    vf f = vf_fma(n, vf_set1(-0.693359375f), x);
    f = vf_fma(n, vf_set1(2.12194440e-4f), f);
    vf p = vf_fma(vf_set1(1.9875691500e-4f), f, vf_set1(1.3981999507e-3f));
    p = vf_fma(p, f, vf_set1(8.3334519073e-3f));
    p = vf_fma(p, f, vf_set1(4.1665795894e-2f));
    p = vf_fma(p, f, vf_set1(1.6666665459e-1f));
    p = vf_fma(p, f, vf_set1(5.0000001201e-1f));
    p = vf_add(vf_fma(vf_mul(f, f), p, f), vf_set1(1.0f));
    vf half = vf_round(vf_mul(n, vf_set1(0.5f)));
    return vf_mul(vf_scale2(p, half), vf_scale2(vf_set1(1.0f), vf_sub(n, half)));
}

/* 1 / (1 + e^-x); e^-|x| keeps small results exact on the negative side. */
AT_INLINE vf vf_sigmoid(vf x) {
    vf e = vf_exp(vf_copysign(x, vf_set1(-1.0f)));
    vf positive = vf_div(vf_set1(1.0f), vf_add(vf_set1(1.0f), e));
    vf r = vf_select(vf_less(x, vf_zero()), vf_mul(e, positive), positive);
    return r;
}

/* tanh(x) = (1 - e^(-2|x|)) / (1 + e^(-2|x|)); below 1/4 the odd series, where the difference would
 * cancel. */
AT_INLINE vf vf_tanh_exact(vf x) {
    vf a = vf_abs(x), s = vf_mul(x, x);
    vf t = vf_fma(s, vf_set1(-1382.0f / 155925), vf_set1(62.0f / 2835));
    t = vf_fma(s, t, vf_set1(-17.0f / 315));
    t = vf_fma(s, t, vf_set1(2.0f / 15));
    t = vf_fma(s, t, vf_set1(-1.0f / 3));
    vf small = vf_fma(vf_mul(x, s), t, x);
    vf e = vf_exp(vf_mul(a, vf_set1(-2.0f)));
    vf big = vf_copysign(vf_div(vf_sub(vf_set1(1.0f), e), vf_add(vf_set1(1.0f), e)), x);
    return vf_select(vf_less(a, vf_set1(0.25f)), small, big);
}

/* erfc(z) for z >= 0, within a few units in the last place: e^(-z^2) t R(t) with t = 1 / (1 + z /
 * 2), R the minimax polynomial of degree 10 on z up to 9.7 (its error is 2^-28); beyond, the result
 * is below the range of f32. z^2 is corrected by its own rounding error, which e^(-z^2) would
 * amplify by |z^2|. */
AT_INLINE vf vf_erfc(vf z) {
    z = vf_min(vf_set1(13.0f), z); /* keeps NaN, and infinity from itself */
    const vf square = vf_mul(z, z), rest = vf_fma(z, z, vf_sub(vf_zero(), square));
    const vf t = vf_div(vf_set1(1.0f), vf_fma(z, vf_set1(0.5f), vf_set1(1.0f)));
    vf p = vf_fma(vf_set1(0.034888881634658774f), t, vf_set1(-0.1858080443865729f));
    p = vf_fma(p, t, vf_set1(0.3677880113389596f));
    p = vf_fma(p, t, vf_set1(-0.2691037086493824f));
    p = vf_fma(p, t, vf_set1(-0.04156165060240527f));
    p = vf_fma(p, t, vf_set1(0.04784816530016639f));
    p = vf_fma(p, t, vf_set1(0.049584524519956f));
    p = vf_fma(p, t, vf_set1(0.18708158172376468f));
    p = vf_fma(p, t, vf_set1(0.24491601493109638f));
    p = vf_fma(p, t, vf_set1(0.2822788517447813f));
    p = vf_fma(p, t, vf_set1(0.2820873757177993f));
    const vf e = vf_exp(vf_sub(vf_zero(), square));
    return vf_mul(vf_mul(vf_sub(e, vf_mul(e, rest)), t), p);
}

#endif

/* The cumulative distribution of the normal distribution at x, without cancellation on either side.
 */
AT_INLINE vf vf_normal(vf x) {
    const vf half = vf_mul(vf_set1((real)0.5),
                           vf_erfc(vf_mul(vf_abs(x), vf_set1((real)0.70710678118654752440))));
    return vf_select(vf_less(x, vf_zero()), half, vf_sub(vf_set1((real)1), half));
}

#endif
