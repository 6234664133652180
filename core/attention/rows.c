/* rows.c - a block of rows on its way over the keys of its kv head. */
#include "attention/rows.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/numbers.h"
#include "base/parallel.h"
#include "base/status.h"
#include "simd/table.h"

static const double LOG2_E = 1.44269504088896340736, LN_2 = 0.693147180559945309417;

int64_t at_tile_bytes(int64_t D, attune_dtype dtype) { return AT_TILE * at_round_up(D, AT_DIM) * attune_dtype_size(dtype); }

attune_dtype at_packed_dtype(attune_dtype k, attune_dtype v) { return k == v && (k == ATTUNE_BF16 || k == ATTUNE_F16) ? k : ATTUNE_F32; }

/* ---- plan and scratch -------------------------------------------------------------------------------------------- */

/* A key block (K and V, 256 tokens of 128 dims in f32: 256 KiB) and the rows' q and o (252 rows: another 256 KiB) stay in
 * L2 together while each panel of rows walks over the block; more dims make both shorter. */
at_row_plan at_plan_rows(int64_t most, int64_t D, int64_t Dv, attune_dtype dtype, bool raw) {
    const int tile_rows = at_simd_now()->attention.rows;
    const int64_t dims = at_round_up(D, AT_DIM) + at_round_up(Dv, AT_DIM);
    int64_t panels = (64 * 1024) / dims / tile_rows;
    if (panels > 252 / tile_rows) panels = 252 / tile_rows;
    if (panels < 1) panels = 1;
    at_row_plan plan = {.rows = panels * tile_rows, .D = D, .Dv = Dv, .Dvp = at_round_up(Dv, AT_DIM), .dtype = dtype, .raw = raw};
    if (plan.rows > most) plan.rows = most;
    plan.block_tiles = dims <= 256 ? AT_BLOCK_TILES : dims <= 512 ? AT_BLOCK_TILES / 2 : 1;
    return plan;
}

attune_status at_row_scratch_new(const at_row_plan *plan, at_row_scratch *out) {
    const int64_t rows = plan->rows, wide = plan->D > plan->Dv ? plan->D : plan->Dv;
    int64_t tiles = plan->raw ? plan->block_tiles : 0;
    int64_t bytes[10] = {
        rows * at_round_up(plan->D, 2) * (int64_t)sizeof(float), /* q */
        rows * plan->Dvp * (int64_t)sizeof(float),               /* o */
        rows * (int64_t)sizeof(float),                           /* max */
        rows * (int64_t)sizeof(float),                           /* sum */
        AT_MAX_ROWS * AT_SCORE_STRIDE * (int64_t)sizeof(float),  /* scores */
        AT_TILE * wide * (int64_t)sizeof(float),                 /* wide */
        rows * (int64_t)sizeof(int32_t),                         /* first */
        rows * (int64_t)sizeof(int32_t),                         /* last */
        tiles * at_tile_bytes(plan->D, plan->dtype),             /* k */
        tiles * at_tile_bytes(plan->Dv, plan->dtype),            /* v */
    };
    int64_t total = 0, offset[10];
    for (int i = 0; i < 10; i++) offset[i] = total, total += at_round_up(bytes[i], AT_ALIGNMENT);
    char *all = at_alloc(total);
    memset(out, 0, sizeof *out);
    if (!all) return ATTUNE_EMEMORY;
    memset(all + offset[8], 0, (size_t)(total - offset[8])); /* what pads a tile must be finite */
    out->all = all;
    out->q = (float *)(all + offset[0]), out->o = (float *)(all + offset[1]);
    out->max = (float *)(all + offset[2]), out->sum = (float *)(all + offset[3]);
    out->scores = (float *)(all + offset[4]), out->wide = (float *)(all + offset[5]);
    out->first = (int32_t *)(all + offset[6]), out->last = (int32_t *)(all + offset[7]);
    out->k = all + offset[8], out->v = all + offset[9];
    return ATTUNE_OK;
}

void at_row_scratch_free(at_row_scratch *scratch) {
    at_free(scratch->all);
    scratch->all = NULL;
}

/* ---- packing ----------------------------------------------------------------------------------------------------- */

/* n elements of a row, stride apart, as f32. Returns the row itself where it lies so already. */
static const float *widen_row(const attune_tensor *t, int64_t offset, int64_t stride, int64_t n, float *to) {
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
    for (int64_t i = 0; i < n; i++) to[i] = t->dtype == ATTUNE_BF16 ? at_bf16_to_f32(x[i * stride]) : at_f16_to_f32(x[i * stride]);
    return to;
}

/* Rows first .. first + count - 1 of head (b, h), as f32 rows *stride floats apart. */
static const float *widen_rows(const attune_tensor *t, int64_t b, int64_t h, int64_t first, int64_t count, float *to, int64_t *stride) {
    const int64_t *s = t->stride, n = t->shape[3];
    int64_t offset = b * s[0] + h * s[1] + first * s[2];
    if (t->dtype == ATTUNE_F32 && s[3] == 1) {
        *stride = s[2];
        return (const float *)t->data + offset;
    }
    *stride = n;
    for (int64_t i = 0; i < count; i++) {
        const float *row = widen_row(t, offset + i * s[2], s[3], n, to + i * n);
        if (row != to + i * n) memcpy(to + i * n, row, (size_t)n * sizeof *row);
    }
    return to;
}

bool at_pack_tile(const attune_tensor *k, const attune_tensor *v, int64_t b, int64_t h, int64_t first, int64_t count, int slot, attune_dtype dtype,
                  void *k_tile, void *v_tile, float *wide) {
    const at_attention_kernels *kernels = &at_simd_now()->attention;
    int64_t stride;
    const float *x = widen_rows(k, b, h, first, count, wide, &stride);
    kernels->pack_keys(x, stride, slot, (int)count, k->shape[3], dtype, k_tile);
    x = widen_rows(v, b, h, first, count, wide, &stride);
    return kernels->pack_values(x, stride, slot, (int)count, v->shape[3], dtype, v_tile);
}

/* q of each panel's rows, dims outside, times what turns scores into exponents of 2 (and divided by softcap where there is one, as the
 * kernel takes the tanh of what it gets). */
static void pack_queries(const at_rows *rows, int64_t from, int count, int64_t D, float *wide, float *to) {
    const double factor = rows->softcap > 0 ? rows->scale / rows->softcap : rows->scale * LOG2_E;
    const int64_t *s = rows->q->stride;
    for (int r = 0; r < count; r++) {
        int64_t row = rows->begin + from + r, i = row / rows->G, h = rows->h * rows->G + row % rows->G;
        const float *x = widen_row(rows->q, rows->b * s[0] + h * s[1] + i * s[2], s[3], D, wide);
        for (int64_t d = 0; d < D; d++) to[d * count + r] = x[d] * (float)factor;
        if (D % 2) to[D * count + r] = 0; /* bf16 tiles are read by pairs of dims */
    }
}

/* ---- the walk ---------------------------------------------------------------------------------------------------- */

/* Panels of nearly equal height: 32 rows are 11, 11 and 10, not 14, 14 and 4. */
static int panel_rows(int64_t count, int64_t panels, int64_t panel) { return (int)(count / panels + (panel < count % panels)); }

static void fill_block(const at_keys *keys, int64_t tile, int tiles, at_row_scratch *scratch, at_key_block *block) {
    const int64_t k_bytes = at_tile_bytes(keys->D, keys->dtype), v_bytes = at_tile_bytes(keys->Dv, keys->dtype);
    block->tiles = tiles;
    block->v_finite = true;
    for (int t = 0; t < tiles; t++) {
        if (keys->k) {
            int64_t place = keys->ring ? (tile + t) % keys->ring : tile + t;
            block->k[t] = keys->k + place * k_bytes, block->v[t] = keys->v + place * v_bytes;
            if (keys->unfinite && keys->unfinite[place]) block->v_finite = false;
            continue;
        }
        int64_t first = (tile + t) * AT_TILE, left = keys->raw_k->shape[2] - first, count = left < AT_TILE ? left : AT_TILE;
        char *k = scratch->k + t * k_bytes, *v = scratch->v + t * v_bytes;
        if (count < AT_TILE) memset(v, 0, (size_t)v_bytes); /* an Inf of an earlier tile must not stay behind the last token */
        if (!at_pack_tile(keys->raw_k, keys->raw_v, keys->b, keys->h, first, count, 0, keys->dtype, k, v, scratch->wide)) block->v_finite = false;
        block->k[t] = k, block->v[t] = v;
    }
}

attune_status at_attend_rows(const at_row_plan *plan, const at_rows *rows, const at_keys *keys, int64_t from, int64_t to, at_row_scratch *scratch) {
    const at_attention_kernels *kernels = &at_simd_now()->attention;
    const int64_t depth = at_round_up(plan->D, 2), panels = (rows->count + kernels->rows - 1) / kernels->rows;
    int64_t first_seen = to, last_seen = from;

    memset(scratch->o, 0, (size_t)(rows->count * plan->Dvp) * sizeof(float));
    for (int64_t r = 0; r < rows->count; r++) {
        int64_t first, last;
        rows->sees(rows->context, rows->b, (rows->begin + r) / rows->G, &first, &last);
        if (first < from) first = from;
        if (last > to) last = to;
        if (first < last) {
            if (first < first_seen) first_seen = first;
            if (last > last_seen) last_seen = last;
        } else {
            first = last = from;
        }
        scratch->first[r] = (int32_t)(first - from), scratch->last[r] = (int32_t)(last - from);
        scratch->max[r] = -INFINITY, scratch->sum[r] = 0;
    }
    for (int64_t p = 0, r = 0; p < panels; p++) {
        int count = panel_rows(rows->count, panels, p);
        pack_queries(rows, r, count, plan->D, scratch->wide, scratch->q + r * depth);
        r += count;
    }

    at_key_block block = {.dtype = keys->dtype, .D = plan->D, .Dv = plan->Dv, .softcap = (float)rows->softcap, .scores = scratch->scores};
    for (int64_t tile = first_seen / AT_TILE; tile * AT_TILE < last_seen; tile += block.tiles) {
        int64_t left = (last_seen + AT_TILE - 1) / AT_TILE - tile;
        fill_block(keys, tile, (int)(left < plan->block_tiles ? left : plan->block_tiles), scratch, &block);
        block.begin = (int32_t)(tile * AT_TILE - from);
        for (int64_t p = 0, r = 0; p < panels; p++) {
            int count = panel_rows(rows->count, panels, p);
            at_row_panel panel = {.rows = count,
                                  .q = scratch->q + r * depth,
                                  .o = scratch->o + r * plan->Dvp,
                                  .max = scratch->max + r,
                                  .sum = scratch->sum + r,
                                  .first = scratch->first + r,
                                  .last = scratch->last + r};
            kernels->attend(&panel, &block);
            r += count;
        }
        if (at_interrupted()) return at_interrupted_status();
    }
    return ATTUNE_OK;
}

static void store_row(attune_tensor *o, int64_t offset, const float *sums, float factor, int64_t n, float *wide) {
    float *to = o->dtype == ATTUNE_F32 ? (float *)o->data + offset : wide;
    for (int64_t d = 0; d < n; d++) to[d] = sums[d] * factor;
    if (o->dtype == ATTUNE_F32) return;
    const at_elementwise_kernels *kernels = &at_simd_now()->elementwise;
    (o->dtype == ATTUNE_BF16 ? kernels->f32_to_bf16 : kernels->f32_to_f16)(wide, (uint16_t *)o->data + offset, n);
}

void at_finish_rows(const at_row_plan *plan, const at_rows *rows, const float *sinks, const float *max, const float *sum, const float *o_sums, attune_tensor *o,
                    attune_tensor *lse) {
    const int64_t Hq = o->shape[1], Sq = o->shape[2];
    float wide[512];
    for (int64_t r = 0; r < rows->count; r++) {
        int64_t row = rows->begin + r, i = row / rows->G, h = rows->h * rows->G + row % rows->G;
        int64_t place = (rows->b * Hq + h) * Sq + i;
        double m = (double)max[r], l = (double)sum[r], shrink = 1;
        if (sinks) {
            double sink = (double)sinks[h] * LOG2_E, greatest = sink > m ? sink : m;
            shrink = m == -INFINITY ? 1 : exp2(m - greatest);
            l = l * shrink + exp2(sink - greatest);
            m = greatest;
        }
        /* No key seen, or all scores -inf: the sums are zero, and zero is the answer. */
        float factor = l == 0 ? 0.0f : (float)(shrink / l);
        for (int64_t d = 0; d < plan->Dv; d += 512)
            store_row(o, place * plan->Dv + d, o_sums + r * plan->Dvp + d, factor, plan->Dv - d < 512 ? plan->Dv - d : 512, wide);
        ((float *)lse->data)[place] = l == 0 ? -INFINITY : (float)((m + log2(l)) * LN_2);
    }
}
