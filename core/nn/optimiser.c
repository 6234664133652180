/* optimiser.c - checks of optimisers, SGD with momentum, and sums and products over gradients. */
#include "nn/optimiser.h"

#include <math.h>
#include <string.h>

#include "base/int_math.h"
#include "base/memory.h"
#include "base/status.h"
#include "nn/nn_rows.h"
#include "tensor/tensor.h"

attune_status at_check_parameter(const attune_tensor *p, const attune_tensor *g, int moments,
                                 attune_tensor *const *moment) {
    for (int i = -1; i < moments; i++) {
        const attune_tensor *t = i < 0 ? p : moment[i];
        const char *name = i < 0 ? "p" : "moment";
        if (!t && i >= 0) continue;
        AT_TRY(at_nn_check(name, t, i < 0 ? NULL : p));
        if ((t->dtype != ATTUNE_F32 && t->dtype != ATTUNE_F64) || !attune_tensor_is_contiguous(t))
            return at_fail(ATTUNE_EDTYPE,
                           "%s: expected a contiguous tensor in f32 or f64, got one in %s", name,
                           attune_dtype_name(t->dtype));
    }
    return at_nn_check("g", g, p);
}

attune_status at_check_rate(const char *name, double value) {
    if (value >= 0 && isfinite(value)) return ATTUNE_OK;
    return at_fail(ATTUNE_EVALUE, "%s: expected a finite number of at least 0, got %g", name,
                   value);
}

attune_status at_check_momentum(const char *name, double value) {
    if (value >= 0 && value < 1) return ATTUNE_OK;
    return at_fail(ATTUNE_EVALUE, "%s: expected from 0 to below 1, got %g", name, value);
}

int64_t at_optimiser_count(int64_t count, int64_t first, int64_t last) {
    const int64_t end = last * AT_OPTIMISER_ROW;
    return (end < count ? end : count) - first * AT_OPTIMISER_ROW;
}

/* ---- SGD ------------------------------------------------------------------------------------- */

typedef struct sgd_job {
    at_sgd_step step;
    attune_tensor *p, *m;
    attune_tensor g;
} sgd_job;

static attune_status update(void *context, int64_t first, int64_t last, int64_t piece) {
    sgd_job *j = context;
    (void)piece;
    at_nn_kernels_of(j->p->dtype)
        ->sgd(&j->step, at_nn_row(j->p, first, AT_OPTIMISER_ROW),
              at_nn_row(&j->g, first, AT_OPTIMISER_ROW),
              j->m ? at_nn_row(j->m, first, AT_OPTIMISER_ROW) : NULL,
              at_optimiser_count(attune_tensor_count(j->p), first, last));
    return ATTUNE_OK;
}

attune_status attune_sgd(const attune_sgd_options *o, attune_tensor *p, const attune_tensor *g,
                         attune_tensor *m) {
    sgd_job j = {.p = p,
                 .m = m,
                 .step = {.lr = o->lr,
                          .momentum = o->momentum,
                          .weight_decay = o->weight_decay,
                          .nesterov = o->nesterov}};
    AT_TRY(at_check_parameter(p, g, 1, &m));
    AT_TRY(at_check_rate("lr", o->lr));
    AT_TRY(at_check_rate("weight_decay", o->weight_decay));
    AT_TRY(at_check_momentum("momentum", o->momentum));
    if (!m && o->momentum > 0)
        return at_fail(ATTUNE_ECLOSED, "moment: expected a tensor with momentum %g, got none",
                       o->momentum);
    AT_TRY(at_nn_in(g, &j.g));
    at_tensor_written(p);
    if (m) at_tensor_written(m);
    attune_status status = at_nn_rows(at_ceil_div(attune_tensor_count(p), AT_OPTIMISER_ROW),
                                      AT_OPTIMISER_ROW, update, &j);
    attune_tensor_close(&j.g);
    return status;
}

/* ---- sums and products ----------------------------------------------------------------------- */

typedef struct squares_job {
    attune_tensor x;
    double *part; /* [pieces] */
} squares_job;

static attune_status square_rows(void *context, int64_t first, int64_t last, int64_t piece) {
    squares_job *j = context;
    j->part[piece] = at_nn_kernels_of(j->x.dtype)
                         ->squares(at_nn_row(&j->x, first, AT_OPTIMISER_ROW),
                                   at_optimiser_count(attune_tensor_count(&j->x), first, last));
    return ATTUNE_OK;
}

attune_status attune_sum_of_squares(const attune_tensor *t, double *sum) {
    squares_job j = {0};
    *sum = 0;
    AT_TRY(at_nn_check("t", t, NULL));
    AT_TRY(at_nn_in(t, &j.x));
    const int64_t rows = at_ceil_div(attune_tensor_count(t), AT_OPTIMISER_ROW),
                  pieces = at_nn_pieces(rows, AT_OPTIMISER_ROW);
    j.part = at_alloc(at_checked_mul(pieces, (int64_t)sizeof *j.part));
    attune_status status =
        j.part ? at_nn_rows(rows, AT_OPTIMISER_ROW, square_rows, &j) : ATTUNE_EMEMORY;
    for (int64_t i = 0; i < pieces && status == ATTUNE_OK; i++) *sum += j.part[i];
    at_free(j.part);
    attune_tensor_close(&j.x);
    return status;
}

typedef struct scale_job {
    attune_tensor *t;
    double factor;
} scale_job;

static attune_status scale_rows(void *context, int64_t first, int64_t last, int64_t piece) {
    const scale_job *j = context;
    (void)piece;
    at_nn_kernels_of(j->t->dtype)
        ->scale(at_nn_row(j->t, first, AT_OPTIMISER_ROW), j->factor,
                at_optimiser_count(attune_tensor_count(j->t), first, last));
    return ATTUNE_OK;
}

attune_status attune_scale(attune_tensor *t, double factor) {
    AT_TRY(at_nn_check("t", t, NULL));
    at_tensor_written(t);
    if (attune_tensor_is_contiguous(t) && (t->dtype == ATTUNE_F32 || t->dtype == ATTUNE_F64)) {
        scale_job j = {.t = t, .factor = factor};
        return at_nn_rows(at_ceil_div(attune_tensor_count(t), AT_OPTIMISER_ROW), AT_OPTIMISER_ROW,
                          scale_rows, &j);
    }
    const at_rows_view view = at_rows_of(t);
    for (int64_t r = 0; r < view.rows; r++) {
        for (int64_t i = 0; i < view.length; i++) {
            const int64_t offset = at_row_offset(t, r) + i * view.stride;
            at_store(t, offset, factor * at_load(t, offset));
        }
    }
    return ATTUNE_OK;
}
