/* packed.h - weights of block formats as panels of 16 outputs, which the kernels of
 * simd/quant_kernels.h multiply in integers. */
#ifndef AT_QUANT_PACKED_H
#define AT_QUANT_PACKED_H

#include "quant/blocks.h"
#include "simd/quant_kernels.h"

/* The at_packed_kind of a format; -1: its elements are no blocks. */
int at_packed_kind_of(const at_format *format);

/* The bytes of a panel of n inputs, a multiple of 64; n is a multiple of the format's block. */
int64_t at_packed_bytes(int kind, int64_t n);

/* rows [outputs][row_bytes], outputs <= 16, as a file has them -> a panel. Outputs that are missing
 * become zero. */
void at_pack_panel(int kind, const uint8_t *rows, int64_t row_bytes, int outputs, int64_t n,
                   uint8_t *panel);

/* Output `output` of a panel in f32, the same bits as the format's to_f32. */
void at_unpack_row(int kind, const uint8_t *panel, int output, int64_t n, float *out);

#endif
