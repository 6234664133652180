/* limits.c - what one core can do at best: the loops behind the measured peaks and bandwidth. */
#include "simd/limit_kernels.h"
#include "simd/kernels/product.h"

void AT_KERNEL(limits)(at_limit_kernels *table);

/* Two multiply-add units times 4 to 5 cycles of latency keep 8 to 10 sums in flight; 12 leaves room
 * and fits 16 registers. */
enum { CHAINS = 12 };

AT_INLINE double run_chains(operand kind, vf a, vf b, int64_t steps) {
    vf sum[CHAINS];
    for (int i = 0; i < CHAINS; i++) sum[i] = kind == QUADS ? vf_zero() : vf_set1((float)i);
    for (int64_t s = 0; s < steps; s++) {
#pragma GCC unroll 12
        for (int i = 0; i < CHAINS; i++)
            sum[i] = kind == F32 ? vf_fma(sum[i], a, b) : multiply(kind, false, a, b, sum[i]);
    }
    vf total = sum[0];
    for (int i = 1; i < CHAINS; i++) total = vf_add(total, sum[i]);
    /* The compiler may drop the computation of a total that nothing uses. */
    const volatile float used = vf_reduce_add(total);
    (void)used;
    return 2.0 * AT_LANES * depth_of(kind) * CHAINS * (double)steps;
}

static double peak_fma(int64_t steps) {
    return run_chains(F32, vf_set1(0.999f), vf_set1(1e-3f), steps);
}

#if AT_HAS_DOT_BF16
static double peak_bf16(int64_t steps) {
    return run_chains(PAIRS, vf_pairs(vf_set1(0.5f), vf_set1(-0.5f)),
                      vf_pairs(vf_set1(0.25f), vf_set1(0.25f)), steps);
}
#endif

#if AT_HAS_DOT_I8
/* Each quad of products sums to zero: the sums never overflow. */
static double peak_i8(int64_t steps) {
    const vf ones = vf_set1(1.0f), minus = vf_set1(-1.0f);
    return run_chains(QUADS, vf_quads(ones, ones, ones, ones, 0),
                      vf_quads(ones, minus, ones, minus, 0), steps);
}
#endif

/* One cache line per 4 cycles, the latency of an addition. That is faster than memory delivers, and
 * was measured to be 3% faster than reading as fast as the core can, which leaves the processor's
 * own prefetching no time to get ahead. */
AT_INLINE double read_all(const void *p, int64_t bytes, bool ahead) {
    enum { SUMS = 16 / AT_LANES, AHEAD = 8192 };
    const float *x = p;
    const int64_t n = bytes / (int64_t)sizeof *x;
    vf sum[SUMS];
    for (int i = 0; i < SUMS; i++) sum[i] = vf_zero();
    for (int64_t j = 0; j + 16 <= n; j += 16) {
        if (ahead) __builtin_prefetch((const char *)(x + j) + AHEAD, 0, 2);
#pragma GCC unroll 4
        for (int i = 0; i < SUMS; i++) sum[i] = vf_add(sum[i], vf_load(x + j + i * AT_LANES));
    }
    double total = 0;
    for (int i = 0; i < SUMS; i++) total += (double)vf_reduce_add(sum[i]);
    return total;
}

static double read(const void *p, int64_t bytes, bool ahead) {
    return ahead ? read_all(p, bytes, true) : read_all(p, bytes, false);
}

void AT_KERNEL(limits)(at_limit_kernels *table) {
    table->peak[AT_FMA] = peak_fma;
#if AT_HAS_DOT_BF16
    table->peak[AT_DOT_BF16] = peak_bf16;
#endif
#if AT_HAS_DOT_I8
    table->peak[AT_DOT_I8] = peak_i8;
#endif
    table->read = read;
}
