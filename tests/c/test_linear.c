/* test_linear.c - linear attention against its definition term by term, its state against all
 * tokens at once. */
#include <stdio.h>

#include "linear_cases.h"
#include "test.h"

#if defined FEW_CASES
enum { PROBLEMS = 50 };
#else
enum { PROBLEMS = 200 };
#endif

/* w . x' of each row of the projection, and |x'|^2 / 2. *rounding: the max over the
 * rows of the sum of |w x'|, plus that half. */
static double exponents(const linear_case *c, const double *x, double *e, double *rounding) {
    double half = 0;
    for (int64_t d = 0; d < c->D; d++) half += x[d] * x[d] / 2 / sqrt((double)c->D);
    for (int64_t m = 0; m < c->M; m++) {
        double sum = 0, terms = 0;
        for (int64_t d = 0; d < c->D; d++) {
            const double term =
                (double)((const float *)c->w.data)[m * c->D + d] * pow((double)c->D, -0.25) * x[d];
            sum += term;
            terms += fabs(term);
        }
        e[m] = sum;
        *rounding = fmax(*rounding, terms + half);
    }
    return half;
}

/* Features by the definition. max_exponent: of the keys; NAN: x is a query. */
static void features(const linear_case *c, const double *x, double max_exponent, double *e,
                     double *f, double *rounding) {
    const double half = exponents(c, x, e, rounding), epsilon = c->options.epsilon;
    double own = -INFINITY;
    for (int64_t m = 0; m < c->M; m++) own = fmax(own, e[m]);
    for (int64_t m = 0; m < c->F; m++) {
        switch (c->options.features) {
        case ATTUNE_FEATURES_FAVOR:
            f[m] = exp(e[m] - half - (isnan(max_exponent) ? own : max_exponent)) + epsilon;
            break;
        case ATTUNE_FEATURES_TRIG:
            f[m] = (isnan(max_exponent) ? 1 : exp(half - max_exponent)) *
                       (m < c->M ? sin(e[m]) : cos(e[m - c->M])) +
                   epsilon;
            break;
        case ATTUNE_FEATURES_RELU: f[m] = fmax(e[m], 0) + epsilon; break;
        default: f[m] = (x[m] > 0 ? x[m] + 1 : exp(x[m])) + epsilon; break;
        }
    }
}

static void rotated(const linear_case *c, const double *f, int64_t position, double *out) {
    attune_tensor x, positions, y;
    const int64_t shape[4] = {1, 1, 1, c->F}, one[1] = {1};
    memcpy(out, f, (size_t)c->F * sizeof *f);
    if (!c->pe) return;
    MUST(attune_tensor_wrap(ATTUNE_F64, 4, shape, NULL, (void *)f, &x));
    MUST(attune_tensor_wrap(ATTUNE_I64, 1, one, NULL, &position, &positions));
    MUST(attune_position_rotate(c->pe, &x, &positions, ATTUNE_QUERY, &y));
    memcpy(out, y.data, (size_t)c->F * sizeof *f);
    attune_tensor_close(&y);
}

/* Compares o with the definition; bound of each element: units times the roundings of exponents and
 * sums, as far as the quotient makes them grow. */
static void check(const linear_case *c, const attune_tensor *o, double unit) {
    const int64_t D = c->D, F = c->F;
    double *qf = malloc((size_t)(2 * F) * sizeof *qf),
           *kf = malloc((size_t)(2 * F * c->Sk) * sizeof *kf),
           *e = malloc((size_t)(c->M + 1) * sizeof *e);
    double *x = malloc((size_t)D * sizeof *x), *weight = malloc((size_t)c->Sk * sizeof *weight);
    for (int64_t b = 0; b < c->B; b++) {
        for (int64_t h = 0; h < c->Hq; h++) {
            const int64_t kv = h / (c->Hq / c->Hk), offset = c->Sk - c->Sq;
            double max_exponent = -INFINITY, rounding = 0;
            for (int64_t j = 0; j < c->Sk; j++) {
                for (int64_t d = 0; d < D; d++) x[d] = linear_at(&c->k, b, kv, j, d);
                const double half = exponents(c, x, e, &rounding);
                for (int64_t m = 0; m < c->M; m++)
                    max_exponent = fmax(max_exponent,
                                        c->options.features == ATTUNE_FEATURES_TRIG ? half : e[m]);
            }
            for (int64_t j = 0; j < c->Sk; j++) {
                for (int64_t d = 0; d < D; d++) x[d] = linear_at(&c->k, b, kv, j, d);
                features(c, x, max_exponent, e, kf + j * 2 * F, &rounding);
                rotated(c, kf + j * 2 * F, j, kf + j * 2 * F + F);
            }
            for (int64_t i = 0; i < c->Sq; i++) {
                for (int64_t d = 0; d < D; d++) x[d] = linear_at(&c->q, b, h, i, d);
                features(c, x, NAN, e, qf, &rounding);
                rotated(c, qf, i + offset, qf + F);
                double z = 0, z_terms = 0;
                const int64_t visible = c->options.causal ? i + offset + 1 : c->Sk;
                for (int64_t j = 0; j < visible; j++) {
                    weight[j] = 0;
                    for (int64_t f = 0; f < F; f++) {
                        const double one = qf[f] * kf[j * 2 * F + f];
                        z += one;
                        z_terms += fabs(one);
                        weight[j] += qf[F + f] * kf[j * 2 * F + F + f];
                    }
                }
                for (int64_t d = 0; d < c->Dv; d++) {
                    double sum = 0, sum_terms = 0, got = linear_at(o, b, h, i, d);
                    for (int64_t j = 0; j < visible; j++) {
                        double terms = 0, value = linear_at(&c->v, b, kv, j, d);
                        for (int64_t f = 0; f < F; f++)
                            terms += fabs(qf[F + f] * kf[j * 2 * F + F + f]);
                        sum += weight[j] * value;
                        sum_terms += terms * fabs(value);
                    }
                    const double want = z == 0 ? 0 : sum / z;
                    const double bound = z == 0 ? 0
                                                : unit * (16 + 8 * rounding) *
                                                      (sum_terms + fabs(want) * z_terms) / fabs(z);
                    const double store = c->dtype == ATTUNE_BF16  ? 0x1p-8 * fabs(want)
                                         : c->dtype == ATTUNE_F16 ? 0x1p-11 * fabs(want) + 0x1p-24
                                                                  : 0;
                    if (!(fabs(got - want) <= bound + store)) {
                        fail_msg("o[%d][%d][%d][%d] is %.9g, by the definition %.9g, bound %g: %s",
                                 (int)b, (int)h, (int)i, (int)d, got, want, bound + store,
                                 linear_text(c));
                    }
                }
            }
        }
    }
    free(qf);
    free(kf);
    free(e);
    free(x);
    free(weight);
}

static void agrees_with_the_definition(void **state) {
    (void)state;
    static const attune_dtype dtypes[] = {ATTUNE_F32, ATTUNE_F32, ATTUNE_F64, ATTUNE_BF16,
                                          ATTUNE_F16};
    for (uint64_t seed = 1; seed <= PROBLEMS; seed++) {
        linear_case c;
        attune_tensor o;
        linear_make(seed, dtypes[seed % 5], seed % 10 == 0 ? 200 : 40, &c);
        MUST(attune_linear_attention(&c.q, &c.k, &c.v, &c.options, &o));
        assert_int_equal(o.dtype, c.dtype);
        check(&c, &o, c.dtype == ATTUNE_F64 ? 0x1p-50 : 0x1p-24);
        attune_tensor_close(&o);
        linear_close(&c);
    }
}

/* Long enough for sections; against f64. */
static void long_sequences_and_blocks(void **state) {
    (void)state;
    for (int n = 0; n < 16; n++) {
        linear_case c;
        linear_long((uint64_t)n, n & 4 ? 2 : 1, 1, n & 8 ? 1500 : 2111,
                    n & 2 ? ATTUNE_FEATURES_ELU : ATTUNE_FEATURES_FAVOR, n & 8 ? 1e-3 : 0, n & 1,
                    &c);
        attune_tensor in_f64[3], o, truth;
        if (n & 8) linear_turn(&c, ATTUNE_HALF);
        MUST(attune_tensor_convert(&c.q, ATTUNE_F64, &in_f64[0]));
        MUST(attune_tensor_convert(&c.k, ATTUNE_F64, &in_f64[1]));
        MUST(attune_tensor_convert(&c.v, ATTUNE_F64, &in_f64[2]));
        MUST(attune_linear_attention(&in_f64[0], &in_f64[1], &in_f64[2], &c.options, &truth));
        for (int64_t block = 0; block < 4; block++) {
            c.options.block = block * block * block * 5;
            MUST(attune_linear_attention(&c.q, &c.k, &c.v, &c.options, &o));
            if (!(difference(&o, &truth) <= 1e-5))
                fail_msg("differs by %g: %s", difference(&o, &truth), linear_text(&c));
            attune_tensor_close(&o);
        }
        for (int i = 0; i < 3; i++) attune_tensor_close(&in_f64[i]);
        attune_tensor_close(&truth);
        linear_close(&c);
    }
}

static void bits_do_not_depend_on_threads(void **state) {
    (void)state;
    for (int n = 0; n < 4; n++) {
        linear_case c;
        linear_long(7, 4, n & 2 ? 1 : 2, 1333, ATTUNE_FEATURES_FAVOR, n & 2 ? 1e-3 : 0, n & 1, &c);
        attune_tensor one[4], many[4];
        c.options.block = 16; /* many sections */
        for (int side = 0; side < 2; side++) {
            attune_tensor *r = side ? many : one;
            MUST(attune_threads(side ? 5 : 1, NULL));
            MUST(attune_linear_attention(&c.q, &c.k, &c.v, &c.options, &r[0]));
            MUST(attune_linear_attention_backward(&r[0], &c.q, &c.k, &c.v, &c.options, &r[1], &r[2],
                                                  &r[3]));
        }
        MUST(attune_threads(2, NULL));
        for (int t = 0; t < 4; t++) {
            assert_memory_equal(one[t].data, many[t].data, (size_t)attune_tensor_nbytes(&one[t]));
            attune_tensor_close(&one[t]);
            attune_tensor_close(&many[t]);
        }
        linear_close(&c);
    }
}

/* ---- the state ------------------------------------------------------------------------------- */

static void state_equals_prefill(void **state) {
    (void)state;
    for (int n = 0; n < 16; n++) {
        linear_case c = {.seed = (uint64_t)n,
                         .B = 2,
                         .Hq = 6,
                         .Hk = n & 1 ? 2 : 6,
                         .Sq = 90,
                         .Sk = 90,
                         .D = 17,
                         .Dv = 20,
                         .M = 30,
                         .dtype = ATTUNE_F32};
        c.options = (attune_linear_options){
            .causal = true, .features = (attune_features)(n / 2 % 4), .epsilon = n & 8 ? 0.01 : 0};
        linear_tensors(&c);
        if (c.options.features == ATTUNE_FEATURES_RELU) c.options.epsilon = 1e-3;
        if (c.options.features == ATTUNE_FEATURES_TRIG)
            c.options.epsilon = 1; /* else denominators near 0 have no digits to compare */
        if (n % 3 == 0) linear_turn(&c, ATTUNE_INTERLEAVED);
        /* growing keys: the stabiliser must follow */
        for (int64_t i = 0; i < 2 * c.Hk; i++)
            for (int64_t s = 0; s < 90; s++)
                for (int64_t d = 0; d < 17; d++)
                    ((float *)c.k.data)[(i * 90 + s) * 17 + d] *= 0.5f + (float)s / 45;
        const attune_linear_state_options options = {.batch = 2,
                                                     .kv_heads = c.Hk,
                                                     .head_dim = 17,
                                                     .v_head_dim = 20,
                                                     .features = c.options.features,
                                                     .projection = c.options.projection,
                                                     .rotate = c.pe,
                                                     .epsilon = c.options.epsilon};
        attune_linear_state *st;
        MUST(attune_linear_state_new(&options, &st));
        const int64_t nbytes = attune_linear_state_nbytes(st);
        for (int again = 0; again < 2; again++) {
            static const int64_t cuts[] = {0, 1, 2, 5, 70, 90};
            for (int i = 0; i < 5; i++) {
                attune_tensor k, v, q, o, all_k, all_v, all_q, all, last;
                MUST(attune_tensor_slice(&c.k, 2, cuts[i], cuts[i + 1], &k));
                MUST(attune_tensor_slice(&c.v, 2, cuts[i], cuts[i + 1], &v));
                MUST(attune_tensor_slice(&c.q, 2, cuts[i + 1] - 1, cuts[i + 1], &q));
                MUST(attune_tensor_slice(&c.k, 2, 0, cuts[i + 1], &all_k));
                MUST(attune_tensor_slice(&c.v, 2, 0, cuts[i + 1], &all_v));
                MUST(attune_tensor_slice(&c.q, 2, 0, cuts[i + 1], &all_q));
                MUST(attune_linear_state_append(st, &k, &v));
                MUST(attune_linear_state_attend(st, &q, &o));
                MUST(attune_linear_attention(&all_q, &all_k, &all_v, &c.options, &all));
                MUST(attune_tensor_slice(&all, 2, cuts[i + 1] - 1, cuts[i + 1], &last));
                if (!(difference(&o, &last) <= 2e-5))
                    fail_msg("after %d tokens o differs by %g: %s", (int)cuts[i + 1],
                             difference(&o, &last), linear_text(&c));
                attune_tensor *used[] = {&k, &v, &q, &o, &all_k, &all_v, &all_q, &all, &last};
                for (int t = 0; t < 9; t++) attune_tensor_close(used[t]);
            }
            assert_int_equal(attune_linear_state_length(st), 90);
            attune_linear_state_reset(st);
            assert_int_equal(attune_linear_state_length(st), 0);
        }
        assert_int_equal(attune_linear_state_nbytes(st), nbytes);
        attune_linear_state_close(st);
        linear_close(&c);
    }
}

/* ---- what favor promises --------------------------------------------------------------------- */

static void projection_is_orthogonal(void **state) {
    (void)state;
    attune_tensor w, again;
    enum { D = 24, M = 64 };
    double squares = 0;
    MUST(attune_favor_projection(D, M, 3, &w));
    MUST(attune_favor_projection(D, M, 3, &again));
    assert_memory_equal(w.data, again.data, sizeof(float) * D * M);
    const float *x = w.data;
    for (int i = 0; i < M; i++) {
        for (int j = i / D * D; j <= i; j++) {
            double dot = 0, a = 0, b = 0;
            for (int d = 0; d < D; d++) {
                dot += (double)(x[i * D + d] * x[j * D + d]);

                a += (double)(x[i * D + d] * x[i * D + d]);

                b += (double)(x[j * D + d] * x[j * D + d]);
            }
            if (i == j)
                squares += dot / M;
            else
                assert_true(fabs(dot) <= 1e-6 * sqrt(a * b));
        }
    }
    assert_true(fabs(squares - D) < 4 * sqrt(2.0 * D / M)); /* chi-squared: mean D, variance 2 D */
    attune_tensor_close(&w);
    attune_tensor_close(&again);
}

/* The mean of exp(w.(x + y) - (|x|^2 + |y|^2) / 2) over projections is exp(x.y), within four
 * standard errors. */
static void features_are_unbiased(void **state) {
    (void)state;
    enum { D = 8, M = 8, DRAWS = 4000 };
    double x[D], y[D], dot = 0, half = 0, sum = 0, squares = 0;
    for (int d = 0; d < D; d++) {
        x[d] = 0.25 * sin(d + 1);
        y[d] = 0.25 * cos(2 * d);
        dot += x[d] * y[d];

        half += (x[d] * x[d] + y[d] * y[d]) / 2;
    }
    for (uint64_t seed = 0; seed < DRAWS; seed++) {
        attune_tensor w;
        double mean = 0;
        MUST(attune_favor_projection(D, M, seed, &w));
        for (int m = 0; m < M; m++) {
            double e = -half;
            for (int d = 0; d < D; d++)
                e += (double)((const float *)w.data)[m * D + d] * (x[d] + y[d]);
            mean += exp(e) / M;
        }
        sum += mean;
        squares += mean * mean;
        attune_tensor_close(&w);
    }
    const double mean = sum / DRAWS, error = sqrt((squares / DRAWS - mean * mean) / DRAWS);
    if (!(fabs(mean - exp(dot)) <= 4 * error))
        fail_msg("mean %g, expected %g, standard error %g", mean, exp(dot), error);
    assert_true(error < 0.01);
}

/* The root mean square error against exact attention, over some projections, halves with four times
 * the features (with few it is bounded by the values). */
static void error_falls_with_features(void **state) {
    (void)state;
    enum { COUNT = 4 * 64 * 16, PROJECTIONS = 48 };
    for (int kind = 0; kind < 2; kind++) {
        double before = INFINITY, first = 0;
        for (int64_t M = 64; M <= 1024; M *= 4) {
            linear_case c = {.seed = 11,
                             .B = 1,
                             .Hq = 4,
                             .Hk = 4,
                             .Sq = 64,
                             .Sk = 64,
                             .D = 16,
                             .Dv = 16,
                             .M = M,
                             .dtype = ATTUNE_F32};
            c.options.features = kind ? ATTUNE_FEATURES_TRIG : ATTUNE_FEATURES_FAVOR;
            linear_tensors(&c);
            attune_tensor o, exact, lse;
            double sum = 0;
            for (int64_t i = 0; i < COUNT; i++) {

                ((float *)c.q.data)[i] *= 0.5f;
                ((float *)c.k.data)[i] *= 0.5f;
            }
            MUST(attune_attention(&c.q, &c.k, &c.v, NULL, &exact, &lse));
            for (uint64_t seed = 0; seed < PROJECTIONS; seed++) {
                attune_tensor_close(&c.w);
                MUST(attune_favor_projection(c.D, M, seed, &c.w));
                MUST(attune_linear_attention(&c.q, &c.k, &c.v, &c.options, &o));
                for (int64_t i = 0; i < COUNT; i++)
                    sum += pow((double)(((float *)o.data)[i] - ((float *)exact.data)[i]), 2);
                attune_tensor_close(&o);
            }
            const double error = sqrt(sum / (COUNT * PROJECTIONS));
            if (M == 64) first = error;
            if (!(error < before / 1.4))
                fail_msg("kind %d, %d features: error %g, before %g", kind, (int)M, error, before);
            before = error;
            attune_tensor_close(&exact);
            attune_tensor_close(&lse);
            linear_close(&c);
        }
        assert_true(before < first / 2.6); /* 4 expected */
    }
}

/* Scores of 50 and more, in both directions, neither overflow nor vanish: a single key is what each
 * query gets back. */
static void large_scores(void **state) {
    (void)state;
    for (int n = 0; n < 4; n++) {
        linear_case c = {.seed = 21,
                         .B = 1,
                         .Hq = 2,
                         .Hk = 1,
                         .Sq = 70,
                         .Sk = 70,
                         .D = 64,
                         .Dv = 8,
                         .M = 128,
                         .dtype = n & 2 ? ATTUNE_F64 : ATTUNE_F32};
        c.options.causal = n & 1;
        linear_tensors(&c);
        for (int64_t i = 0, count = attune_tensor_count(&c.q); i < count; i++) {
            double x = linear_at(&c.q, 0, i / (70 * 64), i / 64 % 70, i % 64) * 4;
            const int64_t index[4] = {0, i / (70 * 64), i / 64 % 70, i % 64};
            MUST(attune_tensor_set(&c.q, index, x));
        }
        for (int64_t i = 0, count = attune_tensor_count(&c.k); i < count; i++) {
            const int64_t index[4] = {0, 0, i / 64, i % 64};
            MUST(attune_tensor_set(&c.k, index, linear_at(&c.k, 0, 0, i / 64, i % 64) * 4));
        }
        attune_tensor o;
        MUST(attune_linear_attention(&c.q, &c.k, &c.v, &c.options, &o));
        for (int64_t h = 0; h < 2; h++)
            for (int64_t i = 0; i < 70; i++)
                for (int64_t d = 0; d < 8; d++) {
                    const double x = linear_at(&o, 0, h, i, d);
                    assert_true(isfinite(x) && fabs(x) < 6);
                    if (i == 0 && c.options.causal)
                        assert_true(fabs(x - linear_at(&c.v, 0, 0, 0, d)) < 1e-5);
                }
        attune_tensor_close(&o);
        linear_close(&c);
    }
}

/* A causal row does not depend on later tokens, nonfinite ones included. */
static void later_tokens_change_no_earlier_row(void **state) {
    (void)state;
    for (int n = 0; n < 4; n++) {
        linear_case c;
        linear_of_100(n & 1 ? ATTUNE_F64 : ATTUNE_F32, &c);
        attune_tensor before, after, early, late;
        MUST(attune_linear_attention(&c.q, &c.k, &c.v, &c.options, &before));
        const int64_t index[4] = {0, 0, 77, 3};
        MUST(attune_tensor_set(&c.v, index, n & 2 ? (double)INFINITY : NAN));
        MUST(attune_linear_attention(&c.q, &c.k, &c.v, &c.options, &after));
        MUST(attune_tensor_slice(&before, 2, 0, 77, &early));
        MUST(attune_tensor_slice(&after, 2, 0, 77, &late));
        assert_true(difference(&early, &late) <= 1e-6);
        assert_false(isfinite(linear_at(&after, 0, 1, 77, 3)));
        attune_tensor *all[] = {&before, &after, &early, &late};
        for (int i = 0; i < 4; i++) attune_tensor_close(all[i]);
        linear_close(&c);
    }
}

static void misuse_is_an_error(void **state) {
    (void)state;
    linear_case c;
    linear_long(1, 4, 2, 20, ATTUNE_FEATURES_FAVOR, 0, true, &c);
    attune_tensor o, dq, dk, dv, other_head_dim;
    attune_linear_options wrong = c.options;
    const struct {
        const char *said;
        attune_status status;
    } none = {"projection: expected a tensor [features, 16] for favor+, got none", ATTUNE_EVALUE};
    wrong.projection = NULL;
    assert_int_equal(attune_linear_attention(&c.q, &c.k, &c.v, &wrong, &o), none.status);
    assert_string_equal(attune_message(), none.said);
    wrong = c.options;
    wrong.epsilon = -1;
    assert_int_equal(attune_linear_attention(&c.q, &c.k, &c.v, &wrong, &o), ATTUNE_EVALUE);
    MUST(attune_favor_projection(8, 8, 1, &other_head_dim));
    wrong = c.options;
    wrong.projection = &other_head_dim;
    assert_int_equal(attune_linear_attention(&c.q, &c.k, &c.v, &wrong, &o), ATTUNE_ESHAPE);
    assert_non_null(strstr(attune_message(), "projection: expected [features, 16]"));
    const attune_rope_options rope = {.head_dim = 16};
    attune_position *pe;
    MUST(attune_position_rope(&rope, &pe));
    wrong = c.options;
    wrong.rotate = pe;
    assert_int_equal(attune_linear_attention(&c.q, &c.k, &c.v, &wrong, &o), ATTUNE_ESHAPE);
    assert_non_null(strstr(attune_message(), "head_dim 48, the number of features, got one of 16"));
    assert_int_equal(
        attune_linear_attention_backward(&c.q, &c.q, &c.k, &c.v, &c.options, &dq, &dk, &dv),
        ATTUNE_ESHAPE);
    attune_position_close(pe);
    for (int i = 0; i < 2; i++) {
        const attune_t5_options t5 = {.heads = 2};
        MUST(i ? attune_position_t5(&t5, &pe) : attune_position_alibi(2, 0, &pe));
        wrong.rotate = pe;
        assert_int_equal(attune_linear_attention(&c.q, &c.k, &c.v, &wrong, &o), ATTUNE_EVALUE);
        assert_non_null(
            strstr(attune_message(),
                   "it needs the full score matrix, which linear attention never forms"));
        attune_position_close(pe);
    }
    attune_tensor_close(&other_head_dim);
    linear_close(&c);
}

/* Each allocation fails once; nothing is lost, and the state stays as it was. */
static void every_allocation_may_fail(void **state) {
    (void)state;
    linear_case c;
    linear_long(3, 2, 1, 300, ATTUNE_FEATURES_FAVOR, 1e-3, true, &c);
    const attune_linear_state_options options = {.batch = 1,
                                                 .kv_heads = 1,
                                                 .head_dim = 16,
                                                 .v_head_dim = 24,
                                                 .projection = &c.w,
                                                 .epsilon = 1e-3};
    for (int n = 1, ended = 0; !ended; n++) {
        attune_tensor o = {0}, d[3] = {{0}, {0}, {0}};
        attune_linear_state *st = NULL;
        const int64_t before = attune_memory().bytes;
        attune_memory_fail_at(n);
        attune_status status = attune_linear_attention(&c.q, &c.k, &c.v, &c.options, &o);
        if (status == ATTUNE_OK)
            status = attune_linear_attention_backward(&o, &c.q, &c.k, &c.v, &c.options, &d[0],
                                                      &d[1], &d[2]);
        if (status == ATTUNE_OK) status = attune_linear_state_new(&options, &st);
        if (status == ATTUNE_OK) status = attune_linear_state_append(st, &c.k, &c.v);
        attune_memory_fail_at(0);
        if (st && status != ATTUNE_OK) assert_int_equal(attune_linear_state_length(st), 0);
        assert_true(status == ATTUNE_OK || status == ATTUNE_EMEMORY);
        ended = status == ATTUNE_OK;
        attune_tensor_close(&o);
        for (int i = 0; i < 3; i++) attune_tensor_close(&d[i]);
        attune_linear_state_close(st);
        assert_int_equal(attune_memory().bytes, before);
        assert_true(n < 100);
    }
    linear_close(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(agrees_with_the_definition),
                                       cmocka_unit_test(long_sequences_and_blocks),
                                       cmocka_unit_test(bits_do_not_depend_on_threads),
                                       cmocka_unit_test(state_equals_prefill),
                                       cmocka_unit_test(projection_is_orthogonal),
                                       cmocka_unit_test(features_are_unbiased),
                                       cmocka_unit_test(error_falls_with_features),
                                       cmocka_unit_test(large_scores),
                                       cmocka_unit_test(later_tokens_change_no_earlier_row),
                                       cmocka_unit_test(misuse_is_an_error),
                                       cmocka_unit_test(every_allocation_may_fail)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
