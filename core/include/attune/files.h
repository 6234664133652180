/* attune/files.h - safetensors files. */
#ifndef ATTUNE_FILES_H
#define ATTUNE_FILES_H

#include "attune/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* safetensors. Names and metadata in the file's own order. */
typedef struct attune_named_tensor {
    char *name;
    attune_tensor tensor;
} attune_named_tensor;
typedef struct attune_text_pair {
    char *key, *value;
} attune_text_pair;
typedef struct attune_archive {
    int64_t tensors, texts;
    attune_named_tensor *tensor;
    attune_text_pair *text;
} attune_archive;
/* EIO: attune_system_error() is errno. EFORMAT: what is wrong, and where. */
ATTUNE_API attune_status attune_archive_load(const char *path, attune_archive *out);
ATTUNE_API attune_status attune_archive_save(
    const char *path, const attune_archive *archive); /* to a temporary name, then renamed */
ATTUNE_API void attune_archive_close(attune_archive *archive);
ATTUNE_API int attune_system_error(void);

#ifdef __cplusplus
}
#endif

#endif
