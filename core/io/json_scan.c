/* json_scan.c - a strict scanner of JSON text. */
#include "io/json_scan.h"

#include <stddef.h>
#include <string.h>

enum { MAX_DEPTH = 64 };

static bool fail(at_json *j, const char *expected) {
    if (!j->error) j->error = expected;
    return false;
}

void at_json_start(at_json *j, const char *text, int64_t length) {
    *j = (at_json){.begin = text, .at = text, .end = text + length};
}

/* The next character that is not white space, which is not consumed; 0: the end, or an error. */
static char peek(at_json *j) {
    if (j->error) return 0;
    while (j->at < j->end && memchr(" \t\n\r", *j->at, 4)) j->at++;
    return j->at < j->end ? *j->at : 0;
}

static bool take(at_json *j, char c, const char *expected) {
    if (peek(j) != c) return fail(j, expected);
    j->at++;
    return true;
}

bool at_json_enter(at_json *j, char bracket) {
    return take(j, bracket, bracket == '{' ? "expected an object" : "expected an array");
}

bool at_json_next(at_json *j, char bracket, bool *first) {
    if (peek(j) == bracket) {
        j->at++;
        return false;
    }
    if (!*first) take(j, ',', bracket == '}' ? "expected , or }" : "expected , or ]");
    *first = false;
    return !j->error;
}

/* ---- texts ----------------------------------------------------------------------------------- */

int at_utf8_length(const unsigned char *s, const unsigned char *end) {
    const unsigned char c = s[0];
    const int n = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
    if (n == 0 || end - s < n) return 0;
    for (int i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    if (c == 0xe0 && s[1] < 0xa0) return 0;
    if (c == 0xed && s[1] > 0x9f) return 0;
    if (c == 0xf0 && s[1] < 0x90) return 0;
    if (c == 0xf4 && s[1] > 0x8f) return 0;
    return n;
}

/* The four hexadecimal digits at j->at, which are consumed; -1: there are none. */
static int32_t hexadecimal(at_json *j) {
    int32_t value = 0;
    if (j->end - j->at < 4) return -1;
    for (int i = 0; i < 4; i++) {
        const char c = *j->at++;
        const int digit = c >= '0' && c <= '9'   ? c - '0'
                          : c >= 'a' && c <= 'f' ? c - 'a' + 10
                          : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                 : -1;
        if (digit < 0) return -1;
        value = value * 16 + digit;
    }
    return value;
}

/* Writes the code point of \uXXXX, or of a pair of them, whose first \u was consumed. Returns the
 * bytes written; 0: it is not valid, or NUL. */
static int unicode(at_json *j, char *to) {
    int32_t x = hexadecimal(j);
    if (x >= 0xd800 && x < 0xdc00) {
        if (j->end - j->at < 2 || j->at[0] != '\\' || j->at[1] != 'u') return 0;
        j->at += 2;
        const int32_t low = hexadecimal(j);
        if (low < 0xdc00 || low > 0xdfff) return 0;
        x = 0x10000 + ((x - 0xd800) << 10) + (low - 0xdc00);
    }
    if (x <= 0 || (x >= 0xdc00 && x <= 0xdfff)) return 0;
    const int n = x < 0x80 ? 1 : x < 0x800 ? 2 : x < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (int i = n - 1; i > 0; i--) {
        to[i] = (char)(0x80 | (x & 0x3f));
        x >>= 6;
    }
    to[0] = (char)(lead[n] | x);
    return n;
}

/* Consumes one character of a text, or one escape, and writes its bytes, at most 4, to `to`.
 * Returns their number; 0: it is not valid, which j->error says. */
static int character(at_json *j, char *to) {
    static const char escapes[] = "\"\\/bfnrt", means[] = "\"\\/\b\f\n\r\t";
    if ((unsigned char)*j->at < 0x20) {
        fail(j, "expected a text without control characters");
        return 0;
    }
    if (*j->at != '\\') {
        const int n = at_utf8_length((const unsigned char *)j->at, (const unsigned char *)j->end);
        if (n == 0) fail(j, "expected UTF-8");
        memcpy(to, j->at, (size_t)n);
        j->at += n;
        return n;
    }
    if (j->end - j->at < 2) {
        fail(j, "expected the end of a text");
        return 0;
    }
    const char c = j->at[1];
    const char *which = c ? strchr(escapes, c) : NULL;
    j->at += 2;
    const int n = c == 'u' ? unicode(j, to) : which != NULL;
    if (n == 0) fail(j, "expected a valid escape, not of NUL");
    if (which) *to = means[which - escapes];
    return n;
}

static bool end_text(at_json *j) { return take(j, '"', "expected the end of a text"); }

static bool in_text(const at_json *j) { return j->at < j->end && *j->at != '"'; }

bool at_json_text(at_json *j, char *to, int64_t *length) {
    *length = 0;
    *to = 0;
    if (!take(j, '"', "expected a text")) return false;
    while (in_text(j)) {
        const int n = character(j, to + *length);
        if (n == 0) return false;
        *length += n;
    }
    to[*length] = 0;
    return end_text(j);
}

bool at_json_key(at_json *j, char *to, int64_t *length) {
    return at_json_text(j, to, length) && take(j, ':', "expected :");
}

/* ---- numbers and other values ---------------------------------------------------------------- */

static bool is_digit(const at_json *j) { return j->at < j->end && *j->at >= '0' && *j->at <= '9'; }

bool at_json_natural(at_json *j, int64_t *out) {
    static const char expected[] = "expected an integer from 0 to 2^63 - 1";
    *out = 0;
    peek(j);
    if (j->error || !is_digit(j)) return fail(j, expected);
    const char *begin = j->at;
    for (; is_digit(j); j->at++) {
        if (__builtin_mul_overflow(*out, (int64_t)10, out) ||
            __builtin_add_overflow(*out, (int64_t)(*j->at - '0'), out))
            return fail(j, expected);
    }
    if (*begin == '0' && j->at - begin > 1) return fail(j, expected);
    if (j->at < j->end && memchr(".eE", *j->at, 3)) return fail(j, expected);
    return true;
}

static bool skip_digits(at_json *j) {
    if (!is_digit(j)) return fail(j, "expected a digit");
    while (is_digit(j)) j->at++;
    return true;
}

static bool skip_number(at_json *j) {
    if (*j->at == '-') j->at++;
    const char *begin = j->at;
    if (!skip_digits(j)) return false;
    if (*begin == '0' && j->at - begin > 1) return fail(j, "expected a number without leading 0");
    if (j->at < j->end && *j->at == '.') {
        j->at++;
        if (!skip_digits(j)) return false;
    }
    if (j->at < j->end && (*j->at == 'e' || *j->at == 'E')) {
        j->at++;
        if (j->at < j->end && (*j->at == '+' || *j->at == '-')) j->at++;
        return skip_digits(j);
    }
    return true;
}

static bool skip_word(at_json *j) {
    static const char *const words[] = {"true", "false", "null"};
    for (int i = 0; i < 3; i++) {
        const size_t n = strlen(words[i]);
        if ((size_t)(j->end - j->at) < n || memcmp(j->at, words[i], n) != 0) continue;
        j->at += n;
        return true;
    }
    return fail(j, "expected a value");
}

/* Checked as at_json_text does, without room for the text. */
static bool skip_text(at_json *j) {
    char bytes[4];
    if (!take(j, '"', "expected a text")) return false;
    while (in_text(j))
        if (character(j, bytes) == 0) return false;
    return end_text(j);
}

static bool skip(at_json *j, int depth) {
    const char c = peek(j);
    if (depth > MAX_DEPTH) return fail(j, "expected a nesting of at most 64");
    if (c == '"') return skip_text(j);
    if (c == '-' || (c >= '0' && c <= '9')) return skip_number(j);
    if (c != '{' && c != '[') return !j->error && skip_word(j);
    const char close = c == '{' ? '}' : ']';
    bool first = true;
    j->at++;
    while (at_json_next(j, close, &first)) {
        if (c == '{' && (!skip_text(j) || !take(j, ':', "expected :"))) return false;
        if (!skip(j, depth + 1)) return false;
    }
    return !j->error;
}

bool at_json_skip(at_json *j) { return skip(j, 0); }

bool at_json_end(at_json *j) {
    peek(j);
    if (j->error) return false;
    return j->at == j->end || fail(j, "expected the end");
}
