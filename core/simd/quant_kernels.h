/* quant_kernels.h - activations times packed weights of 4 to 8 bits, in f32 or in integers.
 *
 * Activations. In f32 they are as they come. For integers each 32 neighbouring elements of a row
 * are quantised together: scale = max |x| / 127 in f32, and integers q = x / scale, rounded to
 * nearest even, from -127 to 127. Where a set multiplies bytes fast enough, f32 goes the same way:
 * integers of 24 bits, whose scale is a power of two, are sums of three bytes, 65536 a + 256 b + c,
 * and each of these planes is multiplied as such a row.
 *
 * Weights. 16 neighbouring outputs are a panel, whose integers are interleaved: a vector holds 4
 * neighbouring weights of each output, so that a lane is an output and sums need no reduction. A
 * panel has two parts, each from a multiple of 64 bytes:
 *
 *   heads   per block of the format, the factors of the 16 outputs, as the kind says
 *   chunks  per 32 inputs, chunks of 64 bytes: byte 4 o + e belongs to output o
 *
 * The 32 inputs are 8 groups of 4; e counts within a group. Of 8 bits, chunk g holds group g. Of
 * fewer, the chunks of high bits come first, and in the 4 chunks of low bits the lower half of
 * chunk c is group c and the upper half is group c + 4. High bits, of 5: bit g of the chunk is
 * group g. Of 6: two chunks of 4 groups each, group g in bits 2 (g % 4) and the next. Packed
 * weights take as much memory as the blocks of the file, but for Q4_K and Q5_K, whose 6-bit scales
 * become bytes.
 */
#ifndef AT_SIMD_QUANT_H
#define AT_SIMD_QUANT_H

#include <stdbool.h>
#include <stdint.h>

/* In the formulas q is an unsigned integer, of Q8_0 a signed one; d and m are f16. */
enum at_packed_kind {
    AT_PACKED_Q8_0, /* d q                head: d [16] */
    AT_PACKED_Q4_0, /* d (q - 8)          head: d [16] */
    AT_PACKED_Q4_1, /* d q + m            head: d [16], m [16] */
    AT_PACKED_Q5_0, /* d (q - 16)         head: d [16] */
    AT_PACKED_Q5_1, /* d q + m            head: d [16], m [16] */
    AT_PACKED_Q4_K, /* d s q - m t        head of 256 inputs: d [16], m [16], then bytes s [8][16]
                     */
    AT_PACKED_Q5_K, /* and t [8][16], for 32 inputs each */
    AT_PACKED_Q6_K, /* d s (q - 32)       head of 256 inputs: d [16], i8 s [16][16], for 16 each */
    AT_PACKED_KINDS
};

enum { AT_PANEL = 16, AT_CHUNK_BYTES = 64 };

typedef struct at_packed_layout {
    int inputs, head;      /* of a head: how many inputs it belongs to, and its bytes */
    int bits, high_chunks; /* bits of an integer; chunks of high bits per 32 inputs */
    int zero;              /* is subtracted from q */
} at_packed_layout;

/* Of each kind. A table of constants, so that kernels can be compiled for each kind. */
static const at_packed_layout at_packed_layouts[AT_PACKED_KINDS] = {
    [AT_PACKED_Q8_0] = {32, 32, 8, 0, 0},   [AT_PACKED_Q4_0] = {32, 32, 4, 0, 8},
    [AT_PACKED_Q4_1] = {32, 64, 4, 0, 0},   [AT_PACKED_Q5_0] = {32, 32, 5, 1, 16},
    [AT_PACKED_Q5_1] = {32, 64, 5, 1, 0},   [AT_PACKED_Q4_K] = {256, 320, 4, 0, 0},
    [AT_PACKED_Q5_K] = {256, 320, 5, 1, 0}, [AT_PACKED_Q6_K] = {256, 288, 6, 2, 32},
};

/* Where the chunks of a panel of n inputs begin, and the bytes of their chunks per 32 inputs. */
static inline int64_t at_packed_heads(int kind, int64_t n) {
    const int64_t bytes = n / at_packed_layouts[kind].inputs * at_packed_layouts[kind].head;
    return (bytes + AT_CHUNK_BYTES - 1) / AT_CHUNK_BYTES * AT_CHUNK_BYTES;
}
static inline int at_packed_chunks(int kind) {
    const at_packed_layout *l = &at_packed_layouts[kind];
    return l->bits == 8 ? 8 : 4 + l->high_chunks;
}

/* Of 32 activations: the sums are of their integers, first_sum of the first 16. */
typedef struct at_activation_block {
    float scale, sum, scaled_sum, first_sum; /* scaled_sum = scale * sum */
} at_activation_block;

enum { AT_PLANES = 3 };

/* Of 32 activations in planes. 65536 high + low is -8 times the sum of their integers: of all 32,
 * of the first 16, and of the last 16. The zero points of all formats are multiples of 8. */
typedef struct at_split_block {
    float scale, scaled_sum; /* scaled_sum: of the 32 numbers */
    int32_t high[3], low[3];
} at_split_block;

typedef struct at_quant_kernels {
    /* x [32 blocks] -> q [32 blocks], of [blocks]. A block with a NaN or Inf gets the scale NaN;
     * one whose scale would be subnormal becomes zero. Every set gives the same bits. */
    void (*quantise)(const float *x, int64_t blocks, int8_t *q, at_activation_block *of);
    /* x [32 blocks] -> planes q [AT_PLANES, 32 blocks], of [blocks]. NULL: the set has no
     * split_product. false: x has a NaN, an Inf, or a block so small that its scale would be
     * subnormal. */
    bool (*split)(const float *x, int64_t blocks, int8_t *q, at_split_block *of);
    /* out[r out_stride + o] = sum over the n inputs of x[r] times output o of the panel, r < rows,
     * o < outputs <= 16; q [rows, n], of [rows, n / 32]. A row has the same bits whatever rows is.
     */
    void (*product[AT_PACKED_KINDS])(const uint8_t *panel, int64_t n, const int8_t *q,
                                     const at_activation_block *of, int64_t rows, int outputs,
                                     float *out, int64_t out_stride);
    /* The same in f32: x [rows, n], sums [rows, n / 32] of each 32 neighbours of x, which formats
     * with an offset need. */
    void (*float_product[AT_PACKED_KINDS])(const uint8_t *panel, int64_t n, const float *x,
                                           const float *sums, int64_t rows, int outputs, float *out,
                                           int64_t out_stride);
    /* float_product of x in planes: q [rows, AT_PLANES, n], of [rows, n / 32]. NULL: it would not
     * be faster. */
    void (*split_product[AT_PACKED_KINDS])(const uint8_t *panel, int64_t n, const int8_t *q,
                                           const at_split_block *of, int64_t rows, int outputs,
                                           float *out, int64_t out_stride);
    /* The number of rows up to which float_product is faster than unpack and a matrix product. */
    int few_rows;
    /* x [32 blocks] -> sums [blocks] */
    void (*sum_32)(const float *x, int64_t blocks, float *sums);
    /* The weights of a panel: out[i out_stride + o] is input i of output o < 16, the same bits as
     * the format's to_f32; of outputs that the matrix lacks, numbers without a meaning. */
    void (*unpack[AT_PACKED_KINDS])(const uint8_t *panel, int64_t n, float *out,
                                    int64_t out_stride);
} at_quant_kernels;

#endif
