/* vec.h - the vector layer: everything that a kernel may know about an instruction set.
 *
 *   vf  AT_LANES f32     vm  a mask over the lanes
 *
 * Loads and stores take any address. Kernels are written once over these names; the Makefile
 * compiles them once per set with AT_ISA=name and AT_ISA_name=1. The functions that
 * all sets share (exp2, tanh) are at the end.
 */
#ifndef AT_SIMD_VEC_H
#define AT_SIMD_VEC_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "base/numbers.h"

#define AT_INLINE static inline __attribute__((always_inline))

/* AT_KERNEL(product) is at_avx2_product: one name per set. */
#define AT_JOIN3_(a, b, c) a##b##_##c
#define AT_JOIN3(a, b, c) AT_JOIN3_(a, b, c)
#define AT_KERNEL(name) AT_JOIN3(at_, AT_ISA, name)

#if defined AT_ISA_f64
#include "vec_f64.h"
#else
typedef float real; /* an element of a vector */
#if defined AT_ISA_avx512 || defined AT_ISA_avx512_vnni || defined AT_ISA_avx512_bf16 || \
    defined AT_ISA_amx
#include "vec_avx512.h"
#elif defined AT_ISA_avx2
#include "vec_avx2.h"
#elif defined AT_ISA_sse2
#include "vec_sse2.h"
#elif defined AT_ISA_neon
#include "vec_neon.h"
#elif defined AT_ISA_c || defined AT_ISA_amx_emulated
#include "vec_c.h"
#else
#error "AT_ISA names no instruction set that vec.h knows"
#endif
#endif

/* AT_EACH_ROW(M, x) is M(1, x) .. M(AT_ROWS, x), AT_EACH_HALF ends at AT_ROWS / 2: the number of
 * rows of a register tile must be a constant. */
#define AT_TO_1(M, x) M(1, x)
#define AT_TO_2(M, x) M(1, x) M(2, x)
#define AT_TO_6(M, x) AT_TO_2(M, x) M(3, x) M(4, x) M(5, x) M(6, x)
#define AT_TO_7(M, x) AT_TO_6(M, x) M(7, x)
#define AT_TO_12(M, x) AT_TO_7(M, x) M(8, x) M(9, x) M(10, x) M(11, x) M(12, x)
#define AT_TO_14(M, x) AT_TO_12(M, x) M(13, x) M(14, x)
#if AT_ROWS == 2
#define AT_EACH_ROW AT_TO_2
#define AT_EACH_HALF AT_TO_1
#elif AT_ROWS == 6
#define AT_EACH_ROW AT_TO_6
#elif AT_ROWS == 12
#define AT_EACH_ROW AT_TO_12
#elif AT_ROWS == 14
#define AT_EACH_ROW AT_TO_14
#define AT_EACH_HALF AT_TO_7
#endif

#if !defined AT_ISA_f64

/* 2^x for softmax, x at most about 100: at most 3 ulp from -126 on, zero below and at -inf, NaN
 * kept. Rounding to the nearest integer n leaves f in [-1/2, 1/2]; a polynomial of degree 5 for
 * 2^f, minimax in relative error. */
AT_INLINE vf vf_exp2(vf x) {
    vm keep = vf_not_less(x, vf_set1(-126.0f));
    vf n = vf_round(x), f = vf_sub(x, n);
    vf p = vf_fma(vf_set1(0.00133908633647f), f, vf_set1(0.00967603191832f));
    p = vf_fma(p, f, vf_set1(0.0555035711422f));
    p = vf_fma(p, f, vf_set1(0.240221074853f));
    p = vf_fma(p, f, vf_set1(0.693147188026f));
    p = vf_fma(p, f, vf_set1(1.00000007545f));
    return vf_keep(keep, vf_scale2(p, n));
}

/* tanh(x) within 4e-7 of its value relatively: x P(x^2) / Q(x^2), both of degree 4, minimax
 * in relative error (2^-25) on |x| <= 9, beyond which tanh is 1 in f32. */
AT_INLINE vf vf_tanh(vf x) {
    x = vf_max(vf_set1(-9.0f), vf_min(vf_set1(9.0f), x)); /* keeps NaN */
    const vf s = vf_mul(x, x);
    vf p = vf_fma(s, vf_set1(1.3354686228573045e-08f), vf_set1(2.0609101358473445e-05f));
    p = vf_fma(p, s, vf_set1(0.0034955893190139046f));
    p = vf_fma(p, s, vf_set1(0.13381026645715144f));
    p = vf_fma(p, s, vf_set1(0.9999999794513693f));
    vf q = vf_fma(s, vf_set1(7.776568800803758e-07f), vf_set1(0.0003285636747244052f));
    q = vf_fma(q, s, vf_set1(0.025876986747772463f));
    q = vf_fma(q, s, vf_set1(0.46714342237714795f));
    q = vf_fma(q, s, vf_set1(1.0f));
    return vf_div(vf_mul(x, p), q);
}

/* Whether none of n numbers is Inf or NaN: these times zero are not zero. */
AT_INLINE bool vec_all_finite(const float *x, int64_t n) {
    vf s0 = vf_zero(), s1 = vf_zero();
    int64_t i = 0;
    for (; i + 2 * AT_LANES <= n; i += 2 * AT_LANES) {
        s0 = vf_fma(vf_load(x + i), vf_zero(), s0);
        s1 = vf_fma(vf_load(x + i + AT_LANES), vf_zero(), s1);
    }
    for (; i < n; i += AT_LANES)
        s0 = vf_fma(n - i < AT_LANES ? vf_load_part(x + i, (int)(n - i)) : vf_load(x + i),
                    vf_zero(), s0);
    return vf_reduce_add(vf_add(s0, s1)) == 0.0f;
}

#endif
#endif
