/* linear_cases.c - random problems of linear attention. */
#include "linear_cases.h"

#include <stdio.h>

const char *linear_text(const linear_case *c) {
    static char text[256];
    snprintf(text, sizeof text,
             "seed %llu: B %lld, Hq %lld, Hk %lld, Sq %lld, Sk %lld, D %lld, Dv %lld, M %lld, "
             "features %d, %s%s%s%s, epsilon %g, block %lld",
             (unsigned long long)c->seed, (long long)c->B, (long long)c->Hq, (long long)c->Hk,
             (long long)c->Sq, (long long)c->Sk, (long long)c->D, (long long)c->Dv, (long long)c->M,
             (int)c->options.features, attune_dtype_name(c->dtype), c->strided ? ", strided" : "",
             c->options.causal ? ", causal" : "", c->pe ? ", rotated" : "", c->options.epsilon,
             (long long)c->options.block);
    return text;
}

void linear_tensors(linear_case *c) {
    const int64_t q[4] = {c->B, c->Hq, c->Sq, c->D}, k[4] = {c->B, c->Hk, c->Sk, c->D},
                  v[4] = {c->B, c->Hk, c->Sk, c->Dv};
    random_tensor(c->seed * 4, q, c->dtype, c->strided, &c->q);
    random_tensor(c->seed * 4 + 1, k, c->dtype, c->strided, &c->k);
    random_tensor(c->seed * 4 + 2, v, c->dtype, c->strided, &c->v);
    c->F = c->options.features == ATTUNE_FEATURES_ELU    ? c->D
           : c->options.features == ATTUNE_FEATURES_TRIG ? 2 * c->M
                                                         : c->M;
    MUST(attune_favor_projection(c->D, c->M, c->seed, &c->w));
    if (c->options.features != ATTUNE_FEATURES_ELU) c->options.projection = &c->w;
}

void linear_turn(linear_case *c, attune_pairing pairing) {
    const attune_rope_options rope = {
        .head_dim = c->F, .dims = c->F / 4 * 2 > 0 ? c->F / 4 * 2 : 2, .pairing = pairing};
    MUST(attune_position_rope(&rope, &c->pe));
    c->options.rotate = c->pe;
}

void linear_make(uint64_t seed, attune_dtype dtype, int64_t max_tokens, linear_case *c) {
    static const int64_t groups[] = {1, 1, 2, 3, 8}, dims[] = {1, 3, 8, 16, 17, 32, 40, 64},
                         rows[] = {1, 2, 8, 24, 31, 48, 64, 100};
    *c = (linear_case){.seed = seed, .dtype = dtype, .strided = draw(seed, 0, 3) == 0};
    c->B = 1 + draw(seed, 1, 2);
    c->Hk = 1 + draw(seed, 2, 3);

    c->Hq = c->Hk * groups[draw(seed, 3, 5)];
    c->D = dims[draw(seed, 4, 8)];
    c->Dv = draw(seed, 5, 2) ? c->D : dims[draw(seed, 6, 8)];

    c->M = rows[draw(seed, 7, 8)];
    c->Sk = 1 + draw(seed, 8, max_tokens);
    c->Sq = draw(seed, 9, 2) ? c->Sk : 1 + draw(seed, 10, max_tokens);
    c->options.causal = draw(seed, 11, 2);
    c->options.features = (attune_features)draw(seed, 12, 4);
    if (draw(seed, 13, 2) || c->options.features == ATTUNE_FEATURES_RELU)
        c->options.epsilon = draw(seed, 14, 2) ? 1e-3 : 0.1;
    c->options.block = draw(seed, 15, 3) == 0 ? 1 + draw(seed, 16, 40) : 0;
    linear_tensors(c);
    if (draw(seed, 17, 3) == 0 && c->F >= 2)
        linear_turn(c, draw(seed, 18, 2) ? ATTUNE_HALF : ATTUNE_INTERLEAVED);
}

void linear_long(uint64_t seed, int64_t Hq, int64_t Hk, int64_t S, attune_features features,
                 double epsilon, bool causal, linear_case *c) {
    *c = (linear_case){.seed = seed,
                       .B = 1,
                       .Hq = Hq,
                       .Hk = Hk,
                       .Sq = S,
                       .Sk = S,
                       .D = 16,
                       .Dv = 24,
                       .M = 48,
                       .dtype = ATTUNE_F32};
    c->options.features = features;
    c->options.epsilon = epsilon;
    c->options.causal = causal;
    linear_tensors(c);
}

void linear_of_100(attune_dtype dtype, linear_case *c) {
    *c = (linear_case){.seed = 31,
                       .B = 1,
                       .Hq = 2,
                       .Hk = 1,
                       .Sq = 100,
                       .Sk = 100,
                       .D = 16,
                       .Dv = 20,
                       .M = 40,
                       .dtype = dtype};
    c->options.causal = true;
    linear_tensors(c);
}

void linear_close(linear_case *c) {
    attune_tensor *all[] = {&c->q, &c->k, &c->v, &c->w};
    for (int i = 0; i < 4; i++) attune_tensor_close(all[i]);
    attune_position_close(c->pe);
}

double linear_at(const attune_tensor *t, int64_t a, int64_t b, int64_t i, int64_t d) {
    double x = 0;
    const int64_t index[4] = {a, b, i, d};
    MUST(attune_tensor_get(t, index, &x));
    return x;
}
