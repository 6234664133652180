/* dispatch.c - which instruction sets there are, which this machine has, and which one is used. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/parallel.h"
#include "base/status.h"
#include "simd/dispatch.h"

/* Every kernel file fills its part of each set's table. */
#define AT_SET_KERNELS(isa)                                                        \
    void at_##isa##_elementwise(at_elementwise_kernels *table);                    \
    void at_##isa##_attention(at_attention_kernels *table, at_geometry *geometry); \
    void at_##isa##_pack(at_attention_kernels *table);                             \
    void at_##isa##_limits(at_limit_kernels *table);                               \
    void at_##isa##_panels(at_panel_kernels *table);                               \
    void at_##isa##_backward(at_attention_kernels *table);                         \
    void at_##isa##_nn(at_nn_kernels *table);                                      \
    void at_##isa##_program(at_program_kernels *table);                            \
    void at_##isa##_linear(at_linear_kernels *table);                              \
    void at_##isa##_weights(at_weight_kernels *table);                             \
    void at_##isa##_quant(at_quant_kernels *table);                                \
    static void fill_##isa(at_simd *s) {                                           \
        at_##isa##_elementwise(&s->elementwise);                                   \
        at_##isa##_attention(&s->attention, &s->geometry);                         \
        at_##isa##_pack(&s->attention);                                            \
        at_##isa##_limits(&s->limits);                                             \
        at_##isa##_panels(&s->panels);                                             \
        at_##isa##_backward(&s->attention);                                        \
        at_##isa##_nn(&s->nn);                                                     \
        at_##isa##_program(&s->program);                                           \
        at_##isa##_linear(&s->linear);                                             \
        at_##isa##_weights(&s->weights);                                           \
        at_##isa##_quant(&s->quant);                                               \
    }

/* A set with AMX tiles replaces some kernels of its vectors by kernels over these tiles. */
#define AT_SET_WITH_TILES(isa)                                                 \
    AT_SET_KERNELS(isa)                                                        \
    void at_##isa##_amx(at_attention_kernels *table, at_limit_kernels *limits, \
                        at_geometry *geometry);                                \
    static void fill_##isa##_with_tiles(at_simd *s) {                          \
        fill_##isa(s);                                                         \
        at_##isa##_amx(&s->attention, &s->limits, &s->geometry);               \
    }

static bool always(void) { return true; }

AT_SET_KERNELS(c)
AT_SET_WITH_TILES(amx_emulated)

#if defined __x86_64__
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
AT_SET_KERNELS(avx2)

/* clang 14's __builtin_cpu_supports does not know all of these. */
static unsigned cpuid_word(unsigned leaf, unsigned subleaf, int word) {
    unsigned w[4] = {0};
    return __get_cpuid_count(leaf, subleaf, &w[0], &w[1], &w[2], &w[3]) ? w[word] : 0;
}

static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           (cpuid_word(1, 0, 2) & bit_F16C);
}

#if !defined AT_FEW_SETS
AT_SET_KERNELS(sse2)
AT_SET_KERNELS(avx512)
AT_SET_KERNELS(avx512_vnni)
AT_SET_KERNELS(avx512_bf16)
AT_SET_WITH_TILES(amx)

static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

static bool has_avx512_vnni(void) { return has_avx512() && __builtin_cpu_supports("avx512vnni"); }

static bool has_avx512_bf16(void) { return has_avx512_vnni() && (cpuid_word(7, 1, 0) & 1u << 5); }

/* Linux grants the 8 KiB of tile registers only on request, once per process. */
static bool has_amx(void) {
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };
    const unsigned wanted = 1u << 22 | 1u << 24 | 1u << 25; /* AMX-BF16, AMX-TILE, AMX-INT8 */
    return has_avx512_bf16() && (cpuid_word(7, 0, 3) & wanted) == wanted &&
           syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}
#endif
#elif defined __aarch64__
AT_SET_KERNELS(neon)
#endif

/* Slowest first. A set that is known by name but not compiled for this processor has no functions.
 * amx_emulated is for tests: it runs only where it is asked for by name, and is never chosen or
 * listed. */
static const struct set {
    const char *name;
    int lanes;
    bool (*here)(void);
    void (*fill)(at_simd *);
    bool hidden;
} sets[] = {
    {"amx_emulated", 8, always, fill_amx_emulated_with_tiles, true},
    {"c", 8, always, fill_c, false},
#if defined __x86_64__ && !defined AT_FEW_SETS
    {"sse2", 4, always, fill_sse2, false},
    {"avx2", 8, has_avx2, fill_avx2, false},
    {"avx512", 16, has_avx512, fill_avx512, false},
    {"avx512_vnni", 16, has_avx512_vnni, fill_avx512_vnni, false},
    {"avx512_bf16", 16, has_avx512_bf16, fill_avx512_bf16, false},
    {"amx", 16, has_amx, fill_amx_with_tiles, false},
#else
    {"sse2", 4, NULL, NULL, false},
#if defined __x86_64__
    {"avx2", 8, has_avx2, fill_avx2, false},
#else
    {"avx2", 8, NULL, NULL, false},
#endif
    {"avx512", 16, NULL, NULL, false},
    {"avx512_vnni", 16, NULL, NULL, false},
    {"avx512_bf16", 16, NULL, NULL, false},
    {"amx", 16, NULL, NULL, false},
#endif
#if defined __aarch64__
    {"neon", 4, always, fill_neon, false},
#else
    {"neon", 4, NULL, NULL, false},
#endif
};
enum { SETS = sizeof sets / sizeof sets[0] };

static at_simd in_use;
static at_nn_kernels in_f64;
void at_f64_nn(at_nn_kernels *table);
static attune_status chosen = ATTUNE_OK;
static char why_not[256];
static pthread_once_t once = PTHREAD_ONCE_INIT;
static atomic_bool ready; /* choose() has returned: at_simd_now() is called once per row */

int at_simd_available(const char *names[], int max_names) {
    int n = 0;
    for (int i = 0; i < SETS && n < max_names; i++)
        if (!sets[i].hidden && sets[i].here && sets[i].here()) names[n++] = sets[i].name;
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
    snprintf(why_not, sizeof why_not,
             "ATTUNE_ISA: expected an instruction set of this machine (%s), got '%.32s', which %s",
             list, wanted, known ? "it lacks" : "is unknown");
}

static void choose(void) {
    const char *wanted = getenv("ATTUNE_ISA");
    int best = -1;
    bool known = false;
    if (wanted && !*wanted) wanted = NULL;
    for (int i = 0; i < SETS; i++) {
        if (wanted ? strcmp(wanted, sets[i].name) != 0 : sets[i].hidden) continue;
        known = true;
        if (sets[i].here && sets[i].here()) best = i;
    }
    if (best < 0) {
        refuse(wanted, known);
        best = 1; /* plain C. attune_init() fails from now on; a caller that ignores this
                     still finds a table. */
    }
    at_simd_table(sets[best].name, &in_use);
    at_f64_nn(&in_f64);
    if (chosen == ATTUNE_OK) {
        chosen = at_check_threads();
        if (chosen != ATTUNE_OK) snprintf(why_not, sizeof why_not, "%s", attune_message());
    }
    atomic_store_explicit(&ready, true, memory_order_release);
}

bool at_simd_table(const char *name, at_simd *out) {
    for (int i = 0; i < SETS; i++) {
        if (strcmp(name, sets[i].name) != 0 || !sets[i].here || !sets[i].here()) continue;
        memset(out, 0, sizeof *out);
        out->name = sets[i].name;
        out->lanes = sets[i].lanes;
        sets[i].fill(out);
        return true;
    }
    return false;
}

attune_status attune_init(void) {
    pthread_once(&once, choose);
    return chosen == ATTUNE_OK ? ATTUNE_OK : at_fail(chosen, "%s", why_not);
}

const at_nn_kernels *at_nn_f64(void) {
    pthread_once(&once, choose);
    return &in_f64;
}

const at_simd *at_simd_now(void) {
    if (!atomic_load_explicit(&ready, memory_order_acquire)) pthread_once(&once, choose);
    return &in_use;
}
