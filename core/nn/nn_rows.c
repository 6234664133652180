/* nn_rows.c - contiguous tensors in f32 or f64, and loops over their rows. */
#include "nn/nn_rows.h"

#include <string.h>

#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"
#include "simd/table.h"
#include "tensor/tensor.h"

const at_nn_kernels *at_nn_kernels_of(attune_dtype dtype) {
    return dtype == ATTUNE_F64 ? at_nn_f64() : &at_simd_now()->nn;
}

attune_status at_nn_check(const char *name, const attune_tensor *t, const attune_tensor *like) {
    AT_TRY(at_check_open(name, t));
    if (!at_is_float(t->dtype))
        return at_fail(ATTUNE_EDTYPE, "%s: expected a float dtype, got %s", name,
                       attune_dtype_name(t->dtype));
    if (!like) return ATTUNE_OK;
    if (!at_same_shape(t, like)) {
        return at_fail(ATTUNE_ESHAPE, "%s: expected %s, got %s", name,
                       at_shape_text(like->rank, like->shape), at_shape_text(t->rank, t->shape));
    }
    if ((t->dtype == ATTUNE_F64) != (like->dtype == ATTUNE_F64)) {
        return at_fail(ATTUNE_EDTYPE, "%s: expected %s, got %s", name,
                       like->dtype == ATTUNE_F64 ? "f64" : "f32, bf16 or f16",
                       attune_dtype_name(t->dtype));
    }
    return ATTUNE_OK;
}

attune_status at_nn_in(const attune_tensor *t, attune_tensor *out) {
    memset(out, 0, sizeof *out);
    if (!t) return ATTUNE_OK;
    if (t->dtype == ATTUNE_F32 || t->dtype == ATTUNE_F64) return attune_tensor_contiguous(t, out);
    return attune_tensor_convert(t, ATTUNE_F32, out);
}

attune_status at_nn_result(const attune_tensor *t, attune_tensor *result) {
    return at_tensor_new(t->dtype == ATTUNE_F64 ? ATTUNE_F64 : ATTUNE_F32, t->rank, t->shape,
                         result);
}

attune_status at_nn_out(attune_tensor *result, attune_dtype dtype, attune_tensor *out) {
    attune_status status = result->dtype == dtype ? attune_tensor_share(result, out)
                                                  : attune_tensor_convert(result, dtype, out);
    attune_tensor_close(result);
    return status;
}

void *at_nn_row(const attune_tensor *t, int64_t row, int64_t n) {
    return t->data ? (char *)t->data + row * n * attune_dtype_size(t->dtype) : NULL;
}

/* ---- loops ----------------------------------------------------------------------------------- */

typedef struct rows_job {
    int64_t rows, per_piece;
    at_nn_body body;
    void *context;
} rows_job;

enum { PIECE_ELEMENTS = 1 << 15 };

static int64_t rows_per_piece(int64_t n) { return n >= PIECE_ELEMENTS ? 1 : PIECE_ELEMENTS / n; }

int64_t at_nn_pieces(int64_t rows, int64_t n) { return at_ceil_div(rows, rows_per_piece(n)); }

static attune_status rows_task(void *context, int64_t task, int thread) {
    const rows_job *j = context;
    const int64_t first = task * j->per_piece,
                  last = first + j->per_piece < j->rows ? first + j->per_piece : j->rows;
    (void)thread;
    return j->body(j->context, first, last, task);
}

attune_status at_nn_rows(int64_t rows, int64_t n, at_nn_body body, void *context) {
    rows_job job = {.rows = rows, .per_piece = rows_per_piece(n), .body = body, .context = context};
    return at_parallel(at_nn_pieces(rows, n), rows_task, &job);
}

typedef struct sum_job {
    const attune_tensor *part, *out;
    int64_t pieces, n;
} sum_job;

enum { SUM_COLUMNS = 1024 };

static attune_status sum_task(void *context, int64_t task, int thread) {
    const sum_job *j = context;
    const at_nn_kernels *kernels = at_nn_kernels_of(j->out->dtype);
    const int64_t size = attune_dtype_size(j->out->dtype), first = task * SUM_COLUMNS,
                  n = j->n - first < SUM_COLUMNS ? j->n - first : SUM_COLUMNS;
    char *to = (char *)j->out->data + first * size;
    (void)thread;
    memset(to, 0, (size_t)(n * size));
    for (int64_t piece = 0; piece < j->pieces; piece++)
        kernels->add((const char *)j->part->data + (piece * j->n + first) * size, n, to);
    return ATTUNE_OK;
}

attune_status at_nn_sum_parts(const attune_tensor *part, attune_tensor *out) {
    sum_job job = {.part = part, .out = out, .pieces = part->shape[0], .n = part->shape[1]};
    return at_parallel(at_ceil_div(job.n, SUM_COLUMNS), sum_task, &job);
}
