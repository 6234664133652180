/* blocked.c - linear attention in f32, block after block of tokens. Features are computed where
 * they are used and never stored.
 *
 * - Not causal: the sums of each section of keys are computed and merged; then blocks of queries
 *   read them.
 * - Causal: o = Q S + tril(Q K^T) V within a block, where S are the sums over all earlier blocks
 *   (Katharopoulos et al. 2020, section 3.3, in blocks). If there are few heads, the tokens are
 *   divided into sections: first the sums of each section are computed, then the sums before each
 *   section, and then all sections run in parallel.
 *
 * The problem alone decides the sections, so results have the same bits for any number of threads.
 */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"
#include "linear/block.h"
#include "simd/table.h"
#include "tensor/tensor.h"

enum { QUERY_BLOCKS = 4 };

typedef struct blocked_job {
    const at_linear *p;
    at_linear_plan plan;
    attune_tensor *o;
    at_linear_cut cut;
    int64_t row_tasks;   /* tasks per query head */
    float *sums;         /* [kv heads][sections] at_linear_sums */
    float *max_exponent; /* [kv heads][sections], used with epsilon > 0; a head's first entry: of
                            all its keys */
    atomic_bool *again;  /* [kv heads] whether f32 does not hold the head: see by_token.c */
    at_linear_scratch *thread;
} blocked_job;

static void compute_again(const blocked_job *j, int64_t head) {
    atomic_store_explicit(&j->again[head], true, memory_order_relaxed);
}

static float *list_of(const blocked_job *j, int64_t head) {
    return j->sums + head * j->cut.sections * at_linear_sums_floats(&j->plan);
}

/* Computes the features of the keys [first, first + count) of a kv head and packs the values. Sums
 * and features are then relative to the same max exponent. skip: the index of the first row's own
 * key; at least `count` where the block has no rows. Returns whether all values are finite. */
static bool make_keys(const blocked_job *j, at_linear_scratch *s, int64_t head, int64_t first,
                      int64_t count, int64_t skip, at_linear_sums *sums) {
    const at_linear *p = j->p;
    int64_t stride;
    const float *k =
        at_linear_rows(&p->k, head / p->Hk, head % p->Hk, first, count, s->f32_rows, &stride);
    const bool running = !(p->epsilon > 0);
    float max_exponent = running ? sums->max_exponent : j->max_exponent[head * j->cut.sections];
    at_linear_keys(&j->plan, s, k, stride, count, at_linear_rotation(p, &p->k_rotation),
                   head / p->Hk, first, running, &max_exponent, (float)p->epsilon);
    const float first_exponent =
        skip < count ? at_linear_first_exponent(&j->plan, s, sums->max_exponent, skip)
                     : max_exponent;
    if (at_linear_keys_exceed(&j->plan, s, count, first_exponent, max_exponent))
        compute_again(j, head);
    at_linear_sums_rescale(&j->plan, sums, max_exponent);
    const float *v =
        at_linear_rows(&p->v, head / p->Hk, head % p->Hk, first, count, s->f32_rows, &stride);
    at_simd_now()->panels.pack_rows(v, stride, count, p->Dv, j->plan.block, s->v);
    bool finite = true;
    for (int64_t r = 0; r < count && finite; r++)
        finite = at_simd_now()->elementwise.all_finite(v + r * stride, p->Dv);
    return finite;
}

/* Divides the rows of s->o by their denominators and stores them. */
static void store(const blocked_job *j, const at_linear_scratch *s, int64_t head, int64_t first,
                  int64_t count, const float *denominators) {
    const at_linear *p = j->p;
    if (at_linear_denominators_exceed(&j->plan, denominators, count)) compute_again(j, head / p->G);
    for (int64_t r = 0; r < count; r++) {
        float *o = s->o + r * j->plan.Dvp;
        const int64_t index = (head * p->Sq + first + r) * p->Dv;
        if (denominators[r] == 0)
            memset(o, 0, (size_t)p->Dv * sizeof *o);
        else
            at_simd_now()->elementwise.scale(o, 1 / denominators[r], o, p->Dv);
        if (j->o->dtype == ATTUNE_F32)
            memcpy((float *)j->o->data + index, o, (size_t)p->Dv * sizeof *o);
        else
            at_store_row(j->o, index, 1, p->Dv, o);
    }
}

/* o = q sums, for `count` rows of s->q_rotated. */
static void read_sums(const blocked_job *j, const at_linear_scratch *s, int64_t count,
                      const at_linear_sums *sums) {
    const at_linear_plan *plan = &j->plan;
    const at_panel_product product = {.rows = count,
                                      .columns = plan->Dvp,
                                      .depth = plan->F,
                                      .a = s->q_rotated,
                                      .a_row = plan->stride,
                                      .a_step = 1,
                                      .b = sums->s,
                                      .b_panel = plan->F * plan->panel,
                                      .c = s->o,
                                      .c_row = plan->Dvp};
    at_simd_now()->panels.multiply(&product);
}

/* ---- keys ------------------------------------------------------------------------------------ */

/* The max of w . x' of a section. With epsilon > 0 it is part of the result. */
static attune_status max_task(void *context, int64_t task, int thread) {
    blocked_job *j = context;
    const at_linear *p = j->p;
    at_linear_scratch *s = &j->thread[thread];
    const int64_t head = task / j->cut.sections;
    int64_t from, to, stride;
    float best = -INFINITY;
    at_linear_section(&j->cut, task % j->cut.sections, j->p->Sk, &from, &to);
    for (int64_t first = from; first < to; first += j->plan.block) {
        const int64_t count = to - first < j->plan.block ? to - first : j->plan.block;
        const float *k =
            at_linear_rows(&p->k, head / p->Hk, head % p->Hk, first, count, s->f32_rows, &stride);
        best = fmaxf(best, at_linear_max_exponent(&j->plan, s, k, stride, count, false));
    }
    j->max_exponent[task] = best;
    return ATTUNE_OK;
}

/* Computes the sums of a section, into the entry of the section or, if causal, of the next one. */
static attune_status sum_task(void *context, int64_t task, int thread) {
    blocked_job *j = context;
    at_linear_scratch *s = &j->thread[thread];
    const int64_t summed = j->p->causal ? j->cut.sections - 1 : j->cut.sections,
                  head = task / summed, number = task % summed, index = number + j->p->causal;
    at_linear_sums sums = at_linear_sums_in(&j->plan, list_of(j, head), index);
    int64_t from, to;
    at_linear_section(&j->cut, number, j->p->Sk, &from, &to);
    at_linear_sums_clear(&j->plan, &sums);
    for (int64_t first = from, n = 0; first < to; first += j->plan.block) {
        const int64_t count = to - first < j->plan.block ? to - first : j->plan.block;
        if (n % 16 == 15 && at_interrupted()) return at_interrupted_status();
        make_keys(j, s, head, first, count, count, &sums);
        at_linear_sums_add(&j->plan, s, count, &sums);
        n++;
    }
    at_linear_sums_keep(&j->plan, list_of(j, head), index, &sums);
    return ATTUNE_OK;
}

static attune_status merge_task(void *context, int64_t head, int thread) {
    blocked_job *j = context;
    (void)thread;
    at_linear_sums_gather(&j->plan, list_of(j, head), j->cut.sections, j->p->causal);
    return ATTUNE_OK;
}

/* ---- queries --------------------------------------------------------------------------------- */

static attune_status rows_task(void *context, int64_t task, int thread) {
    blocked_job *j = context;
    const at_linear *p = j->p;
    at_linear_scratch *s = &j->thread[thread];
    const int64_t head = task / j->row_tasks, b = head / p->Hq, h = head % p->Hq,
                  kv = b * p->Hk + h / p->G;
    const int64_t from = task % j->row_tasks * QUERY_BLOCKS * j->plan.block;
    const at_linear_sums sums = at_linear_sums_in(&j->plan, list_of(j, kv), 0);
    for (int64_t first = from; first < p->Sq && first < from + QUERY_BLOCKS * j->plan.block;
         first += j->plan.block) {
        const int64_t count = p->Sq - first < j->plan.block ? p->Sq - first : j->plan.block;
        int64_t stride;
        const float *q = at_linear_rows(&p->q, b, h, first, count, s->f32_rows, &stride);
        at_linear_queries(&j->plan, s, q, stride, count, at_linear_rotation(p, &p->q_rotation), b,
                          first);
        read_sums(j, s, count, &sums);
        at_simd_now()->linear.dot(s->q, j->plan.stride, count, p->F, sums.z, s->row);
        store(j, s, head, first, count, s->row);
    }
    return ATTUNE_OK;
}

/* o += tril(q k^T) v: the block's keys up to skip + r are visible to row r. An Inf or NaN in v must
 * not reach rows to which it is not visible, not even times zero; then each row is its own strip.
 */
static void within(const blocked_job *j, const at_linear_scratch *s, int64_t rows, int64_t skip,
                   bool finite) {
    const at_linear_plan *plan = &j->plan;
    const at_linear_triangle t = {.rows = rows,
                                  .columns = skip + rows,
                                  .skip = skip,
                                  .strip = finite ? at_simd_now()->geometry.rows[AT_FMA] : 1,
                                  .a = s->q_rotated,
                                  .a_row = plan->stride,
                                  .depth = plan->F,
                                  .b = s->k_columns,
                                  .b_panel = plan->panel * at_round_up(plan->F, AT_DIM),
                                  .v = s->v,
                                  .v_panel = plan->block * plan->panel,
                                  .width = plan->Dvp,
                                  .c = s->o,
                                  .c_row = plan->Dvp};
    at_linear_add_triangle(plan, &t, s->scores);
}

static attune_status causal_task(void *context, int64_t task, int thread) {
    blocked_job *j = context;
    const at_linear *p = j->p;
    const at_simd *simd = at_simd_now();
    at_linear_scratch *s = &j->thread[thread];
    const int64_t head = task / j->cut.sections, b = head / p->Hk,
                  offset = p->Sk - p->Sq; /* query i is token i + offset */
    at_linear_sums sums = at_linear_sums_in(&j->plan, list_of(j, head), task % j->cut.sections);
    int64_t from, to, stride;
    at_linear_section(&j->cut, task % j->cut.sections, j->p->Sk, &from, &to);
    if (j->cut.sections == 1) at_linear_sums_clear(&j->plan, &sums);
    for (int64_t first = from, n = 0; first < to; first += j->plan.block) {
        const int64_t count = to - first < j->plan.block ? to - first : j->plan.block,
                      skip = offset > first ? offset - first : 0, rows = count - skip;
        if (n % 16 == 15 && at_interrupted()) return at_interrupted_status();
        const bool finite = make_keys(j, s, head, first, count, skip, &sums);
        if (rows > 0)
            simd->panels.pack_columns(s->k_rotated, j->plan.stride, count, p->F, s->k_columns);
        for (int64_t g = 0; g < p->G && rows > 0; g++) {
            const int64_t h = head % p->Hk * p->G + g, i = first + skip - offset;
            const float *q = at_linear_rows(&p->q, b, h, i, rows, s->f32_rows, &stride);
            at_linear_queries(&j->plan, s, q, stride, rows, at_linear_rotation(p, &p->q_rotation),
                              b, i);
            read_sums(j, s, rows, &sums);
            within(j, s, rows, skip, finite);
            memcpy(s->z, sums.z, (size_t)p->F * sizeof *s->z);
            simd->linear.sum(s->k, j->plan.stride, skip, p->F, s->z);
            simd->linear.prefix_dot(s->q, s->k + skip * j->plan.stride, j->plan.stride, rows, p->F,
                                    s->z, s->row);
            store(j, s, b * p->Hq + h, i, rows, s->row);
        }
        at_linear_sums_add(&j->plan, s, count, &sums);
        n++;
    }
    return ATTUNE_OK;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static attune_status run(blocked_job *j) {
    const at_linear *p = j->p;
    const int64_t heads = p->B * p->Hk;
    if (p->epsilon > 0) {
        AT_TRY(at_parallel(heads * j->cut.sections, max_task, j));
        for (int64_t head = 0; head < heads; head++) {
            float *all = j->max_exponent + head * j->cut.sections;
            for (int64_t n = 1; n < j->cut.sections; n++) all[0] = fmaxf(all[0], all[n]);
        }
    }
    if (!p->causal) {
        AT_TRY(at_parallel(heads * j->cut.sections, sum_task, j));
        AT_TRY(at_parallel(heads, merge_task, j));
        return at_parallel(p->B * p->Hq * j->row_tasks, rows_task, j);
    }
    at_linear_clear_early(p, j->o);
    if (j->cut.sections > 1) {
        AT_TRY(at_parallel(heads * (j->cut.sections - 1), sum_task, j));
        AT_TRY(at_parallel(heads, merge_task, j));
    }
    return at_parallel(heads * j->cut.sections, causal_task, j);
}

attune_status at_linear_blocked(const at_linear *p, attune_tensor *o) {
    blocked_job j = {.p = p, .o = o};
    const int threads = at_threads();
    j.cut = at_linear_cut_keys(p);
    const int64_t block = j.cut.block;
    j.row_tasks = at_ceil_div(p->Sq, QUERY_BLOCKS * block);
    attune_status status = at_linear_plan_new(p->features, &p->projection, p->D, p->Dv, p->F,
                                              p->epsilon, block, &j.plan);
    const int64_t slots = at_checked_mul(p->B * p->Hk, j.cut.sections);
    if (status == ATTUNE_OK) {
        j.sums = at_alloc(
            at_checked_mul(slots, at_checked_mul(at_linear_sums_floats(&j.plan), sizeof(float))));
        j.max_exponent = j.sums ? at_alloc(slots * (int64_t)sizeof(float)) : NULL;
        j.again = j.max_exponent ? at_alloc_zeroed(p->B * p->Hk * (int64_t)sizeof *j.again) : NULL;
        j.thread = j.again ? at_alloc_zeroed(threads * (int64_t)sizeof *j.thread) : NULL;
        status = j.thread ? ATTUNE_OK : ATTUNE_EMEMORY;
    }
    for (int t = 0; t < threads && status == ATTUNE_OK; t++)
        status = at_linear_scratch_new(&j.plan, p->rotate != NULL, &j.thread[t]);
    if (status == ATTUNE_OK) status = run(&j);
    if (status == ATTUNE_OK) status = at_linear_again(p, j.again, o, NULL);
    for (int t = 0; t < threads && j.thread; t++) at_linear_scratch_free(&j.thread[t]);
    at_free(j.thread);
    at_free(j.again);
    at_free(j.max_exponent);
    at_free(j.sums);
    at_linear_plan_free(&j.plan);
    return status;
}
