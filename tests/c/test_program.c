/* test_program.c - score and mask programs in every engine against the reference, their gradients,
 * and what must be noticed. */
#include "problems.h"
#include "test.h"

#if defined FEW_CASES
enum { PROBLEMS = 24, MAX_TOKENS = 150 };
#else
enum { PROBLEMS = 126, MAX_TOKENS = 200 };
#endif

/* ---- writing programs ------------------------------------------------------------------------ */

typedef struct code {
    attune_instruction in[48];
    int32_t n;
} code;

static int32_t put(code *c, attune_op op, int32_t a, int32_t b, int32_t d) {
    c->in[c->n] = (attune_instruction){.op = op, .a = {a, b, d}};
    return c->n++;
}

static int32_t number(code *c, double x) {
    c->in[c->n] = (attune_instruction){.op = ATTUNE_OP_NUMBER, .number = x};
    return c->n++;
}

static int32_t leaf(code *c, attune_op op) {
    c->in[c->n] = (attune_instruction){.op = op, .integer = op != ATTUNE_OP_SCORE};
    return c->n++;
}

static int32_t integer(code *c, attune_op op, int32_t a, int32_t b) {
    const int32_t n = put(c, op, a, b, 0);
    c->in[n].integer = true;
    return n;
}

/* x % n + 1 */
static int32_t wrapped(code *c, int32_t x, double n) {
    return integer(c, ATTUNE_OP_ADD, integer(c, ATTUNE_OP_MOD, x, number(c, n)), number(c, 1));
}

static int32_t not_less(code *c, int32_t x, int32_t y) { return put(c, ATTUNE_OP_LE, y, x, 0); }

enum { KINDS = 7, MASKS = 5, TABLE = 7 };

/* A score of some kind, its derivative, and for those that read the table, [7, 5], the derivative
 * by what is read. */
static attune_program *score_of(int kind, const attune_tensor *table) {
    code c = {.n = 0};
    attune_program *p;
    int32_t read[2] = {0}, adjoint[2] = {0}, reads = 0, result, slope;
    const int32_t s = leaf(&c, ATTUNE_OP_SCORE), one = number(&c, 1), zero = number(&c, 0);
    switch (kind) {
    case 0: { /* s - 0.1 h |i - j| */
        const int32_t d = put(&c, ATTUNE_OP_ABS, leaf(&c, ATTUNE_OP_DISTANCE), 0, 0);
        result = put(&c, ATTUNE_OP_SUB, s,
                     put(&c, ATTUNE_OP_MUL, put(&c, ATTUNE_OP_MUL, d, number(&c, 0.1), 0),
                         leaf(&c, ATTUNE_OP_HEAD), 0),
                     0);

        slope = one;
        break;
    }
    case 1: { /* 3 tanh(s / 3) */
        const int32_t t =
            put(&c, ATTUNE_OP_TANH, put(&c, ATTUNE_OP_MUL, s, number(&c, 1 / 3.0), 0), 0, 0);
        result = put(&c, ATTUNE_OP_MUL, t, number(&c, 3), 0);

        slope = put(&c, ATTUNE_OP_SUB, one, put(&c, ATTUNE_OP_MUL, t, t, 0), 0);
        break;
    }
    case 2:   /* s + table[j % 7][h % 5] */
    case 3:   /* s + table[(i - j) % 7][h % 5] */
    case 4: { /* s + table[i j % 7][2] */
        const int32_t x = kind == 2   ? leaf(&c, ATTUNE_OP_KEY)
                          : kind == 3 ? leaf(&c, ATTUNE_OP_DISTANCE)
                                      : integer(&c, ATTUNE_OP_MUL, leaf(&c, ATTUNE_OP_QUERY),
                                                leaf(&c, ATTUNE_OP_KEY));
        const int32_t row = wrapped(&c, x, 7),
                      column = kind == 4 ? number(&c, 2) : wrapped(&c, leaf(&c, ATTUNE_OP_HEAD), 5);
        read[0] = put(&c, ATTUNE_OP_READ, row, column, 0);
        adjoint[0] = one;
        reads = 1;
        result = put(&c, ATTUNE_OP_ADD, s, read[0], 0);
        slope = one;
        break;
    }
    case 5: { /* s sigmoid(table[i % 7][1]) */
        read[0] = put(&c, ATTUNE_OP_READ, wrapped(&c, leaf(&c, ATTUNE_OP_QUERY), 7), one, 0);

        reads = 1;
        const int32_t g = put(&c, ATTUNE_OP_SIGMOID, read[0], 0, 0);
        result = put(&c, ATTUNE_OP_MUL, s, g, 0);
        slope = g;
        adjoint[0] = put(&c, ATTUNE_OP_MUL, s,
                         put(&c, ATTUNE_OP_MUL, g, put(&c, ATTUNE_OP_SUB, one, g, 0), 0), 0);
        break;
    }
    default: { /* s where i >= j, else s max((j - i) / 100, 0.5) table[1][1] */
        const int32_t d = leaf(&c, ATTUNE_OP_DISTANCE), visible = put(&c, ATTUNE_OP_LE, zero, d, 0);
        const int32_t far = put(&c, ATTUNE_OP_MAX, put(&c, ATTUNE_OP_MUL, d, number(&c, -0.01), 0),
                                number(&c, 0.5), 0);
        read[0] = put(&c, ATTUNE_OP_READ, one, one, 0);
        reads = 1;
        const int32_t high = put(&c, ATTUNE_OP_MUL, s, far, 0);
        result = put(&c, ATTUNE_OP_WHERE, visible, s, put(&c, ATTUNE_OP_MUL, high, read[0], 0));
        slope = put(&c, ATTUNE_OP_WHERE, visible, one, put(&c, ATTUNE_OP_MUL, far, read[0], 0));
        adjoint[0] = put(&c, ATTUNE_OP_WHERE, visible, zero, high);
    }
    }
    const attune_program_outputs outputs = {.result = result,
                                            .slope = slope,
                                            .reads = reads,
                                            .read = read,
                                            .adjoint = adjoint,
                                            .first = 1};
    MUST(attune_program_new("score", c.in, c.n, table, 1, &outputs, &p));
    return p;
}

static attune_program *mask_of(int kind, const attune_tensor *ids) {
    code c = {.n = 0};
    attune_program *p;
    const int32_t i = leaf(&c, ATTUNE_OP_QUERY), j = leaf(&c, ATTUNE_OP_KEY),
                  d = leaf(&c, ATTUNE_OP_DISTANCE), three = number(&c, 3), zero = number(&c, 0);
    int32_t result;
    switch (kind) {
    case 0: result = not_less(&c, d, zero); break;
    case 1: /* every third back, and a window */
        result = put(&c, ATTUNE_OP_OR,
                     put(&c, ATTUNE_OP_EQ, integer(&c, ATTUNE_OP_MOD, d, three), zero, 0),
                     put(&c, ATTUNE_OP_LT, put(&c, ATTUNE_OP_ABS, d, 0, 0), number(&c, 9), 0), 0);
        break;
    case 2: /* documents, in ids by i % 64 */
        result = put(
            &c, ATTUNE_OP_EQ,
            put(&c, ATTUNE_OP_READ, wrapped(&c, integer(&c, ATTUNE_OP_IDIV, i, three), 64), 0, 0),
            put(&c, ATTUNE_OP_READ, wrapped(&c, integer(&c, ATTUNE_OP_IDIV, j, three), 64), 0, 0),
            0);
        break;
    case 3: /* by pair and head */
        result =
            put(&c, ATTUNE_OP_NOT,
                put(&c, ATTUNE_OP_EQ,
                    integer(&c, ATTUNE_OP_MOD,
                            integer(&c, ATTUNE_OP_MUL,
                                    integer(&c, ATTUNE_OP_ADD, i, leaf(&c, ATTUNE_OP_HEAD)), j),
                            number(&c, 5)),
                    zero, 0),
                0, 0);
        break;
    default: /* globals and a window: whole tiles empty in between */
        result = put(&c, ATTUNE_OP_OR, put(&c, ATTUNE_OP_LE, j, three, 0),
                     put(&c, ATTUNE_OP_LT, put(&c, ATTUNE_OP_ABS, d, 0, 0), number(&c, 20), 0), 0);
    }
    const attune_program_outputs outputs = {.result = result, .slope = -1, .first = 1};
    MUST(attune_program_new("mask", c.in, c.n, ids, 1, &outputs, &p));
    return p;
}

static void tables(attune_tensor *table, attune_tensor *ids) {
    const int64_t shape[2] = {TABLE, 5}, n = 64;
    MUST(attune_tensor_new(ATTUNE_F32, 2, shape, table));
    MUST(attune_tensor_normal(table, 5, 0, 1));
    MUST(attune_tensor_new(ATTUNE_I32, 1, &n, ids));
    for (int64_t k = 0; k < n; k++) ((int32_t *)ids->data)[k] = (int32_t)(k / 11);
}

typedef struct results {
    attune_tensor o, lse, dq, dk, dv, dsinks, dtable;
} results;

static void close_results(results *r) {
    attune_tensor *all[] = {&r->o, &r->lse, &r->dq, &r->dk, &r->dv, &r->dsinks, &r->dtable};
    for (int i = 0; i < 7; i++) attune_tensor_close(all[i]);
}

static void close_gradients(results *r) {
    attune_tensor *all[] = {&r->dq, &r->dk, &r->dv, &r->dsinks, &r->dtable};
    for (int i = 0; i < 5; i++) attune_tensor_close(all[i]);
}

/* ---- engines --------------------------------------------------------------------------------- */

static void engines_agree(void **state) {
    attune_tensor table, ids;
    (void)state;
    tables(&table, &ids);
    for (uint64_t n = 0; n < PROBLEMS; n++) {
        problem p;
        results exact = {0}, got = {0};
        problem_make(n + 90000, n % 4 ? 60 : MAX_TOKENS, &p);
        attune_program *score = n % 9 == 8 ? NULL : score_of((int)(n % KINDS), &table),
                       *mask = n % 3 == 2 ? NULL : mask_of((int)(n % MASKS), &ids);
        p.options.engine = ATTUNE_ENGINE_REFERENCE;
        MUST(attune_attention(&p.q, &p.k, &p.v, &p.options, &exact.o, &exact.lse));
        const error_bound plain = bound_of(&p, &exact.o, &exact.lse);
        attune_tensor_close(&exact.o);
        attune_tensor_close(&exact.lse);
        p.options.score = score;
        p.options.mask = mask;
        MUST(attune_attention(&p.q, &p.k, &p.v, &p.options, &exact.o, &exact.lse));
        /* Biases reach some 0.1 Hq Sk, tables 3: what is added to a score is rounded to f32 with
         * it. */
        const double unit = 0x1p-22 * (8 + 0.1 * (double)(p.Hq * p.Sk)), bound = 2 * plain.o + unit,
                     bound_lse = 2 * plain.lse + unit;
        const attune_engine engines[] = {ATTUNE_ENGINE_TILED, ATTUNE_ENGINE_BLIS,
                                         ATTUNE_ENGINE_DECODE};
        for (int e = 0; e < 3; e++) {
            p.options.engine = engines[e];
            attune_status status = attune_attention(&p.q, &p.k, &p.v, &p.options, &got.o, &got.lse);
            if (status == ATTUNE_EENGINE) continue;
            if (status != ATTUNE_OK)
                fail_msg("score %d, mask %d, %s: %s", (int)(n % KINDS), (int)(n % MASKS),
                         problem_text(&p), attune_message());
            const double d = difference(&got.o, &exact.o), dl = difference(&got.lse, &exact.lse);
            if (!(d <= bound) || !(dl <= bound_lse)) {
                fail_msg("engine %d, score %d, mask %d: o off by %g (bound %g), lse by %g (%g): %s",
                         e, (int)(n % KINDS), (int)(n % MASKS), d, bound, dl, bound_lse,
                         problem_text(&p));
            }
            attune_tensor_close(&got.o);
            attune_tensor_close(&got.lse);
        }
        attune_program_close(score);
        attune_program_close(mask);
        close_results(&exact);
        problem_close(&p);
    }
    attune_tensor_close(&table);
    attune_tensor_close(&ids);
}

static double max_of(const attune_tensor *t) {
    attune_tensor zero;
    MUST(attune_tensor_new(t->dtype, t->rank, t->shape, &zero));
    const double d = difference(t, &zero);
    attune_tensor_close(&zero);
    return d;
}

/* f32 problems of modest size: sums of n terms, each off by some units of the largest. */
static void gradients_agree(void **state) {
    attune_tensor table, ids;
    (void)state;
    tables(&table, &ids);
    for (uint64_t n = 0; n < PROBLEMS; n++) {
        const int64_t Hq = n % 2 ? 4 : 3, Hk = n % 2 ? 2 : 1, S = 20 + (int64_t)(n * 37 % 250),
                      q_shape[4] = {2, Hq, S, 16}, k_shape[4] = {2, Hk, S + 5, 16};
        attune_tensor q, k, v, d_o;
        random_tensor(n + 1, q_shape, ATTUNE_F32, false, &q);

        random_tensor(n + 2, k_shape, ATTUNE_F32, false, &k);
        random_tensor(n + 3, k_shape, ATTUNE_F32, false, &v);

        random_tensor(n + 4, q_shape, ATTUNE_F32, false, &d_o);
        attune_program *score = score_of((int)(n % KINDS), &table),
                       *mask = n % 3 == 2 ? NULL : mask_of((int)(n % MASKS), &ids);
        attune_attention_options options = {.causal = n % 4 == 0,
                                            .score = score,
                                            .mask = mask,
                                            .softcap = n % 5 == 0 ? 4 : 0,
                                            .engine = ATTUNE_ENGINE_REFERENCE};
        results exact = {0}, got = {0};
        MUST(attune_attention(&q, &k, &v, &options, &exact.o, &exact.lse));
        MUST(attune_attention_backward(&d_o, &q, &k, &v, &exact.o, &exact.lse, &options, &exact.dq,
                                       &exact.dk, &exact.dv, &exact.dsinks, &exact.dtable));
        options.engine = ATTUNE_ENGINE_TILED;
        MUST(attune_attention_backward(&d_o, &q, &k, &v, &exact.o, &exact.lse, &options, &got.dq,
                                       &got.dk, &got.dv, &got.dsinks, &got.dtable));
        const attune_tensor *pairs[][2] = {{&got.dq, &exact.dq},
                                           {&got.dk, &exact.dk},
                                           {&got.dv, &exact.dv},
                                           {&got.dtable, &exact.dtable}};
        for (int t = 0; t < 4; t++) {
            if (!pairs[t][1]->data && !pairs[t][0]->data) continue;
            const double d = difference(pairs[t][0], pairs[t][1]),
                         bound = 2e-5 * (1 + max_of(pairs[t][1])) * (t == 3 ? 4 : 1);
            if (!(d <= bound))
                fail_msg("gradient %d off by %g (bound %g): score %d, mask %d, n %d", t, d, bound,
                         (int)(n % KINDS), (int)(n % MASKS), (int)n);
        }
        attune_program_close(score);
        attune_program_close(mask);
        close_gradients(&got);
        close_results(&exact);
        attune_tensor *all[] = {&q, &k, &v, &d_o};
        for (int t = 0; t < 4; t++) attune_tensor_close(all[t]);
    }
    attune_tensor_close(&table);
    attune_tensor_close(&ids);
}

static void bits_do_not_depend_on_threads(void **state) {
    attune_tensor table, ids, q, k, v, d_o;
    const int64_t q_shape[4] = {2, 4, 300, 32}, k_shape[4] = {2, 2, 300, 32};
    int before;
    (void)state;
    MUST(attune_threads(0, &before));
    tables(&table, &ids);
    random_tensor(1, q_shape, ATTUNE_F32, false, &q);

    random_tensor(2, k_shape, ATTUNE_F32, false, &k);
    random_tensor(3, k_shape, ATTUNE_F32, false, &v);

    random_tensor(4, q_shape, ATTUNE_F32, false, &d_o);
    for (int kind = 0; kind < KINDS; kind++) {
        results r[2] = {{{0}, {0}, {0}, {0}, {0}, {0}, {0}}, {{0}, {0}, {0}, {0}, {0}, {0}, {0}}};
        for (int t = 0; t < 2; t++) {
            MUST(attune_threads(t ? 4 : 1, NULL));
            attune_program *score = score_of(kind, &table), *mask = mask_of(kind % MASKS, &ids);
            const attune_attention_options options = {
                .score = score, .mask = mask, .engine = ATTUNE_ENGINE_TILED};
            MUST(attune_attention(&q, &k, &v, &options, &r[t].o, &r[t].lse));
            MUST(attune_attention_backward(&d_o, &q, &k, &v, &r[t].o, &r[t].lse, &options, &r[t].dq,
                                           &r[t].dk, &r[t].dv, &r[t].dsinks, &r[t].dtable));
            attune_program_close(score);
            attune_program_close(mask);
        }
        const attune_tensor *a[] = {&r[0].o, &r[0].dq, &r[0].dk, &r[0].dv, &r[0].dtable},
                            *b[] = {&r[1].o, &r[1].dq, &r[1].dk, &r[1].dv, &r[1].dtable};
        for (int t = 0; t < 5; t++)
            if (a[t]->data)
                assert_memory_equal(a[t]->data, b[t]->data, (size_t)attune_tensor_nbytes(a[t]));
        close_results(&r[0]);
        close_results(&r[1]);
    }
    MUST(attune_threads(before, NULL));
    attune_tensor *all[] = {&table, &ids, &q, &k, &v, &d_o};
    for (int t = 0; t < 6; t++) attune_tensor_close(all[t]);
}

/* ---- what must be noticed -------------------------------------------------------------------- */

static void a_changed_tensor_is_noticed(void **state) {
    attune_tensor table, ids;
    attune_block_map map;
    (void)state;
    tables(&table, &ids);
    attune_program *mask = mask_of(2, &ids);
    MUST(attune_program_map(mask, 1, 1, 1, 192, 192, &map));
    const int64_t before = map.visible;
    MUST(attune_program_map(mask, 1, 1, 1, 192, 192, &map));
    assert_int_equal(before, map.visible);
    for (int k = 0; k < 64; k++) ((int32_t *)ids.data)[k] = k;
    MUST(attune_program_map(mask, 1, 1, 1, 192, 192, &map));
    assert_true(map.visible < before);
    attune_program_close(mask);
    attune_tensor_close(&table);
    attune_tensor_close(&ids);
}

/* An Inf among the values that the mask hides, between others that are visible. */
static void hidden_values_do_not_leak(void **state) {
    attune_tensor table, ids, q, k, v;
    const int64_t shape[4] = {1, 2, 200, 16};
    (void)state;
    tables(&table, &ids);
    random_tensor(1, shape, ATTUNE_F32, false, &q);
    random_tensor(2, shape, ATTUNE_F32, false, &k);

    random_tensor(3, shape, ATTUNE_F32, false, &v);
    attune_program *mask = mask_of(4, &ids); /* keys 1 to 3, and 19 around */
    for (int64_t h = 0; h < 2; h++)
        for (int64_t d = 0; d < 16; d++) {

            ((float *)v.data)[(h * 200 + 60) * 16 + d] = INFINITY;

            ((float *)k.data)[(h * 200 + 60) * 16 + d] = NAN;
        }
    const attune_engine engines[] = {ATTUNE_ENGINE_REFERENCE, ATTUNE_ENGINE_BLIS,
                                     ATTUNE_ENGINE_TILED};
    for (int e = 0; e < 3; e++) {
        attune_tensor o, lse;
        const attune_attention_options options = {.mask = mask, .engine = engines[e]};
        MUST(attune_attention(&q, &k, &v, &options, &o, &lse));
        for (int64_t i = 0; i < 200; i++) {
            const bool visible = i - 60 > -20 && i - 60 < 20,
                       finite = isfinite(((float *)o.data)[i * 16]);
            if (visible == finite)
                fail_msg("engine %d, query %d: %g", e, (int)i, (double)((float *)o.data)[i * 16]);
        }
        attune_tensor_close(&o);
        attune_tensor_close(&lse);
    }
    attune_program_close(mask);
    attune_tensor *all[] = {&table, &ids, &q, &k, &v};
    for (int t = 0; t < 5; t++) attune_tensor_close(all[t]);
}

/* s + bias[k + shift], with k the key: a program counts from 0 unless it asks for another number.
 */
static attune_program *biased(const attune_tensor *bias, int32_t first, double shift) {
    code c = {.n = 0};
    attune_program *p;
    const int32_t s = leaf(&c, ATTUNE_OP_SCORE);
    const int32_t key = integer(&c, ATTUNE_OP_ADD, leaf(&c, ATTUNE_OP_KEY), number(&c, shift));
    const int32_t result = put(&c, ATTUNE_OP_ADD, s, put(&c, ATTUNE_OP_READ, key, 0, 0), 0);
    const attune_program_outputs outputs = {.result = result, .slope = -1, .first = first};
    c.in[key].integer = true;
    c.in[1].integer = true;
    MUST(attune_program_new("score", c.in, c.n, bias, 1, &outputs, &p));
    return p;
}

static void programs_count_from_0_or_as_asked(void **state) {
    (void)state;
    const int64_t shape[4] = {1, 2, 4, 16}, n = 4;
    attune_tensor q, bias, o[2], lse[2];
    random_tensor(1, shape, ATTUNE_F32, false, &q);
    MUST(attune_tensor_new(ATTUNE_F32, 1, &n, &bias));
    MUST(attune_tensor_arange(&bias, 0, 1));
    for (int32_t first = 0; first < 2; first++) {
        attune_program *score = biased(&bias, first, 0), *beyond = biased(&bias, first, 1);
        attune_attention_options options = {.score = score};
        MUST(attune_attention(&q, &q, &q, &options, &o[first], &lse[first]));
        options.score = beyond;
        attune_tensor none, none_lse;
        assert_int_equal(ATTUNE_EVALUE, attune_attention(&q, &q, &q, &options, &none, &none_lse));
        assert_string_equal(attune_message(),
                            first ? "score: expected an index in range of the tensor [4], from 1, "
                                    "got [5] for query 1 and key 4 of head 1"
                                  : "score: expected an index in range of the tensor [4], from 0, "
                                    "got [4] for query 0 and key 3 of head 0");
        attune_program_close(score);
        attune_program_close(beyond);
    }
    assert_memory_equal(o[0].data, o[1].data, (size_t)attune_tensor_nbytes(&o[0]));
    attune_tensor *all[] = {&q, &bias, &o[0], &o[1], &lse[0], &lse[1]};
    for (int t = 0; t < 6; t++) attune_tensor_close(all[t]);
}

static void misuse_is_an_error(void **state) {
    attune_program *p;
    const attune_instruction forward = {.op = ATTUNE_OP_NEG, .a = {0}},
                             unknown = {.op = ATTUNE_OP_COUNT},
                             read = {.op = ATTUNE_OP_READ, .tensor = 1},
                             fine = {.op = ATTUNE_OP_SCORE};
    const attune_program_outputs first = {.slope = -1}, second = {.result = 1, .slope = -1};
    (void)state;
    assert_int_equal(ATTUNE_EVALUE, attune_program_new("score", &forward, 1, NULL, 0, &first, &p));
    assert_int_equal(ATTUNE_EVALUE, attune_program_new("score", &unknown, 1, NULL, 0, &first, &p));
    assert_int_equal(ATTUNE_EVALUE, attune_program_new("score", &read, 1, NULL, 0, &first, &p));
    assert_int_equal(ATTUNE_EVALUE, attune_program_new("score", &fine, 1, NULL, 0, &second, &p));
    assert_null(p);
    MUST(attune_program_new("score", &fine, 1, NULL, 0, &first, &p));
    attune_program_close(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(engines_agree),
                                       cmocka_unit_test(gradients_agree),
                                       cmocka_unit_test(bits_do_not_depend_on_threads),
                                       cmocka_unit_test(a_changed_tensor_is_noticed),
                                       cmocka_unit_test(hidden_values_do_not_leak),
                                       cmocka_unit_test(programs_count_from_0_or_as_asked),
                                       cmocka_unit_test(misuse_is_an_error)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
