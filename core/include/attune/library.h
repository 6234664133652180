/* attune/library.h - version, threads, interruption, memory, the random generator. */
#ifndef ATTUNE_LIBRARY_H
#define ATTUNE_LIBRARY_H

#include "attune/status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define ATTUNE_VERSION_MAJOR 0
#define ATTUNE_VERSION_MINOR 1
#define ATTUNE_VERSION_PATCH 0
#define ATTUNE_VERSION "0.1.0"

/* The version the library was built as, "0.1.0", to compare with ATTUNE_VERSION. */
ATTUNE_API const char *attune_version(void);

/* Chooses the instruction set (ATTUNE_ISA, else the best one here) and the number of threads.
 * Idempotent. Everything else calls it where needed; call it yourself to learn early of an
 * ATTUNE_ISA that is unknown or absent (EISA). */
ATTUNE_API attune_status attune_init(void);

/* Seconds since some fixed point, monotonic. */
ATTUNE_API double attune_clock(void);

/* Threads that parallel work uses, the caller among them. n = 0 only asks. Starts as
 * ATTUNE_THREADS, else what affinity and the cgroup allow. Results have the same bits for any
 * number of threads. */
ATTUNE_API attune_status attune_threads(int n, int *now);

/* Asks work in progress, in whatever thread, to end soon with EINTERRUPT. Safe to call in a signal
 * handler. The flag stands until attune_interrupt_clear(), or until a call has returned EINTERRUPT
 * because of it. */
ATTUNE_API void attune_interrupt(void);
ATTUNE_API void attune_interrupt_clear(void);

/* Bytes of tensors, caches and scratch that are allocated now, the most there ever were since the
 * start or the last attune_memory_reset_peak(), and the limit (0: none) past which an allocation
 * fails with EMEMORY. */
typedef struct attune_memory_info {
    int64_t bytes, peak, limit;
} attune_memory_info;
ATTUNE_API attune_memory_info attune_memory(void);
ATTUNE_API attune_status attune_memory_limit(int64_t bytes);
ATTUNE_API void attune_memory_reset_peak(void);

/* High-water marks within a scope: *mark is opaque; end gives the most bytes above those at the
 * start. Scopes nest. */
typedef struct attune_memory_scope {
    int64_t start, outer_peak;
} attune_memory_scope;
ATTUNE_API void attune_memory_scope_begin(attune_memory_scope *scope);
ATTUNE_API int64_t attune_memory_scope_end(attune_memory_scope *scope);

/* For tests: the n-th allocation from now on fails (1: the next one); 0 switches that off. */
ATTUNE_API void attune_memory_fail_at(int64_t n);

/* Philox 4x32-10 (Salmon et al. 2011): counter and key to four 32-bit words. */
ATTUNE_API void attune_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

#ifdef __cplusplus
}
#endif

#endif
