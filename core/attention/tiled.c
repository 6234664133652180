/* tiled.c - prefill: row blocks over packed kv heads.
 *
 * Where row blocks see few keys, as through a window or within short documents, tiles are packed on
 * the way, and each thread keeps what the next row block sees too: they stay in its own cache, and
 * memory never sees them. Else kv heads go in waves of as many as there are threads, so that no
 * more packed copies exist than threads. Each wave packs its heads tile by tile, then takes all
 * their row blocks; every row block is one task from beginning to end.
 */
#include <string.h>

#include "attention/walk.h"
#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"

typedef struct tiled_job {
    const at_problem *p;
    at_walk walk;
    at_walk_scratch scratch;
    char *packed;       /* [heads of a wave][tiles] */
    uint8_t *nonfinite; /* [heads of a wave][tiles] */
    int64_t tiles;
    int64_t first_head, heads; /* of this wave */
} tiled_job;

enum {
    PACK_TILES = 16 /* a packing task's worth */,
    KEPT_BYTES = 1 << 20 /* of tiles that a thread keeps, at most */
};

static at_source source_of(const at_problem *p, int64_t b, int64_t h) {
    return (at_source){
        .k = &p->k, .v = &p->v, .turns = at_rotation_or_null(&p->k_rotation), .b = b, .h = h};
}

static void keys_of(const void *context, int64_t b, int64_t h, at_keys *out) {
    const tiled_job *j = context;
    if (j->walk.raw) {
        *out = (at_keys){.layout = j->walk.layout, .source = source_of(j->p, b, h)};
        return;
    }
    const int64_t slot = b * j->p->Hk + h - j->first_head;
    *out = (at_keys){.layout = j->walk.layout,
                     .places = j->packed + slot * j->tiles * j->walk.layout.bytes,
                     .nonfinite = j->nonfinite + slot * j->tiles};
}

static void sees(const void *context, int64_t b, int64_t i, int64_t *first, int64_t *last) {
    at_problem_visible_keys(((const tiled_job *)context)->p, b, i, first, last);
}

static attune_status pack_task(void *context, int64_t task, int thread) {
    tiled_job *j = context;
    const at_problem *p = j->p;
    int64_t per_head = (j->tiles + PACK_TILES - 1) / PACK_TILES, slot = task / per_head,
            head = j->first_head + slot;
    int64_t t = task % per_head * PACK_TILES,
            end = t + PACK_TILES < j->tiles ? t + PACK_TILES : j->tiles;
    const at_source source = source_of(p, head / p->Hk, head % p->Hk);
    at_keys keys;
    keys_of(j, source.b, source.h, &keys);
    for (; t < end; t++) {
        const int64_t first = t * AT_TILE,
                      count = p->Sk - first < AT_TILE ? p->Sk - first : AT_TILE;
        keys.nonfinite[t] = 0;
        /* What pads a tile must be finite; whole tiles of most head dims have no pads that are
         * read. */
        if (count < AT_TILE || p->D % 4)
            memset(keys.places + t * keys.layout.bytes, 0, (size_t)keys.layout.bytes);
        at_pack_tile(&keys, t, 0, &source, first, count, j->scratch.thread[thread].wide);
    }
    return ATTUNE_OK;
}

static attune_status run_waves(tiled_job *j) {
    const int64_t all = j->p->B * j->p->Hk, wave = j->heads;
    for (j->first_head = 0; j->first_head < all; j->first_head += wave) {
        j->heads = all - j->first_head < wave ? all - j->first_head : wave;
        AT_TRY(at_parallel(j->heads * ((j->tiles + PACK_TILES - 1) / PACK_TILES), pack_task, j));
        AT_TRY(at_walk_rows(&j->walk, &j->scratch, j->first_head, j->heads));
    }
    return ATTUNE_OK;
}

attune_status at_tiled(const at_problem *p, attune_tensor *o, attune_tensor *lse) {
    tiled_job j = {.p = p};
    j.walk = (at_walk){.q = &p->q,
                       .o = o,
                       .lse = lse,
                       .B = p->B,
                       .Hk = p->Hk,
                       .G = p->G,
                       .Sq = p->Sq,
                       .turns = at_rotation_or_null(&p->q_rotation),
                       .scale = p->scale,
                       .softcap = p->softcap,
                       .modifier = at_modifies(&p->modifier) ? &p->modifier : NULL,
                       .sinks = p->sinks,
                       .layout = at_layout_of(at_packed_dtype(p->k.dtype, p->v.dtype), p->D, p->Dv),
                       .context = &j,
                       .sees = sees,
                       .keys = keys_of};
    j.tiles = (p->Sk + AT_TILE - 1) / AT_TILE;
    j.heads = p->B * p->Hk < at_threads() ? p->B * p->Hk : at_threads();
    const int64_t reach = at_walk_reach(&j.walk);
    if (2 * reach <= j.tiles && reach * j.walk.layout.bytes <= KEPT_BYTES)
        j.walk.raw = reach > 0 ? reach : 1;

    attune_status status = at_walk_scratch_new(&j.walk, &j.scratch);
    if (status == ATTUNE_OK && j.walk.raw) {
        status = at_walk_rows(&j.walk, &j.scratch, 0, p->B * p->Hk);
    } else if (status == ATTUNE_OK) {
        j.nonfinite = at_alloc_zeroed(j.heads * j.tiles);
        if (j.nonfinite)
            j.packed =
                at_alloc(at_checked_mul(at_checked_mul(j.heads, j.tiles), j.walk.layout.bytes));
        status = j.packed ? run_waves(&j) : ATTUNE_EMEMORY;
    }
    at_free(j.packed);
    at_free(j.nonfinite);
    at_walk_scratch_free(&j.scratch);
    return status;
}
