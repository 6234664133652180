/* status.h - how the core reports failures: return at_fail(ATTUNE_ESHAPE, "k: expected .., got
 * .."). */
#ifndef AT_BASE_STATUS_H
#define AT_BASE_STATUS_H

#include "attune.h"

/* Stores the message for attune_message() and returns the status. Messages name the argument first:
 * "window: expected a number of tokens from 1 on, got -3". */
attune_status at_fail(attune_status status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* "[1, 8, 512, 64]" in a small ring of buffers of this thread: up to 8 in one message. */
const char *at_shape_text(int rank, const int64_t *shape);

#define AT_TRY(call)                                    \
    do {                                                \
        attune_status at_status_ = (call);              \
        if (at_status_ != ATTUNE_OK) return at_status_; \
    } while (0)

#endif
