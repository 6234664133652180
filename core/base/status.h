/* status.h - how the core reports failures:
 *
 *     return at_fail(ATTUNE_ESHAPE, "k: expected .., got ..");
 */
#ifndef AT_BASE_STATUS_H
#define AT_BASE_STATUS_H

#include "attune.h"

/* Stores the message for attune_message() and returns the status. A message names the argument,
 * what was expected and what came: "window: expected at least 1 token, got -3". Indices in messages
 * count from 0. */
attune_status at_fail(attune_status status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* "[1, 8, 512, 64]", in one of 8 buffers of this thread that are reused in a cycle: at most 8 calls
 * per message. */
const char *at_shape_text(int rank, const int64_t *shape);

#define AT_TRY(call)                                    \
    do {                                                \
        attune_status at_status_ = (call);              \
        if (at_status_ != ATTUNE_OK) return at_status_; \
    } while (0)

#endif
