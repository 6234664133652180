/* linear.c - matrix products with gradients.
 *
 *   y = a b          da = dy b^T       db = a^T dy, each summed over repeated batches
 *   y = x W^T + c    dx = dy W         dW = dy^T x       dc = the sum of dy's rows
 */
#include <string.h>

#include "base/int_math.h"
#include "base/memory.h"
#include "base/status.h"
#include "nn/nn_rows.h"
#include "tensor/tensor.h"

/* a b summed to the shape of x. a and b are closed. */
static attune_status product_to(attune_tensor *a, attune_tensor *b, const attune_tensor *x,
                                attune_tensor *out) {
    attune_tensor whole = {0};
    attune_status status = attune_tensor_matmul(a, b, &whole);
    if (status == ATTUNE_OK) status = attune_sum_to(&whole, x->rank, x->shape, out);
    attune_tensor_close(&whole);
    attune_tensor_close(a);
    attune_tensor_close(b);
    return status;
}

/* A contiguous t [.., n] as [rows, n]. */
static attune_status as_rows(const attune_tensor *t, attune_tensor *out) {
    attune_tensor whole;
    const int64_t shape[2] = {-1, t->shape[t->rank - 1]};
    AT_TRY(attune_tensor_contiguous(t, &whole));
    attune_status status = attune_tensor_view(&whole, 2, shape, out);
    attune_tensor_close(&whole);
    return status;
}

/* One matrix b under a batch of a: the batch is only more rows. */
static attune_status db_of_rows(const attune_tensor *dy, const attune_tensor *a,
                                const attune_tensor *b, attune_tensor *db) {
    attune_tensor rows = {0}, dy_rows = {0}, transposed = {0}, product = {0};
    attune_status status = as_rows(a, &rows);
    if (status == ATTUNE_OK) status = as_rows(dy, &dy_rows);
    if (status == ATTUNE_OK) status = attune_tensor_transpose(&rows, 0, 1, &transposed);
    if (status == ATTUNE_OK) status = attune_tensor_matmul(&transposed, &dy_rows, &product);
    if (status == ATTUNE_OK) status = attune_tensor_view(&product, b->rank, b->shape, db);
    attune_tensor *all[] = {&rows, &dy_rows, &transposed, &product};
    for (int i = 0; i < 4; i++) attune_tensor_close(all[i]);
    return status;
}

attune_status attune_matmul_backward(const attune_tensor *dy, const attune_tensor *a,
                                     const attune_tensor *b, attune_tensor *da, attune_tensor *db) {
    attune_tensor left = {0}, right = {0};
    if (da) memset(da, 0, sizeof *da);
    if (db) memset(db, 0, sizeof *db);
    AT_TRY(at_nn_check("dy", dy, NULL));
    AT_TRY(at_nn_check("a", a, NULL));
    AT_TRY(at_nn_check("b", b, NULL));
    if (a->rank < 2 || b->rank < 2 || dy->rank < 2)
        return at_fail(ATTUNE_ESHAPE, "a: expected matrices, got %s and %s",
                       at_shape_text(a->rank, a->shape), at_shape_text(b->rank, b->shape));
    attune_status status = ATTUNE_OK;
    if (da) {
        status = attune_tensor_share(dy, &left);
        if (status == ATTUNE_OK) status = attune_tensor_transpose(b, -1, -2, &right);
        if (status == ATTUNE_OK) status = product_to(&left, &right, a, da);
    }
    if (db && status == ATTUNE_OK) {
        int64_t matrices = 1;
        for (int i = 0; i < b->rank - 2; i++) matrices *= b->shape[i];
        if (matrices == 1 && a->rank > 2 && dy->rank == a->rank) {
            status = db_of_rows(dy, a, b, db);
        } else {
            status = attune_tensor_transpose(a, -1, -2, &left);
            if (status == ATTUNE_OK) status = attune_tensor_share(dy, &right);
            if (status == ATTUNE_OK) status = product_to(&left, &right, b, db);
        }
    }
    attune_tensor_close(&left);
    attune_tensor_close(&right);
    if (status != ATTUNE_OK && da) attune_tensor_close(da);
    return status;
}

/* ---- x W^T + c ------------------------------------------------------------------------------- */

static attune_status check_linear(const attune_tensor *x, const attune_tensor *weight,
                                  const attune_tensor *bias) {
    AT_TRY(at_nn_check("x", x, NULL));
    AT_TRY(at_nn_check("weight", weight, NULL));
    if (weight->rank != 2 || x->rank < 1 || weight->shape[1] != x->shape[x->rank - 1])
        return at_fail(ATTUNE_ESHAPE, "weight: expected [out, in] to go with x %s, got %s",
                       at_shape_text(x->rank, x->shape),
                       at_shape_text(weight->rank, weight->shape));
    if (!bias) return ATTUNE_OK;
    AT_TRY(at_nn_check("bias", bias, NULL));
    if (bias->rank != 1 || bias->shape[0] != weight->shape[0])
        return at_fail(ATTUNE_ESHAPE, "bias: expected [%lld] to go with weight %s, got %s",
                       (long long)weight->shape[0], at_shape_text(weight->rank, weight->shape),
                       at_shape_text(bias->rank, bias->shape));
    if (bias->dtype != weight->dtype)
        return at_fail(ATTUNE_EDTYPE, "bias: expected %s, as weight, got %s",
                       attune_dtype_name(weight->dtype), attune_dtype_name(bias->dtype));
    return ATTUNE_OK;
}

typedef struct bias_job {
    attune_tensor bias, y; /* f32 or f64 */
    int64_t n;
} bias_job;

static attune_status add_bias(void *context, int64_t first, int64_t last, int64_t piece) {
    bias_job *j = context;
    const at_nn_kernels *kernels = at_nn_kernels_of(j->y.dtype);
    (void)piece;
    for (int64_t r = first; r < last; r++)
        kernels->add(j->bias.data, j->n, at_nn_row(&j->y, r, j->n));
    return ATTUNE_OK;
}

/* y [rows, out] += bias, in place; 16-bit floats are added in f32. */
static attune_status plus_bias(attune_tensor *y, const attune_tensor *bias) {
    if (y->dtype != ATTUNE_F32 && y->dtype != ATTUNE_F64) {
        attune_tensor sum;
        AT_TRY(attune_tensor_binary(ATTUNE_ADD, y, bias, &sum));
        attune_tensor_close(y);
        *y = sum;
        return ATTUNE_OK;
    }
    bias_job j = {.y = *y, .n = bias->shape[0]};
    AT_TRY(attune_tensor_contiguous(bias, &j.bias));
    attune_status status = at_nn_rows(attune_tensor_count(y) / j.n, j.n, add_bias, &j);
    attune_tensor_close(&j.bias);
    return status;
}

attune_status attune_linear(const attune_tensor *x, const attune_tensor *weight,
                            const attune_tensor *bias, attune_tensor *y) {
    attune_tensor rows = {0}, transposed = {0}, product = {0};
    int64_t shape[ATTUNE_MAX_RANK] = {0};
    memset(y, 0, sizeof *y);
    AT_TRY(check_linear(x, weight, bias));
    memcpy(shape, x->shape, (size_t)x->rank * sizeof *shape);
    shape[x->rank - 1] = weight->shape[0];
    attune_status status = as_rows(x, &rows);
    if (status == ATTUNE_OK) status = attune_tensor_transpose(weight, 0, 1, &transposed);
    if (status == ATTUNE_OK) status = attune_tensor_matmul(&rows, &transposed, &product);
    if (status == ATTUNE_OK && bias) status = plus_bias(&product, bias);
    if (status == ATTUNE_OK) status = attune_tensor_view(&product, x->rank, shape, y);
    attune_tensor *all[] = {&rows, &transposed, &product};
    for (int i = 0; i < 3; i++) attune_tensor_close(all[i]);
    return status;
}

static attune_status dx_of_linear(const attune_tensor *dy, const attune_tensor *x,
                                  const attune_tensor *weight, attune_tensor *dx) {
    attune_tensor product = {0};
    attune_status status = attune_tensor_matmul(dy, weight, &product);
    if (status == ATTUNE_OK) status = attune_tensor_view(&product, x->rank, x->shape, dx);
    attune_tensor_close(&product);
    return status;
}

static attune_status dw_of_linear(const attune_tensor *dy, const attune_tensor *x,
                                  attune_tensor *dweight) {
    attune_tensor rows = {0}, transposed = {0};
    attune_status status = as_rows(x, &rows);
    if (status == ATTUNE_OK) status = attune_tensor_transpose(dy, 0, 1, &transposed);
    if (status == ATTUNE_OK) status = attune_tensor_matmul(&transposed, &rows, dweight);
    attune_tensor_close(&rows);
    attune_tensor_close(&transposed);
    return status;
}

attune_status attune_linear_backward(const attune_tensor *dy, const attune_tensor *x,
                                     const attune_tensor *weight, attune_tensor *dx,
                                     attune_tensor *dweight, attune_tensor *dbias) {
    attune_tensor rows = {0}, *out[] = {dx, dweight, dbias};
    for (int i = 0; i < 3; i++)
        if (out[i]) memset(out[i], 0, sizeof *out[i]);
    AT_TRY(check_linear(x, weight, NULL));
    AT_TRY(at_nn_check("dy", dy, NULL));
    if (dy->rank != x->rank || dy->shape[dy->rank - 1] != weight->shape[0] ||
        attune_tensor_count(dy) / weight->shape[0] != attune_tensor_count(x) / weight->shape[1])
        return at_fail(ATTUNE_ESHAPE, "dy: expected [.., %lld] to go with x %s, got %s",
                       (long long)weight->shape[0], at_shape_text(x->rank, x->shape),
                       at_shape_text(dy->rank, dy->shape));
    attune_status status = as_rows(dy, &rows);
    if (status == ATTUNE_OK && dx) status = dx_of_linear(&rows, x, weight, dx);
    if (status == ATTUNE_OK && dweight) status = dw_of_linear(&rows, x, dweight);
    if (status == ATTUNE_OK && dbias) status = attune_sum_to(&rows, 1, weight->shape, dbias);
    attune_tensor_close(&rows);
    for (int i = 0; i < 3 && status != ATTUNE_OK; i++)
        if (out[i]) attune_tensor_close(out[i]);
    return status;
}
