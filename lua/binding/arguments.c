/* args.c - arguments, options, and what is said when they are wrong. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "binding.h"

/* Pushes "file:line: " of the caller of the core function that runs, or "" where that is C. */
static void push_where(lua_State *L) {
    lua_Debug frame;
    const char *wrapper = NULL;
    bool tail_call = false;
    if (lua_getfield(L, LUA_REGISTRYINDEX, HOOKS) == LUA_TTABLE) {
        lua_getfield(L, -1, "wrapper");
        wrapper = lua_tostring(L, -1); /* stays alive: the hooks hold it */
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    for (int level = 1; lua_getstack(L, level, &frame); level++) {
        lua_getinfo(L, "Slt", &frame);
        if (wrapper && strcmp(frame.source, wrapper) == 0) {
            tail_call = frame.istailcall;
            continue;
        }
        if (frame.currentline > 0) {
            lua_pushfstring(L, "%s:%d: ", frame.short_src, frame.currentline);
            return;
        }
        if (!tail_call) break; /* otherwise the caller is gone: the next Lua function is nearest */
    }
    lua_pushliteral(L, "");
}

int raise_error(lua_State *L, const char *format, ...) {
    va_list arguments;
    push_where(L);
    va_start(arguments, format);
    lua_pushvfstring(L, format, arguments);
    va_end(arguments);
    lua_concat(L, 2);
    return lua_error(L);
}

int raise_status(lua_State *L, attune_status status) {
    if (status == ATTUNE_EINTERRUPT) return raise_error(L, "interrupted!");
    return raise_error(L, "%s", attune_message_from(1));
}

const char *describe(lua_State *L, int index) {
    static _Thread_local char text[160];
    const attune_tensor *t = test_tensor(L, index);
    if (t && !t->data) return "a closed tensor";
    if (t) {
        size_t used = 0;
        for (int i = 0; i < t->rank; i++)
            used += (size_t)snprintf(text + used, sizeof text - used, "%s%lld", i ? "x" : "",
                                     (long long)t->shape[i]);
        snprintf(text + used, sizeof text - used, "%s%s tensor", t->rank ? " " : "scalar ",
                 attune_dtype_name(t->dtype));
        return text;
    }
    switch (lua_type(L, index)) {
    case LUA_TNONE: return "nothing";
    case LUA_TNIL: return "nil";
    case LUA_TBOOLEAN: return lua_toboolean(L, index) ? "true" : "false";
    case LUA_TNUMBER:
        if (lua_isinteger(L, index))
            snprintf(text, sizeof text, "%lld", (long long)lua_tointeger(L, index));
        else
            snprintf(text, sizeof text, "%.14g", lua_tonumber(L, index));
        return text;
    case LUA_TSTRING: snprintf(text, sizeof text, "'%.60s'", lua_tostring(L, index)); return text;
    default: snprintf(text, sizeof text, "a %s", luaL_typename(L, index)); return text;
    }
}

int raise_expected(lua_State *L, const char *name, const char *what, int index) {
    return raise_error(L, "%s: expected %s, got %s", name, what, describe(L, index));
}

int64_t check_integer(lua_State *L, int index, const char *name, int64_t least) {
    int is_integer;
    int64_t n = lua_tointegerx(L, index, &is_integer);
    if (lua_type(L, index) != LUA_TNUMBER || !is_integer)
        raise_expected(L, name, "an integer", index);
    if (n < least)
        raise_error(L, "%s: expected an integer of at least %d, got %I", name, (int)least,
                    (LUAI_UACINT)n);
    return n;
}

double check_number(lua_State *L, int index, const char *name) {
    if (lua_type(L, index) != LUA_TNUMBER) raise_expected(L, name, "a number", index);
    return lua_tonumber(L, index);
}

/* ---- names ----------------------------------------------------------------------------------- */

enum { TOO_FAR = 100 };

/* Insertions, deletions, changes and swaps of neighbours between two names (Damerau 1964), for
 * names shorter than 40. */
static int distance(const char *a, const char *b) {
    int d[41][41], m = (int)strlen(a), n = (int)strlen(b);
    if (m > 40 || n > 40) return TOO_FAR;
    for (int i = 0; i <= m; i++) {
        for (int j = 0; j <= n; j++) {
            if (i == 0 || j == 0) {
                d[i][j] = i + j;
                continue;
            }
            int best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
            if (d[i - 1][j] + 1 < best) best = d[i - 1][j] + 1;
            if (d[i][j - 1] + 1 < best) best = d[i][j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                d[i - 2][j - 2] + 1 < best)
                best = d[i - 2][j - 2] + 1;
            d[i][j] = best;
        }
    }
    return d[m][n];
}

const char *nearest_name(const char *name, const char *const *known) {
    const char *nearest = NULL;
    int best = 2 + (int)strlen(name) / 3; /* smaller counts */
    if (best > TOO_FAR) best = TOO_FAR;
    for (int i = 0; known[i]; i++) {
        const int d = distance(name, known[i]);
        if (d >= best) continue;
        best = d;
        nearest = known[i];
    }
    return nearest;
}

int raise_unknown(lua_State *L, const char *what, const char *name, const char *const *known) {
    luaL_Buffer list;
    const char *nearest = nearest_name(name, known);
    if (nearest) {
        return raise_error(L, "unknown %s '%s': did you mean '%s'?", what, name, nearest);
    }
    luaL_buffinit(L, &list);
    for (int i = 0; known[i]; i++) {
        if (i) luaL_addstring(&list, ", ");
        luaL_addstring(&list, known[i]);
    }
    luaL_pushresult(&list);
    return raise_error(L, "unknown %s '%s': expected one of %s", what, name, lua_tostring(L, -1));
}

void check_options(lua_State *L, int index, const char *const *known) {
    if (lua_isnoneornil(L, index)) return;
    if (lua_type(L, index) != LUA_TTABLE)
        raise_expected(L, "options", "a table of named fields", index);
    index = lua_absindex(L, index);
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING)
            raise_error(L, "options: expected named fields, got %s as a name", describe(L, -2));
        const char *name = lua_tostring(L, -2);
        int i = 0;
        while (known[i] && strcmp(known[i], name) != 0) i++;
        if (!known[i]) raise_unknown(L, "option", name, known);
    }
}

/* Pushes the field; false and nothing pushed where it is absent. */
static bool push_option(lua_State *L, int index, const char *name) {
    if (lua_isnoneornil(L, index)) return false;
    if (lua_getfield(L, index, name) != LUA_TNIL) return true;
    lua_pop(L, 1);
    return false;
}

bool option_integer(lua_State *L, int index, const char *name, int64_t least, int64_t *out) {
    if (!push_option(L, index, name)) return false;
    *out = check_integer(L, -1, name, least);
    lua_pop(L, 1);
    return true;
}

bool option_number(lua_State *L, int index, const char *name, double *out) {
    if (!push_option(L, index, name)) return false;
    *out = check_number(L, -1, name);
    lua_pop(L, 1);
    return true;
}

bool option_boolean(lua_State *L, int index, const char *name, bool *out) {
    if (!push_option(L, index, name)) return false;
    if (!lua_isboolean(L, -1)) raise_expected(L, name, "true or false", -1);
    *out = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return true;
}

bool option_dtype(lua_State *L, int index, attune_dtype *out) {
    if (!push_option(L, index, "dtype")) return false;
    if (lua_type(L, -1) != LUA_TSTRING) raise_expected(L, "dtype", "a name such as 'f32'", -1);
    RUN(L, attune_dtype_parse(lua_tostring(L, -1), out));
    lua_pop(L, 1);
    return true;
}

bool option_choice(lua_State *L, int index, const char *name, const char *const *known, int *out) {
    if (!push_option(L, index, name)) return false;
    if (lua_type(L, -1) != LUA_TSTRING) raise_expected(L, name, "a name", -1);
    int i = 0;
    while (known[i] && strcmp(known[i], lua_tostring(L, -1)) != 0) i++;
    if (!known[i]) raise_unknown(L, name, lua_tostring(L, -1), known);
    *out = i;
    lua_pop(L, 1);
    return true;
}

/* ---- lists ----------------------------------------------------------------------------------- */

int check_shape(lua_State *L, int index, const char *name, int64_t shape[ATTUNE_MAX_RANK]) {
    if (lua_type(L, index) != LUA_TTABLE) raise_expected(L, name, "a shape such as {2, 3}", index);
    int64_t rank = (int64_t)lua_rawlen(L, index);
    if (rank < 1 || rank > ATTUNE_MAX_RANK)
        raise_error(L, "%s: expected from 1 to %d axes, got %d", name, ATTUNE_MAX_RANK, (int)rank);
    for (int i = 0; i < (int)rank; i++) {
        lua_rawgeti(L, index, i + 1);
        shape[i] = check_integer(L, -1, name, 1);
        lua_pop(L, 1);
    }
    return (int)rank;
}

/* Floats that are whole numbers, each. */
static void check_whole(lua_State *L, const attune_tensor *t, const char *name) {
    attune_tensor *wide = push_tensor(L);
    RUN(L, attune_tensor_convert(t, ATTUNE_F64, wide));
    const double *x = wide->data;
    for (int64_t i = 0, n = attune_tensor_count(wide); i < n; i++) {
        if (x[i] >= -0x1p63 && x[i] < 0x1p63 && x[i] == floor(x[i])) continue;
        lua_pushnumber(L, x[i]);
        raise_expected(L, name, "an integer", -1);
    }
    attune_tensor_close(wide);
    lua_pop(L, 1);
}

attune_tensor *push_integers(lua_State *L, int index, const char *name) {
    attune_tensor *t = test_tensor(L, index), *out;
    if (t) {
        check_tensor(L, index, name);
        if (t->dtype == ATTUNE_F32 || t->dtype == ATTUNE_F64 || t->dtype == ATTUNE_BF16 ||
            t->dtype == ATTUNE_F16)
            check_whole(L, t, name);
        out = push_tensor(L);
        RUN(L, attune_tensor_convert(t, ATTUNE_I64, out));
        return out;
    }
    if (lua_type(L, index) != LUA_TTABLE)
        raise_expected(L, name, "a list of integers or a tensor", index);
    index = lua_absindex(L, index);
    int64_t shape[2] = {(int64_t)lua_rawlen(L, index), 0};
    if (shape[0] == 0) raise_error(L, "%s: expected at least one integer, got an empty list", name);
    const bool nested = lua_rawgeti(L, index, 1) == LUA_TTABLE;
    if (nested) shape[1] = (int64_t)lua_rawlen(L, -1);
    lua_pop(L, 1);
    if (nested && shape[1] == 0)
        raise_error(L, "%s: expected at least one integer a row, got an empty list", name);
    out = push_tensor(L);
    RUN(L, attune_tensor_new(ATTUNE_I64, nested ? 2 : 1, shape, out));
    int64_t *to = out->data;
    for (int64_t i = 0; i < shape[0]; i++) {
        lua_rawgeti(L, index, i + 1);
        if (!nested) {
            *to++ = check_integer(L, -1, name, INT64_MIN);
        } else {
            if (lua_type(L, -1) != LUA_TTABLE || (int64_t)lua_rawlen(L, -1) != shape[1])
                raise_error(L, "%s: expected lists of %d integers each, got %s", name,
                            (int)shape[1], describe(L, -1));
            for (int64_t j = 0; j < shape[1]; j++) {
                lua_rawgeti(L, -1, j + 1);
                *to++ = check_integer(L, -1, name, INT64_MIN);
                lua_pop(L, 1);
            }
        }
        lua_pop(L, 1);
    }
    return out;
}
