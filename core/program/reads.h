/* reads.h - no visible pair may read outside a tensor. Indices that do not depend on the score are
 * checked before anything is computed, the others as the program runs.
 */
#ifndef AT_PROGRAM_READS_H
#define AT_PROGRAM_READS_H

#include "program/block_map.h"

/* Fails where a visible pair reads outside a tensor, by an index that does not depend on the score.
 * mask and map: of the mask program, or NULL. */
attune_status at_check_reads(const at_binding *binding, const at_binding *mask,
                             const at_block_map *map, at_visible_keys visible_keys,
                             const void *context);

/* A pair of query and key of a head, numbered as in the whole problem. */
typedef struct at_place {
    int64_t b, h, i, key;
} at_place;

/* The error of a READ n whose indices [rank] are out of range for a pair. */
attune_status at_read_outside(const at_binding *binding, int32_t n, const at_place *pair,
                              const double *index);

/* Whether ranges prove that all indices of a READ at AT_EACH_PAIR are in range. scratch: [count].
 */
bool at_read_proved(const at_binding *binding, int32_t n, at_range *scratch);

/* The READs of a program whose index depends on the score and may be out of range, and the first
 * visible pair, in the order of batch rows, heads, queries and keys, for which one was. */
typedef struct at_score_reads at_score_reads;

/* *out is NULL where a program has no such READ. The bindings and the map must outlive it. */
attune_status at_score_reads_new(const at_binding *binding, const at_binding *mask,
                                 const at_block_map *map, at_score_reads **out);
void at_score_reads_free(at_score_reads *reads);

/* Notes the pairs of a run, all of them visible but for the mask, after at_run_pairs; after
 * at_run_f64 with score: its scores. Any thread may call it. */
void at_score_reads_note(at_score_reads *reads, const at_run *run, const double *score);

/* Fails where a pair was noted. */
attune_status at_score_reads_status(const at_score_reads *reads);

#endif
