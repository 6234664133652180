/* query.c - the query side of an attention problem. */
#include "attention/query.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "tensor/tensor.h"

/* What f32 computes with: scale, softcap and its inverse, scale / softcap. */
static attune_status check_range_of_f32(const attune_attention_options *o) {
    const double largest = (double)FLT_MAX, most = 1e18,
                 scale = o->scale_given ? fabs(o->scale) : 1;
    if (scale > largest) {
        return at_fail(ATTUNE_EVALUE,
                       "scale: expected a magnitude of at most %g, except for f64, got %g", largest,
                       o->scale);
    }
    if (o->softcap == 0) return ATTUNE_OK;
    if (o->softcap < 1 / most || o->softcap > most) {
        return at_fail(ATTUNE_EVALUE, "softcap: expected from %g to %g, except for f64, got %g",
                       1 / most, most, o->softcap);
    }
    if (scale / o->softcap > largest) {
        return at_fail(ATTUNE_EVALUE,
                       "softcap: expected at least %g with a scale of %g, except for f64, got %g",
                       scale / largest, o->scale, o->softcap);
    }
    return ATTUNE_OK;
}

attune_status at_check_options(const attune_attention_options *o, bool f64) {
    if (o->window < 0)
        return at_fail(ATTUNE_EVALUE, "window: expected at least 1 token, got %lld",
                       (long long)o->window);
    if (o->two_sided && o->window)
        return at_fail(ATTUNE_EVALUE, "window: expected 0 beside a window of two sides, got %lld",
                       (long long)o->window);
    if (o->two_sided && (o->window_left < -1 || o->window_right < -1)) {
        return at_fail(ATTUNE_EVALUE,
                       "window: expected at least 0 tokens on each side, or -1 for no limit, got "
                       "%lld and %lld",
                       (long long)o->window_left, (long long)o->window_right);
    }
    if (o->scale_given && !isfinite(o->scale))
        return at_fail(ATTUNE_EVALUE, "scale: expected a finite number, got %g", o->scale);
    if (!(o->softcap >= 0) || isinf(o->softcap)) {
        return at_fail(ATTUNE_EVALUE, "softcap: expected a positive finite number, got %g",
                       o->softcap);
    }
    if (!f64) AT_TRY(check_range_of_f32(o));
    if (o->engine > ATTUNE_ENGINE_DECODE) {
        return at_fail(ATTUNE_EVALUE,
                       "engine: expected reference, blis, tiled or decode, got number %d",
                       (int)o->engine);
    }
    return ATTUNE_OK;
}

static attune_status make_sinks(const attune_tensor *sinks, at_query_side *query) {
    if (!sinks) return ATTUNE_OK;
    if (!sinks->data)
        return at_fail(ATTUNE_ECLOSED, "sinks: expected a tensor [%lld], got a closed one",
                       (long long)query->Hq);
    if (sinks->rank != 1 || sinks->shape[0] != query->Hq) {
        return at_fail(ATTUNE_ESHAPE, "sinks: expected [%lld], one logit per query head, got %s",
                       (long long)query->Hq, at_shape_text(sinks->rank, sinks->shape));
    }
    if (!at_is_float(sinks->dtype))
        return at_fail(ATTUNE_EDTYPE, "sinks: expected f32, got %s",
                       attune_dtype_name(sinks->dtype));
    query->sinks_f64 = at_alloc(query->Hq * (int64_t)sizeof(double));
    float *copy = query->sinks_f64 ? at_alloc(query->Hq * (int64_t)sizeof(float)) : NULL;
    if (!copy) return ATTUNE_EMEMORY;
    for (int64_t h = 0; h < query->Hq; h++) {
        double x = 0;
        attune_tensor_get(sinks, &h, &x);
        query->sinks_f64[h] = x;
        copy[h] = (float)x;
    }
    query->sinks_copy = copy;
    query->sinks = copy;
    return ATTUNE_OK;
}

attune_status at_query_side_make(const attune_tensor *q, int64_t kv_heads,
                                 const attune_attention_options *options, at_query_side *out) {
    const bool f64 = q->dtype == ATTUNE_F64;
    *out = (at_query_side){.q = *q,
                           .B = q->shape[0],
                           .Hq = q->shape[1],
                           .Hk = kv_heads,
                           .G = q->shape[1] / kv_heads,
                           .Sq = q->shape[2],
                           .D = q->shape[3],
                           .scale = options->scale_given ? options->scale
                                                         : 1 / sqrt((double)q->shape[3]),
                           .softcap = options->softcap,
                           .o_dtype = q->dtype,
                           .lse_dtype = f64 ? ATTUNE_F64 : ATTUNE_F32};
    return make_sinks(options->sinks, out);
}

void at_query_side_close(at_query_side *query) {
    at_modifier_free(&query->modifier);
    at_rotation_free(&query->rotation);
    at_free(query->sinks_copy);
    at_free(query->sinks_f64);
    query->sinks_f64 = NULL;
    query->sinks_copy = NULL;
    query->sinks = NULL;
}

attune_status at_results_new(const at_query_side *query, int64_t Dv, attune_tensor *o,
                             attune_tensor *lse) {
    const int64_t shape[4] = {query->B, query->Hq, query->Sq, Dv};
    memset(o, 0, sizeof *o);
    memset(lse, 0, sizeof *lse);
    AT_TRY(at_tensor_new(query->o_dtype, 4, shape, o));
    attune_status status = at_tensor_new(query->lse_dtype, 3, shape, lse);
    if (status != ATTUNE_OK) attune_tensor_close(o);
    return status;
}
