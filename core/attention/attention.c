/* attention.c - the public calls: validate, make room, hand over to the engine. */
#include <math.h>
#include <string.h>

#include "attention/problem.h"
#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"
#include "tensor/tensor.h"

static attune_status run_engine(const at_problem *p, attune_tensor *o, attune_tensor *lse) {
    switch (p->engine) {
    case ATTUNE_ENGINE_REFERENCE: return at_reference(p, o, lse);
    case ATTUNE_ENGINE_BLIS: return at_textbook(p, o, lse);
    case ATTUNE_ENGINE_DECODE: return at_decode(p, o, lse);
    case ATTUNE_ENGINE_TILED:
    case ATTUNE_ENGINE_DEFAULT: break;
    }
    return at_tiled(p, o, lse);
}

attune_status attune_attention(const attune_tensor *q, const attune_tensor *k, const attune_tensor *v, const attune_attention_options *options,
                               attune_tensor *o, attune_tensor *lse) {
    at_problem p;
    memset(o, 0, sizeof *o);
    memset(lse, 0, sizeof *lse);
    if (!v) return at_fail(ATTUNE_ECLOSED, "v: expected a tensor [batch, kv_heads, keys, head_dim], got none");
    AT_TRY(at_problem_make(q, k, v, options, &p));
    attune_status status = at_problem_results(&p, o, lse);
    if (status == ATTUNE_OK) {
        status = run_engine(&p, o, lse);
        if (status != ATTUNE_OK) attune_tensor_close(o), attune_tensor_close(lse);
    }
    at_problem_close(&p);
    return status;
}

attune_status attune_attention_weights(const attune_tensor *q, const attune_tensor *k, const attune_attention_options *options, attune_tensor *weights) {
    at_problem p;
    memset(weights, 0, sizeof *weights);
    attune_attention_options exact = options ? *options : (attune_attention_options){0};
    exact.engine = ATTUNE_ENGINE_REFERENCE;
    AT_TRY(at_problem_make(q, k, NULL, &exact, &p));
    const int64_t shape[4] = {p.B, p.Hq, p.Sq, p.Sk};
    attune_status status = attune_tensor_new(p.lse_dtype, 4, shape, weights);
    if (status == ATTUNE_OK) {
        status = at_reference_weights(&p, weights);
        if (status != ATTUNE_OK) attune_tensor_close(weights);
    }
    at_problem_close(&p);
    return status;
}

/* ---- merge ------------------------------------------------------------------------------------------------------- */

typedef struct merge_job {
    attune_tensor o1, lse1, o2, lse2; /* contiguous; o in f32 or f64, lse likewise */
    attune_tensor *o, *lse;
    int64_t rows, Dv;
} merge_job;

enum { MERGE_ROWS = 256 };

static double element(const attune_tensor *t, int64_t i) { return t->dtype == ATTUNE_F64 ? ((const double *)t->data)[i] : (double)((const float *)t->data)[i]; }

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
            wa = exp(a - m), wb = exp(b - m);
            lse = m + log(wa + wb);
            double sum = wa + wb;
            wa /= sum, wb /= sum;
        }
        for (int64_t d = 0; d < j->Dv; d++) {
            /* A part that saw nothing is all zeros and has no say, even beside an Inf of the other. */
            double x = (wa != 0 ? wa * element(&j->o1, r * j->Dv + d) : 0) + (wb != 0 ? wb * element(&j->o2, r * j->Dv + d) : 0);
            put(j->o, r * j->Dv + d, x);
        }
        put(j->lse, r, lse);
    }
    return ATTUNE_OK;
}

static attune_status same_shape(const char *name, const attune_tensor *t, int rank, const int64_t *shape) {
    if (!t->data) return at_fail(ATTUNE_ECLOSED, "%s: expected a tensor %s, got a closed one", name, at_shape_text(rank, shape));
    if (t->rank != rank || memcmp(t->shape, shape, (size_t)rank * sizeof *shape) != 0) {
        return at_fail(ATTUNE_ESHAPE, "%s: expected %s, got %s", name, at_shape_text(rank, shape), at_shape_text(t->rank, t->shape));
    }
    if (!at_is_float(t->dtype)) return at_fail(ATTUNE_EDTYPE, "%s: expected a float dtype, got %s", name, attune_dtype_name(t->dtype));
    return ATTUNE_OK;
}

static attune_status widened(const attune_tensor *t, attune_dtype dtype, attune_tensor *out) {
    attune_tensor converted;
    AT_TRY(attune_tensor_convert(t, dtype, &converted));
    attune_status status = attune_tensor_contiguous(&converted, out);
    attune_tensor_close(&converted);
    return status;
}

attune_status attune_attention_merge(const attune_tensor *o1, const attune_tensor *lse1, const attune_tensor *o2, const attune_tensor *lse2, attune_tensor *o,
                                     attune_tensor *lse) {
    memset(o, 0, sizeof *o);
    memset(lse, 0, sizeof *lse);
    if (!o1->data || o1->rank != 4) {
        return at_fail(ATTUNE_ESHAPE, "o1: expected [batch, heads, queries, head_dim], got %s", at_shape_text(o1->rank, o1->shape));
    }
    AT_TRY(same_shape("o1", o1, 4, o1->shape));
    AT_TRY(same_shape("lse1", lse1, 3, o1->shape));
    AT_TRY(same_shape("o2", o2, 4, o1->shape));
    AT_TRY(same_shape("lse2", lse2, 3, o1->shape));
    if (o2->dtype != o1->dtype) {
        return at_fail(ATTUNE_EDTYPE, "o2: expected %s, as o1, got %s", attune_dtype_name(o1->dtype), attune_dtype_name(o2->dtype));
    }
    merge_job job = {.rows = o1->shape[0] * o1->shape[1] * o1->shape[2], .Dv = o1->shape[3]};
    attune_dtype wide = o1->dtype == ATTUNE_F64 ? ATTUNE_F64 : ATTUNE_F32;
    attune_tensor o_wide = {0}, lse_wide = {0};
    attune_status status = widened(o1, wide, &job.o1);
    if (status == ATTUNE_OK) status = widened(lse1, wide, &job.lse1);
    if (status == ATTUNE_OK) status = widened(o2, wide, &job.o2);
    if (status == ATTUNE_OK) status = widened(lse2, wide, &job.lse2);
    if (status == ATTUNE_OK) status = at_tensor_new(wide, 4, o1->shape, &o_wide);
    if (status == ATTUNE_OK) status = at_tensor_new(wide, 3, o1->shape, &lse_wide);
    job.o = &o_wide, job.lse = &lse_wide;
    if (status == ATTUNE_OK) status = at_parallel((job.rows + MERGE_ROWS - 1) / MERGE_ROWS, merge_rows, &job);
    if (status == ATTUNE_OK) status = attune_tensor_convert(&o_wide, o1->dtype, o);
    if (status == ATTUNE_OK) status = attune_tensor_share(&lse_wide, lse);
    attune_tensor *all[] = {&job.o1, &job.lse1, &job.o2, &job.lse2, &o_wide, &lse_wide};
    for (int i = 0; i < 6; i++) attune_tensor_close(all[i]);
    if (status != ATTUNE_OK) attune_tensor_close(o);
    return status;
}
