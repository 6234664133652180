/* map.c - a function over the elements of tensors of one shape. */
#include "tensor/map.h"

#include "base/int_math.h"
#include "base/parallel.h"
#include "tensor/tensor.h"

typedef struct map_job {
    const at_map *map;
    attune_tensor t[AT_MAP_IN + AT_MAP_OUT]; /* flattened where all are contiguous; closed: none */
    int64_t rows, length, rows_per_task;
} map_job;

/* One chunk: n elements, from element i of a row on. offset: of the row, per tensor. */
static void map_part(const map_job *j, const int64_t *offset, int64_t i, int64_t n) {
    double f64[AT_MAP_IN + AT_MAP_OUT][AT_MAP_PART];
    void *at[AT_MAP_IN + AT_MAP_OUT] = {0};
    const bool in_f64 = j->map->in_f64;
    const attune_dtype own = in_f64 ? ATTUNE_F64 : ATTUNE_F32;
    for (int k = 0; k < AT_MAP_IN + AT_MAP_OUT; k++) {
        const attune_tensor *t = &j->t[k];
        if (!t->data) continue;
        const int64_t stride = at_rows_of(t).stride, from = offset[k] + i * stride;
        const bool direct = t->dtype == own && (stride == 1 || n == 1);
        at[k] = direct ? (void *)((char *)t->data + from * attune_dtype_size(own)) : f64[k];
        if (direct || k >= AT_MAP_IN) continue;
        if (in_f64)
            at_load_row_f64(t, from, stride, n, at[k]);
        else
            at_load_row(t, from, stride, n, at[k]);
    }
    if (in_f64)
        j->map->f64(j->map->context, n, (const double *const *)at, (double *const *)at + AT_MAP_IN);
    else
        j->map->f32(j->map->context, n, (const float *const *)at, (float *const *)at + AT_MAP_IN);
    for (int k = AT_MAP_IN; k < AT_MAP_IN + AT_MAP_OUT; k++) {
        const attune_tensor *t = &j->t[k];
        if (!t->data || at[k] != f64[k]) continue;
        const int64_t stride = at_rows_of(t).stride, to = offset[k] + i * stride;
        if (in_f64)
            at_store_row_f64(t, to, stride, n, at[k]);
        else
            at_store_row(t, to, stride, n, at[k]);
    }
}

static attune_status map_task(void *context, int64_t task, int thread) {
    const map_job *j = context;
    const int64_t end = (task + 1) * j->rows_per_task;
    (void)thread;
    for (int64_t row = task * j->rows_per_task; row < end && row < j->rows; row++) {
        int64_t offset[AT_MAP_IN + AT_MAP_OUT] = {0};
        for (int k = 0; k < AT_MAP_IN + AT_MAP_OUT; k++)
            if (j->t[k].data) offset[k] = at_row_offset(&j->t[k], row);
        for (int64_t i = 0; i < j->length; i += AT_MAP_PART)
            map_part(j, offset, i, j->length - i < AT_MAP_PART ? j->length - i : AT_MAP_PART);
    }
    return ATTUNE_OK;
}

/* Contiguous tensors are one long row, which tasks divide: [count / piece, piece], and one task for
 * what remains. */
enum { PIECE = 4096 };

static attune_status flat_task(void *context, int64_t task, int thread) {
    const map_job *j = context;
    const int64_t first = task * j->rows_per_task * PIECE, size = j->rows_per_task * PIECE,
                  end = first + size < j->length ? first + size : j->length;
    const int64_t offset[AT_MAP_IN + AT_MAP_OUT] = {0};
    (void)thread;
    for (int64_t i = first; i < end; i += AT_MAP_PART)
        map_part(j, offset, i, end - i < AT_MAP_PART ? end - i : AT_MAP_PART);
    return ATTUNE_OK;
}

attune_status at_map_run(const at_map *map) {
    map_job j = {.map = map};
    const int64_t count = attune_tensor_count(map->out[0]);
    bool flat = true;
    for (int k = 0; k < AT_MAP_IN + AT_MAP_OUT; k++) {
        const attune_tensor *t = k < AT_MAP_IN ? map->in[k] : map->out[k - AT_MAP_IN];
        if (!t) continue;
        j.t[k] = *t;
        flat = flat && attune_tensor_is_contiguous(t);
    }
    const at_rows_view rows = at_rows_of(map->out[0]);
    j.rows = flat ? 1 : rows.rows;
    j.length = flat ? count : rows.length;
    for (int k = 0; k < AT_MAP_IN + AT_MAP_OUT && flat; k++) {
        j.t[k].rank = 1;
        j.t[k].shape[0] = count;
        j.t[k].stride[0] = 1;
    }
    if (flat) {
        j.rows_per_task = AT_CHUNK / 4 / PIECE;
        return at_parallel(at_ceil_div(count, j.rows_per_task * PIECE), flat_task, &j);
    }
    j.rows_per_task = j.length >= AT_CHUNK / 4 ? 1 : AT_CHUNK / 4 / j.length;
    return at_parallel(at_ceil_div(j.rows, j.rows_per_task), map_task, &j);
}
