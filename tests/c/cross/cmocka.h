/* cmocka.h - the part of cmocka that test_kernels.c uses, for a cross-compiler without cmocka. */
#ifndef CROSS_CMOCKA_H
#define CROSS_CMOCKA_H

#include <stdio.h>

struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
};
#define cmocka_unit_test(f) \
    { #f, f }

static jmp_buf cross_end_of_test;
#define fail_msg(...) (printf(__VA_ARGS__), printf("\n"), longjmp(cross_end_of_test, 1))
#define assert_true(x) ((x) ? (void)0 : fail_msg("%s:%d: %s", __FILE__, __LINE__, #x))
#define assert_int_equal(a, b) assert_true((a) == (b))

static inline int cross_run(const char *name, const struct CMUnitTest *tests, int count) {
    volatile int failed = 0;
    for (volatile int i = 0; i < count; i++) {
        if (setjmp(cross_end_of_test) == 0)
            tests[i].run(NULL);
        else {
            printf("%s: %s: failed\n", name, tests[i].name);
            failed++;
        }
    }
    printf("[  PASSED  ] %d test(s).\n", count - failed);
    if (failed) printf("[  FAILED  ] %d test(s)\n", failed);
    return failed;
}
#define cmocka_run_group_tests_name(name, tests, setup, teardown) \
    cross_run(name, tests, (int)(sizeof(tests) / sizeof(tests)[0]))

#endif
