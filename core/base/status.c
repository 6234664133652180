/* status.c - statuses and the message of a thread's last failure. */
#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
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

const char *attune_message(void) { return message; }

attune_status at_fail(attune_status status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);
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
