/* chunk.c - see chunk.h. */
#include "base/chunk.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { HUGE_PAGE = 2 << 20, UNIT = 16 << 10, UNITS = 2048, LEAST = 32 << 10, MOST = 4 << 20 };
static const int64_t CHUNK = (int64_t)UNITS * UNIT;

struct at_chunk {
    at_chunk *next;
    uint8_t *data;
    int used;             /* units */
    uint8_t taken[UNITS]; /* 1: by a block */
};

/* Newest last: blocks come from the oldest chunk that has room, so the newer ones become empty. */
static at_chunk *first;
static int64_t empty_bytes;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* fork() copies the lock as it is, so it is taken before: then no other thread holds it. */
static void take_lock(void) { pthread_mutex_lock(&lock); }

static void release_lock(void) { pthread_mutex_unlock(&lock); }

__attribute__((constructor)) static void prepare_for_fork(void) {
    pthread_atfork(take_lock, release_lock, release_lock);
}

static int units_of(int64_t bytes) { return (int)((bytes + UNIT - 1) / UNIT); }

/* The first of `count` units in a row that are free; -1: there are none. */
static int find_units(const at_chunk *c, int count) {
    if (UNITS - c->used < count) return -1;
    const uint8_t *end = c->taken + UNITS, *at = c->taken;
    while ((at = memchr(at, 0, (size_t)(end - at)))) {
        const uint8_t *next = memchr(at, 1, (size_t)(end - at));
        if ((next ? next : end) - at >= count) return (int)(at - c->taken);
        if (!next) break;
        at = next;
    }
    return -1;
}

static void *take_units(at_chunk *c, int start, int count) {
    if (c->used == 0) empty_bytes -= CHUNK;
    memset(c->taken + start, 1, (size_t)count);
    c->used += count;
    return c->data + (int64_t)start * UNIT;
}

static at_chunk *new_chunk(void) {
    at_chunk *c = calloc(1, sizeof *c);
    void *data = NULL;
    if (!c || posix_memalign(&data, HUGE_PAGE, (size_t)CHUNK) != 0) {
        free(c);
        return NULL;
    }
    madvise(data, (size_t)CHUNK, MADV_HUGEPAGE);
    c->data = data;
    empty_bytes += CHUNK;
    return c;
}

void *at_chunk_take(int64_t bytes, at_chunk **chunk) {
    if (bytes < LEAST || bytes >= MOST) return NULL;
    const int count = units_of(bytes);
    void *block = NULL;
    take_lock();
    int start = 0;
    at_chunk **c = &first;
    while (*c && (start = find_units(*c, count)) < 0) c = &(*c)->next;
    if (!*c) {
        *c = new_chunk();
        start = 0;
    }
    if (*c) block = take_units(*c, start, count);
    *chunk = *c;
    release_lock();
    return block;
}

/* With the lock held. */
static void free_empty(int64_t keepable) {
    for (at_chunk **c = &first; *c && empty_bytes > keepable;) {
        at_chunk *this = *c;
        if (this->used > 0) {
            c = &this->next;
            continue;
        }
        *c = this->next;
        empty_bytes -= CHUNK;
        free(this->data);
        free(this);
    }
}

void at_chunk_give(at_chunk *c, void *block, int64_t bytes, int64_t keepable) {
    const int64_t start = ((uint8_t *)block - c->data) / UNIT;
    take_lock();
    memset(c->taken + start, 0, (size_t)units_of(bytes));
    c->used -= units_of(bytes);
    if (c->used == 0) empty_bytes += CHUNK;
    free_empty(keepable);
    release_lock();
}

void at_chunk_trim(int64_t keepable) {
    take_lock();
    free_empty(keepable);
    release_lock();
}
