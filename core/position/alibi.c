/* alibi.c - linear biases: Press et al. 2022 (arXiv 2108.12409), section 3. The score of query i
 * and key j loses slope_h (i - j).
 *
 * With n the largest power of two that is not above the number of heads, the slopes of the first n
 * heads h = 0, 1, .. are 2^(-max_bias (h + 1) / n). The other heads have every second slope of the
 * series for 2 n heads, as in the authors' code.
 */
#include <math.h>

#include "base/status.h"
#include "position/position.h"
#include "tensor/tensor.h"

attune_status attune_position_alibi(int64_t heads, double max_bias, attune_position **out) {
    *out = NULL;
    if (heads < 1)
        return at_fail(ATTUNE_EVALUE, "heads: expected at least 1, got %lld", (long long)heads);
    if (max_bias == 0) max_bias = 8;
    if (!(max_bias > 0) || isinf(max_bias))
        return at_fail(ATTUNE_EVALUE, "max_bias: expected a positive number, got %g", max_bias);
    attune_position *pe;
    AT_TRY(at_position_new("alibi", ATTUNE_SCORES, &pe));
    attune_status status = at_tensor_new(ATTUNE_F32, 1, &heads, &pe->table);
    if (status != ATTUNE_OK) {
        attune_position_close(pe);
        return status;
    }
    int64_t n = 1;
    while (n <= heads / 2) n *= 2;
    float *slope = pe->table.data;
    for (int64_t h = 0; h < heads; h++) {
        const double power =
            h < n ? (double)(h + 1) / (double)n : (double)(2 * (h - n) + 1) / (double)(2 * n);
        slope[h] = (float)exp2(-max_bias * power);
    }
    *out = pe;
    return ATTUNE_OK;
}
