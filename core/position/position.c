/* position.c - what all encodings share: making, closing, and adding rows to embeddings. */
#include "position/position.h"

#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"
#include "tensor/tensor.h"

attune_status at_position_new(const char *name, unsigned capabilities, attune_position **out) {
    *out = NULL;
    AT_TRY(attune_init());
    attune_position *pe = at_alloc_zeroed((int64_t)sizeof *pe);
    if (!pe) return ATTUNE_EMEMORY;
    pe->name = name;
    pe->capabilities = capabilities;
    pe->factor = 1;
    *out = pe;
    return ATTUNE_OK;
}

attune_status attune_position_none(attune_position **out) {
    return at_position_new("none", 0, out);
}

void attune_position_close(attune_position *pe) {
    if (!pe) return;
    if (pe->close) pe->close(pe);
    attune_tensor_close(&pe->table);
    at_free(pe);
}

const char *attune_position_name(const attune_position *pe) { return pe->name; }

unsigned attune_position_capabilities(const attune_position *pe) {
    return pe->capabilities | (pe->sided ? ATTUNE_SIDED : 0) | (pe->axes > 1 ? ATTUNE_TWO_AXES : 0);
}

double attune_position_factor(const attune_position *pe) { return pe->factor; }

attune_status attune_position_table(const attune_position *pe, attune_tensor *out) {
    memset(out, 0, sizeof *out);
    if (!pe->table.data || pe->table.rank != 2)
        return at_fail(ATTUNE_EVALUE, "table: expected an encoding that has one, got %s", pe->name);
    return attune_tensor_share(&pe->table, out);
}

attune_status attune_position_slopes(const attune_position *pe, attune_tensor *out) {
    memset(out, 0, sizeof *out);
    if (!pe->table.data || pe->table.rank != 1)
        return at_fail(ATTUNE_EVALUE, "slopes: expected alibi, got %s", pe->name);
    return attune_tensor_share(&pe->table, out);
}

bool attune_position_sided(const attune_position *pe) { return pe->sided; }

attune_status attune_position_inv_freq(const attune_position *pe, attune_tensor *out) {
    memset(out, 0, sizeof *out);
    if (!pe->inv_freq)
        return at_fail(ATTUNE_EVALUE, "inv_freq: expected an encoding that rotates, got %s",
                       pe->name);
    const int64_t shape[1] = {pe->dims / 2};
    AT_TRY(at_tensor_new(ATTUNE_F64, 1, shape, out));
    memcpy(out->data, pe->inv_freq, (size_t)shape[0] * sizeof *pe->inv_freq);
    return ATTUNE_OK;
}

typedef struct embed_job {
    const attune_position *pe;
    const attune_tensor *x, *positions;
    attune_tensor *out;
    double *scratch; /* [threads][2][d_model] */
} embed_job;

static attune_status embed_task(void *context, int64_t task, int thread) {
    embed_job *j = context;
    const attune_position *pe = j->pe;
    const int64_t n = pe->d_model, S = j->x->shape[1], b = task / S, s = task % S;
    double *row = j->scratch + thread * 2 * n;
    double *x = row + n;
    int64_t position = s;
    if (j->positions) {
        const int64_t *stride = j->positions->stride;
        position =
            ((const int64_t *)j->positions
                 ->data)[j->positions->rank == 1 ? s * stride[0] : b * stride[0] + s * stride[1]];
    }
    AT_TRY(pe->row(pe, position, row));
    at_load_row_f64(j->x, b * j->x->stride[0] + s * j->x->stride[1], j->x->stride[2], n, x);
    for (int64_t d = 0; d < n; d++) x[d] += row[d];
    at_store_row_f64(j->out, task * n, 1, n, x);
    return ATTUNE_OK;
}

attune_status at_check_rotation(const attune_position *pe, int64_t head_dim) {
    if (!pe->inv_freq || pe->head_dim == head_dim) return ATTUNE_OK;
    return at_fail(ATTUNE_ESHAPE, "rotate: expected an encoding of head_dim %lld, got one of %lld",
                   (long long)head_dim, (long long)pe->head_dim);
}

static void extent_text(const char *name, int64_t count, char *to, size_t size) {
    if (count)
        snprintf(to, size, "%lld", (long long)count);
    else
        snprintf(to, size, "%s", name);
}

const char *at_expected_text(const char *rows, int64_t row_count, const char *columns,
                             int64_t column_count) {
    static _Thread_local char text[80];
    char row[32], column[32];
    extent_text(rows, row_count, row, sizeof row);
    extent_text(columns, column_count, column, sizeof column);
    snprintf(text, sizeof text, "[%s, %s]", row, column);
    return text;
}

attune_status at_check_positions(const attune_position *pe, const attune_tensor *positions,
                                 int64_t B, int64_t S) {
    const bool pairs = pe && pe->axes > 1;
    if (!positions)
        return pairs
                   ? at_fail(
                         ATTUNE_EVALUE,
                         "positions: expected a row and a column for each token with %s, got none",
                         pe->name)
                   : ATTUNE_OK;
    if (!positions->data)
        return at_fail(ATTUNE_ECLOSED, "positions: expected an open tensor, got a closed one");
    if (positions->dtype != ATTUNE_I64)
        return at_fail(ATTUNE_EDTYPE, "positions: expected i64, got %s",
                       attune_dtype_name(positions->dtype));
    const int64_t *p = positions->shape;
    const int rank = positions->rank - (pairs ? 1 : 0);
    const bool shaped = (rank == 1 && p[0] == S) || (rank == 2 && p[0] == B && p[1] == S);
    if (!shaped || (pairs && p[rank] != 2)) {
        const char *last = pairs ? ", 2" : "";
        return at_fail(ATTUNE_ESHAPE, "positions: expected [%lld%s] or [%lld, %lld%s], got %s",
                       (long long)S, last, (long long)B, (long long)S, last,
                       at_shape_text(positions->rank, p));
    }
    return ATTUNE_OK;
}

attune_status attune_position_embed_backward(attune_position *pe, const attune_tensor *d_out,
                                             const attune_tensor *positions,
                                             attune_tensor *dtable) {
    memset(dtable, 0, sizeof *dtable);
    AT_TRY(at_check_open("d_out", d_out));
    if (!pe->row || !pe->table.data)
        return at_fail(ATTUNE_EVALUE, "embed: expected an encoding that learns its rows, got %s",
                       pe->name);
    if (d_out->rank != 3 || d_out->shape[2] != pe->d_model) {
        return at_fail(ATTUNE_ESHAPE, "d_out: expected [batch, tokens, %lld], got %s",
                       (long long)pe->d_model, at_shape_text(d_out->rank, d_out->shape));
    }
    const int64_t B = d_out->shape[0], S = d_out->shape[1], shape[2] = {B, S};
    AT_TRY(at_check_positions(pe, positions, B, S));
    attune_tensor own = {0}, each = {0};
    attune_status status = ATTUNE_OK;
    if (!positions) {
        status = at_tensor_new(ATTUNE_I64, 1, &S, &own);
        if (status == ATTUNE_OK) status = attune_tensor_arange(&own, 0, 1);
        positions = &own;
    }
    if (status == ATTUNE_OK) status = attune_tensor_expand(positions, 2, shape, &each);
    if (status == ATTUNE_OK)
        status = attune_embedding_backward(d_out, &each, pe->table.shape[0], dtable);
    attune_tensor_close(&each);
    attune_tensor_close(&own);
    return status;
}

attune_status attune_position_embed(attune_position *pe, const attune_tensor *x,
                                    const attune_tensor *positions, attune_tensor *out) {
    attune_tensor from = *x;
    memset(out, 0, sizeof *out);
    AT_TRY(at_check_open("x", &from));
    if (!pe->row) return attune_tensor_share(&from, out);
    if (from.rank != 3 || from.shape[2] != pe->d_model) {
        return at_fail(ATTUNE_ESHAPE,
                       "x: expected [batch, tokens, d_model] with d_model %lld, got %s",
                       (long long)pe->d_model, at_shape_text(from.rank, from.shape));
    }
    if (at_is_integer(from.dtype)) {
        return at_fail(ATTUNE_EDTYPE, "x: expected a float dtype, got %s",
                       attune_dtype_name(from.dtype));
    }
    AT_TRY(at_check_positions(pe, positions, from.shape[0], from.shape[1]));
    AT_TRY(at_tensor_new(from.dtype, 3, from.shape, out));
    embed_job job = {.pe = pe, .x = &from, .positions = positions, .out = out};
    job.scratch = at_alloc(at_checked_mul(at_threads() * 16, pe->d_model));
    attune_status status =
        job.scratch ? at_parallel(from.shape[0] * from.shape[1], embed_task, &job) : ATTUNE_EMEMORY;
    at_free(job.scratch);
    if (status != ATTUNE_OK) attune_tensor_close(out);
    return status;
}
