/* absolute.c - positions added to the embeddings: learned and sinusoidal.
 *
 * Sinusoidal: Vaswani et al. 2017 (arXiv 1706.03762), section 3.5. For position t and i = 0 ..
 * d_model / 2 - 1:
 *
 *   PE(t, 2 i) = sin(t / base^(2 i / d_model))
 *   PE(t, 2 i + 1) = cos(t / base^(2 i / d_model))
 *
 * Marian and others write all sines first, then all cosines ("halves").
 */
#include <math.h>

#include "base/status.h"
#include "position/position.h"
#include "tensor/tensor.h"

static attune_status sinusoidal_row(const attune_position *pe, int64_t position, double *out) {
    const int64_t n = pe->d_model, half = n / 2;
    for (int64_t i = 0; i < half; i++) {
        double angle = (double)position * pow(pe->base, -2.0 * (double)i / (double)n);
        out[pe->halves ? i : 2 * i] = sin(angle);
        out[pe->halves ? half + i : 2 * i + 1] = cos(angle);
    }
    return ATTUNE_OK;
}

attune_status attune_position_sinusoidal(int64_t d_model, double base, bool halves,
                                         attune_position **out) {
    *out = NULL;
    if (d_model < 2 || d_model % 2)
        return at_fail(ATTUNE_EVALUE, "d_model: expected an even number of at least 2, got %lld",
                       (long long)d_model);
    if (base == 0) base = 10000;
    if (!(base > 0) || isinf(base))
        return at_fail(ATTUNE_EVALUE, "base: expected a positive number, got %g", base);
    AT_TRY(at_position_new("sinusoidal", ATTUNE_EMBEDS, out));
    (*out)->d_model = d_model;
    (*out)->base = base;
    (*out)->halves = halves;
    (*out)->row = sinusoidal_row;
    return ATTUNE_OK;
}

static attune_status learned_row(const attune_position *pe, int64_t position, double *out) {
    if (position < 0 || position >= pe->table.shape[0]) {
        return at_fail(ATTUNE_EVALUE,
                       "positions: expected from 0 to %lld (max_positions - 1), got %lld",
                       (long long)pe->table.shape[0] - 1, (long long)position);
    }
    at_load_row_f64(&pe->table, position * pe->table.stride[0], pe->table.stride[1], pe->d_model,
                    out);
    return ATTUNE_OK;
}

attune_status attune_position_learned(int64_t d_model, int64_t max_positions, uint64_t seed,
                                      const attune_tensor *table, attune_position **out) {
    *out = NULL;
    if (table) {
        AT_TRY(at_check_open("table", table));
        if (table->rank != 2)
            return at_fail(ATTUNE_ESHAPE, "table: expected [max_positions, d_model], got %s",
                           at_shape_text(table->rank, table->shape));
        if ((max_positions && max_positions != table->shape[0]) ||
            (d_model && d_model != table->shape[1])) {
            return at_fail(ATTUNE_ESHAPE, "table: expected %s, got %s",
                           at_expected_text("max_positions", max_positions, "d_model", d_model),
                           at_shape_text(2, table->shape));
        }
        max_positions = table->shape[0];
        d_model = table->shape[1];
    }
    if (d_model < 1)
        return at_fail(ATTUNE_EVALUE, "d_model: expected at least 1, got %lld", (long long)d_model);
    if (max_positions < 1)
        return at_fail(ATTUNE_EVALUE, "max_positions: expected at least 1, got %lld",
                       (long long)max_positions);
    attune_position *pe;
    AT_TRY(at_position_new("learned", ATTUNE_EMBEDS, &pe));
    const int64_t shape[2] = {max_positions, d_model};
    attune_status status = table ? attune_tensor_share(table, &pe->table)
                                 : at_tensor_new(ATTUNE_F32, 2, shape, &pe->table);
    /* 0.02: GPT-2's */
    if (status == ATTUNE_OK && !table) status = attune_tensor_normal(&pe->table, seed, 0, 0.02);
    pe->d_model = d_model;
    pe->row = learned_row;
    if (status != ATTUNE_OK) {
        attune_position_close(pe);
        return status;
    }
    *out = pe;
    return ATTUNE_OK;
}
