/* rope2d.c - rotary embedding of two axes, as for the patches of a picture: the first half of the
 * dims is rotated by the row, the second half by the column, each as RoPE of half as many dims.
 * After the rotation q . k depends only on the difference of the rows and that of the columns. Su
 * 2021 (kexue.fm/archives/8397).
 */
#include <math.h>

#include "base/status.h"
#include "position/rotate.h"

static attune_status rope2d_cos_sin(const attune_position *pe, const double *frequencies,
                                    const int64_t *at, attune_side side, double *cosine,
                                    double *sine) {
    const int64_t pairs = pe->dims / 2;
    (void)side;
    for (int64_t i = 0; i < pairs; i++) {
        const double angle = (double)at[i >= pairs / 2] * frequencies[i];
        cosine[i] = cos(angle);
        sine[i] = sin(angle);
    }
    return ATTUNE_OK;
}

attune_status attune_position_rope2d(int64_t head_dim, double base, attune_pairing pairing,
                                     attune_position **out) {
    int64_t dims = 0;
    *out = NULL;
    if (head_dim < 4 || head_dim % 4)
        return at_fail(ATTUNE_EVALUE, "head_dim: expected a multiple of 4 with rope2d, got %lld",
                       (long long)head_dim);
    AT_TRY(at_check_rotary(head_dim, &dims, &base, pairing));
    attune_position *pe;
    AT_TRY(at_rotary_new("rope2d", head_dim, dims, base, pairing, &pe));
    pe->cos_sin = rope2d_cos_sin;
    pe->axes = 2;
    pe->blocks = 2;
    for (int64_t i = 0; i < dims / 2; i++)
        pe->inv_freq[i] = pow(base, -4.0 * (double)(i % (dims / 4)) / (double)dims);
    *out = pe;
    return ATTUNE_OK;
}
