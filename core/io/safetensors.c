/* safetensors.c - the header of safetensors files: 8 bytes of length, JSON, then the data.
 *
 * The header is scanned without a tree in memory, and all of it is checked before the first tensor
 * is allocated. Memory: the header, as much again for its texts, and a record per tensor.
 */
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "io/json_scan.h"
#include "io/tensor_file.h"
#include "io/whole_file.h"

typedef struct reader {
    attune_file *f;
    const at_part *part;
    int64_t data_begin, data_bytes; /* the data: its offset in the file and its length */
    at_json json;
    char *text; /* where the next text goes, in the part's memory */
    bool has_texts;
} reader;

/* The error of the scanner, if it has one. */
static attune_status scanned(const reader *r) {
    if (!r->json.error) return ATTUNE_OK;
    return at_fail(ATTUNE_EFORMAT, "%s: the header is not valid JSON: %s (byte %lld)",
                   r->part->path, r->json.error, (long long)(r->json.at - r->json.begin));
}

/* The next text of the header, which stays in the part's memory. */
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

/* ---- the header ------------------------------------------------------------------------------ */

enum { DTYPE = 1, SHAPE = 2, OFFSETS = 4 };

/* The same in a field of a tensor, whose text may be valid JSON of another kind. */
static attune_status scanned_field(const reader *r, const at_entry *e, const char *field) {
    if (!r->json.error) return ATTUNE_OK;
    return at_fail(ATTUNE_EFORMAT, "%s: tensor '%.100s': %s: %s (byte %lld of the header)",
                   r->part->path, e->name, field, r->json.error,
                   (long long)(r->json.at - r->json.begin));
}

static attune_status read_dtype(reader *r, at_entry *e) {
    e->type = keep_text(r, false);
    AT_TRY(scanned_field(r, e, "dtype"));
    if (strlen(e->type) > 16 || !*e->type ||
        e->type[strspn(e->type, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789")])
        return at_fail(ATTUNE_EFORMAT,
                       "%s: tensor '%.100s': expected a dtype such as F32, got '%.32s'",
                       r->part->path, e->name, e->type);
    e->format = at_format_named(e->type);
    if (!e->format->safetensors) e->format = at_format_named("");
    return ATTUNE_OK;
}

static attune_status read_shape(reader *r, at_entry *e) {
    bool first = true;
    if (!at_json_enter(&r->json, '[')) return scanned_field(r, e, "shape");
    while (at_json_next(&r->json, ']', &first)) {
        int64_t n;
        if (e->rank == ATTUNE_MAX_RANK)
            return at_malformed(r->part, e->name, "expected a shape of at most 6 axes");
        if (!at_json_natural(&r->json, &n)) break;
        if (n < 1)
            return at_malformed(r->part, e->name, "expected a shape of integers of at least 1");
        e->shape[e->rank++] = n;
    }
    return scanned_field(r, e, "shape");
}

static attune_status read_offsets(reader *r, at_entry *e) {
    int64_t *const offsets[2] = {&e->begin, &e->end};
    bool first = true;
    int n = 0;
    if (!at_json_enter(&r->json, '[')) return scanned_field(r, e, "data_offsets");
    while (at_json_next(&r->json, ']', &first)) {
        if (n == 2) return at_malformed(r->part, e->name, "expected data_offsets of two integers");
        if (!at_json_natural(&r->json, offsets[n++])) break;
    }
    AT_TRY(scanned_field(r, e, "data_offsets"));
    return n == 2 ? ATTUNE_OK
                  : at_malformed(r->part, e->name, "expected data_offsets of two integers");
}

/* Fields that the format does not name are skipped. */
static attune_status read_fields(reader *r, at_entry *e) {
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
        if (found & field) return at_malformed(r->part, e->name, "a field is there twice");
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
               : at_malformed(r->part, e->name, "expected dtype, shape and data_offsets");
}

/* The offsets in the data become offsets in the file. */
static attune_status check_bytes(const reader *r, at_entry *e) {
    if (e->end < e->begin || e->end > r->data_bytes) {
        return at_fail(ATTUNE_EFORMAT,
                       "%s: tensor '%.100s': expected data_offsets within the %lld bytes of data, "
                       "got %lld and %lld",
                       r->part->path, e->name, (long long)r->data_bytes, (long long)e->begin,
                       (long long)e->end);
    }
    AT_TRY(at_check_size(r->part, e, true));
    e->begin += r->data_begin;
    e->end += r->data_begin;
    return ATTUNE_OK;
}

static attune_status read_texts(reader *r) {
    bool first = true;
    if (r->has_texts)
        return at_malformed(r->part, NULL, "expected unique names, got __metadata__ twice");
    r->has_texts = true;
    if (!at_json_enter(&r->json, '{')) return scanned(r);
    while (at_json_next(&r->json, '}', &first)) {
        const char *key = keep_text(r, true);
        AT_TRY(scanned(r));
        const char *value = keep_text(r, false);
        if (r->json.error) {
            return at_fail(
                ATTUNE_EFORMAT, "%s: metadata: %s under '%.100s' (byte %lld of the header)",
                r->part->path, r->json.error, key, (long long)(r->json.at - r->json.begin));
        }
        AT_TRY(at_add_text(r->f, r->part, key, value));
    }
    return scanned(r);
}

static attune_status read_entries(reader *r) {
    bool first = true;
    if (!at_json_enter(&r->json, '{')) return scanned(r);
    while (at_json_next(&r->json, '}', &first)) {
        const char *name = keep_text(r, true);
        AT_TRY(scanned(r));
        if (strcmp(name, "__metadata__") == 0) {
            AT_TRY(read_texts(r));
            continue;
        }
        at_entry *e;
        AT_TRY(at_add_entry(r->f, r->part, &e));
        e->name = name;
        AT_TRY(read_fields(r, e));
        AT_TRY(check_bytes(r, e));
    }
    at_json_end(&r->json);
    return scanned(r);
}

static attune_status read_header(reader *r, const char *header, int64_t length) {
    const int part = (int)(r->part - r->f->part);
    const int64_t before = r->f->entries;
    r->f->part[part].memory = at_alloc(length);
    r->text = r->f->part[part].memory;
    if (!r->text) return ATTUNE_EMEMORY;
    at_json_start(&r->json, header, length);
    AT_TRY(read_entries(r));
    return at_check_cover(r->f, before, part, r->data_begin, r->part->bytes, 1);
}

/* ---- what is no safetensors file ------------------------------------------------------------- */

enum { FIRST_BYTES = 32 };

/* Whether all bytes are printable ASCII or white space: no length of a header is. */
static bool is_text(const unsigned char *first, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (first[i] >= 127 || (first[i] < 32 && (first[i] < '\t' || first[i] > '\r')))
            return false;
    return n > 0;
}

/* What a file looks like, from its first n bytes; NULL: nothing that is known. */
static const char *looks_like(const unsigned char *first, int64_t n) {
    static const struct {
        const char *magic, *what;
    } known[] = {
        {"version https://git-lfs", "a Git LFS pointer (git lfs pull fetches the file)"},
        {"<", "HTML or XML"},
        {"{", "JSON"},
        {"PK\3\4", "a ZIP archive, such as a PyTorch checkpoint or an .npz file"},
        {"\x80\2", "a Python pickle, such as an old PyTorch checkpoint"},
        {"\x80\4", "a Python pickle"},
        {"\x93NUMPY", "a NumPy array"},
        {"\x89HDF", "HDF5"},
        {"\x1f\x8b", "gzip"},
        {"ggjt", "a GGML file older than GGUF"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const int64_t length = (int64_t)strlen(known[i].magic);
        if (n >= length && memcmp(first, known[i].magic, (size_t)length) == 0) return known[i].what;
    }
    return is_text(first, n) ? "text" : NULL;
}

/* The error for a file whose first 8 bytes are no length of a header. */
static attune_status refuse_file(const at_part *part, uint64_t length) {
    unsigned char first[FIRST_BYTES] = "";
    const int64_t n = part->bytes < FIRST_BYTES ? part->bytes : FIRST_BYTES;
    if (n > 0) AT_TRY(at_read_file(part->fd, part->path, 0, first, n));
    const char *what = looks_like(first, n);
    if (what)
        return at_fail(ATTUNE_EFORMAT,
                       "%s: expected a safetensors or GGUF file, got what looks like %s",
                       part->path, what);
    if (n < 8)
        return at_fail(ATTUNE_EFORMAT,
                       "%s: expected a safetensors or GGUF file with a header, got %lld bytes",
                       part->path, (long long)n);
    return at_fail(ATTUNE_EFORMAT,
                   "%s: expected a safetensors or GGUF file; as safetensors it would have a header "
                   "of %llu bytes, and at most %d are accepted",
                   part->path, (unsigned long long)length, AT_MAX_HEADER);
}

attune_status at_parse_safetensors(attune_file *f, int part) {
    unsigned char word[8];
    reader r = {.f = f, .part = &f->part[part]};
    const int64_t bytes = r.part->bytes;
    if (bytes < 8) return refuse_file(r.part, 0);
    AT_TRY(at_read_file(r.part->fd, r.part->path, 0, word, 8));
    uint64_t length = 0;
    for (int i = 7; i >= 0; i--) length = length << 8 | word[i];
    if (length > AT_MAX_HEADER) return refuse_file(r.part, length);
    if ((int64_t)length > bytes - 8)
        return at_malformed(r.part, NULL, "the file ends inside the header");
    if (length < 2) return at_malformed(r.part, NULL, "expected a JSON header, got nothing");
    r.data_begin = 8 + (int64_t)length;
    r.data_bytes = bytes - r.data_begin;
    char *header = at_alloc((int64_t)length);
    if (!header) return ATTUNE_EMEMORY;
    attune_status status = at_read_file(r.part->fd, r.part->path, 8, header, (int64_t)length);
    if (status == ATTUNE_OK) status = read_header(&r, header, (int64_t)length);
    at_free(header);
    return status;
}
