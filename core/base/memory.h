/* memory.h - every byte that the core allocates for data goes through here and is counted. */
#ifndef AT_BASE_MEMORY_H
#define AT_BASE_MEMORY_H

#include "attune.h"
#include "base/int_math.h"

enum { AT_ALIGNMENT = 64 }; /* a cache line, and the widest vector */

/* Aligned to AT_ALIGNMENT (2 MiB and advised to be huge pages from 4 MiB on), not zeroed by
 * at_alloc. NULL after at_fail(EMEMORY), which says how many bytes were asked for and the limit. A
 * count of zero is an error of the caller's. */
void *at_alloc(int64_t bytes);
void *at_alloc_zeroed(int64_t bytes);
void at_free(void *p); /* NULL is fine */

#endif
