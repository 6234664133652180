/* block.h - a block of tokens on its way through f32 features, and the sums over keys that it
 * meets: what attention over whole tensors and the state share. */
#ifndef AT_LINEAR_BLOCK_H
#define AT_LINEAR_BLOCK_H

#include "linear/linear_problem.h"

/* How blocks lie: features of a token in a row of `stride` floats, value dims in panels. */
typedef struct at_linear_plan {
    attune_features features;
    int64_t D, Dv, M, F, block, panel, stride, columns,
        Dvp;          /* columns: M in whole half panels; Dvp: Dv likewise */
    int64_t products; /* floats of a sum of features times values */
    float epsilon;
    float *projection; /* packed as columns: the right side of x w^T */
} at_linear_plan;

attune_status at_linear_plan_new(attune_features kind, const attune_tensor *projection, int64_t D,
                                 int64_t Dv, int64_t F, double epsilon, int64_t block,
                                 at_linear_plan *out);
void at_linear_plan_free(at_linear_plan *plan);

/* The tokens of a head in sections of whole blocks: by the problem alone, so that bits do not
 * depend on the number of threads. */
typedef struct at_linear_cut {
    int64_t block, sections, section; /* section: tokens */
} at_linear_cut;
at_linear_cut at_linear_cut_keys(const at_linear *p);
at_linear_cut at_linear_cut_queries(const at_linear *p); /* not causal */
/* Tokens of a section: from .. to - 1. */
void at_linear_section(const at_linear_cut *cut, int64_t number, int64_t tokens, int64_t *from,
                       int64_t *to);

/* Sums over keys, each times e^-greatest: keys' features are relative to the greatest exponent that
 * came so far. */
typedef struct at_linear_sums {
    float greatest;
    float *z; /* [F] features */
    float *s; /* [Dvp / panel][F][panel] features times values, turned; gradients keep [F / panel,
                 rounded up][Dv][panel] */
} at_linear_sums;
int64_t at_linear_sums_floats(const at_linear_plan *plan);
at_linear_sums at_linear_sums_at(const at_linear_plan *plan,
                                 float *memory); /* greatest lies first */
void at_linear_sums_clear(const at_linear_plan *plan, at_linear_sums *sums);
void at_linear_sums_rescale(const at_linear_plan *plan, at_linear_sums *sums, float greatest);
/* into += from, each at the greater stabiliser. */
void at_linear_sums_merge(const at_linear_plan *plan, at_linear_sums *into,
                          const at_linear_sums *from);

/* Lists of sums, those of a place after those of the place before it. What becomes of greatest must
 * be kept. */
at_linear_sums at_linear_sums_in(const at_linear_plan *plan, float *list, int64_t place);
void at_linear_sums_keep(const at_linear_plan *plan, float *list, int64_t place,
                         const at_linear_sums *sums);
void at_linear_sums_empty(const at_linear_plan *plan, float *list, int64_t place);
void at_linear_sums_join(const at_linear_plan *plan, float *list, int64_t into, int64_t from);
/* A head's list, a place a section: all into the first; causal, where a section's sums lie in the
 * next one's place: each gets those before it. */
void at_linear_sums_gather(const at_linear_plan *plan, float *list, int64_t sections, bool causal);

typedef struct at_linear_scratch {
    float *k, *k_turned, *q,
        *q_turned;          /* [block][stride]; turned is the other one where nothing turns */
    float *k_columns;       /* k turned, as panels of tokens */
    float *v;               /* panels of dims [Dvp / panel][block][panel] */
    float *scores;          /* [block][block + 16] */
    float *o;               /* [block][Dvp] */
    float *wide;            /* [block][max(D, Dv)] */
    float *row, *other, *z; /* [block], [block], [F] */
    int64_t *best;          /* [block] where wanted: the place of each query's greatest w . x' */
    void *all;
} at_linear_scratch;
attune_status at_linear_scratch_new(const at_linear_plan *plan, bool turned,
                                    at_linear_scratch *out);
void at_linear_scratch_free(at_linear_scratch *scratch);

/* Tokens of a head as f32 rows: as they lie, or in wide. */
const float *at_linear_rows(const attune_tensor *t, int64_t b, int64_t h, int64_t first,
                            int64_t count, float *wide, int64_t *stride);

/* The greatest exponent of some keys: of w . x' where whole is false, of w . x' - n (trig: n) where
 * it is true. -inf for relu and elu. */
float at_linear_greatest(const at_linear_plan *plan, at_linear_scratch *s, const float *x,
                         int64_t x_stride, int64_t count, bool whole);

/* Features of queries into s->q, and turned. first: their place in turns. */
void at_linear_queries(const at_linear_plan *plan, at_linear_scratch *s, const float *x,
                       int64_t x_stride, int64_t count, const at_rotation *turns, int64_t b,
                       int64_t first);
/* Features of keys into s->k, and turned. running: relative to the greatest exponent that *greatest
 * and these keys have, which *greatest becomes; else to *greatest. add: epsilon, or 0 where sums
 * keep the exponentials apart. */
void at_linear_keys(const at_linear_plan *plan, at_linear_scratch *s, const float *x,
                    int64_t x_stride, int64_t count, const at_rotation *turns, int64_t b,
                    int64_t first, bool running, float *greatest, float add);
/* sums += s->k's features and their products with s->v. */
void at_linear_sums_add(const at_linear_plan *plan, const at_linear_scratch *s, int64_t count,
                        at_linear_sums *sums);

/* C += T V, T the part of A B within a triangle, [rows][columns]: row r has the columns up to skip
 * + r, or, later, those from r - skip on. In strips of rows, high as a register tile; an Inf or NaN
 * in a row of V reaches only strips that have it: strip 1 where that matters. */
typedef struct at_linear_triangle {
    bool later;
    int64_t rows, columns, skip, strip;
    const float *a; /* [rows][depth] */
    int64_t a_row, depth;
    const float *b; /* panels of columns */
    int64_t b_panel;
    const float *v; /* panels [columns][panel] */
    int64_t v_panel, width;
    float *c; /* [rows][width] */
    int64_t c_row;
} at_linear_triangle;
void at_linear_add_triangle(const at_linear_plan *plan, const at_linear_triangle *t, float *scores);

/* Rows of queries before the first key, which see nothing, become zero. */
void at_linear_clear_early(const at_linear *p, attune_tensor *rows);

static inline const at_rotation *at_linear_turns(const at_linear *p, const at_rotation *turns) {
    return p->turn ? turns : NULL;
}

#endif
