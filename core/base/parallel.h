/* parallel.h - loops over tasks that a pool of threads shares.
 *
 * Work is cut into tasks at places that the problem alone fixes, never the number of threads; each
 * task writes only what is its own. Who runs which task is left to chance, and so results have the
 * same bits for any number of threads.
 */
#ifndef AT_BASE_PARALLEL_H
#define AT_BASE_PARALLEL_H

#include "attune.h"

/* Runs task(context, i, thread) for i in [0, tasks); they are started in that order. thread in [0,
 * at_threads()) is the index of the thread that runs it, for scratch. A task that fails stops the
 * loop; of several failures the lowest i's is returned, with its message. Polls the interrupt flag
 * between tasks: keep a task below about 50 ms. ENESTED inside a task. */
typedef attune_status (*at_task)(void *context, int64_t i, int thread);
attune_status at_parallel(int64_t tasks, at_task task, void *context);

/* The same, but each thread begins with a share of neighbouring tasks, in their order, and takes
 * others' when it has none left: for tasks that read memory one after the other. */
attune_status at_parallel_ranges(int64_t tasks, at_task task, void *context);

/* Inside a task: another task of the loop has failed or was interrupted, and will never finish. A
 * task that waits for another one looks at it. */
bool at_stopping(void);

int at_threads(void);
int at_cores(void); /* what affinity and the cgroup allow this process */

/* True once attune_interrupt() was called and not yet cleared. Long loops inside one task poll it
 * and return at_interrupted_status(). */
bool at_interrupted(void);
attune_status at_interrupted_status(void); /* clears the flag, at_fail(EINTERRUPT) */

#endif
