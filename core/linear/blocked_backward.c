/* blocked_backward.c - gradients of linear attention in f32, block after block of tokens, in panel
 * products. The names are those of linear_reference.c:
 *
 *   dA_i = S_i dN_i      dZ_i = -(A_i . dA_i) / Z_i      dv_j = R_j^T B_j      dB_j = R_j v_j
 *
 * This dZ_i equals linear_reference.c's -(dN_i . o_i), as o_i = S_i^T A_i / Z_i; it saves computing
 * the outputs again. S and R are kept as panels of features, [F / panel][Dv][panel].
 *
 * - Not causal: S of each section of keys, merged; then dq and R of each section of queries,
 * merged; then dk and dv.
 * - Causal: S, from the first block to the last, gives dq, Z and dZ; R, from the last block to the
 *   first, gives dk and dv. If the tokens are divided into sections, the S before and the R after
 *   each section are computed first, as in blocked.c.
 *
 * Without epsilon S is scaled by e^-c, as in the forward pass, where c is the max exponent of the
 * keys up to the current block; so are its Z. A query's dN and dZ are then scaled by e^c, and R is
 * kept scaled by e^c for the c of its block. From the last block to the first c only falls, so R is
 * only ever scaled down, and it is multiplied by keys that are scaled by e^-c.
 */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"
#include "linear/block_backward.h"
#include "simd/table.h"
#include "tensor/tensor.h"

static void compute_again(const at_back_job *j, int64_t head) {
    atomic_store_explicit(&j->again[head], true, memory_order_relaxed);
}

/* ---- tasks ----------------------------------------------------------------------------------- */

static int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }

static attune_status max_task(void *context, int64_t task, int thread) {
    at_back_job *j = context;
    const at_linear *p = j->p;
    at_back_scratch *t = &j->thread[thread];
    const int64_t head = task / j->keys.sections;
    int64_t from, to, stride;
    at_stabiliser best = {.max_exponent = -INFINITY};
    at_linear_section(&j->keys, task % j->keys.sections, p->Sk, &from, &to);
    for (int64_t first = from; first < to; first += j->plan.block) {
        const int64_t count = min_of(to - first, j->plan.block);
        const float *k =
            at_linear_rows(&p->k, head / p->Hk, head % p->Hk, first, count, t->x, &stride);
        const float max_exponent = at_linear_max_exponent(&j->plan, &t->s, k, stride, count, false);
        if (!(max_exponent > best.max_exponent)) continue;
        const float *rows = p->features == ATTUNE_FEATURES_TRIG ? t->s.other : t->s.row;
        int64_t r = 0, m = 0;
        while (rows[r] != max_exponent) r++;
        while (p->features == ATTUNE_FEATURES_FAVOR &&
               t->s.k[r * j->plan.stride + m] != max_exponent)
            m++;
        best = (at_stabiliser){.max_exponent = max_exponent, .token = first + r, .column = m};
    }
    j->max_exponent[task] = best;
    return ATTUNE_OK;
}

/* Computes S of a section, into the entry of the section or, if causal, of the next section. */
static attune_status sum_task(void *context, int64_t task, int thread) {
    at_back_job *j = context;
    const at_linear *p = j->p;
    at_back_scratch *t = &j->thread[thread];
    const int64_t all = j->keys.sections, summed = p->causal ? all - 1 : all, head = task / summed,
                  number = task % summed, index = head * all + number + p->causal;
    const bool running = !(p->epsilon > 0);
    at_linear_sums sums = at_linear_sums_in(&j->plan, j->s, index);
    float c = running ? -INFINITY : j->max_exponent[head * all].max_exponent;
    int64_t from, to;
    at_linear_section(&j->keys, number, p->Sk, &from, &to);
    at_linear_sums_clear(&j->plan, &sums);
    for (int64_t first = from, n = 0; first < to; first += j->plan.block) {
        if (n % 16 == 15 && at_interrupted()) return at_interrupted_status();
        const at_tokens k =
            at_back_keys(j, t, head, first, min_of(to - first, j->plan.block), running, &c);
        if (at_linear_keys_exceed(&j->plan, &t->s, k.count, c, c)) compute_again(j, head);
        at_linear_sums_rescale(&j->plan, &sums, c);
        at_back_pack_features(j, t->s.k_rotated, k.count, t->k_rows);
        at_back_add_keys(j, t, &k, &sums);
        n++;
    }
    at_linear_sums_keep(&j->plan, j->s, index, &sums);
    return ATTUNE_OK;
}

static attune_status merge_keys_task(void *context, int64_t head, int thread) {
    at_back_job *j = context;
    const int64_t sections = j->keys.sections;
    (void)thread;
    at_linear_sums_gather(&j->plan, j->s + head * sections * at_linear_sums_floats(&j->plan),
                          sections, j->p->causal);
    return ATTUNE_OK;
}

/* All sections into the first; causal: each gets those after it. */
static attune_status merge_queries_task(void *context, int64_t head, int thread) {
    at_back_job *j = context;
    const int64_t n = j->p->causal ? j->keys.sections : j->queries.sections, index = head * n;
    (void)thread;
    if (j->p->causal) {
        at_linear_sums_empty(&j->plan, j->r, index + n - 1);
        for (int64_t i = n - 3; i >= 0; i--)
            at_linear_sums_join(&j->plan, j->r, index + i, index + i + 1);
    } else {
        for (int64_t i = 1; i < n; i++) at_linear_sums_join(&j->plan, j->r, index, index + i);
    }
    return ATTUNE_OK;
}

/* Not causal: dq of a section of queries, and its R. */
static attune_status queries_task(void *context, int64_t task, int thread) {
    at_back_job *j = context;
    const at_linear *p = j->p;
    at_back_scratch *t = &j->thread[thread];
    const int64_t head = task / j->queries.sections;
    const at_linear_sums s = at_linear_sums_in(&j->plan, j->s, head * j->keys.sections);
    at_linear_sums r = at_linear_sums_in(&j->plan, j->r, task);
    int64_t from, to;
    at_linear_section(&j->queries, task % j->queries.sections, p->Sq, &from, &to);
    at_linear_sums_clear(&j->plan, &r);
    for (int64_t g = 0; g < p->G; g++) {
        for (int64_t first = from; first < to; first += j->plan.block) {
            if (at_interrupted()) return at_interrupted_status();
            const at_tokens q =
                at_back_queries(j, t, head / p->Hk * p->Hq + head % p->Hk * p->G + g, first,
                                min_of(to - first, j->plan.block), 0);
            at_back_through_queries(j, t, &q, NULL, &s);
            at_back_pack_features(j, t->s.q_rotated, q.count, t->q_rows);
            at_back_add_queries(j, t, &q, s.max_exponent, &r);
        }
    }
    at_linear_sums_keep(&j->plan, j->r, task, &r);
    return ATTUNE_OK;
}

/* Causal: dq of a section of queries, their Z, dZ and c, and R, into the entry of the section
 * before. */
static attune_status causal_queries_task(void *context, int64_t task, int thread) {
    at_back_job *j = context;
    const at_linear *p = j->p;
    at_back_scratch *t = &j->thread[thread];
    const int64_t number = task % j->keys.sections, head = task / j->keys.sections,
                  offset = p->Sk - p->Sq;
    const int64_t blocks = at_ceil_div(p->Sk, j->plan.block);
    const bool running = !(p->epsilon > 0);
    at_linear_sums s = at_linear_sums_in(&j->plan, j->s, task), r = {0};
    int64_t from, to;
    at_linear_section(&j->keys, number, p->Sk, &from, &to);
    if (j->keys.sections == 1) at_linear_sums_clear(&j->plan, &s);
    if (number > 0) {
        r = at_linear_sums_in(&j->plan, j->r, task - 1);
        at_linear_sums_clear(&j->plan, &r);
    }
    float c = running ? s.max_exponent : j->max_exponent[head * j->keys.sections].max_exponent;
    for (int64_t first = from; first < to; first += j->plan.block) {
        if (at_interrupted()) return at_interrupted_status();
        const at_tokens k =
            at_back_keys(j, t, head, first, min_of(to - first, j->plan.block), running, &c);
        const int64_t skip = offset > first ? offset - first : 0, rows = k.count - skip;
        const float first_exponent =
            rows > 0 ? at_linear_first_exponent(&j->plan, &t->s, s.max_exponent, skip) : c;
        if (at_linear_keys_exceed(&j->plan, &t->s, k.count, first_exponent, c))
            compute_again(j, head);
        at_linear_sums_rescale(&j->plan, &s, c);
        j->shift[head * blocks + first / j->plan.block] = c;
        at_back_pack_features(j, t->s.k_rotated, k.count, t->k_rows);
        if (rows > 0)
            at_simd_now()->panels.pack_columns(k.v, k.v_stride, k.count, p->Dv, t->columns);
        for (int64_t g = 0; g < p->G && rows > 0; g++) {
            const at_tokens q = at_back_queries(j, t, k.b * p->Hq + head % p->Hk * p->G + g,
                                                first + skip - offset, rows, skip);
            at_back_through_queries(j, t, &q, &k, &s);
            if (number == 0) continue;
            at_back_pack_features(j, t->s.q_rotated, rows, t->q_rows);
            at_back_add_queries(j, t, &q, c, &r);
        }
        at_back_add_keys(j, t, &k, &s);
    }
    if (number > 0) at_linear_sums_keep(&j->plan, j->r, task - 1, &r);
    return ATTUNE_OK;
}

/* dk and dv of a section of keys, from its last block down. */
static attune_status keys_task(void *context, int64_t task, int thread) {
    at_back_job *j = context;
    const at_linear *p = j->p;
    at_back_scratch *t = &j->thread[thread];
    const int64_t number = task % j->keys.sections, head = task / j->keys.sections,
                  blocks = at_ceil_div(p->Sk, j->plan.block);
    at_linear_sums r =
        at_linear_sums_in(&j->plan, j->r, p->causal ? task : head * j->queries.sections);
    float c =
        p->causal ? 0 : at_linear_sums_in(&j->plan, j->s, head * j->keys.sections).max_exponent;
    int64_t from, to;
    at_linear_section(&j->keys, number, p->Sk, &from, &to);
    if (p->causal && j->keys.sections == 1) at_linear_sums_clear(&j->plan, &r);
    if (!p->causal) at_back_transpose_sums(j, &r, t->r);
    j->totals[task] = 0;
    for (int64_t first = from + (to - from - 1) / j->plan.block * j->plan.block; first >= from;
         first -= j->plan.block) {
        if (at_interrupted()) return at_interrupted_status();
        if (p->causal) {
            c = j->shift[head * blocks + first / j->plan.block];
            at_linear_sums_rescale(&j->plan, &r, at_back_opposite(j, c));
            at_back_transpose_sums(j, &r, t->r);
        }
        const at_tokens k =
            at_back_keys(j, t, head, first, min_of(to - first, j->plan.block), false, &c);
        j->totals[task] += at_back_through_keys(j, t, &k, c, &r);
    }
    return ATTUNE_OK;
}

/* With epsilon > 0 the stabiliser does not cancel: its gradient belongs to the token that it comes
 * from. */
static void stabiliser_backward(const at_back_job *j, int64_t head) {
    const at_linear *p = j->p;
    const at_stabiliser from = j->max_exponent[head * j->keys.sections];
    const int64_t index = (head * p->Sk + from.token) * p->D, *s = p->k.stride;
    const double *w = (const double *)p->projection.data + from.column * p->D,
                 c = 1 / sqrt((double)p->D);
    double total = 0;
    for (int64_t n = 0; n < j->keys.sections; n++) total += j->totals[head * j->keys.sections + n];
    for (int64_t d = 0; d < p->D; d++) {
        double x, dx;
        at_load_row_f64(&p->k,
                        head / p->Hk * s[0] + head % p->Hk * s[1] + from.token * s[2] + d * s[3], 1,
                        1, &x);
        at_load_row_f64(j->g->dk, index + d, 1, 1, &dx);
        dx -= total * (p->features == ATTUNE_FEATURES_TRIG ? c * x : w[d]);
        at_store_row_f64(j->g->dk, index + d, 1, 1, &dx);
    }
}

/* ---- the whole ------------------------------------------------------------------------------- */

static attune_status run(at_back_job *j) {
    const at_linear *p = j->p;
    const int64_t heads = p->B * p->Hk, sections = j->keys.sections;
    const bool stabilised = p->epsilon > 0 && at_linear_exponential(p);
    if (p->epsilon > 0) { /* without exponentials: -inf */
        AT_TRY(at_parallel(heads * sections, max_task, j));
        for (int64_t head = 0; head < heads; head++)
            for (int64_t n = 1; n < sections; n++)
                if (j->max_exponent[head * sections + n].max_exponent >
                    j->max_exponent[head * sections].max_exponent)
                    j->max_exponent[head * sections] = j->max_exponent[head * sections + n];
    }
    if (p->causal) {
        at_linear_clear_early(p, j->g->dq);
        if (sections > 1) {
            AT_TRY(at_parallel(heads * (sections - 1), sum_task, j));
            AT_TRY(at_parallel(heads, merge_keys_task, j));
        }
        AT_TRY(at_parallel(heads * sections, causal_queries_task, j));
        if (sections > 1) AT_TRY(at_parallel(heads, merge_queries_task, j));
    } else {
        AT_TRY(at_parallel(heads * sections, sum_task, j));
        AT_TRY(at_parallel(heads, merge_keys_task, j));
        AT_TRY(at_parallel(heads * j->queries.sections, queries_task, j));
        AT_TRY(at_parallel(heads, merge_queries_task, j));
    }
    AT_TRY(at_parallel(heads * sections, keys_task, j));
    for (int64_t head = 0; head < heads && stabilised; head++) stabiliser_backward(j, head);
    return ATTUNE_OK;
}

static void carve(at_arena *a, const at_back_job *j, at_back_scratch *t) {
    const at_linear_plan *p = &j->plan;
    const int64_t n = p->block, features = at_round_up(p->F, p->panel) * n;
    const size_t size = sizeof(float);
    const bool find_best = p->features == ATTUNE_FEATURES_FAVOR && p->epsilon > 0;
    t->x = at_arena_take(a, n * p->D, size);
    t->v = at_arena_take(a, n * p->Dv, size);
    t->g = at_arena_take(a, n * p->Dv, size);
    t->d = at_arena_take(a, n * p->stride, size);
    t->d_flat = j->p->rotate ? at_arena_take(a, n * p->stride, size) : t->d;
    t->columns = at_arena_take(a, at_round_up(n, p->panel) * at_round_up(p->Dv, AT_DIM), size);
    t->k_rows = at_arena_take(a, features, size);
    t->q_rows = at_arena_take(a, features, size);
    t->dx = at_arena_take(a, n * at_round_up(p->D, p->panel / 2), size);
    t->r = at_arena_take(a, at_checked_mul(at_round_up(p->Dv, p->panel), p->F), size);
    t->s.best = find_best ? at_arena_take(a, n, sizeof *t->s.best) : NULL;
}

static attune_status scratch_new(const at_back_job *j, at_back_scratch *t) {
    AT_TRY(at_linear_scratch_new(&j->plan, j->p->rotate != NULL, &t->s));
    carve(&t->arena, j, t);
    AT_TRY(at_arena_alloc_zeroed(&t->arena));
    carve(&t->arena, j, t);
    return ATTUNE_OK;
}

static attune_status weights_new(at_back_job *j) {
    const at_linear_plan *p = &j->plan;
    const double *w = j->p->projection.data;
    if (p->M == 0) return ATTUNE_OK;
    float *w_f32 = at_alloc(at_checked_mul(p->M * p->D, (int64_t)sizeof *w_f32));
    j->weights =
        w_f32 ? at_alloc(at_checked_mul(p->M * at_round_up(p->D, p->panel), (int64_t)sizeof *w_f32))
              : NULL;
    if (j->weights) {
        for (int64_t i = 0; i < p->M * p->D; i++) w_f32[i] = (float)w[i];
        at_simd_now()->panels.pack_rows(w_f32, p->D, p->M, p->D, p->M, j->weights);
    }
    at_free(w_f32);
    return j->weights ? ATTUNE_OK : ATTUNE_EMEMORY;
}

/* Allocates the sums, and Z, dZ and c. */
static attune_status kept_new(at_back_job *j) {
    const at_linear *p = j->p;
    const int64_t heads = p->B * p->Hk, slots = heads * j->keys.sections,
                  queries = p->B * p->Hq * p->Sq;
    const int64_t floats = (int64_t)sizeof(float), blocks = at_ceil_div(p->Sk, j->plan.block),
                  sums = at_checked_mul(at_linear_sums_floats(&j->plan), floats);
    j->s = at_alloc(at_checked_mul(slots, sums));
    j->r = j->s ? at_alloc(at_checked_mul(p->causal ? slots : heads * j->queries.sections, sums))
                : NULL;
    j->Z = j->r ? at_alloc(at_checked_mul(queries, floats)) : NULL;
    j->dZ = j->Z ? at_alloc(at_checked_mul(queries, floats)) : NULL;
    j->shift = j->dZ ? at_alloc(heads * blocks * floats) : NULL;
    j->max_exponent = j->shift ? at_alloc(slots * (int64_t)sizeof *j->max_exponent) : NULL;
    j->totals = j->max_exponent ? at_alloc(slots * (int64_t)sizeof *j->totals) : NULL;
    j->again = j->totals ? at_alloc_zeroed(heads * (int64_t)sizeof *j->again) : NULL;
    j->thread = j->again ? at_alloc_zeroed(at_threads() * (int64_t)sizeof *j->thread) : NULL;
    return j->thread ? ATTUNE_OK : ATTUNE_EMEMORY;
}

attune_status at_linear_blocked_backward(const at_linear *p, const at_linear_gradients *g) {
    at_back_job j = {
        .p = p, .g = g, .keys = at_linear_cut_keys(p), .queries = at_linear_cut_queries(p)};
    const int threads = at_threads();
    attune_status status = at_linear_plan_new(p->features, &p->projection, p->D, p->Dv, p->F,
                                              p->epsilon, j.keys.block, &j.plan);
    j.plan.products = at_checked_mul(at_round_up(p->F, j.plan.panel), p->Dv);
    if (status == ATTUNE_OK) status = weights_new(&j);
    if (status == ATTUNE_OK) status = kept_new(&j);
    for (int t = 0; t < threads && status == ATTUNE_OK; t++) status = scratch_new(&j, &j.thread[t]);
    if (status == ATTUNE_OK) status = run(&j);
    if (status == ATTUNE_OK) status = at_linear_again(p, j.again, NULL, g);
    for (int t = 0; t < threads && j.thread; t++) {
        at_linear_scratch_free(&j.thread[t].s);
        at_arena_free(&j.thread[t].arena);
    }
    void *all[] = {j.weights,      j.s,      j.r,     j.Z,     j.dZ, j.shift,
                   j.max_exponent, j.totals, j.again, j.thread};
    for (int i = 0; i < 10; i++) at_free(all[i]);
    at_linear_plan_free(&j.plan);
    return status;
}
