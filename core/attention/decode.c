/* decode.c - few queries over plain tensors: parts of the keys are tasks, and tiles are packed
 * lazily. */
#include "attention/problem.h"
#include "attention/schedule.h"

attune_status at_decode(const at_problem *p, const at_results *results) {
    const at_key_source source = at_pair_source(p, 1);
    at_schedule schedule;
    attune_status status = at_schedule_make(&p->query, &source, results, &schedule);
    if (status == ATTUNE_OK) status = at_schedule_keys(&schedule);
    if (status == ATTUNE_OK) status = at_schedule_columns(&schedule, 0, p->query.B * p->query.Hk);
    at_schedule_free(&schedule);
    return status;
}
