/* linear_kernels.h - loops over rows of features: what linear attention needs besides the products
 * of simd/panel_kernels.h. core/linear describes the feature maps. */
#ifndef AT_SIMD_LINEAR_H
#define AT_SIMD_LINEAR_H

#include <stdint.h>

/* Matrices are [rows][n], with `stride` floats between two rows; x_r is row r of x. Elements beyond
 * n are neither read nor written. */
typedef struct at_linear_kernels {
    /* max[r] = the max of x_r */
    void (*max)(const float *x, int64_t stride, int64_t rows, int64_t n, float *max);
    /* x_r = e^(x_r - shift[r]) + add */
    void (*exp)(float *x, int64_t stride, int64_t rows, int64_t n, const float *shift, float add);
    /* x = max(x, 0) + add */
    void (*relu)(float *x, int64_t stride, int64_t rows, int64_t n, float add);
    /* out = (x > 0 ? x + 1 : e^x) + add; out [rows][n], stride floats between two rows */
    void (*elu)(const float *x, int64_t x_stride, int64_t rows, int64_t n, float add, float *out,
                int64_t stride);
    /* sum[n] += the sum of all rows */
    void (*sum)(const float *x, int64_t stride, int64_t rows, int64_t n, float *sum);
    /* out[r] = x_r . y; y [n] */
    void (*dot)(const float *x, int64_t stride, int64_t rows, int64_t n, const float *y,
                float *out);
    /* out[r] = factor (x_r . x_r) */
    void (*squares)(const float *x, int64_t stride, int64_t rows, int64_t n, float factor,
                    float *out);
    /* For each row in order: sum[n] += k_r, then out[r] = q_r . sum. */
    void (*prefix_dot)(const float *q, const float *k, int64_t stride, int64_t rows, int64_t n,
                       float *sum, float *out);
    /* out[r] = x_r . y_r */
    void (*dots)(const float *x, const float *y, int64_t stride, int64_t rows, int64_t n,
                 float *out);

    /* The backward of exp, relu and elu. f [rows][n] is what the forward kernel returned, with the
     * same `add`. d [rows][n]: in, the gradient of f; out, the gradient of the forward's input x.
     * sums[r]: the sum of row r's results. */
    void (*exp_backward)(float *d, const float *f, int64_t stride, int64_t rows, int64_t n,
                         float add, float *sums);
    void (*relu_backward)(float *d, const float *f, int64_t stride, int64_t rows, int64_t n,
                          float add);
    void (*elu_backward)(float *d, const float *f, int64_t stride, int64_t rows, int64_t n,
                         float add);
} at_linear_kernels;

#endif
