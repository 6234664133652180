/* attune/files.h - safetensors files. */
#ifndef ATTUNE_FILES_H
#define ATTUNE_FILES_H

#include "attune/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The contents of a safetensors file: named tensors, and texts (its __metadata__), each in the
 * order of the file. */
typedef struct attune_named_tensor {
    char *name;
    attune_tensor tensor;
} attune_named_tensor;
typedef struct attune_text_pair {
    char *key, *value;
} attune_text_pair;
typedef struct attune_archive {
    int64_t tensors, texts;
    attune_named_tensor *tensor; /* [tensors] */
    attune_text_pair *text;      /* [texts] */
} attune_archive;
/* EIO: attune_system_error() is the errno. EFORMAT: the file is malformed; the message says where.
 * attune_archive_close frees a loaded archive. */
ATTUNE_API attune_status attune_archive_load(const char *path, attune_archive *out);
/* Writes a temporary file beside `path` and then renames it, so `path` is never half written. */
ATTUNE_API attune_status attune_archive_save(const char *path, const attune_archive *archive);
ATTUNE_API void attune_archive_close(attune_archive *archive);
/* The errno of the calling thread's last EIO. */
ATTUNE_API int attune_system_error(void);

#ifdef __cplusplus
}
#endif

#endif
