/* test_position.c - what rotation's gradients go through, in every encoding, and the table that
 * learned positions train. */
#include "problems.h"
#include "test.h"

enum { DIM = 16, ENCODINGS = 8, AXES_2 = 7 };

/* The n-th encoding of head_dim DIM; AXES_2 is rope2d. */
static attune_position *encoding(int n) {
    static const double longer[DIM / 2] = {1, 2, 3, 4, 5, 6, 7, 8},
                                     shorter[DIM / 2] = {1, 1, 1, 1, 2, 2, 2, 2};
    static const attune_rope_scaling scalings[] = {
        {0},
        {.type = ATTUNE_SCALING_DYNAMIC, .factor = 4, .original = 9},
        {.type = ATTUNE_SCALING_YARN, .factor = 4, .original = 32},
        {.type = ATTUNE_SCALING_LONGROPE,
         .factor = 4,
         .original = 9,
         .short_factors = shorter,
         .short_count = 8,
         .long_factors = longer,
         .long_count = 8},
        {.type = ATTUNE_SCALING_LLAMA3, .factor = 4, .original = 32},
    };
    attune_position *pe = NULL;
    const attune_pairing pairing = n % 2 ? ATTUNE_HALF : ATTUNE_INTERLEAVED;
    if (n == AXES_2) {
        MUST(attune_position_rope2d(DIM, 100, ATTUNE_HALF, &pe));
    } else if (n >= 5) {
        const attune_xpos_options o = {.head_dim = DIM,
                                       .dims = n == 5 ? 0 : 12,
                                       .scale_base = 16,
                                       .center = 3,
                                       .pairing = pairing};
        MUST(attune_position_xpos(&o, &pe));
    } else {
        const attune_rope_options o = {
            .head_dim = DIM, .dims = n ? 0 : 10, .pairing = pairing, .scaling = scalings[n]};
        if (n == 3) {
            attune_rope_options whole = o;
            whole.dims = 0;
            MUST(attune_position_rope(&whole, &pe));
        } else {
            MUST(attune_position_rope(&o, &pe));
        }
    }
    return pe;
}

/* Positions of the tokens, [B, S] or [B, S, 2]; the first is the max_position, so that later tokens
 * alone would need a shorter table. */
static attune_tensor positions_of(int n, int64_t B, int64_t S, int64_t max_position) {
    attune_tensor out;
    const int64_t shape[3] = {B, S, 2};
    MUST(attune_tensor_new(ATTUNE_I64, n == AXES_2 ? 3 : 2, shape, &out));
    int64_t *p = out.data;
    for (int64_t i = 0, count = attune_tensor_count(&out); i < count; i++)
        p[i] = i ? draw(7, (uint32_t)i, 20) : max_position;
    return out;
}

static double dot(const attune_tensor *a, const attune_tensor *b) {
    double sum = 0;
    for (int64_t i = 0, n = attune_tensor_count(a); i < n; i++)
        sum += ((double *)a->data)[i] * ((double *)b->data)[i];
    return sum;
}

/* <R x, y> = <x, R' y>. */
static void backward_is_the_transpose(void **state) {
    (void)state;
    for (int n = 0; n < ENCODINGS; n++) {
        for (int side = 0; side < 2; side++) {
            attune_position *pe = encoding(n);
            const int64_t shape[4] = {2, 3, 7, DIM};
            attune_tensor x, y, rx, ry, positions = positions_of(n, 2, 7, 60), x4, rx4, back4, back;
            random_tensor(1, shape, ATTUNE_F64, false, &x);

            random_tensor(2, shape, ATTUNE_F64, false, &y);
            MUST(attune_position_rotate(pe, &x, &positions, (attune_side)side, &rx));
            MUST(attune_position_rotate_backward(pe, &y, &positions, (attune_side)side, &ry));
            const double a = dot(&rx, &y), b = dot(&x, &ry);
            if (!(fabs(a - b) <= 1e-12 * (fabs(a) + sqrt(dot(&rx, &rx) * dot(&y, &y)))))
                fail_msg("encoding %d side %d: %g and %g", n, side, a, b);
            /* f32 does as f64 */
            MUST(attune_tensor_convert(&x, ATTUNE_F32, &x4));
            MUST(attune_position_rotate(pe, &x4, &positions, (attune_side)side, &rx4));
            assert_true(difference(&rx4, &rx) <= 1e-4);
            MUST(attune_position_rotate_backward(pe, &x4, &positions, (attune_side)side, &back4));
            MUST(attune_position_rotate_backward(pe, &x, &positions, (attune_side)side, &back));
            assert_true(difference(&back4, &back) <= 1e-4);
            attune_tensor *all[] = {&x, &y, &rx, &ry, &positions, &x4, &rx4, &back4, &back};
            for (int i = 0; i < 9; i++) attune_tensor_close(all[i]);
            attune_position_close(pe);
        }
    }
}

/* Gradients through the fused rotation: tiled as the reference, and both as rotate, attend, and
 * back by hand. */
static void fused_gradients_agree(void **state) {
    (void)state;
    for (int n = 0; n < ENCODINGS; n++) {
        attune_position *pe = encoding(n);
        const int64_t qs[4] = {2, 4, 11, DIM}, ks[4] = {2, 2, 13, DIM};
        attune_tensor q, k, v, o, lse, d_o, got[3], exact[3],
            positions = positions_of(n, 2, 13, 1000 >> (n == 5 || n == 6 ? 5 : 0)), last, rq, rk,
            plain[4], dq, dk;
        random_tensor(1, qs, ATTUNE_F32, false, &q);
        random_tensor(2, ks, ATTUNE_F32, false, &k);
        random_tensor(3, ks, ATTUNE_F32, false, &v);
        random_tensor(4, qs, ATTUNE_F32, false, &d_o);
        attune_attention_options options = {
            .causal = true, .rotate = pe, .positions = &positions, .engine = ATTUNE_ENGINE_TILED};
        MUST(attune_attention(&q, &k, &v, &options, &o, &lse));
        MUST(attune_attention_backward(&d_o, &q, &k, &v, &o, &lse, &options, &got[0], &got[1],
                                       &got[2], NULL, NULL));
        options.engine = ATTUNE_ENGINE_REFERENCE;
        MUST(attune_attention_backward(&d_o, &q, &k, &v, &o, &lse, &options, &exact[0], &exact[1],
                                       &exact[2], NULL, NULL));
        for (int t = 0; t < 3; t++) {
            const double d = difference(&got[t], &exact[t]);
            if (!(d <= 2e-4)) fail_msg("encoding %d gradient %d differs by %g", n, t, d);
        }
        if (n != 1 &&
            n != 3) { /* those go by the length of the keys, which q alone does not know */
            MUST(attune_tensor_slice(&positions, 1, 2, 13, &last));
            MUST(attune_position_rotate(pe, &q, &last, ATTUNE_QUERY, &rq));
            MUST(attune_position_rotate(pe, &k, &positions, ATTUNE_KEY, &rk));
            attune_attention_options unfused = {.causal = true, .engine = ATTUNE_ENGINE_REFERENCE};
            MUST(attune_attention_backward(&d_o, &rq, &rk, &v, &o, &lse, &unfused, &plain[0],
                                           &plain[1], &plain[2], NULL, NULL));
            MUST(attune_position_rotate_backward(pe, &plain[0], &last, ATTUNE_QUERY, &dq));
            MUST(attune_position_rotate_backward(pe, &plain[1], &positions, ATTUNE_KEY, &dk));
            assert_true(difference(&dq, &exact[0]) <= 2e-4);
            assert_true(difference(&dk, &exact[1]) <= 2e-4);
            attune_tensor *all[] = {&last, &rq, &rk, &plain[0], &plain[1], &plain[2], &dq, &dk};
            for (int i = 0; i < 8; i++) attune_tensor_close(all[i]);
        }
        attune_tensor *all[] = {&q, &k, &v, &o, &lse, &d_o, &positions};
        for (int i = 0; i < 7; i++) attune_tensor_close(all[i]);
        for (int t = 0; t < 3; t++) {
            attune_tensor_close(&got[t]);
            attune_tensor_close(&exact[t]);
        }
        attune_position_close(pe);
    }
}

static void learned_rows_train(void **state) {
    (void)state;
    attune_position *pe, *none;
    const int64_t shape[3] = {2, 3, 4}, row_of[6] = {5, 0, 5, 1, 5, 0};
    const int64_t flat[2] = {2, 3};
    attune_tensor d_out, positions, d_table;
    MUST(attune_position_learned(4, 6, 1, NULL, &pe));
    MUST(attune_tensor_new(ATTUNE_F32, 3, shape, &d_out));
    for (int i = 0; i < 24; i++) ((float *)d_out.data)[i] = (float)(i + 1);
    MUST(attune_tensor_new(ATTUNE_I64, 2, flat, &positions));
    memcpy(positions.data, row_of, sizeof row_of);
    MUST(attune_position_embed_backward(pe, &d_out, &positions, &d_table));
    assert_int_equal(d_table.shape[0], 6);
    for (int row = 0; row < 6; row++) {
        for (int d = 0; d < 4; d++) {
            float sum = 0;
            for (int t = 0; t < 6; t++) sum += row_of[t] == row ? (float)(t * 4 + d + 1) : 0;
            assert_true(((float *)d_table.data)[row * 4 + d] == sum);
        }
    }
    attune_tensor_close(&d_table);
    MUST(attune_position_embed_backward(pe, &d_out, NULL, &d_table));
    for (int d = 0; d < 4; d++)
        assert_true(((float *)d_table.data)[2 * 4 + d] == (float)(2 * 4 + d + 1 + 5 * 4 + d + 1));
    attune_tensor_close(&d_table);
    ((int64_t *)positions.data)[1] = 6;
    assert_int_equal(attune_position_embed_backward(pe, &d_out, &positions, &d_table),
                     ATTUNE_EVALUE);
    MUST(attune_position_none(&none));
    assert_int_equal(attune_position_embed_backward(none, &d_out, NULL, &d_table), ATTUNE_EVALUE);
    assert_string_equal(attune_message(),
                        "embed: expected an encoding that learns its rows, got none");
    attune_position_close(none);
    attune_position_close(pe);
    attune_tensor_close(&d_out);
    attune_tensor_close(&positions);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(backward_is_the_transpose),
                                       cmocka_unit_test(fused_gradients_agree),
                                       cmocka_unit_test(learned_rows_train)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
