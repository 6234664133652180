/* tiled.c - prefill: row blocks over packed kv heads.
 *
 * Where a row block has few visible keys, through a window or within short documents, tiles are
 * packed lazily. Each thread keeps the tiles that its next row block needs too. They stay in the
 * core's own cache and are never written to memory.
 *
 * Otherwise kv heads are packed and computed in waves of as many heads as there are threads, so
 * that there are never more packed copies than threads. One task packs a few tiles; then one task
 * computes one row block over all its keys.
 */
#include <string.h>

#include "attention/problem.h"
#include "attention/schedule.h"
#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"

typedef struct tiled_job {
    const at_problem *p;
    at_layout layout;
    at_schedule schedule;
    char *packed;       /* [heads of a wave][tiles] */
    uint8_t *nonfinite; /* [heads of a wave][tiles] */
    int64_t tiles;
    int64_t first_head, heads; /* of the wave */
} tiled_job;

enum {
    PACK_TILES = 16,          /* of a packing task */
    MAX_KEPT_BYTES = 1 << 20, /* of the packed tiles that a thread keeps */
};

static void packed_keys(const void *context, int64_t b, int64_t h, at_keys *out) {
    const tiled_job *j = context;
    const int64_t first_tile = (b * j->p->query.Hk + h - j->first_head) * j->tiles;
    *out = (at_keys){.layout = j->layout,
                     .tiles = j->packed + first_tile * j->layout.bytes,
                     .nonfinite = j->nonfinite + first_tile};
}

static attune_status pack_task(void *context, int64_t task, int thread) {
    tiled_job *j = context;
    const at_problem *p = j->p;
    const int64_t head_tasks = at_ceil_div(j->tiles, PACK_TILES),
                  head = j->first_head + task / head_tasks, begin = task % head_tasks * PACK_TILES,
                  end = begin + PACK_TILES < j->tiles ? begin + PACK_TILES : j->tiles;
    const at_unpacked_keys unpacked = at_pair_keys(p, head / p->query.Hk, head % p->query.Hk);
    at_keys keys;
    packed_keys(j, unpacked.b, unpacked.h, &keys);
    for (int64_t t = begin; t < end; t++) {
        const int64_t first = t * AT_TILE,
                      count = p->Sk - first < AT_TILE ? p->Sk - first : AT_TILE;
        keys.nonfinite[t] = 0;
        /* Padding must be finite. A whole tile has padding that is read only where D is not a
         * multiple of 4. */
        if (count < AT_TILE || p->query.D % 4)
            memset(keys.tiles + t * keys.layout.bytes, 0, (size_t)keys.layout.bytes);
        at_pack_tile(&keys, t, 0, &unpacked, first, count, j->schedule.scratch[thread].f32_rows);
    }
    return ATTUNE_OK;
}

static attune_status run_waves(tiled_job *j) {
    const int64_t all = j->p->query.B * j->p->query.Hk, wave = j->heads,
                  head_tasks = at_ceil_div(j->tiles, PACK_TILES);
    for (j->first_head = 0; j->first_head < all; j->first_head += wave) {
        j->heads = all - j->first_head < wave ? all - j->first_head : wave;
        AT_TRY(at_parallel(j->heads * head_tasks, pack_task, j));
        AT_TRY(at_schedule_rows(&j->schedule, j->first_head, j->heads));
        AT_TRY(at_schedule_columns(&j->schedule, j->first_head, j->heads));
    }
    return ATTUNE_OK;
}

static attune_status run_packed(const at_problem *p, const at_layout *layout,
                                const at_results *results) {
    const int64_t heads = p->query.B * p->query.Hk, threads = at_threads();
    tiled_job j = {.p = p,
                   .layout = *layout,
                   .tiles = at_ceil_div(p->Sk, AT_TILE),
                   .heads = heads < threads ? heads : threads};
    const at_key_source source = {.layout = *layout, .keys = packed_keys, .context = &j};
    attune_status status = at_schedule_make(&p->query, &source, results, &j.schedule);
    if (status == ATTUNE_OK) {
        const int64_t wave_tiles = at_checked_mul(j.heads, j.tiles);
        j.nonfinite = at_alloc_zeroed(wave_tiles);
        if (j.nonfinite) j.packed = at_alloc(at_checked_mul(wave_tiles, layout->bytes));
        status = j.packed ? run_waves(&j) : ATTUNE_EMEMORY;
    }
    at_free(j.packed);
    at_free(j.nonfinite);
    at_schedule_free(&j.schedule);
    return status;
}

static attune_status run_unpacked(const at_problem *p, int64_t kept_tiles,
                                  const at_results *results) {
    const at_key_source source = at_pair_source(p, kept_tiles);
    at_schedule schedule;
    attune_status status = at_schedule_make(&p->query, &source, results, &schedule);
    const int64_t heads = p->query.B * p->query.Hk;
    if (status == ATTUNE_OK) status = at_schedule_rows(&schedule, 0, heads);
    if (status == ATTUNE_OK) status = at_schedule_columns(&schedule, 0, heads);
    at_schedule_free(&schedule);
    return status;
}

attune_status at_tiled(const at_problem *p, const at_results *results) {
    const at_layout layout = at_pair_source(p, 0).layout;
    const int64_t tiles = at_ceil_div(p->Sk, AT_TILE),
                  reach = at_schedule_reach(&p->query, &layout);
    if (2 * reach <= tiles && reach * layout.bytes <= MAX_KEPT_BYTES)
        return run_unpacked(p, reach > 0 ? reach : 1, results);
    return run_packed(p, &layout, results);
}
