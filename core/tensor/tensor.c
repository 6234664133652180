/* tensor.c - storage, shapes, and single elements. */
#include "tensor/tensor.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "simd/table.h"

struct attune_buffer {
    atomic_int owners;
    _Atomic int64_t version; /* the writes in place */
    int64_t bytes;
    void *data;
};

/* ---- making and closing ---------------------------------------------------------------------- */

static attune_status check_shape(attune_dtype dtype, int rank, const int64_t *shape,
                                 int64_t *bytes) {
    if (dtype >= ATTUNE_DTYPES)
        return at_fail(ATTUNE_EDTYPE, "dtype: expected one of 0 to %d, got %d", ATTUNE_DTYPES - 1,
                       (int)dtype);
    if (rank < 0 || rank > ATTUNE_MAX_RANK)
        return at_fail(ATTUNE_ESHAPE, "shape: expected at most %d axes, got %d", ATTUNE_MAX_RANK,
                       rank);
    int64_t count = 1;
    for (int i = 0; i < rank; i++) {
        if (shape[i] < 1)
            return at_fail(ATTUNE_ESHAPE, "shape: expected at least 1 in every axis, got %s",
                           at_shape_text(rank, shape));
        count = at_checked_mul(count, shape[i]);
        if (count < 0) break;
    }
    *bytes = at_checked_mul(count, attune_dtype_size(dtype));
    if (*bytes < 0 || *bytes > INT64_MAX / 4) {
        return at_fail(ATTUNE_ESHAPE, "shape: expected fewer than 2^61 bytes, got %s of %s",
                       at_shape_text(rank, shape), attune_dtype_name(dtype));
    }
    return ATTUNE_OK;
}

static void set_shape(attune_tensor *t, attune_dtype dtype, int rank, const int64_t *shape) {
    memset(t, 0, sizeof *t);
    t->dtype = dtype;
    t->rank = rank;
    int64_t stride = 1;
    for (int i = rank - 1; i >= 0; i--) {
        t->shape[i] = shape[i];
        t->stride[i] = stride;
        stride *= shape[i];
    }
}

attune_status at_tensor_new(attune_dtype dtype, int rank, const int64_t *shape,
                            attune_tensor *out) {
    int64_t bytes, copy[ATTUNE_MAX_RANK] = {0};
    if (rank > 0 && rank <= ATTUNE_MAX_RANK)
        memcpy(copy, shape, (size_t)rank * sizeof *shape); /* shape may point into *out */
    memset(out, 0, sizeof *out);
    AT_TRY(check_shape(dtype, rank, copy, &bytes));
    attune_buffer *buffer = at_alloc((int64_t)sizeof *buffer);
    if (!buffer) return ATTUNE_EMEMORY;
    atomic_init(&buffer->owners, 1);
    atomic_init(&buffer->version, 0);
    buffer->bytes = bytes;
    buffer->data = at_alloc(bytes);
    if (!buffer->data) {
        at_free(buffer);
        return ATTUNE_EMEMORY;
    }
    set_shape(out, dtype, rank, copy);
    out->buffer = buffer;
    out->data = buffer->data;
    return ATTUNE_OK;
}

attune_status attune_tensor_new(attune_dtype dtype, int rank, const int64_t *shape,
                                attune_tensor *out) {
    AT_TRY(at_tensor_new(dtype, rank, shape, out));
    memset(out->data, 0, (size_t)attune_tensor_nbytes(out));
    return ATTUNE_OK;
}

attune_status attune_tensor_wrap(attune_dtype dtype, int rank, const int64_t *shape,
                                 const int64_t *stride, void *data, attune_tensor *out) {
    int64_t bytes;
    memset(out, 0, sizeof *out);
    if (!data) return at_fail(ATTUNE_EVALUE, "data: expected memory, got NULL");
    AT_TRY(check_shape(dtype, rank, shape, &bytes));
    set_shape(out, dtype, rank, shape);
    if (stride) memcpy(out->stride, stride, (size_t)rank * sizeof *stride);
    out->data = data;
    return ATTUNE_OK;
}

attune_status attune_tensor_share(const attune_tensor *t, attune_tensor *out) {
    attune_tensor copy = *t;
    memset(out, 0, sizeof *out);
    if (!copy.data)
        return at_fail(ATTUNE_ECLOSED, "tensor: expected an open one, got a closed one");
    if (copy.buffer) atomic_fetch_add(&copy.buffer->owners, 1);
    *out = copy;
    return ATTUNE_OK;
}

void attune_tensor_close(attune_tensor *t) {
    attune_buffer *buffer = t->buffer;
    t->buffer = NULL;
    t->data = NULL;
    if (buffer && atomic_fetch_sub(&buffer->owners, 1) == 1) {
        at_free(buffer->data);
        at_free(buffer);
    }
}

attune_storage attune_tensor_storage(const attune_tensor *t) {
    if (!t->buffer) return (attune_storage){0};
    return (attune_storage){.bytes = t->buffer->bytes,
                            .owners = atomic_load(&t->buffer->owners),
                            .version = atomic_load(&t->buffer->version)};
}

void at_tensor_written(const attune_tensor *t) {
    if (t->buffer) atomic_fetch_add(&t->buffer->version, 1);
}

/* ---- properties and checks ------------------------------------------------------------------- */

int64_t attune_tensor_count(const attune_tensor *t) {
    int64_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= t->shape[i];
    return n;
}

int64_t attune_tensor_nbytes(const attune_tensor *t) {
    return attune_tensor_count(t) * attune_dtype_size(t->dtype);
}

bool attune_tensor_is_contiguous(const attune_tensor *t) {
    int64_t stride = 1;
    for (int i = t->rank - 1; i >= 0; i--) {
        if (t->shape[i] != 1 && t->stride[i] != stride) return false;
        stride *= t->shape[i];
    }
    return true;
}

attune_status at_check_open(const char *name, const attune_tensor *t) {
    return t && t->data
               ? ATTUNE_OK
               : at_fail(ATTUNE_ECLOSED, "%s: expected an open tensor, got a closed one", name);
}

attune_status at_check_writable(const char *name, const attune_tensor *t) {
    AT_TRY(at_check_open(name, t));
    for (int i = 0; i < t->rank; i++) {
        if (t->stride[i] != 0 || t->shape[i] == 1) continue;
        return at_fail(ATTUNE_ESHAPE,
                       "%s: expected a tensor to write in place, got an expanded view %s, whose "
                       "elements share memory; clone it first",
                       name, at_shape_text(t->rank, t->shape));
    }
    return ATTUNE_OK;
}

bool at_same_shape(const attune_tensor *a, const attune_tensor *b) {
    return a->rank == b->rank &&
           memcmp(a->shape, b->shape, (size_t)a->rank * sizeof *a->shape) == 0;
}

attune_status at_check_extent(const char *name, const attune_tensor *t, const char *axis_name,
                              int axis, const char *like_name, const attune_tensor *like) {
    if (t->shape[axis] == like->shape[axis]) return ATTUNE_OK;
    return at_fail(ATTUNE_ESHAPE, "%s: expected %s %lld to match %s %s, got %s", name, axis_name,
                   (long long)like->shape[axis], like_name, at_shape_text(like->rank, like->shape),
                   at_shape_text(t->rank, t->shape));
}

attune_status at_check_axis(const attune_tensor *t, int axis, int *out) {
    *out = axis < 0 ? axis + t->rank : axis;
    if (*out >= 0 && *out < t->rank) return ATTUNE_OK;
    return at_fail(ATTUNE_EVALUE, "axis: expected from 0 to %d, or from -1 to -%d, for %s, got %d",
                   t->rank - 1, t->rank, at_shape_text(t->rank, t->shape), axis);
}

/* ---- elements -------------------------------------------------------------------------------- */

double at_load(const attune_tensor *t, int64_t offset) {
    switch (t->dtype) {
    case ATTUNE_F32: return (double)((const float *)t->data)[offset];
    case ATTUNE_F64: return ((const double *)t->data)[offset];
    case ATTUNE_BF16: return (double)at_bf16_to_f32(((const uint16_t *)t->data)[offset]);
    case ATTUNE_F16: return (double)at_f16_to_f32(((const uint16_t *)t->data)[offset]);
    case ATTUNE_I8: return ((const int8_t *)t->data)[offset];
    case ATTUNE_I32: return ((const int32_t *)t->data)[offset];
    case ATTUNE_I64: return (double)((const int64_t *)t->data)[offset];
    case ATTUNE_DTYPES: break;
    }
    return 0;
}

static double saturated(double x, double low, double high) {
    if (isnan(x)) return 0;
    x = nearbyint(x);
    return x < low ? low : x > high ? high : x;
}

/* The f32 that is rounded again to a 16-bit float. Rounding it to odd avoids double rounding: the
 * f32 is a tie between two 16-bit floats only if x is one. */
static float round_to_odd(double x) {
    float f = (float)x;
    if ((double)f == x || isnan(x) || isinf(f)) return f;
    uint32_t u = at_bits_of_f32(f);
    if (u & 1) return f;
    bool away = fabs((double)f) > fabs(x);
    return at_f32_of_bits(away ? u - 1 : u + 1);
}

void at_store(const attune_tensor *t, int64_t offset, double x) {
    switch (t->dtype) {
    case ATTUNE_F32: ((float *)t->data)[offset] = (float)x; break;
    case ATTUNE_F64: ((double *)t->data)[offset] = x; break;
    case ATTUNE_BF16: ((uint16_t *)t->data)[offset] = at_f32_to_bf16(round_to_odd(x)); break;
    case ATTUNE_F16: ((uint16_t *)t->data)[offset] = at_f32_to_f16(round_to_odd(x)); break;
    case ATTUNE_I8: ((int8_t *)t->data)[offset] = (int8_t)saturated(x, -128, 127); break;
    case ATTUNE_I32:
        ((int32_t *)t->data)[offset] = (int32_t)saturated(x, -0x1p31, 0x1p31 - 1);
        break;
    case ATTUNE_I64:
        x = saturated(x, -0x1p63, 0x1p63);
        ((int64_t *)t->data)[offset] = x >= 0x1p63 ? INT64_MAX : (int64_t)x;
        break;
    case ATTUNE_DTYPES: break;
    }
}

static attune_status offset_of(const attune_tensor *t, const int64_t *index, int64_t *out) {
    AT_TRY(at_check_open("tensor", t));
    *out = 0;
    for (int i = 0; i < t->rank; i++) {
        if (index[i] < 0 || index[i] >= t->shape[i]) {
            return at_fail(ATTUNE_EVALUE,
                           "index: expected from " AT_INDEX " to " AT_INDEX " in axis " AT_INDEX
                           ", got " AT_INDEX,
                           0LL, (long long)t->shape[i] - 1, (long long)i, (long long)index[i]);
        }
        *out += index[i] * t->stride[i];
    }
    return ATTUNE_OK;
}

attune_status attune_tensor_get(const attune_tensor *t, const int64_t *index, double *out) {
    int64_t offset;
    AT_TRY(offset_of(t, index, &offset));
    *out = at_load(t, offset);
    return ATTUNE_OK;
}

attune_status attune_tensor_set(attune_tensor *t, const int64_t *index, double value) {
    int64_t offset;
    AT_TRY(offset_of(t, index, &offset));
    at_tensor_written(t);
    at_store(t, offset, value);
    return ATTUNE_OK;
}

/* ---- rows ------------------------------------------------------------------------------------ */

at_rows_view at_rows_of(const attune_tensor *t) {
    if (t->rank == 0) return (at_rows_view){.rows = 1, .length = 1, .stride = 1};
    int64_t length = t->shape[t->rank - 1];
    return (at_rows_view){.rows = attune_tensor_count(t) / length,
                          .length = length,
                          .stride = t->stride[t->rank - 1]};
}

int64_t at_row_offset(const attune_tensor *t, int64_t row) {
    int64_t offset = 0;
    for (int i = t->rank - 2; i >= 0; i--) {
        offset += row % t->shape[i] * t->stride[i];
        row /= t->shape[i];
    }
    return offset;
}

void at_load_row(const attune_tensor *t, int64_t offset, int64_t stride, int64_t n, float *out) {
    const at_elementwise_kernels *kernels = &at_simd_now()->elementwise;
    if (t->dtype == ATTUNE_F32 && stride == 1)
        memcpy(out, (const float *)t->data + offset, (size_t)n * sizeof *out);
    else if (t->dtype == ATTUNE_BF16 && stride == 1)
        kernels->bf16_to_f32((const uint16_t *)t->data + offset, out, n);
    else if (t->dtype == ATTUNE_F16 && stride == 1)
        kernels->f16_to_f32((const uint16_t *)t->data + offset, out, n);
    else if (t->dtype == ATTUNE_F32)
        for (int64_t i = 0; i < n; i++) out[i] = ((const float *)t->data)[offset + i * stride];
    else
        for (int64_t i = 0; i < n; i++) out[i] = (float)at_load(t, offset + i * stride);
}

void at_store_row(const attune_tensor *t, int64_t offset, int64_t stride, int64_t n,
                  const float *x) {
    const at_elementwise_kernels *kernels = &at_simd_now()->elementwise;
    if (t->dtype == ATTUNE_F32 && stride == 1)
        memcpy((float *)t->data + offset, x, (size_t)n * sizeof *x);
    else if (t->dtype == ATTUNE_BF16 && stride == 1)
        kernels->f32_to_bf16(x, (uint16_t *)t->data + offset, n);
    else if (t->dtype == ATTUNE_F16 && stride == 1)
        kernels->f32_to_f16(x, (uint16_t *)t->data + offset, n);
    else
        for (int64_t i = 0; i < n; i++) at_store(t, offset + i * stride, (double)x[i]);
}

void at_load_row_f64(const attune_tensor *t, int64_t offset, int64_t stride, int64_t n,
                     double *out) {
    for (int64_t i = 0; i < n; i++) out[i] = at_load(t, offset + i * stride);
}

void at_store_row_f64(const attune_tensor *t, int64_t offset, int64_t stride, int64_t n,
                      const double *x) {
    for (int64_t i = 0; i < n; i++) at_store(t, offset + i * stride, x[i]);
}
