/* tensor.h - what the tensor operations have in common: checks, access to elements of any dtype,
 * and rows of strided views. */
#ifndef AT_TENSOR_TENSOR_H
#define AT_TENSOR_TENSOR_H

#include "attune.h"
#include "base/dtype.h"
#include "base/numbers.h"

/* ECLOSED if t is NULL or has no data. */
attune_status at_check_open(const char *name, const attune_tensor *t);

/* attune_tensor_new without zeroing, for results whose every element is written. */
attune_status at_tensor_new(attune_dtype dtype, int rank, const int64_t *shape, attune_tensor *out);

/* ESHAPE where several indices of t are one element in memory: an expanded view. */
attune_status at_check_writable(const char *name, const attune_tensor *t);

/* Counts a write in place: every public function that writes into an argument calls it. */
void at_tensor_written(const attune_tensor *t);

bool at_same_shape(const attune_tensor *a, const attune_tensor *b);

/* ESHAPE unless t has the extent of `like` along an axis from 0 on. axis_name, such as "head_dim",
 * is for the message. */
attune_status at_check_extent(const char *name, const attune_tensor *t, const char *axis_name,
                              int axis, const char *like_name, const attune_tensor *like);

/* *out is the axis from 0 on. -1 .. -rank count from the end. EVALUE: out of range. */
attune_status at_check_axis(const attune_tensor *t, int axis, int *out);

/* The element `offset` elements after t->data. A double holds the values of every dtype, except
 * i64 beyond 2^53. */
double at_load(const attune_tensor *t, int64_t offset);
/* Rounds to nearest even. Integers saturate, and NaN gives 0. */
void at_store(const attune_tensor *t, int64_t offset, double value);

/* A view of any rank as rows along its last axis. Row r starts at at_row_offset(t, r). */
typedef struct at_rows_view {
    int64_t rows, length, stride; /* stride: between neighbouring elements of a row */
} at_rows_view;
at_rows_view at_rows_of(const attune_tensor *t);
int64_t at_row_offset(const attune_tensor *t, int64_t row);

/* Converts n elements, `stride` apart, from t to f32 or f64 at `out`, and from x back into t. */
void at_load_row(const attune_tensor *t, int64_t offset, int64_t stride, int64_t n, float *out);
void at_load_row_f64(const attune_tensor *t, int64_t offset, int64_t stride, int64_t n,
                     double *out);
void at_store_row(const attune_tensor *t, int64_t offset, int64_t stride, int64_t n,
                  const float *x);
void at_store_row_f64(const attune_tensor *t, int64_t offset, int64_t stride, int64_t n,
                      const double *x);

/* *finite: no element is Inf or NaN. */
attune_status at_all_finite(const attune_tensor *t, bool *finite);

/* Elements per parallel task. A smaller loop is not worth more than one thread. */
enum { AT_CHUNK = 1 << 16 };

#endif
