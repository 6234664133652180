/* linear.h - loops over rows of features: what linear attention needs beside products of panels
 * (core/linear says what for). */
#ifndef AT_SIMD_LINEAR_H
#define AT_SIMD_LINEAR_H

#include <stdint.h>

/* Rows [rows][n], `stride` floats apart. */
typedef struct at_linear_kernels {
    void (*greatest)(const float *x, int64_t stride, int64_t rows, int64_t n,
                     float *greatest); /* of each row */
    void (*exp)(float *x, int64_t stride, int64_t rows, int64_t n, const float *shift,
                float add); /* x = e^(x - its row's shift) + add */
    void (*relu)(float *x, int64_t stride, int64_t rows, int64_t n,
                 float add); /* x = max(x, 0) + add */
    void (*elu)(const float *x, int64_t x_stride, int64_t rows, int64_t n, float add, float *out,
                int64_t stride); /* out = (x > 0 ? x + 1 : e^x) + add */
    void (*sum)(const float *x, int64_t stride, int64_t rows, int64_t n,
                float *sum); /* sum += each row */
    void (*dot)(const float *x, int64_t stride, int64_t rows, int64_t n, const float *y,
                float *out); /* out[r] = row r . y */
    void (*squares)(const float *x, int64_t stride, int64_t rows, int64_t n, float factor,
                    float *out); /* out[r] = factor times the sum of squares */
    /* out[r] = row r of q . sum, after row r of k was added to sum */
    void (*prefix_dot)(const float *q, const float *k, int64_t stride, int64_t rows, int64_t n,
                       float *sum, float *out);
    void (*dots)(const float *x, const float *y, int64_t stride, int64_t rows, int64_t n,
                 float *out); /* out[r] = row r of x . row r of y */
    /* Gradients d of features f = (what the kernel is named after) + add, to those of what the
     * features are of. */
    void (*exp_backward)(float *d, const float *f, int64_t stride, int64_t rows, int64_t n,
                         float add, float *sums); /* sums[r]: of row r's results */
    void (*relu_backward)(float *d, const float *f, int64_t stride, int64_t rows, int64_t n,
                          float add);
    void (*elu_backward)(float *d, const float *f, int64_t stride, int64_t rows, int64_t n,
                         float add);
} at_linear_kernels;

#endif
