/* embedding.c - rows of a table selected by ids, and the gradient of the table.
 *
 * Several tokens may have the same id. Tasks of the gradient divide the dims, not the tokens, so
 * each element adds its tokens in order for any number of threads.
 */
#include <string.h>

#include "base/parallel.h"
#include "base/int_math.h"
#include "base/status.h"
#include "nn/nn_rows.h"
#include "tensor/tensor.h"

typedef struct embedding_job {
    attune_tensor table, out; /* backward: dtable, d_out */
    const int64_t *id;
    int64_t tokens, n;
} embedding_job;

static attune_status check_ids(const attune_tensor *ids, int64_t vocabulary, attune_tensor *flat) {
    AT_TRY(at_check_open("ids", ids));
    if (ids->dtype != ATTUNE_I64)
        return at_fail(ATTUNE_EDTYPE, "ids: expected i64, got %s", attune_dtype_name(ids->dtype));
    if (ids->rank < 1 || ids->rank >= ATTUNE_MAX_RANK)
        return at_fail(ATTUNE_ESHAPE, "ids: expected from 1 to %d axes, got %d",
                       ATTUNE_MAX_RANK - 1, ids->rank);
    AT_TRY(attune_tensor_contiguous(ids, flat));
    for (int64_t i = 0, count = attune_tensor_count(flat); i < count; i++) {
        const int64_t id = ((const int64_t *)flat->data)[i];
        if (id >= 0 && id < vocabulary) continue;
        attune_tensor_close(flat);
        return at_fail(ATTUNE_EVALUE, "ids: expected from 0 to %lld, got %lld",
                       (long long)vocabulary - 1, (long long)id);
    }
    return ATTUNE_OK;
}

static attune_status gather(void *context, int64_t first, int64_t last, int64_t piece) {
    embedding_job *j = context;
    const int64_t bytes = j->n * attune_dtype_size(j->table.dtype);
    (void)piece;
    for (int64_t i = first; i < last; i++)
        memcpy((char *)j->out.data + i * bytes, (const char *)j->table.data + j->id[i] * bytes,
               (size_t)bytes);
    return ATTUNE_OK;
}

attune_status attune_embedding(const attune_tensor *table, const attune_tensor *ids,
                               attune_tensor *out) {
    embedding_job j = {0};
    attune_tensor flat;
    int64_t shape[ATTUNE_MAX_RANK] = {0};
    memset(out, 0, sizeof *out);
    AT_TRY(at_nn_check("table", table, NULL));
    if (table->rank != 2)
        return at_fail(ATTUNE_ESHAPE, "table: expected [vocabulary, d_model], got %s",
                       at_shape_text(table->rank, table->shape));
    AT_TRY(check_ids(ids, table->shape[0], &flat));
    memcpy(shape, ids->shape, (size_t)ids->rank * sizeof *shape);
    j.n = table->shape[1];
    shape[ids->rank] = j.n;
    j.id = flat.data;
    j.tokens = attune_tensor_count(&flat);
    attune_status status = attune_tensor_contiguous(table, &j.table);
    if (status == ATTUNE_OK) status = at_tensor_new(table->dtype, ids->rank + 1, shape, &j.out);
    if (status == ATTUNE_OK) status = at_nn_rows(j.tokens, j.n, gather, &j);
    if (status == ATTUNE_OK) status = attune_tensor_share(&j.out, out);
    attune_tensor_close(&j.table);
    attune_tensor_close(&j.out);
    attune_tensor_close(&flat);
    return status;
}

enum { COLUMNS = 64 }; /* dims per task of the gradient */

static attune_status scatter(void *context, int64_t task, int thread) {
    embedding_job *j = context;
    const at_nn_kernels *kernels = at_nn_kernels_of(j->table.dtype);
    const int64_t size = attune_dtype_size(j->table.dtype), first = task * COLUMNS,
                  n = j->n - first < COLUMNS ? j->n - first : COLUMNS;
    (void)thread;
    for (int64_t i = 0; i < j->tokens; i++)
        kernels->add((const char *)j->out.data + (i * j->n + first) * size, n,
                     (char *)j->table.data + (j->id[i] * j->n + first) * size);
    return ATTUNE_OK;
}

/* dtable[id] += d_out, in the order of the tokens; dtable is contiguous and of d_out's shapes. */
static attune_status add_rows(const attune_tensor *d_out, const attune_tensor *ids,
                              const attune_tensor *dtable) {
    embedding_job j = {.table = *dtable, .n = dtable->shape[1]};
    attune_tensor flat;
    AT_TRY(check_ids(ids, dtable->shape[0], &flat));
    attune_status status = ATTUNE_OK;
    if (d_out->rank != ids->rank + 1 || d_out->shape[ids->rank] != j.n ||
        memcmp(d_out->shape, ids->shape, (size_t)ids->rank * sizeof *ids->shape) != 0)
        status = at_fail(ATTUNE_ESHAPE, "d_out: expected ids' shape %s and d_model = %lld, got %s",
                         at_shape_text(ids->rank, ids->shape), (long long)j.n,
                         at_shape_text(d_out->rank, d_out->shape));
    if (status == ATTUNE_OK) status = at_nn_in(d_out, &j.out);
    if (status == ATTUNE_OK && j.out.dtype != dtable->dtype)
        status = at_fail(ATTUNE_EDTYPE, "dtable: expected %s, got %s",
                         attune_dtype_name(j.out.dtype), attune_dtype_name(dtable->dtype));
    j.id = flat.data;
    j.tokens = attune_tensor_count(&flat);
    if (status == ATTUNE_OK) status = at_parallel(at_ceil_div(j.n, COLUMNS), scatter, &j);
    attune_tensor_close(&j.out);
    attune_tensor_close(&flat);
    return status;
}

attune_status attune_embedding_accumulate(const attune_tensor *d_out, const attune_tensor *ids,
                                          attune_tensor *dtable) {
    AT_TRY(at_nn_check("d_out", d_out, NULL));
    AT_TRY(at_nn_check("dtable", dtable, NULL));
    if (dtable->rank != 2 || !attune_tensor_is_contiguous(dtable))
        return at_fail(ATTUNE_ESHAPE, "dtable: expected contiguous [vocabulary, d_model], got %s",
                       at_shape_text(dtable->rank, dtable->shape));
    at_tensor_written(dtable);
    return add_rows(d_out, ids, dtable);
}

attune_status attune_embedding_backward(const attune_tensor *d_out, const attune_tensor *ids,
                                        int64_t vocabulary, attune_tensor *dtable) {
    attune_tensor table = {0};
    memset(dtable, 0, sizeof *dtable);
    AT_TRY(at_nn_check("d_out", d_out, NULL));
    if (vocabulary < 1)
        return at_fail(ATTUNE_EVALUE, "vocabulary: expected at least 1, got %lld",
                       (long long)vocabulary);
    if (d_out->rank < 1)
        return at_fail(ATTUNE_ESHAPE, "d_out: expected ids' shape and d_model, got %s",
                       at_shape_text(d_out->rank, d_out->shape));
    const int64_t shape[2] = {vocabulary, d_out->shape[d_out->rank - 1]};
    const attune_dtype dtype = d_out->dtype == ATTUNE_F64 ? ATTUNE_F64 : ATTUNE_F32;
    AT_TRY(attune_tensor_new(dtype, 2, shape, &table));
    attune_status status = add_rows(d_out, ids, &table);
    if (status == ATTUNE_OK) status = at_nn_out(&table, d_out->dtype, dtable);
    attune_tensor_close(&table);
    return status;
}
