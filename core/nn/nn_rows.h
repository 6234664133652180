/* nn_rows.h - what the files of core/nn have in common: contiguous tensors in f32 or f64, and loops
 * over their rows.
 *
 * f64 tensors are computed by the f64 instance of the same kernels. bf16 and f16 inputs are
 * converted to f32, and results are rounded back.
 */
#ifndef AT_NN_NN_ROWS_H
#define AT_NN_NN_ROWS_H

#include "attune.h"
#include "simd/nn_kernels.h"

/* The f64 kernels for f64, and the f32 kernels of the instruction set in use for other dtypes. */
const at_nn_kernels *at_nn_kernels_of(attune_dtype dtype);

/* EDTYPE: t is not a float tensor. With `like` also ESHAPE: its shape differs; EDTYPE: only one of
 * both is f64. like may be NULL. */
attune_status at_nn_check(const char *name, const attune_tensor *t, const attune_tensor *like);

/* *out = t, contiguous and in f32 or f64: another owner of the same memory if t is so already. t
 * NULL gives a closed tensor. */
attune_status at_nn_in(const attune_tensor *t, attune_tensor *out);

/* A new, unwritten result of the shape of t in f32 or f64. at_nn_out converts it to the dtype,
 * moves it to *out and closes it, also after a failure. */
attune_status at_nn_result(const attune_tensor *t, attune_tensor *result);
attune_status at_nn_out(attune_tensor *result, attune_dtype dtype, attune_tensor *out);

/* Row r of a contiguous tensor [.., n]; NULL if the tensor is closed. */
void *at_nn_row(const attune_tensor *t, int64_t row, int64_t n);

/* Runs body(context, first, last, piece) for rows [first, last) of each piece. The shape alone
 * decides the at_nn_pieces() pieces, so partial sums per piece do not depend on threads. */
typedef attune_status (*at_nn_body)(void *context, int64_t first, int64_t last, int64_t piece);
int64_t at_nn_pieces(int64_t rows, int64_t n);
attune_status at_nn_rows(int64_t rows, int64_t n, at_nn_body body, void *context);

/* out [n] = the sum of the rows of part [pieces, n], added in order. */
attune_status at_nn_sum_parts(const attune_tensor *part, attune_tensor *out);

#endif
