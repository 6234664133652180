/* elementwise.c - unary and binary operations per element; binary ones broadcast. */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"
#include "simd/table.h"
#include "tensor/tensor.h"

enum { PART = 512 }; /* elements converted to f32 or f64 per step */

static const char *const unary_names[] = {
#define X(symbol, name) name,
    ATTUNE_UNARY_TABLE(X)
#undef X
};
static const char *const binary_names[] = {
#define X(symbol, name) name,
    ATTUNE_BINARY_TABLE(X)
#undef X
};

/* ---- the operations -------------------------------------------------------------------------- */

static double unary_f64(attune_unary op, double x) {
    switch (op) {
    case ATTUNE_NEG: return -x;
    case ATTUNE_EXP: return exp(x);
    case ATTUNE_LOG: return log(x);
    case ATTUNE_SQRT: return sqrt(x);
    case ATTUNE_TANH: return tanh(x);
    case ATTUNE_SIGMOID: return x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x));
    case ATTUNE_GELU:
        /* Hendrycks and Gimpel 2016, with the exact normal distribution; 0.707.. is sqrt(1 / 2) */
        return 0.5 * x * erfc(-x * 0.70710678118654752440);
    case ATTUNE_SILU: return x < 0 ? x * exp(x) / (1 + exp(x)) : x / (1 + exp(-x));
    case ATTUNE_ABS: return fabs(x);
    case ATTUNE_RELU: return x > 0 || isnan(x) ? x : 0;
    case ATTUNE_GELU_TANH: {
        double y;
        at_nn_f64()->gelu(&x, 1, true, &y);
        return y;
    }
    }
    return NAN;
}

static void unary_f32(attune_unary op, const float *x, float *out, int64_t n) {
    const at_elementwise_kernels *kernels = &at_simd_now()->elementwise;
    switch (op) {
    case ATTUNE_EXP: kernels->exp(x, out, n); break;
    case ATTUNE_TANH: kernels->tanh(x, out, n); break;
    case ATTUNE_SIGMOID: kernels->sigmoid(x, out, n); break;
    case ATTUNE_SILU: {
        float s[PART];
        kernels->sigmoid(x, s, n);
        /* At -inf, x * sigmoid(x) would be -inf * 0 = NaN; its limit is 0. */
        for (int64_t i = 0; i < n; i++) out[i] = x[i] == -INFINITY ? -0.0f : x[i] * s[i];
        break;
    }
    case ATTUNE_NEG:
        for (int64_t i = 0; i < n; i++) out[i] = -x[i];
        break;
    case ATTUNE_SQRT:
        for (int64_t i = 0; i < n; i++) out[i] = sqrtf(x[i]);
        break;
    case ATTUNE_ABS:
        for (int64_t i = 0; i < n; i++) out[i] = fabsf(x[i]);
        break;
    case ATTUNE_LOG:
        for (int64_t i = 0; i < n; i++) out[i] = logf(x[i]);
        break;
    case ATTUNE_RELU:
        for (int64_t i = 0; i < n; i++) out[i] = x[i] > 0 || isnan(x[i]) ? x[i] : 0;
        break;
    case ATTUNE_GELU: at_simd_now()->nn.gelu(x, n, false, out); break;
    case ATTUNE_GELU_TANH: at_simd_now()->nn.gelu(x, n, true, out); break;
    }
}

static double binary_f64(attune_binary op, double a, double b) {
    switch (op) {
    case ATTUNE_ADD: return a + b;
    case ATTUNE_SUB: return a - b;
    case ATTUNE_MUL: return a * b;
    case ATTUNE_DIV: return a / b;
    case ATTUNE_POW: return b == 2 ? a * a : pow(a, b);
    }
    return NAN;
}

static void binary_f32(attune_binary op, const float *a, const float *b, float *out, int64_t n) {
    switch (op) {
    case ATTUNE_ADD:
        for (int64_t i = 0; i < n; i++) out[i] = a[i] + b[i];
        break;
    case ATTUNE_SUB:
        for (int64_t i = 0; i < n; i++) out[i] = a[i] - b[i];
        break;
    case ATTUNE_MUL:
        for (int64_t i = 0; i < n; i++) out[i] = a[i] * b[i];
        break;
    case ATTUNE_DIV:
        for (int64_t i = 0; i < n; i++) out[i] = a[i] / b[i];
        break;
    case ATTUNE_POW:
        for (int64_t i = 0; i < n; i++) out[i] = b[i] == 2 ? a[i] * a[i] : powf(a[i], b[i]);
        break;
    }
}

/* Integers wrap around like unsigned ones. Division and powers were refused before. */
static int64_t binary_i64(attune_binary op, int64_t a, int64_t b) {
    uint64_t x = (uint64_t)a, y = (uint64_t)b;
    return (int64_t)(op == ATTUNE_ADD ? x + y : op == ATTUNE_SUB ? x - y : x * y);
}

/* ---- loops over rows ------------------------------------------------------------------------- */

typedef struct map_job {
    const attune_tensor *a, *b, *out; /* all of one shape; b NULL: unary */
    int op;
    int64_t rows_per_task;
} map_job;

static int64_t integer_at(const attune_tensor *t, int64_t offset) {
    return t->dtype == ATTUNE_I8    ? ((const int8_t *)t->data)[offset]
           : t->dtype == ATTUNE_I32 ? ((const int32_t *)t->data)[offset]
                                    : ((const int64_t *)t->data)[offset];
}

static void put_integer(const attune_tensor *t, int64_t offset, int64_t x) {
    if (t->dtype == ATTUNE_I8)
        ((int8_t *)t->data)[offset] = (int8_t)x;
    else if (t->dtype == ATTUNE_I32)
        ((int32_t *)t->data)[offset] = (int32_t)x;
    else
        ((int64_t *)t->data)[offset] = x;
}

static void map_row(const map_job *j, int64_t row) {
    const at_rows_view out = at_rows_of(j->out), a = at_rows_of(j->a),
                       b = at_rows_of(j->b ? j->b : j->a);
    const int64_t to = at_row_offset(j->out, row), from_a = at_row_offset(j->a, row),
                  from_b = j->b ? at_row_offset(j->b, row) : 0;
    for (int64_t i = 0; i < out.length; i += PART) {
        const int64_t n = out.length - i < PART ? out.length - i : PART, ia = from_a + i * a.stride,
                      ib = from_b + i * b.stride, io = to + i * out.stride;
        if (at_is_integer(j->out->dtype)) {
            for (int64_t k = 0; k < n; k++) {
                int64_t x = integer_at(j->a, ia + k * a.stride);
                if (!j->b)
                    x = j->op == ATTUNE_ABS && x > 0 ? x : (int64_t)(0 - (uint64_t)x);
                else
                    x = binary_i64((attune_binary)j->op, x, integer_at(j->b, ib + k * b.stride));
                put_integer(j->out, io + k * out.stride, x);
            }
        } else if (j->out->dtype == ATTUNE_F64) {
            double x[PART], y[PART];
            at_load_row_f64(j->a, ia, a.stride, n, x);
            if (j->b) at_load_row_f64(j->b, ib, b.stride, n, y);
            for (int64_t k = 0; k < n; k++)
                x[k] = j->b ? binary_f64((attune_binary)j->op, x[k], y[k])
                            : unary_f64((attune_unary)j->op, x[k]);
            at_store_row_f64(j->out, io, out.stride, n, x);
        } else {
            float x[PART], y[PART];
            at_load_row(j->a, ia, a.stride, n, x);
            if (j->b) {
                at_load_row(j->b, ib, b.stride, n, y);
                binary_f32((attune_binary)j->op, x, y, x, n);
            } else {
                unary_f32((attune_unary)j->op, x, x, n);
            }
            at_store_row(j->out, io, out.stride, n, x);
        }
    }
}

static attune_status map_task(void *context, int64_t task, int thread) {
    const map_job *j = context;
    const int64_t rows = at_rows_of(j->out).rows, end = (task + 1) * j->rows_per_task;
    (void)thread;
    for (int64_t row = task * j->rows_per_task; row < end && row < rows; row++) map_row(j, row);
    return ATTUNE_OK;
}

/* Views a contiguous tensor as [count / piece, piece]: rows long enough for the kernels and short
 * enough to divide among threads. */
static void flatten(attune_tensor *t, int64_t piece) {
    int64_t count = attune_tensor_count(t);
    t->rank = 2;
    t->shape[0] = count / piece;
    t->shape[1] = piece;
    t->stride[0] = piece;
    t->stride[1] = 1;
}

static attune_status run(const attune_tensor *a, const attune_tensor *b, const attune_tensor *out,
                         int op) {
    attune_tensor x = *a, y = b ? *b : *a, o = *out;
    if (attune_tensor_is_contiguous(a) && (!b || attune_tensor_is_contiguous(b)) && out->rank > 0) {
        int64_t piece = 4096, count = attune_tensor_count(out);
        while (count % piece) piece /= 2;
        if (piece >= 64) {
            flatten(&x, piece);
            flatten(&y, piece);
            flatten(&o, piece);
        }
    }
    map_job j = {.a = &x, .b = b ? &y : NULL, .out = &o, .op = op};
    at_rows_view rows = at_rows_of(&o);
    /* These operations cost more than reading memory, so smaller tasks than AT_CHUNK pay off. */
    j.rows_per_task = rows.length >= AT_CHUNK / 4 ? 1 : AT_CHUNK / 4 / rows.length;
    return at_parallel(at_ceil_div(rows.rows, j.rows_per_task), map_task, &j);
}

attune_status attune_tensor_unary(attune_unary op, const attune_tensor *t, attune_tensor *out) {
    attune_tensor from = *t;
    memset(out, 0, sizeof *out);
    AT_TRY(at_check_open("tensor", &from));
    AT_TRY(attune_init());
    if (at_is_integer(from.dtype) && op != ATTUNE_NEG && op != ATTUNE_ABS) {
        return at_fail(ATTUNE_EDTYPE, "%s: expected a float dtype, got %s", unary_names[op],
                       attune_dtype_name(from.dtype));
    }
    AT_TRY(at_tensor_new(from.dtype, from.rank, from.shape, out));
    attune_status status = run(&from, NULL, out, (int)op);
    if (status != ATTUNE_OK) attune_tensor_close(out);
    return status;
}

/* The shape that a and b broadcast to; their last axes are aligned. */
static attune_status common_shape(attune_binary op, const attune_tensor *a, const attune_tensor *b,
                                  int *rank, int64_t *shape) {
    *rank = a->rank > b->rank ? a->rank : b->rank;
    for (int i = 1; i <= *rank; i++) {
        int64_t x = i <= a->rank ? a->shape[a->rank - i] : 1,
                y = i <= b->rank ? b->shape[b->rank - i] : 1;
        if (x != y && x != 1 && y != 1) {
            return at_fail(ATTUNE_ESHAPE, "%s: expected shapes that broadcast, got %s and %s",
                           binary_names[op], at_shape_text(a->rank, a->shape),
                           at_shape_text(b->rank, b->shape));
        }
        shape[*rank - i] = x > y ? x : y;
    }
    return ATTUNE_OK;
}

attune_status attune_tensor_binary(attune_binary op, const attune_tensor *a, const attune_tensor *b,
                                   attune_tensor *out) {
    attune_tensor x = *a, y = *b, expanded_x, expanded_y;
    int64_t shape[ATTUNE_MAX_RANK] = {0};
    int rank;
    memset(out, 0, sizeof *out);
    AT_TRY(at_check_open("a", &x));
    AT_TRY(at_check_open("b", &y));
    AT_TRY(attune_init());
    if (x.dtype != y.dtype) {
        return at_fail(ATTUNE_EDTYPE, "%s: expected two tensors of one dtype, got %s and %s",
                       binary_names[op], attune_dtype_name(x.dtype), attune_dtype_name(y.dtype));
    }
    if (at_is_integer(x.dtype) && (op == ATTUNE_DIV || op == ATTUNE_POW)) {
        return at_fail(ATTUNE_EDTYPE, "%s: expected a float dtype, got %s", binary_names[op],
                       attune_dtype_name(x.dtype));
    }
    AT_TRY(common_shape(op, &x, &y, &rank, shape));
    AT_TRY(at_tensor_new(x.dtype, rank, shape, out));
    attune_status status = attune_tensor_expand(&x, rank, shape, &expanded_x);
    if (status == ATTUNE_OK) {
        status = attune_tensor_expand(&y, rank, shape, &expanded_y);
        if (status == ATTUNE_OK) {
            status = run(&expanded_x, &expanded_y, out, (int)op);
            attune_tensor_close(&expanded_y);
        }
        attune_tensor_close(&expanded_x);
    }
    if (status != ATTUNE_OK) attune_tensor_close(out);
    return status;
}

attune_status attune_tensor_binary_scalar(attune_binary op, const attune_tensor *a, double b,
                                          bool scalar_first, attune_tensor *out) {
    attune_tensor x = *a, number, repeated;
    memset(out, 0, sizeof *out);
    AT_TRY(at_check_open("a", &x));
    if (at_is_integer(x.dtype) && b != floor(b)) {
        return at_fail(ATTUNE_EDTYPE, "%s: expected an integer to go with %s, got %g",
                       binary_names[op], attune_dtype_name(x.dtype), b);
    }
    AT_TRY(at_tensor_new(x.dtype == ATTUNE_BF16 || x.dtype == ATTUNE_F16 ? ATTUNE_F32 : x.dtype, 0,
                         NULL, &number));
    attune_status status = attune_tensor_fill(&number, b);
    if (status == ATTUNE_OK) status = attune_tensor_expand(&number, x.rank, x.shape, &repeated);
    if (status == ATTUNE_OK) {
        if (at_is_integer(x.dtype) && (op == ATTUNE_DIV || op == ATTUNE_POW)) {
            status = at_fail(ATTUNE_EDTYPE, "%s: expected a float dtype, got %s", binary_names[op],
                             attune_dtype_name(x.dtype));
        }
        if (status == ATTUNE_OK) status = at_tensor_new(x.dtype, x.rank, x.shape, out);
        if (status == ATTUNE_OK) {
            status =
                scalar_first ? run(&repeated, &x, out, (int)op) : run(&x, &repeated, out, (int)op);
            if (status != ATTUNE_OK) attune_tensor_close(out);
        }
        attune_tensor_close(&repeated);
    }
    attune_tensor_close(&number);
    return status;
}
