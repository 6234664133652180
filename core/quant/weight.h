/* weight.h - what io needs to make a weight: memory for rows of plain numbers, or a way to give
 * rows of blocks one panel after the other. */
#ifndef AT_QUANT_WEIGHT_H
#define AT_QUANT_WEIGHT_H

#include "attune/weight.h"
#include "base/slab.h"
#include "quant/blocks.h"

/* Where the weights of a file are put: small ones share a slab, so that huge pages hold them. left:
 * bytes of weights that are still to come; no slab is larger. slab: NULL before the first. */
typedef struct at_weight_room {
    at_slab *slab;
    int64_t left;
} at_weight_room;

/* Plain numbers. *bytes: the memory of the rows, for the caller to fill. room: NULL: a block of its
 * own. */
attune_status at_weight_new(const at_format *format, int64_t outputs, int64_t inputs,
                            at_weight_room *room, attune_weight **out, void **bytes);

/* Blocks, which are packed. read: writes rows [first, first + count) at `to`, as the file has them;
 * it is called by several threads at a time. */
typedef attune_status (*at_read_rows)(const void *context, int64_t first, int64_t count, void *to);
attune_status at_weight_new_packed(const at_format *format, int64_t outputs, int64_t inputs,
                                   attune_compute compute, at_read_rows read, const void *context,
                                   at_weight_room *room, attune_weight **out);

#endif
