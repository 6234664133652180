/* fast.c - linear attention in f32, a block of tokens after the other: features are made where they are used and never stored.
 *
 * All keys:  sums over sections of keys, merged, then blocks of queries read them.
 * Causal:    o = Q S + tril(Q K^T) V within a block, S the sums over all blocks before (Katharopoulos et al. 2020, section 3.3, in blocks). Where there are few
 *            heads the tokens are cut in sections: their sums first, then what comes before each, then each section from there on.
 *
 * Sections follow from the problem alone, so that the bits do.
 */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"
#include "linear/block.h"
#include "simd/table.h"
#include "tensor/tensor.h"

enum { CAUSAL_BLOCK = 64, BLOCK = 128, TASKS = 32, CAUSAL_HEADS = 8, LEAST_BLOCKS = 8, QUERY_BLOCKS = 4 };

typedef struct fast_job {
    const at_linear *p;
    at_linear_plan plan;
    attune_tensor *o;
    int64_t sections, section; /* of a kv head; tokens of one */
    int64_t row_tasks;         /* of a query head */
    float *sums;               /* [kv heads][sections] */
    float *greatest;           /* [kv heads][sections]: with epsilon, of all keys of a head, in its first place */
    at_linear_scratch *thread;
} fast_job;

static const at_turns *turns_of(const at_linear *p, const at_turns *turns) { return p->turn ? turns : NULL; }

static at_linear_sums sums_of(const fast_job *j, int64_t head, int64_t section) {
    return at_linear_sums_at(&j->plan, j->sums + (head * j->sections + section) * at_linear_sums_floats(&j->plan));
}

static void keep(const fast_job *j, int64_t head, int64_t section, const at_linear_sums *sums) {
    j->sums[(head * j->sections + section) * at_linear_sums_floats(&j->plan)] = sums->greatest;
}

static void section_of(const fast_job *j, int64_t number, int64_t *from, int64_t *to) {
    *from = number * j->section;
    *to = *from + j->section < j->p->Sk ? *from + j->section : j->p->Sk;
}

/* Features of the keys [first, first + count) of a kv head, relative to what sums are then relative to. Whether their values are finite. */
static bool make_keys(const fast_job *j, at_linear_scratch *s, int64_t head, int64_t first, int64_t count, at_linear_sums *sums) {
    const at_linear *p = j->p;
    int64_t stride;
    const float *k = at_linear_rows(&p->k, head / p->Hk, head % p->Hk, first, count, s->wide, &stride);
    const bool running = !(p->epsilon > 0);
    float greatest = running ? sums->greatest : j->greatest[head * j->sections];
    at_linear_keys(&j->plan, s, k, stride, count, turns_of(p, &p->k_turns), head / p->Hk, first, running, &greatest, (float)p->epsilon);
    at_linear_sums_rescale(&j->plan, sums, greatest);
    const float *v = at_linear_rows(&p->v, head / p->Hk, head % p->Hk, first, count, s->wide, &stride);
    at_simd_now()->panels.pack_rows(v, stride, count, p->Dv, j->plan.block, s->v);
    bool finite = true;
    for (int64_t r = 0; r < count && finite; r++) finite = at_simd_now()->elementwise.all_finite(v + r * stride, p->Dv);
    return finite;
}

/* Rows of s->o over their denominators. */
static void store(const fast_job *j, const at_linear_scratch *s, int64_t head, int64_t first, int64_t count, const float *denominators) {
    const at_linear *p = j->p;
    for (int64_t r = 0; r < count; r++) {
        float *o = s->o + r * j->plan.Dvp;
        const int64_t place = (head * p->Sq + first + r) * p->Dv;
        if (denominators[r] == 0)
            memset(o, 0, (size_t)p->Dv * sizeof *o);
        else
            at_simd_now()->elementwise.scale(o, 1 / denominators[r], o, p->Dv);
        if (j->o->dtype == ATTUNE_F32)
            memcpy((float *)j->o->data + place, o, (size_t)p->Dv * sizeof *o);
        else
            at_store_row(j->o, place, 1, p->Dv, o);
    }
}

/* o = q sums, for `count` rows of s->q_turned. */
static void read_sums(const fast_job *j, const at_linear_scratch *s, int64_t count, const at_linear_sums *sums) {
    const at_linear_plan *plan = &j->plan;
    const at_panel_product product = {.rows = count,
                                      .columns = plan->Dvp,
                                      .depth = plan->F,
                                      .a = s->q_turned,
                                      .a_row = plan->stride,
                                      .a_step = 1,
                                      .b = sums->s,
                                      .b_panel = plan->F * plan->panel,
                                      .c = s->o,
                                      .c_row = plan->Dvp};
    at_simd_now()->panels.multiply(&product);
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */

/* The greatest w . x' of a section, where epsilon makes it part of the result. */
static attune_status greatest_task(void *context, int64_t task, int thread) {
    fast_job *j = context;
    const at_linear *p = j->p;
    at_linear_scratch *s = &j->thread[thread];
    const int64_t head = task / j->sections;
    int64_t from, to, stride;
    float best = -INFINITY;
    section_of(j, task % j->sections, &from, &to);
    for (int64_t first = from; first < to; first += j->plan.block) {
        const int64_t count = to - first < j->plan.block ? to - first : j->plan.block;
        const float *k = at_linear_rows(&p->k, head / p->Hk, head % p->Hk, first, count, s->wide, &stride);
        best = fmaxf(best, at_linear_greatest(&j->plan, s, k, stride, count, false));
    }
    j->greatest[task] = best;
    return ATTUNE_OK;
}

/* Sums of a section, into its own place, or, causal, into the next one's. */
static attune_status sum_task(void *context, int64_t task, int thread) {
    fast_job *j = context;
    at_linear_scratch *s = &j->thread[thread];
    const int64_t summed = j->p->causal ? j->sections - 1 : j->sections, head = task / summed, number = task % summed, place = number + j->p->causal;
    at_linear_sums sums = sums_of(j, head, place);
    int64_t from, to;
    section_of(j, number, &from, &to);
    at_linear_sums_clear(&j->plan, &sums);
    for (int64_t first = from, n = 0; first < to; first += j->plan.block, n++) {
        const int64_t count = to - first < j->plan.block ? to - first : j->plan.block;
        if (n % 16 == 15 && at_interrupted()) return at_interrupted_status();
        make_keys(j, s, head, first, count, &sums);
        at_linear_sums_add(&j->plan, s, count, &sums);
    }
    keep(j, head, place, &sums);
    return ATTUNE_OK;
}

/* All sections into the first; causal: each gets those before it. */
static attune_status merge_task(void *context, int64_t head, int thread) {
    fast_job *j = context;
    (void)thread;
    if (j->p->causal) {
        at_linear_sums first = sums_of(j, head, 0);
        at_linear_sums_clear(&j->plan, &first);
        keep(j, head, 0, &first);
        for (int64_t n = 2; n < j->sections; n++) {
            at_linear_sums into = sums_of(j, head, n), from = sums_of(j, head, n - 1);
            at_linear_sums_merge(&j->plan, &into, &from);
            keep(j, head, n, &into);
        }
    } else {
        at_linear_sums into = sums_of(j, head, 0);
        for (int64_t n = 1; n < j->sections; n++) {
            at_linear_sums from = sums_of(j, head, n);
            at_linear_sums_merge(&j->plan, &into, &from);
        }
        keep(j, head, 0, &into);
    }
    return ATTUNE_OK;
}

/* ---- queries ----------------------------------------------------------------------------------------------------- */

static attune_status rows_task(void *context, int64_t task, int thread) {
    fast_job *j = context;
    const at_linear *p = j->p;
    at_linear_scratch *s = &j->thread[thread];
    const int64_t head = task / j->row_tasks, b = head / p->Hq, h = head % p->Hq, kv = b * p->Hk + h / p->G;
    const int64_t from = task % j->row_tasks * QUERY_BLOCKS * j->plan.block;
    const at_linear_sums sums = sums_of(j, kv, 0);
    for (int64_t first = from; first < p->Sq && first < from + QUERY_BLOCKS * j->plan.block; first += j->plan.block) {
        const int64_t count = p->Sq - first < j->plan.block ? p->Sq - first : j->plan.block;
        int64_t stride;
        const float *q = at_linear_rows(&p->q, b, h, first, count, s->wide, &stride);
        at_linear_queries(&j->plan, s, q, stride, count, turns_of(p, &p->q_turns), b, first);
        read_sums(j, s, count, &sums);
        at_simd_now()->linear.dot(s->q, j->plan.stride, count, p->F, sums.z, s->row);
        store(j, s, head, first, count, s->row);
    }
    return ATTUNE_OK;
}

/* o += tril(q k^T) v, in strips as high as a register tile: row r sees the block's keys up to skip + r. An Inf or NaN in v must not reach rows that do not see it,
 * not even times zero: then each row goes by itself. */
static void within(const fast_job *j, const at_linear_scratch *s, int64_t rows, int64_t skip, bool finite) {
    const at_simd *simd = at_simd_now();
    const at_linear_plan *plan = &j->plan;
    const int64_t strip = finite ? simd->attention.rows[AT_FMA] : 1, width = at_round_up(plan->block, plan->panel) + 16;
    for (int64_t t = 0; t < rows; t += strip) {
        const int64_t n = rows - t < strip ? rows - t : strip, seen = skip + t + n;
        const at_panel_product scores = {.rows = n,
                                         .columns = at_round_up(seen, plan->panel / 2),
                                         .depth = plan->F,
                                         .a = s->q_turned + t * plan->stride,
                                         .a_row = plan->stride,
                                         .a_step = 1,
                                         .b = s->k_columns,
                                         .b_panel = plan->panel * at_round_up(plan->F, AT_DIM),
                                         .c = s->scores,
                                         .c_row = width};
        simd->panels.multiply(&scores);
        for (int64_t r = 0; r < n; r++) memset(s->scores + r * width + skip + t + r + 1, 0, (size_t)(n - r - 1) * sizeof *s->scores);
        const at_panel_product values = {.rows = n,
                                         .columns = plan->Dvp,
                                         .depth = seen,
                                         .a = s->scores,
                                         .a_row = width,
                                         .a_step = 1,
                                         .b = s->v,
                                         .b_panel = plan->block * plan->panel,
                                         .c = s->o + t * plan->Dvp,
                                         .c_row = plan->Dvp,
                                         .add = true};
        simd->panels.multiply(&values);
    }
}

static attune_status causal_task(void *context, int64_t task, int thread) {
    fast_job *j = context;
    const at_linear *p = j->p;
    const at_simd *simd = at_simd_now();
    at_linear_scratch *s = &j->thread[thread];
    const int64_t head = task / j->sections, b = head / p->Hk, offset = p->Sk - p->Sq; /* query i is token i + offset */
    at_linear_sums sums = sums_of(j, head, task % j->sections);
    int64_t from, to, stride;
    section_of(j, task % j->sections, &from, &to);
    if (j->sections == 1) at_linear_sums_clear(&j->plan, &sums);
    for (int64_t first = from, n = 0; first < to; first += j->plan.block, n++) {
        const int64_t count = to - first < j->plan.block ? to - first : j->plan.block, skip = offset > first ? offset - first : 0, rows = count - skip;
        if (n % 16 == 15 && at_interrupted()) return at_interrupted_status();
        const bool finite = make_keys(j, s, head, first, count, &sums);
        if (rows > 0) simd->panels.pack_columns(s->k_turned, j->plan.stride, count, p->F, s->k_columns);
        for (int64_t g = 0; g < p->G && rows > 0; g++) {
            const int64_t h = head % p->Hk * p->G + g, i = first + skip - offset;
            const float *q = at_linear_rows(&p->q, b, h, i, rows, s->wide, &stride);
            at_linear_queries(&j->plan, s, q, stride, rows, turns_of(p, &p->q_turns), b, i);
            read_sums(j, s, rows, &sums);
            within(j, s, rows, skip, finite);
            memcpy(s->z, sums.z, (size_t)p->F * sizeof *s->z);
            simd->linear.sum(s->k, j->plan.stride, skip, p->F, s->z);
            simd->linear.prefix_dot(s->q, s->k + skip * j->plan.stride, j->plan.stride, rows, p->F, s->z, s->row);
            store(j, s, b * p->Hq + h, i, rows, s->row);
        }
        at_linear_sums_add(&j->plan, s, count, &sums);
    }
    return ATTUNE_OK;
}

/* Queries before the first key see nothing. */
static void clear_early(const at_linear *p, attune_tensor *o) {
    const int64_t early = p->Sq - p->Sk, size = attune_dtype_size(o->dtype) * p->Dv;
    for (int64_t head = 0; head < p->B * p->Hq && early > 0; head++) memset((char *)o->data + head * p->Sq * size, 0, (size_t)(early * size));
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static attune_status run(fast_job *j) {
    const at_linear *p = j->p;
    const int64_t heads = p->B * p->Hk;
    if (p->epsilon > 0) {
        AT_TRY(at_parallel(heads * j->sections, greatest_task, j));
        for (int64_t head = 0; head < heads; head++) {
            float *all = j->greatest + head * j->sections;
            for (int64_t n = 1; n < j->sections; n++) all[0] = fmaxf(all[0], all[n]);
        }
    }
    if (!p->causal) {
        AT_TRY(at_parallel(heads * j->sections, sum_task, j));
        AT_TRY(at_parallel(heads, merge_task, j));
        return at_parallel(p->B * p->Hq * j->row_tasks, rows_task, j);
    }
    clear_early(p, j->o);
    if (j->sections > 1) {
        AT_TRY(at_parallel(heads * (j->sections - 1), sum_task, j));
        AT_TRY(at_parallel(heads, merge_task, j));
    }
    return at_parallel(heads * j->sections, causal_task, j);
}

static void cut(fast_job *j, int64_t block) {
    const at_linear *p = j->p;
    const int64_t heads = p->B * p->Hk;
    /* Causal sections make their keys' features twice: only where heads alone would leave processors idle. */
    const int64_t wanted = p->causal && heads >= CAUSAL_HEADS ? 1 : (TASKS + heads - 1) / heads;
    j->section = at_round_up((p->Sk + wanted - 1) / wanted, block);
    if (wanted > 1 && j->section < LEAST_BLOCKS * block) j->section = LEAST_BLOCKS * block;
    j->sections = (p->Sk + j->section - 1) / j->section;
    j->row_tasks = (p->Sq + QUERY_BLOCKS * block - 1) / (QUERY_BLOCKS * block);
}

attune_status at_linear_fast(const at_linear *p, attune_tensor *o) {
    fast_job j = {.p = p, .o = o};
    const int threads = at_threads();
    int64_t most = p->causal || p->Sq < p->Sk ? p->Sk : p->Sq, block = p->block ? p->block : p->causal ? CAUSAL_BLOCK : BLOCK;
    if (block > most) block = most;
    cut(&j, block);
    attune_status status = at_linear_plan_new(p->features, &p->projection, p->D, p->Dv, p->F, p->epsilon, block, &j.plan);
    const int64_t places = at_checked_mul(p->B * p->Hk, j.sections);
    if (status == ATTUNE_OK) {
        j.sums = at_alloc(at_checked_mul(places, at_linear_sums_floats(&j.plan) * (int64_t)sizeof(float)));
        j.greatest = j.sums ? at_alloc(places * (int64_t)sizeof(float)) : NULL;
        j.thread = j.greatest ? at_alloc_zeroed(threads * (int64_t)sizeof *j.thread) : NULL;
        status = j.thread ? ATTUNE_OK : ATTUNE_EMEMORY;
    }
    for (int t = 0; t < threads && status == ATTUNE_OK; t++) status = at_linear_scratch_new(&j.plan, p->turn != NULL, &j.thread[t]);
    if (status == ATTUNE_OK) status = run(&j);
    for (int t = 0; t < threads && j.thread; t++) at_linear_scratch_free(&j.thread[t]);
    at_free(j.thread);
    at_free(j.greatest);
    at_free(j.sums);
    at_linear_plan_free(&j.plan);
    return status;
}
