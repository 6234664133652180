/* adamw.c - AdamW, one step over one parameter in place: Loshchilov and Hutter 2019 (arXiv
 * 1711.05101), algorithm 2. */
#include <math.h>

#include "base/int_math.h"
#include "base/status.h"
#include "nn/nn_rows.h"
#include "tensor/tensor.h"

typedef struct adamw_job {
    at_adamw_step step;
    attune_tensor *p, *m, *v;
    attune_tensor g;
} adamw_job;

enum { ROW = 4096 }; /* elements per row of the loop: tensors are treated as one long vector */

static attune_status update(void *context, int64_t first, int64_t last, int64_t piece) {
    adamw_job *j = context;
    const int64_t count = attune_tensor_count(j->p),
                  n = (last * ROW < count ? last * ROW : count) - first * ROW;
    (void)piece;
    at_nn_kernels_of(j->p->dtype)
        ->adamw(&j->step, at_nn_row(j->p, first, ROW), at_nn_row(&j->g, first, ROW),
                at_nn_row(j->m, first, ROW), at_nn_row(j->v, first, ROW), n);
    return ATTUNE_OK;
}

attune_status attune_adamw(const attune_adamw_options *o, attune_tensor *p, const attune_tensor *g,
                           attune_tensor *m, attune_tensor *v) {
    attune_tensor *state[] = {p, m, v};
    static const char *const names[] = {"p", "m", "v"};
    adamw_job j = {.p = p, .m = m, .v = v};
    for (int i = 0; i < 3; i++) {
        AT_TRY(at_nn_check(names[i], state[i], i ? p : NULL));
        if ((state[i]->dtype != ATTUNE_F32 && state[i]->dtype != ATTUNE_F64) ||
            !attune_tensor_is_contiguous(state[i]))
            return at_fail(ATTUNE_EDTYPE,
                           "%s: expected a contiguous tensor in f32 or f64, got one in %s",
                           names[i], attune_dtype_name(state[i]->dtype));
    }
    AT_TRY(at_nn_check("g", g, p));
    if (o->step < 1)
        return at_fail(ATTUNE_EVALUE, "step: expected at least 1, got %lld", (long long)o->step);
    if (!(o->beta1 >= 0 && o->beta1 < 1 && o->beta2 >= 0 && o->beta2 < 1))
        return at_fail(ATTUNE_EVALUE, "betas: expected from 0 to below 1, got %g and %g", o->beta1,
                       o->beta2);
    AT_TRY(at_nn_in(g, &j.g));
    j.step = (at_adamw_step){.lr = o->lr,
                             .beta1 = o->beta1,
                             .beta2 = o->beta2,
                             .eps = o->eps,
                             .weight_decay = o->weight_decay,
                             .correction1 = 1 - pow(o->beta1, (double)o->step),
                             .correction2 = 1 - pow(o->beta2, (double)o->step)};
    for (int i = 0; i < 3; i++) at_tensor_written(state[i]);
    attune_status status = at_nn_rows(at_ceil_div(attune_tensor_count(p), ROW), ROW, update, &j);
    attune_tensor_close(&j.g);
    return status;
}
