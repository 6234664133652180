/* safetensors_write.c - writing safetensors files. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "io/tensor_file.h"
#include "io/whole_file.h"
#include "quant/blocks.h"

static const char *dtype_text(attune_dtype dtype) {
    const at_format *f = at_formats;
    while (f->name && f->dtype != dtype) f++;
    return f->name;
}

/* Data is ordered by size of the elements, the largest first, and then as the header is, so that
 * every tensor begins at a multiple of its element's size: readers that map the file need that. */
static const int64_t element_sizes[] = {8, 4, 2, 1};
enum { ELEMENT_SIZES = 4 };

static int size_index(const attune_tensor *t) {
    int i = 0;
    while (element_sizes[i] != attune_dtype_size(t->dtype)) i++;
    return i;
}

/* begin [ELEMENT_SIZES]: where the data of each size begins. */
static attune_status begin_of_sizes(const attune_archive *a, int64_t *begin) {
    int64_t bytes[ELEMENT_SIZES] = {0}, at = 0;
    for (int64_t i = 0; i < a->tensors; i++) {
        const attune_named_tensor *t = &a->tensor[i];
        if (!t->tensor.data)
            return at_fail(ATTUNE_ECLOSED,
                           "tensors: expected open tensors, got a closed one, '%.100s'", t->name);
        bytes[size_index(&t->tensor)] += attune_tensor_nbytes(&t->tensor);
    }
    for (int s = 0; s < ELEMENT_SIZES; s++) {
        begin[s] = at;
        at += bytes[s];
    }
    return ATTUNE_OK;
}

static attune_status make_header(const attune_archive *a, json_t *header) {
    int64_t begin[ELEMENT_SIZES];
    AT_TRY(begin_of_sizes(a, begin));
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
        int64_t *at = &begin[size_index(&t->tensor)];
        if (strcmp(t->name, "__metadata__") == 0)
            return at_fail(ATTUNE_EVALUE, "tensors: expected any name but __metadata__");
        if (json_object_get(header, t->name))
            return at_fail(ATTUNE_EVALUE, "tensors: expected unique names, got '%.100s' twice",
                           t->name);
        json_t *shape = json_array();
        for (int d = 0; d < t->tensor.rank; d++)
            json_array_append_new(shape, json_integer(t->tensor.shape[d]));
        const int64_t end = *at + attune_tensor_nbytes(&t->tensor);
        json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", dtype_text(t->tensor.dtype),
                                  "shape", shape, "data_offsets", (json_int_t)*at, (json_int_t)end);
        if (!entry || json_object_set_new(header, t->name, entry) != 0)
            return at_fail(ATTUNE_EVALUE, "tensors: expected UTF-8 names, got '%.100s'", t->name);
        *at = end;
    }
    return ATTUNE_OK;
}

static attune_status write_data(const at_new_file *f, const attune_tensor *t) {
    attune_tensor flat;
    AT_TRY(attune_tensor_contiguous(t, &flat));
    attune_status status = at_write_file(f, flat.data, attune_tensor_nbytes(&flat));
    attune_tensor_close(&flat);
    return status;
}

static attune_status write_all(const at_new_file *f, const attune_archive *a, const char *header) {
    const size_t length = strlen(header), padding = (8 - length % 8) % 8;
    unsigned char word[8];
    for (int i = 0; i < 8; i++) word[i] = (unsigned char)((length + padding) >> (8 * i));
    AT_TRY(at_write_file(f, word, 8));
    AT_TRY(at_write_file(f, header, (int64_t)length));
    AT_TRY(at_write_file(f, "       ", (int64_t)padding)); /* data begins at a multiple of 8 */
    for (int s = 0; s < ELEMENT_SIZES; s++)
        for (int64_t i = 0; i < a->tensors; i++)
            if (size_index(&a->tensor[i].tensor) == s) AT_TRY(write_data(f, &a->tensor[i].tensor));
    return ATTUNE_OK;
}

attune_status attune_archive_save(const char *path, const attune_archive *archive) {
    json_t *header = json_object();
    char *text = NULL;
    attune_status status = make_header(archive, header);
    if (status == ATTUNE_OK) {
        text = json_dumps(header, JSON_COMPACT);
        if (!text)
            status = at_fail(ATTUNE_EMEMORY, "out of memory: the header of %lld tensors",
                             (long long)archive->tensors);
        /* Readers refuse more. Up to 7 bytes of padding follow the text. */
        else if ((int64_t)strlen(text) + 7 > AT_MAX_HEADER)
            status = at_fail(ATTUNE_EVALUE,
                             "metadata: expected at most %d bytes with the names of all tensors, "
                             "got %lld",
                             AT_MAX_HEADER, (long long)strlen(text));
    }
    json_decref(header);
    if (status == ATTUNE_OK) {
        at_new_file file;
        status = at_begin_file(path, &file);
        if (status == ATTUNE_OK) status = write_all(&file, archive, text);
        status = at_end_file(&file, status);
    }
    free(text);
    return status;
}
