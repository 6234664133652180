/* reduce_backward.c - gradients of softmax, sums, means and slices; sums of gradients.
 *
 *   y = softmax(x)     dx = y (dy - sum(dy y))
 */
#include <string.h>

#include "base/int_math.h"
#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"
#include "nn/nn_rows.h"
#include "tensor/map.h"
#include "tensor/tensor.h"

typedef struct softmax_job {
    attune_tensor dy, y, dx; /* the axis is the last */
    double *scratch;         /* [threads][2 n]; f32 rows use half of it */
    int64_t rows_per_task;
} softmax_job;

static void softmax_row_f32(float *dy, const float *y, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (double)dy[i] * (double)y[i];
    for (int64_t i = 0; i < n; i++) dy[i] = y[i] * (dy[i] - (float)sum);
}

static void softmax_row_f64(double *dy, const double *y, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += dy[i] * y[i];
    for (int64_t i = 0; i < n; i++) dy[i] = y[i] * (dy[i] - sum);
}

static attune_status softmax_task(void *context, int64_t task, int thread) {
    const softmax_job *j = context;
    const at_rows_view dy = at_rows_of(&j->dy), y = at_rows_of(&j->y), dx = at_rows_of(&j->dx);
    const int64_t n = dy.length, end = (task + 1) * j->rows_per_task;
    double *f64 = j->scratch + thread * 2 * n;
    float *f32 = (float *)f64;
    for (int64_t row = task * j->rows_per_task; row < end && row < dy.rows; row++) {
        const int64_t from = at_row_offset(&j->dy, row), kept = at_row_offset(&j->y, row),
                      to = at_row_offset(&j->dx, row);
        if (j->y.dtype == ATTUNE_F64) {
            at_load_row_f64(&j->dy, from, dy.stride, n, f64);
            at_load_row_f64(&j->y, kept, y.stride, n, f64 + n);
            softmax_row_f64(f64, f64 + n, n);
            at_store_row_f64(&j->dx, to, dx.stride, n, f64);
        } else {
            at_load_row(&j->dy, from, dy.stride, n, f32);
            at_load_row(&j->y, kept, y.stride, n, f32 + n);
            softmax_row_f32(f32, f32 + n, n);
            at_store_row(&j->dx, to, dx.stride, n, f32);
        }
    }
    return ATTUNE_OK;
}

/* A view with the axis last. */
static attune_status axis_last(const attune_tensor *t, int axis, attune_tensor *out) {
    return attune_tensor_transpose(t, axis, -1, out);
}

attune_status attune_softmax_backward(const attune_tensor *dy, const attune_tensor *y, int axis,
                                      attune_tensor *dx) {
    softmax_job j = {0};
    memset(dx, 0, sizeof *dx);
    AT_TRY(at_nn_check("y", y, NULL));
    AT_TRY(at_nn_check("dy", dy, y));
    AT_TRY(attune_init());
    AT_TRY(at_check_axis(y, axis, &axis));
    attune_status status = axis_last(dy, axis, &j.dy);
    if (status == ATTUNE_OK) status = axis_last(y, axis, &j.y);
    if (status == ATTUNE_OK) status = at_tensor_new(y->dtype, y->rank, y->shape, dx);
    if (status == ATTUNE_OK) status = axis_last(dx, axis, &j.dx);
    if (status == ATTUNE_OK) {
        const at_rows_view rows = at_rows_of(&j.dy);
        j.scratch = at_alloc(at_checked_mul(at_checked_mul(at_threads(), rows.length), 16));
        j.rows_per_task = rows.length >= AT_CHUNK / 4 ? 1 : AT_CHUNK / 4 / rows.length;
        status = j.scratch ? at_parallel(at_ceil_div(rows.rows, j.rows_per_task), softmax_task, &j)
                           : ATTUNE_EMEMORY;
    }
    at_free(j.scratch);
    attune_tensor_close(&j.dy);
    attune_tensor_close(&j.y);
    attune_tensor_close(&j.dx);
    if (status != ATTUNE_OK) attune_tensor_close(dx);
    return status;
}

attune_status attune_slice_backward(const attune_tensor *dy, int rank, const int64_t *shape,
                                    int axis, int64_t first, attune_tensor *dx) {
    attune_tensor whole = {0}, part = {0};
    memset(dx, 0, sizeof *dx);
    AT_TRY(at_nn_check("dy", dy, NULL));
    AT_TRY(attune_tensor_new(dy->dtype, rank, shape, &whole));
    attune_status status = at_check_axis(&whole, axis, &axis);
    if (status == ATTUNE_OK && dy->rank < rank)
        status = attune_tensor_select(&whole, axis, first, &part);
    else if (status == ATTUNE_OK)
        status = attune_tensor_slice(&whole, axis, first, first + dy->shape[axis], &part);
    if (status == ATTUNE_OK) status = attune_tensor_copy(dy, &part);
    attune_tensor_close(&part);
    if (status == ATTUNE_OK)
        *dx = whole;
    else
        attune_tensor_close(&whole);
    return status;
}

attune_status attune_reduce_backward(attune_reduction op, const attune_tensor *dy, int rank,
                                     const int64_t *shape, int axis, attune_tensor *dx) {
    attune_tensor part = {0};
    int64_t kept[ATTUNE_MAX_RANK] = {0}, to[ATTUNE_MAX_RANK] = {0};
    memset(dx, 0, sizeof *dx);
    AT_TRY(at_nn_check("dy", dy, NULL));
    if (rank < 0 || rank > ATTUNE_MAX_RANK || op == ATTUNE_MAX)
        return at_fail(ATTUNE_EVALUE, "shape: expected at most %d axes of a sum or a mean, got %d",
                       ATTUNE_MAX_RANK, rank);
    int64_t count = 1;
    for (int i = 0; i < rank; i++) {
        to[i] = shape[i];
        if (axis == ATTUNE_ALL_AXES || i == (axis < 0 ? axis + rank : axis)) {
            count = at_checked_mul(count, shape[i]);
            kept[i] = 1;
        } else {
            kept[i] = shape[i];
        }
    }
    attune_status status;
    if (op == ATTUNE_MEAN)
        status = attune_tensor_binary_scalar(ATTUNE_DIV, dy, (double)count, false, &part);
    else
        status = attune_tensor_contiguous(dy, &part);
    attune_tensor whole = {0};
    if (status == ATTUNE_OK && rank > 0) {
        if (part.rank == 0) { /* the one element gets an axis */
            part.rank = 1;
            part.shape[0] = 1;
            part.stride[0] = 1;
        }
        status = attune_tensor_view(&part, rank, kept, &whole);
        if (status == ATTUNE_OK) status = attune_tensor_expand(&whole, rank, to, dx);
    } else if (status == ATTUNE_OK) {
        status = attune_tensor_share(&part, dx);
    }
    attune_tensor_close(&whole);
    attune_tensor_close(&part);
    return status;
}

static void sum_f32(const void *context, int64_t n, const float *const *in, float *const *out) {
    (void)context;
    for (int64_t i = 0; i < n; i++) out[0][i] = in[0][i] + in[1][i];
}

static void sum_f64(const void *context, int64_t n, const double *const *in, double *const *out) {
    (void)context;
    for (int64_t i = 0; i < n; i++) out[0][i] = in[0][i] + in[1][i];
}

attune_status attune_tensor_accumulate(attune_tensor *sum, const attune_tensor *t) {
    AT_TRY(at_nn_check("sum", sum, NULL));
    AT_TRY(at_nn_check("tensor", t, sum));
    AT_TRY(attune_init());
    at_tensor_written(sum);
    const at_map map = {.in = {sum, t},
                        .out = {sum},
                        .f32 = sum_f32,
                        .f64 = sum_f64,
                        .in_f64 = sum->dtype == ATTUNE_F64};
    return at_map_run(&map);
}

typedef struct arg_job {
    attune_tensor dy, dx; /* dy contiguous, one element per row; dx a view with the axis last */
    const int64_t *index;
} arg_job;

static attune_status arg_rows(void *context, int64_t first, int64_t last, int64_t piece) {
    const arg_job *j = context;
    const int64_t stride = at_rows_of(&j->dx).stride;
    (void)piece;
    for (int64_t row = first; row < last; row++)
        at_store(&j->dx, at_row_offset(&j->dx, row) + j->index[row] * stride, at_load(&j->dy, row));
    return ATTUNE_OK;
}

/* A contiguous t of any shape as one row. */
static attune_tensor as_one_row(const attune_tensor *t) {
    attune_tensor row = *t;
    row.rank = 1;
    row.shape[0] = attune_tensor_count(t);
    row.stride[0] = 1;
    return row;
}

attune_status attune_arg_backward(const attune_tensor *dy, const attune_tensor *indices, int rank,
                                  const int64_t *shape, int axis, attune_tensor *dx) {
    attune_tensor whole = {0}, last = {0}, own = {0};
    arg_job j = {0};
    memset(dx, 0, sizeof *dx);
    AT_TRY(at_nn_check("dy", dy, NULL));
    AT_TRY(at_check_open("indices", indices));
    attune_status status = attune_tensor_new(dy->dtype, rank, shape, &whole);
    if (status == ATTUNE_OK && axis == ATTUNE_ALL_AXES)
        last = as_one_row(&whole);
    else if (status == ATTUNE_OK)
        status = at_check_axis(&whole, axis, &axis);
    if (status == ATTUNE_OK && axis != ATTUNE_ALL_AXES) {
        last = whole; /* the axis moves to the end, the others keep their order */
        for (int i = axis; i + 1 < rank; i++) {
            last.shape[i] = whole.shape[i + 1];
            last.stride[i] = whole.stride[i + 1];
        }
        last.shape[rank - 1] = whole.shape[axis];
        last.stride[rank - 1] = whole.stride[axis];
    }
    const int64_t rows = status == ATTUNE_OK ? at_rows_of(&last).rows : 0;
    if (status == ATTUNE_OK &&
        (attune_tensor_count(dy) != rows || attune_tensor_count(indices) != rows ||
         indices->dtype != ATTUNE_I64 || !attune_tensor_is_contiguous(indices)))
        status = at_fail(ATTUNE_ESHAPE,
                         "indices: expected i64, one for each of the %lld rows, got "
                         "%s",
                         (long long)rows, at_shape_text(indices->rank, indices->shape));
    if (status == ATTUNE_OK) status = attune_tensor_contiguous(dy, &own);
    if (status == ATTUNE_OK) {
        j = (arg_job){.dy = own, .dx = last, .index = indices->data};
        status = at_nn_rows(rows, last.shape[last.rank - 1], arg_rows, &j);
    }
    attune_tensor_close(&own);
    if (status == ATTUNE_OK)
        *dx = whole;
    else
        attune_tensor_close(&whole);
    return status;
}
