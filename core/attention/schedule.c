/* schedule.c - attention of all rows over all their keys, split into tasks. */
#include "attention/schedule.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"
#include "simd/table.h"

attune_status at_schedule_make(const at_query_side *query, const at_key_source *source,
                               const at_results *results, at_schedule *out) {
    *out = (at_schedule){
        .query = query, .source = *source, .results = *results, .threads = at_threads()};
    out->plan =
        at_plan_rows(query->Sq * query->G, &source->layout, query->q.dtype, source->kept_tiles);
    at_plan_scores(&out->plan, query, results->summaries);
    out->scratch = at_alloc_zeroed(out->threads * (int64_t)sizeof *out->scratch);
    if (!out->scratch) return ATTUNE_EMEMORY;
    for (int t = 0; t < out->threads; t++) AT_TRY(at_row_scratch_new(&out->plan, &out->scratch[t]));
    return ATTUNE_OK;
}

void at_schedule_free(at_schedule *schedule) {
    for (int t = 0; schedule->scratch && t < schedule->threads; t++)
        at_row_scratch_free(&schedule->scratch[t]);
    at_free(schedule->scratch);
    schedule->scratch = NULL;
}

static at_row_block rows_of(const at_schedule *s, int64_t head, int64_t begin, int64_t max_rows) {
    const at_query_side *query = s->query;
    const int64_t left = query->Sq * query->G - begin;
    return (at_row_block){.query = query,
                          .b = head / query->Hk,
                          .h = head % query->Hk,
                          .begin = begin,
                          .count = left < max_rows ? left : max_rows};
}

/* The visible keys of the queries [i, i_end), before the mask: from the first one of query i to the
 * last one of query i_end - 1, because both ends of the visible range grow with the query. */
static void visible_range(const at_query_side *query, int64_t b, int64_t i, int64_t i_end,
                          int64_t *from, int64_t *to) {
    int64_t unused;
    query->visible_keys(query->visible_keys_context, b, i, from, &unused);
    query->visible_keys(query->visible_keys_context, b, i_end - 1, &unused, to);
}

/* The visible keys of all queries of batch row b, from a tile's first key on. */
static void visible_to_all(const at_query_side *query, int64_t b, int64_t *from, int64_t *to) {
    visible_range(query, b, 0, query->Sq, from, to);
    if (*to < 0) *to = 0;
    *from = *from / AT_TILE * AT_TILE;
}

/* The tiles from the first to the last visible key of the queries [i, i_end), with the mask. */
static int64_t reach_of_block(const at_query_side *query, int64_t b, int64_t i, int64_t i_end) {
    int64_t from, to, first = INT64_MAX, last = 0;
    const at_block_map *m = query->modifier.map;
    visible_range(query, b, i, i_end, &from, &to);
    for (int64_t h = 0; m && h < m->rows_h; h++) {
        for (int64_t at = i; at < i_end; at++) {
            int64_t begin = from, end = to;
            at_block_map_narrow(m, b, h, at, &begin, &end);
            if (begin >= end) continue;
            if (begin < first) first = begin;
            if (end > last) last = end;
        }
    }
    if (m) {
        from = first;
        to = last;
    }
    return from < to ? at_ceil_div(to, AT_TILE) - from / AT_TILE : 0;
}

int64_t at_schedule_reach(const at_query_side *query, const at_layout *layout) {
    const int64_t rows = query->Sq * query->G, G = query->G;
    const at_row_plan plan = at_plan_rows(rows, layout, query->q.dtype, 0);
    int64_t max = 0;
    for (int64_t b = 0; b < query->B; b++) {
        for (int64_t r = 0; r < rows; r += plan.max_rows) {
            const int64_t end = r + plan.max_rows < rows ? r + plan.max_rows : rows,
                          reach = reach_of_block(query, b, r / G, (end - 1) / G + 1);
            if (reach > max) max = reach;
        }
    }
    return max;
}

/* ---- by rows --------------------------------------------------------------------------------- */

typedef struct rows_job {
    at_schedule *schedule;
    int64_t first_head, heads, blocks;
} rows_job;

static attune_status rows_task(void *context, int64_t task, int thread) {
    const rows_job *j = context;
    const at_schedule *s = j->schedule;
    const at_row_plan *plan = &s->plan;
    /* With a causal mask the last row blocks have the most visible keys. The last blocks of all
     * heads come first, so that all threads end together. Where tiles are packed lazily, the blocks
     * of a head follow each other, because neighbours use the same tiles. */
    int64_t head = task % j->heads, block = j->blocks - 1 - task / j->heads, from, to;
    if (plan->kept_tiles) {
        head = task / j->blocks;
        block = task % j->blocks;
    }
    const at_row_block rows =
        rows_of(s, j->first_head + head, block * plan->max_rows, plan->max_rows);
    at_row_scratch *scratch = &s->scratch[thread];
    at_keys keys;
    s->source.keys(s->source.context, rows.b, rows.h, &keys);
    visible_to_all(s->query, rows.b, &from, &to);
    AT_TRY(at_attend_rows(plan, &rows, &keys, from, to, s->results.summaries, scratch,
                          &scratch->sums));
    at_finish_rows(plan, &rows, &scratch->sums, &s->results);
    return ATTUNE_OK;
}

attune_status at_schedule_rows(at_schedule *schedule, int64_t first_head, int64_t heads) {
    const int64_t rows = schedule->query->Sq * schedule->query->G,
                  max_rows = schedule->plan.max_rows;
    rows_job job = {.schedule = schedule,
                    .first_head = first_head,
                    .heads = heads,
                    .blocks = at_ceil_div(rows, max_rows)};
    return (schedule->plan.kept_tiles ? at_parallel_ranges : at_parallel)(heads * job.blocks,
                                                                          rows_task, &job);
}

/* ---- by keys --------------------------------------------------------------------------------- */

/* About this many tasks: enough for many threads to end together, few enough that merging is cheap.
 */
enum { KEY_TASKS = 64, MIN_PART_TOKENS = AT_TILE * 4, MERGE_ROWS = 8 };

typedef struct keys_job {
    at_schedule *schedule;
    int64_t parts, part_tokens; /* of each kv head */
    int64_t rows;               /* Sq * G */
    int64_t merge_rows;         /* of a merge task */
    at_sums sums;               /* [heads][parts][rows] */
} keys_job;

static at_sums sums_at(const keys_job *j, int64_t index) {
    at_sums sums = {.max = j->sums.max + index,
                    .sum = j->sums.sum + index,
                    .o = j->sums.o + index * j->schedule->plan.Dvp};
    if (j->schedule->plan.summarized) {
        sums.exponents = j->sums.exponents + index;
        sums.distances = j->sums.distances + index;
        sums.first = j->sums.first + index;
    }
    return sums;
}

static attune_status keys_task(void *context, int64_t task, int thread) {
    const keys_job *j = context;
    const at_schedule *s = j->schedule;
    const at_row_plan *plan = &s->plan;
    const int64_t head = task / j->parts, part = task % j->parts, Hk = s->query->Hk;
    int64_t from, to;
    at_row_scratch *scratch = &s->scratch[thread];
    at_keys keys;
    s->source.keys(s->source.context, head / Hk, head % Hk, &keys);
    visible_to_all(s->query, head / Hk, &from, &to);
    keys.prefetch_end = to; /* most likely this thread computes the next part too */
    from += part * j->part_tokens;
    if (to > from + j->part_tokens) to = from + j->part_tokens;
    if (to < from) to = from;
    for (int64_t begin = 0; begin < j->rows; begin += plan->max_rows) {
        const at_row_block rows = rows_of(s, head, begin, plan->max_rows);
        at_sums sums = j->parts == 1 ? scratch->sums : sums_at(j, task * j->rows + begin);
        AT_TRY(at_attend_rows(plan, &rows, &keys, from, to, s->results.summaries, scratch, &sums));
        if (j->parts == 1) at_finish_rows(plan, &rows, &sums, &s->results);
    }
    return ATTUNE_OK;
}

/* Adds a part, whose origin is `shift` (at most 0) from the origin of the merged sums, with weight
 * 2^shift. Each exponent changes as the origin does. */
static void merge_summaries(const at_sums *of, float weight, double shift, int64_t r,
                            at_sums *merged) {
    merged->exponents[r] += weight * (*of->exponents + *of->sum * (float)shift);
    merged->distances[r] += weight * *of->distances;
    merged->first[r] += weight * *of->first;
}

/* Merges the parts of row `index`, in order, into sums of index r:
 *   max = the max over parts,   sum = sum of 2^(origin_part - origin) sum_part,   o likewise */
static void merge_row(const keys_job *j, int64_t index, int64_t r, at_sums *merged) {
    const at_elementwise_kernels *kernels = &at_simd_now()->elementwise;
    const int64_t Dvp = j->schedule->plan.Dvp;
    const float factor = j->schedule->plan.factor;
    float max = -INFINITY, sum = 0, *o = merged->o + r * Dvp;
    for (int64_t part = 0; part < j->parts; part++)
        max = fmaxf(max, j->sums.max[index + part * j->rows]);
    memset(o, 0, (size_t)Dvp * sizeof *o);
    if (j->schedule->plan.summarized)
        merged->exponents[r] = merged->distances[r] = merged->first[r] = 0;
    for (int64_t part = 0; part < j->parts; part++) {
        const at_sums of = sums_at(j, index + part * j->rows);
        if (*of.sum == 0) continue; /* no visible key */
        const double shift =
            *of.max == -INFINITY ? 0 : at_origin(*of.max, factor) - at_origin(max, factor);
        const float weight = *of.max == -INFINITY ? 1.0f : exp2f((float)shift);
        sum += weight * *of.sum;
        kernels->add_scaled(of.o, weight, o, Dvp);
        if (j->schedule->plan.summarized) merge_summaries(&of, weight, shift, r, merged);
    }
    merged->max[r] = max;
    merged->sum[r] = sum;
}

static attune_status merge_task(void *context, int64_t task, int thread) {
    const keys_job *j = context;
    const at_schedule *s = j->schedule;
    const int64_t chunks = at_ceil_div(j->rows, j->merge_rows), head = task / chunks,
                  begin = task % chunks * j->merge_rows;
    at_sums merged = s->scratch[thread].sums;
    const at_row_block rows = rows_of(s, head, begin, j->merge_rows);
    for (int64_t r = 0; r < rows.count; r++)
        merge_row(j, head * j->parts * j->rows + begin + r, r, &merged);
    at_finish_rows(&s->plan, &rows, &merged, &s->results);
    return ATTUNE_OK;
}

/* Parts of equal size, whole tiles, for about KEY_TASKS tasks in all. */
static void split_keys(const at_query_side *query, keys_job *j) {
    const int64_t heads = query->B * query->Hk, wanted = at_ceil_div(KEY_TASKS, heads);
    int64_t tokens = 0; /* the max over batch rows */
    for (int64_t b = 0; b < query->B; b++) {
        int64_t from, to;
        visible_to_all(query, b, &from, &to);
        if (to - from > tokens) tokens = to - from;
    }
    j->part_tokens = at_round_up(at_ceil_div(tokens, wanted), MIN_PART_TOKENS);
    if (j->part_tokens < MIN_PART_TOKENS) j->part_tokens = MIN_PART_TOKENS;
    j->parts = tokens > 0 ? at_ceil_div(tokens, j->part_tokens) : 1;
}

attune_status at_schedule_keys(at_schedule *schedule) {
    const at_query_side *query = schedule->query;
    const int64_t heads = query->B * query->Hk, max_rows = schedule->plan.max_rows,
                  Dvp = schedule->plan.Dvp;
    keys_job j = {.schedule = schedule,
                  .rows = query->Sq * query->G,
                  .merge_rows = MERGE_ROWS < max_rows ? MERGE_ROWS : max_rows};
    split_keys(query, &j);
    if (j.parts == 1) return at_parallel_ranges(heads, keys_task, &j);

    const int64_t count = heads * j.parts * j.rows;
    const int64_t floats = Dvp + (schedule->plan.summarized ? 5 : 2);
    float *memory = at_alloc(at_checked_mul(count, floats * (int64_t)sizeof(float)));
    if (!memory) return ATTUNE_EMEMORY;
    j.sums.o = memory;
    j.sums.max = memory + count * Dvp;
    j.sums.sum = memory + count * (Dvp + 1);
    if (schedule->plan.summarized) {
        j.sums.exponents = memory + count * (Dvp + 2);
        j.sums.distances = memory + count * (Dvp + 3);
        j.sums.first = memory + count * (Dvp + 4);
    }
    attune_status status = at_parallel_ranges(heads * j.parts, keys_task, &j);
    const int64_t chunks = at_ceil_div(j.rows, j.merge_rows);
    if (status == ATTUNE_OK) status = at_parallel(heads * chunks, merge_task, &j);
    at_free(memory);
    return status;
}

/* ---- columns --------------------------------------------------------------------------------- */

typedef struct columns_job {
    at_schedule *schedule;
    int64_t first_head, parts; /* parts: of the keys of each kv head */
} columns_job;

static void store_columns(const at_schedule *s, int64_t head, int64_t from, int64_t to,
                          const at_row_scratch *scratch) {
    const int64_t G = s->query->G;
    const attune_tensor *t = &s->results.summaries->out->columns;
    for (int64_t g = 0; g < G; g++) {
        memcpy((float *)t->data + (head * G + g) * t->shape[2] + from,
               scratch->columns + g * AT_COLUMN_TOKENS,
               (size_t)(to - from) * sizeof *scratch->columns);
    }
}

/* One task sums the columns of AT_COLUMN_TOKENS keys over all row blocks, in their order. */
static attune_status columns_task(void *context, int64_t task, int thread) {
    const columns_job *j = context;
    const at_schedule *s = j->schedule;
    const at_row_plan *plan = &s->plan;
    const at_query_side *query = s->query;
    const int64_t head = j->first_head + task / j->parts, G = query->G, count = query->Sq * G;
    at_row_scratch *scratch = &s->scratch[thread];
    int64_t from, to;
    visible_to_all(query, head / query->Hk, &from, &to);
    from += task % j->parts * AT_COLUMN_TOKENS;
    if (from >= to) return ATTUNE_OK;
    if (to > from + AT_COLUMN_TOKENS) to = from + AT_COLUMN_TOKENS;
    at_keys keys;
    s->source.keys(s->source.context, head / query->Hk, head % query->Hk, &keys);
    keys.unpacked.v = NULL;
    memset(scratch->columns, 0, (size_t)(G * AT_COLUMN_TOKENS) * sizeof *scratch->columns);
    for (int64_t begin = 0; begin < count; begin += plan->max_rows) {
        const at_row_block rows = rows_of(s, head, begin, plan->max_rows);
        int64_t first, last;
        visible_range(query, rows.b, begin / G, (begin + rows.count - 1) / G + 1, &first, &last);
        if (first >= to || last <= from) continue;
        AT_TRY(at_sum_columns(plan, &rows, &keys, from, to, s->results.summaries, scratch));
    }
    store_columns(s, head, from, to, scratch);
    return ATTUNE_OK;
}

attune_status at_schedule_columns(at_schedule *schedule, int64_t first_head, int64_t heads) {
    const at_query_side *query = schedule->query;
    int64_t tokens = 0; /* the max over batch rows */
    if (!schedule->plan.column_heads) return ATTUNE_OK;
    for (int64_t b = 0; b < query->B; b++) {
        int64_t from, to;
        visible_to_all(query, b, &from, &to);
        if (to - from > tokens) tokens = to - from;
    }
    columns_job job = {.schedule = schedule,
                       .first_head = first_head,
                       .parts = at_ceil_div(tokens, AT_COLUMN_TOKENS)};
    const attune_status status = at_parallel(heads * job.parts, columns_task, &job);
    /* Tiles that were packed lazily have no values now. */
    for (int t = 0; t < schedule->threads && schedule->plan.kept_tiles; t++)
        memset(schedule->scratch[t].kept_id, -1,
               (size_t)schedule->plan.kept_tiles * sizeof *schedule->scratch[t].kept_id);
    return status;
}
