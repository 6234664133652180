/* test_weight.c - products with weights in every format, in every instruction set, against a
 * product in double precision of the same stored values. */
#include <math.h>
#include <stdlib.h>

#include "base/numbers.h"
#include "base/parallel.h"
#include "problems.h"
#include "quant/packed.h"
#include "quant/weight.h"
#include "simd/dispatch.h"
#include "test.h"

enum { INPUTS = 512, OUTPUTS = 70 };
/* Few rows, several, and more than any set of kernels reads packed weights for. */
static const int64_t row_counts[] = {1, 5, 9, 41};
enum { ROW_COUNTS = sizeof row_counts / sizeof *row_counts };

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

static double value_at(const at_format *f, const uint8_t *data, int64_t i) {
    uint16_t half;
    float x;
    if (f->dtype == ATTUNE_F32) {
        memcpy(&x, data + 4 * i, 4);
        return (double)x;
    }
    memcpy(&half, data + 2 * i, 2);
    return (double)(f->dtype == ATTUNE_F16 ? at_f16_to_f32(half) : at_bf16_to_f32(half));
}

typedef struct file_rows {
    const uint8_t *data;
    int64_t row_bytes;
} file_rows;

static attune_status copy_rows(const void *context, int64_t first, int64_t count, void *to) {
    const file_rows *f = context;
    memcpy(to, f->data + first * f->row_bytes, (size_t)(count * f->row_bytes));
    return ATTUNE_OK;
}

/* A weight of random numbers, whose values are put at `values`. */
static attune_weight *new_weight(const at_format *f, int64_t outputs, int64_t inputs,
                                 double *values) {
    attune_weight *w;
    const int64_t count = outputs * inputs, bytes = count / f->values * f->bytes;
    if (!f->to_f32) {
        void *data;
        MUST(at_weight_new(f, outputs, inputs, NULL, &w, &data));
        fill_plain(f, data, count);
        for (int64_t i = 0; i < count; i++) values[i] = value_at(f, data, i);
        return w;
    }
    uint8_t *data = malloc((size_t)bytes);
    float *unpacked = malloc((size_t)count * 4);
    assert_true(data && unpacked);
    fill(f, data, bytes);
    f->to_f32(data, count / f->values, unpacked);
    for (int64_t i = 0; i < count; i++) values[i] = (double)unpacked[i];
    const file_rows rows = {data, bytes / outputs};
    MUST(at_weight_new_packed(f, outputs, inputs, ATTUNE_COMPUTE_F32, copy_rows, &rows, NULL, &w));
    free(data);
    free(unpacked);
    return w;
}

/* The sum of n products in f32, in any order, is off by at most n 2^-23 times the sum of their
 * magnitudes; Q4_0 and Q4_1 split each product in two, of up to 16 times its size. */
static void check_product(const at_format *f, int64_t inputs, int64_t rows) {
    static double values[OUTPUTS * INPUTS];
    attune_weight *w = new_weight(f, OUTPUTS, inputs, values);
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
                const double term =
                    values[o * inputs + i] * (double)((float *)x.data)[r * inputs + i];
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
        for (int i = 0; i < ROW_COUNTS; i++) {
            check_product(f, INPUTS, row_counts[i]);
            if (f->values == 1) check_product(f, 37, row_counts[i]); /* lanes that are not filled */
            if (f->values == 32) check_product(f, 96, row_counts[i]);
        }
    }
}

/* The kernels of every set that this machine has agree on one row of plain numbers. */
static void sets_agree(void **unused) {
    (void)unused;
    const char *names[16];
    float x[INPUTS], exact[AT_WEIGHT_KINDS], got;
    static uint8_t data[AT_WEIGHT_KINDS][INPUTS * 4];
    state = 11;
    for (int i = 0; i < INPUTS; i++) x[i] = draw_number();
    const int sets = at_simd_available(names, 16);
    for (int s = 0; s < sets; s++) {
        at_simd set;
        assert_true(at_simd_table(names[s], &set));
        static const char *const formats[AT_WEIGHT_KINDS] = {"F32", "F16", "BF16"};
        for (int kind = 0; kind < AT_WEIGHT_KINDS; kind++) {
            const at_format *f = at_format_named(formats[kind]);
            if (s == 0) fill_plain(f, data[kind], INPUTS);
            set.weights.dot[kind](data[kind], INPUTS * f->bytes, 1, x, INPUTS, &got);
            if (s == 0) exact[kind] = got;
            if (!(fabsf(got - exact[kind]) <= 1e-3f * (1 + fabsf(exact[kind]))))
                fail_msg("%s: %s: %.9g, expected %.9g", names[s], formats[kind], (double)got,
                         (double)exact[kind]);
        }
    }
}

/* ---- packed weights -------------------------------------------------------------------------- */

enum { PACKED_INPUTS = 512, PACKED_ROWS = 13 };

static const char *const packed_formats[AT_PACKED_KINDS] = {"Q8_0", "Q4_0", "Q4_1", "Q5_0",
                                                            "Q5_1", "Q4_K", "Q5_K", "Q6_K"};

/* 13 of 16 outputs of a format, as a file has them and as a panel. */
typedef struct packed_case {
    int outputs;
    int64_t row_bytes;
    uint8_t *rows, *panel;
} packed_case;

static packed_case new_case(int kind, bool extreme) {
    const at_format *f = at_format_named(packed_formats[kind]);
    packed_case c = {.outputs = 13, .row_bytes = PACKED_INPUTS / f->values * f->bytes};
    assert_int_equal(at_packed_kind_of(f), kind);
    c.rows = malloc((size_t)(c.outputs * c.row_bytes));
    c.panel = aligned_alloc(64, (size_t)at_packed_bytes(kind, PACKED_INPUTS));
    assert_true(c.rows && c.panel);
    fill(f, c.rows, c.outputs * c.row_bytes);
    const uint16_t one = at_f32_to_f16(1.0f), zero = 0;
    for (int64_t at = 0; at < c.outputs * c.row_bytes && extreme; at += f->bytes) {
        /* The largest integers of the format; of Q8_0 also -128 and 127, in pairs. */
        memset(c.rows + at, 255, (size_t)f->bytes);
        for (int i = 2; i < f->bytes && kind == AT_PACKED_Q8_0; i++)
            c.rows[at + i] = (i / 2) % 3 ? 0x80 : 0x7f;
        memcpy(c.rows + at + (kind == AT_PACKED_Q6_K ? 208 : 0), &one, 2);
        if (at_packed_layouts[kind].head >= 64 && kind != AT_PACKED_Q6_K)
            memcpy(c.rows + at + 2, &zero, 2);
    }
    at_pack_panel(kind, c.rows, c.row_bytes, c.outputs, PACKED_INPUTS, c.panel);
    return c;
}

static void close_case(packed_case *c) {
    free(c->rows);
    free(c->panel);
}

static void packed_weights_are_those_of_the_file(void **unused) {
    (void)unused;
    static float expected[PACKED_INPUTS], got[PACKED_INPUTS];
    state = 5;
    for (int kind = 0; kind < AT_PACKED_KINDS; kind++) {
        const at_format *f = at_format_named(packed_formats[kind]);
        packed_case c = new_case(kind, false);
        for (int o = 0; o < c.outputs; o++) {
            f->to_f32(c.rows + o * c.row_bytes, PACKED_INPUTS / f->values, expected);
            at_unpack_row(kind, c.panel, o, PACKED_INPUTS, got);
            for (int i = 0; i < PACKED_INPUTS; i++) {
                if (expected[i] == got[i]) continue;
                fail_msg("%s, output %d, input %d: %.9g, expected %.9g", f->name, o, i,
                         (double)got[i], (double)expected[i]);
            }
        }
        close_case(&c);
    }
}

static void expect_product(const at_simd *set, const at_format *f, int row, int output, double got,
                           double expected, double bound) {
    if (!(fabs(got - expected) <= bound))
        fail_msg("%s, %s, row %d, output %d: %.9g, expected %.9g within %g", set->name, f->name,
                 row, output, got, expected, bound);
}

/* Every set: f32 products against double precision, bounded as in check_product(); one row has the
 * bits that it has among others; unpacked weights have the bits of to_f32. */
static void check_float_products(const at_simd *set, int kind) {
    const at_format *f = at_format_named(packed_formats[kind]);
    static float x[PACKED_ROWS * PACKED_INPUTS], weights[PACKED_INPUTS],
        sums[PACKED_ROWS * PACKED_INPUTS / 32], unpacked[PACKED_INPUTS][20];
    float out[PACKED_ROWS][16], single[16];
    packed_case c = new_case(kind, false);
    for (int i = 0; i < PACKED_ROWS * PACKED_INPUTS; i++) x[i] = draw_number();
    set->quant.sum_32(x, PACKED_ROWS * PACKED_INPUTS / 32, sums);
    memset(out, 0, sizeof out);
    set->quant.float_product[kind](c.panel, PACKED_INPUTS, x, sums, PACKED_ROWS, c.outputs, out[0],
                                   16);
    set->quant.unpack[kind](c.panel, PACKED_INPUTS, unpacked[0], 20);
    for (int o = 0; o < 16; o++) {
        if (o < c.outputs) f->to_f32(c.rows + o * c.row_bytes, PACKED_INPUTS / f->values, weights);
        for (int i = 0; i < PACKED_INPUTS && o < c.outputs; i++) {
            if (unpacked[i][o] != weights[i])
                fail_msg("%s, %s, output %d, input %d: %.9g, expected %.9g", set->name, f->name, o,
                         i, (double)unpacked[i][o], (double)weights[i]);
        }
        for (int r = 0; r < PACKED_ROWS; r++) {
            double sum = 0.0, terms = 0.0;
            if (o >= c.outputs) {
                assert_true(out[r][o] == 0.0f); /* not written */
                continue;
            }
            for (int i = 0; i < PACKED_INPUTS; i++) {
                const double term = (double)weights[i] * (double)x[r * PACKED_INPUTS + i];
                sum += term;
                terms += fabs(term);
            }
            const double spread = at_packed_layouts[kind].bits == 4 && f->values == 32 ? 16.0 : 1.0;
            const double bound = spread * PACKED_INPUTS * 0x1p-23 * (terms + 1.0);
            expect_product(set, f, r, o, (double)out[r][o], sum, bound);
        }
    }
    for (int r = 0; r < PACKED_ROWS; r++) {
        set->quant.float_product[kind](c.panel, PACKED_INPUTS, x + r * PACKED_INPUTS,
                                       sums + r * PACKED_INPUTS / 32, 1, c.outputs, single, 16);
        assert_memory_equal(out[r], single, (size_t)c.outputs * sizeof(float));
    }
    close_case(&c);
}

static void float_products_are_those_of_the_weights(void **unused) {
    (void)unused;
    const char *names[16];
    const int sets = at_simd_available(names, 16);
    for (int s = -1; s < sets; s++) {
        at_simd set;
        assert_true(at_simd_table(s < 0 ? "amx_emulated" : names[s], &set));
        state = 17;
        for (int kind = 0; kind < AT_PACKED_KINDS; kind++) check_float_products(&set, kind);
    }
}

/* In double precision, from the definition: scale max |x| / 127 in f32, integers x / scale. A
 * quotient within 1e-5 of a half may be rounded to either side. */
static void check_activations(const at_quant_kernels *k, const char *set, const float *x,
                              int64_t count, int8_t *q, at_activation_block *of) {
    k->quantise(x, count / 32, q, of);
    for (int64_t b = 0; b < count / 32; b++) {
        float max = 0.0f;
        int first = 0, sum = 0;
        for (int64_t i = 32 * b; i < 32 * b + 32; i++) max = fmaxf(max, fabsf(x[i]));
        const float scale = max / 127.0f;
        if (of[b].scale != scale)
            fail_msg("%s: scale %.9g, expected %.9g", set, (double)of[b].scale, (double)scale);
        for (int64_t i = 32 * b; i < 32 * b + 32; i++) {
            const double exact = scale > 0.0f ? (double)x[i] / (double)scale : 0.0;
            if (!(fabs(q[i] - exact) <= 0.5 + 1e-5))
                fail_msg("%s: integer %d, expected %.9g", set, q[i], exact);
            sum += q[i];
            if (i < 32 * b + 16) first += q[i];
        }
        assert_true(of[b].sum == (float)sum && of[b].first_sum == (float)first);
        assert_true(of[b].scaled_sum == scale * (float)sum);
    }
}

/* The products of a set against a sum in double precision of the same integers, factors and scales.
 * An f32 sum of n terms is off by at most n 2^-24 of their magnitudes, each term by 4 roundings. */
static void check_integer_products(const at_simd *set, int kind, bool extreme) {
    const at_format *f = at_format_named(packed_formats[kind]);
    static float x[PACKED_ROWS * PACKED_INPUTS], weights[PACKED_INPUTS];
    static int8_t q[PACKED_ROWS * PACKED_INPUTS];
    static at_activation_block of[PACKED_ROWS * PACKED_INPUTS / 32];
    float out[PACKED_ROWS][16], single[16];
    packed_case c = new_case(kind, extreme);
    for (int i = 0; i < PACKED_ROWS * PACKED_INPUTS; i++)
        x[i] = !extreme ? draw_number() : i / PACKED_INPUTS % 2 ? -127.0f : 127.0f;
    check_activations(&set->quant, set->name, x, PACKED_ROWS * PACKED_INPUTS, q, of);
    memset(out, 0, sizeof out);
    set->quant.product[kind](c.panel, PACKED_INPUTS, q, of, PACKED_ROWS, c.outputs, out[0], 16);
    for (int r = 0; r < PACKED_ROWS; r++) {
        set->quant.product[kind](c.panel, PACKED_INPUTS, q + r * PACKED_INPUTS,
                                 of + r * PACKED_INPUTS / 32, 1, c.outputs, single, 16);
        assert_memory_equal(out[r], single, (size_t)c.outputs * sizeof(float));
        for (int o = 0; o < 16; o++) {
            double sum = 0.0, terms = 0.0;
            if (o >= c.outputs) {
                assert_true(out[r][o] == 0.0f); /* not written */
                continue;
            }
            f->to_f32(c.rows + o * c.row_bytes, PACKED_INPUTS / f->values, weights);
            for (int i = 0; i < PACKED_INPUTS; i++) {
                const int at = r * PACKED_INPUTS + i;
                const double term = (double)weights[i] * (double)of[at / 32].scale * q[at];
                sum += term;
                terms += fabs(term);
            }
            /* An offset per block adds terms of up to 64 times the size of the value. */
            const double spread = at_packed_layouts[kind].head >= 64 ? 64.0 : 1.0;
            const double bound = spread * (PACKED_INPUTS / 16 + 4) * 0x1p-24 * (terms + 1e-3);
            expect_product(set, f, r, o, (double)out[r][o], sum, bound);
        }
    }
    close_case(&c);
}

static void integer_products_are_those_of_the_quantised_numbers(void **unused) {
    (void)unused;
    const char *names[16];
    const int sets = at_simd_available(names, 16);
    for (int s = -1; s < sets; s++) {
        at_simd set;
        assert_true(at_simd_table(s < 0 ? "amx_emulated" : names[s], &set));
        state = 13;
        for (int kind = 0; kind < AT_PACKED_KINDS; kind++) {
            check_integer_products(&set, kind, false);
            /* Sums that would saturate 16 bits: all integers at their ends. */
            check_integer_products(&set, kind, true);
        }
    }
}

/* Planes of bytes hold an x to within half a unit, which is at most 2.4e-7 of the largest of its
 * 32; and their sums. */
static void check_planes(const char *set, const float *x, const int8_t *q, const at_split_block *of,
                         int64_t blocks) {
    for (int64_t b = 0; b < blocks; b++) {
        float max = 0.0f;
        double all = 0.0;
        int64_t sums[3] = {0};
        const double unit = (double)of[b].scale;
        for (int64_t i = 32 * b; i < 32 * b + 32; i++) max = fmaxf(max, fabsf(x[i]));
        for (int64_t i = 32 * b; i < 32 * b + 32; i++) {
            double got = 0.0;
            for (int p = 0; p < AT_PLANES; p++) {
                const int byte = q[32 * blocks * p + i];
                got = 256.0 * got + byte;
            }
            sums[0] += (int64_t)got;
            sums[i < 32 * b + 16 ? 1 : 2] += (int64_t)got;
            got *= unit;
            all += got;
            assert_true(unit <= (double)max / 4177000.0);
            if (!(fabs(got - (double)x[i]) <= unit / 2))
                fail_msg("%s: %.9g in planes, expected %.9g, the largest is %.9g", set, got,
                         (double)x[i], (double)max);
        }
        for (int i = 0; i < 3; i++)
            assert_true((int64_t)65536 * of[b].high[i] + of[b].low[i] == -8 * sums[i]);
        assert_true(fabs((double)of[b].scaled_sum - all) <= 0x1p-23 * 32.0 * (double)max);
    }
}

/* Products of planes against double precision. x is off by at most 2^-23 of the largest of its 32,
 * and a sum by two roundings per block of what the largest x would make of it. */
static void check_split_products(const at_simd *set, int kind) {
    const at_format *f = at_format_named(packed_formats[kind]);
    enum { BLOCKS = PACKED_INPUTS / 32 };
    static float x[PACKED_ROWS][PACKED_INPUTS], weights[PACKED_INPUTS];
    static int8_t q[PACKED_ROWS][AT_PLANES * PACKED_INPUTS];
    static at_split_block of[PACKED_ROWS][BLOCKS];
    float out[PACKED_ROWS][16] = {{0}}, single[16];
    packed_case c = new_case(kind, false);
    for (int r = 0; r < PACKED_ROWS; r++) {
        for (int i = 0; i < PACKED_INPUTS; i++) x[r][i] = draw_number() * (i % 7 ? 1.0f : 1e-3f);
        for (int i = 32; i < 64; i++) x[r][i] = i % 2 ? 1.0f : -1.0f;
        for (int i = 64; i < 96; i++) x[r][i] = i == 70 ? -3e4f : 0.0f;
        for (int i = 96; i < 128; i++) x[r][i] = 0.0f;
        assert_true(set->quant.split(x[r], BLOCKS, q[r], of[r]));
        check_planes(set->name, x[r], q[r], of[r], BLOCKS);
    }
    set->quant.split_product[kind](c.panel, PACKED_INPUTS, q[0], of[0], PACKED_ROWS, c.outputs,
                                   out[0], 16);
    for (int o = 0; o < 16; o++) {
        if (o < c.outputs) f->to_f32(c.rows + o * c.row_bytes, PACKED_INPUTS / f->values, weights);
        for (int r = 0; r < PACKED_ROWS; r++) {
            double sum = 0.0, terms = 0.0;
            if (o >= c.outputs) {
                assert_true(out[r][o] == 0.0f); /* not written */
                continue;
            }
            for (int i = 0; i < PACKED_INPUTS; i++) {
                sum += (double)weights[i] * (double)x[r][i];
                terms += fabs((double)weights[i]) * 0x7f8000 * (double)of[r][i / 32].scale;
            }
            const double spread = at_packed_layouts[kind].head >= 64 ? 64.0 : 1.0;
            const double bound = spread * (BLOCKS + 8) * 0x1p-24 * terms;
            expect_product(set, f, r, o, (double)out[r][o], sum, bound);
        }
    }
    for (int r = 0; r < PACKED_ROWS; r++) {
        set->quant.split_product[kind](c.panel, PACKED_INPUTS, q[r], of[r], 1, c.outputs, single,
                                       16);
        assert_memory_equal(out[r], single, (size_t)c.outputs * sizeof(float));
    }
    close_case(&c);
}

static void products_of_planes_are_those_of_the_weights(void **unused) {
    (void)unused;
    const char *names[16];
    const int sets = at_simd_available(names, 16);
    for (int s = 0; s < sets; s++) {
        at_simd set;
        assert_true(at_simd_table(names[s], &set));
        state = 19;
        for (int kind = 0; kind < AT_PACKED_KINDS; kind++)
            if (set.quant.split_product[kind]) check_split_products(&set, kind);
    }
}

/* The planes do not hold these x. */
static void what_does_not_fit_planes_is_multiplied_in_f32(void **unused) {
    (void)unused;
    const char *names[16];
    const int sets = at_simd_available(names, 16);
    for (int s = 0; s < sets; s++) {
        at_simd set;
        float x[64] = {[3] = 1.0f};
        int8_t q[AT_PLANES * 64];
        at_split_block of[2];
        assert_true(at_simd_table(names[s], &set));
        if (!set.quant.split) continue;
        assert_true(set.quant.split(x, 2, q, of));
        static const float others[] = {NAN, INFINITY, -INFINITY, 1e-44f, 1e-33f};
        for (int i = 0; i < 5; i++) {
            x[40] = others[i];
            assert_false(set.quant.split(x, 2, q, of));
        }
    }
    static double values[OUTPUTS * INPUTS];
    attune_tensor x, y;
    const int64_t shape[2] = {2, INPUTS};
    MUST(attune_tensor_new(ATTUNE_F32, 2, shape, &x));
    attune_weight *w = new_weight(at_format_named("Q4_1"), OUTPUTS, INPUTS, values);
    for (int row = 0; row < 2; row++) {
        float *to = (float *)x.data + row * INPUTS;
        for (int i = 0; i < INPUTS; i++) to[i] = row ? 1e-35f : 1.0f;
        if (row == 0) to[100] = INFINITY;
    }
    MUST(attune_weight_apply(w, &x, NULL, &y));
    for (int o = 0; o < OUTPUTS; o++) {
        double sum = 0.0, terms = 0.0;
        for (int i = 0; i < INPUTS; i++) {
            sum += values[o * INPUTS + i] * (double)1e-35f;
            terms += fabs(values[o * INPUTS + i]) * (double)1e-35f;
        }
        const float *got = y.data;
        assert_false(isfinite(got[o]));
        assert_true(fabs((double)got[OUTPUTS + o] - sum) <= 16.0 * INPUTS * 0x1p-23 * terms);
    }
    attune_weight_close(w);
    attune_tensor_close(&x);
    attune_tensor_close(&y);
}

static void activations_that_are_not_finite_stay_so(void **unused) {
    (void)unused;
    const char *names[16];
    const int sets = at_simd_available(names, 16);
    for (int s = 0; s < sets; s++) {
        at_simd set;
        float x[64] = {[3] = 1.0f, [40] = 1e-44f}, out[16];
        int8_t q[64];
        at_activation_block of[2];
        assert_true(at_simd_table(names[s], &set));
        set.quant.quantise(x, 2, q, of);
        assert_true(q[3] == 127 && of[0].scale == 1.0f / 127.0f);
        assert_true(q[40] == 0 && of[1].scale == 0.0f); /* subnormal */
        for (int at = 0; at < 64; at += 9) {
            float bad[64] = {[5] = 2.0f};
            bad[at] = at % 2 ? NAN : -INFINITY;
            set.quant.quantise(bad, 2, q, of);
            assert_true(isnan(of[at / 32].scale) && !isnan(of[1 - at / 32].scale));
            static uint8_t panel[2 * (32 + 8 * AT_CHUNK_BYTES)] __attribute__((aligned(64)));
            set.quant.product[AT_PACKED_Q8_0](panel, 64, q, of, 1, 16, out, 16);
            for (int o = 0; o < 16; o++) assert_true(isnan(out[o]));
        }
    }
}

/* Rows up to the most that are read as stored, and more. */
static void weights_of_one_x_give_the_same_bits_together(void **unused) {
    (void)unused;
    MUST(attune_init());
    state = 11;
    attune_weight *w[4];
    attune_tensor bias, x, one, all[4];
    const int64_t outputs[4] = {OUTPUTS, 5, 300, 33};
    static double values[300 * INPUTS];
    MUST(attune_tensor_new(ATTUNE_F32, 1, outputs, &bias));
    for (int64_t i = 0; i < OUTPUTS; i++) ((float *)bias.data)[i] = draw_number();
    for (int i = 0; i < 4; i++) {
        static const char *const names[4] = {"Q4_1", "Q5_0", "F32", "BF16"};
        const at_format *f = at_formats;
        while (strcmp(f->name, names[i]) != 0) f++;
        w[i] = new_weight(f, outputs[i], INPUTS, values);
    }
    const attune_weight *const weights[4] = {w[0], w[1], w[2], w[3]};
    const attune_tensor *const biases[4] = {&bias, NULL, NULL, NULL};
    for (int c = 0; c < ROW_COUNTS; c++) {
        const int64_t rows = row_counts[c], shape[2] = {rows, INPUTS};
        MUST(attune_tensor_new(ATTUNE_F32, 2, shape, &x));
        for (int64_t i = 0; i < rows * INPUTS; i++) ((float *)x.data)[i] = draw_number();
        MUST(attune_weights_apply(weights, biases, 4, &x, all));
        for (int i = 0; i < 4; i++) {
            MUST(attune_weight_apply(w[i], &x, biases[i], &one));
            assert_memory_equal(one.data, all[i].data, (size_t)(rows * outputs[i]) * 4);
            attune_tensor_close(&one);
            attune_tensor_close(&all[i]);
        }
        attune_tensor_close(&x);
    }
    assert_int_equal(attune_weights_apply(weights, biases, 5, &bias, all), ATTUNE_EVALUE);
    assert_int_equal(attune_weights_apply(weights, biases, 4, &bias, all), ATTUNE_ESHAPE);
    for (int i = 0; i < 4; i++) attune_weight_close(w[i]);
    attune_tensor_close(&bias);
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
        cmocka_unit_test(packed_weights_are_those_of_the_file),
        cmocka_unit_test(float_products_are_those_of_the_weights),
        cmocka_unit_test(integer_products_are_those_of_the_quantised_numbers),
        cmocka_unit_test(products_of_planes_are_those_of_the_weights),
        cmocka_unit_test(what_does_not_fit_planes_is_multiplied_in_f32),
        cmocka_unit_test(activations_that_are_not_finite_stay_so),
        cmocka_unit_test(weights_of_one_x_give_the_same_bits_together),
        cmocka_unit_test(wrong_arguments_are_refused),
    };
    return cmocka_run_group_tests_name("weight", tests, NULL, NULL);
}
