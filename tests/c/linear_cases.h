/* linear_cases.h - random problems of linear attention. */
#ifndef TEST_LINEAR_CASES_H
#define TEST_LINEAR_CASES_H

#include "test.h"
#include "position/rotate.h"
#include "problems.h"

typedef struct linear_case {
    uint64_t seed;
    int64_t B, Hq, Hk, Sq, Sk, D, Dv, M, F;
    attune_dtype dtype;
    bool strided;
    attune_linear_options options;
    attune_tensor q, k, v, w;
    attune_position *pe;
} linear_case;

/* "seed 7: B 1, .." in a static buffer. */
const char *linear_text(const linear_case *c);

/* What the fields ask for: tensors and the projection; then features rotated by RoPE on half of
 * their dims. */
void linear_tensors(linear_case *c);
void linear_turn(linear_case *c, attune_pairing pairing);

/* All of it follows from the seed. max_tokens: tokens at max_tokens. */
void linear_make(uint64_t seed, attune_dtype dtype, int64_t max_tokens, linear_case *c);
/* Long enough for sections. */
void linear_long(uint64_t seed, int64_t Hq, int64_t Hk, int64_t S, attune_features features,
                 double epsilon, bool causal, linear_case *c);
/* 100 causal tokens, two query heads over one key head. */
void linear_of_100(attune_dtype dtype, linear_case *c);
void linear_close(linear_case *c);

double linear_at(const attune_tensor *t, int64_t a, int64_t b, int64_t i, int64_t d);

#endif
