/* json_scan.h - reads JSON text from front to back, strictly (RFC 8259) and without a tree in
 * memory: a hostile text cannot make the reader allocate.
 *
 * The first error stays: later calls return false, and the caller tests `error` once at the end. A
 * loop over an object:
 *
 *     bool first = true;
 *     if (at_json_enter(j, '{')) {
 *         while (at_json_next(j, '}', &first)) {
 *             at_json_key(j, text, &length);
 *             at_json_skip(j);
 *         }
 *     }
 *
 * Texts are valid UTF-8 without NUL. A text is never longer than it is in the JSON, and its NUL at
 * the end takes the room of a quote: so one block of the JSON's length has room for all texts.
 */
#ifndef AT_IO_JSON_SCAN_H
#define AT_IO_JSON_SCAN_H

#include <stdbool.h>
#include <stdint.h>

typedef struct at_json {
    const char *begin, *at, *end;
    const char *error; /* what was expected at `at`; NULL: no error so far */
} at_json;

void at_json_start(at_json *j, const char *text, int64_t length);

/* Enters an object ('{') or an array ('['). */
bool at_json_enter(at_json *j, char bracket);
/* Moves to the next member of an object ('}') or element of an array (']'). False: it has ended,
 * and was left, or there was an error. */
bool at_json_next(at_json *j, char bracket, bool *first);

/* A text, unescaped, and a key with its colon. *length: its bytes without the NUL. */
bool at_json_text(at_json *j, char *to, int64_t *length);
bool at_json_key(at_json *j, char *to, int64_t *length);

/* An integer from 0 to 2^63 - 1. */
bool at_json_natural(at_json *j, int64_t *out);

/* Any value. Nesting deeper than 64 is an error. */
bool at_json_skip(at_json *j);

/* Bytes of the UTF-8 sequence at s, which ends before `end`; 0: it is not valid. Overlong forms,
 * surrogates and code points above U+10FFFF are not. */
int at_utf8_length(const unsigned char *s, const unsigned char *end);

/* Only white space is left. */
bool at_json_end(at_json *j);

#endif
