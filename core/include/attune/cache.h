/* attune/cache.h - the key-value cache. */
#ifndef ATTUNE_CACHE_H
#define ATTUNE_CACHE_H

#include "attune/attention.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct attune_cache attune_cache;

typedef struct attune_cache_options {
    int64_t batch, kv_heads, head_dim;
    int64_t v_head_dim; /* 0: head_dim */
    int64_t capacity;   /* tokens; with a window it is no limit and may be 0 */
    int64_t window; /* 0: none; else a ring of window + 63 tokens, rounded up to a multiple of 64 */
    attune_dtype
        dtype; /* ATTUNE_F32, ATTUNE_BF16, ATTUNE_F16, or ATTUNE_I8 with a scale a token and head */
} attune_cache_options;

ATTUNE_API attune_status attune_cache_new(const attune_cache_options *options, attune_cache **out);
ATTUNE_API void attune_cache_close(attune_cache *cache); /* NULL is fine */
/* k [B, Hk, S, D], v [B, Hk, S, Dv], any float dtype. counts [B]: how many of the S tokens belong
 * to each batch row; NULL: all. rotate: keys are turned by their places on the way in (they stand
 * at length, length + 1, .. of their batch row); NULL: as they are. ECAPACITY, and any other
 * failure, leaves the cache as it was. */
ATTUNE_API attune_status attune_cache_append(attune_cache *cache, const attune_tensor *k,
                                             const attune_tensor *v, const int64_t *counts,
                                             attune_position *rotate);
/* q [B, Hq, Sq, D]: the last Sq tokens appended (of each batch row) attend to all that the cache
 * holds up to themselves. o [B, Hq, Sq, Dv] in q's dtype, lse [B, Hq, Sq] f32. options: scale,
 * softcap, window, sinks, rotate (of q: the keys were turned when they came), engine (tiled or
 * decode, or the default). */
ATTUNE_API attune_status attune_cache_attend(attune_cache *cache, const attune_tensor *q,
                                             const attune_attention_options *options,
                                             attune_tensor *o, attune_tensor *lse);
/* Keeps the first n tokens of every batch row that has more. EVALUE where a ring no longer holds
 * what would be kept. */
ATTUNE_API attune_status attune_cache_truncate(attune_cache *cache, int64_t n);
ATTUNE_API void attune_cache_reset(attune_cache *cache);
ATTUNE_API int64_t attune_cache_length(
    const attune_cache
        *cache); /* the longest row's tokens ever appended, less what was truncated */
ATTUNE_API int64_t attune_cache_row_length(const attune_cache *cache, int64_t row);
ATTUNE_API int64_t attune_cache_nbytes(const attune_cache *cache); /* what K and V take */
ATTUNE_API attune_span
attune_cache_memory(const attune_cache *cache); /* K and V as they lie, for attune_measure_read */
ATTUNE_API const attune_cache_options *
attune_cache_describe(const attune_cache *cache); /* capacity: the tokens that fit */

#ifdef __cplusplus
}
#endif

#endif
