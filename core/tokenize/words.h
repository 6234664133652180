/* words.h - words of a text, and tables from words and from pairs of ids to numbers.
 *
 * attune/tokenize.h says what a word is.
 */
#ifndef AT_TOKENIZE_WORDS_H
#define AT_TOKENIZE_WORDS_H

#include "attune.h"

enum { AT_MAX_WORD = 128, AT_BYTE_IDS = 256 };

/* The bytes of the word that starts at `begin`; end: of its document. begin < end. */
int64_t at_word_length(const unsigned char *text, int64_t begin, int64_t end);

/* Checks `text` and `starts` and gives the starts as a contiguous tensor. */
attune_status at_check_documents(attune_span text, const attune_tensor *starts,
                                 attune_tensor *flat);
/* The end of document d of `flat`. */
int64_t at_document_end(attune_span text, const attune_tensor *flat, int64_t d);

/* A hash table with open addressing from 64-bit keys to int64_t values. Two words may have one key,
 * so that callers compare what they find: at_map_find goes on from slot to slot. */
typedef struct at_map {
    uint64_t *key;
    int64_t *value; /* -1: an empty slot */
    int64_t slots;  /* a power of 2; 0: nothing allocated */
    int64_t count;
} at_map;

/* The first slot with the key at or after `slot`, cyclically; -1: none. Start with at_map_home. */
int64_t at_map_home(const at_map *map, uint64_t key);
int64_t at_map_find(const at_map *map, uint64_t key, int64_t slot);
attune_status at_map_add(at_map *map, uint64_t key, int64_t value);
void at_map_close(at_map *map);

uint64_t at_word_key(const unsigned char *word, int64_t length);
static inline uint64_t at_pair_key(int32_t left, int32_t right) {
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

#endif
