/* nn.h - what the files of core/nn share: contiguous tensors in f32 or f64, and loops over their
 * rows.
 *
 * f64 goes through the f64 instance of the same kernels; bf16 and f16 are widened to f32 on the way
 * in and rounded on the way out.
 */
#ifndef AT_NN_NN_H
#define AT_NN_NN_H

#include "attune.h"
#include "simd/nn_kernels.h"

/* The kernels for that dtype. */
const at_nn_kernels *at_nn_kernels_of(attune_dtype dtype);

/* ESHAPE or EDTYPE where t is not like `like` (NULL: any shape) or no float. */
attune_status at_nn_check(const char *name, const attune_tensor *t, const attune_tensor *like);

/* t contiguous in f32 or f64: t itself where it is so. NULL gives a closed tensor. */
attune_status at_nn_in(const attune_tensor *t, attune_tensor *out);

/* A new result of t's shape, f32 or f64, not yet written; at_nn_out rounds it to the dtype wanted
 * and moves it to *out. */
attune_status at_nn_result(const attune_tensor *t, attune_tensor *wide);
attune_status at_nn_out(attune_tensor *wide, attune_dtype dtype, attune_tensor *out);

/* Row r of a contiguous tensor [.., n]; NULL of a closed one. */
void *at_nn_row(const attune_tensor *t, int64_t row, int64_t n);

/* Runs body(context, first, last, thread) over rows in pieces that the shape alone fixes. */
typedef attune_status (*at_nn_body)(void *context, int64_t first, int64_t last, int64_t piece);
int64_t at_nn_pieces(int64_t rows, int64_t n);
attune_status at_nn_rows(int64_t rows, int64_t n, at_nn_body body, void *context);

/* out [n] = the sums of part's rows [pieces][n], in their order. */
attune_status at_nn_sum_parts(const attune_tensor *part, attune_tensor *out);

#endif
