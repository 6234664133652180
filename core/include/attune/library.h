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

/* The version of the library at run time, "0.1.0". ATTUNE_VERSION is that of the header. */
ATTUNE_API const char *attune_version(void);

/* Chooses the instruction set: ATTUNE_ISA, or else the best one of this machine. Idempotent. Other
 * functions call it when needed. Call it yourself to detect early an unknown or unavailable
 * ATTUNE_ISA (EISA), or an ATTUNE_THREADS that is not a number of threads (EVALUE). */
ATTUNE_API attune_status attune_init(void);

/* Monotonic time in seconds, from an arbitrary start. */
ATTUNE_API double attune_clock(void);

/* Sets the number of threads, including the caller, from 1 to 256; n = 0 leaves it. *now (may be
 * NULL) is the number in use. The default is ATTUNE_THREADS, or else what affinity and the cgroup
 * allow. Results have the same bits for any number of threads. EVALUE: n is out of range. */
ATTUNE_API attune_status attune_threads(int64_t n, int *now);

/* Makes running work in any thread return EINTERRUPT soon. Safe in a signal handler. The flag stays
 * set until attune_interrupt_clear() or until a call has returned EINTERRUPT. */
ATTUNE_API void attune_interrupt(void);
ATTUNE_API void attune_interrupt_clear(void);

/* bytes: memory of tensors, caches and scratch allocated now. peak: the max of bytes since the
 * start or the last attune_memory_reset_peak(). limit: beyond it an allocation fails with EMEMORY;
 * 0: no limit. */
typedef struct attune_memory_info {
    int64_t bytes, peak, limit;
} attune_memory_info;
ATTUNE_API attune_memory_info attune_memory(void);
ATTUNE_API attune_status attune_memory_limit(int64_t bytes);
ATTUNE_API void attune_memory_reset_peak(void);

/* Gives the system the freed blocks that are kept for reuse. The next ones are zeroed by it. */
ATTUNE_API void attune_memory_trim(void);

/* The peak within a scope: end returns the max number of bytes allocated beyond those at begin. The
 * fields are private. Scopes nest. */
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
