/* bound.h - a program bound to a problem: what does not depend on the pair is computed ahead, once,
 * in double precision; the rest runs row by row.
 *
 * Values that depend on the query, on the key or on their distance alone (and on batch row and
 * head) lie in tables. An instruction at AT_EACH_PAIR finds its operands there: of one number, or
 * of as many as there are columns, since keys, and distances of one query, lie in the order of the
 * keys.
 */
#ifndef AT_PROGRAM_BOUND_H
#define AT_PROGRAM_BOUND_H

#include "program/program.h"
#include "simd/program_kernels.h"

/* Where a problem's queries and keys stand. Places count from 0. */
typedef struct at_extent {
    int64_t B, Hq, G, Sq;
    int64_t from, to;    /* keys [from, to); from is a multiple of AT_TILE */
    const int64_t *base; /* [B] place of the first query of each batch row; NULL: to - Sq */
} at_extent;

typedef struct at_table {
    double *wide;  /* [batch rows or 1][heads or 1][length] */
    float *narrow; /* the same, where an instruction at AT_EACH_PAIR or an output wants it */
    int64_t b_stride, h_stride, length;
    at_range *range; /* [batch rows or 1][heads or 1][blocks of AT_TILE values] */
    bool *bad;       /* of a READ: which of its values lie outside; NULL: none */
} at_table;

/* Where an operand of a pair's instruction lies. */
typedef struct at_operand {
    const float *p; /* in a table */
    int64_t b_stride, h_stride;
    int32_t slot;   /* at least 0: in scratch; -1: in a table; -2: the score itself */
    at_level level; /* of the table */
} at_operand;

/* A pair's instruction, ready to run. TANH multiplies its operand by x[1] and its value by x[2], so
 * that a softcap is one pass. */
typedef struct at_operation {
    attune_op op;
    int32_t n, slot; /* the instruction, and where its value goes */
    int operands;
    at_operand x[ATTUNE_MAX_RANK];
} at_operation;

typedef struct at_binding {
    const attune_program *program;
    at_extent extent;
    int64_t *base;     /* [B] */
    int64_t nearest;   /* distances' tables begin at key - query = nearest */
    int64_t distances; /* and are so long */
    uint8_t *deps;     /* [count] with what this problem adds */
    bool *used;        /* [count] */
    at_table *table;   /* [count] */
    int32_t *slot;     /* [count] where a pair's value lies in scratch; -1: in a table */
    int32_t *pairs;    /* instructions at AT_EACH_PAIR, in order, but SCORE */
    int32_t pair_count;
    at_operation *operation; /* the same, some made one */
    int32_t operations;
    bool wide;        /* f32 does not hold its integers: pairs run in double */
    bool reads_pairs; /* some READ stands at AT_EACH_PAIR */
} at_binding;

/* AT_WITH_GRADIENTS: slope and adjoints too. AT_IN_DOUBLE: for at_run_f64; both for at_read_place.
 */
enum { AT_WITH_GRADIENTS = 1, AT_IN_DOUBLE = 2 };
attune_status at_bind(const attune_program *program, const at_extent *extent, int wants,
                      at_binding *out);
void at_binding_free(at_binding *bound);

/* How far along a table of that level the value for query i and key `key` of batch row b lies. */
static inline int64_t at_along(const at_binding *bound, at_level level, int64_t b, int64_t i,
                               int64_t key) {
    switch (level) {
    case AT_ALONG_QUERIES: return i;
    case AT_ALONG_KEYS: return key - bound->extent.from;
    case AT_ALONG_DISTANCES: return key - (bound->base[b] + i) - bound->nearest;
    default: return 0;
    }
}

/* Columns of a run, at most. */
enum { AT_RUN = AT_SCORE_STRIDE };

/* Bytes of scratch that a run needs. */
int64_t at_binding_scratch(const at_binding *bound);

/* One row's pairs: query i of head (b, h) with keys [key, key + n), counted as the problem's. */
typedef struct at_run {
    const at_binding *bound;
    int64_t b, h, i, key;
    int n;
    const float *score; /* [n], readable up to a whole vector; NULL: none */
    void *scratch;
} at_run;

/* Computes all pairs; to NULL, or where the result goes if it lies at AT_EACH_PAIR, which may be
 * score. */
void at_run_pairs(const at_run *run, float *to);
/* The values of an instruction, after at_run_pairs. */
at_values at_run_value(const at_run *run, int32_t n);

/* The same in double precision, into out [n] each; outputs: instructions. */
void at_run_f64(const at_run *run, const double *score, int32_t outputs, const int32_t *output,
                double *const *out);

/* The flat place in its tensor that a READ of pairs reads for column x, after at_run_pairs or
 * at_run_f64 (any READ); -1: outside. */
int64_t at_run_place(const at_run *run, int32_t n, int x);
int64_t at_run_place_f64(const at_run *run, const double *score, int32_t n, int x);

/* The range of the result over queries [i, i_end) and keys [key, key_end) of head (b, h). scratch:
 * [count]. */
at_range at_binding_range(const at_binding *bound, int32_t n, int64_t b, int64_t h, int64_t i,
                          int64_t i_end, int64_t key, int64_t key_end, at_range *scratch);

/* The flat place in its tensor that a READ reads, in elements of a contiguous one; -1: outside. Its
 * indices must lie in tables. place: along its level. */
int64_t at_read_place(const at_binding *bound, int32_t n, int64_t b, int64_t h, int64_t place);

/* Fails where a pair that is seen reads outside a tensor. sees: the keys [*first, *last) of a
 * query, not looking at masks. mask: of a program, or NULL. */
struct at_block_map;
typedef void (*at_visible_keys)(const void *context, int64_t b, int64_t i, int64_t *first,
                                int64_t *last);
attune_status at_check_reads(const at_binding *bound, const at_binding *mask,
                             const struct at_block_map *map, at_visible_keys sees,
                             const void *context);

#endif
