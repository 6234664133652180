/* unary_backward.c - gradients of the elementwise operations of one tensor: dx = dy f'(x).
 *
 * Each derivative is computed from x or from y = f(x), whichever is cheaper; kept: that one.
 */
#include <math.h>
#include <string.h>

#include "base/status.h"
#include "nn/nn_rows.h"
#include "simd/table.h"
#include "tensor/map.h"
#include "tensor/tensor.h"

bool attune_unary_keeps_result(attune_unary op) {
    return op == ATTUNE_EXP || op == ATTUNE_SQRT || op == ATTUNE_TANH || op == ATTUNE_SIGMOID ||
           op == ATTUNE_RELU;
}

static void unary_f32(const void *context, int64_t n, const float *const *in, float *const *out) {
    const attune_unary op = *(const attune_unary *)context;
    const float *dy = in[0], *kept = in[1];
    float *dx = out[0];
    switch (op) {
    case ATTUNE_NEG:
        for (int64_t i = 0; i < n; i++) dx[i] = -dy[i];
        break;
    case ATTUNE_EXP:
        for (int64_t i = 0; i < n; i++) dx[i] = dy[i] * kept[i];
        break;
    case ATTUNE_LOG:
        for (int64_t i = 0; i < n; i++) dx[i] = dy[i] / kept[i];
        break;
    case ATTUNE_SQRT:
        for (int64_t i = 0; i < n; i++) dx[i] = 0.5f * dy[i] / kept[i];
        break;
    case ATTUNE_TANH:
        for (int64_t i = 0; i < n; i++) dx[i] = dy[i] * (1 - kept[i] * kept[i]);
        break;
    case ATTUNE_SIGMOID:
        for (int64_t i = 0; i < n; i++) dx[i] = dy[i] * (kept[i] * (1 - kept[i]));
        break;
    case ATTUNE_ABS:
        for (int64_t i = 0; i < n; i++) dx[i] = dy[i] * (float)((kept[i] > 0) - (kept[i] < 0));
        break;
    case ATTUNE_RELU:
        for (int64_t i = 0; i < n; i++) dx[i] = kept[i] > 0 ? dy[i] : 0;
        break;
    case ATTUNE_SILU: {
        float s[AT_MAP_PART];
        at_simd_now()->elementwise.sigmoid(kept, s, n);
        /* At -inf the limit is 0, where the product would be NaN. */
        for (int64_t i = 0; i < n; i++)
            dx[i] = kept[i] == -INFINITY ? 0 : dy[i] * (s[i] * (1 + kept[i] * (1 - s[i])));
        break;
    }
    case ATTUNE_GELU: at_simd_now()->nn.gelu_backward(dy, kept, n, false, dx); break;
    case ATTUNE_GELU_TANH: at_simd_now()->nn.gelu_backward(dy, kept, n, true, dx); break;
    }
}

static double slope_f64(attune_unary op, double kept) {
    switch (op) {
    case ATTUNE_NEG: return -1;
    case ATTUNE_EXP: return kept;
    case ATTUNE_LOG: return 1 / kept;
    case ATTUNE_SQRT: return 0.5 / kept;
    case ATTUNE_TANH: return 1 - kept * kept;
    case ATTUNE_SIGMOID: return kept * (1 - kept);
    case ATTUNE_ABS: return (kept > 0) - (kept < 0);
    case ATTUNE_RELU: return kept > 0;
    case ATTUNE_SILU: {
        const double s = kept < 0 ? exp(kept) / (1 + exp(kept)) : 1 / (1 + exp(-kept));
        return kept == -INFINITY ? 0 : s * (1 + kept * (1 - s));
    }
    default: return NAN; /* the two forms of GELU have kernels */
    }
}

static void unary_f64(const void *context, int64_t n, const double *const *in, double *const *out) {
    const attune_unary op = *(const attune_unary *)context;
    if (op == ATTUNE_GELU || op == ATTUNE_GELU_TANH) {
        at_nn_f64()->gelu_backward(in[0], in[1], n, op == ATTUNE_GELU_TANH, out[0]);
        return;
    }
    for (int64_t i = 0; i < n; i++) out[0][i] = in[0][i] * slope_f64(op, in[1][i]);
}

attune_status attune_unary_backward(attune_unary op, const attune_tensor *dy,
                                    const attune_tensor *kept, attune_tensor *dx) {
    memset(dx, 0, sizeof *dx);
    AT_TRY(at_nn_check("kept", kept, NULL));
    AT_TRY(at_nn_check("dy", dy, kept));
    AT_TRY(attune_init());
    AT_TRY(at_tensor_new(kept->dtype, kept->rank, kept->shape, dx));
    const at_map map = {.in = {dy, kept},
                        .out = {dx},
                        .f32 = unary_f32,
                        .f64 = unary_f64,
                        .context = &op,
                        .in_f64 = kept->dtype == ATTUNE_F64};
    attune_status status = at_map_run(&map);
    if (status != ATTUNE_OK) attune_tensor_close(dx);
    return status;
}
