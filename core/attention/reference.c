/* reference.c - attention term by term in double precision: the oracle of every other engine.
 *
 *   s_j = scale q . k_j       s_j = c tanh(s_j / c)       s_j = program(s_j)
 *   m = max of sink and s_j over visible keys j       z = e^(sink - m) + sum of e^(s_j - m)
 *   o = sum of e^(s_j - m) / z v_j                    lse = m + log z
 */
#include <math.h>

#include "attention/problem.h"
#include "base/memory.h"
#include "base/numbers.h"
#include "base/parallel.h"
#include "base/status.h"

typedef struct reference_job {
    const at_problem *p;
    attune_tensor *o, *lse, *weights; /* either weights, or o and lse */
    double *scores; /* [threads][stride]: Sk + D + Dv and the scratch of programs */
    int64_t stride;
} reference_job;

static double load(const attune_tensor *t, int64_t offset) {
    switch (t->dtype) {
    case ATTUNE_F64: return ((const double *)t->data)[offset];
    case ATTUNE_F32: return (double)((const float *)t->data)[offset];
    case ATTUNE_BF16: return (double)at_bf16_to_f32(((const uint16_t *)t->data)[offset]);
    default: return (double)at_f16_to_f32(((const uint16_t *)t->data)[offset]);
    }
}

static void store(attune_tensor *t, int64_t offset, double x) {
    switch (t->dtype) {
    case ATTUNE_F64: ((double *)t->data)[offset] = x; break;
    case ATTUNE_F32: ((float *)t->data)[offset] = (float)x; break;
    case ATTUNE_BF16: ((uint16_t *)t->data)[offset] = at_f32_to_bf16((float)x); break;
    default: ((uint16_t *)t->data)[offset] = at_f32_to_f16((float)x); break;
    }
}

/* The scores of one row over the keys [first, last). Returns the denominator of e^(s - *origin). */
static double score_row(const at_problem *p, int64_t b, int64_t h, int64_t i, int64_t first,
                        int64_t last, double *s, double *q, void *scratch, double *origin) {
    const int64_t *qs = p->query.q.stride, *ks = p->k.stride;
    int64_t from = b * qs[0] + h * qs[1] + i * qs[2], kv = b * ks[0] + h / p->query.G * ks[1];
    for (int64_t d = 0; d < p->query.D; d++) q[d] = load(&p->query.q, from + d * qs[3]);
    double max = p->query.sinks ? p->query.sinks_f64[h] : -INFINITY;
    for (int64_t j = first; j < last; j++) {
        double dot = 0;
        for (int64_t d = 0; d < p->query.D; d++)
            dot += q[d] * load(&p->k, kv + j * ks[2] + d * ks[3]);
        double x = p->query.scale * dot;
        if (p->query.softcap > 0) x = p->query.softcap * tanh(x / p->query.softcap);
        s[j] = x;
    }
    if (at_modifies(&p->query.modifier) && first < last)
        at_modify_f64(&p->query.modifier, b, h, i, first, last - first, s + first, scratch);
    for (int64_t j = first; j < last; j++) max = s[j] > max ? s[j] : max;
    *origin = max == -INFINITY ? 0 : max;
    double sum = p->query.sinks ? exp(p->query.sinks_f64[h] - *origin) : 0;
    for (int64_t j = first; j < last; j++) sum += exp(s[j] - *origin);
    return sum;
}

static attune_status reference_rows(void *context, int64_t task, int thread) {
    reference_job *j = context;
    const at_problem *p = j->p;
    const int64_t i = task % p->query.Sq, h = task / p->query.Sq % p->query.Hq,
                  b = task / p->query.Sq / p->query.Hq;
    double *s = j->scores + thread * j->stride, *q = s + p->Sk, *o = q + p->query.D;
    int64_t first, last;
    at_problem_visible_keys_of_head(p, b, h, i, &first, &last);
    double origin, sum = score_row(p, b, h, i, first, last, s, q, o + p->Dv, &origin);
    const double lse = sum == 0 ? -INFINITY : origin + log(sum);
    /* The weights are e^(s - lse), unless lse is too large to hold the log of the sum. */
    if (sum != 0 && !at_lse_is_large(lse)) {
        origin = lse;
        sum = 1;
    }
    if (j->weights) {
        for (int64_t k = first; k < last; k++)
            store(j->weights, task * p->Sk + k, sum == 0 ? 0 : exp(s[k] - origin) / sum);
        return ATTUNE_OK;
    }
    const int64_t *vs = p->v.stride, kv = b * vs[0] + h / p->query.G * vs[1];
    for (int64_t d = 0; d < p->Dv; d++) o[d] = 0;
    for (int64_t k = first; k < last && sum != 0; k++) {
        double weight = exp(s[k] - origin) / sum;
        if (at_has_gaps(&p->query.modifier) && s[k] == -INFINITY)
            continue; /* hidden: its value may be an Inf */
        for (int64_t d = 0; d < p->Dv; d++)
            o[d] += weight * load(&p->v, kv + k * vs[2] + d * vs[3]);
    }
    for (int64_t d = 0; d < p->Dv; d++) store(j->o, task * p->Dv + d, o[d]);
    store(j->lse, task, lse);
    return ATTUNE_OK;
}

static attune_status run(const at_problem *p, attune_tensor *o, attune_tensor *lse,
                         attune_tensor *weights) {
    reference_job job = {
        .p = p, .o = o, .lse = lse, .weights = weights, .stride = p->Sk + p->query.D + p->Dv};
    job.stride += at_modifier_scratch(&p->query.modifier) / (int64_t)sizeof(double);
    job.scores = at_alloc(at_checked_mul(at_threads() * (int64_t)sizeof(double), job.stride));
    if (!job.scores) return ATTUNE_EMEMORY;
    attune_status status =
        at_parallel(p->query.B * p->query.Hq * p->query.Sq, reference_rows, &job);
    at_free(job.scores);
    return status;
}

attune_status at_reference(const at_problem *p, attune_tensor *o, attune_tensor *lse) {
    return run(p, o, lse, NULL);
}

attune_status at_reference_weights(const at_problem *p, attune_tensor *weights) {
    return run(p, NULL, NULL, weights);
}
