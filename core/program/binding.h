/* binding.h - a program bound to the shapes of a problem: whatever does not depend on the pair of
 * query and key is computed once, in double precision; the rest runs row by row.
 *
 * Values that vary only with the query, the key or their distance (and with batch row and head) are
 * stored in tables. An instruction at AT_EACH_PAIR reads its operands from there: one number, or
 * one number per key. Distance tables are in the order of the keys, so for one query their values
 * are contiguous too.
 */
#ifndef AT_PROGRAM_BINDING_H
#define AT_PROGRAM_BINDING_H

#include "program/program.h"
#include "simd/program_kernels.h"

/* The shapes of a problem and the positions of its tokens, which count from 0. */
typedef struct at_extent {
    int64_t B, Hq, G, Sq; /* batch rows, query heads, query heads per kv head, queries */
    int64_t from, to;     /* keys [from, to); from is a multiple of AT_TILE */
    const int64_t *base;  /* [B] position of the first query of each batch row; NULL: to - Sq */
} at_extent;

/* The values of an instruction that varies with less than the pair. */
typedef struct at_table {
    double *f64; /* [batch rows or 1][heads or 1][length] */
    float *f32;  /* the same, where an instruction at AT_EACH_PAIR or an output reads it; or NULL */
    int64_t b_stride, h_stride, length; /* strides are 0 where all batch rows or heads agree */
    at_range *range; /* [batch rows or 1][heads or 1][blocks of AT_TILE values] */
    bool *bad;       /* of a READ, like f64: the index is out of range; NULL: none is */
} at_table;

/* Where an operand of an instruction at AT_EACH_PAIR is found. */
typedef struct at_operand {
    const float *p; /* in a table */
    int64_t b_stride, h_stride;
    int32_t slot;   /* 0 or more: a slot of scratch; -1: in a table; -2: the score itself */
    at_level level; /* of the table */
} at_operand;

/* An instruction at AT_EACH_PAIR, ready to run. TANH multiplies its operand by x[1] and its value
 * by x[2], so that a softcap is one pass. */
typedef struct at_operation {
    attune_op op;
    int32_t n, slot; /* the instruction, and the slot of scratch that receives its value */
    int operands;
    at_operand x[ATTUNE_MAX_RANK];
} at_operation;

typedef struct at_binding {
    const attune_program *program;
    at_extent extent;
    int64_t *base;        /* [B] */
    int64_t min_relative; /* distance tables begin at key - query = min_relative */
    int64_t distances;    /* and have this length */
    uint8_t *deps;        /* [count] the program's, plus batch where batch rows differ in base */
    bool *used;           /* [count] */
    at_table *table;      /* [count] */
    int32_t *slot;        /* [count] slot of scratch of an instruction at AT_EACH_PAIR; else -1 */
    int32_t *pairs;       /* [pair_count] instructions at AT_EACH_PAIR but SCORE, in order */
    int32_t pair_count;
    at_operation *operation; /* the same, where some are fused into one */
    int32_t operations;
    bool pairs_in_f64; /* integers do not fit f32 exactly, so pairs run in double */
    bool reads_pairs;  /* some READ is at AT_EACH_PAIR */
} at_binding;

/* AT_WITH_GRADIENTS: compute slope and adjoints too. AT_IN_DOUBLE: keep what at_run_f64 needs.
 * at_read_flat_index needs both. */
enum { AT_WITH_GRADIENTS = 1, AT_IN_DOUBLE = 2 };
attune_status at_bind(const attune_program *program, const at_extent *extent, int wants,
                      at_binding *out);
void at_binding_free(at_binding *binding);

/* The index along a table of that level of the value for query i and key `key` of batch row b. */
static inline int64_t at_along(const at_binding *binding, at_level level, int64_t b, int64_t i,
                               int64_t key) {
    switch (level) {
    case AT_ALONG_QUERIES: return i;
    case AT_ALONG_KEYS: return key - binding->extent.from;
    case AT_ALONG_DISTANCES: return key - (binding->base[b] + i) - binding->min_relative;
    default: return 0;
    }
}

/* The max number of columns of a run. */
enum { AT_RUN = AT_SCORE_STRIDE };

/* The bytes of scratch that a run needs. */
int64_t at_binding_scratch(const at_binding *binding);

/* The pairs of one row: query i of head (b, h) with keys [key, key + n). Heads, queries and keys
 * are numbered as in the whole problem. */
typedef struct at_run {
    const at_binding *binding;
    int64_t b, h, i, key;
    int n;
    const float *score; /* [n], readable up to a whole vector; NULL: none */
    void *scratch;
} at_run;

/* Computes all instructions at AT_EACH_PAIR. Unless `to` is NULL, the result goes to to [n], which
 * may be score. */
void at_run_pairs(const at_run *run, float *to);
/* The values of an instruction, after at_run_pairs. */
at_values at_run_value(const at_run *run, int32_t n);

/* The same in double precision: the values of instructions output [outputs] go to out [outputs][n].
 */
void at_run_f64(const at_run *run, const double *score, int32_t outputs, const int32_t *output,
                double *const *out);

/* The indices [rank], or the flat index (-1: out of range), of what a READ reads for column x. With
 * score, which at_run_f64 ran on: of any READ. score NULL: of one at AT_EACH_PAIR, after
 * at_run_pairs. */
void at_run_indices(const at_run *run, const double *score, int32_t n, int x, double *index);
int64_t at_run_flat_index(const at_run *run, const double *score, int32_t n, int x);

/* The range of instruction n over queries [i, i_end) and keys [key, key_end) of head (b, h); h -1:
 * of all heads. scratch: [count]. */
at_range at_binding_range(const at_binding *binding, int32_t n, int64_t b, int64_t h, int64_t i,
                          int64_t i_end, int64_t key, int64_t key_end, at_range *scratch);

/* The flat index in its tensor, as if contiguous, of what a READ reads; -1: out of range. The
 * READ's indices must be in tables; x is the index along the READ's own table. */
int64_t at_read_flat_index(const at_binding *binding, int32_t n, int64_t b, int64_t h, int64_t x);

#endif
