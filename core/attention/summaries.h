/* summaries.h - what a call tells about its weights: the entropy of each row, the mean distance,
 * the weight on the first keys, and the weight that each key receives.
 *
 * With weights w_j = p_j / Z, where p_j = 2^(e_j) and Z is the sum of all p_j and of the sink, both
 * relative to one origin:
 *
 *   entropy = - sum of w_j ln w_j = ln 2 (log2(Z) (sum of p_j) - (sum of p_j e_j)) / Z
 *
 * so that a row needs three sums beside that of p_j: of p_j e_j, of p_j |i - j|, and of p_j over
 * the first keys.
 */
#ifndef AT_ATTENTION_SUMMARIES_H
#define AT_ATTENTION_SUMMARIES_H

#include "attention/query.h"

enum { AT_FIRST_KEYS = 4 }; /* "sinks" is the weight on this many keys */

typedef struct at_summaries {
    attune_summaries *out; /* a closed tensor is not wanted; columns begin as zeros */
    bool of_rows;          /* entropy, distance or sinks is wanted */
    int64_t *first_token;  /* [B] the token of query 0 */
    /* For columns, [B * Hk][Sq * G], unless the dtype is f64: the max score of each row (query.h),
     * and what each power of two relative to its origin is multiplied by. */
    float *max, *inverse;
} at_summaries;

/* New, unwritten tensors of what is wanted, for `keys` keys. first_token is unwritten. The caller
 * always calls at_summaries_free, which leaves the tensors, and closes them after an error. */
attune_status at_summaries_make(const at_query_side *query, unsigned wanted, int64_t keys,
                                attune_summaries *out, at_summaries *summaries);
void at_summaries_free(at_summaries *summaries);

static inline bool at_wants_columns(const at_summaries *s) { return s && s->out->columns.data; }
static inline bool at_wants_rows(const at_summaries *s) { return s && s->of_rows; }

/* The token of query i of batch row b. */
static inline int64_t at_query_token(const at_summaries *s, int64_t b, int64_t i) {
    return s->first_token[b] + i;
}

/* Stores what is wanted of a row. index: of the row in [B, Hq, Sq]. */
void at_summaries_store(const at_summaries *s, int64_t index, double entropy, double distance,
                        double first);

/* The results of a call. */
typedef struct at_results {
    attune_tensor *o, *lse;
    const at_summaries *summaries; /* NULL: none */
} at_results;

#endif
