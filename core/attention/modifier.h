/* modifier.h - the score program and the mask of an attention call, applied between the scores and
 * the softmax. */
#ifndef AT_ATTENTION_MODIFIER_H
#define AT_ATTENTION_MODIFIER_H

#include "program/reads.h"

typedef struct at_modifier {
    at_binding score, mask;  /* programs bound to the shapes; program NULL: none */
    const at_block_map *map; /* of the mask, borrowed from its program; NULL: no mask */
    at_score_reads *reads;   /* NULL: no index that depends on the score may be out of range */
} at_modifier;

/* Binds the programs to `extent`; score or mask or both may be NULL. flags: AT_WITH_GRADIENTS,
 * AT_IN_DOUBLE. visible_keys(context, ..) gives the visible keys before the mask: no index that a
 * program reads for a visible pair may be out of range. Whether one that depends on the score was
 * says at_modifier_status, after the run. out must stay where it is. After success the caller calls
 * at_modifier_free. */
attune_status at_modifier_make(attune_program *score, attune_program *mask, const at_extent *extent,
                               int flags, at_visible_keys visible_keys, const void *context,
                               at_modifier *out);
void at_modifier_free(at_modifier *m);
attune_status at_modifier_status(const at_modifier *m);

/* For callers that run the score program themselves: see at_score_reads_note. */
static inline void at_modifier_note_reads(const at_modifier *m, const at_run *run,
                                          const double *score) {
    if (m->reads) at_score_reads_note(m->reads, run, score);
}

static inline bool at_modifies(const at_modifier *m) { return m->score.program || m->mask.program; }

/* Whether the mask hides a key between two visible keys of some query. */
static inline bool at_has_gaps(const at_modifier *m) { return m->map && !m->map->contiguous; }

/* Narrows the keys [*first, *last) to the smallest range that holds the visible ones of query i of
 * head (b, h). */
static inline void at_modifier_narrow(const at_modifier *m, int64_t b, int64_t h, int64_t i,
                                      int64_t *first, int64_t *last) {
    if (m->map) at_block_map_narrow(m->map, b, h, i, first, last);
}

/* Whether the mask may show some key of the tile that begins with `key` to one of the queries
 * [i, i_end). */
bool at_modifier_any_visible(const at_modifier *m, int64_t b, int64_t h, int64_t i, int64_t i_end,
                             int64_t key);

/* The scratch of the functions below, in bytes. */
int64_t at_modifier_scratch(const at_modifier *m);

/* These functions change the scores of query i of head (b, h) with the keys [key, key + n).
 * at_modify runs the score program and then the mask, at_hide the mask alone: it sets the scores of
 * hidden keys to -inf. n is at most AT_RUN less one vector, and `score` must be readable and
 * writable up to a whole vector. The _f64 functions take any n; the programs must be bound with
 * AT_IN_DOUBLE. */
void at_modify(const at_modifier *m, int64_t b, int64_t h, int64_t i, int64_t key, int n,
               float *score, void *scratch);
void at_hide(const at_modifier *m, int64_t b, int64_t h, int64_t i, int64_t key, int n,
             float *score, void *scratch);
void at_modify_f64(const at_modifier *m, int64_t b, int64_t h, int64_t i, int64_t key, int64_t n,
                   double *score, void *scratch);
void at_hide_f64(const at_modifier *m, int64_t b, int64_t h, int64_t i, int64_t key, int64_t n,
                 double *score, void *scratch);

#endif
