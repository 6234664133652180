/* rope.c - rotary embedding: Su et al. 2021 (RoFormer, arXiv 2104.09864), equation 34; and how it
 * is scaled beyond the trained length.
 *
 * At position t pair i of the dims rotates by the angle t theta_i, theta_i = base^(-2 i / dims), so
 * that q . k after the rotation depends only on the difference of their positions. With s the
 * factor, L0 the trained length, L the length of the call, and d the dims:
 *
 * - linear: theta_i / s. Chen et al. 2023, arXiv 2306.15595, equation 4.
 * - ntk: base' = base s^(d / (d - 2)). Peng et al. 2023 (YaRN), arXiv 2309.00071, section 3.1.
 * - dynamic: base' = base (s L / L0 - (s - 1))^(d / (d - 2)) where L > L0. YaRN, section 3.3, in
 * the form of Hugging Face's transformers.
 * - yarn: g theta_i + (1 - g) theta_i / s, with a ramp g. YaRN, sections 3.2 and 3.4.
 * - longrope: theta_i / short_i, or theta_i / long_i where L > L0. Ding et al. 2024, arXiv
 *   2402.13753.
 * - proportional: theta_i = base^(-2 i / head_dim) / s for the first dims / 2 pairs of the whole
 *   head, 0 for the others. As published with Gemma 4.
 * - llama3: theta_i, theta_i / s, or a blend, by wavelength. As published with Llama 3.1 (arXiv
 *   2407.21783).
 */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/numbers.h"
#include "base/status.h"
#include "position/rotate.h"

static const double pi = 3.14159265358979323846;

/* ---- frequencies ----------------------------------------------------------------------------- */

static double in_precision(attune_angles angles, double x) {
    switch (angles) {
    case ATTUNE_ANGLES_F32: return (double)(float)x;
    case ATTUNE_ANGLES_F16: return (double)at_f16_to_f32(at_f32_to_f16((float)x));
    default: return x;
    }
}

static void geometric(double base, int64_t dims, double *out) {
    for (int64_t i = 0; i < dims / 2; i++) out[i] = pow(base, -2.0 * (double)i / (double)dims);
}

static void round_all(const attune_position *pe, double *out) {
    for (int64_t i = 0; i < pe->dims / 2; i++) out[i] = in_precision(pe->angles, out[i]);
}

static double ntk_base(double base, double stretch, int64_t dims) {
    return base * pow(stretch, (double)dims / (double)(dims - 2));
}

static void dynamic_frequencies(const attune_position *pe, int64_t length, double *out) {
    const double stretch = pe->growth * (double)length / (double)pe->longest - (pe->growth - 1);
    geometric(ntk_base(pe->base, stretch, pe->dims), pe->dims, out);
    round_all(pe, out);
}

/* The (fractional) index of the pair that makes beta full rotations over the trained length. */
static double yarn_pair(const attune_position *pe, double beta, int64_t original) {
    return (double)pe->dims * log((double)original / (2 * pi * beta)) / (2 * log(pe->base));
}

static void yarn_frequencies(const attune_position *pe, const attune_rope_scaling *s, double *out) {
    double low = yarn_pair(pe, s->beta_fast, s->original),
           high = yarn_pair(pe, s->beta_slow, s->original);
    if (!s->not_truncated) {
        low = floor(low);
        high = ceil(high);
    }
    low = fmax(low, 0);
    high = fmin(high, (double)(pe->dims - 1));
    if (low == high) high += 0.001; /* a step instead of a ramp */
    for (int64_t i = 0; i < pe->dims / 2; i++) {
        const double keep = 1 - fmin(fmax(((double)i - low) / (high - low), 0), 1);
        out[i] = keep * out[i] + (1 - keep) * out[i] / s->factor;
    }
}

static double yarn_temperature(double factor, double mscale) {
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

static void llama3_frequencies(const attune_position *pe, const attune_rope_scaling *s,
                               double *out) {
    const double length = (double)s->original;
    for (int64_t i = 0; i < pe->dims / 2; i++) {
        const double wavelength = 2 * pi / out[i];
        if (wavelength < length / s->high) continue;
        const double keep =
            wavelength > length / s->low ? 0 : (length / wavelength - s->low) / (s->high - s->low);
        out[i] = keep * out[i] + (1 - keep) * out[i] / s->factor;
    }
}

/* ---- checks ---------------------------------------------------------------------------------- */

static attune_status check_list(const char *name, const double *list, int64_t count,
                                int64_t pairs) {
    if (!list || count != pairs) {
        return at_fail(ATTUNE_EVALUE, "%s: expected %lld numbers, one per pair of dims, got %lld",
                       name, (long long)pairs, list ? (long long)count : 0LL);
    }
    for (int64_t i = 0; i < count; i++) {
        if (!(list[i] > 0) || isinf(list[i]))
            return at_fail(ATTUNE_EVALUE,
                           "%s: expected positive numbers, got %g at index " AT_INDEX, name,
                           list[i], (long long)i);
    }
    return ATTUNE_OK;
}

static attune_status positive(const char *name, double x) {
    return x > 0 && !isinf(x)
               ? ATTUNE_OK
               : at_fail(ATTUNE_EVALUE, "%s: expected a positive number, got %g", name, x);
}

static attune_status check_scaling(attune_rope_scaling *s, int64_t dims, double base) {
    if (s->type == ATTUNE_SCALING_NONE) return ATTUNE_OK;
    if (s->type > ATTUNE_SCALING_PROPORTIONAL)
        return at_fail(ATTUNE_EVALUE, "type: expected a kind of scaling, got number %d",
                       (int)s->type);
    if (s->type == ATTUNE_SCALING_PROPORTIONAL && s->factor == 0) s->factor = 1;
    if (!(s->factor >= 1) || isinf(s->factor))
        return at_fail(ATTUNE_EVALUE, "factor: expected a number of at least 1, got %g", s->factor);
    if (s->length < 0)
        return at_fail(ATTUNE_EVALUE, "length: expected at least 1 token, got %lld",
                       (long long)s->length);
    const bool by_base = s->type == ATTUNE_SCALING_NTK || s->type == ATTUNE_SCALING_DYNAMIC;
    if (by_base && dims < 4)
        return at_fail(ATTUNE_EVALUE,
                       "dims: expected at least 4 where the base is scaled, got %lld",
                       (long long)dims);
    const bool trained = s->type != ATTUNE_SCALING_LINEAR && s->type != ATTUNE_SCALING_NTK &&
                         s->type != ATTUNE_SCALING_PROPORTIONAL;
    if (trained && s->original < 1)
        return at_fail(ATTUNE_EVALUE, "original: expected at least 1 token, got %lld",
                       (long long)s->original);
    if (!(s->attention_factor >= 0) || isinf(s->attention_factor)) {
        return at_fail(ATTUNE_EVALUE, "attention_factor: expected a positive number, got %g",
                       s->attention_factor);
    }
    if (s->type == ATTUNE_SCALING_YARN) {
        if (s->beta_fast == 0) s->beta_fast = 32;
        if (s->beta_slow == 0) s->beta_slow = 1;
        AT_TRY(positive("beta_fast", s->beta_fast));
        AT_TRY(positive("beta_slow", s->beta_slow));
        if (s->beta_fast < s->beta_slow) {
            return at_fail(ATTUNE_EVALUE, "beta_fast: expected at least beta_slow, %g, got %g",
                           s->beta_slow, s->beta_fast);
        }
        if (!(base > 1))
            return at_fail(ATTUNE_EVALUE, "base: expected more than 1 with yarn, got %g", base);
        if (!isfinite(s->mscale) || !isfinite(s->mscale_all_dim))
            return at_fail(ATTUNE_EVALUE, "mscale: expected a finite number, got %g", s->mscale);
    } else if (s->type == ATTUNE_SCALING_LONGROPE) {
        if (s->original < 2)
            return at_fail(ATTUNE_EVALUE,
                           "original: expected at least 2 tokens with longrope, got %lld",
                           (long long)s->original);
        AT_TRY(check_list("short", s->short_factors, s->short_count, dims / 2));
        AT_TRY(check_list("long", s->long_factors, s->long_count, dims / 2));
        if ((s->short_mscale == 0) != (s->long_mscale == 0))
            return at_fail(ATTUNE_EVALUE,
                           "short_mscale: expected together with long_mscale, got only one");
        if (s->short_mscale != 0) {
            AT_TRY(positive("short_mscale", s->short_mscale));
            AT_TRY(positive("long_mscale", s->long_mscale));
        }
    } else if (s->type == ATTUNE_SCALING_LLAMA3) {
        if (s->low == 0) s->low = 1;
        if (s->high == 0) s->high = 4;
        AT_TRY(positive("low", s->low));
        if (!(s->high > s->low) || isinf(s->high))
            return at_fail(ATTUNE_EVALUE, "high: expected more than low, %g, got %g", s->low,
                           s->high);
    }
    return ATTUNE_OK;
}

/* ---- making ---------------------------------------------------------------------------------- */

static attune_status rope_cos_sin(const attune_position *pe, const double *frequencies,
                                  const int64_t *at, attune_side side, double *cosine,
                                  double *sine) {
    (void)side;
    if (pe->angles == ATTUNE_ANGLES_F16 && (*at > 65504 || *at < -65504)) {
        return at_fail(
            ATTUNE_EVALUE,
            "positions: expected from -65504 to 65504 with f16 angles, which end there, got %lld",
            (long long)*at);
    }
    const double t = in_precision(pe->angles, (double)*at);
    const double factor = frequencies == pe->inv_freq_long ? pe->factor_long : pe->factor;
    for (int64_t i = 0; i < pe->dims / 2; i++) {
        const double angle = in_precision(pe->angles, t * frequencies[i]);
        cosine[i] = in_precision(pe->angles, cos(angle)) * factor;
        sine[i] = in_precision(pe->angles, sin(angle)) * factor;
    }
    return ATTUNE_OK;
}

/* Computes the frequencies: those for calls of any length, or those for calls up to the trained
 * length and what replaces them in longer calls. rotated: the dims that rotate, of proportional
 * scaling. */
static attune_status scale(attune_position *pe, const attune_rope_scaling *s, int64_t rotated) {
    const int64_t pairs = pe->dims / 2;
    double *f = pe->inv_freq;
    /* Whether a length is fixed that lies beyond the trained one. */
    const bool beyond = s->length > s->original;
    geometric(pe->base, pe->dims, f);
    switch (s->type) {
    case ATTUNE_SCALING_NONE: break;
    case ATTUNE_SCALING_LINEAR:
        for (int64_t i = 0; i < pairs; i++) f[i] /= s->factor;
        break;
    case ATTUNE_SCALING_NTK: geometric(ntk_base(pe->base, s->factor, pe->dims), pe->dims, f); break;
    case ATTUNE_SCALING_DYNAMIC:
        pe->growth = s->factor;
        pe->longest = s->original;
        pe->long_frequencies = dynamic_frequencies;
        if (beyond) dynamic_frequencies(pe, s->length, f);
        if (s->length) pe->longest = 0;
        break;
    case ATTUNE_SCALING_YARN:
        yarn_frequencies(pe, s, f);
        pe->factor = s->attention_factor > 0
                         ? s->attention_factor
                         : yarn_temperature(s->factor, s->mscale != 0 ? s->mscale : 1) /
                               yarn_temperature(s->factor, s->mscale_all_dim);
        break;
    case ATTUNE_SCALING_LONGROPE:
        if (!s->length) {
            pe->inv_freq_long = at_alloc(pairs * (int64_t)sizeof *f);
            if (!pe->inv_freq_long) return ATTUNE_EMEMORY;
            for (int64_t i = 0; i < pairs; i++) pe->inv_freq_long[i] = f[i] / s->long_factors[i];
            round_all(pe, pe->inv_freq_long);
            pe->longest = s->original;
        }
        for (int64_t i = 0; i < pairs; i++)
            f[i] /= beyond ? s->long_factors[i] : s->short_factors[i];
        pe->factor = s->short_mscale > 0       ? (beyond ? s->long_mscale : s->short_mscale)
                     : s->attention_factor > 0 ? s->attention_factor
                     : s->factor > 1           ? sqrt(1 + log(s->factor) / log((double)s->original))
                                               : 1;
        pe->factor_long = s->short_mscale > 0 ? s->long_mscale : pe->factor;
        break;
    case ATTUNE_SCALING_LLAMA3: llama3_frequencies(pe, s, f); break;
    case ATTUNE_SCALING_PROPORTIONAL:
        for (int64_t i = 0; i < pairs; i++) f[i] = i < rotated / 2 ? f[i] / s->factor : 0;
        break;
    }
    round_all(pe, f);
    return ATTUNE_OK;
}

static attune_status check_inv_freq(const attune_rope_options *o) {
    if (o->scaling.type != ATTUNE_SCALING_NONE)
        return at_fail(ATTUNE_EVALUE, "inv_freq: expected no scaling beside it, got one");
    if (o->inv_freq_count != o->dims / 2) {
        return at_fail(ATTUNE_EVALUE,
                       "inv_freq: expected %lld numbers, one per pair of dims, got %lld",
                       (long long)o->dims / 2, (long long)o->inv_freq_count);
    }
    for (int64_t i = 0; i < o->inv_freq_count; i++) {
        if (!(o->inv_freq[i] >= 0) || isinf(o->inv_freq[i]))
            return at_fail(ATTUNE_EVALUE,
                           "inv_freq: expected numbers from 0 on, got %g at index " AT_INDEX,
                           o->inv_freq[i], (long long)i);
    }
    return ATTUNE_OK;
}

attune_status attune_position_rope(const attune_rope_options *options, attune_position **out) {
    attune_rope_options o = *options;
    *out = NULL;
    AT_TRY(at_check_rotary(o.head_dim, &o.dims, &o.base, o.pairing));
    AT_TRY(check_scaling(&o.scaling, o.dims, o.base));
    if (o.angles > ATTUNE_ANGLES_F16)
        return at_fail(ATTUNE_EVALUE, "angles: expected f64, f32 or f16, got number %d",
                       (int)o.angles);
    attune_position *pe;
    const int64_t rotated = o.dims;
    if (o.scaling.type == ATTUNE_SCALING_PROPORTIONAL) o.dims = o.head_dim;
    if (o.inv_freq) AT_TRY(check_inv_freq(&o));
    AT_TRY(at_rotary_new("rope", o.head_dim, o.dims, o.base, o.pairing, &pe));
    pe->angles = o.angles;
    pe->cos_sin = rope_cos_sin;
    attune_status status = scale(pe, &o.scaling, rotated);
    for (int64_t i = 0; i < o.dims / 2 && o.inv_freq && status == ATTUNE_OK; i++)
        pe->inv_freq[i] = in_precision(pe->angles, o.inv_freq[i]);
    if (status != ATTUNE_OK) {
        attune_position_close(pe);
        return status;
    }
    *out = pe;
    return ATTUNE_OK;
}
