/* reference_backward.c - gradients term by term in double precision: the oracle of tiled's
 * backward, and the engine for f64.
 *
 *   p_ij = e^(s_ij - lse_i)         dv_j = sum_i p_ij d_o_i
 *   dp_ij = d_o_i . v_j             delta_i = d_o_i . o_i - d_lse_i
 *   ds_ij = p_ij (dp_ij - delta_i)  times the derivatives of the score program and the softcap
 *   dq_i = scale sum_j ds_ij k_j    dk_j = scale sum_i ds_ij q_i
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
    double *rows;    /* [threads][row_doubles] */
    int64_t row_doubles;
    double *dsinks; /* [B * Hq] */
} backward_job;

static void load_row(const attune_tensor *t, int64_t b, int64_t h, int64_t i, double *out) {
    at_load_row_f64(t, b * t->stride[0] + h * t->stride[1] + i * t->stride[2], t->stride[3],
                    t->shape[3], out);
}

static double dot(const double *x, const double *y, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] * y[i];
    return sum;
}

static double row_value(const attune_tensor *t, int64_t b, int64_t h, int64_t i) {
    return at_load(t, b * t->stride[0] + h * t->stride[1] + i * t->stride[2]);
}

/* The pairs of a query with the keys [first, first + n). s is [2 + 2 * reads][Sk]: the scores that
 * enter the softmax, their derivatives by q . k, then the adjoint and the element index of each
 * READ.
 */
typedef struct row {
    int64_t b, h, i, first, n;
    double *s;
} row;

static int32_t reads(const backward_job *j) {
    return j->g->tables && j->g->tables->score ? j->g->tables->score->program->reads : 0;
}

static void add_to_tables(const backward_job *j, const row *r, int64_t x, double d) {
    for (int32_t k = 0; k < reads(j); k++) {
        const double *adjoint = r->s + (2 + 2 * k) * j->p->Sk;
        int64_t index;
        memcpy(&index, adjoint + j->p->Sk + x, sizeof index);
        at_table_gradients_add(j->g->tables, k, index, d * adjoint[x]);
    }
}

/* Runs the score program over the n pairs from `from` on: the scores become its results, and the
 * derivatives are multiplied by its derivative. */
static void run_program(const backward_job *j, const row *r, int64_t from, int n) {
    const at_problem *p = j->p;
    const attune_program *program = p->query.modifier.score.program;
    double *s = r->s + from, *slope = s + p->Sk, before[AT_RUN], slopes[AT_RUN];
    void *scratch = r->s + (2 + 2 * reads(j)) * p->Sk;
    memcpy(before, s, (size_t)n * sizeof *s);
    const at_run run = {.binding = &p->query.modifier.score,
                        .b = r->b,
                        .h = r->h,
                        .i = r->i,
                        .key = r->first + from,
                        .n = n,
                        .scratch = scratch};
    const int32_t outputs[2] = {program->result, program->slope};
    double *const to[2] = {s, slopes};
    at_run_f64(&run, before, program->slope < 0 ? 1 : 2, outputs, to);
    at_modifier_note_reads(&p->query.modifier, &run, before);
    for (int x = 0; x < n; x++) slope[x] *= program->slope < 0 ? 0 : slopes[x];
    for (int32_t k = 0; k < reads(j); k++) {
        double *adjoint = s + (2 + 2 * k) * p->Sk;
        at_run_f64(&run, before, 1, &program->adjoint[k], &adjoint);
        for (int x = 0; x < n; x++) {
            const int64_t index = at_run_flat_index(&run, before, program->read[k], x);
            memcpy(adjoint + p->Sk + x, &index, sizeof index);
        }
    }
}

static void score_row(const backward_job *j, const row *r, const double *q, double *k) {
    const at_problem *p = j->p;
    enum { CHUNK = AT_TILE * AT_BLOCK_TILES };
    double *slope = r->s + p->Sk;
    for (int64_t x = 0; x < r->n; x++) {
        load_row(&p->k, r->b, r->h / p->query.G, r->first + x, k);
        r->s[x] = p->query.scale * dot(q, k, p->query.D);
        slope[x] = p->query.scale;
        if (p->query.softcap > 0) {
            const double t = tanh(r->s[x] / p->query.softcap);
            r->s[x] = p->query.softcap * t;
            slope[x] *= 1 - t * t;
        }
    }
    for (int64_t x = 0; x < r->n && p->query.modifier.score.program; x += CHUNK)
        run_program(j, r, x, (int)(r->n - x < CHUNK ? r->n - x : CHUNK));
    at_hide_f64(&p->query.modifier, r->b, r->h, r->i, r->first, r->n, r->s,
                r->s + (2 + 2 * reads(j)) * p->Sk);
}

/* A row's weights are e^(s - origin) / sum. */
typedef struct normaliser {
    double origin, sum;
} normaliser;

static normaliser normaliser_of(const backward_job *j, const row *r, double lse) {
    const double *sinks = j->p->query.sinks_f64;
    if (!at_lse_is_large(lse)) return (normaliser){.origin = lse, .sum = 1};
    normaliser out = {.origin = sinks ? sinks[r->h] : -INFINITY};
    for (int64_t x = 0; x < r->n; x++)
        if (r->s[x] > out.origin) out.origin = r->s[x];
    out.sum = sinks ? exp(sinks[r->h] - out.origin) : 0;
    for (int64_t x = 0; x < r->n; x++) out.sum += exp(r->s[x] - out.origin);
    return out.sum == 0 ? (normaliser){.origin = lse, .sum = 1} : out;
}

/* Query i of head (b, h): adds to dk and dv and writes dq. Returns its part of dsink. */
static double backward_row(const backward_job *j, int64_t b, int64_t h, int64_t i, double *dk,
                           double *dv, double *scratch) {
    const at_problem *p = j->p;
    double *q = scratch, *dq = q + p->query.D, *k = dq + p->query.D, *d_o = k + p->query.D,
           *o = d_o + p->Dv, *v = o + p->Dv;
    const double lse = row_value(j->g->lse, b, h, i);
    int64_t first, last;
    load_row(&p->query.q, b, h, i, q);
    load_row(j->g->d_o, b, h, i, d_o);
    load_row(j->g->o, b, h, i, o);
    memset(dq, 0, (size_t)p->query.D * sizeof *dq);
    const double d_lse = j->g->d_lse ? row_value(j->g->d_lse, b, h, i) : 0,
                 delta = dot(d_o, o, p->Dv) - d_lse;
    at_problem_visible_keys_of_head(p, b, h, i, &first, &last);
    const row r = {.b = b,
                   .h = h,
                   .i = i,
                   .first = first,
                   .n = last - first,
                   .s = scratch + 3 * (p->query.D + p->Dv)};
    if (r.n > 0 && lse != -INFINITY) score_row(j, &r, q, k);
    const normaliser by = normaliser_of(j, &r, lse);
    for (int64_t key = first; key < last && lse != -INFINITY; key++) {
        const double s = r.s[key - first];
        if (at_has_gaps(&p->query.modifier) && s == -INFINITY) continue; /* hidden */
        load_row(&p->k, b, h / p->query.G, key, k);
        load_row(&p->v, b, h / p->query.G, key, v);
        const double weight = exp(s - by.origin) / by.sum,
                     outer = weight * (dot(d_o, v, p->Dv) - delta),
                     ds = outer * r.s[p->Sk + key - first];
        if (reads(j) > 0) add_to_tables(j, &r, key - first, outer);
        for (int64_t d = 0; d < p->Dv; d++) dv[key * p->Dv + d] += weight * d_o[d];
        for (int64_t d = 0; d < p->query.D; d++) {
            dq[d] += ds * k[d];
            dk[key * p->query.D + d] += ds * q[d];
        }
    }
    at_store_row_f64(j->g->dq, ((b * p->query.Hq + h) * p->query.Sq + i) * p->query.D, 1,
                     p->query.D, dq);
    return p->query.sinks ? -exp(p->query.sinks_f64[h] - by.origin) / by.sum * delta : 0;
}

static attune_status backward_head(void *context, int64_t task, int thread) {
    const backward_job *j = context;
    const at_problem *p = j->p;
    const int64_t b = task / p->query.Hk, kv = task % p->query.Hk;
    double *dk = j->dk + thread * p->Sk * p->query.D, *dv = j->dv + thread * p->Sk * p->Dv,
           *scratch = j->rows + thread * j->row_doubles;
    memset(dk, 0, (size_t)(p->Sk * p->query.D) * sizeof *dk);
    memset(dv, 0, (size_t)(p->Sk * p->Dv) * sizeof *dv);
    for (int64_t h = kv * p->query.G; h < (kv + 1) * p->query.G; h++) {
        double dsink = 0;
        for (int64_t i = 0; i < p->query.Sq; i++) {
            dsink += backward_row(j, b, h, i, dk, dv, scratch);
            if (at_interrupted()) return at_interrupted_status();
        }
        j->dsinks[b * p->query.Hq + h] = dsink;
    }
    for (int64_t key = 0; key < p->Sk; key++) {
        at_store_row_f64(j->g->dk, (task * p->Sk + key) * p->query.D, 1, p->query.D,
                         dk + key * p->query.D);
        at_store_row_f64(j->g->dv, (task * p->Sk + key) * p->Dv, 1, p->Dv, dv + key * p->Dv);
    }
    return ATTUNE_OK;
}

attune_status at_reference_backward(const at_problem *p, const at_gradients *g) {
    /* One thread adds to the sums of tables, so that their order is fixed. */
    const bool alone = g->tables && g->tables->score;
    const int64_t reads = alone ? g->tables->score->program->reads : 0,
                  threads = alone ? 1 : at_threads(),
                  doubles = 3 * (p->query.D + p->Dv) + (2 + 2 * reads) * p->Sk +
                            at_modifier_scratch(&p->query.modifier) / 8;
    const int64_t dk = at_checked_mul(at_checked_mul(threads, p->Sk), p->query.D),
                  dv = at_checked_mul(at_checked_mul(threads, p->Sk), p->Dv);
    backward_job j = {.p = p, .g = g, .row_doubles = doubles};
    j.dk = at_alloc(at_checked_mul(dk, 8));
    if (j.dk) j.dv = at_alloc(at_checked_mul(dv, 8));
    if (j.dv) j.rows = at_alloc(at_checked_mul(threads, 8 * doubles));
    if (j.rows) j.dsinks = at_alloc_zeroed(at_checked_mul(p->query.B, 8 * p->query.Hq));
    attune_status status = !j.dsinks ? ATTUNE_EMEMORY
                           : alone   ? ATTUNE_OK
                                     : at_parallel(p->query.B * p->query.Hk, backward_head, &j);
    for (int64_t task = 0; task < p->query.B * p->query.Hk && alone && status == ATTUNE_OK; task++)
        status = backward_head(&j, task, 0);
    for (int64_t h = 0; h < p->query.Hq && status == ATTUNE_OK && g->dsinks && p->query.sinks;
         h++) {
        double sum = 0;
        for (int64_t b = 0; b < p->query.B; b++) sum += j.dsinks[b * p->query.Hq + h];
        at_store(g->dsinks, h, sum);
    }
    at_free(j.dk);
    at_free(j.dv);
    at_free(j.rows);
    at_free(j.dsinks);
    return status;
}
