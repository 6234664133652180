/* modifier.c - the score program and the mask of an attention call. */
#include "attention/modifier.h"

#include <math.h>
#include <string.h>

#include "base/status.h"
#include "simd/table.h"

attune_status at_modifier_make(attune_program *score, attune_program *mask, const at_extent *extent,
                               int flags, at_visible_keys visible_keys, const void *context,
                               at_modifier *out) {
    at_modifier *m = out;
    memset(m, 0, sizeof *m);
    attune_status status = mask ? at_bind(mask, extent, flags & AT_IN_DOUBLE, &m->mask) : ATTUNE_OK;
    if (status == ATTUNE_OK && mask) status = at_block_map_of(mask, &m->mask, &m->map);
    if (status == ATTUNE_OK && score) status = at_bind(score, extent, flags, &m->score);
    const at_binding *shown_by = m->mask.program ? &m->mask : NULL;
    if (status == ATTUNE_OK && mask)
        status = at_check_reads(&m->mask, shown_by, m->map, visible_keys, context);
    if (status == ATTUNE_OK && score)
        status = at_check_reads(&m->score, shown_by, m->map, visible_keys, context);
    if (status == ATTUNE_OK && score)
        status = at_score_reads_new(&m->score, shown_by, m->map, &m->reads);
    if (status != ATTUNE_OK) at_modifier_free(m);
    return status;
}

attune_status at_modifier_status(const at_modifier *m) { return at_score_reads_status(m->reads); }

void at_modifier_free(at_modifier *m) {
    at_score_reads_free(m->reads);
    if (m->score.program) at_binding_free(&m->score);
    if (m->mask.program) at_binding_free(&m->mask);
    memset(m, 0, sizeof *m);
}

bool at_modifier_any_visible(const at_modifier *m, int64_t b, int64_t h, int64_t i, int64_t i_end,
                             int64_t key) {
    for (int64_t q = i / AT_TILE * AT_TILE; q < i_end; q += AT_TILE)
        if (at_block_map_state(m->map, b, h, q, key) != AT_TILE_EMPTY) return true;
    return false;
}

int64_t at_modifier_scratch(const at_modifier *m) {
    const int64_t score = m->score.program ? at_binding_scratch(&m->score) : 0,
                  mask = m->mask.program ? at_binding_scratch(&m->mask) : 0;
    return at_round_up((score > mask ? score : mask) + AT_RUN * (int64_t)sizeof(double), 64);
}

static bool all_visible(const at_modifier *m, int64_t b, int64_t h, int64_t i, int64_t key,
                        int64_t n) {
    for (int64_t k = key / AT_TILE * AT_TILE; k < key + n; k += AT_TILE)
        if (at_block_map_state(m->map, b, h, i, k) != AT_TILE_FULL) return false;
    return true;
}

void at_hide(const at_modifier *m, int64_t b, int64_t h, int64_t i, int64_t key, int n,
             float *score, void *scratch) {
    if (!at_has_gaps(m) || all_visible(m, b, h, i, key, n)) return;
    const float hidden = -INFINITY;
    const at_run run = {
        .binding = &m->mask, .b = b, .h = h, .i = i, .key = key, .n = n, .scratch = scratch};
    at_run_pairs(&run, NULL);
    at_simd_now()->program.apply(ATTUNE_OP_WHERE, at_run_value(&run, m->mask.program->result),
                                 (at_values){score, 1}, (at_values){&hidden, 0}, score, n);
}

void at_modify(const at_modifier *m, int64_t b, int64_t h, int64_t i, int64_t key, int n,
               float *score, void *scratch) {
    if (m->score.program) {
        float before[AT_RUN];
        const at_run run = {.binding = &m->score,
                            .b = b,
                            .h = h,
                            .i = i,
                            .key = key,
                            .n = n,
                            .score = m->reads ? before : score,
                            .scratch = scratch};
        if (m->reads) memcpy(before, score, (size_t)n * sizeof *score);
        at_run_pairs(&run, score);
        at_modifier_note_reads(m, &run, NULL);
    }
    at_hide(m, b, h, i, key, n, score, scratch);
}

enum { CHUNK = AT_TILE * AT_BLOCK_TILES };

void at_hide_f64(const at_modifier *m, int64_t b, int64_t h, int64_t i, int64_t key, int64_t count,
                 double *score, void *scratch) {
    double *visible = scratch;
    for (int64_t x = 0; x < count && at_has_gaps(m); x += CHUNK) {
        const int n = (int)(count - x < CHUNK ? count - x : CHUNK);
        const at_run run = {.binding = &m->mask,
                            .b = b,
                            .h = h,
                            .i = i,
                            .key = key + x,
                            .n = n,
                            .scratch = visible + AT_RUN};
        at_run_f64(&run, NULL, 1, &m->mask.program->result, &visible);
        for (int k = 0; k < n; k++)
            if (visible[k] == 0) score[x + k] = -INFINITY;
    }
}

void at_modify_f64(const at_modifier *m, int64_t b, int64_t h, int64_t i, int64_t key,
                   int64_t count, double *score, void *scratch) {
    double before[CHUNK];
    for (int64_t x = 0; x < count && m->score.program; x += CHUNK) {
        double *s = score + x;
        const at_run run = {.binding = &m->score,
                            .b = b,
                            .h = h,
                            .i = i,
                            .key = key + x,
                            .n = (int)(count - x < CHUNK ? count - x : CHUNK),
                            .scratch = scratch};
        if (m->reads) memcpy(before, s, (size_t)run.n * sizeof *s);
        at_run_f64(&run, m->reads ? before : s, 1, &m->score.program->result, &s);
        at_modifier_note_reads(m, &run, before);
    }
    at_hide_f64(m, b, h, i, key, count, score, scratch);
}
