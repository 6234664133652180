/* vec_plain.h - what the two vector layers in plain C share: vec_c.h (f32) and vec_f64.h include it
 * after they define
 *
 *   real        the type of an element
 *   AT_LANES    elements of a vector
 *   lane_mask   the type of a mask's element: all ones or all zeros; bool: true or false
 */
#ifndef AT_SIMD_VEC_PLAIN_H
#define AT_SIMD_VEC_PLAIN_H

typedef struct vf {
    real x[AT_LANES];
} vf;
typedef struct vm {
    lane_mask x[AT_LANES];
} vm;

#define AT_EACH for (int i = 0; i < AT_LANES; i++)

AT_INLINE vf vf_load(const real *p) {
    vf r;
    memcpy(&r, p, sizeof r);
    return r;
}
AT_INLINE void vf_store(real *p, vf a) { memcpy(p, &a, sizeof a); }
AT_INLINE vf vf_set1(real x) {
    vf r;
    AT_EACH r.x[i] = x;
    return r;
}
AT_INLINE vf vf_zero(void) { return vf_set1(0); }
AT_INLINE vf vf_load_part(const real *p, int n) {
    vf r = vf_zero();
    for (int i = 0; i < n; i++) r.x[i] = p[i];
    return r;
}
AT_INLINE void vf_store_part(real *p, vf a, int n) {
    for (int i = 0; i < n; i++) p[i] = a.x[i];
}

#define AT_BINARY(name, expression)  \
    AT_INLINE vf name(vf a, vf b) {  \
        vf r;                        \
        AT_EACH r.x[i] = expression; \
        return r;                    \
    }
AT_BINARY(vf_add, a.x[i] + b.x[i])
AT_BINARY(vf_sub, a.x[i] - b.x[i])
AT_BINARY(vf_mul, a.x[i] * b.x[i])
AT_BINARY(vf_div, a.x[i] / b.x[i])
/* Like the x86 instructions: b where either is NaN. */
AT_BINARY(vf_max, a.x[i] > b.x[i] ? a.x[i] : b.x[i])
AT_BINARY(vf_min, a.x[i] < b.x[i] ? a.x[i] : b.x[i])

/* Rounded twice: the Makefile forbids contraction. */
AT_INLINE vf vf_fma(vf a, vf b, vf c) {
    vf r;
    AT_EACH r.x[i] = a.x[i] * b.x[i] + c.x[i];
    return r;
}

#define AT_COMPARE(name, expression)                       \
    AT_INLINE vm name(vf a, vf b) {                        \
        vm r;                                              \
        AT_EACH r.x[i] = (expression) ? (lane_mask)-1 : 0; \
        return r;                                          \
    }
AT_COMPARE(vf_less, a.x[i] < b.x[i])
AT_COMPARE(vf_not_less, !(a.x[i] < b.x[i])) /* true for NaN */
AT_COMPARE(vf_equal, a.x[i] == b.x[i])
AT_COMPARE(vf_unordered, a.x[i] != a.x[i] || b.x[i] != b.x[i])
#undef AT_COMPARE

AT_INLINE vf vf_select(vm m, vf a, vf b) {
    vf r;
    AT_EACH r.x[i] = m.x[i] ? a.x[i] : b.x[i];
    return r;
}

AT_INLINE real vf_reduce_max(vf a) {
    real m = a.x[0];
    for (int i = 1; i < AT_LANES; i++) m = a.x[i] > m ? a.x[i] : m;
    return m;
}

#endif
