/* program.c - making programs. */
#include "program/program.h"

#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"

int at_operands(const attune_program *p, int32_t n) {
    const attune_op op = p->code[n].op;
    if (op == ATTUNE_OP_READ) return p->tensors[p->code[n].tensor].rank;
    return op < ATTUNE_OP_READ ? 0 : op < ATTUNE_OP_NOT ? 2 : op == ATTUNE_OP_WHERE ? 3 : 1;
}

bool at_element_offset(const attune_program *p, const attune_tensor *t, const double *index,
                       int64_t *offset) {
    *offset = 0;
    for (int k = 0; k < t->rank; k++) {
        if (!at_index_in_range(p, index[k], t->shape[k])) return false;
        *offset += ((int64_t)index[k] - p->first) * t->stride[k];
    }
    return true;
}

int64_t at_flat_index(const attune_program *p, const attune_tensor *t, const double *index) {
    int64_t flat = 0;
    for (int k = 0; k < t->rank; k++) {
        if (!at_index_in_range(p, index[k], t->shape[k])) return -1;
        flat = flat * t->shape[k] + (int64_t)index[k] - p->first;
    }
    return flat;
}

at_level at_level_of(int deps) {
    switch (deps & (AT_ON_QUERY | AT_ON_KEY | AT_ON_DISTANCE | AT_ON_SCORE)) {
    case 0: return AT_SCALAR;
    case AT_ON_QUERY: return AT_ALONG_QUERIES;
    case AT_ON_KEY: return AT_ALONG_KEYS;
    case AT_ON_DISTANCE: return AT_ALONG_DISTANCES;
    default: return AT_EACH_PAIR;
    }
}

static int own_dependence(attune_op op) {
    switch (op) {
    case ATTUNE_OP_SCORE: return AT_ON_SCORE;
    case ATTUNE_OP_BATCH: return AT_ON_BATCH;
    case ATTUNE_OP_HEAD:
    case ATTUNE_OP_KV_HEAD: return AT_ON_HEAD;
    case ATTUNE_OP_QUERY: return AT_ON_QUERY;
    case ATTUNE_OP_KEY: return AT_ON_KEY;
    case ATTUNE_OP_DISTANCE: return AT_ON_DISTANCE;
    default: return 0;
    }
}

static attune_status check(attune_program *p) {
    for (int32_t n = 0; n < p->count; n++) {
        const attune_instruction *in = &p->code[n];
        if ((unsigned)in->op >= ATTUNE_OP_COUNT)
            return at_fail(ATTUNE_EVALUE, "%s: expected an operation, got number %d", p->name,
                           (int)in->op);
        if (in->op == ATTUNE_OP_READ && (in->tensor < 0 || in->tensor >= p->tensor_count)) {
            return at_fail(ATTUNE_EVALUE, "%s: expected a tensor from 0 to %d, got %d", p->name,
                           p->tensor_count - 1, in->tensor);
        }
        int deps = own_dependence(in->op);
        for (int k = 0, operands = at_operands(p, n); k < operands; k++) {
            if (in->a[k] < 0 || in->a[k] >= n)
                return at_fail(ATTUNE_EVALUE, "%s: instruction %d expects an earlier one, got %d",
                               p->name, n, in->a[k]);
            deps |= p->deps[in->a[k]];
        }
        p->deps[n] = (uint8_t)deps;
    }
    bool fine = p->result >= 0 && p->result < p->count && p->slope < p->count;
    for (int32_t k = 0; k < p->reads && fine; k++) {
        fine = p->read[k] >= 0 && p->read[k] < p->count &&
               p->code[p->read[k]].op == ATTUNE_OP_READ && p->adjoint[k] >= 0 &&
               p->adjoint[k] < p->count;
    }
    return fine ? ATTUNE_OK
                : at_fail(ATTUNE_EVALUE, "%s: expected outputs among the %d instructions", p->name,
                          p->count);
}

static void *copy_of(const void *from, int64_t count, int64_t size) {
    void *to = at_alloc(at_checked_mul(count > 0 ? count : 1, size));
    if (to && count > 0) memcpy(to, from, (size_t)(count * size));
    return to;
}

attune_status attune_program_new(const char *name, const attune_instruction *code, int32_t count,
                                 const attune_tensor *tensors, int32_t tensor_count,
                                 const attune_program_outputs *outputs, attune_program **out) {
    *out = NULL;
    AT_TRY(attune_init());
    attune_program *p = at_alloc_zeroed((int64_t)sizeof *p);
    if (!p) return ATTUNE_EMEMORY;
    snprintf(p->name, sizeof p->name, "%s", name);
    p->count = count;
    p->result = outputs->result;
    p->slope = outputs->slope;
    p->first = outputs->first;
    p->code = copy_of(code, count, (int64_t)sizeof *code);
    if (p->code) p->deps = at_alloc_zeroed(count > 0 ? count : 1);
    if (p->deps) p->tensors = at_alloc_zeroed((tensor_count + 1) * (int64_t)sizeof *p->tensors);
    if (p->tensors) p->read = copy_of(outputs->read, outputs->reads, (int64_t)sizeof *p->read);
    if (p->read)
        p->adjoint = copy_of(outputs->adjoint, outputs->reads, (int64_t)sizeof *p->adjoint);
    attune_status status = p->adjoint ? ATTUNE_OK : ATTUNE_EMEMORY;
    if (status == ATTUNE_OK) p->reads = outputs->reads;
    for (int32_t t = 0; t < tensor_count && status == ATTUNE_OK; t++) {
        status = attune_tensor_share(&tensors[t], &p->tensors[t]);
        if (status == ATTUNE_OK) p->tensor_count++;
    }
    if (status == ATTUNE_OK) status = check(p);
    if (status != ATTUNE_OK) {
        attune_program_close(p);
        return status;
    }
    *out = p;
    return ATTUNE_OK;
}

void attune_program_close(attune_program *p) {
    if (!p) return;
    for (int32_t t = 0; t < p->tensor_count; t++) attune_tensor_close(&p->tensors[t]);
    if (p->cache) p->cache_free(p->cache);
    at_free(p->tensors);
    at_free(p->code);
    at_free(p->deps);
    at_free(p->read);
    at_free(p->adjoint);
    at_free(p);
}
