/* attune/program.h - score and mask programs: small pieces of code that attention runs for every
 * pair of a query and a key. */
#ifndef ATTUNE_PROGRAM_H
#define ATTUNE_PROGRAM_H

#include "attune/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A program computes one number per pair, in static single assignment form: an instruction's
 * operands are the numbers of earlier instructions. Truth is 1 or 0. Batch rows, heads, tokens and
 * indices count from 0, or from `first` of attune_program_outputs. The last query and the last key
 * are the same token, so with more queries than keys the first queries are below 0. */
typedef enum attune_op {
    ATTUNE_OP_NUMBER,   /* number */
    ATTUNE_OP_SCORE,    /* the score before the program */
    ATTUNE_OP_BATCH,    /* batch row */
    ATTUNE_OP_HEAD,     /* query head */
    ATTUNE_OP_KV_HEAD,  /* kv head */
    ATTUNE_OP_QUERY,    /* query token */
    ATTUNE_OP_KEY,      /* key token */
    ATTUNE_OP_DISTANCE, /* query token - key token */
    ATTUNE_OP_READ,     /* tensor[a[0], a[1], ..]: one integer index per axis */
    ATTUNE_OP_ADD,
    ATTUNE_OP_SUB,
    ATTUNE_OP_MUL,
    ATTUNE_OP_DIV,
    ATTUNE_OP_IDIV, /* rounds down */
    ATTUNE_OP_MOD,  /* a - floor(a / b) b */
    ATTUNE_OP_POW,
    ATTUNE_OP_MIN,
    ATTUNE_OP_MAX,
    ATTUNE_OP_LT,
    ATTUNE_OP_LE,
    ATTUNE_OP_EQ,
    ATTUNE_OP_AND,
    ATTUNE_OP_OR,
    ATTUNE_OP_NOT,
    ATTUNE_OP_NEG,
    ATTUNE_OP_ABS,
    ATTUNE_OP_EXP,
    ATTUNE_OP_LOG,
    ATTUNE_OP_SQRT,
    ATTUNE_OP_TANH,
    ATTUNE_OP_SIGMOID,
    ATTUNE_OP_FLOOR,
    ATTUNE_OP_WHERE, /* a[0] ? a[1] : a[2] */
    ATTUNE_OP_COUNT
} attune_op;

typedef struct attune_instruction {
    attune_op op;
    int32_t a[ATTUNE_MAX_RANK]; /* earlier instructions */
    double number;
    int32_t tensor; /* of READ: the number of the tensor, from 0 */
    int32_t line;   /* line of the source, for messages; 0: unknown */
    bool integer;   /* its values are integers */
} attune_instruction;

/* The outputs of a program, as numbers of instructions. Gradients need slope, the derivative of
 * result by SCORE (-1: absent), and adjoint[n], the derivative of result by the value of the READ
 * instruction read[n]; reads is the length of both arrays and may be 0. */
typedef struct attune_program_outputs {
    int32_t result, slope;
    int32_t reads;
    const int32_t *read, *adjoint;
    int32_t first; /* what batch rows, heads, tokens and indices count from inside the program and
                      in its messages: 0, or 1 for a program of a language that counts from 1 */
} attune_program_outputs;

typedef struct attune_program attune_program;

/* Makes a program of code [count] that reads tensors [tensor_count]. The program shares the
 * tensors: it reads their numbers when it runs. name appears in messages, for example "score". Only
 * one thread at a time may use a program. Errors: ATTUNE_EVALUE where an instruction or an output
 * is invalid, ATTUNE_EMEMORY. Close it with attune_program_close. */
ATTUNE_API attune_status attune_program_new(const char *name, const attune_instruction *code,
                                            int32_t count, const attune_tensor *tensors,
                                            int32_t tensor_count,
                                            const attune_program_outputs *outputs,
                                            attune_program **out);
ATTUNE_API void attune_program_close(attune_program *program); /* NULL: nothing */

/* Which pairs a mask lets through, for B batch rows, Hq query heads, Sq queries and Sk keys. states
 * [heads][row_blocks][key_blocks], with row_blocks = ceil(Sq / 64) and key_blocks = ceil(Sk / 64),
 * belongs to the program and stays valid until the program runs again. heads is 1 where the mask is
 * the same for all heads, else B, Hq or B * Hq. */
typedef struct attune_block_map {
    int64_t heads, row_blocks, key_blocks;
    int64_t pairs, visible;       /* all pairs, and the visible ones, summed over heads */
    int64_t empty, partial, full; /* numbers of tiles, summed over heads */
    const uint8_t *states;        /* 0 empty, 1 partial, 2 full */
} attune_block_map;
/* Computes the block map of a mask. Errors: ATTUNE_EVALUE where a shape is invalid or a visible
 * pair reads outside a tensor, ATTUNE_EMEMORY. */
ATTUNE_API attune_status attune_program_map(attune_program *mask, int64_t B, int64_t Hq, int64_t Hk,
                                            int64_t Sq, int64_t Sk, attune_block_map *out);

#ifdef __cplusplus
}
#endif

#endif
