/* product.h - the register tile, from which all products of attention are made: the sums of some
 * rows times one panel (2 vectors) of columns. The sums stay in registers over the whole depth. One
 * step along the depth loads one row of a panel and multiplies it by one element of each row, which
 * is broadcast to all lanes.
 *
 * The functions here are inlined where rows, vectors, kind, row and step are constants. */
#ifndef AT_SIMD_PRODUCT_H
#define AT_SIMD_PRODUCT_H

#include "simd/kernels/vec.h"

#ifdef AT_ISA_amx
#define AT_HAS_TILES 1
#else
#define AT_HAS_TILES 0
#endif

enum { AT_PANEL = 2 * AT_LANES };

/* What the columns hold. For PAIRS, WORDS and QUADS a step is a dot product over several elements
 * of the depth. The rows hold these elements in 32 bits: two bf16 (PAIRS), two 16-bit integers
 * (WORDS) or four 8-bit integers (QUADS). The columns of WORDS hold 8-bit integers, which are
 * extended to 16 bits. */
typedef enum operand { F32, BF16, F16, PAIRS, WORDS, QUADS } operand;

/* Elements of the depth that one step takes. */
AT_INLINE int depth_of(operand kind) {
    return kind == PAIRS || kind == WORDS ? 2 : kind == QUADS ? 4 : 1;
}
/* Bytes of one column in one step. */
AT_INLINE int bytes_of(operand kind) {
    return kind == F32 || kind == PAIRS || kind == QUADS ? 4 : 2;
}

/* Loads the elements of one step for AT_LANES columns, as multiply() takes them. at counts columns
 * of all steps: k * width + j. F16 is converted to f32. With WORDS each column has two 8-bit
 * integers, which are extended to 16 bits. For dot products the 32 bits of a lane are not a float.
 */
AT_INLINE vf load_column(operand kind, const void *b, int64_t at) {
    switch (kind) {
    case F16: return vf_load_f16((const uint16_t *)b + at);
#if !AT_HAS_DOT_I8
    case WORDS: return vf_load_words((const int8_t *)b + 2 * at);
#endif
    default: return vf_load((const float *)b + at);
    }
}

/* sum + x * column in each lane. x holds one step's elements of one row, the same in all lanes.
 * PAIRS, WORDS and QUADS add the dot product of the 2, 2 or 4 elements of a lane. unsigned_rows:
 * QUADS multiplies an unsigned by a signed operand, and the rows are the unsigned one, else the
 * columns are. A set has either QUADS (AT_HAS_DOT_I8) or WORDS, and may have PAIRS
 * (AT_HAS_DOT_BF16). */
AT_INLINE vf multiply(operand kind, bool unsigned_rows, vf x, vf column, vf sum) {
#if AT_HAS_DOT_BF16
    if (kind == PAIRS) return vf_dot_bf16(x, column, sum);
#endif
#if AT_HAS_DOT_I8
    if (kind == QUADS)
        return unsigned_rows ? vf_dot_u8s8(x, column, sum) : vf_dot_u8s8(column, x, sum);
#else
    if (kind == WORDS) return vf_dot_words(x, column, sum);
#endif
    (void)kind;
    (void)unsigned_rows;
    return vf_fma(x, column, sum);
}

/* Prefetches `bytes` bytes, those of step k, from `prefetch` on into the second-level cache. With
 * few rows `prefetch` is 8 KiB ahead of what is multiplied, and that is needed soon. Then the first
 * level was measured to be faster on Intel's processors with AMX; on those with AVX-512 and without
 * BF16, both levels, the first one 2 KiB ahead; on AMD's, the second level alone. */
AT_INLINE void prefetch_step(int rows, const char *prefetch, int64_t k, int bytes) {
    enum { NEARER = 8192 - 2048 };
    const bool soon = 2 * rows <= AT_ROWS;
    for (int line = 0; line < bytes; line += 64) {
        const char *p = prefetch + k * bytes + line;
        if (soon && AT_HAS_TILES)
            __builtin_prefetch(p, 0, 3);
        else
            __builtin_prefetch(p, 0, 2);
#if defined AT_AVX512 && !AT_HAS_DOT_BF16
        if (soon) __builtin_prefetch(p - NEARER, 0, 3);
#endif
    }
}

/* acc[r][j] += a(r, k) * b(k, j) for the steps k in [from, to).
 *
 *   a(r, k)   the 32 bits at a[r * row + k * step]
 *   b(k, j)   column j of step k; a step of b has `width` columns
 *   prefetch  each step prefetches the next step_bytes bytes from here on; NULL: none
 *
 * BF16 columns are converted two steps at a time: from and to are even. */
AT_INLINE void accumulate(int rows, int vectors, int width, operand kind, bool unsigned_rows,
                          int64_t row, int64_t step, const float *a, const void *b, int64_t from,
                          int64_t to, vf acc[AT_ROWS][2], const char *prefetch, int step_bytes) {
    if (kind == BF16) {
        for (int64_t k = from; k < to; k += 2) {
            vf even[2], odd[2];
            if (prefetch) prefetch_step(rows, prefetch, (k - from) / 2, 2 * step_bytes);
#pragma GCC unroll 2
            for (int j = 0; j < vectors; j++)
                vf_load_bf16_pairs((const uint16_t *)b + k * width + 2 * j * AT_LANES, &even[j],
                                   &odd[j]);
#pragma GCC unroll 16
            for (int r = 0; r < rows; r++) {
                vf x = vf_set1(a[r * row + k * step]);
#pragma GCC unroll 2
                for (int j = 0; j < vectors; j++) acc[r][j] = vf_fma(x, even[j], acc[r][j]);
            }
#pragma GCC unroll 16
            for (int r = 0; r < rows; r++) {
                vf x = vf_set1(a[r * row + (k + 1) * step]);
#pragma GCC unroll 2
                for (int j = 0; j < vectors; j++) acc[r][j] = vf_fma(x, odd[j], acc[r][j]);
            }
        }
        return;
    }
    for (int64_t k = from; k < to; k++) {
        vf column[2];
        if (prefetch) prefetch_step(rows, prefetch, k - from, step_bytes);
#pragma GCC unroll 2
        for (int j = 0; j < vectors; j++)
            column[j] = load_column(kind, b, k * width + j * AT_LANES);
#pragma GCC unroll 16
        for (int r = 0; r < rows; r++) {
            vf x = vf_set1(a[r * row + k * step]);
#pragma GCC unroll 2
            for (int j = 0; j < vectors; j++)
                acc[r][j] = multiply(kind, unsigned_rows, x, column[j], acc[r][j]);
        }
    }
}

/* accumulate(), and prefetches one part of a later tile: `prefetch` is where the later tile holds
 * the columns that this tile holds at b. They are cut into part_count equal parts, and part
 * part_index is prefetched, one or two cache lines per step from the first step on. */
AT_INLINE void accumulate_and_prefetch(int rows, int vectors, operand kind, bool unsigned_rows,
                                       int64_t row, int64_t step, const float *a, const void *b,
                                       int64_t from, int64_t to, vf acc[AT_ROWS][2],
                                       const char *prefetch, int part_index, int part_count) {
    const int width = vectors * AT_LANES;
    const int size = width * (kind == BF16 ? 2 : bytes_of(kind)); /* bytes of a step */
    int64_t middle = from;
    if (prefetch) {
        const int step_bytes = part_count > 1 || size < 64 ? 64 : size;
        const int64_t part = ((to - from) * size / 64 + part_count - 1) / part_count * 64;
        middle = from + (part / step_bytes + 1) / 2 * 2;
        if (middle > to) middle = to;
        accumulate(rows, vectors, width, kind, unsigned_rows, row, step, a, b, from, middle, acc,
                   prefetch + from * size + part_index * part, step_bytes);
    }
    accumulate(rows, vectors, width, kind, unsigned_rows, row, step, a, b, middle, to, acc, NULL,
               0);
}

#endif
