/* tile.h - the packed layout of keys and values, which kernels and their callers share.
 *
 *   tile           AT_TILE consecutive tokens of one kv head, packed; a K tile and a V tile
 *   depth          of a matrix product: the axis that is summed over. D for scores, tokens for
 *                  values.
 *   register tile  the sums that a kernel keeps in registers over the whole depth: some rows times
 *                  one panel of columns
 *   panel          as many columns as a register tile has: two vectors of f32
 *   key block      at most AT_BLOCK_TILES consecutive tiles, which one call of a kernel takes
 *
 * One step along the depth multiplies one element of each row by one row of a panel. So the columns
 * of a panel are contiguous: tokens in a K tile, dims in a V tile. Nothing is ever summed across
 * the lanes of a register.
 *
 *   K tile  [AT_TILE / panel][Dp][panel]     element (d, j): dim d of token j of the panel
 *   V tile  [Dvp / panel][AT_TILE][panel]    element (j, d): dim d of the panel, token j
 *
 * Dp and Dvp are D and Dv rounded up to a multiple of AT_DIM. The last panel of a V tile may have
 * half the columns. The padding is zero.
 *
 * Several steps of the depth may be interleaved, so that a 32-bit lane holds what one instruction
 * multiplies:
 *
 *   f32, f16   one step:    [depth][panel]
 *   bf16       two steps:   [depth / 2][panel][2]. A bf16 dot product takes the pair; a shift or a
 *                           mask converts either element to f32.
 *   i8         four steps:  [depth / 4][panel][4], in the sets that have 8-bit dot products. These
 *                           instructions multiply an unsigned by a signed integer, so a K tile
 *                           holds k + 128.
 *   i8         two steps:   [depth / 2][panel][2], in the other sets, which multiply pairs of
 *                           16-bit integers
 *
 * An i8 tile has one scale per token: the value is the integer times the scale.
 */
#ifndef AT_SIMD_TILE_H
#define AT_SIMD_TILE_H

#include "attune.h"
#include "base/int_math.h"

enum {
    AT_TILE = 64,       /* tokens of a tile */
    AT_DIM = 16,        /* dims are padded to a multiple of this */
    AT_BLOCK_TILES = 4, /* max tiles of a key block */
    /* Floats between two rows of scores: a key block's columns, and 16 more that keep the rows in
     * different cache sets. */
    AT_SCORE_STRIDE = AT_TILE * AT_BLOCK_TILES + 16,
    AT_MAX_ROWS = 32 /* max rows of a register tile in any instruction set */
};

/* How the elements of rows and of tiles are multiplied and summed. */
typedef enum at_product {
    /* f32 multiply-adds. Tiles of other dtypes are converted to f32 in registers. */
    AT_FMA,
    /* Pairs of bf16, summed in f32: for bf16 tiles and bf16 rows. Weights are rounded to bf16. */
    AT_DOT_BF16,
    /* Integers, summed in i32, with one scale per row. Sets with 8-bit dot products multiply quads
     * of 8 bits: a row and its weights become two digits each, 14 and 16 bits together. The other
     * sets multiply pairs of 16 bits, of which 15 are magnitude. */
    AT_DOT_I8,
    AT_PRODUCTS
} at_product;

/* The register tile of one instruction set. */
typedef struct at_geometry {
    int panel;             /* columns of a panel */
    int rows[AT_PRODUCTS]; /* max rows of a register tile; 0: the set lacks this product */
    int min_rows;          /* AT_DOT_BF16: fewer rows are faster by AT_FMA */
} at_geometry;

/* Bytes of one K tile (dims = D) or of one V tile (dims = Dv). */
static inline int64_t at_tile_bytes(attune_dtype dtype, int64_t dims) {
    return AT_TILE * at_round_up(dims, AT_DIM) * attune_dtype_size(dtype);
}

/* Bytes that suffice for the packed rows of one register tile, for every product. */
static inline int64_t at_queries_bytes(int64_t rows, int64_t D) {
    return rows * at_round_up(D, AT_DIM) * (int64_t)sizeof(float);
}

#endif
