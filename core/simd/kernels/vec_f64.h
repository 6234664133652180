/* vec_f64.h - the vector layer in double precision and plain C: for truth, not for speed. What
 * core/nn needs of it is there. */
#ifndef AT_SIMD_VEC_F64_H
#define AT_SIMD_VEC_F64_H

typedef double real;
enum { AT_LANES = 4 };
#define AT_ROWS 2
#define AT_HAS_DOT 0

typedef struct vf {
    double x[AT_LANES];
} vf;
typedef struct vm {
    bool x[AT_LANES];
} vm;

#define AT_EACH for (int i = 0; i < AT_LANES; i++)

AT_INLINE vf vf_load(const double *p) {
    vf r;
    memcpy(&r, p, sizeof r);
    return r;
}
AT_INLINE void vf_store(double *p, vf a) { memcpy(p, &a, sizeof a); }
AT_INLINE vf vf_set1(double x) {
    vf r;
    AT_EACH r.x[i] = x;
    return r;
}
AT_INLINE vf vf_zero(void) { return vf_set1(0); }
AT_INLINE vf vf_load_part(const double *p, int n) {
    vf r = vf_zero();
    for (int i = 0; i < n; i++) r.x[i] = p[i];
    return r;
}
AT_INLINE void vf_store_part(double *p, vf a, int n) {
    for (int i = 0; i < n; i++) p[i] = a.x[i];
}

#define AT_MAP2(name, expression)    \
    AT_INLINE vf name(vf a, vf b) {  \
        vf r;                        \
        AT_EACH r.x[i] = expression; \
        return r;                    \
    }
AT_MAP2(vf_add, a.x[i] + b.x[i])
AT_MAP2(vf_sub, a.x[i] - b.x[i])
AT_MAP2(vf_mul, a.x[i] * b.x[i])
AT_MAP2(vf_div, a.x[i] / b.x[i])
AT_MAP2(vf_max, a.x[i] > b.x[i] ? a.x[i] : b.x[i]) /* where either is NaN, b */
#undef AT_MAP2
AT_INLINE vf vf_fma(vf a, vf b, vf c) { return vf_add(vf_mul(a, b), c); }

#define AT_MAP1(name, expression)    \
    AT_INLINE vf name(vf a) {        \
        AT_EACH a.x[i] = expression; \
        return a;                    \
    }
AT_MAP1(vf_abs, fabs(a.x[i]))
AT_MAP1(vf_sqrt, sqrt(a.x[i]))
AT_MAP1(vf_exp, exp(a.x[i]))
AT_MAP1(vf_tanh_exact, tanh(a.x[i]))
AT_MAP1(vf_erfc, erfc(a.x[i]))
AT_MAP1(vf_sigmoid, a.x[i] < 0 ? exp(a.x[i]) / (1 + exp(a.x[i])) : 1 / (1 + exp(-a.x[i])))
#undef AT_MAP1

AT_INLINE vm vf_less(vf a, vf b) {
    vm r;
    AT_EACH r.x[i] = a.x[i] < b.x[i];
    return r;
}
AT_INLINE vf vf_select(vm m, vf a, vf b) {
    AT_EACH a.x[i] = m.x[i] ? a.x[i] : b.x[i];
    return a;
}
AT_INLINE double vf_reduce_add(vf a) { return (a.x[0] + a.x[2]) + (a.x[1] + a.x[3]); }
AT_INLINE double vf_reduce_max(vf a) {
    double m = a.x[0];
    for (int i = 1; i < AT_LANES; i++) m = a.x[i] > m ? a.x[i] : m;
    return m;
}

#undef AT_EACH
#endif
