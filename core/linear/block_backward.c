/* block_backward.c - one block of tokens in the gradients of linear attention: its features, what
 * it adds to S and R, and its own gradients. blocked_backward.c has the equations. */
#include <math.h>
#include <string.h>

#include "linear/block_backward.h"
#include "simd/table.h"
#include "tensor/tensor.h"

/* C = A B for A [rows][depth] and panels B of columns. */
static void multiply(int64_t rows, int64_t columns, int64_t depth, const float *a, int64_t a_row,
                     const float *b, int64_t b_panel, float *c, int64_t c_row) {
    const at_panel_product product = {.rows = rows,
                                      .columns = columns,
                                      .depth = depth,
                                      .a = a,
                                      .a_row = a_row,
                                      .a_step = 1,
                                      .b = b,
                                      .b_panel = b_panel,
                                      .c = c,
                                      .c_row = c_row};
    at_simd_now()->panels.multiply(&product);
}

/* ---- tokens and sums ------------------------------------------------------------------------- */

at_tokens at_back_keys(const at_back_job *j, at_back_scratch *t, int64_t head, int64_t first,
                       int64_t count, bool running, float *c) {
    const at_linear *p = j->p;
    at_tokens k = {.b = head / p->Hk, .head = head, .first = first, .count = count};
    k.x = at_linear_rows(&p->k, k.b, head % p->Hk, first, count, t->x, &k.x_stride);
    k.v = at_linear_rows(&p->v, k.b, head % p->Hk, first, count, t->v, &k.v_stride);
    at_linear_keys(&j->plan, &t->s, k.x, k.x_stride, count, at_linear_rotation(p, &p->k_rotation),
                   k.b, first, running, c, j->plan.epsilon);
    return k;
}

at_tokens at_back_queries(const at_back_job *j, at_back_scratch *t, int64_t head, int64_t first,
                          int64_t count, int64_t skip) {
    const at_linear *p = j->p;
    at_tokens q = {.b = head / p->Hq, .head = head, .first = first, .count = count, .skip = skip};
    q.x = at_linear_rows(&p->q, q.b, head % p->Hq, first, count, t->s.f32_rows, &q.x_stride);
    at_linear_queries(&j->plan, &t->s, q.x, q.x_stride, count,
                      at_linear_rotation(p, &p->q_rotation), q.b, first);
    return q;
}

void at_back_pack_features(const at_back_job *j, const float *rotated, int64_t count, float *to) {
    at_simd_now()->panels.pack_rows(rotated, j->plan.stride, count, j->plan.F, j->plan.block, to);
}

/* Computes dN = d_o / Z of the queries into t->g. */
static void load_slopes(const at_back_job *j, at_back_scratch *t, const at_tokens *q) {
    const int64_t Dv = j->plan.Dv;
    const float *Z = j->Z + q->head * j->p->Sq + q->first;
    int64_t stride;
    const float *d_o =
        at_linear_rows(j->g->d_o, q->b, q->head % j->p->Hq, q->first, q->count, t->g, &stride);
    for (int64_t r = 0; r < q->count; r++) {
        if (Z[r] == 0)
            memset(t->g + r * Dv, 0, (size_t)Dv * sizeof *t->g);
        else
            at_simd_now()->elementwise.scale(d_o + r * stride, 1 / Z[r], t->g + r * Dv, Dv);
    }
}

/* Adds x^T times the packed features to the products of sums; x [count][Dv]. */
static void add_products(const at_back_job *j, const float *x, int64_t x_stride,
                         const float *features, int64_t count, at_linear_sums *sums) {
    const at_linear_plan *plan = &j->plan;
    at_panel_product product = {.rows = plan->Dv,
                                .depth = count,
                                .a = x,
                                .a_row = 1,
                                .a_step = x_stride,
                                .c_row = plan->panel,
                                .add = true};
    for (int64_t f = 0; f < plan->F; f += plan->panel) {
        product.columns =
            at_round_up(plan->F - f < plan->panel ? plan->F - f : plan->panel, plan->panel / 2);
        product.b = features + f * plan->block;
        product.c = sums->s + f * plan->Dv;
        at_simd_now()->panels.multiply(&product);
    }
}

void at_back_add_keys(const at_back_job *j, at_back_scratch *t, const at_tokens *k,
                      at_linear_sums *sums) {
    at_simd_now()->linear.sum(t->s.k, j->plan.stride, k->count, j->plan.F, sums->z);
    add_products(j, k->v, k->v_stride, t->k_rows, k->count, sums);
}

void at_back_add_queries(const at_back_job *j, at_back_scratch *t, const at_tokens *q, float c,
                         at_linear_sums *sums) {
    const at_elementwise_kernels *kernels = &at_simd_now()->elementwise;
    const float at = at_back_opposite(j, c), *dZ = j->dZ + q->head * j->p->Sq + q->first;
    if (at > sums->max_exponent) at_linear_sums_rescale(&j->plan, sums, at);
    const float factor = at == sums->max_exponent ? 1 : expf(at - sums->max_exponent);
    if (factor != 1) kernels->scale(t->g, factor, t->g, q->count * j->plan.Dv);
    for (int64_t r = 0; r < q->count; r++)
        kernels->add_scaled(t->s.q + r * j->plan.stride, factor * dZ[r], sums->z, j->plan.F);
    add_products(j, t->g, j->plan.Dv, t->q_rows, q->count, sums);
}

static double trigonometric_backward(const at_linear_plan *p, float *d, const float *f,
                                     int64_t count, float *sums) {
    double total = 0;
    for (int64_t r = 0; r < count; r++) {
        float sum = 0;
        for (int64_t m = 0; m < p->M; m++) {
            const float sine = f[m] - p->epsilon, cosine = f[p->M + m] - p->epsilon;
            sum += d[m] * sine + d[p->M + m] * cosine;
            d[m] = d[m] * cosine - d[p->M + m] * sine;
        }
        sums[r] = sum;
        total += (double)sum;
        d += p->stride;
        f += p->stride;
    }
    return total;
}

/* From t->d, the gradients of the features f, computes the gradients of the tokens x and stores
 * them in `to`. key: the tokens are keys, so that |x'|^2 / 2 is in their exponent and their
 * stabiliser is one for all keys of a head; minus the gradient of the stabiliser is returned. */
static double features_backward(const at_back_job *j, at_back_scratch *t, const at_tokens *x,
                                const float *f, bool key, attune_tensor *to) {
    const at_linear_plan *p = &j->plan;
    const at_simd *simd = at_simd_now();
    const int64_t n = x->count, width = at_round_up(p->D, p->panel / 2);
    const double c = 1 / sqrt((double)p->D);
    double total = 0, along = 0; /* along: the derivative by |x'|^2 / 2 */
    float *sums = t->s.other;
    switch (p->features) {
    case ATTUNE_FEATURES_FAVOR:
        simd->linear.exp_backward(t->d, f, p->stride, n, p->M, p->epsilon, sums);
        for (int64_t r = 0; r < n; r++) total += (double)sums[r];
        /* A query has a stabiliser of its own. Without epsilon it cancels. */
        for (int64_t r = 0; r < n && !key && t->s.best; r++)
            t->d[r * p->stride + t->s.best[r]] -= sums[r];
        if (key || p->epsilon > 0) along = -c;
        break;
    case ATTUNE_FEATURES_TRIG:
        total = trigonometric_backward(p, t->d, f, n, sums);
        if (key) along = c;
        break;
    case ATTUNE_FEATURES_RELU:
        simd->linear.relu_backward(t->d, f, p->stride, n, p->F, p->epsilon);
        break;
    default: simd->linear.elu_backward(t->d, f, p->stride, n, p->F, p->epsilon); break;
    }
    const float *dx = p->M ? t->dx : t->d;
    const int64_t dx_row = p->M ? width : p->stride;
    if (p->M) multiply(n, width, p->M, t->d, p->stride, j->weights, p->M * p->panel, t->dx, width);
    for (int64_t r = 0; r < n && along != 0; r++)
        simd->elementwise.add_scaled(x->x + r * x->x_stride, (float)along * sums[r],
                                     t->dx + r * width, p->D);
    for (int64_t r = 0; r < n; r++)
        at_store_row(to, ((x->head * to->shape[2]) + x->first + r) * p->D, 1, p->D,
                     dx + r * dx_row);
    return total;
}

/* ---- queries --------------------------------------------------------------------------------- */

/* Computes Z of the queries, over the keys in `sums` and, if keys is not NULL, over the keys of the
 * same block up to each query. */
static void compute_denominators(const at_back_job *j, at_back_scratch *t, const at_tokens *q,
                                 const at_tokens *keys, const at_linear_sums *sums) {
    const at_linear_plan *plan = &j->plan;
    const at_linear_kernels *kernels = &at_simd_now()->linear;
    float *Z = j->Z + q->head * j->p->Sq + q->first;
    if (!keys) {
        kernels->dot(t->s.q, plan->stride, q->count, plan->F, sums->z, Z);
        return;
    }
    memcpy(t->s.z, sums->z, (size_t)plan->F * sizeof *t->s.z);
    kernels->sum(t->s.k, plan->stride, q->skip, plan->F, t->s.z);
    kernels->prefix_dot(t->s.q, t->s.k + q->skip * plan->stride, plan->stride, q->count, plan->F,
                        t->s.z, Z);
}

static void denominators(const at_back_job *j, at_back_scratch *t, const at_tokens *q,
                         const at_tokens *keys, const at_linear_sums *sums) {
    compute_denominators(j, t, q, keys, sums);
    if (at_linear_denominators_exceed(&j->plan, j->Z + q->head * j->p->Sq + q->first, q->count))
        atomic_store_explicit(&j->again[q->head / j->p->G], true, memory_order_relaxed);
}

/* The rows per strip of a triangle that is multiplied by x [rows][n]. An Inf or NaN in x must not
 * reach rows to which it is not visible, not even times zero; then each row is its own strip. */
static int64_t strip_of(const float *x, int64_t stride, int64_t rows, int64_t n) {
    const at_simd *simd = at_simd_now();
    for (int64_t r = 0; r < rows; r++)
        if (!simd->elementwise.all_finite(x + r * stride, n)) return 1;
    return simd->geometry.rows[AT_FMA];
}

/* dA += tril(dN v^T) B. An Inf or NaN in v reaches only the rows to which it is visible, because
 * the hidden products are set to zero before they are multiplied by B. */
static void within_queries(const at_back_job *j, at_back_scratch *t, const at_tokens *q,
                           const at_tokens *keys) {
    const at_linear_plan *plan = &j->plan;
    const at_linear_triangle triangle = {.rows = q->count,
                                         .columns = keys->count,
                                         .skip = q->skip,
                                         .strip =
                                             strip_of(t->s.k, plan->stride, keys->count, plan->F),
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

void at_back_through_queries(const at_back_job *j, at_back_scratch *t, const at_tokens *q,
                             const at_tokens *keys, const at_linear_sums *sums) {
    const at_linear_plan *plan = &j->plan;
    const at_elementwise_kernels *kernels = &at_simd_now()->elementwise;
    const float *Z = j->Z + q->head * j->p->Sq + q->first;
    float *dZ = j->dZ + q->head * j->p->Sq + q->first, *z = t->s.z;
    denominators(j, t, q, keys, sums);
    load_slopes(j, t, q);
    multiply(q->count, at_round_up(plan->F, plan->panel / 2), plan->Dv, t->g, plan->Dv, sums->s,
             plan->Dv * plan->panel, t->d, plan->stride);
    if (keys) within_queries(j, t, q, keys);
    at_simd_now()->linear.dots(t->s.q_rotated, t->d, plan->stride, q->count, plan->F, t->s.other);
    memcpy(z, sums->z, (size_t)plan->F * sizeof *z);
    if (keys) at_simd_now()->linear.sum(t->s.k, plan->stride, q->skip, plan->F, z);
    for (int64_t r = 0; r < q->count; r++) {
        float *d = t->d + r * plan->stride;
        dZ[r] = Z[r] == 0 ? 0 : -t->s.other[r] / Z[r];
        if (j->p->rotate) at_rotate_token_back(&j->p->q_rotation, q->b, q->first + r, d, d);
        if (keys) kernels->add_scaled(t->s.k + (q->skip + r) * plan->stride, 1, z, plan->F);
        kernels->add_scaled(z, dZ[r], d, plan->F);
    }
    features_backward(j, t, q, t->s.q, false, j->g->dq);
}

/* ---- keys ------------------------------------------------------------------------------------ */

void at_back_transpose_sums(const at_back_job *j, const at_linear_sums *sums, float *to) {
    const at_linear_plan *plan = &j->plan;
    const int64_t panel = plan->panel;
    for (int64_t f = 0; f < plan->F; f += panel) {
        for (int64_t d = 0; d < plan->Dv; d += panel) {
            const int64_t rows = plan->Dv - d < panel ? plan->Dv - d : panel,
                          columns = plan->F - f < panel ? plan->F - f : panel;
            at_simd_now()->panels.pack_columns(sums->s + f * plan->Dv + d * panel, panel, rows,
                                               columns, to + d * plan->F + f * panel);
        }
    }
}

/* Adds to each key's gradient its sum of dZ_i a_i: over this block's queries from the key on and,
 * if `first` is true, over the queries of later blocks. */
static void add_later(const at_back_job *j, at_back_scratch *t, const at_tokens *k,
                      const at_tokens *q, bool first, at_linear_sums *sums) {
    const at_elementwise_kernels *kernels = &at_simd_now()->elementwise;
    const int64_t F = j->plan.F, stride = j->plan.stride;
    const float *dZ = j->dZ + q->head * j->p->Sq + q->first;
    float *z = t->s.z;
    if (first)
        memcpy(z, sums->z, (size_t)F * sizeof *z);
    else
        memset(z, 0, (size_t)F * sizeof *z);
    for (int64_t i = k->count - 1, r = q->count - 1; i >= 0; i--) {
        for (; r >= 0 && q->skip + r >= i; r--)
            kernels->add_scaled(t->s.q + r * stride, dZ[r], z, F);
        kernels->add_scaled(z, 1, t->d_flat + i * stride, F);
    }
}

/* dv += triu(B A^T) dN and dB += triu(v dN^T) A: key i is visible to the block's queries from i -
 * skip on. If a query's features are not finite, neither are its Z and dN. */
static void within_keys(const at_back_job *j, at_back_scratch *t, const at_tokens *k,
                        const at_tokens *q) {
    const at_linear_plan *plan = &j->plan;
    const at_panel_kernels *panels = &at_simd_now()->panels;
    panels->pack_columns(t->s.q_rotated, plan->stride, q->count, plan->F, t->s.k_columns);
    panels->pack_columns(t->g, plan->Dv, q->count, plan->Dv, t->columns);
    panels->pack_rows(t->g, plan->Dv, q->count, plan->Dv, plan->block, t->s.v);
    at_linear_triangle triangle = {.later = true,
                                   .rows = k->count,
                                   .columns = q->count,
                                   .skip = q->skip,
                                   .strip = strip_of(t->g, plan->Dv, q->count, plan->Dv),
                                   .a = t->s.k_rotated,
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
    triangle.a = k->v;
    triangle.a_row = k->v_stride;
    triangle.depth = plan->Dv;
    triangle.b = t->columns;
    triangle.b_panel = plan->panel * at_round_up(plan->Dv, AT_DIM);
    triangle.v = t->q_rows;
    triangle.width = at_round_up(plan->F, plan->panel / 2);
    triangle.c = t->d;
    triangle.c_row = plan->stride;
    at_linear_add_triangle(plan, &triangle, t->s.scores);
}

double at_back_through_keys(const at_back_job *j, at_back_scratch *t, const at_tokens *k, float c,
                            at_linear_sums *sums) {
    const at_linear *p = j->p;
    const at_linear_plan *plan = &j->plan;
    const int64_t offset = p->Sk - p->Sq, skip = offset > k->first ? offset - k->first : 0,
                  rows = p->causal ? k->count - skip : 0;
    multiply(k->count, plan->Dvp, plan->F, t->s.k_rotated, plan->stride, t->r,
             plan->F * plan->panel, t->s.o, plan->Dvp);
    multiply(k->count, at_round_up(plan->F, plan->panel / 2), plan->Dv, k->v, k->v_stride, sums->s,
             plan->Dv * plan->panel, t->d, plan->stride);
    if (p->rotate) memset(t->d_flat, 0, (size_t)(k->count * plan->stride) * sizeof *t->d_flat);
    if (rows <= 0) add_later(j, t, k, &(at_tokens){0}, true, sums);
    for (int64_t g = 0; g < p->G && rows > 0; g++) {
        const at_tokens q = at_back_queries(j, t, k->b * p->Hq + k->head % p->Hk * p->G + g,
                                            k->first + skip - offset, rows, skip);
        load_slopes(j, t, &q);
        at_back_pack_features(j, t->s.q_rotated, rows, t->q_rows);
        within_keys(j, t, k, &q);
        add_later(j, t, k, &q, g == 0, sums);
        at_back_add_queries(j, t, &q, c, sums);
    }
    for (int64_t i = 0; i < k->count && p->rotate; i++) {
        float *d = t->d + i * plan->stride;
        at_rotate_token_back(&p->k_rotation, k->b, k->first + i, d, d);
        at_simd_now()->elementwise.add_scaled(t->d_flat + i * plan->stride, 1, d, plan->F);
    }
    for (int64_t i = 0; i < k->count; i++)
        at_store_row(j->g->dv, (k->head * p->Sk + k->first + i) * p->Dv, 1, p->Dv,
                     t->s.o + i * plan->Dvp);
    return features_backward(j, t, k, t->s.k, true, j->g->dk);
}
