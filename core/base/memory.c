/* memory.c - counted, aligned allocation.
 *
 * Each block is preceded by a header of one alignment unit that holds its size, so that freeing needs no other record.
 */
#include "base/memory.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/status.h"

typedef struct header {
    void *block; /* what free() takes */
    int64_t bytes;
} header;

enum { HUGE_PAGE = 2 << 20, HUGE_FROM = 4 << 20 };

static _Atomic int64_t in_use, peak, limit, fail_countdown;

int64_t at_checked_mul(int64_t a, int64_t b) {
    int64_t r;
    return a < 0 || b < 0 || __builtin_mul_overflow(a, b, &r) ? -1 : r;
}

/* Bytes that the machine could still give: overcommit lets a huge malloc succeed and kills the process later. */
static int64_t available(void) {
    char line[128];
    long long kilobytes = -1;
    FILE *f = fopen("/proc/meminfo", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "MemAvailable: %lld", &kilobytes) == 1) break;
    if (f) fclose(f);
    return kilobytes < 0 ? INT64_MAX : (int64_t)kilobytes << 10;
}

static void raise_peak(int64_t now) {
    int64_t before = atomic_load(&peak);
    while (now > before && !atomic_compare_exchange_weak(&peak, &before, now)) continue;
}

static void *refuse(int64_t bytes, const char *why) {
    int64_t most = atomic_load(&limit);
    char set[64] = "no limit is set";
    if (most) snprintf(set, sizeof set, "the limit is %lld", (long long)most);
    at_fail(ATTUNE_EMEMORY, "out of memory: %s: asked for %lld bytes beside %lld in use, %s", why, (long long)bytes, (long long)atomic_load(&in_use), set);
    return NULL;
}

void *at_alloc(int64_t bytes) {
    if (bytes <= 0) {
        at_fail(ATTUNE_EMEMORY, "out of memory: the size asked for overflows");
        return NULL;
    }
    if (atomic_load(&fail_countdown) > 0 && atomic_fetch_sub(&fail_countdown, 1) == 1) return refuse(bytes, "a test made this allocation fail");
    int64_t most = atomic_load(&limit), now = atomic_fetch_add(&in_use, bytes) + bytes;
    const bool huge = bytes >= HUGE_FROM;
    const char *why = NULL;
    if (most && now > most)
        why = "past the limit";
    else if (bytes > (int64_t)64 << 20 && bytes > available())
        why = "more than the machine has left";
    char *block = NULL;
    const int64_t alignment = huge ? HUGE_PAGE : AT_ALIGNMENT;
    if (!why && (bytes > INT64_MAX - 2 * HUGE_PAGE || posix_memalign((void **)&block, (size_t)alignment, (size_t)(bytes + alignment)) != 0)) {
        block = NULL, why = "the system has no more";
    }
    if (why) {
        atomic_fetch_sub(&in_use, bytes);
        return refuse(bytes, why);
    }
    if (huge) madvise(block, (size_t)(bytes + alignment), MADV_HUGEPAGE);
    raise_peak(now);
    char *p = block + alignment;
    ((header *)(void *)p)[-1] = (header){.block = block, .bytes = bytes};
    return p;
}

void *at_alloc_zeroed(int64_t bytes) {
    void *p = at_alloc(bytes);
    if (p) memset(p, 0, (size_t)bytes);
    return p;
}

void at_free(void *p) {
    if (!p) return;
    header h = ((header *)p)[-1];
    atomic_fetch_sub(&in_use, h.bytes);
    free(h.block);
}

attune_memory_info attune_memory(void) { return (attune_memory_info){.bytes = atomic_load(&in_use), .peak = atomic_load(&peak), .limit = atomic_load(&limit)}; }

attune_status attune_memory_limit(int64_t bytes) {
    if (bytes < 0) return at_fail(ATTUNE_EVALUE, "limit: expected at least 0 bytes (0: none), got %lld", (long long)bytes);
    atomic_store(&limit, bytes);
    return ATTUNE_OK;
}

void attune_memory_reset_peak(void) { atomic_store(&peak, atomic_load(&in_use)); }

void attune_memory_scope_begin(attune_memory_scope *scope) {
    scope->start = atomic_load(&in_use);
    scope->outer_peak = atomic_exchange(&peak, scope->start);
}

int64_t attune_memory_scope_end(attune_memory_scope *scope) {
    int64_t inner = atomic_load(&peak);
    raise_peak(scope->outer_peak);
    return inner - scope->start;
}

void attune_memory_fail_at(int64_t n) { atomic_store(&fail_countdown, n); }
