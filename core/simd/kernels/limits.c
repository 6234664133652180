/* limits.c - what a core can do at best: the loops behind attune_measure_peak and attune_measure_bandwidth. */
#include "simd/attention.h"
#include "simd/kernels/vec.h"

void AT_KERNEL(limits)(at_attention_kernels *table);

/* Two multiply-add units times 4 to 5 cycles of latency keep 8 to 10 sums in flight; 12 leaves room and fits 16 registers. */
enum { CHAINS = 12 };

static double multiply_adds(int64_t steps) {
    vf a = vf_set1(0.999f), b = vf_set1(1e-3f), sum[CHAINS];
    for (int i = 0; i < CHAINS; i++) sum[i] = vf_set1((float)i);
    for (int64_t s = 0; s < steps; s++) {
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++) sum[i] = vf_fma(sum[i], a, b);
    }
    float total = 0;
    for (int i = 0; i < CHAINS; i++) total += vf_reduce_add(sum[i]);
    if (total < 0) return 0; /* never; but a total that nobody looks at need not be computed */
    return 2.0 * AT_LANES * CHAINS * (double)steps;
}

static double read_all(const void *p, int64_t bytes) {
    const float *x = p;
    const int64_t n = bytes / (int64_t)sizeof *x, stride = 8 * AT_LANES;
    vf sum[8];
    for (int i = 0; i < 8; i++) sum[i] = vf_zero();
    int64_t j = 0;
    for (; j + stride <= n; j += stride) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) sum[i] = vf_add(sum[i], vf_load(x + j + i * AT_LANES));
    }
    double total = 0;
    for (int i = 0; i < 8; i++) total += (double)vf_reduce_add(sum[i]);
    return total;
}

void AT_KERNEL(limits)(at_attention_kernels *table) {
    table->multiply_adds = multiply_adds;
    table->read = read_all;
}
