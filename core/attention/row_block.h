/* row_block.h - attention of a block of rows over keys of their kv head, with an online softmax.
 * The tiled and decode engines and the cache all use it.
 *
 * A row block is split into panels. A panel has at most as many rows as a register tile of the
 * kernels. A key block is a few tiles of keys. Each step computes one panel against one key block.
 */
#ifndef AT_ATTENTION_ROW_BLOCK_H
#define AT_ATTENTION_ROW_BLOCK_H

#include "attention/key_source.h"
#include "attention/query.h"
#include "attention/summaries.h"
#include "base/arena.h"
#include "simd/attention_kernels.h"

/* The rows [begin, begin + count) of kv head (b, h); query.h says what a row is. */
typedef struct at_row_block {
    const at_query_side *query;
    int64_t b, h; /* batch row, kv head */
    int64_t begin, count;
} at_row_block;

/* The state of the online softmax of each row over the keys so far. o is not yet divided by sum. */
typedef struct at_sums {
    float *max, *sum; /* [rows]; sum and o are relative to at_origin(max, the plan's factor) */
    float *o;         /* [rows][Dvp] */
    /* For summaries, [rows] each, as at_step_summaries describes them; NULL: none. */
    float *exponents, *distances, *first;
} at_sums;

/* How rows and keys are split into blocks, so that the memory of a step stays in a core's caches.
 */
typedef struct at_row_plan {
    at_product product;
    int64_t max_rows; /* of a row block */
    int tile_rows;    /* the max number of rows of a panel */
    int block_tiles;  /* tiles of a key block */
    bool few; /* few rows: a step prefetches within its own tiles, else the next key block */
    int64_t prefetch_distance; /* in bytes, for few rows; 0: no prefetch */
    int64_t Dvp;               /* Dv rounded up to AT_DIM */
    at_layout layout;
    int64_t kept_tiles;     /* keys are packed lazily and each thread keeps this many packed tiles;
                               0 means keys are already packed */
    int64_t modifier_bytes; /* scratch of the modifier */
    float factor;           /* of the query side: a score times this is an exponent of 2 */
    double scale;           /* of the query side: a score times this is a logit */
    bool summarized;        /* the softmax sums what summaries of rows need */
    int64_t column_heads;   /* the query heads of a kv head whose columns are summed; 0: none */
    bool keeps_scores; /* one query per head: its columns hold its scores until it is finished */
} at_row_plan;

/* rows: the number of rows of a kv head. q: the dtype of the queries. kept_tiles: as in
 * at_row_plan; the plan keeps at least the tiles of one key block. */
at_row_plan at_plan_rows(int64_t rows, const at_layout *layout, attune_dtype q, int64_t kept_tiles);

/* Sets what depends on the whole query side and on the summaries (NULL: none): factor, scale,
 * modifier_bytes, summarized, column_heads and keeps_scores. */
void at_plan_scores(at_row_plan *plan, const at_query_side *query, const at_summaries *summaries);

enum { AT_COLUMN_TOKENS = 512 }; /* max keys whose columns one task sums; a multiple of AT_TILE */

/* The scratch of one thread, for any row block of a plan. */
typedef struct at_row_scratch {
    at_sums sums;
    float *q;                /* packed queries, panel by panel */
    float *q_scale;          /* [rows][3] */
    float *scores, *weights; /* [tile_rows][AT_SCORE_STRIDE] */
    float *f32_rows;         /* [max(tile_rows, AT_TILE)][max(D, Dv)] */
    int32_t *first, *last;   /* [rows]: the visible keys of each row */
    int32_t *panel;          /* [panels]: rows of each panel */
    int panels;
    float *query;         /* [tile_rows] the tokens of the queries of a step, for summaries */
    float *block_columns; /* [column_heads][AT_SCORE_STRIDE] column sums of one key block */
    float **row_columns;  /* [tile_rows] the sums of each row's head in block_columns */
    float *columns;       /* [column_heads][AT_COLUMN_TOKENS] column sums over the row blocks */
    int64_t packed[4];    /* the rows that q holds: b, h, begin, count */
    void *modifier;       /* [modifier_bytes] */
    at_keys kept;         /* lazily packed tiles: tile t of a kv head is in slot t % kept_tiles */
    int64_t *kept_id;     /* [kept_tiles]: which tile of which kv head is in the slot; -1: none */
    at_arena arena;       /* the memory of all of them */
} at_row_scratch;

attune_status at_row_scratch_new(const at_row_plan *plan, at_row_scratch *out);
void at_row_scratch_free(at_row_scratch *scratch);

/* Computes the sums of the rows over their visible keys in [from, to). from is a multiple of
 * AT_TILE. */
attune_status at_attend_rows(const at_row_plan *plan, const at_row_block *rows, const at_keys *keys,
                             int64_t from, int64_t to, const at_summaries *summaries,
                             at_row_scratch *scratch, at_sums *sums);

/* Adds the sinks, divides by the sums and stores the rows in the results. */
void at_finish_rows(const at_row_plan *plan, const at_row_block *rows, const at_sums *sums,
                    const at_results *results);

/* Finds the visible keys of each row in [from, to), counted from `from`, and makes the panels.
 * *first_visible and *last_visible: the range over all rows, counted from 0. */
void at_find_visible(const at_row_plan *plan, const at_row_block *rows, int64_t from, int64_t to,
                     at_row_scratch *scratch, int64_t *first_visible, int64_t *last_visible);

/* Adds the weights of the finished rows on the keys [from, to) to scratch->columns, whose first
 * column is key `from`. from is a multiple of AT_TILE, and to is at most from + AT_COLUMN_TOKENS.
 */
attune_status at_sum_columns(const at_row_plan *plan, const at_row_block *rows, const at_keys *keys,
                             int64_t from, int64_t to, const at_summaries *summaries,
                             at_row_scratch *scratch);

/* ---- for at_attend_rows and at_sum_columns --------------------------------------------------- */

/* The loop over the steps of a row block: key block by key block, and in each the panels in order.
 * In a step the rows [r, r + step->rows) of the block meet the key block that begins with `key`. */
typedef struct at_row_loop {
    const at_row_plan *plan;
    const at_row_block *rows;
    const at_keys *keys;
    int64_t from, to; /* from: a multiple of AT_TILE */
    const at_summaries *summaries;
    at_row_scratch *scratch;
    at_sums *sums; /* of the rows; each step's pointers point into them */
    void (*visit)(const struct at_row_loop *loop, int64_t r, int64_t key, at_step *step);
} at_row_loop;
attune_status at_each_step(const at_row_loop *loop);

/* With plan->keeps_scores: copies the scores of a step to the columns. */
void at_keep_scores(const at_row_loop *loop, int64_t r, int64_t key, const at_step *step);

/* The scores of a step, capped and modified. false: no key of it is visible. */
bool at_score_step(const at_row_loop *loop, int64_t r, int64_t key, at_step *step);

/* The query head of row r of the block, and its query. */
static inline int64_t at_head_of(const at_row_block *rows, int64_t r) {
    const int64_t G = rows->query->G;
    return rows->h * G + (rows->begin + r) % G;
}
static inline int64_t at_query_of(const at_row_block *rows, int64_t r) {
    return (rows->begin + r) / rows->query->G;
}

#endif
