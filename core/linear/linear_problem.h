/* linear_problem.h - a valid problem of linear attention, and its two engines.
 *
 *   o_i = sum_j (R phi(q_i)) . (R phi(k_j)) v_j  /  sum_j phi(q_i) . phi(k_j)
 *
 * The sums are over all keys or, if causal, over the keys up to token i. R rotates features by
 * their token's position where there is a rotation: RoFormer (arXiv 2104.09864), equation 19.
 */
#ifndef AT_LINEAR_LINEAR_PROBLEM_H
#define AT_LINEAR_LINEAR_PROBLEM_H

#include <stdatomic.h>

#include "attune.h"
#include "position/rotate.h"

typedef struct at_linear {
    int64_t B, Hq, Hk, G, Sq, Sk, D, Dv;
    int64_t M, F; /* rows of the projection (elu: 0), features */
    attune_features features;
    bool causal, in_f64;
    double epsilon;
    int64_t block;            /* tokens of a block; 0: the engine chooses */
    attune_tensor q, k, v;    /* borrowed views */
    attune_tensor projection; /* [M, D] f64, contiguous; times D^(-1/4), so that w . x is w . x' of
                                 attune/linear.h; closed for elu */
    const attune_position *rotate;      /* NULL: features are not rotated */
    at_rotation q_rotation, k_rotation; /* f32; the queries are the last tokens */
    double *q_cos_sin, *k_cos_sin; /* [Sq][2][pairs], [Sk][2][pairs]: f64 cosines, then sines, which
                                      the reference makes; else NULL */
} at_linear;

/* Checks that rotate is NULL, or an encoding of one position per token that rotates `features`
 * elements or does not rotate at all. */
attune_status at_linear_check_rotation(attune_position *rotate, int64_t features);

/* Checks the projection and converts it to the form of at_linear. *rows is M, *features is F. */
attune_status at_linear_projection(attune_features kind, const attune_tensor *projection,
                                   int64_t head_dim, attune_tensor *out, int64_t *rows,
                                   int64_t *features);

/* Validates all arguments. After success the caller calls at_linear_close. */
attune_status at_linear_make(const attune_tensor *q, const attune_tensor *k, const attune_tensor *v,
                             const attune_linear_options *options, at_linear *out);
void at_linear_close(at_linear *p);

/* The engines: `blocked` in f32, `reference` in f64 through BLIS. They write every element of o
 * [B, Hq, Sq, Dv], which is new and contiguous and has q's dtype. */
attune_status at_linear_blocked(const at_linear *p, attune_tensor *o);
attune_status at_linear_reference(at_linear *p, attune_tensor *o);

/* Arguments and results of the backward engines: d_o is the gradient of o; dq, dk and dv are like
 * q, k and v, new and contiguous. */
typedef struct at_linear_gradients {
    const attune_tensor *d_o;
    attune_tensor *dq, *dk, *dv;
} at_linear_gradients;
attune_status at_linear_blocked_backward(const at_linear *p, const at_linear_gradients *g);
attune_status at_linear_reference_backward(at_linear *p, const at_linear_gradients *g);

/* One kv head with all its query heads, token by token in double precision: slow, but right for
 * exponents of any size. For exponential features without epsilon. Either o or g is NULL. Rows of
 * queries before the first key are not written. */
attune_status at_linear_by_token(const at_linear *p, int64_t head, attune_tensor *o,
                                 const at_linear_gradients *g);
/* The kv heads h with again[h], by token. */
attune_status at_linear_again(const at_linear *p, const atomic_bool *again, attune_tensor *o,
                              const at_linear_gradients *g);

/* Whether the features are exponentials that are relative to a max exponent, which cancels. */
static inline bool at_linear_is_relative(attune_features features, double epsilon) {
    return !(epsilon > 0) &&
           (features == ATTUNE_FEATURES_FAVOR || features == ATTUNE_FEATURES_TRIG);
}

#endif
