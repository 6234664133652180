/* gemm.c - matrix products through BLIS. */
#include "tensor/gemm.h"

#include <blis.h>

void at_gemm_f32(int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t a_row,
                 int64_t a_column, const float *b, int64_t b_row, int64_t b_column, float beta,
                 float *c, int64_t c_row, int64_t c_column) {
    rntm_t one_thread = BLIS_RNTM_INITIALIZER;
    bli_rntm_set_num_threads(1, &one_thread);
    /* BLIS takes A and B without const but only reads them. */
    bli_sgemm_ex(BLIS_NO_TRANSPOSE, BLIS_NO_TRANSPOSE, m, n, k, &alpha, (float *)a, a_row, a_column,
                 (float *)b, b_row, b_column, &beta, c, c_row, c_column, NULL, &one_thread);
}

void at_gemm_f64(int64_t m, int64_t n, int64_t k, double alpha, const double *a, int64_t a_row,
                 int64_t a_column, const double *b, int64_t b_row, int64_t b_column, double beta,
                 double *c, int64_t c_row, int64_t c_column) {
    rntm_t one_thread = BLIS_RNTM_INITIALIZER;
    bli_rntm_set_num_threads(1, &one_thread);
    bli_dgemm_ex(BLIS_NO_TRANSPOSE, BLIS_NO_TRANSPOSE, m, n, k, &alpha, (double *)a, a_row,
                 a_column, (double *)b, b_row, b_column, &beta, c, c_row, c_column, NULL,
                 &one_thread);
}

void at_gemm_f32_threaded(int64_t n, const float *a, const float *b, float *c, int threads) {
    rntm_t all_threads = BLIS_RNTM_INITIALIZER;
    float one = 1, zero = 0;
    bli_rntm_set_num_threads(threads, &all_threads);
    bli_sgemm_ex(BLIS_NO_TRANSPOSE, BLIS_NO_TRANSPOSE, n, n, n, &one, (float *)a, n, 1, (float *)b,
                 n, 1, &zero, c, n, 1, NULL, &all_threads);
}
