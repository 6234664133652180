/* blocks.h - how files store the elements of a tensor: plain numbers, or blocks of quantised ones.
 *
 * The block formats are those of GGML (github.com/ggml-org/ggml, src/ggml-common.h). A block holds
 * the values of `values` neighbouring elements of the last axis. In the formulas q is an unsigned
 * integer of the format's bits, and d and m are f16 factors of the block:
 *
 *   Q8_0  d q, q signed     Q4_0  d (q - 8)     Q4_1  d q + m     Q5_0  d (q - 16)   Q5_1  d q + m
 *   Q4_K, Q5_K  d s q - m t for each 32 elements, s and t of 6 bits
 *   Q6_K        d s (q - 32) for each 16 elements, s of 8 bits, signed
 */
#ifndef AT_QUANT_BLOCKS_H
#define AT_QUANT_BLOCKS_H

#include "attune/tensor.h"

typedef struct at_format {
    const char *name;   /* as safetensors and GGUF name it */
    int values, bytes;  /* of one block; a plain number is a block of one value */
    attune_dtype dtype; /* of the tensor that it is read as; ATTUNE_DTYPES: attune has none */
    int gguf;           /* the number of the type in GGUF; -1: not in GGUF */
    bool safetensors;   /* whether safetensors has the type */
    /* blocks -> values; NULL: plain numbers of `dtype`, or such that are widened (BOOL, U8) */
    void (*to_f32)(const uint8_t *blocks, int64_t count, float *out);
} at_format;

/* Ends with a NULL name, whose entry stands for a type of unknown size. The first entry of a dtype
 * is the one that is written. */
extern const at_format at_formats[];

/* The format of that name or number in GGUF; the entry without a name where there is none. */
const at_format *at_format_named(const char *name);
const at_format *at_format_of_gguf(uint32_t type);

/* x [32 blocks] -> blocks of Q8_0, 34 bytes each: d = max |x| / 127, in f16, or the factor of which
 * all of a block are exact multiples: what was read from Q8_0 is written with the same values. */
void at_quantise_q8_0(const float *x, int64_t blocks, uint8_t *out);

#endif
