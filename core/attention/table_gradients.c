/* table_gradients.c - gradients of what a score program reads. */
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

/* A leaf, or a leaf and a constant. */
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
        query = query || is_shifted(p, index, ATTUNE_OP_QUERY),
        key = key || is_shifted(p, index, ATTUNE_OP_KEY);
    }
    return query && key;
}

bool at_table_gradients_are_direct(const at_table_gradients *g) {
    for (int32_t r = 0; g->score && r < g->score->program->reads; r++)
        if (is_direct(g->score->program, r)) return true;
    return false;
}

enum { LARGE = 1 << 21 };

bool at_table_gradients_are_large(const at_modifier *m) {
    for (int32_t r = 0; m->score.program && r < m->score.program->reads; r++)
        if (level_of(&m->score, r) == AT_EACH_PAIR && !is_direct(m->score.program, r) &&
            attune_tensor_count(tensor_of(m->score.program, r)) > LARGE)
            return true;
    return false;
}

/* ---- a task's part --------------------------------------------------------------------------- */

attune_status at_part_new(const at_table_gradients *g, int64_t heads, int64_t keys, at_part *out) {
    memset(out, 0, sizeof *out);
    if (!g->score) return ATTUNE_OK;
    const at_binding *bd = g->score;
    const int32_t reads = bd->program->reads;
    out->of = g, out->heads = heads, out->keys = keys;
    out->length = at_alloc_zeroed(reads * (int64_t)sizeof *out->length);
    if (out->length) out->single = at_alloc_zeroed(reads * (int64_t)sizeof *out->single);
    if (out->single) out->many = at_alloc_zeroed(reads * (int64_t)sizeof *out->many);
    if (!out->many) return ATTUNE_EMEMORY;
    for (int32_t r = 0; r < reads; r++) {
        const at_level l = level_of(bd, r);
        if (is_direct(bd->program, r)) continue;
        const bool single = l == AT_SCALAR || l == AT_ALONG_QUERIES;
        out->length[r] = l == AT_SCALAR            ? 1
                         : l == AT_ALONG_QUERIES   ? bd->extent.Sq
                         : l == AT_ALONG_KEYS      ? keys
                         : l == AT_ALONG_DISTANCES ? bd->extent.Sq + keys
                                                   : attune_tensor_count(tensor_of(bd->program, r));
        /* A copy of the tensor holds all heads; other places are the heads' own. */
        const int64_t rows = by_head(bd, r) && l != AT_EACH_PAIR ? heads : 1,
                      n = at_checked_mul(rows, out->length[r]);
        if (single)
            out->single[r] = at_alloc(at_checked_mul(n, (int64_t)sizeof(double)));
        else
            out->many[r] = at_alloc(at_checked_mul(n, (int64_t)sizeof(float)));
        if (!out->single[r] && !out->many[r]) return ATTUNE_EMEMORY;
    }
    return ATTUNE_OK;
}

void at_part_free(at_part *part) {
    for (int32_t r = 0; part->many && r < part->of->score->program->reads; r++) {
        at_free(part->single[r]);
        at_free(part->many[r]);
    }
    at_free(part->single);
    at_free(part->many);
    at_free(part->length);
    memset(part, 0, sizeof *part);
}

void at_part_begin(at_part *part, int64_t b, int64_t h, int64_t key) {
    if (!part->of) return;
    const at_binding *bd = part->of->score;
    part->b = b, part->h = h, part->key = key;
    for (int32_t r = 0; r < bd->program->reads; r++) {
        const int64_t n =
            (by_head(bd, r) && level_of(bd, r) != AT_EACH_PAIR ? part->heads : 1) * part->length[r];
        if (part->single[r]) memset(part->single[r], 0, (size_t)n * sizeof(double));
        if (part->many[r]) memset(part->many[r], 0, (size_t)n * sizeof(float));
    }
}

/* The distances' table's place of a part's first one. */
static int64_t first_distance(const at_part *part) {
    const at_binding *bd = part->of->score;
    return part->key - (bd->base[part->b] + bd->extent.Sq - 1) - bd->nearest;
}

void at_part_add(at_part *part, const at_run *run, const float *d) {
    const at_program_kernels *kernels = &at_simd_now()->program;
    const at_binding *bd = run->bound;
    const attune_program *p = bd->program;
    for (int32_t r = 0; r < p->reads; r++) {
        const at_values slope = at_run_value(run, p->adjoint[r]), gradient = {d, 1};
        double *sums = part->of->sums[p->code[p->read[r]].tensor];
        const int64_t row = by_head(bd, r) ? (run->h - part->h) * part->length[r] : 0;
        switch (level_of(bd, r)) {
        case AT_SCALAR:
            part->single[r][row] += (double)kernels->sum_products(gradient, slope, run->n);
            break;
        case AT_ALONG_QUERIES:
            part->single[r][row + run->i] += (double)kernels->sum_products(gradient, slope, run->n);
            break;
        case AT_ALONG_KEYS:
            kernels->add_products(gradient, slope, part->many[r] + row + run->key - part->key,
                                  run->n);
            break;
        case AT_ALONG_DISTANCES: {
            const int64_t place =
                run->key - (bd->base[run->b] + run->i) - bd->nearest - first_distance(part);
            kernels->add_products(gradient, slope, part->many[r] + row + place, run->n);
            break;
        }
        case AT_EACH_PAIR:
            for (int x = 0; x < run->n; x++) {
                const int64_t place = at_run_place(run, p->read[r], x);
                if (place < 0 || d[x] == 0) continue;
                const float product = d[x] * slope.p[x * slope.step];
                if (part->many[r])
                    part->many[r][place] += product;
                else
                    sums[place] += (double)product;
            }
        }
    }
}

void at_part_end(const at_part *part) {
    if (!part->of) return;
    const at_binding *bd = part->of->score;
    const attune_program *p = bd->program;
    for (int32_t r = 0; r < p->reads; r++) {
        const at_level l = level_of(bd, r);
        double *sums = part->of->sums[p->code[p->read[r]].tensor];
        if (l == AT_EACH_PAIR) {
            if (!part->many[r]) continue;
            for (int64_t x = 0; x < part->length[r]; x++) sums[x] += (double)part->many[r][x];
            continue;
        }
        const int64_t heads = by_head(bd, r) ? part->heads : 1;
        const int64_t shift = l == AT_ALONG_KEYS        ? part->key - bd->extent.from
                              : l == AT_ALONG_DISTANCES ? first_distance(part)
                                                        : 0;
        for (int64_t h = 0; h < heads; h++) {
            for (int64_t x = 0; x < part->length[r]; x++) {
                const double d = part->single[r] ? part->single[r][h * part->length[r] + x]
                                                 : (double)part->many[r][h * part->length[r] + x];
                if (d != 0)
                    at_table_gradients_add(
                        part->of, r, at_read_place(bd, p->read[r], part->b, part->h + h, x + shift),
                        d);
            }
        }
    }
}
