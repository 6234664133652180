/* table_gradients.c - gradients of the tensors that a score program reads. */
#include "attention/table_gradients.h"

#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "simd/table.h"
#include "tensor/tensor.h"

static const attune_tensor *tensor_of(const attune_program *p, int32_t read) {
    return &p->tensors[p->code[p->read[read]].tensor];
}

static at_level level_of(const at_binding *bd, int32_t read) {
    return at_level_of(bd->deps[bd->program->read[read]]);
}

static bool by_head(const at_binding *bd, int32_t read) {
    return bd->deps[bd->program->read[read]] & AT_ON_HEAD;
}

attune_status at_table_gradients_new(const at_modifier *m, at_table_gradients *out) {
    memset(out, 0, sizeof *out);
    if (!m->score.program || m->score.program->reads == 0) return ATTUNE_OK;
    const attune_program *p = m->score.program;
    out->score = &m->score;
    out->sums = at_alloc_zeroed(p->tensor_count * (int64_t)sizeof *out->sums);
    if (!out->sums) return ATTUNE_EMEMORY;
    for (int32_t r = 0; r < p->reads; r++) {
        double **sums = &out->sums[p->code[p->read[r]].tensor];
        if (!*sums)
            *sums = at_alloc_zeroed(
                at_checked_mul(attune_tensor_count(tensor_of(p, r)), (int64_t)sizeof **sums));
        if (!*sums) return ATTUNE_EMEMORY;
    }
    return ATTUNE_OK;
}

void at_table_gradients_free(at_table_gradients *g) {
    for (int32_t t = 0; g->sums && t < g->score->program->tensor_count; t++) at_free(g->sums[t]);
    at_free(g->sums);
    memset(g, 0, sizeof *g);
}

attune_status at_table_gradients_store(const at_table_gradients *g, attune_tensor *dtables) {
    for (int32_t t = 0; g->score && t < g->score->program->tensor_count; t++) {
        const attune_tensor *of = &g->score->program->tensors[t];
        if (!g->sums[t]) continue;
        AT_TRY(attune_tensor_new(of->dtype, of->rank, of->shape, &dtables[t]));
        at_store_row_f64(&dtables[t], 0, 1, attune_tensor_count(of), g->sums[t]);
    }
    return ATTUNE_OK;
}

/* Whether instruction n is a leaf, or the sum or difference of a leaf and a constant. */
static bool is_shifted(const attune_program *p, int32_t n, attune_op leaf) {
    const attune_instruction *in = &p->code[n];
    if (in->op == leaf) return true;
    if (in->op != ATTUNE_OP_ADD && in->op != ATTUNE_OP_SUB) return false;
    const attune_op x = p->code[in->a[0]].op, y = p->code[in->a[1]].op;
    return (x == leaf && y == ATTUNE_OP_NUMBER) || (y == leaf && x == ATTUNE_OP_NUMBER);
}

static bool is_direct(const attune_program *p, int32_t read) {
    bool query = false, key = false;
    for (int k = 0; k < tensor_of(p, read)->rank; k++) {
        const int32_t index = p->code[p->read[read]].a[k];
        query = query || is_shifted(p, index, ATTUNE_OP_QUERY);
        key = key || is_shifted(p, index, ATTUNE_OP_KEY);
    }
    return query && key;
}

bool at_table_gradients_are_direct(const at_table_gradients *g) {
    for (int32_t r = 0; g->score && r < g->score->program->reads; r++)
        if (is_direct(g->score->program, r)) return true;
    return false;
}

enum { MAX_COPY_ELEMENTS = 1 << 21 };

bool at_table_gradients_are_large(const at_modifier *m) {
    for (int32_t r = 0; m->score.program && r < m->score.program->reads; r++)
        if (level_of(&m->score, r) == AT_EACH_PAIR && !is_direct(m->score.program, r) &&
            attune_tensor_count(tensor_of(m->score.program, r)) > MAX_COPY_ELEMENTS)
            return true;
    return false;
}

/* ---- the buffers of a task ------------------------------------------------------------------- */

attune_status at_task_gradients_new(const at_table_gradients *g, int64_t heads, int64_t keys,
                                    at_task_gradients *out) {
    memset(out, 0, sizeof *out);
    if (!g->score) return ATTUNE_OK;
    const at_binding *bd = g->score;
    const int32_t reads = bd->program->reads;
    out->of = g;
    out->heads = heads;
    out->keys = keys;
    out->length = at_alloc_zeroed(reads * (int64_t)sizeof *out->length);
    if (out->length) out->f64_sums = at_alloc_zeroed(reads * (int64_t)sizeof *out->f64_sums);
    if (out->f64_sums) out->f32_sums = at_alloc_zeroed(reads * (int64_t)sizeof *out->f32_sums);
    if (!out->f32_sums) return ATTUNE_EMEMORY;
    for (int32_t r = 0; r < reads; r++) {
        const at_level l = level_of(bd, r);
        if (is_direct(bd->program, r)) continue;
        const bool single = l == AT_SCALAR || l == AT_ALONG_QUERIES;
        out->length[r] = l == AT_SCALAR            ? 1
                         : l == AT_ALONG_QUERIES   ? bd->extent.Sq
                         : l == AT_ALONG_KEYS      ? keys
                         : l == AT_ALONG_DISTANCES ? bd->extent.Sq + keys
                                                   : attune_tensor_count(tensor_of(bd->program, r));
        /* A copy of the tensor serves all heads. Other buffers have one row per head. */
        const int64_t rows = by_head(bd, r) && l != AT_EACH_PAIR ? heads : 1,
                      n = at_checked_mul(rows, out->length[r]);
        if (single)
            out->f64_sums[r] = at_alloc(at_checked_mul(n, (int64_t)sizeof(double)));
        else
            out->f32_sums[r] = at_alloc(at_checked_mul(n, (int64_t)sizeof(float)));
        if (!out->f64_sums[r] && !out->f32_sums[r]) return ATTUNE_EMEMORY;
    }
    return ATTUNE_OK;
}

void at_task_gradients_free(at_task_gradients *task) {
    for (int32_t r = 0; task->f32_sums && r < task->of->score->program->reads; r++) {
        at_free(task->f64_sums[r]);
        at_free(task->f32_sums[r]);
    }
    at_free(task->f64_sums);
    at_free(task->f32_sums);
    at_free(task->length);
    memset(task, 0, sizeof *task);
}

void at_task_gradients_begin(at_task_gradients *task, int64_t b, int64_t h, int64_t key) {
    if (!task->of) return;
    const at_binding *bd = task->of->score;
    task->b = b;
    task->h = h;
    task->key = key;
    for (int32_t r = 0; r < bd->program->reads; r++) {
        const int64_t n =
            (by_head(bd, r) && level_of(bd, r) != AT_EACH_PAIR ? task->heads : 1) * task->length[r];
        if (task->f64_sums[r]) memset(task->f64_sums[r], 0, (size_t)n * sizeof(double));
        if (task->f32_sums[r]) memset(task->f32_sums[r], 0, (size_t)n * sizeof(float));
    }
}

/* The smallest distance of the task's pairs, as an index into the binding's values by distance. */
static int64_t first_distance(const at_task_gradients *task) {
    const at_binding *bd = task->of->score;
    return task->key - (bd->base[task->b] + bd->extent.Sq - 1) - bd->min_relative;
}

void at_task_gradients_add(at_task_gradients *task, const at_run *run, const float *d) {
    const at_program_kernels *kernels = &at_simd_now()->program;
    const at_binding *bd = run->binding;
    const attune_program *p = bd->program;
    for (int32_t r = 0; r < p->reads; r++) {
        const at_values slope = at_run_value(run, p->adjoint[r]), gradient = {d, 1};
        double *sums = task->of->sums[p->code[p->read[r]].tensor];
        const int64_t row = by_head(bd, r) ? (run->h - task->h) * task->length[r] : 0;
        switch (level_of(bd, r)) {
        case AT_SCALAR:
            task->f64_sums[r][row] += (double)kernels->sum_products(gradient, slope, run->n);
            break;
        case AT_ALONG_QUERIES:
            task->f64_sums[r][row + run->i] +=
                (double)kernels->sum_products(gradient, slope, run->n);
            break;
        case AT_ALONG_KEYS:
            kernels->add_products(gradient, slope, task->f32_sums[r] + row + run->key - task->key,
                                  run->n);
            break;
        case AT_ALONG_DISTANCES: {
            const int64_t index =
                run->key - (bd->base[run->b] + run->i) - bd->min_relative - first_distance(task);
            kernels->add_products(gradient, slope, task->f32_sums[r] + row + index, run->n);
            break;
        }
        case AT_EACH_PAIR:
            for (int x = 0; x < run->n; x++) {
                const int64_t index = at_run_flat_index(run, NULL, p->read[r], x);
                if (index < 0 || d[x] == 0) continue;
                const float product = d[x] * slope.p[x * slope.step];
                if (task->f32_sums[r])
                    task->f32_sums[r][index] += product;
                else
                    sums[index] += (double)product;
            }
        }
    }
}

void at_task_gradients_end(const at_task_gradients *task) {
    if (!task->of) return;
    const at_binding *bd = task->of->score;
    const attune_program *p = bd->program;
    for (int32_t r = 0; r < p->reads; r++) {
        const at_level l = level_of(bd, r);
        double *sums = task->of->sums[p->code[p->read[r]].tensor];
        if (l == AT_EACH_PAIR) {
            if (!task->f32_sums[r]) continue;
            for (int64_t x = 0; x < task->length[r]; x++) sums[x] += (double)task->f32_sums[r][x];
            continue;
        }
        const int64_t heads = by_head(bd, r) ? task->heads : 1;
        const int64_t shift = l == AT_ALONG_KEYS        ? task->key - bd->extent.from
                              : l == AT_ALONG_DISTANCES ? first_distance(task)
                                                        : 0;
        for (int64_t h = 0; h < heads; h++) {
            for (int64_t x = 0; x < task->length[r]; x++) {
                const double d = task->f64_sums[r]
                                     ? task->f64_sums[r][h * task->length[r] + x]
                                     : (double)task->f32_sums[r][h * task->length[r] + x];
                if (d != 0)
                    at_table_gradients_add(
                        task->of, r,
                        at_read_flat_index(bd, p->read[r], task->b, task->h + h, x + shift), d);
            }
        }
    }
}
