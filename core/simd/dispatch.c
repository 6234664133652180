/* dispatch.c - which instruction sets there are, which this machine has, and which one is used. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "simd/dispatch.h"

/* Every kernel file fills its part of each set's table. */
#define AT_SET_KERNELS(isa)                                     \
    void at_##isa##_elementwise(at_elementwise_kernels *table); \
    void at_##isa##_attention(at_attention_kernels *table);     \
    void at_##isa##_pack(at_attention_kernels *table);          \
    void at_##isa##_limits(at_attention_kernels *table);        \
    void at_##isa##_panels(at_panel_kernels *table);            \
    void at_##isa##_backward(at_attention_kernels *table);      \
    static void fill_##isa(at_simd *s) {                        \
        at_##isa##_elementwise(&s->elementwise);                \
        at_##isa##_attention(&s->attention);                    \
        at_##isa##_pack(&s->attention);                         \
        at_##isa##_limits(&s->attention);                       \
        at_##isa##_panels(&s->panels);                          \
        at_##isa##_backward(&s->attention);                     \
    }

AT_SET_KERNELS(c)
#if defined __x86_64__
#include <cpuid.h>
AT_SET_KERNELS(avx2)
AT_SET_KERNELS(avx512)
AT_SET_KERNELS(avx512_bf16)

/* clang's __builtin_cpu_supports does not know f16c. */
static bool has_f16c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static bool has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c(); }

static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}

/* clang 14 knows no avx512bf16 here either. */
static bool has_avx512_bf16(void) {
    unsigned a, b, c, d;
    return has_avx512() && __builtin_cpu_supports("avx512vnni") && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & (1u << 5));
}
#endif

static bool always(void) { return true; }

/* Worst first. A set that is known by name but not compiled for this processor has no functions. */
static const struct {
    const char *name;
    int lanes;
    bool (*here)(void);
    void (*fill)(at_simd *);
} sets[] = {
    {"c", 8, always, fill_c},
#if defined __x86_64__
    {"avx2", 8, has_avx2, fill_avx2},
    {"avx512", 16, has_avx512, fill_avx512},
    {"avx512_bf16", 16, has_avx512_bf16, fill_avx512_bf16},
#else
    {"avx2", 8, NULL, NULL},
    {"avx512", 16, NULL, NULL},
    {"avx512_bf16", 16, NULL, NULL},
#endif
};
enum { SETS = sizeof sets / sizeof sets[0] };

static at_simd in_use;
static attune_status chosen = ATTUNE_OK;
static char why_not[256];
static pthread_once_t once = PTHREAD_ONCE_INIT;

int at_simd_available(const char *names[], int most) {
    int n = 0;
    for (int i = 0; i < SETS && n < most; i++)
        if (sets[i].here && sets[i].here()) names[n++] = sets[i].name;
    return n;
}

static void refuse(const char *wanted, bool known) {
    const char *names[SETS];
    char list[128] = "";
    int n = at_simd_available(names, SETS);
    for (int i = 0; i < n; i++) {
        strcat(list, i ? ", " : "");
        strcat(list, names[i]);
    }
    chosen = ATTUNE_EISA;
    snprintf(why_not, sizeof why_not, "ATTUNE_ISA: expected an instruction set of this machine (%s), got '%.32s', which %s", list, wanted,
             known ? "it lacks" : "is unknown");
}

static void choose(void) {
    const char *wanted = getenv("ATTUNE_ISA");
    int best = -1;
    bool known = false;
    if (wanted && !*wanted) wanted = NULL;
    for (int i = 0; i < SETS; i++) {
        if (wanted && strcmp(wanted, sets[i].name)) continue;
        known = true;
        if (sets[i].here && sets[i].here()) best = i;
    }
    if (best < 0) {
        refuse(wanted, known);
        best = 0; /* attune_init() fails from now on; whoever does not ask it still finds a table */
    }
    in_use.name = sets[best].name;
    in_use.lanes = sets[best].lanes;
    sets[best].fill(&in_use);
}

attune_status attune_init(void) {
    pthread_once(&once, choose);
    return chosen == ATTUNE_OK ? ATTUNE_OK : at_fail(chosen, "%s", why_not);
}

const at_simd *at_simd_now(void) {
    pthread_once(&once, choose);
    return &in_use;
}
