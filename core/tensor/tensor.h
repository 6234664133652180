/* tensor.h - what the tensor operations share: checks, elements of any dtype, and walks over
 * strided views. */
#ifndef AT_TENSOR_TENSOR_H
#define AT_TENSOR_TENSOR_H

#include "attune.h"
#include "base/dtype.h"
#include "base/numbers.h"

/* ECLOSED where t has no data. */
attune_status at_check_open(const char *name, const attune_tensor *t);

/* attune_tensor_new without the zeros: for results that are written as a whole. */
attune_status at_tensor_new(attune_dtype dtype, int rank, const int64_t *shape, attune_tensor *out);

bool at_same_shape(const attune_tensor *a, const attune_tensor *b);

/* -1 .. -rank count from the end; EVALUE outside. */
attune_status at_check_axis(const attune_tensor *t, int axis, int *out);

/* One element at an offset from t->data. Doubles hold every dtype's values but large i64. */
double at_load(const attune_tensor *t, int64_t offset);
void at_store(const attune_tensor *t, int64_t offset,
              double value); /* rounds to nearest even; integers saturate, NaN gives 0 */

/* Rows along the last axis, for walking a view without caring for its rank: row n of count / length
 * starts at offset(t, n). */
typedef struct at_rows_view {
    int64_t rows, length, stride; /* stride between a row's elements */
} at_rows_view;
at_rows_view at_rows_of(const attune_tensor *t);
int64_t at_row_offset(const attune_tensor *t, int64_t row);

/* n elements `stride` apart into f32 or f64, and back. */
void at_load_row(const attune_tensor *t, int64_t offset, int64_t stride, int64_t n, float *out);
void at_load_row_f64(const attune_tensor *t, int64_t offset, int64_t stride, int64_t n,
                     double *out);
void at_store_row(const attune_tensor *t, int64_t offset, int64_t stride, int64_t n,
                  const float *x);
void at_store_row_f64(const attune_tensor *t, int64_t offset, int64_t stride, int64_t n,
                      const double *x);

/* Whether no element is Inf or NaN. */
attune_status at_all_finite(const attune_tensor *t, bool *finite);

/* Elements of a parallel task; below it a loop is not worth sharing. */
enum { AT_CHUNK = 1 << 16 };

#endif
