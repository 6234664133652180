/* test_large_scores.c - rows whose scores are all very negative or very large, in every engine and
 * dtype, in caches, and backward. Many models pad by adding -1e9, -1e10, -1e30 or the smallest f32
 * to scores. The expected results follow from the construction: a row attends equally to its
 * visible keys with the max score. */
#include <stdio.h>

#include "problems.h"
#include "test.h"

enum { D = 16, TOKENS = 330, HEADS = 3 };

static const double fills[] = {300, 1e4, 1e6, 1e9, 1e10, 1e15, 1e30, 3.4028234663852886e38};
enum { FILLS = sizeof fills / sizeof fills[0] };

static const attune_engine engines[] = {ATTUNE_ENGINE_REFERENCE, ATTUNE_ENGINE_BLIS,
                                        ATTUNE_ENGINE_TILED, ATTUNE_ENGINE_DECODE};

/* The level of a token's score: it is multiplied by the fill. The first tokens are padding; in
 * `rising` a few later tokens outweigh everything before them. */
typedef enum pattern { ALL_LOW, ALL_HIGH, PADDED, RISING, PATTERNS } pattern;

static float level_of(pattern kind, int64_t token) {
    switch (kind) {
    case ALL_LOW: return -1;
    case ALL_HIGH: return 1;
    case PADDED: return token < 290 ? -1 : 0;
    default: return token < 70 ? -1 : token == 200 || token == 300 ? 1 : 0;
    }
}

typedef struct input {
    attune_tensor q, k, v;
    int64_t Sq;
    pattern kind;
} input;

/* q is 1 in its first dim and 0 elsewhere, k has the token's level there. */
static void make(pattern kind, int64_t Sq, attune_dtype dtype, input *in) {
    const int64_t q_shape[4] = {1, HEADS, Sq, D}, shape[4] = {1, 1, TOKENS, D};
    attune_tensor q, k;
    *in = (input){.Sq = Sq, .kind = kind};
    MUST(attune_tensor_new(ATTUNE_F32, 4, q_shape, &q));
    MUST(attune_tensor_new(ATTUNE_F32, 4, shape, &k));
    for (int64_t r = 0; r < HEADS * Sq; r++) ((float *)q.data)[r * D] = 1;
    for (int64_t j = 0; j < TOKENS; j++) ((float *)k.data)[j * D] = level_of(kind, j);
    MUST(attune_tensor_convert(&q, dtype, &in->q));
    MUST(attune_tensor_convert(&k, dtype, &in->k));
    random_tensor(7, shape, dtype, false, &in->v);
    attune_tensor_close(&q);
    attune_tensor_close(&k);
}

static void close_input(input *in) {
    attune_tensor_close(&in->q);
    attune_tensor_close(&in->k);
    attune_tensor_close(&in->v);
}

/* The max level among the keys that are visible to query i, and the number of keys that have it. */
static int64_t winners(const input *in, int64_t i, float *level) {
    int64_t count = 0;
    *level = -INFINITY;
    for (int64_t j = 0; j <= i + TOKENS - in->Sq; j++) {
        const float l = level_of(in->kind, j);
        if (l > *level) count = 0;
        if (l >= *level) count++;
        *level = fmaxf(*level, l);
    }
    return count;
}

static double element(const attune_tensor *t, int64_t h, int64_t i, int64_t d) {
    double x;
    const int64_t index[4] = {0, h, i, d};
    MUST(attune_tensor_get(t, index, &x));
    return x;
}

/* share: of the weights that the keys have; a sink has the rest. */
static void check_rows(const char *what, const input *in, double fill, double share, double bound,
                       const attune_tensor *o, const attune_tensor *lse) {
    for (int64_t i = 0; i < in->Sq; i++) {
        float level;
        const int64_t count = winners(in, i, &level);
        const double wanted_lse = fill * (double)level + log((double)count / share);
        for (int64_t h = 0; h < HEADS; h++) {
            const double got = element(lse, h, i, 0);
            if (!(fabs(got - wanted_lse) <= 1e-5 + 0x1p-22 * fabs(wanted_lse)))
                fail_msg("%s: fill %g, query %d: lse %g, expected %g", what, fill, (int)i, got,
                         wanted_lse);
        }
        for (int64_t d = 0; d < D; d += 7) {
            double sum = 0;
            for (int64_t j = 0; j <= i + TOKENS - in->Sq; j++)
                if (level_of(in->kind, j) == level) sum += element(&in->v, 0, j, d);
            const double wanted = share * sum / (double)count, got = element(o, 1, i, d);
            if (!(fabs(got - wanted) <= bound * (1 + fabs(wanted))))
                fail_msg("%s: fill %g, query %d: o %g, expected %g", what, fill, (int)i, got,
                         wanted);
        }
    }
}

static double bound_of_dtype(attune_dtype dtype) {
    return dtype == ATTUNE_BF16 ? 0x1p-7 : dtype == ATTUNE_F16 ? 0x1p-10 : 1e-5;
}

static void equal_max_scores_share_the_weight(void **state) {
    (void)state;
    static const attune_dtype dtypes[] = {ATTUNE_F32, ATTUNE_BF16, ATTUNE_F16};
    for (int n = 0; n < FILLS * 3 * 4 * 2; n++) {
        const double fill = fills[n % FILLS];
        const attune_dtype dtype = dtypes[n / FILLS % 3];
        const attune_engine engine = engines[n / FILLS / 3 % 4];
        const int64_t Sq = n / FILLS / 12 ? 16 : TOKENS;
        if (engine == ATTUNE_ENGINE_DECODE && Sq > 16) continue;
        for (int kind = n / 3 % 2; kind < PATTERNS; kind += 2) {
            char what[80];
            input in;
            attune_tensor o, lse;
            snprintf(what, sizeof what, "engine %d, %s, pattern %d", (int)engine,
                     attune_dtype_name(dtype), kind);
            make(kind, Sq, dtype, &in);
            const attune_attention_options options = {
                .causal = true, .scale_given = true, .scale = fill, .engine = engine};
            MUST(attune_attention(&in.q, &in.k, &in.v, &options, &o, &lse));
            check_rows(what, &in, fill, 1, bound_of_dtype(dtype), &o, &lse);
            attune_tensor_close(&o);
            attune_tensor_close(&lse);
            close_input(&in);
        }
    }
}

/* A sink as large as the scores has the weight of one more key. */
static void sinks_share_it_too(void **state) {
    (void)state;
    for (int n = 0; n < FILLS * 4; n++) {
        const double fill = (double)(float)fills[n % FILLS];
        const attune_engine engine = engines[n / FILLS];
        const int64_t heads = HEADS;
        input in;
        attune_tensor o, lse, sinks;
        make(ALL_LOW, 1, ATTUNE_F32, &in);
        MUST(attune_tensor_new(ATTUNE_F32, 1, &heads, &sinks));
        for (int h = 0; h < HEADS; h++) ((float *)sinks.data)[h] = (float)-fill;
        const attune_attention_options options = {
            .scale_given = true, .scale = fill, .engine = engine, .sinks = &sinks};
        MUST(attune_attention(&in.q, &in.k, &in.v, &options, &o, &lse));
        check_rows("sinks", &in, fill, TOKENS / (TOKENS + 1.0), 1e-5, &o, &lse);
        attune_tensor_close(&o);
        attune_tensor_close(&lse);
        attune_tensor_close(&sinks);
        close_input(&in);
    }
}

static void caches_agree(void **state) {
    (void)state;
    static const attune_dtype dtypes[] = {ATTUNE_F32, ATTUNE_BF16, ATTUNE_F16, ATTUNE_I8};
    for (int n = 0; n < FILLS * 4 * 2; n++) {
        const double fill = fills[n % FILLS];
        const attune_dtype dtype = dtypes[n / FILLS % 4];
        const int64_t Sq = n / FILLS / 4 ? 30 : 1;
        for (int kind = n / 3 % 2; kind < PATTERNS; kind += 2) {
            char what[80];
            input in;
            attune_tensor o, lse;
            attune_cache *cache;
            snprintf(what, sizeof what, "cache of %s, pattern %d", attune_dtype_name(dtype), kind);
            make(kind, Sq, dtype == ATTUNE_BF16 ? ATTUNE_BF16 : ATTUNE_F32, &in);
            const attune_cache_options options = {
                .batch = 1, .kv_heads = 1, .head_dim = D, .capacity = TOKENS, .dtype = dtype};
            const attune_attention_options attend = {.scale_given = true, .scale = fill};
            MUST(attune_cache_new(&options, &cache));
            MUST(attune_cache_append(cache, &in.k, &in.v, NULL, NULL));
            MUST(attune_cache_attend(cache, &in.q, &attend, &o, &lse));
            check_rows(what, &in, fill, 1, dtype == ATTUNE_I8 ? 0.02 : bound_of_dtype(dtype), &o,
                       &lse);
            attune_cache_close(cache);
            attune_tensor_close(&o);
            attune_tensor_close(&lse);
            close_input(&in);
        }
    }
}

/* Scores 2^22 + x with small x, which f32 holds exactly: the softmax is that of x. */
static void differences_of_large_scores_are_exact(void **state) {
    (void)state;
    static const double sizes[] = {0x1p12, 0x1p18, 0x1p22};
    for (int n = 0; n < 6; n++) {
        const double size = sizes[n / 2] * (n % 2 ? -1 : 1);
        const int64_t q_shape[4] = {1, 2, 40, D}, shape[4] = {1, 1, 300, D};
        attune_tensor q, k, v, x, o[4], lse[4], d_o, d[3][3];
        attune_attention_options options = {.causal = true, .scale_given = true, .scale = 1};
        MUST(attune_tensor_new(ATTUNE_F32, 4, q_shape, &q));
        MUST(attune_tensor_new(ATTUNE_F32, 4, shape, &k));
        MUST(attune_tensor_new(ATTUNE_F32, 4, shape, &x));
        random_tensor(1, shape, ATTUNE_F32, false, &v);
        random_tensor(2, q_shape, ATTUNE_F32, false, &d_o);
        for (int64_t r = 0; r < 80; r++) {
            ((float *)q.data)[r * D] = 1;
            ((float *)q.data)[r * D + 1] = (float)(1 + r % 3);
        }
        for (int64_t j = 0; j < 300; j++) {
            const float small = 0.5f * (float)draw(9, (uint32_t)j, 7);
            ((float *)k.data)[j * D] = (float)size;
            ((float *)k.data)[j * D + 1] = ((float *)x.data)[j * D + 1] = small;
        }
        options.engine = ATTUNE_ENGINE_REFERENCE;
        MUST(attune_attention(&q, &x, &v, &options, &o[3], &lse[3]));
        MUST(attune_attention_backward(&d_o, &q, &x, &v, &o[3], &lse[3], &options, &d[2][0],
                                       &d[2][1], &d[2][2], NULL, NULL));
        for (int e = 0; e < 3; e++) {
            options.engine = engines[e];
            MUST(attune_attention(&q, &k, &v, &options, &o[e], &lse[e]));
            const double got = difference(&o[e], &o[3]);
            if (!(got <= 2e-6)) fail_msg("engine %d, size %g: o differs by %g", e, size, got);
            if (e == 1) continue;
            attune_tensor *g = d[e / 2];
            MUST(attune_attention_backward(&d_o, &q, &k, &v, &o[e], &lse[e], &options, &g[0], &g[1],
                                           &g[2], NULL, NULL));
            for (int t = 0; t < 3; t++) {
                /* dq is a sum of gradients that cancel, times keys of that size. */
                const double most = t == 0 ? 4e-6 * fabs(size) : 2e-5,
                             off = difference(&g[t], &d[2][t]);
                if (!(off <= most))
                    fail_msg("engine %d, size %g: gradient %d differs by %g", e, size, t, off);
                attune_tensor_close(&g[t]);
            }
        }
        attune_tensor *all[] = {&q, &k, &v, &x, &d_o, &d[2][0], &d[2][1], &d[2][2]};
        for (int t = 0; t < 8; t++) attune_tensor_close(all[t]);
        for (int e = 0; e < 4; e++) {
            attune_tensor_close(&o[e]);
            attune_tensor_close(&lse[e]);
        }
    }
}

/* The gradient of v is the sum of d_o over the rows that share a key, each over their number. */
static void gradients_of_padded_rows(void **state) {
    (void)state;
    static const attune_dtype dtypes[] = {ATTUNE_F32, ATTUNE_BF16, ATTUNE_F64};
    for (int n = 0; n < FILLS * 3 * 2 * 2; n++) {
        const double fill = fills[n % FILLS];
        const attune_dtype dtype = dtypes[n / FILLS % 3];
        const bool capped = n / FILLS / 6;
        const attune_engine engine =
            n / FILLS / 3 % 2 ? ATTUNE_ENGINE_REFERENCE : ATTUNE_ENGINE_DEFAULT;
        if (capped && fill > 1e15) continue;
        for (int kind = n / 3 % 2; kind < PATTERNS; kind += 2) {
            input in;
            attune_tensor o, lse, d_o, d[3], dsinks, sinks;
            const int64_t heads = HEADS;
            make(kind, TOKENS, dtype, &in);
            MUST(attune_tensor_new(ATTUNE_F32, 1, &heads, &sinks));
            for (int h = 0; h < HEADS; h++) ((float *)sinks.data)[h] = -INFINITY;
            attune_attention_options options = {.causal = true,
                                                .scale_given = true,
                                                .scale = capped ? 20 * fill : fill,
                                                .softcap = capped ? fill : 0,
                                                .sinks = kind % 2 ? &sinks : NULL,
                                                .engine = engine};
            MUST(attune_attention(&in.q, &in.k, &in.v, &options, &o, &lse));
            random_tensor(3, o.shape, dtype, false, &d_o);
            MUST(attune_attention_backward(&d_o, &in.q, &in.k, &in.v, &o, &lse, &options, &d[0],
                                           &d[1], &d[2], kind % 2 ? &dsinks : NULL, NULL));
            double wanted[TOKENS] = {0};
            for (int64_t i = 0; i < TOKENS; i++) {
                float level;
                const int64_t count = winners(&in, i, &level);
                double sum = 0;
                for (int64_t h = 0; h < HEADS; h++) sum += element(&d_o, h, i, 5);
                for (int64_t j = 0; j <= i; j++)
                    if (level_of(kind, j) == level) wanted[j] += sum / (double)count;
            }
            for (int64_t j = 0; j < TOKENS; j++) {
                const double got = element(&d[2], 0, j, 5);
                if (!(fabs(got - wanted[j]) <= bound_of_dtype(dtype) * (1 + fabs(wanted[j]))))
                    fail_msg("%s, engine %d, fill %g%s, pattern %d: dv of key %d: %g, expected %g",
                             attune_dtype_name(dtype), (int)engine, fill, capped ? ", capped" : "",
                             kind, (int)j, got, wanted[j]);
            }
            attune_tensor *all[] = {&o, &lse, &d_o, &d[0], &d[1], &d[2], &sinks};
            for (int t = 0; t < 7; t++) attune_tensor_close(all[t]);
            if (kind % 2) attune_tensor_close(&dsinks);
            close_input(&in);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_max_scores_share_the_weight),
        cmocka_unit_test(sinks_share_it_too),
        cmocka_unit_test(caches_agree),
        cmocka_unit_test(differences_of_large_scores_are_exact),
        cmocka_unit_test(gradients_of_padded_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
