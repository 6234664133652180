/* test_linear_outliers.c - causal linear attention where keys differ by orders of magnitude: a
 * later key never changes an earlier row, in f32 as in f64, forward and backward. The oracle sums
 * terms by the definition, each row relative to its own max exponent, in long double. */
#include <stdio.h>

#include "linear_cases.h"
#include "linear/linear_problem.h"
#include "test.h"

enum { CASES = 48 };

/* How long the keys of case n are: their norms lie around the square root of D times this. */
static double scale_of(int n, int64_t token, int64_t tokens) {
    static const double scales[] = {1, 6, 12, 1e-3, 100};
    switch (n / 2 % 8) {
    case 0: return token == tokens - 1 ? 5 : 1;  /* a large last key */
    case 1: return token == tokens - 1 ? 0 : 6;  /* a small last key */
    case 2: return token == 10 ? 30 : 1;         /* one large key */
    case 3: return token == 40 ? 1e-3 : 20;      /* one small key */
    case 4: return scales[(token / 20 + n) % 5]; /* scales that change */
    case 5: return pow(10, -3 + (double)(token * 37 % tokens) / (double)tokens * 5);
    case 6: return 12;
    default: return token % 3 == 1 ? 100 : 1e-3;
    }
}

static void outlier_case(int n, attune_dtype dtype, linear_case *c) {
    *c = (linear_case){.seed = (uint64_t)n + 500,
                       .B = 1 + n % 2,
                       .Hk = 2,
                       .Hq = n % 3 ? 4 : 2,
                       .Sk = 50,
                       .Sq = n % 5 == 4 ? 42 : 50,
                       .D = n % 4 ? 16 : 64,
                       .Dv = 8,
                       .M = 16,
                       .dtype = ATTUNE_F32};
    c->options.features = n % 2 ? ATTUNE_FEATURES_TRIG : ATTUNE_FEATURES_FAVOR;
    c->options.causal = n % 7 != 6;
    linear_tensors(c);
    if (n % 3 == 2) linear_turn(c, n % 2 ? ATTUNE_HALF : ATTUNE_INTERLEAVED);
    float *k = c->k.data, *q = c->q.data;
    for (int64_t r = 0; r < c->B * c->Hk * c->Sk; r++)
        for (int64_t d = 0; d < c->D; d++) k[r * c->D + d] *= (float)scale_of(n, r % c->Sk, c->Sk);
    /* Large queries and keys seldom have the same largest features. */
    for (int64_t i = 0; i < c->B * c->Hq * c->Sq * c->D && n / 2 % 8 == 6; i++) q[i] *= 12;
    attune_tensor *all[] = {&c->q, &c->k, &c->v};
    for (int t = 0; t < 3 && dtype != ATTUNE_F32; t++) {
        attune_tensor f32 = *all[t];
        MUST(attune_tensor_convert(&f32, dtype, all[t]));
        attune_tensor_close(&f32);
    }
    c->dtype = dtype;
}

/* ---- the definition -------------------------------------------------------------------------- */

/* The features of a token as numbers times e^exponent. */
typedef struct feature {
    long double x, exponent;
} feature;

static void features_of(const linear_case *c, const attune_tensor *t, int64_t b, int64_t h,
                        int64_t i, bool key, feature *f) {
    long double half = 0;
    const long double c4 = powl((long double)c->D, -0.25L);
    for (int64_t d = 0; d < c->D && key; d++) {
        const long double x = (long double)linear_at(t, b, h, i, d) * c4;
        half += x * x / 2;
    }
    for (int64_t m = 0; m < c->M; m++) {
        long double sum = 0;
        for (int64_t d = 0; d < c->D; d++)
            sum += (long double)((const float *)c->w.data)[m * c->D + d] * c4 *
                   (long double)linear_at(t, b, h, i, d);
        if (c->options.features == ATTUNE_FEATURES_FAVOR) {
            f[m] = (feature){1, sum - half};
            continue;
        }
        f[m] = (feature){sinl(sum), half};
        f[c->M + m] = (feature){cosl(sum), half};
    }
}

static double cos_sin(const linear_case *c, int64_t position, int64_t pair, double *sine) {
    const double angle = (double)position * pow(10000, -2.0 * (double)pair / (double)c->pe->dims);
    *sine = sin(angle);
    return cos(angle);
}

/* Rotates features as RoPE does; both of a pair get the larger exponent. */
static void rotate(const linear_case *c, int64_t position, const feature *from, feature *to) {
    memcpy(to, from, (size_t)c->F * sizeof *to);
    for (int64_t i = 0; c->pe && i < c->pe->dims / 2; i++) {
        const bool halves = c->pe->pairing == ATTUNE_HALF;
        const int64_t m = halves ? i : 2 * i, l = halves ? i + c->pe->dims / 2 : 2 * i + 1;
        double sine, cosine = cos_sin(c, position, i, &sine);
        const long double e = fmaxl(from[m].exponent, from[l].exponent),
                          x = from[m].x * (long double)exp((double)(from[m].exponent - e)),
                          y = from[l].x * (long double)exp((double)(from[l].exponent - e));
        to[m] = (feature){x * (long double)cosine - y * (long double)sine, e};
        to[l] = (feature){y * (long double)cosine + x * (long double)sine, e};
    }
}

/* o of one query in `out`, and in *terms how much larger the sum of the terms' magnitudes is than
 * the denominator: the factor by which rounding grows. */
static void row_of(const linear_case *c, const feature *keys, const feature *rotated, int64_t b,
                   int64_t h, int64_t i, double *out, double *terms) {
    const int64_t offset = c->Sk - c->Sq, visible = c->options.causal ? i + offset + 1 : c->Sk,
                  F = c->F, kv = h / (c->Hq / c->Hk);
    feature q[64], q_rotated[64];
    long double max = -INFINITY, z = 0, all = 0, sums[8] = {0}, sizes = 0;
    features_of(c, &c->q, b, h, i, false, q);
    rotate(c, i + offset, q, q_rotated);
    for (int64_t j = 0; j < visible; j++)
        for (int64_t m = 0; m < F; m++) max = fmaxl(max, q[m].exponent + keys[j * F + m].exponent);
    for (int64_t j = 0; j < visible; j++) {
        long double weight = 0, size = 0;
        for (int64_t m = 0; m < F; m++) {
            const feature *k = &keys[j * F + m], *r = &rotated[j * F + m];
            const long double one = q[m].x * k->x *
                                    (long double)exp((double)(q[m].exponent + k->exponent - max)),
                              two = q_rotated[m].x * r->x *
                                    (long double)exp(
                                        (double)(q_rotated[m].exponent + r->exponent - max));
            z += one;
            all += fabsl(one);
            weight += two;
            size += fabsl(two);
        }
        for (int64_t d = 0; d < c->Dv; d++)
            sums[d] += weight * (long double)linear_at(&c->v, b, kv, j, d);
        sizes += size;
    }
    for (int64_t d = 0; d < c->Dv; d++) out[d] = (double)(sums[d] / z);
    *terms = (double)((sizes + all) / fabsl(z));
}

/* o: f32 and f64 results, which differ by at most units[0] and units[1] of relative rounding. */
static void check(const linear_case *c, int n, const attune_tensor o[2], const double units[2]) {
    const int64_t F = c->F;
    feature *keys = malloc((size_t)(2 * c->Sk * F) * sizeof *keys), *rotated = keys + c->Sk * F;
    for (int64_t head = 0; head < c->B * c->Hk; head++) {
        const int64_t b = head / c->Hk, kv = head % c->Hk, G = c->Hq / c->Hk;
        for (int64_t j = 0; j < c->Sk; j++) {
            features_of(c, &c->k, b, kv, j, true, keys + j * F);
            rotate(c, j, keys + j * F, rotated + j * F);
        }
        for (int64_t h = kv * G; h < (kv + 1) * G; h++) {
            for (int64_t i = 0; i < c->Sq; i++) {
                double want[8], terms;
                row_of(c, keys, rotated, b, h, i, want, &terms);
                if (terms > 1e6) continue; /* trig: a denominator that cancels */
                for (int64_t x = 0; x < 2 * c->Dv; x++) {
                    const int64_t d = x / 2;
                    const double got = linear_at(&o[x % 2], b, h, i, d),
                                 bound = units[x % 2] * terms * 4 * (1 + fabs(want[d]));
                    if (!(fabs(got - want[d]) <= bound))
                        fail_msg("case %d, %s: o[%d][%d][%d][%d] is %.9g, expected %.9g, bound %g: "
                                 "%s",
                                 n, x % 2 ? "f64" : "f32", (int)b, (int)h, (int)i, (int)d, got,
                                 want[d], bound, linear_text(c));
                }
            }
        }
    }
    free(keys);
}

/* f32 rounds exponents up to 256 before it leaves a head to f64. */
static void outputs_follow_the_definition(void **state) {
    (void)state;
    const double units[2] = {1e-4, 1e-11};
    for (int n = 0; n < CASES; n++) {
        linear_case c, wide;
        attune_tensor o[2];
        outlier_case(n, ATTUNE_F32, &c);
        outlier_case(n, ATTUNE_F64, &wide);
        MUST(attune_linear_attention(&c.q, &c.k, &c.v, &c.options, &o[0]));
        MUST(attune_linear_attention(&wide.q, &wide.k, &wide.v, &wide.options, &o[1]));
        check(&c, n, o, units);
        attune_tensor_close(&o[0]);
        attune_tensor_close(&o[1]);
        linear_close(&c);
        linear_close(&wide);
    }
}

/* ---- the state ------------------------------------------------------------------------------- */

/* Each row of causal attention in f64 is what a state in f32 gives after that token. */
static void states_follow_too(void **state) {
    (void)state;
    for (int n = 0; n < CASES; n++) {
        linear_case c, wide;
        attune_tensor want;
        attune_linear_state *st;
        outlier_case(n, ATTUNE_F32, &c);
        if (n % 2 || c.Sq != c.Sk) { /* trig: denominators that cancel */
            linear_close(&c);
            continue;
        }
        outlier_case(n, ATTUNE_F64, &wide);
        wide.options.causal = true;
        MUST(attune_linear_attention(&wide.q, &wide.k, &wide.v, &wide.options, &want));
        const attune_linear_state_options options = {.batch = c.B,
                                                     .kv_heads = c.Hk,
                                                     .head_dim = c.D,
                                                     .v_head_dim = c.Dv,
                                                     .features = c.options.features,
                                                     .projection = &c.w,
                                                     .rotate = c.pe};
        MUST(attune_linear_state_new(&options, &st));
        for (int64_t from = 0, to; from < c.Sk; from = to) {
            attune_tensor k, v, q, o;
            to = from + 1 + (from * 7 + n) % 5;
            if (to > c.Sk) to = c.Sk;
            MUST(attune_tensor_slice(&c.k, 2, from, to, &k));
            MUST(attune_tensor_slice(&c.v, 2, from, to, &v));
            MUST(attune_tensor_slice(&c.q, 2, to - 1, to, &q));
            MUST(attune_linear_state_append(st, &k, &v));
            MUST(attune_linear_state_attend(st, &q, &o));
            for (int64_t h = 0; h < c.Hq; h++) {
                for (int64_t d = 0; d < c.Dv; d++) {
                    const double got = linear_at(&o, c.B - 1, h, 0, d),
                                 right = linear_at(&want, c.B - 1, h, to - 1, d);
                    if (!(fabs(got - right) <= 1e-3 * (1 + fabs(right)) * (c.pe ? 100 : 1)))
                        fail_msg("case %d, token %d, head %d: %g, expected %g: %s", n, (int)to,
                                 (int)h, got, right, linear_text(&c));
                }
            }
            attune_tensor *all[] = {&k, &v, &q, &o};
            for (int t = 0; t < 4; t++) attune_tensor_close(all[t]);
        }
        attune_linear_state_close(st);
        attune_tensor_close(&want);
        linear_close(&c);
        linear_close(&wide);
    }
}

/* ---- gradients ------------------------------------------------------------------------------- */

static double max_abs(const attune_tensor *t) {
    attune_tensor zero;
    MUST(attune_tensor_new(t->dtype, t->rank, t->shape, &zero));
    const double d = difference(t, &zero);
    attune_tensor_close(&zero);
    return d;
}

static void narrow_gradients_agree_with_wide_ones(void **state) {
    (void)state;
    for (int n = 0; n < CASES; n++) {
        linear_case c, wide;
        attune_tensor d_o, d_o_wide, d[3], w[3];
        if (n % 2 && n / 2 % 8 != 0 && n / 2 % 8 != 2)
            continue; /* trig: denominators that cancel */
        outlier_case(n, ATTUNE_F32, &c);
        outlier_case(n, ATTUNE_F64, &wide);
        const int64_t shape[4] = {c.B, c.Hq, c.Sq, c.Dv};
        random_tensor(9, shape, ATTUNE_F32, false, &d_o);
        MUST(attune_tensor_convert(&d_o, ATTUNE_F64, &d_o_wide));
        MUST(attune_linear_attention_backward(&d_o, &c.q, &c.k, &c.v, &c.options, &d[0], &d[1],
                                              &d[2]));
        MUST(attune_linear_attention_backward(&d_o_wide, &wide.q, &wide.k, &wide.v, &wide.options,
                                              &w[0], &w[1], &w[2]));
        for (int t = 0; t < 3; t++) {
            const double off = difference(&d[t], &w[t]), most = max_abs(&w[t]);
            if (!(off <= (n % 2 ? 2e-2 : 1e-3) * (1e-2 + most)))
                fail_msg("case %d: gradient %d differs by %g, of at most %g: %s", n, t, off, most,
                         linear_text(&c));
            attune_tensor_close(&d[t]);
            attune_tensor_close(&w[t]);
        }
        attune_tensor_close(&d_o);
        attune_tensor_close(&d_o_wide);
        linear_close(&c);
        linear_close(&wide);
    }
}

/* Token by token and in blocks: the same gradients for ordinary tokens, in f64. The blocks are
 * checked against differences elsewhere. */
static void by_token_agrees_with_blocks(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 60; seed++) {
        linear_case c;
        linear_make(seed + 300, ATTUNE_F64, 50, &c);
        const int64_t shape[4] = {c.B, c.Hq, c.Sq, c.Dv};
        attune_tensor d_o, d[3], e[3], o, o2;
        at_linear p;
        if (c.options.features > ATTUNE_FEATURES_TRIG) {
            linear_close(&c);
            continue;
        }
        c.options.epsilon = 0;
        random_tensor(5, shape, ATTUNE_F64, false, &d_o);
        MUST(attune_linear_attention(&c.q, &c.k, &c.v, &c.options, &o));
        MUST(attune_linear_attention_backward(&d_o, &c.q, &c.k, &c.v, &c.options, &d[0], &d[1],
                                              &d[2]));
        MUST(attune_tensor_new(ATTUNE_F64, 4, shape, &o2));
        for (int t = 0; t < 3; t++) MUST(attune_tensor_new(ATTUNE_F64, 4, d[t].shape, &e[t]));
        MUST(at_linear_make(&c.q, &c.k, &c.v, &c.options, &p));
        const at_linear_gradients g = {.d_o = &d_o, .dq = &e[0], .dk = &e[1], .dv = &e[2]};
        for (int64_t head = 0; head < c.B * c.Hk; head++) {
            MUST(at_linear_by_token(&p, head, &o2, NULL));
            MUST(at_linear_by_token(&p, head, NULL, &g));
        }
        if (!(difference(&o, &o2) <= 1e-7 * (1 + max_abs(&o))))
            fail_msg("o differs by %g: %s", difference(&o, &o2), linear_text(&c));
        for (int t = 0; t < 3; t++) {
            if (!(difference(&d[t], &e[t]) <= 1e-7 * (1 + max_abs(&d[t]))))
                fail_msg("gradient %d differs by %g: %s", t, difference(&d[t], &e[t]),
                         linear_text(&c));
            attune_tensor_close(&d[t]);
            attune_tensor_close(&e[t]);
        }
        at_linear_close(&p);
        attune_tensor_close(&o);
        attune_tensor_close(&o2);
        attune_tensor_close(&d_o);
        linear_close(&c);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(outputs_follow_the_definition),
        cmocka_unit_test(states_follow_too),
        cmocka_unit_test(narrow_gradients_agree_with_wide_ones),
        cmocka_unit_test(by_token_agrees_with_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
