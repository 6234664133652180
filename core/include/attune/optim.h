/* attune/optim.h - the loss of a language model with its output projection, dropout, and what an
 * optimiser does with gradients. AdamW is in attune/nn.h. */
#ifndef ATTUNE_OPTIM_H
#define ATTUNE_OPTIM_H

#include "attune/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Float tensors of any strides, as in attune/nn.h; what is written in place is contiguous, f32 or
 * f64. Sums have an order that the shapes alone decide. Errors: ESHAPE, EDTYPE, ECLOSED, EMEMORY,
 * EINTERRUPT; EVALUE for ids and numbers out of range. */

typedef struct attune_loss_options {
    double logit_scale;     /* of the logits, 1; 0 counts as 1 */
    double softcap;         /* logits become softcap tanh(logits / softcap); 0: none */
    double label_smoothing; /* the part of the target that is spread over all ids, 0 .. below 1 */
    double z_loss;          /* times lse^2, added to each token's loss: Chowdhery et al. 2022 */
    bool gradients;         /* whether dx, dweight and dbias are wanted */
} attune_loss_options;

/* Cross-entropy of logits = x weight^T + bias, which are computed in blocks of rows and never exist
 * as a whole:
 *
 *   z = cap(logit_scale (weight x + bias))    lse = log sum e^z
 *   loss = sum_i w_i (lse_i - (1 - s) z_i[target_i] - s mean(z_i) + z_loss lse_i^2) / sum_i w_i
 *   nll  = sum_i w_i (lse_i - z_i[target_i]) / sum_i w_i
 *
 * x [.., d]   weight [n, d]   bias [n] or NULL   targets i64 [..], 0 .. n - 1   weights [..], each
 * at least 0, or NULL: all 1. Tokens of weight 0 are skipped and their targets are not read;
 * without any other token the loss is 0. dx [.., d], dweight [n, d], dbias [n]: gradients of the
 * loss. */
ATTUNE_API attune_status attune_projected_loss(
    const attune_tensor *x, const attune_tensor *weight, const attune_tensor *bias,
    const attune_tensor *targets, const attune_tensor *weights, const attune_loss_options *options,
    double *loss, double *nll, attune_tensor *dx, attune_tensor *dweight, attune_tensor *dbias);

/* Element i of y is 0 with probability p and else x_i / (1 - p): Srivastava et al. 2014. Which ones
 * follows from word i % 4 of Philox counter (i / 4, step, layer) under the seed, so the gradient is
 * the same function of dy. 0 <= p < 1. */
ATTUNE_API attune_status attune_dropout(const attune_tensor *x, double p, uint64_t seed,
                                        uint32_t step, uint32_t layer, attune_tensor *y);

/* The sum of the squares of all elements. */
ATTUNE_API attune_status attune_sum_of_squares(const attune_tensor *t, double *sum);
/* t = factor t, in place; t of any strides. */
ATTUNE_API attune_status attune_scale(attune_tensor *t, double factor);

typedef struct attune_sgd_options {
    double lr, momentum, weight_decay;
    bool nesterov;
} attune_sgd_options;
/* One step in place: h = g + weight_decay p   m = momentum m + h   p -= lr m, or with nesterov p -=
 * lr (h + momentum m): Sutskever et al. 2013. p and m of one shape; m NULL: momentum is 0. */
ATTUNE_API attune_status attune_sgd(const attune_sgd_options *options, attune_tensor *p,
                                    const attune_tensor *g, attune_tensor *m);

typedef struct attune_muon_options {
    double lr, momentum, weight_decay;
    bool nesterov;
    int64_t iterations; /* of Newton and Schulz, 5; 0 counts as 5 */
} attune_muon_options;
/* Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) for a matrix [rows, columns]: m =
 * momentum m + (1 - momentum) g, u = m, or with nesterov u = (1 - momentum) g + momentum m; U is u
 * with its singular values moved near 1 by the iteration X = a X + (b X X^T + c (X X^T)^2) X; p =
 * (1 - lr weight_decay) p - lr sqrt(max(1, rows / columns)) U. */
ATTUNE_API attune_status attune_muon(const attune_muon_options *options, attune_tensor *p,
                                     const attune_tensor *g, attune_tensor *m);

#ifdef __cplusplus
}
#endif

#endif
