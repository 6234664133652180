/* linear_kernels.c - feature maps and sums over their rows. */
#include "simd/linear_kernels.h"
#include "base/constants.h"
#include "simd/kernels/functions.h"

void AT_KERNEL(linear)(at_linear_kernels *table);

AT_INLINE int64_t lanes_at(int64_t i, int64_t n) { return n - i < AT_LANES ? n - i : AT_LANES; }
AT_INLINE vf load(const float *p, int64_t there) {
    return there == AT_LANES ? vf_load(p) : vf_load_part(p, (int)there);
}
AT_INLINE void store(float *p, int64_t there, vf a) {
    if (there == AT_LANES)
        vf_store(p, a);
    else
        vf_store_part(p, a, (int)there);
}

static void max(const float *x, int64_t stride, int64_t rows, int64_t n, float *out) {
    for (int64_t r = 0; r < rows; r++, x += stride) {
        vf m[4] = {vf_set1(-INFINITY), vf_set1(-INFINITY), vf_set1(-INFINITY), vf_set1(-INFINITY)};
        int64_t i = 0;
        for (; i + 4 * AT_LANES <= n; i += 4 * AT_LANES) {
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) m[j] = vf_max(vf_load(x + i + j * AT_LANES), m[j]);
        }
        for (; i + AT_LANES <= n; i += AT_LANES) m[0] = vf_max(vf_load(x + i), m[0]);
        float best = vf_reduce_max(vf_max(vf_max(m[0], m[1]), vf_max(m[2], m[3])));
        for (; i < n; i++) best = x[i] > best ? x[i] : best;
        out[r] = best;
    }
}

/* e^y as 2^(y log2 e): y is a sum of products, whose rounding error is as large as that of y log2
 * e.
 */
static void exp_rows(float *x, int64_t stride, int64_t rows, int64_t n, const float *shift,
                     float add) {
    const vf log2_e = vf_set1((float)AT_LOG2_E), more = vf_set1(add);
    for (int64_t r = 0; r < rows; r++, x += stride) {
        const vf s = vf_set1(-shift[r] * (float)AT_LOG2_E);
        for (int64_t i = 0, there; (there = lanes_at(i, n)) > 0; i += AT_LANES)
            store(x + i, there, vf_add(vf_exp2(vf_fma(load(x + i, there), log2_e, s)), more));
    }
}

static void relu(float *x, int64_t stride, int64_t rows, int64_t n, float add) {
    const vf more = vf_set1(add);
    for (int64_t r = 0; r < rows; r++, x += stride) {
        /* vf_max returns its second argument where either is NaN: a NaN stays one. */
        for (int64_t i = 0, there; (there = lanes_at(i, n)) > 0; i += AT_LANES)
            store(x + i, there, vf_add(vf_max(vf_zero(), load(x + i, there)), more));
    }
}

static void elu(const float *x, int64_t x_stride, int64_t rows, int64_t n, float add, float *out,
                int64_t stride) {
    const vf one = vf_set1(1), more = vf_set1(add);
    for (int64_t r = 0; r < rows; r++, x += x_stride, out += stride) {
        for (int64_t i = 0, there; (there = lanes_at(i, n)) > 0; i += AT_LANES) {
            const vf a = load(x + i, there);
            store(out + i, there,
                  vf_add(vf_select(vf_less(vf_zero(), a), vf_add(a, one), vf_exp(a)), more));
        }
    }
}

static void sum_rows(const float *x, int64_t stride, int64_t rows, int64_t n, float *sum) {
    for (int64_t i = 0, there; (there = lanes_at(i, n)) > 0; i += AT_LANES) {
        vf s = vf_zero();
        for (int64_t r = 0; r < rows; r++) s = vf_add(s, load(x + r * stride + i, there));
        store(sum + i, there, vf_add(load(sum + i, there), s));
    }
}

AT_INLINE float product_of(const float *x, const float *y, int64_t n) {
    vf s[4] = {vf_zero(), vf_zero(), vf_zero(), vf_zero()};
    int64_t i = 0;
    for (; i + 4 * AT_LANES <= n; i += 4 * AT_LANES) {
#pragma GCC unroll 4
        for (int j = 0; j < 4; j++)
            s[j] = vf_fma(vf_load(x + i + j * AT_LANES), vf_load(y + i + j * AT_LANES), s[j]);
    }
    for (int64_t there; (there = lanes_at(i, n)) > 0; i += AT_LANES)
        s[0] = vf_fma(load(x + i, there), load(y + i, there), s[0]);
    return vf_reduce_add(vf_add(vf_add(s[0], s[1]), vf_add(s[2], s[3])));
}

static void dot_rows(const float *x, int64_t stride, int64_t rows, int64_t n, const float *y,
                     float *out) {
    for (int64_t r = 0; r < rows; r++) out[r] = product_of(x + r * stride, y, n);
}

static void squares(const float *x, int64_t stride, int64_t rows, int64_t n, float factor,
                    float *out) {
    for (int64_t r = 0; r < rows; r++)
        out[r] = factor * product_of(x + r * stride, x + r * stride, n);
}

static void prefix_dot(const float *q, const float *k, int64_t stride, int64_t rows, int64_t n,
                       float *sum, float *out) {
    for (int64_t r = 0; r < rows; r++, q += stride, k += stride) {
        vf s[2] = {vf_zero(), vf_zero()};
        int64_t i = 0;
        for (; i + 2 * AT_LANES <= n; i += 2 * AT_LANES) {
#pragma GCC unroll 2
            for (int j = 0; j < 2; j++) {
                const int64_t at = i + j * AT_LANES;
                const vf z = vf_add(vf_load(sum + at), vf_load(k + at));
                vf_store(sum + at, z);
                s[j] = vf_fma(vf_load(q + at), z, s[j]);
            }
        }
        for (int64_t there; (there = lanes_at(i, n)) > 0; i += AT_LANES) {
            const vf z = vf_add(load(sum + i, there), load(k + i, there));
            store(sum + i, there, z);
            s[0] = vf_fma(load(q + i, there), z, s[0]);
        }
        out[r] = vf_reduce_add(vf_add(s[0], s[1]));
    }
}

static void dots(const float *x, const float *y, int64_t stride, int64_t rows, int64_t n,
                 float *out) {
    for (int64_t r = 0; r < rows; r++) out[r] = product_of(x + r * stride, y + r * stride, n);
}

static void exp_backward(float *d, const float *f, int64_t stride, int64_t rows, int64_t n,
                         float add, float *sums) {
    const vf more = vf_set1(add);
    for (int64_t r = 0; r < rows; r++, d += stride, f += stride) {
        vf sum[2] = {vf_zero(), vf_zero()};
        int64_t i = 0;
        for (; i + 2 * AT_LANES <= n; i += 2 * AT_LANES) {
#pragma GCC unroll 2
            for (int j = 0; j < 2; j++) {
                const int64_t at = i + j * AT_LANES;
                const vf x = vf_mul(vf_load(d + at), vf_sub(vf_load(f + at), more));
                vf_store(d + at, x);
                sum[j] = vf_add(sum[j], x);
            }
        }
        for (int64_t there; (there = lanes_at(i, n)) > 0; i += AT_LANES) {
            const vf x = vf_mul(load(d + i, there), vf_sub(load(f + i, there), more));
            store(d + i, there, x);
            sum[0] = vf_add(sum[0], x);
        }
        sums[r] = vf_reduce_add(vf_add(sum[0], sum[1]));
    }
}

static void relu_backward(float *d, const float *f, int64_t stride, int64_t rows, int64_t n,
                          float add) {
    const vf more = vf_set1(add);
    for (int64_t r = 0; r < rows; r++, d += stride, f += stride)
        for (int64_t i = 0, there; (there = lanes_at(i, n)) > 0; i += AT_LANES)
            store(d + i, there, vf_keep(vf_less(more, load(f + i, there)), load(d + i, there)));
}

/* The slope is e^x = f - add for x <= 0, and 1 for x > 0, where f - add is at least 1. */
static void elu_backward(float *d, const float *f, int64_t stride, int64_t rows, int64_t n,
                         float add) {
    const vf one = vf_set1(1), more = vf_set1(add);
    for (int64_t r = 0; r < rows; r++, d += stride, f += stride)
        for (int64_t i = 0, there; (there = lanes_at(i, n)) > 0; i += AT_LANES)
            store(d + i, there,
                  vf_mul(load(d + i, there), vf_min(one, vf_sub(load(f + i, there), more))));
}

void AT_KERNEL(linear)(at_linear_kernels *table) {
    *table = (at_linear_kernels){.max = max,
                                 .exp = exp_rows,
                                 .relu = relu,
                                 .elu = elu,
                                 .sum = sum_rows,
                                 .dot = dot_rows,
                                 .squares = squares,
                                 .prefix_dot = prefix_dot,
                                 .dots = dots,
                                 .exp_backward = exp_backward,
                                 .relu_backward = relu_backward,
                                 .elu_backward = elu_backward};
}
