/* activation.c - GELU and SwiGLU, each with its gradients. */
#include <string.h>

#include "base/int_math.h"
#include "base/status.h"
#include "nn/nn_rows.h"
#include "tensor/tensor.h"

/* Up to three input and two output tensors of one shape, computed per element. */
typedef struct activation_job {
    attune_tensor in[3], out[2];
    bool with_tanh, gated, backward;
} activation_job;

enum { ROW = 4096 }; /* elements per row of the loop: tensors are treated as one long vector */

static attune_status activate(void *context, int64_t first, int64_t last, int64_t piece) {
    activation_job *j = context;
    const at_nn_kernels *kernels = at_nn_kernels_of(j->in[0].dtype);
    const int64_t count = attune_tensor_count(&j->in[0]),
                  n = (last * ROW < count ? last * ROW : count) - first * ROW;
    void *a = at_nn_row(&j->in[0], first, ROW), *b = at_nn_row(&j->in[1], first, ROW),
         *c = at_nn_row(&j->in[2], first, ROW);
    void *x = at_nn_row(&j->out[0], first, ROW), *y = at_nn_row(&j->out[1], first, ROW);
    (void)piece;
    if (j->gated && j->backward)
        kernels->swiglu_backward(a, b, c, n, x, y);
    else if (j->gated)
        kernels->swiglu(a, b, n, x);
    else if (j->backward)
        kernels->gelu_backward(a, b, n, j->with_tanh, x);
    else
        kernels->gelu(a, n, j->with_tanh, x);
    return ATTUNE_OK;
}

static attune_status run(activation_job *j, const attune_tensor *const in[3],
                         attune_tensor *const out[2]) {
    static const char *const names[2][2][3] = {{{"x", "", ""}, {"dy", "x", ""}},
                                               {{"gate", "up", ""}, {"dy", "gate", "up"}}};
    const attune_tensor like = *in[0];
    attune_status status = ATTUNE_OK;
    for (int i = 0; i < 2; i++)
        if (out[i]) memset(out[i], 0, sizeof *out[i]);
    for (int i = 0; i < 3 && in[i]; i++)
        AT_TRY(at_nn_check(names[j->gated][j->backward][i], in[i], i ? &like : NULL));
    for (int i = 0; i < 3 && in[i] && status == ATTUNE_OK; i++) status = at_nn_in(in[i], &j->in[i]);
    for (int i = 0; i < 2 && out[i] && status == ATTUNE_OK; i++)
        status = at_nn_result(&like, &j->out[i]);
    if (status == ATTUNE_OK)
        status = at_nn_rows(at_ceil_div(attune_tensor_count(&like), ROW), ROW, activate, j);
    for (int i = 0; i < 2 && out[i] && status == ATTUNE_OK; i++)
        status = at_nn_out(&j->out[i], like.dtype, out[i]);
    for (int i = 0; i < 3; i++) attune_tensor_close(&j->in[i]);
    for (int i = 0; i < 2; i++) attune_tensor_close(&j->out[i]);
    for (int i = 0; i < 2 && status != ATTUNE_OK; i++)
        if (out[i]) attune_tensor_close(out[i]);
    return status;
}

attune_status attune_gelu(const attune_tensor *x, bool with_tanh, attune_tensor *y) {
    activation_job j = {.with_tanh = with_tanh};
    return run(&j, (const attune_tensor *const[3]){x}, (attune_tensor *const[2]){y});
}

attune_status attune_gelu_backward(const attune_tensor *dy, const attune_tensor *x, bool with_tanh,
                                   attune_tensor *dx) {
    activation_job j = {.with_tanh = with_tanh, .backward = true};
    return run(&j, (const attune_tensor *const[3]){dy, x}, (attune_tensor *const[2]){dx});
}

attune_status attune_swiglu(const attune_tensor *gate, const attune_tensor *up, attune_tensor *y) {
    activation_job j = {.gated = true};
    return run(&j, (const attune_tensor *const[3]){gate, up}, (attune_tensor *const[2]){y});
}

attune_status attune_swiglu_backward(const attune_tensor *dy, const attune_tensor *gate,
                                     const attune_tensor *up, attune_tensor *dgate,
                                     attune_tensor *dup) {
    activation_job j = {.gated = true, .backward = true};
    return run(&j, (const attune_tensor *const[3]){dy, gate, up},
               (attune_tensor *const[2]){dgate, dup});
}
