/* memory.h - every byte that the core allocates for data goes through here and is counted. */
#ifndef AT_BASE_MEMORY_H
#define AT_BASE_MEMORY_H

#include "attune.h"
#include "base/int_math.h"

enum { AT_ALIGNMENT = 64 }; /* bytes of a cache line and of an AVX-512 vector */

/* bytes > 0, aligned to AT_ALIGNMENT. From 32 KiB on a block is in huge pages, where the system has
 * them: below 4 MiB as part of a chunk (base/chunk.h), from there on aligned to 2 MiB. at_alloc
 * does not zero it. NULL after at_fail(EMEMORY), whose message has the bytes requested and the
 * limit; also for bytes <= 0, as an overflow of at_checked_mul() gives. */
void *at_alloc(int64_t bytes);
void *at_alloc_zeroed(int64_t bytes);
void at_free(void *p); /* p may be NULL */

/* Makes room for one more element of `size` bytes in an array of `count`, which has room for *room:
 * doubles the room where it is full. */
attune_status at_grow(void **array, int64_t count, int64_t *room, int64_t size);

#endif
