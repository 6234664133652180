/* dropout.c - dropout by counted random numbers: Srivastava et al. 2014 (JMLR 15). */
#include <string.h>

#include "base/int_math.h"
#include "base/status.h"
#include "nn/nn_rows.h"
#include "tensor/tensor.h"

enum { ROW = 4096 }; /* elements per row of the loop: tensors are treated as one long vector */

typedef struct dropout_job {
    attune_tensor x, y;
    uint32_t key[2], step, layer;
    double scale;
    uint64_t limit; /* words below it drop */
} dropout_job;

static attune_status drop_rows(void *context, int64_t first, int64_t last, int64_t piece) {
    const dropout_job *j = context;
    const int64_t count = attune_tensor_count(&j->x), end = last * ROW < count ? last * ROW : count;
    (void)piece;
    for (int64_t i = first * ROW; i < end; i += 4) {
        const uint64_t block = (uint64_t)i / 4;
        const uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32), j->step, j->layer};
        uint32_t word[4];
        attune_philox(counter, j->key, word);
        for (int64_t k = i; k < end && k < i + 4; k++)
            at_store(&j->y, k, word[k - i] < j->limit ? 0 : at_load(&j->x, k) * j->scale);
    }
    return ATTUNE_OK;
}

attune_status attune_dropout(const attune_tensor *x, double p, uint64_t seed, uint32_t step,
                             uint32_t layer, attune_tensor *y) {
    dropout_job j = {.key = {(uint32_t)seed, (uint32_t)(seed >> 32)}, .step = step, .layer = layer};
    const attune_tensor from = *x;
    memset(y, 0, sizeof *y);
    AT_TRY(at_nn_check("x", &from, NULL));
    if (!(p >= 0 && p < 1))
        return at_fail(ATTUNE_EVALUE, "dropout: expected from 0 to below 1, got %g", p);
    j.scale = 1 / (1 - p);
    j.limit = (uint64_t)(p * 4294967296.0);
    attune_status status = at_nn_in(&from, &j.x);
    if (status == ATTUNE_OK) status = at_nn_result(&from, &j.y);
    if (status == ATTUNE_OK)
        status = at_nn_rows(at_ceil_div(attune_tensor_count(&from), ROW), ROW, drop_rows, &j);
    if (status == ATTUNE_OK) status = at_nn_out(&j.y, from.dtype, y);
    attune_tensor_close(&j.x);
    attune_tensor_close(&j.y);
    return status;
}
