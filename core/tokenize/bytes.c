/* bytes.c - byte ids, windows of tokens, and the check for UTF-8. */
#include <string.h>

#include "base/int_math.h"
#include "base/status.h"
#include "tensor/tensor.h"

attune_status attune_byte_ids(attune_span text, attune_tensor *ids) {
    memset(ids, 0, sizeof *ids);
    if (!text.data || text.bytes < 1)
        return at_fail(ATTUNE_EVALUE, "text: expected at least 1 byte, got an empty text");
    AT_TRY(at_tensor_new(ATTUNE_I32, 1, &text.bytes, ids));
    for (int64_t i = 0; i < text.bytes; i++)
        ((int32_t *)ids->data)[i] = ((const unsigned char *)text.data)[i];
    return ATTUNE_OK;
}

static attune_status check_ids(const attune_tensor *ids, const char *name,
                               const attune_tensor *list) {
    AT_TRY(at_check_open("ids", ids));
    AT_TRY(at_check_open(name, list));
    if (ids->dtype != ATTUNE_I32 || list->dtype != ATTUNE_I64)
        return at_fail(ATTUNE_EDTYPE, "ids and %s: expected i32 and i64, got %s and %s", name,
                       attune_dtype_name(ids->dtype), attune_dtype_name(list->dtype));
    if (ids->rank != 1 || list->rank != 1)
        return at_fail(ATTUNE_ESHAPE, "ids and %s: expected one axis each, got %s and %s", name,
                       at_shape_text(ids->rank, ids->shape),
                       at_shape_text(list->rank, list->shape));
    return ATTUNE_OK;
}

static int64_t entry_of(const attune_tensor *list, int64_t i) {
    return ((const int64_t *)list->data)[i * list->stride[0]];
}

static attune_status check_range(const attune_tensor *ids, int64_t first, int64_t count) {
    if (count >= 1 && count <= ids->shape[0] && first >= 0 && first <= ids->shape[0] - count)
        return ATTUNE_OK;
    return at_fail(ATTUNE_EVALUE,
                   "starts: expected a range of the text's %lld tokens, got %lld tokens from %lld",
                   (long long)ids->shape[0], (long long)count, (long long)first);
}

attune_status attune_token_windows(const attune_tensor *ids, const attune_tensor *starts,
                                   int64_t tokens, attune_tensor *out) {
    memset(out, 0, sizeof *out);
    AT_TRY(check_ids(ids, "starts", starts));
    const int64_t shape[2] = {starts->shape[0], tokens};
    for (int64_t row = 0; row < shape[0]; row++)
        AT_TRY(check_range(ids, entry_of(starts, row), tokens));
    AT_TRY(at_tensor_new(ATTUNE_I64, 2, shape, out));
    const int32_t *from = ids->data;
    int64_t *to = out->data;
    for (int64_t row = 0; row < shape[0]; row++) {
        const int64_t first = entry_of(starts, row);
        for (int64_t i = 0; i < tokens; i++)
            to[row * tokens + i] = from[(first + i) * ids->stride[0]];
    }
    return ATTUNE_OK;
}

attune_status attune_token_ranges(const attune_tensor *ids, const attune_tensor *starts,
                                  const attune_tensor *counts, attune_tensor *out) {
    int64_t total = 0;
    memset(out, 0, sizeof *out);
    AT_TRY(check_ids(ids, "starts", starts));
    AT_TRY(check_ids(ids, "counts", counts));
    if (!at_same_shape(starts, counts))
        return at_fail(ATTUNE_ESHAPE, "counts: expected %s, as starts, got %s",
                       at_shape_text(1, starts->shape), at_shape_text(1, counts->shape));
    for (int64_t r = 0; r < starts->shape[0]; r++) {
        AT_TRY(check_range(ids, entry_of(starts, r), entry_of(counts, r)));
        total = at_checked_add(total, entry_of(counts, r));
    }
    AT_TRY(at_tensor_new(ATTUNE_I32, 1, &total, out));
    int32_t *to = out->data;
    for (int64_t r = 0; r < starts->shape[0]; r++) {
        const int64_t first = entry_of(starts, r), count = entry_of(counts, r);
        for (int64_t i = 0; i < count; i++)
            to[i] = ((const int32_t *)ids->data)[(first + i) * ids->stride[0]];
        to += count;
    }
    return ATTUNE_OK;
}

/* The bytes of the UTF-8 sequence at p, of which `there` bytes exist; 0: malformed. The first two
 * bytes decide about overlong forms, surrogates and values above U+10FFFF (The Unicode Standard,
 * table 3-7). */
static int64_t sequence(const unsigned char *p, int64_t there) {
    if (p[0] < 0x80) return 1;
    const int64_t length = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc2 || p[0] > 0xf4 || there < length) return 0;
    const unsigned char min = p[0] == 0xe0   ? 0xa0
                              : p[0] == 0xf0 ? 0x90
                                             : 0x80,
                        max = p[0] == 0xed   ? 0x9f
                              : p[0] == 0xf4 ? 0x8f
                                             : 0xbf;
    if (p[1] < min || p[1] > max) return 0;
    for (int64_t i = 2; i < length; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    return length;
}

int64_t attune_utf8_prefix(attune_span text) {
    const unsigned char *p = text.data;
    int64_t i = 0;
    while (i < text.bytes) {
        const int64_t length = sequence(p + i, text.bytes - i);
        if (length == 0) return i;
        i += length;
    }
    return i;
}
