/* rows.h - a block of rows on its way over the keys of its kv head: what tiled, decode and the
 * cache share.
 *
 * They differ in how work is cut into tasks and in where packed tiles come from, and in nothing
 * else.
 */
#ifndef AT_ATTENTION_ROWS_H
#define AT_ATTENTION_ROWS_H

#include "attention/modifier.h"
#include "attention/problem.h"
#include "position/position.h"
#include "simd/attention_kernels.h"

/* 64 tokens of a kv head: their K tile and their V tile, one after the other in one place, so that
 * decoding reads memory in one stream. Offset of V and size, in bytes. */
typedef struct at_layout {
    attune_dtype dtype;
    int64_t D, Dv;
    int64_t v, bytes;
} at_layout;
at_layout at_layout_of(attune_dtype dtype, int64_t D, int64_t Dv);

/* Tokens of one kv head as they lie in plain tensors, keys turned on their way where turns is not
 * NULL. */
typedef struct at_source {
    const attune_tensor *k, *v; /* [B, Hk, S, dims], any float but f64, any strides */
    const at_rotation *turns;
    int64_t b, h;
} at_source;

/* The keys and values of one kv head, as packed tiles; tile t holds tokens AT_TILE t on. */
typedef struct at_keys {
    at_layout layout;
    char *places;  /* one after the other; NULL: pack tiles on the way, from source */
    float *scales; /* [places][2][AT_TILE], of each token's key and value, where the dtype is i8 */
    int64_t ring;  /* tile t lies in place t % ring; 0: in place t */
    uint8_t *nonfinite; /* a byte a place: its V holds an Inf or NaN; NULL: none does */
    at_source source;
    int64_t fetch_end; /* tokens that are worth fetching into the cache ahead of their use; 0: as
                          far as rows go */
} at_keys;

/* Packs the source's tokens [first, first + count) into the tile at `place`, slots slot on. wide:
 * scratch [AT_TILE][max(D, Dv)]. */
void at_pack_tile(const at_keys *keys, int64_t place, int slot, const at_source *source,
                  int64_t first, int64_t count, float *wide);

/* Rows [begin, begin + count) of one kv head: row r is query token r / G, head r % G of the group.
 */
typedef struct at_row_block {
    const attune_tensor *q;   /* [B, Hq, Sq, D], any strides */
    const at_rotation *turns; /* NULL: as they are */
    int64_t b, h;             /* batch row, kv head */
    int64_t G, begin, count;
    double scale, softcap;
    const at_modifier *modifier; /* NULL: none */
    /* Query token i of batch row b sees the keys [*first, *last). */
    void (*sees)(const void *context, int64_t b, int64_t i, int64_t *first, int64_t *last);
    const void *context;
} at_row_block;

/* What has been summed over some keys, row by row: o is not yet divided by sum. */
typedef struct at_sums {
    float *max, *sum, *o; /* [rows], [rows], [rows][Dvp] */
} at_sums;

/* How rows and keys are cut so that what is used together stays in a core's own cache. */
typedef struct at_row_plan {
    at_product product;
    int64_t rows;        /* of a row block, at most */
    int tile_rows;       /* of a panel, at most */
    int block_tiles;     /* tiles of a key block */
    bool few;            /* rows: memory is read as they go, not a block ahead of them */
    int64_t fetch_bytes; /* with few: what is fetched lies so much later; 0: nothing is */
    int64_t Dvp;
    at_layout layout;
    int64_t kept; /* tiles packed on the way that a thread keeps; 0: tiles are packed already */
    int64_t modifier_bytes;
} at_row_plan;

/* most: rows there are; q: their dtype; raw: tiles are packed on the way, and so many kept, at
 * least a block's; 0: not. */
at_row_plan at_plan_rows(int64_t most, const at_layout *layout, attune_dtype q, int64_t raw);

/* What one thread needs, for any row block of a plan. */
typedef struct at_row_scratch {
    at_sums sums;
    float *q, *q_scale, *scores, *weights, *wide;
    int32_t *first, *last;
    int32_t *panel; /* rows of each panel */
    int panels;
    int64_t packed[4]; /* which rows q holds: b, h, begin, count */
    void *modifier;    /* [modifier_bytes] */
    at_keys block;     /* for tiles packed on the way: tile t of a kv head in place t % kept */
    int64_t *held;     /* [kept]: which tile, of all kv heads'; -1: none */
    void *all;
} at_row_scratch;

attune_status at_row_scratch_new(const at_row_plan *plan, at_row_scratch *out);
void at_row_scratch_free(at_row_scratch *scratch);

/* Rows over those of the keys [from, to) that they see; from is a multiple of AT_TILE. */
attune_status at_attend_rows(const at_row_plan *plan, const at_row_block *rows, const at_keys *keys,
                             int64_t from, int64_t to, at_row_scratch *scratch, at_sums *sums);

/* Divides by the sums (a sink joins them) and stores the rows as o's and lse's. sinks NULL: none;
 * else [Hq]. */
void at_finish_rows(const at_row_plan *plan, const at_row_block *rows, const float *sinks,
                    const at_sums *sums, attune_tensor *o, attune_tensor *lse);

/* The packed dtype for tensors of these dtypes: the one they share, else f32. */
attune_dtype at_packed_dtype(attune_dtype k, attune_dtype v);

#endif
