/* order.c - the indices of the largest elements, and running sums along an axis.
 *
 * NaN counts as the largest and as the smallest: it is found first. Among equals the first index is
 * found first.
 */
#include <math.h>
#include <string.h>

#include "base/int_math.h"
#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"
#include "tensor/tensor.h"

typedef struct order_job {
    attune_tensor t, values, indices; /* the axis is the last; values is closed for argmax */
    bool smallest, reverse;
    int64_t k, rows_per_task;
    int64_t *heap; /* [threads][k] */
} order_job;

static int64_t integer_at(const attune_tensor *t, int64_t offset) {
    return t->dtype == ATTUNE_I64   ? ((const int64_t *)t->data)[offset]
           : t->dtype == ATTUNE_I32 ? ((const int32_t *)t->data)[offset]
                                    : ((const int8_t *)t->data)[offset];
}

/* Whether element x of the row at `offset` comes before element y. */
static bool comes_before(const order_job *j, int64_t offset, int64_t x, int64_t y) {
    const int64_t stride = at_rows_of(&j->t).stride;
    if (at_is_integer(j->t.dtype)) {
        const int64_t a = integer_at(&j->t, offset + x * stride),
                      b = integer_at(&j->t, offset + y * stride);
        if (a != b) return j->smallest ? a < b : a > b;
        return x < y;
    }
    const double a = at_load(&j->t, offset + x * stride), b = at_load(&j->t, offset + y * stride);
    if (isnan(a) != isnan(b)) return isnan(a);
    if (a != b && !isnan(a)) return j->smallest ? a < b : a > b;
    return x < y;
}

static attune_status arg_task(void *context, int64_t task, int thread) {
    const order_job *j = context;
    const at_rows_view rows = at_rows_of(&j->t);
    (void)thread;
    for (int64_t row = task * j->rows_per_task;
         row < (task + 1) * j->rows_per_task && row < rows.rows; row++) {
        const int64_t offset = at_row_offset(&j->t, row);
        int64_t best = 0;
        for (int64_t i = 1; i < rows.length; i++)
            if (comes_before(j, offset, i, best)) best = i;
        ((int64_t *)j->indices.data)[row] = best;
    }
    return ATTUNE_OK;
}

/* Moves element 0 of a heap of n down until no child comes after its parent. */
static void sift_down(const order_job *j, int64_t offset, int64_t *heap, int64_t n) {
    for (int64_t parent = 0;;) {
        int64_t last = parent;
        for (int64_t child = 2 * parent + 1; child <= 2 * parent + 2 && child < n; child++)
            if (comes_before(j, offset, heap[last], heap[child])) last = child;
        if (last == parent) return;
        const int64_t x = heap[parent];
        heap[parent] = heap[last];
        heap[last] = x;
        parent = last;
    }
}

static void sift_up(const order_job *j, int64_t offset, int64_t *heap, int64_t child) {
    while (child > 0) {
        const int64_t parent = (child - 1) / 2, x = heap[child];
        if (!comes_before(j, offset, heap[parent], x)) return;
        heap[child] = heap[parent];
        heap[parent] = x;
        child = parent;
    }
}

/* The k first elements of a row, in order: a heap with the last of them on top. */
static void top_of_row(const order_job *j, int64_t offset, int64_t length, int64_t *heap) {
    for (int64_t i = 0; i < length; i++) {
        if (i < j->k) {
            heap[i] = i;
            sift_up(j, offset, heap, i);
        } else if (comes_before(j, offset, i, heap[0])) {
            heap[0] = i;
            sift_down(j, offset, heap, j->k);
        }
    }
    for (int64_t n = j->k - 1; n > 0; n--) {
        const int64_t last = heap[0];
        heap[0] = heap[n];
        heap[n] = last;
        sift_down(j, offset, heap, n);
    }
}

static attune_status top_task(void *context, int64_t task, int thread) {
    const order_job *j = context;
    const at_rows_view rows = at_rows_of(&j->t), to = at_rows_of(&j->indices),
                       values = at_rows_of(&j->values);
    const int64_t size = attune_dtype_size(j->t.dtype);
    int64_t *heap = j->heap + thread * j->k;
    for (int64_t row = task * j->rows_per_task;
         row < (task + 1) * j->rows_per_task && row < rows.rows; row++) {
        const int64_t offset = at_row_offset(&j->t, row),
                      in_indices = at_row_offset(&j->indices, row),
                      in_values = at_row_offset(&j->values, row);
        top_of_row(j, offset, rows.length, heap);
        for (int64_t i = 0; i < j->k; i++) {
            ((int64_t *)j->indices.data)[in_indices + i * to.stride] = heap[i];
            memcpy((char *)j->values.data + (in_values + i * values.stride) * size,
                   (const char *)j->t.data + (offset + heap[i] * rows.stride) * size, (size_t)size);
        }
    }
    return ATTUNE_OK;
}

static int64_t per_task(at_rows_view rows) {
    return rows.length >= AT_CHUNK / 4 ? 1 : AT_CHUNK / 4 / rows.length;
}

attune_status attune_tensor_arg(attune_reduction op, const attune_tensor *t, int axis,
                                attune_tensor *out) {
    order_job j = {.smallest = op == ATTUNE_MIN};
    attune_tensor own = {0}, last = {0};
    memset(out, 0, sizeof *out);
    AT_TRY(at_check_open("tensor", t));
    if (op != ATTUNE_MIN && op != ATTUNE_MAX)
        return at_fail(ATTUNE_EVALUE, "arg: expected max or min");
    attune_status status;
    if (axis == ATTUNE_ALL_AXES) { /* the elements as one row */
        status = attune_tensor_contiguous(t, &own);
        if (status == ATTUNE_OK) {
            j.t = own;
            j.t.rank = 1;
            j.t.shape[0] = attune_tensor_count(&own);
            j.t.stride[0] = 1;
        }
    } else {
        AT_TRY(at_check_axis(t, axis, &axis));
        j.t = *t;
        for (int i = axis; i + 1 < t->rank; i++) {
            j.t.shape[i] = t->shape[i + 1];
            j.t.stride[i] = t->stride[i + 1];
        }
        j.t.shape[t->rank - 1] = t->shape[axis];
        j.t.stride[t->rank - 1] = t->stride[axis];
        status = attune_tensor_share(t, &last); /* keeps the memory */
    }
    if (status == ATTUNE_OK)
        status = at_tensor_new(ATTUNE_I64, j.t.rank - 1, j.t.shape, &j.indices);
    const at_rows_view rows = at_rows_of(&j.t);
    j.rows_per_task = per_task(rows);
    if (status == ATTUNE_OK)
        status = at_parallel(at_ceil_div(rows.rows, j.rows_per_task), arg_task, &j);
    if (status == ATTUNE_OK) status = attune_tensor_share(&j.indices, out);
    attune_tensor *all[] = {&own, &last, &j.indices};
    for (int i = 0; i < 3; i++) attune_tensor_close(all[i]);
    return status;
}

attune_status attune_tensor_topk(const attune_tensor *t, int64_t k, int axis, attune_tensor *values,
                                 attune_tensor *indices) {
    order_job j = {.k = k};
    int64_t shape[ATTUNE_MAX_RANK] = {0};
    memset(values, 0, sizeof *values);
    memset(indices, 0, sizeof *indices);
    AT_TRY(at_check_open("tensor", t));
    AT_TRY(at_check_axis(t, axis, &axis));
    if (k < 1 || k > t->shape[axis])
        return at_fail(ATTUNE_EVALUE,
                       "k: expected from 1 to %lld, the extent of the axis, got %lld",
                       (long long)t->shape[axis], (long long)k);
    memcpy(shape, t->shape, sizeof shape);
    shape[axis] = k;
    attune_status status = at_tensor_new(t->dtype, t->rank, shape, values);
    if (status == ATTUNE_OK) status = at_tensor_new(ATTUNE_I64, t->rank, shape, indices);
    if (status == ATTUNE_OK) status = attune_tensor_transpose(t, axis, -1, &j.t);
    if (status == ATTUNE_OK) status = attune_tensor_transpose(values, axis, -1, &j.values);
    if (status == ATTUNE_OK) status = attune_tensor_transpose(indices, axis, -1, &j.indices);
    if (status == ATTUNE_OK) {
        const at_rows_view rows = at_rows_of(&j.t);
        j.rows_per_task = per_task(rows);
        j.heap = at_alloc(at_checked_mul(at_checked_mul(at_threads(), k), 8));
        status = j.heap ? at_parallel(at_ceil_div(rows.rows, j.rows_per_task), top_task, &j)
                        : ATTUNE_EMEMORY;
    }
    at_free(j.heap);
    attune_tensor *all[] = {&j.t, &j.values, &j.indices};
    for (int i = 0; i < 3; i++) attune_tensor_close(all[i]);
    if (status != ATTUNE_OK) {
        attune_tensor_close(values);
        attune_tensor_close(indices);
    }
    return status;
}

/* ---- running sums ---------------------------------------------------------------------------- */

static attune_status cumsum_task(void *context, int64_t task, int thread) {
    const order_job *j = context;
    const at_rows_view from = at_rows_of(&j->t), to = at_rows_of(&j->values);
    (void)thread;
    for (int64_t row = task * j->rows_per_task;
         row < (task + 1) * j->rows_per_task && row < from.rows; row++) {
        const int64_t a = at_row_offset(&j->t, row), b = at_row_offset(&j->values, row);
        double sum = 0;
        uint64_t whole = 0; /* integers wrap around */
        for (int64_t n = 0; n < from.length; n++) {
            const int64_t i = j->reverse ? from.length - 1 - n : n;
            if (j->t.dtype == ATTUNE_I64) {
                whole += (uint64_t)((const int64_t *)j->t.data)[a + i * from.stride];
                ((int64_t *)j->values.data)[b + i * to.stride] = (int64_t)whole;
            } else {
                sum += at_load(&j->t, a + i * from.stride);
                at_store(&j->values, b + i * to.stride, sum);
            }
        }
    }
    return ATTUNE_OK;
}

attune_status attune_tensor_cumsum(const attune_tensor *t, int axis, bool reverse,
                                   attune_tensor *out) {
    order_job j = {.reverse = reverse};
    memset(out, 0, sizeof *out);
    AT_TRY(at_check_open("tensor", t));
    AT_TRY(at_check_axis(t, axis, &axis));
    attune_status status = at_tensor_new(t->dtype, t->rank, t->shape, out);
    if (status == ATTUNE_OK) status = attune_tensor_transpose(t, axis, -1, &j.t);
    if (status == ATTUNE_OK) status = attune_tensor_transpose(out, axis, -1, &j.values);
    if (status == ATTUNE_OK) {
        const at_rows_view rows = at_rows_of(&j.t);
        j.rows_per_task = per_task(rows);
        status = at_parallel(at_ceil_div(rows.rows, j.rows_per_task), cumsum_task, &j);
    }
    attune_tensor_close(&j.t);
    attune_tensor_close(&j.values);
    if (status != ATTUNE_OK) attune_tensor_close(out);
    return status;
}
