/* measure.c - measured peaks of this machine: arithmetic, memory bandwidth, BLIS. Measurements are
 * compared with these ceilings. */
#include <stdatomic.h>

#include "base/arena.h"
#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"
#include "machine/machine.h"
#include "simd/table.h"
#include "tensor/gemm.h"

/* All threads run the same loop at the same time. A rate is the work of all threads divided by the
 * time from the first start to the last end. Threads wait for each other before they start, so that
 * no thread runs while other cores are idle. */
typedef struct measure_job {
    const attune_span *spans; /* each is divided into one part per thread */
    int count;
    bool evicts; /* the spans leave the caches before each run */
    bool ahead;  /* whether spans are read with prefetches */
    int64_t steps;
    at_product product;
    double begin[256], end[256], work[256];
    atomic_int ready;
    int threads;
} measure_job;

enum { MAX_THREADS = 256 };

static int64_t part_bytes(const attune_span *span, int threads) {
    return span->bytes / threads / 64 * 64;
}

static attune_status measure_task(void *context, int64_t i, int thread) {
    measure_job *j = context;
    const at_limit_kernels *kernels = &at_simd_now()->limits;
    (void)thread;
    /* The wait has a time limit, in case fewer threads run than there are tasks. */
    atomic_fetch_add(&j->ready, 1);
    for (double limit = attune_clock() + 0.01;
         atomic_load(&j->ready) < j->threads && attune_clock() < limit;)
        continue;
    j->begin[i] = attune_clock();
    j->work[i] = 0;
    if (j->spans) {
        for (int64_t n = 0; n < j->steps * j->count; n++) {
            const attune_span *span = &j->spans[n % j->count];
            const int64_t bytes = part_bytes(span, j->threads);
            volatile double sum =
                kernels->read((const char *)span->data + i * bytes, bytes, j->ahead);
            (void)sum;
            j->work[i] += (double)bytes;
        }
    } else {
        j->work[i] = kernels->peak[j->product](j->steps);
    }
    j->end[i] = attune_clock();
    return ATTUNE_OK;
}

static attune_status measure_once(measure_job *j, double *rate, double *seconds) {
    double begin = 1e300, end = 0, work = 0;
    atomic_store(&j->ready, 0);
    AT_TRY(at_parallel(j->threads, measure_task, j));
    for (int i = 0; i < j->threads; i++) {
        if (j->begin[i] < begin) begin = j->begin[i];
        if (j->end[i] > end) end = j->end[i];
        work += j->work[i];
    }
    *seconds = end - begin;
    *rate = work / *seconds;
    return ATTUNE_OK;
}

/* The best rate of all runs that fit into the seconds: a ceiling is what the machine can do when
 * nothing disturbs it. Memory is read in both ways, at least once each. */
static attune_status measure_best(measure_job *j, double seconds, double *best) {
    double start = attune_clock(), rate, took;
    int runs = 0;
    *best = 0;
    do {
        j->ahead = runs++ % 2 == 1;
        if (j->evicts) AT_TRY(attune_evict(j->spans, j->count));
        AT_TRY(measure_once(j, &rate, &took));
        if (rate > *best) *best = rate;
        /* About 20 ms: long compared with the cost of starting a run, and short enough to be
         * interrupted. */
        if (!j->spans && took < 0.01) j->steps *= 2;
    } while (attune_clock() - start < seconds || (j->spans && runs < 2));
    return ATTUNE_OK;
}

static int measure_threads(void) { return at_threads() < MAX_THREADS ? at_threads() : MAX_THREADS; }

attune_status attune_measure_peak(double seconds, attune_arithmetic arithmetic,
                                  double *operations) {
    static const at_product products[] = {[ATTUNE_MULTIPLY_ADD_F32] = AT_FMA,
                                          [ATTUNE_DOT_BF16] = AT_DOT_BF16,
                                          [ATTUNE_DOT_I8] = AT_DOT_I8};
    *operations = 0;
    AT_TRY(attune_init());
    if (arithmetic > ATTUNE_DOT_I8)
        return at_fail(ATTUNE_EVALUE, "arithmetic: expected f32, bf16 or i8, got number %d",
                       (int)arithmetic);
    measure_job j = {
        .steps = 1 << 18, .threads = measure_threads(), .product = products[arithmetic]};
    return at_simd_now()->limits.peak[j.product] ? measure_best(&j, seconds, operations)
                                                 : ATTUNE_OK;
}

attune_status attune_measure_read(double seconds, const attune_span *spans, int count,
                                  double *bytes_per_second) {
    AT_TRY(attune_init());
    measure_job j = {.spans = spans, .count = count, .steps = 1, .threads = measure_threads()};
    int64_t bytes = 0;
    for (int n = 0; n < count; n++) bytes += part_bytes(&spans[n], j.threads);
    if (bytes <= 0)
        return at_fail(ATTUNE_EVALUE, "bytes: expected at least 64 bytes per thread, got fewer");
    /* Memory that fits a cache is read several times per run, so that the clock is exact enough. */
    if (bytes < (16 << 20)) j.steps = (16 << 20) / bytes;
    return measure_best(&j, seconds, bytes_per_second);
}

/* A cache holds nothing of memory that was evicted, however large it is: a virtual machine reports
 * the last cache of a whole socket, of which it may have a small part. Without eviction the memory
 * must exceed the last cache. */
attune_status attune_measure_bandwidth(double seconds, int64_t bytes, double *bytes_per_second) {
    const int64_t past_caches = (int64_t)256 << 20;
    AT_TRY(attune_init());
    if (bytes < 0)
        return at_fail(ATTUNE_EVALUE, "bytes: expected at least 0, got %lld", (long long)bytes);
    measure_job j = {.count = 1, .steps = 1, .threads = measure_threads()};
    if (bytes == 0) {
        j.evicts = attune_evict(NULL, 0) == ATTUNE_OK;
        bytes =
            j.evicts || 4 * at_cache_bytes(3) < past_caches ? past_caches : 4 * at_cache_bytes(3);
    }
    char *data = at_alloc_zeroed(bytes);
    if (!data) return ATTUNE_EMEMORY;
    const attune_span span = {.data = data, .bytes = bytes};
    j.spans = &span;
    attune_status status = j.evicts ? measure_best(&j, seconds, bytes_per_second)
                                    : attune_measure_read(seconds, &span, 1, bytes_per_second);
    at_free(data);
    return status;
}

static void take_matrices(at_arena *arena, int64_t n, float **a, float **b, float **c) {
    *a = at_arena_take(arena, n * n, sizeof **a);
    *b = at_arena_take(arena, n * n, sizeof **b);
    *c = at_arena_take(arena, n * n, sizeof **c);
}

attune_status attune_measure_sgemm(double seconds, int64_t n, double *flops) {
    AT_TRY(attune_init());
    if (n < 1 || n > 32768)
        return at_fail(ATTUNE_EVALUE, "n: expected from 1 to 32768, got %lld", (long long)n);
    at_arena arena = {0};
    float *a, *b, *c;
    take_matrices(&arena, n, &a, &b, &c);
    AT_TRY(at_arena_alloc(&arena));
    take_matrices(&arena, n, &a, &b, &c);
    for (int64_t i = 0; i < n * n; i++) a[i] = b[i] = (float)(i % 7) - 3;
    double start = attune_clock(), best = 0;
    attune_status status = ATTUNE_OK;
    do {
        double begin = attune_clock();
        at_gemm_f32_threaded(n, a, b, c, at_threads());
        double rate = 2.0 * (double)n * (double)n * (double)n / (attune_clock() - begin);
        if (rate > best) best = rate;
        if (at_interrupted()) status = at_interrupted_status();
    } while (status == ATTUNE_OK && attune_clock() - start < seconds);
    at_arena_free(&arena);
    *flops = best;
    return status;
}
