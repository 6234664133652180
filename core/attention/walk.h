/* walk.h - all rows of a problem over all their keys, cut into tasks one way or the other.
 *
 *   at_walk_rows    a task a row block, over all its keys: prefill, and many queries against a
 * cache at_walk_split   a task a run of keys, for all rows of a kv head; parts merged by (max, sum,
 * output): decoding
 */
#ifndef AT_ATTENTION_WALK_H
#define AT_ATTENTION_WALK_H

#include "attention/row_block.h"

typedef struct at_walk {
    const attune_tensor *q; /* [B, Hq, Sq, D] */
    attune_tensor *o, *lse;
    int64_t B, Hk, G, Sq;
    at_layout layout;         /* of packed tiles */
    const at_rotation *turns; /* of the queries; NULL: they are as they are */
    double scale, softcap;
    const at_modifier *modifier; /* NULL: none */
    const float *sinks;          /* [Hq], or NULL */
    int64_t raw; /* tiles are packed on the way, and so many kept by each thread; 0: not */
    const void *context;
    void (*sees)(const void *context, int64_t b, int64_t i, int64_t *first, int64_t *last);
    void (*keys)(const void *context, int64_t b, int64_t h, at_keys *out);
} at_walk;

/* Scratch for each thread, shared by the runs of one call. */
typedef struct at_walk_scratch {
    int threads;
    at_row_plan plan;
    at_row_scratch *thread; /* [threads] */
} at_walk_scratch;

attune_status at_walk_scratch_new(const at_walk *walk, at_walk_scratch *out);
void at_walk_scratch_free(at_walk_scratch *scratch);

/* The most tiles from the first to the last key that a row block sees. */
int64_t at_walk_reach(const at_walk *walk);

/* Of the kv heads [first_head, first_head + heads): number n is batch row n / Hk, head n % Hk. */
attune_status at_walk_rows(const at_walk *walk, at_walk_scratch *scratch, int64_t first_head,
                           int64_t heads);
attune_status at_walk_split(const at_walk *walk, at_walk_scratch *scratch);

#endif
