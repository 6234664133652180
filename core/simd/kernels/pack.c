/* pack.c - tokens into packed tiles (simd/attention.h says how they lie). */
#include "simd/attention.h"
#include "simd/kernels/vec.h"

enum { PANEL = 2 * AT_LANES };

void AT_KERNEL(pack)(at_attention_kernels *table);

static uint16_t to_half(attune_dtype dtype, float x) { return dtype == ATTUNE_BF16 ? at_f32_to_bf16(x) : at_f32_to_f16(x); }

static void pack_keys(const float *x, int64_t stride, int first, int tokens, int64_t D, attune_dtype dtype, void *tile) {
    const int64_t Dp = at_round_up(D, AT_DIM);
    for (int j = first; j < first + tokens;) {
        /* The tokens of one panel together: reading them a dim at a time then writes whole lines. */
        const int panel = j / PANEL, begin = j % PANEL, left = PANEL - begin;
        const int n = first + tokens - j < left ? first + tokens - j : left;
        const float *row = x + (j - first) * stride;
        if (dtype == ATTUNE_F32) {
            float *to = (float *)tile + panel * Dp * PANEL + begin;
            for (int64_t d = 0; d < D; d++)
                for (int i = 0; i < n; i++) to[d * PANEL + i] = row[i * stride + d];
        } else if (dtype == ATTUNE_F16) {
            uint16_t *to = (uint16_t *)tile + panel * Dp * PANEL + begin;
            for (int64_t d = 0; d < D; d++)
                for (int i = 0; i < n; i++) to[d * PANEL + i] = to_half(dtype, row[i * stride + d]);
        } else {
            uint16_t *to = (uint16_t *)tile + panel * Dp * PANEL + 2 * begin;
            for (int64_t d = 0; d < D; d++)
                for (int i = 0; i < n; i++) to[(d / 2 * PANEL + i) * 2 + d % 2] = to_half(dtype, row[i * stride + d]);
        }
        j += n;
    }
}

/* An Inf or NaN times zero is not zero. */
static bool all_are_finite(const float *x, int64_t n) {
    vf sum = vf_zero();
    int64_t i = 0;
    for (; i + AT_LANES <= n; i += AT_LANES) sum = vf_fma(vf_load(x + i), vf_zero(), sum);
    sum = vf_fma(vf_load_part(x + i, (int)(n - i)), vf_zero(), sum);
    return vf_reduce_add(sum) == 0.0f;
}

static bool pack_values(const float *x, int64_t stride, int first, int tokens, int64_t Dv, attune_dtype dtype, void *tile) {
    const int64_t Dvp = at_round_up(Dv, AT_DIM);
    bool all_finite = true;
    for (int i = 0; i < tokens; i++) {
        const float *row = x + i * stride;
        const int j = first + i;
        all_finite = all_are_finite(row, Dv) && all_finite;
        for (int64_t d = 0; d < Dv; d += PANEL) {
            const int64_t width = Dvp - d < PANEL ? Dvp - d : PANEL, n = Dv - d < width ? Dv - d : width;
            const int64_t panel = d * AT_TILE;
            if (dtype == ATTUNE_F32) {
                memcpy((float *)tile + panel + j * width, row + d, (size_t)n * sizeof *row);
            } else if (dtype == ATTUNE_F16) {
                uint16_t *to = (uint16_t *)tile + panel + j * width;
                for (int64_t c = 0; c < n; c++) to[c] = to_half(dtype, row[d + c]);
            } else {
                uint16_t *to = (uint16_t *)tile + panel + (j / 2 * width) * 2 + j % 2;
                for (int64_t c = 0; c < n; c++) to[2 * c] = to_half(dtype, row[d + c]);
            }
        }
    }
    return all_finite;
}

void AT_KERNEL(pack)(at_attention_kernels *table) {
    table->pack_keys = pack_keys;
    table->pack_values = pack_values;
}
