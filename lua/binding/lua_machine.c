/* lua_machine.c - the library as a whole: clock, threads, memory, what the machine is and can do.
 */
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>

#include "binding.h"

#ifndef ATTUNE_BUILD
#define ATTUNE_BUILD "unknown" /* compiler and flags: the Makefile says */
#endif

static int clock_now(lua_State *L) {
    lua_pushnumber(L, attune_clock());
    return 1;
}

static int threads(lua_State *L) {
    int now = 0;
    int64_t n = lua_isnoneornil(L, 1) ? 0 : check_integer(L, 1, "threads", 1);
    RUN(L, attune_threads(n, &now));
    lua_pushinteger(L, now);
    return 1;
}

static int memory(lua_State *L) {
    static const char *const known[] = {"limit", "reset_peak", NULL};
    int64_t limit;
    bool reset = false;
    lua_settop(L, 1);
    const options given = read_options(L, 1, known);
    if (option_integer(L, &given, "limit", 0, &limit)) RUN(L, attune_memory_limit(limit));
    if (option_boolean(L, &given, "reset_peak", &reset) && reset) attune_memory_reset_peak();
    attune_memory_info info = attune_memory();
    lua_createtable(L, 0, 3);
    lua_pushinteger(L, info.bytes);
    lua_setfield(L, -2, "bytes");
    lua_pushinteger(L, info.peak);
    lua_setfield(L, -2, "peak");
    lua_pushinteger(L, info.limit);
    lua_setfield(L, -2, "limit");
    return 1;
}

static void set_integer(lua_State *L, const char *name, int64_t n) {
    lua_pushinteger(L, n);
    lua_setfield(L, -2, name);
}

static int machine(lua_State *L) {
    attune_machine_info info;
    RUN(L, attune_machine(&info));
    lua_newtable(L);
    lua_pushstring(L, info.cpu);
    lua_setfield(L, -2, "cpu");
    lua_pushstring(L, info.isa);
    lua_setfield(L, -2, "isa");
    lua_pushstring(L, info.features);
    lua_setfield(L, -2, "features");
    set_integer(L, "cores", info.cores);
    set_integer(L, "l1", info.l1);
    set_integer(L, "l2", info.l2);
    set_integer(L, "l3", info.l3);
    set_integer(L, "memory", info.memory);
    lua_createtable(L, info.isas, 0);
    for (int i = 0; i < info.isas; i++) {
        lua_pushstring(L, info.isa_names[i]);
        lua_rawseti(L, -2, i + 1);
    }
    lua_setfield(L, -2, "isas");
    return 1;
}

static double seconds_given(lua_State *L, double otherwise) {
    double seconds = lua_isnoneornil(L, 1) ? otherwise : check_number(L, 1, "seconds");
    if (!(seconds > 0 && seconds < 3600))
        raise_expected(L, "seconds", "a number above 0 and below 3600", 1);
    return seconds;
}

static int measure_peak(lua_State *L) {
    static const char *const known[] = {"f32", "bf16", "i8", NULL};
    double rate, seconds = seconds_given(L, 0.2);
    const int i = lua_isnoneornil(L, 2) ? 0 : check_choice(L, 2, "arithmetic", known);
    RUN(L, attune_measure_peak(seconds, (attune_arithmetic)i, &rate));
    lua_pushnumber(L, rate);
    return 1;
}

static int measure_bandwidth(lua_State *L) {
    double rate, seconds = seconds_given(L, 0.2);
    int64_t bytes = lua_isnoneornil(L, 2) ? 0 : check_integer(L, 2, "bytes", 1);
    RUN(L, attune_measure_bandwidth(seconds, bytes, &rate));
    lua_pushnumber(L, rate);
    return 1;
}

/* The memory of the arguments from `first` on, contiguous tensors and caches: at least one. */
static const attune_span *spans_given(lua_State *L, int first, int *count) {
    if (lua_gettop(L) < first) lua_settop(L, first);
    *count = lua_gettop(L) - first + 1;
    attune_span *spans = lua_newuserdatauv(L, (size_t)*count * sizeof *spans, 0);
    for (int i = 0; i < *count; i++) {
        const int index = i + first;
        if (test_handle(L, index, &cache_kind)) {
            spans[i] = attune_cache_memory(check_cache(L, index));
            continue;
        }
        const attune_tensor *t = check_tensor(L, index, "t");
        if (!attune_tensor_is_contiguous(t)) raise_expected(L, "t", "a contiguous tensor", index);
        spans[i] = (attune_span){.data = t->data, .bytes = attune_tensor_nbytes(t)};
    }
    return spans;
}

static int measure_read(lua_State *L) {
    double rate, seconds = seconds_given(L, 0.2);
    int count;
    const attune_span *spans = spans_given(L, 2, &count);
    RUN(L, attune_measure_read(seconds, spans, count, &rate));
    lua_pushnumber(L, rate);
    return 1;
}

static int measure_evict(lua_State *L) {
    int count;
    const attune_span *spans = spans_given(L, 1, &count);
    RUN(L, attune_evict(spans, count));
    return 0;
}

static int measure_sgemm(lua_State *L) {
    double rate, seconds = seconds_given(L, 0.2);
    int64_t n = lua_isnoneornil(L, 2) ? 2048 : check_integer(L, 2, "n", 1);
    RUN(L, attune_measure_sgemm(seconds, n, &rate));
    lua_pushnumber(L, rate);
    return 1;
}

static void read_words(lua_State *L, int index, const char *name, int n, uint32_t *out) {
    if (!lua_istable(L, index) || (int)lua_rawlen(L, index) != n)
        raise_error(L, "%s: expected %d words of 32 bits, got %s", name, n, describe(L, index));
    for (int i = 0; i < n; i++) {
        lua_rawgeti(L, index, i + 1);
        int64_t word = check_integer(L, -1, name, 0);
        if (word > UINT32_MAX)
            raise_error(L, "%s: expected words of 32 bits, got %I", name, (LUAI_UACINT)word);
        out[i] = (uint32_t)word;
        lua_pop(L, 1);
    }
}

static int philox(lua_State *L) {
    uint32_t counter[4], key[2], out[4];
    read_words(L, 1, "counter", 4, counter);
    read_words(L, 2, "key", 2, key);
    attune_philox(counter, key, out);
    lua_createtable(L, 4, 0);
    for (int i = 0; i < 4; i++) {
        lua_pushinteger(L, out[i]);
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

/* For worker processes: they end when the process that started them ends, for whatever reason. */
static int die_with_parent(lua_State *L) {
    (void)L;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    return 0;
}

/* Processors are counted as the kernel does, from 0: nothing but core._pin reads the list. */
static int processors(lua_State *L) {
    cpu_set_t set;
    CPU_ZERO(&set);
    lua_newtable(L);
    if (sched_getaffinity(0, sizeof set, &set) != 0) { /* more than CPU_SETSIZE processors */
        lua_pushinteger(L, 0);
        lua_rawseti(L, -2, 1);
        return 1;
    }
    lua_Integer count = 0;
    for (int i = 0; i < CPU_SETSIZE; i++) {
        if (!CPU_ISSET(i, &set)) continue;
        lua_pushinteger(L, i);
        lua_rawseti(L, -2, ++count);
    }
    return 1;
}

/* core._pin(list) -> whether this process now runs on these processors only. For a worker before it
 * starts threads, which inherit the setting. */
static int pin(lua_State *L) {
    cpu_set_t set;
    CPU_ZERO(&set);
    luaL_checktype(L, 1, LUA_TTABLE);
    const lua_Integer count = (lua_Integer)lua_rawlen(L, 1);
    for (lua_Integer i = 1; i <= count; i++) {
        lua_rawgeti(L, 1, i);
        const int64_t number = check_integer(L, -1, "processor", 0);
        if (number < CPU_SETSIZE) CPU_SET((int)number, &set);
        lua_pop(L, 1);
    }
    lua_pushboolean(L, sched_setaffinity(0, sizeof set, &set) == 0);
    return 1;
}

static int fail_at(lua_State *L) {
    attune_memory_fail_at(check_integer(L, 1, "n", 0));
    return 0;
}

/* core._trim(): gives the system the freed blocks that are kept for reuse */
static int trim(lua_State *L) {
    (void)L;
    attune_memory_trim();
    return 0;
}

void open_machine(lua_State *L) {
    static const luaL_Reg functions[] = {{"clock", clock_now},
                                         {"threads", threads},
                                         {"memory", memory},
                                         {"_trim", trim},
                                         {"machine", machine},
                                         {"philox", philox},
                                         {"_fail_at", fail_at},
                                         {"_die_with_parent", die_with_parent},
                                         {"_processors", processors},
                                         {"_pin", pin},
                                         {NULL, NULL}},
                          measures[] = {{"peak", measure_peak},   {"bandwidth", measure_bandwidth},
                                        {"read", measure_read},   {"evict", measure_evict},
                                        {"sgemm", measure_sgemm}, {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
    luaL_newlib(L, measures);
    lua_setfield(L, -2, "measure");
    lua_pushstring(L, attune_version());
    lua_setfield(L, -2, "version");
    lua_pushliteral(L, ATTUNE_BUILD);
    lua_setfield(L, -2, "build");
}
