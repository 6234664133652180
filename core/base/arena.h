/* arena.h - scratch memory: one allocation, carved into aligned pieces of any type.
 *
 * A function of the caller's takes the pieces in order. It runs twice: the first time the arena
 * only adds up sizes and every piece is NULL, the second time the pieces are handed out. So that
 * each size is written once, beside the pointer that it belongs to:
 *
 *     static void carve(at_arena *a, int64_t rows, int64_t dims, scratch *s) {
 *         s->scores = at_arena_take(a, at_checked_mul(rows, dims), sizeof *s->scores);
 *         s->first = at_arena_take(a, rows, sizeof *s->first);
 *     }
 *
 *     at_arena a = {0};
 *     carve(&a, rows, dims, s);
 *     AT_TRY(at_arena_alloc(&a));
 *     carve(&a, rows, dims, s);
 *     ...
 *     at_arena_free(&a);
 *
 * Both runs must take the same pieces. An arena may be copied, into the scratch that it backs for
 * example; one copy is freed.
 */
#ifndef AT_BASE_ARENA_H
#define AT_BASE_ARENA_H

#include "attune.h"

typedef struct at_arena {
    char *memory; /* NULL: sizes are being added up */
    int64_t used; /* bytes taken so far; -1 after an overflow */
    int64_t bytes;
} at_arena;

/* The next piece, count elements of size bytes each, aligned to AT_ALIGNMENT and not zeroed. A
 * negative count, as a failed at_checked_mul() gives, or an overflow makes at_arena_alloc() fail.
 * count 0 takes nothing. */
void *at_arena_take(at_arena *a, int64_t count, size_t size);

/* One allocation for all that was taken. EMEMORY, also after an overflow and where nothing was
 * taken. */
attune_status at_arena_alloc(at_arena *a);
attune_status at_arena_alloc_zeroed(at_arena *a);

void at_arena_free(at_arena *a); /* all pieces at once; idempotent */

#endif
