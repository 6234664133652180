/* bpe_train.c - learns the merges of a byte-pair encoding: Sennrich et al. 2016 (arXiv 1508.07909),
 * algorithm 1.
 *
 * The text is reduced to its distinct words and their frequencies. Each pair of neighbouring ids
 * has a frequency and a list of the words that hold it, so a merge visits those words only. A heap
 * gives the most frequent pair. Frequencies of pairs that are in the heap only fall; a pair whose
 * entry is out of date is put back with its frequency of now.
 */
#include <string.h>

#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"
#include "tensor/tensor.h"
#include "tokenize/words.h"

typedef struct word {
    int64_t first; /* of its ids in `id` */
    int64_t count; /* its frequency */
    int64_t text;  /* offset of one occurrence */
    int32_t length, bytes;
    int64_t merge; /* the last merge that visited the word */
} word;

typedef struct pair {
    int32_t left, right;
    int64_t count;
    int64_t list; /* the first node of its words; -1: none */
} pair;

typedef struct node {
    int64_t word, next;
} node;

typedef struct entry {
    int64_t pair, count;
} entry;

typedef struct trainer {
    const unsigned char *text;
    word *words;
    int32_t *id; /* the ids of all words; each word has room for its bytes */
    pair *pairs;
    node *nodes;
    entry *heap;
    int64_t word_count, id_count, pair_count, node_count, heap_count;
    int64_t word_room, id_room, pair_room, node_room, heap_room;
    at_map word_at, pair_at;
} trainer;

/* ---- the heap -------------------------------------------------------------------------------- */

/* Whether a is merged before b. */
static bool before(const trainer *t, entry a, entry b) {
    const pair *x = &t->pairs[a.pair], *y = &t->pairs[b.pair];
    if (a.count != b.count) return a.count > b.count;
    return x->left != y->left ? x->left < y->left : x->right < y->right;
}

static attune_status push(trainer *t, entry e) {
    AT_TRY(at_grow((void **)&t->heap, t->heap_count, &t->heap_room, sizeof *t->heap));
    int64_t i = t->heap_count++;
    while (i > 0 && before(t, e, t->heap[(i - 1) / 2])) {
        t->heap[i] = t->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    t->heap[i] = e;
    return ATTUNE_OK;
}

static entry pop(trainer *t) {
    const entry top = t->heap[0], last = t->heap[--t->heap_count];
    int64_t i = 0;
    for (int64_t child; (child = 2 * i + 1) < t->heap_count; i = child) {
        if (child + 1 < t->heap_count && before(t, t->heap[child + 1], t->heap[child])) child++;
        if (!before(t, t->heap[child], last)) break;
        t->heap[i] = t->heap[child];
    }
    t->heap[i] = last;
    return top;
}

/* ---- words and pairs ------------------------------------------------------------------------- */

static attune_status add_word(trainer *t, int64_t begin, int32_t length) {
    const uint64_t key = at_word_key(t->text + begin, length);
    for (int64_t slot = at_map_home(&t->word_at, key);
         (slot = at_map_find(&t->word_at, key, slot)) >= 0;
         slot = (slot + 1) & (t->word_at.slots - 1)) {
        word *w = &t->words[t->word_at.value[slot]];
        if (w->bytes != length || memcmp(t->text + w->text, t->text + begin, (size_t)length) != 0)
            continue;
        w->count++;
        return ATTUNE_OK;
    }
    AT_TRY(at_grow((void **)&t->words, t->word_count, &t->word_room, sizeof *t->words));
    AT_TRY(at_map_add(&t->word_at, key, t->word_count));
    t->words[t->word_count++] = (word){.first = t->id_count,
                                       .count = 1,
                                       .text = begin,
                                       .length = length,
                                       .bytes = length,
                                       .merge = -1};
    for (int32_t i = 0; i < length; i++) {
        AT_TRY(at_grow((void **)&t->id, t->id_count, &t->id_room, sizeof *t->id));
        t->id[t->id_count++] = t->text[begin + i];
    }
    return ATTUNE_OK;
}

static attune_status read_words(trainer *t, attune_span text, const attune_tensor *starts) {
    const int64_t *start = starts->data;
    for (int64_t d = 0; d < starts->shape[0]; d++) {
        const int64_t end = at_document_end(text, starts, d);
        for (int64_t i = start[d]; i < end;) {
            const int64_t length = at_word_length(t->text, i, end);
            AT_TRY(add_word(t, i, (int32_t)length));
            i += length;
        }
        if (at_interrupted()) return at_interrupted_status();
    }
    return ATTUNE_OK;
}

/* Adds `times` to the frequency of a pair of word w. A pair that is new gets the word as the first
 * of its list, and so does one that is named as new to the word. */
static attune_status count_pair(trainer *t, int32_t left, int32_t right, int64_t times, int64_t w,
                                bool new_to_word) {
    const uint64_t key = at_pair_key(left, right);
    const int64_t slot = at_map_find(&t->pair_at, key, at_map_home(&t->pair_at, key));
    int64_t p = slot >= 0 ? t->pair_at.value[slot] : -1;
    if (p < 0) {
        AT_TRY(at_grow((void **)&t->pairs, t->pair_count, &t->pair_room, sizeof *t->pairs));
        AT_TRY(at_map_add(&t->pair_at, key, t->pair_count));
        p = t->pair_count++;
        t->pairs[p] = (pair){.left = left, .right = right, .list = -1};
    }
    t->pairs[p].count += times;
    const int64_t list = t->pairs[p].list;
    if (!new_to_word || (list >= 0 && t->nodes[list].word == w)) return ATTUNE_OK;
    AT_TRY(at_grow((void **)&t->nodes, t->node_count, &t->node_room, sizeof *t->nodes));
    t->nodes[t->node_count] = (node){.word = w, .next = list};
    t->pairs[p].list = t->node_count++;
    return ATTUNE_OK;
}

/* Pairs that hold the id `fresh` are new to the word; a negative fresh: all are. */
static attune_status count_pairs(trainer *t, int64_t w, int64_t sign, int32_t fresh) {
    const word *x = &t->words[w];
    const int32_t *id = t->id + x->first;
    for (int32_t i = 0; i + 1 < x->length; i++) {
        const bool is_new = sign > 0 && (fresh < 0 || id[i] == fresh || id[i + 1] == fresh);
        AT_TRY(count_pair(t, id[i], id[i + 1], sign * x->count, w, is_new));
    }
    return ATTUNE_OK;
}

/* Replaces the pair by `fresh` in word w, from left to right. */
static void rewrite(trainer *t, int64_t w, int32_t left, int32_t right, int32_t fresh) {
    word *x = &t->words[w];
    int32_t *id = t->id + x->first, length = 0;
    for (int32_t i = 0; i < x->length; i++) {
        if (i + 1 < x->length && id[i] == left && id[i + 1] == right) {
            id[length++] = fresh;
            i++;
        } else {
            id[length++] = id[i];
        }
    }
    x->length = length;
}

static attune_status merge(trainer *t, int64_t p, int64_t number) {
    const int32_t left = t->pairs[p].left, right = t->pairs[p].right,
                  fresh = (int32_t)(AT_BYTE_IDS + number);
    const int64_t first_new = t->pair_count;
    for (int64_t n = t->pairs[p].list; n >= 0; n = t->nodes[n].next) {
        const int64_t w = t->nodes[n].word;
        if (t->words[w].merge == number) continue;
        t->words[w].merge = number;
        AT_TRY(count_pairs(t, w, -1, -1));
        rewrite(t, w, left, right, fresh);
        AT_TRY(count_pairs(t, w, 1, fresh));
    }
    for (int64_t i = first_new; i < t->pair_count; i++)
        AT_TRY(push(t, (entry){.pair = i, .count = t->pairs[i].count}));
    return ATTUNE_OK;
}

/* The pair to merge next; -1: no pair occurs twice. */
static attune_status next_pair(trainer *t, int64_t *found) {
    *found = -1;
    while (t->heap_count > 0 && *found < 0) {
        const entry top = pop(t);
        const int64_t now = t->pairs[top.pair].count;
        if (now < 2) continue;
        if (now == top.count)
            *found = top.pair;
        else
            AT_TRY(push(t, (entry){.pair = top.pair, .count = now}));
    }
    return ATTUNE_OK;
}

static attune_status learn(trainer *t, int64_t wanted, int32_t *merges, int64_t *count) {
    for (int64_t w = 0; w < t->word_count; w++) AT_TRY(count_pairs(t, w, 1, -1));
    for (int64_t p = 0; p < t->pair_count; p++)
        AT_TRY(push(t, (entry){.pair = p, .count = t->pairs[p].count}));
    for (*count = 0; *count < wanted; ++*count) {
        int64_t p;
        AT_TRY(next_pair(t, &p));
        if (p < 0) break;
        merges[2 * *count] = t->pairs[p].left;
        merges[2 * *count + 1] = t->pairs[p].right;
        AT_TRY(merge(t, p, *count));
        if (at_interrupted()) return at_interrupted_status();
    }
    return ATTUNE_OK;
}

static void close_trainer(trainer *t) {
    at_free(t->words);
    at_free(t->id);
    at_free(t->pairs);
    at_free(t->nodes);
    at_free(t->heap);
    at_map_close(&t->word_at);
    at_map_close(&t->pair_at);
}

attune_status attune_bpe_train(attune_span text, const attune_tensor *starts, int64_t vocabulary,
                               attune_tensor *merges) {
    trainer t = {.text = text.data};
    attune_tensor flat = {0}, all = {0};
    int64_t count = 0;
    memset(merges, 0, sizeof *merges);
    if (vocabulary <= AT_BYTE_IDS || vocabulary > 1 << 20)
        return at_fail(ATTUNE_EVALUE, "vocab: expected from %d to %d ids, got %lld",
                       AT_BYTE_IDS + 1, 1 << 20, (long long)vocabulary);
    AT_TRY(at_check_documents(text, starts, &flat));
    const int64_t shape[2] = {vocabulary - AT_BYTE_IDS, 2};
    attune_status status = attune_tensor_new(ATTUNE_I32, 2, shape, &all);
    if (status == ATTUNE_OK) status = read_words(&t, text, &flat);
    if (status == ATTUNE_OK) status = learn(&t, shape[0], all.data, &count);
    if (status == ATTUNE_OK && count == 0)
        status = at_fail(ATTUNE_EVALUE,
                         "text: expected a pair of bytes that occurs twice, got none in %lld bytes",
                         (long long)text.bytes);
    if (status == ATTUNE_OK) status = attune_tensor_slice(&all, 0, 0, count, merges);
    close_trainer(&t);
    attune_tensor_close(&all);
    attune_tensor_close(&flat);
    return status;
}
