/* packed.c - see packed.h. The layout is described in simd/quant_kernels.h. */
#include "quant/packed.h"

#include <string.h>

#include "base/numbers.h"

enum { BLOCK = 32, GROUPS = 8, MAX_BLOCK = 256 };

static const char *const names[AT_PACKED_KINDS] = {"Q8_0", "Q4_0", "Q4_1", "Q5_0",
                                                   "Q5_1", "Q4_K", "Q5_K", "Q6_K"};

int at_packed_kind_of(const at_format *format) {
    for (int i = 0; i < AT_PACKED_KINDS; i++)
        if (strcmp(format->name, names[i]) == 0) return i;
    return -1;
}

int64_t at_packed_bytes(int kind, int64_t n) {
    return at_packed_heads(kind, n) + n / BLOCK * at_packed_chunks(kind) * AT_CHUNK_BYTES;
}

/* ---- the integers of a block of the file ----------------------------------------------------- */

static void integers_of_32(int kind, const uint8_t *block, uint8_t *q) {
    const at_packed_layout *l = &at_packed_layouts[kind];
    const int factors = l->head / AT_PANEL; /* bytes of d, or of d and m */
    if (l->bits == 8) {
        memcpy(q, block + factors, BLOCK);
        return;
    }
    uint32_t high = 0;
    if (l->bits == 5) memcpy(&high, block + factors, 4);
    const uint8_t *low = block + factors + (l->bits == 5 ? 4 : 0);
    for (int i = 0; i < BLOCK / 2; i++) {
        q[i] = (uint8_t)((low[i] & 15) | (high >> i & 1) << 4);
        q[i + 16] = (uint8_t)((low[i] >> 4) | (high >> (i + 16) & 1) << 4);
    }
}

/* Q4_K and Q5_K: runs 2 n and 2 n + 1 of 32 are the low and the high halves of bytes 32 n .. 32 n +
 * 31; bit j of a byte of high bits belongs to run j. */
static void integers_of_256(int kind, const uint8_t *block, uint8_t *q) {
    const uint8_t *high = kind == AT_PACKED_Q5_K ? block + 16 : NULL;
    const uint8_t *low = block + (high ? 48 : 16);
    for (int j = 0; j < GROUPS; j++) {
        for (int i = 0; i < BLOCK; i++) {
            const int byte = low[BLOCK * (j / 2) + i], nibble = j % 2 ? byte >> 4 : byte & 15;
            q[BLOCK * j + i] = (uint8_t)(nibble | (high ? (high[i] >> j & 1) << 4 : 0));
        }
    }
}

static void integers_of_q6(const uint8_t *block, uint8_t *q) {
    for (int i = 0; i < MAX_BLOCK; i++) {
        const int half = i / 128, run = i % 128 / BLOCK, at = i % BLOCK;
        const int byte = block[64 * half + 32 * (run % 2) + at];
        const int nibble = run < 2 ? byte & 15 : byte >> 4;
        q[i] = (uint8_t)(nibble | (block[128 + 32 * half + at] >> (2 * run) & 3) << 4);
    }
}

static void integers_of(int kind, const uint8_t *block, uint8_t *q) {
    if (kind == AT_PACKED_Q6_K)
        integers_of_q6(block, q);
    else if (at_packed_layouts[kind].inputs == MAX_BLOCK)
        integers_of_256(kind, block, q);
    else
        integers_of_32(kind, block, q);
}

/* ---- packing --------------------------------------------------------------------------------- */

/* The six bits of scale or minimum j of Q4_K and Q5_K, out of 12 bytes. */
static void scale_and_min(const uint8_t *packed, int j, uint8_t *scale, uint8_t *min) {
    if (j < 4) {
        *scale = packed[j] & 63;
        *min = packed[j + 4] & 63;
    } else {
        *scale = (uint8_t)((packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4);
        *min = (uint8_t)((packed[j + 4] >> 4) | (packed[j] >> 6) << 4);
    }
}

static void pack_head(int kind, const uint8_t *block, int output, uint8_t *head) {
    const bool q6 = kind == AT_PACKED_Q6_K;
    memcpy(head + 2 * output, block + (q6 ? 208 : 0), 2);
    if (q6) {
        for (int j = 0; j < 16; j++) head[32 + AT_PANEL * j + output] = block[192 + j];
        return;
    }
    if (at_packed_layouts[kind].head == 32) return;
    memcpy(head + 32 + 2 * output, block + 2, 2);
    if (at_packed_layouts[kind].inputs == BLOCK) return;
    for (int j = 0; j < GROUPS; j++) {
        uint8_t *scales = head + 64 + AT_PANEL * j + output;
        scale_and_min(block + 4, j, scales, scales + 8 * AT_PANEL);
    }
}

/* 32 integers of an output into the chunks of their block. */
static void pack_integers(int kind, const uint8_t *q, int output, uint8_t *chunks) {
    const at_packed_layout *l = &at_packed_layouts[kind];
    uint8_t *low = chunks + AT_CHUNK_BYTES * l->high_chunks + 4 * output;
    for (int g = 0; g < GROUPS && l->bits == 8; g++) memcpy(low + AT_CHUNK_BYTES * g, q + 4 * g, 4);
    for (int i = 0; i < BLOCK / 2 && l->bits < 8; i++)
        low[AT_CHUNK_BYTES * (i / 4) + i % 4] = (uint8_t)((q[i] & 15) | (q[i + 16] & 15) << 4);
    for (int i = 0; i < BLOCK && l->high_chunks; i++) {
        const int g = i / 4, high = q[i] >> 4;
        uint8_t *to = chunks + 4 * output + i % 4;
        if (l->bits == 5)
            *to |= (uint8_t)(high << g);
        else
            to[AT_CHUNK_BYTES * (g / 4)] |= (uint8_t)(high << (2 * (g % 4)));
    }
}

void at_pack_panel(int kind, const uint8_t *rows, int64_t row_bytes, int outputs, int64_t n,
                   uint8_t *panel) {
    const at_packed_layout *l = &at_packed_layouts[kind];
    const int64_t blocks = n / l->inputs, block_bytes = blocks ? row_bytes / blocks : 0;
    const int64_t bytes = (int64_t)at_packed_chunks(kind) * AT_CHUNK_BYTES;
    memset(panel, 0, (size_t)at_packed_bytes(kind, n));
    for (int o = 0; o < outputs; o++) {
        const uint8_t *block = rows + o * row_bytes;
        uint8_t *head = panel, *chunks = panel + at_packed_heads(kind, n);
        for (int64_t b = 0; b < blocks; b++, block += block_bytes, head += l->head) {
            uint8_t q[MAX_BLOCK];
            integers_of(kind, block, q);
            pack_head(kind, block, o, head);
            for (int i = 0; i < l->inputs; i += BLOCK, chunks += bytes)
                pack_integers(kind, q + i, o, chunks);
        }
    }
}

/* ---- unpacking ------------------------------------------------------------------------------- */

static void unpack_integers(int kind, const uint8_t *chunks, int output, int q[BLOCK]) {
    const at_packed_layout *l = &at_packed_layouts[kind];
    const uint8_t *at = chunks + 4 * output;
    for (int i = 0; i < BLOCK; i++) {
        const int g = i / 4, e = i % 4;
        if (l->bits == 8) {
            q[i] = (int8_t)at[AT_CHUNK_BYTES * g + e];
            continue;
        }
        const int byte = at[AT_CHUNK_BYTES * (l->high_chunks + g % 4) + e];
        q[i] = g < 4 ? byte & 15 : byte >> 4;
        if (l->bits == 5) q[i] |= (at[e] >> g & 1) << 4;
        if (l->bits == 6) q[i] |= (at[AT_CHUNK_BYTES * (g / 4) + e] >> (2 * (g % 4)) & 3) << 4;
        q[i] -= l->zero;
    }
}

static float f16_at(const uint8_t *p) { return at_f16_to_f32((uint16_t)(p[0] | p[1] << 8)); }

void at_unpack_row(int kind, const uint8_t *panel, int output, int64_t n, float *out) {
    const at_packed_layout *l = &at_packed_layouts[kind];
    const uint8_t *chunks = panel + at_packed_heads(kind, n);
    const int per_head = l->inputs / BLOCK, bytes = AT_CHUNK_BYTES * at_packed_chunks(kind);
    for (int64_t b = 0; b < n / BLOCK; b++, chunks += bytes, out += BLOCK) {
        const int k = (int)(b % per_head);
        const uint8_t *head = panel + b / per_head * l->head, *scales = head + 64 + output;
        const float d = f16_at(head + 2 * output);
        const float m =
            l->head >= 64 && kind != AT_PACKED_Q6_K ? f16_at(head + 32 + 2 * output) : 0.0f;
        int q[BLOCK];
        unpack_integers(kind, chunks, output, q);
        for (int i = 0; i < BLOCK; i++) {
            if (kind == AT_PACKED_Q6_K) {
                const uint8_t s = head[32 + AT_PANEL * (2 * k + i / 16) + output];
                out[i] = d * (float)(int8_t)s * (float)q[i];
            } else if (per_head > 1) {
                const float factor = d * (float)scales[AT_PANEL * k],
                            offset = m * (float)scales[AT_PANEL * (8 + k)];
                out[i] = factor * (float)q[i] - offset;
            } else {
                out[i] = l->bits == 8 ? d * (float)q[i] : d * (float)q[i] + m;
            }
        }
    }
}
