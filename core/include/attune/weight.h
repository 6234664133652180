/* attune/weight.h - matrices of weights that stay in the format of their file. */
#ifndef ATTUNE_WEIGHT_H
#define ATTUNE_WEIGHT_H

#include "attune/files.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct attune_weight attune_weight; /* [outputs, inputs], in memory as in the file */

/* From a file: a tensor of two axes, of any format that attune_file_read takes but integers.
 * Errors: as attune_file_read; ESHAPE. From a tensor [outputs, inputs], f32, f16 or bf16: a copy.
 * *out is NULL after an error. */
ATTUNE_API attune_status attune_weight_read(const attune_file *file, int64_t i,
                                            attune_weight **out);
ATTUNE_API attune_status attune_weight_of(const attune_tensor *matrix, attune_weight **out);
ATTUNE_API void attune_weight_close(attune_weight *weight); /* weight may be NULL */

/* What attune_file_tensor says of it, without a name. */
ATTUNE_API attune_stored attune_weight_describe(const attune_weight *weight);

/* y = x W' + bias: x [rows, inputs] f32, contiguous   bias [outputs] f32 or NULL   y [rows,
 * outputs] f32. Products are exact products of the stored weights with x, added in f32. Up to 4
 * rows read the weights as they are stored; more rows convert blocks of them to f32 for a matrix
 * product. */
ATTUNE_API attune_status attune_weight_apply(const attune_weight *weight, const attune_tensor *x,
                                             const attune_tensor *bias, attune_tensor *y);

/* The rows of the matrix that ids name: ids i64 [..], from 0 -> [.., inputs] f32. */
ATTUNE_API attune_status attune_weight_rows(const attune_weight *weight, const attune_tensor *ids,
                                            attune_tensor *out);

#ifdef __cplusplus
}
#endif

#endif
