/* attention.h - the kernels of attention, and how keys and values lie in memory for them.
 *
 * Keys and values are packed in tiles of AT_TILE tokens, each tile in panels as wide as a kernel's
 * register tile (panel = 2 vectors). A step of a product multiplies one element of a row by a
 * panel's row, so lanes are tokens in a K tile and dims in a V tile, and nothing is ever summed
 * across a register:
 *
 *   K tile  [AT_TILE / panel][Dp][panel]     element (d, j): token j of the panel, dim d
 *   V tile  [Dvp / panel][AT_TILE][panel]    element (j, d): dim d of the panel, token j; the last
 * panel may be half as wide
 *
 * Dp and Dvp are D and Dv rounded up to AT_DIM. bf16 interleaves two steps of the product, [.. /
 * 2][panel][2], so that a 32-bit lane holds what a bf16 dot product multiplies, and a shift or a
 * mask widens either. i8 interleaves four, [.. / 4][panel][4], in the sets that have 8-bit dot
 * products, where keys are kept as k + 128, since those instructions multiply an unsigned by a
 * signed number, and two, [.. / 2][panel][2], in the others, which multiply pairs of 16-bit
 * integers. f32 and f16 are plain. What pads is zero.
 *
 * An i8 tile comes with a scale a token: the value is the integer times that.
 */
#ifndef AT_SIMD_ATTENTION_H
#define AT_SIMD_ATTENTION_H

#include "attune.h"
#include "base/int_math.h"

enum {
    AT_TILE = 64,       /* tokens */
    AT_DIM = 16,        /* dims are padded to a multiple */
    AT_BLOCK_TILES = 4, /* tiles that a kernel takes at once, at most */
    AT_SCORE_STRIDE =
        AT_TILE * AT_BLOCK_TILES +
        16, /* floats between rows of scores; the 16 keep rows off one another's cache sets */
    AT_MAX_ROWS = 32 /* rows of a panel, over all sets */
};

/* How rows and tiles are multiplied. */
typedef enum at_product {
    AT_FMA,      /* f32 multiply-adds; tiles of other dtypes are widened on the way */
    AT_DOT_BF16, /* pairs of bf16 summed into f32: for bf16 tiles and bf16 rows, whose weights are
                    rounded to bf16 too */
    /* Integers summed into i32, with a scale a row. Quads of 8 bits: rows and weights go as two
     * digits each, 14 and 16 bits. Where a set has none, pairs of 16 bits, 15 of them magnitude. */
    AT_DOT_I8,
    AT_PRODUCTS
} at_product;

/* One step of the online softmax: a panel of rows (query heads of some tokens that share a kv head)
 * against a block of consecutive tiles of that kv head. Columns count the block's tokens, from 0.
 */
typedef struct at_step {
    /* the rows */
    at_product product;
    int rows;
    const void *q;        /* as pack_queries left it */
    const float *q_scale; /* [rows], AT_DOT_I8 */
    float *o;             /* [rows][Dvp] sums of weights times values */
    float *max;           /* [rows] the greatest exponent so far, -inf at first */
    float *sum;           /* [rows] of 2^(exponent - max) */

    /* the keys */
    attune_dtype dtype;
    int64_t D, Dv;
    int tiles; /* at most AT_BLOCK_TILES */
    const void *k[AT_BLOCK_TILES], *v[AT_BLOCK_TILES];
    const float *k_scale[AT_BLOCK_TILES], *v_scale[AT_BLOCK_TILES]; /* [AT_TILE] each, i8 */
    bool v_finite; /* false: V holds an Inf or NaN, which must not reach rows that do not see it */
    const void *k_ahead[AT_BLOCK_TILES],
        *v_ahead[AT_BLOCK_TILES]; /* what comes later, to be fetched into the cache; NULL: nothing
                                   */
    bool masked; /* scores may be -inf where a row sees nothing, between the columns that it sees */
    int share, shares; /* .. of which these rows fetch their part, the share-th of so many */

    /* who sees whom: row r the columns first[r] .. last[r] - 1, all rows together those in from ..
     * to - 1 */
    int first[AT_MAX_ROWS], last[AT_MAX_ROWS], from, to;

    /* what passes from one kernel to the next */
    float factor;         /* softmax: exponents of 2 are scores times this, at least 0 */
    float scale, softcap; /* cap: score becomes softcap tanh(score scale / softcap) */
    float
        *scores; /* [rows][AT_SCORE_STRIDE]: q . k, then weights; for i8 times the values' scales */
    void *weights;                   /* of the same size: weights as a dot product takes them */
    float alpha[AT_MAX_ROWS];        /* what o is multiplied by first */
    float weight_scale[AT_MAX_ROWS]; /* AT_DOT_I8: of the integers */
} at_step;

/* Gradients of some rows against a block of keys: both buffers are [rows][stride], and so many
 * columns of each row are written. */
typedef struct at_gradient_step {
    int rows, columns; /* columns: a multiple of half a panel */
    int64_t stride;
    float *weights;   /* in: q . k; out: 2^(exponent - lse), zero where nothing is seen */
    float *scores;    /* in: d_o . v, the gradient of each weight; out: of each q . k */
    const int *first; /* row r sees the columns first[r] .. last[r] - 1 */
    const int *last;
    const float *lse;   /* [rows] as exponents of 2; +inf where a row sees nothing */
    const float *delta; /* [rows] d_o . o */
    float scale, softcap;
} at_gradient_step;

typedef struct at_attention_kernels {
    int rows[AT_PRODUCTS]; /* a panel's rows at most; 0: the set has no such product */
    int panel;             /* columns of a panel */
    at_product (*product)(attune_dtype tile,
                          attune_dtype rows); /* the one for tiles and rows of these dtypes */

    /* A step is these four, in this order, where some row sees something. Whole panels of columns
     * around from .. to are computed. */
    void (*scores)(at_step *step);
    void (*cap)(at_step *step); /* where there is a softcap */
    void (*softmax)(at_step *step);
    void (*values)(at_step *step);

    void (*gradients)(const at_gradient_step *step);

    /* Rows [rows][D], stride floats apart, times factor. to: pack_bytes at most. */
    void (*pack_queries)(at_product product, const float *x, int64_t stride, int rows, int64_t D,
                         float factor, void *to, float *q_scale);

    /* Packs tokens into slots first .. first + tokens - 1 of a tile; the others stay. x
     * [tokens][D], stride floats apart. scale [AT_TILE]: of i8. Values: false when one is Inf or
     * NaN. */
    void (*pack_keys)(const float *x, int64_t stride, int first, int tokens, int64_t D,
                      attune_dtype dtype, void *tile, float *scale);
    bool (*pack_values)(const float *x, int64_t stride, int first, int tokens, int64_t Dv,
                        attune_dtype dtype, void *tile, float *scale);

    /* Limits: runs that many of the set's best steps of a product (2 operations a multiplication);
     * returns the operations done. NULL where the set has none. */
    double (*peak[AT_PRODUCTS])(int64_t steps);
    double (*read)(const void *p, int64_t bytes); /* touches every byte; returns some sum */
} at_attention_kernels;

/* Bytes of a panel's packed rows, over all products. */
static inline int64_t at_queries_bytes(int64_t rows, int64_t D) {
    return rows * at_round_up(D, AT_DIM) * (int64_t)sizeof(float);
}

#endif
