/* attention_kernels.h - the kernels of attention, one table per instruction set. simd/tile.h
 * describes the packed tiles, panels, register tiles and key blocks.
 *
 * Dims: D of queries and keys, Dv of values, Dp and Dvp the same rounded up to a multiple of
 * AT_DIM.
 */
#ifndef AT_SIMD_ATTENTION_H
#define AT_SIMD_ATTENTION_H

#include <math.h>

#include "simd/tile.h"

/* The softmax of a row is computed with powers of two relative to an origin, so that none
 * overflows: 2^(score factor - origin). With a max score m the origin is m factor, rounded to f32.
 * The rounding cancels in the division by the sum, as long as it is small: where m factor is large,
 * m is subtracted from each score before the product is rounded, and the origin is m factor
 * exactly. Padding by -1e9 makes such rows. Without a fused multiply-add each product is rounded on
 * its own, by 2^-24 of it: this is why the limit is low. */
static const float AT_LARGE_EXPONENT = 256;

static inline bool at_is_large(float max, float factor) {
    return max != -INFINITY && !(fabsf(max * factor) < AT_LARGE_EXPONENT);
}

/* What the sums of a row with that max score are relative to, as an exponent of 2. */
static inline double at_origin(float max, float factor) {
    if (max == -INFINITY) return -INFINITY;
    return at_is_large(max, factor) ? (double)max * (double)factor : (double)(max * factor);
}

/* One step of the online softmax: the rows of one register tile (query heads of some tokens that
 * share a kv head) against one key block of that kv head. A column is a token of the key block,
 * counted from 0. */
typedef struct at_step {
    /* The rows. */
    at_product product;
    int rows;             /* at most the geometry's rows[product] */
    const void *q;        /* as pack_queries wrote it */
    const float *q_scale; /* as pack_queries wrote it; AT_DOT_I8 only */
    float *o;             /* [rows][Dvp] sums of weights times values */
    float *max;           /* [rows] the max score so far; -inf at first */
    float *sum;           /* [rows] the sum of 2^(score factor - origin) so far; see at_origin */

    /* The keys and values. */
    attune_dtype dtype; /* of the tiles */
    int64_t D, Dv;
    int tiles;                                                      /* 1 .. AT_BLOCK_TILES */
    const void *k[AT_BLOCK_TILES], *v[AT_BLOCK_TILES];              /* packed tiles */
    const float *k_scale[AT_BLOCK_TILES], *v_scale[AT_BLOCK_TILES]; /* [AT_TILE] each; i8 only */
    /* false: V holds an Inf or a NaN, which must not reach the rows to which its token is not
     * visible. */
    bool v_finite;
    bool masked; /* scores may be -inf also between first[r] and last[r] */

    /* Later tiles, which the kernels prefetch into the cache while they compute; NULL: none. Each
     * step prefetches one of part_count equal parts, so that the steps of all register tiles over
     * one key block prefetch everything once. */
    const void *k_prefetch[AT_BLOCK_TILES], *v_prefetch[AT_BLOCK_TILES];
    int part_index, part_count;

    /* Visible columns: first[r] .. last[r] - 1 of row r, from .. to - 1 of all rows together. */
    int first[AT_MAX_ROWS], last[AT_MAX_ROWS], from, to;

    /* What one kernel passes to the next. */
    float factor;             /* softmax: a score times this is an exponent of 2; above 0 */
    float scale, softcap;     /* cap: a score becomes softcap tanh(score scale / softcap) */
    float *scores;            /* [rows][AT_SCORE_STRIDE] q . k, then weights (i8: times v_scale) */
    void *weights;            /* room for the same bytes: the weights as a dot product takes them */
    float alpha[AT_MAX_ROWS]; /* [rows] by which o is multiplied first */
    float weight_scale[AT_MAX_ROWS]; /* [rows] of the integer weights; AT_DOT_I8 only */
} at_step;

/* The gradients of some rows against the keys of a block. Both buffers are [rows][stride]; the
 * first `columns` elements of each row are written. */
typedef struct at_gradient_step {
    int rows, columns; /* columns: a multiple of half a panel */
    int64_t stride;    /* floats between two rows */
    float *weights;    /* in: q . k; out: 2^(exponent - lse), zero where a key is not visible */
    float *scores;     /* in: d_o . v, the gradient of each weight; out: of each q . k */
    const int *first;  /* [rows] the columns first[r] .. last[r] - 1 are visible to row r */
    const int *last;   /* [rows] */
    /* [rows] subtracted from each score before it is scaled: the max score of a row whose exponents
     * are large, else 0. With a softcap: from tanh(score scale / softcap). */
    const float *origin;
    const float *lse;   /* [rows] as exponents of 2, after that subtraction; +inf where no key is
                           visible to the row */
    const float *delta; /* [rows] d_o . o */
    float scale, softcap;
} at_gradient_step;

/* What a step adds to the summaries of its rows. exponents, distances and first are [rows] and
 * relative to the origin, as the step's sum is. */
typedef struct at_step_summaries {
    float *exponents; /* the sum of each weight times its exponent of 2: (score factor) - origin */
    float *distances; /* the sum of each weight times |query - column| */
    float *first;     /* the sum of the weights of the columns below first_columns */
    const float *query; /* [rows] the token of each row's query, counted as columns are */
    int first_columns;  /* from 0 to 4 */
} at_step_summaries;

typedef struct at_attention_kernels {
    /* The product for tiles and rows of these dtypes. */
    at_product (*product)(attune_dtype tile, attune_dtype rows);

    /* One step is these four calls in this order. Some column must be visible to some row. The
     * kernels compute the whole panels that overlap the columns from .. to - 1. */
    void (*scores)(at_step *step);
    void (*cap)(at_step *step); /* only where there is a softcap */
    void (*softmax)(at_step *step);
    void (*values)(at_step *step);

    /* In place of softmax: the same, and the summaries. */
    void (*summarized_softmax)(at_step *step, const at_step_summaries *summaries);

    /* Adds the weights of row r to sums[r], which has an element for each column of the key block
     * and which several rows may share. Called after scores and cap, in place of softmax. The
     * step's max is the max score of each row over all its keys, and its sum is what each power of
     * two relative to the origin is multiplied by: 1 / (the sum of all of them). */
    void (*columns)(const at_step *step, float *const *sums);

    /* From the gradient of each weight to the gradient of each score. */
    void (*gradients)(const at_gradient_step *step);

    /* Packs rows x [rows][D], stride floats apart, multiplied by factor. to: room for
     * at_queries_bytes(rows, D). q_scale: [3 * rows], AT_DOT_I8 only. */
    void (*pack_queries)(at_product product, const float *x, int64_t stride, int rows, int64_t D,
                         float factor, void *to, float *q_scale);

    /* Pack tokens x [tokens][D] or [tokens][Dv], stride floats apart, into the slots first .. first
     * + tokens - 1 of a tile. The other slots keep their contents. scale [AT_TILE]: the slots'
     * scales are written, for i8. pack_values returns false where a value is Inf or NaN. */
    void (*pack_keys)(const float *x, int64_t stride, int first, int tokens, int64_t D,
                      attune_dtype dtype, void *tile, float *scale);
    bool (*pack_values)(const float *x, int64_t stride, int first, int tokens, int64_t Dv,
                        attune_dtype dtype, void *tile, float *scale);
} at_attention_kernels;

#endif
