/* machine.c - properties of this machine: processor, caches, memory, instruction sets. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/parallel.h"
#include "base/status.h"
#include "machine/machine.h"
#include "simd/dispatch.h"

/* The value of the first line "name : value" in /proc/cpuinfo; "" if there is none. */
static void cpuinfo(const char *name, char *out, size_t size) {
    char *line = NULL;
    size_t capacity = 0;
    FILE *f = fopen("/proc/cpuinfo", "r");
    *out = 0;
    while (f && getline(&line, &capacity, f) > 0) {
        char *colon = strchr(line, ':');
        if (!colon || strncmp(line, name, strlen(name)) != 0) continue;
        snprintf(out, size, "%s", colon + (colon[1] == ' ' ? 2 : 1));
        out[strcspn(out, "\n")] = 0;
        break;
    }
    free(line);
    if (f) fclose(f);
}

/* The number that a file of the kernel holds, in bytes if it ends in K or M; 0: none. */
static int64_t number_in(const char *path) {
    FILE *f = fopen(path, "r");
    char text[64] = "";
    if (!f) return 0;
    if (!fgets(text, sizeof text, f)) text[0] = 0;
    fclose(f);
    char *end;
    int64_t n = strtoll(text, &end, 10);
    return *end == 'K' ? n << 10 : *end == 'M' ? n << 20 : n;
}

/* The cache of the first processor stands for all. */
int64_t at_cache_bytes(int level) {
    for (int i = 0; i < 8; i++) {
        char path[96], type[32] = "";
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/level", i);
        if (number_in(path) != level) continue;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/type", i);
        FILE *f = fopen(path, "r");
        if (f && !fgets(type, sizeof type, f)) type[0] = 0;
        if (f) fclose(f);
        if (type[0] == 'I') continue;
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu0/cache/index%d/size", i);
        return number_in(path);
    }
    return 0;
}

static int64_t memory_bytes(void) {
    int64_t ram = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
    int64_t limit = number_in("/sys/fs/cgroup/memory.max"); /* "max" reads as 0 */
    if (limit == 0) limit = number_in("/sys/fs/cgroup/memory/memory.limit_in_bytes");
    return limit > 0 && limit < ram ? limit : ram;
}

static void features_here(char *out, size_t size) {
    static const char *const asked_for[] = {
        "sse2",     "avx2",     "fma",         "f16c",        "avx512f",     "avx512bw",
        "avx512dq", "avx512vl", "avx512_bf16", "avx512_vnni", "avx512_fp16", "amx_tile",
        "amx_bf16", "amx_int8", "asimd",       "bf16",        "i8mm"};
    char flags[8192];
    cpuinfo("flags", flags + 1, sizeof flags - 2);
    if (!flags[1]) cpuinfo("Features", flags + 1, sizeof flags - 2);
    flags[0] = ' ';
    strcat(flags, " ");
    *out = 0;
    for (size_t i = 0; i < sizeof asked_for / sizeof *asked_for; i++) {
        char word[32];
        snprintf(word, sizeof word, " %s ", asked_for[i]);
        if (!strstr(flags, word)) continue;
        size_t used = strlen(out);
        snprintf(out + used, size - used, "%s%s", used ? " " : "", asked_for[i]);
    }
}

attune_status attune_machine(attune_machine_info *out) {
    memset(out, 0, sizeof *out);
    AT_TRY(attune_init());
    cpuinfo("model name", out->cpu, sizeof out->cpu);
    if (!out->cpu[0]) snprintf(out->cpu, sizeof out->cpu, "unknown");
    out->cores = at_cores();
    out->l1 = at_cache_bytes(1);
    out->l2 = at_cache_bytes(2);
    out->l3 = at_cache_bytes(3);
    out->memory = memory_bytes();
    out->isa = at_simd_now()->name;
    out->isas = at_simd_available(out->isa_names, 8);
    features_here(out->features, sizeof out->features);
    return ATTUNE_OK;
}
