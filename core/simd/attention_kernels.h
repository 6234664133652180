/* attention_kernels.h - the kernels of attention. simd/tile.h describes the packed tiles. */
#ifndef AT_SIMD_ATTENTION_H
#define AT_SIMD_ATTENTION_H

#include "simd/tile.h"

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
} at_attention_kernels;

#endif
