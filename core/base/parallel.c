/* parallel.c - a pool of threads that runs loops over tasks.
 *
 * Workers start when they are first needed. Between loops a worker spins for a few microseconds,
 * because attention calls come in bursts, and then sleeps on a condition variable. The tasks of a
 * loop are divided into ranges, one in all or one per thread. A thread claims tasks from its own
 * range in order, and from the other ranges when its own is empty. The caller is thread 0.
 */
#include "base/parallel.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/int_math.h"
#include "base/status.h"

enum { MAX_THREADS = 256, SPINS = 2000 };

typedef struct range {
    _Alignas(64) _Atomic int64_t next; /* each counter on a cache line of its own */
    int64_t end;
} range;

typedef struct loop {
    at_task task;
    void *context;
    range *ranges;
    int count; /* number of ranges */
    atomic_bool stop;
    atomic_int busy; /* workers that have not left the loop yet */
    pthread_mutex_t failure_lock;
    int64_t failed_task;
    attune_status status;
    char message[1024];
} loop;

static struct {
    pthread_mutex_t use;  /* held while a loop runs: a second caller waits */
    pthread_mutex_t lock; /* guards the fields below */
    pthread_cond_t wake;
    _Atomic uint64_t generation; /* increases by one with each loop */
    loop *current;
    int wanted, started; /* workers for the current loop; workers alive */
    bool fork_handled;
} pool = {.use = PTHREAD_MUTEX_INITIALIZER,
          .lock = PTHREAD_MUTEX_INITIALIZER,
          .wake = PTHREAD_COND_INITIALIZER};

static atomic_int threads_set;
static atomic_bool interrupted;
static _Thread_local loop *inside; /* the loop whose tasks this thread runs; NULL: none */

/* ---- interrupt ------------------------------------------------------------------------------- */

void attune_interrupt(void) { atomic_store(&interrupted, true); }

void attune_interrupt_clear(void) { atomic_store(&interrupted, false); }

bool at_stopping(void) {
    return inside && atomic_load_explicit(&inside->stop, memory_order_relaxed);
}

bool at_interrupted(void) { return atomic_load_explicit(&interrupted, memory_order_relaxed); }

attune_status at_interrupted_status(void) {
    attune_interrupt_clear();
    return at_fail(ATTUNE_EINTERRUPT, "interrupted");
}

/* ---- the number of threads ------------------------------------------------------------------- */

/* The CPU quota of the cgroup in cores, rounded up; 0: no limit. */
static int quota(void) {
    long long limit = -1, period = 0;
    FILE *f = fopen("/sys/fs/cgroup/cpu.max", "r");
    if (f) {
        if (fscanf(f, "%lld %lld", &limit, &period) != 2) limit = -1;
        fclose(f);
    }
    return limit > 0 && period > 0 ? (int)(at_ceil_div(limit, period)) : 0;
}

int at_cores(void) {
    cpu_set_t allowed;
    int n = sched_getaffinity(0, sizeof allowed, &allowed) == 0
                ? CPU_COUNT(&allowed)
                : (int)sysconf(_SC_NPROCESSORS_ONLN);
    int limit = quota();
    if (limit && limit < n) n = limit;
    return n < 1 ? 1 : n > MAX_THREADS ? MAX_THREADS : n;
}

/* The number in ATTUNE_THREADS. 0: it is not set, or empty; -1: it is not a number of threads. */
static int threads_wanted(void) {
    const char *text = getenv("ATTUNE_THREADS");
    if (!text || !*text) return 0;
    if (*text < '0' || *text > '9') return -1;
    char *end;
    const long n = strtol(text, &end, 10); /* beyond its range: LONG_MAX */
    return *end || n < 1 || n > MAX_THREADS ? -1 : (int)n;
}

attune_status at_check_threads(void) {
    if (threads_wanted() >= 0) return ATTUNE_OK;
    return at_fail(ATTUNE_EVALUE,
                   "ATTUNE_THREADS: expected a number of threads from 1 to %d, got '%.32s'",
                   MAX_THREADS, getenv("ATTUNE_THREADS"));
}

int at_threads(void) {
    int n = atomic_load_explicit(&threads_set, memory_order_relaxed);
    if (n) return n;
    n = threads_wanted();
    if (n < 1) n = at_cores();
    atomic_store(&threads_set, n);
    return n;
}

attune_status attune_threads(int64_t n, int *now) {
    if (n < 0 || n > MAX_THREADS)
        return at_fail(ATTUNE_EVALUE,
                       "threads: expected a number of threads from 1 to %d, got %lld", MAX_THREADS,
                       (long long)n);
    if (n) atomic_store(&threads_set, (int)n);
    if (now) *now = at_threads();
    return ATTUNE_OK;
}

/* ---- loops ----------------------------------------------------------------------------------- */

/* Keeps the failure of the lowest task: the same message for any number of threads. */
static void note_failure(loop *l, int64_t i, attune_status status) {
    pthread_mutex_lock(&l->failure_lock);
    if (l->status == ATTUNE_OK || i < l->failed_task) {
        l->status = status;
        l->failed_task = i;
        snprintf(l->message, sizeof l->message, "%s", at_marked_message());
    }
    pthread_mutex_unlock(&l->failure_lock);
    atomic_store(&l->stop, true);
}

static void run_tasks(loop *l, int thread) {
    inside = l;
    for (int s = 0; s < l->count && !atomic_load_explicit(&l->stop, memory_order_relaxed);) {
        range *from = &l->ranges[(thread + s) % l->count];
        const int64_t i = atomic_fetch_add(&from->next, 1);
        if (i >= from->end) {
            s++;
            continue;
        }
        attune_status status =
            at_interrupted() ? at_interrupted_status() : l->task(l->context, i, thread);
        if (status != ATTUNE_OK) note_failure(l, i, status);
    }
    inside = NULL;
}

static void relax(void) {
#if defined __x86_64__
    __builtin_ia32_pause();
#endif
}

static void *work(void *argument) {
    const int number = (int)(intptr_t)argument; /* from 1 on: the caller is thread 0 */
    uint64_t last_generation = 0;
    for (;;) {
        for (int i = 0; i < SPINS && atomic_load(&pool.generation) == last_generation; i++) relax();
        pthread_mutex_lock(&pool.lock);
        while (atomic_load(&pool.generation) == last_generation)
            pthread_cond_wait(&pool.wake, &pool.lock);
        last_generation = atomic_load(&pool.generation);
        loop *l = number <= pool.wanted ? pool.current : NULL;
        if (l) atomic_fetch_add(&l->busy, 1);
        pthread_mutex_unlock(&pool.lock);
        if (!l) continue;
        run_tasks(l, number);
        atomic_fetch_sub(&l->busy, 1);
    }
    return NULL;
}

/* After fork() the child has a copy of the pool but none of its threads. */
static void forget_workers(void) {
    pthread_mutex_init(&pool.use, NULL);
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.wake, NULL);
    pool.started = 0;
    pool.current = NULL;
    inside = NULL;
}

/* Fewer threads than wanted are not an error: the loop still completes. */
static void start_workers(int wanted) {
    if (!pool.fork_handled) pool.fork_handled = pthread_atfork(NULL, NULL, forget_workers) == 0;
    while (pool.started < wanted) {
        pthread_t id;
        pthread_attr_t detached;
        sigset_t all, before;
        pthread_attr_init(&detached);
        pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
        sigfillset(&all); /* workers handle no signals: those are for the host's threads */
        pthread_sigmask(SIG_SETMASK, &all, &before);
        int failed = pthread_create(&id, &detached, work, (void *)(intptr_t)(pool.started + 1));
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        pthread_attr_destroy(&detached);
        if (failed) break;
        pool.started++;
    }
}

static void run_with(loop *l, int helpers) {
    pthread_mutex_lock(&pool.lock);
    start_workers(helpers);
    pool.current = l;
    pool.wanted = helpers;
    atomic_fetch_add(&pool.generation, 1);
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.lock);
    run_tasks(l, 0);
    pthread_mutex_lock(&pool.lock); /* after this no worker joins the loop */
    pool.current = NULL;
    pool.wanted = 0;
    pthread_mutex_unlock(&pool.lock);
    for (int spins = 0; atomic_load(&l->busy) > 0; spins++) {
        if (spins < SPINS)
            relax();
        else
            sched_yield();
    }
}

static attune_status run_loop(int64_t tasks, at_task task, void *context, bool by_ranges) {
    range ranges[MAX_THREADS];
    if (inside) return at_fail(ATTUNE_ENESTED, "parallel work was started inside parallel work");
    if (tasks <= 0) return ATTUNE_OK;
    int helpers = at_threads() - 1;
    if (helpers > tasks - 1) helpers = (int)(tasks - 1);
    loop l = {.task = task,
              .context = context,
              .ranges = ranges,
              .count = by_ranges ? helpers + 1 : 1,
              .failure_lock = PTHREAD_MUTEX_INITIALIZER};
    for (int s = 0; s < l.count; s++) {
        atomic_init(&ranges[s].next, tasks * s / l.count);
        ranges[s].end = tasks * (s + 1) / l.count;
    }
    if (helpers == 0) {
        run_tasks(&l, 0);
    } else {
        pthread_mutex_lock(&pool.use);
        run_with(&l, helpers);
        pthread_mutex_unlock(&pool.use);
    }
    return l.status == ATTUNE_OK ? ATTUNE_OK : at_fail(l.status, "%s", l.message);
}

attune_status at_parallel(int64_t tasks, at_task task, void *context) {
    return run_loop(tasks, task, context, false);
}

attune_status at_parallel_ranges(int64_t tasks, at_task task, void *context) {
    return run_loop(tasks, task, context, true);
}
