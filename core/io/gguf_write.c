/* gguf_write.c - writing GGUF files (gguf.h), version 3. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/int_math.h"
#include "base/memory.h"
#include "base/numbers.h"
#include "base/status.h"
#include "io/gguf.h"
#include "io/whole_file.h"
#include "tensor/tensor.h"

enum { MAX_NAME = 63, Q8_0_VALUES = 32, Q8_0_BYTES = 34, PIECE = 1 << 16 };

/* From here on max |x| / 127 is infinite in f16. */
static const float Q8_0_LIMIT = 127.0f * 65520.0f;

/* The header, as it grows. */
typedef struct header {
    uint8_t *data;
    int64_t bytes, room;
} header;

static attune_status put(header *h, const void *data, int64_t bytes) {
    if (h->bytes + bytes > AT_MAX_HEADER)
        return at_fail(ATTUNE_EVALUE, "metadata: expected at most %d bytes", AT_MAX_HEADER);
    while (h->bytes + bytes > h->room)
        AT_TRY(at_grow((void **)&h->data, h->room, &h->room, 1)); /* doubles it */
    if (bytes) memcpy(h->data + h->bytes, data, (size_t)bytes);
    h->bytes += bytes;
    return ATTUNE_OK;
}

static attune_status put_number(header *h, uint64_t x, int bytes) {
    uint8_t little[8];
    for (int i = 0; i < bytes; i++) little[i] = (uint8_t)(x >> (8 * i));
    return put(h, little, bytes);
}

static attune_status put_text(header *h, const char *text, int64_t length) {
    AT_TRY(put_number(h, (uint64_t)length, 8));
    return put(h, text, length);
}

/* ---- metadata -------------------------------------------------------------------------------- */

static enum at_gguf_type integer_type(int64_t min, int64_t max) {
    if (min >= 0 && max <= UINT32_MAX) return AT_GGUF_U32;
    return min >= INT32_MIN && max <= INT32_MAX ? AT_GGUF_I32 : AT_GGUF_I64;
}

static bool is_f32(double x) { return isnan(x) || (double)(float)x == x; }

/* The type that holds all of n values of one kind. */
static attune_status type_of(const char *key, const attune_value *v, int64_t n,
                             enum at_gguf_type *out) {
    int64_t min = INT64_MAX, max = INT64_MIN;
    bool all_f32 = true;
    for (int64_t i = 0; i < n; i++) {
        if (v[i].kind != v->kind)
            return at_fail(ATTUNE_EVALUE,
                           "metadata: expected a list of values of one kind under '%.100s'", key);
        if (v[i].integer < min) min = v[i].integer;
        if (v[i].integer > max) max = v[i].integer;
        all_f32 = all_f32 && is_f32(v[i].number);
    }
    switch (v->kind) {
    case ATTUNE_TEXT: *out = AT_GGUF_TEXT; break;
    case ATTUNE_INTEGER: *out = integer_type(min, max); break;
    case ATTUNE_NUMBER: *out = all_f32 ? AT_GGUF_F32 : AT_GGUF_F64; break;
    case ATTUNE_BOOLEAN: *out = AT_GGUF_BOOL; break;
    case ATTUNE_LIST: *out = AT_GGUF_LIST; break;
    }
    return ATTUNE_OK;
}

static attune_status put_value(header *h, const char *key, const attune_value *v,
                               enum at_gguf_type type);

static attune_status put_list(header *h, const char *key, const attune_value *v) {
    enum at_gguf_type type = AT_GGUF_U32; /* of an empty list */
    if (v->count) AT_TRY(type_of(key, v->items, v->count, &type));
    if (type == AT_GGUF_LIST)
        return at_fail(ATTUNE_EVALUE,
                       "metadata: expected lists of texts, numbers or booleans under '%.100s', "
                       "got a list of lists",
                       key);
    AT_TRY(put_number(h, type, 4));
    AT_TRY(put_number(h, (uint64_t)v->count, 8));
    for (int64_t i = 0; i < v->count; i++) AT_TRY(put_value(h, key, &v->items[i], type));
    return ATTUNE_OK;
}

static attune_status put_value(header *h, const char *key, const attune_value *v,
                               enum at_gguf_type type) {
    uint64_t bits;
    switch (type) {
    case AT_GGUF_TEXT: return put_text(h, v->text, v->length);
    case AT_GGUF_LIST: return put_list(h, key, v);
    case AT_GGUF_F32: return put_number(h, at_bits_of_f32((float)v->number), 4);
    case AT_GGUF_F64: memcpy(&bits, &v->number, sizeof bits); return put_number(h, bits, 8);
    case AT_GGUF_BOOL: return put_number(h, v->integer != 0, 1);
    default: return put_number(h, (uint64_t)v->integer, type == AT_GGUF_I64 ? 8 : 4);
    }
}

static attune_status check_name(const char *what, const char *name, int64_t max) {
    const int64_t length = (int64_t)strlen(name);
    if (length == 0 || length > max || !at_is_name(name, length)) {
        return at_fail(ATTUNE_EVALUE,
                       "%s: expected names of 1 to %lld bytes of UTF-8, got '%.100s'", what,
                       (long long)max, name);
    }
    return ATTUNE_OK;
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* names [n], which are sorted here. */
static attune_status check_unique(const char *what, const char **names, int64_t n) {
    if (n) qsort(names, (size_t)n, sizeof *names, by_text);
    for (int64_t i = 1; i < n; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            return at_fail(ATTUNE_EVALUE, "%s: expected unique names, got '%.100s' twice", what,
                           names[i]);
    return ATTUNE_OK;
}

static attune_status check_names(const attune_gguf *g) {
    const int64_t most = g->tensors > g->texts ? g->tensors : g->texts;
    const char **names = at_alloc((most + 1) * (int64_t)sizeof *names);
    if (!names) return ATTUNE_EMEMORY;
    for (int64_t i = 0; i < g->tensors; i++) names[i] = g->tensor[i].name;
    attune_status status = check_unique("tensors", names, g->tensors);
    for (int64_t i = 0; i < g->texts; i++) names[i] = g->key[i];
    if (status == ATTUNE_OK) status = check_unique("metadata", names, g->texts);
    at_free(names);
    return status;
}

static attune_status put_pairs(header *h, const attune_gguf *g, int64_t *alignment) {
    for (int64_t i = 0; i < g->texts; i++) {
        enum at_gguf_type type = AT_GGUF_U32;
        const attune_value *v = &g->value[i];
        AT_TRY(check_name("metadata", g->key[i], 65535));
        AT_TRY(type_of(g->key[i], v, 1, &type));
        if (strcmp(g->key[i], "general.alignment") == 0) {
            const int64_t n = v->integer;
            if (type != AT_GGUF_U32)
                return at_fail(ATTUNE_EVALUE,
                               "general.alignment: expected an integer, a power of 2 up to %d",
                               AT_GGUF_MAX_ALIGNMENT);
            if (n < 1 || n > AT_GGUF_MAX_ALIGNMENT || (n & (n - 1)) != 0) {
                return at_fail(ATTUNE_EVALUE,
                               "general.alignment: expected a power of 2 up to %d, got %lld",
                               AT_GGUF_MAX_ALIGNMENT, (long long)n);
            }
            *alignment = n;
        }
        AT_TRY(put_text(h, g->key[i], (int64_t)strlen(g->key[i])));
        AT_TRY(put_number(h, type, 4));
        AT_TRY(put_value(h, g->key[i], v, type));
    }
    return ATTUNE_OK;
}

/* ---- tensors --------------------------------------------------------------------------------- */

static const at_format *format_of(const attune_gguf *g, int64_t i) {
    const at_format *f = at_formats;
    if (g->q8_0 && g->q8_0[i]) return at_format_named("Q8_0");
    while (f->name && f->dtype != g->tensor[i].tensor.dtype) f++;
    return f;
}

static attune_status put_tensor(header *h, const attune_gguf *g, int64_t i, int64_t *offset,
                                int64_t alignment) {
    const attune_named_tensor *t = &g->tensor[i];
    if (!t->tensor.data)
        return at_fail(ATTUNE_ECLOSED, "tensors: expected open tensors, got a closed one, '%.100s'",
                       t->name);
    AT_TRY(check_name("tensors", t->name, MAX_NAME));
    const at_format *format = format_of(g, i);
    const int rank = t->tensor.rank;
    if (rank > AT_GGUF_MAX_AXES)
        return at_fail(ATTUNE_EVALUE, "tensors: expected at most 4 axes for '%.100s', got %s",
                       t->name, at_shape_text(rank, t->tensor.shape));
    if (format->values > 1 && (rank == 0 || t->tensor.shape[rank - 1] % format->values ||
                               !at_is_float(t->tensor.dtype))) {
        return at_fail(ATTUNE_EVALUE,
                       "tensors: Q8_0: expected floats with a last axis of a multiple of 32 for "
                       "'%.100s', got %s of %s",
                       t->name, at_shape_text(rank, t->tensor.shape),
                       attune_dtype_name(t->tensor.dtype));
    }
    AT_TRY(put_text(h, t->name, (int64_t)strlen(t->name)));
    AT_TRY(put_number(h, (uint64_t)rank, 4));
    for (int d = rank - 1; d >= 0; d--) AT_TRY(put_number(h, (uint64_t)t->tensor.shape[d], 8));
    AT_TRY(put_number(h, (uint64_t)format->gguf, 4));
    AT_TRY(put_number(h, (uint64_t)*offset, 8));
    const int64_t bytes = attune_tensor_count(&t->tensor) / format->values * format->bytes;
    *offset = at_round_up(*offset + bytes, alignment);
    return ATTUNE_OK;
}

static attune_status put_zeros(const at_new_file *f, int64_t n) {
    static const char zeros[4096];
    for (; n > 0; n -= (int64_t)sizeof zeros)
        AT_TRY(at_write_file(f, zeros, n < (int64_t)sizeof zeros ? n : (int64_t)sizeof zeros));
    return ATTUNE_OK;
}

/* EVALUE where Q8_0 cannot hold one of n values: it has neither NaN nor infinities. */
static attune_status check_q8_0(const char *name, const float *values, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        if (!(fabsf(values[i]) < Q8_0_LIMIT))
            return at_fail(ATTUNE_EVALUE,
                           "tensors: Q8_0: expected values between -%.0f and %.0f in '%.100s', got "
                           "%g",
                           (double)Q8_0_LIMIT, (double)Q8_0_LIMIT, name, (double)values[i]);
    }
    return ATTUNE_OK;
}

/* t is contiguous. */
static attune_status write_q8_0(const at_new_file *f, const char *name, const attune_tensor *t) {
    float *values = at_alloc(PIECE * (int64_t)sizeof *values);
    uint8_t *blocks = values ? at_alloc(PIECE / Q8_0_VALUES * Q8_0_BYTES) : NULL;
    const int64_t count = attune_tensor_count(t);
    attune_status status = blocks ? ATTUNE_OK : ATTUNE_EMEMORY;
    for (int64_t at = 0; at < count && status == ATTUNE_OK; at += PIECE) {
        const int64_t n = count - at < PIECE ? count - at : PIECE;
        at_load_row(t, at, 1, n, values);
        status = check_q8_0(name, values, n);
        if (status != ATTUNE_OK) break;
        at_quantise_q8_0(values, n / Q8_0_VALUES, blocks);
        status = at_write_file(f, blocks, n / Q8_0_VALUES * Q8_0_BYTES);
    }
    at_free(values);
    at_free(blocks);
    return status;
}

static attune_status write_tensor(const at_new_file *f, const attune_gguf *g, int64_t i,
                                  int64_t alignment) {
    attune_tensor flat;
    const at_format *format = format_of(g, i);
    AT_TRY(attune_tensor_contiguous(&g->tensor[i].tensor, &flat));
    attune_status status = format->values > 1
                               ? write_q8_0(f, g->tensor[i].name, &flat)
                               : at_write_file(f, flat.data, attune_tensor_nbytes(&flat));
    const int64_t bytes = attune_tensor_count(&flat) / format->values * format->bytes;
    attune_tensor_close(&flat);
    AT_TRY(status);
    return put_zeros(f, at_round_up(bytes, alignment) - bytes);
}

static attune_status make_header(header *h, const attune_gguf *g, int64_t *alignment) {
    int64_t offset = 0;
    AT_TRY(check_names(g));
    AT_TRY(put(h, "GGUF", 4));
    AT_TRY(put_number(h, 3, 4));
    AT_TRY(put_number(h, (uint64_t)g->tensors, 8));
    AT_TRY(put_number(h, (uint64_t)g->texts, 8));
    AT_TRY(put_pairs(h, g, alignment));
    for (int64_t i = 0; i < g->tensors; i++) AT_TRY(put_tensor(h, g, i, &offset, *alignment));
    return ATTUNE_OK;
}

static attune_status write_all(const at_new_file *f, const header *h, const attune_gguf *g,
                               int64_t alignment) {
    AT_TRY(at_write_file(f, h->data, h->bytes));
    AT_TRY(put_zeros(f, at_round_up(h->bytes, alignment) - h->bytes));
    for (int64_t i = 0; i < g->tensors; i++) AT_TRY(write_tensor(f, g, i, alignment));
    return ATTUNE_OK;
}

attune_status attune_gguf_save(const char *path, const attune_gguf *contents) {
    header h = {0};
    int64_t alignment = AT_GGUF_ALIGNMENT;
    AT_TRY(attune_init());
    attune_status status = make_header(&h, contents, &alignment);
    if (status == ATTUNE_OK) {
        at_new_file file;
        status = at_begin_file(path, &file);
        if (status == ATTUNE_OK) status = write_all(&file, &h, contents, alignment);
        status = at_end_file(&file, status);
    }
    at_free(h.data);
    return status;
}
