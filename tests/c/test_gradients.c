/* test_gradients.c - indexing, comparisons and the gradients of tensor operations from C: running
 * out of memory at each allocation, the same bits for any number of threads, misuse. The gradients
 * themselves are checked from Lua: tests/spec/autograd_spec.lua. */
#include "problems.h"
#include "test.h"

enum { A = 6, B = 40, C = 300 };

typedef struct arguments {
    attune_tensor x, y, row, matrix, batch, dy, indices, list, condition;
} arguments;

static void normal(uint64_t seed, int rank, const int64_t *shape, attune_tensor *out) {
    MUST(attune_tensor_new(ATTUNE_F32, rank, shape, out));
    MUST(attune_tensor_normal(out, seed, 0, 1));
}

static void make(arguments *t) {
    const int64_t shape[3] = {A, B, C}, square[2] = {C, C}, batch[3] = {A, C, B}, list[1] = {5};
    normal(1, 3, shape, &t->x);
    normal(2, 3, shape, &t->y);
    normal(3, 1, shape + 2, &t->row);
    normal(4, 2, square, &t->matrix);
    normal(5, 3, batch, &t->batch);
    normal(6, 3, shape, &t->dy);
    MUST(attune_tensor_compare(ATTUNE_LT, &t->x, &t->y, &t->condition));
    MUST(attune_tensor_new(ATTUNE_I64, 3, shape, &t->indices));
    for (int64_t i = 0; i < A * B * C; i++) ((int64_t *)t->indices.data)[i] = i * 7 % B;
    MUST(attune_tensor_new(ATTUNE_I64, 1, list, &t->list));
    for (int64_t i = 0; i < list[0]; i++) ((int64_t *)t->list.data)[i] = i * i % B;
}

static void close_arguments(arguments *t) {
    attune_tensor *all[] = {&t->x,  &t->y,       &t->row,  &t->matrix,   &t->batch,
                            &t->dy, &t->indices, &t->list, &t->condition};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) attune_tensor_close(all[i]);
}

/* ---- the operations: results in out[3] ------------------------------------------------------- */

static attune_status cat(const arguments *t, attune_tensor *out) {
    const attune_tensor *list[] = {&t->x, &t->y, &t->x};
    return attune_tensor_cat(list, 3, 1, out);
}
static attune_status stack(const arguments *t, attune_tensor *out) {
    const attune_tensor *list[] = {&t->x, &t->y};
    return attune_tensor_stack(list, 2, -1, out);
}
static attune_status where(const arguments *t, attune_tensor *out) {
    return attune_tensor_where(&t->condition, &t->x, &t->row, out);
}
static attune_status compare(const arguments *t, attune_tensor *out) {
    return attune_tensor_compare(ATTUNE_GE, &t->x, &t->row, out);
}
static attune_status take(const arguments *t, attune_tensor *out) {
    return attune_tensor_take(&t->x, &t->list, 1, out);
}
static attune_status take_backward(const arguments *t, attune_tensor *out) {
    attune_tensor dy;
    attune_status status = attune_tensor_slice(&t->dy, 1, 0, 5, &dy);
    if (status == ATTUNE_OK) status = attune_take_backward(&dy, &t->list, 1, 3, t->x.shape, out);
    attune_tensor_close(&dy);
    return status;
}
static attune_status gather(const arguments *t, attune_tensor *out) {
    return attune_tensor_gather(&t->x, 1, &t->indices, out);
}
static attune_status gather_backward(const arguments *t, attune_tensor *out) {
    return attune_gather_backward(&t->dy, 1, &t->indices, 3, t->x.shape, out);
}
static attune_status topk(const arguments *t, attune_tensor *out) {
    return attune_tensor_topk(&t->x, 9, 1, &out[0], &out[1]);
}
static attune_status argmin(const arguments *t, attune_tensor *out) {
    return attune_tensor_arg(ATTUNE_MIN, &t->x, 1, out);
}
static attune_status argmax_of_all(const arguments *t, attune_tensor *out) {
    return attune_tensor_arg(ATTUNE_MAX, &t->x, ATTUNE_ALL_AXES, out);
}
static attune_status cumsum(const arguments *t, attune_tensor *out) {
    return attune_tensor_cumsum(&t->x, 1, true, out);
}
static attune_status silu_backward(const arguments *t, attune_tensor *out) {
    return attune_unary_backward(ATTUNE_SILU, &t->dy, &t->x, out);
}
static attune_status divide_backward(const arguments *t, attune_tensor *out) {
    return attune_binary_backward(ATTUNE_DIV, &t->dy, &t->x, &t->row, &out[0], &out[1]);
}
static attune_status sum_to_column(const arguments *t, attune_tensor *out) {
    const int64_t shape[2] = {B, 1};
    return attune_sum_to(&t->x, 2, shape, out);
}
static attune_status softmax_backward(const arguments *t, attune_tensor *out) {
    return attune_softmax_backward(&t->dy, &t->x, 1, out);
}
static attune_status slice_backward(const arguments *t, attune_tensor *out) {
    const int64_t shape[3] = {A, B + 9, C};
    return attune_slice_backward(&t->dy, 3, shape, 1, 4, out);
}
static attune_status mean_backward(const arguments *t, attune_tensor *out) {
    return attune_reduce_backward(ATTUNE_MEAN, &t->row, 2, t->matrix.shape, 0, out);
}
static attune_status max_backward(const arguments *t, attune_tensor *out) {
    attune_tensor index = {0}, dy = {0};
    attune_status status = attune_tensor_arg(ATTUNE_MAX, &t->x, 1, &index);
    if (status == ATTUNE_OK) status = attune_tensor_select(&t->dy, 1, 0, &dy);
    if (status == ATTUNE_OK) status = attune_arg_backward(&dy, &index, 3, t->x.shape, 1, out);
    attune_tensor_close(&index);
    attune_tensor_close(&dy);
    return status;
}
static attune_status matmul_backward(const arguments *t, attune_tensor *out) {
    return attune_matmul_backward(&t->dy, &t->x, &t->matrix, &out[0], &out[1]);
}
static attune_status batches_backward(const arguments *t, attune_tensor *out) {
    attune_tensor dy = {0};
    attune_status status = attune_tensor_matmul(&t->x, &t->batch, &dy);
    if (status == ATTUNE_OK) status = attune_matmul_backward(&dy, &t->x, &t->batch, out, out + 1);
    attune_tensor_close(&dy);
    return status;
}
static attune_status linear(const arguments *t, attune_tensor *out) {
    return attune_linear(&t->x, &t->matrix, &t->row, out);
}
static attune_status linear_backward(const arguments *t, attune_tensor *out) {
    return attune_linear_backward(&t->dy, &t->x, &t->matrix, &out[0], &out[1], &out[2]);
}

static const struct {
    const char *name;
    attune_status (*run)(const arguments *t, attune_tensor *out);
} operations[] = {
#define CASE(name) \
    { #name, name }
    CASE(cat),
    CASE(stack),
    CASE(where),
    CASE(compare),
    CASE(take),
    CASE(take_backward),
    CASE(gather),
    CASE(gather_backward),
    CASE(topk),
    CASE(argmin),
    CASE(argmax_of_all),
    CASE(cumsum),
    CASE(silu_backward),
    CASE(divide_backward),
    CASE(sum_to_column),
    CASE(softmax_backward),
    CASE(slice_backward),
    CASE(mean_backward),
    CASE(max_backward),
    CASE(matmul_backward),
    CASE(batches_backward),
    CASE(linear),
    CASE(linear_backward)};
enum { OPERATIONS = sizeof operations / sizeof *operations };

static void close_results(attune_tensor *out) {
    for (int i = 0; i < 3; i++) attune_tensor_close(&out[i]);
}

/* ---- the tests ------------------------------------------------------------------------------- */

static void running_out_of_memory_leaves_nothing(void **state) {
    arguments t;
    (void)state;
    make(&t);
    for (int k = 0; k < OPERATIONS; k++) {
        const int64_t before = attune_memory().bytes;
        attune_status status = ATTUNE_EMEMORY;
        for (int64_t n = 1; status != ATTUNE_OK; n++) {
            attune_tensor out[3] = {{0}, {0}, {0}};
            attune_memory_fail_at(n);
            status = operations[k].run(&t, out);
            attune_memory_fail_at(0);
            if (status != ATTUNE_OK && status != ATTUNE_EMEMORY)
                fail_msg("%s: allocation %d: %s", operations[k].name, (int)n, attune_message());
            for (int i = 0; i < 3 && status != ATTUNE_OK; i++)
                if (out[i].data) fail_msg("%s: a result is open", operations[k].name);
            close_results(out);
            if (attune_memory().bytes != before)
                fail_msg("%s: allocation %d: %lld bytes stay", operations[k].name, (int)n,
                         (long long)(attune_memory().bytes - before));
            assert_true(n < 100);
        }
    }
    close_arguments(&t);
}

static void bits_do_not_depend_on_threads(void **state) {
    arguments t;
    int before = 0;
    (void)state;
    MUST(attune_threads(0, &before));
    make(&t);
    for (int k = 0; k < OPERATIONS; k++) {
        attune_tensor one[3] = {{0}, {0}, {0}}, own[3] = {{0}, {0}, {0}};
        MUST(attune_threads(1, NULL));
        MUST(operations[k].run(&t, one));
        for (int threads = 2; threads <= 3; threads++) {
            attune_tensor many[3] = {{0}, {0}, {0}};
            MUST(attune_threads(threads, NULL));
            MUST(operations[k].run(&t, many));
            for (int i = 0; i < 3 && many[i].data; i++) {
                MUST(attune_tensor_contiguous(&one[i], &own[0]));
                MUST(attune_tensor_contiguous(&many[i], &own[1]));
                if (memcmp(own[0].data, own[1].data, (size_t)attune_tensor_nbytes(&own[0])) != 0)
                    fail_msg("%s: %d threads", operations[k].name, threads);
                close_results(own);
            }
            close_results(many);
        }
        close_results(one);
    }
    MUST(attune_threads(before, NULL));
    close_arguments(&t);
}

static void expect(attune_status got, attune_status wanted, const char *word) {
    assert_int_equal(got, wanted);
    if (!strstr(attune_message(), word)) fail_msg("'%s' lacks '%s'", attune_message(), word);
}

static void misuse_is_an_error(void **state) {
    arguments t;
    attune_tensor out, wide;
    const int64_t repeated[2] = {3, C};
    (void)state;
    make(&t);
    const attune_tensor *list[] = {&t.x, &t.row};
    expect(attune_tensor_cat(list, 2, 1, &out), ATTUNE_ESHAPE, "shapes like the first");
    expect(attune_tensor_cat(list, 0, 1, &out), ATTUNE_EVALUE, "at least one");
    expect(attune_tensor_stack(list, 1, 4, &out), ATTUNE_EVALUE, "axis");
    expect(attune_tensor_take(&t.x, &t.list, 0, &out), ATTUNE_EVALUE, "index out of range");
    expect(attune_tensor_gather(&t.x, 0, &t.indices, &out), ATTUNE_EVALUE, "index out of range");
    expect(attune_tensor_topk(&t.x, B + 1, 1, &out, &wide), ATTUNE_EVALUE, "k:");
    expect(attune_tensor_where(&t.condition, &t.x, &t.list, &out), ATTUNE_EDTYPE, "b:");
    expect(attune_sum_to(&t.x, 1, repeated, &out), ATTUNE_ESHAPE, "expands to");
    expect(attune_linear(&t.x, &t.batch, NULL, &out), ATTUNE_ESHAPE, "weight:");
    MUST(attune_tensor_expand(&t.row, 2, repeated, &wide));
    expect(attune_tensor_fill(&wide, 1), ATTUNE_ESHAPE, "expanded view");
    attune_tensor_close(&wide);
    close_arguments(&t);
}

static void writes_in_place_are_counted(void **state) {
    arguments t;
    attune_tensor view;
    const int64_t at[3] = {0};
    (void)state;
    make(&t);
    MUST(attune_tensor_slice(&t.x, 1, 0, 3, &view));
    assert_int_equal(attune_tensor_storage(&t.x).owners, 2);
    assert_int_equal(attune_tensor_storage(&t.x).bytes, A * B * C * 4);
    const int64_t before = attune_tensor_storage(&t.x).version;
    MUST(attune_tensor_fill(&view, 1));
    MUST(attune_tensor_set(&view, at, 2));
    MUST(attune_tensor_copy(&t.y, &t.x));
    MUST(attune_tensor_accumulate(&t.x, &t.y));
    assert_int_equal(attune_tensor_storage(&view).version, before + 4);
    attune_tensor_close(&view);
    close_arguments(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(running_out_of_memory_leaves_nothing),
                                       cmocka_unit_test(bits_do_not_depend_on_threads),
                                       cmocka_unit_test(misuse_is_an_error),
                                       cmocka_unit_test(writes_in_place_are_counted)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
