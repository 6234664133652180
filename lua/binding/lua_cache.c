/* cache.c - the key-value cache. */
#include <string.h>

#include "binding.h"

static attune_cache **check_handle(lua_State *L, int index) {
    attune_cache **c = luaL_testudata(L, index, CACHE_TYPE);
    if (!c) raise_expected(L, "cache", "a cache", index);
    return c;
}

attune_cache *check_cache(lua_State *L, int index) {
    attune_cache **c = check_handle(L, index);
    if (!*c) raise_error(L, "cache: expected an open cache, got a closed one");
    return *c;
}

static int cache(lua_State *L) {
    static const char *const known[] = {"batch",    "kv_heads", "head_dim", "v_head_dim",
                                        "capacity", "window",   "dtype",    NULL};
    attune_cache_options o = {.batch = 1};
    lua_settop(L, 1);
    if (!lua_istable(L, 1))
        return raise_expected(L, "options",
                              "a table such as {kv_heads = 1, head_dim = 128, capacity = 8192}", 1);
    check_options(L, 1, known);
    option_integer(L, 1, "batch", 1, &o.batch);
    if (!option_integer(L, 1, "kv_heads", 1, &o.kv_heads))
        return raise_error(L, "kv_heads: expected an integer, got nil");
    if (!option_integer(L, 1, "head_dim", 1, &o.head_dim))
        return raise_error(L, "head_dim: expected an integer, got nil");
    option_integer(L, 1, "v_head_dim", 1, &o.v_head_dim);
    option_integer(L, 1, "window", 1, &o.window);
    if (!option_integer(L, 1, "capacity", 1, &o.capacity) && !o.window)
        return raise_error(L, "capacity: expected a number of tokens (or a window), got nil");
    option_dtype(L, 1, &o.dtype);
    attune_cache **c = lua_newuserdatauv(L, sizeof *c, 0);
    *c = NULL;
    luaL_setmetatable(L, CACHE_TYPE);
    RUN(L, attune_cache_new(&o, c));
    return 1;
}

static int c_append(lua_State *L) {
    static const char *const known[] = {"counts", "rotate", NULL};
    attune_position *rotate = NULL;
    lua_settop(L, 4);
    attune_cache *c = check_cache(L, 1);
    attune_tensor *k = check_tensor(L, 2, "k"), *v = check_tensor(L, 3, "v"), *counts = NULL;
    check_options(L, 4, known);
    if (!lua_isnil(L, 4) && lua_getfield(L, 4, "counts") != LUA_TNIL) {
        counts = push_integers(L, lua_gettop(L), "counts");
        if (counts->rank != 1 || counts->shape[0] != attune_cache_describe(c)->batch) {
            return raise_error(L, "counts: expected %I numbers, one for each batch row",
                               (LUAI_UACINT)attune_cache_describe(c)->batch);
        }
    }
    if (!lua_isnil(L, 4) && lua_getfield(L, 4, "rotate") != LUA_TNIL)
        rotate = check_position(L, -1, "rotate");
    RUN(L, attune_cache_append(c, k, v, counts ? counts->data : NULL, rotate));
    lua_settop(L, 1);
    return 1;
}

static int c_attend(lua_State *L) {
    attune_attention_options options;
    lua_settop(L, 3);
    attune_cache *c = check_cache(L, 1);
    attune_tensor *q = check_tensor(L, 2, "q");
    read_attention_options(L, 3, &options, true);
    attune_tensor *o = push_tensor(L), *lse = push_tensor(L);
    RUN(L, attune_cache_attend(c, q, &options, o, lse));
    return 2;
}

static int c_truncate(lua_State *L) {
    attune_cache *c = check_cache(L, 1);
    RUN(L, attune_cache_truncate(c, check_integer(L, 2, "n", 0)));
    lua_settop(L, 1);
    return 1;
}

static int c_reset(lua_State *L) {
    attune_cache_reset(check_cache(L, 1));
    lua_settop(L, 1);
    return 1;
}

static int c_close(lua_State *L) {
    attune_cache **c = check_handle(L, 1);
    attune_cache_close(*c);
    *c = NULL;
    return 0;
}

static int c_tostring(lua_State *L) {
    attune_cache **c = check_handle(L, 1);
    if (!*c) {
        lua_pushliteral(L, "closed cache");
        return 1;
    }
    const attune_cache_options *o = attune_cache_describe(*c);
    lua_pushfstring(L, "%s cache of batch %I, %I kv heads of %I: %I of %I tokens",
                    attune_dtype_name(o->dtype), (LUAI_UACINT)o->batch, (LUAI_UACINT)o->kv_heads,
                    (LUAI_UACINT)o->head_dim, (LUAI_UACINT)attune_cache_length(*c),
                    (LUAI_UACINT)o->capacity);
    return 1;
}

static const luaL_Reg methods[] = {{"append", c_append},     {"attend", c_attend},
                                   {"truncate", c_truncate}, {"reset", c_reset},
                                   {"close", c_close},       {NULL, NULL}};

/* Upvalue 1: the methods. */
static int c_index(lua_State *L) {
    check_handle(L, 1);
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) return 1;
    attune_cache *c = check_cache(L, 1);
    const attune_cache_options *o = attune_cache_describe(c);
    const char *name = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : describe(L, 2);
    static const char *const known[] = {"append", "attend",   "truncate", "reset",  "close",
                                        "length", "lengths",  "nbytes",   "dtype",  "capacity",
                                        "batch",  "kv_heads", "head_dim", "window", NULL};
    if (strcmp(name, "length") == 0)
        lua_pushinteger(L, attune_cache_length(c));
    else if (strcmp(name, "nbytes") == 0)
        lua_pushinteger(L, attune_cache_nbytes(c));
    else if (strcmp(name, "dtype") == 0)
        lua_pushstring(L, attune_dtype_name(o->dtype));
    else if (strcmp(name, "capacity") == 0)
        lua_pushinteger(L, o->capacity);
    else if (strcmp(name, "batch") == 0)
        lua_pushinteger(L, o->batch);
    else if (strcmp(name, "kv_heads") == 0)
        lua_pushinteger(L, o->kv_heads);
    else if (strcmp(name, "head_dim") == 0)
        lua_pushinteger(L, o->head_dim);
    else if (strcmp(name, "window") == 0)
        o->window ? lua_pushinteger(L, o->window) : lua_pushnil(L);
    else if (strcmp(name, "lengths") == 0) {
        lua_createtable(L, (int)o->batch, 0);
        for (int64_t b = 0; b < o->batch; b++) {
            lua_pushinteger(L, attune_cache_row_length(c, b));
            lua_rawseti(L, -2, b + 1);
        }
    } else
        raise_unknown(L, "method or field", name, known);
    return 1;
}

void open_cache(lua_State *L) {
    static const luaL_Reg meta[] = {
        {"__gc", c_close}, {"__close", c_close}, {"__tostring", c_tostring}, {NULL, NULL}};
    luaL_newmetatable(L, CACHE_TYPE);
    luaL_setfuncs(L, meta, 0);
    luaL_newlib(L, methods);
    lua_pushvalue(L, -1);
    lua_setfield(L, -4, "_cache_methods"); /* init.lua wraps attend */
    lua_pushcclosure(L, c_index, 1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
    lua_pushcfunction(L, cache);
    lua_setfield(L, -2, "cache");
}
