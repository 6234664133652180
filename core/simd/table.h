/* table.h - the hot loops as a table of functions, one table per instruction set.
 *
 * core/simd/kernels/NAME.c is compiled once per instruction set (AT_ISA says which), each time
 * filling its part of that set's table; core/simd/dispatch.c chooses a table at run time. A kernel
 * file knows the machine through kernels/vec.h only.
 */
#ifndef AT_SIMD_TABLE_H
#define AT_SIMD_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "simd/attention_kernels.h"
#include "simd/limit_kernels.h"
#include "simd/linear_kernels.h"
#include "simd/nn_kernels.h"
#include "simd/panel_kernels.h"
#include "simd/program_kernels.h"
#include "simd/quant_kernels.h"
#include "simd/tile.h"
#include "simd/weight_kernels.h"

/* Elementwise loops over contiguous arrays (core/simd/kernels/elementwise_kernels.c). */
typedef struct at_elementwise_kernels {
    void (*exp)(const float *x, float *out, int64_t n); /* within 2 ulp; NaN kept */
    void (*tanh)(const float *x, float *out, int64_t n);
    void (*sigmoid)(const float *x, float *out, int64_t n);
    void (*bf16_to_f32)(const uint16_t *x, float *out, int64_t n);
    void (*f32_to_bf16)(const float *x, uint16_t *out, int64_t n); /* to nearest even, NaN kept */
    void (*f16_to_f32)(const uint16_t *x, float *out, int64_t n);
    void (*f32_to_f16)(const float *x, uint16_t *out, int64_t n);
    double (*sum)(const float *x, int64_t n); /* in double */
    float (*max)(const float *x, int64_t n);  /* NaN where any is */
    bool (*all_finite)(const float *x, int64_t n);
    void (*scale)(const float *x, float factor, float *out, int64_t n);      /* out = factor x */
    void (*add_scaled)(const float *x, float factor, float *sum, int64_t n); /* sum += factor x */
    /* Rotation of pairs of elements: i and i + pairs (halves), or 2 i and 2 i + 1 (pairs). x and
     * out [2 * pairs], cosine and sine [pairs]. sign: 1, or -1 for the inverse rotation. out may be
     * x. */
    void (*rotate_halves)(const float *x, const float *cosine, const float *sine, float sign,
                          int64_t pairs, float *out);
    void (*rotate_pairs)(const float *x, const float *cosine, const float *sine, float sign,
                         int64_t pairs, float *out);
} at_elementwise_kernels;

typedef struct at_simd {
    const char *name; /* "avx2" */
    int lanes;        /* f32 in a register */
    at_geometry geometry;
    at_elementwise_kernels elementwise;
    at_attention_kernels attention;
    at_limit_kernels limits;
    at_panel_kernels panels;
    at_nn_kernels nn;
    at_program_kernels program;
    at_linear_kernels linear;
    at_weight_kernels weights;
    at_quant_kernels quant;
} at_simd;

/* The table in use; chosen at the first call of attune_init(), which must have succeeded. */
const at_simd *at_simd_now(void);

#endif
