/* slab.h - memory for many blocks that live about as long, such as the weights of a model.
 *
 * A block of its own has pages of 4 KiB unless it is large (memory.h), and such pages are read at
 * two thirds of the speed of huge ones: the processor prefetches only within a page. A slab is
 * large, so its blocks are in huge pages.
 */
#ifndef AT_BASE_SLAB_H
#define AT_BASE_SLAB_H

#include "base/memory.h"

typedef struct at_slab at_slab;

/* A slab with room for `bytes` bytes, and one reference. NULL after at_fail(EMEMORY). */
at_slab *at_slab_new(int64_t bytes);

/* A block, aligned to AT_ALIGNMENT, which holds a reference. NULL, without a message, where the
 * slab has no room for it. One thread at a time takes blocks from a slab. */
void *at_slab_take(at_slab *slab, int64_t bytes);

/* Gives back one reference, in any thread; the last one frees the memory. slab may be NULL. */
void at_slab_release(at_slab *slab);

#endif
