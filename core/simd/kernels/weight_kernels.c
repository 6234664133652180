/* weight_kernels.c - see simd/weight_kernels.h. Products are f32 and added in lanes. */
#include "simd/weight_kernels.h"

#include "vec.h"

void AT_KERNEL(weights)(at_weight_kernels *table);

/* What comes 4 KiB after these bytes: the processor itself prefetches only to the end of a page. */
AT_INLINE void prefetch_later(const void *p, int bytes) {
    for (int i = 0; i < bytes; i += 64) __builtin_prefetch((const char *)p + 4096 + i, 0, 2);
}

/* dot_NAME for elements of `type`, loaded into lanes by `load` and singly by `single`. */
#define DOT_PLAIN(name, type, load, single)                                                        \
    static void dot_##name(const uint8_t *weight, int64_t row_bytes, int64_t rows, const float *x, \
                           int64_t n, float *out) {                                                \
        for (int64_t r = 0; r < rows; r++) {                                                       \
            const type *w = (const type *)(const void *)(weight + r * row_bytes);                  \
            vf a = vf_zero(), b = vf_zero(), c = vf_zero(), d = vf_zero();                         \
            int64_t i = 0;                                                                         \
            for (; i + 4 * AT_LANES <= n; i += 4 * AT_LANES) {                                     \
                prefetch_later(w + i, 4 * AT_LANES * (int)sizeof(type));                           \
                a = vf_fma(load(w + i), vf_load(x + i), a);                                        \
                b = vf_fma(load(w + i + AT_LANES), vf_load(x + i + AT_LANES), b);                  \
                c = vf_fma(load(w + i + 2 * AT_LANES), vf_load(x + i + 2 * AT_LANES), c);          \
                d = vf_fma(load(w + i + 3 * AT_LANES), vf_load(x + i + 3 * AT_LANES), d);          \
            }                                                                                      \
            for (; i + AT_LANES <= n; i += AT_LANES) a = vf_fma(load(w + i), vf_load(x + i), a);   \
            float sum = vf_reduce_add(vf_add(vf_add(a, b), vf_add(c, d)));                         \
            for (; i < n; i++) sum += single(w[i]) * x[i];                                         \
            out[r] = sum;                                                                          \
        }                                                                                          \
    }

static float same(float x) { return x; }

DOT_PLAIN(f32, float, vf_load, same)
DOT_PLAIN(f16, uint16_t, vf_load_f16, at_f16_to_f32)
DOT_PLAIN(bf16, uint16_t, vf_load_bf16, at_bf16_to_f32)

void AT_KERNEL(weights)(at_weight_kernels *table) {
    table->dot[AT_WEIGHT_F32] = dot_f32;
    table->dot[AT_WEIGHT_F16] = dot_f16;
    table->dot[AT_WEIGHT_BF16] = dot_bf16;
}
