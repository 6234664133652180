/* nn_kernels.h - loops over one row that training and generation need besides attention.
 * attune/nn.h has the formulas. One source is compiled for f32 in every instruction set and once
 * for f64: pointers to void are pointers to that type, and vectors are [n]. */
#ifndef AT_SIMD_NN_H
#define AT_SIMD_NN_H

#include <stdint.h>

typedef struct at_adamw_step {
    double lr, beta1, beta2, eps, weight_decay;
    double correction1, correction2; /* 1 - beta^step */
} at_adamw_step;

typedef struct at_sgd_step {
    double lr, momentum, weight_decay;
    int nesterov;
} at_sgd_step;

typedef struct at_nn_kernels {
    /* y = (x - mean) rstd weight + bias; weight and bias may be NULL. mean and rstd are returned.
     */
    void (*rms_norm)(const void *x, const void *weight, int64_t n, double eps, void *y,
                     double *rstd);
    void (*layer_norm)(const void *x, const void *weight, const void *bias, int64_t n, double eps,
                       void *y, double *mean, double *rstd);
    /* dx is written; dweight and dbias, where they are not NULL, are added to. rms_norm: mean 0,
     * centred false. */
    void (*norm_backward)(const void *dy, const void *x, const void *weight, int64_t n, double mean,
                          double rstd, int centred, void *dx, void *dweight, void *dbias);
    /* with_tanh: the approximation with tanh. */
    void (*gelu)(const void *x, int64_t n, int with_tanh, void *y);
    void (*gelu_backward)(const void *dy, const void *x, int64_t n, int with_tanh, void *dx);
    void (*swiglu)(const void *gate, const void *up, int64_t n, void *y);
    void (*swiglu_backward)(const void *dy, const void *gate, const void *up, int64_t n,
                            void *dgate, void *dup);
    double (*log_sum_exp)(const void *x, int64_t n);
    void (*softmax_times)(const void *x, double lse, double factor, int64_t n,
                          void *dx);                  /* dx = factor e^(x - lse) */
    void (*add)(const void *x, int64_t n, void *sum); /* sum += x */
    /* One step in place: parameters p, their gradients g, the first and second moments m and v. */
    void (*adamw)(const at_adamw_step *step, void *p, const void *g, void *m, void *v, int64_t n);
    /* The same with a moment m, which may be NULL without momentum. */
    void (*sgd)(const at_sgd_step *step, void *p, const void *g, void *m, int64_t n);
    double (*squares)(const void *x, int64_t n);      /* sum x^2, also where f32 would overflow */
    void (*scale)(void *x, double factor, int64_t n); /* x *= factor */
} at_nn_kernels;

/* The f64 instance. */
const at_nn_kernels *at_nn_f64(void);

#endif
