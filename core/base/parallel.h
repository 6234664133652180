/* parallel.h - loops over tasks on a pool of threads.
 *
 * The problem alone decides how work is divided into tasks, never the number of threads, and each
 * task writes only its own part of the result. Which thread runs which task is not fixed, so
 * results have the same bits for any number of threads.
 */
#ifndef AT_BASE_PARALLEL_H
#define AT_BASE_PARALLEL_H

#include "attune.h"

/* Runs task(context, i, thread) for i in [0, tasks). Tasks start in the order of i. thread in [0,
 * at_threads()) is the index of the thread that runs the task: it selects scratch memory. A task
 * that fails stops the loop. If several fail, the status and message of the lowest i are returned.
 * The interrupt flag is polled between tasks, so a task should take less than about 50 ms.
 * ENESTED: the call is inside a task. */
typedef attune_status (*at_task)(void *context, int64_t i, int thread);
attune_status at_parallel(int64_t tasks, at_task task, void *context);

/* The same, but each thread starts with a contiguous range of tasks, in order, and takes tasks from
 * the other ranges when its own is empty. For neighbouring tasks that read neighbouring memory. */
attune_status at_parallel_ranges(int64_t tasks, at_task task, void *context);

/* Inside a task: whether another task of the loop has failed or was interrupted and so will never
 * finish. A task that waits for another task must poll this. */
bool at_stopping(void);

/* EVALUE: the environment variable ATTUNE_THREADS is not a number of threads. */
attune_status at_check_threads(void);

int at_threads(void);
int at_cores(void); /* the cores that affinity and the cgroup allow this process */

/* True after attune_interrupt() until the flag is cleared. Long loops inside one task poll it and
 * return at_interrupted_status(). */
bool at_interrupted(void);
attune_status at_interrupted_status(void); /* clears the flag, at_fail(EINTERRUPT) */

#endif
