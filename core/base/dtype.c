/* dtype.c - names and sizes of dtypes, from the one table in attune/tensor.h. */
#include "base/dtype.h"

#include <string.h>

#include "base/status.h"

static const struct {
    const char *name;
    int64_t size; /* bytes of an element */
} dtypes[] = {
#define X(symbol, name, bytes) {name, bytes},
    ATTUNE_DTYPE_TABLE(X)
#undef X
};

const char *attune_dtype_name(attune_dtype dtype) {
    return dtype < ATTUNE_DTYPES ? dtypes[dtype].name : "unknown";
}

int64_t attune_dtype_size(attune_dtype dtype) {
    return dtype < ATTUNE_DTYPES ? dtypes[dtype].size : 0;
}

attune_status attune_dtype_parse(const char *name, attune_dtype *out) {
    for (int d = 0; d < ATTUNE_DTYPES; d++) {
        if (strcmp(name, dtypes[d].name) == 0) {
            *out = (attune_dtype)d;
            return ATTUNE_OK;
        }
    }
    return at_fail(ATTUNE_EDTYPE,
                   "dtype: expected f32, f64, bf16, f16, i8, i32 or i64, got '%.32s'", name);
}
