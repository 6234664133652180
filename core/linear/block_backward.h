/* backward.h - gradients of linear attention in f32: the parts of a block (block_backward.c), which
 * fast_backward.c puts in order. */
#ifndef AT_LINEAR_BACKWARD_H
#define AT_LINEAR_BACKWARD_H

#include "linear/block.h"

typedef struct at_back_scratch {
    at_linear_scratch s;    /* its o: dv; its v: g as panels of dims; its k_columns: queries */
    float *x, *v;           /* [block][D], [block][Dv]: keys and values where they are widened */
    float *g;               /* [block][Dv] dN */
    float *d, *d_flat;      /* [block][stride] gradients of rotated features, and what features get
                               without rotation: the same where nothing rotates */
    float *columns;         /* [block / panel][Dv][panel] v or g, transposed */
    float *k_rows, *q_rows; /* [F / panel][block][panel] rotated features */
    float *dx;              /* [block][D in whole half panels] */
    float *r;               /* [Dv / panel][F][panel] R as panels of dims */
    at_arena arena;
} at_back_scratch;

/* What the exponents of keys are relative to, with epsilon: the max of w . x' (trig: |x'|^2 / 2),
 * and the token and column that it comes from. */
typedef struct at_stabiliser {
    float max_exponent;
    int64_t token, column;
} at_stabiliser;

typedef struct at_back_job {
    const at_linear *p;
    const at_linear_gradients *g;
    at_linear_plan plan;
    at_linear_cut keys, queries; /* queries: of all keys; causal ones follow the keys */
    float *weights;              /* the projection as panels of dims [D / panel][M][panel] */
    float *s, *r;                /* [kv heads][sections] */
    float *Z, *dZ;               /* [heads][Sq] */
    float *shift;                /* [kv heads][blocks of keys] c, causal */
    at_stabiliser
        *max_exponent; /* [kv heads][sections]: of all keys of a head, in its first slot */
    double *totals;    /* [kv heads][sections] what goes, negative, to the stabiliser */
    at_back_scratch *thread;
} at_back_job;

typedef struct at_tokens {
    int64_t b, head, first, count; /* head: of all batch rows */
    int64_t skip;                  /* queries: tokens of the block before them */
    const float *x, *v;            /* v: keys */
    int64_t x_stride, v_stride;
} at_tokens;

/* Features of keys into t->s, and where k and v lie; running: relative to the max exponent
 * with them, which *c becomes. */
at_tokens at_back_keys(const at_back_job *j, at_back_scratch *t, int64_t head, int64_t first,
                       int64_t count, bool running, float *c);
at_tokens at_back_queries(const at_back_job *j, at_back_scratch *t, int64_t head, int64_t first,
                          int64_t count, int64_t skip);
/* Turned features of some tokens as panels of features, for k_rows or q_rows. */
void at_back_pack_features(const at_back_job *j, const float *rotated, int64_t count, float *to);

/* S += keys, whose features t->k_rows has. */
void at_back_add_keys(const at_back_job *j, at_back_scratch *t, const at_tokens *k,
                      at_linear_sums *s);
/* R += queries, whose features t->q_rows has and whose dN and dZ are relative to c. Scales t->g. */
void at_back_add_queries(const at_back_job *j, at_back_scratch *t, const at_tokens *q, float c,
                         at_linear_sums *r);

/* dq of a block of queries, whose Z and dZ are kept; t->g is left as dN. keys: NULL, or the block's
 * own, with t->k_rows and t->columns of them. */
void at_back_through_queries(const at_back_job *j, at_back_scratch *t, const at_tokens *q,
                             const at_tokens *keys, const at_linear_sums *s);

/* dk and dv of a block of keys. r: R of later blocks, or of all queries, which t->r has as panels
 * of dims; causal, this block's queries are added to it. Returns what the stabiliser gets,
 * negative. */
double at_back_through_keys(const at_back_job *j, at_back_scratch *t, const at_tokens *k, float c,
                            at_linear_sums *r);

/* R, panels of features, as panels of dims. */
void at_back_turn_sums(const at_back_job *j, const at_linear_sums *r, float *to);

/* Features with an exponential in them. */
static inline bool at_linear_exponential(const at_linear *p) {
    return p->features == ATTUNE_FEATURES_FAVOR || p->features == ATTUNE_FEATURES_TRIG;
}

/* What R is relative to where keys are relative to c; without exponentials c is nothing. */
static inline float at_back_opposite(const at_back_job *j, float c) {
    return at_linear_exponential(j->p) ? -c : 0;
}

#endif
