/* attune/status.h - every status, and the message of the last failure. */
#ifndef ATTUNE_STATUS_H
#define ATTUNE_STATUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ATTUNE_API __attribute__((visibility("default")))

/* Every status: name, number, general meaning. attune_message() has the details of a failure. */
#define ATTUNE_STATUS_TABLE(X)                                            \
    X(OK, 0, "success")                                                   \
    X(ESHAPE, 1, "shapes do not fit together")                            \
    X(EDTYPE, 2, "wrong dtype")                                           \
    X(EVALUE, 3, "a value is out of range")                               \
    X(EMEMORY, 4, "out of memory, or past the limit set")                 \
    X(ECAPACITY, 5, "the cache is full")                                  \
    X(EENGINE, 6, "the engine that was named does not take this problem") \
    X(ENESTED, 7, "parallel work was started inside parallel work")       \
    X(EINTERRUPT, 8, "interrupted")                                       \
    X(EISA, 9, "this machine lacks the instruction set")                  \
    X(ECLOSED, 10, "the tensor or handle is closed")                      \
    X(EIO, 11, "a file could not be read or written")                     \
    X(EFORMAT, 12, "a file is malformed")

typedef enum attune_status {
#define X(name, number, text) ATTUNE_##name = number,
    ATTUNE_STATUS_TABLE(X)
#undef X
} attune_status;

/* The name, "ESHAPE", and the meaning, "shapes do not fit together". Static strings. */
ATTUNE_API const char *attune_status_name(attune_status status);
ATTUNE_API const char *attune_status_text(attune_status status);

/* The message of the calling thread's last failure, "" before the first. It names the argument,
 * what was expected and what came; indices in it count from 0. Valid until the next call of
 * attune_message or attune_message_from on the thread. */
ATTUNE_API const char *attune_message(void);

/* The same message with indices that count from `first`: 1 for a language that counts from 1. */
ATTUNE_API const char *attune_message_from(int first);

#ifdef __cplusplus
}
#endif

#endif
