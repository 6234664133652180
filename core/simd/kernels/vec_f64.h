/* vec_f64.h - the vector layer in double precision and plain C. It has the functions that
 * nn_kernels.c needs, for f64 tensors. */
#ifndef AT_SIMD_VEC_F64_H
#define AT_SIMD_VEC_F64_H

typedef double real;
typedef bool lane_mask;
enum { AT_LANES = 4 };
#define AT_ROWS 2
#define AT_HAS_DOT_BF16 0
#define AT_HAS_DOT_I8 0

#include "vec_plain.h"
#undef AT_BINARY

#define AT_UNARY(name, expression)   \
    AT_INLINE vf name(vf a) {        \
        AT_EACH a.x[i] = expression; \
        return a;                    \
    }
AT_UNARY(vf_abs, fabs(a.x[i]))
AT_UNARY(vf_sqrt, sqrt(a.x[i]))
AT_UNARY(vf_exp, exp(a.x[i]))
AT_UNARY(vf_tanh_exact, tanh(a.x[i]))
AT_UNARY(vf_erfc, erfc(a.x[i]))
AT_UNARY(vf_sigmoid, a.x[i] < 0 ? exp(a.x[i]) / (1 + exp(a.x[i])) : 1 / (1 + exp(-a.x[i])))
#undef AT_UNARY

AT_INLINE double vf_reduce_add(vf a) { return (a.x[0] + a.x[2]) + (a.x[1] + a.x[3]); }

#undef AT_EACH
#endif
