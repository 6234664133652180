/* attune/linear.h - linear attention: features, gradients, the recurrent state. */
#ifndef ATTUNE_LINEAR_H
#define ATTUNE_LINEAR_H

#include "attune/position.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Attention without its score matrix, in time and memory linear in the number of tokens:
 *
 *   o_i = sum_j phi(q_i) . phi(k_j) v_j / sum_j phi(q_i) . phi(k_j)
 *
 * With w the M rows of the projection, x' = x D^(-1/4), n = |x'|^2 / 2 and c a stabiliser, the F
 * features of one x are
 *
 * - favor, F = M: e^(w . x' - n - c) + epsilon. Choromanski et al. 2021 (arXiv 2009.14794), lemma
 * 1: positive, and softmax's kernel on average.
 * - trig, F = 2 M: e^(n - c) sin(w . x') + epsilon, then the same with cosines. Equation 5.
 * - relu, F = M: max(w . x', 0) + epsilon. Section 4.
 * - elu, F = D: elu(x) + 1 + epsilon; without a projection. Katharopoulos et al. 2020 (arXiv
 *   2006.16236), equation 7.
 *
 * c is the max of w . x' over a query, and over all keys of a head (trig: the max of n). With
 * epsilon 0, c cancels; then the max of the whole exponent is subtracted instead, and for keys the
 * max so far, so that large scores neither overflow nor vanish. */
typedef enum attune_features {
    ATTUNE_FEATURES_FAVOR,
    ATTUNE_FEATURES_TRIG,
    ATTUNE_FEATURES_RELU,
    ATTUNE_FEATURES_ELU
} attune_features;

typedef struct attune_linear_options {
    bool causal; /* the last query is the last key's token; later keys are not visible */
    attune_features features;
    const attune_tensor *projection; /* [M, D], any float dtype */
    attune_position *rotate; /* rotates phi(q) and phi(k) in the numerator only: Su et al. 2021
                                (arXiv 2104.09864), equation 19; its head_dim is F */
    double epsilon;          /* at least 0 */
    int64_t block; /* tokens of a block; 0: the fastest. It changes only the last bits of results */
} attune_linear_options;

/* Errors of all functions below: ECLOSED, ESHAPE, EDTYPE, EVALUE (a projection that is missing, an
 * encoding that adds to scores, numbers out of range), EMEMORY, EINTERRUPT. */

/* q [B, Hq, Sq, D]   k [B, Hk, Sk, D]   v [B, Hk, Sk, Dv]   ->   o [B, Hq, Sq, Dv] in q's dtype
 * f32, bf16, f16 (in f32) or all f64; any strides. A query whose denominator is 0 (it has no
 * visible key, or all its features vanish) gives zeros. */
ATTUNE_API attune_status attune_linear_attention(const attune_tensor *q, const attune_tensor *k,
                                                 const attune_tensor *v,
                                                 const attune_linear_options *options,
                                                 attune_tensor *o);
/* The gradients of q, k and v, in the precision of the forward pass. With epsilon > 0 the
 * stabiliser changes the result, and gradients pass through it. */
ATTUNE_API attune_status attune_linear_attention_backward(
    const attune_tensor *d_o, const attune_tensor *q, const attune_tensor *k,
    const attune_tensor *v, const attune_linear_options *options, attune_tensor *dq,
    attune_tensor *dk, attune_tensor *dv);

/* A projection [features, head_dim] in f32. Each block of head_dim rows is orthogonal (the Q of a
 * QR decomposition of normal values), and the lengths of rows are distributed as those of normal
 * vectors. */
ATTUNE_API attune_status attune_favor_projection(int64_t head_dim, int64_t features, uint64_t seed,
                                                 attune_tensor *out);
/* x [B, H, S, D] -> [B, H, S, M] in x's dtype: favor's features as above, times M^(-1/2). */
ATTUNE_API attune_status attune_favor_features(const attune_tensor *x,
                                               const attune_tensor *projection, bool query,
                                               double epsilon, attune_tensor *out);

/* The recurrent state of causal linear attention, in f32: F rows of Dv sums per kv head, for any
 * number of tokens. */
typedef struct attune_linear_state attune_linear_state;
typedef struct attune_linear_state_options {
    int64_t batch, kv_heads, head_dim;
    int64_t v_head_dim; /* 0: head_dim */
    attune_features features;
    const attune_tensor *projection;
    attune_position *rotate; /* must outlive the state */
    double epsilon;
} attune_linear_state_options;
ATTUNE_API attune_status attune_linear_state_new(const attune_linear_state_options *options,
                                                 attune_linear_state **out);
ATTUNE_API void attune_linear_state_close(attune_linear_state *state); /* NULL: nothing */
/* k [B, Hk, S, D], v [B, Hk, S, Dv], any float dtype. A failure leaves the state as it was. */
ATTUNE_API attune_status attune_linear_state_append(attune_linear_state *state,
                                                    const attune_tensor *k, const attune_tensor *v);
/* q [B, Hq, 1, D], the last token appended -> o [B, Hq, 1, Dv] in q's dtype: the last row of causal
 * attune_linear_attention over all tokens appended. */
ATTUNE_API attune_status attune_linear_state_attend(attune_linear_state *state,
                                                    const attune_tensor *q, attune_tensor *o);
ATTUNE_API void attune_linear_state_reset(attune_linear_state *state);
ATTUNE_API int64_t
attune_linear_state_length(const attune_linear_state *state); /* tokens appended */
ATTUNE_API int64_t attune_linear_state_nbytes(const attune_linear_state *state); /* of the sums */
ATTUNE_API const attune_linear_state_options *
attune_linear_state_describe(const attune_linear_state *state);

#ifdef __cplusplus
}
#endif

#endif
