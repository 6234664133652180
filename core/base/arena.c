/* arena.c - one allocation, carved into aligned pieces. */
#include "base/arena.h"

#include "base/int_math.h"
#include "base/memory.h"

void *at_arena_take(at_arena *a, int64_t count, size_t size) {
    const int64_t begin = a->used,
                  bytes = at_checked_round_up(at_checked_mul(count, (int64_t)size), AT_ALIGNMENT);
    a->used = at_checked_add(begin, bytes);
    return a->memory && a->used >= 0 && a->used <= a->bytes ? a->memory + begin : NULL;
}

static attune_status start(at_arena *a, void *memory) {
    if (!memory) return ATTUNE_EMEMORY;
    *a = (at_arena){.memory = memory, .bytes = a->used};
    return ATTUNE_OK;
}

attune_status at_arena_alloc(at_arena *a) { return start(a, at_alloc(a->used)); }

attune_status at_arena_alloc_zeroed(at_arena *a) { return start(a, at_alloc_zeroed(a->used)); }

void at_arena_free(at_arena *a) {
    at_free(a->memory);
    *a = (at_arena){0};
}
