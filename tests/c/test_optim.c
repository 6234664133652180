/* test_optim.c - the loss with its output projection against attune_cross_entropy and differences,
 * dropout, optimisers; the same bits for any number of threads; every allocation may fail. */
#include "test.h"

enum { ROWS = 9, D = 5, N = 13 };

typedef struct problem {
    attune_tensor x, weight, bias, targets, weights;
} problem;

static void normal(attune_dtype dtype, uint64_t seed, int rank, const int64_t *shape,
                   attune_tensor *out) {
    MUST(attune_tensor_new(dtype, rank, shape, out));
    MUST(attune_tensor_normal(out, seed, 0, 1));
}

static void make(attune_dtype dtype, int64_t rows, int64_t n, problem *p) {
    const int64_t x[2] = {rows, D}, weight[2] = {n, D};
    normal(dtype, 1, 2, x, &p->x);
    normal(dtype, 2, 2, weight, &p->weight);
    normal(dtype, 3, 1, &n, &p->bias);
    MUST(attune_tensor_new(ATTUNE_I64, 1, &rows, &p->targets));
    MUST(attune_tensor_new(dtype, 1, &rows, &p->weights));
    for (int64_t i = 0; i < rows; i++) {
        ((int64_t *)p->targets.data)[i] = i % 4 == 3 ? -100 : i * 7 % n;
        MUST(attune_tensor_set(&p->weights, &i, i % 4 == 3 ? 0 : 0.5 + (double)(i % 3)));
    }
}

static void close_problem(problem *p) {
    attune_tensor *all[] = {&p->x, &p->weight, &p->bias, &p->targets, &p->weights};
    for (int i = 0; i < 5; i++) attune_tensor_close(all[i]);
}

static double loss_of(const problem *p, attune_loss_options o, attune_tensor d[3]) {
    double loss = 0, nll = 0;
    o.gradients = d != NULL;
    MUST(attune_projected_loss(&p->x, &p->weight, &p->bias, &p->targets, &p->weights, &o, &loss,
                               &nll, d ? &d[0] : NULL, d ? &d[1] : NULL, d ? &d[2] : NULL));
    return loss;
}

/* A central difference in f64 errs by some 1e-10 of the value's scale. */
static void gradients_of_the_loss_agree_with_differences(void **state) {
    const attune_loss_options all[] = {{0},
                                       {.logit_scale = 0.5, .softcap = 2},
                                       {.label_smoothing = 0.2, .z_loss = 0.03},
                                       {.z_loss = 0.1, .logit_scale = 2}};
    (void)state;
    for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
        problem p;
        attune_tensor d[3];
        make(ATTUNE_F64, ROWS, N, &p);
        loss_of(&p, all[k], d);
        attune_tensor *in[3] = {&p.x, &p.weight, &p.bias};
        for (int t = 0; t < 3; t++) {
            double *value = in[t]->data;
            for (int64_t i = 0; i < attune_tensor_count(in[t]); i++) {
                const double before = value[i], h = 1e-5;
                value[i] = before + h;
                const double up = loss_of(&p, all[k], NULL);
                value[i] = before - h;
                const double down = loss_of(&p, all[k], NULL);
                value[i] = before;
                const double difference = (up - down) / (2 * h),
                             got = ((const double *)d[t].data)[i];
                if (!(fabs(difference - got) < 1e-8))
                    fail_msg("options %zu, tensor %d[%lld]: gradient %g, difference %g", k, t,
                             (long long)i, got, difference);
            }
            attune_tensor_close(&d[t]);
        }
        close_problem(&p);
    }
}

/* Large enough for several blocks of rows, in f32 against f64. */
static void blocks_of_rows_add_up(void **state) {
    enum { MANY = 700, WIDE = 40000 };
    problem p, wide;
    double loss = 0, nll = 0, narrow = 0;
    attune_tensor d[3] = {{0}, {0}, {0}}, e[3] = {{0}, {0}, {0}};
    const attune_loss_options o = {.gradients = true};
    (void)state;
    make(ATTUNE_F64, MANY, WIDE, &wide);
    make(ATTUNE_F32, MANY, WIDE, &p);
    MUST(attune_projected_loss(&wide.x, &wide.weight, NULL, &wide.targets, &wide.weights, &o, &loss,
                               &nll, &d[0], &d[1], NULL));
    MUST(attune_projected_loss(&p.x, &p.weight, NULL, &p.targets, &p.weights, &o, &narrow, &nll,
                               &e[0], &e[1], NULL));
    assert_true(fabs(loss - narrow) < 1e-5 * loss);
    for (int t = 0; t < 2; t++) {
        for (int64_t i = 0; i < attune_tensor_count(&d[t]); i += 97) {
            const double a = ((const double *)d[t].data)[i], b = ((const float *)e[t].data)[i];
            if (!(fabs(a - b) < 1e-6)) fail_msg("tensor %d[%lld]: %g, %g", t, (long long)i, a, b);
        }
        attune_tensor_close(&d[t]);
        attune_tensor_close(&e[t]);
    }
    close_problem(&p);
    close_problem(&wide);
}

static void threads_change_no_bit(void **state) {
    problem p;
    attune_tensor d[2][3];
    double loss[2];
    (void)state;
    make(ATTUNE_F32, 300, 1000, &p);
    for (int k = 0; k < 2; k++) {
        MUST(attune_threads(k + 1, NULL));
        loss[k] = loss_of(&p, (attune_loss_options){0}, d[k]);
    }
    assert_true(loss[0] == loss[1]);
    for (int t = 0; t < 3; t++) {
        assert_memory_equal(d[0][t].data, d[1][t].data, (size_t)attune_tensor_nbytes(&d[0][t]));
        attune_tensor_close(&d[0][t]);
        attune_tensor_close(&d[1][t]);
    }
    close_problem(&p);
}

static void without_a_token_that_counts_all_is_zero(void **state) {
    problem p;
    attune_tensor d[3];
    (void)state;
    make(ATTUNE_F32, ROWS, N, &p);
    MUST(attune_tensor_fill(&p.weights, 0));
    assert_true(loss_of(&p, (attune_loss_options){0}, d) == 0);
    for (int t = 0; t < 3; t++) {
        double sum = 1;
        MUST(attune_sum_of_squares(&d[t], &sum));
        assert_true(sum == 0);
        attune_tensor_close(&d[t]);
    }
    close_problem(&p);
}

static void wrong_arguments_are_refused(void **state) {
    problem p;
    double loss, nll;
    attune_loss_options o = {0};
    (void)state;
    make(ATTUNE_F32, ROWS, N, &p);
#define REFUSED(status, word)                                                                    \
    do {                                                                                         \
        assert_int_equal(attune_projected_loss(&p.x, &p.weight, &p.bias, &p.targets, &p.weights, \
                                               &o, &loss, &nll, NULL, NULL, NULL),               \
                         status);                                                                \
        assert_non_null(strstr(attune_message(), word));                                         \
    } while (0)
    o.softcap = -1;
    REFUSED(ATTUNE_EVALUE, "softcap");
    o = (attune_loss_options){.label_smoothing = 1};
    REFUSED(ATTUNE_EVALUE, "label_smoothing");
    o = (attune_loss_options){.z_loss = NAN};
    REFUSED(ATTUNE_EVALUE, "z_loss");
    o = (attune_loss_options){0};
    ((int64_t *)p.targets.data)[0] = N;
    REFUSED(ATTUNE_EVALUE, "targets");
    ((int64_t *)p.targets.data)[0] = 0;
    ((float *)p.weights.data)[0] = -1;
    REFUSED(ATTUNE_EVALUE, "weights");
    ((float *)p.weights.data)[0] = NAN;
    REFUSED(ATTUNE_EVALUE, "weights");
#undef REFUSED
    close_problem(&p);
}

/* Steps once with each optimiser. */
static attune_status steps(attune_tensor *p, const attune_tensor *g, attune_tensor *m) {
    const attune_sgd_options sgd = {.lr = 0.1, .momentum = 0.9, .nesterov = true};
    const attune_muon_options muon = {.lr = 0.1, .momentum = 0.9, .nesterov = true};
    attune_status status = attune_sgd(&sgd, p, g, m);
    return status == ATTUNE_OK ? attune_muon(&muon, p, g, m) : status;
}

static void failed_allocations_leave_nothing_behind(void **state) {
    problem p;
    attune_tensor m, y = {0};
    (void)state;
    make(ATTUNE_F32, ROWS, N, &p);
    MUST(attune_tensor_new(ATTUNE_F32, 2, p.weight.shape, &m));
    for (int64_t n = 1;; n++) {
        attune_tensor d[3] = {{0}, {0}, {0}};
        const attune_loss_options o = {.gradients = true};
        double loss, nll;
        const int64_t before = attune_memory().bytes;
        attune_memory_fail_at(n);
        attune_status status = attune_projected_loss(
            &p.x, &p.weight, &p.bias, &p.targets, &p.weights, &o, &loss, &nll, &d[0], &d[1], &d[2]);
        if (status == ATTUNE_OK) status = attune_dropout(&p.x, 0.5, 1, 2, 3, &y);
        if (status == ATTUNE_OK) status = steps(&p.weight, &d[1], &m);
        attune_memory_fail_at(0);
        for (int t = 0; t < 3; t++) attune_tensor_close(&d[t]);
        attune_tensor_close(&y);
        assert_int_equal(attune_memory().bytes, before);
        if (status == ATTUNE_OK) break;
        assert_int_equal(status, ATTUNE_EMEMORY);
    }
    attune_tensor_close(&m);
    close_problem(&p);
}

static void squares_of_large_and_small_numbers_are_summed(void **state) {
    attune_tensor t;
    const int64_t count = 1000;
    double sum;
    (void)state;
    MUST(attune_tensor_new(ATTUNE_F32, 1, &count, &t));
    for (int k = -30; k <= 30; k += 15) {
        const double value = pow(10, k);
        MUST(attune_tensor_fill(&t, value));
        MUST(attune_sum_of_squares(&t, &sum));
        assert_true(fabs(sum / (1000 * value * value) - 1) < 1e-5);
    }
    attune_tensor_close(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_of_the_loss_agree_with_differences),
        cmocka_unit_test(blocks_of_rows_add_up),
        cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(without_a_token_that_counts_all_is_zero),
        cmocka_unit_test(wrong_arguments_are_refused),
        cmocka_unit_test(failed_allocations_leave_nothing_behind),
        cmocka_unit_test(squares_of_large_and_small_numbers_are_summed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
