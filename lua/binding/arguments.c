/* arguments.c - arguments, options, and the messages about wrong ones. */
#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "binding.h"

/* Pushes the folder of the Lua library as sources name it, "@/usr/share/lua/5.4/attune/"; "" before
 * the library is loaded. The hooks keep the string alive. */
static const char *library_folder(lua_State *L) {
    const char *folder = "";
    if (lua_getfield(L, LUA_REGISTRYINDEX, HOOKS) == LUA_TTABLE) {
        if (lua_getfield(L, -1, "library") == LUA_TSTRING) folder = lua_tostring(L, -1);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return folder;
}

/* Pushes "file:line: " of the caller of the core function that runs, or "" where that is C. The
 * library's own functions are not callers: the user's function that called them is. */
static void push_where(lua_State *L) {
    lua_Debug frame;
    const char *folder = library_folder(L);
    bool tail_call = false;
    for (int level = 1; lua_getstack(L, level, &frame); level++) {
        lua_getinfo(L, "Slt", &frame);
        if (*folder && strncmp(frame.source, folder, strlen(folder)) == 0) {
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

/* The message is formatted before anything else runs: its arguments may lie in buffers that other
 * calls write. */
int raise_error(lua_State *L, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    lua_pushvfstring(L, format, arguments);
    va_end(arguments);
    push_where(L);
    lua_insert(L, -2);
    lua_concat(L, 2);
    return lua_error(L);
}

int raise_status(lua_State *L, attune_status status) {
    if (status == ATTUNE_EINTERRUPT) return raise_error(L, "interrupted!");
    return raise_error(L, "%s", attune_message_from(1));
}

static const char *describe_tensor(const attune_tensor *t, char *text, size_t size) {
    size_t used = 0;
    for (int i = 0; i < t->rank; i++) {
        used += (size_t)snprintf(text + used, size - used, "%s%lld", i ? "x" : "",
                                 (long long)t->shape[i]);
    }
    snprintf(text + used, size - used, "%s%s tensor", t->rank ? " " : "scalar ",
             attune_dtype_name(t->dtype));
    return text;
}

const char *describe(lua_State *L, int index) {
    static _Thread_local char text[200];
    bool is_open = false;
    const handle_kind *kind = kind_at(L, index, &is_open);
    if (kind == &tensor_kind && is_open)
        return describe_tensor(test_tensor(L, index), text, sizeof text);
    if (kind) {
        snprintf(text, sizeof text, "a %s%s", is_open ? "" : "closed ", kind->noun);
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
    default:
        if (luaL_testudata(L, index, UNREAD_TYPE)) return "a tensor of a dtype that cannot be read";
        snprintf(text, sizeof text, "a %s", lua_typename(L, lua_type(L, index)));
        return text;
    }
}

int raise_expected(lua_State *L, const char *name, const char *what, int index) {
    return raise_error(L, "%s: expected %s, got %s", name, what, describe(L, index));
}

void refuse_further(lua_State *L, int count, const char *what) {
    for (int i = count + 1; i <= lua_gettop(L); i++)
        if (!lua_isnil(L, i))
            raise_error(L, "%s, got a further argument, %s", what, describe(L, i));
}

bool is_text(lua_State *L, int index, const char *text) {
    size_t size;
    if (lua_type(L, index) != LUA_TSTRING) return false;
    const char *own = lua_tolstring(L, index, &size);
    return strlen(text) == size && memcmp(own, text, size) == 0;
}

const char *check_text(lua_State *L, int index, const char *name, const char *what) {
    size_t size;
    if (lua_type(L, index) != LUA_TSTRING) raise_expected(L, name, what, index);
    const char *text = lua_tolstring(L, index, &size);
    if (strlen(text) != size)
        raise_error(L, "%s: expected %s without zero bytes, got one after '%s'", name, what, text);
    return text;
}

int64_t check_integer(lua_State *L, int index, const char *name, int64_t min) {
    int is_integer;
    int64_t n = lua_tointegerx(L, index, &is_integer);
    if (lua_type(L, index) != LUA_TNUMBER || !is_integer)
        raise_expected(L, name, "an integer", index);
    if (n < min)
        raise_error(L, "%s: expected an integer of at least %d, got %I", name, (int)min,
                    (LUAI_UACINT)n);
    return n;
}

double check_number(lua_State *L, int index, const char *name) {
    if (lua_type(L, index) != LUA_TNUMBER) raise_expected(L, name, "a number", index);
    return lua_tonumber(L, index);
}

bool is_exact_integer(lua_State *L, int index, attune_dtype dtype) {
    return dtype == ATTUNE_I64 && lua_isinteger(L, index);
}

attune_tensor *push_typed_operand(lua_State *L, int index, const char *name, attune_dtype dtype) {
    if (test_tensor(L, index)) {
        lua_pushvalue(L, index);
        return check_tensor(L, index, name);
    }
    const double number = check_number(L, index, name);
    if (at_is_integer(dtype) && number != floor(number))
        raise_expected(L, name, "an integer to go with integers", index);
    attune_tensor *t = push_tensor(L);
    RUN(L, attune_tensor_new(dtype, 0, NULL, t));
    RUN(L, attune_tensor_fill(t, number));
    if (is_exact_integer(L, index, dtype)) *(int64_t *)t->data = lua_tointeger(L, index);
    return t;
}

int push_integer(lua_State *L, int64_t n) {
    lua_pushinteger(L, n);
    return 1;
}

/* ---- names ----------------------------------------------------------------------------------- */

enum { TOO_FAR = 100 };

/* Insertions, deletions, changes and swaps of neighbours between two names (Damerau 1964), for
 * names shorter than 40. */
static int distance(const char *a, const char *b) {
    if (strlen(a) > 40 || strlen(b) > 40) return TOO_FAR;
    const int m = (int)strlen(a), n = (int)strlen(b);
    int d[41][41];
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
    const size_t limit = 2 + strlen(name) / 3;
    int best = limit < TOO_FAR ? (int)limit : TOO_FAR; /* smaller counts */
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

int check_choice(lua_State *L, int index, const char *name, const char *const *known) {
    if (lua_type(L, index) != LUA_TSTRING) raise_expected(L, name, "a name", index);
    for (int i = 0; known[i]; i++)
        if (is_text(L, index, known[i])) return i;
    raise_unknown(L, name, lua_tostring(L, index), known);
    return -1;
}

attune_dtype check_dtype(lua_State *L, int index) {
    attune_dtype dtype = ATTUNE_F32;
    const char *name = check_text(L, index, "dtype", "a name such as 'f32'");
    RUN(L, attune_dtype_parse(name, &dtype));
    return dtype;
}

/* ---- options --------------------------------------------------------------------------------- */

/* Raises where a field that is not there would be asked of the metatable. */
static void check_plain(lua_State *L, int index) {
    static const char *const answers[] = {"__index", "__pairs"};
    for (int i = 0; i < 2; i++) {
        if (luaL_getmetafield(L, index, answers[i]) == LUA_TNIL) continue;
        raise_error(L, "options: expected a plain table, got one whose metatable has %s",
                    answers[i]);
    }
}

static int known_index(lua_State *L, int index, const char *const *known) {
    for (int i = 0; known[i]; i++)
        if (is_text(L, index, known[i])) return i;
    return -1;
}

options read_options(lua_State *L, int index, const char *const *known) {
    return read_options_or(L, index, known, NULL);
}

options read_options_or(lua_State *L, int index, const char *const *known, refuse_option refuse) {
    options o = {.known = known, .first = lua_gettop(L) + 1};
    int count = 0;
    while (known[count]) count++;
    luaL_checkstack(L, count + LUA_MINSTACK, "options");
    if (!lua_isnoneornil(L, index) && lua_type(L, index) != LUA_TTABLE)
        raise_expected(L, "options", "a table of named fields", index);
    lua_settop(L, o.first - 1 + count);
    if (lua_isnoneornil(L, index)) return o;
    check_plain(L, index);
    /* Nothing in this loop allocates, so the table stays as it is. */
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING)
            raise_error(L, "options: expected named fields, got %s as a name", describe(L, -2));
        const int i = known_index(L, -2, known);
        if (i < 0 && refuse) refuse(L, lua_tostring(L, -2), lua_gettop(L));
        if (i < 0) raise_unknown(L, "option", lua_tostring(L, -2), known);
        lua_copy(L, -1, o.first + i);
    }
    return o;
}

int option(const options *o, const char *name) {
    int i = 0;
    while (o->known[i] && strcmp(o->known[i], name) != 0) i++;
    assert(o->known[i]);
    return o->first + i;
}

bool option_integer(lua_State *L, const options *o, const char *name, int64_t min, int64_t *out) {
    const int index = option(o, name);
    if (lua_isnil(L, index)) return false;
    *out = check_integer(L, index, name, min);
    return true;
}

bool option_number(lua_State *L, const options *o, const char *name, double *out) {
    const int index = option(o, name);
    if (lua_isnil(L, index)) return false;
    *out = check_number(L, index, name);
    return true;
}

bool option_boolean(lua_State *L, const options *o, const char *name, bool *out) {
    const int index = option(o, name);
    if (lua_isnil(L, index)) return false;
    if (!lua_isboolean(L, index)) raise_expected(L, name, "true or false", index);
    *out = lua_toboolean(L, index);
    return true;
}

bool option_dtype(lua_State *L, const options *o, attune_dtype *out) {
    const int index = option(o, "dtype");
    if (lua_isnil(L, index)) return false;
    *out = check_dtype(L, index);
    return true;
}

bool option_choice(lua_State *L, const options *o, const char *name, const char *const *known,
                   int *out) {
    const int index = option(o, name);
    if (lua_isnil(L, index)) return false;
    *out = check_choice(L, index, name, known);
    return true;
}

attune_tensor *option_tensor(lua_State *L, const options *o, const char *name) {
    const int index = option(o, name);
    return lua_isnil(L, index) ? NULL : check_tensor(L, index, name);
}

attune_position *option_position(lua_State *L, const options *o, const char *name) {
    const int index = option(o, name);
    return lua_isnil(L, index) ? NULL : check_position(L, index, name);
}

int64_t required_integer(lua_State *L, const options *o, const char *name) {
    int64_t n = 0;
    if (!option_integer(L, o, name, 1, &n))
        raise_error(L, "%s: expected an integer, got nil", name);
    return n;
}

/* ---- lists ----------------------------------------------------------------------------------- */

int check_shape(lua_State *L, int index, const char *name, int64_t shape[ATTUNE_MAX_RANK]) {
    if (lua_type(L, index) != LUA_TTABLE) raise_expected(L, name, "a shape such as {2, 3}", index);
    const int64_t rank = (int64_t)lua_rawlen(L, index);
    if (rank < 1 || rank > ATTUNE_MAX_RANK)
        raise_error(L, "%s: expected from 1 to %d axes, got %d", name, ATTUNE_MAX_RANK, (int)rank);
    for (int i = 0; i < (int)rank; i++) {
        lua_rawgeti(L, index, i + 1);
        shape[i] = check_integer(L, -1, name, 1);
        lua_pop(L, 1);
    }
    return (int)rank;
}

/* Every element is a whole number. */
static void check_whole(lua_State *L, const attune_tensor *t, const char *name) {
    attune_tensor *f64 = push_tensor(L);
    RUN(L, attune_tensor_convert(t, ATTUNE_F64, f64));
    const double *x = f64->data;
    for (int64_t i = 0, n = attune_tensor_count(f64); i < n; i++) {
        if (x[i] >= -0x1p63 && x[i] < 0x1p63 && x[i] == floor(x[i])) continue;
        lua_pushnumber(L, x[i]);
        raise_expected(L, name, "an integer", -1);
    }
    attune_tensor_close(f64);
    lua_pop(L, 1);
}

attune_tensor *push_integers(lua_State *L, int index, const char *name) {
    attune_tensor *t = test_tensor(L, index), *out;
    if (t) {
        check_tensor(L, index, name);
        if (at_is_float(t->dtype)) check_whole(L, t, name);
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
        raise_error(L, "%s: expected at least one integer per row, got an empty list", name);
    out = push_tensor(L);
    RUN(L, attune_tensor_new(ATTUNE_I64, nested ? 2 : 1, shape, out));
    int64_t *to = out->data;
    for (int64_t i = 0; i < shape[0]; i++) {
        lua_rawgeti(L, index, i + 1);
        if (!nested) {
            *to++ = check_integer(L, -1, name, INT64_MIN);
        } else {
            if (lua_type(L, -1) != LUA_TTABLE)
                raise_error(L, "%s: expected lists of %d integers each, got %s", name,
                            (int)shape[1], describe(L, -1));
            if ((int64_t)lua_rawlen(L, -1) != shape[1])
                raise_error(L, "%s: expected lists of %d integers each, got one of %d", name,
                            (int)shape[1], (int)lua_rawlen(L, -1));
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
