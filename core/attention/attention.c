/* attention.c - the public calls: they validate, allocate the results and run the engine. */
#include <math.h>
#include <string.h>

#include "attention/problem.h"
#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"
#include "tensor/tensor.h"

static attune_status same_shape(const char *name, const attune_tensor *t, int rank,
                                const int64_t *shape) {
    if (!t->data)
        return at_fail(ATTUNE_ECLOSED, "%s: expected a tensor %s, got a closed one", name,
                       at_shape_text(rank, shape));
    if (t->rank != rank || memcmp(t->shape, shape, (size_t)rank * sizeof *shape) != 0) {
        return at_fail(ATTUNE_ESHAPE, "%s: expected %s, got %s", name, at_shape_text(rank, shape),
                       at_shape_text(t->rank, t->shape));
    }
    if (!at_is_float(t->dtype))
        return at_fail(ATTUNE_EDTYPE, "%s: expected a float dtype, got %s", name,
                       attune_dtype_name(t->dtype));
    return ATTUNE_OK;
}

static attune_status run_engine(const at_problem *p, const at_results *results) {
    switch (p->engine) {
    case ATTUNE_ENGINE_REFERENCE: return at_reference(p, results);
    case ATTUNE_ENGINE_BLIS: return at_blis(p, results);
    case ATTUNE_ENGINE_DECODE: return at_decode(p, results);
    case ATTUNE_ENGINE_TILED:
    case ATTUNE_ENGINE_DEFAULT: break;
    }
    return at_tiled(p, results);
}

/* Runs the problem with results that are new. */
static attune_status run_summarized(const at_problem *p, unsigned wanted, attune_tensor *o,
                                    attune_tensor *lse, attune_summaries *out) {
    at_summaries summaries;
    if (p->engine == ATTUNE_ENGINE_BLIS)
        return at_fail(ATTUNE_EENGINE,
                       "engine: blis gives no summaries; expected tiled, decode or reference");
    attune_status status = at_summaries_make(&p->query, wanted, p->Sk, out, &summaries);
    for (int64_t b = 0; b < p->query.B && status == ATTUNE_OK; b++)
        summaries.first_token[b] = p->Sk - p->query.Sq;
    const at_results results = {.o = o, .lse = lse, .summaries = &summaries};
    if (status == ATTUNE_OK) status = run_engine(p, &results);
    at_summaries_free(&summaries);
    return status;
}

attune_status attune_attention_summarized(const attune_tensor *q, const attune_tensor *k,
                                          const attune_tensor *v,
                                          const attune_attention_options *options, unsigned wanted,
                                          attune_tensor *o, attune_tensor *lse,
                                          attune_summaries *summaries) {
    at_problem p;
    memset(o, 0, sizeof *o);
    memset(lse, 0, sizeof *lse);
    memset(summaries, 0, sizeof *summaries);
    if (!v)
        return at_fail(ATTUNE_ECLOSED,
                       "v: expected a tensor [batch, kv_heads, keys, head_dim], got none");
    AT_TRY(at_problem_make(q, k, v, options, false, &p));
    attune_status status = at_results_new(&p.query, p.Dv, o, lse);
    const at_results results = {.o = o, .lse = lse};
    if (status == ATTUNE_OK)
        status = wanted ? run_summarized(&p, wanted, o, lse, summaries) : run_engine(&p, &results);
    if (status == ATTUNE_OK) status = at_modifier_status(&p.query.modifier);
    if (status != ATTUNE_OK) {
        attune_tensor_close(o);
        attune_tensor_close(lse);
        attune_summaries_close(summaries);
    }
    at_problem_close(&p);
    return status;
}

attune_status attune_attention(const attune_tensor *q, const attune_tensor *k,
                               const attune_tensor *v, const attune_attention_options *options,
                               attune_tensor *o, attune_tensor *lse) {
    attune_summaries none;
    return attune_attention_summarized(q, k, v, options, 0, o, lse, &none);
}

/* ---- backward -------------------------------------------------------------------------------- */

static attune_status check_like(const char *name, const attune_tensor *t, int rank,
                                const int64_t *shape, bool f64) {
    AT_TRY(same_shape(name, t, rank, shape));
    if ((t->dtype == ATTUNE_F64) == f64) return ATTUNE_OK;
    return at_fail(ATTUNE_EDTYPE, "%s: expected %s to go with q, got %s", name,
                   f64 ? "f64" : "f32, bf16 or f16", attune_dtype_name(t->dtype));
}

/* The reference computes term by term and skips hidden pairs. It is needed where a tensor holds an
 * Inf or NaN, because tiled multiplies those by zero. */
static attune_status choose_backward(const at_problem *p, const at_gradients *g,
                                     bool *term_by_term) {
    const attune_tensor *all[] = {&p->query.q, &p->k, &p->v, g->d_o, g->o};
    *term_by_term =
        p->engine == ATTUNE_ENGINE_REFERENCE || at_table_gradients_are_large(&p->query.modifier);
    for (int i = 0; i < 5 && !*term_by_term; i++) {
        bool finite;
        AT_TRY(at_all_finite(all[i], &finite));
        *term_by_term = !finite;
    }
    return ATTUNE_OK;
}

/* The reference gives gradients of the rotated q and k. They stay in f64 until they are rotated
 * back, so that they are rounded only once. */
static attune_status reference_rotated_back(const at_problem *p,
                                            const attune_attention_options *options,
                                            const at_gradients *g) {
    at_gradients f64 = *g;
    attune_tensor dq = {0}, dk = {0}, back = {0}, positions = {0};
    f64.dq = &dq;
    f64.dk = &dk;
    attune_status status = attune_tensor_new(ATTUNE_F64, 4, g->dq->shape, &dq);
    if (status == ATTUNE_OK) status = attune_tensor_new(ATTUNE_F64, 4, g->dk->shape, &dk);
    if (status == ATTUNE_OK) status = at_reference_backward(p, &f64);
    for (int i = 0; i < 2 && status == ATTUNE_OK; i++) {
        status = at_last_positions(p, options->positions, i ? p->Sk : p->query.Sq, &positions);
        if (status == ATTUNE_OK)
            status =
                at_position_rotate_back(options->rotate, i ? &dk : &dq, &positions,
                                        i ? ATTUNE_KEY : ATTUNE_QUERY, p->position_length, &back);
        if (status == ATTUNE_OK) status = attune_tensor_copy(&back, i ? g->dk : g->dq);
        attune_tensor_close(&back);
        attune_tensor_close(&positions);
    }
    attune_tensor_close(&dq);
    attune_tensor_close(&dk);
    return status;
}

static attune_status run_backward(at_problem *p, const attune_tensor *q, const attune_tensor *k,
                                  const attune_tensor *v, const attune_attention_options *options,
                                  const at_gradients *g) {
    bool term_by_term;
    AT_TRY(choose_backward(p, g, &term_by_term));
    if (!term_by_term) return at_tiled_backward(p, g);
    const bool rotates = options && options->rotate && options->rotate->inv_freq;
    if (p->engine == ATTUNE_ENGINE_REFERENCE)
        return rotates ? reference_rotated_back(p, options, g) : at_reference_backward(p, g);
    at_problem exact; /* q and k rotated in f64 */
    attune_attention_options again = options ? *options : (attune_attention_options){0};
    again.engine = ATTUNE_ENGINE_REFERENCE;
    AT_TRY(at_problem_make(q, k, v, &again, true, &exact));
    attune_status status =
        rotates ? reference_rotated_back(&exact, &again, g) : at_reference_backward(&exact, g);
    if (status == ATTUNE_OK) status = at_modifier_status(&exact.query.modifier);
    at_problem_close(&exact);
    return status;
}

attune_status attune_attention_backward(const attune_tensor *d_o, const attune_tensor *q,
                                        const attune_tensor *k, const attune_tensor *v,
                                        const attune_tensor *o, const attune_tensor *lse,
                                        const attune_attention_options *options, attune_tensor *dq,
                                        attune_tensor *dk, attune_tensor *dv, attune_tensor *dsinks,
                                        attune_tensor *dtables) {
    attune_tensor unused = {0}, *all[] = {dq, dk, dv, dsinks ? dsinks : &unused};
    at_problem p;
    for (int i = 0; i < 4; i++) memset(all[i], 0, sizeof *all[i]);
    attune_attention_options wanted = options ? *options : (attune_attention_options){0};
    if (dtables && wanted.score)
        memset(dtables, 0, (size_t)wanted.score->tensor_count * sizeof *dtables);
    if (wanted.engine == ATTUNE_ENGINE_BLIS || wanted.engine == ATTUNE_ENGINE_DECODE) {
        return at_fail(ATTUNE_EENGINE,
                       "engine: expected tiled or reference, which compute gradients");
    }
    if (wanted.engine == ATTUNE_ENGINE_DEFAULT && q && q->dtype != ATTUNE_F64)
        wanted.engine = ATTUNE_ENGINE_TILED;
    if (!v)
        return at_fail(ATTUNE_ECLOSED,
                       "v: expected a tensor [batch, kv_heads, keys, head_dim], got none");
    AT_TRY(at_problem_make(q, k, v, &wanted, true, &p));
    const int64_t o_shape[4] = {p.query.B, p.query.Hq, p.query.Sq, p.Dv};
    const bool f64 = q->dtype == ATTUNE_F64;
    attune_status status = check_like("d_o", d_o, 4, o_shape, f64);
    if (status == ATTUNE_OK) status = check_like("o", o, 4, o_shape, f64);
    if (status == ATTUNE_OK) status = check_like("lse", lse, 3, o_shape, f64);
    if (status == ATTUNE_OK && wanted.d_lse)
        status = check_like("d_lse", wanted.d_lse, 3, o_shape, f64);
    if (status == ATTUNE_OK) status = attune_tensor_new(q->dtype, 4, q->shape, dq);
    if (status == ATTUNE_OK) status = attune_tensor_new(k->dtype, 4, k->shape, dk);
    if (status == ATTUNE_OK) status = attune_tensor_new(v->dtype, 4, v->shape, dv);
    if (status == ATTUNE_OK && p.query.sinks)
        status = attune_tensor_new(p.query.lse_dtype, 1, &p.query.Hq, all[3]);
    at_table_gradients tables = {0};
    if (status == ATTUNE_OK && dtables) status = at_table_gradients_new(&p.query.modifier, &tables);
    const at_gradients g = {.d_o = d_o,
                            .o = o,
                            .lse = lse,
                            .d_lse = wanted.d_lse,
                            .dq = dq,
                            .dk = dk,
                            .dv = dv,
                            .dsinks = p.query.sinks ? all[3] : NULL,
                            .tables = &tables};
    if (status == ATTUNE_OK) status = run_backward(&p, q, k, v, &wanted, &g);
    if (status == ATTUNE_OK) status = at_modifier_status(&p.query.modifier);
    if (status == ATTUNE_OK && dtables) status = at_table_gradients_store(&tables, dtables);
    const int32_t count = dtables && wanted.score ? wanted.score->tensor_count : 0;
    for (int32_t t = 0; t < count && status != ATTUNE_OK; t++) attune_tensor_close(&dtables[t]);
    at_table_gradients_free(&tables);
    at_problem_close(&p);
    attune_tensor_close(&unused);
    for (int i = 0; i < 4 && status != ATTUNE_OK; i++) attune_tensor_close(all[i]);
    return status;
}

attune_status attune_attention_weights(const attune_tensor *q, const attune_tensor *k,
                                       const attune_attention_options *options,
                                       attune_tensor *weights) {
    at_problem p;
    memset(weights, 0, sizeof *weights);
    attune_attention_options exact = options ? *options : (attune_attention_options){0};
    exact.engine = ATTUNE_ENGINE_REFERENCE;
    if (options) AT_TRY(at_check_options(options, true)); /* the range of f32: below */
    AT_TRY(at_problem_make(q, k, NULL, &exact, false, &p));
    const int64_t shape[4] = {p.query.B, p.query.Hq, p.query.Sq, p.Sk};
    attune_status status = ATTUNE_OK;
    if (options && options->engine != ATTUNE_ENGINE_DEFAULT)
        status = at_check_engine(options->engine, q, options);
    if (status == ATTUNE_OK) status = attune_tensor_new(p.query.lse_dtype, 4, shape, weights);
    if (status == ATTUNE_OK) {
        status = at_reference_weights(&p, weights);
        if (status == ATTUNE_OK) status = at_modifier_status(&p.query.modifier);
        if (status != ATTUNE_OK) attune_tensor_close(weights);
    }
    at_problem_close(&p);
    return status;
}

/* ---- merge ----------------------------------------------------------------------------------- */

typedef struct merge_job {
    attune_tensor o1, lse1, o2, lse2; /* contiguous; o in f32 or f64, lse likewise */
    attune_tensor *o, *lse;
    int64_t rows, Dv;
} merge_job;

enum { MERGE_ROWS = 256 };

static double element(const attune_tensor *t, int64_t i) {
    return t->dtype == ATTUNE_F64 ? ((const double *)t->data)[i]
                                  : (double)((const float *)t->data)[i];
}

static void put(attune_tensor *t, int64_t i, double x) {
    if (t->dtype == ATTUNE_F64)
        ((double *)t->data)[i] = x;
    else
        ((float *)t->data)[i] = (float)x;
}

/* o = (e^(lse1 - lse) o1 + e^(lse2 - lse) o2), lse = log(e^lse1 + e^lse2). */
static attune_status merge_rows(void *context, int64_t task, int thread) {
    merge_job *j = context;
    (void)thread;
    int64_t end = (task + 1) * MERGE_ROWS < j->rows ? (task + 1) * MERGE_ROWS : j->rows;
    for (int64_t r = task * MERGE_ROWS; r < end; r++) {
        double a = element(&j->lse1, r), b = element(&j->lse2, r), m = a > b || isnan(a) ? a : b;
        double wa = 0, wb = 0, lse = m;
        if (m != -INFINITY) {
            wa = exp(a - m);
            wb = exp(b - m);
            lse = m + log(wa + wb);
            double sum = wa + wb;
            wa /= sum;
            wb /= sum;
        }
        for (int64_t d = 0; d < j->Dv; d++) {
            /* A part without a visible key does not count, even where the other part is Inf. */
            double x = (wa != 0 ? wa * element(&j->o1, r * j->Dv + d) : 0) +
                       (wb != 0 ? wb * element(&j->o2, r * j->Dv + d) : 0);
            put(j->o, r * j->Dv + d, x);
        }
        put(j->lse, r, lse);
    }
    return ATTUNE_OK;
}

static attune_status converted(const attune_tensor *t, attune_dtype dtype, attune_tensor *out) {
    attune_tensor any_strides;
    AT_TRY(attune_tensor_convert(t, dtype, &any_strides));
    attune_status status = attune_tensor_contiguous(&any_strides, out);
    attune_tensor_close(&any_strides);
    return status;
}

attune_status attune_attention_merge(const attune_tensor *o1, const attune_tensor *lse1,
                                     const attune_tensor *o2, const attune_tensor *lse2,
                                     attune_tensor *o, attune_tensor *lse) {
    memset(o, 0, sizeof *o);
    memset(lse, 0, sizeof *lse);
    if (!o1->data || o1->rank != 4) {
        return at_fail(ATTUNE_ESHAPE, "o1: expected [batch, heads, queries, head_dim], got %s",
                       at_shape_text(o1->rank, o1->shape));
    }
    AT_TRY(same_shape("o1", o1, 4, o1->shape));
    AT_TRY(same_shape("lse1", lse1, 3, o1->shape));
    AT_TRY(same_shape("o2", o2, 4, o1->shape));
    AT_TRY(same_shape("lse2", lse2, 3, o1->shape));
    if (o2->dtype != o1->dtype) {
        return at_fail(ATTUNE_EDTYPE, "o2: expected %s, as o1, got %s",
                       attune_dtype_name(o1->dtype), attune_dtype_name(o2->dtype));
    }
    merge_job job = {.rows = o1->shape[0] * o1->shape[1] * o1->shape[2], .Dv = o1->shape[3]};
    attune_dtype dtype = o1->dtype == ATTUNE_F64 ? ATTUNE_F64 : ATTUNE_F32;
    attune_tensor o_merged = {0}, lse_merged = {0};
    attune_status status = converted(o1, dtype, &job.o1);
    if (status == ATTUNE_OK) status = converted(lse1, dtype, &job.lse1);
    if (status == ATTUNE_OK) status = converted(o2, dtype, &job.o2);
    if (status == ATTUNE_OK) status = converted(lse2, dtype, &job.lse2);
    if (status == ATTUNE_OK) status = at_tensor_new(dtype, 4, o1->shape, &o_merged);
    if (status == ATTUNE_OK) status = at_tensor_new(dtype, 3, o1->shape, &lse_merged);
    job.o = &o_merged;
    job.lse = &lse_merged;
    if (status == ATTUNE_OK)
        status = at_parallel(at_ceil_div(job.rows, MERGE_ROWS), merge_rows, &job);
    if (status == ATTUNE_OK) status = attune_tensor_convert(&o_merged, o1->dtype, o);
    if (status == ATTUNE_OK) status = attune_tensor_share(&lse_merged, lse);
    attune_tensor *all[] = {&job.o1, &job.lse1, &job.o2, &job.lse2, &o_merged, &lse_merged};
    for (int i = 0; i < 6; i++) attune_tensor_close(all[i]);
    if (status != ATTUNE_OK) attune_tensor_close(o);
    return status;
}
