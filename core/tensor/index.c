/* index.c - tensors that are put together, and elements that indices select.
 *
 *   take     out[.., n, ..] = t[.., index[n], ..]      along one axis
 *   gather   out[.., n, ..] = t[.., index[.., n, ..], ..]
 *
 * The gradient of either adds into zeros. Each element adds its parts in order, whatever thread
 * does it.
 */
#include <string.h>

#include "base/int_math.h"
#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"
#include "attune/nn.h"
#include "simd/table.h"
#include "tensor/tensor.h"

/* ---- cat and stack --------------------------------------------------------------------------- */

static attune_status check_part(const attune_tensor *first, const attune_tensor *t, int64_t number,
                                int free_axis) {
    AT_TRY(at_check_open("tensors", t));
    bool same = t->rank == first->rank;
    for (int i = 0; i < first->rank && same; i++)
        same = i == free_axis || t->shape[i] == first->shape[i];
    if (!same)
        return at_fail(
            ATTUNE_ESHAPE, "tensors: expected shapes like the first, %s%s, got %s at " AT_INDEX,
            at_shape_text(first->rank, first->shape), free_axis >= 0 ? ", but for the axis" : "",
            at_shape_text(t->rank, t->shape), (long long)number);
    if (t->dtype != first->dtype)
        return at_fail(ATTUNE_EDTYPE, "tensors: expected %s, as the first is, got %s at " AT_INDEX,
                       attune_dtype_name(first->dtype), attune_dtype_name(t->dtype),
                       (long long)number);
    return ATTUNE_OK;
}

attune_status attune_tensor_cat(const attune_tensor *const *tensors, int64_t count, int axis,
                                attune_tensor *out) {
    memset(out, 0, sizeof *out);
    if (count < 1) return at_fail(ATTUNE_EVALUE, "tensors: expected at least one, got none");
    AT_TRY(at_check_open("tensors", tensors[0]));
    AT_TRY(at_check_axis(tensors[0], axis, &axis));
    int64_t shape[ATTUNE_MAX_RANK] = {0};
    memcpy(shape, tensors[0]->shape, sizeof shape);
    shape[axis] = 0;
    for (int64_t i = 0; i < count; i++) {
        AT_TRY(check_part(tensors[0], tensors[i], i, axis));
        shape[axis] = at_checked_add(shape[axis], tensors[i]->shape[axis]);
    }
    AT_TRY(at_tensor_new(tensors[0]->dtype, tensors[0]->rank, shape, out));
    attune_status status = ATTUNE_OK;
    for (int64_t i = 0, at = 0; i < count && status == ATTUNE_OK; i++) {
        attune_tensor part;
        status = attune_tensor_slice(out, axis, at, at + tensors[i]->shape[axis], &part);
        if (status == ATTUNE_OK) status = attune_tensor_copy(tensors[i], &part);
        attune_tensor_close(&part);
        at += tensors[i]->shape[axis];
    }
    if (status != ATTUNE_OK) attune_tensor_close(out);
    return status;
}

attune_status attune_tensor_stack(const attune_tensor *const *tensors, int64_t count, int axis,
                                  attune_tensor *out) {
    memset(out, 0, sizeof *out);
    if (count < 1) return at_fail(ATTUNE_EVALUE, "tensors: expected at least one, got none");
    AT_TRY(at_check_open("tensors", tensors[0]));
    const int rank = tensors[0]->rank + 1;
    if (rank > ATTUNE_MAX_RANK)
        return at_fail(ATTUNE_ESHAPE, "tensors: expected at most %d axes, got %d",
                       ATTUNE_MAX_RANK - 1, rank - 1);
    if (axis < 0) axis += rank;
    if (axis < 0 || axis >= rank)
        return at_fail(ATTUNE_EVALUE, "axis: expected from 0 to %d, got %d", rank - 1, axis);
    int64_t shape[ATTUNE_MAX_RANK] = {0};
    for (int i = 0; i < rank; i++)
        shape[i] = i == axis ? count : tensors[0]->shape[i > axis ? i - 1 : i];
    for (int64_t i = 0; i < count; i++) AT_TRY(check_part(tensors[0], tensors[i], i, -1));
    AT_TRY(at_tensor_new(tensors[0]->dtype, rank, shape, out));
    attune_status status = ATTUNE_OK;
    for (int64_t i = 0; i < count && status == ATTUNE_OK; i++) {
        attune_tensor part;
        status = attune_tensor_select(out, axis, i, &part);
        if (status == ATTUNE_OK) status = attune_tensor_copy(tensors[i], &part);
        attune_tensor_close(&part);
    }
    if (status != ATTUNE_OK) attune_tensor_close(out);
    return status;
}

/* ---- take ------------------------------------------------------------------------------------ */

/* A contiguous tensor as [outer, extent, inner], around one axis. */
typedef struct take_job {
    attune_tensor t, out; /* backward: dx, dy */
    const int64_t *index;
    int64_t outer, extent, inner, count;
} take_job;

static attune_status check_indices(const attune_tensor *indices, int64_t extent,
                                   attune_tensor *flat) {
    AT_TRY(at_check_open("indices", indices));
    if (indices->dtype != ATTUNE_I64)
        return at_fail(ATTUNE_EDTYPE, "indices: expected i64, got %s",
                       attune_dtype_name(indices->dtype));
    AT_TRY(attune_tensor_contiguous(indices, flat));
    for (int64_t i = 0, count = attune_tensor_count(flat); i < count; i++) {
        const int64_t index = ((const int64_t *)flat->data)[i];
        if (index >= 0 && index < extent) continue;
        attune_tensor_close(flat);
        return at_fail(ATTUNE_EVALUE,
                       "indices: expected from " AT_INDEX " to " AT_INDEX ", got " AT_INDEX
                       " (index out of range)",
                       0LL, (long long)extent - 1, (long long)index);
    }
    return ATTUNE_OK;
}

static void set_extents(take_job *j, int rank, const int64_t *shape, int axis) {
    j->outer = j->inner = 1;
    for (int i = 0; i < axis; i++) j->outer *= shape[i];
    for (int i = axis + 1; i < rank; i++) j->inner *= shape[i];
    j->extent = shape[axis];
}

static attune_status take_task(void *context, int64_t task, int thread) {
    const take_job *j = context;
    const int64_t bytes = j->inner * attune_dtype_size(j->t.dtype),
                  rows = AT_CHUNK / j->inner > 0 ? AT_CHUNK / j->inner : 1,
                  all = j->outer * j->count,
                  end = (task + 1) * rows < all ? (task + 1) * rows : all;
    (void)thread;
    for (int64_t r = task * rows; r < end; r++) {
        const int64_t from = r / j->count * j->extent + j->index[r % j->count];
        memcpy((char *)j->out.data + r * bytes, (const char *)j->t.data + from * bytes,
               (size_t)bytes);
    }
    return ATTUNE_OK;
}

attune_status attune_tensor_take(const attune_tensor *t, const attune_tensor *indices, int axis,
                                 attune_tensor *out) {
    take_job j = {0};
    attune_tensor flat = {0};
    int64_t shape[ATTUNE_MAX_RANK] = {0};
    memset(out, 0, sizeof *out);
    AT_TRY(at_check_open("tensor", t));
    AT_TRY(at_check_axis(t, axis, &axis));
    if (indices->rank != 1)
        return at_fail(ATTUNE_ESHAPE, "indices: expected a list, [n], got %s",
                       at_shape_text(indices->rank, indices->shape));
    AT_TRY(check_indices(indices, t->shape[axis], &flat));
    set_extents(&j, t->rank, t->shape, axis);
    memcpy(shape, t->shape, sizeof shape);
    shape[axis] = j.count = flat.shape[0];
    j.index = flat.data;
    attune_status status = attune_tensor_contiguous(t, &j.t);
    if (status == ATTUNE_OK) status = at_tensor_new(t->dtype, t->rank, shape, &j.out);
    const int64_t rows = AT_CHUNK / j.inner > 0 ? AT_CHUNK / j.inner : 1;
    if (status == ATTUNE_OK)
        status = at_parallel(at_ceil_div(j.outer * j.count, rows), take_task, &j);
    if (status == ATTUNE_OK) status = attune_tensor_share(&j.out, out);
    attune_tensor_close(&j.t);
    attune_tensor_close(&j.out);
    attune_tensor_close(&flat);
    return status;
}

enum { COLUMNS = 256 }; /* elements of inner per task of the gradient */

static attune_status put_back(void *context, int64_t task, int thread) {
    const take_job *j = context;
    const at_nn_kernels *kernels = j->t.dtype == ATTUNE_F64 ? at_nn_f64() : &at_simd_now()->nn;
    const int64_t blocks = at_ceil_div(j->inner, COLUMNS), outer = task / blocks,
                  first = task % blocks * COLUMNS, size = attune_dtype_size(j->t.dtype),
                  n = j->inner - first < COLUMNS ? j->inner - first : COLUMNS;
    (void)thread;
    for (int64_t i = 0; i < j->count; i++) {
        const int64_t from = (outer * j->count + i) * j->inner + first,
                      to = (outer * j->extent + j->index[i]) * j->inner + first;
        if (n == 1)
            at_store(&j->t, to, at_load(&j->t, to) + at_load(&j->out, from));
        else
            kernels->add((const char *)j->out.data + from * size, n, (char *)j->t.data + to * size);
    }
    return ATTUNE_OK;
}

/* f32 or f64, contiguous. */
static attune_status in_own_dtype(const attune_tensor *t, attune_tensor *out) {
    if (t->dtype == ATTUNE_F32 || t->dtype == ATTUNE_F64) return attune_tensor_contiguous(t, out);
    return attune_tensor_convert(t, ATTUNE_F32, out);
}

static attune_status out_of_own_dtype(attune_tensor *sum, attune_dtype dtype, attune_tensor *out) {
    return sum->dtype == dtype ? attune_tensor_share(sum, out)
                               : attune_tensor_convert(sum, dtype, out);
}

attune_status attune_take_backward(const attune_tensor *dy, const attune_tensor *indices, int axis,
                                   int rank, const int64_t *shape, attune_tensor *dx) {
    take_job j = {0};
    attune_tensor flat = {0};
    memset(dx, 0, sizeof *dx);
    AT_TRY(at_check_open("dy", dy));
    AT_TRY(at_check_axis(dy, axis, &axis));
    if (!at_is_float(dy->dtype) || rank != dy->rank || indices->rank != 1 ||
        indices->shape[0] != dy->shape[axis])
        return at_fail(ATTUNE_ESHAPE, "dy: expected the shape of take's result, got %s",
                       at_shape_text(dy->rank, dy->shape));
    AT_TRY(check_indices(indices, shape[axis], &flat));
    set_extents(&j, rank, shape, axis);
    j.count = flat.shape[0];
    j.index = flat.data;
    attune_status status = in_own_dtype(dy, &j.out);
    if (status == ATTUNE_OK) status = attune_tensor_new(j.out.dtype, rank, shape, &j.t);
    if (status == ATTUNE_OK)
        status = at_parallel(j.outer * at_ceil_div(j.inner, COLUMNS), put_back, &j);
    if (status == ATTUNE_OK) status = out_of_own_dtype(&j.t, dy->dtype, dx);
    attune_tensor_close(&j.t);
    attune_tensor_close(&j.out);
    attune_tensor_close(&flat);
    return status;
}

/* ---- gather ---------------------------------------------------------------------------------- */

/* Views with the axis last. A row of `t` belongs to a row of `out`, and indices are shaped as out.
 */
typedef struct gather_job {
    attune_tensor t, out, indices; /* backward: dx (f32 or f64), dy */
    bool backward;
    int64_t rows_per_task;
} gather_job;

/* Where the row of t that belongs to row `row` of the indices starts. */
static int64_t offset_in(const gather_job *j, int64_t row) {
    int64_t offset = 0;
    for (int i = j->indices.rank - 2; i >= 0; i--) {
        offset += row % j->indices.shape[i] * j->t.stride[i];
        row /= j->indices.shape[i];
    }
    return offset;
}

static void copy_element(const attune_tensor *from, int64_t a, const attune_tensor *to, int64_t b) {
    const int64_t size = attune_dtype_size(from->dtype);
    memcpy((char *)to->data + b * size, (const char *)from->data + a * size, (size_t)size);
}

static attune_status gather_task(void *context, int64_t task, int thread) {
    const gather_job *j = context;
    const at_rows_view index = at_rows_of(&j->indices), out = at_rows_of(&j->out),
                       t = at_rows_of(&j->t);
    (void)thread;
    for (int64_t row = task * j->rows_per_task;
         row < (task + 1) * j->rows_per_task && row < index.rows; row++) {
        const int64_t in_index = at_row_offset(&j->indices, row),
                      in_out = at_row_offset(&j->out, row), in_t = offset_in(j, row);
        for (int64_t i = 0; i < index.length; i++) {
            const int64_t k = ((const int64_t *)j->indices.data)[in_index + i * index.stride],
                          a = in_t + k * t.stride, b = in_out + i * out.stride;
            if (j->backward)
                at_store(&j->t, a, at_load(&j->t, a) + at_load(&j->out, b));
            else
                copy_element(&j->t, a, &j->out, b);
        }
    }
    return ATTUNE_OK;
}

static attune_status run_gather(gather_job *j, const attune_tensor *t, const attune_tensor *out,
                                const attune_tensor *indices, int axis) {
    attune_status status = attune_tensor_transpose(t, axis, -1, &j->t);
    if (status == ATTUNE_OK) status = attune_tensor_transpose(out, axis, -1, &j->out);
    if (status == ATTUNE_OK) status = attune_tensor_transpose(indices, axis, -1, &j->indices);
    if (status == ATTUNE_OK) {
        const at_rows_view rows = at_rows_of(&j->indices);
        j->rows_per_task = rows.length >= AT_CHUNK / 4 ? 1 : AT_CHUNK / 4 / rows.length;
        status = at_parallel(at_ceil_div(rows.rows, j->rows_per_task), gather_task, j);
    }
    attune_tensor_close(&j->t);
    attune_tensor_close(&j->out);
    attune_tensor_close(&j->indices);
    return status;
}

/* indices fit beside a tensor of that shape: its rank, and extents that are not larger. */
static attune_status check_gather(const attune_tensor *indices, int rank, const int64_t *shape,
                                  int axis, attune_tensor *flat) {
    bool fits = indices->rank == rank;
    for (int i = 0; i < rank && fits; i++) fits = i == axis || indices->shape[i] <= shape[i];
    if (!fits)
        return at_fail(ATTUNE_ESHAPE,
                       "indices: expected the shape of the result: like %s but for the axis, got "
                       "%s",
                       at_shape_text(rank, shape), at_shape_text(indices->rank, indices->shape));
    return check_indices(indices, shape[axis], flat);
}

attune_status attune_tensor_gather(const attune_tensor *t, int axis, const attune_tensor *indices,
                                   attune_tensor *out) {
    gather_job j = {0};
    attune_tensor flat = {0};
    memset(out, 0, sizeof *out);
    AT_TRY(at_check_open("tensor", t));
    AT_TRY(at_check_open("indices", indices));
    AT_TRY(at_check_axis(t, axis, &axis));
    AT_TRY(check_gather(indices, t->rank, t->shape, axis, &flat));
    attune_status status = at_tensor_new(t->dtype, flat.rank, flat.shape, out);
    if (status == ATTUNE_OK) status = run_gather(&j, t, out, &flat, axis);
    if (status != ATTUNE_OK) attune_tensor_close(out);
    attune_tensor_close(&flat);
    return status;
}

attune_status attune_gather_backward(const attune_tensor *dy, int axis,
                                     const attune_tensor *indices, int rank, const int64_t *shape,
                                     attune_tensor *dx) {
    gather_job j = {.backward = true};
    attune_tensor flat = {0}, sum = {0}, from = {0};
    memset(dx, 0, sizeof *dx);
    AT_TRY(at_check_open("dy", dy));
    AT_TRY(at_check_open("indices", indices));
    AT_TRY(at_check_axis(indices, axis, &axis));
    AT_TRY(check_gather(indices, rank, shape, axis, &flat));
    attune_status status = ATTUNE_OK;
    if (!at_same_shape(dy, &flat) || !at_is_float(dy->dtype))
        status = at_fail(ATTUNE_ESHAPE, "dy: expected the shape of indices %s, got %s",
                         at_shape_text(flat.rank, flat.shape), at_shape_text(dy->rank, dy->shape));
    if (status == ATTUNE_OK) status = in_own_dtype(dy, &from);
    if (status == ATTUNE_OK) status = attune_tensor_new(from.dtype, rank, shape, &sum);
    if (status == ATTUNE_OK) status = run_gather(&j, &sum, &from, &flat, axis);
    if (status == ATTUNE_OK) status = out_of_own_dtype(&sum, dy->dtype, dx);
    attune_tensor *all[] = {&flat, &sum, &from};
    for (int i = 0; i < 3; i++) attune_tensor_close(all[i]);
    return status;
}
