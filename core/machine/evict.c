/* evict.c - removes memory from the caches of the processor, so that what is timed next reads it
 * from memory, as a layer of a deep model does whose keys were used one token ago.
 *
 * The instructions write modified lines back and drop them from all caches of all cores: CLFLUSH
 * and CLFLUSHOPT (Intel SDM, volume 2A), DC CIVAC (Arm ARM, A64 system instructions). The result
 * does not depend on the size of the last cache, which a virtual machine reports for the whole
 * socket. They belong to no instruction set of core/simd: they move no data into registers. */
#include <stdint.h>

#include "base/parallel.h"
#include "base/status.h"
#include "machine/machine.h"

#if defined __x86_64__
#include <cpuid.h>
#include <immintrin.h>

/* Every x86-64 processor has CLFLUSH, but it handles one line after the other. */
__attribute__((target("clflushopt"))) static void drop_overlapped(const char *from,
                                                                  const char *to) {
    for (; from < to; from += 64) _mm_clflushopt((void *)(uintptr_t)from);
}

static void drop(const char *from, const char *to) {
    unsigned a, b = 0, c, d;
    const bool overlaps = __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & 1u << 23);
    if (overlaps) drop_overlapped(from, to);
    for (; !overlaps && from < to; from += 64) _mm_clflush(from);
    _mm_mfence();
}
static const char *const lacking = NULL;
#elif defined __aarch64__
static void drop(const char *from, const char *to) {
    uint64_t type;
    __asm__ volatile("mrs %0, ctr_el0" : "=r"(type));
    const uintptr_t line = (uintptr_t)4 << (type >> 16 & 15); /* DminLine: log2 of words */
    for (uintptr_t p = (uintptr_t)from & ~(line - 1); p < (uintptr_t)to; p += line)
        __asm__ volatile("dc civac, %0" ::"r"(p) : "memory");
    __asm__ volatile("dsb sy" ::: "memory");
}
static const char *const lacking = NULL;
#else
static void drop(const char *from, const char *to) {
    (void)from;
    (void)to;
}
static const char *const lacking = "x86-64 or AArch64, whose instructions drop cache lines";
#endif

typedef struct evict_job {
    const char *data;
    int64_t bytes, part;
} evict_job;

static attune_status evict_part(void *context, int64_t i, int thread) {
    const evict_job *j = context;
    const int64_t begin = i * j->part,
                  end = begin + j->part < j->bytes ? begin + j->part : j->bytes;
    (void)thread;
    drop(j->data + begin, j->data + end);
    return ATTUNE_OK;
}

/* All threads work, so that they are awake when the timed call comes. */
attune_status attune_evict(const attune_span *spans, int count) {
    enum { MAX_PART = 4 << 20, LINE = 64 };
    AT_TRY(attune_init());
    if (lacking) return at_fail(ATTUNE_EISA, "evict: expected %s, got another processor", lacking);
    for (int n = 0; n < count; n++) {
        const int64_t bytes = spans[n].bytes;
        if (bytes < 0 || (bytes > 0 && !spans[n].data))
            return at_fail(ATTUNE_EVALUE,
                           "spans[%d]: expected memory of at least 0 bytes, got "
                           "%lld bytes at %p",
                           n, (long long)bytes, spans[n].data);
        if (bytes == 0) continue;
        /* From the begin of the first line, so that each part is whole lines. */
        const uintptr_t ahead = (uintptr_t)spans[n].data % LINE;
        evict_job j = {.data = (const char *)spans[n].data - ahead,
                       .bytes = bytes + (int64_t)ahead};
        const int64_t share = (j.bytes / at_threads() + LINE) / LINE * LINE;
        j.part = share < MAX_PART ? share : MAX_PART;
        AT_TRY(at_parallel((j.bytes + j.part - 1) / j.part, evict_part, &j));
    }
    return ATTUNE_OK;
}
