/* backward.c - gradients over tiles: Dao et al. 2022 (arXiv 2205.14135), algorithm 4, and Dao 2023
 * (arXiv 2307.08691), algorithm 2.
 *
 * A task is a block of keys of one kv head. It packs them once, goes over all rows that see one of
 * them (the query heads of the group, one after the other), and keeps dk and dv of its keys to
 * itself: they are summed over heads and tokens in one order. With S = q k^T computed anew, P and
 * dS as in simd/kernels/backward.c:
 *
 *   dv += P^T d_o      dP = d_o v^T      dk += dS^T q      dq += dS k
 *
 * dq belongs to rows, which several tasks share. Each row block takes the tasks' parts in the order
 * of the keys: a task waits for its turn there. Tasks are started in that order too, so that the
 * one that is waited for always runs. Nothing depends on the number of threads but who waits for
 * whom.
 */
#include <math.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "attention/problem.h"
#include "base/constants.h"
#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"
#include "simd/table.h"
#include "tensor/tensor.h"

typedef struct block_scratch {
    float *k_columns,
        *v_columns; /* keys as columns: panels of keys, [dims rounded up to AT_DIM][panel] */
    float *k_rows;  /* keys as rows: panels of dims, [keys][panel] */
    float *q_rows, *o_rows;  /* q and d_o of a row block, likewise */
    float *weights, *scores; /* [rows][stride] */
    float *dk, *dv;          /* [keys][Dp], [keys][Dvp] */
    float *wide;             /* [max(rows, keys)][max(D, Dv)] */
    float *before,
        *slope; /* [AT_RUN] a row's scores before the program, and the softcap's slopes */
    void *modifier;
    at_task_gradients gradients;
    void *all;
} block_scratch;

typedef struct backward_job {
    const at_problem *p;
    const at_gradients *g;
    int64_t rows, keys;             /* of a block, at most */
    int64_t row_blocks, key_blocks; /* of a query head, of a kv head */
    int64_t together;               /* kv heads whose tasks take turns */
    int64_t Dp, Dvp;                /* D and Dv in whole panels */
    int64_t stride;
    float *lse, *delta; /* [B * Hq * Sq]: lse as an exponent of 2 */
    float *dq;          /* [B * Hq * Sq][dq_stride], sums */
    int64_t dq_stride;
    int32_t *span;      /* [B * Hq][row_blocks][2]: the key blocks [from, to) that some row sees */
    atomic_int *turn;   /* [B * Hq][row_blocks]: how many tasks have added theirs */
    atomic_int *direct; /* [key_blocks] how many tasks of these keys have added directly to the
                           tables' sums; NULL: none does */
    atomic_int tables_done; /* how many tasks have added theirs to the tables' sums */
    block_scratch *thread;
} backward_job;

/* ---- before: delta and lse ------------------------------------------------------------------- */

enum { PREPARE_ROWS = 64, HEADS_TOGETHER = 4 };

static attune_status prepare_rows(void *context, int64_t task, int thread) {
    const backward_job *j = context;
    const at_problem *p = j->p;
    const attune_tensor *d_o = j->g->d_o, *o = j->g->o, *lse = j->g->lse;
    float *x = j->thread[thread].wide, *y = j->thread[thread].dv;
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
        j->delta[row] = (float)sum;
        const double l = at_load(lse, b * lse->stride[0] + h * lse->stride[1] + i * lse->stride[2]);
        j->lse[row] = l == -INFINITY ? INFINITY : (float)(l * AT_LOG2_E); /* 2^(e - inf) is 0 */
    }
    return ATTUNE_OK;
}

static attune_status sum_sinks(void *context, int64_t h, int thread) {
    const backward_job *j = context;
    const at_problem *p = j->p;
    double sum = 0;
    (void)thread;
    for (int64_t b = 0; b < p->query.B; b++) {
        for (int64_t row = (b * p->query.Hq + h) * p->query.Sq, end = row + p->query.Sq; row < end;
             row++)
            sum -= exp2((double)p->query.sinks[h] * AT_LOG2_E - (double)j->lse[row]) *
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
    j->span[2 * task] = (int32_t)(first / j->keys),
                j->span[2 * task + 1] =
                    (int32_t)(first < last ? (last + j->keys - 1) / j->keys : first / j->keys);
    return ATTUNE_OK;
}

/* ---- one block of rows against one of keys --------------------------------------------------- */

typedef struct block {
    int64_t b, h, kv;          /* query head, kv head */
    int64_t token, rows;       /* first query token, how many */
    int64_t key, keys;         /* first key, how many */
    int first[256], last[256]; /* each row's keys of the block */
    bool whole;                /* all rows see all of them */
} block;

static void see(const at_problem *p, block *k) {
    k->whole = true;
    for (int64_t r = 0; r < k->rows; r++) {
        int64_t first, last;
        at_problem_visible_keys_of_head(p, k->b, k->h, k->token + r, &first, &last);
        first = first > k->key ? first - k->key : 0,
        last = last - k->key < k->keys ? last - k->key : k->keys;
        if (first >= last) first = last = 0;
        k->first[r] = (int)first, k->last[r] = (int)last;
        k->whole = k->whole && first == 0 && last == k->keys;
    }
}

/* The columns that rows [from, to) see, in whole half panels; false: none. */
static bool columns_of(const block *k, int64_t from, int64_t to, int64_t panel, int64_t *left,
                       int64_t *right) {
    *left = k->keys, *right = 0;
    for (int64_t r = from; r < to; r++) {
        if (k->first[r] >= k->last[r]) continue;
        if (k->first[r] < *left) *left = k->first[r];
        if (k->last[r] > *right) *right = k->last[r];
    }
    *left = *left / panel * panel, *right = at_round_up(*right, panel);
    return *left < *right;
}

/* The rows that see one of the columns [from, to); false: none. */
static bool rows_of(const block *k, int64_t from, int64_t to, int64_t *top, int64_t *bottom) {
    *top = k->rows, *bottom = 0;
    for (int64_t r = 0; r < k->rows; r++) {
        if (k->first[r] >= k->last[r] || k->first[r] >= to || k->last[r] <= from) continue;
        if (r < *top) *top = r;
        *bottom = r + 1;
    }
    return *top < *bottom;
}

/* P and dS of row r of a step, which is row `row` of the block, through the programs. */
static void gradients_of_program(const backward_job *j, block_scratch *s, const block *k,
                                 int64_t row, const at_gradient_step *step, int r) {
    const at_program_kernels *kernels = &at_simd_now()->program;
    const at_problem *p = j->p;
    const at_modifier *m = &p->query.modifier;
    const int first = step->first[r], n = step->last[r] - first;
    float *x = step->weights + r * step->stride, *d = step->scores + r * step->stride;
    const float one = 1, cap = (float)p->query.softcap, inner = (float)(1 / p->query.softcap);
    const float scale = step->scale;
    const at_values scores = {s->before, 1}, slopes = {s->slope, 1};
    at_run run = {.bound = &m->score,
                  .b = k->b,
                  .h = k->h,
                  .i = k->token + row,
                  .key = k->key + first,
                  .n = n,
                  .score = s->before,
                  .scratch = s->modifier};
    if (n > 0) {
        kernels->apply(ATTUNE_OP_MUL, (at_values){x + first, 1}, (at_values){&scale, 0},
                       (at_values){0}, s->before, n);
        if (p->query.softcap > 0) {
            kernels->apply(ATTUNE_OP_TANH, scores, (at_values){&inner, 0}, (at_values){&one, 0},
                           s->before, n);
            kernels->apply(ATTUNE_OP_MUL, scores, scores, (at_values){0}, s->slope, n);
            kernels->apply(ATTUNE_OP_SUB, (at_values){&one, 0}, slopes, (at_values){0}, s->slope,
                           n);
            kernels->apply(ATTUNE_OP_MUL, scores, (at_values){&cap, 0}, (at_values){0}, s->before,
                           n);
        }
        if (m->score.program)
            at_run_pairs(&run, x + first);
        else
            memcpy(x + first, s->before, (size_t)n * sizeof *x);
        at_hide(m, k->b, k->h, k->token + row, k->key + first, n, x + first,
                (char *)s->modifier + at_modifier_scratch(m));
    }
    at_gradient_step plain = *step;
    plain.rows = 1, plain.weights = x, plain.scores = d, plain.first += r, plain.last += r,
    plain.lse += r, plain.delta += r, plain.scale = 1, plain.softcap = 0;
    at_simd_now()->attention.gradients(&plain);
    if (n <= 0) return;
    if (s->gradients.of) at_task_gradients_add(&s->gradients, &run, d + first);
    kernels->multiply(m->score.program ? at_run_value(&run, m->score.program->slope)
                                       : (at_values){&one, 0},
                      scale, d + first, n);
    if (p->query.softcap > 0) kernels->multiply(slopes, 1, d + first, n);
}

/* S and dP of rows [from, to), then P and dS. */
static void scores_of_rows(const backward_job *j, block_scratch *s, const block *k, int64_t from,
                           int64_t to) {
    const at_simd *simd = at_simd_now();
    const at_problem *p = j->p;
    const int64_t panel = simd->geometry.panel,
                  place = (k->b * p->query.Hq + k->h) * p->query.Sq + k->token;
    int64_t left, right;
    if (columns_of(k, from, to, panel, &left, &right)) {
        at_panel_product product = {.rows = to - from,
                                    .columns = right - left,
                                    .depth = p->query.D,
                                    .a = s->q_rows + from * panel,
                                    .a_row = panel,
                                    .a_panel = j->rows * panel,
                                    .b = s->k_columns + left * at_round_up(p->query.D, AT_DIM),
                                    .b_panel = panel * at_round_up(p->query.D, AT_DIM),
                                    .c = s->weights + from * j->stride + left,
                                    .c_row = j->stride};
        simd->panels.multiply(&product);
        product.depth = p->Dv, product.a = s->o_rows + from * panel;
        product.b = s->v_columns + left * at_round_up(p->Dv, AT_DIM),
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
                                   .lse = j->lse + place + from,
                                   .delta = j->delta + place + from,
                                   .scale = (float)p->query.scale,
                                   .softcap = (float)p->query.softcap};
    if (p->query.modifier.score.program || at_has_gaps(&p->query.modifier)) {
        for (int r = 0; r < step.rows; r++) gradients_of_program(j, s, k, from + r, &step, r);
        return;
    }
    simd->attention.gradients(&step);
}

/* dv and dk of the columns [from, to). */
static void gradients_of_keys(const backward_job *j, const block_scratch *s, const block *k,
                              int64_t from, int64_t to) {
    const at_simd *simd = at_simd_now();
    const int64_t panel = simd->geometry.panel;
    int64_t top, bottom;
    if (!rows_of(k, from, to, &top, &bottom)) return;
    at_panel_product product = {.rows = to - from,
                                .columns = j->Dvp,
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
    product.columns = j->Dp, product.a = s->scores + top * j->stride + from,
    product.b = s->q_rows + top * panel;
    product.c = s->dk + from * j->Dp, product.c_row = j->Dp;
    simd->panels.multiply(&product);
}

/* dq of rows [from, to). */
static void gradients_of_rows(const backward_job *j, const block_scratch *s, const block *k,
                              int64_t from, int64_t to) {
    const at_simd *simd = at_simd_now();
    const int64_t panel = simd->geometry.panel,
                  place = (k->b * j->p->query.Hq + k->h) * j->p->query.Sq + k->token;
    int64_t left, right;
    if (!columns_of(k, from, to, 1, &left, &right)) return;
    const at_panel_product product = {.rows = to - from,
                                      .columns = at_round_up(j->p->query.D, panel / 2),
                                      .depth = right - left,
                                      .a = s->scores + from * j->stride + left,
                                      .a_row = j->stride,
                                      .a_step = 1,
                                      .b = s->k_rows + left * panel,
                                      .b_panel = j->keys * panel,
                                      .c = j->dq + (place + from) * j->dq_stride,
                                      .c_row = j->dq_stride,
                                      .add = true};
    simd->panels.multiply(&product);
}

/* ---- a task ---------------------------------------------------------------------------------- */

/* Tokens of head (b, h) as f32 rows, turned. */
static const float *rows_of_tensor(const attune_tensor *t, const at_rotation *turns, int64_t b,
                                   int64_t h, int64_t token, int64_t count, float *wide,
                                   int64_t *stride) {
    const int64_t *s = t->stride, n = t->shape[3], offset = b * s[0] + h * s[1] + token * s[2];
    if (!turns && t->dtype == ATTUNE_F32 && s[3] == 1) {
        *stride = s[2];
        return (const float *)t->data + offset;
    }
    for (int64_t i = 0; i < count; i++) {
        at_load_row(t, offset + i * s[2], s[3], n, wide + i * n);
        if (turns) at_rotate_token(turns, b, token + i, wide + i * n, wide + i * n);
    }
    *stride = n;
    return wide;
}

static void pack_keys(const backward_job *j, block_scratch *s, const block *k) {
    const at_panel_kernels *kernels = &at_simd_now()->panels;
    const at_problem *p = j->p;
    int64_t stride;
    const float *x = rows_of_tensor(&p->k, at_rotation_or_null(&p->k_rotation), k->b, k->kv, k->key,
                                    k->keys, s->wide, &stride);
    kernels->pack_columns(x, stride, k->keys, p->query.D, s->k_columns);
    kernels->pack_rows(x, stride, k->keys, p->query.D, j->keys, s->k_rows);
    x = rows_of_tensor(&p->v, NULL, k->b, k->kv, k->key, k->keys, s->wide, &stride);
    kernels->pack_columns(x, stride, k->keys, p->Dv, s->v_columns);
    memset(s->dk, 0, (size_t)(j->keys * j->Dp) * sizeof *s->dk);
    memset(s->dv, 0, (size_t)(j->keys * j->Dvp) * sizeof *s->dv);
}

static void pack_block_rows(const backward_job *j, block_scratch *s, const block *k) {
    const at_panel_kernels *kernels = &at_simd_now()->panels;
    const at_problem *p = j->p;
    int64_t stride;
    const float *x = rows_of_tensor(&p->query.q, at_rotation_or_null(&p->query.rotation), k->b,
                                    k->h, k->token, k->rows, s->wide, &stride);
    kernels->pack_rows(x, stride, k->rows, p->query.D, j->rows, s->q_rows);
    x = rows_of_tensor(j->g->d_o, NULL, k->b, k->h, k->token, k->rows, s->wide, &stride);
    kernels->pack_rows(x, stride, k->rows, p->Dv, j->rows, s->o_rows);
}

/* Blocks are whole products where all is seen; at the edges they go in strips as high as a register
 * tile, each as wide as it sees. */
static void run_block(const backward_job *j, block_scratch *s, const block *k) {
    const int64_t strip = k->whole ? k->rows : at_simd_now()->geometry.rows[AT_FMA],
                  key_strip = k->whole ? k->keys : strip;
    pack_block_rows(j, s, k);
    for (int64_t r = 0; r < k->rows; r += strip)
        scores_of_rows(j, s, k, r, r + strip < k->rows ? r + strip : k->rows);
    for (int64_t c = 0; c < k->keys; c += key_strip)
        gradients_of_keys(j, s, k, c, c + key_strip < k->keys ? c + key_strip : k->keys);
}

/* Waits until the tasks before this one have added theirs to what they share. false: one of them
 * never will. */
static bool wait_for_turn(atomic_int *turn, int mine) {
    for (int spins = 0; atomic_load_explicit(turn, memory_order_acquire) != mine; spins++) {
        if (at_stopping()) return false;
        if (spins > 1000) sched_yield();
    }
    return true;
}

static void store_keys(const backward_job *j, const block_scratch *s, const block *k) {
    const at_problem *p = j->p;
    const at_rotation *turns = at_rotation_or_null(&p->k_rotation);
    for (int64_t i = 0; i < k->keys; i++) {
        const int64_t place = (k->b * p->query.Hk + k->kv) * p->Sk + k->key + i;
        if (turns)
            at_rotate_token_back(turns, k->b, k->key + i, s->dk + i * j->Dp, s->dk + i * j->Dp);
        at_store_row(j->g->dk, place * p->query.D, 1, p->query.D, s->dk + i * j->Dp);
        at_store_row(j->g->dv, place * p->Dv, 1, p->Dv, s->dv + i * j->Dvp);
    }
}

/* Whether a row sees something of the block. */
static bool block_shown(const at_problem *p, const block *k) {
    if (!at_has_gaps(&p->query.modifier)) return true;
    for (int64_t key = k->key; key < k->key + k->keys; key += AT_TILE)
        if (at_modifier_any_visible(&p->query.modifier, k->b, k->h, k->token, k->token + k->rows,
                                    key))
            return true;
    return false;
}

/* Kv heads go some at a time: their first blocks, their second ones, ..: neighbouring tasks seldom
 * wait for one another, and long ones come first. */
static int64_t head_of_task(const backward_job *j, int64_t task, int64_t *number) {
    const int64_t heads = j->p->query.B * j->p->query.Hk,
                  first = task / (j->together * j->key_blocks) * j->together, left = heads - first,
                  together = left < j->together ? left : j->together,
                  place = task - first * j->key_blocks;
    *number = place / together;
    return first + place % together;
}

static attune_status key_block_task(void *context, int64_t task, int thread) {
    backward_job *j = context;
    const at_problem *p = j->p;
    block_scratch *s = &j->thread[thread];
    int64_t number;
    const int64_t head = head_of_task(j, task, &number);
    block k = {.b = head / p->query.Hk, .kv = head % p->query.Hk, .key = number * j->keys};
    k.keys = p->Sk - k.key < j->keys ? p->Sk - k.key : j->keys;
    pack_keys(j, s, &k);
    at_task_gradients_begin(&s->gradients, k.b, k.kv * p->query.G, k.key);
    if (j->direct && !wait_for_turn(&j->direct[number], (int)head)) return at_interrupted_status();
    for (k.h = k.kv * p->query.G; k.h < (k.kv + 1) * p->query.G; k.h++) {
        for (int64_t i = 0; i < j->row_blocks; i++) {
            const int64_t place = (k.b * p->query.Hq + k.h) * j->row_blocks + i,
                          from = j->span[2 * place], to = j->span[2 * place + 1];
            if (number < from || number >= to) continue;
            k.token = i * j->rows,
            k.rows = p->query.Sq - k.token < j->rows ? p->query.Sq - k.token : j->rows;
            see(p, &k);
            const bool shown = block_shown(p, &k);
            if (shown) run_block(j, s, &k);
            atomic_int *turn = &j->turn[place];
            if (at_interrupted() || !wait_for_turn(turn, (int)(number - from)))
                return at_interrupted_status();
            const int64_t strip = k.whole ? k.rows : at_simd_now()->geometry.rows[AT_FMA];
            for (int64_t r = 0; r < k.rows && shown; r += strip)
                gradients_of_rows(j, s, &k, r, r + strip < k.rows ? r + strip : k.rows);
            atomic_fetch_add_explicit(turn, 1, memory_order_release);
        }
    }
    if (j->direct) atomic_fetch_add_explicit(&j->direct[number], 1, memory_order_release);
    store_keys(j, s, &k);
    if (!s->gradients.of) return ATTUNE_OK;
    if (!wait_for_turn(&j->tables_done, (int)task)) return at_interrupted_status();
    at_task_gradients_end(&s->gradients);
    atomic_fetch_add_explicit(&j->tables_done, 1, memory_order_release);
    return ATTUNE_OK;
}

/* Sums of dq into the result, where they are not there already. */
static attune_status finish_rows(void *context, int64_t task, int thread) {
    const backward_job *j = context;
    const at_problem *p = j->p;
    const at_rotation *turns = at_rotation_or_null(&p->query.rotation);
    const int64_t rows = p->query.B * p->query.Hq * p->query.Sq;
    float *wide = j->thread[thread].wide;
    for (int64_t row = task * PREPARE_ROWS; row < (task + 1) * PREPARE_ROWS && row < rows; row++) {
        const float *x = j->dq + row * j->dq_stride;
        if (turns)
            at_rotate_token_back(turns, row / p->query.Sq / p->query.Hq, row % p->query.Sq, x,
                                 wide),
                x = wide;
        at_store_row(j->g->dq, row * p->query.D, 1, p->query.D, x);
    }
    return ATTUNE_OK;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static attune_status make_scratch(const backward_job *j, block_scratch *s) {
    const at_problem *p = j->p;
    const int64_t wide =
        (j->rows > j->keys ? j->rows : j->keys) * (p->query.D > p->Dv ? p->query.D : p->Dv);
    const int64_t floats[] = {j->keys * at_round_up(p->query.D, AT_DIM),
                              j->keys * at_round_up(p->Dv, AT_DIM),
                              j->keys * j->Dp,
                              j->rows * j->Dp,
                              j->rows * j->Dvp,
                              j->rows * j->stride,
                              j->rows * j->stride,
                              j->keys * j->Dp,
                              j->keys * j->Dvp,
                              wide,
                              AT_RUN,
                              AT_RUN,
                              2 * at_modifier_scratch(&p->query.modifier) / (int64_t)sizeof(float)};
    float *modifier;
    float **parts[] = {&s->k_columns, &s->v_columns, &s->k_rows, &s->q_rows, &s->o_rows,
                       &s->weights,   &s->scores,    &s->dk,     &s->dv,     &s->wide,
                       &s->before,    &s->slope,     &modifier};
    int64_t total = 0;
    for (int i = 0; i < 13; i++) total += at_round_up(floats[i], 16);
    float *all = s->all = at_alloc(total * (int64_t)sizeof(float));
    if (!all) return ATTUNE_EMEMORY;
    for (int i = 0; i < 13; i++) *parts[i] = all, all += at_round_up(floats[i], 16);
    s->modifier = modifier;
    return j->g->tables ? at_task_gradients_new(j->g->tables, p->query.G, j->keys, &s->gradients)
                        : ATTUNE_OK;
}

static attune_status run(backward_job *j) {
    const at_problem *p = j->p;
    const int64_t rows = p->query.B * p->query.Hq * p->query.Sq,
                  pieces = (rows + PREPARE_ROWS - 1) / PREPARE_ROWS;
    AT_TRY(at_parallel(pieces, prepare_rows, j));
    AT_TRY(at_parallel(p->query.B * p->query.Hq * j->row_blocks, span_of_block, j));
    if (p->query.sinks && j->g->dsinks) AT_TRY(at_parallel(p->query.Hq, sum_sinks, j));
    AT_TRY(at_parallel(p->query.B * p->query.Hk * j->key_blocks, key_block_task, j));
    const bool done = j->dq == j->g->dq->data && !p->query.rotation.cosine;
    return done ? ATTUNE_OK : at_parallel(pieces, finish_rows, j);
}

attune_status at_tiled_backward(const at_problem *p, const at_gradients *g) {
    const at_geometry *geometry = &at_simd_now()->geometry;
    const int64_t panel = geometry->panel, rows = p->query.B * p->query.Hq * p->query.Sq,
                  wide = p->query.D > p->Dv ? p->query.D : p->Dv, strip = geometry->rows[AT_FMA];
    backward_job j = {.p = p,
                      .g = g,
                      .keys = wide <= 128 ? 128 : 64,
                      .rows = (wide <= 128 ? 112 : 56) / strip * strip};
    j.Dp = at_round_up(p->query.D, panel), j.Dvp = at_round_up(p->Dv, panel),
    j.stride = j.keys + 16;
    j.row_blocks = (p->query.Sq + j.rows - 1) / j.rows,
    j.key_blocks = (p->Sk + j.keys - 1) / j.keys;

    /* Sums of dq stand in the result itself where they fit there. */
    const bool direct = g->dq->dtype == ATTUNE_F32 && p->query.D % AT_DIM == 0;
    const int64_t turns = at_checked_mul(p->query.B * p->query.Hq, j.row_blocks);
    const int threads = at_threads();
    j.dq_stride = direct ? p->query.D : at_round_up(p->query.D, AT_DIM);
    j.dq = direct ? g->dq->data
                  : at_alloc_zeroed(
                        at_checked_mul(at_checked_mul(rows, j.dq_stride), (int64_t)sizeof *j.dq));
    if (j.dq) j.lse = at_alloc(at_checked_mul(2 * rows, (int64_t)sizeof *j.lse));
    if (j.lse) j.turn = at_alloc_zeroed(at_checked_mul(turns, (int64_t)sizeof *j.turn));
    if (j.turn) j.span = at_alloc(at_checked_mul(turns, 2 * (int64_t)sizeof *j.span));
    const bool direct_sums = g->tables && at_table_gradients_are_direct(g->tables);
    /* Where tasks of other heads are waited for they come later. */
    j.together = direct_sums ? 1 : HEADS_TOGETHER;
    if (j.span && direct_sums) j.direct = at_alloc_zeroed(j.key_blocks * (int64_t)sizeof *j.direct);
    if (j.span && (j.direct || !direct_sums))
        j.thread = at_alloc_zeroed(threads * (int64_t)sizeof *j.thread);
    attune_status status = j.thread ? ATTUNE_OK : ATTUNE_EMEMORY;
    for (int t = 0; t < threads && status == ATTUNE_OK; t++)
        status = make_scratch(&j, &j.thread[t]);
    if (status == ATTUNE_OK) j.delta = j.lse + rows, status = run(&j);
    for (int t = 0; t < threads && j.thread; t++)
        at_free(j.thread[t].all), at_task_gradients_free(&j.thread[t].gradients);
    if (!direct) at_free(j.dq);
    at_free(j.lse);
    at_free(j.turn);
    at_free(j.span);
    at_free(j.direct);
    at_free(j.thread);
    return status;
}
