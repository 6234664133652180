/* weight.h - what io needs to make a weight: memory for the bytes of its rows. */
#ifndef AT_QUANT_WEIGHT_H
#define AT_QUANT_WEIGHT_H

#include "attune/weight.h"
#include "quant/blocks.h"

/* *bytes: the memory of the rows, outputs * inputs / format->values * format->bytes bytes, for the
 * caller to fill. */
attune_status at_weight_new(const at_format *format, int64_t outputs, int64_t inputs,
                            attune_weight **out, void **bytes);

#endif
