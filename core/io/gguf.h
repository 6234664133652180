/* gguf.h - what reading and writing GGUF files share. The format is described in
 * github.com/ggml-org/ggml, docs/gguf.md: magic, version (u32), tensors (u64), pairs (u64), then
 * the pairs (a text, the number of a type, a value), the tensors (a text, axes (u32), extents (u64
 * each, the first is that of neighbouring elements), type (u32), offset (u64)), and the data. A
 * text is its length (u64) and its bytes; a list is the type of its elements (u32), their number
 * (u64) and the elements. All numbers are little-endian. */
#ifndef AT_IO_GGUF_H
#define AT_IO_GGUF_H

#include "io/tensor_file.h"

enum at_gguf_type {
    AT_GGUF_U8,
    AT_GGUF_I8,
    AT_GGUF_U16,
    AT_GGUF_I16,
    AT_GGUF_U32,
    AT_GGUF_I32,
    AT_GGUF_F32,
    AT_GGUF_BOOL,
    AT_GGUF_TEXT,
    AT_GGUF_LIST,
    AT_GGUF_U64,
    AT_GGUF_I64,
    AT_GGUF_F64,
    AT_GGUF_TYPES
};

/* Data begins at a multiple of the alignment, and so does each tensor. */
enum { AT_GGUF_ALIGNMENT = 32, AT_GGUF_MAX_ALIGNMENT = 1 << 24, AT_GGUF_MAX_AXES = 4 };

#endif
