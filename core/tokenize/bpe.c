/* bpe.c - the ids of a text under the merges of a byte-pair encoding. */
#include <string.h>

#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"
#include "tensor/tensor.h"
#include "tokenize/words.h"

/* A word that was encoded: its text and its tokens, as offsets. */
typedef struct known_word {
    int64_t text, bytes, first, tokens;
} known_word;

typedef struct encoder {
    const unsigned char *text;
    at_map rank; /* from pairs of ids to the number of their merge */
    at_map word_at;
    known_word *words;
    int32_t *id;
    int64_t word_count, word_room, count, room; /* count: ids so far */
} encoder;

static attune_status read_merges(encoder *e, const attune_tensor *merges) {
    AT_TRY(at_check_open("merges", merges));
    if (merges->dtype != ATTUNE_I32)
        return at_fail(ATTUNE_EDTYPE, "merges: expected i32, got %s",
                       attune_dtype_name(merges->dtype));
    if (merges->rank != 2 || merges->shape[1] != 2)
        return at_fail(ATTUNE_ESHAPE, "merges: expected [merges, 2], got %s",
                       at_shape_text(merges->rank, merges->shape));
    attune_tensor flat;
    AT_TRY(attune_tensor_contiguous(merges, &flat));
    const int32_t *pair = flat.data;
    attune_status status = ATTUNE_OK;
    for (int64_t m = 0; m < flat.shape[0] && status == ATTUNE_OK; m++) {
        const int32_t left = pair[2 * m], right = pair[2 * m + 1], wrong = left < 0 ? left : right;
        const int64_t max = AT_BYTE_IDS + m - 1;
        const uint64_t key = at_pair_key(left, right);
        if (left < 0 || right < 0 || left > max || right > max)
            status = at_fail(ATTUNE_EVALUE,
                             "merges: expected ids from 0 to %lld in merge " AT_INDEX ", got %lld",
                             (long long)max, (long long)m, (long long)(left > max ? left : wrong));
        else if (at_map_find(&e->rank, key, at_map_home(&e->rank, key)) >= 0)
            status =
                at_fail(ATTUNE_EVALUE,
                        "merges: expected each pair once, got %d and %d again in merge " AT_INDEX,
                        left, right, (long long)m);
        else
            status = at_map_add(&e->rank, key, m);
    }
    attune_tensor_close(&flat);
    return status;
}

/* Merges the pairs of the ids, the earliest merge first, and returns how many ids are left. */
static int64_t merge_word(const encoder *e, int32_t *id, int64_t length) {
    for (;;) {
        int64_t best = -1;
        for (int64_t i = 0; i + 1 < length; i++) {
            const uint64_t key = at_pair_key(id[i], id[i + 1]);
            const int64_t slot = at_map_find(&e->rank, key, at_map_home(&e->rank, key));
            if (slot >= 0 && (best < 0 || e->rank.value[slot] < best)) best = e->rank.value[slot];
        }
        if (best < 0) return length;
        int64_t left = 0;
        for (int64_t i = 0; i < length; i++) {
            const uint64_t key = i + 1 < length ? at_pair_key(id[i], id[i + 1]) : 0;
            const int64_t slot =
                i + 1 < length ? at_map_find(&e->rank, key, at_map_home(&e->rank, key)) : -1;
            if (slot >= 0 && e->rank.value[slot] == best) {
                id[left++] = (int32_t)(AT_BYTE_IDS + best);
                i++;
            } else {
                id[left++] = id[i];
            }
        }
        length = left;
    }
}

/* The number in `words` of a word that was encoded before; -1: none. */
static int64_t find_word(const encoder *e, uint64_t key, int64_t begin, int64_t bytes) {
    for (int64_t slot = at_map_home(&e->word_at, key);
         (slot = at_map_find(&e->word_at, key, slot)) >= 0;
         slot = (slot + 1) & (e->word_at.slots - 1)) {
        const known_word *w = &e->words[e->word_at.value[slot]];
        if (w->bytes == bytes && memcmp(e->text + w->text, e->text + begin, (size_t)bytes) == 0)
            return e->word_at.value[slot];
    }
    return -1;
}

static attune_status encode_word(encoder *e, int64_t begin, int64_t bytes) {
    const uint64_t key = at_word_key(e->text + begin, bytes);
    const int64_t known = find_word(e, key, begin, bytes);
    while (e->count + bytes > e->room)
        AT_TRY(at_grow((void **)&e->id, e->room, &e->room, sizeof *e->id));
    int32_t *to = e->id + e->count;
    if (known >= 0) {
        const known_word *w = &e->words[known];
        memcpy(to, e->id + w->first, (size_t)w->tokens * sizeof *to);
        e->count += w->tokens;
        return ATTUNE_OK;
    }
    for (int64_t i = 0; i < bytes; i++) to[i] = e->text[begin + i];
    const int64_t tokens = merge_word(e, to, bytes);
    AT_TRY(at_grow((void **)&e->words, e->word_count, &e->word_room, sizeof *e->words));
    AT_TRY(at_map_add(&e->word_at, key, e->word_count));
    e->words[e->word_count++] =
        (known_word){.text = begin, .bytes = bytes, .first = e->count, .tokens = tokens};
    e->count += tokens;
    return ATTUNE_OK;
}

static attune_status encode(encoder *e, attune_span text, const attune_tensor *starts,
                            int64_t *token_start) {
    const int64_t *start = starts->data;
    for (int64_t d = 0; d < starts->shape[0]; d++) {
        const int64_t end = at_document_end(text, starts, d);
        token_start[d] = e->count;
        for (int64_t i = start[d]; i < end;) {
            const int64_t bytes = at_word_length(e->text, i, end);
            AT_TRY(encode_word(e, i, bytes));
            i += bytes;
        }
        if (at_interrupted()) return at_interrupted_status();
    }
    return ATTUNE_OK;
}

attune_status attune_bpe_encode(const attune_tensor *merges, attune_span text,
                                const attune_tensor *starts, attune_tensor *ids,
                                attune_tensor *token_starts) {
    encoder e = {.text = text.data};
    attune_tensor flat = {0}, first = {0}, all = {0};
    memset(ids, 0, sizeof *ids);
    memset(token_starts, 0, sizeof *token_starts);
    AT_TRY(at_check_documents(text, starts, &flat));
    attune_status status = read_merges(&e, merges);
    if (status == ATTUNE_OK) status = attune_tensor_new(ATTUNE_I64, 1, flat.shape, &first);
    if (status == ATTUNE_OK) status = encode(&e, text, &flat, first.data);
    if (status == ATTUNE_OK) status = at_tensor_new(ATTUNE_I32, 1, &e.count, &all);
    if (status == ATTUNE_OK) {
        memcpy(all.data, e.id, (size_t)e.count * sizeof *e.id);
        *ids = all;
        *token_starts = first;
    } else {
        attune_tensor_close(&first);
    }
    at_map_close(&e.rank);
    at_map_close(&e.word_at);
    at_free(e.words);
    at_free(e.id);
    attune_tensor_close(&flat);
    return status;
}
