/* binary_backward.c - gradients of + - * / ^ with broadcasting, and the sum that undoes a
 * broadcast.
 *
 *   y = a b    da = dy b                db = dy a
 *   y = a / b  da = dy / b              db = -dy a / b^2
 *   y = a^b    da = dy b a^(b - 1)      db = dy a^b log a
 *
 * Each is summed over the axes along which its operand was repeated.
 */
#include <math.h>
#include <string.h>

#include "base/int_math.h"
#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"
#include "nn/nn_rows.h"
#include "tensor/map.h"
#include "tensor/tensor.h"

/* ---- sums over repeated axes ----------------------------------------------------------------- */

typedef struct columns_job {
    attune_tensor t; /* contiguous f32 or f64, as [rows, n] */
    int64_t n;
    attune_tensor part; /* [pieces, n] */
} columns_job;

static attune_status add_rows(void *context, int64_t first, int64_t last, int64_t piece) {
    columns_job *j = context;
    const at_nn_kernels *kernels = at_nn_kernels_of(j->t.dtype);
    for (int64_t r = first; r < last; r++)
        kernels->add(at_nn_row(&j->t, r, j->n), j->n, at_nn_row(&j->part, piece, j->n));
    return ATTUNE_OK;
}

/* t as [rows, n], summed over rows: [n] in f32 or f64. */
static attune_status sum_columns(const attune_tensor *t, int64_t n, attune_tensor *out) {
    columns_job j = {.n = n};
    const int64_t rows = attune_tensor_count(t) / n, shape[2] = {at_nn_pieces(rows, n), n};
    attune_status status = at_nn_in(t, &j.t);
    if (status == ATTUNE_OK) status = attune_tensor_new(j.t.dtype, 2, shape, &j.part);
    if (status == ATTUNE_OK) status = at_nn_rows(rows, n, add_rows, &j);
    if (status == ATTUNE_OK) status = at_tensor_new(j.t.dtype, 1, shape + 1, out);
    if (status == ATTUNE_OK) status = at_nn_sum_parts(&j.part, out);
    attune_tensor_close(&j.t);
    attune_tensor_close(&j.part);
    return status;
}

/* Sums over the axes where `shape`, aligned with the last axes of t, has extent 1 or none. The
 * result has t's number of elements along the others, and one axis per axis that stays. */
static attune_status sum_axes(const attune_tensor *t, int rank, const int64_t *shape,
                              attune_tensor *out) {
    attune_tensor sum = {0}, next;
    AT_TRY(attune_tensor_share(t, &sum));
    for (int i = t->rank - 1; i >= 0; i--) {
        const int64_t extent = i >= t->rank - rank ? shape[i - t->rank + rank] : 1;
        if (extent == t->shape[i]) continue;
        attune_status status = attune_tensor_reduce(ATTUNE_SUM, &sum, i, &next);
        attune_tensor_close(&sum);
        AT_TRY(status);
        sum = next;
    }
    *out = sum;
    return ATTUNE_OK;
}

/* Whether t and the shape agree along the last axes, and the shape has 1 or nothing before. *n: the
 * elements along those axes. */
static bool repeats_rows(const attune_tensor *t, int rank, const int64_t *shape, int64_t *n) {
    int i = 1;
    *n = 1;
    for (; i <= rank && shape[rank - i] == t->shape[t->rank - i]; i++) *n *= shape[rank - i];
    for (; i <= rank; i++)
        if (shape[rank - i] != 1) return false;
    return true;
}

attune_status attune_sum_to(const attune_tensor *t, int rank, const int64_t *shape,
                            attune_tensor *out) {
    attune_tensor from = *t, sum = {0};
    int64_t n, to[ATTUNE_MAX_RANK] = {0};
    if (rank > 0 && rank <= ATTUNE_MAX_RANK) memcpy(to, shape, (size_t)rank * sizeof *shape);
    memset(out, 0, sizeof *out);
    AT_TRY(at_nn_check("tensor", &from, NULL));
    if (rank < 0 || rank > from.rank)
        return at_fail(ATTUNE_ESHAPE, "shape: expected at most %d axes, got %d", from.rank, rank);
    for (int i = 1; i <= rank; i++) {
        if (to[rank - i] != from.shape[from.rank - i] && to[rank - i] != 1)
            return at_fail(ATTUNE_ESHAPE, "shape: expected one that expands to %s, got %s",
                           at_shape_text(from.rank, from.shape), at_shape_text(rank, to));
    }
    if (rank == from.rank && memcmp(to, from.shape, (size_t)rank * sizeof *to) == 0)
        return attune_tensor_share(&from, out);
    if (rank == 0) return attune_tensor_reduce(ATTUNE_SUM, &from, ATTUNE_ALL_AXES, out);
    attune_status status;
    if (repeats_rows(&from, rank, to, &n) && n > 1) {
        attune_tensor in_own = {0};
        status = sum_columns(&from, n, &in_own);
        if (status == ATTUNE_OK) status = at_nn_out(&in_own, from.dtype, &sum);
    } else {
        status = sum_axes(&from, rank, to, &sum);
    }
    /* A sum over all axes has rank 0: its one element gets the axes of extent 1. */
    if (status == ATTUNE_OK && sum.rank == 0) {
        sum.rank = 1;
        sum.shape[0] = 1;
        sum.stride[0] = 1;
    }
    if (status == ATTUNE_OK) status = attune_tensor_view(&sum, rank, to, out);
    attune_tensor_close(&sum);
    return status;
}

/* ---- the operations -------------------------------------------------------------------------- */

typedef struct binary_context {
    attune_binary op;
    bool of_b; /* the gradient of b, else of a */
} binary_context;

static double slope(const binary_context *c, double a, double b) {
    switch (c->op) {
    case ATTUNE_MUL: return c->of_b ? a : b;
    case ATTUNE_DIV: return c->of_b ? -(a / b) / b : 1 / b;
    case ATTUNE_POW:
        if (c->of_b) return a == 0 && b >= 0 ? 0 : pow(a, b) * log(a);
        return b == 2 ? 2 * a : b == 0 ? 0 : b * pow(a, b - 1);
    default: return NAN; /* + and - need no operand */
    }
}

static void binary_f32(const void *context, int64_t n, const float *const *in, float *const *out) {
    const binary_context *c = context;
    const float *dy = in[0], *a = in[1], *b = in[2], *other = c->of_b ? a : b;
    if (c->op == ATTUNE_MUL) {
        for (int64_t i = 0; i < n; i++) out[0][i] = dy[i] * other[i];
    } else if (c->op == ATTUNE_DIV && !c->of_b) {
        for (int64_t i = 0; i < n; i++) out[0][i] = dy[i] / b[i];
    } else {
        for (int64_t i = 0; i < n; i++)
            out[0][i] = (float)((double)dy[i] * slope(c, (double)a[i], (double)b[i]));
    }
}

static void binary_f64(const void *context, int64_t n, const double *const *in,
                       double *const *out) {
    const binary_context *c = context;
    for (int64_t i = 0; i < n; i++) out[0][i] = in[0][i] * slope(c, in[1][i], in[2][i]);
}

/* The gradient of one operand. x: that operand. */
static attune_status operand_backward(const binary_context *c, const attune_tensor *dy,
                                      const attune_tensor *a, const attune_tensor *b,
                                      const attune_tensor *x, attune_tensor *dx) {
    attune_tensor whole_a = {0}, whole_b = {0}, whole = {0}, sum = {0};
    attune_status status = ATTUNE_OK;
    if (c->op == ATTUNE_ADD || (c->op == ATTUNE_SUB && !c->of_b)) {
        status = attune_tensor_share(dy, &whole);
    } else if (c->op == ATTUNE_SUB) {
        status = attune_tensor_unary(ATTUNE_NEG, dy, &whole);
    } else {
        status = attune_tensor_expand(a, dy->rank, dy->shape, &whole_a);
        if (status == ATTUNE_OK) status = attune_tensor_expand(b, dy->rank, dy->shape, &whole_b);
        if (status == ATTUNE_OK) status = at_nn_result(dy, &whole);
        const at_map map = {.in = {dy, &whole_a, &whole_b},
                            .out = {&whole},
                            .f32 = binary_f32,
                            .f64 = binary_f64,
                            .context = c,
                            .in_f64 = dy->dtype == ATTUNE_F64};
        if (status == ATTUNE_OK) status = at_map_run(&map);
    }
    if (status == ATTUNE_OK) status = attune_sum_to(&whole, x->rank, x->shape, &sum);
    if (status == ATTUNE_OK) status = at_nn_out(&sum, x->dtype, dx);
    attune_tensor *all[] = {&whole_a, &whole_b, &whole, &sum};
    for (int i = 0; i < 4; i++) attune_tensor_close(all[i]);
    return status;
}

attune_status attune_binary_backward(attune_binary op, const attune_tensor *dy,
                                     const attune_tensor *a, const attune_tensor *b,
                                     attune_tensor *da, attune_tensor *db) {
    if (da) memset(da, 0, sizeof *da);
    if (db) memset(db, 0, sizeof *db);
    AT_TRY(at_nn_check("dy", dy, NULL));
    AT_TRY(at_nn_check("a", a, NULL));
    AT_TRY(at_nn_check("b", b, NULL));
    AT_TRY(attune_init());
    const binary_context of_a = {.op = op}, of_b = {.op = op, .of_b = true};
    if (da) AT_TRY(operand_backward(&of_a, dy, a, b, a, da));
    attune_status status = db ? operand_backward(&of_b, dy, a, b, b, db) : ATTUNE_OK;
    if (status != ATTUNE_OK && da) attune_tensor_close(da);
    return status;
}
