/* test_nn.c - what stands around attention: gradients by finite differences in f64, f32 and 16 bits
 * against f64, the same bits for any number of threads. */
#include "problems.h"
#include "test.h"

/* An operation over up to three float tensors; value: sum(result times some weights), gradients of
 * each tensor. */
enum { RMS, RMS_PLAIN, LAYER, GELU, GELU_TANH, SWIGLU, LOSS, EMBEDDING, OPERATIONS };
static const char *const names[] = {
    "rms_norm", "rms_norm without weight", "layer_norm", "gelu", "gelu with tanh",
    "swiglu",   "cross_entropy",           "embedding"};
enum { ROWS = 7, N = 37 };

typedef struct operation {
    attune_tensor in[3], weights, ids;
    int inputs;
} operation;

static void normal(attune_dtype dtype, uint64_t seed, int rank, const int64_t *shape,
                   attune_tensor *out) {
    attune_tensor in_f64;
    MUST(attune_tensor_new(ATTUNE_F64, rank, shape, &in_f64));
    MUST(attune_tensor_normal(&in_f64, seed, 0, 1));
    MUST(attune_tensor_convert(&in_f64, dtype, out));
    attune_tensor_close(&in_f64);
}

static void make(int which, attune_dtype dtype, operation *o) {
    const int64_t matrix[2] = {ROWS, N}, vector[1] = {N}, ids[1] = {ROWS};
    memset(o, 0, sizeof *o);
    normal(dtype, 1, 2, matrix, &o->in[0]);
    o->inputs = 1;
    if (which == RMS || which == LAYER) {
        normal(dtype, 2, 1, vector, &o->in[1]);
        o->inputs = 2;
    }
    if (which == LAYER) {
        normal(dtype, 3, 1, vector, &o->in[2]);
        o->inputs = 3;
    }
    if (which == SWIGLU) {
        normal(dtype, 2, 2, matrix, &o->in[1]);
        o->inputs = 2;
    }
    normal(dtype, 4, 2, matrix, &o->weights);
    MUST(attune_tensor_new(ATTUNE_I64, 1, ids, &o->ids));
    for (int i = 0; i < ROWS; i++)
        ((int64_t *)o->ids.data)[i] = which == LOSS ? (i == 3 ? -1 : (i * 11) % N) : (i * i) % ROWS;
}

static void close_operation(operation *o) {
    attune_tensor *all[] = {&o->in[0], &o->in[1], &o->in[2], &o->weights, &o->ids};
    for (int i = 0; i < 5; i++) attune_tensor_close(all[i]);
}

static double element(const attune_tensor *t, int64_t i) {
    double x = 0;
    int64_t index[2] = {t->rank == 2 ? i / t->shape[1] : i, t->rank == 2 ? i % t->shape[1] : 0};
    MUST(attune_tensor_get(t, index, &x));
    return x;
}

static double weighted(const operation *o, const attune_tensor *y) {
    double sum = 0;
    for (int64_t i = 0, n = attune_tensor_count(y); i < n; i++)
        sum += element(y, i) * element(&o->weights, i);
    return sum;
}

static double run(int which, operation *o, attune_tensor d[3]) {
    attune_tensor y = {0}, a = {0}, b = {0};
    double value = 0;
    const attune_tensor *x = &o->in[0];
    switch (which) {
    case RMS:
    case RMS_PLAIN:
        MUST(attune_rms_norm(x, which == RMS ? &o->in[1] : NULL, 1e-5, &y, &a));
        if (d)
            MUST(attune_rms_norm_backward(&o->weights, x, which == RMS ? &o->in[1] : NULL, &a,
                                          &d[0], which == RMS ? &d[1] : NULL));
        break;
    case LAYER:
        MUST(attune_layer_norm(x, &o->in[1], &o->in[2], 1e-5, &y, &a, &b));
        if (d)
            MUST(
                attune_layer_norm_backward(&o->weights, x, &o->in[1], &a, &b, &d[0], &d[1], &d[2]));
        break;
    case GELU:
    case GELU_TANH:
        MUST(attune_gelu(x, which == GELU_TANH, &y));
        if (d) MUST(attune_gelu_backward(&o->weights, x, which == GELU_TANH, &d[0]));
        break;
    case SWIGLU:
        MUST(attune_swiglu(x, &o->in[1], &y));
        if (d) MUST(attune_swiglu_backward(&o->weights, x, &o->in[1], &d[0], &d[1]));
        break;
    case LOSS:
        MUST(attune_cross_entropy(x, &o->ids, -1, &value, &a));
        if (d) MUST(attune_cross_entropy_backward(1, x, &o->ids, -1, &a, &d[0]));
        break;
    default:
        MUST(attune_embedding(x, &o->ids, &y));
        if (d) MUST(attune_embedding_backward(&o->weights, &o->ids, ROWS, &d[0]));
        break;
    }
    if (y.data) value = weighted(o, &y);
    attune_tensor_close(&y);
    attune_tensor_close(&a);
    attune_tensor_close(&b);
    return value;
}

/* A central difference in f64 errs by some 1e-10 of the value's scale. */
static void gradients_agree_with_differences(void **state) {
    (void)state;
    for (int which = 0; which < OPERATIONS; which++) {
        operation o;
        attune_tensor d[3] = {{0}, {0}, {0}};
        make(which, ATTUNE_F64, &o);
        run(which, &o, d);
        for (int t = 0; t < o.inputs; t++) {
            for (int64_t i = 0, n = attune_tensor_count(&o.in[t]); i < n; i++) {
                double *x = (double *)o.in[t].data + i, before = *x, value[2];
                for (int side = 0; side < 2; side++) {
                    *x = before + (side ? 1e-5 : -1e-5);
                    value[side] = run(which, &o, NULL);
                }
                *x = before;
                const double slope = (value[1] - value[0]) / 2e-5, got = element(&d[t], i);
                if (!(fabs(slope - got) <= 1e-6 * (1 + fabs(slope))))
                    fail_msg("%s: input %d, element %d: %g, got %g", names[which], t, (int)i, slope,
                             got);
            }
        }
        for (int t = 0; t < 3; t++) attune_tensor_close(&d[t]);
        close_operation(&o);
    }
}

/* The same inputs, exact in each dtype, in f64: f32 errs by units of what it sums, 16 bits by their
 * rounding of the results. */
static void dtypes_agree_with_f64(void **state) {
    (void)state;
    static const attune_dtype dtypes[] = {ATTUNE_F32, ATTUNE_BF16, ATTUNE_F16};
    for (int which = 0; which < OPERATIONS; which++) {
        for (int n = 0; n < 3; n++) {
            operation o, exact;
            attune_tensor d[3] = {{0}, {0}, {0}}, e[3] = {{0}, {0}, {0}};
            make(which, dtypes[n], &o);
            exact = o;
            for (int t = 0; t < o.inputs; t++)
                MUST(attune_tensor_convert(&o.in[t], ATTUNE_F64, &exact.in[t]));
            MUST(attune_tensor_convert(&o.weights, ATTUNE_F64, &exact.weights));
            const double a = run(which, &o, d), b = run(which, &exact, e),
                         unit = n == 0   ? 0x1p-24
                                : n == 1 ? 0x1p-9
                                         : 0x1p-12;
            assert_true(fabs(a - b) <= unit * 4 * ROWS * N);
            for (int t = 0; t < o.inputs; t++) {
                if (!(difference(&d[t], &e[t]) <= unit * 2 * 12 + 0x1p-20))
                    fail_msg("%s in %s: gradient %d differs by %g", names[which],
                             attune_dtype_name(dtypes[n]), t, difference(&d[t], &e[t]));
                attune_tensor_close(&d[t]);
                attune_tensor_close(&e[t]);
                attune_tensor_close(&exact.in[t]);
            }
            attune_tensor_close(&exact.weights);
            close_operation(&o);
        }
    }
}

static void bits_do_not_depend_on_threads(void **state) {
    (void)state;
    const int64_t shape[2] = {3000, 96}, vector[1] = {96}, tokens[1] = {3000};
    attune_tensor x, w, dy, ids, y, rstd, one[3], many[3];
    normal(ATTUNE_F32, 1, 2, shape, &x);
    normal(ATTUNE_F32, 2, 1, vector, &w);
    normal(ATTUNE_F32, 3, 2, shape, &dy);
    MUST(attune_tensor_new(ATTUNE_I64, 1, tokens, &ids));
    for (int i = 0; i < 3000; i++) ((int64_t *)ids.data)[i] = i * 7 % 50;
    MUST(attune_rms_norm(&x, &w, 1e-6, &y, &rstd));
    for (int n = 0; n < 2; n++) {
        attune_tensor *d = n ? many : one;
        MUST(attune_threads(n ? 3 : 1, NULL));
        MUST(attune_rms_norm_backward(&dy, &x, &w, &rstd, &d[0], &d[1]));
        MUST(attune_embedding_backward(&dy, &ids, 50, &d[2]));
    }
    MUST(attune_threads(2, NULL));
    MUST(attune_embedding_accumulate(&dy, &ids, &many[2])); /* twice the gradient */
    for (int64_t i = 0; i < 50 * 96; i++) {
        const float once = ((float *)one[2].data)[i];
        assert_true(fabsf(((float *)many[2].data)[i] - 2 * once) <= 1e-4F);
        ((float *)many[2].data)[i] = once;
    }
    for (int t = 0; t < 3; t++) {
        assert_memory_equal(one[t].data, many[t].data, (size_t)attune_tensor_nbytes(&one[t]));
        attune_tensor_close(&one[t]);
        attune_tensor_close(&many[t]);
    }
    attune_tensor *all[] = {&x, &w, &dy, &ids, &y, &rstd};
    for (int i = 0; i < 6; i++) attune_tensor_close(all[i]);
}

static void extremes_stay_sane(void **state) {
    (void)state;
    const int64_t shape[2] = {1, 6}, one[1] = {1};
    const float x[6] = {-INFINITY, -100, -6, 0, 100, INFINITY},
                logits[6] = {1000, -INFINITY, 999, 0, -1000, 998};
    attune_tensor t, y, ids, lse;
    double loss;
    MUST(attune_tensor_wrap(ATTUNE_F32, 2, shape, NULL, (void *)x, &t));
    for (int with_tanh = 0; with_tanh < 2; with_tanh++) {
        MUST(attune_gelu(&t, with_tanh, &y));
        const float *g = y.data;
        assert_true(g[0] == 0 && fabsf(g[1]) < 1e-30f && g[2] <= 0 && g[2] > -1e-7f && g[3] == 0 &&
                    g[4] == 100 && g[5] == INFINITY);
        attune_tensor_close(&y);
    }
    MUST(attune_tensor_wrap(ATTUNE_F32, 2, shape, NULL, (void *)logits, &t));
    MUST(attune_tensor_new(ATTUNE_I64, 1, one, &ids));
    ((int64_t *)ids.data)[0] = 2;
    MUST(attune_cross_entropy(&t, &ids, -1, &loss, &lse));
    assert_true(fabs(loss - (1 + log(1 + exp(-1) + exp(-2)))) <
                1e-4); /* 1000 has 24 bits: units of 6e-5 */
    attune_tensor_close(&lse);
    attune_tensor_close(&ids);
}

/* The published algorithm, by hand, over three steps. */
static void adamw_follows_the_algorithm(void **state) {
    (void)state;
    const int64_t shape[1] = {5};
    for (int n = 0; n < 2; n++) {
        const attune_dtype dtype = n ? ATTUNE_F64 : ATTUNE_F32;
        attune_tensor p, g, m, v;
        double ep[5], em[5] = {0}, ev[5] = {0};
        normal(dtype, 1, 1, shape, &p);
        normal(dtype, 2, 1, shape, &g);
        MUST(attune_tensor_new(dtype, 1, shape, &m));
        MUST(attune_tensor_new(dtype, 1, shape, &v));
        for (int i = 0; i < 5; i++) ep[i] = element(&p, i);
        for (int step = 1; step <= 3; step++) {
            const attune_adamw_options o = {.lr = 1e-2,
                                            .beta1 = 0.9,
                                            .beta2 = 0.95,
                                            .eps = 1e-8,
                                            .weight_decay = 0.1,
                                            .step = step};
            MUST(attune_adamw(&o, &p, &g, &m, &v));
            for (int i = 0; i < 5; i++) {
                const double x = element(&g, i);
                em[i] = 0.9 * em[i] + 0.1 * x;
                ev[i] = 0.95 * ev[i] + 0.05 * x * x;
                ep[i] -= 1e-2 * (em[i] / (1 - pow(0.9, step)) /
                                     (sqrt(ev[i] / (1 - pow(0.95, step))) + 1e-8) +
                                 0.1 * ep[i]);
                assert_true(fabs(element(&p, i) - ep[i]) <= (n ? 1e-14 : 1e-6));
            }
        }
        attune_tensor *all[] = {&p, &g, &m, &v};
        for (int i = 0; i < 4; i++) attune_tensor_close(all[i]);
    }
}

static void misuse_is_an_error(void **state) {
    (void)state;
    const int64_t shape[2] = {2, 4}, other[1] = {3}, two[1] = {2};
    attune_tensor x, w, ids, y, rstd;
    double loss;
    normal(ATTUNE_F32, 1, 2, shape, &x);
    normal(ATTUNE_F32, 1, 1, other, &w);
    assert_int_equal(attune_rms_norm(&x, &w, 0, &y, &rstd), ATTUNE_ESHAPE);
    assert_non_null(strstr(attune_message(), "weight: expected [4]"));
    assert_int_equal(attune_swiglu(&x, &w, &y), ATTUNE_ESHAPE);
    MUST(attune_tensor_new(ATTUNE_I64, 1, two, &ids));
    ((int64_t *)ids.data)[1] = 4;
    assert_int_equal(attune_cross_entropy(&x, &ids, -1, &loss, &y), ATTUNE_EVALUE);
    assert_non_null(strstr(attune_message(), "targets: expected ids from 0 to 3"));
    assert_int_equal(attune_embedding(&x, &ids, &y), ATTUNE_EVALUE);
    attune_tensor_close(&x);
    attune_tensor_close(&w);
    attune_tensor_close(&ids);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_agree_with_differences), cmocka_unit_test(dtypes_agree_with_f64),
        cmocka_unit_test(bits_do_not_depend_on_threads),    cmocka_unit_test(extremes_stay_sane),
        cmocka_unit_test(adamw_follows_the_algorithm),      cmocka_unit_test(misuse_is_an_error)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
