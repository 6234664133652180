/* loss.c - cross-entropy over a vocabulary and its gradient. Softmax and logarithm are computed
 * together, so no probabilities are stored.
 *
 *   loss = mean over tokens i with target_i != ignore of   lse_i - x_i[target_i]
 *   dx_i = scale (softmax(x_i) - onehot(target_i))         softmax(x_i) = e^(x_i - lse_i)
 */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"
#include "nn/nn_rows.h"
#include "tensor/tensor.h"

typedef struct loss_job {
    attune_tensor logits, lse, dlogits;
    const int64_t *target; /* [rows] */
    int64_t n, ignore;
    double *part; /* [pieces] */
    double scale;
} loss_job;

static attune_status check(const attune_tensor *logits, const attune_tensor *targets,
                           int64_t ignore, attune_tensor *flat, int64_t *counted) {
    AT_TRY(at_nn_check("logits", logits, NULL));
    AT_TRY(at_check_open("targets", targets));
    if (targets->dtype != ATTUNE_I64)
        return at_fail(ATTUNE_EDTYPE, "targets: expected i64, got %s",
                       attune_dtype_name(targets->dtype));
    const int64_t n = logits->rank ? logits->shape[logits->rank - 1] : 0;
    if (logits->rank < 1 || targets->rank != logits->rank - 1 ||
        memcmp(targets->shape, logits->shape, (size_t)targets->rank * sizeof *targets->shape) !=
            0) {
        return at_fail(ATTUNE_ESHAPE, "targets: expected one id for each row of logits %s, got %s",
                       at_shape_text(logits->rank, logits->shape),
                       at_shape_text(targets->rank, targets->shape));
    }
    AT_TRY(attune_tensor_contiguous(targets, flat));
    *counted = 0;
    for (int64_t i = 0, rows = attune_tensor_count(flat); i < rows; i++) {
        const int64_t id = ((const int64_t *)flat->data)[i];
        if (id == ignore) continue;
        if (id < 0 || id >= n) {
            attune_tensor_close(flat);
            return at_fail(ATTUNE_EVALUE,
                           "targets: expected ids from 0 to %lld, or %lld for tokens that do not "
                           "count, got %lld",
                           (long long)n - 1, (long long)ignore, (long long)id);
        }
        ++*counted;
    }
    return ATTUNE_OK;
}

static attune_status loss_rows(void *context, int64_t first, int64_t last, int64_t piece) {
    loss_job *j = context;
    const at_nn_kernels *kernels = at_nn_kernels_of(j->logits.dtype);
    j->part[piece] = 0;
    for (int64_t r = first; r < last; r++) {
        const double lse = kernels->log_sum_exp(at_nn_row(&j->logits, r, j->n), j->n);
        at_store(&j->lse, r, lse);
        if (j->target[r] != j->ignore)
            j->part[piece] += lse - at_load(&j->logits, r * j->n + j->target[r]);
    }
    return ATTUNE_OK;
}

attune_status attune_cross_entropy(const attune_tensor *logits, const attune_tensor *targets,
                                   int64_t ignore, double *loss, attune_tensor *lse) {
    loss_job j = {.ignore = ignore};
    attune_tensor ids;
    int64_t counted;
    *loss = 0;
    memset(lse, 0, sizeof *lse);
    AT_TRY(check(logits, targets, ignore, &ids, &counted));
    j.n = logits->shape[logits->rank - 1];
    j.target = ids.data;
    const int64_t rows = attune_tensor_count(&ids), pieces = at_nn_pieces(rows, j.n);
    attune_status status = at_nn_in(logits, &j.logits);
    if (status == ATTUNE_OK)
        status = at_tensor_new(j.logits.dtype, logits->rank - 1, logits->shape, &j.lse);
    if (status == ATTUNE_OK) {
        j.part = at_alloc(at_checked_mul(pieces, (int64_t)sizeof *j.part));
        status = j.part ? at_nn_rows(rows, j.n, loss_rows, &j) : ATTUNE_EMEMORY;
    }
    for (int64_t i = 0; i < pieces && status == ATTUNE_OK; i++) *loss += j.part[i];
    if (counted) *loss /= (double)counted;
    if (status == ATTUNE_OK) status = attune_tensor_share(&j.lse, lse);
    at_free(j.part);
    attune_tensor_close(&j.logits);
    attune_tensor_close(&j.lse);
    attune_tensor_close(&ids);
    return status;
}

static attune_status gradient_rows(void *context, int64_t first, int64_t last, int64_t piece) {
    loss_job *j = context;
    const at_nn_kernels *kernels = at_nn_kernels_of(j->logits.dtype);
    (void)piece;
    for (int64_t r = first; r < last; r++) {
        void *dx = at_nn_row(&j->dlogits, r, j->n);
        if (j->target[r] == j->ignore) {
            memset(dx, 0, (size_t)(j->n * attune_dtype_size(j->dlogits.dtype)));
            continue;
        }
        const int64_t at = r * j->n + j->target[r];
        kernels->softmax_times(at_nn_row(&j->logits, r, j->n), at_load(&j->lse, r), j->scale, j->n,
                               dx);
        at_store(&j->dlogits, at, at_load(&j->dlogits, at) - j->scale);
    }
    return ATTUNE_OK;
}

attune_status attune_cross_entropy_backward(double dloss, const attune_tensor *logits,
                                            const attune_tensor *targets, int64_t ignore,
                                            const attune_tensor *lse, attune_tensor *dlogits) {
    loss_job j = {.ignore = ignore};
    attune_tensor ids;
    int64_t counted;
    memset(dlogits, 0, sizeof *dlogits);
    AT_TRY(at_nn_check("lse", lse, NULL));
    AT_TRY(check(logits, targets, ignore, &ids, &counted));
    j.n = logits->shape[logits->rank - 1];
    j.target = ids.data;
    j.scale = counted ? dloss / (double)counted : 0;
    const int64_t rows = attune_tensor_count(&ids);
    attune_status status = ATTUNE_OK;
    if (attune_tensor_count(lse) != rows)
        status = at_fail(ATTUNE_ESHAPE, "lse: expected what forward gave, %lld numbers, got %s",
                         (long long)rows, at_shape_text(lse->rank, lse->shape));
    if (status == ATTUNE_OK) status = at_nn_in(logits, &j.logits);
    if (status == ATTUNE_OK) status = at_nn_in(lse, &j.lse);
    if (status == ATTUNE_OK) status = at_nn_result(logits, &j.dlogits);
    if (status == ATTUNE_OK) status = at_nn_rows(rows, j.n, gradient_rows, &j);
    if (status == ATTUNE_OK) status = at_nn_out(&j.dlogits, logits->dtype, dlogits);
    attune_tensor_close(&j.logits);
    attune_tensor_close(&j.lse);
    attune_tensor_close(&j.dlogits);
    attune_tensor_close(&ids);
    return status;
}
