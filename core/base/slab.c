/* slab.c - see slab.h. */
#include "base/slab.h"

#include <stdatomic.h>

struct at_slab {
    _Atomic int64_t references;
    int64_t used, bytes;
    uint8_t *data;
};

at_slab *at_slab_new(int64_t bytes) {
    at_slab *s = at_alloc_zeroed((int64_t)sizeof *s);
    if (!s) return NULL;
    atomic_init(&s->references, 1);
    s->bytes = bytes;
    s->data = at_alloc(bytes);
    if (s->data) return s;
    at_free(s);
    return NULL;
}

void *at_slab_take(at_slab *s, int64_t bytes) {
    if (bytes <= 0 || bytes > s->bytes - s->used) return NULL;
    void *block = s->data + s->used;
    const int64_t left = s->bytes - s->used, rounded = at_ceil_div(bytes, AT_ALIGNMENT);
    s->used += rounded * AT_ALIGNMENT < left ? rounded * AT_ALIGNMENT : left;
    atomic_fetch_add(&s->references, 1);
    return block;
}

void at_slab_release(at_slab *s) {
    if (!s || atomic_fetch_sub(&s->references, 1) > 1) return;
    at_free(s->data);
    at_free(s);
}
