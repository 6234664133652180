/* numbers.h - 16-bit floats, one at a time. Vectors of them are in core/simd. */
#ifndef AT_BASE_NUMBERS_H
#define AT_BASE_NUMBERS_H

#include <stdint.h>
#include <string.h>

static inline uint32_t at_bits_of_f32(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline float at_f32_of_bits(uint32_t u) {
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static inline float at_bf16_to_f32(uint16_t h) { return at_f32_of_bits((uint32_t)h << 16); }

/* Rounds to nearest even. A NaN stays a NaN: its quiet bit is set, because truncating the payload
 * could otherwise give infinity. */
static inline uint16_t at_f32_to_bf16(float x) {
    uint32_t u = at_bits_of_f32(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x40u);
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

static inline float at_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, rest = h & 0x7fffu;
    if (rest >= 0x7c00u) return at_f32_of_bits(sign | 0x7f800000u | (rest & 0x3ffu) << 13);
    if (rest >= 0x0400u) return at_f32_of_bits(sign | ((rest << 13) + 0x38000000u));
    float subnormal = (float)rest * 0x1p-24f;
    return at_f32_of_bits(sign | at_bits_of_f32(subnormal));
}

static inline uint16_t at_f32_to_f16(float x) {
    uint32_t u = at_bits_of_f32(x), sign = (u >> 16) & 0x8000u, rest = u & 0x7fffffffu;
    if (rest > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | ((rest >> 13) & 0x3ffu));
    if (rest >= 0x477ff000u)
        return (uint16_t)(sign | 0x7c00u); /* 65520 and above round to infinity */
    /* Below 2^-14 the result is subnormal: adding 0.5 makes the FPU round at its last bit. */
    if (rest < 0x38800000u) {
        float shifted = at_f32_of_bits(rest) + 0.5f;
        return (uint16_t)(sign | (at_bits_of_f32(shifted) - 0x3f000000u));
    }
    return (uint16_t)(sign | ((rest - 0x38000000u + 0xfffu + ((rest >> 13) & 1u)) >> 13));
}

#endif
