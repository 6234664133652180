/* summaries.c - the tensors of the summaries. */
#include "attention/summaries.h"

#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "tensor/tensor.h"

void attune_summaries_close(attune_summaries *summaries) {
    attune_tensor_close(&summaries->entropy);
    attune_tensor_close(&summaries->distance);
    attune_tensor_close(&summaries->sinks);
    attune_tensor_close(&summaries->columns);
}

attune_status at_summaries_make(const at_query_side *query, unsigned wanted, int64_t keys,
                                attune_summaries *out, at_summaries *s) {
    const unsigned of_rows =
        ATTUNE_SUMMARY_ENTROPY | ATTUNE_SUMMARY_DISTANCE | ATTUNE_SUMMARY_SINKS;
    const int64_t rows[3] = {query->B, query->Hq, query->Sq}, columns[3] = {rows[0], rows[1], keys};
    const int64_t count = rows[0] * rows[1] * rows[2];
    attune_tensor *const row_tensors[] = {&out->entropy, &out->distance, &out->sinks};
    *s = (at_summaries){.out = out, .of_rows = (wanted & of_rows) != 0};
    if (wanted & ~(of_rows | ATTUNE_SUMMARY_COLUMNS))
        return at_fail(ATTUNE_EVALUE, "summaries: expected some of attune_summary, got %u", wanted);
    for (int i = 0; i < 3; i++)
        if (wanted & 1u << i) AT_TRY(at_tensor_new(query->lse_dtype, 3, rows, row_tensors[i]));
    s->first_token = at_alloc(at_checked_mul(query->B, (int64_t)sizeof *s->first_token));
    if (!s->first_token) return ATTUNE_EMEMORY;
    if (!(wanted & ATTUNE_SUMMARY_COLUMNS)) return ATTUNE_OK;
    AT_TRY(attune_tensor_new(query->lse_dtype, 3, columns, &out->columns));
    if (query->lse_dtype == ATTUNE_F64) return ATTUNE_OK;
    s->max = at_alloc(at_checked_mul(count, 2 * (int64_t)sizeof *s->max));
    if (!s->max) return ATTUNE_EMEMORY;
    s->inverse = s->max + count;
    return ATTUNE_OK;
}

void at_summaries_free(at_summaries *s) {
    at_free(s->first_token);
    at_free(s->max);
    s->first_token = NULL;
    s->max = s->inverse = NULL;
}

static void store(attune_tensor *t, int64_t index, double x) {
    if (!t->data) return;
    if (t->dtype == ATTUNE_F64)
        ((double *)t->data)[index] = x;
    else
        ((float *)t->data)[index] = (float)x;
}

void at_summaries_store(const at_summaries *s, int64_t index, double entropy, double distance,
                        double first) {
    /* Rounding may leave a little less than zero. A NaN stays one. */
    store(&s->out->entropy, index, entropy < 0 ? 0 : entropy);
    store(&s->out->distance, index, distance);
    store(&s->out->sinks, index, first);
}
