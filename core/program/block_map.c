/* block_map.c - block maps. */
#include "program/reads.h"

#include <string.h>

#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"
#include "tensor/tensor.h"

static void map_free(at_block_map *m) {
    if (!m) return;
    at_free(m->base);
    at_free(m->first);
    at_free(m->last);
    at_free(m->state);
    at_free(m);
}

/* ---- whether a kept map still holds ---------------------------------------------------------- */

static uint64_t mix(uint64_t sum, uint64_t x) {
    sum = (sum ^ x) * 0x9E3779B97F4A7C15u;
    return sum ^ (sum >> 29);
}

static uint64_t checksum(const attune_program *p) {
    uint64_t sum = 1;
    for (int32_t k = 0; k < p->tensor_count; k++) {
        const attune_tensor *t = &p->tensors[k];
        const at_rows_view rows = at_rows_of(t);
        const int64_t size = attune_dtype_size(t->dtype);
        for (int64_t r = 0; r < rows.rows; r++) {
            const char *x = (const char *)t->data + at_row_offset(t, r) * size;
            if (rows.stride == 1) {
                const int64_t bytes = rows.length * size;
                int64_t i = 0;
                for (; i + 8 <= bytes; i += 8) {
                    uint64_t word;
                    memcpy(&word, x + i, 8);
                    sum = mix(sum, word);
                }
                for (; i < bytes; i++) sum = mix(sum, (uint8_t)x[i]);
            } else {
                for (int64_t i = 0; i < rows.length; i++)
                    for (int64_t b = 0; b < size; b++)
                        sum = mix(sum, (uint8_t)x[i * rows.stride * size + b]);
            }
        }
    }
    return sum;
}

static bool same_extent(const at_block_map *m, const at_binding *bd) {
    const at_extent *e = &bd->extent;
    if (m->B != e->B || m->Hq != e->Hq || m->Sq != e->Sq || m->from != e->from || m->to != e->to)
        return false;
    return memcmp(m->base, bd->base, (size_t)e->B * sizeof *m->base) == 0;
}

/* ---- tiles ----------------------------------------------------------------------------------- */

typedef struct map_job {
    const at_binding *bd;
    at_block_map *m;
    char *scratch; /* [threads][stride] */
    int64_t stride;
    int64_t *visible; /* [tasks] visible pairs */
    bool *gaps;       /* [tasks]: the visible keys of some row have a gap */
} map_job;

typedef struct tile {
    int64_t b, h, i, i_end, key, key_end;
} tile;

/* Adds the visible keys [from, to) to a row, which so far has [first, last), and notes a gap. */
static void extend(map_job *j, int64_t task, int64_t offset, int64_t from, int64_t to) {
    at_block_map *m = j->m;
    if (m->first[offset] >= m->last[offset]) {
        m->first[offset] = (int32_t)from;
    } else if (m->last[offset] != from) {
        j->gaps[task] = true;
    }
    m->last[offset] = (int32_t)to;
    j->visible[task] += to - from;
}

/* Adds the runs of visible keys of one row of a tile. Returns the number of visible keys. */
static int64_t classify_row(map_job *j, int64_t task, const tile *t, int64_t i, char *scratch) {
    const at_binding *bd = j->bd;
    const at_run run = {.binding = bd,
                        .b = t->b,
                        .h = t->h,
                        .i = i,
                        .key = t->key,
                        .n = (int)(t->key_end - t->key),
                        .scratch = scratch};
    at_run_pairs(&run, NULL);
    const at_values v = at_run_value(&run, bd->program->result);
    const int64_t offset = at_block_map_row(j->m, t->b, t->h) * j->m->Sq + i,
                  base = t->key - j->m->from;
    int64_t visible = 0;
    for (int x = 0; x < run.n;) {
        if (v.p[x * v.step] == 0) {
            x++;
            continue;
        }
        const int from = x;
        while (x < run.n && v.p[x * v.step] != 0) x++;
        extend(j, task, offset, base + from, base + x);
        visible += x - from;
    }
    return visible;
}

static int classify_tile(map_job *j, int64_t task, const tile *t, char *scratch) {
    const int32_t result = j->bd->program->result;
    const at_range r = at_binding_range(j->bd, result, t->b, t->h, t->i, t->i_end, t->key,
                                        t->key_end, (at_range *)(void *)scratch);
    if (r.high == 0) return AT_TILE_EMPTY;
    if (r.low == 1) {
        for (int64_t i = t->i; i < t->i_end; i++)
            extend(j, task, at_block_map_row(j->m, t->b, t->h) * j->m->Sq + i, t->key - j->m->from,
                   t->key_end - j->m->from);
        return AT_TILE_FULL;
    }
    int64_t visible = 0;
    for (int64_t i = t->i; i < t->i_end; i++) visible += classify_row(j, task, t, i, scratch);
    return visible == 0                                           ? AT_TILE_EMPTY
           : visible == (t->i_end - t->i) * (t->key_end - t->key) ? AT_TILE_FULL
                                                                  : AT_TILE_PARTIAL;
}

/* One row of tiles of a head. */
static attune_status map_task(void *context, int64_t task, int thread) {
    map_job *j = context;
    at_block_map *m = j->m;
    const int64_t block = task % m->row_blocks, row = task / m->row_blocks;
    tile t = {.b = row / m->rows_h, .h = row % m->rows_h, .i = block * AT_TILE};
    t.i_end = t.i + AT_TILE < m->Sq ? t.i + AT_TILE : m->Sq;
    uint8_t *state = m->state + task * m->key_blocks;
    for (int64_t k = 0; k < m->key_blocks; k++) {
        t.key = (m->first_block + k) * AT_TILE;
        t.key_end = t.key + AT_TILE < m->to ? t.key + AT_TILE : m->to;
        state[k] = (uint8_t)classify_tile(j, task, &t, j->scratch + thread * j->stride);
        if (at_interrupted()) return at_interrupted_status();
    }
    return ATTUNE_OK;
}

/* ---- masks that vary only with the distance: all tiles of a diagonal are equal --------------- */

typedef struct diagonals {
    const float *value; /* [distances] */
    int64_t *before;    /* [distances + 1] the number of visible distances before each */
    /* [distances + 1] the nearest visible distance at or after each, and before each */
    int64_t *next, *previous;
} diagonals;

static void count_diagonal(const at_binding *bd, diagonals *d) {
    const int64_t n = bd->distances;
    d->before[0] = 0;
    d->previous[0] = -1;
    d->next[n] = n;
    for (int64_t k = 0; k < n; k++) {
        d->before[k + 1] = d->before[k] + (d->value[k] != 0);
        d->previous[k + 1] = d->value[k] != 0 ? k : d->previous[k];
    }
    for (int64_t k = n - 1; k >= 0; k--) d->next[k] = d->value[k] != 0 ? k : d->next[k + 1];
}

static void map_row_of_diagonals(map_job *j, int64_t row, const diagonals *d) {
    const at_binding *bd = j->bd;
    at_block_map *m = j->m;
    const int64_t b = row / m->rows_h, keys = m->to - m->from;
    for (int64_t i = 0; i < m->Sq; i++) {
        const int64_t begin = m->from - (bd->base[b] + i) - bd->min_relative,
                      offset = row * m->Sq + i,
                      visible = d->before[begin + keys] - d->before[begin];
        j->visible[row * m->row_blocks] += visible;
        if (visible == 0) continue;
        m->first[offset] = (int32_t)(d->next[begin] - begin);
        m->last[offset] = (int32_t)(d->previous[begin + keys] + 1 - begin);
        if (visible != m->last[offset] - m->first[offset]) j->gaps[row * m->row_blocks] = true;
    }
    for (int64_t q = 0; q < m->row_blocks; q++) {
        const int64_t i = q * AT_TILE, i_end = i + AT_TILE < m->Sq ? i + AT_TILE : m->Sq;
        for (int64_t k = 0; k < m->key_blocks; k++) {
            const int64_t key = (m->first_block + k) * AT_TILE,
                          key_end = key + AT_TILE < m->to ? key + AT_TILE : m->to;
            const int64_t from = key - (bd->base[b] + i_end - 1) - bd->min_relative,
                          to = key_end - (bd->base[b] + i) - bd->min_relative;
            const int64_t visible = d->before[to] - d->before[from];
            m->state[(row * m->row_blocks + q) * m->key_blocks + k] = visible == 0 ? AT_TILE_EMPTY
                                                                      : visible == to - from
                                                                          ? AT_TILE_FULL
                                                                          : AT_TILE_PARTIAL;
        }
    }
}

static attune_status map_diagonals(map_job *j) {
    const at_binding *bd = j->bd;
    const at_table *t = &bd->table[bd->program->result];
    int64_t *all = at_alloc(at_checked_mul(3 * (bd->distances + 1), (int64_t)sizeof *all));
    if (!all) return ATTUNE_EMEMORY;
    diagonals d = {
        .before = all, .next = all + bd->distances + 1, .previous = all + 2 * (bd->distances + 1)};
    for (int64_t row = 0; row < j->m->rows_b * j->m->rows_h; row++) {
        d.value = t->f32 + row / j->m->rows_h * t->b_stride + row % j->m->rows_h * t->h_stride;
        count_diagonal(bd, &d);
        map_row_of_diagonals(j, row, &d);
    }
    at_free(all);
    return ATTUNE_OK;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static attune_status run(map_job *j) {
    const at_binding *bd = j->bd;
    at_block_map *m = j->m;
    const int64_t tasks = m->rows_b * m->rows_h * m->row_blocks,
                  ranges = bd->program->count * (int64_t)sizeof(at_range);
    j->stride = at_round_up(at_binding_scratch(bd) > ranges ? at_binding_scratch(bd) : ranges, 64);
    j->visible = at_alloc_zeroed(at_checked_mul(tasks, (int64_t)sizeof *j->visible));
    if (j->visible) j->gaps = at_alloc_zeroed(tasks);
    if (j->gaps) j->scratch = at_alloc(at_threads() * j->stride);
    attune_status status = !j->scratch ? ATTUNE_EMEMORY
                           : at_level_of(bd->deps[bd->program->result]) == AT_ALONG_DISTANCES
                               ? map_diagonals(j)
                               : at_parallel(tasks, map_task, j);
    m->contiguous = true;
    for (int64_t t = 0; t < tasks && status == ATTUNE_OK; t++) {
        m->visible += j->visible[t];
        m->contiguous = m->contiguous && !j->gaps[t];
    }
    at_free(j->visible);
    at_free(j->gaps);
    at_free(j->scratch);
    return status;
}

static attune_status make(const at_binding *bd, uint64_t sum, at_block_map **out) {
    const at_extent *e = &bd->extent;
    const int deps = bd->deps[bd->program->result];
    at_block_map *m = at_alloc_zeroed((int64_t)sizeof *m);
    if (!m) return ATTUNE_EMEMORY;
    m->B = e->B;
    m->Hq = e->Hq;
    m->Sq = e->Sq;
    m->from = e->from;
    m->to = e->to;
    m->checksum = sum;
    /* Batch rows of different lengths have different visible keys even where the mask does not
     * depend on the batch row. */
    bool differ = deps & AT_ON_BATCH;
    for (int64_t b = 1; b < e->B; b++) differ = differ || bd->base[b] != bd->base[0];
    m->rows_b = differ ? e->B : 1;
    m->rows_h = deps & AT_ON_HEAD ? e->Hq : 1;
    m->first_block = e->from / AT_TILE;
    m->row_blocks = at_ceil_div(e->Sq, AT_TILE);
    m->key_blocks = at_ceil_div(e->to, AT_TILE) - m->first_block;
    const int64_t rows = m->rows_b * m->rows_h;
    m->pairs = at_checked_mul(at_checked_mul(rows, e->Sq), e->to - e->from);
    m->base = at_alloc(e->B * (int64_t)sizeof *m->base);
    if (m->base)
        m->first =
            at_alloc_zeroed(at_checked_mul(at_checked_mul(rows, e->Sq), (int64_t)sizeof *m->first));
    if (m->first)
        m->last =
            at_alloc_zeroed(at_checked_mul(at_checked_mul(rows, e->Sq), (int64_t)sizeof *m->last));
    if (m->last)
        m->state = at_alloc(at_checked_mul(at_checked_mul(rows, m->row_blocks), m->key_blocks));
    attune_status status = ATTUNE_EMEMORY;
    if (m->state) {
        memcpy(m->base, bd->base, (size_t)e->B * sizeof *m->base);
        map_job j = {.bd = bd, .m = m};
        status = run(&j);
    }
    if (status != ATTUNE_OK) map_free(m);
    *out = status == ATTUNE_OK ? m : NULL;
    return status;
}

/* The maps that a mask program keeps, the oldest replaced first. */
enum { MAX_MAPS = 4 };

typedef struct map_cache {
    at_block_map *map[MAX_MAPS];
    int next;
} map_cache;

static void map_cache_free(void *cache) {
    map_cache *c = cache;
    for (int k = 0; k < MAX_MAPS; k++) map_free(c->map[k]);
    at_free(c);
}

attune_status at_block_map_of(attune_program *mask, const at_binding *bd,
                              const at_block_map **out) {
    const uint64_t sum = checksum(mask);
    if (!mask->cache) {
        mask->cache = at_alloc_zeroed((int64_t)sizeof(map_cache));
        if (!mask->cache) return ATTUNE_EMEMORY;
        mask->cache_free = map_cache_free;
    }
    map_cache *cache = mask->cache;
    for (int k = 0; k < MAX_MAPS; k++) {
        *out = cache->map[k];
        if (*out && (*out)->checksum == sum && same_extent(*out, bd)) return ATTUNE_OK;
    }
    at_block_map *made;
    AT_TRY(make(bd, sum, &made));
    map_free(cache->map[cache->next]);
    cache->map[cache->next] = made;
    cache->next = (cache->next + 1) % MAX_MAPS;
    *out = made;
    return ATTUNE_OK;
}

static void all_keys(const void *context, int64_t b, int64_t i, int64_t *first, int64_t *last) {
    (void)b;
    (void)i;
    *first = 0;
    *last = *(const int64_t *)context;
}

/* A block map of more than 2^40 heads, queries or keys cannot be held; below, sums do not overflow.
 */
static attune_status check_shapes(int64_t B, int64_t Hq, int64_t Hk, int64_t Sq, int64_t Sk) {
    const int64_t n[] = {B, Hq, Hk, Sq, Sk, at_checked_mul(B, Hq)}, max = (int64_t)1 << 40;
    bool fine = true;
    for (int i = 0; i < 6; i++) fine = fine && n[i] >= 1 && n[i] <= max;
    if (fine && Hq % Hk == 0) return ATTUNE_OK;
    return at_fail(ATTUNE_EVALUE,
                   "shapes: expected from 1 to 2^40 batch rows times heads, queries and keys, and "
                   "heads a multiple of kv_heads, got %lld, %lld, %lld, %lld and %lld",
                   (long long)B, (long long)Hq, (long long)Sq, (long long)Sk, (long long)Hk);
}

attune_status attune_program_map(attune_program *mask, int64_t B, int64_t Hq, int64_t Hk,
                                 int64_t Sq, int64_t Sk, attune_block_map *out) {
    memset(out, 0, sizeof *out);
    AT_TRY(check_shapes(B, Hq, Hk, Sq, Sk));
    /* The map needs the most memory: a shape whose map has no room is refused before anything is
     * computed. */
    void *room = at_alloc(at_checked_mul(at_ceil_div(Sq, AT_TILE), at_ceil_div(Sk, AT_TILE)));
    if (!room) return ATTUNE_EMEMORY;
    at_free(room);
    const at_extent e = {.B = B, .Hq = Hq, .G = Hq / Hk, .Sq = Sq, .to = Sk};
    at_binding bd;
    const at_block_map *m = NULL;
    AT_TRY(at_bind(mask, &e, 0, &bd));
    attune_status status = at_block_map_of(mask, &bd, &m);
    if (status == ATTUNE_OK) status = at_check_reads(&bd, &bd, m, all_keys, &Sk);
    if (status == ATTUNE_OK) {
        out->heads = m->rows_b * m->rows_h;
        out->row_blocks = m->row_blocks;
        out->key_blocks = m->key_blocks;
        out->pairs = m->pairs;
        out->visible = m->visible;
        out->states = m->state;
        for (int64_t k = 0, n = out->heads * m->row_blocks * m->key_blocks; k < n; k++) {
            out->empty += m->state[k] == AT_TILE_EMPTY;
            out->partial += m->state[k] == AT_TILE_PARTIAL;
            out->full += m->state[k] == AT_TILE_FULL;
        }
    }
    at_binding_free(&bd);
    return status;
}
