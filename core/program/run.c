/* run.c - runs a bound program over the pairs of a row. */
#include <math.h>

#include "base/numbers.h"
#include "program/binding.h"
#include "simd/table.h"
#include "tensor/tensor.h"

static at_level level(const at_binding *bd, int32_t n) { return at_level_of(bd->deps[n]); }

int64_t at_binding_scratch(const at_binding *bd) {
    return bd->pair_count * AT_RUN * (int64_t)(sizeof(double) + sizeof(float)) +
           3 * AT_RUN * (int64_t)sizeof(double);
}

static float *slot(const at_run *run, int32_t n) {
    return (float *)run->scratch + run->binding->slot[n] * AT_RUN;
}

static double *slot_f64(const at_run *run, int32_t n) {
    const at_binding *bd = run->binding;
    return (double *)((char *)run->scratch + bd->pair_count * AT_RUN * (int64_t)sizeof(float)) +
           bd->slot[n] * AT_RUN;
}

/* The offset in its table of the first value of a run. */
static int64_t offset_in(const at_run *run, int32_t n, int *step) {
    const at_binding *bd = run->binding;
    const at_table *t = &bd->table[n];
    const at_level l = level(bd, n);
    *step = l == AT_ALONG_KEYS || l == AT_ALONG_DISTANCES;
    return run->b * t->b_stride + run->h * t->h_stride + at_along(bd, l, run->b, run->i, run->key);
}

at_values at_run_value(const at_run *run, int32_t n) {
    const at_binding *bd = run->binding;
    if (bd->program->code[n].op == ATTUNE_OP_SCORE) return (at_values){run->score, 1};
    if (bd->slot[n] >= 0) return (at_values){slot(run, n), 1};
    int step;
    const int64_t offset = offset_in(run, n, &step);
    return (at_values){bd->table[n].f32 + offset, step};
}

/* An index out of range reads the first element. reads.h makes sure that no such pair is visible.
 */
static int64_t offset_of(const attune_program *p, const attune_tensor *t, const double *index) {
    int64_t offset;
    return at_element_offset(p, t, index, &offset) ? offset : 0;
}

static void gather(const attune_program *p, const attune_tensor *t, const at_values *index,
                   float *to, int n) {
    for (int x = 0; x < n; x++) {
        double at[ATTUNE_MAX_RANK];
        for (int k = 0; k < t->rank; k++) at[k] = (double)index[k].p[x * index[k].step];
        const int64_t offset = offset_of(p, t, at);
        to[x] =
            t->dtype == ATTUNE_F32 ? ((const float *)t->data)[offset] : (float)at_load(t, offset);
    }
}

/* One value at a time, for the operations that have no vector kernel. */
static void apply_each(attune_op op, at_values a, at_values b, float *to, int n) {
    for (int x = 0; x < n; x++) {
        const float u = a.p[x * a.step], v = b.p[x * b.step];
        to[x] = op == ATTUNE_OP_LOG ? logf(u) : powf(u, v);
    }
}

static at_values find(const at_run *run, const at_operand *x, const int64_t along[AT_EACH_PAIR]) {
    if (x->slot >= 0) return (at_values){(const float *)run->scratch + x->slot * AT_RUN, 1};
    if (x->slot == -2) return (at_values){run->score, 1};
    return (at_values){x->p + run->b * x->b_stride + run->h * x->h_stride + along[x->level],
                       x->level >= AT_ALONG_KEYS};
}

static void run_in_double(const at_run *run, float *to) {
    const at_binding *bd = run->binding;
    const attune_program *p = bd->program;
    double *score = (double *)((char *)run->scratch +
                               bd->pair_count * AT_RUN * (int64_t)(sizeof(double) + sizeof(float)));
    for (int x = 0; run->score && x < run->n; x++) score[x] = (double)run->score[x];
    at_run_f64(run, score, 0, NULL, NULL);
    for (int32_t k = 0; k < bd->pair_count; k++) {
        const int32_t n = bd->pairs[k];
        const double *from = slot_f64(run, n);
        float *f32 = n == p->result && to ? to : slot(run, n);
        for (int x = 0; x < run->n; x++) f32[x] = (float)from[x];
    }
}

void at_run_pairs(const at_run *run, float *to) {
    const at_binding *bd = run->binding;
    const attune_program *p = bd->program;
    const at_program_kernels *kernels = &at_simd_now()->program;
    if (bd->pairs_in_f64) {
        run_in_double(run, to);
        return;
    }
    int64_t along[AT_EACH_PAIR];
    for (at_level l = AT_SCALAR; l < AT_EACH_PAIR; l++)
        along[l] = at_along(bd, l, run->b, run->i, run->key);
    const at_operation *end = bd->operation + bd->operations;
    for (const at_operation *o = bd->operation; o < end; o++) {
        at_values x[ATTUNE_MAX_RANK];
        const int operands = o->op == ATTUNE_OP_TANH ? 3 : o->operands;
        x[1] = x[2] = (at_values){0};
        for (int a = 0; a < operands; a++) x[a] = find(run, &o->x[a], along);
        if (o->operands == 1 && operands == 1) x[1] = x[0];
        float *out =
            to && o == end - 1 && o->n == p->result ? to : (float *)run->scratch + o->slot * AT_RUN;
        if (o->op == ATTUNE_OP_READ)
            gather(p, &p->tensors[p->code[o->n].tensor], x, out, run->n);
        else if (o->op == ATTUNE_OP_LOG || o->op == ATTUNE_OP_POW)
            apply_each(o->op, x[0], x[1], out, run->n);
        else
            kernels->apply(o->op, x[0], x[1], x[2], out, run->n);
    }
    /* The result may not be the last operation. */
    if (to && (bd->operations == 0 || end[-1].n != p->result)) {
        const at_values from = at_run_value(run, p->result);
        for (int x = 0; x < run->n; x++) to[x] = from.p[x * from.step];
    }
}

static at_operand_f64 value_f64(const at_run *run, const double *score, int32_t n) {
    const at_binding *bd = run->binding;
    if (bd->program->code[n].op == ATTUNE_OP_SCORE) return (at_operand_f64){score, 1};
    if (bd->slot[n] >= 0) return (at_operand_f64){slot_f64(run, n), 1};
    int step;
    const int64_t offset = offset_in(run, n, &step);
    return (at_operand_f64){bd->table[n].f64 + offset, step};
}

void at_run_f64(const at_run *run, const double *score, int32_t outputs, const int32_t *output,
                double *const *out) {
    const at_binding *bd = run->binding;
    const attune_program *p = bd->program;
    for (int32_t k = 0; k < bd->pair_count; k++) {
        const int32_t n = bd->pairs[k];
        const attune_instruction *in = &p->code[n];
        const int operands = at_operands(p, n);
        at_operand_f64 x[ATTUNE_MAX_RANK] = {{0}};
        double *to = slot_f64(run, n);
        for (int a = 0; a < operands; a++) x[a] = value_f64(run, score, in->a[a]);
        if (in->op != ATTUNE_OP_READ) {
            at_apply_f64(in->op, x[0], operands > 1 ? x[1] : x[0], operands > 2 ? x[2] : x[0], to,
                         run->n);
            continue;
        }
        const attune_tensor *t = &p->tensors[in->tensor];
        for (int i = 0; i < run->n; i++) {
            double at[ATTUNE_MAX_RANK];
            for (int a = 0; a < operands; a++) at[a] = x[a].p[i * x[a].step];
            to[i] = at_load(t, offset_of(p, t, at));
        }
    }
    for (int32_t k = 0; k < outputs; k++) {
        const at_operand_f64 from = value_f64(run, score, output[k]);
        for (int i = 0; i < run->n; i++) out[k][i] = from.p[i * from.step];
    }
}

void at_run_indices(const at_run *run, const double *score, int32_t n, int x, double *index) {
    const attune_program *p = run->binding->program;
    const attune_instruction *in = &p->code[n];
    for (int k = 0; k < p->tensors[in->tensor].rank; k++) {
        if (score) {
            const at_operand_f64 v = value_f64(run, score, in->a[k]);
            index[k] = v.p[x * v.step];
        } else {
            const at_values v = at_run_value(run, in->a[k]);
            index[k] = (double)v.p[x * v.step];
        }
    }
}

int64_t at_run_flat_index(const at_run *run, const double *score, int32_t n, int x) {
    const attune_program *p = run->binding->program;
    double index[ATTUNE_MAX_RANK];
    at_run_indices(run, score, n, x, index);
    return at_flat_index(p, &p->tensors[p->code[n].tensor], index);
}
