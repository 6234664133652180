/* int_math.h - integer arithmetic for sizes and offsets.
 *
 * The checked functions take counts and give -1 where an argument is negative or the result
 * overflows. A -1 passes through further checked calls, and at_alloc() refuses it, so a chain needs
 * only one test at its end.
 */
#ifndef AT_BASE_INT_MATH_H
#define AT_BASE_INT_MATH_H

#include <stdint.h>

/* n / divisor, rounded up. n >= 0, divisor > 0. */
static inline int64_t at_ceil_div(int64_t n, int64_t divisor) {
    return n / divisor + (n % divisor != 0);
}

/* The smallest multiple that is not below n. n >= 0, multiple > 0. */
static inline int64_t at_round_up(int64_t n, int64_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

/* a * b, or -1. */
static inline int64_t at_checked_mul(int64_t a, int64_t b) {
    int64_t r;
    return a < 0 || b < 0 || __builtin_mul_overflow(a, b, &r) ? -1 : r;
}

/* a + b, or -1. */
static inline int64_t at_checked_add(int64_t a, int64_t b) {
    int64_t r;
    return a < 0 || b < 0 || __builtin_add_overflow(a, b, &r) ? -1 : r;
}

/* at_round_up(n, multiple), or -1. */
static inline int64_t at_checked_round_up(int64_t n, int64_t multiple) {
    const int64_t sum = at_checked_add(n, multiple - 1);
    return sum < 0 ? -1 : sum / multiple * multiple;
}

#endif
