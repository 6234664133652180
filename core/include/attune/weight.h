/* attune/weight.h - matrices of weights that stay in the format of their file. */
#ifndef ATTUNE_WEIGHT_H
#define ATTUNE_WEIGHT_H

#include "attune/files.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct attune_weight
    attune_weight; /* [outputs, inputs], as many bits each as in the file */

/* How products are computed. F32: exact weights times activations of f32. I8: weights in blocks
 * (Q8_0 to Q6_K) times activations that are quantised to 8 bits, 32 neighbouring ones by one scale
 * max |x| / 127, in integers; the sum over a block is exact. Plain weights are computed as in F32.
 */
typedef enum attune_compute { ATTUNE_COMPUTE_F32, ATTUNE_COMPUTE_I8 } attune_compute;

/* From a file: a tensor of two axes, of any format that attune_file_read takes but integers. Blocks
 * are packed while they are read, and take as much memory as in the file (Q4_K and Q5_K 2 to 3
 * percent more). Errors: as attune_file_read; ESHAPE. From a tensor [outputs, inputs], f32,
 * f16 or bf16: a copy. *out is NULL after an error. One thread at a time reads weights of a file.
 * Weights of less than 4 MiB share blocks of memory, which are freed when all of their weights and
 * the file are closed. */
ATTUNE_API attune_status attune_weight_read(attune_file *file, int64_t i, attune_compute compute,
                                            attune_weight **out);
ATTUNE_API attune_status attune_weight_of(const attune_tensor *matrix, attune_weight **out);
ATTUNE_API void attune_weight_close(attune_weight *weight); /* weight may be NULL */

/* What attune_file_tensor says of it, without a name. bytes: in memory. */
ATTUNE_API attune_stored attune_weight_describe(const attune_weight *weight);

/* y = x W' + bias: x [rows, inputs] f32, contiguous   bias [outputs] f32 or NULL   y [rows,
 * outputs] f32. With F32 the weights are exact, and products are added in f32: up to 4 rows (of
 * packed blocks 40 with AVX-512, else 8) read the weights as they are stored; more rows convert
 * parts of them to f32 for a matrix product. Where the rows are multiplied by bytes (packed blocks,
 * with VNNI or with AVX2 alone), 32 neighbours of x are rounded to integers of 24 bits with one
 * scale. With I8 a row has the same bits whatever the other rows are; a block of x with a NaN or
 * Inf makes its row NaN. */
ATTUNE_API attune_status attune_weight_apply(const attune_weight *weight, const attune_tensor *x,
                                             const attune_tensor *bias, attune_tensor *y);

/* The same for up to ATTUNE_MAX_WEIGHTS matrices that take one x, with the same bits:
 * y[i] = x W[i]' + bias[i]. The threads meet once for all matrices: for one row of x that takes as
 * long as reading a small matrix. */
enum { ATTUNE_MAX_WEIGHTS = 4 };
ATTUNE_API attune_status attune_weights_apply(const attune_weight *const *weight,
                                              const attune_tensor *const *bias, int count,
                                              const attune_tensor *x, attune_tensor *y);

/* The rows of the matrix that ids name: ids i64 [..], from 0 -> [.., inputs] f32. */
ATTUNE_API attune_status attune_weight_rows(const attune_weight *weight, const attune_tensor *ids,
                                            attune_tensor *out);

#ifdef __cplusplus
}
#endif

#endif
