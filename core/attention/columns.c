/* columns.c - the weight that each key receives: a second pass over q k^T, once the max score and
 * the sum of each row are known.
 *
 *   column_j = sum over rows of 2^(s_j factor - origin) / Z
 *
 * The weights of a row block are summed per key block, and these sums over the row blocks, in their
 * order: two levels, so that each is a sum of few numbers.
 */
#include <string.h>

#include "attention/row_block.h"
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
    return at_each_step(&loop);
}
