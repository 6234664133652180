/* test_summaries.c - the summaries of every engine against the weights themselves, on random
 * problems. ATTUNE_ISA chooses the instruction set. */
#include "problems.h"
#include "test.h"

#if defined FEW_CASES
enum { PROBLEMS = 40, MAX_TOKENS = 70 };
#else
enum { PROBLEMS = 300, MAX_TOKENS = 90 };
#endif

enum { ENTROPY, DISTANCE, SINKS, COLUMNS, KINDS, ALL = 15 };
static const char *const kinds[KINDS] = {"entropy", "distance", "sinks", "columns"};

static attune_tensor *tensor_of(attune_summaries *s, int kind) {
    attune_tensor *const all[KINDS] = {&s->entropy, &s->distance, &s->sinks, &s->columns};
    return all[kind];
}

/* What the summaries should be, summed in double precision over the weights in double precision. */
typedef struct truth {
    double *of[KINDS];
    int64_t count[KINDS];
} truth;

static truth truth_of(problem *p) {
    attune_tensor q, k, weights;
    truth t;
    MUST(attune_tensor_convert(&p->q, ATTUNE_F64, &q));
    MUST(attune_tensor_convert(&p->k, ATTUNE_F64, &k));
    p->options.engine = ATTUNE_ENGINE_DEFAULT;
    MUST(attune_attention_weights(&q, &k, &p->options, &weights));
    const int64_t heads = p->B * p->Hq, rows = heads * p->Sq;
    for (int kind = 0; kind < KINDS; kind++) {
        t.count[kind] = kind == COLUMNS ? heads * p->Sk : rows;
        t.of[kind] = calloc((size_t)t.count[kind], sizeof(double));
    }
    const double *w = weights.data;
    for (int64_t row = 0; row < rows; row++) {
        const int64_t token = row % p->Sq + p->Sk - p->Sq;
        for (int64_t j = 0; j < p->Sk; j++, w++) {
            if (*w > 0) t.of[ENTROPY][row] -= *w * log(*w);
            t.of[DISTANCE][row] += *w * fabs((double)(token - j));
            if (j < 4) t.of[SINKS][row] += *w;
            t.of[COLUMNS][row / p->Sq * p->Sk + j] += *w;
        }
    }
    attune_tensor_close(&q);
    attune_tensor_close(&k);
    attune_tensor_close(&weights);
    return t;
}

static void truth_free(truth *t) {
    for (int kind = 0; kind < KINDS; kind++) free(t->of[kind]);
}

/* An error d of each score changes the lse by at most d, and so each weight by at most 2 d of it,
 * and w log w by at most 2 d w (|log w| + 1). relative: 2 d and the rounding of the sums. */
static void check_summary(const problem *p, const char *engine, const attune_tensor *got, int kind,
                          const truth *t, double relative) {
    assert_int_equal(attune_tensor_count(got), t->count[kind]);
    for (int64_t i = 0; i < t->count[kind]; i++) {
        const double x = got->dtype == ATTUNE_F64 ? ((const double *)got->data)[i]
                                                  : (double)((const float *)got->data)[i],
                     expected = t->of[kind][i];
        const double bound = relative * (expected + (kind == ENTROPY ? 1 : 0)) + 1e-30;
        if (!(fabs(x - expected) <= bound))
            fail_msg("%s: %s %lld: expected %.9g within %g, got %.9g: %s", engine, kinds[kind],
                     (long long)i, expected, bound, x, problem_text(p));
    }
}

static const struct {
    attune_engine engine;
    const char *name;
} engines[] = {{ATTUNE_ENGINE_REFERENCE, "reference"},
               {ATTUNE_ENGINE_TILED, "tiled"},
               {ATTUNE_ENGINE_DECODE, "decode"}};

static bool same_bits(const attune_tensor *a, const attune_tensor *b) {
    return memcmp(a->data, b->data, (size_t)attune_tensor_nbytes(a)) == 0;
}

/* o and lse have the bits that they have without summaries. */
static void check_engine(problem *p, int e, const truth *t, double relative) {
    attune_tensor o, lse, plain_o, plain_lse;
    attune_summaries s;
    p->options.engine = engines[e].engine;
    attune_status status =
        attune_attention_summarized(&p->q, &p->k, &p->v, &p->options, ALL, &o, &lse, &s);
    if (p->options.engine == ATTUNE_ENGINE_DECODE && (p->Sq > 16 || p->options.lengths.rows)) {
        assert_int_equal(status, ATTUNE_EENGINE);
        return;
    }
    if (status != ATTUNE_OK)
        fail_msg("%s: %s: %s", engines[e].name, attune_message(), problem_text(p));
    for (int kind = 0; kind < KINDS; kind++)
        check_summary(p, engines[e].name, tensor_of(&s, kind), kind, t, relative);
    MUST(attune_attention(&p->q, &p->k, &p->v, &p->options, &plain_o, &plain_lse));
    if (!same_bits(&o, &plain_o) || !same_bits(&lse, &plain_lse))
        fail_msg("%s: other bits with summaries: %s", engines[e].name, problem_text(p));
    attune_tensor *all[] = {&o, &lse, &plain_o, &plain_lse};
    for (int i = 0; i < 4; i++) attune_tensor_close(all[i]);
    attune_summaries_close(&s);
}

static double relative_bound(problem *p) {
    attune_tensor o, lse;
    p->options.engine = ATTUNE_ENGINE_REFERENCE;
    MUST(attune_attention(&p->q, &p->k, &p->v, &p->options, &o, &lse));
    const double lse_bound = bound_of(p, &o, &lse).lse;
    attune_tensor_close(&o);
    attune_tensor_close(&lse);
    return 2 * lse_bound + 0x1p-21;
}

static void few_queries(problem *p, int64_t n) {
    attune_tensor few;
    MUST(attune_tensor_slice(&p->q, 2, 0, n, &few));
    attune_tensor_close(&p->q);
    p->q = few;
    p->Sq = few.shape[2];
    p->options.lengths.rows = 0;
}

static void engines_agree_with_the_weights(void **state) {
    (void)state;
    for (uint64_t i = 0; i < PROBLEMS; i++) {
        problem p;
        problem_make(i + 1, MAX_TOKENS, &p);
        if (i % 3 == 0 && p.Sq > 16) few_queries(&p, 1 + (int64_t)i % 16);
        truth t = truth_of(&p);
        const double relative = relative_bound(&p);
        for (int e = 0; e < 3; e++) check_engine(&p, e, &t, relative);
        truth_free(&t);
        problem_close(&p);
    }
}

/* Several key blocks and parts of keys, several tasks of columns, and groups of real models. */
static void long_keys_agree_with_the_weights(void **state) {
    (void)state;
    static const int64_t cases[][6] = {/* Hq, Hk, Sq, Sk, D, window */
                                       {71, 1, 3, 700, 64, 0},
                                       {4, 4, 1, 1500, 128, 0},
                                       {16, 2, 5, 1300, 80, 0},
                                       {2, 1, 600, 600, 64, 0},
                                       {2, 2, 1100, 1100, 16, 70}};
    for (int n = 0; n < 5; n++) {
        const int64_t *c = cases[n];
        problem p = {.seed = (uint64_t)n + 90000,
                     .B = 1,
                     .Hq = c[0],
                     .Hk = c[1],
                     .Sq = c[2],
                     .Sk = c[3],
                     .D = c[4],
                     .Dv = c[4],
                     .dtype = n % 2 ? ATTUNE_BF16 : ATTUNE_F32};
        const int64_t q[4] = {1, p.Hq, p.Sq, p.D}, k[4] = {1, p.Hk, p.Sk, p.D};
        p.options.causal = true;
        p.options.window = c[5];
        random_tensor(p.seed, q, p.dtype, false, &p.q);
        random_tensor(p.seed + 1, k, p.dtype, false, &p.k);
        random_tensor(p.seed + 2, k, p.dtype, false, &p.v);
        truth t = truth_of(&p);
        const double relative = relative_bound(&p);
        for (int e = 0; e < 3; e++) check_engine(&p, e, &t, relative);
        truth_free(&t);
        problem_close(&p);
    }
}

static void bits_do_not_depend_on_threads(void **state) {
    (void)state;
    for (uint64_t seed = 5000; seed < 5020; seed++) {
        problem p;
        problem_make(seed, 4 * MAX_TOKENS, &p);
        if (seed % 2 && p.Sq > 16) few_queries(&p, 7);
        for (int e = 0; e < 3; e++) {
            attune_tensor o[2], lse[2];
            attune_summaries s[2];
            attune_status status = ATTUNE_OK;
            p.options.engine = engines[e].engine;
            for (int many = 0; many < 2 && status == ATTUNE_OK; many++) {
                MUST(attune_threads(many ? 3 : 1, NULL));
                status = attune_attention_summarized(&p.q, &p.k, &p.v, &p.options, ALL, &o[many],
                                                     &lse[many], &s[many]);
            }
            if (status != ATTUNE_OK) continue;
            for (int kind = 0; kind < KINDS; kind++)
                if (!same_bits(tensor_of(&s[0], kind), tensor_of(&s[1], kind)))
                    fail_msg("%s: %s has other bits with 3 threads: %s", engines[e].name,
                             kinds[kind], problem_text(&p));
            for (int i = 0; i < 2; i++) {
                attune_tensor_close(&o[i]);
                attune_tensor_close(&lse[i]);
                attune_summaries_close(&s[i]);
            }
        }
        problem_close(&p);
    }
    MUST(attune_threads(2, NULL));
}

/* Scores far from zero: weights are relative to the max score, and so are the summaries. Adding the
 * same number to all scores of a row changes nothing, and a key that appears late with a higher
 * score moves the origin. */
static void large_scores_agree_with_the_weights(void **state) {
    (void)state;
    for (int n = 0; n < 12; n++) {
        problem p = {.seed = (uint64_t)n + 300,
                     .B = 1,
                     .Hq = 2,
                     .Hk = 1,
                     .Sq = n % 2 ? 9 : 70,
                     .Sk = 1200,
                     .D = 16,
                     .Dv = 16,
                     .dtype = ATTUNE_F32};
        const int64_t q[4] = {1, 2, p.Sq, 16}, k[4] = {1, 1, p.Sk, 16};
        const double level[] = {-1e9, -1e4, 300, 1e4, 1e9, 0};
        random_tensor(p.seed, q, p.dtype, false, &p.q);
        random_tensor(p.seed + 1, k, p.dtype, false, &p.k);
        random_tensor(p.seed + 2, k, p.dtype, false, &p.v);
        /* The first dim of q is 1 and that of k the level: exact in f32, and the same for all keys
         * but some late ones, which are higher. */
        for (int64_t i = 0; i < 2 * p.Sq; i++) ((float *)p.q.data)[i * 16] = 1;
        for (int64_t j = 0; j < p.Sk; j++) {
            for (int d = 1; d < 16; d++) ((float *)p.k.data)[j * 16 + d] = 0;
            ((float *)p.k.data)[j * 16] =
                (float)(level[n / 2] + (j > 900 && j % 50 == 0 ? 4 + (double)(j % 3) : 0));
        }
        p.options.scale_given = true;
        p.options.scale = 1;
        truth t = truth_of(&p);
        for (int e = 0; e < 3; e++) check_engine(&p, e, &t, 0x1p-16);
        truth_free(&t);
        problem_close(&p);
    }
}

/* A NaN reaches the summaries of its row and the columns that the row sees. */
static void nan_reaches_only_what_it_is_visible_to(void **state) {
    (void)state;
    const int64_t shape[4] = {1, 1, 90, 16}, index[4] = {0, 0, 20, 3};
    for (int e = 0; e < 2; e++) {
        attune_tensor q, k, v, o, lse;
        attune_summaries s;
        attune_attention_options options = {
            .causal = true, .window = 8, .engine = engines[e].engine};
        random_tensor(1, shape, ATTUNE_F32, false, &q);
        random_tensor(2, shape, ATTUNE_F32, false, &k);
        random_tensor(3, shape, ATTUNE_F32, false, &v);
        MUST(attune_tensor_set(&q, index, NAN));
        MUST(attune_attention_summarized(&q, &k, &v, &options, ALL, &o, &lse, &s));
        const float *entropy = s.entropy.data, *columns = s.columns.data;
        for (int i = 0; i < 90; i++) {
            assert_int_equal(isnan(entropy[i]), i == 20);
            assert_int_equal(isnan(columns[i]), i > 12 && i <= 20);
        }
        attune_tensor *all[] = {&q, &k, &v, &o, &lse};
        for (int i = 0; i < 5; i++) attune_tensor_close(all[i]);
        attune_summaries_close(&s);
    }
}

/* Rows without a visible key, and rows whose scores are all -inf, have zeros. */
static void rows_without_weights_have_zeros(void **state) {
    (void)state;
    const int64_t q_shape[4] = {1, 2, 12, 16}, k_shape[4] = {1, 1, 5, 16};
    for (int e = 0; e < 3; e++) {
        for (int infinite = 0; infinite < 2; infinite++) {
            attune_tensor q, k, v, o, lse;
            attune_summaries s;
            attune_attention_options options = {.causal = true, .engine = engines[e].engine};
            random_tensor(1, q_shape, ATTUNE_F32, false, &q);
            random_tensor(2, k_shape, ATTUNE_F32, false, &k);
            random_tensor(3, k_shape, ATTUNE_F32, false, &v);
            for (int i = 0; i < 24 && infinite; i++) ((float *)q.data)[16 * i] = -INFINITY;
            for (int j = 0; j < 5 && infinite; j++) ((float *)k.data)[16 * j] = 1;
            MUST(attune_attention_summarized(&q, &k, &v, &options, ALL, &o, &lse, &s));
            for (int kind = 0; kind < SINKS + 1; kind++)
                for (int i = 0; i < (infinite ? 12 : 7); i++)
                    assert_true(((const float *)tensor_of(&s, kind)->data)[i] == 0);
            for (int j = 0; j < 10 && infinite; j++)
                assert_true(((const float *)s.columns.data)[j] == 0);
            attune_tensor *all[] = {&q, &k, &v, &o, &lse};
            for (int i = 0; i < 5; i++) attune_tensor_close(all[i]);
            attune_summaries_close(&s);
        }
    }
}

static void only_what_is_wanted_is_made(void **state) {
    (void)state;
    const int64_t shape[4] = {1, 2, 20, 16};
    attune_tensor q, o, lse;
    attune_summaries s;
    random_tensor(1, shape, ATTUNE_F32, false, &q);
    for (unsigned wanted = 0; wanted < 16; wanted++) {
        MUST(attune_attention_summarized(&q, &q, &q, NULL, wanted, &o, &lse, &s));
        for (int kind = 0; kind < KINDS; kind++)
            assert_int_equal(tensor_of(&s, kind)->data != NULL, wanted >> kind & 1);
        attune_tensor_close(&o);
        attune_tensor_close(&lse);
        attune_summaries_close(&s);
    }
    assert_int_equal(attune_attention_summarized(&q, &q, &q, NULL, 16, &o, &lse, &s),
                     ATTUNE_EVALUE);
    const attune_attention_options blis = {.engine = ATTUNE_ENGINE_BLIS};
    assert_int_equal(attune_attention_summarized(&q, &q, &q, &blis, 1, &o, &lse, &s),
                     ATTUNE_EENGINE);
    assert_null(o.data);
    attune_tensor_close(&q);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(engines_agree_with_the_weights),
        cmocka_unit_test(long_keys_agree_with_the_weights),
        cmocka_unit_test(bits_do_not_depend_on_threads),
        cmocka_unit_test(large_scores_agree_with_the_weights),
        cmocka_unit_test(nan_reaches_only_what_it_is_visible_to),
        cmocka_unit_test(rows_without_weights_have_zeros),
        cmocka_unit_test(only_what_is_wanted_is_made),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
