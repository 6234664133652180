/* test_attention.c - every engine and dtype against the reference on random problems, and the
 * properties that hold between problems. ATTUNE_ISA chooses the instruction set; `make test` runs
 * this program once for each set that the machine has. */
#include <stdio.h>

#include "problems.h"
#include "test.h"

#if defined FEW_CASES
enum { PROBLEMS = 200, MAX_TOKENS = 120 };
#else
enum { PROBLEMS = 2000, MAX_TOKENS = 200 };
#endif

static const struct {
    attune_engine engine;
    const char *name;
} engines[] = {
    {ATTUNE_ENGINE_BLIS, "blis"}, {ATTUNE_ENGINE_TILED, "tiled"}, {ATTUNE_ENGINE_DECODE, "decode"}};

static void check_engine(problem *p, int e, const attune_tensor *o, const attune_tensor *lse,
                         error_bound bound) {
    attune_tensor got, got_lse;
    p->options.engine = engines[e].engine;
    attune_status status = attune_attention(&p->q, &p->k, &p->v, &p->options, &got, &got_lse);
    if (engines[e].engine == ATTUNE_ENGINE_DECODE && (p->Sq > 16 || p->options.lengths.rows)) {
        assert_int_equal(status, ATTUNE_EENGINE);
        return;
    }
    if (status != ATTUNE_OK)
        fail_msg("%s: %s: %s", engines[e].name, problem_text(p), attune_message());
    double d = difference(&got, o), l = difference(&got_lse, lse);
    if (!(d <= bound.o))
        fail_msg("%s: o differs by %g, bound %g: %s", engines[e].name, d, bound.o, problem_text(p));
    if (!(l <= bound.lse))
        fail_msg("%s: lse differs by %g, bound %g: %s", engines[e].name, l, bound.lse,
                 problem_text(p));
    attune_tensor_close(&got);
    attune_tensor_close(&got_lse);
}

static void engines_agree_with_reference(void **state) {
    (void)state;
    const char *offset = getenv("ATTUNE_TEST_SEED");
    for (uint64_t i = 0; i < PROBLEMS; i++) {
        problem p;
        attune_tensor o, lse;
        problem_make(i + (offset ? strtoull(offset, NULL, 10) : 1), i % 4 ? 60 : MAX_TOKENS, &p);
        if (i % 3 == 0 && p.Sq > 16) { /* few enough queries for decode */
            attune_tensor few;
            MUST(attune_tensor_slice(&p.q, 2, 0, 1 + (int64_t)i % 16, &few));
            attune_tensor_close(&p.q);
            p.q = few;
            p.Sq = few.shape[2];
            p.options.lengths.rows = 0;
        }
        p.options.engine = ATTUNE_ENGINE_REFERENCE;
        if (attune_attention(&p.q, &p.k, &p.v, &p.options, &o, &lse) != ATTUNE_OK)
            fail_msg("%s: %s", problem_text(&p), attune_message());
        error_bound bound = bound_of(&p, &o, &lse);
        for (int e = 0; e < 3; e++) check_engine(&p, e, &o, &lse, bound);
        attune_tensor_close(&o);
        attune_tensor_close(&lse);
        problem_close(&p);
    }
}

static void long_keys_agree_with_reference(void **state) {
    (void)state;
    /* Hq, Hk, Sq, Sk, D: enough keys for several key blocks and parts, with the group sizes of real
     * models; the last one has enough dims to make a row block a single panel. */
    static const int64_t cases[][5] = {
        {71, 1, 3, 700, 64},   {32, 1, 1, 2100, 128}, {4, 4, 1, 1500, 128}, {48, 1, 16, 900, 32},
        {16, 2, 5, 1300, 256}, {2, 1, 600, 600, 64},  {16, 1, 1, 600, 3000}};
    for (int n = 0; n < 7; n++) {
        problem p = {.seed = (uint64_t)n + 90000,
                     .B = 1,
                     .Hq = cases[n][0],
                     .Hk = cases[n][1],
                     .Sq = cases[n][2],
                     .Sk = cases[n][3],
                     .D = cases[n][4],
                     .Dv = cases[n][4],
                     .dtype = n % 2 ? ATTUNE_BF16 : ATTUNE_F32};
        p.options.causal = true;
        const int64_t q[4] = {1, p.Hq, p.Sq, p.D}, k[4] = {1, p.Hk, p.Sk, p.D};
        random_tensor(p.seed, q, p.dtype, false, &p.q);
        random_tensor(p.seed + 1, k, p.dtype, false, &p.k);
        random_tensor(p.seed + 2, k, p.dtype, false, &p.v);
        attune_tensor o, lse;
        p.options.engine = ATTUNE_ENGINE_REFERENCE;
        MUST(attune_attention(&p.q, &p.k, &p.v, &p.options, &o, &lse));
        error_bound bound = bound_of(&p, &o, &lse);
        for (int e = 0; e < 3; e++) check_engine(&p, e, &o, &lse, bound);
        attune_tensor_close(&o);
        attune_tensor_close(&lse);
        problem_close(&p);
    }
}

static bool same_bits(const attune_tensor *a, const attune_tensor *b) {
    return memcmp(a->data, b->data, (size_t)attune_tensor_nbytes(a)) == 0;
}

/* Windows and documents are short enough that tiled packs tiles lazily and keeps those that the
 * next row block needs. An Inf in a value reaches only the rows to which it is visible. */
static void short_visible_ranges_agree_with_reference(void **state) {
    (void)state;
    const int64_t Sq = 8 * MAX_TOKENS, index[4] = {0, 1, Sq / 2, 3};
    for (int n = 0; n < 12; n++) {
        static const attune_dtype dtypes[] = {ATTUNE_F32, ATTUNE_BF16, ATTUNE_F16};
        const int64_t G = 1 + n % 3, D = n % 2 ? 24 : 33, counts[1] = {20},
                      q_shape[4] = {1, 2 * G, Sq, D}, shape[4] = {1, 2, Sq, D};
        problem p = {.seed = 70000 + (uint64_t)n,
                     .B = 1,
                     .Hq = 2 * G,
                     .Hk = 2,
                     .Sq = Sq,
                     .Sk = Sq,
                     .D = D,
                     .Dv = D,
                     .dtype = dtypes[n / 3 % 3]};
        int64_t lengths[20];
        for (int i = 0; i < 20; i++)
            lengths[i] = Sq / 20 + (i % 2 ? -1 : 1) * ((n * 7 + i / 2 * 13) % (Sq / 20));
        random_tensor(p.seed, q_shape, p.dtype, false, &p.q);
        random_tensor(p.seed + 1, shape, p.dtype, false, &p.k);
        random_tensor(p.seed + 2, shape, p.dtype, false, &p.v);
        p.options.causal = n % 4 != 3;
        if (n % 2)
            p.options.window = 1 + n * 5;
        else
            p.options.lengths = (attune_lengths){1, counts, lengths};
        for (int nonfinite = 0; nonfinite < 2; nonfinite++) {
            attune_tensor o, lse, one, one_lse;
            if (nonfinite) MUST(attune_tensor_set(&p.v, index, INFINITY));
            p.options.engine = ATTUNE_ENGINE_REFERENCE;
            MUST(attune_attention(&p.q, &p.k, &p.v, &p.options, &o, &lse));
            error_bound bound = bound_of(&p, &o, &lse);
            MUST(attune_threads(3, NULL));
            check_engine(&p, 1, &o, &lse, bound);
            attune_tensor_close(&o);
            attune_tensor_close(&lse);
            MUST(attune_attention(&p.q, &p.k, &p.v, &p.options, &o, &lse));
            MUST(attune_threads(1, NULL));
            MUST(attune_attention(&p.q, &p.k, &p.v, &p.options, &one, &one_lse));
            if (!same_bits(&one, &o) || !same_bits(&one_lse, &lse))
                fail_msg("other bits with 3 threads: %s", problem_text(&p));
            attune_tensor_close(&o);
            attune_tensor_close(&lse);
            attune_tensor_close(&one);
            attune_tensor_close(&one_lse);
        }
        problem_close(&p);
    }
    MUST(attune_threads(2, NULL));
}

static void bits_do_not_depend_on_threads(void **state) {
    (void)state;
    for (uint64_t seed = 5000; seed < 5060; seed++) {
        problem p;
        problem_make(seed, MAX_TOKENS, &p);
        for (int e = 0; e < 3; e++) {
            attune_tensor one, one_lse, many, many_lse;
            p.options.engine = engines[e].engine;
            MUST(attune_threads(1, NULL));
            attune_status status = attune_attention(&p.q, &p.k, &p.v, &p.options, &one, &one_lse);
            MUST(attune_threads(3, NULL));
            if (status == ATTUNE_OK) {
                MUST(attune_attention(&p.q, &p.k, &p.v, &p.options, &many, &many_lse));
                if (!same_bits(&one, &many) || !same_bits(&one_lse, &many_lse))
                    fail_msg("%s: other bits with 3 threads: %s", engines[e].name,
                             problem_text(&p));
                attune_tensor_close(&one);
                attune_tensor_close(&one_lse);
                attune_tensor_close(&many);
                attune_tensor_close(&many_lse);
            }
        }
        problem_close(&p);
    }
    MUST(attune_threads(2, NULL));
}

/* Repeating each kv head for its group gives the multi-head problem of the same value. */
static void grouped_equals_repeated(void **state) {
    (void)state;
    for (uint64_t seed = 6000; seed < 6040; seed++) {
        problem p;
        problem_make(seed, 100, &p);
        attune_tensor r[2] = {{0}, {0}}, *from[2] = {&p.k, &p.v}, o, lse, o2, lse2;
        for (int t = 0; t < 2; t++) {
            const int64_t *s = from[t]->shape, shape[4] = {s[0], p.Hq, s[2], s[3]};
            MUST(attune_tensor_new(p.dtype, 4, shape, &r[t]));
            for (int64_t h = 0; h < p.Hq; h++) {
                attune_tensor source, target;
                MUST(attune_tensor_select(from[t], 1, h / (p.Hq / p.Hk), &source));
                MUST(attune_tensor_select(&r[t], 1, h, &target));
                MUST(attune_tensor_copy(&source, &target));
                attune_tensor_close(&source);
                attune_tensor_close(&target);
            }
        }
        p.options.engine = ATTUNE_ENGINE_TILED;
        MUST(attune_attention(&p.q, &p.k, &p.v, &p.options, &o, &lse));
        MUST(attune_attention(&p.q, &r[0], &r[1], &p.options, &o2, &lse2));
        error_bound bound = bound_of(&p, &o, &lse);
        if (!(difference(&o, &o2) <= bound.o && difference(&lse, &lse2) <= bound.lse))
            fail_msg("grouped differs from repeated: %s", problem_text(&p));
        attune_tensor *all[] = {&o, &lse, &o2, &lse2, &r[0], &r[1]};
        for (int t = 0; t < 6; t++) attune_tensor_close(all[t]);
        problem_close(&p);
    }
}

static void packed_equals_separate(void **state) {
    (void)state;
    const int64_t shape[4] = {1, 4, 90, 32}, kv[4] = {1, 2, 90, 32}, counts[1] = {3},
                  lengths[3] = {40, 1, 49};
    attune_tensor q, k, v, o, lse;
    random_tensor(1, shape, ATTUNE_F32, false, &q);
    random_tensor(2, kv, ATTUNE_F32, false, &k);
    random_tensor(3, kv, ATTUNE_F32, false, &v);
    attune_attention_options options = {
        .causal = true, .lengths = {1, counts, lengths}, .engine = ATTUNE_ENGINE_TILED};
    MUST(attune_attention(&q, &k, &v, &options, &o, &lse));
    options.lengths.rows = 0;
    for (int64_t n = 0, first = 0; n < 3; first += lengths[n++]) {
        attune_tensor part[3], mine, o2, lse2, *from[3] = {&q, &k, &v};
        for (int t = 0; t < 3; t++)
            MUST(attune_tensor_slice(from[t], 2, first, first + lengths[n], &part[t]));
        MUST(attune_attention(&part[0], &part[1], &part[2], &options, &o2, &lse2));
        MUST(attune_tensor_slice(&o, 2, first, first + lengths[n], &mine));
        assert_true(difference(&mine, &o2) < 2e-6);
        for (int t = 0; t < 3; t++) attune_tensor_close(&part[t]);
        attune_tensor_close(&mine);
        attune_tensor_close(&o2);
        attune_tensor_close(&lse2);
    }
    attune_tensor *all[] = {&q, &k, &v, &o, &lse};
    for (int t = 0; t < 5; t++) attune_tensor_close(all[t]);
}

/* An Inf or NaN in a key or value reaches exactly the rows to which the key is visible. */
static void nonfinite_values_reach_only_rows_that_attend_to_them(void **state) {
    (void)state;
    static const double evil[] = {NAN, INFINITY, -INFINITY};
    for (int e = 0; e < 3; e++) {
        for (int which = 0; which < 6; which++) {
            const int64_t q_shape[4] = {1, 2, 16, 20}, shape[4] = {1, 1, 80, 20},
                          index[4] = {0, 0, 70, 7};
            attune_tensor q, k, v, o, lse;
            random_tensor(1, q_shape, ATTUNE_F32, false, &q);
            random_tensor(2, shape, ATTUNE_F32, false, &k);
            random_tensor(3, shape, ATTUNE_F32, false, &v);
            MUST(attune_tensor_set(which < 3 ? &v : &k, index, evil[which % 3]));
            attune_attention_options options = {.causal = true, .engine = engines[e].engine};
            MUST(attune_attention(&q, &k, &v, &options, &o, &lse));
            for (int64_t h = 0; h < 2; h++) {
                for (int64_t i = 0; i < 16; i++) {
                    double x;
                    const int64_t element[4] = {0, h, i, 7};
                    MUST(attune_tensor_get(&o, element, &x));
                    bool visible = i + 80 - 16 >= 70;
                    if (!visible)
                        assert_true(isfinite(x));
                    else if (which < 3 || which % 3 == 0)
                        assert_false(isfinite(x));
                }
            }
            attune_tensor *all[] = {&q, &k, &v, &o, &lse};
            for (int t = 0; t < 5; t++) attune_tensor_close(all[t]);
        }
    }
}

static void rows_without_visible_keys_are_zero(void **state) {
    (void)state;
    const int64_t q_shape[4] = {1, 2, 9, 8}, shape[4] = {1, 1, 4, 8};
    attune_tensor q, k, v, o, lse;
    random_tensor(1, q_shape, ATTUNE_F32, false, &q);
    random_tensor(2, shape, ATTUNE_F32, false, &k);
    random_tensor(3, shape, ATTUNE_F32, false, &v);
    static const attune_engine all_engines[] = {ATTUNE_ENGINE_REFERENCE, ATTUNE_ENGINE_BLIS,
                                                ATTUNE_ENGINE_TILED, ATTUNE_ENGINE_DECODE};
    for (int e = 0; e < 4; e++) {
        attune_attention_options options = {.causal = true, .engine = all_engines[e]};
        MUST(attune_attention(&q, &k, &v, &options, &o, &lse));
        for (int64_t h = 0; h < 2; h++) {
            for (int64_t i = 0; i < 5; i++) {
                assert_true(((float *)lse.data)[h * 9 + i] == -INFINITY);
                for (int64_t d = 0; d < 8; d++)
                    assert_true(((float *)o.data)[(h * 9 + i) * 8 + d] == 0.0f);
            }
        }
        attune_tensor_close(&o);
        attune_tensor_close(&lse);
    }
    attune_tensor_close(&q);
    attune_tensor_close(&k);
    attune_tensor_close(&v);
}

static void merge_joins_disjoint_keys(void **state) {
    (void)state;
    const int64_t q_shape[4] = {2, 4, 5, 24}, shape[4] = {2, 2, 50, 24};
    attune_tensor q, k, v, o, lse, part[2], part_lse[2], got, got_lse;
    random_tensor(1, q_shape, ATTUNE_F32, false, &q);
    random_tensor(2, shape, ATTUNE_F32, false, &k);
    random_tensor(3, shape, ATTUNE_F32, false, &v);
    MUST(attune_attention(&q, &k, &v, NULL, &o, &lse));
    for (int t = 0; t < 2; t++) {
        attune_tensor ks, vs;
        MUST(attune_tensor_slice(&k, 2, t ? 13 : 0, t ? 50 : 13, &ks));
        MUST(attune_tensor_slice(&v, 2, t ? 13 : 0, t ? 50 : 13, &vs));
        MUST(attune_attention(&q, &ks, &vs, NULL, &part[t], &part_lse[t]));
        attune_tensor_close(&ks);
        attune_tensor_close(&vs);
    }
    MUST(attune_attention_merge(&part[0], &part_lse[0], &part[1], &part_lse[1], &got, &got_lse));
    assert_true(difference(&got, &o) < 1e-6);
    assert_true(difference(&got_lse, &lse) < 1e-6);
    attune_tensor *all[] = {&q,       &k,           &v,           &o,   &lse,    &part[0],
                            &part[1], &part_lse[0], &part_lse[1], &got, &got_lse};
    for (int t = 0; t < 11; t++) attune_tensor_close(all[t]);
}

static void weights_sum_to_one(void **state) {
    (void)state;
    problem p;
    problem_make(77, 60, &p);
    p.options.lengths.rows = 0;
    p.options.sinks = NULL;
    p.options.window = 0;
    attune_tensor w, sums;
    MUST(attune_attention_weights(&p.q, &p.k, &p.options, &w));
    assert_int_equal(w.shape[3], p.Sk);
    MUST(attune_tensor_reduce(ATTUNE_SUM, &w, 3, &sums));
    for (int64_t i = 0; i < attune_tensor_count(&sums); i++) {
        float sum = ((float *)sums.data)[i];
        assert_true(sum == 0 || fabsf(sum - 1) < 1e-5f);
    }
    attune_tensor_close(&w);
    attune_tensor_close(&sums);
    problem_close(&p);
}

static void refuses(attune_status expected, const char *word, const attune_tensor *q,
                    const attune_tensor *k, const attune_tensor *v,
                    const attune_attention_options *options) {
    attune_tensor o, lse;
    attune_status status = attune_attention(q, k, v, options, &o, &lse);
    if (status != expected || !strstr(attune_message(), word)) {
        fail_msg("expected %s and '%s', got %s: %s", attune_status_name(expected), word,
                 attune_status_name(status), attune_message());
    }
    assert_null(o.data);
    assert_null(lse.data);
}

static void bad_problems_are_refused(void **state) {
    (void)state;
    const int64_t a[4] = {1, 4, 6, 8}, b[4] = {1, 3, 6, 8}, c[4] = {1, 2, 6, 9},
                  d[4] = {1, 2, 6, 8}, e[4] = {1, 2, 7, 8}, f[4] = {1, 4, 20, 8};
    attune_tensor q, k3, k9, k, v7, f64, ids, closed = {0}, flat, many;
    random_tensor(1, a, ATTUNE_F32, false, &q);
    random_tensor(1, b, ATTUNE_F32, false, &k3);
    random_tensor(1, c, ATTUNE_F32, false, &k9);
    random_tensor(1, d, ATTUNE_F32, false, &k);
    random_tensor(1, e, ATTUNE_F32, false, &v7);
    random_tensor(1, d, ATTUNE_F64, false, &f64);
    random_tensor(1, f, ATTUNE_F32, false, &many);
    MUST(attune_tensor_new(ATTUNE_I32, 4, d, &ids));
    MUST(attune_tensor_new(ATTUNE_F32, 1, d, &flat));
    refuses(ATTUNE_ESHAPE, "divides q's 4 heads, got 3", &q, &k3, &k3, NULL);
    refuses(ATTUNE_ESHAPE, "k: expected", &q, &k9, &k9, NULL);
    refuses(ATTUNE_ESHAPE, "v: expected", &q, &k, &v7, NULL);
    refuses(ATTUNE_EDTYPE, "k: expected", &q, &f64, &k, NULL);
    refuses(ATTUNE_EDTYPE, "v: expected", &q, &k, &f64, NULL);
    refuses(ATTUNE_EDTYPE, "k: expected", &q, &ids, &k, NULL);
    refuses(ATTUNE_ECLOSED, "q: expected", &closed, &k, &k, NULL);
    refuses(ATTUNE_ESHAPE, "q: expected 4 axes", &flat, &k, &k, NULL);
    attune_attention_options o = {.window = -3};
    refuses(ATTUNE_EVALUE, "got -3", &q, &k, &k, &o);
    o = (attune_attention_options){.scale_given = true, .scale = NAN};
    refuses(ATTUNE_EVALUE, "scale: expected", &q, &k, &k, &o);
    o = (attune_attention_options){.softcap = -1};
    refuses(ATTUNE_EVALUE, "softcap: expected", &q, &k, &k, &o);
    o = (attune_attention_options){.sinks = &flat};
    refuses(ATTUNE_ESHAPE, "sinks: expected [4]", &q, &k, &k, &o);
    const int64_t counts[1] = {2}, short_sum[2] = {2, 3}, below[2] = {7, -1}, long_sum[2] = {4, 9},
                  huge[2] = {INT64_MAX, INT64_MAX};
    o = (attune_attention_options){.lengths = {1, counts, short_sum}};
    refuses(ATTUNE_ESHAPE, "sum of 6 tokens, got 5 (list 0)", &q, &k, &k, &o);
    o.lengths.value = long_sum;
    refuses(ATTUNE_ESHAPE, "sum of 6 tokens, got 13", &q, &k, &k, &o);
    o.lengths.value = huge;
    refuses(ATTUNE_ESHAPE, "sum of 6 tokens", &q, &k, &k, &o);
    const int64_t negative[2] = {-1, 7};
    o.lengths.value = negative;
    refuses(ATTUNE_EVALUE, "at least 0 tokens, got -1", &q, &k, &k, &o);
    o.lengths.value = below;
    refuses(ATTUNE_ESHAPE, "sum of 6 tokens", &q, &k, &k, &o);
    o = (attune_attention_options){.engine = ATTUNE_ENGINE_DECODE};
    refuses(ATTUNE_EENGINE, "at most 16 queries, got 20", &many, &k, &k, &o);
    attune_tensor *all[] = {&q, &k3, &k9, &k, &v7, &f64, &ids, &flat, &many};
    for (int t = 0; t < 9; t++) attune_tensor_close(all[t]);
}

static void long_windows_hide_nothing(void **state) {
    (void)state;
    const int64_t q_shape[4] = {1, 2, 16, 8}, k_shape[4] = {1, 2, 70, 8};
    attune_tensor q, k, o[2], lse[2];
    random_tensor(1, q_shape, ATTUNE_F32, false, &q);
    random_tensor(2, k_shape, ATTUNE_F32, false, &k);
    for (int e = 0; e < 3; e++) {
        for (int n = 0; n < 2; n++) {
            const attune_attention_options options = {.engine = engines[e].engine,
                                                      .window = n ? INT64_MAX : 0};
            MUST(attune_attention(&q, &k, &k, &options, &o[n], &lse[n]));
        }
        assert_memory_equal(o[0].data, o[1].data, (size_t)attune_tensor_nbytes(&o[0]));
        for (int n = 0; n < 2; n++) {
            attune_tensor_close(&o[n]);
            attune_tensor_close(&lse[n]);
        }
    }
    attune_tensor_close(&q);
    attune_tensor_close(&k);
}

/* The first of 6 queries stands 3 tokens before the first of 3 keys: window 4 reaches that key
 * alone. */
static void a_window_longer_than_the_keys_limits_early_queries(void **state) {
    (void)state;
    const int64_t q_shape[4] = {1, 1, 6, 8}, k_shape[4] = {1, 1, 3, 8};
    attune_tensor q, k, weights;
    random_tensor(1, q_shape, ATTUNE_F32, false, &q);
    random_tensor(2, k_shape, ATTUNE_F32, false, &k);
    const attune_attention_options options = {.window = 4};
    MUST(attune_attention_weights(&q, &k, &options, &weights));
    const float *w = weights.data;
    assert_true(w[0] == 1 && w[1] == 0 && w[2] == 0);
    assert_true(w[3] > 0 && w[4] > 0 && w[5] == 0);
    attune_tensor *all[] = {&q, &k, &weights};
    for (int t = 0; t < 3; t++) attune_tensor_close(all[t]);
}

/* {w - 1, w - 1} is window w, and a window with one side alone is causal or its mirror. */
static void two_sides_are_those_of_a_window(void **state) {
    (void)state;
    const int64_t q_shape[4] = {1, 2, 16, 8}, k_shape[4] = {1, 2, 70, 8};
    attune_tensor q, k;
    random_tensor(1, q_shape, ATTUNE_F32, false, &q);
    random_tensor(2, k_shape, ATTUNE_F32, false, &k);
    const attune_attention_options pairs[3][2] = {
        {{.window = 9}, {.two_sided = true, .window_left = 8, .window_right = 8}},
        {{.causal = true}, {.two_sided = true, .window_left = -1}},
        {{.causal = true, .window = 5}, {.two_sided = true, .window_left = 4}}};
    for (int e = 0; e < 3; e++) {
        for (int n = 0; n < 3; n++) {
            attune_tensor o[2], lse[2];
            for (int side = 0; side < 2; side++) {
                attune_attention_options options = pairs[n][side];
                options.engine = engines[e].engine;
                MUST(attune_attention(&q, &k, &k, &options, &o[side], &lse[side]));
            }
            assert_memory_equal(o[0].data, o[1].data, (size_t)attune_tensor_nbytes(&o[0]));
            for (int side = 0; side < 2; side++) {
                attune_tensor_close(&o[side]);
                attune_tensor_close(&lse[side]);
            }
        }
    }
    attune_attention_options o = {.window = 3, .two_sided = true};
    refuses(ATTUNE_EVALUE, "window: expected 0 beside", &q, &k, &k, &o);
    o = (attune_attention_options){.two_sided = true, .window_left = -2};
    refuses(ATTUNE_EVALUE, "window: expected at least 0", &q, &k, &k, &o);
    attune_tensor_close(&q);
    attune_tensor_close(&k);
}

static void empty_documents_change_nothing(void **state) {
    (void)state;
    const int64_t shape[4] = {1, 2, 6, 8}, counts[2] = {5, 2}, with[5] = {0, 2, 0, 4, 0},
                  without[2] = {2, 4};
    attune_tensor q, o[2], lse[2];
    random_tensor(1, shape, ATTUNE_F32, false, &q);
    for (int n = 0; n < 2; n++) {
        const attune_attention_options options = {.causal = true,
                                                  .lengths = {1, &counts[n], n ? without : with}};
        MUST(attune_attention(&q, &q, &q, &options, &o[n], &lse[n]));
    }
    assert_memory_equal(o[0].data, o[1].data, (size_t)attune_tensor_nbytes(&o[0]));
    for (int n = 0; n < 2; n++) {
        attune_tensor_close(&o[n]);
        attune_tensor_close(&lse[n]);
    }
    attune_tensor_close(&q);
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    const int64_t a[4] = {1, 4, 6, 8}, b[4] = {1, 2, 6, 8};
    attune_tensor q, k;
    random_tensor(1, a, ATTUNE_BF16, true, &q);
    random_tensor(2, b, ATTUNE_BF16, true, &k);
    const int64_t before = attune_memory().bytes;
    for (int e = 0; e < 3; e++) {
        attune_attention_options options = {.causal = true, .engine = engines[e].engine};
        attune_status status = ATTUNE_EMEMORY;
        int64_t n = 1;
        for (; status != ATTUNE_OK && n < 100; n++) {
            attune_tensor o, lse;
            attune_memory_fail_at(n);
            status = attune_attention(&q, &k, &k, &options, &o, &lse);
            attune_memory_fail_at(0);
            if (status != ATTUNE_OK) assert_int_equal(status, ATTUNE_EMEMORY);
            attune_tensor_close(&o);
            attune_tensor_close(&lse);
            assert_int_equal(attune_memory().bytes, before);
        }
        assert_int_equal(status, ATTUNE_OK);
        assert_true(n > 3);
    }
    attune_tensor_close(&q);
    attune_tensor_close(&k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(engines_agree_with_reference),
        cmocka_unit_test(long_keys_agree_with_reference),
        cmocka_unit_test(short_visible_ranges_agree_with_reference),
        cmocka_unit_test(bits_do_not_depend_on_threads),
        cmocka_unit_test(grouped_equals_repeated),
        cmocka_unit_test(packed_equals_separate),
        cmocka_unit_test(nonfinite_values_reach_only_rows_that_attend_to_them),
        cmocka_unit_test(rows_without_visible_keys_are_zero),
        cmocka_unit_test(merge_joins_disjoint_keys),
        cmocka_unit_test(weights_sum_to_one),
        cmocka_unit_test(bad_problems_are_refused),
        cmocka_unit_test(long_windows_hide_nothing),
        cmocka_unit_test(a_window_longer_than_the_keys_limits_early_queries),
        cmocka_unit_test(two_sides_are_those_of_a_window),
        cmocka_unit_test(empty_documents_change_nothing),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests_name("attention", tests, NULL, NULL);
}
