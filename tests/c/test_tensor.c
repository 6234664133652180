/* test_tensor.c - shapes, views, conversions, arithmetic, reductions, products, files. */
#include <stdio.h>
#include <unistd.h>

#include "problems.h"
#include "tensor/product.h"
#include "tensor/tensor.h"
#include "test.h"

static double get(const attune_tensor *t, int64_t a, int64_t b) {
    const int64_t index[2] = {a, b};
    double x;
    MUST(attune_tensor_get(t, index, &x));
    return x;
}

static void shapes_are_checked(void **state) {
    (void)state;
    attune_tensor t;
    const int64_t zero[2] = {2, 0}, huge[3] = {(int64_t)1 << 31, (int64_t)1 << 31, 8},
                  fine[1] = {3};
    assert_int_equal(attune_tensor_new(ATTUNE_F32, 2, zero, &t), ATTUNE_ESHAPE);
    assert_non_null(strstr(attune_message(), "[2, 0]"));
    assert_int_equal(attune_tensor_new(ATTUNE_F32, 3, huge, &t), ATTUNE_ESHAPE);
    assert_int_equal(attune_tensor_new(ATTUNE_F32, 7, huge, &t), ATTUNE_ESHAPE);
    assert_int_equal(attune_tensor_new((attune_dtype)99, 1, fine, &t), ATTUNE_EDTYPE);
    assert_null(t.data);
    attune_tensor_close(&t);
    attune_tensor_close(&t);
    attune_dtype d;
    assert_int_equal(attune_dtype_parse("f23", &d), ATTUNE_EDTYPE);
}

static void views_share_memory(void **state) {
    (void)state;
    const int64_t shape[2] = {3, 4}, flat[1] = {-1}, wrong[2] = {5, 2}, expanded[3] = {2, 3, 4};
    attune_tensor t, v, s, row, e;
    MUST(attune_tensor_new(ATTUNE_F32, 2, shape, &t));
    MUST(attune_tensor_arange(&t, 0, 1));
    MUST(attune_tensor_transpose(&t, 0, 1, &v));
    assert_true(get(&v, 3, 2) == 11);
    assert_int_equal(attune_tensor_view(&v, 1, flat, &s), ATTUNE_ESHAPE);
    assert_non_null(strstr(attune_message(), "contiguous"));
    MUST(attune_tensor_slice(&t, 1, 1, 3, &s));
    assert_true(get(&s, 2, 1) == 10);
    const int64_t first[2] = {0, 0};
    MUST(attune_tensor_set(&s, first, 99));
    assert_true(get(&t, 0, 1) == 99);
    MUST(attune_tensor_select(&t, 0, 1, &row));
    assert_int_equal(row.rank, 1);
    attune_tensor_close(&row);
    MUST(attune_tensor_expand(&t, 3, expanded, &e));
    assert_int_equal(e.stride[0], 0);
    assert_int_equal(attune_tensor_view(&t, 2, wrong, &row), ATTUNE_ESHAPE);
    assert_int_equal(attune_tensor_slice(&t, 0, 2, 5, &row), ATTUNE_EVALUE);
    assert_int_equal(attune_tensor_select(&t, 0, 3, &row), ATTUNE_EVALUE);
    assert_int_equal(attune_tensor_transpose(&t, 0, 2, &row), ATTUNE_EVALUE);
    const int64_t before = attune_memory().bytes;
    attune_tensor_close(&t); /* the views keep the memory */
    assert_int_equal(attune_memory().bytes, before);
    assert_true(get(&v, 3, 2) == 11);
    attune_tensor_close(&v);
    attune_tensor_close(&s);
    attune_tensor_close(&e);
}

static void conversions_round_once(void **state) {
    (void)state;
    const int64_t shape[1] = {6};
    attune_tensor t, h, i;
    MUST(attune_tensor_new(ATTUNE_F64, 1, shape, &t));
    const double values[6] = {1 + 0x1p-8 + 0x1p-40, 300.7, -1e10, NAN, 2.5, -INFINITY};
    memcpy(t.data, values, sizeof values);
    MUST(attune_tensor_convert(&t, ATTUNE_BF16, &h));
    /* A conversion through f32 would round the tie to even, 0x3f80. */
    assert_int_equal(((uint16_t *)h.data)[0], 0x3f81);
    MUST(attune_tensor_convert(&t, ATTUNE_I8, &i));
    const int8_t expected[6] = {1, 127, -128, 0, 2, -128};
    assert_memory_equal(i.data, expected, sizeof expected);
    attune_tensor_close(&t);
    attune_tensor_close(&h);
    attune_tensor_close(&i);
}

static void big_integers_survive(void **state) {
    (void)state;
    const int64_t shape[1] = {2};
    attune_tensor t, u, sum;
    MUST(attune_tensor_new(ATTUNE_I64, 1, shape, &t));
    ((int64_t *)t.data)[0] = ((int64_t)1 << 60) + 1;
    ((int64_t *)t.data)[1] = -7;
    MUST(attune_tensor_convert(&t, ATTUNE_I64, &u));
    assert_memory_equal(t.data, u.data, 16);
    MUST(attune_tensor_binary(ATTUNE_ADD, &t, &u, &sum));
    assert_int_equal(((int64_t *)sum.data)[0], ((int64_t)1 << 61) + 2);
    attune_tensor bad;
    assert_int_equal(attune_tensor_binary(ATTUNE_DIV, &t, &u, &bad), ATTUNE_EDTYPE);
    attune_tensor_close(&t);
    attune_tensor_close(&u);
    attune_tensor_close(&sum);
}

static void arithmetic_broadcasts(void **state) {
    (void)state;
    const int64_t a_shape[3] = {2, 1, 3}, b_shape[2] = {4, 1}, bad_shape[1] = {5};
    attune_tensor a, b, c, bad;
    MUST(attune_tensor_new(ATTUNE_F32, 3, a_shape, &a));
    MUST(attune_tensor_arange(&a, 0, 1));
    MUST(attune_tensor_new(ATTUNE_F32, 2, b_shape, &b));
    MUST(attune_tensor_arange(&b, 10, 10));
    MUST(attune_tensor_binary(ATTUNE_SUB, &a, &b, &c));
    assert_int_equal(c.rank, 3);
    const int64_t index[3] = {1, 3, 2};
    double x;
    MUST(attune_tensor_get(&c, index, &x));
    assert_true(x == 5 - 40);
    MUST(attune_tensor_new(ATTUNE_F32, 1, bad_shape, &bad));
    attune_tensor_close(&c);
    assert_int_equal(attune_tensor_binary(ATTUNE_ADD, &a, &bad, &c), ATTUNE_ESHAPE);
    MUST(attune_tensor_binary_scalar(ATTUNE_DIV, &a, 2, true, &c));
    assert_true(((float *)c.data)[4] == 0.5f);
    attune_tensor_close(&a);
    attune_tensor_close(&b);
    attune_tensor_close(&c);
    attune_tensor_close(&bad);
}

static void long_sums_are_exact(void **state) {
    (void)state;
    /* 10^8 ones without the memory: one element repeated. A running f32 sum would stop at 2^24. */
    float one = 1;
    const int64_t shape[2] = {10000, 10000}, stride[2] = {0, 0};
    attune_tensor t, sum, mean;
    MUST(attune_tensor_wrap(ATTUNE_F32, 2, shape, stride, &one, &t));
    MUST(attune_tensor_reduce(ATTUNE_SUM, &t, ATTUNE_ALL_AXES, &sum));
    assert_int_equal(sum.rank, 0);
    assert_true(fabs((double)((float *)sum.data)[0] / 1e8 - 1) <= 1e-6);
    attune_tensor_close(&sum);
    const int64_t flat[1] = {100000000};
    attune_tensor ones;
    MUST(attune_tensor_new(ATTUNE_F32, 1, flat, &ones));
    MUST(attune_tensor_fill(&ones, 1));
    MUST(attune_tensor_reduce(ATTUNE_SUM, &ones, 0, &sum));
    assert_true(fabs((double)((float *)sum.data)[0] / 1e8 - 1) <= 1e-6);
    attune_tensor_close(&sum);
    MUST(attune_tensor_reduce(ATTUNE_MEAN, &t, 1, &mean));
    assert_true(((float *)mean.data)[77] == 1.0f);
    attune_tensor_close(&mean);
    attune_tensor_close(&ones);
}

static void softmax_over_any_axis(void **state) {
    (void)state;
    const int64_t shape[2] = {3, 5};
    attune_tensor t, s, sums;
    MUST(attune_tensor_new(ATTUNE_F32, 2, shape, &t));
    MUST(attune_tensor_normal(&t, 3, 0, 4));
    for (int axis = -2; axis < 2; axis++) {
        MUST(attune_tensor_softmax(&t, axis, &s));
        MUST(attune_tensor_reduce(ATTUNE_SUM, &s, axis, &sums));
        for (int64_t i = 0; i < attune_tensor_count(&sums); i++)
            assert_true(fabsf(((float *)sums.data)[i] - 1) < 1e-6f);
        attune_tensor_close(&s);
        attune_tensor_close(&sums);
    }
    MUST(attune_tensor_fill(&t, -INFINITY));
    MUST(attune_tensor_softmax(&t, 1, &s));
    assert_true(((float *)s.data)[7] == 0.0f);
    attune_tensor_close(&s);
    attune_tensor_close(&t);
}

static void products_of_any_strides(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        const int64_t m = 1 + draw(seed, 0, 130), n = 1 + draw(seed, 1, 130),
                      k = 1 + draw(seed, 2, 130), batch = 1 + draw(seed, 3, 3);
        const attune_dtype dtype = draw(seed, 4, 2) ? ATTUNE_F64 : ATTUNE_F32;
        const int64_t a_shape[3] = {batch, k, m}, b_shape[2] = {n, k};
        attune_tensor a, b, at, bt, c;
        MUST(attune_tensor_new(dtype, 3, a_shape, &a));
        MUST(attune_tensor_normal(&a, seed, 0, 1));
        MUST(attune_tensor_new(dtype, 2, b_shape, &b));
        MUST(attune_tensor_normal(&b, seed + 99, 0, 1));
        MUST(attune_tensor_transpose(&a, 1, 2, &at)); /* [batch, m, k] and [k, n] without copies */
        MUST(attune_tensor_transpose(&b, 0, 1, &bt));
        MUST(attune_tensor_matmul(&at, &bt, &c));
        for (int tries = 0; tries < 20; tries++) {
            const int64_t x[3] = {draw(seed, (uint32_t)tries * 3 + 10, batch),
                                  draw(seed, (uint32_t)tries * 3 + 11, m),
                                  draw(seed, (uint32_t)tries * 3 + 12, n)};
            double truth = 0, got;
            for (int64_t i = 0; i < k; i++) {
                const int64_t p[3] = {x[0], i, x[1]}, q[2] = {x[2], i};
                double u, v;
                MUST(attune_tensor_get(&a, p, &u));
                MUST(attune_tensor_get(&b, q, &v));
                truth += u * v;
            }
            MUST(attune_tensor_get(&c, x, &got));
            if (!(fabs(got - truth) <= (dtype == ATTUNE_F64 ? 1e-12 : 1e-4)))
                fail_msg("seed %d: %g, expected %g", (int)seed, got, truth);
        }
        attune_tensor_close(&a);
        attune_tensor_close(&b);
        attune_tensor_close(&at);
        attune_tensor_close(&bt);
        attune_tensor_close(&c);
    }
    const int64_t p[2] = {2, 3}, q[2] = {4, 2};
    attune_tensor a, b, c;
    MUST(attune_tensor_new(ATTUNE_F32, 2, p, &a));
    MUST(attune_tensor_new(ATTUNE_F32, 2, q, &b));
    assert_int_equal(attune_tensor_matmul(&a, &b, &c), ATTUNE_ESHAPE);
    attune_tensor_close(&a);
    attune_tensor_close(&b);
}

/* Sides around those of panels, blocks and passes; A and B in either order of their axes. */
static void f32_products_of_any_sides(void **state) {
    (void)state;
    static const int64_t m_of[] = {16, 17, 168, 170, 337}, n_of[] = {16, 31, 33, 40, 49, 530},
                         k_of[] = {16, 33, 256, 257, 1000};
    enum { LEFT = 337 * 1000, RIGHT = 530 * 1000, RESULT = 337 * 540 };
    float *a = malloc(LEFT * sizeof *a), *b = malloc(RIGHT * sizeof *b),
          *c = malloc(RESULT * sizeof *c);
    for (int64_t i = 0; i < LEFT; i++) a[i] = (float)draw(1, (uint32_t)i, 2001) / 1000 - 1;
    for (int64_t i = 0; i < RIGHT; i++) b[i] = (float)draw(2, (uint32_t)i, 2001) / 1000 - 1;
    for (int number = 0; number < 5 * 6 * 5; number++) {
        const int64_t m = m_of[number % 5], n = n_of[number / 5 % 6], k = k_of[number / 30];
        const bool add = number % 2, a_turned = number / 2 % 2, b_turned = number / 4 % 2;
        const at_f32_product p = {.m = m,
                                  .n = n,
                                  .k = k,
                                  .a = a,
                                  .a_row = a_turned ? 1 : k,
                                  .a_column = a_turned ? m : 1,
                                  .b = b,
                                  .b_row = b_turned ? 1 : n,
                                  .b_column = b_turned ? k : 1,
                                  .c = c,
                                  .c_row = n + 10,
                                  .add = add};
        for (int64_t i = 0; i < m * (n + 10); i++) c[i] = 1;
        MUST(at_multiply_f32(&p));
        for (int64_t i = 0; i < m * (n + 10); i++) {
            const int64_t row = i / (n + 10), column = i % (n + 10);
            double truth = column < n && !add ? 0 : 1;
            /* Whole rows and columns at the edges, and a part of the others. */
            if (column < n && row % 167 > 2 && n - column > 34 && i % 101) continue;
            for (int64_t t = 0; t < k && column < n; t++)
                truth += (double)a[row * p.a_row + t * p.a_column] *
                         (double)b[t * p.b_row + column * p.b_column];
            if (!(fabs(c[i] - truth) <= 2e-6 * (double)k))
                fail_msg("product %d [%d, %d]: %g, expected %g", number, (int)row, (int)column,
                         (double)c[i], truth);
        }
    }
    free(a);
    free(b);
    free(c);
}

/* Axes in another order are checked as one stretch of memory; a view with gaps is not. */
static void infinities_are_found_in_any_view(void **state) {
    (void)state;
    const int64_t shape[4] = {2, 64, 4, 16}, token = 4 * 16;
    const int64_t places[] = {0, 40 * token, 2 * 64 * token - 1};
    attune_tensor t, turned, part;
    bool finite;
    MUST(attune_tensor_new(ATTUNE_F32, 4, shape, &t));
    MUST(attune_tensor_fill(&t, 1));
    MUST(attune_tensor_transpose(&t, 1, 2, &turned));
    MUST(attune_tensor_slice(&t, 1, 0, 32, &part)); /* the first half of each row's tokens */
    MUST(at_all_finite(&turned, &finite));
    assert_true(finite);
    for (int i = 0; i < 3; i++) {
        float *x = (float *)t.data + places[i];
        *x = INFINITY;
        MUST(at_all_finite(&turned, &finite));
        assert_false(finite);
        MUST(at_all_finite(&part, &finite));
        assert_int_equal(finite, i > 0);
        *x = 1;
    }
    attune_tensor_close(&part);
    attune_tensor_close(&turned);
    attune_tensor_close(&t);
}

static void products_have_the_same_bits_for_any_threads(void **state) {
    (void)state;
    const int64_t shape[2] = {301, 257}, other[2] = {257, 190};
    attune_tensor a, b, one, many;
    MUST(attune_tensor_new(ATTUNE_F32, 2, shape, &a));
    MUST(attune_tensor_normal(&a, 1, 0, 1));
    MUST(attune_tensor_new(ATTUNE_F32, 2, other, &b));
    MUST(attune_tensor_normal(&b, 2, 0, 1));
    MUST(attune_threads(1, NULL));
    MUST(attune_tensor_matmul(&a, &b, &one));
    for (int threads = 2; threads < 6; threads++) {
        MUST(attune_threads(threads, NULL));
        MUST(attune_tensor_matmul(&a, &b, &many));
        assert_memory_equal(one.data, many.data, (size_t)attune_tensor_nbytes(&one));
        attune_tensor_close(&many);
    }
    MUST(attune_threads(2, NULL));
    attune_tensor_close(&a);
    attune_tensor_close(&b);
    attune_tensor_close(&one);
}

static void random_numbers_do_not_depend_on_layout(void **state) {
    (void)state;
    const int64_t shape[2] = {5, 7}, transposed[2] = {7, 5};
    attune_tensor a, b, v;
    MUST(attune_tensor_new(ATTUNE_F32, 2, shape, &a));
    MUST(attune_tensor_new(ATTUNE_F32, 2, transposed, &b));
    MUST(attune_tensor_transpose(&b, 0, 1, &v));
    MUST(attune_tensor_normal(&a, 42, 0, 1));
    MUST(attune_tensor_normal(&v, 42, 0, 1));
    assert_true(difference(&a, &v) == 0);
    assert_int_equal(attune_tensor_uniform(&a, 1, 2, 1), ATTUNE_EVALUE);
    attune_tensor_close(&a);
    attune_tensor_close(&b);
    attune_tensor_close(&v);
}

/* Calls every function once, with the first allocation failing, then the second, and so on. */
static attune_status scenario(void) {
    const int64_t shape[2] = {6, 6};
    attune_tensor t[6];
    memset(t, 0, sizeof t);
    attune_status s = attune_tensor_new(ATTUNE_F32, 2, shape, &t[0]);
    if (s == ATTUNE_OK) s = attune_tensor_normal(&t[0], 1, 0, 1);
    if (s == ATTUNE_OK) s = attune_tensor_matmul(&t[0], &t[0], &t[1]);
    if (s == ATTUNE_OK) s = attune_tensor_softmax(&t[1], -1, &t[2]);
    if (s == ATTUNE_OK) s = attune_tensor_reduce(ATTUNE_SUM, &t[2], ATTUNE_ALL_AXES, &t[3]);
    if (s == ATTUNE_OK) s = attune_tensor_binary(ATTUNE_ADD, &t[2], &t[3], &t[4]);
    if (s == ATTUNE_OK) s = attune_tensor_convert(&t[4], ATTUNE_BF16, &t[5]);
    for (int i = 0; i < 6; i++) attune_tensor_close(&t[i]);
    return s;
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    const int64_t before = attune_memory().bytes;
    int64_t n = 1;
    for (;; n++) {
        attune_memory_fail_at(n);
        attune_status s = scenario();
        attune_memory_fail_at(0);
        assert_int_equal(attune_memory().bytes, before);
        if (s == ATTUNE_OK) break;
        assert_int_equal(s, ATTUNE_EMEMORY);
    }
    assert_true(n > 10);
}

static void files_come_back_the_same(void **state) {
    (void)state;
    char path[] = "/tmp/attune-test-XXXXXX";
    close(mkstemp(path));
    const int64_t shape[2] = {3, 5};
    attune_named_tensor named[ATTUNE_DTYPES];
    attune_text_pair text = {"note", "a \"text\" with \\ and \n"};
    for (int d = 0; d < ATTUNE_DTYPES; d++) {
        named[d].name = (char *)attune_dtype_name((attune_dtype)d);
        MUST(attune_tensor_new((attune_dtype)d, 2, shape, &named[d].tensor));
        MUST(attune_tensor_arange(&named[d].tensor, -7, 1));
    }
    attune_archive a = {.tensors = ATTUNE_DTYPES, .tensor = named, .texts = 1, .text = &text}, b;
    MUST(attune_archive_save(path, &a));
    MUST(attune_archive_load(path, &b));
    assert_int_equal(b.tensors, ATTUNE_DTYPES);
    assert_string_equal(b.text[0].value, text.value);
    for (int d = 0; d < ATTUNE_DTYPES; d++) {
        assert_string_equal(b.tensor[d].name, named[d].name);
        assert_int_equal(b.tensor[d].tensor.dtype, d);
        assert_true(difference(&b.tensor[d].tensor, &named[d].tensor) == 0);
        attune_tensor_close(&named[d].tensor);
    }
    attune_archive_close(&b);
    unlink(path);
    assert_int_equal(attune_archive_load("/nonexistent/x", &b), ATTUNE_EIO);
    assert_int_equal(attune_archive_load("/tmp", &b), ATTUNE_EIO);
    assert_int_equal(attune_archive_save("/nonexistent/x", &(attune_archive){0}), ATTUNE_EIO);
}

static void malformed_files_are_refused(void **state) {
    (void)state;
    static const char *const names[] = {"truncated_header", "header_200mb", "negative_offset",
                                        "overlap",          "hole",         "duplicate_name",
                                        "shape_overflow",   "not_utf8"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[256];
        attune_archive a;
        snprintf(path, sizeof path, "tests/golden/bad/%s.safetensors", names[i]);
        attune_memory_scope scope;
        attune_memory_scope_begin(&scope);
        attune_status status = attune_archive_load(path, &a);
        int64_t bytes = attune_memory_scope_end(&scope);
        if (status != ATTUNE_EFORMAT)
            fail_msg("%s: %s: %s", path, attune_status_name(status), attune_message());
        if (bytes > 1 << 20) fail_msg("%s: %lld bytes were allocated", path, (long long)bytes);
        assert_int_equal(a.tensors, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes_are_checked),
        cmocka_unit_test(views_share_memory),
        cmocka_unit_test(conversions_round_once),
        cmocka_unit_test(big_integers_survive),
        cmocka_unit_test(arithmetic_broadcasts),
        cmocka_unit_test(long_sums_are_exact),
        cmocka_unit_test(softmax_over_any_axis),
        cmocka_unit_test(products_of_any_strides),
        cmocka_unit_test(f32_products_of_any_sides),
        cmocka_unit_test(infinities_are_found_in_any_view),
        cmocka_unit_test(products_have_the_same_bits_for_any_threads),
        cmocka_unit_test(random_numbers_do_not_depend_on_layout),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(files_come_back_the_same),
        cmocka_unit_test(malformed_files_are_refused),
    };
    return cmocka_run_group_tests_name("tensor", tests, NULL, NULL);
}
