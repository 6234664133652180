/* gguf.c - the header of GGUF files (gguf.h).
 *
 * The header has no length: it is read in growing pieces as far as it goes, at most AT_MAX_HEADER
 * bytes, so that a number that a hostile file claims allocates nothing. While it is read, names are
 * offsets in the buffer; they become texts, with a NUL, when the buffer no longer moves.
 */
#include "io/gguf.h"

#include <string.h>

#include "base/int_math.h"
#include "base/memory.h"
#include "base/numbers.h"
#include "base/status.h"
#include "io/json_scan.h"
#include "io/whole_file.h"

enum { FIRST_PIECE = 1 << 16, MAX_DEPTH = 4, MAX_KEY = 65535 };

static const char cut[] = "the file ends inside the header";

typedef struct reader {
    attune_file *f;
    const at_part *part;
    unsigned char *data;
    int64_t have, at; /* bytes that were read, and that were consumed */
    uint32_t alignment;
} reader;

static attune_status malformed(const reader *r, const char *what) {
    return at_malformed(r->part, NULL, what);
}

static uint64_t number_at(const unsigned char *p, int bytes) {
    uint64_t x = 0;
    for (int i = bytes - 1; i >= 0; i--) x = x << 8 | p[i];
    return x;
}

/* ---- the buffer ------------------------------------------------------------------------------ */

/* Makes the next n bytes available at r->data + r->at. */
static attune_status need(reader *r, uint64_t n) {
    if (n > (uint64_t)(r->part->bytes - r->at)) return malformed(r, cut);
    const int64_t wanted = r->at + (int64_t)n;
    if (wanted <= r->have) return ATTUNE_OK;
    if (wanted > AT_MAX_HEADER) return malformed(r, "expected metadata of at most 100000000 bytes");
    int64_t room = r->have ? 2 * r->have : FIRST_PIECE;
    if (room < wanted) room = wanted;
    if (room > AT_MAX_HEADER) room = AT_MAX_HEADER;
    if (room > r->part->bytes) room = r->part->bytes;
    unsigned char *larger = at_alloc(room);
    if (!larger) return ATTUNE_EMEMORY;
    if (r->have) memcpy(larger, r->data, (size_t)r->have);
    at_free(r->data);
    r->data = larger;
    AT_TRY(at_read_file(r->part->fd, r->part->path, r->have, larger + r->have, room - r->have));
    r->have = room;
    return ATTUNE_OK;
}

static attune_status take(reader *r, int bytes, uint64_t *out) {
    AT_TRY(need(r, (uint64_t)bytes));
    *out = number_at(r->data + r->at, bytes);
    r->at += bytes;
    return ATTUNE_OK;
}

/* A text. *at: the offset of its bytes. */
static attune_status take_text(reader *r, int64_t *at, int64_t *length) {
    uint64_t n = 0;
    AT_TRY(take(r, 8, &n));
    AT_TRY(need(r, n));
    *at = r->at;
    *length = (int64_t)n;
    r->at += (int64_t)n;
    return ATTUNE_OK;
}

bool at_is_name(const char *text, int64_t length) {
    const unsigned char *s = (const unsigned char *)text, *end = s + length;
    while (s < end) {
        const int n = *s ? at_utf8_length(s, end) : 0;
        if (n == 0) return false;
        s += n;
    }
    return true;
}

/* The name of a pair or a tensor, as an offset. */
static attune_status take_name(reader *r, const char **out) {
    int64_t at, length;
    AT_TRY(take_text(r, &at, &length));
    if (length == 0 || length > MAX_KEY) return malformed(r, "expected a name of 1 to 65535 bytes");
    if (!at_is_name((const char *)r->data + at, length))
        return malformed(r, "expected names in UTF-8 without NUL");
    *out = (const char *)(uintptr_t)at;
    return ATTUNE_OK;
}

/* ---- pairs ----------------------------------------------------------------------------------- */

/* Bytes of a value of each type; 0: it varies. */
static const int sizes[AT_GGUF_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

static attune_status skip_list(reader *r, int depth);

static attune_status check_type(const reader *r, uint64_t type) {
    if (type < AT_GGUF_TYPES) return ATTUNE_OK;
    return at_fail(ATTUNE_EFORMAT, "%s: expected a type of metadata from 0 to %d, got %llu",
                   r->part->path, AT_GGUF_TYPES - 1, (unsigned long long)type);
}

static attune_status skip_value(reader *r, uint64_t type, int depth) {
    int64_t at, length;
    AT_TRY(check_type(r, type));
    if (type == AT_GGUF_TEXT) return take_text(r, &at, &length);
    if (type == AT_GGUF_LIST) return skip_list(r, depth + 1);
    AT_TRY(need(r, (uint64_t)sizes[type]));
    r->at += sizes[type];
    return ATTUNE_OK;
}

static attune_status skip_list(reader *r, int depth) {
    uint64_t type = 0, count = 0;
    if (depth > MAX_DEPTH) return malformed(r, "expected lists nested at most 4 deep");
    AT_TRY(take(r, 4, &type));
    AT_TRY(take(r, 8, &count));
    AT_TRY(check_type(r, type)); /* of a list without elements, too */
    if (sizes[type]) {
        if (count > (uint64_t)r->part->bytes) return malformed(r, cut);
        const uint64_t bytes = count * (uint64_t)sizes[type];
        AT_TRY(need(r, bytes));
        r->at += (int64_t)bytes;
        return ATTUNE_OK;
    }
    for (uint64_t i = 0; i < count; i++) AT_TRY(skip_value(r, type, depth));
    return ATTUNE_OK;
}

static attune_status read_alignment(reader *r, int64_t key, int64_t type_at) {
    static const char name[] = "general.alignment";
    const int64_t length = (int64_t)number_at(r->data + key - 8, 8);
    if (length != (int64_t)sizeof name - 1 || memcmp(r->data + key, name, (size_t)length) != 0)
        return ATTUNE_OK;
    const uint64_t type = number_at(r->data + type_at, 4);
    const uint64_t n = type == AT_GGUF_U32 ? number_at(r->data + type_at + 4, 4) : 0;
    if (n == 0 || n > AT_GGUF_MAX_ALIGNMENT || (n & (n - 1)) != 0) {
        return at_fail(ATTUNE_EFORMAT,
                       "%s: general.alignment: expected a power of 2 up to %d as u32, got %llu",
                       r->part->path, AT_GGUF_MAX_ALIGNMENT, (unsigned long long)n);
    }
    r->alignment = (uint32_t)n;
    return ATTUNE_OK;
}

static attune_status read_pair(reader *r) {
    const char *key;
    uint64_t type = 0;
    AT_TRY(take_name(r, &key));
    const int64_t type_at = r->at;
    AT_TRY(take(r, 4, &type));
    AT_TRY(skip_value(r, type, 0));
    AT_TRY(read_alignment(r, (int64_t)(uintptr_t)key, type_at));
    return at_add_text(r->f, r->part, key, (const void *)(uintptr_t)type_at);
}

/* The value of type `type` at p. Returns where the next value begins. */
static const unsigned char *decode(uint32_t type, const unsigned char *p, attune_value *out) {
    memset(out, 0, sizeof *out);
    if (type == AT_GGUF_TEXT) {
        out->kind = ATTUNE_TEXT;
        out->length = (int64_t)number_at(p, 8);
        out->text = (const char *)p + 8;
        return p + 8 + out->length;
    }
    if (type == AT_GGUF_LIST) {
        out->kind = ATTUNE_LIST;
        out->type = (uint32_t)number_at(p, 4);
        out->count = (int64_t)number_at(p + 4, 8);
        out->at = p + 12;
        return out->at;
    }
    const int bytes = sizes[type];
    const uint64_t x = number_at(p, bytes);
    const bool is_signed = type == AT_GGUF_I8 || type == AT_GGUF_I16 || type == AT_GGUF_I32;
    out->kind = ATTUNE_INTEGER;
    if (type == AT_GGUF_BOOL) {
        out->kind = ATTUNE_BOOLEAN;
        out->integer = x != 0;
    } else if (type == AT_GGUF_F32) {
        out->kind = ATTUNE_NUMBER;
        out->number = at_f32_of_bits((uint32_t)x);
    } else if (type == AT_GGUF_F64) {
        out->kind = ATTUNE_NUMBER;
        memcpy(&out->number, &x, sizeof out->number);
    } else if (type == AT_GGUF_U64 && x > INT64_MAX) {
        out->kind = ATTUNE_NUMBER;
        out->number = (double)x;
    } else if (is_signed && x >> (8 * bytes - 1)) {
        out->integer = (int64_t)x - ((int64_t)1 << (8 * bytes));
    } else {
        memcpy(&out->integer, &x, sizeof out->integer);
    }
    return p + bytes;
}

void at_gguf_value(const void *stored, attune_value *out) {
    decode((uint32_t)number_at(stored, 4), (const unsigned char *)stored + 4, out);
}

bool attune_value_next(attune_value *list, attune_value *out) {
    if (list->kind != ATTUNE_LIST || list->count == 0 || !list->at) return false;
    list->count--;
    list->at = decode(list->type, list->at, out);
    if (out->kind == ATTUNE_LIST) { /* the next one begins where this one's elements end */
        attune_value inner = *out, element;
        while (attune_value_next(&inner, &element)) continue;
        list->at = inner.at;
    }
    return true;
}

/* ---- tensors --------------------------------------------------------------------------------- */

static attune_status read_tensor(reader *r) {
    uint64_t axes = 0, n = 0, type = 0, offset = 0;
    at_entry *e;
    const char *name;
    AT_TRY(take_name(r, &name));
    AT_TRY(take(r, 4, &axes));
    if (axes > AT_GGUF_MAX_AXES) return malformed(r, "expected a tensor of at most 4 axes");
    AT_TRY(at_add_entry(r->f, r->part, &e));
    e->name = name;
    e->rank = (int)axes;
    for (int i = e->rank - 1; i >= 0; i--) {
        AT_TRY(take(r, 8, &n));
        if (n == 0 || n > INT64_MAX)
            return malformed(r, "expected a shape of integers from 1 to 2^63 - 1");
        e->shape[i] = (int64_t)n;
    }
    AT_TRY(take(r, 4, &type));
    AT_TRY(take(r, 8, &offset));
    e->format = at_format_of_gguf((uint32_t)type);
    e->type = e->format->name;
    if (!e->type) {
        return at_fail(ATTUNE_EFORMAT,
                       "%s: tensor '%.*s': type %llu of GGUF is not supported; expected F32, F16, "
                       "BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K or Q6_K",
                       r->part->path, (int)number_at(r->data + (uintptr_t)name - 8, 2),
                       (const char *)r->data + (uintptr_t)name, (unsigned long long)type);
    }
    if (offset > INT64_MAX) return malformed(r, "expected an offset below 2^63");
    e->begin = (int64_t)offset;
    return ATTUNE_OK;
}

/* ---- the whole header ------------------------------------------------------------------------ */

static attune_status read_counts(reader *r, uint64_t *tensors, uint64_t *pairs) {
    uint64_t magic = 0, version = 0;
    AT_TRY(take(r, 4, &magic));
    AT_TRY(take(r, 4, &version));
    if (version != 2 && version != 3) {
        const bool swapped = version == 2u << 24 || version == 3u << 24;
        return at_fail(ATTUNE_EFORMAT, "%s: expected GGUF version 2 or 3, got %llu%s",
                       r->part->path, (unsigned long long)version,
                       swapped ? " (a big-endian file)" : "");
    }
    AT_TRY(take(r, 8, tensors));
    AT_TRY(take(r, 8, pairs));
    /* A tensor takes at least 24 bytes of header, a pair 14. */
    const uint64_t bytes = (uint64_t)r->part->bytes;
    if (*tensors > bytes / 24 || *pairs > bytes / 14) {
        return at_fail(ATTUNE_EFORMAT,
                       "%s: the file ends inside the header: it claims %llu tensors and %llu "
                       "pieces of metadata",
                       r->part->path, (unsigned long long)*tensors, (unsigned long long)*pairs);
    }
    return ATTUNE_OK;
}

/* The name at an offset becomes a text: it moves down by a byte, over the end of its length, which
 * makes room for the NUL. */
static const char *text_at(const reader *r, const char *offset) {
    char *name = (char *)r->data + (uintptr_t)offset;
    const uint64_t length = number_at((unsigned char *)name - 8, 8);
    memmove(name - 1, name, length);
    name[length - 1] = 0;
    return name - 1;
}

static attune_status check_tensors(reader *r) {
    attune_file *f = r->f;
    for (int64_t i = 0; i < f->texts; i++) {
        f->text[i].key = text_at(r, f->text[i].key);
        f->text[i].value = r->data + (uintptr_t)f->text[i].value;
    }
    for (int64_t i = 0; i < f->entries; i++) f->entry[i].name = text_at(r, f->entry[i].name);
    const int64_t end = r->part->bytes;
    /* A file without tensors may end before the alignment. */
    const int64_t padded = at_checked_round_up(r->at, r->alignment);
    const int64_t begin = f->entries == 0 && padded > end ? end : padded;
    if (begin > end) return malformed(r, "the file ends before its data");
    for (int64_t i = 0; i < f->entries; i++) {
        at_entry *e = &f->entry[i];
        AT_TRY(at_check_size(r->part, e, false));
        e->begin = at_checked_add(e->begin, begin);
        e->end = at_checked_add(e->end, begin);
        if (e->begin < 0 || e->end < 0 || e->begin > end)
            return at_malformed(r->part, e->name, "its offset is past the end of the file");
    }
    return at_check_cover(f, 0, (int)(r->part - f->part), begin, end, r->alignment);
}

static attune_status read_header(reader *r) {
    uint64_t tensors = 0, pairs = 0;
    AT_TRY(read_counts(r, &tensors, &pairs));
    for (uint64_t i = 0; i < pairs; i++) AT_TRY(read_pair(r));
    for (uint64_t i = 0; i < tensors; i++) AT_TRY(read_tensor(r));
    return check_tensors(r);
}

attune_status at_parse_gguf(attune_file *f, int part) {
    reader r = {.f = f, .part = &f->part[part], .alignment = AT_GGUF_ALIGNMENT};
    const attune_status status = read_header(&r);
    f->is_gguf = true;
    f->part[part].memory = r.data;
    return status;
}
