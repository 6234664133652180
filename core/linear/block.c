/* block.c - features of a block of tokens, and sums over keys. */
#include "linear/block.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "simd/table.h"
#include "tensor/tensor.h"

enum { CAUSAL_BLOCK = 32, BLOCK = 128, TASKS = 32, CAUSAL_HEADS = 8, MIN_BLOCKS = 8 };

/* ---- sections -------------------------------------------------------------------------------- */

static at_linear_cut cut(const at_linear *p, int64_t tokens, int64_t wanted) {
    const int64_t longest = p->causal || p->Sq < p->Sk ? p->Sk : p->Sq, block = p->block ? p->block
                                                                                : p->causal
                                                                                    ? CAUSAL_BLOCK
                                                                                    : BLOCK;
    at_linear_cut out = {.block = block < longest ? block : longest};
    out.section = at_round_up(at_ceil_div(tokens, wanted), out.block);
    if (wanted > 1 && out.section < MIN_BLOCKS * out.block) out.section = MIN_BLOCKS * out.block;
    out.sections = at_ceil_div(tokens, out.section);
    return out;
}

at_linear_cut at_linear_cut_keys(const at_linear *p) {
    const int64_t heads = p->B * p->Hk;
    /* If causal, sections compute the features of their keys twice. They are used only where the
     * heads alone would leave processors idle. */
    return cut(p, p->Sk, p->causal && heads >= CAUSAL_HEADS ? 1 : at_ceil_div(TASKS, heads));
}

at_linear_cut at_linear_cut_queries(const at_linear *p) {
    return cut(p, p->Sq, at_ceil_div(TASKS, p->B * p->Hk));
}

void at_linear_section(const at_linear_cut *cut, int64_t number, int64_t tokens, int64_t *from,
                       int64_t *to) {
    *from = number * cut->section;
    *to = *from + cut->section < tokens ? *from + cut->section : tokens;
}

void at_linear_clear_early(const at_linear *p, attune_tensor *rows) {
    const int64_t early = p->Sq - p->Sk, size = attune_dtype_size(rows->dtype) * rows->shape[3];
    for (int64_t head = 0; head < p->B * p->Hq && early > 0; head++)
        memset((char *)rows->data + head * p->Sq * size, 0, (size_t)(early * size));
}

/* ---- plan and scratch ------------------------------------------------------------------------ */

attune_status at_linear_plan_new(attune_features kind, const attune_tensor *projection, int64_t D,
                                 int64_t Dv, int64_t F, double epsilon, int64_t block,
                                 at_linear_plan *out) {
    const at_simd *simd = at_simd_now();
    const int64_t panel = simd->geometry.panel, M = projection->data ? projection->shape[0] : 0;
    *out = (at_linear_plan){.features = kind,
                            .D = D,
                            .Dv = Dv,
                            .M = M,
                            .F = F,
                            .block = block,
                            .panel = panel,
                            .epsilon = (float)epsilon};
    out->columns = at_round_up(M, panel / 2);
    out->Dvp = at_round_up(Dv, panel / 2);
    out->products = at_checked_mul(F, at_round_up(Dv, panel));
    /* The 16 floats keep neighbouring rows in different cache sets. */
    out->stride = at_round_up(out->columns > F ? out->columns : F, AT_DIM) + 16;
    if (M == 0) return ATTUNE_OK;
    const int64_t floats = at_checked_mul(at_round_up(M, panel), at_round_up(D, AT_DIM));
    float *w = at_alloc(at_checked_mul(M * D, (int64_t)sizeof *w));
    out->projection = w ? at_alloc(at_checked_mul(floats, (int64_t)sizeof *w)) : NULL;
    if (out->projection) {
        for (int64_t i = 0; i < M * D; i++) w[i] = (float)((const double *)projection->data)[i];
        simd->panels.pack_columns(w, D, M, D, out->projection);
    }
    at_free(w);
    return out->projection ? ATTUNE_OK : ATTUNE_EMEMORY;
}

void at_linear_plan_free(at_linear_plan *plan) {
    at_free(plan->projection);
    plan->projection = NULL;
}

static void carve(at_arena *a, const at_linear_plan *p, bool rotated, at_linear_scratch *s) {
    const int64_t rows = p->block, features = rows * p->stride,
                  widest = p->D > p->Dv ? p->D : p->Dv;
    const size_t size = sizeof(float);
    s->k = at_arena_take(a, features, size);
    s->k_rotated = rotated ? at_arena_take(a, features, size) : s->k;
    s->q = at_arena_take(a, features, size);
    s->q_rotated = rotated ? at_arena_take(a, features, size) : s->q;
    s->k_columns = at_arena_take(a, at_round_up(rows, p->panel) * at_round_up(p->F, AT_DIM), size);
    s->v = at_arena_take(a, at_round_up(p->Dv, p->panel) * rows, size);
    s->scores = at_arena_take(a, rows * (at_round_up(rows, p->panel) + 16), size);
    s->o = at_arena_take(a, rows * p->Dvp, size);
    s->f32_rows = at_arena_take(a, rows * widest, size);
    s->row = at_arena_take(a, rows, size);
    s->other = at_arena_take(a, rows, size);
    s->z = at_arena_take(a, p->F, size);
}

attune_status at_linear_scratch_new(const at_linear_plan *p, bool rotated, at_linear_scratch *s) {
    memset(s, 0, sizeof *s);
    carve(&s->arena, p, rotated, s);
    AT_TRY(at_arena_alloc_zeroed(&s->arena));
    carve(&s->arena, p, rotated, s);
    return ATTUNE_OK;
}

void at_linear_scratch_free(at_linear_scratch *s) { at_arena_free(&s->arena); }

const float *at_linear_rows(const attune_tensor *t, int64_t b, int64_t h, int64_t first,
                            int64_t count, float *f32_rows, int64_t *stride) {
    const int64_t *s = t->stride, n = t->shape[3], offset = b * s[0] + h * s[1] + first * s[2];
    if (t->dtype == ATTUNE_F32 && s[3] == 1) {
        *stride = s[2];
        return (const float *)t->data + offset;
    }
    for (int64_t i = 0; i < count; i++)
        at_load_row(t, offset + i * s[2], s[3], n, f32_rows + i * n);
    *stride = n;
    return f32_rows;
}

/* ---- features -------------------------------------------------------------------------------- */

void at_linear_project(const at_linear_plan *p, const float *x, int64_t x_stride, int64_t count,
                       float *to) {
    const at_panel_product product = {.rows = count,
                                      .columns = p->columns,
                                      .depth = p->D,
                                      .a = x,
                                      .a_row = x_stride,
                                      .a_step = 1,
                                      .b = p->projection,
                                      .b_panel = p->panel * at_round_up(p->D, AT_DIM),
                                      .c = to,
                                      .c_row = p->stride};
    at_simd_now()->panels.multiply(&product);
}

/* |x'|^2 / 2 of each row. */
static void half_squares(const at_linear_plan *p, const float *x, int64_t x_stride, int64_t count,
                         float *out) {
    at_simd_now()->linear.squares(x, x_stride, count, p->D, (float)(0.5 / sqrt((double)p->D)), out);
}

/* Replaces M columns x by e^(n - shift) sin(x) + add, then e^(n - shift) cos(x) + add. n NULL:
 * without the exponential. */
static void trigonometric(const at_linear_plan *p, float *f, int64_t count, const float *n,
                          float shift, float add) {
    for (int64_t r = 0; r < count; r++) {
        const float factor = n ? expf(n[r] - shift) : 1;
        for (int64_t m = 0; m < p->M; m++) {
            const float x = f[m];
            f[m] = factor * sinf(x) + add;
            f[p->M + m] = factor * cosf(x) + add;
        }
        f += p->stride;
    }
}

static void find_columns(const at_linear_plan *p, const float *f, int64_t count,
                         const float *max_exponent, int64_t *slots) {
    for (int64_t r = 0; r < count; r++) {
        int64_t m = 0;
        while (m < p->M && f[m] != max_exponent[r]) m++;
        slots[r] = m < p->M ? m : 0; /* NaN */
        f += p->stride;
    }
}

static void rotate_rows(const at_linear_plan *p, const float *x, int64_t count,
                        const at_rotation *rotation, int64_t b, int64_t first, float *out) {
    if (!rotation) return;
    for (int64_t r = 0; r < count; r++)
        at_rotate_token(rotation, b, first + r, x + r * p->stride, out + r * p->stride);
}

void at_linear_queries(const at_linear_plan *p, at_linear_scratch *s, const float *x,
                       int64_t x_stride, int64_t count, const at_rotation *rotation, int64_t b,
                       int64_t first) {
    const at_linear_kernels *kernels = &at_simd_now()->linear;
    if (p->M) at_linear_project(p, x, x_stride, count, s->q);
    switch (p->features) {
    case ATTUNE_FEATURES_FAVOR:
        kernels->max(s->q, p->stride, count, p->M, s->row);
        if (s->best) find_columns(p, s->q, count, s->row, s->best);
        if (p->epsilon > 0) {
            half_squares(p, x, x_stride, count, s->other);
            for (int64_t r = 0; r < count; r++) s->row[r] += s->other[r];
        }
        kernels->exp(s->q, p->stride, count, p->M, s->row, p->epsilon);
        break;
    case ATTUNE_FEATURES_TRIG: trigonometric(p, s->q, count, NULL, 0, p->epsilon); break;
    case ATTUNE_FEATURES_RELU: kernels->relu(s->q, p->stride, count, p->M, p->epsilon); break;
    default: kernels->elu(x, x_stride, count, p->D, p->epsilon, s->q, p->stride); break;
    }
    rotate_rows(p, s->q, count, rotation, b, first, s->q_rotated);
}

float at_linear_max_exponent(const at_linear_plan *p, at_linear_scratch *s, const float *x,
                             int64_t x_stride, int64_t count, bool whole) {
    float best = -INFINITY;
    if (p->features == ATTUNE_FEATURES_FAVOR) {
        at_linear_project(p, x, x_stride, count, s->k);
        at_simd_now()->linear.max(s->k, p->stride, count, p->M, s->row);
        if (whole) half_squares(p, x, x_stride, count, s->other);
        for (int64_t r = 0; r < count; r++)
            best = fmaxf(best, whole ? s->row[r] - s->other[r] : s->row[r]);
    } else if (p->features == ATTUNE_FEATURES_TRIG) {
        half_squares(p, x, x_stride, count, s->other);
        for (int64_t r = 0; r < count; r++) best = fmaxf(best, s->other[r]);
    }
    return best;
}

void at_linear_keys(const at_linear_plan *p, at_linear_scratch *s, const float *x, int64_t x_stride,
                    int64_t count, const at_rotation *rotation, int64_t b, int64_t first,
                    bool running, float *max_exponent, float add) {
    const at_linear_kernels *kernels = &at_simd_now()->linear;
    if (p->M) at_linear_project(p, x, x_stride, count, s->k);
    if (p->features == ATTUNE_FEATURES_FAVOR || p->features == ATTUNE_FEATURES_TRIG)
        half_squares(p, x, x_stride, count, s->other);
    switch (p->features) {
    case ATTUNE_FEATURES_FAVOR:
        if (running) {
            kernels->max(s->k, p->stride, count, p->M, s->row);
            /* With epsilon > 0 the stabiliser is the max of w . x' alone: see attune/linear.h. */
            for (int64_t r = 0; r < count; r++)
                *max_exponent =
                    fmaxf(*max_exponent, p->epsilon > 0 ? s->row[r] : s->row[r] - s->other[r]);
        }
        for (int64_t r = 0; r < count; r++) s->row[r] = s->other[r] + *max_exponent;
        kernels->exp(s->k, p->stride, count, p->M, s->row, add);
        break;
    case ATTUNE_FEATURES_TRIG:
        for (int64_t r = 0; running && r < count; r++)
            *max_exponent = fmaxf(*max_exponent, s->other[r]);
        trigonometric(p, s->k, count, s->other, *max_exponent, add);
        break;
    case ATTUNE_FEATURES_RELU: kernels->relu(s->k, p->stride, count, p->M, add); break;
    default: kernels->elu(x, x_stride, count, p->D, add, s->k, p->stride); break;
    }
    rotate_rows(p, s->k, count, rotation, b, first, s->k_rotated);
}

/* ---- what f32 holds -------------------------------------------------------------------------- */

/* The rounding of |x'|^2 / 2 is a relative error of features: 256 units at most. Features below
 * 2^-126 vanish, so that a denominator below 2^-64 may lack a part of 2^-62, times the number of
 * features and keys. e^60 is 2^86. */
static const float MAX_HALF_SQUARE = 256, MAX_RISE = 60, MIN_DENOMINATOR = 0x1p-64f;

bool at_linear_keys_exceed(const at_linear_plan *p, const at_linear_scratch *s, int64_t count,
                           float first, float max_exponent) {
    if (!at_linear_is_relative(p->features, p->epsilon)) return false;
    for (int64_t r = 0; r < count; r++)
        if (s->other[r] > MAX_HALF_SQUARE && s->other[r] <= FLT_MAX) return true;
    return p->features == ATTUNE_FEATURES_TRIG && max_exponent - first > MAX_RISE;
}

float at_linear_first_exponent(const at_linear_plan *p, const at_linear_scratch *s, float before,
                               int64_t skip) {
    for (int64_t r = 0; r <= skip && p->features == ATTUNE_FEATURES_TRIG; r++)
        before = fmaxf(before, s->other[r]);
    return before;
}

bool at_linear_denominators_exceed(const at_linear_plan *p, const float *denominators,
                                   int64_t count) {
    if (p->features != ATTUNE_FEATURES_FAVOR || p->epsilon > 0) return false;
    for (int64_t r = 0; r < count; r++)
        if (denominators[r] < MIN_DENOMINATOR) return true;
    return false;
}

/* ---- sums ------------------------------------------------------------------------------------ */

int64_t at_linear_sums_floats(const at_linear_plan *p) {
    return at_checked_add(16 + at_round_up(p->F, 16), at_checked_round_up(p->products, 16));
}

at_linear_sums at_linear_sums_at(const at_linear_plan *p, float *memory) {
    return (at_linear_sums){
        .max_exponent = memory[0], .z = memory + 16, .s = memory + 16 + at_round_up(p->F, 16)};
}

void at_linear_sums_clear(const at_linear_plan *p, at_linear_sums *sums) {
    sums->max_exponent = -INFINITY;
    memset(sums->z, 0, (size_t)p->F * sizeof *sums->z);
    memset(sums->s, 0, (size_t)p->products * sizeof *sums->s);
}

void at_linear_sums_rescale(const at_linear_plan *p, at_linear_sums *sums, float max_exponent) {
    const at_elementwise_kernels *kernels = &at_simd_now()->elementwise;
    if (max_exponent == sums->max_exponent) return;
    const float factor =
        sums->max_exponent == -INFINITY ? 0 : expf(sums->max_exponent - max_exponent);
    kernels->scale(sums->z, factor, sums->z, p->F);
    kernels->scale(sums->s, factor, sums->s, p->products);
    sums->max_exponent = max_exponent;
}

void at_linear_sums_merge(const at_linear_plan *p, at_linear_sums *into,
                          const at_linear_sums *from) {
    const at_elementwise_kernels *kernels = &at_simd_now()->elementwise;
    const float max_exponent = fmaxf(into->max_exponent, from->max_exponent),
                factor = from->max_exponent == max_exponent
                             ? 1
                             : expf(from->max_exponent - max_exponent);
    at_linear_sums_rescale(p, into, max_exponent);
    kernels->add_scaled(from->z, factor, into->z, p->F);
    kernels->add_scaled(from->s, factor, into->s, p->products);
}

at_linear_sums at_linear_sums_in(const at_linear_plan *p, float *list, int64_t index) {
    return at_linear_sums_at(p, list + index * at_linear_sums_floats(p));
}

void at_linear_sums_keep(const at_linear_plan *p, float *list, int64_t index,
                         const at_linear_sums *sums) {
    list[index * at_linear_sums_floats(p)] = sums->max_exponent;
}

void at_linear_sums_empty(const at_linear_plan *p, float *list, int64_t index) {
    at_linear_sums sums = at_linear_sums_in(p, list, index);
    at_linear_sums_clear(p, &sums);
    at_linear_sums_keep(p, list, index, &sums);
}

void at_linear_sums_join(const at_linear_plan *p, float *list, int64_t into, int64_t from) {
    at_linear_sums a = at_linear_sums_in(p, list, into), b = at_linear_sums_in(p, list, from);
    at_linear_sums_merge(p, &a, &b);
    at_linear_sums_keep(p, list, into, &a);
}

void at_linear_sums_gather(const at_linear_plan *p, float *list, int64_t sections, bool causal) {
    if (causal) at_linear_sums_empty(p, list, 0);
    for (int64_t n = causal ? 2 : 1; n < sections; n++)
        at_linear_sums_join(p, list, causal ? n : 0, causal ? n - 1 : n);
}

void at_linear_sums_add(const at_linear_plan *p, const at_linear_scratch *s, int64_t count,
                        at_linear_sums *sums) {
    const at_simd *simd = at_simd_now();
    simd->linear.sum(s->k, p->stride, count, p->F, sums->z);
    at_panel_product product = {.rows = p->F,
                                .depth = count,
                                .a = s->k_rotated,
                                .a_row = 1,
                                .a_step = p->stride,
                                .b_panel = p->block * p->panel,
                                .add = true};
    for (int64_t d = 0; d < p->Dvp; d += p->panel) {
        product.columns = p->Dvp - d < p->panel ? p->Dvp - d : p->panel;
        product.b = s->v + d * p->block;
        product.c = sums->s + d * p->F;
        product.c_row = p->panel;
        simd->panels.multiply(&product);
    }
}

/* ---- triangles ------------------------------------------------------------------------------- */

/* The columns of row r that are in the triangle: [*from, *to). */
static void visible_columns(const at_linear_triangle *t, int64_t r, int64_t *from, int64_t *to) {
    *from = t->later && r > t->skip ? r - t->skip : 0;
    *to = t->later || t->skip + r + 1 > t->columns ? t->columns : t->skip + r + 1;
}

void at_linear_add_triangle(const at_linear_plan *p, const at_linear_triangle *t, float *scores) {
    const at_simd *simd = at_simd_now();
    const int64_t width = at_round_up(p->block, p->panel) + 16;
    for (int64_t first = 0, n; first < t->rows; first += n) {
        int64_t from, to, own, end;
        n = t->rows - first < t->strip ? t->rows - first : t->strip;
        visible_columns(t, first, &from, &end);
        visible_columns(t, first + n - 1, &own, &to);
        const int64_t start = from / p->panel * p->panel;
        const at_panel_product products = {.rows = n,
                                           .columns = at_round_up(to - start, p->panel / 2),
                                           .depth = t->depth,
                                           .a = t->a + first * t->a_row,
                                           .a_row = t->a_row,
                                           .a_step = 1,
                                           .b = t->b + start / p->panel * t->b_panel,
                                           .b_panel = t->b_panel,
                                           .c = scores + start,
                                           .c_row = width};
        simd->panels.multiply(&products);
        for (int64_t r = 0; r < n; r++) {
            visible_columns(t, first + r, &own, &end);
            memset(scores + r * width + from, 0, (size_t)(own - from) * sizeof *scores);
            memset(scores + r * width + end, 0, (size_t)(to - end) * sizeof *scores);
        }
        const at_panel_product sums = {.rows = n,
                                       .columns = t->width,
                                       .depth = to - from,
                                       .a = scores + from,
                                       .a_row = width,
                                       .a_step = 1,
                                       .b = t->v + from * p->panel,
                                       .b_panel = t->v_panel,
                                       .c = t->c + first * t->c_row,
                                       .c_row = t->c_row,
                                       .add = true};
        simd->panels.multiply(&sums);
    }
}
