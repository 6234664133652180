/* attune/attention.h - exact attention: options, engines, gradients. */
#ifndef ATTUNE_ATTENTION_H
#define ATTUNE_ATTENTION_H

#include "attune/position.h"
#include "attune/program.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum attune_engine {
    ATTUNE_ENGINE_DEFAULT,   /* tiled; decode for few queries; reference for f64 */
    ATTUNE_ENGINE_REFERENCE, /* in double precision, term by term: what the others are checked
                                against */
    ATTUNE_ENGINE_BLIS, /* the textbook: the whole Sq x Sk score matrix, two matrix products through
                           BLIS */
    ATTUNE_ENGINE_TILED,  /* online softmax over packed tiles; never Sq x Sk */
    ATTUNE_ENGINE_DECODE, /* few queries against many keys, split over the keys */
} attune_engine;

/* Documents packed one after the other into the token axis: a token sees only its own document's.
 * One list for every batch row (rows = 1), or a list a row (rows = B). Each list sums to the number
 * of tokens. */
typedef struct attune_lengths {
    int64_t rows;         /* 0: no packing */
    const int64_t *count; /* [rows] documents of each list */
    const int64_t
        *value; /* [sum of count] tokens of each document, the lists one after the other */
} attune_lengths;

typedef struct attune_position attune_position; /* below */

/* All zero bytes are the defaults. */
typedef struct attune_attention_options {
    bool causal;    /* the last query is the last key's token; a query sees no later token */
    int64_t window; /* a query sees itself and window - 1 tokens before it (not causal: also after);
                       0: all */
    bool scale_given; /* else 1 / sqrt(D) */
    double scale;     /* any finite number */
    double softcap;   /* c > 0: s becomes c * tanh(s / c); 0: none */
    attune_lengths lengths;
    const attune_tensor
        *sinks; /* [Hq] f32: a logit a head that joins the softmax's denominator; NULL: none */
    attune_program *score; /* what becomes of each score, after softcap; NULL: nothing */
    attune_program *mask;  /* which pairs are seen, beside causal, window and lengths; NULL: all */
    /* Rotary embedding on the way in: q and k are turned as attune_position_rotate does, without
     * copies. An encoding that does not rotate changes nothing. */
    attune_position *rotate;
    const attune_tensor
        *positions; /* of the keys, i64 [Sk] or [B, Sk]; the queries are the last; NULL: 0, 1, .. */
    attune_engine engine;
} attune_attention_options;

/* o = softmax(mask(softcap(scale * q k^T))) v, and lse, the natural logarithm of each row's softmax
 * denominator.
 *
 *   q [B, Hq, Sq, D]   k [B, Hk, Sk, D]   v [B, Hk, Sk, Dv]   ->   o [B, Hq, Sq, Dv] in q's dtype
 * lse [B, Hq, Sq]
 *
 * f32, bf16, f16 or f64, each tensor its own except that f64 goes with f64 only; any strides. lse
 * is f32 (f64 for f64). A row that sees nothing has o = 0 and lse = -inf (with a sink: the sink).
 * options NULL: the defaults. Query head h reads kv head h / G. Errors: ESHAPE, EDTYPE, EVALUE,
 * EENGINE, EMEMORY, EINTERRUPT. */
ATTUNE_API attune_status attune_attention(const attune_tensor *q, const attune_tensor *k,
                                          const attune_tensor *v,
                                          const attune_attention_options *options, attune_tensor *o,
                                          attune_tensor *lse);

/* Gradients of q, k, v and of the sinks, in their dtypes (dsinks in lse's), for the gradient d_o
 * [B, Hq, Sq, Dv] of o, from o and lse as attune_attention gave them with the same options. The
 * scores are computed anew. dsinks may be NULL; it stays closed where there are no sinks. dtables
 * [the score program's tensors] or NULL: gradients of the float tensors that it reads, each like
 * its tensor; closed where there is none. Engines: tiled (the default), and reference, which f64
 * goes to. */
ATTUNE_API attune_status attune_attention_backward(const attune_tensor *d_o, const attune_tensor *q,
                                                   const attune_tensor *k, const attune_tensor *v,
                                                   const attune_tensor *o, const attune_tensor *lse,
                                                   const attune_attention_options *options,
                                                   attune_tensor *dq, attune_tensor *dk,
                                                   attune_tensor *dv, attune_tensor *dsinks,
                                                   attune_tensor *dtables);

/* The probabilities themselves, [B, Hq, Sq, Sk] f32 (f64 for f64). With a sink a row sums to less
 * than one. */
ATTUNE_API attune_status attune_attention_weights(const attune_tensor *q, const attune_tensor *k,
                                                  const attune_attention_options *options,
                                                  attune_tensor *weights);

/* Attention over the union of two disjoint sets of keys, from the results over each.
 *   o1, o2 [B, Hq, Sq, Dv] of one dtype   lse1, lse2 [B, Hq, Sq]   ->   o, lse likewise */
ATTUNE_API attune_status attune_attention_merge(const attune_tensor *o1, const attune_tensor *lse1,
                                                const attune_tensor *o2, const attune_tensor *lse2,
                                                attune_tensor *o, attune_tensor *lse);

#ifdef __cplusplus
}
#endif

#endif
