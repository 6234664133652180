/* product.h - the register tile that all of attention's products are: rows times 2 vectors of
 * columns, whose sums stay in registers over the whole depth, while a step loads a panel's row and
 * multiplies it by one broadcast element of each row.
 *
 * rows, vectors, kind, row and step are constants where these are inlined. */
#ifndef AT_SIMD_PRODUCT_H
#define AT_SIMD_PRODUCT_H

#include "simd/kernels/vec.h"

#ifdef AT_ISA_amx
#define AT_HAS_TILES 1
#else
#define AT_HAS_TILES 0
#endif

enum { AT_PANEL = 2 * AT_LANES };

/* What the columns are. PAIRS, WORDS and QUADS are dot products: a step is so many elements of the
 * depth, which a row has in 32 bits: two bf16, two integers of 16 bits, four of 8. Columns of WORDS
 * have 8 bits and are widened. */
typedef enum operand { F32, BF16, F16, PAIRS, WORDS, QUADS } operand;

/* Elements of the depth in a step, and bytes of a column's step. */
AT_INLINE int depth_of(operand kind) {
    return kind == PAIRS || kind == WORDS ? 2 : kind == QUADS ? 4 : 1;
}
AT_INLINE int bytes_of(operand kind) {
    return kind == F32 || kind == PAIRS || kind == QUADS ? 4 : 2;
}

AT_INLINE vf load_column(operand kind, const void *b, int64_t at) {
    switch (kind) {
    case F16: return vf_load_f16((const uint16_t *)b + at);
#if !AT_HAS_DOT
    case WORDS: return vf_load_words((const int8_t *)b + 2 * at);
#endif
    default: return vf_load((const float *)b + at); /* of a dot product: whatever the 32 bits are */
    }
}

AT_INLINE vf multiply(operand kind, bool unsigned_rows, vf x, vf column, vf sum) {
#if AT_HAS_DOT
    if (kind == PAIRS) return vf_dot_bf16(x, column, sum);
    if (kind == QUADS)
        return unsigned_rows ? vf_dot_u8s8(x, column, sum) : vf_dot_u8s8(column, x, sum);
#else
    if (kind == WORDS) return vf_dot_words(x, column, sum);
#endif
    (void)kind, (void)unsigned_rows;
    return vf_fma(x, column, sum);
}

/* Fetches what lies as far beyond `ahead` as step k's columns lie beyond b, into the second cache.
 * Few rows come to it soon: found to be faster from the first cache on Intel's processors, which
 * those with AMX are, and slower on AMD's. */
AT_INLINE void fetch_step(int rows, const char *ahead, int64_t k, int bytes) {
    for (int line = 0; line < bytes; line += 64) {
        if (2 * rows <= AT_ROWS && AT_HAS_TILES)
            __builtin_prefetch(ahead + k * bytes + line, 0, 3);
        else
            __builtin_prefetch(ahead + k * bytes + line, 0, 2);
    }
}

/* acc[r][j] += a(r, k) * b(k, j) for steps k in [from, to). a(r, k) are the 32 bits at a[r * row +
 * k * step]; a step of b is `width` columns. ahead NULL: nothing to fetch. bf16 columns that are
 * widened come by two steps: from and to are even. */
AT_INLINE void accumulate(int rows, int vectors, int width, operand kind, bool unsigned_rows,
                          int64_t row, int64_t step, const float *a, const void *b, int64_t from,
                          int64_t to, vf acc[AT_ROWS][2], const char *ahead, int fetched) {
    if (kind == BF16) {
        for (int64_t k = from; k < to; k += 2) {
            vf even[2], odd[2];
            if (ahead) fetch_step(rows, ahead, (k - from) / 2, 2 * fetched);
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
        if (ahead) fetch_step(rows, ahead, k - from, fetched);
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

/* As above, fetching a part of what lies beyond ahead as these columns lie beyond b: the share-th
 * of so many equal parts, a line or two a step from the first step on. */
AT_INLINE void accumulate_and_fetch(int rows, int vectors, operand kind, bool unsigned_rows,
                                    int64_t row, int64_t step, const float *a, const void *b,
                                    int64_t from, int64_t to, vf acc[AT_ROWS][2], const char *ahead,
                                    int share, int shares) {
    const int width = vectors * AT_LANES,
              size = width * (kind == BF16 ? 2 : bytes_of(kind)); /* of a step */
    int64_t middle = from;
    if (ahead) {
        const int fetched = shares > 1 || size < 64 ? 64 : size;
        const int64_t part = ((to - from) * size / 64 + shares - 1) / shares * 64;
        middle = from + (part / fetched + 1) / 2 * 2;
        if (middle > to) middle = to;
        accumulate(rows, vectors, width, kind, unsigned_rows, row, step, a, b, from, middle, acc,
                   ahead + from * size + share * part, fetched);
    }
    accumulate(rows, vectors, width, kind, unsigned_rows, row, step, a, b, middle, to, acc, NULL,
               0);
}

#endif
