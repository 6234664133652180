/* muon.c - momentum with orthogonalised updates: Jordan et al. 2024, "Muon: an optimizer for hidden
 * layers in neural networks" (kellerjordan.github.io/posts/muon).
 *
 * The iteration of Newton and Schulz with these coefficients moves singular values between 0.01 and
 * 1 into about 0.7 to 1.2 in five steps; it does not converge to 1.
 */
#include <math.h>
#include <string.h>

#include "base/status.h"
#include "nn/nn_rows.h"
#include "nn/optimiser.h"
#include "tensor/tensor.h"

static const double A = 3.4445, B = -4.7750, C = 2.0315;
static const double TINY = 1e-7; /* added to the norm */

/* *out = x times a number, plus y times another; both contiguous and of one shape. */
static attune_status combine(const attune_tensor *x, double of_x, const attune_tensor *y,
                             double of_y, attune_tensor *out) {
    attune_tensor scaled;
    AT_TRY(attune_tensor_binary_scalar(ATTUNE_MUL, x, of_x, false, &scaled));
    attune_tensor other = {0};
    attune_status status = attune_tensor_binary_scalar(ATTUNE_MUL, y, of_y, false, &other);
    if (status == ATTUNE_OK) status = attune_tensor_binary(ATTUNE_ADD, &scaled, &other, out);
    attune_tensor_close(&scaled);
    attune_tensor_close(&other);
    return status;
}

/* *x = A x + (B s + C s^2) x, s = x x^T; x [rows, columns] with rows at most columns. */
static attune_status iterate(attune_tensor *x) {
    attune_tensor t = {0}, s = {0}, s2 = {0}, mix = {0}, product = {0}, next = {0};
    attune_status status = attune_tensor_transpose(x, 0, 1, &t);
    if (status == ATTUNE_OK) status = attune_tensor_matmul(x, &t, &s);
    if (status == ATTUNE_OK) status = attune_tensor_matmul(&s, &s, &s2);
    if (status == ATTUNE_OK) status = combine(&s, B, &s2, C, &mix);
    if (status == ATTUNE_OK) status = attune_tensor_matmul(&mix, x, &product);
    if (status == ATTUNE_OK) status = combine(x, A, &product, 1, &next);
    attune_tensor *all[] = {&t, &s, &s2, &mix, &product};
    for (int i = 0; i < 5; i++) attune_tensor_close(all[i]);
    if (status != ATTUNE_OK) return status;
    attune_tensor_close(x);
    *x = next;
    return ATTUNE_OK;
}

/* *out = u with its singular values moved near 1. */
static attune_status orthogonalise(const attune_tensor *u, int64_t iterations, attune_tensor *out) {
    const bool tall = u->shape[0] > u->shape[1];
    double squares = 0;
    attune_tensor x = {0}, view = {0};
    AT_TRY(attune_sum_of_squares(u, &squares));
    AT_TRY(attune_tensor_transpose(u, 0, tall ? 1 : 0, &view));
    attune_status status =
        attune_tensor_binary_scalar(ATTUNE_MUL, &view, 1 / (sqrt(squares) + TINY), false, &x);
    for (int64_t i = 0; i < iterations && status == ATTUNE_OK; i++) status = iterate(&x);
    attune_tensor_close(&view);
    if (status == ATTUNE_OK) status = attune_tensor_transpose(&x, 0, tall ? 1 : 0, out);
    attune_tensor_close(&x);
    return status;
}

static attune_status check(const attune_muon_options *o, const attune_tensor *p,
                           const attune_tensor *g, attune_tensor *m) {
    AT_TRY(at_check_parameter(p, g, 1, &m));
    if (p->rank != 2)
        return at_fail(ATTUNE_ESHAPE, "p: expected a matrix [rows, columns], got %s",
                       at_shape_text(p->rank, p->shape));
    if (!m) return at_fail(ATTUNE_ECLOSED, "moment: expected a tensor, got none");
    AT_TRY(at_check_rate("lr", o->lr));
    AT_TRY(at_check_rate("weight_decay", o->weight_decay));
    AT_TRY(at_check_momentum("momentum", o->momentum));
    if (o->iterations < 0 || o->iterations > 100)
        return at_fail(ATTUNE_EVALUE, "iterations: expected from 0 to 100, got %lld",
                       (long long)o->iterations);
    return ATTUNE_OK;
}

attune_status attune_muon(const attune_muon_options *o, attune_tensor *p, const attune_tensor *g,
                          attune_tensor *m) {
    AT_TRY(check(o, p, g, m));
    attune_tensor h = {0}, moment = {0}, u = {0}, step = {0}, next = {0};
    const double ratio = (double)p->shape[0] / (double)p->shape[1],
                 size = o->lr * sqrt(ratio > 1 ? ratio : 1);
    attune_status status = at_nn_in(g, &h);
    if (status == ATTUNE_OK) status = combine(m, o->momentum, &h, 1 - o->momentum, &moment);
    if (status == ATTUNE_OK)
        status = o->nesterov ? combine(&h, 1 - o->momentum, &moment, o->momentum, &u)
                             : attune_tensor_share(&moment, &u);
    if (status == ATTUNE_OK) status = orthogonalise(&u, o->iterations ? o->iterations : 5, &step);
    if (status == ATTUNE_OK) status = combine(p, 1 - o->lr * o->weight_decay, &step, -size, &next);
    if (status == ATTUNE_OK) status = attune_tensor_copy(&moment, m);
    if (status == ATTUNE_OK) status = attune_tensor_copy(&next, p);
    attune_tensor *all[] = {&h, &moment, &u, &step, &next};
    for (int i = 0; i < 5; i++) attune_tensor_close(all[i]);
    return status;
}
