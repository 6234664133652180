/* walk.c - all rows of a problem over all their keys. */
#include "attention/walk.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"

attune_status at_walk_scratch_new(const at_walk *walk, at_walk_scratch *out) {
    memset(out, 0, sizeof *out);
    out->threads = at_threads();
    out->plan = at_plan_rows(walk->Sq * walk->G, walk->D, walk->Dv, walk->dtype, walk->raw);
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
    for (int t = 0; scratch->thread && t < scratch->threads; t++) at_row_scratch_free(&scratch->thread[t]);
    at_free(scratch->thread);
    scratch->thread = NULL;
}

static at_rows rows_of(const at_walk *w, int64_t head, int64_t begin, int64_t most) {
    int64_t left = w->Sq * w->G - begin;
    return (at_rows){.q = w->q,
                     .b = head / w->Hk,
                     .h = head % w->Hk,
                     .G = w->G,
                     .begin = begin,
                     .count = left < most ? left : most,
                     .scale = w->scale,
                     .softcap = w->softcap,
                     .sees = w->sees,
                     .context = w->context};
}

/* The keys that some query of batch row b sees. What a query sees begins and ends no earlier than what the one before it sees. */
static void seen_by_any(const at_walk *w, int64_t b, int64_t *from, int64_t *to) {
    int64_t unused;
    w->sees(w->context, b, 0, from, &unused);
    w->sees(w->context, b, w->Sq - 1, &unused, to);
    if (*to < 0) *to = 0;
    *from = *from / AT_TILE * AT_TILE;
}

/* ---- by rows ----------------------------------------------------------------------------------------------------- */

typedef struct rows_job {
    const at_walk *walk;
    at_walk_scratch *scratch;
    int64_t first_head, heads, blocks;
} rows_job;

static attune_status rows_task(void *context, int64_t task, int thread) {
    rows_job *j = context;
    const at_walk *w = j->walk;
    const at_row_plan *plan = &j->scratch->plan;
    /* When causal the last row blocks see the most keys: all heads' last ones come first, so that the end is even. */
    int64_t head = j->first_head + task % j->heads, block = j->blocks - 1 - task / j->heads, from, to;
    at_rows rows = rows_of(w, head, block * plan->rows, plan->rows);
    at_row_scratch *s = &j->scratch->thread[thread];
    at_keys keys;
    w->keys(w->context, rows.b, rows.h, &keys);
    seen_by_any(w, rows.b, &from, &to);
    AT_TRY(at_attend_rows(plan, &rows, &keys, from, to, s));
    at_finish_rows(plan, &rows, w->sinks, s->max, s->sum, s->o, w->o, w->lse);
    return ATTUNE_OK;
}

attune_status at_walk_rows(const at_walk *walk, at_walk_scratch *scratch, int64_t first_head, int64_t heads) {
    const int64_t rows = scratch->plan.rows;
    rows_job job = {.walk = walk, .scratch = scratch, .first_head = first_head, .heads = heads, .blocks = (walk->Sq * walk->G + rows - 1) / rows};
    return at_parallel(heads * job.blocks, rows_task, &job);
}

/* ---- by keys ----------------------------------------------------------------------------------------------------- */

/* About this many tasks: enough for many threads to end together, few enough that merging costs nothing. */
enum { SPLIT_TASKS = 128, SPLIT_LEAST = AT_TILE * AT_BLOCK_TILES };

typedef struct split_job {
    const at_walk *walk;
    at_walk_scratch *scratch;
    int64_t parts, part_tokens; /* of each kv head */
    int64_t rows;               /* Sq * G */
    float *max, *sum, *o;       /* [heads][parts][rows], o [..][Dvp] */
} split_job;

static attune_status split_task(void *context, int64_t task, int thread) {
    split_job *j = context;
    const at_walk *w = j->walk;
    const at_row_plan *plan = &j->scratch->plan;
    int64_t head = task / j->parts, part = task % j->parts, from, to;
    at_row_scratch *s = &j->scratch->thread[thread];
    at_keys keys;
    w->keys(w->context, head / w->Hk, head % w->Hk, &keys);
    seen_by_any(w, head / w->Hk, &from, &to);
    from += part * j->part_tokens;
    if (to > from + j->part_tokens) to = from + j->part_tokens;
    if (to < from) to = from;
    for (int64_t begin = 0; begin < j->rows; begin += plan->rows) {
        at_rows rows = rows_of(w, head, begin, plan->rows);
        AT_TRY(at_attend_rows(plan, &rows, &keys, from, to, s));
        if (j->parts == 1) {
            at_finish_rows(plan, &rows, w->sinks, s->max, s->sum, s->o, w->o, w->lse);
            continue;
        }
        int64_t place = task * j->rows + begin;
        memcpy(j->max + place, s->max, (size_t)rows.count * sizeof *s->max);
        memcpy(j->sum + place, s->sum, (size_t)rows.count * sizeof *s->sum);
        memcpy(j->o + place * plan->Dvp, s->o, (size_t)(rows.count * plan->Dvp) * sizeof *s->o);
    }
    return ATTUNE_OK;
}

/* The parts of one kv head, in their order: o and sum of each weigh 2^(its max - the greatest). */
static attune_status merge_task(void *context, int64_t head, int thread) {
    split_job *j = context;
    const at_row_plan *plan = &j->scratch->plan;
    at_row_scratch *s = &j->scratch->thread[thread];
    for (int64_t begin = 0; begin < j->rows; begin += plan->rows) {
        at_rows rows = rows_of(j->walk, head, begin, plan->rows);
        for (int64_t r = 0; r < rows.count; r++) {
            const int64_t place = head * j->parts * j->rows + begin + r;
            float greatest = -INFINITY, sum = 0, *o = s->o + r * plan->Dvp;
            for (int64_t part = 0; part < j->parts; part++) greatest = fmaxf(greatest, j->max[place + part * j->rows]);
            memset(o, 0, (size_t)plan->Dvp * sizeof *o);
            for (int64_t part = 0; part < j->parts; part++) {
                const int64_t at = place + part * j->rows;
                if (j->sum[at] == 0) continue; /* saw nothing */
                const float weight = j->max[at] == -INFINITY ? 1.0f : exp2f(j->max[at] - greatest), *add = j->o + at * plan->Dvp;
                sum += weight * j->sum[at];
                for (int64_t d = 0; d < plan->Dvp; d++) o[d] += weight * add[d];
            }
            s->max[r] = greatest, s->sum[r] = sum;
        }
        at_finish_rows(plan, &rows, j->walk->sinks, s->max, s->sum, s->o, j->walk->o, j->walk->lse);
    }
    return ATTUNE_OK;
}

attune_status at_walk_split(const at_walk *walk, at_walk_scratch *scratch) {
    const int64_t heads = walk->B * walk->Hk;
    split_job j = {.walk = walk, .scratch = scratch, .rows = walk->Sq * walk->G};
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
    if (j.parts == 1) return at_parallel(heads, split_task, &j);

    const int64_t places = heads * j.parts * j.rows;
    float *all = at_alloc(at_checked_mul(places, (scratch->plan.Dvp + 2) * (int64_t)sizeof(float)));
    if (!all) return ATTUNE_EMEMORY;
    j.o = all, j.max = all + places * scratch->plan.Dvp, j.sum = j.max + places;
    attune_status status = at_parallel(heads * j.parts, split_task, &j);
    if (status == ATTUNE_OK) status = at_parallel(heads, merge_task, &j);
    at_free(all);
    return status;
}
