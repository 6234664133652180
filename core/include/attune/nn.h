/* attune/nn.h - what training needs besides attention: each function with its gradient. */
#ifndef ATTUNE_NN_H
#define ATTUNE_NN_H

#include "attune/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Arguments are float tensors of any strides. f32 and f64 are computed in their own precision, bf16
 * and f16 in f32. Results are new tensors. A row is the last axis, n elements. Sums over rows are
 * added in an order that the shape alone decides. Errors: ESHAPE, EDTYPE, ECLOSED, EMEMORY; EVALUE
 * for ids, targets and numbers out of range. */

/* y = x rstd weight, rstd = 1 / sqrt(mean(x^2) + eps): x, y [.., n]   weight [n] or NULL   rstd
 * [..] (Zhang and Sennrich 2019). */
ATTUNE_API attune_status attune_rms_norm(const attune_tensor *x, const attune_tensor *weight,
                                         double eps, attune_tensor *y, attune_tensor *rstd);
ATTUNE_API attune_status attune_rms_norm_backward(const attune_tensor *dy, const attune_tensor *x,
                                                  const attune_tensor *weight,
                                                  const attune_tensor *rstd, attune_tensor *dx,
                                                  attune_tensor *dweight);
/* y = (x - mean) rstd weight + bias: weight, bias [n] or NULL   mean, rstd [..] (Ba et al. 2016).
 * dweight and dbias may be NULL. */
ATTUNE_API attune_status attune_layer_norm(const attune_tensor *x, const attune_tensor *weight,
                                           const attune_tensor *bias, double eps, attune_tensor *y,
                                           attune_tensor *mean, attune_tensor *rstd);
ATTUNE_API attune_status attune_layer_norm_backward(const attune_tensor *dy, const attune_tensor *x,
                                                    const attune_tensor *weight,
                                                    const attune_tensor *mean,
                                                    const attune_tensor *rstd, attune_tensor *dx,
                                                    attune_tensor *dweight, attune_tensor *dbias);
/* y = x Phi(x), Phi the distribution function of the standard normal, or its approximation with
 * tanh (Hendrycks and Gimpel 2016): x, y of one shape. */
ATTUNE_API attune_status attune_gelu(const attune_tensor *x, bool with_tanh, attune_tensor *y);
ATTUNE_API attune_status attune_gelu_backward(const attune_tensor *dy, const attune_tensor *x,
                                              bool with_tanh, attune_tensor *dx);
/* y = gate sigmoid(gate) up (Shazeer 2020): all of one shape. */
ATTUNE_API attune_status attune_swiglu(const attune_tensor *gate, const attune_tensor *up,
                                       attune_tensor *y);
ATTUNE_API attune_status attune_swiglu_backward(const attune_tensor *dy, const attune_tensor *gate,
                                                const attune_tensor *up, attune_tensor *dgate,
                                                attune_tensor *dup);
/* The mean of -log softmax(logits)[target] over the tokens whose target is not `ignore`; 0 if there
 * is no such token: logits [.., n]   targets i64 [..], from 0 to n - 1   lse [..]. */
ATTUNE_API attune_status attune_cross_entropy(const attune_tensor *logits,
                                              const attune_tensor *targets, int64_t ignore,
                                              double *loss, attune_tensor *lse);
ATTUNE_API attune_status attune_cross_entropy_backward(double dloss, const attune_tensor *logits,
                                                       const attune_tensor *targets, int64_t ignore,
                                                       const attune_tensor *lse,
                                                       attune_tensor *dlogits);
/* table [vocabulary, n], ids i64 [..] -> [.., n] */
ATTUNE_API attune_status attune_embedding(const attune_tensor *table, const attune_tensor *ids,
                                          attune_tensor *out);
ATTUNE_API attune_status attune_embedding_backward(const attune_tensor *d_out,
                                                   const attune_tensor *ids, int64_t vocabulary,
                                                   attune_tensor *dtable);
/* Adds the gradient to dtable, which is contiguous, f64 where d_out is, else f32. */
ATTUNE_API attune_status attune_embedding_accumulate(const attune_tensor *d_out,
                                                     const attune_tensor *ids,
                                                     attune_tensor *dtable);

/* Gradients of the operations of attune/tensor.h. dy has the shape of the result. da, db and so on
 * may be NULL where they are not needed.
 *
 * unary: `kept` is the result y where attune_unary_keeps_result(op), else the argument x. */
ATTUNE_API bool attune_unary_keeps_result(attune_unary op);
ATTUNE_API attune_status attune_unary_backward(attune_unary op, const attune_tensor *dy,
                                               const attune_tensor *kept, attune_tensor *dx);
ATTUNE_API attune_status attune_binary_backward(attune_binary op, const attune_tensor *dy,
                                                const attune_tensor *a, const attune_tensor *b,
                                                attune_tensor *da, attune_tensor *db);
/* The inverse of a broadcast: sums over the axes that `shape`, aligned with the last axes of t,
 * lacks or has as 1. A t of that shape is shared. */
ATTUNE_API attune_status attune_sum_to(const attune_tensor *t, int rank, const int64_t *shape,
                                       attune_tensor *out);
/* Of take and gather: sums, in order, into zeros of `shape`. */
ATTUNE_API attune_status attune_take_backward(const attune_tensor *dy, const attune_tensor *indices,
                                              int axis, int rank, const int64_t *shape,
                                              attune_tensor *dx);
ATTUNE_API attune_status attune_gather_backward(const attune_tensor *dy, int axis,
                                                const attune_tensor *indices, int rank,
                                                const int64_t *shape, attune_tensor *dx);
ATTUNE_API attune_status attune_softmax_backward(const attune_tensor *dy, const attune_tensor *y,
                                                 int axis, attune_tensor *dx);
/* Of slice, or of select where dy has an axis less: zeros of `shape` except for dy, from `first` on
 * along the axis. */
ATTUNE_API attune_status attune_slice_backward(const attune_tensor *dy, int rank,
                                               const int64_t *shape, int axis, int64_t first,
                                               attune_tensor *dx);
/* Of a sum or a mean over an axis of a tensor of `shape`, or over all (ATTUNE_ALL_AXES): a view
 * that repeats. */
ATTUNE_API attune_status attune_reduce_backward(attune_reduction op, const attune_tensor *dy,
                                                int rank, const int64_t *shape, int axis,
                                                attune_tensor *dx);
/* Of the max or the min over an axis, or over all: dy at the indices that attune_tensor_arg gave,
 * contiguous, in zeros of `shape`. */
ATTUNE_API attune_status attune_arg_backward(const attune_tensor *dy, const attune_tensor *indices,
                                             int rank, const int64_t *shape, int axis,
                                             attune_tensor *dx);
/* sum += t, in place: tensors of one shape. */
ATTUNE_API attune_status attune_tensor_accumulate(attune_tensor *sum, const attune_tensor *t);
ATTUNE_API attune_status attune_matmul_backward(const attune_tensor *dy, const attune_tensor *a,
                                                const attune_tensor *b, attune_tensor *da,
                                                attune_tensor *db);
/* y = x weight^T + bias: x [.., in]   weight [out, in]   bias [out] or NULL   y [.., out] */
ATTUNE_API attune_status attune_linear(const attune_tensor *x, const attune_tensor *weight,
                                       const attune_tensor *bias, attune_tensor *y);
ATTUNE_API attune_status attune_linear_backward(const attune_tensor *dy, const attune_tensor *x,
                                                const attune_tensor *weight, attune_tensor *dx,
                                                attune_tensor *dweight, attune_tensor *dbias);

/* sum[ids[r]] += weights[r] rows[r] for every row r, in order: sum [tokens, n] and rows [count, n]
 * contiguous f32, ids and weights [count]. */
ATTUNE_API attune_status attune_add_rows(attune_tensor *sum, const attune_tensor *rows,
                                         const int64_t *ids, const double *weights);

typedef struct attune_adamw_options {
    double lr, beta1, beta2, eps, weight_decay;
    int64_t step; /* from 1 */
} attune_adamw_options;
/* One step in place: p, m (first moment), v (second moment), all of one shape, contiguous, f32 or
 * f64; g any float (Loshchilov and Hutter 2019). */
ATTUNE_API attune_status attune_adamw(const attune_adamw_options *options, attune_tensor *p,
                                      const attune_tensor *g, attune_tensor *m, attune_tensor *v);

#ifdef __cplusplus
}
#endif

#endif
