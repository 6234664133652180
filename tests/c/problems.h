/* problems.h - random attention problems, and error bounds from the plain formula in single
 * precision. */
#ifndef TEST_PROBLEMS_H
#define TEST_PROBLEMS_H

#include "attune.h"

typedef struct problem {
    uint64_t seed;
    int64_t B, Hq, Hk, Sq, Sk, D, Dv;
    attune_dtype dtype; /* of q, k and v */
    bool strided;       /* q, k, v are transposed views */
    attune_attention_options options;
    attune_tensor q, k, v, sinks;
    int64_t counts[4], lengths[512];
} problem;

/* The n-th draw under a seed, from 0 to below - 1. */
int64_t draw(uint64_t seed, uint32_t n, int64_t below);

/* The seed determines everything about the problem. It has at most max_tokens queries and keys. */
void problem_make(uint64_t seed, int64_t max_tokens, problem *out);
void problem_close(problem *p);

/* "seed 7: B 1, Hq 6, .." in a static buffer. */
const char *problem_text(const problem *p);

/* A random tensor [B, H, S, D] of that dtype; strided: laid out [B, S, H, D] and transposed. */
void random_tensor(uint64_t seed, const int64_t shape[4], attune_dtype dtype, bool strided,
                   attune_tensor *out);

/* The max difference in o and lse between an f32 implementation and the reference. It is the sum of
 * twice the max error of the plain formula in single precision, the rounding of scores to f32 (up
 * to max |s|), the rounding of q times the scale, and the rounding of the results to their dtypes.
 */
typedef struct error_bound {
    double o, lse;
} error_bound;
error_bound bound_of(const problem *p, const attune_tensor *o, const attune_tensor *lse);

/* The max |a - b|; infinite where one is NaN and the other is not, or infinities differ. */
double difference(const attune_tensor *a, const attune_tensor *b);

#endif
