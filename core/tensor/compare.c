/* compare.c - comparisons, and the choice between two tensors by a condition. */
#include <math.h>
#include <string.h>

#include "base/int_math.h"
#include "base/parallel.h"
#include "base/status.h"
#include "tensor/tensor.h"

typedef struct choice_job {
    attune_tensor condition, a, b, out; /* of one shape */
    attune_comparison op;
    int64_t rows_per_task;
    void (*row)(const struct choice_job *j, int64_t row);
} choice_job;

static attune_status choice_task(void *context, int64_t task, int thread) {
    const choice_job *j = context;
    const int64_t rows = at_rows_of(&j->out).rows;
    (void)thread;
    for (int64_t row = task * j->rows_per_task; row < (task + 1) * j->rows_per_task && row < rows;
         row++)
        j->row(j, row);
    return ATTUNE_OK;
}

static attune_status run(choice_job *j) {
    const at_rows_view rows = at_rows_of(&j->out);
    j->rows_per_task = rows.length >= AT_CHUNK / 4 ? 1 : AT_CHUNK / 4 / rows.length;
    return at_parallel(at_ceil_div(rows.rows, j->rows_per_task), choice_task, j);
}

/* The shape to which the tensors broadcast; their last axes are aligned. */
static attune_status common_shape(const char *name, const attune_tensor *const *t, int count,
                                  int *rank, int64_t *shape) {
    *rank = 0;
    for (int k = 0; k < count; k++) *rank = t[k]->rank > *rank ? t[k]->rank : *rank;
    for (int i = 1; i <= *rank; i++) {
        shape[*rank - i] = 1;
        for (int k = 0; k < count; k++) {
            const int64_t extent = i <= t[k]->rank ? t[k]->shape[t[k]->rank - i] : 1;
            if (extent == 1) continue;
            if (shape[*rank - i] != 1 && shape[*rank - i] != extent)
                return at_fail(ATTUNE_ESHAPE, "%s: expected shapes that broadcast, got %s and %s",
                               name, at_shape_text(t[0]->rank, t[0]->shape),
                               at_shape_text(t[k]->rank, t[k]->shape));
            shape[*rank - i] = extent;
        }
    }
    return ATTUNE_OK;
}

/* ---- comparisons ----------------------------------------------------------------------------- */

static int holds(attune_comparison op, int less, int equal, int greater) {
    switch (op) {
    case ATTUNE_LT: return less;
    case ATTUNE_LE: return less || equal;
    case ATTUNE_GT: return greater;
    case ATTUNE_GE: return greater || equal;
    case ATTUNE_EQ: return equal;
    case ATTUNE_NE: return !equal;
    }
    return 0;
}

/* i64 is compared exactly: a double would lose its last bits. */
static void compare_row(const choice_job *j, int64_t row) {
    const at_rows_view a = at_rows_of(&j->a), b = at_rows_of(&j->b), out = at_rows_of(&j->out);
    const int64_t in_a = at_row_offset(&j->a, row), in_b = at_row_offset(&j->b, row);
    int8_t *to = (int8_t *)j->out.data + at_row_offset(&j->out, row);
    if (j->a.dtype == ATTUNE_I64 && j->b.dtype == ATTUNE_I64) {
        for (int64_t i = 0; i < out.length; i++) {
            const int64_t x = ((const int64_t *)j->a.data)[in_a + i * a.stride],
                          y = ((const int64_t *)j->b.data)[in_b + i * b.stride];
            to[i] = (int8_t)holds(j->op, x<y, x == y, x> y);
        }
        return;
    }
    for (int64_t i = 0; i < out.length; i++) {
        const double x = at_load(&j->a, in_a + i * a.stride),
                     y = at_load(&j->b, in_b + i * b.stride);
        to[i] = (int8_t)holds(j->op, x<y, x == y, x> y);
    }
}

attune_status attune_tensor_compare(attune_comparison op, const attune_tensor *a,
                                    const attune_tensor *b, attune_tensor *out) {
    choice_job j = {.op = op, .row = compare_row};
    const attune_tensor *const both[2] = {a, b};
    int rank;
    int64_t shape[ATTUNE_MAX_RANK] = {0};
    memset(out, 0, sizeof *out);
    AT_TRY(at_check_open("a", a));
    AT_TRY(at_check_open("b", b));
    if (a->dtype != b->dtype && !(a->rank == 0 || b->rank == 0))
        return at_fail(ATTUNE_EDTYPE, "compare: expected two tensors of one dtype, got %s and %s",
                       attune_dtype_name(a->dtype), attune_dtype_name(b->dtype));
    AT_TRY(common_shape("compare", both, 2, &rank, shape));
    attune_status status = attune_tensor_expand(a, rank, shape, &j.a);
    if (status == ATTUNE_OK) status = attune_tensor_expand(b, rank, shape, &j.b);
    if (status == ATTUNE_OK) status = at_tensor_new(ATTUNE_I8, rank, shape, &j.out);
    if (status == ATTUNE_OK) status = run(&j);
    if (status == ATTUNE_OK) status = attune_tensor_share(&j.out, out);
    attune_tensor *all[] = {&j.a, &j.b, &j.out};
    for (int i = 0; i < 3; i++) attune_tensor_close(all[i]);
    return status;
}

/* ---- where ----------------------------------------------------------------------------------- */

/* Elements are moved, not converted, so that integers and NaN stay as they are. */
static void where_row(const choice_job *j, int64_t row) {
    const at_rows_view c = at_rows_of(&j->condition), a = at_rows_of(&j->a), b = at_rows_of(&j->b),
                       out = at_rows_of(&j->out);
    const int64_t size = attune_dtype_size(j->out.dtype), in_c = at_row_offset(&j->condition, row);
    const char *from_a = (const char *)j->a.data + at_row_offset(&j->a, row) * size,
               *from_b = (const char *)j->b.data + at_row_offset(&j->b, row) * size;
    char *to = (char *)j->out.data + at_row_offset(&j->out, row) * size;
    for (int64_t i = 0; i < out.length; i++) {
        const bool chosen = at_load(&j->condition, in_c + i * c.stride) != 0;
        memcpy(to + i * size, chosen ? from_a + i * a.stride * size : from_b + i * b.stride * size,
               (size_t)size);
    }
}

attune_status attune_tensor_where(const attune_tensor *condition, const attune_tensor *a,
                                  const attune_tensor *b, attune_tensor *out) {
    choice_job j = {.row = where_row};
    const attune_tensor *const all_in[3] = {condition, a, b};
    int rank;
    int64_t shape[ATTUNE_MAX_RANK] = {0};
    memset(out, 0, sizeof *out);
    AT_TRY(at_check_open("condition", condition));
    AT_TRY(at_check_open("a", a));
    AT_TRY(at_check_open("b", b));
    if (a->dtype != b->dtype)
        return at_fail(ATTUNE_EDTYPE, "b: expected %s, as a, got %s", attune_dtype_name(a->dtype),
                       attune_dtype_name(b->dtype));
    AT_TRY(common_shape("where", all_in, 3, &rank, shape));
    attune_status status = attune_tensor_expand(condition, rank, shape, &j.condition);
    if (status == ATTUNE_OK) status = attune_tensor_expand(a, rank, shape, &j.a);
    if (status == ATTUNE_OK) status = attune_tensor_expand(b, rank, shape, &j.b);
    if (status == ATTUNE_OK) status = at_tensor_new(a->dtype, rank, shape, &j.out);
    if (status == ATTUNE_OK) status = run(&j);
    if (status == ATTUNE_OK) status = attune_tensor_share(&j.out, out);
    attune_tensor *all[] = {&j.condition, &j.a, &j.b, &j.out};
    for (int i = 0; i < 4; i++) attune_tensor_close(all[i]);
    return status;
}
