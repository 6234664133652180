/* reference_backward.c - gradients term by term in double precision: what tiled's backward is checked against, and what takes f64.
 *
 *   p_ij = e^(s_ij - lse_i)       dv_j = sum_i p_ij d_o_i       dp_ij = d_o_i . v_j       delta_i = d_o_i . o_i
 *   ds_ij = p_ij (dp_ij - delta_i), times the softcap's slope      dq_i = scale sum_j ds_ij k_j      dk_j = scale sum_i ds_ij q_i
 *   dsink_h = - sum_i e^(sink_h - lse_i) delta_i
 */
#include <math.h>
#include <string.h>

#include "attention/problem.h"
#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"
#include "tensor/tensor.h"

typedef struct backward_job {
    const at_problem *p;
    const at_gradients *g;
    double *dk, *dv; /* [threads][Sk][D], [threads][Sk][Dv] */
    double *rows;    /* [threads][3 D + 3 Dv] */
    double *dsinks;  /* [B * Hq] */
} backward_job;

static void load_row(const attune_tensor *t, int64_t b, int64_t h, int64_t i, double *out) {
    at_load_row_f64(t, b * t->stride[0] + h * t->stride[1] + i * t->stride[2], t->stride[3], t->shape[3], out);
}

static double dot(const double *x, const double *y, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] * y[i];
    return sum;
}

static double lse_of(const backward_job *j, int64_t b, int64_t h, int64_t i) {
    const attune_tensor *t = j->g->lse;
    return at_load(t, b * t->stride[0] + h * t->stride[1] + i * t->stride[2]);
}

/* One query row of head (b, h): adds to dk and dv, writes dq; returns its part of dsink. */
static double backward_row(const backward_job *j, int64_t b, int64_t h, int64_t i, double *dk, double *dv, double *scratch) {
    const at_problem *p = j->p;
    double *q = scratch, *dq = q + p->D, *k = dq + p->D, *d_o = k + p->D, *o = d_o + p->Dv, *v = o + p->Dv;
    const double lse = lse_of(j, b, h, i);
    int64_t first, last;
    load_row(&p->q, b, h, i, q);
    load_row(j->g->d_o, b, h, i, d_o);
    load_row(j->g->o, b, h, i, o);
    memset(dq, 0, (size_t)p->D * sizeof *dq);
    const double delta = dot(d_o, o, p->Dv);
    at_problem_sees(p, b, i, &first, &last);
    for (int64_t key = first; key < last && lse != -INFINITY; key++) {
        load_row(&p->k, b, h / p->G, key, k);
        load_row(&p->v, b, h / p->G, key, v);
        double s = p->scale * dot(q, k, p->D), slope = p->scale;
        if (p->softcap > 0) {
            const double t = tanh(s / p->softcap);
            s = p->softcap * t, slope *= 1 - t * t;
        }
        const double weight = exp(s - lse), ds = weight * (dot(d_o, v, p->Dv) - delta) * slope;
        for (int64_t d = 0; d < p->Dv; d++) dv[key * p->Dv + d] += weight * d_o[d];
        for (int64_t d = 0; d < p->D; d++) dq[d] += ds * k[d], dk[key * p->D + d] += ds * q[d];
    }
    at_store_row_f64(j->g->dq, ((b * p->Hq + h) * p->Sq + i) * p->D, 1, p->D, dq);
    return p->sinks ? -exp((double)p->sinks[h] - lse) * delta : 0;
}

static attune_status backward_head(void *context, int64_t task, int thread) {
    const backward_job *j = context;
    const at_problem *p = j->p;
    const int64_t b = task / p->Hk, kv = task % p->Hk;
    double *dk = j->dk + thread * p->Sk * p->D, *dv = j->dv + thread * p->Sk * p->Dv, *scratch = j->rows + thread * 3 * (p->D + p->Dv);
    memset(dk, 0, (size_t)(p->Sk * p->D) * sizeof *dk);
    memset(dv, 0, (size_t)(p->Sk * p->Dv) * sizeof *dv);
    for (int64_t h = kv * p->G; h < (kv + 1) * p->G; h++) {
        double dsink = 0;
        for (int64_t i = 0; i < p->Sq; i++) {
            dsink += backward_row(j, b, h, i, dk, dv, scratch);
            if (at_interrupted()) return at_interrupted_status();
        }
        j->dsinks[b * p->Hq + h] = dsink;
    }
    for (int64_t key = 0; key < p->Sk; key++) {
        at_store_row_f64(j->g->dk, (task * p->Sk + key) * p->D, 1, p->D, dk + key * p->D);
        at_store_row_f64(j->g->dv, (task * p->Sk + key) * p->Dv, 1, p->Dv, dv + key * p->Dv);
    }
    return ATTUNE_OK;
}

attune_status at_reference_backward(const at_problem *p, const at_gradients *g) {
    const int64_t threads = at_threads(), row = 3 * (p->D + p->Dv);
    const int64_t dk = at_checked_mul(at_checked_mul(threads, p->Sk), p->D), dv = at_checked_mul(at_checked_mul(threads, p->Sk), p->Dv);
    backward_job j = {.p = p, .g = g};
    j.dk = at_alloc(at_checked_mul(dk, 8));
    if (j.dk) j.dv = at_alloc(at_checked_mul(dv, 8));
    if (j.dv) j.rows = at_alloc(at_checked_mul(threads, 8 * row));
    if (j.rows) j.dsinks = at_alloc_zeroed(at_checked_mul(p->B, 8 * p->Hq));
    attune_status status = j.dsinks ? at_parallel(p->B * p->Hk, backward_head, &j) : ATTUNE_EMEMORY;
    for (int64_t h = 0; h < p->Hq && status == ATTUNE_OK && g->dsinks && p->sinks; h++) {
        double sum = 0;
        for (int64_t b = 0; b < p->B; b++) sum += j.dsinks[b * p->Hq + h];
        at_store(g->dsinks, h, sum);
    }
    at_free(j.dk);
    at_free(j.dv);
    at_free(j.rows);
    at_free(j.dsinks);
    return status;
}
