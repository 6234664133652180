/* mixture.c - what a mixture of experts needs: rows of several tensors added into one. */
#include <string.h>

#include "base/status.h"
#include "tensor/tensor.h"

attune_status attune_add_rows(attune_tensor *sum, const attune_tensor *rows, const int64_t *ids,
                              const double *weights) {
    AT_TRY(at_check_open("sum", sum));
    AT_TRY(at_check_open("rows", rows));
    if (sum->rank != 2 || rows->rank != 2 || sum->shape[1] != rows->shape[1]) {
        return at_fail(ATTUNE_ESHAPE, "rows: expected [n, %lld], got %s",
                       (long long)sum->shape[sum->rank - 1],
                       at_shape_text(rows->rank, rows->shape));
    }
    if (sum->dtype != ATTUNE_F32 || rows->dtype != ATTUNE_F32 ||
        !attune_tensor_is_contiguous(sum) || !attune_tensor_is_contiguous(rows))
        return at_fail(ATTUNE_EDTYPE, "rows: expected contiguous f32 tensors");
    const int64_t n = sum->shape[1];
    for (int64_t r = 0; r < rows->shape[0]; r++) {
        if (ids[r] < 0 || ids[r] >= sum->shape[0])
            return at_fail(ATTUNE_EVALUE, "ids: expected from 0 to %lld, got %lld",
                           (long long)sum->shape[0] - 1, (long long)ids[r]);
        float *to = (float *)sum->data + ids[r] * n;
        const float *from = (const float *)rows->data + r * n, weight = (float)weights[r];
        for (int64_t i = 0; i < n; i++) to[i] += weight * from[i];
    }
    return ATTUNE_OK;
}
