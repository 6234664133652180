/* attune/files.h - files of named tensors: safetensors (one file, or shards with an index) and GGUF
 * (versions 2 and 3).
 *
 * Files may come from strangers. Sizes are checked before memory is allocated, the tensors must
 * cover the data without holes or overlaps, and names are unique. Data is read with pread when a
 * tensor is asked for, and never through a mapping: a file that shrinks while it is open is
 * EFORMAT, where a mapped one would kill the process (SIGBUS).
 */
#ifndef ATTUNE_FILES_H
#define ATTUNE_FILES_H

#include "attune/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- reading, a tensor at a time ------------------------------------------------------------- */

typedef struct attune_file attune_file;

/* What a file says of a tensor. */
typedef struct attune_stored {
    const char *name;
    const char *format; /* "F32", "BF16", "Q4_K" .. */
    attune_dtype dtype; /* as what it is read: of a block format F32, of BOOL I8, of U8 I32;
                           ATTUNE_DTYPES: attune cannot read it */
    int rank;
    int64_t shape[ATTUNE_MAX_RANK]; /* the last axis has neighbouring elements, also of GGUF */
    int64_t bytes;                  /* in the file */
} attune_stored;

/* A piece of metadata: safetensors has texts only. */
typedef enum attune_value_kind {
    ATTUNE_TEXT,
    ATTUNE_INTEGER,
    ATTUNE_NUMBER,
    ATTUNE_BOOLEAN,
    ATTUNE_LIST
} attune_value_kind;
typedef struct attune_value {
    attune_value_kind kind;
    const char *text; /* TEXT: `length` bytes, which may hold NUL and end without one */
    int64_t length;
    int64_t integer;                  /* INTEGER; BOOLEAN: 0 or 1 */
    double number;                    /* NUMBER, also an integer from 2^63 on */
    int64_t count;                    /* LIST: the elements that are left */
    const struct attune_value *items; /* a LIST to be written: [count], NULL in one that was read */
    const unsigned char *at;          /* a LIST that was read: its next element */
    uint32_t type;                    /* and the type of all of them in GGUF */
} attune_value;

/* Opens a file and reads its header: GGUF where it begins so, shards where the path ends with
 * ".index.json", else safetensors. A folder, a device or a FIFO is EIO, without waiting. Errors:
 * EIO, of which attune_system_error() has the errno; EFORMAT: the file is malformed, and the
 * message says where; EMEMORY, EINTERRUPT. */
ATTUNE_API attune_status attune_file_open(const char *path, attune_file **out);
ATTUNE_API void attune_file_close(attune_file *file); /* file may be NULL */

/* Tensors in the order of the file; i < attune_file_tensors. Names live until the file is closed.
 * find: the number of the tensor of that name; -1: there is none. */
ATTUNE_API int64_t attune_file_tensors(const attune_file *file);
ATTUNE_API attune_stored attune_file_tensor(const attune_file *file, int64_t i);
ATTUNE_API int64_t attune_file_find(const attune_file *file, const char *name);

/* Reads a tensor. dtype: ATTUNE_DTYPES for that of attune_stored, or F32, F64, F16 or BF16 to
 * convert floats and blocks, rounding to nearest even. EDTYPE: the format cannot be read, or not as
 * this dtype. Errors: EIO, EFORMAT: the file has shrunk; EMEMORY, EINTERRUPT. */
ATTUNE_API attune_status attune_file_read(const attune_file *file, int64_t i, attune_dtype dtype,
                                          attune_tensor *out);

/* Metadata in the order of the file; i < attune_file_texts. *value lives until the file is closed.
 * next takes the first element out of a list that was read; false: there is none. */
ATTUNE_API int64_t attune_file_texts(const attune_file *file);
ATTUNE_API const char *attune_file_text(const attune_file *file, int64_t i, attune_value *value);
ATTUNE_API bool attune_value_next(attune_value *list, attune_value *out);

/* ---- whole files ----------------------------------------------------------------------------- */

/* The contents of a file: named tensors and the metadata that is text, each in the order of the
 * file. A tensor that attune cannot read is listed: its `tensor` is closed but has rank and shape,
 * and `unread` is its format. */
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

/* Reads a file whole. What is read counts in attune_memory(). After success the caller calls
 * attune_archive_close. Errors: as attune_file_open. */
ATTUNE_API attune_status attune_archive_load(const char *path, attune_archive *out);

/* Writes a safetensors file: first a temporary file with an unpredictable name in the folder of
 * `path`, which is then renamed, so that the file is never half written. Where `path` is a symbolic
 * link, its target is written. The permissions of a file that was there stay. A folder, a device or
 * a FIFO is EIO. Other errors: EVALUE for names and texts that are not UTF-8, not unique or more
 * than the 100 MB of header that readers accept; ECLOSED, EMEMORY, EINTERRUPT. */
ATTUNE_API attune_status attune_archive_save(const char *path, const attune_archive *archive);

/* Writes a GGUF file, version 3, in the same way. A tensor is stored as its dtype, or, where q8_0
 * is given and q8_0[i] is true, in blocks of Q8_0, for which its last axis is a multiple of 32. A
 * text is stored as string; an integer as the first that holds it of u32, i32, i64; a number as f32
 * if that is exact, else as f64; a list has elements of one kind. general.alignment, if given, is
 * a power of 2. EVALUE: a name is not UTF-8, longer than 63 bytes or there twice; a tensor has
 * more than 4 axes; Q8_0 cannot hold a value: NaN, an infinity, or one of 127 * 65520 or more. */
typedef struct attune_gguf {
    int64_t tensors, texts;
    const attune_named_tensor *tensor; /* [tensors] */
    const bool *q8_0;                  /* [tensors] or NULL */
    const char *const *key;            /* [texts] */
    const attune_value *value;         /* [texts] */
} attune_gguf;
ATTUNE_API attune_status attune_gguf_save(const char *path, const attune_gguf *contents);

/* Frees a loaded archive; closing it again does nothing. */
ATTUNE_API void attune_archive_close(attune_archive *archive);

/* The errno of the calling thread's last EIO. */
ATTUNE_API int attune_system_error(void);

#ifdef __cplusplus
}
#endif

#endif
