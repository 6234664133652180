/* row_block.c - a block of rows over the keys of its kv head, with an online softmax. */
#include "attention/row_block.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/constants.h"
#include "base/numbers.h"
#include "base/parallel.h"
#include "base/status.h"
#include "simd/table.h"

/* ---- plan and scratch ------------------------------------------------------------------------ */

/* A key block (256 tokens of 128 dims, K and V in f32: 256 KiB) and a row block (252 rows, q and o:
 * another 256 KiB) stay in L2 together while each panel goes over the key block. The next key block
 * is prefetched meanwhile. More dims make both blocks shorter.
 *
 * Few rows (at most MAX_FEW_ROWS, or at most half a panel) are limited by memory bandwidth. They
 * take one tile per step and prefetch what lies PREFETCH_DISTANCE bytes later, because the
 * processor's own prefetching pauses at every softmax. One row over f32 was faster without. */
enum { MAX_FEW_ROWS = 4, PREFETCH_DISTANCE = 8192 };

at_row_plan at_plan_rows(int64_t rows, const at_layout *layout, attune_dtype q,
                         int64_t kept_tiles) {
    const at_attention_kernels *kernels = &at_simd_now()->attention;
    /* Few bf16 rows are converted to f32: rounding their weights to pairs costs more than it saves.
     */
    const bool few_bf16 = q == ATTUNE_BF16 && rows < at_simd_now()->geometry.min_rows;
    at_row_plan plan = {.product = kernels->product(layout->dtype, few_bf16 ? ATTUNE_F32 : q),
                        .Dvp = at_round_up(layout->Dv, AT_DIM),
                        .layout = *layout};
    const int64_t dims = at_round_up(layout->D, AT_DIM) + plan.Dvp;
    plan.tile_rows = at_simd_now()->geometry.rows[plan.product];
    int64_t panels = (64 * 1024) / dims / plan.tile_rows;
    if (panels > 252 / plan.tile_rows) panels = 252 / plan.tile_rows;
    if (panels < 1) panels = 1;
    plan.max_rows = panels * plan.tile_rows;
    if (plan.max_rows > rows) plan.max_rows = rows;
    plan.few = plan.max_rows <= MAX_FEW_ROWS || 2 * plan.max_rows <= plan.tile_rows;
    const bool one_f32_row = plan.max_rows == 1 && layout->dtype == ATTUNE_F32;
    plan.prefetch_distance = plan.few && !one_f32_row ? PREFETCH_DISTANCE : 0;
    int64_t tiles = 256 * 1024 / layout->bytes;
    if (tiles > AT_BLOCK_TILES) tiles = AT_BLOCK_TILES;
    if (tiles < 1 || plan.few) tiles = 1;
    plan.block_tiles = (int)tiles;
    plan.kept_tiles = kept_tiles && kept_tiles < tiles ? tiles : kept_tiles;
    return plan;
}

/* Takes the pieces of the scratch from the arena; arena.h says how. */
static void carve(at_arena *a, const at_row_plan *plan, at_row_scratch *s) {
    const int64_t rows = plan->max_rows, D = plan->layout.D, Dv = plan->layout.Dv,
                  f32_rows = plan->tile_rows > AT_TILE ? plan->tile_rows : AT_TILE;
    s->sums.o = at_arena_take(a, rows * plan->Dvp, sizeof *s->sums.o);
    s->sums.max = at_arena_take(a, rows, sizeof *s->sums.max);
    s->sums.sum = at_arena_take(a, rows, sizeof *s->sums.sum);
    s->q = at_arena_take(a, at_queries_bytes(rows, D), 1);
    s->q_scale = at_arena_take(a, 3 * rows, sizeof *s->q_scale);
    s->scores = at_arena_take(a, plan->tile_rows * AT_SCORE_STRIDE, sizeof *s->scores);
    s->weights = at_arena_take(a, plan->tile_rows * AT_SCORE_STRIDE, sizeof *s->weights);
    s->f32_rows = at_arena_take(a, f32_rows * (D > Dv ? D : Dv), sizeof *s->f32_rows);
    s->first = at_arena_take(a, rows, sizeof *s->first);
    s->last = at_arena_take(a, rows, sizeof *s->last);
    s->panel = at_arena_take(a, rows, sizeof *s->panel);
    s->kept.tiles = at_arena_take(a, plan->kept_tiles, (size_t)plan->layout.bytes);
    s->kept_id = at_arena_take(a, plan->kept_tiles, sizeof *s->kept_id);
    s->kept.nonfinite = at_arena_take(a, plan->kept_tiles, sizeof *s->kept.nonfinite);
    s->modifier = at_arena_take(a, plan->modifier_bytes, 1);
    if (plan->summarized) {
        s->sums.exponents = at_arena_take(a, rows, sizeof *s->sums.exponents);
        s->sums.distances = at_arena_take(a, rows, sizeof *s->sums.distances);
        s->sums.first = at_arena_take(a, rows, sizeof *s->sums.first);
        s->query = at_arena_take(a, plan->tile_rows, sizeof *s->query);
    }
    const int64_t heads = plan->column_heads;
    if (heads) {
        s->block_columns = at_arena_take(a, heads * AT_SCORE_STRIDE, sizeof *s->block_columns);
        s->row_columns = at_arena_take(a, plan->tile_rows, sizeof *s->row_columns);
        s->columns = at_arena_take(a, heads * AT_COLUMN_TOKENS, sizeof *s->columns);
    }
}

attune_status at_row_scratch_new(const at_row_plan *plan, at_row_scratch *out) {
    const size_t tiles = (size_t)plan->kept_tiles;
    memset(out, 0, sizeof *out);
    carve(&out->arena, plan, out);
    AT_TRY(at_arena_alloc(&out->arena));
    at_arena arena = out->arena;
    carve(&arena, plan, out);
    out->packed[3] = -1;
    out->kept.layout = plan->layout;
    if (tiles) {
        /* The padding of a tile must be finite. */
        memset(out->kept.tiles, 0, tiles * (size_t)plan->layout.bytes);
        memset(out->kept_id, -1, tiles * sizeof *out->kept_id);
    }
    return ATTUNE_OK;
}

void at_row_scratch_free(at_row_scratch *scratch) { at_arena_free(&scratch->arena); }

/* ---- queries --------------------------------------------------------------------------------- */

/* Adds panels of nearly equal height for `count` more rows: 32 rows become 11, 11 and 10, not 14,
 * 14 and 4. */
static void add_panels(const at_row_plan *plan, int64_t count, at_row_scratch *scratch) {
    const int64_t panels = at_ceil_div(count, plan->tile_rows);
    for (int64_t p = 0; p < panels; p++)
        scratch->panel[scratch->panels++] = (int32_t)(count / panels + (p < count % panels));
}

/* The softmax multiplies by |scale|. The queries carry the sign, so that the max score is also the
 * max exponent. */
static float sign_of(double scale) { return scale > 0 ? 1.0f : scale < 0 ? -1.0f : 0.0f; }

static bool has_score(const at_query_side *query) { return query->modifier.score.program != NULL; }

static bool has_gaps(const at_row_block *rows) { return at_has_gaps(&rows->query->modifier); }

/* A score program takes scaled scores. Where the product takes f32 queries, packing the queries
 * applies the scale. */
static bool queries_are_scaled(const at_row_plan *plan, const at_query_side *query) {
    return has_score(query) && plan->product == AT_FMA;
}

/* The number by which a product q . k is still to be multiplied. */
static double scale_of_products(const at_row_plan *plan, const at_query_side *query) {
    return query->scale == 0 || queries_are_scaled(plan, query) ? 1 : fabs(query->scale);
}

void at_plan_scores(at_row_plan *plan, const at_query_side *query, const at_summaries *summaries) {
    /* A softcap or a score program takes the scale before the softmax. */
    const bool scaled = query->softcap > 0 || has_score(query);
    plan->scale = scaled ? 1 : scale_of_products(plan, query);
    plan->factor = (float)fmax(FLT_MIN, fmin(plan->scale * AT_LOG2_E, FLT_MAX));
    if (at_query_modifier(query)) plan->modifier_bytes = at_modifier_scratch(&query->modifier);
    plan->summarized = at_wants_rows(summaries);
    plan->column_heads = at_wants_columns(summaries) ? query->G : 0;
    plan->keeps_scores = plan->column_heads && query->Sq == 1 && !at_has_gaps(&query->modifier);
}

/* Packs the queries panel by panel, unless the scratch still holds those of these rows. */
static void pack_queries(const at_row_plan *plan, const at_row_block *rows,
                         at_row_scratch *scratch) {
    const at_attention_kernels *kernels = &at_simd_now()->attention;
    const at_query_side *query = rows->query;
    const at_rotation *rotation = at_query_rotation(query);
    const int64_t wanted[4] = {rows->b, rows->h, rows->begin, rows->count}, D = plan->layout.D,
                  Dp = at_round_up(D, AT_DIM);
    const float factor =
        queries_are_scaled(plan, query) ? (float)query->scale : sign_of(query->scale);
    if (memcmp(wanted, scratch->packed, sizeof wanted) == 0) return;
    memcpy(scratch->packed, wanted, sizeof wanted);
    for (int64_t p = 0, r = 0; p < scratch->panels; p++) {
        const int count = scratch->panel[p];
        int64_t stride = D;
        const float *x = scratch->f32_rows;
        if (query->G == 1)
            x = at_f32_rows(&query->q, rotation, rows->b, rows->h, rows->begin + r, count,
                            scratch->f32_rows, &stride);
        for (int i = 0; i < count && query->G > 1; i++)
            at_f32_row(&query->q, rotation, rows->b, at_head_of(rows, r + i),
                       at_query_of(rows, r + i), scratch->f32_rows + i * D);
        kernels->pack_queries(plan->product, x, stride, count, D, factor, scratch->q + r * Dp,
                              scratch->q_scale + 3 * r);
        r += count;
    }
}

/* ---- keys ------------------------------------------------------------------------------------ */

/* Tile t of the step becomes the one in `slot`. */
static void set_tile(const at_keys *keys, int64_t slot, int t, at_step *step) {
    const at_layout *l = &keys->layout;
    const char *tile = keys->tiles + slot * l->bytes;
    step->k[t] = tile;
    step->v[t] = tile + l->v;
    if (keys->scales) {
        step->k_scale[t] = keys->scales + slot * 2 * AT_TILE;
        step->v_scale[t] = step->k_scale[t] + AT_TILE;
        /* Prefetch the scales of the next slot: the processor does not, because they are apart from
         * the tiles. */
        for (int line = 0; line < 8; line++)
            __builtin_prefetch(step->k_scale[t] + 2 * AT_TILE + 16 * line);
    }
    if (keys->nonfinite && keys->nonfinite[slot]) step->v_finite = false;
}

/* Packs the tiles [tile, tile + tiles) that the scratch does not keep already. */
static void pack_block(const at_row_plan *plan, const at_keys *keys, int64_t tile, int tiles,
                       at_row_scratch *scratch, at_step *step) {
    const at_unpacked_keys *from = &keys->unpacked;
    const int64_t tokens = from->k->shape[2], head = from->b * from->k->shape[1] + from->h,
                  head_tiles = at_ceil_div(tokens, AT_TILE), bytes = keys->layout.bytes;
    for (int t = 0; t < tiles; t++) {
        const int64_t slot = (tile + t) % plan->kept_tiles, id = head * head_tiles + tile + t,
                      first = (tile + t) * AT_TILE, left = tokens - first,
                      count = left < AT_TILE ? left : AT_TILE;
        if (scratch->kept_id[slot] != id) {
            /* An Inf of an earlier tile must not remain after the last token. */
            if (count < AT_TILE) memset(scratch->kept.tiles + slot * bytes, 0, (size_t)bytes);
            scratch->kept.nonfinite[slot] = 0;
            at_pack_tile(&scratch->kept, slot, 0, from, first, count, scratch->f32_rows);
            scratch->kept_id[slot] = id;
        }
        set_tile(&scratch->kept, slot, t, step);
    }
}

/* p + bytes, for a prefetch only: it may be outside the memory of p. */
static const void *prefetch_address(const void *p, int64_t bytes) {
    return (const void *)((uintptr_t)p + (uintptr_t)bytes);
}

/* Sets the step's tiles to [tile, tile + tiles), and the tiles to prefetch to those that follow,
 * before prefetch_end. */
static void set_tiles(const at_row_plan *plan, const at_keys *keys, int64_t tile, int tiles,
                      int64_t prefetch_end, at_row_scratch *scratch, at_step *step) {
    step->tiles = tiles;
    step->v_finite = true;
    if (!keys->tiles) {
        pack_block(plan, keys, tile, tiles, scratch, step);
        return;
    }
    for (int t = 0; t < tiles; t++) {
        const int64_t next = tile + tiles + t, ring = keys->ring;
        set_tile(keys, ring ? (tile + t) % ring : tile + t, t, step);
        if (plan->few) {
            if (plan->prefetch_distance) {
                step->k_prefetch[t] = prefetch_address(step->k[t], plan->prefetch_distance);
                step->v_prefetch[t] = prefetch_address(step->v[t], plan->prefetch_distance);
            }
            continue;
        }
        const char *next_tile = NULL;
        if (next < prefetch_end)
            next_tile = keys->tiles + (ring ? next % ring : next) * keys->layout.bytes;
        step->k_prefetch[t] = next_tile;
        step->v_prefetch[t] = next_tile ? next_tile + keys->layout.v : NULL;
    }
}

/* ---- visible keys ---------------------------------------------------------------------------- */

/* Where a row has no visible key in common with the row before it, because a new document begins, a
 * new panel begins too, so that no panel reads the keys of both. */
void at_find_visible(const at_row_plan *plan, const at_row_block *rows, int64_t from, int64_t to,
                     at_row_scratch *scratch, int64_t *first_visible, int64_t *last_visible) {
    const at_query_side *query = rows->query;
    const at_modifier *modifier = at_query_modifier(query);
    int64_t begin = 0, last_before = INT64_MAX;
    *first_visible = to;
    *last_visible = from;
    scratch->panels = 0;
    for (int64_t r = 0; r < rows->count; r++) {
        int64_t first, last;
        const int64_t i = at_query_of(rows, r);
        query->visible_keys(query->visible_keys_context, rows->b, i, &first, &last);
        if (modifier) at_modifier_narrow(modifier, rows->b, at_head_of(rows, r), i, &first, &last);
        if (first >= last_before && first < last && r - begin >= plan->tile_rows / 2) {
            add_panels(plan, r - begin, scratch);
            begin = r;
        }
        if (first < last) last_before = last;
        if (first < from) first = from;
        if (last > to) last = to;
        if (first < last) {
            if (first < *first_visible) *first_visible = first;
            if (last > *last_visible) *last_visible = last;
        } else {
            first = last = from;
        }
        scratch->first[r] = (int32_t)(first - from);
        scratch->last[r] = (int32_t)(last - from);
    }
    add_panels(plan, rows->count - begin, scratch);
}

/* The rows [r, r + count) become the step's. begin: the first key of the key block, counted as
 * scratch->first is. */
static void set_rows(const at_row_plan *plan, const at_row_scratch *scratch, const at_sums *sums,
                     int64_t r, int count, int64_t begin, at_step *step) {
    const int64_t end = step->tiles * AT_TILE;
    step->rows = count;
    step->q = scratch->q + r * at_round_up(plan->layout.D, AT_DIM);
    step->q_scale = scratch->q_scale + 3 * r;
    step->o = sums->o + r * plan->Dvp;
    step->max = sums->max + r;
    step->sum = sums->sum + r;
    step->from = (int)end;
    step->to = 0;
    for (int i = 0; i < count; i++) {
        int64_t first = scratch->first[r + i] - begin, last = scratch->last[r + i] - begin;
        if (first < 0) first = 0;
        if (last > end) last = end;
        if (first >= last) first = last = 0;
        step->first[i] = (int)first;
        step->last[i] = (int)last;
        if (first >= last) continue;
        if (first < step->from) step->from = (int)first;
        if (last > step->to) step->to = (int)last;
    }
}

/* Whether the mask shows some key of the tile that begins with `key` to one of the rows
 * [r, r + count). */
static bool any_visible(const at_row_block *rows, int64_t r, int64_t count, int64_t key) {
    const at_modifier *m = &rows->query->modifier;
    const int64_t i = at_query_of(rows, r), i_end = at_query_of(rows, r + count - 1) + 1,
                  G = rows->query->G, heads = m->map->rows_h > 1 ? G : 1;
    for (int64_t g = 0; g < heads; g++)
        if (at_modifier_any_visible(m, rows->b, rows->h * G + g, i, i_end, key)) return true;
    return false;
}

/* The first tile from `tile` on, and before `end`, with a visible key. */
static int64_t next_visible(const at_row_block *rows, int64_t tile, int64_t end) {
    while (has_gaps(rows) && tile < end && !any_visible(rows, 0, rows->count, tile * AT_TILE))
        tile++;
    return tile;
}

/* The number of tiles with a visible key from `tile` on, without a gap, at most a key block's. */
static int visible_tiles(const at_row_plan *plan, const at_row_block *rows, int64_t tile,
                         int64_t end) {
    const int max = (int)(end - tile < plan->block_tiles ? end - tile : plan->block_tiles);
    int tiles = 1;
    while (tiles < max &&
           (!has_gaps(rows) || any_visible(rows, 0, rows->count, (tile + tiles) * AT_TILE)))
        tiles++;
    return tiles;
}

/* Drops the tiles at both ends of the step in which no row of the panel, which begins with row r,
 * has a visible key. key: the first key of the key block. */
static void trim(const at_row_block *rows, int64_t r, int64_t key, at_step *step) {
    while (step->from < step->to &&
           !any_visible(rows, r, step->rows, key + step->from / AT_TILE * AT_TILE))
        step->from = (step->from / AT_TILE + 1) * AT_TILE;
    while (step->from < step->to &&
           !any_visible(rows, r, step->rows, key + (step->to - 1) / AT_TILE * AT_TILE))
        step->to = (step->to - 1) / AT_TILE * AT_TILE;
    for (int i = 0; i < step->rows; i++) {
        if (step->first[i] < step->from) step->first[i] = step->from;
        if (step->last[i] > step->to) step->last[i] = step->to;
        if (step->first[i] >= step->last[i]) step->first[i] = step->last[i] = 0;
    }
}

/* ---- steps ----------------------------------------------------------------------------------- */

/* Runs the score program and the mask on the scores of a step. */
static void modify(const at_row_block *rows, int64_t r, int64_t key, at_row_scratch *scratch,
                   const at_step *step) {
    const bool scale = has_score(rows->query) && step->scale != 1 && step->softcap == 0;
    for (int i = 0; i < step->rows; i++) {
        float *x = step->scores + i * AT_SCORE_STRIDE + step->first[i];
        const int n = step->last[i] - step->first[i];
        if (n <= 0) continue;
        if (scale)
            at_simd_now()->program.apply(ATTUNE_OP_MUL, (at_values){x, 1},
                                         (at_values){&step->scale, 0}, (at_values){0}, x, n);
        at_modify(&rows->query->modifier, rows->b, at_head_of(rows, r + i),
                  at_query_of(rows, r + i), key + step->first[i], n, x, scratch->modifier);
    }
}

bool at_score_step(const at_row_loop *loop, int64_t r, int64_t key, at_step *step) {
    const at_attention_kernels *kernels = &at_simd_now()->attention;
    const at_row_block *rows = loop->rows;
    if (step->masked && step->from < step->to) trim(rows, r, key, step);
    if (step->from >= step->to) return false;
    kernels->scores(step);
    if (rows->query->softcap > 0) kernels->cap(step);
    if (at_modifies(&rows->query->modifier)) modify(rows, r, key, loop->scratch, step);
    return true;
}

/* The softmax of a step with the summaries of its rows. */
static void summarized_softmax(const at_row_loop *loop, int64_t r, int64_t key, at_step *step) {
    const at_row_block *rows = loop->rows;
    const at_sums *sums = loop->sums;
    float *query = loop->scratch->query;
    for (int i = 0; i < step->rows; i++)
        query[i] =
            (float)(at_query_token(loop->summaries, rows->b, at_query_of(rows, r + i)) - key);
    const at_step_summaries summaries = {.exponents = sums->exponents + r,
                                         .distances = sums->distances + r,
                                         .first = sums->first + r,
                                         .query = query,
                                         .first_columns =
                                             key < AT_FIRST_KEYS ? (int)(AT_FIRST_KEYS - key) : 0};
    at_simd_now()->attention.summarized_softmax(step, &summaries);
}

static void attend_step(const at_row_loop *loop, int64_t r, int64_t key, at_step *step) {
    const at_attention_kernels *kernels = &at_simd_now()->attention;
    if (!at_score_step(loop, r, key, step)) return;
    if (loop->plan->keeps_scores) at_keep_scores(loop, r, key, step);
    if (loop->plan->summarized)
        summarized_softmax(loop, r, key, step);
    else
        kernels->softmax(step);
    kernels->values(step);
}

attune_status at_each_step(const at_row_loop *loop) {
    const at_row_plan *plan = loop->plan;
    const at_row_block *rows = loop->rows;
    const at_keys *keys = loop->keys;
    const at_query_side *query = rows->query;
    at_row_scratch *scratch = loop->scratch;
    int64_t first_visible, last_visible;
    at_find_visible(plan, rows, loop->from, loop->to, scratch, &first_visible, &last_visible);
    pack_queries(plan, rows, scratch);

    at_step step = {.product = plan->product,
                    .dtype = plan->layout.dtype,
                    .D = plan->layout.D,
                    .Dv = plan->layout.Dv,
                    .part_count = scratch->panels,
                    .factor = plan->factor,
                    .scale = (float)scale_of_products(plan, query),
                    .softcap = (float)query->softcap,
                    .scores = scratch->scores,
                    .weights = scratch->weights};
    const int64_t end = at_ceil_div(last_visible, AT_TILE);
    int64_t prefetch_end = keys->prefetch_end ? at_ceil_div(keys->prefetch_end, AT_TILE) : end;
    if (plan->few) prefetch_end = 0;
    step.masked = has_gaps(rows);
    int64_t tile = next_visible(rows, first_visible / AT_TILE, end);
    while (tile < end) {
        const int tiles = visible_tiles(plan, rows, tile, end);
        set_tiles(plan, keys, tile, tiles, prefetch_end, scratch, &step);
        for (int p = 0, r = 0; p < scratch->panels; p++) {
            step.part_index = p;
            set_rows(plan, scratch, loop->sums, r, scratch->panel[p], tile * AT_TILE - loop->from,
                     &step);
            loop->visit(loop, r, tile * AT_TILE, &step);
            r += scratch->panel[p];
        }
        if (at_interrupted()) return at_interrupted_status();
        tile = next_visible(rows, tile + tiles, end);
    }
    return ATTUNE_OK;
}

attune_status at_attend_rows(const at_row_plan *plan, const at_row_block *rows, const at_keys *keys,
                             int64_t from, int64_t to, const at_summaries *summaries,
                             at_row_scratch *scratch, at_sums *sums) {
    const size_t bytes = (size_t)rows->count * sizeof(float);
    memset(sums->o, 0, (size_t)plan->Dvp * bytes);
    for (int64_t r = 0; r < rows->count; r++) {
        sums->max[r] = -INFINITY;
        sums->sum[r] = 0;
    }
    if (plan->summarized) {
        memset(sums->exponents, 0, bytes);
        memset(sums->distances, 0, bytes);
        memset(sums->first, 0, bytes);
    }
    const at_row_loop loop = {.plan = plan,
                              .rows = rows,
                              .keys = keys,
                              .from = from,
                              .to = to,
                              .summaries = summaries,
                              .scratch = scratch,
                              .sums = sums,
                              .visit = attend_step};
    return at_each_step(&loop);
}

/* ---- results --------------------------------------------------------------------------------- */

/* Stores n of the sums, times factor, in o. f32_row: scratch [n]. */
static void store_row(attune_tensor *o, int64_t offset, const float *sums, float factor, int64_t n,
                      float *f32_row) {
    const at_elementwise_kernels *kernels = &at_simd_now()->elementwise;
    if (o->dtype == ATTUNE_F32) {
        kernels->scale(sums, factor, (float *)o->data + offset, n);
        return;
    }
    kernels->scale(sums, factor, f32_row, n);
    (o->dtype == ATTUNE_BF16 ? kernels->f32_to_bf16
                             : kernels->f32_to_f16)(f32_row, (uint16_t *)o->data + offset, n);
}

/* What the summaries need of row r. sum: of all powers of two and of the sink, relative to its
 * origin, which is `shift` (at most 0) from the origin of the sums. index: of the row in lse. */
static void finish_summaries(const at_row_block *rows, const at_sums *sums, int64_t r, double sum,
                             double shift, int64_t index, const at_summaries *summaries) {
    const double shrink = exp2(shift), own = (double)sums->sum[r];
    if (at_wants_columns(summaries)) {
        const at_query_side *query = rows->query;
        const int64_t head = rows->b * query->Hk + rows->h,
                      row = head * query->Sq * query->G + rows->begin + r;
        summaries->max[row] = sums->max[r];
        summaries->inverse[row] = sum == 0 ? 0.0f : (float)(shrink / sum);
    }
    if (!summaries->of_rows) return;
    if (sum == 0) {
        at_summaries_store(summaries, index, 0, 0, 0);
        return;
    }
    const double part = shrink / sum, exponents = (double)sums->exponents[r] + own * shift;
    at_summaries_store(summaries, index, AT_LN_2 * part * (log2(sum) * own - exponents),
                       part * (double)sums->distances[r], part * (double)sums->first[r]);
}

void at_finish_rows(const at_row_plan *plan, const at_row_block *rows, const at_sums *sums,
                    const at_results *results) {
    enum { CHUNK = 512 };
    attune_tensor *o = results->o, *lse = results->lse;
    const int64_t Hq = o->shape[1], Sq = o->shape[2], Dv = plan->layout.Dv;
    const float *sinks = rows->query->sinks;
    float f32_row[CHUNK];
    for (int64_t r = 0; r < rows->count; r++) {
        const int64_t h = at_head_of(rows, r),
                      index = (rows->b * Hq + h) * Sq + at_query_of(rows, r);
        double max = at_origin(sums->max[r], plan->factor), sum = (double)sums->sum[r], shift = 0,
               shrink = 1;
        /* Beside a large max the rounding of `factor` would be a wrong lse and a wrong sink. */
        if (at_is_large(sums->max[r], plan->factor))
            max = (double)sums->max[r] * plan->scale * AT_LOG2_E;
        if (sinks) {
            const double sink = (double)sinks[h] * AT_LOG2_E, new_max = sink > max ? sink : max;
            shift = max == -INFINITY ? 0 : max - new_max;
            shrink = exp2(shift);
            sum = sum * shrink + exp2(sink - new_max);
            max = new_max;
        }
        /* Without a visible key, or with all scores -inf, the sums are zero and so is o. */
        const float factor = sum == 0 ? 0.0f : (float)(shrink / sum);
        for (int64_t d = 0; d < Dv; d += CHUNK)
            store_row(o, index * Dv + d, sums->o + r * plan->Dvp + d, factor,
                      Dv - d < CHUNK ? Dv - d : CHUNK, f32_row);
        if (results->summaries)
            finish_summaries(rows, sums, r, sum, shift, index, results->summaries);
        ((float *)lse->data)[index] = sum == 0 ? -INFINITY : (float)((max + log2(sum)) * AT_LN_2);
    }
}
