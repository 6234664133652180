/* cache.c - the key-value cache: tiles packed at append, read as they lie at attend.
 *
 * Each (batch row, kv head) has its tiles of keys one after the other, likewise of values. With a
 * window the tiles are a ring: token t lies in tile t / AT_TILE, at place (t / AT_TILE) % tiles.
 * The ring holds window + 63 tokens or more, so that up to AT_TILE queries at once find every key
 * that they see.
 */
#include <stdio.h>
#include <string.h>

#include "attention/walk.h"
#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"

struct attune_cache {
    attune_cache_options options; /* with v_head_dim and capacity as they are */
    int64_t tiles;                /* of a kv head */
    at_layout layout;
    char *places;       /* [B][Hk][tiles] */
    float *scales;      /* [B][Hk][tiles][2][AT_TILE], i8; else NULL */
    uint8_t *nonfinite; /* [B][Hk][tiles]: the tile's V holds, or held, an Inf or NaN */
    int64_t *length;    /* [B] tokens appended */
    int64_t *oldest; /* [B] the first token that a ring still holds; truncation does not bring older
                        ones back */
};

enum { SCALES = 2 * AT_TILE * (int)sizeof(float) }; /* bytes a place */

static attune_status at_least_one(const char *name, int64_t n) {
    return n >= 1 ? ATTUNE_OK
                  : at_fail(ATTUNE_EVALUE, "%s: expected at least 1, got %lld", name, (long long)n);
}

attune_status attune_cache_new(const attune_cache_options *options, attune_cache **out) {
    attune_cache_options o = *options;
    *out = NULL;
    AT_TRY(attune_init());
    AT_TRY(at_least_one("batch", o.batch));
    AT_TRY(at_least_one("kv_heads", o.kv_heads));
    AT_TRY(at_least_one("head_dim", o.head_dim));
    if (o.v_head_dim == 0) o.v_head_dim = o.head_dim;
    AT_TRY(at_least_one("v_head_dim", o.v_head_dim));
    if (o.window < 0)
        return at_fail(ATTUNE_EVALUE, "window: expected at least 1 token, got %lld",
                       (long long)o.window);
    if (o.dtype != ATTUNE_F32 && o.dtype != ATTUNE_BF16 && o.dtype != ATTUNE_F16 &&
        o.dtype != ATTUNE_I8) {
        return at_fail(ATTUNE_EDTYPE, "dtype: expected f32, bf16, f16 or i8, got %s",
                       attune_dtype_name(o.dtype));
    }
    if (o.window == 0) AT_TRY(at_least_one("capacity", o.capacity));
    const int64_t greatest = (int64_t)1 << 40;
    if (o.window > greatest || o.capacity > greatest || o.head_dim > greatest ||
        o.v_head_dim > greatest) {
        return at_fail(ATTUNE_EVALUE, "%s: expected at most 2^40, got %lld",
                       o.window > greatest     ? "window"
                       : o.capacity > greatest ? "capacity"
                                               : "head_dim",
                       (long long)(o.window > greatest     ? o.window
                                   : o.capacity > greatest ? o.capacity
                                   : o.head_dim > greatest ? o.head_dim
                                                           : o.v_head_dim));
    }
    int64_t tokens = at_round_up(o.window ? o.window + AT_TILE - 1 : o.capacity, AT_TILE);
    if (o.window) o.capacity = tokens;

    attune_cache *c = at_alloc_zeroed((int64_t)sizeof *c);
    if (!c) return ATTUNE_EMEMORY;
    c->options = o;
    c->tiles = tokens / AT_TILE;
    const int64_t all = at_checked_mul(at_checked_mul(o.batch, o.kv_heads), c->tiles);
    c->layout = at_layout_of(o.dtype, o.head_dim, o.v_head_dim);
    c->places = at_alloc_zeroed(at_checked_mul(all, c->layout.bytes));
    if (c->places && o.dtype == ATTUNE_I8) c->scales = at_alloc_zeroed(at_checked_mul(all, SCALES));
    if (c->places && (c->scales || o.dtype != ATTUNE_I8)) c->nonfinite = at_alloc_zeroed(all);
    if (c->nonfinite)
        c->length = at_alloc_zeroed(at_checked_mul(o.batch, (int64_t)sizeof *c->length));
    if (c->length) c->oldest = at_alloc_zeroed(at_checked_mul(o.batch, (int64_t)sizeof *c->oldest));
    if (!c->oldest) {
        attune_cache_close(c);
        return ATTUNE_EMEMORY;
    }
    *out = c;
    return ATTUNE_OK;
}

void attune_cache_close(attune_cache *c) {
    if (!c) return;
    at_free(c->places);
    at_free(c->scales);
    at_free(c->nonfinite);
    at_free(c->length);
    at_free(c->oldest);
    at_free(c);
}

/* The tiles of one kv head. */
static at_keys keys_of_head(const attune_cache *c, int64_t head) {
    const int64_t place = head * c->tiles;
    return (at_keys){.layout = c->layout,
                     .places = c->places + place * c->layout.bytes,
                     .scales = c->scales ? c->scales + place * 2 * AT_TILE : NULL,
                     .ring = c->options.window ? c->tiles : 0,
                     .nonfinite = c->nonfinite + place};
}

/* ---- append ---------------------------------------------------------------------------------- */

typedef struct append_job {
    attune_cache *cache;
    const attune_tensor *k, *v;
    at_rotation turns;
    const int64_t *counts;
    float *wide; /* [threads][AT_TILE][dims] */
    int64_t stride;
} append_job;

static attune_status append_head(void *context, int64_t head, int thread) {
    append_job *j = context;
    attune_cache *c = j->cache;
    const at_keys keys = keys_of_head(c, head);
    const at_source source = {.k = j->k,
                              .v = j->v,
                              .turns = at_rotation_or_null(&j->turns),
                              .b = head / c->options.kv_heads,
                              .h = head % c->options.kv_heads};
    const int64_t count = j->counts ? j->counts[source.b] : j->k->shape[2];
    for (int64_t i = 0; i < count;) {
        const int64_t token = c->length[source.b] + i, slot = token % AT_TILE,
                      n = AT_TILE - slot < count - i ? AT_TILE - slot : count - i;
        at_pack_tile(&keys, token / AT_TILE % c->tiles, (int)slot, &source, i, n,
                     j->wide + thread * j->stride);
        i += n;
    }
    return ATTUNE_OK;
}

static attune_status check_appended(const attune_cache *c, const char *name, const attune_tensor *t,
                                    int64_t tokens, int64_t dim) {
    const attune_cache_options *o = &c->options;
    if (!t || !t->data)
        return at_fail(ATTUNE_ECLOSED, "%s: expected a tensor, got a closed one", name);
    if (t->rank != 4 || t->shape[0] != o->batch || t->shape[1] != o->kv_heads ||
        t->shape[3] != dim || (tokens && t->shape[2] != tokens)) {
        char count[32] = "tokens";
        if (tokens) snprintf(count, sizeof count, "%lld", (long long)tokens);
        return at_fail(ATTUNE_ESHAPE, "%s: expected [%lld, %lld, %s, %lld], got %s", name,
                       (long long)o->batch, (long long)o->kv_heads, count, (long long)dim,
                       at_shape_text(t->rank, t->shape));
    }
    if (!at_is_float(t->dtype))
        return at_fail(ATTUNE_EDTYPE, "%s: expected a float dtype, got %s", name,
                       attune_dtype_name(t->dtype));
    return ATTUNE_OK;
}

static attune_status check_room(const attune_cache *c, int64_t tokens, const int64_t *counts) {
    const attune_cache_options *o = &c->options;
    for (int64_t b = 0; b < o->batch; b++) {
        int64_t n = counts ? counts[b] : tokens;
        if (n < 0 || n > tokens) {
            return at_fail(ATTUNE_EVALUE,
                           "counts: expected from 0 to %lld tokens, got %lld for batch row %lld",
                           (long long)tokens, (long long)n, (long long)b + 1);
        }
        if (o->window == 0 && n > o->capacity - c->length[b]) {
            return at_fail(
                ATTUNE_ECAPACITY,
                "k: expected at most %lld more tokens (capacity %lld, length %lld), got %lld",
                (long long)(o->capacity - c->length[b]), (long long)o->capacity,
                (long long)c->length[b], (long long)n);
        }
    }
    return ATTUNE_OK;
}

/* f64 comes as f32. */
static attune_status narrowed(const attune_tensor *t, attune_tensor *out) {
    return t->dtype == ATTUNE_F64 ? attune_tensor_convert(t, ATTUNE_F32, out)
                                  : attune_tensor_share(t, out);
}

/* A cache's tokens stand at one number each. */
static attune_status check_rotation(const attune_position *pe, int64_t head_dim) {
    AT_TRY(at_check_rotation(pe, head_dim));
    if (pe->axes < 2) return ATTUNE_OK;
    return at_fail(ATTUNE_EVALUE,
                   "rotate: expected an encoding by one number a token, as a cache counts them, "
                   "got %s: rotate k and q beforehand",
                   pe->name);
}

attune_status attune_cache_append(attune_cache *c, const attune_tensor *k, const attune_tensor *v,
                                  const int64_t *counts, attune_position *rotate) {
    const attune_cache_options *o = &c->options;
    AT_TRY(check_appended(c, "k", k, 0, o->head_dim));
    AT_TRY(check_appended(c, "v", v, k->shape[2], o->v_head_dim));
    const int64_t tokens = k->shape[2];
    AT_TRY(check_room(c, tokens, counts));
    if (rotate) AT_TRY(check_rotation(rotate, o->head_dim));

    attune_tensor narrow_k = {0}, narrow_v = {0};
    append_job job = {.cache = c, .k = &narrow_k, .v = &narrow_v, .counts = counts};
    job.stride = AT_TILE * (o->head_dim > o->v_head_dim ? o->head_dim : o->v_head_dim);
    attune_status status = narrowed(k, &narrow_k);
    if (status == ATTUNE_OK) status = narrowed(v, &narrow_v);
    if (status == ATTUNE_OK && rotate) {
        int64_t length = 1;
        for (int64_t b = 0; b < o->batch; b++) {
            const int64_t end = c->length[b] + (counts ? counts[b] : tokens);
            if (end > length) length = end;
        }
        status = at_rotation_make(rotate, NULL, c->length, o->batch, o->batch, tokens, ATTUNE_KEY,
                                  length, &job.turns);
    }
    if (status == ATTUNE_OK) {
        job.wide = at_alloc(at_checked_mul(at_threads() * (int64_t)sizeof *job.wide, job.stride));
        /* Interrupted half-way, tiles past the length hold what nobody sees; a ring's oldest
         * tokens, though, may be gone. */
        status = job.wide ? at_parallel(o->batch * o->kv_heads, append_head, &job) : ATTUNE_EMEMORY;
    }
    for (int64_t b = 0; b < o->batch; b++) {
        int64_t length = c->length[b] + (counts ? counts[b] : tokens),
                lost = length - c->tiles * AT_TILE;
        if (status == ATTUNE_OK) c->length[b] = length;
        if (o->window && lost > c->oldest[b]) c->oldest[b] = lost;
    }
    at_free(job.wide);
    at_rotation_free(&job.turns);
    attune_tensor_close(&narrow_k);
    attune_tensor_close(&narrow_v);
    return status;
}

/* ---- attend ---------------------------------------------------------------------------------- */

typedef struct attend_job {
    const attune_cache *cache;
    int64_t Sq, window; /* 0: none */
} attend_job;

static void cache_sees(const void *context, int64_t b, int64_t i, int64_t *first, int64_t *last) {
    const attend_job *j = context;
    int64_t at = j->cache->length[b] - j->Sq + i;
    *first = j->window && at - j->window + 1 > 0 ? at - j->window + 1 : 0;
    if (*first < j->cache->oldest[b]) *first = j->cache->oldest[b];
    *last = at + 1;
}

static void cache_keys(const void *context, int64_t b, int64_t h, at_keys *out) {
    const attune_cache *c = ((const attend_job *)context)->cache;
    *out = keys_of_head(c, b * c->options.kv_heads + h);
}

static attune_status check_query(const attune_cache *c, const attune_tensor *q,
                                 const attune_attention_options *options) {
    const attune_cache_options *o = &c->options;
    if (!q || !q->data)
        return at_fail(ATTUNE_ECLOSED,
                       "q: expected a tensor [batch, heads, queries, head_dim], got a closed one");
    if (q->rank != 4 || q->shape[0] != o->batch || q->shape[3] != o->head_dim ||
        q->shape[1] % o->kv_heads != 0) {
        return at_fail(ATTUNE_ESHAPE,
                       "q: expected [%lld, a multiple of %lld heads, queries, %lld], got %s",
                       (long long)o->batch, (long long)o->kv_heads, (long long)o->head_dim,
                       at_shape_text(q->rank, q->shape));
    }
    if (!at_is_float(q->dtype))
        return at_fail(ATTUNE_EDTYPE, "q: expected a float dtype, got %s",
                       attune_dtype_name(q->dtype));
    AT_TRY(at_check_options(options));
    const int64_t Sq = q->shape[2];
    if (o->window && Sq > AT_TILE) {
        return at_fail(ATTUNE_EVALUE,
                       "q: expected at most %d queries at once with a window, got %lld", AT_TILE,
                       (long long)Sq);
    }
    if (o->window && options->window > o->window) {
        return at_fail(ATTUNE_EVALUE, "window: expected at most the cache's %lld, got %lld",
                       (long long)o->window, (long long)options->window);
    }
    if (options->lengths.rows)
        return at_fail(ATTUNE_EVALUE,
                       "lengths: a cache holds one document a batch row; expected none");
    if (options->engine == ATTUNE_ENGINE_REFERENCE || options->engine == ATTUNE_ENGINE_BLIS) {
        return at_fail(ATTUNE_EENGINE, "engine: expected tiled or decode over a cache");
    }
    if (options->engine == ATTUNE_ENGINE_DECODE && Sq > AT_DECODE_QUERIES) {
        return at_fail(ATTUNE_EENGINE,
                       "engine: decode takes at most %d queries, got %lld; expected tiled",
                       AT_DECODE_QUERIES, (long long)Sq);
    }
    if (options->rotate) AT_TRY(check_rotation(options->rotate, o->head_dim));
    if (options->positions)
        return at_fail(
            ATTUNE_EVALUE,
            "positions: expected none, as a cache's tokens stand where they were appended");
    int64_t longest = attune_cache_length(c);
    if (Sq > longest) {
        return at_fail(ATTUNE_EVALUE,
                       "q: expected at most as many queries as tokens appended, %lld, got %lld",
                       (long long)longest, (long long)Sq);
    }
    return ATTUNE_OK;
}

/* The problem's parts that the cache shares with attune_attention: sinks and results. A tensor of
 * one key stands for the cache's. */
static attune_status prepare(const attune_cache *c, const attune_tensor *q,
                             const attune_attention_options *options, at_problem *p) {
    const attune_cache_options *o = &c->options;
    float nothing = 0;
    const int64_t k_shape[4] = {o->batch, o->kv_heads, 1, o->head_dim},
                  v_shape[4] = {o->batch, o->kv_heads, 1, o->v_head_dim}, stride[4] = {0};
    attune_tensor k, v;
    AT_TRY(attune_tensor_wrap(ATTUNE_F32, 4, k_shape, stride, &nothing, &k));
    AT_TRY(attune_tensor_wrap(ATTUNE_F32, 4, v_shape, stride, &nothing, &v));
    attune_attention_options shared = {.scale_given = options->scale_given,
                                       .scale = options->scale,
                                       .softcap = options->softcap,
                                       .sinks = options->sinks,
                                       .engine = ATTUNE_ENGINE_TILED};
    return at_problem_make(q, &k, &v, &shared, false, p);
}

/* The queries are the last tokens of each batch row. */
static attune_status turn_queries(const attune_cache *c, at_problem *p, attune_position *rotate) {
    int64_t *first = at_alloc(at_checked_mul(p->B, (int64_t)sizeof *first));
    if (!first) return ATTUNE_EMEMORY;
    for (int64_t b = 0; b < p->B; b++) first[b] = c->length[b] - p->Sq;
    attune_status status = at_rotation_make(rotate, NULL, first, p->B, p->B, p->Sq, ATTUNE_QUERY,
                                            p->Sk, &p->q_rotation);
    at_free(first);
    return status;
}

/* Programs see the tokens from the first that some query may see on. */
static attune_status modify_queries(const attend_job *job, const attune_attention_options *options,
                                    at_problem *p) {
    if (!options->score && !options->mask) return ATTUNE_OK;
    at_extent extent = {.B = p->B, .Hq = p->Hq, .G = p->G, .Sq = p->Sq, .from = p->Sk, .to = p->Sk};
    int64_t *base = at_alloc(at_checked_mul(p->B, (int64_t)sizeof *base));
    if (!base) return ATTUNE_EMEMORY;
    for (int64_t b = 0; b < p->B; b++) {
        int64_t first, last;
        cache_sees(job, b, 0, &first, &last);
        if (first < extent.from) extent.from = first;
        base[b] = job->cache->length[b] - p->Sq;
    }
    extent.base = base, extent.from = extent.from / AT_TILE * AT_TILE;
    attune_status status =
        at_modifier_make(options->score, options->mask, &extent, 0, cache_sees, job, &p->modifier);
    at_free(base);
    return status;
}

attune_status attune_cache_attend(attune_cache *c, const attune_tensor *q,
                                  const attune_attention_options *options, attune_tensor *o,
                                  attune_tensor *lse) {
    static const attune_attention_options defaults = {0};
    if (!options) options = &defaults;
    memset(o, 0, sizeof *o);
    memset(lse, 0, sizeof *lse);
    AT_TRY(check_query(c, q, options));
    attune_tensor narrow = {0};
    AT_TRY(narrowed(q, &narrow));
    at_problem p = {0};
    at_walk_scratch scratch = {0};
    attune_status status = prepare(c, &narrow, options, &p);
    if (status == ATTUNE_OK) {
        p.Sk = attune_cache_length(c);
        status = at_problem_results(&p, o, lse);
    }
    attend_job job = {
        .cache = c, .Sq = p.Sq, .window = options->window ? options->window : c->options.window};
    if (status == ATTUNE_OK && options->rotate) status = turn_queries(c, &p, options->rotate);
    if (status == ATTUNE_OK) status = modify_queries(&job, options, &p);
    if (status == ATTUNE_OK) {
        at_walk walk = {.q = &narrow,
                        .o = o,
                        .lse = lse,
                        .B = p.B,
                        .Hk = p.Hk,
                        .G = p.G,
                        .Sq = p.Sq,
                        .turns = at_rotation_or_null(&p.q_rotation),
                        .scale = p.scale,
                        .softcap = p.softcap,
                        .modifier = at_modifies(&p.modifier) ? &p.modifier : NULL,
                        .sinks = p.sinks,
                        .layout = c->layout,
                        .context = &job,
                        .sees = cache_sees,
                        .keys = cache_keys};
        bool split = options->engine == ATTUNE_ENGINE_DECODE ||
                     (options->engine == ATTUNE_ENGINE_DEFAULT && p.Sq <= AT_DECODE_QUERIES);
        status = at_walk_scratch_new(&walk, &scratch);
        if (status == ATTUNE_OK)
            status = split ? at_walk_split(&walk, &scratch)
                           : at_walk_rows(&walk, &scratch, 0, p.B * p.Hk);
    }
    if (status == ATTUNE_OK && q->dtype == ATTUNE_F64) {
        attune_tensor wide;
        status = attune_tensor_convert(o, ATTUNE_F64, &wide);
        attune_tensor_close(o);
        *o = wide;
    }
    if (status != ATTUNE_OK) attune_tensor_close(o), attune_tensor_close(lse);
    at_walk_scratch_free(&scratch);
    at_problem_close(&p);
    attune_tensor_close(&narrow);
    return status;
}

/* ---- the rest -------------------------------------------------------------------------------- */

attune_status attune_cache_truncate(attune_cache *c, int64_t n) {
    if (n < 0)
        return at_fail(ATTUNE_EVALUE, "n: expected at least 0 tokens, got %lld", (long long)n);
    if (n == 0) {
        attune_cache_reset(c);
        return ATTUNE_OK;
    }
    const int64_t window = c->options.window;
    for (int64_t b = 0; b < c->options.batch && window; b++) {
        /* The next query, at n, looks back window - 1 tokens. */
        int64_t needed = n - window + 1 > 0 ? n - window + 1 : 0;
        if (n < c->length[b] && needed < c->oldest[b]) {
            return at_fail(ATTUNE_EVALUE,
                           "n: expected at least %lld, as the ring holds no token before %lld any "
                           "more, got %lld",
                           (long long)(c->oldest[b] + window - 1), (long long)c->oldest[b],
                           (long long)n);
        }
    }
    for (int64_t b = 0; b < c->options.batch; b++)
        if (c->length[b] > n) c->length[b] = n;
    return ATTUNE_OK;
}

void attune_cache_reset(attune_cache *c) {
    const attune_cache_options *o = &c->options;
    const int64_t all = o->batch * o->kv_heads * c->tiles, bytes = c->layout.bytes;
    for (int64_t place = 0; place < all; place++) {
        if (c->nonfinite[place]) memset(c->places + place * bytes, 0, (size_t)bytes);
        c->nonfinite[place] = 0;
    }
    memset(c->length, 0, (size_t)o->batch * sizeof *c->length);
    memset(c->oldest, 0, (size_t)o->batch * sizeof *c->oldest);
}

int64_t attune_cache_length(const attune_cache *c) {
    int64_t longest = 0;
    for (int64_t b = 0; b < c->options.batch; b++)
        if (c->length[b] > longest) longest = c->length[b];
    return longest;
}

int64_t attune_cache_row_length(const attune_cache *c, int64_t row) {
    return row >= 0 && row < c->options.batch ? c->length[row] : -1;
}

int64_t attune_cache_nbytes(const attune_cache *c) {
    const attune_cache_options *o = &c->options;
    return o->batch * o->kv_heads * c->tiles * (c->layout.bytes + (c->scales ? SCALES : 0));
}

attune_span attune_cache_memory(const attune_cache *c) {
    const attune_cache_options *o = &c->options;
    return (attune_span){.data = c->places,
                         .bytes = o->batch * o->kv_heads * c->tiles * c->layout.bytes};
}

const attune_cache_options *attune_cache_describe(const attune_cache *c) { return &c->options; }
