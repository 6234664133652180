/* attention.h - the kernels of attention, and how keys and values lie in memory for them.
 *
 * Keys and values are packed in tiles of AT_TILE tokens, each tile in panels as wide as a kernel's register tile (panel =
 * 2 vectors). A step of a product multiplies one element of a row by a panel's row, so lanes are tokens in a K tile and dims in a V
 * tile, and nothing is ever summed across a register:
 *
 *   K tile  [AT_TILE / panel][Dp][panel]     element (d, j): token j of the panel, dim d
 *   V tile  [Dvp / panel][AT_TILE][panel]    element (j, d): dim d of the panel, token j; the last panel may be half as wide
 *
 * Dp and Dvp are D and Dv rounded up to AT_DIM. bf16 interleaves two steps of the product, [.. / 2][panel][2], so that a 32-bit
 * lane holds what a bf16 dot product multiplies, and a shift or a mask widens either. f32 and f16 are plain.
 * What pads is zero.
 */
#ifndef AT_SIMD_ATTENTION_H
#define AT_SIMD_ATTENTION_H

#include "attune.h"

enum {
    AT_TILE = 64,                                    /* tokens */
    AT_DIM = 16,                                     /* dims are padded to a multiple */
    AT_BLOCK_TILES = 4,                              /* tiles that a kernel takes at once, at most */
    AT_SCORE_STRIDE = AT_TILE * AT_BLOCK_TILES + 16, /* floats between rows of scores; the 16 keep rows off one another's cache sets */
    AT_MAX_ROWS = 16                                 /* rows of a register tile, over all sets */
};

static inline int64_t at_round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

/* A few rows (query heads of some tokens that share a kv head) on their way over the keys. */
typedef struct at_row_panel {
    int rows;
    const float *q;       /* [D rounded up to 2][rows], times scale and log2 e: scores are exponents of 2 */
    float *o;             /* [rows][Dvp] sums of p v */
    float *max;           /* [rows] the greatest score so far, -inf at first */
    float *sum;           /* [rows] of 2^(score - max) */
    const int32_t *first; /* [rows] each row sees keys first .. last - 1 */
    const int32_t *last;
} at_row_panel;

/* Consecutive tiles of one kv head. */
typedef struct at_key_block {
    attune_dtype dtype;
    int64_t D, Dv;
    int32_t begin; /* number of the first token, as first and last above count */
    int tiles;     /* at most AT_BLOCK_TILES */
    const void *k[AT_BLOCK_TILES];
    const void *v[AT_BLOCK_TILES];
    bool v_finite; /* false: V holds an Inf or NaN, which must not reach rows that do not see it */
    float softcap; /* 0: none; else q came divided by it */
    float *scores; /* scratch [AT_MAX_ROWS][AT_SCORE_STRIDE] */
} at_key_block;

typedef struct at_attention_kernels {
    int rows;  /* of a register tile: a panel has at most that many */
    int panel; /* columns of a panel */

    /* The online softmax's step: scores of the panel's rows against the block, max and sum brought up to date, o rescaled, p v added. */
    void (*attend)(const at_row_panel *rows, const at_key_block *block);

    /* Packs tokens into slots first .. first + tokens - 1 of a tile; the others stay. x [tokens][D], stride floats apart.
     * Values: false when one is Inf or NaN. */
    void (*pack_keys)(const float *x, int64_t stride, int first, int tokens, int64_t D, attune_dtype dtype, void *tile);
    bool (*pack_values)(const float *x, int64_t stride, int first, int tokens, int64_t Dv, attune_dtype dtype, void *tile);

    double (*multiply_adds)(int64_t steps);       /* runs that many of the set's best f32 multiply-add steps; returns the operations done */
    double (*read)(const void *p, int64_t bytes); /* touches every byte; returns some sum */
} at_attention_kernels;

#endif
