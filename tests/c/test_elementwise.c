/* test_elementwise.c - the vector loops against libm and against one-at-a-time conversions, on the
 * set in use. */
#include "base/numbers.h"
#include "simd/table.h"
#include "test.h"

enum { COUNT = 100003 };

/* The error in units in the last place of the f32 nearest to the exact value. */
static double ulps(float got, double truth) {
    if (isnan(truth)) return isnan(got) ? 0 : INFINITY;
    if (isinf((float)truth)) return got == (float)truth ? 0 : INFINITY;
    if (!isfinite(got)) return INFINITY;
    double unit = fmax(ldexp(1, ilogb(truth == 0 ? 1e-45 : truth) - 23), 0x1p-149);
    return fabs((double)got - truth) / unit;
}

static void check(const char *name, void (*kernel)(const float *, float *, int64_t),
                  double (*truth)(double), float low, float high, double max_ulps) {
    float *x = malloc(COUNT * sizeof *x), *y = malloc(COUNT * sizeof *y);
    for (int i = 0; i < COUNT; i++) x[i] = low + (high - low) * (float)i / (COUNT - 1);
    static const float special[] = {NAN, INFINITY, -INFINITY, 0.0f, -0.0f, 1e-30f};
    memcpy(x, special, sizeof special);
    kernel(x, y, COUNT);
    for (int i = 0; i < COUNT; i++) {
        double u = ulps(y[i], truth((double)x[i]));
        if (!(u <= max_ulps))
            fail_msg("%s(%.9g) is %.9g, %.2f ulp from %.17g", name, (double)x[i], (double)y[i], u,
                     truth((double)x[i]));
    }
    free(x);
    free(y);
}

static double sigmoid(double x) { return x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x)); }

static void functions_are_near_the_truth(void **state) {
    (void)state;
    const at_elementwise_kernels *k = &at_simd_now()->elementwise;
    check("exp", k->exp, exp, -110, 95, 2);
    check("exp", k->exp, exp, -1, 1, 2);
    check("tanh", k->tanh, tanh, -10, 10, 4);
    check("tanh", k->tanh, tanh, -0.3f, 0.3f, 4);
    check("sigmoid", k->sigmoid, sigmoid, -90, 90, 4);
}

static void conversions_are_exact(void **state) {
    (void)state;
    const at_elementwise_kernels *k = &at_simd_now()->elementwise;
    static uint16_t half[65536], back[65536];
    static float full[65536];
    for (int i = 0; i < 65536; i++) half[i] = (uint16_t)i;
    k->bf16_to_f32(half, full, 65536);
    for (int i = 0; i < 65536; i++) {
        float f = at_bf16_to_f32(half[i]);
        assert_memory_equal(&full[i], &f, sizeof f);
    }
    k->f16_to_f32(half, full, 65536);
    for (int i = 0; i < 65536; i++) {
        float f = at_f16_to_f32(half[i]);
        if (f == f)
            assert_memory_equal(&full[i], &f, sizeof f);
        else
            assert_true(full[i] != full[i]);
    }
    for (uint32_t round = 0; round < 64; round++) {
        for (uint32_t i = 0; i < 65535; i++)
            full[i] = at_f32_of_bits((i * 65537u + round * 0x01234567u) ^ (round << 11));
        k->f32_to_bf16(full, back, 65535);
        for (int i = 0; i < 65535; i++) assert_int_equal(back[i], at_f32_to_bf16(full[i]));
        k->f32_to_f16(full, back, 65535);
        for (int i = 0; i < 65535; i++) assert_int_equal(back[i], at_f32_to_f16(full[i]));
    }
}

static void sums_and_maxima(void **state) {
    (void)state;
    const at_elementwise_kernels *k = &at_simd_now()->elementwise;
    float x[1000];
    double truth = 0;
    for (int n = 0; n < 1000; n++) {
        x[n] = (float)(n * 37 % 101) - 50;
        truth += (double)x[n];
        assert_true(fabs(k->sum(x, n + 1) - truth) < 1e-9);
    }
    assert_true(k->max(x, 1000) == 50.0f);
    for (int n = 0; n < 1000; n += 7) {
        float keep = x[n];
        x[n] = NAN;
        assert_true(isnan(k->max(x, 1000)));
        x[n] = keep;
    }
    assert_true(k->max(x, 1) == x[0]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(functions_are_near_the_truth),
        cmocka_unit_test(conversions_are_exact),
        cmocka_unit_test(sums_and_maxima),
    };
    return cmocka_run_group_tests_name("elementwise", tests, NULL, NULL);
}
