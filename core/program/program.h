/* program.h - score and mask programs: their instructions, and each operation in double precision.
 *
 * Dependency order: program.h <- binding.h <- block_map.h <- reads.h; program.c and apply.c know
 * none of the others. binding.h binds a program to the shapes of a problem: it computes whatever
 * does not depend on the pair of query and key once, and runs the rest row by row.
 */
#ifndef AT_PROGRAM_PROGRAM_H
#define AT_PROGRAM_PROGRAM_H

#include "attune.h"

/* Flags: what an instruction's value depends on. */
enum {
    AT_ON_BATCH = 1,
    AT_ON_HEAD = 2,
    AT_ON_QUERY = 4,
    AT_ON_KEY = 8,
    AT_ON_DISTANCE = 16,
    AT_ON_SCORE = 32
};

/* The axes along which an instruction's value varies: none, query, key, distance (key - query), or
 * both query and key. */
typedef enum at_level {
    AT_SCALAR,
    AT_ALONG_QUERIES,
    AT_ALONG_KEYS,
    AT_ALONG_DISTANCES,
    AT_EACH_PAIR
} at_level;

struct attune_program {
    char name[16];
    attune_instruction *code;
    int32_t count;
    attune_tensor *tensors;
    int32_t tensor_count;
    int32_t first; /* what rows, heads, tokens and indices count from inside the program */
    int32_t result, slope, reads;
    int32_t *read, *adjoint; /* [reads] instructions; see attune_program_outputs */
    uint8_t *deps;           /* [count] AT_ON_ flags of each instruction, all operands included */
    /* What block_map.c keeps with a mask program, and the function that frees it; NULL: nothing. */
    void *cache;
    void (*cache_free)(void *cache);
};

/* The number of operands of instruction n: that many elements of a[] are in use. */
int at_operands(const attune_program *p, int32_t n);
/* The axes that AT_ON_ flags stand for; batch row and head do not count. */
at_level at_level_of(int deps);

/* Whether a READ's index along an axis of that extent is in range. Indices count from p->first. */
static inline bool at_index_in_range(const attune_program *p, double index, int64_t extent) {
    return index >= p->first && index <= (double)(extent - 1 + p->first);
}

/* Sets *offset to that of the element in t's memory that a READ with indices [rank] reads; false:
 * an index is out of range. */
bool at_element_offset(const attune_program *p, const attune_tensor *t, const double *index,
                       int64_t *offset);

/* The flat index of the element of t that a READ with indices [rank] reads, as if t were
 * contiguous; -1: an index is out of range. */
int64_t at_flat_index(const attune_program *p, const attune_tensor *t, const double *index);

/* Applies an operation other than READ and the leaves to n values. step is the distance between an
 * operand's values: 1, or 0 for one value that holds for all. */
typedef struct at_operand_f64 {
    const double *p;
    int step;
} at_operand_f64;
void at_apply_f64(attune_op op, at_operand_f64 a, at_operand_f64 b, at_operand_f64 c, double *to,
                  int64_t n);

/* An interval [low, high] that contains all values. [-inf, inf] may contain NaN too; any other
 * interval promises that there is no NaN. */
typedef struct at_range {
    double low, high;
} at_range;
at_range at_apply_range(attune_op op, at_range a, at_range b, at_range c);

#endif
