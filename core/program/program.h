/* program.h - score and mask programs: what they are made of, and how an operation is done in
 * double precision.
 *
 * A program meets a problem in bound.h, which computes ahead what does not depend on the pair, and
 * runs the rest row by row.
 */
#ifndef AT_PROGRAM_PROGRAM_H
#define AT_PROGRAM_PROGRAM_H

#include "attune.h"

/* What an instruction's value depends on. */
enum {
    AT_ON_BATCH = 1,
    AT_ON_HEAD = 2,
    AT_ON_QUERY = 4,
    AT_ON_KEY = 8,
    AT_ON_DISTANCE = 16,
    AT_ON_SCORE = 32
};

/* Along what an instruction's values lie. */
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
    int32_t result, slope, reads;
    int32_t *read, *adjoint; /* [reads] */
    uint8_t *deps;           /* [count] */
    /* What block_map.c keeps with a mask program, and the function that frees it; NULL: nothing. */
    void *cache;
    void (*cache_free)(void *cache);
};

int at_operands(const attune_program *p, int32_t n); /* how many of a[] are in use */
at_level at_level_of(int deps);

/* The place of an element at these indices, which count from 1, in elements of a contiguous tensor;
 * -1: outside. */
int64_t at_flat_place(const attune_tensor *t, const double *index);

/* n values of an operation but READ and the leaves; an operand's values lie step (0 or 1) apart. */
typedef struct at_operand_f64 {
    const double *p;
    int step;
} at_operand_f64;
void at_apply_f64(attune_op op, at_operand_f64 a, at_operand_f64 b, at_operand_f64 c, double *to,
                  int64_t n);

/* What values may be: all in [low, high]; NaN may hide where low is -inf and high inf. */
typedef struct at_range {
    double low, high;
} at_range;
at_range at_apply_range(attune_op op, at_range a, at_range b, at_range c);

#endif
