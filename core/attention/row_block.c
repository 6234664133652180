/* rows.c - a block of rows on its way over the keys of its kv head. */
#include "attention/row_block.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/numbers.h"
#include "base/parallel.h"
#include "base/status.h"
#include "simd/table.h"

static const double LOG2_E = 1.44269504088896340736, LN_2 = 0.693147180559945309417;

at_layout at_layout_of(attune_dtype dtype, int64_t D, int64_t Dv) {
    const int64_t size = AT_TILE * attune_dtype_size(dtype);
    at_layout l = {
        .dtype = dtype, .D = D, .Dv = Dv, .v = at_checked_mul(size, at_round_up(D, AT_DIM))};
    l.bytes = l.v + at_checked_mul(size, at_round_up(Dv, AT_DIM));
    return l;
}

attune_dtype at_packed_dtype(attune_dtype k, attune_dtype v) {
    return k == v && (k == ATTUNE_BF16 || k == ATTUNE_F16) ? k : ATTUNE_F32;
}

/* ---- plan and scratch ------------------------------------------------------------------------ */

/* A key block (K and V, 256 tokens of 128 dims in f32: 256 KiB) and the rows' q and o (252 rows:
 * another 256 KiB) stay in L2 together while each panel of rows walks over the block, and the next
 * block is fetched meanwhile; more dims make both shorter. Few rows, at most FEW or half a panel,
 * read memory as fast as it comes, one tile at a time, fetching what comes FETCH_BYTES later in
 * that one stream: the processor's own prefetching pauses at every softmax. One row over f32 was
 * faster without. */
enum { FEW = 4, FETCH_BYTES = 8192 };
at_row_plan at_plan_rows(int64_t most, const at_layout *layout, attune_dtype q, int64_t raw) {
    const at_attention_kernels *kernels = &at_simd_now()->attention;
    at_row_plan plan = {.product = kernels->product(layout->dtype, q),
                        .Dvp = at_round_up(layout->Dv, AT_DIM),
                        .layout = *layout};
    const int64_t dims = at_round_up(layout->D, AT_DIM) + plan.Dvp;
    plan.tile_rows = kernels->rows[plan.product];
    int64_t panels = (64 * 1024) / dims / plan.tile_rows;
    if (panels > 252 / plan.tile_rows) panels = 252 / plan.tile_rows;
    if (panels < 1) panels = 1;
    plan.rows = panels * plan.tile_rows;
    if (plan.rows > most) plan.rows = most;
    plan.few = plan.rows <= FEW || 2 * plan.rows <= plan.tile_rows;
    plan.fetch_bytes =
        !plan.few || (plan.rows == 1 && layout->dtype == ATTUNE_F32) ? 0 : FETCH_BYTES;
    const int64_t tiles = 256 * 1024 / layout->bytes;
    plan.block_tiles = tiles < 1 || plan.few    ? 1
                       : tiles > AT_BLOCK_TILES ? AT_BLOCK_TILES
                                                : (int)tiles;
    plan.kept = raw && raw < plan.block_tiles ? plan.block_tiles : raw;
    return plan;
}

attune_status at_row_scratch_new(const at_row_plan *plan, at_row_scratch *out) {
    const int64_t rows = plan->rows, D = plan->layout.D,
                  wide = D > plan->layout.Dv ? D : plan->layout.Dv, f = (int64_t)sizeof(float);
    const int64_t tiles = plan->kept,
                  wide_rows = plan->tile_rows > AT_TILE ? plan->tile_rows : AT_TILE;
    const int64_t bytes[] = {rows * plan->Dvp * f,                  /* sums.o */
                             rows * f,                              /* sums.max */
                             rows * f,                              /* sums.sum */
                             at_queries_bytes(rows, D),             /* q */
                             3 * rows * f,                          /* q_scale */
                             plan->tile_rows * AT_SCORE_STRIDE * f, /* scores */
                             plan->tile_rows * AT_SCORE_STRIDE * f, /* weights */
                             wide_rows * wide * f,                  /* wide */
                             rows * (int64_t)sizeof(int32_t),       /* first */
                             rows * (int64_t)sizeof(int32_t),       /* last */
                             rows * (int64_t)sizeof(int32_t),       /* panel */
                             tiles * plan->layout.bytes,            /* block */
                             tiles * (int64_t)sizeof(int64_t),      /* held */
                             tiles,                                 /* nonfinite */
                             plan->modifier_bytes};
    enum { PARTS = sizeof bytes / sizeof bytes[0] };
    int64_t total = 0, offset[PARTS];
    for (int i = 0; i < PARTS; i++)
        offset[i] = total = at_round_up(total, AT_ALIGNMENT), total += bytes[i];
    char *all = at_alloc(total);
    memset(out, 0, sizeof *out);
    if (!all) return ATTUNE_EMEMORY;
    if (tiles) memset(all + offset[11], 0, (size_t)bytes[11]); /* what pads a tile must be finite */
    if (tiles) memset(all + offset[12], -1, (size_t)bytes[12]);
    out->all = all;
    out->sums = (at_sums){.o = (float *)(all + offset[0]),
                          .max = (float *)(all + offset[1]),
                          .sum = (float *)(all + offset[2])};
    out->q = (float *)(all + offset[3]), out->q_scale = (float *)(all + offset[4]);
    out->scores = (float *)(all + offset[5]), out->weights = (float *)(all + offset[6]),
    out->wide = (float *)(all + offset[7]);
    out->first = (int32_t *)(all + offset[8]), out->last = (int32_t *)(all + offset[9]);
    out->packed[3] = -1;
    out->panel = (int32_t *)(all + offset[10]);
    out->held = (int64_t *)(all + offset[12]);
    out->modifier = all + offset[14];
    out->block = (at_keys){.layout = plan->layout,
                           .places = all + offset[11],
                           .nonfinite = (uint8_t *)(all + offset[13])};
    return ATTUNE_OK;
}

void at_row_scratch_free(at_row_scratch *scratch) {
    at_free(scratch->all);
    scratch->all = NULL;
}

/* ---- packing --------------------------------------------------------------------------------- */

/* n elements of a row, stride apart, as f32. Returns the row itself where it lies so already. */
static const float *widen_row(const attune_tensor *t, int64_t offset, int64_t stride, int64_t n,
                              float *to) {
    const at_elementwise_kernels *kernels = &at_simd_now()->elementwise;
    if (t->dtype == ATTUNE_F32) {
        const float *x = (const float *)t->data + offset;
        if (stride == 1) return x;
        for (int64_t i = 0; i < n; i++) to[i] = x[i * stride];
        return to;
    }
    const uint16_t *x = (const uint16_t *)t->data + offset;
    if (stride == 1) {
        (t->dtype == ATTUNE_BF16 ? kernels->bf16_to_f32 : kernels->f16_to_f32)(x, to, n);
        return to;
    }
    for (int64_t i = 0; i < n; i++)
        to[i] =
            t->dtype == ATTUNE_BF16 ? at_bf16_to_f32(x[i * stride]) : at_f16_to_f32(x[i * stride]);
    return to;
}

/* Token `token` of head (b, h), turned, as a row of its own. */
static void turned_row(const attune_tensor *t, const at_rotation *turns, int64_t b, int64_t h,
                       int64_t token, float *to) {
    const int64_t *s = t->stride, n = t->shape[3];
    const float *row = widen_row(t, b * s[0] + h * s[1] + token * s[2], s[3], n, to);
    if (turns)
        at_rotate_token(turns, b, token, row, to);
    else if (row != to)
        memcpy(to, row, (size_t)n * sizeof *row);
}

/* Tokens first .. first + count - 1 of head (b, h), as f32 rows *stride floats apart. */
static const float *widen_rows(const attune_tensor *t, const at_rotation *turns, int64_t b,
                               int64_t h, int64_t first, int64_t count, float *to,
                               int64_t *stride) {
    const int64_t *s = t->stride, n = t->shape[3];
    if (!turns && t->dtype == ATTUNE_F32 && s[3] == 1) {
        *stride = s[2];
        return (const float *)t->data + b * s[0] + h * s[1] + first * s[2];
    }
    *stride = n;
    for (int64_t i = 0; i < count; i++) turned_row(t, turns, b, h, first + i, to + i * n);
    return to;
}

void at_pack_tile(const at_keys *keys, int64_t place, int slot, const at_source *source,
                  int64_t first, int64_t count, float *wide) {
    const at_attention_kernels *kernels = &at_simd_now()->attention;
    const at_layout *l = &keys->layout;
    char *at = keys->places + place * l->bytes;
    float *scales = keys->scales ? keys->scales + place * 2 * AT_TILE : NULL;
    int64_t stride;
    const float *x =
        widen_rows(source->k, source->turns, source->b, source->h, first, count, wide, &stride);
    kernels->pack_keys(x, stride, slot, (int)count, l->D, l->dtype, at, scales);
    x = widen_rows(source->v, NULL, source->b, source->h, first, count, wide, &stride);
    if (!kernels->pack_values(x, stride, slot, (int)count, l->Dv, l->dtype, at + l->v,
                              scales ? scales + AT_TILE : NULL))
        keys->nonfinite[place] = 1;
}

/* `count` rows more, in panels of nearly equal height: 32 rows are 11, 11 and 10, not 14, 14 and 4.
 */
static void add_panels(const at_row_plan *plan, int64_t count, at_row_scratch *scratch) {
    const int64_t panels = (count + plan->tile_rows - 1) / plan->tile_rows;
    for (int64_t p = 0; p < panels; p++)
        scratch->panel[scratch->panels++] = (int32_t)(count / panels + (p < count % panels));
}

/* The softmax multiplies by the scale, but for its sign: the greatest score is to be the one of the
 * greatest exponent. */
static float sign_of(double scale) { return scale > 0 ? 1.0f : scale < 0 ? -1.0f : 0.0f; }

/* A score program wants scores as they are. Where rows are f32 their scale can go into them. */
static bool has_score(const at_row_block *rows) {
    return rows->modifier && rows->modifier->score.program;
}
static bool scaled_ahead(const at_row_plan *plan, const at_row_block *rows) {
    return has_score(rows) && plan->product == AT_FMA;
}

/* Packs the rows' q panel by panel, unless scratch holds them since an earlier run of keys. */
static void pack_queries(const at_row_plan *plan, const at_row_block *rows,
                         at_row_scratch *scratch) {
    const at_attention_kernels *kernels = &at_simd_now()->attention;
    const int64_t wanted[4] = {rows->b, rows->h, rows->begin, rows->count}, D = plan->layout.D,
                  Dp = at_round_up(D, AT_DIM);
    const float factor = scaled_ahead(plan, rows) ? (float)rows->scale : sign_of(rows->scale);
    if (memcmp(wanted, scratch->packed, sizeof wanted) == 0) return;
    memcpy(scratch->packed, wanted, sizeof wanted);
    for (int64_t p = 0, r = 0; p < scratch->panels; p++) {
        const int count = scratch->panel[p];
        int64_t stride = D;
        const float *x = scratch->wide;
        if (rows->G == 1)
            x = widen_rows(rows->q, rows->turns, rows->b, rows->h, rows->begin + r, count,
                           scratch->wide, &stride);
        for (int i = 0; i < count && rows->G > 1; i++) {
            const int64_t row = rows->begin + r + i;
            turned_row(rows->q, rows->turns, rows->b, rows->h * rows->G + row % rows->G,
                       row / rows->G, scratch->wide + i * D);
        }
        kernels->pack_queries(plan->product, x, stride, count, D, factor, scratch->q + r * Dp,
                              scratch->q_scale + 3 * r);
        r += count;
    }
}

/* ---- the walk -------------------------------------------------------------------------------- */

/* A place's tiles and scales in slot t of a step. */
static void point_at(const at_keys *keys, int64_t place, int t, at_step *step) {
    const at_layout *l = &keys->layout;
    const char *at = keys->places + place * l->bytes;
    step->k[t] = at, step->v[t] = at + l->v;
    if (keys->scales) {
        step->k_scale[t] = keys->scales + place * 2 * AT_TILE,
        step->v_scale[t] = step->k_scale[t] + AT_TILE;
        /* The next place's, as they lie apart from what the processor reads on from. */
        for (int line = 0; line < 8; line++)
            __builtin_prefetch(step->k_scale[t] + 2 * AT_TILE + 16 * line);
    }
    if (keys->nonfinite && keys->nonfinite[place]) step->v_finite = false;
}

/* Tiles packed on the way, into the scratch's own block, unless they are there. */
static void pack_block(const at_row_plan *plan, const at_keys *keys, int64_t tile, int tiles,
                       at_row_scratch *scratch, at_step *step) {
    const at_source *from = &keys->source;
    const int64_t tokens = from->k->shape[2], head = from->b * from->k->shape[1] + from->h,
                  all = (tokens + AT_TILE - 1) / AT_TILE;
    for (int t = 0; t < tiles; t++) {
        const int64_t place = (tile + t) % plan->kept, number = head * all + tile + t,
                      first = (tile + t) * AT_TILE, left = tokens - first,
                      count = left < AT_TILE ? left : AT_TILE;
        if (scratch->held[place] != number) {
            /* An Inf of an earlier tile must not stay behind the last token. */
            if (count < AT_TILE)
                memset(scratch->block.places + place * keys->layout.bytes, 0,
                       (size_t)keys->layout.bytes);
            scratch->block.nonfinite[place] = 0;
            at_pack_tile(&scratch->block, place, 0, from, first, count, scratch->wide);
            scratch->held[place] = number;
        }
        point_at(&scratch->block, place, t, step);
    }
}

/* To fetch, wherever it may lie. */
static const void *later(const void *p, int64_t bytes) {
    return (const void *)((uintptr_t)p + (uintptr_t)bytes);
}

/* Tiles tile .. tile + tiles - 1 into the step, and what follows before tile `end` as tiles ahead.
 */
static void fill_block(const at_row_plan *plan, const at_keys *keys, int64_t tile, int tiles,
                       int64_t end, at_row_scratch *scratch, at_step *step) {
    step->tiles = tiles;
    step->v_finite = true;
    if (!keys->places) {
        pack_block(plan, keys, tile, tiles, scratch, step);
        return;
    }
    for (int t = 0; t < tiles; t++) {
        const int64_t next = tile + tiles + t;
        point_at(keys, keys->ring ? (tile + t) % keys->ring : tile + t, t, step);
        if (plan->few) {
            if (plan->fetch_bytes)
                step->k_ahead[t] = later(step->k[t], plan->fetch_bytes),
                step->v_ahead[t] = later(step->v[t], plan->fetch_bytes);
            continue;
        }
        const char *ahead =
            next < end ? keys->places + (keys->ring ? next % keys->ring : next) * keys->layout.bytes
                       : NULL;
        step->k_ahead[t] = ahead, step->v_ahead[t] = ahead ? ahead + keys->layout.v : NULL;
    }
}

/* What each row sees of the keys [from, to), counted from `from`; gives all rows' first and last
 * key, counted from 0. Makes the panels: where a row sees nothing of what the row before it sees,
 * as a document begins, a panel does too, and does not go over the keys of both. */
static void look(const at_row_plan *plan, const at_row_block *rows, int64_t from, int64_t to,
                 at_row_scratch *scratch, int64_t *first_seen, int64_t *last_seen) {
    int64_t begin = 0, seen_before = INT64_MAX;
    *first_seen = to, *last_seen = from;
    scratch->panels = 0;
    for (int64_t r = 0; r < rows->count; r++) {
        int64_t first, last;
        const int64_t i = (rows->begin + r) / rows->G;
        rows->sees(rows->context, rows->b, i, &first, &last);
        if (rows->modifier)
            at_modifier_narrow(rows->modifier, rows->b,
                               rows->h * rows->G + (rows->begin + r) % rows->G, i, &first, &last);
        if (first >= seen_before && first < last && r - begin >= plan->tile_rows / 2)
            add_panels(plan, r - begin, scratch), begin = r;
        if (first < last) seen_before = last;
        if (first < from) first = from;
        if (last > to) last = to;
        if (first < last) {
            if (first < *first_seen) *first_seen = first;
            if (last > *last_seen) *last_seen = last;
        } else {
            first = last = from;
        }
        scratch->first[r] = (int32_t)(first - from), scratch->last[r] = (int32_t)(last - from);
    }
    add_panels(plan, rows->count - begin, scratch);
}

/* Rows r .. r + count - 1 of the scratch become the step's; begin: the block's first key, counted
 * as first and last are. */
static void take_rows(const at_row_plan *plan, const at_row_scratch *scratch, const at_sums *sums,
                      int64_t r, int count, int64_t begin, at_step *step) {
    const int64_t end = step->tiles * AT_TILE;
    step->rows = count;
    step->q = scratch->q + r * at_round_up(plan->layout.D, AT_DIM),
    step->q_scale = scratch->q_scale + 3 * r;
    step->o = sums->o + r * plan->Dvp, step->max = sums->max + r, step->sum = sums->sum + r;
    step->from = (int)end, step->to = 0;
    for (int i = 0; i < count; i++) {
        int64_t first = scratch->first[r + i] - begin, last = scratch->last[r + i] - begin;
        if (first < 0) first = 0;
        if (last > end) last = end;
        if (first >= last) first = last = 0;
        step->first[i] = (int)first, step->last[i] = (int)last;
        if (first >= last) continue;
        if (first < step->from) step->from = (int)first;
        if (last > step->to) step->to = (int)last;
    }
}

/* Whether one of the rows sees something of a tile. */
static bool shown(const at_row_block *rows, int64_t begin, int64_t count, int64_t key) {
    const at_modifier *m = rows->modifier;
    const int64_t i = begin / rows->G, i_end = (begin + count - 1) / rows->G + 1,
                  heads = m->map->rows_h > 1 ? rows->G : 1;
    for (int64_t g = 0; g < heads; g++)
        if (at_modifier_any_visible(m, rows->b, rows->h * rows->G + g, i, i_end, key)) return true;
    return false;
}

static bool has_gaps(const at_row_block *rows) {
    return rows->modifier && at_has_gaps(rows->modifier);
}

/* The next tile before `end` that some row sees something of, and how many follow it that do. */
static int64_t next_shown(const at_row_block *rows, int64_t tile, int64_t end) {
    while (has_gaps(rows) && tile < end && !shown(rows, rows->begin, rows->count, tile * AT_TILE))
        tile++;
    return tile;
}

static int tiles_shown(const at_row_plan *plan, const at_row_block *rows, int64_t tile,
                       int64_t end) {
    const int most = (int)(end - tile < plan->block_tiles ? end - tile : plan->block_tiles);
    int tiles = 1;
    while (tiles < most &&
           (!has_gaps(rows) || shown(rows, rows->begin, rows->count, (tile + tiles) * AT_TILE)))
        tiles++;
    return tiles;
}

/* Leaves off tiles at the ends that none of the panel's rows sees anything of. */
static void trim(const at_row_block *rows, int64_t r, int64_t key, at_step *step) {
    while (step->from < step->to &&
           !shown(rows, rows->begin + r, step->rows, key + step->from / AT_TILE * AT_TILE))
        step->from = (step->from / AT_TILE + 1) * AT_TILE;
    while (step->from < step->to &&
           !shown(rows, rows->begin + r, step->rows, key + (step->to - 1) / AT_TILE * AT_TILE))
        step->to = (step->to - 1) / AT_TILE * AT_TILE;
    for (int i = 0; i < step->rows; i++) {
        if (step->first[i] < step->from) step->first[i] = step->from;
        if (step->last[i] > step->to) step->last[i] = step->to;
        if (step->first[i] >= step->last[i]) step->first[i] = step->last[i] = 0;
    }
}

/* The scores of a panel, from row r on, against the keys of a block that begins with `key`. */
static void modify(const at_row_block *rows, int64_t r, int64_t key, at_row_scratch *scratch,
                   const at_step *step) {
    const bool scale = has_score(rows) && step->scale != 1 && step->softcap == 0;
    for (int i = 0; i < step->rows; i++) {
        const int64_t row = rows->begin + r + i;
        float *x = step->scores + i * AT_SCORE_STRIDE + step->first[i];
        const int n = step->last[i] - step->first[i];
        if (n <= 0) continue;
        if (scale)
            at_simd_now()->program.apply(ATTUNE_OP_MUL, (at_values){x, 1},
                                         (at_values){&step->scale, 0}, (at_values){0}, x, n);
        at_modify(rows->modifier, rows->b, rows->h * rows->G + row % rows->G, row / rows->G,
                  key + step->first[i], n, x, scratch->modifier);
    }
}

attune_status at_attend_rows(const at_row_plan *plan, const at_row_block *rows, const at_keys *keys,
                             int64_t from, int64_t to, at_row_scratch *scratch, at_sums *sums) {
    const at_attention_kernels *kernels = &at_simd_now()->attention;
    int64_t first_seen, last_seen;
    look(plan, rows, from, to, scratch, &first_seen, &last_seen);
    memset(sums->o, 0, (size_t)(rows->count * plan->Dvp) * sizeof(float));
    for (int64_t r = 0; r < rows->count; r++) sums->max[r] = -INFINITY, sums->sum[r] = 0;
    pack_queries(plan, rows, scratch);

    const bool modified = has_score(rows);
    const double scale = rows->scale == 0 || scaled_ahead(plan, rows) ? 1 : fabs(rows->scale);
    at_step step = {.product = plan->product,
                    .dtype = plan->layout.dtype,
                    .D = plan->layout.D,
                    .Dv = plan->layout.Dv,
                    .shares = scratch->panels,
                    .factor = (float)(rows->softcap > 0 || modified ? LOG2_E : scale * LOG2_E),
                    .scale = (float)scale,
                    .softcap = (float)rows->softcap,
                    .scores = scratch->scores,
                    .weights = scratch->weights};
    const int64_t end = (last_seen + AT_TILE - 1) / AT_TILE,
                  worth = keys->fetch_end ? (keys->fetch_end + AT_TILE - 1) / AT_TILE : end;
    step.masked = rows->modifier && at_has_gaps(rows->modifier);
    for (int64_t tile = first_seen / AT_TILE; (tile = next_shown(rows, tile, end)) < end;
         tile += step.tiles) {
        fill_block(plan, keys, tile, tiles_shown(plan, rows, tile, end), plan->few ? 0 : worth,
                   scratch, &step);
        for (int p = 0, r = 0; p < scratch->panels; p++) {
            const int count = scratch->panel[p];
            step.share = p;
            take_rows(plan, scratch, sums, r, count, tile * AT_TILE - from, &step);
            if (step.masked && step.from < step.to) trim(rows, r, tile * AT_TILE, &step);
            if (step.from < step.to) {
                kernels->scores(&step);
                if (rows->softcap > 0) kernels->cap(&step);
                if (rows->modifier) modify(rows, r, tile * AT_TILE, scratch, &step);
                kernels->softmax(&step);
                kernels->values(&step);
            }
            r += count;
        }
        if (at_interrupted()) return at_interrupted_status();
    }
    return ATTUNE_OK;
}

static void store_row(attune_tensor *o, int64_t offset, const float *sums, float factor, int64_t n,
                      float *wide) {
    const at_elementwise_kernels *kernels = &at_simd_now()->elementwise;
    kernels->scale(sums, factor, o->dtype == ATTUNE_F32 ? (float *)o->data + offset : wide, n);
    if (o->dtype == ATTUNE_F32) return;
    (o->dtype == ATTUNE_BF16 ? kernels->f32_to_bf16
                             : kernels->f32_to_f16)(wide, (uint16_t *)o->data + offset, n);
}

void at_finish_rows(const at_row_plan *plan, const at_row_block *rows, const float *sinks,
                    const at_sums *sums, attune_tensor *o, attune_tensor *lse) {
    const int64_t Hq = o->shape[1], Sq = o->shape[2], Dv = plan->layout.Dv;
    float wide[512];
    for (int64_t r = 0; r < rows->count; r++) {
        int64_t row = rows->begin + r, i = row / rows->G, h = rows->h * rows->G + row % rows->G;
        int64_t place = (rows->b * Hq + h) * Sq + i;
        double m = (double)sums->max[r], l = (double)sums->sum[r], shrink = 1;
        if (sinks) {
            double sink = (double)sinks[h] * LOG2_E, greatest = sink > m ? sink : m;
            shrink = m == -INFINITY ? 1 : exp2(m - greatest);
            l = l * shrink + exp2(sink - greatest);
            m = greatest;
        }
        /* No key seen, or all scores -inf: the sums are zero, and zero is the answer. */
        float factor = l == 0 ? 0.0f : (float)(shrink / l);
        for (int64_t d = 0; d < Dv; d += 512)
            store_row(o, place * Dv + d, sums->o + r * plan->Dvp + d, factor,
                      Dv - d < 512 ? Dv - d : 512, wide);
        ((float *)lse->data)[place] = l == 0 ? -INFINITY : (float)((m + log2(l)) * LN_2);
    }
}
