/* columns.c - the weight that each key receives: a second pass over q k^T, once the max score and
 * the sum of each row are known.
 *
 *   column_j = sum over rows of 2^(s_j factor - origin) / Z
 *
 * The weights of a row block are summed per key block, and these sums over the row blocks, in their
 * order: two levels, so that each is a sum of few numbers.
 *
 * With one query per head a column is one weight. Then the first pass leaves the scores in the
 * columns themselves, and the second one reads them in place of the keys.
 */
#include <string.h>

#include "attention/row_block.h"
#include "base/parallel.h"
#include "simd/table.h"

/* Adds the sums of the key block that begins with `key` to those of the task. */
static void add_block(const at_row_loop *loop, int64_t key, int tiles) {
    const at_row_scratch *scratch = loop->scratch;
    const int64_t left = loop->to - key, n = left < tiles * AT_TILE ? left : tiles * AT_TILE;
    for (int64_t g = 0; g < loop->plan->column_heads; g++) {
        const float *from = scratch->block_columns + g * AT_SCORE_STRIDE;
        float *to = scratch->columns + g * AT_COLUMN_TOKENS + (key - loop->from);
        at_simd_now()->elementwise.add_scaled(from, 1, to, n);
    }
}

static void column_step(const at_row_loop *loop, int64_t r, int64_t key, at_step *step) {
    const at_row_block *rows = loop->rows;
    const at_row_scratch *scratch = loop->scratch;
    const int64_t G = rows->query->G;
    for (int64_t g = 0; g < G && r == 0; g++)
        memset(scratch->block_columns + g * AT_SCORE_STRIDE, 0,
               (size_t)(step->tiles * AT_TILE) * sizeof *scratch->block_columns);
    if (at_score_step(loop, r, key, step)) {
        for (int i = 0; i < step->rows; i++) {
            const int64_t head = at_head_of(rows, r + i) % G;
            scratch->row_columns[i] = scratch->block_columns + head * AT_SCORE_STRIDE;
        }
        at_simd_now()->attention.columns(step, scratch->row_columns);
    }
    if (r + step->rows == rows->count) add_block(loop, key, step->tiles);
}

/* ---- one query per head ---------------------------------------------------------------------- */

/* The columns of row r's head, from key 0 on. */
static float *columns_of(const at_row_block *rows, int64_t r, const at_summaries *summaries) {
    const attune_tensor *t = &summaries->out->columns;
    return (float *)t->data + (rows->b * rows->query->Hq + at_head_of(rows, r)) * t->shape[2];
}

void at_keep_scores(const at_row_loop *loop, int64_t r, int64_t key, const at_step *step) {
    for (int i = 0; i < step->rows; i++) {
        const int first = step->first[i], n = step->last[i] - first;
        if (n > 0)
            memcpy(columns_of(loop->rows, r + i, loop->summaries) + key + first,
                   step->scores + i * AT_SCORE_STRIDE + first, (size_t)n * sizeof(float));
    }
}

/* WEIGHED_TOKENS: keys that a call of the kernel takes. */
enum { WEIGHED_TOKENS = AT_BLOCK_TILES * AT_TILE };

/* The weights of the rows [r, r + count) on the keys [key, key + WEIGHED_TOKENS), from their
 * scores. */
static void weigh_scores(const at_row_loop *loop, int64_t r, int count, int64_t key) {
    const at_row_scratch *scratch = loop->scratch;
    at_step step = {.rows = count,
                    .factor = loop->plan->factor,
                    .scores = scratch->scores,
                    .max = loop->sums->max + r,
                    .sum = loop->sums->sum + r};
    for (int i = 0; i < count; i++) {
        const int64_t group = at_head_of(loop->rows, r + i) % loop->rows->query->G;
        int64_t first = scratch->first[r + i] - (key - loop->from),
                last = scratch->last[r + i] - (key - loop->from);
        if (first < 0) first = 0;
        if (last > WEIGHED_TOKENS) last = WEIGHED_TOKENS;
        if (first >= last) first = last = 0;
        step.first[i] = (int)first;
        step.last[i] = (int)last;
        memcpy(step.scores + i * AT_SCORE_STRIDE + first,
               columns_of(loop->rows, r + i, loop->summaries) + key + first,
               (size_t)(last - first) * sizeof(float));
        scratch->row_columns[i] = scratch->columns + group * AT_COLUMN_TOKENS + (key - loop->from);
    }
    at_simd_now()->attention.columns(&step, scratch->row_columns);
}

static attune_status weigh_all(const at_row_loop *loop) {
    const at_row_plan *plan = loop->plan;
    const int64_t count = loop->rows->count;
    int64_t first, last;
    at_find_visible(plan, loop->rows, loop->from, loop->to, loop->scratch, &first, &last);
    for (int64_t key = loop->from; key < loop->to; key += WEIGHED_TOKENS) {
        for (int64_t r = 0; r < count; r += plan->tile_rows)
            weigh_scores(loop, r, (int)(count - r < plan->tile_rows ? count - r : plan->tile_rows),
                         key);
        if (at_interrupted()) return at_interrupted_status();
    }
    return ATTUNE_OK;
}

/* ---- all rows -------------------------------------------------------------------------------- */

attune_status at_sum_columns(const at_row_plan *plan, const at_row_block *rows, const at_keys *keys,
                             int64_t from, int64_t to, const at_summaries *summaries,
                             at_row_scratch *scratch) {
    const at_query_side *query = rows->query;
    const int64_t head = rows->b * query->Hk + rows->h,
                  row = head * query->Sq * query->G + rows->begin;
    at_row_plan of_keys = *plan;
    /* No values are read: prefetch the same bytes of the next tile's keys. */
    if (plan->prefetch_distance) of_keys.prefetch_distance = plan->layout.bytes;
    at_sums sums = scratch->sums; /* room; max and sum are those of the finished rows */
    sums.max = summaries->max + row;
    sums.sum = summaries->inverse + row;
    const at_row_loop loop = {.plan = &of_keys,
                              .rows = rows,
                              .keys = keys,
                              .from = from,
                              .to = to,
                              .summaries = summaries,
                              .scratch = scratch,
                              .sums = &sums,
                              .visit = column_step};
    return plan->keeps_scores ? weigh_all(&loop) : at_each_step(&loop);
}
