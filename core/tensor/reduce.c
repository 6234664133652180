/* reduce.c - sums, means, maxima, minima and softmax over one axis or all.
 *
 * Sums are computed in double over pieces of a fixed size, and the sums of the pieces are added in
 * order, so the bits are the same for any number of threads.
 */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"
#include "simd/table.h"
#include "tensor/tensor.h"

enum {
    PART = 1024,    /* elements converted to f32 per step */
    PIECE = 1 << 16 /* elements per partial sum */
};

/* The maximum, or NaN if either is NaN. */
static double max_or_nan(double a, double b) { return isnan(a) || a > b ? a : b; }

static double min_or_nan(double a, double b) { return isnan(a) || a < b ? a : b; }

/* What a reduction starts with, and how it goes on. */
static double start_of(attune_reduction op) {
    return op == ATTUNE_MAX ? -INFINITY : op == ATTUNE_MIN ? INFINITY : 0;
}
static double joined(attune_reduction op, double total, double x) {
    return op == ATTUNE_MAX   ? max_or_nan(total, x)
           : op == ATTUNE_MIN ? min_or_nan(total, x)
                              : total + x;
}

/* The sum, maximum or minimum of n elements `stride` apart. */
static double reduce_run(attune_reduction op, const attune_tensor *t, int64_t offset,
                         int64_t stride, int64_t n) {
    const at_elementwise_kernels *kernels = &at_simd_now()->elementwise;
    double total = start_of(op);
    if (t->dtype == ATTUNE_F32 && stride == 1 && op != ATTUNE_MIN) {
        const float *x = (const float *)t->data + offset;
        return op == ATTUNE_MAX ? (double)kernels->max(x, n) : kernels->sum(x, n);
    }
    for (int64_t i = 0; i < n; i++) {
        double x = at_load(t, offset + i * stride);
        total = joined(op, total, x);
    }
    return total;
}

/* Maxima and minima of i64, which double does not hold beyond 2^53. */
static bool is_i64_extreme(attune_reduction op, const attune_tensor *t) {
    return t->dtype == ATTUNE_I64 && (op == ATTUNE_MAX || op == ATTUNE_MIN);
}

/* `best`, or what of n elements of i64 is beyond it. */
static int64_t extreme_of_run(attune_reduction op, const attune_tensor *t, int64_t offset,
                              int64_t stride, int64_t n, int64_t best) {
    const int64_t *x = (const int64_t *)t->data + offset;
    for (int64_t i = 0; i < n; i++)
        if (op == ATTUNE_MAX ? x[i * stride] > best : x[i * stride] < best) best = x[i * stride];
    return best;
}

static int64_t first_extreme(attune_reduction op) {
    return op == ATTUNE_MAX ? INT64_MIN : INT64_MAX;
}

typedef struct reduce_job {
    attune_reduction op;
    attune_tensor t; /* the reduced axis is the last */
    const attune_tensor *out;
    int64_t rows_per_task;
    double *part; /* [pieces] for a reduction over all axes */
    attune_tensor flat;
} reduce_job;

static attune_status piece_task(void *context, int64_t task, int thread) {
    reduce_job *j = context;
    const int64_t length = at_rows_of(&j->flat).length, rows = at_rows_of(&j->flat).rows,
                  stride = at_rows_of(&j->flat).stride;
    (void)thread;
    double total = start_of(j->op);
    int64_t begin = task * j->rows_per_task, end = begin + j->rows_per_task;
    for (int64_t row = begin; row < end && row < rows; row++) {
        double x = reduce_run(j->op, &j->flat, at_row_offset(&j->flat, row), stride, length);
        total = joined(j->op, total, x);
    }
    j->part[task] = total;
    return ATTUNE_OK;
}

static attune_status i64_extreme_of_all(attune_reduction op, const attune_tensor *t,
                                        attune_tensor *out) {
    const at_rows_view rows = at_rows_of(t);
    int64_t best = first_extreme(op);
    for (int64_t row = 0; row < rows.rows; row++)
        best = extreme_of_run(op, t, at_row_offset(t, row), rows.stride, rows.length, best);
    AT_TRY(at_tensor_new(ATTUNE_I64, 0, NULL, out));
    *(int64_t *)out->data = best;
    return ATTUNE_OK;
}

static attune_status reduce_all(attune_reduction op, const attune_tensor *t, attune_tensor *out) {
    if (is_i64_extreme(op, t)) return i64_extreme_of_all(op, t, out);
    reduce_job j = {.op = op, .flat = *t};
    const int64_t count = attune_tensor_count(t);
    if (attune_tensor_is_contiguous(t)) {
        int64_t piece = PIECE;
        while (count % piece) piece /= 2;
        if (piece >= PART || t->rank == 0) {
            j.flat.rank = 2;
            j.flat.shape[0] = count / piece;
            j.flat.shape[1] = piece;
            j.flat.stride[0] = piece;
            j.flat.stride[1] = 1;
        }
    }
    at_rows_view rows = at_rows_of(&j.flat);
    j.rows_per_task = rows.length >= PIECE ? 1 : PIECE / rows.length;
    const int64_t pieces = at_ceil_div(rows.rows, j.rows_per_task);
    j.part = at_alloc(at_checked_mul(pieces, (int64_t)sizeof *j.part));
    if (!j.part) return ATTUNE_EMEMORY;
    attune_status status = at_parallel(pieces, piece_task, &j);
    double total = start_of(op);
    for (int64_t i = 0; i < pieces && status == ATTUNE_OK; i++)
        total = joined(op, total, j.part[i]);
    at_free(j.part);
    AT_TRY(status);
    AT_TRY(at_tensor_new(t->dtype, 0, NULL, out));
    at_store(out, 0, op == ATTUNE_MEAN ? total / (double)count : total);
    return ATTUNE_OK;
}

/* t with the axis moved to the end, so that each row is reduced to one element. */
static attune_tensor axis_last(const attune_tensor *t, int axis) {
    attune_tensor v = *t;
    for (int i = axis; i + 1 < t->rank; i++) {
        v.shape[i] = t->shape[i + 1];
        v.stride[i] = t->stride[i + 1];
    }
    v.shape[t->rank - 1] = t->shape[axis];
    v.stride[t->rank - 1] = t->stride[axis];
    return v;
}

static attune_status row_task(void *context, int64_t task, int thread) {
    reduce_job *j = context;
    const at_rows_view rows = at_rows_of(&j->t);
    (void)thread;
    for (int64_t row = task * j->rows_per_task;
         row < (task + 1) * j->rows_per_task && row < rows.rows; row++) {
        int64_t offset = at_row_offset(&j->t, row);
        double total = start_of(j->op);
        if (is_i64_extreme(j->op, &j->t)) {
            ((int64_t *)j->out->data)[row] = extreme_of_run(j->op, &j->t, offset, rows.stride,
                                                            rows.length, first_extreme(j->op));
            continue;
        }
        for (int64_t i = 0; i < rows.length; i += PIECE) {
            int64_t n = rows.length - i < PIECE ? rows.length - i : PIECE;
            double x = reduce_run(j->op, &j->t, offset + i * rows.stride, rows.stride, n);
            total = joined(j->op, total, x);
        }
        at_store(j->out, row, j->op == ATTUNE_MEAN ? total / (double)rows.length : total);
    }
    return ATTUNE_OK;
}

attune_status attune_tensor_reduce(attune_reduction op, const attune_tensor *t, int axis,
                                   attune_tensor *out) {
    attune_tensor from = *t;
    memset(out, 0, sizeof *out);
    AT_TRY(at_check_open("tensor", &from));
    AT_TRY(attune_init());
    if (op == ATTUNE_MEAN && at_is_integer(from.dtype)) {
        return at_fail(ATTUNE_EDTYPE, "mean: expected a float dtype, got %s",
                       attune_dtype_name(from.dtype));
    }
    if (axis == ATTUNE_ALL_AXES) return reduce_all(op, &from, out);
    AT_TRY(at_check_axis(&from, axis, &axis));
    reduce_job j = {.op = op, .t = axis_last(&from, axis), .out = out};
    AT_TRY(at_tensor_new(from.dtype, from.rank - 1, j.t.shape, out));
    at_rows_view rows = at_rows_of(&j.t);
    j.rows_per_task = rows.length >= PIECE ? 1 : PIECE / rows.length;
    attune_status status = at_parallel(at_ceil_div(rows.rows, j.rows_per_task), row_task, &j);
    if (status != ATTUNE_OK) attune_tensor_close(out);
    return status;
}

/* ---- softmax --------------------------------------------------------------------------------- */

typedef struct softmax_job {
    attune_tensor from, to; /* the softmax runs over the last axis */
    float *row;             /* [threads][length], or NULL where f64_row is used */
    double *f64_row;
    int64_t rows_per_task;
} softmax_job;

static void softmax_row(float *x, int64_t n) {
    const at_elementwise_kernels *kernels = &at_simd_now()->elementwise;
    float max = kernels->max(x, n);
    if (max == -INFINITY) {
        memset(x, 0, (size_t)n * sizeof *x);
        return;
    }
    for (int64_t i = 0; i < n; i++) x[i] -= max;
    kernels->exp(x, x, n);
    const float factor = (float)(1 / kernels->sum(x, n));
    for (int64_t i = 0; i < n; i++) x[i] *= factor;
}

static void softmax_row_f64(double *x, int64_t n) {
    double max = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++) max = max_or_nan(max, x[i]);
    for (int64_t i = 0; i < n; i++) sum += x[i] = max == -INFINITY ? 0 : exp(x[i] - max);
    for (int64_t i = 0; i < n && max != -INFINITY; i++) x[i] /= sum;
}

static attune_status softmax_task(void *context, int64_t task, int thread) {
    softmax_job *j = context;
    const at_rows_view from = at_rows_of(&j->from), to = at_rows_of(&j->to);
    for (int64_t row = task * j->rows_per_task;
         row < (task + 1) * j->rows_per_task && row < from.rows; row++) {
        int64_t a = at_row_offset(&j->from, row), b = at_row_offset(&j->to, row), n = from.length;
        if (j->f64_row) {
            double *x = j->f64_row + thread * n;
            at_load_row_f64(&j->from, a, from.stride, n, x);
            softmax_row_f64(x, n);
            at_store_row_f64(&j->to, b, to.stride, n, x);
        } else {
            float *x = j->row + thread * n;
            at_load_row(&j->from, a, from.stride, n, x);
            softmax_row(x, n);
            at_store_row(&j->to, b, to.stride, n, x);
        }
    }
    return ATTUNE_OK;
}

attune_status attune_tensor_softmax(const attune_tensor *t, int axis, attune_tensor *out) {
    attune_tensor from = *t;
    memset(out, 0, sizeof *out);
    AT_TRY(at_check_open("tensor", &from));
    AT_TRY(attune_init());
    if (at_is_integer(from.dtype))
        return at_fail(ATTUNE_EDTYPE, "softmax: expected a float dtype, got %s",
                       attune_dtype_name(from.dtype));
    AT_TRY(at_check_axis(&from, axis, &axis));
    AT_TRY(at_tensor_new(from.dtype, from.rank, from.shape, out));
    softmax_job j = {.from = axis_last(&from, axis), .to = axis_last(out, axis)};
    const at_rows_view rows = at_rows_of(&j.from);
    const bool in_f64 = from.dtype == ATTUNE_F64;
    void *scratch =
        at_alloc(at_checked_mul(at_checked_mul(at_threads(), rows.length), in_f64 ? 8 : 4));
    if (in_f64)
        j.f64_row = scratch;
    else
        j.row = scratch;
    j.rows_per_task = rows.length >= AT_CHUNK / 4 ? 1 : AT_CHUNK / 4 / rows.length;
    attune_status status =
        scratch ? at_parallel(at_ceil_div(rows.rows, j.rows_per_task), softmax_task, &j)
                : ATTUNE_EMEMORY;
    at_free(scratch);
    if (status != ATTUNE_OK) attune_tensor_close(out);
    return status;
}

/* ---- nonfinite values ------------------------------------------------------------------------ */

typedef struct finite_job {
    const attune_tensor *t;
    int64_t rows_per_task;
    atomic_bool found;
} finite_job;

static attune_status finite_task(void *context, int64_t task, int thread) {
    finite_job *j = context;
    const at_elementwise_kernels *kernels = &at_simd_now()->elementwise;
    const at_rows_view rows = at_rows_of(j->t);
    float part[PART];
    bool finite = true;
    (void)thread;
    for (int64_t row = task * j->rows_per_task;
         row < (task + 1) * j->rows_per_task && row < rows.rows; row++) {
        const int64_t offset = at_row_offset(j->t, row);
        if (j->t->dtype == ATTUNE_F32 && rows.stride == 1) {
            finite = kernels->all_finite((const float *)j->t->data + offset, rows.length) && finite;
            continue;
        }
        for (int64_t i = 0; i < rows.length; i += PART) {
            const int64_t n = rows.length - i < PART ? rows.length - i : PART;
            at_load_row(j->t, offset + i * rows.stride, rows.stride, n, part);
            finite = kernels->all_finite(part, n) && finite;
        }
    }
    if (!finite) atomic_store(&j->found, true);
    return ATTUNE_OK;
}

enum { LONG_ROW = 256 };

/* Whether the elements are all those of a stretch of memory, in any order of the axes. */
static bool is_stretch(const attune_tensor *t) {
    bool taken[ATTUNE_MAX_RANK] = {false};
    int64_t expected = 1;
    for (int n = 0; n < t->rank; n++) {
        int axis = -1;
        for (int i = 0; i < t->rank && axis < 0; i++)
            if (!taken[i] && (t->stride[i] == expected || t->shape[i] == 1)) axis = i;
        if (axis < 0) return false;
        taken[axis] = true;
        expected *= t->shape[axis];
    }
    return true;
}

attune_status at_all_finite(const attune_tensor *t, bool *finite) {
    /* The order does not matter, and long rows are checked faster: the longest power of two. */
    const int64_t count = attune_tensor_count(t), power = count & -count,
                  row = power < AT_CHUNK ? power : AT_CHUNK;
    attune_tensor flat = *t;
    if (row >= LONG_ROW && is_stretch(t)) {
        flat.rank = 2;
        flat.shape[0] = count / row;
        flat.shape[1] = flat.stride[0] = row;
        flat.stride[1] = 1;
    }
    finite_job j = {.t = &flat};
    const at_rows_view rows = at_rows_of(&flat);
    j.rows_per_task = rows.length >= AT_CHUNK ? 1 : AT_CHUNK / rows.length;
    attune_status status = at_parallel(at_ceil_div(rows.rows, j.rows_per_task), finite_task, &j);
    *finite = !atomic_load(&j.found);
    return status;
}
