/* walk.c - all rows of a problem over all their keys. */
#include "attention/walk.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"
#include "simd/table.h"

attune_status at_walk_scratch_new(const at_walk *walk, at_walk_scratch *out) {
    memset(out, 0, sizeof *out);
    out->threads = at_threads();
    out->plan = at_plan_rows(walk->Sq * walk->G, &walk->layout, walk->q->dtype, walk->raw);
    if (walk->modifier) out->plan.modifier_bytes = at_modifier_scratch(walk->modifier);
    out->thread = at_alloc_zeroed(out->threads * (int64_t)sizeof *out->thread);
    if (!out->thread) return ATTUNE_EMEMORY;
    for (int t = 0; t < out->threads; t++) {
        attune_status status = at_row_scratch_new(&out->plan, &out->thread[t]);
        if (status != ATTUNE_OK) {
            at_walk_scratch_free(out);
            return status;
        }
    }
    return ATTUNE_OK;
}

void at_walk_scratch_free(at_walk_scratch *scratch) {
    for (int t = 0; scratch->thread && t < scratch->threads; t++)
        at_row_scratch_free(&scratch->thread[t]);
    at_free(scratch->thread);
    scratch->thread = NULL;
}

static at_row_block rows_of(const at_walk *w, int64_t head, int64_t begin, int64_t most) {
    int64_t left = w->Sq * w->G - begin;
    return (at_row_block){.q = w->q,
                          .turns = w->turns,
                          .b = head / w->Hk,
                          .h = head % w->Hk,
                          .G = w->G,
                          .begin = begin,
                          .count = left < most ? left : most,
                          .scale = w->scale,
                          .softcap = w->softcap,
                          .modifier = w->modifier,
                          .sees = w->sees,
                          .context = w->context};
}

/* The keys that some query of batch row b sees. What a query sees begins and ends no earlier than
 * what the one before it sees. */
static void seen_by_any(const at_walk *w, int64_t b, int64_t *from, int64_t *to) {
    int64_t unused;
    w->sees(w->context, b, 0, from, &unused);
    w->sees(w->context, b, w->Sq - 1, &unused, to);
    if (*to < 0) *to = 0;
    *from = *from / AT_TILE * AT_TILE;
}

/* The keys from the first to the last that a block of rows of batch row b sees. */
static int64_t reach_of_block(const at_walk *w, int64_t b, int64_t i, int64_t i_end) {
    int64_t from, to, unused, first = INT64_MAX, last = 0;
    const at_block_map *m = w->modifier ? w->modifier->map : NULL;
    w->sees(w->context, b, i, &from, &unused);
    w->sees(w->context, b, i_end - 1, &unused, &to);
    for (int64_t h = 0; m && h < m->rows_h; h++)
        for (int64_t at = i; at < i_end; at++) {
            int64_t begin = from, end = to;
            at_block_map_narrow(m, b, h, at, &begin, &end);
            if (begin >= end) continue;
            if (begin < first) first = begin;
            if (end > last) last = end;
        }
    if (m) from = first, to = last;
    return from < to ? (to + AT_TILE - 1) / AT_TILE - from / AT_TILE : 0;
}

int64_t at_walk_reach(const at_walk *w) {
    const at_row_plan plan = at_plan_rows(w->Sq * w->G, &w->layout, w->q->dtype, 0);
    const int64_t rows = w->Sq * w->G;
    int64_t most = 0;
    for (int64_t b = 0; b < w->B; b++)
        for (int64_t r = 0; r < rows; r += plan.rows) {
            const int64_t end = r + plan.rows < rows ? r + plan.rows : rows,
                          reach = reach_of_block(w, b, r / w->G, (end - 1) / w->G + 1);
            if (reach > most) most = reach;
        }
    return most;
}

/* ---- by rows --------------------------------------------------------------------------------- */

typedef struct rows_job {
    const at_walk *walk;
    at_walk_scratch *scratch;
    int64_t first_head, heads, blocks;
} rows_job;

static attune_status rows_task(void *context, int64_t task, int thread) {
    rows_job *j = context;
    const at_walk *w = j->walk;
    const at_row_plan *plan = &j->scratch->plan;
    /* When causal the last row blocks see the most keys: all heads' last ones come first, so that
     * the end is even. Where tiles are packed on the way neighbours share them. */
    int64_t head = j->first_head + (w->raw ? task / j->blocks : task % j->heads),
            block = w->raw ? task % j->blocks : j->blocks - 1 - task / j->heads, from, to;
    at_row_block rows = rows_of(w, head, block * plan->rows, plan->rows);
    at_row_scratch *s = &j->scratch->thread[thread];
    at_keys keys;
    w->keys(w->context, rows.b, rows.h, &keys);
    seen_by_any(w, rows.b, &from, &to);
    AT_TRY(at_attend_rows(plan, &rows, &keys, from, to, s, &s->sums));
    at_finish_rows(plan, &rows, w->sinks, &s->sums, w->o, w->lse);
    return ATTUNE_OK;
}

attune_status at_walk_rows(const at_walk *walk, at_walk_scratch *scratch, int64_t first_head,
                           int64_t heads) {
    const int64_t rows = scratch->plan.rows;
    rows_job job = {.walk = walk,
                    .scratch = scratch,
                    .first_head = first_head,
                    .heads = heads,
                    .blocks = (walk->Sq * walk->G + rows - 1) / rows};
    return (walk->raw ? at_parallel_ranges : at_parallel)(heads * job.blocks, rows_task, &job);
}

/* ---- by keys --------------------------------------------------------------------------------- */

/* About this many tasks: enough for many threads to end together, few enough that merging costs
 * nothing. */
enum { SPLIT_TASKS = 64, SPLIT_LEAST = AT_TILE * 4, MERGE_ROWS = 8 };

typedef struct split_job {
    const at_walk *walk;
    at_walk_scratch *scratch;
    int64_t parts, part_tokens; /* of each kv head */
    int64_t rows, merged;       /* Sq * G; of a merging task */
    at_sums sums;               /* [heads][parts][rows] */
} split_job;

static at_sums sums_at(const split_job *j, int64_t place) {
    return (at_sums){.max = j->sums.max + place,
                     .sum = j->sums.sum + place,
                     .o = j->sums.o + place * j->scratch->plan.Dvp};
}

static attune_status split_task(void *context, int64_t task, int thread) {
    split_job *j = context;
    const at_walk *w = j->walk;
    const at_row_plan *plan = &j->scratch->plan;
    int64_t head = task / j->parts, part = task % j->parts, from, to;
    at_row_scratch *s = &j->scratch->thread[thread];
    at_keys keys;
    w->keys(w->context, head / w->Hk, head % w->Hk, &keys);
    seen_by_any(w, head / w->Hk, &from, &to);
    keys.fetch_end = to; /* the next part is most likely this thread's too */
    from += part * j->part_tokens;
    if (to > from + j->part_tokens) to = from + j->part_tokens;
    if (to < from) to = from;
    for (int64_t begin = 0; begin < j->rows; begin += plan->rows) {
        at_row_block rows = rows_of(w, head, begin, plan->rows);
        at_sums sums = j->parts == 1 ? s->sums : sums_at(j, task * j->rows + begin);
        AT_TRY(at_attend_rows(plan, &rows, &keys, from, to, s, &sums));
        if (j->parts == 1) at_finish_rows(plan, &rows, w->sinks, &sums, w->o, w->lse);
    }
    return ATTUNE_OK;
}

/* The parts of some rows of a kv head, in their order: o and sum of each weigh 2^(its max - the
 * greatest). */
static attune_status merge_task(void *context, int64_t task, int thread) {
    split_job *j = context;
    const at_elementwise_kernels *kernels = &at_simd_now()->elementwise;
    const at_row_plan *plan = &j->scratch->plan;
    const int64_t chunks = (j->rows + j->merged - 1) / j->merged, head = task / chunks,
                  begin = task % chunks * j->merged;
    at_sums merged = j->scratch->thread[thread].sums;
    const at_row_block rows = rows_of(j->walk, head, begin, j->merged);
    for (int64_t r = 0; r < rows.count; r++) {
        const int64_t place = head * j->parts * j->rows + begin + r;
        float greatest = -INFINITY, sum = 0, *o = merged.o + r * plan->Dvp;
        for (int64_t part = 0; part < j->parts; part++)
            greatest = fmaxf(greatest, j->sums.max[place + part * j->rows]);
        memset(o, 0, (size_t)plan->Dvp * sizeof *o);
        for (int64_t part = 0; part < j->parts; part++) {
            const at_sums of = sums_at(j, place + part * j->rows);
            if (*of.sum == 0) continue; /* saw nothing */
            const float weight = *of.max == -INFINITY ? 1.0f : exp2f(*of.max - greatest);
            sum += weight * *of.sum;
            kernels->add_scaled(of.o, weight, o, plan->Dvp);
        }
        merged.max[r] = greatest, merged.sum[r] = sum;
    }
    at_finish_rows(plan, &rows, j->walk->sinks, &merged, j->walk->o, j->walk->lse);
    return ATTUNE_OK;
}

attune_status at_walk_split(const at_walk *walk, at_walk_scratch *scratch) {
    const int64_t heads = walk->B * walk->Hk;
    split_job j = {.walk = walk,
                   .scratch = scratch,
                   .rows = walk->Sq * walk->G,
                   .merged = MERGE_ROWS < scratch->plan.rows ? MERGE_ROWS : scratch->plan.rows};
    int64_t tokens = 0;
    for (int64_t b = 0; b < walk->B; b++) {
        int64_t from, to;
        seen_by_any(walk, b, &from, &to);
        if (to - from > tokens) tokens = to - from;
    }
    int64_t wanted = (SPLIT_TASKS + heads - 1) / heads;
    j.part_tokens = at_round_up((tokens + wanted - 1) / wanted, SPLIT_LEAST);
    if (j.part_tokens < SPLIT_LEAST) j.part_tokens = SPLIT_LEAST;
    j.parts = tokens > 0 ? (tokens + j.part_tokens - 1) / j.part_tokens : 1;
    if (j.parts == 1) return at_parallel_ranges(heads, split_task, &j);

    const int64_t places = heads * j.parts * j.rows;
    float *all = at_alloc(at_checked_mul(places, (scratch->plan.Dvp + 2) * (int64_t)sizeof(float)));
    if (!all) return ATTUNE_EMEMORY;
    j.sums = (at_sums){.o = all,
                       .max = all + places * scratch->plan.Dvp,
                       .sum = all + places * (scratch->plan.Dvp + 1)};
    attune_status status = at_parallel_ranges(heads * j.parts, split_task, &j);
    if (status == ATTUNE_OK)
        status = at_parallel(heads * ((j.rows + j.merged - 1) / j.merged), merge_task, &j);
    at_free(all);
    return status;
}
