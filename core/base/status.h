/* status.h - how the core reports failures:
 *
 *     return at_fail(ATTUNE_ESHAPE, "k: expected .., got ..");
 */
#ifndef AT_BASE_STATUS_H
#define AT_BASE_STATUS_H

#include "attune.h"

/* Stores the message for attune_message() and returns the status. A message names the argument,
 * what was expected and what came: "window: expected at least 1 token, got -3". An index in a
 * message counts from 0 and is written with AT_INDEX, so that a caller whose language counts from 1
 * reads it so: at_fail(ATTUNE_EVALUE, "counts: .. batch row " AT_INDEX, (long long)b). */
attune_status at_fail(attune_status status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#define AT_INDEX "\x01%lld" /* the format of an index: AT_INDEX_MARK, and a long long */
enum { AT_INDEX_MARK = 1 };

/* The message as at_fail() stored it, with its marks: for handing it from one thread to another. */
const char *at_marked_message(void);

/* "[1, 8, 512, 64]", in one of 8 buffers of this thread that are reused in a cycle: at most 8 calls
 * per message. */
const char *at_shape_text(int rank, const int64_t *shape);

#define AT_TRY(call)                                    \
    do {                                                \
        attune_status at_status_ = (call);              \
        if (at_status_ != ATTUNE_OK) return at_status_; \
    } while (0)

#endif
