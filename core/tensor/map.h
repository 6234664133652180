/* map.h - runs a function over the elements of tensors of one shape, in chunks of f32 or f64.
 *
 * The function gets pointers to contiguous chunks: elements of any dtype and strides are converted
 * before and after. The shape alone decides the tasks.
 */
#ifndef AT_TENSOR_MAP_H
#define AT_TENSOR_MAP_H

#include "attune.h"

enum { AT_MAP_PART = 512, AT_MAP_IN = 3, AT_MAP_OUT = 2 };

typedef struct at_map {
    const attune_tensor *in[AT_MAP_IN];   /* of out's shape; NULL after the last one */
    const attune_tensor *out[AT_MAP_OUT]; /* out[0] always; out[1] may be NULL */
    /* Each chunk has at most AT_MAP_PART elements. */
    void (*f32)(const void *context, int64_t n, const float *const *in, float *const *out);
    void (*f64)(const void *context, int64_t n, const double *const *in, double *const *out);
    const void *context;
    bool in_f64; /* f64 is called, else f32 */
} at_map;

attune_status at_map_run(const at_map *map);

#endif
