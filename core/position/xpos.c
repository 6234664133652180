/* xpos.c - RoPE with a scale: Sun et al. 2022 (arXiv 2212.10554), algorithm 1.
 *
 * Pair i has zeta_i = (2 i + 0.4 d) / (1.4 d), where d is dims. At position t, q is scaled by
 * zeta_i^((t - center) / scale_base), and k by the inverse, so that the score of a pair decays by
 * zeta_i^((t_q - t_k) / scale_base): center cancels, and only keeps the scales near 1. xPos is
 * meant for causal attention, where t_q >= t_k; for keys after the query the scores grow.
 */
#include <math.h>

#include "base/status.h"
#include "position/rotate.h"

/* A scale within e^+-60 leaves q, k and their products room in f32. */
static const double max_log_scale = 60;

static attune_status xpos_cos_sin(const attune_position *pe, const double *frequencies,
                                  const int64_t *at, attune_side side, double *cosine,
                                  double *sine) {
    const double d = (double)pe->dims, exponent = ((double)*at - pe->center) / pe->scale_base;
    if (fabs(exponent) * log(3.5) > max_log_scale) { /* zeta_0 = 1 / 3.5 */
        return at_fail(
            ATTUNE_EVALUE,
            "positions: expected within %lld of center, %g, where xpos's scale fits f32, got %lld",
            (long long)(max_log_scale / log(3.5) * pe->scale_base), pe->center, (long long)*at);
    }
    for (int64_t i = 0; i < pe->dims / 2; i++) {
        const double zeta = pow((2 * (double)i + 0.4 * d) / (1.4 * d),
                                side == ATTUNE_QUERY ? exponent : -exponent),
                     angle = (double)*at * frequencies[i];
        cosine[i] = cos(angle) * zeta;
        sine[i] = sin(angle) * zeta;
    }
    return ATTUNE_OK;
}

attune_status attune_position_xpos(const attune_xpos_options *options, attune_position **out) {
    attune_xpos_options o = *options;
    *out = NULL;
    AT_TRY(at_check_rotary(o.head_dim, &o.dims, &o.base, o.pairing));
    if (o.scale_base == 0) o.scale_base = 512;
    if (!(o.scale_base > 0) || isinf(o.scale_base))
        return at_fail(ATTUNE_EVALUE, "scale_base: expected a positive number, got %g",
                       o.scale_base);
    if (!isfinite(o.center))
        return at_fail(ATTUNE_EVALUE, "center: expected a finite number, got %g", o.center);
    attune_position *pe;
    AT_TRY(at_rotary_new("xpos", o.head_dim, o.dims, o.base, o.pairing, &pe));
    pe->cos_sin = xpos_cos_sin;
    pe->sided = true;
    pe->scale_base = o.scale_base;
    pe->center = o.center;
    for (int64_t i = 0; i < o.dims / 2; i++)
        pe->inv_freq[i] = pow(o.base, -2.0 * (double)i / (double)o.dims);
    *out = pe;
    return ATTUNE_OK;
}
