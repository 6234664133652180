/* elementwise_kernels.c - loops over contiguous arrays: exponentials, 16-bit floats, sums. */
#include "simd/kernels/functions.h"
#include "simd/table.h"

void AT_KERNEL(elementwise)(at_elementwise_kernels *table);

#define AT_MAP(name, expression)                                                                 \
    static void name(const float *x, float *out, int64_t n) {                                    \
        int64_t i = 0;                                                                           \
        for (; i + AT_LANES <= n; i += AT_LANES) vf_store(out + i, expression(vf_load(x + i)));  \
        if (i < n)                                                                               \
            vf_store_part(out + i, expression(vf_load_part(x + i, (int)(n - i))), (int)(n - i)); \
    }
AT_MAP(map_exp, vf_exp)
AT_MAP(map_sigmoid, vf_sigmoid)
AT_MAP(map_tanh, vf_tanh_exact)

static void bf16_to_f32(const uint16_t *x, float *out, int64_t n) {
    int64_t i = 0;
    for (; i + AT_LANES <= n; i += AT_LANES) vf_store(out + i, vf_load_bf16(x + i));
    for (; i < n; i++) out[i] = at_bf16_to_f32(x[i]);
}

static void f16_to_f32(const uint16_t *x, float *out, int64_t n) {
    int64_t i = 0;
    for (; i + AT_LANES <= n; i += AT_LANES) vf_store(out + i, vf_load_f16(x + i));
    for (; i < n; i++) out[i] = at_f16_to_f32(x[i]);
}

static void f32_to_bf16(const float *x, uint16_t *out, int64_t n) {
    int64_t i = 0;
    for (; i + AT_LANES <= n; i += AT_LANES) vf_store_bf16(out + i, vf_load(x + i));
    for (; i < n; i++) out[i] = at_f32_to_bf16(x[i]);
}

static void f32_to_f16(const float *x, uint16_t *out, int64_t n) {
    int64_t i = 0;
    for (; i + AT_LANES <= n; i += AT_LANES) vf_store_f16(out + i, vf_load(x + i));
    for (; i < n; i++) out[i] = at_f32_to_f16(x[i]);
}

/* Sums short runs in f32 and adds the sums of the runs in double. */
static double sum_of(const float *x, int64_t n) {
    enum { RUN = 32 * AT_LANES };
    double total = 0;
    int64_t i = 0;
    for (; i + RUN <= n; i += RUN) {
        vf s[4] = {vf_load(x + i), vf_load(x + i + AT_LANES), vf_load(x + i + 2 * AT_LANES),
                   vf_load(x + i + 3 * AT_LANES)};
        for (int j = 4; j < 32; j += 4)
            for (int k = 0; k < 4; k++) s[k] = vf_add(s[k], vf_load(x + i + (j + k) * AT_LANES));
        total += (double)vf_reduce_add(vf_add(vf_add(s[0], s[1]), vf_add(s[2], s[3])));
    }
    for (; i < n; i++) total += (double)x[i];
    return total;
}

static float max_of(const float *x, int64_t n) {
    vf m = vf_set1(-INFINITY), nan = vf_zero();
    int64_t i = 0;
    for (; i + AT_LANES <= n; i += AT_LANES) {
        vf a = vf_load(x + i);
        m = vf_max(a, m);
        nan = vf_select(vf_unordered(a, a), a, nan);
    }
    float best = vf_reduce_max(m), lanes[AT_LANES];
    vf_store(lanes, nan);
    for (int j = 0; j < AT_LANES; j++)
        if (lanes[j] != lanes[j]) return lanes[j];
    for (; i < n; i++) {
        if (x[i] != x[i]) return x[i];
        if (x[i] > best) best = x[i];
    }
    return best;
}

static bool all_finite(const float *x, int64_t n) { return vec_all_finite(x, n); }

static void scale(const float *x, float factor, float *out, int64_t n) {
    const vf f = vf_set1(factor);
    int64_t i = 0;
    for (; i + AT_LANES <= n; i += AT_LANES) vf_store(out + i, vf_mul(f, vf_load(x + i)));
    if (i < n) vf_store_part(out + i, vf_mul(f, vf_load_part(x + i, (int)(n - i))), (int)(n - i));
}

static void add_scaled(const float *x, float factor, float *sum, int64_t n) {
    const vf f = vf_set1(factor);
    int64_t i = 0;
    for (; i + AT_LANES <= n; i += AT_LANES)
        vf_store(sum + i, vf_fma(f, vf_load(x + i), vf_load(sum + i)));
    if (i < n)
        vf_store_part(
            sum + i,
            vf_fma(f, vf_load_part(x + i, (int)(n - i)), vf_load_part(sum + i, (int)(n - i))),
            (int)(n - i));
}

static void rotate_halves(const float *x, const float *cosine, const float *sine, float sign,
                          int64_t pairs, float *out) {
    int64_t i = 0;
    for (; i + AT_LANES <= pairs; i += AT_LANES) {
        const vf a = vf_load(x + i), b = vf_load(x + pairs + i), c = vf_load(cosine + i),
                 s = vf_mul(vf_set1(sign), vf_load(sine + i));
        vf_store(out + i, vf_sub(vf_mul(a, c), vf_mul(b, s)));
        vf_store(out + pairs + i, vf_add(vf_mul(b, c), vf_mul(a, s)));
    }
    if (i == pairs) return;
    const int n = (int)(pairs - i);
    const vf a = vf_load_part(x + i, n), b = vf_load_part(x + pairs + i, n),
             c = vf_load_part(cosine + i, n), s = vf_mul(vf_set1(sign), vf_load_part(sine + i, n));
    vf_store_part(out + i, vf_sub(vf_mul(a, c), vf_mul(b, s)), n);
    vf_store_part(out + pairs + i, vf_add(vf_mul(b, c), vf_mul(a, s)), n);
}

/* Plain C: the compiler finds the shuffles of the set itself. */
static void rotate_pairs(const float *x, const float *cosine, const float *sine, float sign,
                         int64_t pairs, float *out) {
    float part[2 * AT_LANES];
    int64_t i = 0;
    for (; i + AT_LANES <= pairs; i += AT_LANES) {
        for (int j = 0; j < AT_LANES; j++) {
            const float a = x[2 * (i + j)], b = x[2 * (i + j) + 1], s = sign * sine[i + j];
            part[2 * j] = a * cosine[i + j] - b * s;
            part[2 * j + 1] = b * cosine[i + j] + a * s;
        }
        memcpy(out + 2 * i, part, sizeof part);
    }
    for (; i < pairs; i++) {
        const float a = x[2 * i], b = x[2 * i + 1], s = sign * sine[i];
        out[2 * i] = a * cosine[i] - b * s;
        out[2 * i + 1] = b * cosine[i] + a * s;
    }
}

void AT_KERNEL(elementwise)(at_elementwise_kernels *table) {
    *table = (at_elementwise_kernels){.exp = map_exp,
                                      .tanh = map_tanh,
                                      .sigmoid = map_sigmoid,
                                      .bf16_to_f32 = bf16_to_f32,
                                      .f32_to_bf16 = f32_to_bf16,
                                      .f16_to_f32 = f16_to_f32,
                                      .f32_to_f16 = f32_to_f16,
                                      .sum = sum_of,
                                      .max = max_of,
                                      .all_finite = all_finite,
                                      .scale = scale,
                                      .add_scaled = add_scaled,
                                      .rotate_halves = rotate_halves,
                                      .rotate_pairs = rotate_pairs};
}
