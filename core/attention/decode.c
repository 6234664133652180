/* decode.c - few queries over plain tensors: parts of the keys are tasks, and tiles are packed
 * lazily. */
#include "attention/problem.h"
#include "attention/schedule.h"

attune_status at_decode(const at_problem *p, attune_tensor *o, attune_tensor *lse) {
    const at_key_source source = at_pair_source(p, 1);
    at_schedule schedule;
    attune_status status = at_schedule_make(&p->query, &source, o, lse, &schedule);
    if (status == ATTUNE_OK) status = at_schedule_keys(&schedule);
    at_schedule_free(&schedule);
    return status;
}
