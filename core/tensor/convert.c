/* convert.c - copies between dtypes and layouts. */
#include <string.h>

#include "base/parallel.h"
#include "base/int_math.h"
#include "base/status.h"
#include "tensor/tensor.h"

typedef struct copy_job {
    const attune_tensor *from, *into;
    int64_t rows, length, rows_per_task;
} copy_job;

static int64_t load_integer(const attune_tensor *t, int64_t offset) {
    return t->dtype == ATTUNE_I8    ? ((const int8_t *)t->data)[offset]
           : t->dtype == ATTUNE_I32 ? ((const int32_t *)t->data)[offset]
                                    : ((const int64_t *)t->data)[offset];
}

static void store_integer(const attune_tensor *t, int64_t offset, int64_t x) {
    if (t->dtype == ATTUNE_I64)
        ((int64_t *)t->data)[offset] = x;
    else if (t->dtype == ATTUNE_I32)
        ((int32_t *)t->data)[offset] = (int32_t)(x < INT32_MIN   ? INT32_MIN
                                                 : x > INT32_MAX ? INT32_MAX
                                                                 : x);
    else
        ((int8_t *)t->data)[offset] = (int8_t)(x < INT8_MIN   ? INT8_MIN
                                               : x > INT8_MAX ? INT8_MAX
                                                              : x);
}

static void copy_row(const copy_job *j, int64_t a, int64_t a_stride, int64_t b, int64_t b_stride) {
    const attune_tensor *from = j->from, *into = j->into;
    const int64_t size = attune_dtype_size(from->dtype);
    if (from->dtype == into->dtype && a_stride == 1 && b_stride == 1) {
        memcpy((char *)into->data + b * size, (const char *)from->data + a * size,
               (size_t)(j->length * size));
    } else if (from->dtype == into->dtype && size == 2) {
        for (int64_t i = 0; i < j->length; i++)
            ((uint16_t *)into->data)[b + i * b_stride] =
                ((const uint16_t *)from->data)[a + i * a_stride];
    } else if (at_is_integer(from->dtype) && at_is_integer(into->dtype)) {
        for (int64_t i = 0; i < j->length; i++)
            store_integer(into, b + i * b_stride, load_integer(from, a + i * a_stride));
    } else if (at_fits_f32(from->dtype) && into->dtype != ATTUNE_F64) {
        float part[256];
        for (int64_t i = 0; i < j->length; i += 256) {
            int64_t n = j->length - i < 256 ? j->length - i : 256;
            at_load_row(from, a + i * a_stride, a_stride, n, part);
            at_store_row(into, b + i * b_stride, b_stride, n, part);
        }
    } else {
        for (int64_t i = 0; i < j->length; i++)
            at_store(into, b + i * b_stride, at_load(from, a + i * a_stride));
    }
}

static attune_status copy_task(void *context, int64_t task, int thread) {
    const copy_job *j = context;
    (void)thread;
    int64_t end = (task + 1) * j->rows_per_task < j->rows ? (task + 1) * j->rows_per_task : j->rows;
    at_rows_view a = at_rows_of(j->from), b = at_rows_of(j->into);
    for (int64_t row = task * j->rows_per_task; row < end; row++)
        copy_row(j, at_row_offset(j->from, row), a.stride, at_row_offset(j->into, row), b.stride);
    return ATTUNE_OK;
}

static attune_status run_copy(const attune_tensor *from, const attune_tensor *into) {
    attune_tensor flat_from = *from, flat_into = *into;
    /* Two contiguous tensors are one long row: divide it into equal pieces. */
    if (attune_tensor_is_contiguous(from) && attune_tensor_is_contiguous(into)) {
        int64_t count = attune_tensor_count(from), piece = 4096;
        while (count % piece) piece /= 2;
        flat_from.rank = flat_into.rank = 2;
        flat_from.shape[0] = flat_into.shape[0] = count / piece;
        flat_from.shape[1] = flat_into.shape[1] = piece;
        flat_from.stride[0] = flat_into.stride[0] = piece;
        flat_from.stride[1] = flat_into.stride[1] = 1;
        if (piece < 64 && from->rank > 0) {
            flat_from = *from;
            flat_into = *into;
        }
    }
    at_rows_view rows = at_rows_of(&flat_from);
    copy_job j = {.from = &flat_from, .into = &flat_into, .rows = rows.rows, .length = rows.length};
    j.rows_per_task = rows.length >= AT_CHUNK ? 1 : AT_CHUNK / rows.length;
    return at_parallel(at_ceil_div(j.rows, j.rows_per_task), copy_task, &j);
}

static attune_status fresh_copy(const attune_tensor *t, attune_dtype dtype, attune_tensor *out) {
    attune_tensor from = *t;
    AT_TRY(attune_init());
    AT_TRY(at_tensor_new(dtype, from.rank, from.shape, out));
    attune_status status = run_copy(&from, out);
    if (status != ATTUNE_OK) attune_tensor_close(out);
    return status;
}

attune_status attune_tensor_copy(const attune_tensor *from, attune_tensor *into) {
    AT_TRY(at_check_open("from", from));
    AT_TRY(at_check_writable("into", into));
    AT_TRY(attune_init());
    if (!at_same_shape(from, into)) {
        return at_fail(ATTUNE_ESHAPE, "into: expected %s, got %s",
                       at_shape_text(from->rank, from->shape),
                       at_shape_text(into->rank, into->shape));
    }
    if (from->buffer && from->buffer == into->buffer) {
        attune_tensor apart;
        AT_TRY(fresh_copy(from, from->dtype, &apart));
        at_tensor_written(into);
        attune_status status = run_copy(&apart, into);
        attune_tensor_close(&apart);
        return status;
    }
    at_tensor_written(into);
    return run_copy(from, into);
}

attune_status attune_tensor_convert(const attune_tensor *t, attune_dtype dtype,
                                    attune_tensor *out) {
    attune_tensor from = *t;
    memset(out, 0, sizeof *out);
    AT_TRY(at_check_open("tensor", &from));
    return fresh_copy(&from, dtype, out);
}

attune_status attune_tensor_contiguous(const attune_tensor *t, attune_tensor *out) {
    attune_tensor from = *t;
    memset(out, 0, sizeof *out);
    AT_TRY(at_check_open("tensor", &from));
    return attune_tensor_is_contiguous(&from) ? attune_tensor_share(&from, out)
                                              : fresh_copy(&from, from.dtype, out);
}
