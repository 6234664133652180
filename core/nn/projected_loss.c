/* projected_loss.c - cross-entropy together with the output projection, in blocks of rows.
 *
 *   forward:   z = cap(scale (x W^T + b))                       [rows of the block, n]
 *   backward:  dz = w / sum(w) ((1 + 2 z_loss lse) softmax(z) - (1 - s) onehot - s / n)
 *              du = scale dz cap'    dx = du W    dW += du^T x    db += sum of the rows of du
 *
 * The gradients are computed right after the logits, while these are in the cache, so that no
 * product is computed twice. Tokens of weight 0 are left out when rows are gathered into a block.
 */
#include <math.h>
#include <string.h>

#include "base/int_math.h"
#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"
#include "nn/nn_rows.h"
#include "tensor/gemm.h"
#include "tensor/product.h"
#include "tensor/tensor.h"

enum {
    BLOCK_ELEMENTS = 1 << 22, /* logits of a block */
    MIN_BLOCK_ROWS = 64,      /* fewer rows would read the weight too often */
    GRAIN = 32,               /* of the rows or columns of a task */
    BIAS_COLUMNS = 1024
};

typedef struct loss_job {
    attune_loss_options o;
    attune_tensor x, weight, bias, weights, dx, dweight, dbias;
    attune_tensor rows_x, logits, rows_dx; /* of one block: [block, d], [block, n], [block, d] */
    const int64_t *target;
    int64_t *row; /* [counted]: the rows whose weight is not 0 */
    double *part; /* [counted, 2]: each row's loss and nll, times its weight */
    int64_t d, n, counted, block, first, last; /* rows [first, last) of `row` are in the block */
    int64_t chunk, columns;                    /* rows per task; columns per task of dweight */
    double total;                              /* the sum of all weights */
} loss_job;

/* C [m, n] = A B, or C += A B; C is contiguous. */
static attune_status product(attune_dtype dtype, int64_t m, int64_t n, int64_t k, const void *a,
                             int64_t a_row, int64_t a_column, const void *b, int64_t b_row,
                             int64_t b_column, bool add, void *c) {
    const at_f32_product p = {.m = m,
                              .n = n,
                              .k = k,
                              .a = a,
                              .a_row = a_row,
                              .a_column = a_column,
                              .b = b,
                              .b_row = b_row,
                              .b_column = b_column,
                              .c = c,
                              .c_row = n,
                              .add = add};
    if (dtype == ATTUNE_F32) return at_multiply_f32(&p);
    at_gemm_f64(m, n, k, 1, a, a_row, a_column, b, b_row, b_column, add, c, n, 1);
    return ATTUNE_OK;
}

static double weight_of(const loss_job *j, int64_t row) {
    return j->weights.data ? at_load(&j->weights, row) : 1;
}

/* Applies bias, scale and cap to one row of logits. */
static void finish_logits(const loss_job *j, int64_t offset) {
    const bool plain = !j->bias.data && j->o.logit_scale == 1 && j->o.softcap == 0;
    for (int64_t i = 0; i < j->n && !plain; i++) {
        double z = at_load(&j->logits, offset + i);
        if (j->bias.data) z += at_load(&j->bias, i);
        z *= j->o.logit_scale;
        if (j->o.softcap > 0) z = j->o.softcap * tanh(z / j->o.softcap);
        at_store(&j->logits, offset + i, z);
    }
}

/* Replaces one row of logits by its gradient; softmax times (1 + 2 z_loss lse) is written first. */
static void gradient_of_row(const loss_job *j, int64_t offset, int64_t target, double lse,
                            double factor) {
    void *z = at_nn_row(&j->logits, offset / j->n, j->n);
    const double smooth = j->o.label_smoothing, cap = j->o.softcap;
    const double uniform = factor * smooth / (double)j->n;
    const bool plain = smooth == 0 && cap == 0 && j->o.logit_scale == 1;
    if (plain) {
        at_nn_kernels_of(j->logits.dtype)
            ->softmax_times(z, lse, factor * (1 + 2 * j->o.z_loss * lse), j->n, z);
        at_store(&j->logits, offset + target, at_load(&j->logits, offset + target) - factor);
        return;
    }
    for (int64_t i = 0; i < j->n; i++) {
        const double value = at_load(&j->logits, offset + i);
        double dz = factor * (1 + 2 * j->o.z_loss * lse) * exp(value - lse) - uniform;
        if (i == target) dz -= factor * (1 - smooth);
        if (cap > 0) dz *= 1 - value / cap * (value / cap);
        at_store(&j->logits, offset + i, dz * j->o.logit_scale);
    }
}

static void loss_of_row(loss_job *j, int64_t number) {
    const int64_t row = j->row[number], target = j->target[row],
                  offset = (number - j->first) * j->n;
    const double w = weight_of(j, row), smooth = j->o.label_smoothing;
    finish_logits(j, offset);
    const double lse = at_nn_kernels_of(j->logits.dtype)
                           ->log_sum_exp(at_nn_row(&j->logits, number - j->first, j->n), j->n);
    const double nll = lse - at_load(&j->logits, offset + target);
    double loss = nll;
    if (smooth > 0) {
        double sum = 0;
        for (int64_t i = 0; i < j->n; i++) sum += at_load(&j->logits, offset + i);
        loss = (1 - smooth) * nll + smooth * (lse - sum / (double)j->n);
    }
    j->part[2 * number] = w * (loss + j->o.z_loss * lse * lse);
    j->part[2 * number + 1] = w * nll;
    if (j->o.gradients) gradient_of_row(j, offset, target, lse, w / j->total);
}

/* One chunk of rows: logits, losses, gradients of the logits, and dx. */
static attune_status rows_task(void *context, int64_t task, int thread) {
    loss_job *j = context;
    const int64_t begin = task * j->chunk, rows = j->last - j->first,
                  end = begin + j->chunk < rows ? begin + j->chunk : rows, d = j->d, n = j->n,
                  size = attune_dtype_size(j->x.dtype);
    (void)thread;
    for (int64_t r = begin; r < end; r++)
        memcpy(at_nn_row(&j->rows_x, r, d), at_nn_row(&j->x, j->row[j->first + r], d),
               (size_t)(d * size));
    void *z = at_nn_row(&j->logits, begin, n);
    AT_TRY(product(j->x.dtype, end - begin, n, d, at_nn_row(&j->rows_x, begin, d), d, 1,
                   j->weight.data, 1, d, false, z));
    for (int64_t r = begin; r < end; r++) loss_of_row(j, j->first + r);
    if (!j->o.gradients) return ATTUNE_OK;
    AT_TRY(product(j->x.dtype, end - begin, d, n, z, n, 1, j->weight.data, d, 1, false,
                   at_nn_row(&j->rows_dx, begin, d)));
    for (int64_t r = begin; r < end; r++)
        memcpy(at_nn_row(&j->dx, j->row[j->first + r], d), at_nn_row(&j->rows_dx, r, d),
               (size_t)(d * size));
    return ATTUNE_OK;
}

/* Some rows of dweight: [columns of the logits]^T x. */
static attune_status weight_task(void *context, int64_t task, int thread) {
    loss_job *j = context;
    const int64_t begin = task * j->columns,
                  end = begin + j->columns < j->n ? begin + j->columns : j->n, d = j->d, n = j->n,
                  size = attune_dtype_size(j->x.dtype);
    (void)thread;
    return product(j->x.dtype, end - begin, d, j->last - j->first,
                   (char *)j->logits.data + begin * size, 1, n, j->rows_x.data, d, 1, j->first > 0,
                   at_nn_row(&j->dweight, begin, d));
}

static attune_status bias_task(void *context, int64_t task, int thread) {
    loss_job *j = context;
    const int64_t begin = task * BIAS_COLUMNS,
                  count = j->n - begin < BIAS_COLUMNS ? j->n - begin : BIAS_COLUMNS,
                  size = attune_dtype_size(j->x.dtype);
    (void)thread;
    for (int64_t r = 0; r < j->last - j->first; r++)
        at_nn_kernels_of(j->x.dtype)
            ->add((char *)j->logits.data + (r * j->n + begin) * size, count,
                  (char *)j->dbias.data + begin * size);
    return ATTUNE_OK;
}

static attune_status block(loss_job *j) {
    const int64_t rows = j->last - j->first;
    j->chunk = at_round_up(at_ceil_div(rows, at_cores()), GRAIN);
    j->columns = at_round_up(at_ceil_div(j->n, at_cores()), GRAIN);
    AT_TRY(at_parallel(at_ceil_div(rows, j->chunk), rows_task, j));
    if (!j->o.gradients) return ATTUNE_OK;
    if (j->dbias.data) AT_TRY(at_parallel(at_ceil_div(j->n, BIAS_COLUMNS), bias_task, j));
    return at_parallel(at_ceil_div(j->n, j->columns), weight_task, j);
}

/* ---- checks ---------------------------------------------------------------------------------- */

static attune_status check_shapes(const attune_tensor *x, const attune_tensor *weight,
                                  const attune_tensor *bias, const attune_tensor *targets,
                                  const attune_tensor *weights) {
    AT_TRY(at_nn_check("x", x, NULL));
    AT_TRY(at_nn_check("weight", weight, NULL));
    AT_TRY(at_check_open("targets", targets));
    if (x->rank < 1 || weight->rank != 2 || x->shape[x->rank - 1] != weight->shape[1])
        return at_fail(ATTUNE_ESHAPE, "weight: expected [vocabulary, %lld] for x %s, got %s",
                       (long long)(x->rank ? x->shape[x->rank - 1] : 0),
                       at_shape_text(x->rank, x->shape),
                       at_shape_text(weight->rank, weight->shape));
    if ((x->dtype == ATTUNE_F64) != (weight->dtype == ATTUNE_F64))
        return at_fail(ATTUNE_EDTYPE, "weight: expected the dtype of x, %s, got %s",
                       attune_dtype_name(x->dtype), attune_dtype_name(weight->dtype));
    if (bias) AT_TRY(at_nn_check("bias", bias, NULL));
    if (bias && (bias->rank != 1 || bias->shape[0] != weight->shape[0]))
        return at_fail(ATTUNE_ESHAPE, "bias: expected [%lld], got %s", (long long)weight->shape[0],
                       at_shape_text(bias->rank, bias->shape));
    if (targets->dtype != ATTUNE_I64)
        return at_fail(ATTUNE_EDTYPE, "targets: expected i64, got %s",
                       attune_dtype_name(targets->dtype));
    attune_tensor like = *x;
    like.rank--;
    if (!at_same_shape(targets, &like))
        return at_fail(ATTUNE_ESHAPE, "targets: expected %s, one id per row of x, got %s",
                       at_shape_text(like.rank, like.shape),
                       at_shape_text(targets->rank, targets->shape));
    if (!weights) return ATTUNE_OK;
    AT_TRY(at_nn_check("weights", weights, NULL));
    if (!at_same_shape(weights, targets))
        return at_fail(ATTUNE_ESHAPE, "weights: expected %s, as targets, got %s",
                       at_shape_text(targets->rank, targets->shape),
                       at_shape_text(weights->rank, weights->shape));
    return ATTUNE_OK;
}

static attune_status check_options(const attune_loss_options *o) {
    if (!isfinite(o->logit_scale))
        return at_fail(ATTUNE_EVALUE, "logit_scale: expected a finite number, got %g",
                       o->logit_scale);
    if (!(o->softcap >= 0 && isfinite(o->softcap)))
        return at_fail(ATTUNE_EVALUE, "softcap: expected a finite number of at least 0, got %g",
                       o->softcap);
    if (!(o->label_smoothing >= 0 && o->label_smoothing < 1))
        return at_fail(ATTUNE_EVALUE, "label_smoothing: expected from 0 to below 1, got %g",
                       o->label_smoothing);
    if (!(o->z_loss >= 0 && isfinite(o->z_loss)))
        return at_fail(ATTUNE_EVALUE, "z_loss: expected a finite number of at least 0, got %g",
                       o->z_loss);
    return ATTUNE_OK;
}

/* Lists the rows that count, and checks their weights and targets. */
static attune_status list_rows(loss_job *j, int64_t rows) {
    for (int64_t r = 0; r < rows; r++) {
        const double w = weight_of(j, r);
        if (w == 0) continue;
        if (!(w > 0 && isfinite(w)))
            return at_fail(
                ATTUNE_EVALUE,
                "weights: expected finite numbers of at least 0, got %g as number " AT_INDEX, w,
                (long long)r);
        if (j->target[r] < 0 || j->target[r] >= j->n)
            return at_fail(ATTUNE_EVALUE, "targets: expected ids from 0 to %lld, got %lld",
                           (long long)j->n - 1, (long long)j->target[r]);
        j->total += w;
        j->row[j->counted++] = r;
    }
    return ATTUNE_OK;
}

/* ---- the function ---------------------------------------------------------------------------- */

static attune_status make_room(loss_job *j, const attune_tensor *x, bool with_bias) {
    const attune_dtype dtype = j->x.dtype;
    const int64_t rows = attune_tensor_count(&j->x) / j->d;
    int64_t size = at_round_up(at_ceil_div(BLOCK_ELEMENTS, j->n), GRAIN);
    if (size < MIN_BLOCK_ROWS) size = MIN_BLOCK_ROWS;
    j->block = size < rows ? size : rows;
    const int64_t of_d[2] = {j->block, j->d}, of_n[2] = {j->block, j->n}, whole[2] = {j->n, j->d};
    j->row = at_alloc(at_checked_mul(rows, (int64_t)sizeof *j->row));
    j->part = at_alloc(at_checked_mul(rows, 2 * (int64_t)sizeof *j->part));
    if (!j->row || !j->part) return ATTUNE_EMEMORY;
    AT_TRY(at_tensor_new(dtype, 2, of_d, &j->rows_x));
    AT_TRY(at_tensor_new(dtype, 2, of_n, &j->logits));
    if (!j->o.gradients) return ATTUNE_OK;
    AT_TRY(at_tensor_new(dtype, 2, of_d, &j->rows_dx));
    AT_TRY(attune_tensor_new(dtype, x->rank, x->shape, &j->dx));
    AT_TRY(attune_tensor_new(dtype, 2, whole, &j->dweight));
    return with_bias ? attune_tensor_new(dtype, 1, &j->n, &j->dbias) : ATTUNE_OK;
}

static attune_status run(loss_job *j, const attune_tensor *x, bool with_bias, double *loss,
                         double *nll) {
    AT_TRY(make_room(j, x, with_bias));
    AT_TRY(list_rows(j, attune_tensor_count(&j->x) / j->d));
    for (j->first = 0; j->first < j->counted; j->first = j->last) {
        j->last = j->first + j->block < j->counted ? j->first + j->block : j->counted;
        AT_TRY(block(j));
    }
    for (int64_t i = 0; i < j->counted; i++) {
        *loss += j->part[2 * i];
        *nll += j->part[2 * i + 1];
    }
    if (j->counted) {
        *loss /= j->total;
        *nll /= j->total;
    }
    return ATTUNE_OK;
}

attune_status attune_projected_loss(const attune_tensor *x, const attune_tensor *weight,
                                    const attune_tensor *bias, const attune_tensor *targets,
                                    const attune_tensor *weights,
                                    const attune_loss_options *options, double *loss, double *nll,
                                    attune_tensor *dx, attune_tensor *dweight,
                                    attune_tensor *dbias) {
    loss_job j = {.o = *options};
    attune_tensor *out[] = {dx, dweight, dbias}, *made[] = {&j.dx, &j.dweight, &j.dbias}, ids = {0};
    *loss = *nll = 0;
    for (int i = 0; i < 3; i++)
        if (out[i]) memset(out[i], 0, sizeof *out[i]);
    if (j.o.logit_scale == 0) j.o.logit_scale = 1;
    AT_TRY(check_options(&j.o));
    AT_TRY(check_shapes(x, weight, bias, targets, weights));
    const attune_dtype dtypes[] = {x->dtype, weight->dtype, bias ? bias->dtype : x->dtype};
    j.d = weight->shape[1];
    j.n = weight->shape[0];
    attune_status status = attune_tensor_contiguous(targets, &ids);
    j.target = ids.data;
    if (status == ATTUNE_OK) status = at_nn_in(x, &j.x);
    if (status == ATTUNE_OK) status = at_nn_in(weight, &j.weight);
    if (status == ATTUNE_OK) status = at_nn_in(bias, &j.bias);
    if (status == ATTUNE_OK) status = at_nn_in(weights, &j.weights);
    if (status == ATTUNE_OK) status = run(&j, x, bias != NULL, loss, nll);
    for (int i = 0; i < 3 && status == ATTUNE_OK; i++)
        if (out[i] && made[i]->data) status = at_nn_out(made[i], dtypes[i], out[i]);
    for (int i = 0; i < 3 && status != ATTUNE_OK; i++)
        if (out[i]) attune_tensor_close(out[i]);
    attune_tensor *all[] = {&j.x,     &j.weight, &j.bias,   &j.weights, &j.dx, &j.dweight,
                            &j.dbias, &j.rows_x, &j.logits, &j.rows_dx, &ids};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) attune_tensor_close(all[i]);
    at_free(j.row);
    at_free(j.part);
    return status;
}
