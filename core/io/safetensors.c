/* safetensors.c - named tensors in one file: the header's length in 8 bytes (little-endian), a JSON
 * header, the data.
 *
 * Files are not trusted. Everything is checked before use: the header is at most 100,000,000 bytes
 * and fits in the file, names are unique and UTF-8, and the tensors cover the data without gaps or
 * overlaps. Sizes of allocations follow from what the file holds, not from what its header claims.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/status.h"
#include "tensor/tensor.h"

enum { MAX_HEADER = 100000000 };

static _Thread_local int system_error;

int attune_system_error(void) { return system_error; }

static attune_status io_failure(const char *what, const char *path) {
    system_error = errno;
    return at_fail(ATTUNE_EIO, "%s: %s: %s", path, what, strerror(system_error));
}

void attune_archive_close(attune_archive *a) {
    for (int64_t i = 0; i < a->tensors; i++) {
        at_free(a->tensor[i].name);
        attune_tensor_close(&a->tensor[i].tensor);
    }
    for (int64_t i = 0; i < a->texts; i++) {
        at_free(a->text[i].key);
        at_free(a->text[i].value);
    }
    at_free(a->tensor);
    at_free(a->text);
    memset(a, 0, sizeof *a);
}

static char *copy_text(const char *text) {
    size_t n = strlen(text) + 1;
    char *copy = at_alloc((int64_t)n);
    if (copy) memcpy(copy, text, n);
    return copy;
}

/* ---- loading --------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    attune_dtype dtype;
} dtype_names[] = {{"F32", ATTUNE_F32}, {"F64", ATTUNE_F64}, {"BF16", ATTUNE_BF16},
                   {"F16", ATTUNE_F16}, {"I8", ATTUNE_I8},   {"I32", ATTUNE_I32},
                   {"I64", ATTUNE_I64}};

typedef struct reader {
    const char *path;
    FILE *file;
    int64_t data_begin, data_bytes; /* the data: its offset in the file and its length */
} reader;

typedef struct span {
    int64_t begin, end;
    const char *name;
} span;

static attune_status malformed(const reader *r, const char *name, const char *what) {
    return name ? at_fail(ATTUNE_EFORMAT, "%s: tensor '%.100s': %s", r->path, name, what)
                : at_fail(ATTUNE_EFORMAT, "%s: %s", r->path, what);
}

static attune_status parse_dtype(const reader *r, const char *name, const json_t *entry,
                                 attune_dtype *out) {
    const char *text = json_string_value(json_object_get(entry, "dtype"));
    if (!text) return malformed(r, name, "expected a dtype");
    for (size_t i = 0; i < sizeof dtype_names / sizeof *dtype_names; i++) {
        if (strcmp(text, dtype_names[i].name) == 0) {
            *out = dtype_names[i].dtype;
            return ATTUNE_OK;
        }
    }
    return at_fail(
        ATTUNE_EFORMAT,
        "%s: tensor '%.100s': expected dtype F32, F64, BF16, F16, I8, I32 or I64, got '%.32s'",
        r->path, name, text);
}

static attune_status parse_tensor(const reader *r, const char *name, const json_t *entry,
                                  attune_tensor *out, span *where) {
    attune_dtype dtype = ATTUNE_F32;
    if (!json_is_object(entry)) return malformed(r, name, "expected an object");
    AT_TRY(parse_dtype(r, name, entry, &dtype));
    const json_t *shape = json_object_get(entry, "shape"),
                 *offsets = json_object_get(entry, "data_offsets");
    if (!json_is_array(shape) || json_array_size(shape) > ATTUNE_MAX_RANK)
        return malformed(r, name, "expected a shape of at most 6 axes");
    int64_t axes[ATTUNE_MAX_RANK] = {0}, bytes = attune_dtype_size(dtype);
    const int rank = (int)json_array_size(shape);
    for (int i = 0; i < rank; i++) {
        const json_t *n = json_array_get(shape, (size_t)i);
        if (!json_is_integer(n) || json_integer_value(n) < 1)
            return malformed(r, name, "expected a shape of integers of at least 1");
        axes[i] = json_integer_value(n);
        bytes = at_checked_mul(bytes, axes[i]);
        if (bytes < 0) return malformed(r, name, "its shape overflows");
    }
    if (!json_is_array(offsets) || json_array_size(offsets) != 2 ||
        !json_is_integer(json_array_get(offsets, 0)) ||
        !json_is_integer(json_array_get(offsets, 1))) {
        return malformed(r, name, "expected data_offsets of two integers");
    }
    *where = (span){.begin = json_integer_value(json_array_get(offsets, 0)),
                    .end = json_integer_value(json_array_get(offsets, 1)),
                    .name = name};
    if (where->begin < 0 || where->end < where->begin || where->end > r->data_bytes) {
        return at_fail(ATTUNE_EFORMAT,
                       "%s: tensor '%.100s': expected data_offsets within the %lld bytes of data, "
                       "got %lld and %lld",
                       r->path, name, (long long)r->data_bytes, (long long)where->begin,
                       (long long)where->end);
    }
    if (where->end - where->begin != bytes) {
        return at_fail(ATTUNE_EFORMAT,
                       "%s: tensor '%.100s': expected %lld bytes for %s %s, got %lld", r->path,
                       name, (long long)bytes, attune_dtype_name(dtype), at_shape_text(rank, axes),
                       (long long)(where->end - where->begin));
    }
    AT_TRY(at_tensor_new(dtype, rank, axes, out));
    if (fseeko(r->file, r->data_begin + where->begin, SEEK_SET) != 0)
        return io_failure("seeking", r->path);
    if (fread(out->data, 1, (size_t)bytes, r->file) != (size_t)bytes)
        return ferror(r->file) ? io_failure("reading", r->path)
                               : malformed(r, name, "the file ends inside its data");
    return ATTUNE_OK;
}

static attune_status parse_texts(const reader *r, json_t *texts, attune_archive *out) {
    const char *key;
    json_t *value;
    if (!json_is_object(texts))
        return malformed(r, NULL, "expected __metadata__ to be an object of texts");
    if (json_object_size(texts) == 0) return ATTUNE_OK;
    out->text = at_alloc_zeroed((int64_t)(json_object_size(texts) * sizeof *out->text));
    if (!out->text) return ATTUNE_EMEMORY;
    json_object_foreach(texts, key, value) {
        if (!json_is_string(value))
            return malformed(r, NULL, "expected __metadata__ to be an object of texts");
        attune_text_pair *pair = &out->text[out->texts++];
        pair->key = copy_text(key);
        pair->value = copy_text(json_string_value(value));
        if (!pair->key || !pair->value) return ATTUNE_EMEMORY;
    }
    return ATTUNE_OK;
}

static int by_begin(const void *a, const void *b) {
    const span *x = a, *y = b;
    return x->begin != y->begin ? (x->begin > y->begin) - (x->begin < y->begin)
                                : (x->end > y->end) - (x->end < y->end);
}

static attune_status check_cover(const reader *r, span *spans, int64_t n) {
    int64_t at = 0;
    if (n) qsort(spans, (size_t)n, sizeof *spans, by_begin);
    for (int64_t i = 0; i < n; i++) {
        if (spans[i].begin < at)
            return malformed(r, spans[i].name, "its bytes overlap another tensor's");
        if (spans[i].begin > at)
            return malformed(r, spans[i].name, "the bytes before it belong to no tensor");
        at = spans[i].end;
    }
    return at == r->data_bytes
               ? ATTUNE_OK
               : malformed(r, NULL, "the last bytes of the file belong to no tensor");
}

static attune_status parse_header(const reader *r, json_t *header, attune_archive *out) {
    const char *key;
    json_t *value;
    const int64_t max_tensors = (int64_t)json_object_size(header);
    if (max_tensors == 0)
        return r->data_bytes ? malformed(r, NULL, "the header names no tensor") : ATTUNE_OK;
    span *spans = at_alloc(max_tensors * (int64_t)sizeof *spans);
    out->tensor = spans ? at_alloc_zeroed(max_tensors * (int64_t)sizeof *out->tensor) : NULL;
    attune_status status = out->tensor ? ATTUNE_OK : ATTUNE_EMEMORY;
    json_object_foreach(header, key, value) {
        if (status != ATTUNE_OK) break;
        if (strcmp(key, "__metadata__") == 0) {
            status = parse_texts(r, value, out);
            continue;
        }
        attune_named_tensor *t = &out->tensor[out->tensors];
        t->name = copy_text(key);
        status = t->name ? parse_tensor(r, key, value, &t->tensor, &spans[out->tensors])
                         : ATTUNE_EMEMORY;
        out->tensors++;
    }
    if (status == ATTUNE_OK) status = check_cover(r, spans, out->tensors);
    at_free(spans);
    return status;
}

static attune_status read_header(reader *r, attune_archive *out) {
    unsigned char word[8];
    struct stat info;
    if (fstat(fileno(r->file), &info) != 0) return io_failure("looking at it", r->path);
    if (S_ISDIR(info.st_mode)) {
        errno = EISDIR;
        return io_failure("reading", r->path);
    }
    if (fread(word, 1, 8, r->file) != 8)
        return ferror(r->file) ? io_failure("reading", r->path)
                               : malformed(r, NULL, "expected a header, got fewer than 8 bytes");
    uint64_t length = 0;
    for (int i = 7; i >= 0; i--) length = length << 8 | word[i];
    if (length > MAX_HEADER)
        return at_fail(ATTUNE_EFORMAT, "%s: expected a header of at most %d bytes, got one of %llu",
                       r->path, MAX_HEADER, (unsigned long long)length);
    if ((int64_t)length > info.st_size - 8)
        return malformed(r, NULL, "the file ends inside the header");
    if (length < 2) return malformed(r, NULL, "expected a JSON header, got nothing");
    r->data_begin = 8 + (int64_t)length;
    r->data_bytes = info.st_size - r->data_begin;
    char *text = at_alloc((int64_t)length);
    if (!text) return ATTUNE_EMEMORY;
    attune_status status = ATTUNE_OK;
    json_t *header = NULL;
    json_error_t error;
    if (fread(text, 1, length, r->file) != length) status = io_failure("reading", r->path);
    if (status == ATTUNE_OK) {
        header = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
        if (!header)
            status = at_fail(ATTUNE_EFORMAT,
                             "%s: the header is no valid JSON of unique UTF-8 names: %s (byte %d)",
                             r->path, error.text, error.position);
        else if (!json_is_object(header))
            status = malformed(r, NULL, "expected the header to be a JSON object");
    }
    if (status == ATTUNE_OK) status = parse_header(r, header, out);
    json_decref(header);
    at_free(text);
    return status;
}

attune_status attune_archive_load(const char *path, attune_archive *out) {
    memset(out, 0, sizeof *out);
    reader r = {.path = path, .file = fopen(path, "rb")};
    if (!r.file) return io_failure("opening", path);
    attune_status status = read_header(&r, out);
    fclose(r.file);
    if (status != ATTUNE_OK) attune_archive_close(out);
    return status;
}

/* ---- saving ---------------------------------------------------------------------------------- */

static const char *dtype_text(attune_dtype dtype) {
    for (size_t i = 0; i < sizeof dtype_names / sizeof *dtype_names; i++)
        if (dtype_names[i].dtype == dtype) return dtype_names[i].name;
    return "";
}

static attune_status make_header(const attune_archive *a, json_t *header) {
    int64_t at = 0;
    if (a->texts) {
        json_t *texts = json_object();
        json_object_set_new(header, "__metadata__", texts);
        for (int64_t i = 0; i < a->texts; i++) {
            if (json_object_set_new(texts, a->text[i].key, json_string(a->text[i].value)) != 0) {
                return at_fail(ATTUNE_EVALUE,
                               "metadata: expected UTF-8 texts, got something else under '%.100s'",
                               a->text[i].key);
            }
        }
    }
    for (int64_t i = 0; i < a->tensors; i++) {
        const attune_named_tensor *t = &a->tensor[i];
        if (!t->tensor.data)
            return at_fail(ATTUNE_ECLOSED,
                           "tensors: expected open tensors, got a closed one, '%.100s'", t->name);
        if (strcmp(t->name, "__metadata__") == 0)
            return at_fail(ATTUNE_EVALUE, "tensors: expected any name but __metadata__");
        if (json_object_get(header, t->name))
            return at_fail(ATTUNE_EVALUE, "tensors: expected unique names, got '%.100s' twice",
                           t->name);
        json_t *shape = json_array();
        for (int d = 0; d < t->tensor.rank; d++)
            json_array_append_new(shape, json_integer(t->tensor.shape[d]));
        const int64_t end = at + attune_tensor_nbytes(&t->tensor);
        json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype_text(t->tensor.dtype),
                                  "shape", shape, "data_offsets", (json_int_t)at, (json_int_t)end);
        if (!entry || json_object_set_new(header, t->name, entry) != 0)
            return at_fail(ATTUNE_EVALUE, "tensors: expected UTF-8 names, got '%.100s'", t->name);
        at = end;
    }
    return ATTUNE_OK;
}

static attune_status write_data(FILE *f, const char *path, const attune_tensor *t) {
    attune_tensor flat;
    AT_TRY(attune_tensor_contiguous(t, &flat));
    size_t bytes = (size_t)attune_tensor_nbytes(&flat);
    attune_status status =
        fwrite(flat.data, 1, bytes, f) == bytes ? ATTUNE_OK : io_failure("writing", path);
    attune_tensor_close(&flat);
    return status;
}

static attune_status write_all(FILE *f, const char *path, const attune_archive *a,
                               const char *header) {
    size_t length = strlen(header),
           padding = (8 - length % 8) % 8; /* data begins at a multiple of 8 */
    unsigned char word[8];
    for (int i = 0; i < 8; i++) word[i] = (unsigned char)((length + padding) >> (8 * i));
    if (fwrite(word, 1, 8, f) != 8 || fwrite(header, 1, length, f) != length ||
        fwrite("       ", 1, padding, f) != padding)
        return io_failure("writing", path);
    for (int64_t i = 0; i < a->tensors; i++) AT_TRY(write_data(f, path, &a->tensor[i].tensor));
    if (fflush(f) != 0 || fsync(fileno(f)) != 0) return io_failure("writing", path);
    return ATTUNE_OK;
}

attune_status attune_archive_save(const char *path, const attune_archive *archive) {
    json_t *header = json_object();
    char *text = NULL, temporary[4096];
    attune_status status = make_header(archive, header);
    if (status == ATTUNE_OK) {
        text = json_dumps(header, JSON_COMPACT);
        if (!text)
            status = at_fail(ATTUNE_EMEMORY, "out of memory: the header of %lld tensors",
                             (long long)archive->tensors);
    }
    json_decref(header);
    if (status == ATTUNE_OK &&
        snprintf(temporary, sizeof temporary, "%s.XXXXXX", path) >= (int)sizeof temporary) {
        errno = ENAMETOOLONG;
        status = io_failure("naming", path);
    }
    if (status == ATTUNE_OK) {
        int fd = mkstemp(temporary);
        if (fd < 0) {
            status = io_failure("creating", path);
        } else {
            mode_t mask = umask(0);
            umask(mask);
            fchmod(fd, 0666 & ~mask);
            FILE *f = fdopen(fd, "wb");
            status = write_all(f, path, archive, text);
            if (fclose(f) != 0 && status == ATTUNE_OK) status = io_failure("writing", path);
            if (status == ATTUNE_OK && rename(temporary, path) != 0)
                status = io_failure("renaming", path);
            if (status != ATTUNE_OK) unlink(temporary);
        }
    }
    free(text);
    return status;
}
