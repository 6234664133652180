/* test_weight.c - products with weights in every format, in every instruction set, against a
 * product in double precision of the same stored values. */
#include <math.h>
#include <stdlib.h>

#include "base/numbers.h"
#include "base/parallel.h"
#include "problems.h"
#include "quant/weight.h"
#include "simd/dispatch.h"
#include "test.h"

enum { INPUTS = 512, OUTPUTS = 70, MAX_ROWS = 9 };

static uint64_t state;

static uint32_t next_bits(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33);
}

/* From -1 to 1. */
static float draw_number(void) { return (float)((double)(next_bits() % 20001) / 10000.0 - 1.0); }

/* Random bytes as blocks, whose f16 factors are finite and small. */
static void fill(const at_format *f, uint8_t *data, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i++) data[i] = (uint8_t)next_bits();
    for (int64_t at = 0; at < bytes; at += f->bytes) {
        const uint16_t d = at_f32_to_f16(draw_number() / 16), m = at_f32_to_f16(draw_number() / 16);
        const bool last = strcmp(f->name, "Q6_K") == 0,
                   two = strchr(f->name, '1') || f->values > 32;
        memcpy(data + at + (last ? 208 : 0), &d, 2);
        if (two && !last) memcpy(data + at + 2, &m, 2);
    }
}

static void fill_plain(const at_format *f, uint8_t *data, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        const float x = draw_number();
        const uint16_t half = f->dtype == ATTUNE_F16 ? at_f32_to_f16(x) : at_f32_to_bf16(x);
        if (f->dtype == ATTUNE_F32)
            memcpy(data + 4 * i, &x, 4);
        else
            memcpy(data + 2 * i, &half, 2);
    }
}

static double value_at(const at_format *f, const uint8_t *data, const float *unpacked, int64_t i) {
    uint16_t half;
    float x;
    if (f->to_f32) return (double)unpacked[i];
    if (f->dtype == ATTUNE_F32) {
        memcpy(&x, data + 4 * i, 4);
        return (double)x;
    }
    memcpy(&half, data + 2 * i, 2);
    return (double)(f->dtype == ATTUNE_F16 ? at_f16_to_f32(half) : at_bf16_to_f32(half));
}

/* The sum of n products in f32, in any order, is off by at most n 2^-23 times the sum of their
 * magnitudes; Q4_0 and Q4_1 split each product in two, of up to 16 times its size. */
static void check_product(const at_format *f, int64_t inputs, int64_t rows) {
    attune_weight *w;
    void *bytes;
    MUST(at_weight_new(f, OUTPUTS, inputs, &w, &bytes));
    const int64_t count = OUTPUTS * inputs, size = count / f->values * f->bytes;
    if (f->to_f32)
        fill(f, bytes, size);
    else
        fill_plain(f, bytes, count);
    float *unpacked = malloc((size_t)count * 4);
    assert_non_null(unpacked);
    if (f->to_f32) f->to_f32(bytes, count / f->values, unpacked);
    attune_tensor x, bias, y;
    const int64_t shape[2] = {rows, inputs}, outputs = OUTPUTS;
    MUST(attune_tensor_new(ATTUNE_F32, 2, shape, &x));
    MUST(attune_tensor_new(ATTUNE_F32, 1, &outputs, &bias));
    for (int64_t i = 0; i < rows * inputs; i++) ((float *)x.data)[i] = draw_number();
    for (int64_t i = 0; i < OUTPUTS; i++) ((float *)bias.data)[i] = draw_number();
    MUST(attune_weight_apply(w, &x, &bias, &y));
    const double spread = strncmp(f->name, "Q4_", 3) == 0 && f->values == 32 ? 16.0 : 1.0;
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t o = 0; o < OUTPUTS; o++) {
            double sum = (double)((float *)bias.data)[o], size_of_terms = fabs(sum);
            for (int64_t i = 0; i < inputs; i++) {
                const double term = value_at(f, bytes, unpacked, o * inputs + i) *
                                    (double)((float *)x.data)[r * inputs + i];
                sum += term;
                size_of_terms += fabs(term);
            }
            const double got = (double)((float *)y.data)[r * OUTPUTS + o];
            const double bound = spread * (double)inputs * 0x1p-23 * (size_of_terms + 1.0);
            if (!(fabs(got - sum) <= bound)) {
                fail_msg("%s, %s, %lld inputs, row %lld of %lld, output %lld: %.9g, expected %.9g",
                         at_simd_now()->name, f->name, (long long)inputs, (long long)r,
                         (long long)rows, (long long)o, got, sum);
            }
        }
    }
    attune_tensor_close(&x);
    attune_tensor_close(&bias);
    attune_tensor_close(&y);
    attune_weight_close(w);
    free(unpacked);
}

static bool is_weight(const at_format *f) {
    return f->dtype == ATTUNE_F32 || f->dtype == ATTUNE_F16 || f->dtype == ATTUNE_BF16;
}

static void products_are_exact_up_to_rounding(void **unused) {
    (void)unused;
    state = 7;
    MUST(attune_init());
    for (const at_format *f = at_formats; f->name; f++) {
        if (!is_weight(f)) continue;
        for (int64_t rows = 1; rows <= MAX_ROWS; rows += 4) {
            check_product(f, INPUTS, rows);
            if (f->values == 1) check_product(f, 37, rows); /* lanes that are not filled */
            if (f->values == 32) check_product(f, 96, rows);
        }
    }
}

/* The kernels of every set that this machine has agree on one row. */
static void sets_agree(void **unused) {
    (void)unused;
    const char *names[16];
    float x[INPUTS], sums[INPUTS / 32], exact[AT_WEIGHT_KINDS], got;
    static uint8_t data[AT_WEIGHT_KINDS][INPUTS * 4];
    state = 11;
    for (int i = 0; i < INPUTS; i++) x[i] = draw_number();
    const int sets = at_simd_available(names, 16);
    for (int s = 0; s < sets; s++) {
        at_simd set;
        int kind = 0;
        assert_true(at_simd_table(names[s], &set));
        set.weights.sum_32(x, INPUTS / 32, sums);
        static const char *const formats[AT_WEIGHT_KINDS] = {"F32",  "F16",  "BF16",
                                                             "Q8_0", "Q4_0", "Q4_1"};
        for (; kind < AT_WEIGHT_KINDS; kind++) {
            const at_format *f = at_format_named(formats[kind]);
            const int64_t bytes = INPUTS / f->values * f->bytes;
            if (s == 0 && f->to_f32) fill(f, data[kind], bytes);
            if (s == 0 && !f->to_f32) fill_plain(f, data[kind], INPUTS);
            set.weights.dot[kind](data[kind], bytes, 1, x, sums, INPUTS, &got);
            if (s == 0) exact[kind] = got;
            if (!(fabsf(got - exact[kind]) <= 1e-3f * (1 + fabsf(exact[kind]))))
                fail_msg("%s: %s: %.9g, expected %.9g", names[s], formats[kind], (double)got,
                         (double)exact[kind]);
        }
    }
}

static void wrong_arguments_are_refused(void **unused) {
    (void)unused;
    attune_tensor m, x, y, ids;
    attune_weight *w;
    const int64_t shape[2] = {3, 4}, wrong[2] = {1, 5}, one = 1;
    MUST(attune_tensor_new(ATTUNE_F32, 2, shape, &m));
    MUST(attune_tensor_new(ATTUNE_F32, 2, wrong, &x));
    MUST(attune_tensor_new(ATTUNE_I64, 1, &one, &ids));
    MUST(attune_weight_of(&m, &w));
    assert_int_equal(attune_weight_apply(w, &x, NULL, &y), ATTUNE_ESHAPE);
    assert_int_equal(attune_weight_apply(w, &ids, NULL, &y), ATTUNE_EDTYPE);
    MUST(attune_weight_rows(w, &ids, &y));
    assert_int_equal(y.shape[1], 4);
    attune_tensor_close(&y);
    *(int64_t *)ids.data = 3;
    assert_int_equal(attune_weight_rows(w, &ids, &y), ATTUNE_EVALUE);
    *(int64_t *)ids.data = -1;
    assert_int_equal(attune_weight_rows(w, &ids, &y), ATTUNE_EVALUE);
    attune_weight_close(w);
    assert_int_equal(attune_weight_of(&ids, &w), ATTUNE_ESHAPE);
    attune_tensor_close(&m);
    attune_tensor_close(&x);
    attune_tensor_close(&ids);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_exact_up_to_rounding),
        cmocka_unit_test(sets_agree),
        cmocka_unit_test(wrong_arguments_are_refused),
    };
    return cmocka_run_group_tests_name("weight", tests, NULL, NULL);
}
