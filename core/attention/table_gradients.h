/* table_gradients.h - gradients of the tensors that a score program reads.
 *
 * Such a gradient is a sum over all pairs of a query and a key. Each backward task accumulates the
 * gradient of every table READ into a private buffer. The shape of the buffer follows from what the
 * index of the READ depends on:
 *
 *   nothing            one number
 *   the query          one number per query
 *   the key            one number per key of the task
 *   the distance       one number per distance (key - query)
 *   query and key      a copy of the tensor, or no buffer where the READ is direct (see below)
 *
 * times the query heads of the group where the index depends on the head. The buffers are then
 * added to the f64 sums in task order, so that the result does not depend on the number of threads.
 */
#ifndef AT_ATTENTION_TABLE_GRADIENTS_H
#define AT_ATTENTION_TABLE_GRADIENTS_H

#include "attention/modifier.h"

/* The sums over all tasks. */
typedef struct at_table_gradients {
    const at_binding *score; /* NULL: none */
    double **sums;           /* [tensors][elements]; NULL: that tensor has no gradient */
} at_table_gradients;

/* The caller always calls at_table_gradients_free, after an error too. */
attune_status at_table_gradients_new(const at_modifier *m, at_table_gradients *out);
void at_table_gradients_free(at_table_gradients *g);

/* dtables [tensors]: new tensors like those of the program; unchanged where there is no gradient.
 */
attune_status at_table_gradients_store(const at_table_gradients *g, attune_tensor *dtables);

/* Whether a private copy of some tensor would be too large for every thread to have one. */
bool at_table_gradients_are_large(const at_modifier *m);

/* Whether some READ is direct: its index contains the query and the key, so that all pairs of a
 * head have elements of their own, and the task adds to the sums without a buffer. Tasks over the
 * same keys then run in order. */
bool at_table_gradients_are_direct(const at_table_gradients *g);

/* The private buffers of a task: of one kv head and one block of keys. */
typedef struct at_task_gradients {
    const at_table_gradients *of; /* NULL: nothing to accumulate */
    int64_t heads, keys;          /* G; the max number of keys of a task */
    int64_t b, h, key;            /* of the task: batch row, first query head, first key */
    double **f64_sums;            /* [reads][heads or 1][length]: indices by nothing or the query */
    float **f32_sums; /* [reads][heads or 1][length]: indices by key, distance or both */
    int64_t *length;  /* [reads] */
} at_task_gradients;

attune_status at_task_gradients_new(const at_table_gradients *g, int64_t heads, int64_t keys,
                                    at_task_gradients *out);
void at_task_gradients_free(at_task_gradients *task);

/* Clears the buffers for the task of batch row b, first query head h and first key `key`. */
void at_task_gradients_begin(at_task_gradients *task, int64_t b, int64_t h, int64_t key);

/* Accumulates the pairs of a run. d [run->n]: the gradients of the program's results. */
void at_task_gradients_add(at_task_gradients *task, const at_run *run, const float *d);

/* Adds the buffers to the sums. Tasks call it one after the other, in task order. */
void at_task_gradients_end(const at_task_gradients *task);

/* Adds d to element `index` of the tensor that `read` reads; index below 0: the read had no
 * element. */
static inline void at_table_gradients_add(const at_table_gradients *g, int32_t read, int64_t index,
                                          double d) {
    if (index >= 0)
        g->sums[g->score->program->code[g->score->program->read[read]].tensor][index] += d;
}

#endif
