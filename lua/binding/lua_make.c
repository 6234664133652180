/* lua_make.c - tensors from numbers: lists, constants, ranges, random draws. */
#include <math.h>
#include <string.h>

#include "binding.h"

static uint64_t seed_base, seed_draws;

uint64_t next_seed(void) {
    const uint32_t counter[4] = {(uint32_t)seed_draws, (uint32_t)(seed_draws >> 32), 0, 0x5eed},
                   key[2] = {(uint32_t)seed_base, (uint32_t)(seed_base >> 32)};
    uint32_t word[4];
    attune_philox(counter, key, word);
    seed_draws++;
    return (uint64_t)word[1] << 32 | word[0];
}

static int set_seed(lua_State *L) {
    seed_base = (uint64_t)check_integer(L, 1, "seed", INT64_MIN);
    seed_draws = 0;
    return 0;
}

/* ([base, draws]) -> what they were: where draws without a seed go on */
static int seeds(lua_State *L) {
    const uint64_t base = seed_base, draws = seed_draws;
    if (!lua_isnoneornil(L, 1)) {
        seed_base = (uint64_t)check_integer(L, 1, "base", INT64_MIN);
        seed_draws = (uint64_t)check_integer(L, 2, "draws", INT64_MIN);
    }
    lua_pushinteger(L, (lua_Integer)base);
    lua_pushinteger(L, (lua_Integer)draws);
    return 2;
}

static uint64_t option_seed(lua_State *L, const options *given) {
    int64_t seed;
    return option_integer(L, given, "seed", INT64_MIN, &seed) ? (uint64_t)seed : next_seed();
}

/* A tensor of zeros, of the shape at 1 and the dtype of the options. */
static attune_tensor *push_shaped(lua_State *L, const options *given) {
    int64_t shape[ATTUNE_MAX_RANK];
    attune_dtype dtype = ATTUNE_F32;
    const int rank = check_shape(L, 1, "shape", shape);
    option_dtype(L, given, &dtype);
    attune_tensor *t = push_tensor(L);
    RUN(L, attune_tensor_new(dtype, rank, shape, t));
    return t;
}

static const char *const only_dtype[] = {"dtype", NULL};

static int zeros(lua_State *L) {
    lua_settop(L, 2);
    const options given = read_options(L, 2, only_dtype);
    push_shaped(L, &given);
    return 1;
}

static int ones(lua_State *L) {
    lua_settop(L, 2);
    const options given = read_options(L, 2, only_dtype);
    attune_tensor *t = push_shaped(L, &given);
    RUN(L, attune_tensor_fill(t, 1));
    return 1;
}

static int full(lua_State *L) {
    lua_settop(L, 3);
    const double value = check_number(L, 2, "value");
    const options given = read_options(L, 3, only_dtype);
    attune_tensor *t = push_shaped(L, &given);
    RUN(L, attune_tensor_fill(t, value));
    if (is_exact_integer(L, 2, t->dtype)) {
        int64_t *to = t->data;
        for (int64_t i = 0, count = attune_tensor_count(t); i < count; i++)
            to[i] = lua_tointeger(L, 2);
    }
    return 1;
}

/* (n), (first, last) or (first, last, step), and options. */
static int arange(lua_State *L) {
    double first = 0, last, step = 1;
    const int top = lua_gettop(L), numbers = top > 0 && lua_istable(L, top) ? top - 1 : top;
    if (numbers > 3)
        return raise_error(L, "step: expected at most 3 numbers and options, got %d numbers",
                           numbers);
    const options given = read_options(L, numbers + 1, only_dtype);
    if (numbers <= 1) {
        last = (double)check_integer(L, 1, "n", 1) - 1;
    } else {
        first = check_number(L, 1, "first");
        last = check_number(L, 2, "last");
        if (numbers > 2) step = check_number(L, 3, "step");
        if (step == 0 || !isfinite(step))
            return raise_expected(L, "step", "a number other than 0", 3);
    }
    const double count = floor((last - first) / step + 1e-9) + 1;
    if (!(count >= 1))
        return raise_error(L,
                           "last: expected a range that holds its first number, got %f to %f by %f",
                           first, last, step);
    if (count > 0x1p40) return raise_error(L, "last: expected at most 2^40 numbers, got %f", count);
    const int64_t shape[1] = {(int64_t)count};
    attune_dtype dtype = ATTUNE_F32;
    option_dtype(L, &given, &dtype);
    attune_tensor *t = push_tensor(L);
    RUN(L, attune_tensor_new(dtype, 1, shape, t));
    RUN(L, attune_tensor_arange(t, first, step));
    return 1;
}

static int randn(lua_State *L) {
    static const char *const known[] = {"seed", "dtype", "mean", "std", NULL};
    double mean = 0, std = 1;
    lua_settop(L, 2);
    const options given = read_options(L, 2, known);
    option_number(L, &given, "mean", &mean);
    option_number(L, &given, "std", &std);
    attune_tensor *t = push_shaped(L, &given);
    const uint64_t seed = option_seed(L, &given);
    RUN(L, attune_tensor_normal(t, seed, mean, std));
    return 1;
}

static int uniform(lua_State *L) {
    static const char *const known[] = {"seed", "dtype", "low", "high", NULL};
    double low = 0, high = 1;
    lua_settop(L, 2);
    const options given = read_options(L, 2, known);
    option_number(L, &given, "low", &low);
    option_number(L, &given, "high", &high);
    attune_tensor *t = push_shaped(L, &given);
    const uint64_t seed = option_seed(L, &given);
    RUN(L, attune_tensor_uniform(t, seed, low, high));
    return 1;
}

/* ---- from lists ------------------------------------------------------------------------------ */

static int infer_shape(lua_State *L, int index, int64_t shape[ATTUNE_MAX_RANK]) {
    int rank = 0;
    lua_pushvalue(L, index);
    while (lua_istable(L, -1)) {
        if (rank == ATTUNE_MAX_RANK)
            raise_error(L, "data: expected at most %d axes, got more", ATTUNE_MAX_RANK);
        shape[rank] = (int64_t)lua_rawlen(L, -1);
        if (shape[rank] == 0)
            raise_error(L, "data: expected at least one number, got an empty list");
        rank++;
        luaL_checkstack(L, 2, "data");
        lua_rawgeti(L, -1, 1);
        lua_remove(L, -2);
    }
    lua_pop(L, 1);
    return rank;
}

/* index counts the elements of t in row-major order. */
static void store_number(lua_State *L, attune_tensor *t, int64_t index) {
    if (lua_type(L, -1) != LUA_TNUMBER) raise_expected(L, "data", "numbers", -1);
    if (t->dtype == ATTUNE_I64 && lua_isinteger(L, -1)) {
        ((int64_t *)t->data)[index] = lua_tointeger(L, -1);
        return;
    }
    attune_tensor flat = *t;
    flat.rank = 1;
    flat.shape[0] = attune_tensor_count(t);
    flat.stride[0] = 1;
    attune_tensor_set(&flat, &index, lua_tonumber(L, -1));
}

/* Fills t, in row-major order, from the nested list on top of the stack, whose extents were found
 * to be `shape`. Lists that are not so, or no longer, are refused. */
static void store_nested(lua_State *L, attune_tensor *t, const int64_t *shape, int rank, int axis,
                         int64_t *index) {
    if (axis == rank) {
        store_number(L, t, (*index)++);
        return;
    }
    if (!lua_istable(L, -1) || (int64_t)lua_rawlen(L, -1) != shape[axis]) {
        raise_error(L, "data: expected lists of %I in axis %d, got %s%s", (LUAI_UACINT)shape[axis],
                    axis + 1, lua_istable(L, -1) ? "one of another length, " : "",
                    lua_istable(L, -1) ? lua_pushfstring(L, "%I", (LUAI_UACINT)lua_rawlen(L, -1))
                                       : describe(L, -1));
    }
    luaL_checkstack(L, 3, "data");
    for (int64_t i = 0; i < shape[axis]; i++) {
        lua_rawgeti(L, -1, i + 1);
        store_nested(L, t, shape, rank, axis + 1, index);
        lua_pop(L, 1);
    }
}

/* Whether shape has `count` elements. */
static bool holds(int rank, const int64_t *shape, int64_t count) {
    for (int i = 0; i < rank; i++) {
        if (count % shape[i] != 0) return false;
        count /= shape[i];
    }
    return count == 1;
}

static int tensor(lua_State *L) {
    static const char *const known[] = {"shape", "dtype", NULL};
    int64_t listed[ATTUNE_MAX_RANK], shape[ATTUNE_MAX_RANK], index = 0, count = 1;
    attune_dtype dtype = ATTUNE_F32;
    lua_settop(L, 2);
    if (!lua_istable(L, 1))
        return raise_error(L,
                           "data: expected a table of numbers, such as {{1, 2}, {3, 4}}, got %s%s",
                           lua_type(L, 1) == LUA_TSTRING ? "the string " : "", describe(L, 1));
    const options given = read_options(L, 2, known);
    option_dtype(L, &given, &dtype);
    const int rank = infer_shape(L, 1, listed);
    int wanted = rank;
    memcpy(shape, listed, sizeof shape);
    if (!lua_isnil(L, option(&given, "shape"))) {
        wanted = check_shape(L, option(&given, "shape"), "shape", shape);
        for (int i = 0; i < rank; i++) count *= listed[i];
        if (!holds(wanted, shape, count))
            return raise_error(L, "shape: expected one of %I elements, as data has, got another",
                               (LUAI_UACINT)count);
    }
    attune_tensor *t = push_tensor(L);
    RUN(L, attune_tensor_new(dtype, wanted, shape, t));
    lua_pushvalue(L, 1);
    store_nested(L, t, listed, rank, 0, &index);
    lua_pop(L, 1);
    return 1;
}

/* core._rows(lists, width, counting) -> i64 [lists, width]: each list, followed by zeros, or where
 * counting by 0, 1, 2 ..; for attune.pack. */
static int rows(lua_State *L) {
    lua_settop(L, 3);
    luaL_checktype(L, 1, LUA_TTABLE);
    const int64_t shape[2] = {(int64_t)lua_rawlen(L, 1), check_integer(L, 2, "width", 1)};
    const bool counting = lua_toboolean(L, 3);
    attune_tensor *t = push_tensor(L);
    RUN(L, attune_tensor_new(ATTUNE_I64, 2, shape, t));
    int64_t *to = t->data;
    for (int64_t r = 0; r < shape[0]; r++, to += shape[1]) {
        lua_rawgeti(L, 1, r + 1);
        luaL_checktype(L, -1, LUA_TTABLE);
        const int64_t size = (int64_t)lua_rawlen(L, -1);
        if (size > shape[1])
            return raise_error(L, "width: expected at least %I, got %I", (LUAI_UACINT)size,
                               (LUAI_UACINT)shape[1]);
        for (int64_t i = 0; i < size; i++) {
            lua_rawgeti(L, -1, i + 1);
            to[i] = check_integer(L, -1, "lists", INT64_MIN);
            lua_pop(L, 1);
        }
        for (int64_t i = size; i < shape[1] && counting; i++) to[i] = i - size;
        lua_pop(L, 1);
    }
    return 1;
}

void open_make(lua_State *L) {
    static const luaL_Reg functions[] = {
        {"tensor", tensor}, {"zeros", zeros},  {"ones", ones},       {"full", full},
        {"arange", arange}, {"randn", randn},  {"uniform", uniform}, {"set_seed", set_seed},
        {"_rows", rows},    {"_seeds", seeds}, {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
}
