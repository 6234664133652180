/* optimiser.h - what the optimisers check about a parameter, its gradient and its moments. */
#ifndef AT_NN_OPTIMISER_H
#define AT_NN_OPTIMISER_H

#include "attune.h"

/* Elements per row of an optimiser's loop: tensors are treated as one long vector. */
enum { AT_OPTIMISER_ROW = 4096 };

/* p, and each of the `moments` (NULL: none), are contiguous tensors of one shape in f32 or f64, and
 * g is a float tensor of that shape. */
attune_status at_check_parameter(const attune_tensor *p, const attune_tensor *g, int moments,
                                 attune_tensor *const *moment);

/* A number of the options: finite and at least 0. */
attune_status at_check_rate(const char *name, double value);
/* From 0 to below 1. */
attune_status at_check_momentum(const char *name, double value);

/* The elements in rows [first, last) of a tensor of `count` elements. */
int64_t at_optimiser_count(int64_t count, int64_t first, int64_t last);

#endif
