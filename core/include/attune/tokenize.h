/* attune/tokenize.h - text as token ids: bytes, byte-pair encoding learned from a text, and the
 * windows of tokens that a batch is made of. */
#ifndef ATTUNE_TOKENIZE_H
#define ATTUNE_TOKENIZE_H

#include "attune/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A text is a range of bytes. It is divided into documents by `starts`, i64 [documents]: the offset
 * of the first byte of each, from 0 on, ascending; the last document ends with the text. No token
 * crosses a border between documents. Errors: EVALUE for an empty text, and for offsets, ids and
 * sizes out of range; EDTYPE, ESHAPE, ECLOSED, EMEMORY, EINTERRUPT. */

/* ids i32 [bytes]: the value of each byte, 0 .. 255. */
ATTUNE_API attune_status attune_byte_ids(attune_span text, attune_tensor *ids);

/* Byte-pair encoding (Sennrich et al. 2016, arXiv 1508.07909) over bytes. Ids 0 .. 255 are bytes,
 * and id 256 + m is the token that merge m makes of two ids: merges i32 [merges, 2].
 *
 * Merges stay inside words. A word is a run of letters, of digits or of other characters, with the
 * one space before it, if any; or a run of white space. Bytes from 128 on count as letters. A word
 * of more than 128 bytes is divided.
 *
 * Training merges the most frequent pair until there are `vocabulary` ids (257 .. 2^20), or until
 * no pair occurs twice. Among pairs of one frequency the one with the smaller ids is merged first,
 * so that the merges follow from the text alone. EVALUE: no pair occurs twice. */
ATTUNE_API attune_status attune_bpe_train(attune_span text, const attune_tensor *starts,
                                          int64_t vocabulary, attune_tensor *merges);
/* ids i32 [tokens]   token_starts i64 [documents]: the first token of each document. */
ATTUNE_API attune_status attune_bpe_encode(const attune_tensor *merges, attune_span text,
                                           const attune_tensor *starts, attune_tensor *ids,
                                           attune_tensor *token_starts);

/* Windows of a text: row b of out i64 [rows, tokens] is ids[starts[b]], ids[starts[b] + 1] ..; ids
 * i32 [n], starts i64 [rows], each from 0 to n - tokens. */
ATTUNE_API attune_status attune_token_windows(const attune_tensor *ids, const attune_tensor *starts,
                                              int64_t tokens, attune_tensor *out);

/* Ranges of a text, one after another: starts, counts i64 [ranges], each count at least 1; out i32
 * [the sum of counts]. */
ATTUNE_API attune_status attune_token_ranges(const attune_tensor *ids, const attune_tensor *starts,
                                             const attune_tensor *counts, attune_tensor *out);

/* The SHA-256 of the bytes (FIPS 180-4) in 64 hexadecimal digits and a zero byte. */
ATTUNE_API void attune_sha256(attune_span bytes, char hex[65]);

/* The offset of the first byte that is not UTF-8 (no overlong forms, no surrogates, at most
 * U+10FFFF); the number of bytes where there is none. */
ATTUNE_API int64_t attune_utf8_prefix(attune_span text);

#ifdef __cplusplus
}
#endif

#endif
