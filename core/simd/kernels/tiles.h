/* tiles.h - the tile registers of AMX: eight, of up to 16 rows of 64 bytes. In the set amx_emulated
 * they are plain C, written after the manual (Intel 64 and IA-32 Architectures Software Developer's
 * Manual, volume 2, TDPBF16PS and TDPBUSD), so that layouts are tested also on processors without
 * AMX. */
#ifndef AT_SIMD_TILES_H
#define AT_SIMD_TILES_H

#include <stdint.h>
#include <string.h>

/* Palette 1: bytes per row and rows of each tile register. */
typedef struct tile_shapes {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} tile_shapes;

#if defined AT_ISA_amx
#include <immintrin.h>

/* Inline assembly, since the intrinsics of gcc 12 do not tell the compiler that these instructions
 * read all 64 bytes of the shapes, or memory at all: it drops or moves the stores before them. */
#define TILE_CONFIGURE(shapes) __asm__ volatile("ldtilecfg %0" ::"m"(*(shapes)))
#define TILE_LOAD(t, p, stride) \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t ::"r"(p), "r"((int64_t)(stride)) : "memory")
#define TILE_STORE(t, p, stride)                                                          \
    __asm__ volatile("tilestored %%tmm" #t ", (%0,%1,1)" ::"r"(p), "r"((int64_t)(stride)) \
                     : "memory")
#define TILE_RELEASE() _tile_release()
#define TILE_ZERO(t) _tile_zero(t)
#define TILE_DOT_BF16(c, a, b) _tile_dpbf16ps(c, a, b)
#define TILE_DOT_S8U8(c, a, b) _tile_dpbsud(c, a, b)
#define TILE_DOT_U8S8(c, a, b) _tile_dpbusd(c, a, b)

#else
#include "base/numbers.h"

static _Thread_local tile_shapes tile_now;
static _Thread_local uint8_t tile_data[8][16][64];

static inline void tile_load(int t, const void *p, int64_t stride) {
    memset(tile_data[t], 0, sizeof tile_data[t]);
    for (int r = 0; r < tile_now.rows[t]; r++)
        memcpy(tile_data[t][r], (const char *)p + r * stride, tile_now.bytes[t]);
}
static inline void tile_store(int t, void *p, int64_t stride) {
    for (int r = 0; r < tile_now.rows[t]; r++)
        memcpy((char *)p + r * stride, tile_data[t][r], tile_now.bytes[t]);
}
static inline void tile_dot_bf16(int c, int a, int b) {
    for (int m = 0; m < tile_now.rows[c]; m++)
        for (int k = 0; k < tile_now.bytes[a] / 4; k++)
            for (int n = 0; n < tile_now.bytes[c] / 4; n++) {
                uint16_t x[2], y[2];
                float sum;
                memcpy(x, tile_data[a][m] + 4 * k, 4);
                memcpy(y, tile_data[b][k] + 4 * n, 4);
                memcpy(&sum, tile_data[c][m] + 4 * n, 4);
                for (int i = 0; i < 2; i++) sum += at_bf16_to_f32(x[i]) * at_bf16_to_f32(y[i]);
                memcpy(tile_data[c][m] + 4 * n, &sum, 4);
            }
}
static inline void tile_dot_i8(int c, int a, int b, int a_signed) {
    for (int m = 0; m < tile_now.rows[c]; m++)
        for (int k = 0; k < tile_now.bytes[a] / 4; k++)
            for (int n = 0; n < tile_now.bytes[c] / 4; n++) {
                int32_t sum;
                memcpy(&sum, tile_data[c][m] + 4 * n, 4);
                for (int i = 0; i < 4; i++) {
                    const uint8_t x = tile_data[a][m][4 * k + i], y = tile_data[b][k][4 * n + i];
                    sum += a_signed ? (int8_t)x * y : x * (int8_t)y;
                }
                memcpy(tile_data[c][m] + 4 * n, &sum, 4);
            }
}

#define TILE_CONFIGURE(shapes) (tile_now = *(shapes))
#define TILE_RELEASE() memset(&tile_now, 0, sizeof tile_now)
#define TILE_LOAD(t, p, stride) tile_load(t, p, stride)
#define TILE_STORE(t, p, stride) tile_store(t, p, stride)
#define TILE_ZERO(t) memset(tile_data[t], 0, sizeof tile_data[t])
#define TILE_DOT_BF16(c, a, b) tile_dot_bf16(c, a, b)
#define TILE_DOT_S8U8(c, a, b) tile_dot_i8(c, a, b, 1)
#define TILE_DOT_U8S8(c, a, b) tile_dot_i8(c, a, b, 0)
#endif

#endif
