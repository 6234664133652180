/* words.c - words of a text, and hash tables. */
#include "tokenize/words.h"

#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "tensor/tensor.h"

/* ---- words ----------------------------------------------------------------------------------- */

enum { LETTER, DIGIT, OTHER, SPACE };

static int kind_of(unsigned char c) {
    if (c >= 128 || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return LETTER;
    if (c >= '0' && c <= '9') return DIGIT;
    return c == ' ' || (c >= '\t' && c <= '\r') ? SPACE : OTHER;
}

/* The end of the run of one kind that starts at i. */
static int64_t run_end(const unsigned char *text, int64_t i, int64_t end) {
    const int kind = kind_of(text[i]);
    while (i < end && kind_of(text[i]) == kind) i++;
    return i;
}

int64_t at_word_length(const unsigned char *text, int64_t begin, int64_t end) {
    const int64_t limit = end - begin < AT_MAX_WORD ? end : begin + AT_MAX_WORD;
    if (kind_of(text[begin]) != SPACE) return run_end(text, begin, limit) - begin;
    const int64_t spaces = run_end(text, begin, limit);
    /* The last space of a run goes to the word after it. */
    if (spaces < limit && text[spaces - 1] == ' ')
        return spaces - begin > 1 ? spaces - 1 - begin : run_end(text, spaces, limit) - begin;
    return spaces - begin;
}

attune_status at_check_documents(attune_span text, const attune_tensor *starts,
                                 attune_tensor *flat) {
    if (!text.data || text.bytes < 1)
        return at_fail(ATTUNE_EVALUE, "text: expected at least 1 byte, got an empty text");
    AT_TRY(at_check_open("starts", starts));
    if (starts->dtype != ATTUNE_I64)
        return at_fail(ATTUNE_EDTYPE, "starts: expected i64, got %s",
                       attune_dtype_name(starts->dtype));
    if (starts->rank != 1)
        return at_fail(ATTUNE_ESHAPE, "starts: expected [documents], got %s",
                       at_shape_text(starts->rank, starts->shape));
    AT_TRY(attune_tensor_contiguous(starts, flat));
    const int64_t *start = flat->data;
    for (int64_t d = 0; d < flat->shape[0]; d++) {
        const int64_t min = d > 0 ? start[d - 1] : 0, max = d > 0 ? text.bytes : 0;
        if (start[d] >= min && start[d] <= max) continue;
        const long long got = start[d];
        attune_tensor_close(flat);
        return at_fail(ATTUNE_EVALUE,
                       "starts: expected 0 and then ascending offsets up to %lld, got %lld",
                       (long long)text.bytes, got);
    }
    return ATTUNE_OK;
}

int64_t at_document_end(attune_span text, const attune_tensor *flat, int64_t d) {
    return d + 1 < flat->shape[0] ? ((const int64_t *)flat->data)[d + 1] : text.bytes;
}

/* ---- tables ---------------------------------------------------------------------------------- */

/* The finalizer of MurmurHash3 (public domain): each bit of the key moves half of the bits. */
static uint64_t mix(uint64_t x) {
    x ^= x >> 33;
    x *= 0xff51afd7ed558ccdu;
    x ^= x >> 33;
    x *= 0xc4ceb9fe1a85ec53u;
    return x ^ x >> 33;
}

/* FNV-1a. */
uint64_t at_word_key(const unsigned char *word, int64_t length) {
    uint64_t key = 0xcbf29ce484222325u;
    for (int64_t i = 0; i < length; i++) key = (key ^ word[i]) * 0x100000001b3u;
    return key;
}

int64_t at_map_home(const at_map *map, uint64_t key) {
    return map->slots > 0 ? (int64_t)(mix(key) & (uint64_t)(map->slots - 1)) : 0;
}

int64_t at_map_find(const at_map *map, uint64_t key, int64_t slot) {
    if (map->slots == 0) return -1;
    while (map->value[slot] >= 0) {
        if (map->key[slot] == key) return slot;
        slot = (slot + 1) & (map->slots - 1);
    }
    return -1;
}

static attune_status map_alloc(int64_t slots, at_map *map) {
    *map = (at_map){.slots = slots};
    map->key = at_alloc(at_checked_mul(slots, (int64_t)sizeof *map->key));
    map->value = at_alloc(at_checked_mul(slots, (int64_t)sizeof *map->value));
    if (!map->key || !map->value) {
        at_map_close(map);
        return ATTUNE_EMEMORY;
    }
    for (int64_t i = 0; i < slots; i++) map->value[i] = -1;
    return ATTUNE_OK;
}

static void put(at_map *map, uint64_t key, int64_t value) {
    int64_t slot = at_map_home(map, key);
    while (map->value[slot] >= 0) slot = (slot + 1) & (map->slots - 1);
    map->key[slot] = key;
    map->value[slot] = value;
    map->count++;
}

attune_status at_map_add(at_map *map, uint64_t key, int64_t value) {
    if (2 * map->count >= map->slots) {
        at_map larger;
        AT_TRY(map_alloc(map->slots > 0 ? at_checked_mul(map->slots, 2) : 1024, &larger));
        for (int64_t i = 0; i < map->slots; i++)
            if (map->value[i] >= 0) put(&larger, map->key[i], map->value[i]);
        at_map_close(map);
        *map = larger;
    }
    put(map, key, value);
    return ATTUNE_OK;
}

void at_map_close(at_map *map) {
    at_free(map->key);
    at_free(map->value);
    *map = (at_map){0};
}
