/* attune/program.h - score and mask programs: small pieces of code that attention runs on every
 * pair. */
#ifndef ATTUNE_PROGRAM_H
#define ATTUNE_PROGRAM_H

#include "attune/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A program computes one number for a pair of a query and a key, in static single assignment: each
 * instruction names earlier ones. Truth is 1 or 0. Places count from 1, as in Lua: the last query
 * and the last key are the same token. */
typedef enum attune_op {
    ATTUNE_OP_NUMBER,   /* number */
    ATTUNE_OP_SCORE,    /* the score that comes in */
    ATTUNE_OP_BATCH,    /* batch row */
    ATTUNE_OP_HEAD,     /* query head */
    ATTUNE_OP_KV_HEAD,  /* kv head */
    ATTUNE_OP_QUERY,    /* query token */
    ATTUNE_OP_KEY,      /* key token */
    ATTUNE_OP_DISTANCE, /* query token - key token */
    ATTUNE_OP_READ,     /* tensor[a[0], a[1], ..], an integer for each axis, from 1 */
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
    int32_t tensor; /* of READ: which of the program's tensors */
    int32_t line;   /* of the source, for messages; 0: unknown */
    bool integer;   /* its values are integers */
} attune_instruction;

/* What a program gives. slope and adjoints serve gradients and may be -1 or none: slope is the
 * derivative of result by SCORE; adjoint n is its derivative by the value of the READ instruction
 * read[n]. */
typedef struct attune_program_outputs {
    int32_t result, slope;
    int32_t reads;
    const int32_t *read, *adjoint;
} attune_program_outputs;

typedef struct attune_program attune_program;

/* The program shares the tensors, whose numbers are read when it runs. name: of errors, as "score".
 * One thread at a time may use a program. EVALUE where an instruction is none. */
ATTUNE_API attune_status attune_program_new(const char *name, const attune_instruction *code,
                                            int32_t count, const attune_tensor *tensors,
                                            int32_t tensor_count,
                                            const attune_program_outputs *outputs,
                                            attune_program **out);
ATTUNE_API void attune_program_close(attune_program *program); /* NULL is fine */

/* Which pairs of B x Hq heads, Sq queries and Sk keys a mask shows. first, last [heads][Sq] and
 * states [heads][ceil(Sq / 64)][ceil(Sk / 64)] belong to the program and stay until it next runs;
 * heads is 1 where the mask is the same for all, else B, Hq or B * Hq. */
typedef struct attune_block_map {
    int64_t heads, row_blocks, key_blocks;
    int64_t pairs, seen; /* of all heads */
    int64_t empty, partial, full;
    const uint8_t *states; /* 0 empty, 1 partial, 2 full */
} attune_block_map;
ATTUNE_API attune_status attune_program_map(attune_program *mask, int64_t B, int64_t Hq, int64_t Hk,
                                            int64_t Sq, int64_t Sk, attune_block_map *out);

#ifdef __cplusplus
}
#endif

#endif
