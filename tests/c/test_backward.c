/* test_backward.c - the gradients of tiled against those of the reference, and the gradients of the
 * reference against finite differences. */
#include "problems.h"
#include "test.h"

#if defined FEW_CASES
enum { PROBLEMS = 100, MAX_TOKENS = 150 };
#else
enum { PROBLEMS = 600, MAX_TOKENS = 300 };
#endif

/* o, lse and d_o of a problem, and its gradients by an engine. */
typedef struct gradients {
    attune_tensor d_o, o, lse, d[4]; /* dq, dk, dv, dsinks */
} gradients;

static void forward(problem *p, gradients *g) {
    memset(g, 0, sizeof *g);
    p->options.engine = ATTUNE_ENGINE_REFERENCE;
    MUST(attune_attention(&p->q, &p->k, &p->v, &p->options, &g->o, &g->lse));
    random_tensor(p->seed * 4 + 3, g->o.shape, p->dtype == ATTUNE_F64 ? ATTUNE_F64 : ATTUNE_F32,
                  p->strided, &g->d_o);
}

static attune_status backward(problem *p, gradients *g, attune_engine engine) {
    p->options.engine = engine;
    return attune_attention_backward(&g->d_o, &p->q, &p->k, &p->v, &g->o, &g->lse, &p->options,
                                     &g->d[0], &g->d[1], &g->d[2], &g->d[3], NULL);
}

static void close_gradients(gradients *g) {
    attune_tensor *all[] = {&g->d_o, &g->o, &g->lse};
    for (int i = 0; i < 3; i++) attune_tensor_close(all[i]);
    for (int i = 0; i < 4; i++) attune_tensor_close(&g->d[i]);
}

static double max_abs(const attune_tensor *t) {
    attune_tensor zero;
    MUST(attune_tensor_new(t->dtype, t->rank, t->shape, &zero));
    double d = difference(t, &zero);
    attune_tensor_close(&zero);
    return d;
}

/* The terms of the sums dq, dk and dv are at max the max |ds k|, |ds q| or |p d_o|, each with an
 * error of a few units of f32 (of |s| units for scores and their exponentials). Errors of n
 * independent terms add up as sqrt(n). Results in 16 bits are rounded once more. */
static void gradients_agree(void **state) {
    (void)state;
    for (uint64_t i = 0; i < PROBLEMS; i++) {
        problem p;
        gradients exact, got;
        problem_make(i + 70000, i % 4 ? 50 : MAX_TOKENS, &p);
        forward(&p, &exact);
        got = exact;
        MUST(backward(&p, &exact, ATTUNE_ENGINE_REFERENCE));
        attune_status status = backward(&p, &got, ATTUNE_ENGINE_TILED);
        if (status != ATTUNE_OK) fail_msg("%s: %s", problem_text(&p), attune_message());
        const double q = max_abs(&p.q), k = max_abs(&p.k), v = max_abs(&p.v),
                     d_o = max_abs(&exact.d_o), o = max_abs(&exact.o);
        const double scale = fabs(p.options.scale_given ? p.options.scale : 1 / sqrt((double)p.D)),
                     s = q * k * sqrt((double)p.D) * scale * 3;
        const double dp = d_o * (v + o) * sqrt((double)p.Dv) * 3, G = (double)p.Hq / (double)p.Hk,
                     unit = 0x1p-23 * (8 + s);
        const double last = p.dtype == ATTUNE_F32 ? 0 : p.dtype == ATTUNE_BF16 ? 0x1p-8 : 0x1p-11;
        /* With 16-bit dtypes both engines read the same rounded o, and so have the same delta. Each
         * rounds its results by one unit. */
        const double n_keys = sqrt((double)p.Sk), n_rows = sqrt((double)p.Sq * G);
        const double bound[4] = {unit * scale * dp * k * n_keys, unit * scale * dp * q * n_rows,
                                 unit * d_o * n_rows, unit * dp * sqrt((double)(p.Sq * p.B)) * 4};
        for (int t = 0; t < (p.options.sinks ? 4 : 3); t++) {
            const double d = difference(&got.d[t], &exact.d[t]),
                         max = bound[t] + 2 * (t < 3 ? last : 0) * max_abs(&exact.d[t]);
            if (!(d <= max))
                fail_msg("gradient %d differs by %g, bound %g: %s", t, d, max, problem_text(&p));
        }
        for (int t = 0; t < 4; t++) attune_tensor_close(&got.d[t]);
        close_gradients(&exact);
        problem_close(&p);
    }
}

/* In f64 a central difference of sum(o d_o) errs by the third derivative times step^2 and by 2^-53
 * over the step: 1e-6 leaves room for both. */
static void reference_agrees_with_differences(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 12; seed++) {
        problem p = {.seed = seed + 900,
                     .B = 1,
                     .Hq = 4,
                     .Hk = 2,
                     .Sq = 5,
                     .Sk = seed % 2 ? 5 : 9,
                     .D = 6,
                     .Dv = seed % 3 ? 6 : 4,
                     .dtype = ATTUNE_F64};
        const int64_t qs[4] = {1, 4, p.Sq, p.D}, ks[4] = {1, 2, p.Sk, p.D},
                      vs[4] = {1, 2, p.Sk, p.Dv};
        random_tensor(seed * 4, qs, ATTUNE_F64, false, &p.q);
        random_tensor(seed * 4 + 1, ks, ATTUNE_F64, false, &p.k);
        random_tensor(seed * 4 + 2, vs, ATTUNE_F64, false, &p.v);
        attune_rope_options rope = {.head_dim = p.D, .dims = 4};
        attune_position *pe = NULL;
        p.options.causal = seed % 2;
        if (seed % 3 == 0) p.options.softcap = 1.5;
        if (seed % 4 == 0) p.options.window = 3;
        if (seed % 4 == 1) {
            p.options.two_sided = true;
            p.options.window_left = 2;
            p.options.window_right = seed % 3 ? 1 : -1;
        }
        if (seed % 5 == 0) {
            MUST(attune_position_rope(&rope, &pe));
            p.options.rotate = pe;
        }
        gradients g;
        forward(&p, &g);
        MUST(backward(&p, &g, ATTUNE_ENGINE_DEFAULT));
        attune_tensor *in[3] = {&p.q, &p.k, &p.v};
        for (int t = 0; t < 3; t++) {
            for (int64_t i = 0, n = attune_tensor_count(in[t]); i < n; i += 7) {
                double *x = (double *)in[t]->data + i, before = *x, value[2];
                for (int side = 0; side < 2; side++) {
                    attune_tensor o, lse;
                    *x = before + (side ? 1e-5 : -1e-5);
                    MUST(attune_attention(&p.q, &p.k, &p.v, &p.options, &o, &lse));
                    value[side] = 0;
                    for (int64_t e = 0, m = attune_tensor_count(&o); e < m; e++)
                        value[side] += ((double *)o.data)[e] * ((double *)g.d_o.data)[e];
                    attune_tensor_close(&o);
                    attune_tensor_close(&lse);
                }
                *x = before;
                const double slope = (value[1] - value[0]) / 2e-5, got = ((double *)g.d[t].data)[i];
                if (!(fabs(slope - got) <= 1e-6 * (1 + fabs(slope))))
                    fail_msg("seed %d, tensor %d, element %d: %g, got %g", (int)seed, t, (int)i,
                             slope, got);
            }
        }
        close_gradients(&g);
        problem_close(&p);
        attune_position_close(pe);
    }
}

static void bits_do_not_depend_on_threads(void **state) {
    (void)state;
    for (uint64_t seed = 80000; seed < 80040; seed++) {
        problem p;
        gradients one, many;
        problem_make(seed, MAX_TOKENS, &p);
        forward(&p, &one);
        many = one;
        MUST(attune_threads(1, NULL));
        MUST(backward(&p, &one, ATTUNE_ENGINE_TILED));
        MUST(attune_threads(3, NULL));
        MUST(backward(&p, &many, ATTUNE_ENGINE_TILED));
        for (int t = 0; t < (p.options.sinks ? 4 : 3); t++) {
            if (memcmp(one.d[t].data, many.d[t].data, (size_t)attune_tensor_nbytes(&one.d[t])) != 0)
                fail_msg("gradient %d: other bits: %s", t, problem_text(&p));
        }
        for (int t = 0; t < 4; t++) attune_tensor_close(&many.d[t]);
        close_gradients(&one);
        problem_close(&p);
    }
    MUST(attune_threads(2, NULL));
}

static void rotation_goes_back(void **state) {
    (void)state;
    for (int n = 0; n < 4; n++) {
        const attune_dtype dtype = n % 2 ? ATTUNE_BF16 : ATTUNE_F32;
        problem p = {.seed = 4242,
                     .B = 2,
                     .Hq = 4,
                     .Hk = 2,
                     .Sq = 130,
                     .Sk = 150,
                     .D = 48,
                     .Dv = 48,
                     .dtype = dtype};
        const int64_t q[4] = {2, 4, 130, 48}, k[4] = {2, 2, 150, 48};
        attune_rope_options rope = {.head_dim = 48,
                                    .pairing = n < 2 ? ATTUNE_HALF : ATTUNE_INTERLEAVED};
        attune_position *pe;
        MUST(attune_position_rope(&rope, &pe));
        random_tensor(1, q, dtype, false, &p.q);
        random_tensor(2, k, dtype, false, &p.k);
        random_tensor(3, k, dtype, false, &p.v);
        p.options.causal = true;
        p.options.rotate = pe;
        gradients exact, got;
        forward(&p, &exact);
        got = exact;
        MUST(backward(&p, &exact, ATTUNE_ENGINE_REFERENCE));
        MUST(backward(&p, &got, ATTUNE_ENGINE_TILED));
        for (int t = 0; t < 3; t++)
            assert_true(difference(&got.d[t], &exact.d[t]) <=
                        (n % 2 ? 0x1p-7 * max_abs(&exact.d[t]) : 2e-5));
        for (int t = 0; t < 4; t++) attune_tensor_close(&got.d[t]);
        close_gradients(&exact);
        problem_close(&p);
        attune_position_close(pe);
    }
}

/* A NaN in a value reaches dq of the rows that attend to it, and through their delta dk of all keys
 * of these rows. It does not reach the gradients of other tokens. */
static void nonfinite_values_reach_only_rows_that_attend_to_them(void **state) {
    (void)state;
    const int64_t shape[4] = {1, 1, 140, 16}, index[4] = {0, 0, 135, 3};
    problem p = {.seed = 1,
                 .B = 1,
                 .Hq = 1,
                 .Hk = 1,
                 .Sq = 140,
                 .Sk = 140,
                 .D = 16,
                 .Dv = 16,
                 .dtype = ATTUNE_F32};
    random_tensor(1, shape, ATTUNE_F32, false, &p.q);
    random_tensor(2, shape, ATTUNE_F32, false, &p.k);
    random_tensor(3, shape, ATTUNE_F32, false, &p.v);
    MUST(attune_tensor_set(&p.v, index, NAN));
    p.options.causal = true;
    p.options.window = 4;
    gradients g;
    forward(&p, &g);
    MUST(backward(&p, &g, ATTUNE_ENGINE_TILED));
    for (int64_t i = 0; i < 140; i++) {
        const bool in_dq = i >= 135 && i < 139, in_dk = i >= 132 && i < 139;
        assert_int_equal(isnan(((float *)g.d[0].data)[i * 16]), in_dq);
        assert_int_equal(isnan(((float *)g.d[1].data)[i * 16]), in_dk);
        assert_false(isnan(((float *)g.d[2].data)[i * 16]));
    }
    close_gradients(&g);
    problem_close(&p);
}

static void misuse_is_an_error(void **state) {
    (void)state;
    problem p;
    gradients g;
    attune_tensor wrong;
    problem_make(3, 20, &p);
    forward(&p, &g);
    p.options.engine = ATTUNE_ENGINE_DECODE;
    assert_int_equal(backward(&p, &g, ATTUNE_ENGINE_DECODE), ATTUNE_EENGINE);
    const int64_t shape[4] = {1, 1, 1, 1};
    MUST(attune_tensor_new(ATTUNE_F32, 4, shape, &wrong));
    attune_tensor right = g.d_o;
    g.d_o = wrong;
    if (attune_tensor_count(&right) > 1)
        assert_int_equal(backward(&p, &g, ATTUNE_ENGINE_TILED), ATTUNE_ESHAPE);
    assert_non_null(strstr(attune_message(), "d_o: expected"));
    g.d_o = right;
    attune_tensor_close(&wrong);
    close_gradients(&g);
    problem_close(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_agree),
        cmocka_unit_test(reference_agrees_with_differences),
        cmocka_unit_test(bits_do_not_depend_on_threads),
        cmocka_unit_test(rotation_goes_back),
        cmocka_unit_test(nonfinite_values_reach_only_rows_that_attend_to_them),
        cmocka_unit_test(misuse_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
