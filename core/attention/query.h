/* query.h - the query side of an attention problem: everything that does not depend on where keys
 * and values come from. The other side is a pair of tensors (problem.h) or a cache.
 *
 *   B batch rows, Hq query heads, Hk kv heads, G = Hq / Hk, Sq queries, D = head_dim of q and k
 *
 * The G query heads of a kv head and the Sq queries make Sq * G rows that all read the same keys.
 * Row r is query r / G and head r % G of the group.
 */
#ifndef AT_ATTENTION_QUERY_H
#define AT_ATTENTION_QUERY_H

#include "attention/modifier.h"
#include "attune.h"
#include "base/dtype.h"
#include "position/rotate.h"

typedef struct at_query_side {
    attune_tensor q; /* [B, Hq, Sq, D], a borrowed view */
    int64_t B, Hq, Hk, G, Sq, D;
    double scale, softcap;            /* softcap 0: none */
    const float *sinks;               /* [Hq], or NULL */
    float *sinks_copy;                /* the memory of sinks */
    double *sinks_f64;                /* [Hq]: as they were given, for the reference */
    at_rotation rotation;             /* without tables: q is not rotated, or is rotated already */
    at_modifier modifier;             /* without programs: none */
    attune_dtype o_dtype, lse_dtype;  /* of the results */
    at_visible_keys visible_keys;     /* of a query, before the mask */
    const void *visible_keys_context; /* for visible_keys */
} at_query_side;

/* q: rank 4 with a float dtype, and a number of heads that kv_heads divides. Reads scale, softcap
 * and sinks of the options, which at_check_options has accepted. The caller sets visible_keys,
 * rotation and modifier, and always calls at_query_side_close, after an error too. */
attune_status at_query_side_make(const attune_tensor *q, int64_t kv_heads,
                                 const attune_attention_options *options, at_query_side *out);
void at_query_side_close(at_query_side *query);

/* NULL where there is nothing to rotate. */
static inline const at_rotation *at_rotation_or_null(const at_rotation *rotation) {
    return rotation->cosine ? rotation : NULL;
}

/* NULL where q is not rotated. */
static inline const at_rotation *at_query_rotation(const at_query_side *query) {
    return at_rotation_or_null(&query->rotation);
}

/* NULL where there is neither a score program nor a mask. */
static inline const at_modifier *at_query_modifier(const at_query_side *query) {
    return at_modifies(&query->modifier) ? &query->modifier : NULL;
}

/* New, unwritten results: o [B, Hq, Sq, Dv] and lse [B, Hq, Sq]. */
attune_status at_results_new(const at_query_side *query, int64_t Dv, attune_tensor *o,
                             attune_tensor *lse);

/* Checks window, scale, softcap and engine, which do not depend on shapes. f64: scores are computed
 * in f64, for q, k and v of f64. */
attune_status at_check_options(const attune_attention_options *options, bool f64);

enum { AT_DECODE_QUERIES = 16 }; /* the max number of queries that decode accepts */

#endif
