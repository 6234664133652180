/* table_gradients.h - gradients of what a score program reads: sums over all pairs, the same
 * whatever the threads.
 *
 * A task of tiled's backward adds up its own pairs, for each READ along what its place depends on:
 * one number, one a query, a key or a distance, or the tensor itself, or, where places are the
 * pairs' own, nowhere but in the sums. When it is done, it adds them to the sums of all, in the
 * order of the tasks.
 */
#ifndef AT_ATTENTION_TABLE_GRADIENTS_H
#define AT_ATTENTION_TABLE_GRADIENTS_H

#include "attention/modifier.h"

typedef struct at_table_gradients {
    const at_binding *score; /* NULL: none */
    double **sums;           /* [tensors]; NULL: no READ of that tensor has a gradient */
} at_table_gradients;

attune_status at_table_gradients_new(const at_modifier *m, at_table_gradients *out);
void at_table_gradients_free(at_table_gradients *g);
/* dtables [tensors]: like their tensors, closed where there is no gradient. */
attune_status at_table_gradients_store(const at_table_gradients *g, attune_tensor *dtables);

/* Whether some READ wants a copy of its tensor for each thread that is too large for that. */
bool at_table_gradients_are_large(const at_modifier *m);

/* Whether some READ adds to the sums directly: its place names query and key, so that one head's
 * pairs all have places of their own. Tasks of the same keys then take turns. */
bool at_table_gradients_are_direct(const at_table_gradients *g);

/* What one task adds up, over the G heads of a kv head. */
typedef struct at_part {
    const at_table_gradients *of;
    int64_t heads, keys; /* G; keys of a block at most */
    int64_t b, h, key;   /* of the task: batch row, first head, first key */
    double **single;     /* [reads][heads or 1][1 or queries] */
    float **many;        /* [reads][heads or 1][keys, distances or elements] */
    int64_t *length;     /* [reads] */
} at_part;

attune_status at_part_new(const at_table_gradients *g, int64_t heads, int64_t keys, at_part *out);
void at_part_free(at_part *part);
void at_part_begin(at_part *part, int64_t b, int64_t h, int64_t key);
/* The pairs of a run, whose result has the gradient d [n]. */
void at_part_add(at_part *part, const at_run *run, const float *d);
void at_part_end(const at_part *part);

/* One pair of the reference: d times an adjoint, at a place. */
static inline void at_table_gradients_add(const at_table_gradients *g, int32_t read, int64_t place,
                                          double d) {
    if (place >= 0)
        g->sums[g->score->program->code[g->score->program->read[read]].tensor][place] += d;
}

#endif
