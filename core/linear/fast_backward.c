/* fast_backward.c - gradients of linear attention in f32, a block of tokens after the other, in products of panels. Names are plain.c's:
 *
 *   dA_i = S_i dN_i      dZ_i = -(A_i . dA_i) / Z_i      dv_j = R_j^T B_j      dB_j = R_j v_j
 *
 * dZ_i is what plain.c has, -(dN_i . o_i), as o_i = S_i^T A_i / Z_i: outputs are not made again. S and R are kept as panels of features, [F / panel][Dv][panel].
 *
 * All keys:  S over sections of keys, merged; queries in sections, each with an R of its own, merged; then keys.
 * Causal:    S from the first block up makes dq, and Z and dZ, which are kept; R from the last block down makes dk and dv. Where tokens are cut in sections, S
 *            before and R after each come first, as in fast.c.
 *
 * Without epsilon S, as in the forward pass, is times e^-c with c the greatest exponent of the keys up to the block at hand, and so are its Z. A query's dN and dZ
 * then are times e^c, and R is kept times e^c for the c of the block where it stands: going down c falls, so that R is only ever scaled down, and meets keys times e^-c.
 */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"
#include "linear/block.h"
#include "simd/table.h"
#include "tensor/tensor.h"

enum { PARTS = 10 };

typedef struct back_scratch {
    at_linear_scratch s;   /* its o: dv; its v: g as panels of dims; its k_columns: queries */
    float *x, *v;          /* [block][D], [block][Dv]: keys and values where they are widened */
    float *g;              /* [block][Dv] dN */
    float *d, *d_flat;     /* [block][stride] gradients of turned features, and what features get without turning: the same where nothing turns */
    float *columns;        /* [block / panel][Dv][panel] v or g, transposed */
    float *k_rows, *q_rows; /* [F / panel][block][panel] turned features */
    float *dx;             /* [block][D in whole half panels] */
    float *r;              /* [Dv / panel][F][panel] R as panels of dims */
    void *all;
} back_scratch;

/* What the exponents of keys are relative to, with epsilon: the greatest w . x' (trig: |x'|^2 / 2), and the token and column that it comes from. */
typedef struct stabiliser {
    float greatest;
    int64_t token, column;
} stabiliser;

typedef struct back_job {
    const at_linear *p;
    const at_linear_gradients *g;
    at_linear_plan plan;
    at_linear_cut keys, queries;  /* queries: of all keys; causal ones follow the keys */
    float *weights;               /* the projection as panels of dims [D / panel][M][panel] */
    float *s, *r;                 /* [kv heads][sections] */
    float *Z, *dZ;                /* [heads][Sq] */
    float *shift;                 /* [kv heads][blocks of keys] c, causal */
    stabiliser *greatest;         /* [kv heads][sections]: of all keys of a head, in its first place */
    double *totals;               /* [kv heads][sections] what goes, negative, to the stabiliser */
    back_scratch *thread;
} back_job;

typedef struct tokens {
    int64_t b, head, first, count; /* head: of all batch rows */
    int64_t skip;                  /* queries: tokens of the block before them */
    const float *x, *v;            /* v: keys */
    int64_t x_stride, v_stride;
} tokens;

static bool exponential(const at_linear *p) { return p->features == ATTUNE_FEATURES_FAVOR || p->features == ATTUNE_FEATURES_TRIG; }

static at_linear_sums sums_at(const back_job *j, float *base, int64_t place) { return at_linear_sums_at(&j->plan, base + place * at_linear_sums_floats(&j->plan)); }
static void keep(const back_job *j, float *base, int64_t place, const at_linear_sums *sums) {
    base[place * at_linear_sums_floats(&j->plan)] = sums->greatest;
}

/* What R is relative to where keys are relative to c; without exponentials c is nothing. */
static float opposite(const back_job *j, float c) { return exponential(j->p) ? -c : 0; }

/* C += or = A B for A [rows][depth] and panels B of columns. */
static void multiply(int64_t rows, int64_t columns, int64_t depth, const float *a, int64_t a_row, const float *b, int64_t b_panel, float *c, int64_t c_row) {
    const at_panel_product product = {
        .rows = rows, .columns = columns, .depth = depth, .a = a, .a_row = a_row, .a_step = 1, .b = b, .b_panel = b_panel, .c = c, .c_row = c_row};
    at_simd_now()->panels.multiply(&product);
}

/* ---- a block ----------------------------------------------------------------------------------------------------- */

/* Features of keys; running: relative to the greatest exponent with them, which *c becomes. */
static tokens make_keys(const back_job *j, back_scratch *t, int64_t head, int64_t first, int64_t count, bool running, float *c) {
    const at_linear *p = j->p;
    tokens k = {.b = head / p->Hk, .head = head, .first = first, .count = count};
    k.x = at_linear_rows(&p->k, k.b, head % p->Hk, first, count, t->x, &k.x_stride);
    k.v = at_linear_rows(&p->v, k.b, head % p->Hk, first, count, t->v, &k.v_stride);
    at_linear_keys(&j->plan, &t->s, k.x, k.x_stride, count, at_linear_turns(p, &p->k_turns), k.b, first, running, c, j->plan.epsilon);
    return k;
}

static tokens make_queries(const back_job *j, back_scratch *t, int64_t head, int64_t first, int64_t count, int64_t skip) {
    const at_linear *p = j->p;
    tokens q = {.b = head / p->Hq, .head = head, .first = first, .count = count, .skip = skip};
    q.x = at_linear_rows(&p->q, q.b, head % p->Hq, first, count, t->s.wide, &q.x_stride);
    at_linear_queries(&j->plan, &t->s, q.x, q.x_stride, count, at_linear_turns(p, &p->q_turns), q.b, first);
    return q;
}

static void pack_features(const back_job *j, const float *turned, int64_t count, float *to) {
    at_simd_now()->panels.pack_rows(turned, j->plan.stride, count, j->plan.F, j->plan.block, to);
}

/* g = dN of the queries from their denominators. */
static void load_slopes(const back_job *j, back_scratch *t, const tokens *q) {
    const int64_t Dv = j->plan.Dv;
    const float *Z = j->Z + q->head * j->p->Sq + q->first;
    int64_t stride;
    const float *d_o = at_linear_rows(j->g->d_o, q->b, q->head % j->p->Hq, q->first, q->count, t->g, &stride);
    for (int64_t r = 0; r < q->count; r++) {
        if (Z[r] == 0)
            memset(t->g + r * Dv, 0, (size_t)Dv * sizeof *t->g);
        else
            at_simd_now()->elementwise.scale(d_o + r * stride, 1 / Z[r], t->g + r * Dv, Dv);
    }
}

/* sums' products += x^T times features in panels; x [count][Dv]. */
static void add_products(const back_job *j, const float *x, int64_t x_stride, const float *features, int64_t count, at_linear_sums *sums) {
    const at_linear_plan *plan = &j->plan;
    at_panel_product product = {.rows = plan->Dv, .depth = count, .a = x, .a_row = 1, .a_step = x_stride, .c_row = plan->panel, .add = true};
    for (int64_t f = 0; f < plan->F; f += plan->panel) {
        product.columns = at_round_up(plan->F - f < plan->panel ? plan->F - f : plan->panel, plan->panel / 2);
        product.b = features + f * plan->block, product.c = sums->s + f * plan->Dv;
        at_simd_now()->panels.multiply(&product);
    }
}

/* S += keys, whose features t->k_rows has. */
static void add_keys(const back_job *j, back_scratch *t, const tokens *k, at_linear_sums *sums) {
    at_simd_now()->linear.sum(t->s.k, j->plan.stride, k->count, j->plan.F, sums->z);
    add_products(j, k->v, k->v_stride, t->k_rows, k->count, sums);
}

/* R += queries, whose features t->q_rows has and whose dN and dZ are relative to c. Scales t->g. */
static void add_queries(const back_job *j, back_scratch *t, const tokens *q, float c, at_linear_sums *sums) {
    const at_elementwise_kernels *kernels = &at_simd_now()->elementwise;
    const float at = opposite(j, c), *dZ = j->dZ + q->head * j->p->Sq + q->first;
    if (at > sums->greatest) at_linear_sums_rescale(&j->plan, sums, at);
    const float factor = at == sums->greatest ? 1 : expf(at - sums->greatest);
    if (factor != 1) kernels->scale(t->g, factor, t->g, q->count * j->plan.Dv);
    for (int64_t r = 0; r < q->count; r++) kernels->add_scaled(t->s.q + r * j->plan.stride, factor * dZ[r], sums->z, j->plan.F);
    add_products(j, t->g, j->plan.Dv, t->q_rows, q->count, sums);
}

static double trigonometric_backward(const at_linear_plan *p, float *d, const float *f, int64_t count, float *sums) {
    double total = 0;
    for (int64_t r = 0; r < count; r++, d += p->stride, f += p->stride) {
        float sum = 0;
        for (int64_t m = 0; m < p->M; m++) {
            const float sine = f[m] - p->epsilon, cosine = f[p->M + m] - p->epsilon;
            sum += d[m] * sine + d[p->M + m] * cosine;
            d[m] = d[m] * cosine - d[p->M + m] * sine;
        }
        sums[r] = sum, total += (double)sum;
    }
    return total;
}

/* From t->d, the gradients of features f of tokens, to theirs, which go to `to`. key: with an exponent of |x'|^2 / 2, and a stabiliser that others share: what it
 * gets, negative, is returned. */
static double features_backward(const back_job *j, back_scratch *t, const tokens *x, const float *f, bool key, attune_tensor *to) {
    const at_linear_plan *p = &j->plan;
    const at_simd *simd = at_simd_now();
    const int64_t n = x->count, width = at_round_up(p->D, p->panel / 2);
    const double c = 1 / sqrt((double)p->D);
    double total = 0, along = 0; /* along: x' enters by |x'|^2 / 2 too */
    float *sums = t->s.other;
    switch (p->features) {
    case ATTUNE_FEATURES_FAVOR:
        simd->linear.exp_backward(t->d, f, p->stride, n, p->M, p->epsilon, sums);
        for (int64_t r = 0; r < n; r++) total += (double)sums[r];
        /* a query's own stabiliser, which cancels without epsilon */
        for (int64_t r = 0; r < n && !key && t->s.best; r++) t->d[r * p->stride + t->s.best[r]] -= sums[r];
        if (key || p->epsilon > 0) along = -c;
        break;
    case ATTUNE_FEATURES_TRIG:
        total = trigonometric_backward(p, t->d, f, n, sums);
        if (key) along = c;
        break;
    case ATTUNE_FEATURES_RELU: simd->linear.relu_backward(t->d, f, p->stride, n, p->F, p->epsilon); break;
    default: simd->linear.elu_backward(t->d, f, p->stride, n, p->F, p->epsilon); break;
    }
    const float *dx = p->M ? t->dx : t->d;
    const int64_t dx_row = p->M ? width : p->stride;
    if (p->M) multiply(n, width, p->M, t->d, p->stride, j->weights, p->M * p->panel, t->dx, width);
    for (int64_t r = 0; r < n && along != 0; r++) simd->elementwise.add_scaled(x->x + r * x->x_stride, (float)along * sums[r], t->dx + r * width, p->D);
    for (int64_t r = 0; r < n; r++) at_store_row(to, ((x->head * to->shape[2]) + x->first + r) * p->D, 1, p->D, dx + r * dx_row);
    return total;
}

/* ---- queries ----------------------------------------------------------------------------------------------------- */

/* Z of the queries against S, and, where keys is not NULL, the block's own keys up to each. */
static void denominators(const back_job *j, back_scratch *t, const tokens *q, const tokens *keys, const at_linear_sums *sums) {
    const at_linear_plan *plan = &j->plan;
    const at_linear_kernels *kernels = &at_simd_now()->linear;
    float *Z = j->Z + q->head * j->p->Sq + q->first;
    if (!keys) {
        kernels->dot(t->s.q, plan->stride, q->count, plan->F, sums->z, Z);
        return;
    }
    memcpy(t->s.z, sums->z, (size_t)plan->F * sizeof *t->s.z);
    kernels->sum(t->s.k, plan->stride, q->skip, plan->F, t->s.z);
    kernels->prefix_dot(t->s.q, t->s.k + q->skip * plan->stride, plan->stride, q->count, plan->F, t->s.z, Z);
}

/* dA += tril(dN v^T) B. What a row does not see is set to zero before it is multiplied by features: an Inf or NaN in v stays with the rows that see it. */
static void within_queries(const back_job *j, back_scratch *t, const tokens *q, const tokens *keys) {
    const at_linear_plan *plan = &j->plan;
    const at_linear_triangle triangle = {.rows = q->count,
                                         .columns = keys->count,
                                         .skip = q->skip,
                                         .strip = at_simd_now()->attention.rows[AT_FMA],
                                         .a = t->g,
                                         .a_row = plan->Dv,
                                         .depth = plan->Dv,
                                         .b = t->columns,
                                         .b_panel = plan->panel * at_round_up(plan->Dv, AT_DIM),
                                         .v = t->k_rows,
                                         .v_panel = plan->block * plan->panel,
                                         .width = at_round_up(plan->F, plan->panel / 2),
                                         .c = t->d,
                                         .c_row = plan->stride};
    at_linear_add_triangle(plan, &triangle, t->s.scores);
}

/* dq of a block of queries, whose Z and dZ are kept; t->g is left as dN. keys: NULL, or the block's own, with t->k_rows and t->columns of them. */
static void queries_backward(const back_job *j, back_scratch *t, const tokens *q, const tokens *keys, const at_linear_sums *sums) {
    const at_linear_plan *plan = &j->plan;
    const at_elementwise_kernels *kernels = &at_simd_now()->elementwise;
    const float *Z = j->Z + q->head * j->p->Sq + q->first;
    float *dZ = j->dZ + q->head * j->p->Sq + q->first, *z = t->s.z;
    denominators(j, t, q, keys, sums);
    load_slopes(j, t, q);
    multiply(q->count, at_round_up(plan->F, plan->panel / 2), plan->Dv, t->g, plan->Dv, sums->s, plan->Dv * plan->panel, t->d, plan->stride);
    if (keys) within_queries(j, t, q, keys);
    at_simd_now()->linear.dots(t->s.q_turned, t->d, plan->stride, q->count, plan->F, t->s.other);
    memcpy(z, sums->z, (size_t)plan->F * sizeof *z);
    if (keys) at_simd_now()->linear.sum(t->s.k, plan->stride, q->skip, plan->F, z);
    for (int64_t r = 0; r < q->count; r++) {
        float *d = t->d + r * plan->stride;
        dZ[r] = Z[r] == 0 ? 0 : -t->s.other[r] / Z[r];
        if (j->p->turn) at_turn_back(&j->p->q_turns, q->b, q->first + r, d, d);
        if (keys) kernels->add_scaled(t->s.k + (q->skip + r) * plan->stride, 1, z, plan->F);
        kernels->add_scaled(z, dZ[r], d, plan->F);
    }
    features_backward(j, t, q, t->s.q, false, j->g->dq);
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */

/* R, panels of features, as panels of dims. */
static void turn_sums(const back_job *j, const at_linear_sums *sums, float *to) {
    const at_linear_plan *plan = &j->plan;
    const int64_t panel = plan->panel;
    for (int64_t f = 0; f < plan->F; f += panel) {
        for (int64_t d = 0; d < plan->Dv; d += panel) {
            const int64_t rows = plan->Dv - d < panel ? plan->Dv - d : panel, columns = plan->F - f < panel ? plan->F - f : panel;
            at_simd_now()->panels.pack_columns(sums->s + f * plan->Dv + d * panel, panel, rows, columns, to + d * plan->F + f * panel);
        }
    }
}

/* Each key's sum of dZ_i a_i: over later blocks where first, and over this block's queries, if any, from the key on. */
static void add_later(const back_job *j, back_scratch *t, const tokens *k, const tokens *q, bool first, at_linear_sums *sums) {
    const at_elementwise_kernels *kernels = &at_simd_now()->elementwise;
    const int64_t F = j->plan.F, stride = j->plan.stride;
    const float *dZ = j->dZ + q->head * j->p->Sq + q->first;
    float *z = t->s.z;
    if (first)
        memcpy(z, sums->z, (size_t)F * sizeof *z);
    else
        memset(z, 0, (size_t)F * sizeof *z);
    for (int64_t i = k->count - 1, r = q->count - 1; i >= 0; i--) {
        for (; r >= 0 && q->skip + r >= i; r--) kernels->add_scaled(t->s.q + r * stride, dZ[r], z, F);
        kernels->add_scaled(z, 1, t->d_flat + i * stride, F);
    }
}

/* dv += triu(B A^T) dN and dB += triu(v dN^T) A: key i meets the block's queries from i - skip on. */
static void within_keys(const back_job *j, back_scratch *t, const tokens *k, const tokens *q) {
    const at_linear_plan *plan = &j->plan;
    const at_panel_kernels *panels = &at_simd_now()->panels;
    panels->pack_columns(t->s.q_turned, plan->stride, q->count, plan->F, t->s.k_columns);
    panels->pack_columns(t->g, plan->Dv, q->count, plan->Dv, t->columns);
    panels->pack_rows(t->g, plan->Dv, q->count, plan->Dv, plan->block, t->s.v);
    at_linear_triangle triangle = {.later = true,
                                   .rows = k->count,
                                   .columns = q->count,
                                   .skip = q->skip,
                                   .strip = at_simd_now()->attention.rows[AT_FMA],
                                   .a = t->s.k_turned,
                                   .a_row = plan->stride,
                                   .depth = plan->F,
                                   .b = t->s.k_columns,
                                   .b_panel = plan->panel * at_round_up(plan->F, AT_DIM),
                                   .v = t->s.v,
                                   .v_panel = plan->block * plan->panel,
                                   .width = plan->Dvp,
                                   .c = t->s.o,
                                   .c_row = plan->Dvp};
    at_linear_add_triangle(plan, &triangle, t->s.scores);
    triangle.a = k->v, triangle.a_row = k->v_stride, triangle.depth = plan->Dv;
    triangle.b = t->columns, triangle.b_panel = plan->panel * at_round_up(plan->Dv, AT_DIM);
    triangle.v = t->q_rows, triangle.width = at_round_up(plan->F, plan->panel / 2), triangle.c = t->d, triangle.c_row = plan->stride;
    at_linear_add_triangle(plan, &triangle, t->s.scores);
}

/* dk and dv of a block of keys. sums: R of later blocks, or of all queries, which t->r has as panels of dims; causal, this block's queries are added. */
static double keys_backward(const back_job *j, back_scratch *t, const tokens *k, float c, at_linear_sums *sums) {
    const at_linear *p = j->p;
    const at_linear_plan *plan = &j->plan;
    const int64_t offset = p->Sk - p->Sq, skip = offset > k->first ? offset - k->first : 0, rows = p->causal ? k->count - skip : 0;
    multiply(k->count, plan->Dvp, plan->F, t->s.k_turned, plan->stride, t->r, plan->F * plan->panel, t->s.o, plan->Dvp);
    multiply(k->count, at_round_up(plan->F, plan->panel / 2), plan->Dv, k->v, k->v_stride, sums->s, plan->Dv * plan->panel, t->d, plan->stride);
    if (p->turn) memset(t->d_flat, 0, (size_t)(k->count * plan->stride) * sizeof *t->d_flat);
    if (rows <= 0) add_later(j, t, k, &(tokens){0}, true, sums);
    for (int64_t g = 0; g < p->G && rows > 0; g++) {
        const tokens q = make_queries(j, t, k->b * p->Hq + k->head % p->Hk * p->G + g, k->first + skip - offset, rows, skip);
        load_slopes(j, t, &q);
        pack_features(j, t->s.q_turned, rows, t->q_rows);
        within_keys(j, t, k, &q);
        add_later(j, t, k, &q, g == 0, sums);
        add_queries(j, t, &q, c, sums);
    }
    for (int64_t i = 0; i < k->count && p->turn; i++) {
        float *d = t->d + i * plan->stride;
        at_turn_back(&p->k_turns, k->b, k->first + i, d, d);
        at_simd_now()->elementwise.add_scaled(t->d_flat + i * plan->stride, 1, d, plan->F);
    }
    for (int64_t i = 0; i < k->count; i++) at_store_row(j->g->dv, (k->head * p->Sk + k->first + i) * p->Dv, 1, p->Dv, t->s.o + i * plan->Dvp);
    return features_backward(j, t, k, t->s.k, true, j->g->dk);
}

/* ---- tasks ------------------------------------------------------------------------------------------------------- */

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static attune_status greatest_task(void *context, int64_t task, int thread) {
    back_job *j = context;
    const at_linear *p = j->p;
    back_scratch *t = &j->thread[thread];
    const int64_t head = task / j->keys.sections;
    int64_t from, to, stride;
    stabiliser best = {.greatest = -INFINITY};
    at_linear_section(&j->keys, task % j->keys.sections, p->Sk, &from, &to);
    for (int64_t first = from; first < to; first += j->plan.block) {
        const int64_t count = least(to - first, j->plan.block);
        const float *k = at_linear_rows(&p->k, head / p->Hk, head % p->Hk, first, count, t->x, &stride);
        const float greatest = at_linear_greatest(&j->plan, &t->s, k, stride, count, false);
        if (!(greatest > best.greatest)) continue;
        const float *rows = p->features == ATTUNE_FEATURES_TRIG ? t->s.other : t->s.row;
        int64_t r = 0, m = 0;
        while (rows[r] != greatest) r++;
        while (p->features == ATTUNE_FEATURES_FAVOR && t->s.k[r * j->plan.stride + m] != greatest) m++;
        best = (stabiliser){.greatest = greatest, .token = first + r, .column = m};
    }
    j->greatest[task] = best;
    return ATTUNE_OK;
}

/* S of a section, into its own place, or, causal, into the next one's. */
static attune_status sum_task(void *context, int64_t task, int thread) {
    back_job *j = context;
    const at_linear *p = j->p;
    back_scratch *t = &j->thread[thread];
    const int64_t all = j->keys.sections, summed = p->causal ? all - 1 : all, head = task / summed, number = task % summed, place = head * all + number + p->causal;
    const bool running = !(p->epsilon > 0);
    at_linear_sums sums = sums_at(j, j->s, place);
    float c = running ? -INFINITY : j->greatest[head * all].greatest;
    int64_t from, to;
    at_linear_section(&j->keys, number, p->Sk, &from, &to);
    at_linear_sums_clear(&j->plan, &sums);
    for (int64_t first = from, n = 0; first < to; first += j->plan.block, n++) {
        if (n % 16 == 15 && at_interrupted()) return at_interrupted_status();
        const tokens k = make_keys(j, t, head, first, least(to - first, j->plan.block), running, &c);
        at_linear_sums_rescale(&j->plan, &sums, c);
        pack_features(j, t->s.k_turned, k.count, t->k_rows);
        add_keys(j, t, &k, &sums);
    }
    keep(j, j->s, place, &sums);
    return ATTUNE_OK;
}

static void merge(const back_job *j, float *base, int64_t into, int64_t from) {
    at_linear_sums a = sums_at(j, base, into), b = sums_at(j, base, from);
    at_linear_sums_merge(&j->plan, &a, &b);
    keep(j, base, into, &a);
}

static void clear(const back_job *j, float *base, int64_t place) {
    at_linear_sums sums = sums_at(j, base, place);
    at_linear_sums_clear(&j->plan, &sums);
    keep(j, base, place, &sums);
}

/* All sections into the first; causal: each gets those before it. */
static attune_status merge_keys_task(void *context, int64_t head, int thread) {
    back_job *j = context;
    const int64_t n = j->keys.sections, place = head * n;
    (void)thread;
    if (j->p->causal) clear(j, j->s, place);
    for (int64_t i = j->p->causal ? 2 : 1; i < n; i++) merge(j, j->s, place + (j->p->causal ? i : 0), place + (j->p->causal ? i - 1 : i));
    return ATTUNE_OK;
}

/* All sections into the first; causal: each gets those after it. */
static attune_status merge_queries_task(void *context, int64_t head, int thread) {
    back_job *j = context;
    const int64_t n = j->p->causal ? j->keys.sections : j->queries.sections, place = head * n;
    (void)thread;
    if (j->p->causal) {
        clear(j, j->r, place + n - 1);
        for (int64_t i = n - 3; i >= 0; i--) merge(j, j->r, place + i, place + i + 1);
    } else {
        for (int64_t i = 1; i < n; i++) merge(j, j->r, place, place + i);
    }
    return ATTUNE_OK;
}

/* dq of a section of queries that see all keys, and its R. */
static attune_status queries_task(void *context, int64_t task, int thread) {
    back_job *j = context;
    const at_linear *p = j->p;
    back_scratch *t = &j->thread[thread];
    const int64_t head = task / j->queries.sections;
    const at_linear_sums s = sums_at(j, j->s, head * j->keys.sections);
    at_linear_sums r = sums_at(j, j->r, task);
    int64_t from, to;
    at_linear_section(&j->queries, task % j->queries.sections, p->Sq, &from, &to);
    at_linear_sums_clear(&j->plan, &r);
    for (int64_t g = 0; g < p->G; g++) {
        for (int64_t first = from; first < to; first += j->plan.block) {
            if (at_interrupted()) return at_interrupted_status();
            const tokens q = make_queries(j, t, head / p->Hk * p->Hq + head % p->Hk * p->G + g, first, least(to - first, j->plan.block), 0);
            queries_backward(j, t, &q, NULL, &s);
            pack_features(j, t->s.q_turned, q.count, t->q_rows);
            add_queries(j, t, &q, s.greatest, &r);
        }
    }
    keep(j, j->r, task, &r);
    return ATTUNE_OK;
}

/* dq of a section of causal queries, what is kept of them, and, into the place of the section before, its R. */
static attune_status causal_queries_task(void *context, int64_t task, int thread) {
    back_job *j = context;
    const at_linear *p = j->p;
    back_scratch *t = &j->thread[thread];
    const int64_t number = task % j->keys.sections, head = task / j->keys.sections, offset = p->Sk - p->Sq;
    const int64_t blocks = (p->Sk + j->plan.block - 1) / j->plan.block;
    const bool running = !(p->epsilon > 0);
    at_linear_sums s = sums_at(j, j->s, task), r = sums_at(j, j->r, number > 0 ? task - 1 : task);
    int64_t from, to;
    at_linear_section(&j->keys, number, p->Sk, &from, &to);
    if (j->keys.sections == 1) at_linear_sums_clear(&j->plan, &s);
    if (number > 0) at_linear_sums_clear(&j->plan, &r);
    float c = running ? s.greatest : j->greatest[head * j->keys.sections].greatest;
    for (int64_t first = from; first < to; first += j->plan.block) {
        if (at_interrupted()) return at_interrupted_status();
        const tokens k = make_keys(j, t, head, first, least(to - first, j->plan.block), running, &c);
        const int64_t skip = offset > first ? offset - first : 0, rows = k.count - skip;
        at_linear_sums_rescale(&j->plan, &s, c);
        j->shift[head * blocks + first / j->plan.block] = c;
        pack_features(j, t->s.k_turned, k.count, t->k_rows);
        if (rows > 0) at_simd_now()->panels.pack_columns(k.v, k.v_stride, k.count, p->Dv, t->columns);
        for (int64_t g = 0; g < p->G && rows > 0; g++) {
            const tokens q = make_queries(j, t, k.b * p->Hq + head % p->Hk * p->G + g, first + skip - offset, rows, skip);
            queries_backward(j, t, &q, &k, &s);
            if (number == 0) continue;
            pack_features(j, t->s.q_turned, rows, t->q_rows);
            add_queries(j, t, &q, c, &r);
        }
        add_keys(j, t, &k, &s);
    }
    if (number > 0) keep(j, j->r, task - 1, &r);
    return ATTUNE_OK;
}

/* dk and dv of a section of keys, from its last block down. */
static attune_status keys_task(void *context, int64_t task, int thread) {
    back_job *j = context;
    const at_linear *p = j->p;
    back_scratch *t = &j->thread[thread];
    const int64_t number = task % j->keys.sections, head = task / j->keys.sections, blocks = (p->Sk + j->plan.block - 1) / j->plan.block;
    at_linear_sums r = sums_at(j, j->r, p->causal ? task : head * j->queries.sections);
    float c = p->causal ? 0 : sums_at(j, j->s, head * j->keys.sections).greatest;
    int64_t from, to;
    at_linear_section(&j->keys, number, p->Sk, &from, &to);
    if (p->causal && j->keys.sections == 1) at_linear_sums_clear(&j->plan, &r);
    if (!p->causal) turn_sums(j, &r, t->r);
    j->totals[task] = 0;
    for (int64_t first = from + (to - from - 1) / j->plan.block * j->plan.block; first >= from; first -= j->plan.block) {
        if (at_interrupted()) return at_interrupted_status();
        if (p->causal) {
            c = j->shift[head * blocks + first / j->plan.block];
            at_linear_sums_rescale(&j->plan, &r, opposite(j, c));
            turn_sums(j, &r, t->r);
        }
        const tokens k = make_keys(j, t, head, first, least(to - first, j->plan.block), false, &c);
        j->totals[task] += keys_backward(j, t, &k, c, &r);
    }
    return ATTUNE_OK;
}

/* With epsilon the stabiliser does not cancel: the token that it comes from gets its gradient. */
static void stabiliser_backward(const back_job *j, int64_t head) {
    const at_linear *p = j->p;
    const stabiliser from = j->greatest[head * j->keys.sections];
    const int64_t place = (head * p->Sk + from.token) * p->D, *s = p->k.stride;
    const double *w = (const double *)p->projection.data + from.column * p->D, c = 1 / sqrt((double)p->D);
    double total = 0;
    for (int64_t n = 0; n < j->keys.sections; n++) total += j->totals[head * j->keys.sections + n];
    for (int64_t d = 0; d < p->D; d++) {
        double x, dx;
        at_load_row_f64(&p->k, head / p->Hk * s[0] + head % p->Hk * s[1] + from.token * s[2] + d * s[3], 1, 1, &x);
        at_load_row_f64(j->g->dk, place + d, 1, 1, &dx);
        dx -= total * (p->features == ATTUNE_FEATURES_TRIG ? c * x : w[d]);
        at_store_row_f64(j->g->dk, place + d, 1, 1, &dx);
    }
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static attune_status run(back_job *j) {
    const at_linear *p = j->p;
    const int64_t heads = p->B * p->Hk, sections = j->keys.sections;
    const bool stabilised = p->epsilon > 0 && exponential(p);
    if (stabilised) {
        AT_TRY(at_parallel(heads * sections, greatest_task, j));
        for (int64_t head = 0; head < heads; head++)
            for (int64_t n = 1; n < sections; n++)
                if (j->greatest[head * sections + n].greatest > j->greatest[head * sections].greatest) j->greatest[head * sections] = j->greatest[head * sections + n];
    }
    if (p->causal) {
        at_linear_clear_early(p, j->g->dq);
        if (sections > 1) {
            AT_TRY(at_parallel(heads * (sections - 1), sum_task, j));
            AT_TRY(at_parallel(heads, merge_keys_task, j));
        }
        AT_TRY(at_parallel(heads * sections, causal_queries_task, j));
        if (sections > 1) AT_TRY(at_parallel(heads, merge_queries_task, j));
    } else {
        AT_TRY(at_parallel(heads * sections, sum_task, j));
        AT_TRY(at_parallel(heads, merge_keys_task, j));
        AT_TRY(at_parallel(heads * j->queries.sections, queries_task, j));
        AT_TRY(at_parallel(heads, merge_queries_task, j));
    }
    AT_TRY(at_parallel(heads * sections, keys_task, j));
    for (int64_t head = 0; head < heads && stabilised; head++) stabiliser_backward(j, head);
    return ATTUNE_OK;
}

static attune_status scratch_new(const back_job *j, back_scratch *t) {
    const at_linear_plan *p = &j->plan;
    const int64_t n = p->block, features = at_round_up(p->F, p->panel) * n, flat = j->p->turn ? n * p->stride : 0;
    const int64_t sizes[PARTS] = {n * p->D, n * p->Dv, n * p->Dv, n * p->stride, flat, at_round_up(n, p->panel) * at_round_up(p->Dv, AT_DIM),
                                  features, features,  n * at_round_up(p->D, p->panel / 2), at_round_up(p->Dv, p->panel) * p->F};
    float **const parts[PARTS] = {&t->x, &t->v, &t->g, &t->d, &t->d_flat, &t->columns, &t->k_rows, &t->q_rows, &t->dx, &t->r};
    AT_TRY(at_linear_scratch_new(p, j->p->turn != NULL, &t->s));
    int64_t total = 0;
    for (int i = 0; i < PARTS; i++) total += at_round_up(sizes[i], 16);
    float *at = t->all = at_alloc_zeroed(at_checked_mul(total, (int64_t)sizeof *at));
    if (!at) return ATTUNE_EMEMORY;
    for (int i = 0; i < PARTS; i++) *parts[i] = at, at += at_round_up(sizes[i], 16);
    if (!j->p->turn) t->d_flat = t->d;
    if (p->features != ATTUNE_FEATURES_FAVOR || !(p->epsilon > 0)) return ATTUNE_OK;
    t->s.best = at_alloc(n * (int64_t)sizeof *t->s.best);
    return t->s.best ? ATTUNE_OK : ATTUNE_EMEMORY;
}

static attune_status weights_new(back_job *j) {
    const at_linear_plan *p = &j->plan;
    const double *w = j->p->projection.data;
    if (p->M == 0) return ATTUNE_OK;
    float *narrow = at_alloc(at_checked_mul(p->M * p->D, (int64_t)sizeof *narrow));
    j->weights = narrow ? at_alloc(at_checked_mul(p->M * at_round_up(p->D, p->panel), (int64_t)sizeof *narrow)) : NULL;
    if (j->weights) {
        for (int64_t i = 0; i < p->M * p->D; i++) narrow[i] = (float)w[i];
        at_simd_now()->panels.pack_rows(narrow, p->D, p->M, p->D, p->M, j->weights);
    }
    at_free(narrow);
    return j->weights ? ATTUNE_OK : ATTUNE_EMEMORY;
}

/* Memory for sums and for what is kept of queries. */
static attune_status kept_new(back_job *j) {
    const at_linear *p = j->p;
    const int64_t heads = p->B * p->Hk, places = heads * j->keys.sections, sums = at_linear_sums_floats(&j->plan), queries = p->B * p->Hq * p->Sq;
    const int64_t floats = (int64_t)sizeof(float), blocks = (p->Sk + j->plan.block - 1) / j->plan.block;
    j->s = at_alloc(at_checked_mul(places, sums * floats));
    j->r = j->s ? at_alloc(at_checked_mul(p->causal ? places : heads * j->queries.sections, sums * floats)) : NULL;
    j->Z = j->r ? at_alloc(at_checked_mul(queries, floats)) : NULL;
    j->dZ = j->Z ? at_alloc(at_checked_mul(queries, floats)) : NULL;
    j->shift = j->dZ ? at_alloc(heads * blocks * floats) : NULL;
    j->greatest = j->shift ? at_alloc(places * (int64_t)sizeof *j->greatest) : NULL;
    j->totals = j->greatest ? at_alloc(places * (int64_t)sizeof *j->totals) : NULL;
    j->thread = j->totals ? at_alloc_zeroed(at_threads() * (int64_t)sizeof *j->thread) : NULL;
    return j->thread ? ATTUNE_OK : ATTUNE_EMEMORY;
}

attune_status at_linear_fast_backward(const at_linear *p, const at_linear_gradients *g) {
    back_job j = {.p = p, .g = g, .keys = at_linear_cut_keys(p), .queries = at_linear_cut_queries(p)};
    const int threads = at_threads();
    attune_status status = at_linear_plan_new(p->features, &p->projection, p->D, p->Dv, p->F, p->epsilon, j.keys.block, &j.plan);
    j.plan.products = at_round_up(p->F, j.plan.panel) * p->Dv;
    if (status == ATTUNE_OK) status = weights_new(&j);
    if (status == ATTUNE_OK) status = kept_new(&j);
    for (int t = 0; t < threads && status == ATTUNE_OK; t++) status = scratch_new(&j, &j.thread[t]);
    if (status == ATTUNE_OK) status = run(&j);
    for (int t = 0; t < threads && j.thread; t++) {
        at_linear_scratch_free(&j.thread[t].s);
        at_free(j.thread[t].s.best);
        at_free(j.thread[t].all);
    }
    void *all[] = {j.weights, j.s, j.r, j.Z, j.dZ, j.shift, j.greatest, j.totals, j.thread};
    for (int i = 0; i < 9; i++) at_free(all[i]);
    at_linear_plan_free(&j.plan);
    return status;
}
