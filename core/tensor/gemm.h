/* gemm.h - C = alpha A B + beta C through BLIS. This is the only door to BLIS: no other file
 * includes blis.h.
 *
 *   A [m, k]   B [k, n]   C [m, n]     strides in elements, per row and per column, any sign
 *
 * Each call runs on the calling thread alone, because callers are tasks of at_parallel() already.
 * BLIS chooses its kernels by m, n and k, and other kernels give other last bits: the same call has
 * the same bits, but a product that is cut differently may not. With beta 0, C is not read. A and B
 * must not overlap C.
 */
#ifndef AT_TENSOR_GEMM_H
#define AT_TENSOR_GEMM_H

#include <stdint.h>

void at_gemm_f32(int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t a_row,
                 int64_t a_column, const float *b, int64_t b_row, int64_t b_column, float beta,
                 float *c, int64_t c_row, int64_t c_column);
void at_gemm_f64(int64_t m, int64_t n, int64_t k, double alpha, const double *a, int64_t a_row,
                 int64_t a_column, const double *b, int64_t b_row, int64_t b_column, double beta,
                 double *c, int64_t c_row, int64_t c_column);

/* C = A B for contiguous [n, n] matrices on BLIS's own threads: what BLIS can do on this machine,
 * for core/machine to measure. Not for use inside a task. */
void at_gemm_f32_threaded(int64_t n, const float *a, const float *b, float *c, int threads);

#endif
