/* attune/attention.h - exact attention: options, engines, gradients. */
#ifndef ATTUNE_ATTENTION_H
#define ATTUNE_ATTENTION_H

#include "attune/position.h"
#include "attune/program.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The dimensions in the shapes below:
 *
 *   B batch rows   Hq query heads   Hk kv heads, which divide Hq   G = Hq / Hk
 *   Sq queries     Sk keys          D head_dim of q and k          Dv head_dim of v and o
 *
 * Query head h uses kv head h / G: MHA has G = 1, MQA has Hk = 1. The queries are the last Sq of
 * the Sk tokens. */

typedef enum attune_engine {
    ATTUNE_ENGINE_DEFAULT,   /* decode for at most 16 queries, reference for f64, else tiled */
    ATTUNE_ENGINE_REFERENCE, /* term by term in double precision; the oracle of all tests */
    ATTUNE_ENGINE_BLIS,   /* the textbook's formula: the whole Sq x Sk score matrix and two matrix
                             products through BLIS */
    ATTUNE_ENGINE_TILED,  /* online softmax over packed tiles; no Sq x Sk matrix in memory */
    ATTUNE_ENGINE_DECODE, /* at most 16 queries; the keys are split into parts */
} attune_engine;

/* Documents that are packed one after the other along the token axis. A token attends only to
 * tokens of its own document. There is one list for all batch rows (rows = 1), or one list per
 * batch row (rows = B). Each list sums to Sk. */
typedef struct attune_lengths {
    int64_t rows;         /* 0: no documents */
    const int64_t *count; /* [rows] the number of documents of each list */
    const int64_t *value; /* [sum of count] the tokens of each document, list after list */
} attune_lengths;

typedef struct attune_position attune_position; /* attune/position.h */

/* All zero bytes are the defaults. */
typedef struct attune_attention_options {
    bool causal;    /* no query attends to a later token */
    int64_t window; /* a query attends to itself and window - 1 tokens before it, and without
                       causal also to window - 1 tokens after it; 0: no limit */
    bool two_sided; /* the window has two sides, and window is 0: a query attends to itself,
                       window_left tokens before it and window_right tokens after it */
    int64_t window_left, window_right; /* -1: no limit on that side */
    bool scale_given;                  /* false: the scale is 1 / sqrt(D) */
    double scale;                      /* at most FLT_MAX in magnitude; f64: any finite number */
    double softcap;                    /* c > 0: a score s becomes c * tanh(s / c); 0: none. From
                                          1e-18 to 1e18 and at least |scale| / FLT_MAX; f64: any */
    attune_lengths lengths;
    const attune_tensor *sinks; /* [Hq] any float dtype: one logit per head, which joins the
                                   softmax's denominator; NULL: none */
    attune_program *score;      /* changes each score, after softcap; NULL: none */
    attune_program *mask;       /* hides pairs, in addition to causal, window and lengths; NULL:
                                   none */
    attune_position *rotate;    /* rotates q and k as attune_position_rotate does, without copies of
                                   them; encodings that do not rotate change nothing; NULL: none */
    const attune_tensor *positions; /* for rotate, i64 [Sk] or [B, Sk], rope2d [Sk, 2] or
                                       [B, Sk, 2]: the positions of the keys; the queries have the
                                       last Sq of them; NULL: 0, 1, 2 .. */
    const attune_tensor *d_lse;     /* for attune_attention_backward: the gradient that arrives
                                       through lse, [B, Hq, Sq]; NULL: none */
    attune_engine engine;           /* an engine that is named runs, or is an error */
} attune_attention_options;

/* o = softmax(mask(score(softcap(scale * q k^T)))) v
 *
 *   q [B, Hq, Sq, D]   k [B, Hk, Sk, D]   v [B, Hk, Sk, Dv]
 *   o [B, Hq, Sq, Dv] in q's dtype        lse [B, Hq, Sq] f32, or f64 for f64
 *
 * lse is the natural logarithm of the softmax's denominator of each row. q, k and v have any
 * strides and each its own dtype of f32, bf16 and f16, or all three are f64. options may be NULL
 * for the defaults. A query without a visible key has o = 0 and lse = -inf (or its sink). On
 * success the caller closes o and lse; after an error both are closed.
 *
 * Errors: ECLOSED, ESHAPE, EDTYPE, EVALUE, EENGINE, EMEMORY, EINTERRUPT. */
ATTUNE_API attune_status attune_attention(const attune_tensor *q, const attune_tensor *k,
                                          const attune_tensor *v,
                                          const attune_attention_options *options, attune_tensor *o,
                                          attune_tensor *lse);

/* What attention may tell about its weights without the Sq x Sk matrix. */
typedef enum attune_summary {
    ATTUNE_SUMMARY_ENTROPY = 1,  /* of each row's weights: the sum of -w log w, in nats */
    ATTUNE_SUMMARY_DISTANCE = 2, /* the sum of w |i - j| for query token i and key token j */
    ATTUNE_SUMMARY_SINKS = 4,    /* the weight on the first 4 keys of the row's batch row */
    ATTUNE_SUMMARY_COLUMNS = 8,  /* the sum over queries of the weight that each key receives */
} attune_summary;

/* entropy, distance and sinks [B, Hq, Sq], columns [B, Hq, Sk], in lse's dtype. Those that are not
 * wanted are closed. */
typedef struct attune_summaries {
    attune_tensor entropy, distance, sinks, columns;
} attune_summaries;

/* The same as attune_attention, and summaries of the weights that attune_attention_weights would
 * give: with a sink they sum to less than one. A row without a visible key has weights of zero, and
 * so zero in each summary. wanted: some of attune_summary. Memory and results beyond o and lse are
 * O(Sq + Sk) per head. Entropy, distance and sinks are summed within the softmax; columns take a
 * second pass over q k^T. The engine blis is EENGINE.
 *
 * On success the caller closes o, lse and the summaries; after an error all are closed. */
ATTUNE_API attune_status attune_attention_summarized(const attune_tensor *q, const attune_tensor *k,
                                                     const attune_tensor *v,
                                                     const attune_attention_options *options,
                                                     unsigned wanted, attune_tensor *o,
                                                     attune_tensor *lse,
                                                     attune_summaries *summaries);
ATTUNE_API void attune_summaries_close(attune_summaries *summaries);

/* The gradients of q, k, v, the sinks and the tensors of the score program, for the gradient d_o
 * [B, Hq, Sq, Dv] of o.
 *
 *   dq, dk, dv like q, k, v   dsinks [Hq] in lse's dtype   dtables [tensors of the score program]
 *
 * o and lse are the results of attune_attention with the same options. Scores are computed again.
 * dsinks may be NULL; without sinks it is returned closed. dtables may be NULL; each float tensor
 * that the program reads has a gradient like itself, and the others are returned closed. The
 * engines are tiled (the default) and reference (always for f64); other engines are EENGINE.
 * Errors: as attune_attention. */
ATTUNE_API attune_status attune_attention_backward(const attune_tensor *d_o, const attune_tensor *q,
                                                   const attune_tensor *k, const attune_tensor *v,
                                                   const attune_tensor *o, const attune_tensor *lse,
                                                   const attune_attention_options *options,
                                                   attune_tensor *dq, attune_tensor *dk,
                                                   attune_tensor *dv, attune_tensor *dsinks,
                                                   attune_tensor *dtables);

/* The probabilities of the softmax, [B, Hq, Sq, Sk] in f32, or f64 for f64. With a sink a row sums
 * to less than one. The engine is always reference; one that is named must be able to run the
 * problem. Errors: as attune_attention. */
ATTUNE_API attune_status attune_attention_weights(const attune_tensor *q, const attune_tensor *k,
                                                  const attune_attention_options *options,
                                                  attune_tensor *weights);

/* Attention over the union of two disjoint sets of keys, from the results over each set.
 *
 *   o1, o2 [B, Hq, Sq, Dv] of one dtype   lse1, lse2 [B, Hq, Sq]   ->   o, lse likewise
 *
 * Errors: ECLOSED, ESHAPE, EDTYPE, EMEMORY, EINTERRUPT. */
ATTUNE_API attune_status attune_attention_merge(const attune_tensor *o1, const attune_tensor *lse1,
                                                const attune_tensor *o2, const attune_tensor *lse2,
                                                attune_tensor *o, attune_tensor *lse);

#ifdef __cplusplus
}
#endif

#endif
