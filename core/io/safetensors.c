/* safetensors.c - reading safetensors files: 8 bytes of length, a JSON header, then the data.
 *
 * Files come from strangers. The header is scanned without a tree in memory, all sizes are checked,
 * the tensors must cover the data without holes or overlaps, and all of that is known before the
 * first tensor is allocated. Memory: the header, as much again for its texts, and the tensors.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"
#include "base/status.h"
#include "io/json_scan.h"
#include "io/safetensors.h"
#include "io/whole_file.h"

enum { MAX_HEADER = 100000000, MAX_TENSORS = 1000000, MAX_TEXTS = 1000000 };

const at_file_dtype at_file_dtypes[] = {
    {"F32", ATTUNE_F32, 32},       {"F64", ATTUNE_F64, 64},       {"BF16", ATTUNE_BF16, 16},
    {"F16", ATTUNE_F16, 16},       {"I8", ATTUNE_I8, 8},          {"I32", ATTUNE_I32, 32},
    {"I64", ATTUNE_I64, 64},       {"BOOL", ATTUNE_I8, 8},        {"U8", ATTUNE_I32, 8},
    {"F8_E4M3", ATTUNE_DTYPES, 8}, {"F8_E5M2", ATTUNE_DTYPES, 8}, {"F8_E8M0", ATTUNE_DTYPES, 8},
    {"I16", ATTUNE_DTYPES, 16},    {"U16", ATTUNE_DTYPES, 16},    {"U32", ATTUNE_DTYPES, 32},
    {"U64", ATTUNE_DTYPES, 64},    {"C64", ATTUNE_DTYPES, 64},    {NULL, ATTUNE_DTYPES, 0},
};

/* What the header says of a tensor. */
typedef struct entry {
    char *name, *dtype;
    const at_file_dtype *type; /* that of the NULL name: a dtype of unknown size */
    int rank;
    int64_t shape[ATTUNE_MAX_RANK];
    int64_t begin, end; /* of its bytes in the data */
} entry;

typedef struct reader {
    const char *path;
    int fd;
    int64_t data_begin, data_bytes; /* the data: its offset in the file and its length */
    at_json json;
    char *text; /* where the next text goes, in the archive's block of texts */
    entry *entry;
    int64_t entries, room; /* used and allocated elements of entry */
    bool has_texts;
    attune_archive *out;
} reader;

void attune_archive_close(attune_archive *a) {
    for (int64_t i = 0; i < a->tensors; i++) attune_tensor_close(&a->tensor[i].tensor);
    at_free(a->tensor);
    at_free(a->text);
    at_free(a->memory);
    memset(a, 0, sizeof *a);
}

static attune_status malformed(const reader *r, const char *name, const char *what) {
    return name ? at_fail(ATTUNE_EFORMAT, "%s: tensor '%.100s': %s", r->path, name, what)
                : at_fail(ATTUNE_EFORMAT, "%s: %s", r->path, what);
}

/* The error of the scanner, if it has one. */
static attune_status scanned(const reader *r) {
    if (!r->json.error) return ATTUNE_OK;
    return at_fail(ATTUNE_EFORMAT, "%s: the header is not valid JSON: %s (byte %lld)", r->path,
                   r->json.error, (long long)(r->json.at - r->json.begin));
}

/* The next text of the header, which stays in the archive's memory. */
static char *keep_text(reader *r, bool key) {
    char *text = r->text;
    int64_t length;
    if (key)
        at_json_key(&r->json, text, &length);
    else
        at_json_text(&r->json, text, &length);
    r->text += length + 1;
    return text;
}

/* Makes room for one more element in an array of `count`. */
static attune_status grow(void **array, int64_t count, int64_t *room, int64_t size) {
    if (count < *room) return ATTUNE_OK;
    const int64_t wanted = *room ? 2 * *room : 16;
    void *larger = at_alloc(at_checked_mul(wanted, size));
    if (!larger) return ATTUNE_EMEMORY;
    if (*array) memcpy(larger, *array, (size_t)(count * size));
    at_free(*array);
    *array = larger;
    *room = wanted;
    return ATTUNE_OK;
}

/* ---- the header ------------------------------------------------------------------------------ */

enum { DTYPE = 1, SHAPE = 2, OFFSETS = 4 };

static attune_status read_dtype(reader *r, entry *e) {
    e->dtype = keep_text(r, false);
    AT_TRY(scanned(r));
    if (strlen(e->dtype) > 16 || !*e->dtype ||
        e->dtype[strspn(e->dtype, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789")])
        return at_fail(ATTUNE_EFORMAT,
                       "%s: tensor '%.100s': expected a dtype such as F32, got '%.32s'", r->path,
                       e->name, e->dtype);
    e->type = at_file_dtypes;
    while (e->type->name && strcmp(e->type->name, e->dtype) != 0) e->type++;
    return ATTUNE_OK;
}

static attune_status read_shape(reader *r, entry *e) {
    bool first = true;
    if (!at_json_enter(&r->json, '[')) return scanned(r);
    while (at_json_next(&r->json, ']', &first)) {
        int64_t n;
        if (e->rank == ATTUNE_MAX_RANK)
            return malformed(r, e->name, "expected a shape of at most 6 axes");
        if (!at_json_natural(&r->json, &n)) break;
        if (n < 1) return malformed(r, e->name, "expected a shape of integers of at least 1");
        e->shape[e->rank++] = n;
    }
    return scanned(r);
}

static attune_status read_offsets(reader *r, entry *e) {
    int64_t *const offsets[2] = {&e->begin, &e->end};
    bool first = true;
    int n = 0;
    if (!at_json_enter(&r->json, '[')) return scanned(r);
    while (at_json_next(&r->json, ']', &first)) {
        if (n == 2) return malformed(r, e->name, "expected data_offsets of two integers");
        if (!at_json_natural(&r->json, offsets[n++])) break;
    }
    AT_TRY(scanned(r));
    return n == 2 ? ATTUNE_OK : malformed(r, e->name, "expected data_offsets of two integers");
}

/* Fields that the format does not name are skipped. */
static attune_status read_fields(reader *r, entry *e) {
    bool first = true;
    int found = 0;
    if (!at_json_enter(&r->json, '{')) return scanned(r);
    while (at_json_next(&r->json, '}', &first)) {
        char *before = r->text;
        const char *key = keep_text(r, true);
        r->text = before; /* the key is compared and not kept */
        AT_TRY(scanned(r));
        const int field = strcmp(key, "dtype") == 0          ? DTYPE
                          : strcmp(key, "shape") == 0        ? SHAPE
                          : strcmp(key, "data_offsets") == 0 ? OFFSETS
                                                             : 0;
        if (found & field) return malformed(r, e->name, "a field is there twice");
        found |= field;
        switch (field) {
        case DTYPE: AT_TRY(read_dtype(r, e)); break;
        case SHAPE: AT_TRY(read_shape(r, e)); break;
        case OFFSETS: AT_TRY(read_offsets(r, e)); break;
        default: at_json_skip(&r->json); break;
        }
    }
    AT_TRY(scanned(r));
    return found == (DTYPE | SHAPE | OFFSETS)
               ? ATTUNE_OK
               : malformed(r, e->name, "expected dtype, shape and data_offsets");
}

static attune_status check_bytes(const reader *r, const entry *e) {
    if (e->end < e->begin || e->end > r->data_bytes) {
        return at_fail(ATTUNE_EFORMAT,
                       "%s: tensor '%.100s': expected data_offsets within the %lld bytes of data, "
                       "got %lld and %lld",
                       r->path, e->name, (long long)r->data_bytes, (long long)e->begin,
                       (long long)e->end);
    }
    int64_t count = 1;
    for (int i = 0; i < e->rank; i++) count = at_checked_mul(count, e->shape[i]);
    const int64_t bits = at_checked_mul(count, e->type->bits);
    if (bits < 0) return malformed(r, e->name, "its shape overflows");
    if (e->type->bits && e->end - e->begin != bits / 8) {
        return at_fail(ATTUNE_EFORMAT,
                       "%s: tensor '%.100s': expected %lld bytes for %s %s, got %lld", r->path,
                       e->name, (long long)(bits / 8), e->dtype, at_shape_text(e->rank, e->shape),
                       (long long)(e->end - e->begin));
    }
    return ATTUNE_OK;
}

static attune_status read_texts(reader *r) {
    attune_archive *out = r->out;
    int64_t room = 0;
    bool first = true;
    if (r->has_texts) return malformed(r, NULL, "expected unique names, got __metadata__ twice");
    r->has_texts = true;
    if (!at_json_enter(&r->json, '{')) return scanned(r);
    while (at_json_next(&r->json, '}', &first)) {
        if (out->texts == MAX_TEXTS)
            return malformed(r, NULL, "expected at most 1000000 texts in __metadata__");
        AT_TRY(grow((void **)&out->text, out->texts, &room, (int64_t)sizeof *out->text));
        char *key = keep_text(r, true);
        out->text[out->texts++] = (attune_text_pair){.key = key, .value = keep_text(r, false)};
        if (r->json.error) break;
    }
    return scanned(r);
}

static attune_status read_entries(reader *r) {
    bool first = true;
    if (!at_json_enter(&r->json, '{')) return scanned(r);
    while (at_json_next(&r->json, '}', &first)) {
        char *name = keep_text(r, true);
        AT_TRY(scanned(r));
        if (strcmp(name, "__metadata__") == 0) {
            AT_TRY(read_texts(r));
            continue;
        }
        if (r->entries == MAX_TENSORS)
            return malformed(r, NULL, "expected at most 1000000 tensors");
        AT_TRY(grow((void **)&r->entry, r->entries, &r->room, (int64_t)sizeof *r->entry));
        entry *e = &r->entry[r->entries++];
        *e = (entry){.name = name};
        AT_TRY(read_fields(r, e));
        AT_TRY(check_bytes(r, e));
    }
    at_json_end(&r->json);
    return scanned(r);
}

/* ---- what must hold for all together --------------------------------------------------------- */

static int by_begin(const void *a, const void *b) {
    const entry *x = *(entry *const *)a, *y = *(entry *const *)b;
    return x->begin != y->begin ? (x->begin > y->begin) - (x->begin < y->begin)
                                : (x->end > y->end) - (x->end < y->end);
}

static int by_name(const void *a, const void *b) {
    return strcmp((*(entry *const *)a)->name, (*(entry *const *)b)->name);
}

static int by_key(const void *a, const void *b) {
    return strcmp((*(attune_text_pair *const *)a)->key, (*(attune_text_pair *const *)b)->key);
}

static attune_status check_cover(const reader *r, entry **sorted) {
    int64_t at = 0;
    if (r->entries) qsort(sorted, (size_t)r->entries, sizeof *sorted, by_begin);
    for (int64_t i = 0; i < r->entries; i++) {
        if (sorted[i]->begin < at)
            return malformed(r, sorted[i]->name, "its bytes overlap another tensor's");
        if (sorted[i]->begin > at)
            return malformed(r, sorted[i]->name, "the bytes before it belong to no tensor");
        at = sorted[i]->end;
    }
    if (at == r->data_bytes) return ATTUNE_OK;
    return malformed(r, NULL,
                     r->entries ? "the last bytes of the file belong to no tensor"
                                : "the header names no tensor");
}

/* sorted: room for a pointer to each entry. */
static attune_status check_entries(const reader *r, entry **sorted) {
    for (int64_t i = 0; i < r->entries; i++) sorted[i] = &r->entry[i];
    AT_TRY(check_cover(r, sorted));
    if (r->entries) qsort(sorted, (size_t)r->entries, sizeof *sorted, by_name);
    for (int64_t i = 1; i < r->entries; i++)
        if (strcmp(sorted[i - 1]->name, sorted[i]->name) == 0)
            return malformed(r, sorted[i]->name, "expected unique names, got a duplicate");
    return ATTUNE_OK;
}

static attune_status check_texts(const reader *r, attune_text_pair **sorted) {
    const int64_t n = r->out->texts;
    for (int64_t i = 0; i < n; i++) sorted[i] = &r->out->text[i];
    if (n) qsort(sorted, (size_t)n, sizeof *sorted, by_key);
    for (int64_t i = 1; i < n; i++)
        if (strcmp(sorted[i - 1]->key, sorted[i]->key) == 0)
            return malformed(r, NULL, "expected unique keys in __metadata__, got a duplicate");
    return ATTUNE_OK;
}

static attune_status check_all(const reader *r) {
    const int64_t longest = r->entries > r->out->texts ? r->entries : r->out->texts;
    void *pointers = at_alloc((longest + 1) * (int64_t)sizeof(void *));
    if (!pointers) return ATTUNE_EMEMORY;
    attune_status status = check_entries(r, pointers);
    if (status == ATTUNE_OK) status = check_texts(r, pointers);
    at_free(pointers);
    return status;
}

/* ---- the data -------------------------------------------------------------------------------- */

/* Widens n bytes at the end of a tensor of n 32-bit integers to these integers. Integer i is
 * written at byte 4 i, which is never beyond the bytes that are still to be read. */
static void widen_bytes(const attune_tensor *t, int64_t n) {
    const unsigned char *from = (const unsigned char *)t->data + 3 * n;
    for (int64_t i = 0; i < n; i++) {
        const int32_t x = from[i];
        memcpy((char *)t->data + 4 * i, &x, sizeof x);
    }
}

static attune_status read_tensor(const reader *r, const entry *e, attune_named_tensor *out) {
    *out = (attune_named_tensor){.name = e->name};
    if (e->type->dtype == ATTUNE_DTYPES) {
        out->unread = e->dtype;
        out->tensor.rank = e->rank;
        memcpy(out->tensor.shape, e->shape, sizeof e->shape);
        return ATTUNE_OK;
    }
    AT_TRY(at_tensor_new(e->type->dtype, e->rank, e->shape, &out->tensor));
    const int64_t n = e->end - e->begin;
    const bool u8 = e->type->dtype == ATTUNE_I32 && e->type->bits == 8;
    char *to = (char *)out->tensor.data + (u8 ? 3 * n : 0);
    AT_TRY(at_read_file(r->fd, r->path, r->data_begin + e->begin, to, n));
    if (u8) widen_bytes(&out->tensor, n);
    for (int64_t i = 0; i < n && strcmp(e->dtype, "BOOL") == 0; i++) to[i] = to[i] != 0;
    return ATTUNE_OK;
}

static attune_status read_data(reader *r) {
    attune_archive *out = r->out;
    if (r->entries == 0) return ATTUNE_OK;
    out->tensor = at_alloc_zeroed(r->entries * (int64_t)sizeof *out->tensor);
    if (!out->tensor) return ATTUNE_EMEMORY;
    for (int64_t i = 0; i < r->entries; i++) {
        out->tensors++;
        AT_TRY(read_tensor(r, &r->entry[i], &out->tensor[i]));
    }
    return ATTUNE_OK;
}

static attune_status read_header(reader *r, const char *header, int64_t length) {
    r->out->memory = at_alloc(length);
    if (!r->out->memory) return ATTUNE_EMEMORY;
    r->text = r->out->memory;
    at_json_start(&r->json, header, length);
    AT_TRY(read_entries(r));
    return check_all(r);
}

static attune_status read_file(reader *r, int64_t bytes) {
    unsigned char word[8];
    if (bytes < 8) return malformed(r, NULL, "expected a header, got fewer than 8 bytes");
    AT_TRY(at_read_file(r->fd, r->path, 0, word, 8));
    uint64_t length = 0;
    for (int i = 7; i >= 0; i--) length = length << 8 | word[i];
    if (length > MAX_HEADER)
        return at_fail(ATTUNE_EFORMAT, "%s: expected a header of at most %d bytes, got one of %llu",
                       r->path, MAX_HEADER, (unsigned long long)length);
    if ((int64_t)length > bytes - 8) return malformed(r, NULL, "the file ends inside the header");
    if (length < 2) return malformed(r, NULL, "expected a JSON header, got nothing");
    r->data_begin = 8 + (int64_t)length;
    r->data_bytes = bytes - r->data_begin;
    char *header = at_alloc((int64_t)length);
    if (!header) return ATTUNE_EMEMORY;
    attune_status status = at_read_file(r->fd, r->path, 8, header, (int64_t)length);
    if (status == ATTUNE_OK) status = read_header(r, header, (int64_t)length);
    at_free(header);
    return status == ATTUNE_OK ? read_data(r) : status;
}

attune_status attune_archive_load(const char *path, attune_archive *out) {
    int64_t bytes;
    memset(out, 0, sizeof *out);
    reader r = {.path = path, .out = out};
    AT_TRY(at_open_file(path, &r.fd, &bytes));
    attune_status status = read_file(&r, bytes);
    at_free(r.entry);
    close(r.fd);
    if (status != ATTUNE_OK) attune_archive_close(out);
    return status;
}
