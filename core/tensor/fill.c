/* fill.c - tensors filled with a constant, a range or random numbers. */
#include <math.h>

#include "base/parallel.h"
#include "base/int_math.h"
#include "base/status.h"
#include "tensor/tensor.h"

typedef enum fill_kind { FILL_VALUE, FILL_RANGE, FILL_NORMAL, FILL_UNIFORM } fill_kind;

typedef struct fill_job {
    const attune_tensor *t;
    fill_kind kind;
    double a, b; /* the parameters of the kind, in order:
                    value | first, step | mean, standard deviation | low, high */
    uint64_t seed;
    at_rows_view rows;
    int64_t rows_per_task;
} fill_job;

/* Uniform in (0, 1) with 53 random bits. */
static double unit(uint32_t high, uint32_t low) {
    return ((double)(((uint64_t)high << 21) ^ (low >> 11)) + 0.5) * 0x1p-53;
}

static double value_at(const fill_job *j, int64_t i) {
    if (j->kind == FILL_VALUE) return j->a;
    if (j->kind == FILL_RANGE) return j->a + (double)i * j->b;
    const uint32_t counter[4] = {(uint32_t)i, (uint32_t)((uint64_t)i >> 32), (uint32_t)j->kind, 0},
                   key[2] = {(uint32_t)j->seed, (uint32_t)(j->seed >> 32)};
    uint32_t word[4];
    attune_philox(counter, key, word);
    double u = unit(word[0], word[1]);
    if (j->kind == FILL_UNIFORM) return j->a + (j->b - j->a) * u;
    /* A normal number from two uniform ones: Box and Muller 1958. 6.28.. is 2 pi. */
    return j->a + j->b * sqrt(-2 * log(u)) * cos(6.283185307179586 * unit(word[2], word[3]));
}

static attune_status fill_task(void *context, int64_t task, int thread) {
    const fill_job *j = context;
    (void)thread;
    int64_t end =
        (task + 1) * j->rows_per_task < j->rows.rows ? (task + 1) * j->rows_per_task : j->rows.rows;
    for (int64_t row = task * j->rows_per_task; row < end; row++) {
        int64_t offset = at_row_offset(j->t, row);
        for (int64_t i = 0; i < j->rows.length; i++)
            at_store(j->t, offset + i * j->rows.stride, value_at(j, row * j->rows.length + i));
    }
    return ATTUNE_OK;
}

static attune_status run(attune_tensor *t, fill_kind kind, uint64_t seed, double a, double b) {
    AT_TRY(at_check_writable("tensor", t));
    fill_job j = {.t = t, .kind = kind, .a = a, .b = b, .seed = seed, .rows = at_rows_of(t)};
    j.rows_per_task = j.rows.length >= AT_CHUNK ? 1 : AT_CHUNK / j.rows.length;
    at_tensor_written(t);
    return at_parallel(at_ceil_div(j.rows.rows, j.rows_per_task), fill_task, &j);
}

attune_status attune_tensor_fill(attune_tensor *t, double value) {
    return run(t, FILL_VALUE, 0, value, 0);
}

attune_status attune_tensor_arange(attune_tensor *t, double first, double step) {
    return run(t, FILL_RANGE, 0, first, step);
}

attune_status attune_tensor_normal(attune_tensor *t, uint64_t seed, double mean, double std) {
    if (!(std >= 0) || isinf(std))
        return at_fail(ATTUNE_EVALUE, "std: expected a number of at least 0, got %g", std);
    return run(t, FILL_NORMAL, seed, mean, std);
}

attune_status attune_tensor_uniform(attune_tensor *t, uint64_t seed, double low, double high) {
    if (!(low <= high) || isinf(low) || isinf(high))
        return at_fail(ATTUNE_EVALUE, "high: expected at least low, %g, got %g", low, high);
    return run(t, FILL_UNIFORM, seed, low, high);
}
