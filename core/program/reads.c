/* reads.c - finds visible pairs that read outside a tensor, before a program runs.
 *
 * The table of a READ whose index varies only with the query, the key or their distance says which
 * of its values are bad; the number of bad values among the visible keys of a query is a difference
 * of two counts. Pairs are checked one by one only where gaps of a mask may hide the bad ones, or
 * where an index depends on the whole pair.
 */
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"
#include "program/reads.h"

attune_status at_read_outside(const at_binding *bd, int32_t n, const at_place *pair,
                              const double *index) {
    const attune_program *p = bd->program;
    const attune_instruction *in = &p->code[n];
    const attune_tensor *t = &p->tensors[in->tensor];
    char where[32] = "", at[160] = "";
    if (in->line) snprintf(where, sizeof where, " (line %d)", in->line);
    for (int k = 0, used = 0; k < t->rank && used < (int)sizeof at; k++)
        used += snprintf(at + used, sizeof at - (size_t)used, "%s%.14g", k ? ", " : "", index[k]);
    return at_fail(
        ATTUNE_EVALUE,
        "%s: expected an index in range of the tensor %s, from %d, got [%s] for query %lld and "
        "key %lld of head %lld%s",
        p->name, at_shape_text(t->rank, t->shape), (int)p->first, at,
        (long long)(bd->base[pair->b] + pair->i + p->first), (long long)(pair->key + p->first),
        (long long)(pair->h + p->first), where);
}

bool at_read_proved(const at_binding *bd, int32_t n, at_range *scratch) {
    const attune_program *p = bd->program;
    const attune_instruction *in = &p->code[n];
    const attune_tensor *t = &p->tensors[in->tensor];
    for (int64_t b = 0; b < bd->extent.B; b++) {
        for (int k = 0; k < t->rank; k++) {
            const at_range r = at_binding_range(bd, in->a[k], b, -1, 0, bd->extent.Sq,
                                                bd->extent.from, bd->extent.to, scratch);
            if (!(at_index_in_range(p, r.low, t->shape[k]) &&
                  at_index_in_range(p, r.high, t->shape[k])))
                return false;
        }
    }
    return true;
}

/* ---- before a program runs ------------------------------------------------------------------- */

typedef struct check {
    const at_binding *bd, *mask;
    const at_block_map *map;
    int32_t n;       /* the READ */
    int64_t *before; /* [length + 1] the number of bad values before each index of the table row */
    int64_t row;     /* the table row that `before` counts; -1: none */
    char *scratch, *mask_scratch;
} check;

static attune_status outside(const check *c, int64_t b, int64_t h, int64_t i, int64_t key) {
    const at_binding *bd = c->bd;
    const attune_program *p = bd->program;
    const attune_instruction *in = &p->code[c->n];
    const attune_tensor *t = &p->tensors[in->tensor];
    const at_run run = {.binding = bd,
                        .b = b,
                        .h = h,
                        .i = i,
                        .key = key,
                        .n = 1,
                        .score = (const float[AT_TILE]){0},
                        .scratch = c->scratch};
    double index[ATTUNE_MAX_RANK];
    at_run_pairs(&run, NULL);
    for (int k = 0; k < t->rank; k++) {
        if (bd->slot[in->a[k]] >= 0) {
            index[k] = (double)*at_run_value(&run, in->a[k]).p;
        } else { /* its table may have lost its f64 copy or have no f32 copy */
            const at_table *table = &bd->table[in->a[k]];
            const at_level l = at_level_of(bd->deps[in->a[k]]);
            const int64_t offset =
                b * table->b_stride + h * table->h_stride + at_along(bd, l, b, i, key);
            index[k] = table->f64 ? table->f64[offset] : (double)table->f32[offset];
        }
    }
    return at_read_outside(bd, c->n, &(at_place){b, h, i, key}, index);
}

/* Whether column x of a run reads outside, by its index values. */
static bool bad_pair(const check *c, const at_run *run, int x) {
    const at_binding *bd = c->bd;
    const attune_instruction *in = &bd->program->code[c->n];
    const attune_tensor *t = &bd->program->tensors[in->tensor];
    for (int k = 0; k < t->rank; k++) {
        const at_values v = at_run_value(run, in->a[k]);
        const float at = v.p[x * v.step];
        if (!at_index_in_range(bd->program, (double)at, t->shape[k])) return true;
    }
    return false;
}

static bool bad_offset(const check *c, int64_t b, int64_t h, int64_t i, int64_t key) {
    const at_binding *bd = c->bd;
    const at_table *t = &bd->table[c->n];
    const at_level l = at_level_of(bd->deps[c->n]);
    return t->bad[b * t->b_stride + h * t->h_stride + at_along(bd, l, b, i, key)];
}

/* Checks the keys [first, last) of a query one by one, but those that the mask hides. */
static attune_status check_each(const check *c, bool pairs, int64_t b, int64_t h, int64_t i,
                                int64_t first, int64_t last) {
    for (int64_t key = first; key < last; key += AT_TILE) {
        const int n = (int)(last - key < AT_TILE ? last - key : AT_TILE);
        const at_run run = {.binding = c->bd,
                            .b = b,
                            .h = h,
                            .i = i,
                            .key = key,
                            .n = n,
                            .score = (const float[2 * AT_TILE]){0},
                            .scratch = c->scratch};
        at_run mask_run = {.binding = c->mask,
                           .b = b,
                           .h = h,
                           .i = i,
                           .key = key,
                           .n = n,
                           .scratch = c->mask_scratch};
        at_values visible = {0};
        if (c->mask) {
            at_run_pairs(&mask_run, NULL);
            visible = at_run_value(&mask_run, c->mask->program->result);
        }
        if (pairs) at_run_pairs(&run, NULL);
        for (int x = 0; x < n; x++) {
            if (visible.p && visible.p[x * visible.step] == 0) continue;
            if (pairs ? bad_pair(c, &run, x) : bad_offset(c, b, h, i, key + x))
                return outside(c, b, h, i, key + x);
        }
    }
    return ATTUNE_OK;
}

/* The number of bad table values among the keys [first, last) of a query. */
static int64_t bad_values(check *c, int64_t b, int64_t h, int64_t i, int64_t first, int64_t last) {
    const at_binding *bd = c->bd;
    const at_table *t = &bd->table[c->n];
    const at_level l = at_level_of(bd->deps[c->n]);
    const int64_t row = b * t->b_stride + h * t->h_stride;
    if (l == AT_SCALAR || l == AT_ALONG_QUERIES)
        return t->bad[row + (l == AT_SCALAR ? 0 : i)] ? last - first : 0;
    if (c->row != row) {
        c->row = row;
        c->before[0] = 0;
        for (int64_t x = 0; x < t->length; x++) c->before[x + 1] = c->before[x] + t->bad[row + x];
    }
    const int64_t shift =
        l == AT_ALONG_KEYS ? -bd->extent.from : -(bd->base[b] + i) - bd->min_relative;
    return c->before[last + shift] - c->before[first + shift];
}

static attune_status check_read(check *c, at_visible_keys visible_keys, const void *context) {
    const at_binding *bd = c->bd;
    const at_extent *e = &bd->extent;
    const bool pairs = at_level_of(bd->deps[c->n]) == AT_EACH_PAIR;
    for (int64_t b = 0; b < e->B; b++) {
        for (int64_t h = 0; h < e->Hq; h++) {
            for (int64_t i = 0; i < e->Sq; i++) {
                int64_t first, last;
                visible_keys(context, b, i, &first, &last);
                if (first < e->from) first = e->from;
                if (last > e->to) last = e->to;
                if (c->map) at_block_map_narrow(c->map, b, h, i, &first, &last);
                if (first >= last || (!pairs && bad_values(c, b, h, i, first, last) == 0)) continue;
                AT_TRY(check_each(c, pairs, b, h, i, first, last));
                if (at_interrupted()) return at_interrupted_status();
            }
            if (!pairs && !(bd->deps[c->n] & AT_ON_HEAD) && (!c->map || c->map->rows_h == 1))
                break; /* all heads agree */
        }
    }
    return ATTUNE_OK;
}

attune_status at_check_reads(const at_binding *bd, const at_binding *mask, const at_block_map *map,
                             at_visible_keys visible_keys, const void *context) {
    const attune_program *p = bd->program;
    bool due = bd->reads_pairs;
    for (int32_t n = 0; n < p->count && !due; n++) due = bd->table[n].bad != NULL;
    if (!due) return ATTUNE_OK;
    int64_t longest = bd->distances > bd->extent.to ? bd->distances : bd->extent.to;
    const int64_t ranges = at_round_up(p->count * (int64_t)sizeof(at_range), 64),
                  room = at_round_up(at_binding_scratch(bd), 64);
    char *all = at_alloc(ranges + room + (mask ? at_binding_scratch(mask) : 0) +
                         (longest + 1) * (int64_t)sizeof(int64_t) + 64);
    if (!all) return ATTUNE_EMEMORY;
    check c = {.bd = bd,
               .mask = map && map->contiguous ? NULL : mask,
               .map = map,
               .scratch = all + ranges};
    c.before = (int64_t *)(void *)(c.scratch + room);
    c.mask_scratch = c.scratch + room + at_round_up((longest + 1) * (int64_t)sizeof(int64_t), 64);
    attune_status status = ATTUNE_OK;
    for (c.n = 0; c.n < p->count && status == ATTUNE_OK; c.n++) {
        if (!bd->used[c.n] || p->code[c.n].op != ATTUNE_OP_READ) continue;
        if (bd->deps[c.n] & AT_ON_SCORE) continue;
        const bool pairs = at_level_of(bd->deps[c.n]) == AT_EACH_PAIR;
        if (pairs ? at_read_proved(bd, c.n, (at_range *)(void *)all) : !bd->table[c.n].bad)
            continue;
        c.row = -1;
        status = check_read(&c, visible_keys, context);
    }
    at_free(all);
    return status;
}
