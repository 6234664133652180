/* schedule.h - attention of all rows over all their keys, split into tasks in one of two ways.
 *
 *   at_schedule_rows   One task per row block, over all its keys: prefill, and many queries over a
 *                      cache.
 *   at_schedule_keys   One task per part of the keys, for all rows of a kv head; the parts are
 *                      merged by (max, sum, o): decoding.
 *
 * The shapes alone fix the tasks, so that results do not depend on the number of threads.
 */
#ifndef AT_ATTENTION_SCHEDULE_H
#define AT_ATTENTION_SCHEDULE_H

#include "attention/row_block.h"

/* What to compute, and the scratch of each thread. */
typedef struct at_schedule {
    const at_query_side *query;
    at_key_source source;
    at_results results;
    at_row_plan plan;
    int threads;
    at_row_scratch *scratch; /* [threads] */
} at_schedule;

/* Makes the plan and the scratch. The caller always calls at_schedule_free, after an error too.
 * results: contiguous; every element will be written. */
attune_status at_schedule_make(const at_query_side *query, const at_key_source *source,
                               const at_results *results, at_schedule *out);
void at_schedule_free(at_schedule *schedule);

/* The max number of tiles between the first and the last visible key of a row block. */
int64_t at_schedule_reach(const at_query_side *query, const at_layout *layout);

/* Computes the kv heads [first_head, first_head + heads). Head n is kv head n % Hk of batch row
 * n / Hk. */
attune_status at_schedule_rows(at_schedule *schedule, int64_t first_head, int64_t heads);

/* Computes all kv heads. */
attune_status at_schedule_keys(at_schedule *schedule);

/* Sums the columns of the kv heads [first_head, first_head + heads), once their rows are computed.
 * Does nothing where columns are not wanted. */
attune_status at_schedule_columns(at_schedule *schedule, int64_t first_head, int64_t heads);

#endif
