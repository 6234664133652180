/* block_backward.h - the gradients of linear attention in f32, for one block of tokens at a time.
 * blocked_backward.c calls these functions in the right order, and its first comment has the
 * equations. The names here are:
 *
 *   A, B    rotated features of queries, of keys       a, b    the same before the rotation
 *   Z       the denominator of a query's output        N       its numerator
 *   dX      the gradient of X
 *   S       sum over keys of B v^T                     R       sum over queries of A dN^T
 *   c       the max exponent that key features are relative to: they are scaled by e^-c
 */
#ifndef AT_LINEAR_BACKWARD_H
#define AT_LINEAR_BACKWARD_H

#include "linear/block.h"

typedef struct at_back_scratch {
    at_linear_scratch s; /* s.o holds dv, s.v dN as panels of dims, s.k_columns the queries */
    float *x, *v;        /* [block][D], [block][Dv]: f32 copies of keys and values */
    float *g;            /* [block][Dv] dN */
    float *d, *d_flat;   /* [block][stride] gradients of the rotated features, and the part of the
                            gradients that does not pass through the rotation; d_flat is d where
                            nothing rotates */
    float *columns;      /* [block / panel][Dv][panel] v or dN, transposed */
    float *k_rows, *q_rows; /* [F / panel][block][panel] rotated features */
    float *dx;              /* [block][D in whole half panels] */
    float *r;               /* [Dv / panel][F][panel] R as panels of dims */
    at_arena arena;
} at_back_scratch;

/* With epsilon > 0: the max exponent of the keys, of w . x' (trig: of |x'|^2 / 2), to which all key
 * features of a head are relative, and the token and the row of the projection that it comes from.
 */
typedef struct at_stabiliser {
    float max_exponent;
    int64_t token, column;
} at_stabiliser;

typedef struct at_back_job {
    const at_linear *p;
    const at_linear_gradients *g;
    at_linear_plan plan;
    at_linear_cut keys, queries; /* sections of keys; sections of queries where not causal */
    float *weights;              /* the projection as panels of dims [D / panel][M][panel] */
    float *s, *r;                /* [kv heads][sections] */
    float *Z, *dZ;               /* [heads][Sq] */
    float *shift;                /* causal: [kv heads][blocks of keys] the c of each block */
    at_stabiliser *max_exponent; /* [kv heads][sections]; a head's first entry: of all its keys */
    double *totals;              /* [kv heads][sections] minus the gradient of the stabiliser */
    atomic_bool *again;          /* [kv heads] whether f32 does not hold the head: see by_token.c */
    at_back_scratch *thread;
} at_back_job;

/* `count` consecutive queries or keys of one head. */
typedef struct at_tokens {
    int64_t b, head, first, count; /* head counts over all batch rows: b * heads + h */
    int64_t skip;                  /* of queries: the keys of the block before the first query */
    const float *x, *v;            /* f32 rows: [count][D]; of keys also [count][Dv] */
    int64_t x_stride, v_stride;
} at_tokens;

/* Computes the features of keys into t->s. If `running` is true, *c first grows to the max exponent
 * of these keys; features are relative to *c. */
at_tokens at_back_keys(const at_back_job *j, at_back_scratch *t, int64_t head, int64_t first,
                       int64_t count, bool running, float *c);
/* Computes the features of queries into t->s. */
at_tokens at_back_queries(const at_back_job *j, at_back_scratch *t, int64_t head, int64_t first,
                          int64_t count, int64_t skip);
/* Packs the rotated features of `count` tokens as panels of features, for k_rows or q_rows. */
void at_back_pack_features(const at_back_job *j, const float *rotated, int64_t count, float *to);

/* Adds keys to S. Before: their features are in t->s and packed in t->k_rows. */
void at_back_add_keys(const at_back_job *j, at_back_scratch *t, const at_tokens *k,
                      at_linear_sums *s);
/* Adds queries to R. Before: their features are in t->s and packed in t->q_rows, their dN is in
 * t->g, and dN and dZ are relative to c. t->g may be rescaled. */
void at_back_add_queries(const at_back_job *j, at_back_scratch *t, const at_tokens *q, float c,
                         at_linear_sums *r);

/* Computes dq of a block of queries and stores their Z and dZ. After: t->g holds dN. keys: the keys
 * of the same block, which t->k_rows and t->columns hold packed, if causal; else NULL. s: S of the
 * earlier blocks, or of all keys. */
void at_back_through_queries(const at_back_job *j, at_back_scratch *t, const at_tokens *q,
                             const at_tokens *keys, const at_linear_sums *s);

/* Computes dk and dv of a block of keys. r: R of the later blocks, or of all queries; t->r holds it
 * as panels of dims. If causal, the queries of this block are then added to r. Returns minus the
 * part of the stabiliser's gradient that comes from these keys. */
double at_back_through_keys(const at_back_job *j, at_back_scratch *t, const at_tokens *k, float c,
                            at_linear_sums *r);

/* Copies R from panels of features to panels of dims. */
void at_back_transpose_sums(const at_back_job *j, const at_linear_sums *r, float *to);

/* Whether the features contain an exponential. */
static inline bool at_linear_exponential(const at_linear *p) {
    return p->features == ATTUNE_FEATURES_FAVOR || p->features == ATTUNE_FEATURES_TRIG;
}

/* The exponent that R is relative to where keys are relative to c. Features without an exponential
 * are not rescaled: 0. */
static inline float at_back_opposite(const at_back_job *j, float c) {
    return at_linear_exponential(j->p) ? -c : 0;
}

#endif
