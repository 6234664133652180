/* memory.c - counted, aligned allocation.
 *
 * A header of one alignment unit stands before each block and holds its size, so freeing needs no
 * other record. Blocks of a middle size are parts of chunks. Large blocks are kept for reuse when
 * they are freed, because the system would zero the pages of a new block for every scratch buffer
 * and every result.
 */
#include "base/memory.h"

#if defined __GLIBC__
#include <malloc.h>
#endif
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/chunk.h"
#include "base/status.h"

typedef struct header {
    void *block;             /* the pointer for free(), or the block of a chunk */
    at_chunk *chunk;         /* NULL: a block of its own */
    int64_t bytes, capacity; /* requested; allocated */
} header;

enum { HUGE_PAGE = 2 << 20, HUGE_FROM = 4 << 20 };

/* Bytes in use now, their max since the peak was reset, and their max ever. */
static _Atomic int64_t in_use, peak, highest;
static _Atomic int64_t limit, fail_countdown;

/* ---- kept blocks ----------------------------------------------------------------------------- */

/* Sanitizers must see when each block is really freed: no block is kept. */
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
static const int64_t KEEP_FROM = INT64_MAX;
#else
static const int64_t KEEP_FROM = (int64_t)1 << 16;
#endif
enum { KEPT = 1024 };
static const int64_t ALWAYS_KEPT = (int64_t)96 << 20; /* bytes that may be kept in any case */
static const int64_t MAX_KEPT = (int64_t)4 << 30;

static struct {
    pthread_mutex_t lock;
    void *p[KEPT]; /* oldest first */
    int count;
    int64_t bytes;
} kept = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* fork() copies the lock as it is, so it is taken before: then no other thread holds it. */
static void lock_kept(void) { pthread_mutex_lock(&kept.lock); }

static void unlock_kept(void) { pthread_mutex_unlock(&kept.lock); }

__attribute__((constructor)) static void prepare_for_fork(void) {
    pthread_atfork(lock_kept, unlock_kept, unlock_kept);
}

static header *header_of(void *p) { return (header *)p - 1; }

static void *remove_kept(int i) {
    void *p = kept.p[i];
    kept.count--;
    kept.bytes -= header_of(p)->capacity;
    memmove(kept.p + i, kept.p + i + 1, (size_t)(kept.count - i) * sizeof *kept.p);
    return p;
}

/* The smallest kept block that fits and is at most an eighth larger; among equals the newest. NULL:
 * there is none. A step that takes a much larger block lacks it later, and asks the system. */
static void *take_kept(int64_t bytes) {
    int best = -1;
    if (bytes < KEEP_FROM) return NULL;
    pthread_mutex_lock(&kept.lock);
    for (int i = kept.count - 1; i >= 0; i--) {
        const int64_t capacity = header_of(kept.p[i])->capacity;
        if (capacity < bytes || capacity - bytes > bytes / 8) continue;
        if (best < 0 || capacity < header_of(kept.p[best])->capacity) best = i;
    }
    void *p = best < 0 ? NULL : remove_kept(best);
    pthread_mutex_unlock(&kept.lock);
    return p;
}

/* Frees the oldest kept blocks until at most max_bytes remain and one more block fits, and empty
 * chunks. */
static void trim_kept(int64_t max_bytes) {
    at_chunk_trim(max_bytes);
    pthread_mutex_lock(&kept.lock);
    while (kept.count > 0 && (kept.bytes > max_bytes || kept.count == KEPT))
        free(header_of(remove_kept(0))->block);
    pthread_mutex_unlock(&kept.lock);
}

/* The bytes that may be kept beside what is in use. A step of training frees all that the next one
 * allocates, and the system would zero these pages again; so what the process once had in use at
 * one time stays its own, and a quarter more: the blocks of each size are most in use at another
 * moment of the step. */
static int64_t keepable(void) {
    const int64_t most = atomic_load(&highest), unused = most + most / 4 - atomic_load(&in_use);
    if (unused < ALWAYS_KEPT) return ALWAYS_KEPT;
    return unused < MAX_KEPT ? unused : MAX_KEPT;
}

static bool keep(void *p) {
    const int64_t capacity = header_of(p)->capacity, max_bytes = keepable();
    if (capacity < KEEP_FROM || capacity > max_bytes / 2) return false;
    trim_kept(max_bytes - capacity);
    pthread_mutex_lock(&kept.lock);
    const bool room = kept.count < KEPT;
    if (room) {
        kept.p[kept.count++] = p;
        kept.bytes += capacity;
    }
    pthread_mutex_unlock(&kept.lock);
    return room;
}

/* ---- counted --------------------------------------------------------------------------------- */

/* The number after `name` in a file of the kernel, or its first number where name is ""; -1: none,
 * also for the word max. */
static int64_t number_in(const char *path, const char *name) {
    char line[128];
    long long number = -1;
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f)) {
        if (strncmp(line, name, strlen(name)) != 0) continue;
        if (sscanf(line + strlen(name), "%lld", &number) != 1) number = -1;
        break;
    }
    if (f) fclose(f);
    return number;
}

/* Why the machine or the cgroup cannot give that many bytes more; NULL: it can. With overcommit a
 * huge malloc succeeds and the process is killed when it writes, so malloc cannot be asked. Blocks
 * that are allocated but not yet written count as used: all that attune has, and these bytes, must
 * fit. */
static const char *lacks(int64_t bytes) {
    static const char reason[] = "more than the machine has left";
    const int64_t all = atomic_load(&in_use); /* with these bytes */
    const int64_t total = number_in("/proc/meminfo", "MemTotal:"),
                  available = number_in("/proc/meminfo", "MemAvailable:"),
                  max = number_in("/sys/fs/cgroup/memory.max", "");
    if (available >= 0 && bytes > available << 10) return reason;
    if (total >= 0 && all > total << 10) return reason;
    if (max < 0) return NULL;
    const int64_t used = number_in("/sys/fs/cgroup/memory.current", ""),
                  cached = number_in("/sys/fs/cgroup/memory.stat", "inactive_file ");
    const int64_t left = max - used + (cached > 0 ? cached : 0);
    return bytes > left || all > max ? reason : NULL;
}

/* Smaller requests do not ask the system what it has left. */
static const int64_t ASK_FROM = (int64_t)64 << 20;

static void raise_to(_Atomic int64_t *mark, int64_t now) {
    int64_t before = atomic_load(mark);
    while (now > before && !atomic_compare_exchange_weak(mark, &before, now)) continue;
}

static void *refuse(int64_t bytes, const char *why) {
    int64_t max_bytes = atomic_load(&limit);
    char set[64] = "no limit is set";
    if (max_bytes) snprintf(set, sizeof set, "the limit is %lld", (long long)max_bytes);
    at_fail(ATTUNE_EMEMORY, "out of memory: %s: asked for %lld bytes beside %lld in use, %s", why,
            (long long)bytes, (long long)atomic_load(&in_use), set);
    return NULL;
}

/* A block of a chunk; NULL: a block of its own is needed. */
static void *take_of_chunk(int64_t bytes) {
    at_chunk *chunk = NULL;
    const int64_t capacity = bytes + AT_ALIGNMENT;
    char *block = KEEP_FROM < INT64_MAX ? at_chunk_take(capacity, &chunk) : NULL;
    if (!block) return NULL;
    void *p = block + AT_ALIGNMENT;
    *header_of(p) = (header){.block = block, .chunk = chunk, .bytes = bytes, .capacity = capacity};
    return p;
}

/* A block from the system in *p. Returns NULL, or the reason for a failure. */
static const char *new_block(int64_t bytes, void **p) {
    const bool huge = bytes >= HUGE_FROM;
    const int64_t alignment = huge ? HUGE_PAGE : AT_ALIGNMENT;
    if (bytes >= KEEP_FROM) trim_kept(keepable()); /* these bytes are in use already */
    if (bytes > ASK_FROM && lacks(bytes)) {
        trim_kept(0);
        const char *reason = lacks(bytes);
        if (reason) return reason;
    }
    char *block = NULL;
    if (posix_memalign((void **)&block, (size_t)alignment, (size_t)(bytes + alignment)) != 0) {
        trim_kept(0);
        if (posix_memalign((void **)&block, (size_t)alignment, (size_t)(bytes + alignment)) != 0)
            return "the system has no more";
    }
    /* Not where the header is: it would take a huge page of its own. */
    if (huge) madvise(block + alignment, (size_t)bytes, MADV_HUGEPAGE);
    *p = block + alignment;
    *header_of(*p) = (header){.block = block, .bytes = bytes, .capacity = bytes};
    return NULL;
}

void *at_alloc(int64_t bytes) {
    if (bytes <= 0 || bytes > INT64_MAX / 2) {
        at_fail(ATTUNE_EMEMORY, "out of memory: the size asked for overflows");
        return NULL;
    }
    if (atomic_load(&fail_countdown) > 0 && atomic_fetch_sub(&fail_countdown, 1) == 1)
        return refuse(bytes, "a test made this allocation fail");
    int64_t max_bytes = atomic_load(&limit), now = atomic_fetch_add(&in_use, bytes) + bytes;
    const char *why = max_bytes && now > max_bytes ? "past the limit" : NULL;
    char *p = why ? NULL : take_of_chunk(bytes);
    if (!why && !p) p = take_kept(bytes);
    if (!why && !p) why = new_block(bytes, (void **)&p);
    if (why) {
        atomic_fetch_sub(&in_use, bytes);
        return refuse(bytes, why);
    }
    header_of(p)->bytes = bytes;
    raise_to(&peak, now);
    raise_to(&highest, now);
#if defined __SANITIZE_ADDRESS__
    memset(p, 0xff, (size_t)bytes); /* NaN: reading unwritten memory shows in results */
#endif
    return p;
}

void *at_alloc_zeroed(int64_t bytes) {
    void *p = at_alloc(bytes);
    if (p) memset(p, 0, (size_t)bytes);
    return p;
}

void at_free(void *p) {
    if (!p) return;
    const header h = *header_of(p);
    atomic_fetch_sub(&in_use, h.bytes);
    if (h.chunk)
        at_chunk_give(h.chunk, h.block, h.capacity, keepable());
    else if (!keep(p))
        free(h.block);
}

attune_status at_grow(void **array, int64_t count, int64_t *room, int64_t size) {
    if (count < *room) return ATTUNE_OK;
    const int64_t wanted = *room ? 2 * *room : 16;
    void *larger = at_alloc(at_checked_mul(wanted, size));
    if (!larger) return ATTUNE_EMEMORY;
    if (*array) memcpy(larger, *array, (size_t)(count * size));
    at_free(*array);
    *array = larger;
    *room = wanted;
    return ATTUNE_OK;
}

attune_memory_info attune_memory(void) {
    return (attune_memory_info){
        .bytes = atomic_load(&in_use), .peak = atomic_load(&peak), .limit = atomic_load(&limit)};
}

attune_status attune_memory_limit(int64_t bytes) {
    if (bytes < 0)
        return at_fail(ATTUNE_EVALUE, "limit: expected at least 0 bytes (0: none), got %lld",
                       (long long)bytes);
    atomic_store(&limit, bytes);
    return ATTUNE_OK;
}

void attune_memory_reset_peak(void) { atomic_store(&peak, atomic_load(&in_use)); }

void attune_memory_trim(void) {
    trim_kept(0);
#if defined __GLIBC__
    malloc_trim(0); /* blocks below its threshold for mappings of their own */
#endif
}

void attune_memory_scope_begin(attune_memory_scope *scope) {
    scope->start = atomic_load(&in_use);
    scope->outer_peak = atomic_exchange(&peak, scope->start);
}

int64_t attune_memory_scope_end(attune_memory_scope *scope) {
    int64_t inner = atomic_load(&peak);
    raise_to(&peak, scope->outer_peak);
    return inner - scope->start;
}

void attune_memory_fail_at(int64_t n) { atomic_store(&fail_countdown, n); }
