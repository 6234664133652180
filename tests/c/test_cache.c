/* test_cache.c - the key-value cache against attention over plain tensors. */
#include "problems.h"
#include "test.h"

static void tokens_of(const attune_tensor *t, int64_t first, int64_t last, attune_tensor *out) {
    MUST(attune_tensor_slice(t, 2, first, last, out));
}

/* Random k or v that the dtype of the cache represents exactly. */
static void rounded(uint64_t seed, const int64_t shape[4], attune_dtype dtype, attune_tensor *out) {
    attune_tensor x, half;
    random_tensor(seed, shape, ATTUNE_F32, false, &x);
    MUST(attune_tensor_convert(&x, dtype, &half));
    MUST(attune_tensor_convert(&half, ATTUNE_F32, out));
    attune_tensor_close(&x);
    attune_tensor_close(&half);
}

static void append(attune_cache *cache, const attune_tensor *k, const attune_tensor *v,
                   int64_t first, int64_t last) {
    attune_tensor a, b;
    tokens_of(k, first, last, &a);
    tokens_of(v, first, last, &b);
    MUST(attune_cache_append(cache, &a, &b, NULL, NULL));
    attune_tensor_close(&a);
    attune_tensor_close(&b);
}

/* The queries [first, last) attend over the cache, and must get the results of causal attention
 * over the first `last` tokens. */
static void check_attend(attune_cache *cache, const problem *p, int64_t first, int64_t last,
                         attune_engine engine) {
    attune_tensor q, k, v, o, lse, got, got_lse;
    tokens_of(&p->q, first, last, &q);
    tokens_of(&p->k, 0, last, &k);
    tokens_of(&p->v, 0, last, &v);
    problem now = *p;
    now.q = q;
    now.k = k;
    now.v = v;
    now.Sq = last - first;
    now.Sk = last;
    now.options.engine = ATTUNE_ENGINE_REFERENCE;
    now.options.causal = true;
    MUST(attune_attention(&q, &k, &v, &now.options, &o, &lse));
    attune_attention_options options = p->options;
    options.engine = engine;
    options.window = 0;
    MUST(attune_cache_attend(cache, &q, &options, &got, &got_lse));
    error_bound bound = bound_of(&now, &o, &lse);
    double d = difference(&got, &o), l = difference(&got_lse, &lse);
    if (!(d <= bound.o && l <= bound.lse)) {
        fail_msg("o differs by %g, bound %g; lse by %g, bound %g: queries %lld to %lld, %s", d,
                 bound.o, l, bound.lse, (long long)first, (long long)last, problem_text(p));
    }
    attune_tensor *all[] = {&q, &k, &v, &o, &lse, &got, &got_lse};
    for (int t = 0; t < 7; t++) attune_tensor_close(all[t]);
}

static problem make(uint64_t seed, int64_t Hq, int64_t Hk, int64_t tokens, int64_t D, int64_t Dv,
                    attune_dtype cache_dtype) {
    problem p = {.seed = seed,
                 .B = 2,
                 .Hq = Hq,
                 .Hk = Hk,
                 .Sq = tokens,
                 .Sk = tokens,
                 .D = D,
                 .Dv = Dv,
                 .dtype = ATTUNE_F32};
    const int64_t q[4] = {2, Hq, tokens, D}, k[4] = {2, Hk, tokens, D}, v[4] = {2, Hk, tokens, Dv};
    random_tensor(seed, q, ATTUNE_F32, false, &p.q);
    rounded(seed + 1, k, cache_dtype, &p.k);
    rounded(seed + 2, v, cache_dtype, &p.v);
    return p;
}

static void decoding_equals_prefill(void **state) {
    (void)state;
    static const attune_dtype dtypes[] = {ATTUNE_F32, ATTUNE_BF16, ATTUNE_F16};
    for (int n = 0; n < 12; n++) {
        const int64_t Hk = n % 2 + 1, G = n % 4 == 3 ? 71 : n % 3 + 1,
                      D = n % 3 == 0   ? 64
                          : n % 3 == 1 ? 40
                                       : 17;
        problem p = make((uint64_t)n + 1, Hk * G, Hk, 150, D, n % 4 == 1 ? 24 : D, dtypes[n % 3]);
        if (n % 2) p.options.softcap = 5;
        attune_cache_options options = {.batch = 2,
                                        .kv_heads = Hk,
                                        .head_dim = D,
                                        .v_head_dim = p.Dv,
                                        .capacity = 150,
                                        .dtype = dtypes[n % 3]};
        attune_cache *cache;
        MUST(attune_cache_new(&options, &cache));
        append(cache, &p.k, &p.v, 0, 70); /* a prompt, then chunks */
        check_attend(cache, &p, 0, 70, ATTUNE_ENGINE_DEFAULT);
        append(cache, &p.k, &p.v, 70, 99);
        check_attend(cache, &p, 70, 99, ATTUNE_ENGINE_TILED);
        check_attend(cache, &p, 90, 99, ATTUNE_ENGINE_DECODE);
        for (int64_t t = 99; t < 150; t++) {
            append(cache, &p.k, &p.v, t, t + 1);
            if (t % 7 == 0 || t > 146)
                check_attend(cache, &p, t, t + 1,
                             t % 2 ? ATTUNE_ENGINE_TILED : ATTUNE_ENGINE_DEFAULT);
        }
        assert_int_equal(attune_cache_length(cache), 150);
        MUST(attune_cache_truncate(
            cache, 130)); /* as after a rejected draft; the same tokens follow again */
        append(cache, &p.k, &p.v, 130, 134);
        check_attend(cache, &p, 130, 134, ATTUNE_ENGINE_DEFAULT);
        attune_cache_close(cache);
        problem_close(&p);
    }
}

static void ring_holds_the_window(void **state) {
    (void)state;
    for (int n = 0; n < 6; n++) {
        const int64_t window = n == 0 ? 1 : n == 1 ? 64 : 30 * n + 5;
        problem p = make((uint64_t)n + 50, 4, 2, 700, 32, 32, n % 2 ? ATTUNE_BF16 : ATTUNE_F32);
        p.options.window = window;
        attune_cache_options options = {.batch = 2,
                                        .kv_heads = 2,
                                        .head_dim = 32,
                                        .window = window,
                                        .dtype = n % 2 ? ATTUNE_BF16 : ATTUNE_F32};
        attune_cache *cache;
        MUST(attune_cache_new(&options, &cache));
        const int64_t ring = (window + 63 + 63) / 64 * 64;
        assert_int_equal(attune_cache_nbytes(cache), 2 * 2 * 2 * ring * 32 * (n % 2 ? 2 : 4));
        for (int64_t t = 0; t < 700;) {
            int64_t step = 1 + draw((uint64_t)n, (uint32_t)t, t % 5 == 0 ? 64 : 3);
            if (step > 700 - t) step = 700 - t;
            append(cache, &p.k, &p.v, t, t + step);
            t += step;
            check_attend(cache, &p, t - step, t, ATTUNE_ENGINE_DEFAULT);
        }
        assert_int_equal(attune_cache_length(cache), 700);
        assert_int_equal(attune_cache_truncate(cache, 650 - ring), ATTUNE_EVALUE);
        assert_int_equal(attune_cache_length(cache), 700);
        attune_tensor q, o, lse;
        tokens_of(&p.q, 0, 65, &q);
        assert_int_equal(attune_cache_attend(cache, &q, NULL, &o, &lse), ATTUNE_EVALUE);
        attune_tensor_close(&q);
        attune_cache_close(cache);
        problem_close(&p);
    }
}

static void rows_of_different_length(void **state) {
    (void)state;
    problem p = make(200, 4, 2, 100, 32, 32, ATTUNE_F32);
    attune_cache_options options = {.batch = 2, .kv_heads = 2, .head_dim = 32, .capacity = 128};
    attune_cache *cache;
    MUST(attune_cache_new(&options, &cache));
    const int64_t counts[2] = {100, 37};
    MUST(attune_cache_append(cache, &p.k, &p.v, counts, NULL));
    const int64_t too_many[2] = {0, 101};
    assert_int_equal(ATTUNE_EVALUE, attune_cache_append(cache, &p.k, &p.v, too_many, NULL));
    assert_non_null(strstr(attune_message(), "got 101 for batch row 1")); /* from 0 */
    assert_int_equal(attune_cache_length(cache), 100);
    assert_int_equal(attune_cache_row_length(cache, 1), 37);
    attune_tensor q, o, lse, one[3], want, want_lse, got;
    tokens_of(&p.q, 0, 1, &q);
    MUST(attune_cache_attend(cache, &q, NULL, &o, &lse));
    const attune_tensor *from[3] = {&q, &p.k, &p.v};
    for (int t = 0; t < 3; t++) {
        attune_tensor row;
        MUST(attune_tensor_slice(from[t], 0, 1, 2, &row));
        tokens_of(&row, 0, t ? 37 : 1, &one[t]);
        attune_tensor_close(&row);
    }
    MUST(attune_attention(&one[0], &one[1], &one[2], NULL, &want, &want_lse));
    MUST(attune_tensor_slice(&o, 0, 1, 2, &got));
    assert_true(difference(&got, &want) < 1e-6);
    attune_tensor *all[] = {&q, &o, &lse, &one[0], &one[1], &one[2], &want, &want_lse, &got};
    for (int t = 0; t < 9; t++) attune_tensor_close(all[t]);
    attune_cache_close(cache);
    problem_close(&p);
}

static void failures_leave_the_cache_as_it_was(void **state) {
    (void)state;
    problem p = make(300, 2, 1, 80, 16, 16, ATTUNE_F32);
    attune_cache_options options = {.batch = 2, .kv_heads = 1, .head_dim = 16, .capacity = 70};
    attune_cache *cache;
    MUST(attune_cache_new(&options, &cache));
    assert_int_equal(attune_cache_nbytes(cache), 2 * 2 * 1 * 128 * 16 * 4);
    append(cache, &p.k, &p.v, 0, 60);
    attune_tensor k, v;
    tokens_of(&p.k, 60, 71, &k);
    tokens_of(&p.v, 60, 71, &v);
    assert_int_equal(attune_cache_append(cache, &k, &v, NULL, NULL), ATTUNE_ECAPACITY);
    assert_non_null(strstr(attune_message(), "at most 10 more tokens"));
    attune_memory_fail_at(1);
    assert_int_equal(attune_cache_append(cache, &k, &v, NULL, NULL),
                     ATTUNE_ECAPACITY); /* refused before anything is allocated */
    attune_memory_fail_at(0);
    attune_tensor_close(&k);
    attune_tensor_close(&v);
    assert_int_equal(attune_cache_length(cache), 60);
    check_attend(cache, &p, 50, 60, ATTUNE_ENGINE_DEFAULT);
    append(cache, &p.k, &p.v, 60, 70);
    check_attend(cache, &p, 60, 70, ATTUNE_ENGINE_DEFAULT);
    attune_cache_reset(cache);
    assert_int_equal(attune_cache_length(cache), 0);
    append(cache, &p.k, &p.v, 0, 5);
    assert_int_equal(ATTUNE_EVALUE, attune_cache_truncate(cache, 6));
    assert_non_null(strstr(attune_message(), "at most the cache's length, 5, got 6"));
    MUST(attune_cache_truncate(cache, 5));
    check_attend(cache, &p, 0, 5, ATTUNE_ENGINE_DEFAULT);
    attune_cache_close(cache);
    problem_close(&p);
}

static void truncated_nonfinite_values_are_gone(void **state) {
    (void)state;
    problem p = make(400, 2, 1, 64, 16, 16, ATTUNE_F32);
    attune_cache_options options = {.batch = 2, .kv_heads = 1, .head_dim = 16, .capacity = 64};
    attune_cache *cache;
    attune_tensor evil;
    MUST(attune_cache_new(&options, &cache));
    MUST(attune_tensor_convert(&p.v, ATTUNE_F32, &evil));
    MUST(attune_tensor_fill(&evil, NAN));
    append(cache, &p.k, &p.v, 0, 10);
    append(cache, &evil, &evil, 10, 20);
    MUST(attune_cache_truncate(cache, 10));
    check_attend(cache, &p, 5, 10, ATTUNE_ENGINE_DEFAULT);
    append(cache, &p.k, &p.v, 10, 30);
    check_attend(cache, &p, 10, 30, ATTUNE_ENGINE_DEFAULT);
    attune_cache_reset(cache);
    append(cache, &p.k, &p.v, 0, 10);
    check_attend(cache, &p, 5, 10, ATTUNE_ENGINE_DEFAULT);
    attune_tensor_close(&evil);
    attune_cache_close(cache);
    problem_close(&p);
}

/* No token comes after the queries of a cache: only the left side of a window matters. */
static void the_left_side_of_a_window_limits(void **state) {
    (void)state;
    problem p = make(77, 4, 2, 90, 16, 16, ATTUNE_F32);
    for (int ring = 0; ring < 2; ring++) {
        attune_cache_options options = {.batch = 2, .kv_heads = 2, .head_dim = 16, .capacity = 90};
        if (ring) options.window = 9;
        attune_cache *cache;
        attune_tensor q, o[2], lse[2];
        MUST(attune_cache_new(&options, &cache));
        append(cache, &p.k, &p.v, 0, 90);
        MUST(attune_tensor_slice(&p.q, 2, 70, 90, &q));
        for (int n = 0; n < 2; n++) {
            attune_attention_options sides = {.window = n ? 0 : 5};
            sides.two_sided = n;
            sides.window_left = n ? 4 : 0;
            sides.window_right = n ? 7 : 0;
            MUST(attune_cache_attend(cache, &q, &sides, &o[n], &lse[n]));
        }
        assert_memory_equal(o[0].data, o[1].data, (size_t)attune_tensor_nbytes(&o[0]));
        const attune_attention_options too_long = {
            .two_sided = true, .window_left = ring ? 9 : INT64_MAX, .window_right = INT64_MAX};
        attune_tensor none, none_lse;
        const attune_status status = attune_cache_attend(cache, &q, &too_long, &none, &none_lse);
        assert_int_equal(status, ring ? ATTUNE_EVALUE : ATTUNE_OK);
        attune_tensor *all[] = {&q, &o[0], &o[1], &lse[0], &lse[1], &none, &none_lse};
        for (int t = 0; t < 7; t++) attune_tensor_close(all[t]);
        attune_cache_close(cache);
    }
    problem_close(&p);
}

static void bad_caches_are_refused(void **state) {
    (void)state;
    attune_cache *cache;
    attune_cache_options o = {.batch = 0, .kv_heads = 1, .head_dim = 8, .capacity = 8};
    assert_int_equal(attune_cache_new(&o, &cache), ATTUNE_EVALUE);
    o = (attune_cache_options){.batch = 1, .kv_heads = 1, .head_dim = 8};
    assert_int_equal(attune_cache_new(&o, &cache), ATTUNE_EVALUE);
    assert_non_null(strstr(attune_message(), "capacity"));
    o.capacity = 8;
    o.dtype = ATTUNE_I32;
    assert_int_equal(attune_cache_new(&o, &cache), ATTUNE_EDTYPE);
    o.dtype = ATTUNE_F32;
    o.window = -1;
    assert_int_equal(attune_cache_new(&o, &cache), ATTUNE_EVALUE);
    o.window = 0;
    o.capacity = (int64_t)1 << 39;
    o.batch = (int64_t)1 << 20;
    assert_int_equal(attune_cache_new(&o, &cache), ATTUNE_EMEMORY);
    assert_null(cache);
}

/* Few bf16 queries over a cache of bf16 give what the same queries in f32 give, rounded. */
static void few_bf16_queries_take_f32_arithmetic(void **state) {
    (void)state;
    for (int64_t Hq = 1; Hq <= 3; Hq++) {
        const int64_t q_shape[4] = {1, Hq, 1, 64}, shape[4] = {1, 1, 200, 64};
        const attune_cache_options options = {
            .batch = 1, .kv_heads = 1, .head_dim = 64, .capacity = 200, .dtype = ATTUNE_BF16};
        attune_tensor q, q_f32, k, v, o, lse, o_f32, lse_f32, rounded_o;
        attune_cache *cache;
        random_tensor(1, q_shape, ATTUNE_BF16, false, &q);
        random_tensor(2, shape, ATTUNE_BF16, false, &k);
        random_tensor(3, shape, ATTUNE_BF16, false, &v);
        MUST(attune_tensor_convert(&q, ATTUNE_F32, &q_f32));
        MUST(attune_cache_new(&options, &cache));
        MUST(attune_cache_append(cache, &k, &v, NULL, NULL));
        MUST(attune_cache_attend(cache, &q, NULL, &o, &lse));
        MUST(attune_cache_attend(cache, &q_f32, NULL, &o_f32, &lse_f32));
        MUST(attune_tensor_convert(&o_f32, ATTUNE_BF16, &rounded_o));
        assert_true(difference(&o, &rounded_o) == 0);
        assert_true(difference(&lse, &lse_f32) == 0);
        attune_cache_close(cache);
        attune_tensor *all[] = {&q, &q_f32, &k, &v, &o, &lse, &o_f32, &lse_f32, &rounded_o};
        for (int t = 0; t < 9; t++) attune_tensor_close(all[t]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(few_bf16_queries_take_f32_arithmetic),
        cmocka_unit_test(decoding_equals_prefill),
        cmocka_unit_test(ring_holds_the_window),
        cmocka_unit_test(rows_of_different_length),
        cmocka_unit_test(failures_leave_the_cache_as_it_was),
        cmocka_unit_test(truncated_nonfinite_values_are_gone),
        cmocka_unit_test(the_left_side_of_a_window_limits),
        cmocka_unit_test(bad_caches_are_refused),
    };
    return cmocka_run_group_tests_name("cache", tests, NULL, NULL);
}
