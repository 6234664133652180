/* status.c - statuses and the message of a thread's last failure. */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local char message[1024];

const char *attune_version(void) { return ATTUNE_VERSION; }

const char *attune_status_name(attune_status status) {
    switch (status) {
#define X(name, number, text) \
    case ATTUNE_##name: return #name;
        ATTUNE_STATUS_TABLE(X)
#undef X
    }
    return "unknown";
}

const char *attune_status_text(attune_status status) {
    switch (status) {
#define X(name, number, text) \
    case ATTUNE_##name: return text;
        ATTUNE_STATUS_TABLE(X)
#undef X
    }
    return "unknown status";
}

/* Whether a marked index begins at text: AT_INDEX_MARK, then a number. *end: the rest. */
static bool marked_index(const char *text, long long *index, const char **end) {
    char *rest;
    if (*text != AT_INDEX_MARK) return false;
    *index = strtoll(text + 1, &rest, 10);
    *end = rest;
    return rest != text + 1;
}

const char *attune_message_from(int first) {
    static _Thread_local char text[sizeof message + 64];
    const char *from = message;
    size_t used = 0;
    while (*from && used + 1 < sizeof text) {
        long long index;
        const char *end;
        if (!marked_index(from, &index, &end)) {
            const unsigned char c = (unsigned char)*from++;
            /* A name out of a stranger's file must not control the terminal. */
            text[used++] = (char)(c < 32 || c == 127 ? '?' : c);
            continue;
        }
        const size_t room = sizeof text - used;
        const int n = snprintf(text + used, room, "%lld", index + first);
        if ((size_t)n >= room) break;
        used += (size_t)n;
        from = end;
    }
    text[used] = 0;
    return text;
}

const char *attune_message(void) { return attune_message_from(0); }

const char *at_marked_message(void) { return message; }

attune_status at_fail(attune_status status, const char *format, ...) {
    va_list arguments;
    char text[sizeof message]; /* an argument may be the last message */
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    memcpy(message, text, strlen(text) + 1);
    return status;
}

const char *at_shape_text(int rank, const int64_t *shape) {
    static _Thread_local char ring[8][ATTUNE_MAX_RANK * 22 + 3];
    static _Thread_local unsigned next;
    char *text = ring[next++ % 8];
    size_t used = 0, size = sizeof ring[0];
    used += (size_t)snprintf(text, size, "[");
    for (int i = 0; i < rank && i < ATTUNE_MAX_RANK; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%lld", i ? ", " : "",
                                 (long long)shape[i]);
    snprintf(text + used, size - used, "]");
    return text;
}
