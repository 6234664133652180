/* rows.h - a block of rows on its way over the keys of its kv head: what tiled, decode and the cache share.
 *
 * They differ in how work is cut into tasks and in where packed tiles come from, and in nothing else.
 */
#ifndef AT_ATTENTION_ROWS_H
#define AT_ATTENTION_ROWS_H

#include "attention/problem.h"
#include "simd/attention.h"

/* The keys and values of one kv head, as packed tiles; tile t holds tokens AT_TILE t on. */
typedef struct at_keys {
    attune_dtype dtype; /* of the tiles */
    int64_t D, Dv;
    char *k, *v;             /* packed tiles one after the other; NULL: pack them on the way, from raw */
    int64_t ring;            /* tile t lies in place t % ring; 0: in place t */
    const uint8_t *unfinite; /* a byte a place: its V holds an Inf or NaN; NULL: none does */
    const attune_tensor *raw_k, *raw_v;
    int64_t b, h; /* batch row and kv head, for raw */
} at_keys;

/* Rows [begin, begin + count) of one kv head: row r is query token r / G, head r % G of the group. */
typedef struct at_rows {
    const attune_tensor *q; /* [B, Hq, Sq, D], any strides */
    int64_t b, h;           /* batch row, kv head */
    int64_t G, begin, count;
    double scale, softcap;
    /* Query token i of batch row b sees the keys [*first, *last). */
    void (*sees)(const void *context, int64_t b, int64_t i, int64_t *first, int64_t *last);
    const void *context;
} at_rows;

/* What one thread needs, for any row block of up to `rows` rows. */
typedef struct at_row_scratch {
    float *q, *o, *max, *sum, *scores, *wide;
    int32_t *first, *last;
    char *k, *v;
    void *all;
} at_row_scratch;

typedef struct at_row_plan {
    int64_t rows;    /* of a row block, at most */
    int block_tiles; /* tiles of a key block */
    int64_t D, Dv, Dvp;
    attune_dtype dtype;
    bool raw;
} at_row_plan;

/* How many rows and tiles fit together into a core's own cache. most: rows there are; raw: tiles are packed on the way. */
at_row_plan at_plan_rows(int64_t most, int64_t D, int64_t Dv, attune_dtype dtype, bool raw);
attune_status at_row_scratch_new(const at_row_plan *plan, at_row_scratch *out);
void at_row_scratch_free(at_row_scratch *scratch);

/* The tile's size in bytes for D dims. */
int64_t at_tile_bytes(int64_t D, attune_dtype dtype);

/* Rows over those of the keys [from, to) that they see; from is a multiple of AT_TILE. Leaves max and sum [count] and
 * o [count][Dvp], not yet divided by sum, in scratch. */
attune_status at_attend_rows(const at_row_plan *plan, const at_rows *rows, const at_keys *keys, int64_t from, int64_t to, at_row_scratch *scratch);

/* Divides by the sums (a sink joins them) and stores row n of scratch as o's and lse's. sink NULL: none; else [Hq]. */
void at_finish_rows(const at_row_plan *plan, const at_rows *rows, const float *sinks, const float *max, const float *sum, const float *o_sums, attune_tensor *o,
                    attune_tensor *lse);

/* Packs tokens [first, first + count) of head (b, h) of k and v [B, heads, tokens, dims] into a tile's places slot, slot + 1, ..
 * wide: scratch [AT_TILE][max(D, Dv)] f32. Returns false when v holds an Inf or NaN there. */
bool at_pack_tile(const attune_tensor *k, const attune_tensor *v, int64_t b, int64_t h, int64_t first, int64_t count, int slot, attune_dtype dtype,
                  void *k_tile, void *v_tile, float *wide);

/* The packed dtype for tensors of these dtypes: the one they share, else f32. */
attune_dtype at_packed_dtype(attune_dtype k, attune_dtype v);

#endif
