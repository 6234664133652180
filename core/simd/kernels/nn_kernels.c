/* nn_kernels.c - norms, activations, the loss over a vocabulary and AdamW, row by row. */
#include "simd/nn_kernels.h"
#include "simd/kernels/functions.h"

void AT_KERNEL(nn)(at_nn_kernels *table);

/* The number of elements of the vector at i: AT_LANES, fewer in the last vector, below 1 past the
 * end. Loops over n elements are: for (int64_t i = 0, there; (there = lanes_at(i, n)) > 0; i +=
 * AT_LANES) */
AT_INLINE int64_t lanes_at(int64_t i, int64_t n) { return n - i < AT_LANES ? n - i : AT_LANES; }

AT_INLINE vf load(const real *p, int64_t i, int64_t there) {
    return there == AT_LANES ? vf_load(p + i) : vf_load_part(p + i, (int)there);
}
AT_INLINE void store(real *p, int64_t i, int64_t there, vf a) {
    if (there == AT_LANES)
        vf_store(p + i, a);
    else
        vf_store_part(p + i, a, (int)there);
}

/* ---- norms ----------------------------------------------------------------------------------- */

/* The elements of a run are summed in vectors, the runs in double: a sum over 10^5 elements stays
 * accurate. */
enum { RUN = 64 * AT_LANES };
static int64_t run_at(int64_t r, int64_t n) { return n - r < RUN ? n - r : RUN; }

static double sum_of(const real *x, int64_t n) {
    double total = 0;
    for (int64_t r = 0; r < n; r += RUN) {
        vf s = vf_zero();
        for (int64_t i = 0, there; (there = lanes_at(i, run_at(r, n))) > 0; i += AT_LANES)
            s = vf_add(s, load(x + r, i, there));
        total += (double)vf_reduce_add(s);
    }
    return total;
}

/* The sum of (x - mean)^2. Lanes beyond the row would add mean^2, so the last elements are summed
 * one by one. */
static double squares_of(const real *x, real mean, int64_t n) {
    const vf m = vf_set1(mean);
    double total = 0;
    for (int64_t r = 0; r < n; r += RUN) {
        vf s = vf_zero();
        for (int64_t i = 0, there; (there = lanes_at(i, run_at(r, n))) > 0; i += AT_LANES) {
            if (there == AT_LANES) {
                const vf d = vf_sub(load(x + r, i, there), m);
                s = vf_fma(d, d, s);
            } else {
                for (int k = 0; k < there; k++)
                    total += (double)(x[r + i + k] - mean) * (double)(x[r + i + k] - mean);
            }
        }
        total += (double)vf_reduce_add(s);
    }
    return total;
}

static void normalise(const real *x, const real *weight, const real *bias, int64_t n, double mean,
                      double rstd, real *y) {
    const vf m = vf_set1((real)mean), s = vf_set1((real)rstd);
    for (int64_t i = 0, there; (there = lanes_at(i, n)) > 0; i += AT_LANES) {
        vf v = vf_mul(vf_sub(load(x, i, there), m), s);
        if (weight) v = vf_mul(v, load(weight, i, there));
        if (bias) v = vf_add(v, load(bias, i, there));
        store(y, i, there, v);
    }
}

static void rms_norm(const void *x, const void *weight, int64_t n, double eps, void *y,
                     double *rstd) {
    *rstd = 1 / sqrt(squares_of(x, 0, n) / (double)n + eps);
    normalise(x, weight, NULL, n, 0, *rstd, y);
}

static void layer_norm(const void *x, const void *weight, const void *bias, int64_t n, double eps,
                       void *y, double *mean, double *rstd) {
    *mean = sum_of(x, n) / (double)n;
    *rstd = 1 / sqrt(squares_of(x, (real)*mean, n) / (double)n + eps);
    normalise(x, weight, bias, n, *mean, *rstd, y);
}

/* forward: y = h weight + bias, h = (x - mean) rstd.   dx = rstd (g - mean(g) - h mean(g h)), g =
 * dy weight; uncentred without mean(g). */
static void norm_backward(const void *dy_, const void *x_, const void *weight_, int64_t n,
                          double mean, double rstd, int centred, void *dx_, void *dweight_,
                          void *dbias_) {
    const real *dy = dy_, *x = x_, *weight = weight_;
    real *dx = dx_, *dweight = dweight_, *dbias = dbias_;
    const vf m = vf_set1((real)mean), s = vf_set1((real)rstd);
    double sum_g = 0, sum_gh = 0;
    for (int64_t r = 0; r < n; r += RUN) {
        vf g_sum = vf_zero(), gh_sum = vf_zero();
        for (int64_t i = 0, there; (there = lanes_at(i, run_at(r, n))) > 0; i += AT_LANES) {
            const int64_t at = r + i;
            const vf d = load(dy, at, there), h = vf_mul(vf_sub(load(x, at, there), m), s);
            const vf g = weight ? vf_mul(d, load(weight, at, there)) : d;
            g_sum = vf_add(g_sum, g);
            gh_sum = vf_fma(g, h, gh_sum);
            if (dweight) store(dweight, at, there, vf_fma(d, h, load(dweight, at, there)));
            if (dbias) store(dbias, at, there, vf_add(d, load(dbias, at, there)));
        }
        sum_g += (double)vf_reduce_add(g_sum);
        sum_gh += (double)vf_reduce_add(gh_sum);
    }
    const vf mean_g = vf_set1(centred ? (real)(sum_g / (double)n) : 0),
             mean_gh = vf_set1((real)(sum_gh / (double)n));
    for (int64_t i = 0, there; (there = lanes_at(i, n)) > 0; i += AT_LANES) {
        const vf d = load(dy, i, there), h = vf_mul(vf_sub(load(x, i, there), m), s);
        const vf g = weight ? vf_mul(d, load(weight, i, there)) : d;
        store(dx, i, there, vf_mul(s, vf_sub(vf_sub(g, mean_g), vf_mul(h, mean_gh))));
    }
}

/* ---- activations ----------------------------------------------------------------------------- */

/* Hendrycks and Gimpel 2016 (arXiv 1606.08415): x N(x), or with tanh(sqrt(2 / pi) (x + 0.044715
 * x^3)) for 2 N(x) - 1. */
AT_INLINE vf inner_of(vf x) {
    return vf_mul(vf_mul(vf_set1((real)0.79788456080286535588), x),
                  vf_fma(vf_mul(vf_set1((real)0.044715), x), x, vf_set1((real)1)));
}
AT_INLINE vf gate_of(vf x, int with_tanh) {
    return with_tanh
               ? vf_mul(vf_set1((real)0.5), vf_add(vf_set1((real)1), vf_tanh_exact(inner_of(x))))
               : vf_normal(x);
}

/* At -inf the limit is 0, where the product would be NaN. */
AT_INLINE vf times_gate(vf x, vf gate_value) {
    return vf_select(vf_less(x, vf_set1((real)-1e30)), vf_zero(), vf_mul(x, gate_value));
}

static void gelu(const void *x, int64_t n, int with_tanh, void *y) {
    for (int64_t i = 0, there; (there = lanes_at(i, n)) > 0; i += AT_LANES) {
        const vf v = load(x, i, there);
        store(y, i, there, times_gate(v, gate_of(v, with_tanh)));
    }
}

/* d(x N(x)) = N(x) + x e^(-x^2 / 2) / sqrt(2 pi);   with tanh: N + x / 2 (1 - tanh^2) d inner */
static void gelu_backward(const void *dy, const void *x, int64_t n, int with_tanh, void *dx) {
    for (int64_t i = 0, there; (there = lanes_at(i, n)) > 0; i += AT_LANES) {
        const vf v = load(x, i, there), gate_value = gate_of(v, with_tanh), square = vf_mul(v, v);
        vf slope;
        if (with_tanh) {
            const vf t = vf_sub(vf_add(gate_value, gate_value), vf_set1((real)1)),
                     inner = vf_fma(square, vf_set1((real)(3 * 0.044715 * 0.79788456080286535588)),
                                    vf_set1((real)0.79788456080286535588));
            slope = vf_fma(
                vf_mul(vf_mul(vf_set1((real)0.5), v), vf_sub(vf_set1((real)1), vf_mul(t, t))),
                inner, gate_value);
        } else {
            slope = vf_fma(vf_mul(v, vf_set1((real)0.39894228040143267794)),
                           vf_exp(vf_mul(square, vf_set1((real)-0.5))), gate_value);
        }
        store(dx, i, there, vf_mul(load(dy, i, there), slope));
    }
}

/* Shazeer 2020 (arXiv 2002.05202): y = gate sigmoid(gate) up. */
static void swiglu(const void *gate, const void *up, int64_t n, void *y) {
    for (int64_t i = 0, there; (there = lanes_at(i, n)) > 0; i += AT_LANES) {
        const vf g = load(gate, i, there);
        store(y, i, there, vf_mul(times_gate(g, vf_sigmoid(g)), load(up, i, there)));
    }
}

static void swiglu_backward(const void *dy, const void *gate, const void *up, int64_t n,
                            void *dgate, void *dup) {
    for (int64_t i = 0, there; (there = lanes_at(i, n)) > 0; i += AT_LANES) {
        const vf d = load(dy, i, there), g = load(gate, i, there), s = vf_sigmoid(g),
                 one = vf_set1((real)1);
        const vf slope = vf_mul(s, vf_fma(g, vf_sub(one, s), one));
        const vf dg = vf_mul(vf_mul(d, load(up, i, there)), slope);
        store(dup, i, there, vf_mul(d, times_gate(g, s)));
        store(dgate, i, there, dg);
    }
}

/* ---- the loss -------------------------------------------------------------------------------- */

static double log_sum_exp(const void *x_, int64_t n) {
    const real *x = x_;
    real max = x[0];
    vf m = vf_set1(x[0]);
    for (int64_t i = 0, there; (there = lanes_at(i, n)) > 0; i += AT_LANES) {
        if (there == AT_LANES)
            m = vf_max(load(x, i, there), m);
        else
            for (int k = 0; k < there; k++) max = x[i + k] > max ? x[i + k] : max;
    }
    const real top = vf_reduce_max(m) > max ? vf_reduce_max(m) : max;
    if (top == (real)-INFINITY) return -INFINITY;
    double total = 0;
    for (int64_t r = 0; r < n; r += RUN) {
        vf s = vf_zero();
        for (int64_t i = 0, there; (there = lanes_at(i, run_at(r, n))) > 0; i += AT_LANES) {
            if (there == AT_LANES) {
                s = vf_add(s, vf_exp(vf_sub(load(x + r, i, there), vf_set1(top))));
            } else {
                for (int k = 0; k < there; k++) total += exp((double)x[r + i + k] - (double)top);
            }
        }
        total += (double)vf_reduce_add(s);
    }
    return (double)top + log(total);
}

static void softmax_times(const void *x, double lse, double factor, int64_t n, void *dx) {
    const vf l = vf_set1((real)lse), f = vf_set1((real)factor);
    for (int64_t i = 0, there; (there = lanes_at(i, n)) > 0; i += AT_LANES)
        store(dx, i, there, vf_mul(f, vf_exp(vf_sub(load(x, i, there), l))));
}

static void add(const void *x, int64_t n, void *sum) {
    for (int64_t i = 0, there; (there = lanes_at(i, n)) > 0; i += AT_LANES)
        store(sum, i, there, vf_add(load(sum, i, there), load(x, i, there)));
}

/* Loshchilov and Hutter 2019 (arXiv 1711.05101), algorithm 2:
 *   m = b1 m + (1 - b1) g    v = b2 v + (1 - b2) g^2    p -= lr (m / c1 / (sqrt(v / c2) + eps) +
 * weight_decay p) */
static void adamw(const at_adamw_step *s, void *p, const void *g, void *m, void *v, int64_t n) {
    const vf b1 = vf_set1((real)s->beta1), b2 = vf_set1((real)s->beta2),
             rest1 = vf_set1((real)(1 - s->beta1)), rest2 = vf_set1((real)(1 - s->beta2));
    const vf rate = vf_set1((real)(-s->lr / s->correction1)),
             root = vf_set1((real)(1 / sqrt(s->correction2))), eps = vf_set1((real)s->eps);
    const vf keep = vf_set1((real)(1 - s->lr * s->weight_decay));
    for (int64_t i = 0, there; (there = lanes_at(i, n)) > 0; i += AT_LANES) {
        const vf gradient = load(g, i, there);
        const vf first = vf_fma(b1, load(m, i, there), vf_mul(rest1, gradient)),
                 second = vf_fma(b2, load(v, i, there), vf_mul(rest2, vf_mul(gradient, gradient)));
        const vf step = vf_div(first, vf_fma(vf_sqrt(second), root, eps));
        store(m, i, there, first);
        store(v, i, there, second);
        store(p, i, there, vf_fma(rate, step, vf_mul(keep, load(p, i, there))));
    }
}

/* attune/optim.h has the formulas. */
static void sgd(const at_sgd_step *s, void *p, const void *g, void *m, int64_t n) {
    const vf decay = vf_set1((real)s->weight_decay), mu = vf_set1((real)s->momentum),
             rate = vf_set1((real)-s->lr);
    for (int64_t i = 0, there; (there = lanes_at(i, n)) > 0; i += AT_LANES) {
        const vf x = load(p, i, there), h = vf_fma(decay, x, load(g, i, there));
        vf step = h;
        if (m) {
            const vf moment = vf_fma(mu, load(m, i, there), h);
            store(m, i, there, moment);
            step = s->nesterov ? vf_fma(mu, moment, h) : moment;
        }
        store(p, i, there, vf_fma(rate, step, x));
    }
}

static double squares(const void *x_, int64_t n) {
    const real *x = x_;
    double total = 0;
    for (int64_t r = 0; r < n; r += RUN) {
        const int64_t length = run_at(r, n);
        double sum = squares_of(x + r, 0, length);
        if (!(sum <= 1e30 && sum >= 1e-30)) {
            sum = 0;
            for (int64_t i = 0; i < length; i++) sum += (double)x[r + i] * (double)x[r + i];
        }
        total += sum;
    }
    return total;
}

static void scale(void *x, double factor, int64_t n) {
    const vf f = vf_set1((real)factor);
    for (int64_t i = 0, there; (there = lanes_at(i, n)) > 0; i += AT_LANES)
        store(x, i, there, vf_mul(f, load(x, i, there)));
}

void AT_KERNEL(nn)(at_nn_kernels *table) {
    *table = (at_nn_kernels){.rms_norm = rms_norm,
                             .layer_norm = layer_norm,
                             .norm_backward = norm_backward,
                             .gelu = gelu,
                             .gelu_backward = gelu_backward,
                             .swiglu = swiglu,
                             .swiglu_backward = swiglu_backward,
                             .log_sum_exp = log_sum_exp,
                             .softmax_times = softmax_times,
                             .add = add,
                             .adamw = adamw,
                             .sgd = sgd,
                             .squares = squares,
                             .scale = scale};
}
