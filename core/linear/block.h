/* block.h - the f32 features of a block of tokens, and sums over keys: what linear attention over
 * whole tensors (blocked.c) and the recurrent state share.
 */
#ifndef AT_LINEAR_BLOCK_H
#define AT_LINEAR_BLOCK_H

#include "base/arena.h"
#include "linear/linear_problem.h"

/* The layout of a block of `block` tokens. Features have one row of `stride` floats per token.
 * Value dims are packed in panels of `panel` columns. D: head_dim; Dv: v_head_dim; M: rows of the
 * projection; F: features. */
typedef struct at_linear_plan {
    attune_features features;
    int64_t D, Dv, M, F, block, panel, stride;
    int64_t columns, Dvp; /* M and Dv, rounded up to whole half panels */
    int64_t products;     /* the floats of `s` in at_linear_sums; -1: the number overflows */
    float epsilon;
    float *projection; /* w packed as columns, the right side of x w^T; NULL where M is 0 */
} at_linear_plan;

attune_status at_linear_plan_new(attune_features kind, const attune_tensor *projection, int64_t D,
                                 int64_t Dv, int64_t F, double epsilon, int64_t block,
                                 at_linear_plan *out);
void at_linear_plan_free(at_linear_plan *plan);

/* Divides the tokens of a head into sections of whole blocks. The sections depend only on the
 * problem, so that bits do not depend on the number of threads. */
typedef struct at_linear_cut {
    int64_t block, section; /* tokens of a block, of a section */
    int64_t sections;       /* per head */
} at_linear_cut;
at_linear_cut at_linear_cut_keys(const at_linear *p);
at_linear_cut at_linear_cut_queries(const at_linear *p); /* for problems that are not causal */
/* The tokens of a section: [*from, *to). */
void at_linear_section(const at_linear_cut *cut, int64_t number, int64_t tokens, int64_t *from,
                       int64_t *to);

/* Sums over keys. Every term is scaled by e^-max_exponent, where max_exponent is the max exponent
 * of the keys that were added so far; -inf before the first. */
typedef struct at_linear_sums {
    float max_exponent;
    float *z; /* [F] sum of features */
    float *s; /* [Dv / panel, rounded up][F][panel] sum of rotated features times values; in
                 gradients [F / panel, rounded up][Dv][panel] */
} at_linear_sums;
/* The floats of sums; -1: the number overflows. */
int64_t at_linear_sums_floats(const at_linear_plan *plan);
at_linear_sums at_linear_sums_at(const at_linear_plan *plan,
                                 float *memory); /* max_exponent is the first float */
void at_linear_sums_clear(const at_linear_plan *plan, at_linear_sums *sums);
void at_linear_sums_rescale(const at_linear_plan *plan, at_linear_sums *sums, float max_exponent);
/* into += from, both rescaled to the larger of the two exponents. */
void at_linear_sums_merge(const at_linear_plan *plan, at_linear_sums *into,
                          const at_linear_sums *from);

/* A list of sums in one allocation; `index` is the number of the entry. at_linear_sums_in returns a
 * view whose max_exponent is a copy: at_linear_sums_keep writes it back. */
at_linear_sums at_linear_sums_in(const at_linear_plan *plan, float *list, int64_t index);
void at_linear_sums_keep(const at_linear_plan *plan, float *list, int64_t index,
                         const at_linear_sums *sums);
void at_linear_sums_empty(const at_linear_plan *plan, float *list, int64_t index);
void at_linear_sums_join(const at_linear_plan *plan, float *list, int64_t into, int64_t from);
/* Combines a head's list, which has one entry per section. Not causal: adds all entries into the
 * first. Causal, where the sums of a section are in the entry of the next section: every entry
 * receives all entries before it. */
void at_linear_sums_gather(const at_linear_plan *plan, float *list, int64_t sections, bool causal);

typedef struct at_linear_scratch {
    float *k, *k_rotated, *q,
        *q_rotated;   /* [block][stride]; without a rotation k_rotated is k and q_rotated is q */
    float *k_columns; /* k rotated, as panels of tokens */
    float *v;         /* panels of dims [Dvp / panel][block][panel] */
    float *scores;    /* [block][block + 16] */
    float *o;         /* [block][Dvp] */
    float *f32_rows;  /* [block][max(D, Dv)] */
    float *row, *other, *z; /* [block], [block], [F]: for the use of one function at a time */
    int64_t *best;          /* [block] the column of each query's max of w . x'; NULL: not wanted */
    at_arena arena;
} at_linear_scratch;
attune_status at_linear_scratch_new(const at_linear_plan *plan, bool rotated,
                                    at_linear_scratch *out);
void at_linear_scratch_free(at_linear_scratch *scratch);

/* `count` tokens of a head, from `first` on, as f32 rows: the tensor's own memory where possible,
 * else a copy in `f32_rows`. *stride: floats from row to row. */
const float *at_linear_rows(const attune_tensor *t, int64_t b, int64_t h, int64_t first,
                            int64_t count, float *f32_rows, int64_t *stride);

/* The max exponent of `count` keys: of w . x', or if `whole` is true, of w . x' - n (trig: of n),
 * where n = |x'|^2 / 2. -inf for relu and elu. */
float at_linear_max_exponent(const at_linear_plan *plan, at_linear_scratch *s, const float *x,
                             int64_t x_stride, int64_t count, bool whole);

/* What f32 holds beside one max exponent. A head that exceeds it is computed again, by token.
 * Whether the exponents of the keys in s (after at_linear_keys) are so large that f32 rounds them
 * too much; or, for trig, whether the max exponent rises so far, from `first` to max_exponent, that
 * the first row of the block vanishes. */
bool at_linear_keys_exceed(const at_linear_plan *plan, const at_linear_scratch *s, int64_t count,
                           float first, float max_exponent);
/* The max exponent of the keys that are visible to the first row of a block: `before`, and those of
 * the block's keys up to `skip`. */
float at_linear_first_exponent(const at_linear_plan *plan, const at_linear_scratch *s, float before,
                               int64_t skip);
/* Whether a denominator is so small that features may have vanished from it. */
bool at_linear_denominators_exceed(const at_linear_plan *plan, const float *denominators,
                                   int64_t count);

/* to [count][stride] = w . x' of `count` tokens. */
void at_linear_project(const at_linear_plan *plan, const float *x, int64_t x_stride, int64_t count,
                       float *to);
/* Computes the features of `count` queries into s->q, and rotated into s->q_rotated. first: the
 * index of the first query in `rotation`; rotation NULL: none. */
void at_linear_queries(const at_linear_plan *plan, at_linear_scratch *s, const float *x,
                       int64_t x_stride, int64_t count, const at_rotation *rotation, int64_t b,
                       int64_t first);
/* Computes the features of `count` keys into s->k, and rotated into s->k_rotated. If `running` is
 * true, *max_exponent first grows to the max exponent of these keys. Features are relative to
 * *max_exponent. add: epsilon, or 0 where the sums keep the exponentials apart. */
void at_linear_keys(const at_linear_plan *plan, at_linear_scratch *s, const float *x,
                    int64_t x_stride, int64_t count, const at_rotation *rotation, int64_t b,
                    int64_t first, bool running, float *max_exponent, float add);
/* Adds the features in s->k, and their products with s->v, to the sums. */
void at_linear_sums_add(const at_linear_plan *plan, const at_linear_scratch *s, int64_t count,
                        at_linear_sums *sums);

/* C += T V, where T [rows][columns] is the part of A B within a triangle: row r has the columns up
 * to skip + r or, if `later` is true, those from r - skip on. T is computed in strips of `strip`
 * rows. An Inf or NaN in a row of V reaches all rows of a strip that uses it, so strip is 1 where
 * that matters, else the height of a register tile. */
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

/* Sets the rows of queries that precede the first key to zero: they have no visible key. */
void at_linear_clear_early(const at_linear *p, attune_tensor *rows);

static inline const at_rotation *at_linear_rotation(const at_linear *p,
                                                    const at_rotation *rotation) {
    return p->rotate ? rotation : NULL;
}

#endif
