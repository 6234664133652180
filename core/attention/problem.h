/* problem.h - attention over a pair of tensors k and v, validated once. Engines trust it.
 *
 *   k [B, Hk, Sk, D]   v [B, Hk, Sk, Dv]   query.h names the other shapes
 */
#ifndef AT_ATTENTION_PROBLEM_H
#define AT_ATTENTION_PROBLEM_H

#include "attention/key_source.h"
#include "attention/query.h"
#include "attention/summaries.h"
#include "attention/table_gradients.h"
#include "base/constants.h"
#include "simd/attention_kernels.h"

typedef struct at_problem {
    at_query_side query;
    attune_tensor k, v; /* borrowed views; v is closed where only weights are wanted */
    int64_t Sk, Dv;
    at_rotation k_rotation; /* without tables: k is not rotated, or is rotated already */
    attune_engine engine;
    bool gradients; /* the modifier is prepared for gradients of the score program */

    /* visibility */
    bool causal;
    int64_t left, right;   /* tokens before and after its own that a query attends to */
    int64_t document_rows; /* 0: no documents; 1: one list for all batch rows; B: one per row */
    int64_t *document;     /* [document_rows][Sk][2]: the document of each token as a range of
                              tokens, first and one past the last */

    /* positions of the options' rotation */
    int position_axes;
    int64_t position_length; /* the max position + 1; dynamic and longrope scaling depend on it */

    attune_tensor rotated_q, rotated_k; /* rotated copies, for engines that do not rotate lazily */
} at_problem;

/* Validates all arguments. v may be NULL for attune_attention_weights. `out` must not be moved or
 * copied. After success the caller calls at_problem_close. */
attune_status at_problem_make(const attune_tensor *q, const attune_tensor *k,
                              const attune_tensor *v, const attune_attention_options *options,
                              bool gradients, at_problem *out);
void at_problem_close(at_problem *p);

/* Fails where the engine cannot run a problem with these queries and options. */
attune_status at_check_engine(attune_engine engine, const attune_tensor *q,
                              const attune_attention_options *o);

/* The visible keys [*first, *last) of query i of batch row b, before the mask. No key is visible
 * when first >= last. *last is at most Sk. */
void at_problem_visible_keys(const at_problem *p, int64_t b, int64_t i, int64_t *first,
                             int64_t *last);

/* The smallest range of keys that holds all visible keys of query i of head (b, h), with the
 * mask. */
void at_problem_visible_keys_of_head(const at_problem *p, int64_t b, int64_t h, int64_t i,
                                     int64_t *first, int64_t *last);

/* The keys of kv head (b, h), and all of them as a key source whose tiles are packed lazily. */
at_unpacked_keys at_pair_keys(const at_problem *p, int64_t b, int64_t h);
at_key_source at_pair_source(const at_problem *p, int64_t kept_tiles);

/* The positions of the last n keys: i64 [n] or [B, n], for rope2d [n, 2] or [B, n, 2]. positions:
 * as in the options, or NULL for 0, 1, 2 .. */
attune_status at_last_positions(const at_problem *p, const attune_tensor *positions, int64_t n,
                                attune_tensor *out);

/* The engines. They write every element of the results, which are new and contiguous. blis takes no
 * summaries. */
attune_status at_reference(const at_problem *p, const at_results *results);
attune_status at_blis(const at_problem *p, const at_results *results);
attune_status at_tiled(const at_problem *p, const at_results *results);
attune_status at_decode(const at_problem *p, const at_results *results);

/* Whether an lse is so large, in magnitude, that its last digits no longer hold the log of a sum
 * beside the max score. The backward engines then compute max and sum of the row again. */
static inline bool at_lse_is_large(double lse) {
    return isfinite(lse) && fabs(lse) * AT_LOG2_E >= (double)AT_LARGE_EXPONENT;
}

/* Arguments and results of a backward engine. o and lse are the results of forward; d_o is the
 * gradient of o. dq, dk, dv and dsinks are like q, k, v and sinks; they are new, contiguous and
 * zero. */
typedef struct at_gradients {
    const attune_tensor *d_o, *o, *lse;
    const attune_tensor *d_lse; /* NULL: no gradient arrives through lse */
    attune_tensor *dq, *dk, *dv;
    attune_tensor *dsinks;            /* [Hq] in f32 or f64, or NULL */
    const at_table_gradients *tables; /* sums to add to; score NULL: none */
} at_gradients;
attune_status at_reference_backward(const at_problem *p, const at_gradients *g);
attune_status at_tiled_backward(const at_problem *p, const at_gradients *g);

/* The probabilities in double precision, row by row: [B, Hq, Sq, Sk]. */
attune_status at_reference_weights(const at_problem *p, attune_tensor *weights);

#endif
