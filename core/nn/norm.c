/* norm.c - RMSNorm (Zhang and Sennrich 2019, arXiv 1910.07467) and LayerNorm (Ba et al. 2016, arXiv
 * 1607.06450), each beside its gradients.
 *
 *   h = (x - mean) rstd      y = h weight + bias      RMSNorm: mean 0, no bias
 */
#include <string.h>

#include "base/status.h"
#include "nn/nn_rows.h"
#include "tensor/tensor.h"

typedef struct norm_job {
    attune_tensor x, weight, bias, y, mean, rstd; /* mean is closed for RMSNorm */
    attune_tensor dy, dx, dweight, dbias;         /* dweight, dbias: partial sums [pieces, n] */
    int64_t n;
    double eps;
} norm_job;

static void close_all(norm_job *j) {
    attune_tensor *all[] = {&j->x,    &j->weight, &j->bias, &j->y,       &j->mean,
                            &j->rstd, &j->dy,     &j->dx,   &j->dweight, &j->dbias};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) attune_tensor_close(all[i]);
}

static attune_status check_vector(const char *name, const attune_tensor *t,
                                  const attune_tensor *x) {
    if (!t) return ATTUNE_OK;
    AT_TRY(at_nn_check(name, t, NULL));
    if (t->rank != 1 || t->shape[0] != x->shape[x->rank - 1]) {
        return at_fail(ATTUNE_ESHAPE, "%s: expected [%lld] to go with x %s, got %s", name,
                       (long long)x->shape[x->rank - 1], at_shape_text(x->rank, x->shape),
                       at_shape_text(t->rank, t->shape));
    }
    if ((t->dtype == ATTUNE_F64) != (x->dtype == ATTUNE_F64)) {
        return at_fail(ATTUNE_EDTYPE, "%s: expected %s to go with x, got %s", name,
                       x->dtype == ATTUNE_F64 ? "f64" : "f32, bf16 or f16",
                       attune_dtype_name(t->dtype));
    }
    return ATTUNE_OK;
}

static attune_status check_x(const attune_tensor *x, double eps) {
    AT_TRY(at_nn_check("x", x, NULL));
    if (x->rank < 1)
        return at_fail(ATTUNE_ESHAPE, "x: expected at least 1 axis, got %s",
                       at_shape_text(x->rank, x->shape));
    if (!(eps >= 0)) return at_fail(ATTUNE_EVALUE, "eps: expected at least 0, got %g", eps);
    return ATTUNE_OK;
}

static attune_status norm_rows(void *context, int64_t first, int64_t last, int64_t piece) {
    norm_job *j = context;
    const at_nn_kernels *kernels = at_nn_kernels_of(j->x.dtype);
    (void)piece;
    for (int64_t r = first; r < last; r++) {
        double mean = 0, rstd;
        const void *x = at_nn_row(&j->x, r, j->n);
        void *y = at_nn_row(&j->y, r, j->n);
        if (j->mean.data) {
            kernels->layer_norm(x, j->weight.data, j->bias.data, j->n, j->eps, y, &mean, &rstd);
            at_store(&j->mean, r, mean);
        } else {
            kernels->rms_norm(x, j->weight.data, j->n, j->eps, y, &rstd);
        }
        at_store(&j->rstd, r, rstd);
    }
    return ATTUNE_OK;
}

static attune_status forward(const attune_tensor *x, const attune_tensor *weight,
                             const attune_tensor *bias, double eps, attune_tensor *y,
                             attune_tensor *mean, attune_tensor *rstd) {
    norm_job j = {.eps = eps};
    const attune_tensor from = *x;
    attune_tensor *out[] = {y, rstd, mean};
    for (int i = 0; i < 3; i++)
        if (out[i]) memset(out[i], 0, sizeof *out[i]);
    AT_TRY(check_x(&from, eps));
    AT_TRY(check_vector("weight", weight, &from));
    AT_TRY(check_vector("bias", bias, &from));
    j.n = from.shape[from.rank - 1];
    attune_status status = at_nn_in(&from, &j.x);
    if (status == ATTUNE_OK) status = at_nn_in(weight, &j.weight);
    if (status == ATTUNE_OK) status = at_nn_in(bias, &j.bias);
    if (status == ATTUNE_OK) status = at_nn_result(&from, &j.y);
    if (status == ATTUNE_OK) status = at_tensor_new(j.x.dtype, from.rank - 1, from.shape, &j.rstd);
    if (status == ATTUNE_OK && mean)
        status = at_tensor_new(j.x.dtype, from.rank - 1, from.shape, &j.mean);
    if (status == ATTUNE_OK)
        status = at_nn_rows(attune_tensor_count(&from) / j.n, j.n, norm_rows, &j);
    if (status == ATTUNE_OK) status = at_nn_out(&j.y, from.dtype, y);
    if (status == ATTUNE_OK) status = attune_tensor_share(&j.rstd, rstd);
    if (status == ATTUNE_OK && mean) status = attune_tensor_share(&j.mean, mean);
    close_all(&j);
    return status;
}

attune_status attune_rms_norm(const attune_tensor *x, const attune_tensor *weight, double eps,
                              attune_tensor *y, attune_tensor *rstd) {
    return forward(x, weight, NULL, eps, y, NULL, rstd);
}

attune_status attune_layer_norm(const attune_tensor *x, const attune_tensor *weight,
                                const attune_tensor *bias, double eps, attune_tensor *y,
                                attune_tensor *mean, attune_tensor *rstd) {
    return forward(x, weight, bias, eps, y, mean, rstd);
}

/* ---- backward -------------------------------------------------------------------------------- */

static attune_status backward_rows(void *context, int64_t first, int64_t last, int64_t piece) {
    norm_job *j = context;
    const at_nn_kernels *kernels = at_nn_kernels_of(j->x.dtype);
    for (int64_t r = first; r < last; r++) {
        const double mean = j->mean.data ? at_load(&j->mean, r) : 0;
        kernels->norm_backward(
            at_nn_row(&j->dy, r, j->n), at_nn_row(&j->x, r, j->n), j->weight.data, j->n, mean,
            at_load(&j->rstd, r), j->mean.data != NULL, at_nn_row(&j->dx, r, j->n),
            at_nn_row(&j->dweight, piece, j->n), at_nn_row(&j->dbias, piece, j->n));
    }
    return ATTUNE_OK;
}

static attune_status sum_into(const attune_tensor *parts, attune_dtype dtype, attune_tensor *out) {
    attune_tensor result;
    AT_TRY(at_tensor_new(parts->dtype, 1, parts->shape + 1, &result));
    attune_status status = at_nn_sum_parts(parts, &result);
    if (status != ATTUNE_OK) {
        attune_tensor_close(&result);
        return status;
    }
    return at_nn_out(&result, dtype, out);
}

static attune_status backward(const attune_tensor *dy, const attune_tensor *x,
                              const attune_tensor *weight, const attune_tensor *mean,
                              const attune_tensor *rstd, attune_tensor *dx, attune_tensor *dweight,
                              attune_tensor *dbias) {
    norm_job j = {0};
    attune_tensor *out[] = {dx, dweight, dbias};
    for (int i = 0; i < 3; i++)
        if (out[i]) memset(out[i], 0, sizeof *out[i]);
    AT_TRY(check_x(x, 0));
    AT_TRY(at_nn_check("dy", dy, x));
    AT_TRY(check_vector("weight", weight, x));
    AT_TRY(at_nn_check("rstd", rstd, NULL));
    j.n = x->shape[x->rank - 1];
    const int64_t rows = attune_tensor_count(x) / j.n, parts[2] = {at_nn_pieces(rows, j.n), j.n};
    if (attune_tensor_count(rstd) != rows || (mean && attune_tensor_count(mean) != rows)) {
        return at_fail(ATTUNE_ESHAPE, "rstd: expected what forward gave for x %s, got %s",
                       at_shape_text(x->rank, x->shape), at_shape_text(rstd->rank, rstd->shape));
    }
    attune_status status = at_nn_in(x, &j.x);
    if (status == ATTUNE_OK) status = at_nn_in(dy, &j.dy);
    if (status == ATTUNE_OK) status = at_nn_in(weight, &j.weight);
    if (status == ATTUNE_OK) status = at_nn_in(mean, &j.mean);
    if (status == ATTUNE_OK) status = at_nn_in(rstd, &j.rstd);
    if (status == ATTUNE_OK) status = at_nn_result(x, &j.dx);
    if (status == ATTUNE_OK && weight && dweight)
        status = attune_tensor_new(j.x.dtype, 2, parts, &j.dweight);
    if (status == ATTUNE_OK && dbias) status = attune_tensor_new(j.x.dtype, 2, parts, &j.dbias);
    if (status == ATTUNE_OK) status = at_nn_rows(rows, j.n, backward_rows, &j);
    if (status == ATTUNE_OK) status = at_nn_out(&j.dx, x->dtype, dx);
    if (status == ATTUNE_OK && j.dweight.data)
        status = sum_into(&j.dweight, weight->dtype, dweight);
    if (status == ATTUNE_OK && j.dbias.data)
        status = sum_into(&j.dbias, weight ? weight->dtype : x->dtype, dbias);
    for (int i = 0; i < 3 && status != ATTUNE_OK; i++)
        if (out[i]) attune_tensor_close(out[i]);
    close_all(&j);
    return status;
}

attune_status attune_rms_norm_backward(const attune_tensor *dy, const attune_tensor *x,
                                       const attune_tensor *weight, const attune_tensor *rstd,
                                       attune_tensor *dx, attune_tensor *dweight) {
    return backward(dy, x, weight, NULL, rstd, dx, dweight, NULL);
}

attune_status attune_layer_norm_backward(const attune_tensor *dy, const attune_tensor *x,
                                         const attune_tensor *weight, const attune_tensor *mean,
                                         const attune_tensor *rstd, attune_tensor *dx,
                                         attune_tensor *dweight, attune_tensor *dbias) {
    if (!mean) return at_fail(ATTUNE_ECLOSED, "mean: expected what forward gave, got none");
    return backward(dy, x, weight, mean, rstd, dx, dweight, dbias);
}
