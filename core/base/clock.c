/* clock.c - monotonic time. */
#include <time.h>

#include "attune.h"

double attune_clock(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
