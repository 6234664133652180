/* tensor_file.c - the one reader of tensor files: opening, the checks that all formats share, and
 * reading tensors. */
#include "io/tensor_file.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/int_math.h"
#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"
#include "io/shards.h"
#include "io/whole_file.h"
#include "quant/weight.h"
#include "tensor/tensor.h"

/* ---- what the parsers share ------------------------------------------------------------------ */

attune_status at_malformed(const at_part *part, const char *name, const char *what) {
    return name ? at_fail(ATTUNE_EFORMAT, "%s: tensor '%.100s': %s", part->path, name, what)
                : at_fail(ATTUNE_EFORMAT, "%s: %s", part->path, what);
}

attune_status at_add_entry(attune_file *f, const at_part *part, at_entry **out) {
    if (f->entries == AT_MAX_TENSORS)
        return at_malformed(part, NULL, "expected at most 1000000 tensors");
    AT_TRY(at_grow((void **)&f->entry, f->entries, &f->entry_room, (int64_t)sizeof *f->entry));
    *out = &f->entry[f->entries++];
    **out = (at_entry){.part = (int)(part - f->part)};
    return ATTUNE_OK;
}

attune_status at_add_text(attune_file *f, const at_part *part, const char *key, const void *value) {
    if (f->texts == AT_MAX_TEXTS)
        return at_malformed(part, NULL, "expected at most 1000000 texts of metadata");
    AT_TRY(at_grow((void **)&f->text, f->texts, &f->text_room, (int64_t)sizeof *f->text));
    f->text[f->texts++] = (at_text){.key = key, .value = value};
    return ATTUNE_OK;
}

attune_status at_check_size(const at_part *part, at_entry *e, bool end_given) {
    int64_t count = 1;
    for (int i = 0; i < e->rank; i++) count = at_checked_mul(count, e->shape[i]);
    const int64_t bytes = at_checked_mul(count / e->format->values, e->format->bytes);
    if (count < 0 || bytes < 0) return at_malformed(part, e->name, "its shape overflows");
    /* Blocks hold neighbours of the last axis, small floats of safetensors those of all axes. */
    if (e->format->safetensors && count % e->format->values)
        return at_malformed(part, e->name, "its elements do not fill whole bytes");
    if (!e->format->safetensors && e->format->values > 1 &&
        (e->rank == 0 || e->shape[e->rank - 1] % e->format->values)) {
        return at_fail(ATTUNE_EFORMAT,
                       "%s: tensor '%.100s': expected a last axis of a multiple of %d for %s, got "
                       "%s",
                       part->path, e->name, e->format->values, e->type,
                       at_shape_text(e->rank, e->shape));
    }
    if (!end_given) {
        e->end = at_checked_add(e->begin, bytes);
        if (e->end < 0) return at_malformed(part, e->name, "its offset overflows");
    } else if (e->format->bytes && e->end - e->begin != bytes) {
        return at_fail(ATTUNE_EFORMAT,
                       "%s: tensor '%.100s': expected %lld bytes for %s %s, got %lld", part->path,
                       e->name, (long long)bytes, e->type, at_shape_text(e->rank, e->shape),
                       (long long)(e->end - e->begin));
    }
    return ATTUNE_OK;
}

static int by_begin(const void *a, const void *b) {
    const at_entry *x = *(at_entry *const *)a, *y = *(at_entry *const *)b;
    return x->begin != y->begin ? (x->begin > y->begin) - (x->begin < y->begin)
                                : (x->end > y->end) - (x->end < y->end);
}

static attune_status check_sorted(at_entry *const *sorted, int64_t n, const at_part *part,
                                  int64_t begin, int64_t end, int64_t alignment) {
    int64_t at = begin;
    for (int64_t i = 0; i < n; i++) {
        const int64_t expected = begin + at_round_up(at - begin, alignment);
        if (sorted[i]->begin < expected)
            return at_malformed(part, sorted[i]->name, "its bytes overlap another tensor's");
        if (sorted[i]->begin > expected)
            return at_malformed(part, sorted[i]->name, "the bytes before it belong to no tensor");
        if (sorted[i]->end > end)
            return at_malformed(part, sorted[i]->name, "the file ends inside its data");
        at = sorted[i]->end;
    }
    /* The last tensor need not be padded. */
    if (at <= end && end <= begin + at_round_up(at - begin, alignment)) return ATTUNE_OK;
    return at_malformed(part, NULL,
                        n ? "the last bytes of the file belong to no tensor"
                          : "the header names no tensor");
}

attune_status at_check_cover(const attune_file *f, int64_t first, int part, int64_t begin,
                             int64_t end, int64_t alignment) {
    const int64_t n = f->entries - first;
    at_entry **sorted = at_alloc((n + 1) * (int64_t)sizeof(void *));
    if (!sorted) return ATTUNE_EMEMORY;
    for (int64_t i = 0; i < n; i++) sorted[i] = &f->entry[first + i];
    if (n) qsort(sorted, (size_t)n, sizeof *sorted, by_begin);
    const attune_status status = check_sorted(sorted, n, &f->part[part], begin, end, alignment);
    at_free(sorted);
    return status;
}

/* ---- what must hold for all together --------------------------------------------------------- */

static int by_name(const void *a, const void *b) {
    return strcmp((*(at_entry *const *)a)->name, (*(at_entry *const *)b)->name);
}

static int by_key(const void *a, const void *b) {
    return strcmp((*(at_text *const *)a)->key, (*(at_text *const *)b)->key);
}

static attune_status check_names(attune_file *f) {
    f->by_name = at_alloc((f->entries + 1) * (int64_t)sizeof *f->by_name);
    if (!f->by_name) return ATTUNE_EMEMORY;
    for (int64_t i = 0; i < f->entries; i++) f->by_name[i] = &f->entry[i];
    if (f->entries) qsort(f->by_name, (size_t)f->entries, sizeof *f->by_name, by_name);
    for (int64_t i = 1; i < f->entries; i++) {
        const at_entry *e = f->by_name[i];
        if (strcmp(f->by_name[i - 1]->name, e->name) == 0)
            return at_malformed(&f->part[e->part], e->name,
                                "expected unique names, got a duplicate");
    }
    return ATTUNE_OK;
}

static attune_status check_keys(const attune_file *f) {
    const at_text **sorted = at_alloc((f->texts + 1) * (int64_t)sizeof *sorted);
    if (!sorted) return ATTUNE_EMEMORY;
    for (int64_t i = 0; i < f->texts; i++) sorted[i] = &f->text[i];
    if (f->texts) qsort(sorted, (size_t)f->texts, sizeof *sorted, by_key);
    attune_status status = ATTUNE_OK;
    for (int64_t i = 1; i < f->texts && status == ATTUNE_OK; i++) {
        if (strcmp(sorted[i - 1]->key, sorted[i]->key) == 0)
            status = at_fail(ATTUNE_EFORMAT,
                             "%s: expected unique keys of metadata, got a duplicate, '%.100s'",
                             f->part[0].path, sorted[i]->key);
    }
    at_free(sorted);
    return status;
}

/* ---- opening and closing --------------------------------------------------------------------- */

attune_status at_add_part(attune_file *f, const char *path) {
    const int64_t length = (int64_t)strlen(path) + 1;
    AT_TRY(at_grow((void **)&f->part, f->parts, &f->part_room, (int64_t)sizeof *f->part));
    at_part *part = &f->part[f->parts];
    *part = (at_part){.path = at_alloc(length), .fd = -1};
    if (!part->path) return ATTUNE_EMEMORY;
    memcpy(part->path, path, (size_t)length);
    f->parts++;
    return at_open_file(part->path, &part->fd, &part->bytes);
}

static attune_status read_headers(attune_file *f) {
    static const char suffix[] = ".index.json";
    const at_part *part = &f->part[0];
    const size_t length = strlen(part->path), n = sizeof suffix - 1;
    char magic[4] = "";
    if (part->bytes >= 4) AT_TRY(at_read_file(part->fd, part->path, 0, magic, 4));
    if (memcmp(magic, "GGUF", 4) == 0) return at_parse_gguf(f, 0);
    if (length > n && strcmp(part->path + length - n, suffix) == 0) return at_parse_shards(f);
    return at_parse_safetensors(f, 0);
}

/* The bytes of all matrices that can be weights. */
static int64_t bytes_of_weights(const attune_file *f) {
    int64_t sum = 0;
    for (int64_t i = 0; i < f->entries; i++) {
        const at_entry *e = &f->entry[i];
        if (e->rank == 2 && at_is_float(e->format->dtype)) sum += e->end - e->begin;
    }
    return sum;
}

attune_status attune_file_open(const char *path, attune_file **out) {
    *out = NULL;
    attune_file *f = at_alloc_zeroed((int64_t)sizeof *f);
    if (!f) return ATTUNE_EMEMORY;
    attune_status status = at_add_part(f, path);
    if (status == ATTUNE_OK) status = read_headers(f);
    if (status == ATTUNE_OK) status = check_names(f);
    if (status == ATTUNE_OK) status = check_keys(f);
    if (status != ATTUNE_OK) {
        attune_file_close(f);
        return status;
    }
    f->weights.left = bytes_of_weights(f);
    *out = f;
    return ATTUNE_OK;
}

static void close_parts(attune_file *f) {
    for (int64_t i = 0; i < f->parts; i++) {
        if (f->part[i].fd >= 0) close(f->part[i].fd);
        f->part[i].fd = -1;
    }
}

void attune_file_close(attune_file *f) {
    if (!f) return;
    close_parts(f);
    for (int64_t i = 0; i < f->parts; i++) {
        at_free(f->part[i].path);
        at_free(f->part[i].memory);
    }
    at_free(f->part);
    at_free(f->entry);
    at_free(f->text);
    at_free(f->by_name);
    at_slab_release(f->weights.slab);
    at_free(f);
}

/* ---- what is there --------------------------------------------------------------------------- */

int64_t attune_file_tensors(const attune_file *f) { return f->entries; }

attune_stored attune_file_tensor(const attune_file *f, int64_t i) {
    const at_entry *e = &f->entry[i];
    attune_stored out = {.name = e->name,
                         .format = e->type,
                         .dtype = e->format->dtype,
                         .rank = e->rank,
                         .bytes = e->end - e->begin};
    memcpy(out.shape, e->shape, sizeof e->shape);
    return out;
}

int64_t attune_file_find(const attune_file *f, const char *name) {
    int64_t first = 0, last = f->entries;
    while (first < last) {
        const int64_t middle = first + (last - first) / 2;
        const int order = strcmp(f->by_name[middle]->name, name);
        if (order == 0) return f->by_name[middle] - f->entry;
        if (order < 0)
            first = middle + 1;
        else
            last = middle;
    }
    return -1;
}

int64_t attune_file_texts(const attune_file *f) { return f->texts; }

const char *attune_file_text(const attune_file *f, int64_t i, attune_value *value) {
    const at_text *t = &f->text[i];
    if (f->is_gguf) {
        at_gguf_value(t->value, value);
    } else {
        const char *text = t->value;
        *value = (attune_value){.kind = ATTUNE_TEXT, .text = text, .length = (int64_t)strlen(text)};
    }
    return t->key;
}

/* ---- reading a tensor ------------------------------------------------------------------------ */

/* A tensor is read in pieces of about this many elements, a multiple of every block. */
enum { PIECE = 1 << 16 };

typedef struct read_job {
    const at_part *part;
    const at_entry *entry;
    const attune_tensor *out;
    int64_t count;
} read_job;

/* Bytes of elements, which are plain numbers, to f32. */
static void widen(const at_format *format, void *bytes, int64_t n, float *out) {
    attune_tensor t;
    const int64_t shape = n;
    if (attune_tensor_wrap(format->dtype, 1, &shape, NULL, bytes, &t) == ATTUNE_OK)
        at_load_row(&t, 0, 1, n, out);
}

static attune_status convert_piece(void *context, int64_t task, int thread) {
    const read_job *j = context;
    const at_format *format = j->entry->format;
    (void)thread;
    const int64_t first = task * PIECE, n = j->count - first < PIECE ? j->count - first : PIECE;
    const int64_t bytes = n / format->values * format->bytes;
    uint8_t *stored = at_alloc(bytes);
    float *values = stored ? at_alloc(n * (int64_t)sizeof *values) : NULL;
    attune_status status = ATTUNE_EMEMORY;
    if (values) {
        status =
            at_read_file(j->part->fd, j->part->path,
                         j->entry->begin + first / format->values * format->bytes, stored, bytes);
    }
    if (status == ATTUNE_OK) {
        if (format->to_f32)
            format->to_f32(stored, n / format->values, values);
        else
            widen(format, stored, n, values);
        at_store_row(j->out, first, 1, n, values);
    }
    at_free(values);
    at_free(stored);
    return status;
}

/* Widens n bytes at the end of a tensor of n 32-bit integers to these integers. Integer i is
 * written at byte 4 i, which is never beyond the bytes that are still to be read. */
static void widen_bytes(const attune_tensor *t, int64_t n) {
    const unsigned char *from = (const unsigned char *)t->data + 3 * n;
    for (int64_t i = 0; i < n; i++) {
        const int32_t x = from[i];
        memcpy((char *)t->data + 4 * i, &x, sizeof x);
    }
}

static attune_status read_plain(const at_part *part, const at_entry *e, const attune_tensor *out) {
    const int64_t n = e->end - e->begin;
    const bool u8 = strcmp(e->type, "U8") == 0;
    char *to = (char *)out->data + (u8 ? 3 * n : 0);
    AT_TRY(at_read_file(part->fd, part->path, e->begin, to, n));
    if (u8) widen_bytes(out, n);
    for (int64_t i = 0; i < n && strcmp(e->type, "BOOL") == 0; i++) to[i] = to[i] != 0;
    return ATTUNE_OK;
}

static attune_status read_into(const attune_file *f, const at_entry *e, const attune_tensor *out) {
    const at_part *part = &f->part[e->part];
    if (!e->format->to_f32 && out->dtype == e->format->dtype) return read_plain(part, e, out);
    if (e->format->dtype == ATTUNE_F64 || out->dtype == ATTUNE_F64) {
        /* The double that a float's conversion gives is made by the tensor library. */
        attune_tensor stored, into = *out;
        AT_TRY(attune_file_read(f, e - f->entry, ATTUNE_DTYPES, &stored));
        const attune_status status = attune_tensor_copy(&stored, &into);
        attune_tensor_close(&stored);
        return status;
    }
    read_job j = {.part = part, .entry = e, .out = out, .count = attune_tensor_count(out)};
    return at_parallel(at_ceil_div(j.count, PIECE), convert_piece, &j);
}

attune_status attune_file_read(const attune_file *f, int64_t i, attune_dtype dtype,
                               attune_tensor *out) {
    memset(out, 0, sizeof *out);
    if (i < 0 || i >= f->entries)
        return at_fail(ATTUNE_EVALUE, "tensor: expected a number below %lld, got " AT_INDEX,
                       (long long)f->entries, (long long)i);
    const at_entry *e = &f->entry[i];
    if (e->format->dtype == ATTUNE_DTYPES) {
        return at_fail(ATTUNE_EDTYPE,
                       "tensor '%.100s': dtype %s cannot be read; expected F32, F64, BF16, F16, "
                       "I8, I32, I64, BOOL, U8, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K or Q6_K",
                       e->name, e->type);
    }
    if (dtype == ATTUNE_DTYPES) dtype = e->format->dtype;
    if (dtype != e->format->dtype && !(at_is_float(dtype) && at_is_float(e->format->dtype))) {
        return at_fail(ATTUNE_EDTYPE, "tensor '%.100s': dtype %s cannot be read as %s", e->name,
                       e->type, attune_dtype_name(dtype));
    }
    AT_TRY(attune_init());
    AT_TRY(at_tensor_new(dtype, e->rank, e->shape, out));
    const attune_status status = read_into(f, e, out);
    if (status != ATTUNE_OK) attune_tensor_close(out);
    return status;
}

/* The bytes of a plain weight, of which each task reads a piece: copies of the system's pages take
 * as long as the memory does, and one thread does not use all of it. */
typedef struct copy_job {
    const at_part *part;
    char *to;
    int64_t begin, bytes;
} copy_job;

enum { COPY_BYTES = 1 << 17 };

static attune_status copy_piece(void *context, int64_t task, int thread) {
    const copy_job *j = context;
    const int64_t at = task * COPY_BYTES, left = j->bytes - at;
    (void)thread;
    return at_read_file(j->part->fd, j->part->path, j->begin + at, j->to + at,
                        left < COPY_BYTES ? left : COPY_BYTES);
}

typedef struct rows_of {
    const at_part *part;
    int64_t begin, row_bytes;
} rows_of;

static attune_status read_rows(const void *context, int64_t first, int64_t count, void *to) {
    const rows_of *r = context;
    return at_read_file(r->part->fd, r->part->path, r->begin + first * r->row_bytes, to,
                        count * r->row_bytes);
}

attune_status attune_weight_read(attune_file *f, int64_t i, attune_compute compute,
                                 attune_weight **out) {
    *out = NULL;
    if (i < 0 || i >= f->entries)
        return at_fail(ATTUNE_EVALUE, "tensor: expected a number below %lld, got " AT_INDEX,
                       (long long)f->entries, (long long)i);
    const at_entry *e = &f->entry[i];
    if (e->rank != 2)
        return at_fail(ATTUNE_ESHAPE, "tensor '%.100s': expected [outputs, inputs], got %s",
                       e->name, at_shape_text(e->rank, e->shape));
    if (!at_is_float(e->format->dtype) || e->format->dtype == ATTUNE_F64)
        return at_fail(ATTUNE_EDTYPE, "tensor '%.100s': expected weights, got %s", e->name,
                       e->type);
    AT_TRY(attune_init());
    const at_part *part = &f->part[e->part];
    if (e->format->to_f32 && e->end > e->begin) {
        const rows_of r = {part, e->begin, (e->end - e->begin) / e->shape[0]};
        return at_weight_new_packed(e->format, e->shape[0], e->shape[1], compute, read_rows, &r,
                                    &f->weights, out);
    }
    void *bytes;
    AT_TRY(at_weight_new(e->format, e->shape[0], e->shape[1], &f->weights, out, &bytes));
    copy_job j = {.part = part, .to = bytes, .begin = e->begin, .bytes = e->end - e->begin};
    const attune_status status =
        at_parallel_ranges(at_ceil_div(j.bytes, COPY_BYTES), copy_piece, &j);
    if (status != ATTUNE_OK) {
        attune_weight_close(*out);
        *out = NULL;
    }
    return status;
}

/* ---- whole files ----------------------------------------------------------------------------- */

void attune_archive_close(attune_archive *a) {
    for (int64_t i = 0; i < a->tensors; i++) attune_tensor_close(&a->tensor[i].tensor);
    at_free(a->tensor);
    at_free(a->text);
    attune_file_close(a->memory);
    memset(a, 0, sizeof *a);
}

static attune_status load_tensor(const attune_file *f, int64_t i, attune_named_tensor *out) {
    const at_entry *e = &f->entry[i];
    *out = (attune_named_tensor){.name = (char *)e->name};
    if (e->format->dtype != ATTUNE_DTYPES)
        return attune_file_read(f, i, ATTUNE_DTYPES, &out->tensor);
    out->unread = e->type;
    out->tensor.rank = e->rank;
    memcpy(out->tensor.shape, e->shape, sizeof e->shape);
    return ATTUNE_OK;
}

/* The texts that end with a NUL in the file: those of safetensors. */
static attune_status load_texts(const attune_file *f, attune_archive *out) {
    if (f->is_gguf || f->texts == 0) return ATTUNE_OK;
    out->text = at_alloc(f->texts * (int64_t)sizeof *out->text);
    if (!out->text) return ATTUNE_EMEMORY;
    out->texts = f->texts;
    for (int64_t i = 0; i < f->texts; i++)
        out->text[i] =
            (attune_text_pair){.key = (char *)f->text[i].key, .value = (char *)f->text[i].value};
    return ATTUNE_OK;
}

static attune_status load_all(const attune_file *f, attune_archive *out) {
    AT_TRY(load_texts(f, out));
    if (f->entries == 0) return ATTUNE_OK;
    out->tensor = at_alloc_zeroed(f->entries * (int64_t)sizeof *out->tensor);
    if (!out->tensor) return ATTUNE_EMEMORY;
    for (int64_t i = 0; i < f->entries; i++) {
        out->tensors++;
        AT_TRY(load_tensor(f, i, &out->tensor[i]));
    }
    return ATTUNE_OK;
}

attune_status attune_archive_load(const char *path, attune_archive *out) {
    attune_file *f;
    memset(out, 0, sizeof *out);
    AT_TRY(attune_file_open(path, &f));
    out->memory = f;
    const attune_status status = load_all(f, out);
    close_parts(f);
    if (status != ATTUNE_OK) attune_archive_close(out);
    return status;
}
