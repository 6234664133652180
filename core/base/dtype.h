/* dtype.h - what the core asks about a dtype. attune_dtype_name(), attune_dtype_size() and
 * attune_dtype_parse() are public: attune/tensor.h. All of them live here, on the ground floor, so
 * that core/simd can use them without core/tensor.
 */
#ifndef AT_BASE_DTYPE_H
#define AT_BASE_DTYPE_H

#include "attune/tensor.h"

/* f32, f64, bf16, f16. */
static inline bool at_is_float(attune_dtype dtype) {
    return dtype == ATTUNE_F32 || dtype == ATTUNE_F64 || dtype == ATTUNE_BF16 ||
           dtype == ATTUNE_F16;
}

/* i8, i32, i64. */
static inline bool at_is_integer(attune_dtype dtype) {
    return dtype == ATTUNE_I8 || dtype == ATTUNE_I32 || dtype == ATTUNE_I64;
}

/* f32 holds every value of the dtype. */
static inline bool at_fits_f32(attune_dtype dtype) {
    return dtype == ATTUNE_F32 || dtype == ATTUNE_BF16 || dtype == ATTUNE_F16 || dtype == ATTUNE_I8;
}

#endif
