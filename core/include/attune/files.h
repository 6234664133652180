/* attune/files.h - safetensors files. */
#ifndef ATTUNE_FILES_H
#define ATTUNE_FILES_H

#include "attune/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The contents of a safetensors file: named tensors, and texts (its __metadata__), each in the
 * order of the file. BOOL is read as i8 and U8 as i32. A tensor of a dtype that attune lacks, such
 * as F8_E4M3, is listed: its `tensor` is closed but has rank and shape, and `unread` is the dtype.
 */
typedef struct attune_named_tensor {
    char *name;
    attune_tensor tensor;
    const char *unread; /* NULL: the tensor was read */
} attune_named_tensor;
typedef struct attune_text_pair {
    char *key, *value;
} attune_text_pair;
typedef struct attune_archive {
    int64_t tensors, texts;
    attune_named_tensor *tensor; /* [tensors] */
    attune_text_pair *text;      /* [texts] */
    void *memory;                /* of the names and texts of a loaded archive */
} attune_archive;

/* Reads a file. A folder, a device or a FIFO is EIO, without waiting. What is read counts in
 * attune_memory(). After success the caller calls attune_archive_close. Errors: EIO, of which
 * attune_system_error() has the errno; EFORMAT: the file is malformed, and the message says where;
 * EMEMORY, EINTERRUPT. */
ATTUNE_API attune_status attune_archive_load(const char *path, attune_archive *out);

/* Writes a temporary file with an unpredictable name in the folder of `path` and then renames it,
 * so that the file is never half written. Where `path` is a symbolic link, its target is written.
 * The permissions of a file that was there stay. A folder, a device or a FIFO is EIO. Other errors:
 * EVALUE for names and texts that are not UTF-8 or not unique, ECLOSED, EMEMORY, EINTERRUPT. */
ATTUNE_API attune_status attune_archive_save(const char *path, const attune_archive *archive);

/* Frees a loaded archive; closing it again does nothing. */
ATTUNE_API void attune_archive_close(attune_archive *archive);

/* The errno of the calling thread's last EIO. */
ATTUNE_API int attune_system_error(void);

#ifdef __cplusplus
}
#endif

#endif
