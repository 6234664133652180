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
    const at_results *results; /* NULL: only weights */
    attune_tensor *weights;    /* NULL: only results */
    double
        *scores; /* [threads][stride]: scores and weights [Sk], q, o, and the scratch of programs */
    double *columns; /* [threads][Sk] */
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

/* The scores s and the weights w, [first, last), of row i of head (b, h). Returns the lse. */
static double weights_of_row(const at_problem *p, int64_t b, int64_t h, int64_t i, int64_t first,
                             int64_t last, double *s, double *w, double *q, void *scratch) {
    double origin, sum = score_row(p, b, h, i, first, last, s, q, scratch, &origin);
    const double lse = sum == 0 ? -INFINITY : origin + log(sum);
    /* The weights are e^(s - lse), unless lse is too large to hold the log of the sum. */
    if (sum != 0 && !at_lse_is_large(lse)) {
        origin = lse;
        sum = 1;
    }
    for (int64_t k = first; k < last; k++) w[k] = sum == 0 ? 0 : exp(s[k] - origin) / sum;
    return lse;
}

static void summarize_row(const at_summaries *to, int64_t b, int64_t i, int64_t first, int64_t last,
                          const double *w, int64_t index) {
    const int64_t token = at_query_token(to, b, i);
    double entropy = 0, distance = 0, of_first = 0;
    for (int64_t k = first; k < last; k++) {
        if (w[k] != 0) entropy -= w[k] * log(w[k]);
        distance += w[k] * fabs((double)(token - k));
        if (k < AT_FIRST_KEYS) of_first += w[k];
    }
    at_summaries_store(to, index, entropy, distance, of_first);
}

static attune_status reference_rows(void *context, int64_t task, int thread) {
    reference_job *j = context;
    const at_problem *p = j->p;
    const int64_t i = task % p->query.Sq, h = task / p->query.Sq % p->query.Hq,
                  b = task / p->query.Sq / p->query.Hq;
    double *s = j->scores + thread * j->stride, *w = s + p->Sk, *q = w + p->Sk, *o = q + p->query.D;
    int64_t first, last;
    at_problem_visible_keys_of_head(p, b, h, i, &first, &last);
    const double lse = weights_of_row(p, b, h, i, first, last, s, w, q, o + p->Dv);
    if (j->weights) {
        for (int64_t k = first; k < last; k++) store(j->weights, task * p->Sk + k, w[k]);
        return ATTUNE_OK;
    }
    const int64_t *vs = p->v.stride, kv = b * vs[0] + h / p->query.G * vs[1];
    for (int64_t d = 0; d < p->Dv; d++) o[d] = 0;
    for (int64_t k = first; k < last && lse != -INFINITY; k++) {
        if (at_has_gaps(&p->query.modifier) && s[k] == -INFINITY)
            continue; /* hidden: its value may be an Inf */
        for (int64_t d = 0; d < p->Dv; d++) o[d] += w[k] * load(&p->v, kv + k * vs[2] + d * vs[3]);
    }
    for (int64_t d = 0; d < p->Dv; d++) store(j->results->o, task * p->Dv + d, o[d]);
    store(j->results->lse, task, lse);
    if (at_wants_rows(j->results->summaries))
        summarize_row(j->results->summaries, b, i, first, last, w, task);
    return ATTUNE_OK;
}

/* The columns of one query head, over its queries in order. */
static attune_status reference_columns(void *context, int64_t task, int thread) {
    reference_job *j = context;
    const at_problem *p = j->p;
    const int64_t h = task % p->query.Hq, b = task / p->query.Hq;
    double *s = j->scores + thread * j->stride, *w = s + p->Sk, *q = w + p->Sk,
           *sums = j->columns + thread * p->Sk;
    for (int64_t k = 0; k < p->Sk; k++) sums[k] = 0;
    for (int64_t i = 0; i < p->query.Sq; i++) {
        int64_t first, last;
        at_problem_visible_keys_of_head(p, b, h, i, &first, &last);
        weights_of_row(p, b, h, i, first, last, s, w, q, q + p->query.D + p->Dv);
        for (int64_t k = first; k < last; k++) sums[k] += w[k];
        if (at_interrupted()) return at_interrupted_status();
    }
    for (int64_t k = 0; k < p->Sk; k++)
        store(&j->results->summaries->out->columns, task * p->Sk + k, sums[k]);
    return ATTUNE_OK;
}

static attune_status run(const at_problem *p, const at_results *results, attune_tensor *weights) {
    const at_query_side *query = &p->query;
    reference_job job = {
        .p = p, .results = results, .weights = weights, .stride = 2 * p->Sk + query->D + p->Dv};
    job.stride += at_modifier_scratch(&query->modifier) / (int64_t)sizeof(double);
    job.scores = at_alloc(at_checked_mul(at_threads() * (int64_t)sizeof(double), job.stride));
    if (!job.scores) return ATTUNE_EMEMORY;
    attune_status status = at_parallel(query->B * query->Hq * query->Sq, reference_rows, &job);
    if (status == ATTUNE_OK && results && at_wants_columns(results->summaries)) {
        job.columns = at_alloc(at_checked_mul(at_threads() * (int64_t)sizeof(double), p->Sk));
        status = job.columns ? at_parallel(query->B * query->Hq, reference_columns, &job)
                             : ATTUNE_EMEMORY;
    }
    at_free(job.columns);
    at_free(job.scores);
    return status;
}

attune_status at_reference(const at_problem *p, const at_results *results) {
    return run(p, results, NULL);
}

attune_status at_reference_weights(const at_problem *p, attune_tensor *weights) {
    return run(p, NULL, weights);
}
