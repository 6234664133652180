/* recurrent_state.c - linear attention as a recurrence (Katharopoulos et al. 2020, equations 18 to
 * 20): the state is sums over all tokens so far; the tokens themselves are not kept.
 *
 * The stabiliser of the keys is the max exponent so far. When a key has a larger one, the sums are
 * rescaled. With epsilon > 0 a feature is e + epsilon, and only e is relative to the stabiliser. So
 * two sums are kept: those of e, and those of features that are all 1, which attend multiplies by
 * epsilon.
 *
 * One stabiliser does not do where favor+'s features differ too much: sums of the smaller ones
 * would vanish, though a later query may need them. From then on the sums of each feature of that
 * kv head are relative to a max exponent of their own, and exponents are differences in double
 * precision.
 */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/dtype.h"
#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"
#include "linear/block.h"
#include "simd/table.h"
#include "tensor/tensor.h"

/* ALONE: bytes that one thread reads in the time that other threads would take to wake up. */
enum { BLOCK = 64, ALONE = 1 << 20 };

struct attune_linear_state {
    attune_linear_state_options options; /* with v_head_dim resolved, and projection NULL */
    at_linear_plan plan;
    int64_t length; /* tokens appended */
    int64_t floats; /* of one at_linear_sums and [F] exponents */
    bool apart;     /* there is a second sum, of features that are all 1 */
    float *sums;    /* [B][Hk][1 or 2] at_linear_sums */
};

static float *slot_of(const attune_linear_state *st, int64_t head, int which) {
    return st->sums + (head * (1 + st->apart) + which) * st->floats;
}
/* Where sums are kept by feature, the max exponent of each: [F], after the sums. The second float
 * of the sums' memory says whether they are. */
static float *exponents_of(const attune_linear_state *st, int64_t head) {
    return slot_of(st, head, 0) + at_linear_sums_floats(&st->plan);
}
static bool is_by_feature(const attune_linear_state *st, int64_t head) {
    return slot_of(st, head, 0)[1] != 0;
}
static at_linear_sums sums_of(const attune_linear_state *st, int64_t head, int which) {
    return at_linear_sums_at(&st->plan, slot_of(st, head, which));
}

static attune_status at_least_one(const char *name, int64_t n) {
    return n >= 1 && n <= (int64_t)1 << 30
               ? ATTUNE_OK
               : at_fail(ATTUNE_EVALUE, "%s: expected from 1 to 2^30, got %lld", name,
                         (long long)n);
}

attune_status attune_linear_state_new(const attune_linear_state_options *options,
                                      attune_linear_state **out) {
    attune_linear_state_options o = *options;
    attune_tensor w = {0};
    int64_t M, F;
    *out = NULL;
    AT_TRY(attune_init());
    AT_TRY(at_least_one("batch", o.batch));
    AT_TRY(at_least_one("kv_heads", o.kv_heads));
    AT_TRY(at_least_one("head_dim", o.head_dim));
    if (o.v_head_dim == 0) o.v_head_dim = o.head_dim;
    AT_TRY(at_least_one("v_head_dim", o.v_head_dim));
    if (!(o.epsilon >= 0) || isinf(o.epsilon))
        return at_fail(ATTUNE_EVALUE, "epsilon: expected a number of at least 0, got %g",
                       o.epsilon);
    AT_TRY(at_linear_projection(o.features, o.projection, o.head_dim, &w, &M, &F));
    attune_status status = at_linear_check_rotation(o.rotate, F);
    attune_linear_state *st = status == ATTUNE_OK ? at_alloc_zeroed((int64_t)sizeof *st) : NULL;
    if (status == ATTUNE_OK && !st) status = ATTUNE_EMEMORY;
    if (status == ATTUNE_OK)
        status = at_linear_plan_new(o.features, &w, o.head_dim, o.v_head_dim, F, o.epsilon, BLOCK,
                                    &st->plan);
    if (status == ATTUNE_OK) {
        o.projection = NULL;
        if (o.rotate && !o.rotate->inv_freq) o.rotate = NULL;
        st->options = o;
        st->floats = at_checked_add(at_linear_sums_floats(&st->plan), at_round_up(F, 16));
        st->apart = o.epsilon > 0;
        const int64_t size = (int64_t)sizeof *st->sums;
        st->sums = at_alloc(at_checked_mul(at_checked_mul(o.batch, o.kv_heads),
                                           at_checked_mul(st->floats, (1 + st->apart) * size)));
        if (!st->sums) status = ATTUNE_EMEMORY;
    }
    attune_tensor_close(&w);
    if (status != ATTUNE_OK) {
        attune_linear_state_close(st);
        return status;
    }
    attune_linear_state_reset(st);
    *out = st;
    return ATTUNE_OK;
}

void attune_linear_state_close(attune_linear_state *st) {
    if (!st) return;
    at_linear_plan_free(&st->plan);
    at_free(st->sums);
    at_free(st);
}

void attune_linear_state_reset(attune_linear_state *st) {
    for (int64_t head = 0; head < st->options.batch * st->options.kv_heads; head++) {
        for (int which = 0; which <= st->apart; which++) {
            at_linear_sums sums = sums_of(st, head, which);
            at_linear_sums_clear(&st->plan, &sums);
            slot_of(st, head, which)[0] = sums.max_exponent;
            slot_of(st, head, which)[1] = 0;
        }
    }
    st->length = 0;
}

int64_t attune_linear_state_length(const attune_linear_state *st) { return st->length; }
int64_t attune_linear_state_nbytes(const attune_linear_state *st) {
    return st->options.batch * st->options.kv_heads * (1 + st->apart) * st->floats *
           (int64_t)sizeof *st->sums;
}
const attune_linear_state_options *attune_linear_state_describe(const attune_linear_state *st) {
    return &st->options;
}

/* ---- append and attend ----------------------------------------------------------------------- */

typedef struct state_job {
    attune_linear_state *st;
    at_linear_plan plan; /* the state's, with blocks of at most the tokens of this call */
    const attune_tensor *q, *k, *v, *o;
    at_rotation rotation;
    int64_t heads; /* query heads per kv head */
    at_linear_scratch *thread;
} state_job;

/* ---- one exponent per feature ---------------------------------------------------------------- */

/* A head is kept by feature once the max exponent rises by more than MAX_RISE at once while some
 * feature stays as far below it, or once exponents are so large that f32 rounds them too much. */
static const float MAX_RISE = 40, MAX_HALF_SQUARE = 256;

/* Whether the keys in s, whose features are relative to max_exponent, need it. before: the max
 * exponent before them. */
static bool needs_exponents(const attune_linear_state *st, const at_linear_scratch *s,
                            int64_t count, float before, float max_exponent) {
    const at_linear_plan *plan = &st->plan;
    if (plan->features != ATTUNE_FEATURES_FAVOR || st->apart) return false;
    for (int64_t r = 0; r < count; r++)
        if (s->other[r] > MAX_HALF_SQUARE && s->other[r] <= FLT_MAX) return true;
    if (!(max_exponent - before > MAX_RISE)) return false;
    for (int64_t f = 0; f < plan->F; f++) {
        float max = 0;
        for (int64_t r = 0; r < count; r++) max = fmaxf(max, s->k[r * plan->stride + f]);
        if (max < expf(-MAX_RISE)) return true;
    }
    return false;
}

/* Sum f becomes relative to exponent[f] = to[f]. */
static void rescale_features(const at_linear_plan *plan, at_linear_sums *sums, float *exponent,
                             const float *to) {
    for (int64_t f = 0; f < plan->F; f++) {
        if (exponent[f] == to[f]) continue;
        const float factor = exponent[f] == -INFINITY ? 0 : expf(exponent[f] - to[f]);
        sums->z[f] *= factor;
        for (int64_t d = 0; d < plan->Dvp; d += plan->panel) {
            const int64_t width = plan->Dvp - d < plan->panel ? plan->Dvp - d : plan->panel;
            float *row = sums->s + d * plan->F + f * plan->panel;
            for (int64_t c = 0; c < width; c++) row[c] *= factor;
        }
        exponent[f] = to[f];
    }
}

/* Features that rotate together get the larger of their exponents. */
static void join_pairs(const at_rotation *rotation, float *exponent) {
    const int64_t pairs = rotation ? rotation->dims / 2 : 0;
    for (int64_t i = 0; i < pairs; i++) {
        int64_t m, n;
        at_pair(rotation->pairing, pairs, i, &m, &n);
        exponent[m] = exponent[n] = fmaxf(exponent[m], exponent[n]);
    }
}

/* As at_linear_keys, relative to the max exponent of each feature, to which the sums are rescaled.
 */
static void keys_by_feature(const at_linear_plan *plan, at_linear_scratch *s, const float *x,
                            int64_t x_stride, int64_t count, const at_rotation *rotation, int64_t b,
                            int64_t first, at_linear_sums *sums, float *exponent) {
    double half[BLOCK];
    float *to = s->z;
    at_linear_project(plan, x, x_stride, count, s->k);
    memcpy(to, exponent, (size_t)plan->F * sizeof *to);
    for (int64_t r = 0; r < count; r++) {
        const float *row = x + r * x_stride;
        half[r] = 0;
        for (int64_t d = 0; d < plan->D; d++) half[r] += (double)row[d] * (double)row[d];
        half[r] *= 0.5 / sqrt((double)plan->D);
        for (int64_t f = 0; f < plan->F; f++)
            to[f] = fmaxf(to[f], (float)((double)s->k[r * plan->stride + f] - half[r]));
    }
    join_pairs(rotation, to);
    rescale_features(plan, sums, exponent, to);
    for (int64_t r = 0; r < count; r++) {
        float *k = s->k + r * plan->stride;
        for (int64_t f = 0; f < plan->F; f++)
            k[f] = (float)exp((double)k[f] - half[r] - (double)exponent[f]);
        if (rotation) at_rotate_token(rotation, b, first + r, k, s->k_rotated + r * plan->stride);
    }
}

/* As at_linear_queries, for one query: features times those of the sums, relative to the max. */
static void query_by_feature(const at_linear_plan *plan, at_linear_scratch *s, const float *x,
                             const at_rotation *rotation, int64_t b, const float *exponent) {
    float max = -INFINITY;
    at_linear_project(plan, x, plan->D, 1, s->q);
    for (int64_t f = 0; f < plan->F; f++) {
        s->q[f] += exponent[f];
        max = fmaxf(max, s->q[f]);
    }
    for (int64_t f = 0; f < plan->F; f++) s->q[f] = expf(s->q[f] - max);
    if (rotation) at_rotate_token(rotation, b, 0, s->q, s->q_rotated);
}

/* ---- tasks ----------------------------------------------------------------------------------- */

static attune_status append_task(void *context, int64_t head, int thread) {
    state_job *j = context;
    attune_linear_state *st = j->st;
    const at_linear_plan *plan = &j->plan;
    at_linear_scratch *s = &j->thread[thread];
    const at_rotation *rotation = st->options.rotate ? &j->rotation : NULL;
    const int64_t b = head / st->options.kv_heads, h = head % st->options.kv_heads,
                  S = j->k->shape[2];
    at_linear_sums sums = sums_of(st, head, 0), ones = st->apart ? sums_of(st, head, 1) : sums;
    int64_t stride;
    for (int64_t first = 0; first < S; first += BLOCK) {
        const int64_t count = S - first < BLOCK ? S - first : BLOCK;
        float max_exponent = sums.max_exponent, *exponent = exponents_of(st, head);
        const float *k = at_linear_rows(j->k, b, h, first, count, s->f32_rows, &stride);
        if (!is_by_feature(st, head)) {
            at_linear_keys(plan, s, k, stride, count, rotation, b, first, true, &max_exponent, 0);
            slot_of(st, head, 0)[1] =
                needs_exponents(st, s, count, sums.max_exponent, max_exponent);
            for (int64_t f = 0; f < plan->F; f++) exponent[f] = sums.max_exponent;
        }
        if (is_by_feature(st, head))
            keys_by_feature(plan, s, k, stride, count, rotation, b, first, &sums, exponent);
        else
            at_linear_sums_rescale(plan, &sums, max_exponent);
        const float *v = at_linear_rows(j->v, b, h, first, count, s->f32_rows, &stride);
        at_simd_now()->panels.pack_rows(v, stride, count, plan->Dv, plan->block, s->v);
        at_linear_sums_add(plan, s, count, &sums);
        if (!st->apart) continue;
        for (int64_t r = 0; r < count; r++) {
            float *one = s->k + r * plan->stride;
            for (int64_t f = 0; f < plan->F; f++) one[f] = 1;
            if (rotation)
                at_rotate_token(rotation, b, first + r, one, s->k_rotated + r * plan->stride);
        }
        at_linear_sums_add(plan, s, count, &ones);
    }
    *slot_of(st, head, 0) = sums.max_exponent;
    return ATTUNE_OK;
}

static attune_status attend_task(void *context, int64_t task, int thread) {
    state_job *j = context;
    const attune_linear_state *st = j->st;
    const at_linear_plan *plan = &j->plan;
    const at_simd *simd = at_simd_now();
    at_linear_scratch *s = &j->thread[thread];
    const int64_t Hq = j->q->shape[1], b = task / Hq, h = task % Hq,
                  head = b * st->options.kv_heads + h / j->heads;
    int64_t stride;
    const float *q = at_linear_rows(j->q, b, h, 0, 1, s->f32_rows, &stride);
    const at_rotation *rotation = st->options.rotate ? &j->rotation : NULL;
    if (is_by_feature(st, head))
        query_by_feature(plan, s, q, rotation, b, exponents_of(st, head));
    else
        at_linear_queries(plan, s, q, stride, 1, rotation, b, 0);
    float denominator = 0;
    for (int which = 0; which <= st->apart; which++) {
        const at_linear_sums sums = sums_of(st, head, which);
        const float factor = which ? plan->epsilon : 1;
        float part;
        const at_panel_product product = {.rows = 1,
                                          .columns = plan->Dvp,
                                          .depth = plan->F,
                                          .a = s->q_rotated,
                                          .a_row = plan->stride,
                                          .a_step = 1,
                                          .b = sums.s,
                                          .b_panel = plan->F * plan->panel,
                                          .c = which ? s->scores : s->o,
                                          .c_row = plan->Dvp};
        simd->panels.multiply(&product);
        simd->linear.dot(s->q, plan->stride, 1, plan->F, sums.z, &part);
        denominator += factor * part;
        if (which) simd->elementwise.add_scaled(s->scores, factor, s->o, plan->Dv);
    }
    for (int64_t d = 0; d < plan->Dv; d++) s->o[d] = denominator == 0 ? 0 : s->o[d] / denominator;
    at_store_row(j->o, task * plan->Dv, 1, plan->Dv, s->o);
    return ATTUNE_OK;
}

/* Runs the tasks. alone: on this thread, without a check for interrupts between two tasks. */
static attune_status run(state_job *j, int64_t tasks, at_task task, attune_side side, int64_t first,
                         int64_t S, bool alone) {
    const int threads = alone ? 1 : at_threads();
    const attune_linear_state *st = j->st;
    j->plan = st->plan;
    if (S < BLOCK) j->plan.block = S;
    attune_status status = ATTUNE_OK;
    if (st->options.rotate)
        AT_TRY(at_rotation_make(st->options.rotate, NULL, &first, 1, st->options.batch, S, side,
                                first + S, &j->rotation));
    j->thread = at_alloc_zeroed(threads * (int64_t)sizeof *j->thread);
    if (!j->thread) status = ATTUNE_EMEMORY;
    for (int t = 0; t < threads && status == ATTUNE_OK; t++)
        status = at_linear_scratch_new(&j->plan, st->options.rotate != NULL, &j->thread[t]);
    if (status == ATTUNE_OK && !alone) status = at_parallel(tasks, task, j);
    for (int64_t i = 0; i < tasks && status == ATTUNE_OK && alone; i++) status = task(j, i, 0);
    for (int t = 0; t < threads && j->thread; t++) at_linear_scratch_free(&j->thread[t]);
    at_free(j->thread);
    at_rotation_free(&j->rotation);
    return status;
}

static attune_status check(const char *name, const attune_tensor *t, int64_t batch, int64_t heads,
                           int64_t tokens, int64_t dim) {
    AT_TRY(at_check_open(name, t));
    if (!at_is_float(t->dtype))
        return at_fail(ATTUNE_EDTYPE, "%s: expected a float dtype, got %s", name,
                       attune_dtype_name(t->dtype));
    if (t->rank != 4 || t->shape[0] != batch || (heads && t->shape[1] != heads) ||
        (tokens && t->shape[2] != tokens) || t->shape[3] != dim) {
        char head[24] = "heads", token[24] = "tokens";
        if (heads) snprintf(head, sizeof head, "%lld", (long long)heads);
        if (tokens) snprintf(token, sizeof token, "%lld", (long long)tokens);
        return at_fail(ATTUNE_ESHAPE,
                       "%s: expected [%lld, %s, %s, %lld] (batch, heads, tokens, head_dim), got %s",
                       name, (long long)batch, head, token, (long long)dim,
                       at_shape_text(t->rank, t->shape));
    }
    return ATTUNE_OK;
}

attune_status attune_linear_state_append(attune_linear_state *st, const attune_tensor *k,
                                         const attune_tensor *v) {
    const attune_linear_state_options *o = &st->options;
    AT_TRY(check("k", k, o->batch, o->kv_heads, 0, o->head_dim));
    AT_TRY(check("v", v, o->batch, o->kv_heads, k->shape[2], o->v_head_dim));
    state_job j = {.st = st, .k = k, .v = v};
    const int64_t bytes = attune_linear_state_nbytes(st), S = k->shape[2];
    if (bytes * S <= ALONE) {
        AT_TRY(run(&j, o->batch * o->kv_heads, append_task, ATTUNE_KEY, st->length, S, true));
        st->length += S;
        return ATTUNE_OK;
    }
    /* An interrupt may come between two heads: a copy of the sums is kept until all are done. */
    float *before = at_alloc(bytes);
    if (!before) return ATTUNE_EMEMORY;
    memcpy(before, st->sums, (size_t)bytes);
    attune_status status =
        run(&j, o->batch * o->kv_heads, append_task, ATTUNE_KEY, st->length, S, false);
    if (status == ATTUNE_OK)
        st->length += S;
    else
        memcpy(st->sums, before, (size_t)bytes);
    at_free(before);
    return status;
}

attune_status attune_linear_state_attend(attune_linear_state *st, const attune_tensor *q,
                                         attune_tensor *o) {
    const attune_linear_state_options *options = &st->options;
    memset(o, 0, sizeof *o);
    AT_TRY(check("q", q, options->batch, 0, 1, options->head_dim));
    if (q->shape[1] % options->kv_heads) {
        return at_fail(ATTUNE_ESHAPE,
                       "q: expected a number of heads that %lld kv heads divide, got %lld",
                       (long long)options->kv_heads, (long long)q->shape[1]);
    }
    if (st->length == 0)
        return at_fail(ATTUNE_EVALUE, "state: expected at least one token appended, got none");
    const int64_t shape[4] = {options->batch, q->shape[1], 1, options->v_head_dim};
    const attune_tensor from = *q;
    AT_TRY(at_tensor_new(from.dtype, 4, shape, o));
    state_job j = {.st = st, .q = &from, .o = o, .heads = shape[1] / options->kv_heads};
    attune_status status = run(&j, options->batch * shape[1], attend_task, ATTUNE_QUERY,
                               st->length - 1, 1, attune_linear_state_nbytes(st) <= ALONE);
    if (status != ATTUNE_OK) attune_tensor_close(o);
    return status;
}
