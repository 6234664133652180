/* backward_block.h - a block of rows of one query head against a block of keys, as the backward of
 * tiled computes them. */
#ifndef AT_ATTENTION_BACKWARD_BLOCK_H
#define AT_ATTENTION_BACKWARD_BLOCK_H

#include "attention/problem.h"

typedef struct at_backward_block {
    int64_t b, h, kv;          /* batch row, query head, kv head */
    int64_t token, rows;       /* the first query and the number of queries, at most 256 */
    int64_t key, keys;         /* the first key and the number of keys */
    int first[256], last[256]; /* the visible keys of each row, counted from `key` */
    bool whole;                /* all keys are visible to all rows */
} at_backward_block;

/* Sets first, last and whole. */
void at_block_find_visible(const at_problem *p, at_backward_block *k);

/* The range of keys that are visible to the rows [from, to), rounded out to multiples of `panel`.
 * false: there is none. */
bool at_block_columns(const at_backward_block *k, int64_t from, int64_t to, int64_t panel,
                      int64_t *left, int64_t *right);

/* The range of rows with a visible key in [from, to). false: there is none. */
bool at_block_rows(const at_backward_block *k, int64_t from, int64_t to, int64_t *top,
                   int64_t *bottom);

/* Whether the mask shows some key of the block to some row. */
bool at_block_is_visible(const at_problem *p, const at_backward_block *k);

#endif
