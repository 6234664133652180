/* attune/cache.h - the key-value cache: the keys and values of earlier tokens, packed for reading.
 *
 * Each batch row has its own number of tokens (its length). Appended tokens get the positions
 * length, length + 1, .. of their batch row. attune/attention.h names the dimensions. Calls that
 * return a status leave the cache as it was when they fail, unless they say otherwise.
 */
#ifndef ATTUNE_CACHE_H
#define ATTUNE_CACHE_H

#include "attune/attention.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct attune_cache attune_cache;

typedef struct attune_cache_options {
    int64_t batch, kv_heads, head_dim; /* at least 1 each */
    int64_t v_head_dim;                /* 0: head_dim */
    int64_t capacity;                  /* max tokens per batch row; ignored with a window */
    int64_t window;     /* 0: none; else the cache is a ring of at least window + 63 tokens, rounded
                           up to a multiple of 64, and overwrites the oldest tokens */
    attune_dtype dtype; /* ATTUNE_F32, ATTUNE_BF16, ATTUNE_F16, or ATTUNE_I8, which has one scale
                           per token and head, for K and for V */
} attune_cache_options;

/* Errors: EVALUE, EDTYPE, EMEMORY; *out is NULL after an error. */
ATTUNE_API attune_status attune_cache_new(const attune_cache_options *options, attune_cache **out);

/* cache may be NULL. */
ATTUNE_API void attune_cache_close(attune_cache *cache);

/* Appends tokens: k [B, Hk, S, D], v [B, Hk, S, Dv], any float dtype, any strides.
 *
 * counts [B]: batch row b appends the first counts[b] of the S tokens; NULL: all of them. rotate:
 * an encoding that rotates the keys by their positions; NULL: none. An interrupt of a ring may lose
 * its oldest tokens. Errors: ECLOSED, ESHAPE, EDTYPE, EVALUE, EMEMORY, EINTERRUPT, and ECAPACITY
 * where a batch row has no room. */
ATTUNE_API attune_status attune_cache_append(attune_cache *cache, const attune_tensor *k,
                                             const attune_tensor *v, const int64_t *counts,
                                             attune_position *rotate);

/* Attention of the last Sq tokens of each batch row over the cache; it is always causal.
 *
 *   q [B, Hq, Sq, D]   ->   o [B, Hq, Sq, Dv] in q's dtype, lse [B, Hq, Sq] f32
 *
 * Options that apply: scale, softcap, window, sinks, score, mask, rotate (of q only: keys were
 * rotated when they were appended) and engine (tiled, decode or the default). With a window of the
 * cache Sq is at most 64. Errors: as attune_attention. */
ATTUNE_API attune_status attune_cache_attend(attune_cache *cache, const attune_tensor *q,
                                             const attune_attention_options *options,
                                             attune_tensor *o, attune_tensor *lse);

/* The same, and summaries of the weights, as attune_attention_summarized gives them. columns
 * [B, Hq, length]: key j is the j-th token ever appended, in a ring too; length is that of the
 * longest batch row. Weights on tokens that a ring no longer holds are zero. */
ATTUNE_API attune_status attune_cache_attend_summarized(attune_cache *cache, const attune_tensor *q,
                                                        const attune_attention_options *options,
                                                        unsigned wanted, attune_tensor *o,
                                                        attune_tensor *lse,
                                                        attune_summaries *summaries);

/* Keeps the first n tokens of every batch row that has more. EVALUE: n is below 0 or above the
 * length of the longest batch row, or a ring has overwritten tokens that the next query would need.
 */
ATTUNE_API attune_status attune_cache_truncate(attune_cache *cache, int64_t n);

/* Removes all tokens. */
ATTUNE_API void attune_cache_reset(attune_cache *cache);

/* The length of the longest batch row. A ring counts the tokens that it has overwritten too. */
ATTUNE_API int64_t attune_cache_length(const attune_cache *cache);

/* The length of batch row `row`, counted from 0; -1: there is no such row. */
ATTUNE_API int64_t attune_cache_row_length(const attune_cache *cache, int64_t row);

/* The bytes of K, V and their scales. */
ATTUNE_API int64_t attune_cache_nbytes(const attune_cache *cache);

/* The memory of K and V, for attune_measure_read. */
ATTUNE_API attune_span attune_cache_memory(const attune_cache *cache);

/* The options, with v_head_dim and capacity resolved; capacity: the tokens that fit. */
ATTUNE_API const attune_cache_options *attune_cache_describe(const attune_cache *cache);

#ifdef __cplusplus
}
#endif

#endif
