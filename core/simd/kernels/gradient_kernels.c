/* gradient_kernels.c - the backward of the softmax: from the gradient of each weight to the
 * gradient of each score (Dao et al. 2022, arXiv 2205.14135, appendix B.2).
 *
 *   p = 2^(e - lse)      e = s scale log2 e, or, with a softcap c, e = c tanh(s scale / c) log2 e
 *   ds = p (dp - delta) scale      times 1 - tanh^2 with a softcap
 *
 * Where exponents are large, an origin is subtracted from s (from the tanh) before the product is
 * rounded.
 */
#include <float.h>

#include "base/constants.h"
#include "simd/attention_kernels.h"
#include "simd/kernels/vec.h"

void AT_KERNEL(backward)(at_attention_kernels *table);

static const float LOG2_E = (float)AT_LOG2_E;

AT_INLINE void row(const at_gradient_step *s, int r, bool capped, bool large) {
    const vf nothing = vf_zero(), lse = vf_set1(-s->lse[r]), delta = vf_set1(s->delta[r]),
             scale = vf_set1(s->scale), origin = vf_set1(s->origin[r]);
    /* Clamped: a difference of 0 times an infinite factor would be NaN. */
    const float product = (capped ? s->softcap : s->scale) * LOG2_E;
    const vf factor = vf_set1(fmaxf(-FLT_MAX, fminf(product, FLT_MAX))),
             inner = vf_set1(capped ? s->scale / s->softcap : 0);
    float *p = s->weights + r * s->stride, *d = s->scores + r * s->stride;
    const int left = s->first[r] / AT_LANES * AT_LANES,
              right = s->last[r] > s->first[r] ? (s->last[r] + AT_LANES - 1) / AT_LANES * AT_LANES
                                               : left;
    for (int j = 0; j < left; j += AT_LANES) {
        vf_store(p + j, nothing);
        vf_store(d + j, nothing);
    }
    for (int j = left; j < right; j += AT_LANES) {
        vf x = vf_load(p + j), slope = scale;
        if (capped) {
            x = vf_tanh(vf_mul(x, inner));
            slope = vf_mul(scale, vf_sub(vf_set1(1.0f), vf_mul(x, x)));
        }
        if (large) x = vf_sub(x, origin);
        vf weight = vf_exp2(vf_fma(x, factor, lse));
        vf score = vf_mul(vf_mul(weight, vf_sub(vf_load(d + j), delta)), slope);
        if (j < s->first[r] || j + AT_LANES > s->last[r]) {
            weight = vf_within(weight, s->first[r] - j, s->last[r] - j, nothing);
            score = vf_within(score, s->first[r] - j, s->last[r] - j, nothing);
        }
        vf_store(p + j, weight);
        vf_store(d + j, score);
    }
    for (int j = right; j < s->columns; j += AT_LANES) {
        vf_store(p + j, nothing);
        vf_store(d + j, nothing);
    }
}

static void gradients(const at_gradient_step *s) {
    const bool capped = s->softcap > 0;
    for (int r = 0; r < s->rows; r++) {
        if (s->origin[r] != 0 && capped)
            row(s, r, true, true);
        else if (s->origin[r] != 0)
            row(s, r, false, true);
        else if (capped)
            row(s, r, true, false);
        else
            row(s, r, false, false);
    }
}

void AT_KERNEL(backward)(at_attention_kernels *table) { table->gradients = gradients; }
