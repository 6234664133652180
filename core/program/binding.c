/* binding.c - a program bound to shapes: the tables of what does not depend on the pair. */
#include "program/binding.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "tensor/tensor.h"

/* ---- what is needed, and on what it depends -------------------------------------------------- */

static void use(at_binding *bd, int32_t n) {
    if (n < 0) return;
    bd->used[n] = true;
    for (int32_t m = n; m >= 0; m--) {
        if (!bd->used[m]) continue;
        for (int k = 0, operands = at_operands(bd->program, m); k < operands; k++)
            bd->used[bd->program->code[m].a[k]] = true;
    }
}

/* Batch rows of different lengths have their queries at different positions. */
static void depend(at_binding *bd) {
    const attune_program *p = bd->program;
    bool differ = false;
    for (int64_t b = 1; b < bd->extent.B; b++) differ = differ || bd->base[b] != bd->base[0];
    for (int32_t n = 0; n < p->count; n++) {
        bd->deps[n] = p->deps[n];
        if (differ && (p->deps[n] & AT_ON_QUERY)) bd->deps[n] |= AT_ON_BATCH;
    }
}

static at_level level(const at_binding *bd, int32_t n) { return at_level_of(bd->deps[n]); }

/* ---- tables ---------------------------------------------------------------------------------- */

static int64_t length_of(const at_binding *bd, at_level l) {
    switch (l) {
    case AT_ALONG_QUERIES: return bd->extent.Sq;
    case AT_ALONG_KEYS: return bd->extent.to - bd->extent.from;
    case AT_ALONG_DISTANCES: return bd->distances;
    default: return 1;
    }
}

/* The values of instruction n for row (b, h) of a table. */
static at_operand_f64 row_of(const at_binding *bd, int32_t n, int64_t b, int64_t h) {
    const at_table *t = &bd->table[n];
    return (at_operand_f64){t->f64 + b * t->b_stride + h * t->h_stride, level(bd, n) != AT_SCALAR};
}

static double leaf(const at_binding *bd, const attune_instruction *in, int64_t b, int64_t h,
                   int64_t x) {
    const int64_t first = bd->program->first;
    switch (in->op) {
    case ATTUNE_OP_NUMBER: return in->number;
    case ATTUNE_OP_BATCH: return (double)(b + first);
    case ATTUNE_OP_HEAD: return (double)(h + first);
    case ATTUNE_OP_KV_HEAD: return (double)(h / bd->extent.G + first);
    case ATTUNE_OP_QUERY: return (double)(bd->base[b] + x + first);
    case ATTUNE_OP_KEY: return (double)(bd->extent.from + x + first);
    default: return (double)-(bd->min_relative + x);
    }
}

static attune_status read_table(const at_binding *bd, int32_t n, at_table *t, int64_t b, int64_t h,
                                double *to) {
    const attune_program *p = bd->program;
    const attune_instruction *in = &p->code[n];
    const attune_tensor *tensor = &p->tensors[in->tensor];
    at_operand_f64 index[ATTUNE_MAX_RANK];
    for (int k = 0; k < tensor->rank; k++) index[k] = row_of(bd, in->a[k], b, h);
    for (int64_t x = 0; x < t->length; x++) {
        double at[ATTUNE_MAX_RANK];
        int64_t offset;
        for (int k = 0; k < tensor->rank; k++) at[k] = index[k].p[x * index[k].step];
        const bool inside = at_element_offset(p, tensor, at, &offset);
        to[x] = inside ? at_load(tensor, offset) : 0;
        if (inside) continue;
        if (!t->bad) {
            const int64_t rows =
                (t->b_stride ? bd->extent.B : 1) * (t->h_stride ? bd->extent.Hq : 1);
            t->bad = at_alloc_zeroed(at_checked_mul(rows, t->length));
            if (!t->bad) return ATTUNE_EMEMORY;
        }
        t->bad[to - t->f64 + x] = true;
    }
    return ATTUNE_OK;
}

static attune_status make_table(at_binding *bd, int32_t n) {
    const attune_program *p = bd->program;
    const attune_instruction *in = &p->code[n];
    at_table *t = &bd->table[n];
    const int64_t rows_b = bd->deps[n] & AT_ON_BATCH ? bd->extent.B : 1,
                  rows_h = bd->deps[n] & AT_ON_HEAD ? bd->extent.Hq : 1;
    t->length = length_of(bd, level(bd, n));
    t->h_stride = rows_h > 1 ? t->length : 0;
    t->b_stride = rows_b > 1 ? rows_h * t->length : 0;
    t->f64 = at_alloc(at_checked_mul(at_checked_mul(at_checked_mul(rows_b, rows_h), t->length),
                                     (int64_t)sizeof *t->f64));
    if (!t->f64) return ATTUNE_EMEMORY;
    for (int64_t b = 0; b < rows_b; b++) {
        for (int64_t h = 0; h < rows_h; h++) {
            double *to = t->f64 + b * t->b_stride + h * t->h_stride;
            if (in->op == ATTUNE_OP_READ) {
                AT_TRY(read_table(bd, n, t, b, h, to));
            } else if (in->op < ATTUNE_OP_READ) {
                for (int64_t x = 0; x < t->length; x++) to[x] = leaf(bd, in, b, h, x);
            } else {
                const int operands = at_operands(p, n);
                const at_operand_f64 x = row_of(bd, in->a[0], b, h),
                                     y = operands > 1 ? row_of(bd, in->a[1], b, h) : x;
                at_apply_f64(in->op, x, y, operands > 2 ? row_of(bd, in->a[2], b, h) : x, to,
                             t->length);
            }
        }
    }
    return ATTUNE_OK;
}

/* Makes the f32 copy, padded so that whole vectors can be read, and the range of each block. */
static attune_status make_f32(const at_binding *bd, at_table *t) {
    const int64_t rows = (t->b_stride ? bd->extent.B : 1) * (t->h_stride ? bd->extent.Hq : 1),
                  n = rows * t->length, blocks = at_ceil_div(t->length, AT_TILE);
    if (t->f32) return ATTUNE_OK;
    t->f32 = at_alloc((n + AT_TILE) * (int64_t)sizeof *t->f32);
    if (t->f32) t->range = at_alloc(rows * blocks * (int64_t)sizeof *t->range);
    if (!t->range) return ATTUNE_EMEMORY;
    for (int64_t x = 0; x < n; x++) t->f32[x] = (float)t->f64[x];
    memset(t->f32 + n, 0, AT_TILE * sizeof *t->f32);
    for (int64_t row = 0; row < rows; row++) {
        for (int64_t x = 0; x < t->length; x += AT_TILE) {
            const double *value = t->f64 + row * t->length;
            at_range r = {INFINITY, -INFINITY};
            for (int64_t y = x; y < x + AT_TILE && y < t->length; y++) {
                if (value[y] < r.low) r.low = value[y];
                if (value[y] > r.high) r.high = value[y];
                if (isnan(value[y])) r = (at_range){-INFINITY, INFINITY};
            }
            t->range[row * blocks + x / AT_TILE] = r;
        }
    }
    return ATTUNE_OK;
}

/* ---- binding --------------------------------------------------------------------------------- */

static void find_distances(at_binding *bd) {
    const at_extent *e = &bd->extent;
    int64_t min = INT64_MAX, max = INT64_MIN;
    for (int64_t b = 0; b < e->B; b++) {
        bd->base[b] = e->base ? e->base[b] : e->to - e->Sq;
        if (bd->base[b] < min) min = bd->base[b];
        if (bd->base[b] > max) max = bd->base[b];
    }
    bd->min_relative = e->from - (max + e->Sq - 1);
    bd->distances = e->to - min - bd->min_relative;
}

/* Integers up to here stay exact in f32, their quotients and remainders too. */
static const double EXACT = 4194304;

static void find_large_integers(at_binding *bd, at_range *scratch) {
    const attune_program *p = bd->program;
    for (int32_t k = 0; k < bd->pair_count; k++) {
        const int32_t n = bd->pairs[k];
        if (p->code[n].op == ATTUNE_OP_READ) bd->reads_pairs = true;
        if (!p->code[n].integer) continue;
        for (int64_t b = 0; b < bd->extent.B; b++) {
            const at_range r = at_binding_range(bd, n, b, -1, 0, bd->extent.Sq, bd->extent.from,
                                                bd->extent.to, scratch);
            if (r.low < -EXACT || r.high > EXACT) bd->pairs_in_f64 = true;
        }
    }
}

/* ---- operations ------------------------------------------------------------------------------ */

static at_operand operand_of(const at_binding *bd, int32_t n) {
    if (bd->program->code[n].op == ATTUNE_OP_SCORE) return (at_operand){.slot = -2};
    if (bd->slot[n] >= 0) return (at_operand){.slot = bd->slot[n]};
    const at_table *t = &bd->table[n];
    return (at_operand){.p = t->f32,
                        .b_stride = t->b_stride,
                        .h_stride = t->h_stride,
                        .slot = -1,
                        .level = level(bd, n)};
}

static bool is_scaled(const at_binding *bd, int32_t n, int32_t *of, int32_t *by) {
    const attune_instruction *in = &bd->program->code[n];
    if (in->op != ATTUNE_OP_MUL) return false;
    for (int k = 0; k < 2; k++) {
        if (level(bd, in->a[k]) != AT_SCALAR) continue;
        *by = in->a[k];
        *of = in->a[1 - k];
        return true;
    }
    return false;
}

/* The number of uses of a value, as operand or as output. */
static int uses_of(const at_binding *bd, int32_t n, int wants) {
    const attune_program *p = bd->program;
    int uses = p->result == n;
    if (wants & AT_WITH_GRADIENTS) {
        uses += p->slope == n;
        for (int32_t r = 0; r < p->reads; r++) uses += (p->adjoint[r] == n) + (p->read[r] == n);
    }
    for (int32_t k = 0; k < bd->pair_count; k++)
        for (int a = 0, operands = at_operands(p, bd->pairs[k]); a < operands; a++)
            uses += p->code[bd->pairs[k]].a[a] == n;
    return uses;
}

static const float ONE = 1;

static void make_operations(at_binding *bd, int wants) {
    const attune_program *p = bd->program;
    for (int32_t k = 0; k < bd->pair_count; k++) {
        const int32_t n = bd->pairs[k];
        const attune_instruction *in = &p->code[n];
        at_operation *o = &bd->operation[bd->operations];
        int32_t of, by;
        *o = (at_operation){
            .op = in->op, .n = n, .slot = bd->slot[n], .operands = at_operands(p, n)};
        for (int a = 0; a < o->operands; a++) o->x[a] = operand_of(bd, in->a[a]);
        if (in->op == ATTUNE_OP_TANH) {
            o->x[1] = o->x[2] = (at_operand){.p = &ONE, .slot = -1};
            at_operation *before = bd->operations > 0 ? o - 1 : NULL;
            if (before && before->op == ATTUNE_OP_MUL && before->n == in->a[0] &&
                uses_of(bd, before->n, wants) == 1 && is_scaled(bd, before->n, &of, &by)) {
                o->x[0] = operand_of(bd, of);
                o->x[1] = operand_of(bd, by);
                *before = *o;
                bd->operations--;
            }
        } else if (bd->operations > 0 && is_scaled(bd, n, &of, &by) && o[-1].op == ATTUNE_OP_TANH &&
                   o[-1].n == of && uses_of(bd, of, wants) == 1) {
            o[-1].x[2] = operand_of(bd, by);
            o[-1].n = n;
            o[-1].slot = o->slot;
            continue;
        }
        bd->operations++;
    }
}

static attune_status make_all(at_binding *bd, int wants) {
    const attune_program *p = bd->program;
    for (int32_t n = 0; n < p->count; n++) {
        if (!bd->used[n]) continue;
        bd->slot[n] = -1;
        if (level(bd, n) != AT_EACH_PAIR) {
            AT_TRY(make_table(bd, n));
        } else if (p->code[n].op != ATTUNE_OP_SCORE) {
            bd->slot[n] = bd->pair_count;
            bd->pairs[bd->pair_count++] = n;
        }
    }
    for (int32_t k = 0; k < bd->pair_count; k++) {
        const attune_instruction *in = &p->code[bd->pairs[k]];
        for (int m = 0, operands = at_operands(p, bd->pairs[k]); m < operands; m++)
            if (bd->table[in->a[m]].f64) AT_TRY(make_f32(bd, &bd->table[in->a[m]]));
    }
    if (bd->table[p->result].f64) AT_TRY(make_f32(bd, &bd->table[p->result]));
    if (wants & AT_WITH_GRADIENTS) {
        if (p->slope >= 0 && bd->table[p->slope].f64) AT_TRY(make_f32(bd, &bd->table[p->slope]));
        for (int32_t r = 0; r < p->reads; r++)
            if (bd->table[p->adjoint[r]].f64) AT_TRY(make_f32(bd, &bd->table[p->adjoint[r]]));
    }
    make_operations(bd, wants);
    at_range *scratch = at_alloc(p->count * (int64_t)sizeof *scratch);
    if (!scratch) return ATTUNE_EMEMORY;
    find_large_integers(bd, scratch);
    at_free(scratch);
    bool keep = wants || bd->pairs_in_f64;
    for (int32_t n = 0; n < p->count && !keep; n++)
        keep = bd->table[n].bad != NULL; /* the message of at_check_reads needs them */
    for (int32_t n = 0; n < p->count && !keep; n++) {
        at_free(bd->table[n].f64);
        bd->table[n].f64 = NULL;
    }
    return ATTUNE_OK;
}

attune_status at_bind(const attune_program *p, const at_extent *extent, int wants,
                      at_binding *out) {
    at_binding *bd = out;
    memset(bd, 0, sizeof *bd);
    bd->program = p;
    bd->extent = *extent;
    for (int32_t t = 0; t < p->tensor_count; t++) AT_TRY(at_check_open(p->name, &p->tensors[t]));
    bd->base = at_alloc(extent->B * (int64_t)sizeof *bd->base);
    if (bd->base) bd->deps = at_alloc_zeroed(p->count);
    if (bd->deps) bd->used = at_alloc_zeroed(p->count);
    if (bd->used) bd->table = at_alloc_zeroed(p->count * (int64_t)sizeof *bd->table);
    if (bd->table) bd->slot = at_alloc_zeroed(p->count * (int64_t)sizeof *bd->slot);
    if (bd->slot) bd->pairs = at_alloc_zeroed(p->count * (int64_t)sizeof *bd->pairs);
    if (bd->pairs) bd->operation = at_alloc_zeroed(p->count * (int64_t)sizeof *bd->operation);
    attune_status status = bd->operation ? ATTUNE_OK : ATTUNE_EMEMORY;
    if (status == ATTUNE_OK) {
        find_distances(bd);
        depend(bd);
        use(bd, p->result);
        if (wants & AT_WITH_GRADIENTS) {
            use(bd, p->slope);
            for (int32_t r = 0; r < p->reads; r++) {
                use(bd, p->adjoint[r]);
                use(bd, p->read[r]);
            }
        }
        status = make_all(bd, wants);
    }
    if (status != ATTUNE_OK) at_binding_free(bd);
    return status;
}

void at_binding_free(at_binding *bd) {
    for (int32_t n = 0; bd->table && n < bd->program->count; n++) {
        at_free(bd->table[n].f64);
        at_free(bd->table[n].f32);
        at_free(bd->table[n].range);
        at_free(bd->table[n].bad);
    }
    at_free(bd->base);
    at_free(bd->deps);
    at_free(bd->used);
    at_free(bd->table);
    at_free(bd->slot);
    at_free(bd->pairs);
    at_free(bd->operation);
    memset(bd, 0, sizeof *bd);
}

/* ---- ranges ---------------------------------------------------------------------------------- */

static at_range range_of_row(const at_table *t, int64_t row, int64_t from, int64_t to) {
    const int64_t blocks = at_ceil_div(t->length, AT_TILE);
    const at_range *range = t->range + row * blocks;
    if (from < 0) from = 0;
    if (to > t->length) to = t->length;
    at_range r = range[from / AT_TILE];
    for (int64_t k = from / AT_TILE + 1; k * AT_TILE < to; k++) {
        if (range[k].low < r.low) r.low = range[k].low;
        if (range[k].high > r.high) r.high = range[k].high;
    }
    return r;
}

/* h -1: the range over all heads. */
static at_range range_of_table(const at_binding *bd, int32_t n, int64_t b, int64_t h, int64_t i,
                               int64_t i_end, int64_t key, int64_t key_end) {
    const at_table *t = &bd->table[n];
    const at_level l = level(bd, n);
    int64_t from = 0, to = 1;
    if (l == AT_ALONG_QUERIES) {
        from = i;
        to = i_end;
    } else if (l == AT_ALONG_KEYS) {
        from = key - bd->extent.from;
        to = key_end - bd->extent.from;
    } else if (l == AT_ALONG_DISTANCES) {
        from = key - (bd->base[b] + i_end - 1) - bd->min_relative;
        to = key_end - (bd->base[b] + i) - bd->min_relative;
    }
    const int64_t heads = t->h_stride ? bd->extent.Hq : 1, row = (t->b_stride ? b : 0) * heads;
    if (h >= 0 || heads == 1) return range_of_row(t, row + (heads > 1 ? h : 0), from, to);
    at_range r = range_of_row(t, row, from, to);
    for (int64_t x = 1; x < heads; x++) {
        const at_range other = range_of_row(t, row + x, from, to);
        r = (at_range){fmin(r.low, other.low), fmax(r.high, other.high)};
    }
    return r;
}

at_range at_binding_range(const at_binding *bd, int32_t n, int64_t b, int64_t h, int64_t i,
                          int64_t i_end, int64_t key, int64_t key_end, at_range *scratch) {
    const attune_program *p = bd->program;
    const at_range anything = {-INFINITY, INFINITY};
    if (level(bd, n) != AT_EACH_PAIR) return range_of_table(bd, n, b, h, i, i_end, key, key_end);
    for (int32_t k = 0; k < bd->pair_count && bd->pairs[k] <= n; k++) {
        const int32_t m = bd->pairs[k];
        const attune_instruction *in = &p->code[m];
        at_range x[3] = {anything, anything, anything};
        scratch[m] = anything;
        if (in->op == ATTUNE_OP_READ) continue;
        for (int a = 0, operands = at_operands(p, m); a < operands; a++) {
            const int32_t from = in->a[a];
            if (level(bd, from) != AT_EACH_PAIR)
                x[a] = range_of_table(bd, from, b, h, i, i_end, key, key_end);
            else if (p->code[from].op != ATTUNE_OP_SCORE)
                x[a] = scratch[from];
        }
        scratch[m] = at_apply_range(in->op, x[0], x[1], x[2]);
    }
    return p->code[n].op == ATTUNE_OP_SCORE ? anything : scratch[n];
}

/* ---- reads ----------------------------------------------------------------------------------- */

int64_t at_read_flat_index(const at_binding *bd, int32_t n, int64_t b, int64_t h, int64_t offset) {
    const attune_instruction *in = &bd->program->code[n];
    const attune_tensor *t = &bd->program->tensors[in->tensor];
    double at[ATTUNE_MAX_RANK];
    for (int k = 0; k < t->rank; k++) {
        const at_operand_f64 index = row_of(bd, in->a[k], b, h);
        at[k] = index.p[offset * index.step];
    }
    return at_flat_index(bd->program, t, at);
}
