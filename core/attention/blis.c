/* blis.c - engine "blis": attention as a textbook writes it, with the whole score matrix of a head
 * in memory.
 *
 *   S = scale Q K^T      P = softmax(mask(S))      O = P V
 *
 * There are two matrix products through BLIS and a softmax between them. It shows the cost of the
 * plain formula.
 */
#include <math.h>
#include <string.h>

#include "attention/problem.h"
#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"
#include "simd/table.h"
#include "tensor/gemm.h"
#include "tensor/tensor.h"

typedef struct textbook_job {
    const at_problem *p;
    attune_tensor q, k, v; /* f32 */
    attune_tensor *o, *lse;
    float *scores; /* [Sq][Sk] of one head */
    bool v_finite;
    float *scratch; /* [threads][scratch_stride] */
    int64_t scratch_stride;
    int64_t b, h;
} textbook_job;

enum { CHUNK_ROWS = 128 }; /* of a task, which takes about 20 ms at 16384 keys */

/* Runs the programs on chunks in `scratch`, where whole vectors may be read and written. */
static void modify(const at_problem *p, int64_t b, int64_t h, int64_t i, int64_t key, int64_t count,
                   float *x, float *scratch) {
    enum { CHUNK = AT_TILE * AT_BLOCK_TILES };
    for (int64_t k = 0; k < count; k += CHUNK) {
        const int n = (int)(count - k < CHUNK ? count - k : CHUNK);
        memcpy(scratch, x + k, (size_t)n * sizeof *x);
        at_modify(&p->query.modifier, b, h, i, key + k, n, scratch, scratch + AT_RUN);
        memcpy(x + k, scratch, (size_t)n * sizeof *x);
    }
}

/* Replaces the scores s [Sk] of one row by probabilities; hidden keys get zero. Returns the
 * log-sum-exp of the row. */
static float softmax_row(const at_problem *p, int64_t b, int64_t h, int64_t i, float *s,
                         int64_t first, int64_t last, const float *sink, void *scratch) {
    const at_elementwise_kernels *kernels = &at_simd_now()->elementwise;
    memset(s, 0, (size_t)(first < p->Sk ? first : p->Sk) * sizeof *s);
    if (last < p->Sk)
        memset(s + (last > 0 ? last : 0), 0, (size_t)(p->Sk - (last > 0 ? last : 0)) * sizeof *s);
    if (first >= last) {
        memset(s, 0, (size_t)p->Sk * sizeof *s);
        return sink ? *sink : -INFINITY;
    }
    const int64_t n = last - first;
    float *x = s + first, max = sink ? *sink : -INFINITY;
    if (p->query.softcap > 0) {
        const float cap = (float)p->query.softcap;
        for (int64_t j = 0; j < n; j++) x[j] = cap * tanhf(x[j] / cap);
    }
    if (at_modifies(&p->query.modifier)) modify(p, b, h, i, first, n, x, scratch);
    for (int64_t j = 0; j < n; j++) max = x[j] > max ? x[j] : max;
    const float origin = max == -INFINITY ? 0 : max;
    for (int64_t j = 0; j < n; j++) x[j] -= origin;
    kernels->exp(x, x, n);
    double sum = kernels->sum(x, n) + (sink ? exp((double)*sink - (double)origin) : 0);
    if (sum == 0) return -INFINITY;
    const float factor = (float)(1 / sum);
    for (int64_t j = 0; j < n; j++) x[j] *= factor;
    return (float)((double)origin + log(sum));
}

static attune_status chunk(void *context, int64_t task, int thread) {
    textbook_job *j = context;
    const at_problem *p = j->p;
    float *scratch = j->scratch + thread * j->scratch_stride;
    const int64_t begin = task * CHUNK_ROWS,
                  rows = p->query.Sq - begin < CHUNK_ROWS ? p->query.Sq - begin : CHUNK_ROWS,
                  kv = j->h / p->query.G;
    const int64_t *qs = j->q.stride, *ks = j->k.stride, *vs = j->v.stride;
    const float *q = (const float *)j->q.data + j->b * qs[0] + j->h * qs[1] + begin * qs[2];
    const float *k = (const float *)j->k.data + j->b * ks[0] + kv * ks[1],
                *v = (const float *)j->v.data + j->b * vs[0] + kv * vs[1];
    float *s = j->scores + begin * p->Sk;
    const int64_t index = (j->b * p->query.Hq + j->h) * p->query.Sq + begin;
    float *o = (float *)j->o->data + index * p->Dv;

    at_gemm_f32(rows, p->Sk, p->query.D, (float)p->query.scale, q, qs[2], qs[3], k, ks[3], ks[2], 0,
                s, p->Sk, 1);
    for (int64_t r = 0; r < rows; r++) {
        int64_t first, last;
        at_problem_visible_keys_of_head(p, j->b, j->h, begin + r, &first, &last);
        ((float *)j->lse->data)[index + r] =
            softmax_row(p, j->b, j->h, begin + r, s + r * p->Sk, first, last,
                        p->query.sinks ? &p->query.sinks[j->h] : NULL, scratch);
        if (j->v_finite) continue;
        /* V holds an Inf or NaN: hidden keys may not be multiplied, not even by zero. */
        for (int64_t d = 0; d < p->Dv; d++) {
            float sum = 0;
            for (int64_t key = first; key < last; key++)
                if (!at_has_gaps(&p->query.modifier) || s[r * p->Sk + key] != 0)
                    sum += s[r * p->Sk + key] * v[key * vs[2] + d * vs[3]];
            o[r * p->Dv + d] = sum;
        }
    }
    if (j->v_finite)
        at_gemm_f32(rows, p->Dv, p->Sk, 1, s, p->Sk, 1, v, vs[2], vs[3], 0, o, p->Dv, 1);
    return ATTUNE_OK;
}

static attune_status all_heads(textbook_job *j) {
    const at_problem *p = j->p;
    AT_TRY(at_all_finite(&j->v, &j->v_finite));
    for (j->b = 0; j->b < p->query.B; j->b++)
        for (j->h = 0; j->h < p->query.Hq; j->h++)
            AT_TRY(at_parallel(at_ceil_div(p->query.Sq, CHUNK_ROWS), chunk, j));
    return ATTUNE_OK;
}

attune_status at_blis(const at_problem *p, const at_results *results) {
    attune_tensor *o = results->o;
    textbook_job j = {.p = p, .lse = results->lse};
    attune_tensor o_f32 = {0};
    attune_status status = attune_tensor_convert(&p->query.q, ATTUNE_F32, &j.q);
    if (status == ATTUNE_OK) status = attune_tensor_convert(&p->k, ATTUNE_F32, &j.k);
    if (status == ATTUNE_OK) status = attune_tensor_convert(&p->v, ATTUNE_F32, &j.v);
    if (status == ATTUNE_OK)
        status = o->dtype == ATTUNE_F32 ? attune_tensor_share(o, &o_f32)
                                        : at_tensor_new(ATTUNE_F32, 4, o->shape, &o_f32);
    if (status == ATTUNE_OK) {
        j.o = &o_f32;
        j.scores =
            at_alloc(at_checked_mul(at_checked_mul(p->query.Sq, p->Sk), (int64_t)sizeof(float)));
        j.scratch_stride =
            AT_RUN + at_modifier_scratch(&p->query.modifier) / (int64_t)sizeof(float);
        j.scratch = at_alloc(at_threads() * j.scratch_stride * (int64_t)sizeof(float));
        status = j.scores && j.scratch ? all_heads(&j) : ATTUNE_EMEMORY;
    }
    if (status == ATTUNE_OK && o->dtype != ATTUNE_F32) status = attune_tensor_copy(&o_f32, o);
    at_free(j.scores);
    at_free(j.scratch);
    attune_tensor *all[] = {&j.q, &j.k, &j.v, &o_f32};
    for (int i = 0; i < 4; i++) attune_tensor_close(all[i]);
    return status;
}
