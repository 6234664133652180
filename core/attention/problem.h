/* problem.h - an attention problem, validated once. Engines take it as true.
 *
 * Shapes as attune.h names them. Rows: the G query heads of a kv head and the query tokens make Sq
 * * G rows, token by token, that all read the same keys: row r is token r / G and head r % G of the
 * group.
 */
#ifndef AT_ATTENTION_PROBLEM_H
#define AT_ATTENTION_PROBLEM_H

#include "attention/modifier.h"
#include "attention/table_gradients.h"
#include "attune.h"
#include "position/position.h"

typedef struct at_problem {
    attune_tensor q, k, v; /* borrowed views */
    int64_t B, Hq, Hk, G, Sq, Sk, D, Dv;
    double scale, softcap; /* softcap 0: none */
    bool causal;
    int64_t window;        /* 0: none */
    const float *sinks;    /* [Hq], or NULL */
    int64_t document_rows; /* 0: no packing; 1: one list for all; B: a list a batch row */
    int64_t *document; /* [document_rows][Sk][2]: first and one past the last token of each token's
                          document */
    attune_engine engine;
    attune_dtype o_dtype, lse_dtype;
    bool gradients; /* what they need of the score program is wanted too */
    at_modifier modifier;
    at_rotation q_rotation,
        k_rotation;          /* without tables: nothing turns, or q and k are turned already */
    int position_axes;       /* of rotate */
    int64_t position_length; /* the largest position + 1, which dynamic and longrope go by */
    float *sinks_copy;
    attune_tensor rotated_q, rotated_k; /* for the engines that do not turn on the way */
} at_problem;

/* NULL where nothing turns. */
static inline const at_rotation *at_rotation_or_null(const at_rotation *turns) {
    return turns->cosine ? turns : NULL;
}

/* v NULL: for weights alone. On success at_problem_close is due. */
attune_status at_problem_make(const attune_tensor *q, const attune_tensor *k,
                              const attune_tensor *v, const attune_attention_options *options,
                              bool gradients, at_problem *out);
void at_problem_close(at_problem *p);

/* Query token i (from 0) of batch row b sees the keys [*first, *last), never past Sk; first >=
 * last: none. The mask is not looked at. */
void at_problem_visible_keys(const at_problem *p, int64_t b, int64_t i, int64_t *first,
                             int64_t *last);

/* The same for a head, with the mask: the first and last key that is seen. */
void at_problem_visible_keys_of_head(const at_problem *p, int64_t b, int64_t h, int64_t i,
                                     int64_t *first, int64_t *last);

/* Positions of the last n of the keys as a tensor i64 [n] or [B, n] (rope2d: a last axis of 2
 * more); positions as options have them. */
attune_status at_last_positions(const at_problem *p, const attune_tensor *positions, int64_t n,
                                attune_tensor *out);

/* o [B, Hq, Sq, Dv] and lse [B, Hq, Sq], not yet written. */
attune_status at_problem_results(const at_problem *p, attune_tensor *o, attune_tensor *lse);

/* Engines: they write all of o and lse, which are new and contiguous. */
attune_status at_reference(const at_problem *p, attune_tensor *o, attune_tensor *lse);
attune_status at_blis(const at_problem *p, attune_tensor *o, attune_tensor *lse); /* "blis" */
attune_status at_tiled(const at_problem *p, attune_tensor *o, attune_tensor *lse);
attune_status at_decode(const at_problem *p, attune_tensor *o, attune_tensor *lse);

/* Gradients for d_o [B, Hq, Sq, Dv], from o and lse as forward gave them. dq, dk, dv are new,
 * contiguous and zero; dsinks [Hq] f32 or f64 likewise, or NULL. */
typedef struct at_gradients {
    const attune_tensor *d_o, *o, *lse;
    attune_tensor *dq, *dk, *dv, *dsinks;
    const at_table_gradients *tables; /* sums to add to; score NULL: none */
} at_gradients;
attune_status at_reference_backward(const at_problem *p, const at_gradients *g);
attune_status at_tiled_backward(const at_problem *p, const at_gradients *g);

/* Probabilities in double precision, row by row: [B, Hq, Sq, Sk]. */
attune_status at_reference_weights(const at_problem *p, attune_tensor *weights);

/* What options may say beside shapes: window, scale, softcap; shared with the cache. */
attune_status at_check_options(const attune_attention_options *options);
bool at_is_float(attune_dtype dtype);

enum { AT_DECODE_QUERIES = 16 }; /* more than that, and decode refuses */

#endif
