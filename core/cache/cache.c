/* cache.c - the key-value cache: a key source whose tiles are packed once, when tokens are
 * appended.
 *
 * Each kv head of each batch row has its own consecutive tiles. Token t is in tile t / AT_TILE.
 * Without a window that tile is in slot t / AT_TILE. With a window the slots are a ring, and the
 * tile is in slot (t / AT_TILE) % slots. The ring holds at least window + AT_TILE - 1 tokens, so
 * that every visible key of AT_TILE queries in one call is still there.
 */
#include <stdio.h>
#include <string.h>

#include "attention/schedule.h"
#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"

struct attune_cache {
    attune_cache_options options; /* v_head_dim and capacity are resolved: never 0 */
    int64_t slots;                /* of a kv head; each holds one tile */
    at_layout layout;
    char *tiles;        /* [B][Hk][slots][layout.bytes] */
    float *scales;      /* [B][Hk][slots][2][AT_TILE] for i8, else NULL; at_keys describes them */
    uint8_t *nonfinite; /* [B][Hk][slots]: 1 once the tile's values held an Inf or NaN */
    int64_t *length;    /* [B] tokens appended */
    int64_t *oldest;    /* [B] the first token that a ring still holds. Truncating does not bring
                           back older tokens. */
};

enum { SCALE_BYTES = 2 * AT_TILE * (int)sizeof(float) }; /* of one slot */

/* No extent of a cache is larger; a longer window hides nothing. */
static const int64_t MAX_EXTENT = (int64_t)1 << 40;

static attune_status check_positive(const char *name, int64_t n) {
    return n >= 1 ? ATTUNE_OK
                  : at_fail(ATTUNE_EVALUE, "%s: expected at least 1, got %lld", name, (long long)n);
}

static attune_status check_max(const char *name, int64_t n) {
    return n <= MAX_EXTENT
               ? ATTUNE_OK
               : at_fail(ATTUNE_EVALUE, "%s: expected at most 2^40, got %lld", name, (long long)n);
}

attune_status attune_cache_new(const attune_cache_options *options, attune_cache **out) {
    attune_cache_options o = *options;
    *out = NULL;
    AT_TRY(attune_init());
    AT_TRY(check_positive("batch", o.batch));
    AT_TRY(check_positive("kv_heads", o.kv_heads));
    AT_TRY(check_positive("head_dim", o.head_dim));
    if (o.v_head_dim == 0) o.v_head_dim = o.head_dim;
    AT_TRY(check_positive("v_head_dim", o.v_head_dim));
    if (o.window < 0)
        return at_fail(ATTUNE_EVALUE, "window: expected at least 1 token, got %lld",
                       (long long)o.window);
    if (o.dtype != ATTUNE_F32 && o.dtype != ATTUNE_BF16 && o.dtype != ATTUNE_F16 &&
        o.dtype != ATTUNE_I8) {
        return at_fail(ATTUNE_EDTYPE, "dtype: expected f32, bf16, f16 or i8, got %s",
                       attune_dtype_name(o.dtype));
    }
    if (o.window == 0) AT_TRY(check_positive("capacity", o.capacity));
    AT_TRY(check_max("window", o.window));
    AT_TRY(check_max("capacity", o.capacity));
    AT_TRY(check_max("head_dim", o.head_dim));
    AT_TRY(check_max("v_head_dim", o.v_head_dim));
    int64_t tokens = at_round_up(o.window ? o.window + AT_TILE - 1 : o.capacity, AT_TILE);
    if (o.window) o.capacity = tokens;

    attune_cache *c = at_alloc_zeroed((int64_t)sizeof *c);
    if (!c) return ATTUNE_EMEMORY;
    c->options = o;
    c->slots = tokens / AT_TILE;
    const int64_t all = at_checked_mul(at_checked_mul(o.batch, o.kv_heads), c->slots);
    c->layout = at_layout_of(o.dtype, o.head_dim, o.v_head_dim);
    c->tiles = at_alloc_zeroed(at_checked_mul(all, c->layout.bytes));
    if (c->tiles && o.dtype == ATTUNE_I8)
        c->scales = at_alloc_zeroed(at_checked_mul(all, SCALE_BYTES));
    if (c->tiles && (c->scales || o.dtype != ATTUNE_I8)) c->nonfinite = at_alloc_zeroed(all);
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
    at_free(c->tiles);
    at_free(c->scales);
    at_free(c->nonfinite);
    at_free(c->length);
    at_free(c->oldest);
    at_free(c);
}

/* The tiles of kv head `head` % Hk of batch row `head` / Hk. */
static at_keys keys_of_head(const attune_cache *c, int64_t head) {
    const int64_t slot = head * c->slots;
    return (at_keys){.layout = c->layout,
                     .tiles = c->tiles + slot * c->layout.bytes,
                     .scales = c->scales ? c->scales + slot * 2 * AT_TILE : NULL,
                     .ring = c->options.window ? c->slots : 0,
                     .nonfinite = c->nonfinite + slot};
}

/* ---- append ---------------------------------------------------------------------------------- */

typedef struct append_job {
    attune_cache *cache;
    const attune_tensor *k, *v;
    at_rotation rotation; /* of the appended keys */
    const int64_t *counts;
    float *f32_rows; /* [threads][stride] */
    int64_t stride;  /* AT_TILE * max(head_dim, v_head_dim) */
} append_job;

static attune_status append_head(void *context, int64_t head, int thread) {
    append_job *j = context;
    attune_cache *c = j->cache;
    const at_keys keys = keys_of_head(c, head);
    const at_unpacked_keys from = {.k = j->k,
                                   .v = j->v,
                                   .rotation = at_rotation_or_null(&j->rotation),
                                   .b = head / c->options.kv_heads,
                                   .h = head % c->options.kv_heads};
    const int64_t count = j->counts ? j->counts[from.b] : j->k->shape[2];
    for (int64_t i = 0; i < count;) {
        const int64_t token = c->length[from.b] + i, lane = token % AT_TILE,
                      n = AT_TILE - lane < count - i ? AT_TILE - lane : count - i;
        at_pack_tile(&keys, token / AT_TILE % c->slots, (int)lane, &from, i, n,
                     j->f32_rows + thread * j->stride);
        i += n;
    }
    return ATTUNE_OK;
}

static attune_status check_appended(const attune_cache *c, const char *name, const attune_tensor *t,
                                    int64_t tokens, int64_t dim) {
    const attune_cache_options *o = &c->options;
    if (!t || !t->data)
        return at_fail(
            ATTUNE_ECLOSED,
            "%s: expected a tensor [batch, kv_heads, tokens, head_dim], got a closed one", name);
    if (t->rank != 4 || t->shape[0] != o->batch || t->shape[1] != o->kv_heads ||
        t->shape[3] != dim || (tokens && t->shape[2] != tokens)) {
        char count[32] = "tokens";
        if (tokens) snprintf(count, sizeof count, "%lld", (long long)tokens);
        return at_fail(
            ATTUNE_ESHAPE,
            "%s: expected [%lld, %lld, %s, %lld] (batch, kv_heads, tokens, head_dim), got %s", name,
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
            return at_fail(
                ATTUNE_EVALUE,
                "counts: expected from 0 to %lld tokens, got %lld for batch row " AT_INDEX,
                (long long)tokens, (long long)n, (long long)b);
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

/* A view of t, or a f32 copy of a f64 tensor. */
static attune_status without_f64(const attune_tensor *t, attune_tensor *out) {
    return t->dtype == ATTUNE_F64 ? attune_tensor_convert(t, ATTUNE_F32, out)
                                  : attune_tensor_share(t, out);
}

/* The position of a cached token is one number: its index. */
static attune_status check_rotation(const attune_position *pe, int64_t head_dim) {
    AT_TRY(at_check_rotation(pe, head_dim));
    if (pe->axes < 2) return ATTUNE_OK;
    return at_fail(ATTUNE_EVALUE,
                   "rotate: expected an encoding with one position per token, as a cache has, "
                   "got %s: rotate k and q beforehand",
                   pe->name);
}

/* Fails where f16 cannot hold the keys as they are rotated, before the cache changes. */
static attune_status check_range(const append_job *j) {
    const attune_cache_options *o = &j->cache->options;
    if (o->dtype != ATTUNE_F16 || !j->rotation.scales) return ATTUNE_OK;
    for (int64_t b = 0; b < o->batch; b++) {
        const int64_t count = j->counts ? j->counts[b] : j->k->shape[2];
        for (int64_t i = 0; i < count; i++) {
            const double scale = at_rotation_scale(&j->rotation, b, i);
            for (int64_t h = 0; h < o->kv_heads; h++) {
                at_f32_row(j->k, &j->rotation, b, h, i, j->f32_rows);
                AT_TRY(
                    at_check_f16_range(j->f32_rows, o->head_dim, scale, j->cache->length[b] + i));
            }
        }
    }
    return ATTUNE_OK;
}

attune_status attune_cache_append(attune_cache *c, const attune_tensor *k, const attune_tensor *v,
                                  const int64_t *counts, attune_position *rotate) {
    const attune_cache_options *o = &c->options;
    AT_TRY(check_appended(c, "k", k, 0, o->head_dim));
    AT_TRY(check_appended(c, "v", v, k->shape[2], o->v_head_dim));
    const int64_t tokens = k->shape[2];
    AT_TRY(check_room(c, tokens, counts));
    if (rotate) AT_TRY(check_rotation(rotate, o->head_dim));

    attune_tensor k_f32 = {0}, v_f32 = {0};
    append_job job = {.cache = c, .k = &k_f32, .v = &v_f32, .counts = counts};
    job.stride = AT_TILE * (o->head_dim > o->v_head_dim ? o->head_dim : o->v_head_dim);
    attune_status status = without_f64(k, &k_f32);
    if (status == ATTUNE_OK) status = without_f64(v, &v_f32);
    if (status == ATTUNE_OK && rotate) {
        int64_t length = 1;
        for (int64_t b = 0; b < o->batch; b++) {
            const int64_t end = c->length[b] + (counts ? counts[b] : tokens);
            if (end > length) length = end;
        }
        status = at_rotation_make(rotate, NULL, c->length, o->batch, o->batch, tokens, ATTUNE_KEY,
                                  length, &job.rotation);
    }
    if (status == ATTUNE_OK) {
        job.f32_rows =
            at_alloc(at_checked_mul(at_threads() * (int64_t)sizeof *job.f32_rows, job.stride));
        if (job.f32_rows) status = check_range(&job);
        /* After an interrupt, tokens past the length are never read. A ring may have lost its
         * oldest tokens. */
        if (!job.f32_rows) status = ATTUNE_EMEMORY;
        if (status == ATTUNE_OK) status = at_parallel(o->batch * o->kv_heads, append_head, &job);
    }
    for (int64_t b = 0; b < o->batch; b++) {
        const int64_t length = c->length[b] + (counts ? counts[b] : tokens),
                      lost = length - c->slots * AT_TILE;
        if (status == ATTUNE_OK) c->length[b] = length;
        const bool written = status == ATTUNE_OK || status == ATTUNE_EINTERRUPT;
        if (o->window && written && lost > c->oldest[b]) c->oldest[b] = lost;
    }
    at_free(job.f32_rows);
    at_rotation_free(&job.rotation);
    attune_tensor_close(&k_f32);
    attune_tensor_close(&v_f32);
    return status;
}

/* ---- attend ---------------------------------------------------------------------------------- */

typedef struct attend_job {
    const attune_cache *cache;
    int64_t Sq;
    int64_t window; /* 0: none */
} attend_job;

/* The queries are the last Sq tokens of their batch row. */
static void visible_keys(const void *context, int64_t b, int64_t i, int64_t *first, int64_t *last) {
    const attend_job *j = context;
    const int64_t at = j->cache->length[b] - j->Sq + i;
    *first = j->window && at - j->window + 1 > 0 ? at - j->window + 1 : 0;
    if (*first < j->cache->oldest[b]) *first = j->cache->oldest[b];
    *last = at + 1;
}

static void cached_keys(const void *context, int64_t b, int64_t h, at_keys *out) {
    const attune_cache *c = context;
    *out = keys_of_head(c, b * c->options.kv_heads + h);
}

/* The window of the options as a number of tokens up to the query's own; 0: none. No token comes
 * after a query of a cache, so the right side of a window hides nothing. */
static int64_t window_of(const attune_attention_options *o) {
    if (!o->two_sided) return o->window;
    return o->window_left < MAX_EXTENT ? o->window_left + 1 : MAX_EXTENT;
}

/* The window of a call: that of its options, else the cache's; 0: none. */
static int64_t window_in(const attune_cache *c, const attune_attention_options *o) {
    const int64_t window = window_of(o);
    return window ? window : c->options.window;
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
                       "q: expected [%lld, a multiple of %lld heads, queries, %lld] (batch, heads, "
                       "queries, head_dim), got %s",
                       (long long)o->batch, (long long)o->kv_heads, (long long)o->head_dim,
                       at_shape_text(q->rank, q->shape));
    }
    if (!at_is_float(q->dtype))
        return at_fail(ATTUNE_EDTYPE, "q: expected a float dtype, got %s",
                       attune_dtype_name(q->dtype));
    AT_TRY(at_check_options(options, false));
    const int64_t Sq = q->shape[2];
    if (o->window && Sq > AT_TILE) {
        return at_fail(ATTUNE_EVALUE,
                       "q: expected at most %d queries at once with a window, got %lld", AT_TILE,
                       (long long)Sq);
    }
    if (o->window && window_of(options) > o->window) {
        return at_fail(ATTUNE_EVALUE, "window: expected at most the cache's %lld, got %lld",
                       (long long)o->window, (long long)window_of(options));
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
            "positions: expected none, because the position of a cached token is its index");
    const int64_t window = window_in(c, options);
    for (int64_t b = 0; b < o->batch && o->window; b++) {
        /* Only after a truncation may the ring lack what a window needs. */
        const int64_t needed = c->length[b] - Sq - window + 1;
        if ((needed > 0 ? needed : 0) < c->oldest[b] && c->length[b] > 0) {
            return at_fail(ATTUNE_EVALUE,
                           "q: expected queries whose windows begin at token %lld or later, as the "
                           "ring holds no token before it any more, got %lld queries at length "
                           "%lld with a window of %lld",
                           (long long)c->oldest[b], (long long)Sq, (long long)c->length[b],
                           (long long)window);
        }
    }
    int64_t longest = attune_cache_length(c);
    if (Sq > longest) {
        return at_fail(ATTUNE_EVALUE,
                       "q: expected at most as many queries as tokens appended, %lld, got %lld",
                       (long long)longest, (long long)Sq);
    }
    return ATTUNE_OK;
}

static attune_status rotate_queries(const attune_cache *c, attune_position *rotate,
                                    at_query_side *query) {
    int64_t *first = at_alloc(at_checked_mul(query->B, (int64_t)sizeof *first));
    if (!first) return ATTUNE_EMEMORY;
    for (int64_t b = 0; b < query->B; b++) first[b] = c->length[b] - query->Sq;
    const attune_status status =
        at_rotation_make(rotate, NULL, first, query->B, query->B, query->Sq, ATTUNE_QUERY,
                         attune_cache_length(c), &query->rotation);
    at_free(first);
    return status;
}

/* Binds the programs to the tokens from the first visible key of any query on. */
static attune_status modify_scores(const attend_job *job, const attune_attention_options *options,
                                   at_query_side *query) {
    if (!options->score && !options->mask) return ATTUNE_OK;
    const int64_t length = attune_cache_length(job->cache);
    at_extent extent = {.B = query->B,
                        .Hq = query->Hq,
                        .G = query->G,
                        .Sq = query->Sq,
                        .from = length,
                        .to = length};
    int64_t *base = at_alloc(at_checked_mul(query->B, (int64_t)sizeof *base));
    if (!base) return ATTUNE_EMEMORY;
    for (int64_t b = 0; b < query->B; b++) {
        int64_t first, last;
        visible_keys(job, b, 0, &first, &last);
        if (first < extent.from) extent.from = first;
        base[b] = job->cache->length[b] - query->Sq;
    }
    extent.base = base;
    extent.from = extent.from / AT_TILE * AT_TILE;
    const attune_status status = at_modifier_make(options->score, options->mask, &extent, 0,
                                                  visible_keys, job, &query->modifier);
    at_free(base);
    return status;
}

static attune_status run_schedule(const attune_cache *c, const at_query_side *query,
                                  attune_engine engine, const at_results *results) {
    const at_key_source source = {.layout = c->layout, .keys = cached_keys, .context = c};
    const bool decode = engine == ATTUNE_ENGINE_DECODE ||
                        (engine == ATTUNE_ENGINE_DEFAULT && query->Sq <= AT_DECODE_QUERIES);
    at_schedule schedule;
    attune_status status = at_schedule_make(query, &source, results, &schedule);
    if (status == ATTUNE_OK)
        status = decode ? at_schedule_keys(&schedule)
                        : at_schedule_rows(&schedule, 0, query->B * query->Hk);
    if (status == ATTUNE_OK) status = at_schedule_columns(&schedule, 0, query->B * query->Hk);
    at_schedule_free(&schedule);
    return status;
}

/* Runs the query side with results that are new. */
static attune_status run_summarized(const attune_cache *c, const at_query_side *query,
                                    attune_engine engine, unsigned wanted, attune_tensor *o,
                                    attune_tensor *lse, attune_summaries *out) {
    at_summaries summaries;
    attune_status status =
        at_summaries_make(query, wanted, attune_cache_length(c), out, &summaries);
    for (int64_t b = 0; b < query->B && status == ATTUNE_OK; b++)
        summaries.first_token[b] = c->length[b] - query->Sq;
    const at_results results = {.o = o, .lse = lse, .summaries = &summaries};
    if (status == ATTUNE_OK) status = run_schedule(c, query, engine, &results);
    at_summaries_free(&summaries);
    return status;
}

/* o becomes its f64 copy. */
static attune_status convert_to_f64(attune_tensor *o) {
    attune_tensor copy;
    const attune_status status = attune_tensor_convert(o, ATTUNE_F64, &copy);
    attune_tensor_close(o);
    *o = copy;
    return status;
}

attune_status attune_cache_attend_summarized(attune_cache *c, const attune_tensor *q,
                                             const attune_attention_options *options,
                                             unsigned wanted, attune_tensor *o, attune_tensor *lse,
                                             attune_summaries *summaries) {
    static const attune_attention_options defaults = {0};
    if (!options) options = &defaults;
    memset(o, 0, sizeof *o);
    memset(lse, 0, sizeof *lse);
    memset(summaries, 0, sizeof *summaries);
    AT_TRY(check_query(c, q, options));
    const int64_t window = window_in(c, options);
    const attend_job job = {
        .cache = c, .Sq = q->shape[2], .window = window < MAX_EXTENT ? window : MAX_EXTENT};
    attune_tensor q_f32 = {0}; /* q's own dtype unless that is f64 */
    AT_TRY(without_f64(q, &q_f32));
    at_query_side query;
    attune_status status = at_query_side_make(&q_f32, c->options.kv_heads, options, &query);
    query.visible_keys = visible_keys;
    query.visible_keys_context = &job;
    if (status == ATTUNE_OK) status = at_results_new(&query, c->options.v_head_dim, o, lse);
    if (status == ATTUNE_OK && options->rotate) status = rotate_queries(c, options->rotate, &query);
    if (status == ATTUNE_OK) status = modify_scores(&job, options, &query);
    const at_results results = {.o = o, .lse = lse};
    if (status == ATTUNE_OK)
        status = wanted ? run_summarized(c, &query, options->engine, wanted, o, lse, summaries)
                        : run_schedule(c, &query, options->engine, &results);
    if (status == ATTUNE_OK) status = at_modifier_status(&query.modifier);
    if (status == ATTUNE_OK && q->dtype == ATTUNE_F64) status = convert_to_f64(o);
    if (status != ATTUNE_OK) {
        attune_tensor_close(o);
        attune_tensor_close(lse);
        attune_summaries_close(summaries);
    }
    at_query_side_close(&query);
    attune_tensor_close(&q_f32);
    return status;
}

attune_status attune_cache_attend(attune_cache *c, const attune_tensor *q,
                                  const attune_attention_options *options, attune_tensor *o,
                                  attune_tensor *lse) {
    attune_summaries none;
    return attune_cache_attend_summarized(c, q, options, 0, o, lse, &none);
}

/* ---- length and memory ----------------------------------------------------------------------- */

attune_status attune_cache_truncate(attune_cache *c, int64_t n) {
    if (n < 0)
        return at_fail(ATTUNE_EVALUE, "n: expected at least 0 tokens, got %lld", (long long)n);
    if (n > attune_cache_length(c)) {
        return at_fail(ATTUNE_EVALUE, "n: expected at most the cache's length, %lld, got %lld",
                       (long long)attune_cache_length(c), (long long)n);
    }
    if (n == 0) {
        attune_cache_reset(c);
        return ATTUNE_OK;
    }
    const int64_t window = c->options.window;
    for (int64_t b = 0; b < c->options.batch && window; b++) {
        /* The next query has position n and its window begins window - 1 tokens before it. */
        const int64_t needed = n - window + 1 > 0 ? n - window + 1 : 0;
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
    const int64_t slots = o->batch * o->kv_heads * c->slots, bytes = c->layout.bytes;
    for (int64_t slot = 0; slot < slots; slot++) {
        if (c->nonfinite[slot]) memset(c->tiles + slot * bytes, 0, (size_t)bytes);
        c->nonfinite[slot] = 0;
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
    return o->batch * o->kv_heads * c->slots * (c->layout.bytes + (c->scales ? SCALE_BYTES : 0));
}

attune_span attune_cache_memory(const attune_cache *c) {
    const attune_cache_options *o = &c->options;
    return (attune_span){.data = c->tiles,
                         .bytes = o->batch * o->kv_heads * c->slots * c->layout.bytes};
}

const attune_cache_options *attune_cache_describe(const attune_cache *c) { return &c->options; }
