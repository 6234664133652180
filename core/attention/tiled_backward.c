/* tiled_backward.c - gradients over tiles: Dao et al. 2022 (arXiv 2205.14135), algorithm 4, and Dao
 * 2023 (arXiv 2307.08691), algorithm 2.
 *
 * One task computes one key block of one kv head. It packs the keys once and goes over all rows
 * with a visible key in the block, one query head of the group after the other. It alone sums dk
 * and dv of its keys, over heads and tokens in a fixed order. It computes S = q k^T again, then P
 * and dS as in simd/kernels/gradient_kernels.c:
 *
 *   dv += P^T d_o      dP = d_o v^T      dk += dS^T q      dq += dS k
 *
 * P is 2^(s - lse). Where |lse| is large, f32 no longer holds the log of the sum beside the max
 * score: P of such rows is 2^(s - origin - lse'), with a max score (origin) and a sum that are
 * computed again, over the same products as S.
 *
 * Several tasks add to the dq of a row block. They do so in the order of their key blocks: a task
 * waits until the tasks before it have added theirs. Tasks also start in that order, so that a task
 * only waits for running tasks. The number of threads changes which task waits for which, and
 * nothing else.
 */
#include <math.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "attention/backward_block.h"
#include "attention/key_source.h"
#include "base/arena.h"
#include "base/constants.h"
#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"
#include "simd/table.h"
#include "tensor/tensor.h"

typedef struct block_scratch {
    /* keys as columns: panels of keys, each [dims rounded up to AT_DIM][panel] */
    float *k_columns, *v_columns;
    float *k_rows;           /* keys as rows: panels of dims, each [keys][panel] */
    float *q_rows, *o_rows;  /* q and d_o of a row block, in the layout of k_rows */
    float *weights, *scores; /* [rows][stride] */
    float *dk, *dv;          /* [keys][Dp], [keys][Dvp] */
    float *f32_rows;         /* [max(rows, keys)][max(D, Dv)] */
    float *before;           /* [AT_RUN] the scores of a row before the score program */
    float *slope;            /* [AT_RUN] the derivative of the softcap at each of them */
    void *modifier;
    at_task_gradients gradients;
    at_arena arena;
} block_scratch;

typedef struct backward_job {
    const at_problem *p;
    const at_gradients *g;
    int64_t rows, keys;             /* max of a block */
    int64_t row_blocks, key_blocks; /* of a query head, of a kv head */
    int64_t together;               /* kv heads whose tasks are interleaved */
    int64_t Dp, Dvp;                /* D and Dv rounded up to whole panels */
    int64_t stride;                 /* of weights and scores */
    float *lse, *delta;             /* [B * Hq * Sq]; lse is an exponent of 2 */
    float *origin; /* [B * Hq * Sq] the max score of rows with a large lse, which is then relative
                      to it; else 0. Scores are those that the gradient kernel scales. */
    atomic_bool large; /* some row has a large lse */
    float *dq;         /* [B * Hq * Sq][dq_stride], sums */
    int64_t dq_stride;
    int32_t *span; /* [B * Hq][row_blocks][2]: the key blocks [from, to) with a visible key */
    atomic_int *row_tasks_done; /* [B * Hq][row_blocks]: tasks that have added their dq */
    atomic_int *key_tasks_done; /* [key_blocks]: tasks that have added their table gradients without
                                   a buffer; NULL: none does */
    atomic_int tables_done;     /* tasks that have added their buffers of table gradients */
    block_scratch *thread;
} backward_job;

/* ---- before: delta and lse ------------------------------------------------------------------- */

enum { PREPARE_ROWS = 64, HEADS_TOGETHER = 4 };

/* The element of t [B, Hq, Sq] that belongs to a row. */
static double row_value(const backward_job *j, const attune_tensor *t, int64_t row) {
    const int64_t Sq = j->p->query.Sq, Hq = j->p->query.Hq, *s = t->stride;
    return at_load(t, row / Sq / Hq * s[0] + row / Sq % Hq * s[1] + row % Sq * s[2]);
}

static attune_status prepare_rows(void *context, int64_t task, int thread) {
    backward_job *j = context;
    const at_problem *p = j->p;
    const attune_tensor *d_o = j->g->d_o, *o = j->g->o;
    float *x = j->thread[thread].f32_rows, *y = j->thread[thread].dv;
    const int64_t rows = p->query.B * p->query.Hq * p->query.Sq;
    for (int64_t row = task * PREPARE_ROWS; row < (task + 1) * PREPARE_ROWS && row < rows; row++) {
        const int64_t i = row % p->query.Sq, h = row / p->query.Sq % p->query.Hq,
                      b = row / p->query.Sq / p->query.Hq;
        double sum = 0;
        at_load_row(d_o, b * d_o->stride[0] + h * d_o->stride[1] + i * d_o->stride[2],
                    d_o->stride[3], p->Dv, x);
        at_load_row(o, b * o->stride[0] + h * o->stride[1] + i * o->stride[2], o->stride[3], p->Dv,
                    y);
        for (int64_t d = 0; d < p->Dv; d++) sum += (double)x[d] * (double)y[d];
        if (j->g->d_lse) sum -= row_value(j, j->g->d_lse, row);
        j->delta[row] = (float)sum;
        const double l = row_value(j, j->g->lse, row);
        if (at_lse_is_large(l)) atomic_store_explicit(&j->large, true, memory_order_relaxed);
        j->origin[row] = 0;
        j->lse[row] = l == -INFINITY ? INFINITY : (float)(l * AT_LOG2_E); /* 2^(e - inf) is 0 */
    }
    return ATTUNE_OK;
}

static bool runs_programs(const at_problem *p) {
    return p->query.modifier.score.program || at_has_gaps(&p->query.modifier);
}

/* The logit of a score of 1. A score program, and a mask with gaps, run over logits. */
static double logit_of_score(const at_problem *p) {
    if (runs_programs(p)) return 1;
    return p->query.softcap > 0 ? p->query.softcap : p->query.scale;
}

static attune_status sum_sinks(void *context, int64_t h, int thread) {
    const backward_job *j = context;
    const at_problem *p = j->p;
    double sum = 0;
    (void)thread;
    for (int64_t b = 0; b < p->query.B; b++) {
        for (int64_t row = (b * p->query.Hq + h) * p->query.Sq, end = row + p->query.Sq; row < end;
             row++)
            sum -= exp2(((double)p->query.sinks[h] - (double)j->origin[row] * logit_of_score(p)) *
                            AT_LOG2_E -
                        (double)j->lse[row]) *
                   (double)j->delta[row];
    }
    at_store(j->g->dsinks, h, sum);
    return ATTUNE_OK;
}

static attune_status span_of_block(void *context, int64_t task, int thread) {
    backward_job *j = context;
    const at_problem *p = j->p;
    const int64_t token = task % j->row_blocks * j->rows,
                  end = token + j->rows < p->query.Sq ? token + j->rows : p->query.Sq,
                  head = task / j->row_blocks;
    int64_t first = p->Sk, last = 0;
    (void)thread;
    for (int64_t i = token; i < end; i++) {
        int64_t f, l;
        at_problem_visible_keys_of_head(p, head / p->query.Hq, head % p->query.Hq, i, &f, &l);
        if (f >= l) continue;
        if (f < first) first = f;
        if (l > last) last = l;
    }
    const int64_t from = first / j->keys, to = at_ceil_div(last, j->keys);
    j->span[2 * task] = (int32_t)from;
    j->span[2 * task + 1] = (int32_t)(first < last ? to : from);
    return ATTUNE_OK;
}

/* ---- one row block against one key block ----------------------------------------------------- */

/* The products x of row `row` of the block become logits, with the softcap, the score program and
 * the mask. s->slope: the derivatives of the softcap. Returns the run, for the program's
 * gradients. */
static at_run run_programs(const backward_job *j, block_scratch *s, const at_backward_block *k,
                           int64_t row, float *x) {
    const at_program_kernels *kernels = &at_simd_now()->program;
    const at_problem *p = j->p;
    const at_modifier *m = &p->query.modifier;
    const int first = k->first[row], n = k->last[row] - first;
    const float one = 1, cap = (float)p->query.softcap, inner = (float)(1 / p->query.softcap);
    const float scale = (float)p->query.scale;
    const at_values scores = {s->before, 1}, slopes = {s->slope, 1};
    const at_run run = {.binding = &m->score,
                        .b = k->b,
                        .h = k->h,
                        .i = k->token + row,
                        .key = k->key + first,
                        .n = n,
                        .score = s->before,
                        .scratch = s->modifier};
    if (n <= 0) return run;
    kernels->apply(ATTUNE_OP_MUL, (at_values){x + first, 1}, (at_values){&scale, 0}, (at_values){0},
                   s->before, n);
    if (p->query.softcap > 0) {
        kernels->apply(ATTUNE_OP_TANH, scores, (at_values){&inner, 0}, (at_values){&one, 0},
                       s->before, n);
        kernels->apply(ATTUNE_OP_MUL, scores, scores, (at_values){0}, s->slope, n);
        kernels->apply(ATTUNE_OP_SUB, (at_values){&one, 0}, slopes, (at_values){0}, s->slope, n);
        kernels->apply(ATTUNE_OP_MUL, scores, (at_values){&cap, 0}, (at_values){0}, s->before, n);
    }
    if (m->score.program) {
        at_run_pairs(&run, x + first);
        at_modifier_note_reads(m, &run, NULL);
    } else {
        memcpy(x + first, s->before, (size_t)n * sizeof *x);
    }
    at_hide(m, k->b, k->h, k->token + row, k->key + first, n, x + first,
            (char *)s->modifier + at_modifier_scratch(m));
    return run;
}

/* P and dS of row r of a step, with the score program and the mask. `row`: the same row, counted in
 * the block. */
static void gradients_of_program(const backward_job *j, block_scratch *s,
                                 const at_backward_block *k, int64_t row,
                                 const at_gradient_step *step, int r) {
    const at_program_kernels *kernels = &at_simd_now()->program;
    const at_problem *p = j->p;
    const at_modifier *m = &p->query.modifier;
    const int first = step->first[r], n = step->last[r] - first;
    float *x = step->weights + r * step->stride, *d = step->scores + r * step->stride;
    const float one = 1, scale = step->scale;
    const at_values slopes = {s->slope, 1};
    const at_run run = run_programs(j, s, k, row, x);
    at_gradient_step plain = *step;
    plain.rows = 1;
    plain.weights = x;
    plain.scores = d;
    plain.first += r;
    plain.last += r;
    plain.origin += r;
    plain.lse += r;
    plain.delta += r;
    plain.scale = 1;
    plain.softcap = 0;
    at_simd_now()->attention.gradients(&plain);
    if (n <= 0) return;
    if (s->gradients.of) at_task_gradients_add(&s->gradients, &run, d + first);
    kernels->multiply(m->score.program ? at_run_value(&run, m->score.program->slope)
                                       : (at_values){&one, 0},
                      scale, d + first, n);
    if (p->query.softcap > 0) kernels->multiply(slopes, 1, d + first, n);
}

/* S of the rows [from, to) over the columns [left, right). Each sum is over dims in their order,
 * whatever the rows and columns. */
static at_panel_product product_of_scores(const backward_job *j, const block_scratch *s,
                                          int64_t from, int64_t to, int64_t left, int64_t right) {
    const int64_t panel = at_simd_now()->geometry.panel, D = j->p->query.D;
    return (at_panel_product){.rows = to - from,
                              .columns = right - left,
                              .depth = D,
                              .a = s->q_rows + from * panel,
                              .a_row = panel,
                              .a_panel = j->rows * panel,
                              .b = s->k_columns + left * at_round_up(D, AT_DIM),
                              .b_panel = panel * at_round_up(D, AT_DIM),
                              .c = s->weights + from * j->stride + left,
                              .c_row = j->stride};
}

/* S and dP of the rows [from, to), then P and dS. */
static void scores_of_rows(const backward_job *j, block_scratch *s, const at_backward_block *k,
                           int64_t from, int64_t to) {
    const at_simd *simd = at_simd_now();
    const at_problem *p = j->p;
    const int64_t panel = simd->geometry.panel,
                  index = (k->b * p->query.Hq + k->h) * p->query.Sq + k->token;
    int64_t left, right;
    if (at_block_columns(k, from, to, panel, &left, &right)) {
        at_panel_product product = product_of_scores(j, s, from, to, left, right);
        simd->panels.multiply(&product);
        product.depth = p->Dv;
        product.a = s->o_rows + from * panel;
        product.b = s->v_columns + left * at_round_up(p->Dv, AT_DIM);
        product.b_panel = panel * at_round_up(p->Dv, AT_DIM);
        product.c = s->scores + from * j->stride + left;
        simd->panels.multiply(&product);
    }
    const at_gradient_step step = {.rows = (int)(to - from),
                                   .columns = (int)at_round_up(k->keys, panel),
                                   .stride = j->stride,
                                   .weights = s->weights + from * j->stride,
                                   .scores = s->scores + from * j->stride,
                                   .first = k->first + from,
                                   .last = k->last + from,
                                   .origin = j->origin + index + from,
                                   .lse = j->lse + index + from,
                                   .delta = j->delta + index + from,
                                   .scale = (float)p->query.scale,
                                   .softcap = (float)p->query.softcap};
    if (runs_programs(p)) {
        for (int r = 0; r < step.rows; r++) gradients_of_program(j, s, k, from + r, &step, r);
        return;
    }
    simd->attention.gradients(&step);
}

/* dv and dk of the keys [from, to). */
static void gradients_of_keys(const backward_job *j, const block_scratch *s,
                              const at_backward_block *k, int64_t from, int64_t to) {
    const at_simd *simd = at_simd_now();
    const int64_t panel = simd->geometry.panel;
    int64_t top, bottom;
    if (!at_block_rows(k, from, to, &top, &bottom)) return;
    at_panel_product product = {.rows = to - from,
                                .columns = at_round_up(j->p->Dv, panel / 2),
                                .depth = bottom - top,
                                .a = s->weights + top * j->stride + from,
                                .a_row = 1,
                                .a_step = j->stride,
                                .b = s->o_rows + top * panel,
                                .b_panel = j->rows * panel,
                                .c = s->dv + from * j->Dvp,
                                .c_row = j->Dvp,
                                .add = true};
    simd->panels.multiply(&product);
    product.columns = at_round_up(j->p->query.D, panel / 2);
    product.a = s->scores + top * j->stride + from;
    product.b = s->q_rows + top * panel;
    product.c = s->dk + from * j->Dp;
    product.c_row = j->Dp;
    simd->panels.multiply(&product);
}

/* dq of the rows [from, to). */
static void gradients_of_rows(const backward_job *j, const block_scratch *s,
                              const at_backward_block *k, int64_t from, int64_t to) {
    const at_simd *simd = at_simd_now();
    const int64_t panel = simd->geometry.panel,
                  index = (k->b * j->p->query.Hq + k->h) * j->p->query.Sq + k->token;
    int64_t left, right;
    if (!at_block_columns(k, from, to, 1, &left, &right)) return;
    const at_panel_product product = {.rows = to - from,
                                      .columns = at_round_up(j->p->query.D, panel / 2),
                                      .depth = right - left,
                                      .a = s->scores + from * j->stride + left,
                                      .a_row = j->stride,
                                      .a_step = 1,
                                      .b = s->k_rows + left * panel,
                                      .b_panel = j->keys * panel,
                                      .c = j->dq + (index + from) * j->dq_stride,
                                      .c_row = j->dq_stride,
                                      .add = true};
    simd->panels.multiply(&product);
}

/* ---- packing --------------------------------------------------------------------------------- */

static void pack_keys(const backward_job *j, block_scratch *s, const at_backward_block *k) {
    const at_panel_kernels *kernels = &at_simd_now()->panels;
    const at_problem *p = j->p;
    int64_t stride;
    const float *x = at_f32_rows(&p->k, at_rotation_or_null(&p->k_rotation), k->b, k->kv, k->key,
                                 k->keys, s->f32_rows, &stride);
    kernels->pack_columns(x, stride, k->keys, p->query.D, s->k_columns);
    kernels->pack_rows(x, stride, k->keys, p->query.D, j->keys, s->k_rows);
    x = at_f32_rows(&p->v, NULL, k->b, k->kv, k->key, k->keys, s->f32_rows, &stride);
    kernels->pack_columns(x, stride, k->keys, p->Dv, s->v_columns);
    memset(s->dk, 0, (size_t)(j->keys * j->Dp) * sizeof *s->dk);
    memset(s->dv, 0, (size_t)(j->keys * j->Dvp) * sizeof *s->dv);
}

static void pack_block_rows(const backward_job *j, block_scratch *s, const at_backward_block *k) {
    const at_panel_kernels *kernels = &at_simd_now()->panels;
    const at_problem *p = j->p;
    int64_t stride;
    const float *x = at_f32_rows(&p->query.q, at_rotation_or_null(&p->query.rotation), k->b, k->h,
                                 k->token, k->rows, s->f32_rows, &stride);
    kernels->pack_rows(x, stride, k->rows, p->query.D, j->rows, s->q_rows);
    x = at_f32_rows(j->g->d_o, NULL, k->b, k->h, k->token, k->rows, s->f32_rows, &stride);
    kernels->pack_rows(x, stride, k->rows, p->Dv, j->rows, s->o_rows);
}

/* ---- rows with a large lse ------------------------------------------------------------------- */

/* The max score of a row so far, and the sum of e^(logit - max logit). */
typedef struct row_sum {
    float max;
    double sum;
} row_sum;

/* Adds the visible scores x of row `row` of the block to its sum. They are overwritten. */
static void add_to_sum(const backward_job *j, block_scratch *s, const at_backward_block *k,
                       int64_t row, float *x, row_sum *to) {
    const at_simd *simd = at_simd_now();
    const at_problem *p = j->p;
    const double logit = logit_of_score(p);
    const float one = 1, inner = (float)p->query.scale / (float)p->query.softcap;
    const float sign = logit < 0 ? -1.0f : 1.0f, factor = (float)logit;
    const int n = k->last[row] - k->first[row];
    float max = to->max;
    if (runs_programs(p)) run_programs(j, s, k, row, x);
    x += k->first[row];
    if (!runs_programs(p) && p->query.softcap > 0)
        simd->program.apply(ATTUNE_OP_TANH, (at_values){x, 1}, (at_values){&inner, 0},
                            (at_values){&one, 0}, x, n);
    for (int c = 0; c < n; c++)
        if (x[c] * sign > max * sign || (max == -INFINITY && x[c] != -INFINITY)) max = x[c];
    if (n <= 0 || max == -INFINITY) return;
    if (to->sum != 0) to->sum *= exp(((double)to->max - (double)max) * logit);
    for (int c = 0; c < n; c++) x[c] = (x[c] - max) * factor;
    simd->elementwise.exp(x, x, n);
    to->sum += (double)simd->elementwise.sum(x, n);
    to->max = max;
}

/* The origin and lse of the rows of a row block whose lse is large. */
static attune_status large_rows_task(void *context, int64_t task, int thread) {
    backward_job *j = context;
    const at_problem *p = j->p;
    block_scratch *s = &j->thread[thread];
    const int64_t head = task / j->row_blocks, panel = at_simd_now()->geometry.panel;
    at_backward_block k = {.b = head / p->query.Hq,
                           .h = head % p->query.Hq,
                           .kv = head % p->query.Hq / p->query.G,
                           .token = task % j->row_blocks * j->rows};
    k.rows = p->query.Sq - k.token < j->rows ? p->query.Sq - k.token : j->rows;
    const int64_t row = head * p->query.Sq + k.token;
    row_sum sums[256];
    bool any = false;
    for (int64_t r = 0; r < k.rows; r++) {
        sums[r] = (row_sum){.max = -INFINITY};
        any = any || at_lse_is_large(row_value(j, j->g->lse, row + r));
    }
    if (!any) return ATTUNE_OK;
    pack_block_rows(j, s, &k);
    for (int64_t n = j->span[2 * task]; n < j->span[2 * task + 1]; n++) {
        int64_t left, right;
        k.key = n * j->keys;
        k.keys = p->Sk - k.key < j->keys ? p->Sk - k.key : j->keys;
        at_block_find_visible(p, &k);
        if (at_interrupted()) return at_interrupted_status();
        if (!at_block_is_visible(p, &k) || !at_block_columns(&k, 0, k.rows, panel, &left, &right))
            continue;
        pack_keys(j, s, &k);
        const at_panel_product product = product_of_scores(j, s, 0, k.rows, left, right);
        at_simd_now()->panels.multiply(&product);
        for (int64_t r = 0; r < k.rows; r++)
            if (at_lse_is_large(row_value(j, j->g->lse, row + r)))
                add_to_sum(j, s, &k, r, s->weights + r * j->stride, &sums[r]);
    }
    for (int64_t r = 0; r < k.rows; r++) {
        if (sums[r].sum == 0) continue;
        double lse = log(sums[r].sum);
        if (p->query.sinks) {
            const double sink =
                             (double)p->query.sinks[k.h] - (double)sums[r].max * logit_of_score(p),
                         max = sink > lse ? sink : lse;
            lse = max + log(exp(lse - max) + exp(sink - max));
        }
        j->origin[row + r] = sums[r].max;
        j->lse[row + r] = (float)(lse * AT_LOG2_E);
    }
    return ATTUNE_OK;
}

/* ---- a task ---------------------------------------------------------------------------------- */

/* A block without hidden pairs is one product. Other blocks are computed in strips as high as a
 * register tile, each over its visible range only. */
static void run_block(const backward_job *j, block_scratch *s, const at_backward_block *k) {
    const int64_t strip = k->whole ? k->rows : at_simd_now()->geometry.rows[AT_FMA],
                  key_strip = k->whole ? k->keys : strip;
    pack_block_rows(j, s, k);
    for (int64_t r = 0; r < k->rows; r += strip)
        scores_of_rows(j, s, k, r, r + strip < k->rows ? r + strip : k->rows);
    for (int64_t c = 0; c < k->keys; c += key_strip)
        gradients_of_keys(j, s, k, c, c + key_strip < k->keys ? c + key_strip : k->keys);
}

/* Waits until `before` tasks have added their sums. false: an error or an interrupt stops the
 * tasks, and one of them never will. */
static bool wait_for(atomic_int *done, int before) {
    for (int spins = 0; atomic_load_explicit(done, memory_order_acquire) != before; spins++) {
        if (at_stopping()) return false;
        if (spins > 1000) sched_yield();
    }
    return true;
}

static void store_keys(const backward_job *j, const block_scratch *s, const at_backward_block *k) {
    const at_problem *p = j->p;
    const at_rotation *rotation = at_rotation_or_null(&p->k_rotation);
    for (int64_t i = 0; i < k->keys; i++) {
        const int64_t index = (k->b * p->query.Hk + k->kv) * p->Sk + k->key + i;
        if (rotation)
            at_rotate_token_back(rotation, k->b, k->key + i, s->dk + i * j->Dp, s->dk + i * j->Dp);
        at_store_row(j->g->dk, index * p->query.D, 1, p->query.D, s->dk + i * j->Dp);
        at_store_row(j->g->dv, index * p->Dv, 1, p->Dv, s->dv + i * j->Dvp);
    }
}

/* The tasks of `together` kv heads are interleaved: first the first key block of each head, then
 * the second of each, and so on. Tasks that run side by side then seldom wait for each other, and
 * with a causal mask the long ones come first. Returns the head, and the key block in *number. */
static int64_t head_of_task(const backward_job *j, int64_t task, int64_t *number) {
    const int64_t heads = j->p->query.B * j->p->query.Hk,
                  first = task / (j->together * j->key_blocks) * j->together, left = heads - first,
                  together = left < j->together ? left : j->together,
                  index = task - first * j->key_blocks;
    *number = index / together;
    return first + index % together;
}

static attune_status key_block_task(void *context, int64_t task, int thread) {
    backward_job *j = context;
    const at_problem *p = j->p;
    block_scratch *s = &j->thread[thread];
    int64_t number;
    const int64_t head = head_of_task(j, task, &number);
    at_backward_block k = {
        .b = head / p->query.Hk, .kv = head % p->query.Hk, .key = number * j->keys};
    k.keys = p->Sk - k.key < j->keys ? p->Sk - k.key : j->keys;
    pack_keys(j, s, &k);
    at_task_gradients_begin(&s->gradients, k.b, k.kv * p->query.G, k.key);
    if (j->key_tasks_done && !wait_for(&j->key_tasks_done[number], (int)head))
        return at_interrupted_status();
    for (k.h = k.kv * p->query.G; k.h < (k.kv + 1) * p->query.G; k.h++) {
        for (int64_t i = 0; i < j->row_blocks; i++) {
            const int64_t index = (k.b * p->query.Hq + k.h) * j->row_blocks + i,
                          from = j->span[2 * index], to = j->span[2 * index + 1];
            if (number < from || number >= to) continue;
            k.token = i * j->rows;
            k.rows = p->query.Sq - k.token < j->rows ? p->query.Sq - k.token : j->rows;
            at_block_find_visible(p, &k);
            const bool visible = at_block_is_visible(p, &k);
            if (visible) run_block(j, s, &k);
            atomic_int *done = &j->row_tasks_done[index];
            if (at_interrupted() || !wait_for(done, (int)(number - from)))
                return at_interrupted_status();
            const int64_t strip = k.whole ? k.rows : at_simd_now()->geometry.rows[AT_FMA];
            for (int64_t r = 0; r < k.rows && visible; r += strip)
                gradients_of_rows(j, s, &k, r, r + strip < k.rows ? r + strip : k.rows);
            atomic_fetch_add_explicit(done, 1, memory_order_release);
        }
    }
    if (j->key_tasks_done)
        atomic_fetch_add_explicit(&j->key_tasks_done[number], 1, memory_order_release);
    store_keys(j, s, &k);
    if (!s->gradients.of) return ATTUNE_OK;
    if (!wait_for(&j->tables_done, (int)task)) return at_interrupted_status();
    at_task_gradients_end(&s->gradients);
    atomic_fetch_add_explicit(&j->tables_done, 1, memory_order_release);
    return ATTUNE_OK;
}

/* Rotates dq back and stores it in the result, unless the sums are there already. */
static attune_status finish_rows(void *context, int64_t task, int thread) {
    const backward_job *j = context;
    const at_problem *p = j->p;
    const at_rotation *rotation = at_query_rotation(&p->query);
    const int64_t rows = p->query.B * p->query.Hq * p->query.Sq;
    (void)thread;
    for (int64_t row = task * PREPARE_ROWS; row < (task + 1) * PREPARE_ROWS && row < rows; row++) {
        float *x = j->dq + row * j->dq_stride;
        if (rotation)
            at_rotate_token_back(rotation, row / p->query.Sq / p->query.Hq, row % p->query.Sq, x,
                                 x);
        if (j->dq != j->g->dq->data) at_store_row(j->g->dq, row * p->query.D, 1, p->query.D, x);
    }
    return ATTUNE_OK;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static void carve(at_arena *a, const backward_job *j, block_scratch *s) {
    const at_problem *p = j->p;
    const int64_t longest = j->rows > j->keys ? j->rows : j->keys,
                  widest = p->query.D > p->Dv ? p->query.D : p->Dv;
    const size_t size = sizeof(float);
    s->k_columns = at_arena_take(a, j->keys * at_round_up(p->query.D, AT_DIM), size);
    s->v_columns = at_arena_take(a, j->keys * at_round_up(p->Dv, AT_DIM), size);
    s->k_rows = at_arena_take(a, j->keys * j->Dp, size);
    s->q_rows = at_arena_take(a, j->rows * j->Dp, size);
    s->o_rows = at_arena_take(a, j->rows * j->Dvp, size);
    s->weights = at_arena_take(a, j->rows * j->stride, size);
    s->scores = at_arena_take(a, j->rows * j->stride, size);
    s->dk = at_arena_take(a, j->keys * j->Dp, size);
    s->dv = at_arena_take(a, j->keys * j->Dvp, size);
    s->f32_rows = at_arena_take(a, longest * widest, size);
    s->before = at_arena_take(a, AT_RUN, size);
    s->slope = at_arena_take(a, AT_RUN, size);
    s->modifier = at_arena_take(a, 2 * at_modifier_scratch(&p->query.modifier), 1);
}

static attune_status make_scratch(const backward_job *j, block_scratch *s) {
    const at_problem *p = j->p;
    at_arena arena = {0};
    carve(&arena, j, s);
    AT_TRY(at_arena_alloc(&arena));
    carve(&arena, j, s);
    s->arena = arena;
    return j->g->tables ? at_task_gradients_new(j->g->tables, p->query.G, j->keys, &s->gradients)
                        : ATTUNE_OK;
}

static attune_status run(backward_job *j) {
    const at_problem *p = j->p;
    const int64_t rows = p->query.B * p->query.Hq * p->query.Sq,
                  pieces = at_ceil_div(rows, PREPARE_ROWS);
    AT_TRY(at_parallel(pieces, prepare_rows, j));
    AT_TRY(at_parallel(p->query.B * p->query.Hq * j->row_blocks, span_of_block, j));
    if (j->large) AT_TRY(at_parallel(p->query.B * p->query.Hq * j->row_blocks, large_rows_task, j));
    if (p->query.sinks && j->g->dsinks) AT_TRY(at_parallel(p->query.Hq, sum_sinks, j));
    AT_TRY(at_parallel(p->query.B * p->query.Hk * j->key_blocks, key_block_task, j));
    const bool done = j->dq == j->g->dq->data && !p->query.rotation.cosine;
    return done ? ATTUNE_OK : at_parallel(pieces, finish_rows, j);
}

attune_status at_tiled_backward(const at_problem *p, const at_gradients *g) {
    const at_geometry *geometry = &at_simd_now()->geometry;
    const int64_t panel = geometry->panel, rows = p->query.B * p->query.Hq * p->query.Sq,
                  max_dims = p->query.D > p->Dv ? p->query.D : p->Dv,
                  strip = geometry->rows[AT_FMA];
    backward_job j = {.p = p,
                      .g = g,
                      .keys = max_dims <= 128 ? 128 : 64,
                      .rows = (max_dims <= 128 ? 112 : 56) / strip * strip};
    j.Dp = at_round_up(p->query.D, panel);
    j.Dvp = at_round_up(p->Dv, panel);

    j.stride = j.keys + 16;
    j.row_blocks = at_ceil_div(p->query.Sq, j.rows);
    j.key_blocks = at_ceil_div(p->Sk, j.keys);

    /* Where the result is f32 and its rows are whole vectors, it holds the sums of dq itself. */
    const bool in_place = g->dq->dtype == ATTUNE_F32 && p->query.D % AT_DIM == 0;
    const int64_t all_row_blocks = at_checked_mul(p->query.B * p->query.Hq, j.row_blocks);
    const int threads = at_threads();
    j.dq_stride = in_place ? p->query.D : at_round_up(p->query.D, AT_DIM);
    j.dq = in_place ? g->dq->data
                    : at_alloc_zeroed(
                          at_checked_mul(at_checked_mul(rows, j.dq_stride), (int64_t)sizeof *j.dq));
    if (j.dq) j.lse = at_alloc(at_checked_mul(3 * rows, (int64_t)sizeof *j.lse));
    if (j.lse)
        j.row_tasks_done =
            at_alloc_zeroed(at_checked_mul(all_row_blocks, (int64_t)sizeof *j.row_tasks_done));
    if (j.row_tasks_done)
        j.span = at_alloc(at_checked_mul(all_row_blocks, 2 * (int64_t)sizeof *j.span));
    const bool unbuffered = g->tables && at_table_gradients_are_direct(g->tables);
    /* Tasks that wait for tasks of other heads over the same keys are kept apart. */
    j.together = unbuffered ? 1 : HEADS_TOGETHER;
    if (j.span && unbuffered)
        j.key_tasks_done = at_alloc_zeroed(j.key_blocks * (int64_t)sizeof *j.key_tasks_done);
    if (j.span && (j.key_tasks_done || !unbuffered))
        j.thread = at_alloc_zeroed(threads * (int64_t)sizeof *j.thread);
    attune_status status = j.thread ? ATTUNE_OK : ATTUNE_EMEMORY;
    for (int t = 0; t < threads && status == ATTUNE_OK; t++)
        status = make_scratch(&j, &j.thread[t]);
    if (status == ATTUNE_OK) {
        j.delta = j.lse + rows;
        j.origin = j.delta + rows;
        status = run(&j);
    }
    for (int t = 0; t < threads && j.thread; t++) {
        at_arena_free(&j.thread[t].arena);
        at_task_gradients_free(&j.thread[t].gradients);
    }
    if (!in_place) at_free(j.dq);
    at_free(j.lse);
    at_free(j.row_tasks_done);
    at_free(j.span);
    at_free(j.key_tasks_done);
    at_free(j.thread);
    return status;
}
