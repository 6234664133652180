/* blocks.c - see blocks.h. Factors are multiplied in f32 and in the order of GGML's reference, so
 * that values have the same bits. */
#include "quant/blocks.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "base/numbers.h"

static float f16_at(const uint8_t *p) { return at_f16_to_f32((uint16_t)(p[0] | p[1] << 8)); }

static uint32_t u32_at(const uint8_t *p) {
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* ---- blocks of 32 ---------------------------------------------------------------------------- */

static void q8_0_to_f32(const uint8_t *blocks, int64_t count, float *out) {
    for (int64_t b = 0; b < count; b++, blocks += 34) {
        const float d = f16_at(blocks);
        for (int i = 0; i < 32; i++) *out++ = d * (float)(int8_t)blocks[2 + i];
    }
}

/* Byte i of `nibbles` holds element i in its low half and element i + 16 in its high half. high: a
 * fifth bit per element. */
static void unpack_32(const uint8_t *nibbles, uint32_t high, float d, float m, int zero,
                      float *out) {
    for (int i = 0; i < 16; i++) {
        const int a = (int)((nibbles[i] & 15) | (high >> i & 1) << 4);
        const int b = (int)((nibbles[i] >> 4) | (high >> (i + 16) & 1) << 4);
        out[i] = d * (float)(a - zero) + m;
        out[i + 16] = d * (float)(b - zero) + m;
    }
}

static void q4_0_to_f32(const uint8_t *blocks, int64_t count, float *out) {
    for (int64_t b = 0; b < count; b++, blocks += 18, out += 32)
        unpack_32(blocks + 2, 0, f16_at(blocks), 0.0f, 8, out);
}

static void q4_1_to_f32(const uint8_t *blocks, int64_t count, float *out) {
    for (int64_t b = 0; b < count; b++, blocks += 20, out += 32)
        unpack_32(blocks + 4, 0, f16_at(blocks), f16_at(blocks + 2), 0, out);
}

static void q5_0_to_f32(const uint8_t *blocks, int64_t count, float *out) {
    for (int64_t b = 0; b < count; b++, blocks += 22, out += 32)
        unpack_32(blocks + 6, u32_at(blocks + 2), f16_at(blocks), 0.0f, 16, out);
}

static void q5_1_to_f32(const uint8_t *blocks, int64_t count, float *out) {
    for (int64_t b = 0; b < count; b++, blocks += 24, out += 32)
        unpack_32(blocks + 8, u32_at(blocks + 4), f16_at(blocks), f16_at(blocks + 2), 0, out);
}

/* Whether d, as f16, times 32 integers from -128 to 127 is x. */
static bool is_multiple(const float *x, float d) {
    if (at_f16_to_f32(at_f32_to_f16(d)) != d) return false;
    for (int i = 0; i < 32; i++) {
        const float q = roundf(x[i] / d);
        if (!(q >= -128.0f && q <= 127.0f && d * q == x[i])) return false;
    }
    return true;
}

/* The factor of which all of x are exact multiples, as in blocks that were read; 0: there is none.
 * largest: the element of the largest size. */
static float exact_factor(const float *x, float largest) {
    /* The product of an f16 (11 bits) and at most 127 (7 bits) leaves 6 bits of an f32 zero. */
    if (largest == 0.0f || (at_bits_of_f32(largest) & 63) != 0) return 0.0f;
    /* Another element is a multiple, too: that leaves few of the factors to be tried. */
    float other = 0.0f;
    for (int i = 0; i < 32; i++)
        if (x[i] != 0.0f && fabsf(x[i]) != fabsf(largest)) other = x[i] / largest;
    for (int q = 127; q > 0; q--) {
        const float d = fabsf(largest) / (float)q, multiple = (float)q * other;
        const float nearest = (multiple + 0x1.8p23f) - 0x1.8p23f;
        if (fabsf(multiple - nearest) < 1e-3f && is_multiple(x, d)) return d;
    }
    return is_multiple(x, largest / -128.0f) ? largest / -128.0f : 0.0f;
}

void at_quantise_q8_0(const float *x, int64_t blocks, uint8_t *out) {
    for (int64_t b = 0; b < blocks; b++, x += 32, out += 34) {
        float largest = 0.0f;
        for (int i = 0; i < 32; i++)
            if (fabsf(x[i]) > fabsf(largest)) largest = x[i];
        const float exact = exact_factor(x, largest);
        const float d = exact != 0.0f ? exact : fabsf(largest) / 127.0f;
        const float inverse = d != 0.0f ? 1.0f / d : 0.0f;
        const uint16_t half = at_f32_to_f16(d);
        out[0] = (uint8_t)(half & 255);
        out[1] = (uint8_t)(half >> 8);
        for (int i = 0; i < 32; i++) {
            const float q = roundf(x[i] * inverse);
            /* inverse is infinite for subnormal x; a NaN becomes 0. */
            const int8_t byte = (int8_t)(q > 127.0f    ? 127
                                         : q < -128.0f ? -128
                                         : q == q      ? (int)q
                                                       : 0);
            memcpy(out + 2 + i, &byte, 1);
        }
    }
}

/* ---- blocks of 256 --------------------------------------------------------------------------- */

/* The 6-bit scale and minimum of run j (0 .. 7) of 32 elements, out of 12 bytes. */
static void scale_and_min(const uint8_t *packed, int j, float *scale, float *min) {
    if (j < 4) {
        *scale = (float)(packed[j] & 63);
        *min = (float)(packed[j + 4] & 63);
    } else {
        *scale = (float)((packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4);
        *min = (float)((packed[j + 4] >> 4) | (packed[j] >> 6) << 4);
    }
}

/* Runs 2 n and 2 n + 1 of a block of Q4_K or Q5_K are the low and the high halves of bytes 32 n ..
 * 32 n + 31; bit j of byte i of `high` is the fifth bit of element i of run j. */
static void unpack_256(const uint8_t *block, const uint8_t *high, const uint8_t *nibbles,
                       float *out) {
    const float d = f16_at(block), m = f16_at(block + 2);
    for (int j = 0; j < 8; j++) {
        float scale, min;
        scale_and_min(block + 4, j, &scale, &min);
        const float factor = d * scale, offset = m * min;
        for (int i = 0; i < 32; i++) {
            const int byte = nibbles[32 * (j / 2) + i];
            const int low = j % 2 ? byte >> 4 : byte & 15;
            const int q = low + (high ? (high[i] >> j & 1) * 16 : 0);
            *out++ = factor * (float)q - offset;
        }
    }
}

static void q4_k_to_f32(const uint8_t *blocks, int64_t count, float *out) {
    for (int64_t b = 0; b < count; b++, blocks += 144, out += 256)
        unpack_256(blocks, NULL, blocks + 16, out);
}

static void q5_k_to_f32(const uint8_t *blocks, int64_t count, float *out) {
    for (int64_t b = 0; b < count; b++, blocks += 176, out += 256)
        unpack_256(blocks, blocks + 16, blocks + 48, out);
}

/* Each half of a block, 128 elements: four runs of 32, of which `low` has 4 bits and `high` 2. */
static void q6_k_to_f32(const uint8_t *blocks, int64_t count, float *out) {
    for (int64_t b = 0; b < 2 * count; b++, out += 128) {
        const uint8_t *block = blocks + b / 2 * 210, *low = block + b % 2 * 64;
        const uint8_t *high = block + 128 + b % 2 * 32, *scales = block + 192 + b % 2 * 8;
        const float d = f16_at(block + 208);
        for (int i = 0; i < 128; i++) {
            const int run = i / 32, at = i % 32;
            const int byte = low[at + run % 2 * 32], nibble = run < 2 ? byte & 15 : byte >> 4;
            const int q = (nibble | (high[at] >> (2 * run) & 3) << 4) - 32;
            out[i] = d * (float)(int8_t)scales[i / 16] * (float)q;
        }
    }
}

/* ---- the formats ----------------------------------------------------------------------------- */

const at_format at_formats[] = {
    {"F32", 1, 4, ATTUNE_F32, 0, true, NULL},
    {"F64", 1, 8, ATTUNE_F64, 28, true, NULL},
    {"BF16", 1, 2, ATTUNE_BF16, 30, true, NULL},
    {"F16", 1, 2, ATTUNE_F16, 1, true, NULL},
    {"I8", 1, 1, ATTUNE_I8, 24, true, NULL},
    {"I32", 1, 4, ATTUNE_I32, 26, true, NULL},
    {"I64", 1, 8, ATTUNE_I64, 27, true, NULL},
    {"BOOL", 1, 1, ATTUNE_I8, -1, true, NULL},
    {"U8", 1, 1, ATTUNE_I32, -1, true, NULL},
    {"F8_E4M3", 1, 1, ATTUNE_DTYPES, -1, true, NULL},
    {"F8_E5M2", 1, 1, ATTUNE_DTYPES, -1, true, NULL},
    {"F8_E8M0", 1, 1, ATTUNE_DTYPES, -1, true, NULL},
    {"F8_E4M3FNUZ", 1, 1, ATTUNE_DTYPES, -1, true, NULL},
    {"F8_E5M2FNUZ", 1, 1, ATTUNE_DTYPES, -1, true, NULL},
    {"F4", 2, 1, ATTUNE_DTYPES, -1, true, NULL},
    {"F6_E2M3", 4, 3, ATTUNE_DTYPES, -1, true, NULL},
    {"F6_E3M2", 4, 3, ATTUNE_DTYPES, -1, true, NULL},
    {"I16", 1, 2, ATTUNE_DTYPES, 25, true, NULL},
    {"U16", 1, 2, ATTUNE_DTYPES, -1, true, NULL},
    {"U32", 1, 4, ATTUNE_DTYPES, -1, true, NULL},
    {"U64", 1, 8, ATTUNE_DTYPES, -1, true, NULL},
    {"C64", 1, 8, ATTUNE_DTYPES, -1, true, NULL},
    {"Q8_0", 32, 34, ATTUNE_F32, 8, false, q8_0_to_f32},
    {"Q4_0", 32, 18, ATTUNE_F32, 2, false, q4_0_to_f32},
    {"Q4_1", 32, 20, ATTUNE_F32, 3, false, q4_1_to_f32},
    {"Q5_0", 32, 22, ATTUNE_F32, 6, false, q5_0_to_f32},
    {"Q5_1", 32, 24, ATTUNE_F32, 7, false, q5_1_to_f32},
    {"Q4_K", 256, 144, ATTUNE_F32, 12, false, q4_k_to_f32},
    {"Q5_K", 256, 176, ATTUNE_F32, 13, false, q5_k_to_f32},
    {"Q6_K", 256, 210, ATTUNE_F32, 14, false, q6_k_to_f32},
    {"Q8_1", 32, 36, ATTUNE_DTYPES, 9, false, NULL},
    {"Q2_K", 256, 84, ATTUNE_DTYPES, 10, false, NULL},
    {"Q3_K", 256, 110, ATTUNE_DTYPES, 11, false, NULL},
    {"Q8_K", 256, 292, ATTUNE_DTYPES, 15, false, NULL},
    {NULL, 1, 0, ATTUNE_DTYPES, -1, false, NULL},
};

const at_format *at_format_named(const char *name) {
    const at_format *f = at_formats;
    while (f->name && strcmp(f->name, name) != 0) f++;
    return f;
}

const at_format *at_format_of_gguf(uint32_t type) {
    const at_format *f = at_formats;
    while (f->name && f->gguf != (int64_t)type) f++;
    return f;
}
