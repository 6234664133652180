/* modifier.h - a score program and a mask on their way through attention: between the scores and
 * the softmax. */
#ifndef AT_ATTENTION_MODIFIER_H
#define AT_ATTENTION_MODIFIER_H

#include "program/block_map.h"

typedef struct at_modifier {
    at_binding score, mask;  /* program NULL: none */
    const at_block_map *map; /* the mask's, which belongs to its program */
} at_modifier;

/* score or mask, or both, may be NULL. sees: what the problem shows before the mask. On success
 * at_modifier_free is due. */
attune_status at_modifier_make(attune_program *score, attune_program *mask, const at_extent *extent,
                               int wants, at_visible_keys sees, const void *context,
                               at_modifier *out);
void at_modifier_free(at_modifier *m);

static inline bool at_modifies(const at_modifier *m) { return m->score.program || m->mask.program; }
static inline bool at_has_gaps(const at_modifier *m) { return m->map && !m->map->contiguous; }

/* Narrows the keys [*first, *last) to the first and last that query i of head (b, h) sees. */
static inline void at_modifier_narrow(const at_modifier *m, int64_t b, int64_t h, int64_t i,
                                      int64_t *first, int64_t *last) {
    if (m->map) at_block_map_narrow(m->map, b, h, i, first, last);
}

/* Whether one of the queries [i, i_end) sees something of the tile that begins with `key`. */
bool at_modifier_any_visible(const at_modifier *m, int64_t b, int64_t h, int64_t i, int64_t i_end,
                             int64_t key);

/* Bytes of scratch for what follows. */
int64_t at_modifier_scratch(const at_modifier *m);

/* Scores of query i with the keys [key, key + n), n at most AT_RUN less a vector, become what the
 * program makes of them, -inf where the mask hides. score: readable and writable up to a whole
 * vector. */
void at_modify(const at_modifier *m, int64_t b, int64_t h, int64_t i, int64_t key, int n,
               float *score, void *scratch);
/* The same for any n, in double precision; bound AT_IN_DOUBLE. */
void at_modify_f64(const at_modifier *m, int64_t b, int64_t h, int64_t i, int64_t key, int64_t n,
                   double *score, void *scratch);
void at_hide_f64(const at_modifier *m, int64_t b, int64_t h, int64_t i, int64_t key, int64_t n,
                 double *score, void *scratch);
/* Only the mask: hides what it hides. */
void at_hide(const at_modifier *m, int64_t b, int64_t h, int64_t i, int64_t key, int n,
             float *score, void *scratch);

#endif
