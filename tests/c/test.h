/* test.h - the preamble of every C test: cmocka with the headers that it needs before it, the
 * standard headers that most tests use, and MUST. */
#ifndef TEST_TEST_H
#define TEST_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attune.h"

/* Sanitizers are about twenty times slower, and find other faults than wrong sums. Few cases reach
 * the lines that many reach: tools/coverage defines FEW_CASES, too. */
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
#define FEW_CASES
#endif

/* The call succeeds, or the test fails with the call's text and the library's message. */
#define MUST(call)                                                            \
    do {                                                                      \
        if ((call) != ATTUNE_OK) fail_msg("%s: %s", #call, attune_message()); \
    } while (0)

#endif
