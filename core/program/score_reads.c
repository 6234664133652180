/* score_reads.c - finds visible pairs that read outside a tensor by their score, as a program runs.
 */
#include <pthread.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "program/reads.h"

struct at_score_reads {
    const at_binding *binding, *mask; /* mask NULL: hides nothing within a run */
    int32_t count, *read;             /* the READs, in the order of the program */
    void *mask_scratch;
    pthread_mutex_t lock; /* for all that follows, and mask_scratch */
    bool found;
    at_place pair;
    int32_t n; /* the first READ of the pair that is out of range, and its indices */
    double index[ATTUNE_MAX_RANK];
};

/* The READs whose index depends on the score and may be out of range. */
static attune_status find_reads(const at_binding *bd, int32_t *read, int32_t *count) {
    const attune_program *p = bd->program;
    at_range *scratch = NULL;
    *count = 0;
    for (int32_t n = 0; n < p->count; n++) {
        if (!bd->used[n] || p->code[n].op != ATTUNE_OP_READ || !(bd->deps[n] & AT_ON_SCORE))
            continue;
        if (!scratch) scratch = at_alloc(p->count * (int64_t)sizeof *scratch);
        if (!scratch) return ATTUNE_EMEMORY;
        if (!at_read_proved(bd, n, scratch)) read[(*count)++] = n;
    }
    at_free(scratch);
    return ATTUNE_OK;
}

attune_status at_score_reads_new(const at_binding *bd, const at_binding *mask,
                                 const at_block_map *map, at_score_reads **out) {
    *out = NULL;
    int32_t *read = at_alloc(bd->program->count * (int64_t)sizeof *read), count = 0;
    if (!read) return ATTUNE_EMEMORY;
    attune_status status = find_reads(bd, read, &count);
    if (status != ATTUNE_OK || count == 0) {
        at_free(read);
        return status;
    }
    if (map && map->contiguous) mask = NULL;
    at_score_reads *r = at_alloc(sizeof *r);
    void *mask_scratch = mask ? at_alloc(at_binding_scratch(mask)) : NULL;
    if (!r || (mask && !mask_scratch)) {
        at_free(mask_scratch);
        at_free(r);
        at_free(read);
        return ATTUNE_EMEMORY;
    }
    *r = (at_score_reads){
        .binding = bd, .mask = mask, .count = count, .read = read, .mask_scratch = mask_scratch};
    pthread_mutex_init(&r->lock, NULL);
    *out = r;
    return ATTUNE_OK;
}

void at_score_reads_free(at_score_reads *r) {
    if (!r) return;
    pthread_mutex_destroy(&r->lock);
    at_free(r->mask_scratch);
    at_free(r->read);
    at_free(r);
}

static bool before(const at_place *x, const at_place *y) {
    if (x->b != y->b) return x->b < y->b;
    if (x->h != y->h) return x->h < y->h;
    if (x->i != y->i) return x->i < y->i;
    return x->key < y->key;
}

static bool is_visible(const at_score_reads *r, const at_place *pair) {
    if (!r->mask) return true;
    const at_run run = {.binding = r->mask,
                        .b = pair->b,
                        .h = pair->h,
                        .i = pair->i,
                        .key = pair->key,
                        .n = 1,
                        .scratch = r->mask_scratch};
    at_run_pairs(&run, NULL);
    return *at_run_value(&run, r->mask->program->result).p != 0;
}

/* Whether READ n reads outside for column x of a run. index [rank]: its indices. */
static bool reads_outside(const at_run *run, const double *score, int32_t n, int x, double *index) {
    const attune_program *p = run->binding->program;
    const attune_tensor *t = &p->tensors[p->code[n].tensor];
    bool outside = false;
    at_run_indices(run, score, n, x, index);
    for (int k = 0; k < t->rank; k++)
        outside = outside || !at_index_in_range(p, index[k], t->shape[k]);
    return outside;
}

/* Notes READ n of a pair, unless an earlier pair is noted or the mask hides this one. */
static void note(at_score_reads *r, const at_place *pair, int32_t n, const double *index) {
    pthread_mutex_lock(&r->lock);
    if ((!r->found || before(pair, &r->pair)) && is_visible(r, pair)) {
        r->found = true;
        r->pair = *pair;
        r->n = n;
        memcpy(r->index, index, sizeof r->index);
    }
    pthread_mutex_unlock(&r->lock);
}

void at_score_reads_note(at_score_reads *r, const at_run *run, const double *score) {
    double index[ATTUNE_MAX_RANK] = {0};
    for (int32_t k = 0; k < r->count; k++) {
        for (int x = 0; x < run->n; x++) {
            if (!reads_outside(run, score, r->read[k], x, index)) continue;
            const at_place pair = {run->b, run->h, run->i, run->key + x};
            note(r, &pair, r->read[k], index);
        }
    }
}

attune_status at_score_reads_status(const at_score_reads *r) {
    if (!r || !r->found) return ATTUNE_OK;
    return at_read_outside(r->binding, r->n, &r->pair, r->index);
}
