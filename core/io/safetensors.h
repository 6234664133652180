/* safetensors.h - the dtypes of safetensors files, for reading (safetensors.c) and for writing
 * (safetensors_write.c). */
#ifndef AT_IO_SAFETENSORS_H
#define AT_IO_SAFETENSORS_H

#include "attune.h"
#include "tensor/tensor.h"

typedef struct at_file_dtype {
    const char *name;
    attune_dtype dtype; /* of the tensor that it is read as; ATTUNE_DTYPES: attune has none */
    int bits;           /* per element in the file */
} at_file_dtype;

/* Ends with a NULL name. The first entry of a dtype is the one that is written. */
extern const at_file_dtype at_file_dtypes[];

#endif
