/* lua_json.c - JSON for stored records, by jansson.
 *
 * core._json_encode(value) -> text
 *   One line, keys sorted. Integers stay integers. Doubles have 17 digits and a fraction or an
 *   exponent, so that they come back the same. JSON has no NaN and no infinities: they are written
 *   as the strings "NaN", "Infinity" and "-Infinity". Bytes that are not UTF-8 become "?".
 *   A table whose keys are 1 .. n is an array; another table is an object with string keys. An
 *   empty table is an object, unless its metatable is core._json_list. core._json_null is null.
 *   Raises on other values and beyond MAX_DEPTH nested tables.
 * core._json_decode(text) -> value, or nil and a message where the text is not JSON
 *   null becomes nil. Empty arrays get the metatable core._json_list.
 */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "binding.h"

#define DOCUMENT_TYPE "attune.json document"
#define LIST_TYPE "attune.json list"

enum { MAX_DEPTH = 200 };

/* What jansson allocates during one call. The collector frees it, whatever raises. */
typedef struct {
    json_t *root;
    char *text;
} document;

static document *push_document(lua_State *L) {
    document *d = lua_newuserdatauv(L, sizeof *d, 0);
    *d = (document){0};
    luaL_setmetatable(L, DOCUMENT_TYPE);
    return d;
}

static int document_free(lua_State *L) {
    document *d = luaL_checkudata(L, 1, DOCUMENT_TYPE);
    json_decref(d->root);
    free(d->text);
    *d = (document){0};
    return 0;
}

static json_t *checked(lua_State *L, json_t *value) {
    if (!value) raise_error(L, "json: out of memory");
    return value;
}

/* ---- encoding -------------------------------------------------------------------------------- */

static bool is_utf8(const char *text, size_t size) {
    json_t *string = json_stringn(text, size);
    json_decref(string);
    return string != NULL;
}

/* Replaces the string on top of the stack by one that is UTF-8. */
static void make_utf8(lua_State *L) {
    size_t size;
    const char *text = lua_tolstring(L, -1, &size);
    luaL_Buffer buffer;
    if (is_utf8(text, size)) return;
    char *out = luaL_buffinitsize(L, &buffer, size);
    for (size_t i = 0; i < size; i++) out[i] = (unsigned char)text[i] < 0x80 ? text[i] : '?';
    luaL_pushresultsize(&buffer, size);
    lua_remove(L, -2);
}

/* The table on top of the stack is an array: its keys are 1 .. n. */
static bool is_array(lua_State *L) {
    const lua_Integer size = (lua_Integer)lua_rawlen(L, -1);
    if (size == 0) {
        if (!lua_getmetatable(L, -1)) return false;
        luaL_getmetatable(L, LIST_TYPE);
        const bool is_list = lua_rawequal(L, -1, -2);
        lua_pop(L, 2);
        return is_list;
    }
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
        const lua_Integer key = lua_isinteger(L, -2) ? lua_tointeger(L, -2) : 0;
        if (key >= 1 && key <= size) continue;
        lua_pop(L, 2);
        return false;
    }
    return true;
}

static json_t *encode_number(lua_State *L) {
    if (lua_isinteger(L, -1)) return json_integer(lua_tointeger(L, -1));
    const double x = lua_tonumber(L, -1);
    if (isnan(x)) return json_string("NaN");
    if (isinf(x)) return json_string(x > 0 ? "Infinity" : "-Infinity");
    return json_real(x);
}

/* The value on top of the stack without what it holds: an empty array or object for a table. */
static json_t *encode_shallow(lua_State *L) {
    size_t size;
    switch (lua_type(L, -1)) {
    case LUA_TTABLE: return is_array(L) ? json_array() : json_object();
    case LUA_TNUMBER: return encode_number(L);
    case LUA_TBOOLEAN: return json_boolean(lua_toboolean(L, -1));
    case LUA_TSTRING: {
        lua_pushvalue(L, -1);
        make_utf8(L);
        const char *text = lua_tolstring(L, -1, &size);
        json_t *string = json_stringn(text, size);
        lua_pop(L, 1);
        return string;
    }
    case LUA_TLIGHTUSERDATA:
        if (!lua_touserdata(L, -1)) return json_null();
        break;
    default: break;
    }
    raise_error(L, "json: expected numbers, strings, booleans and tables, got a %s",
                luaL_typename(L, -1));
    return NULL;
}

/* Fills `to` from the table on top of the stack. Each value belongs to its parent before the next
 * call that can raise, so that the document holds everything. */
static void encode_table(lua_State *L, json_t *to, int depth) {
    if (depth > MAX_DEPTH) raise_error(L, "json: expected at most %d nested tables", MAX_DEPTH);
    luaL_checkstack(L, 8, "json");
    if (json_is_array(to)) {
        const lua_Integer size = (lua_Integer)lua_rawlen(L, -1);
        for (lua_Integer i = 1; i <= size; i++) {
            lua_rawgeti(L, -1, i);
            json_t *value = checked(L, encode_shallow(L));
            if (json_array_append_new(to, value) != 0) checked(L, NULL);
            if (lua_istable(L, -1)) encode_table(L, value, depth + 1);
            lua_pop(L, 1);
        }
        return;
    }
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING)
            raise_error(L, "json: expected strings as keys, got %s", describe(L, -2));
        lua_pushvalue(L, -2);
        make_utf8(L);
        lua_insert(L, -2); /* table, key, key in UTF-8, value */
        size_t size;
        const char *key = lua_tolstring(L, -2, &size);
        if (strlen(key) != size) raise_error(L, "json: expected keys without zero bytes");
        json_t *value = checked(L, encode_shallow(L));
        if (json_object_set_new_nocheck(to, key, value) != 0) checked(L, NULL);
        if (lua_istable(L, -1)) encode_table(L, value, depth + 1);
        lua_remove(L, -2);
    }
}

/* Writes each fraction of a JSON text, in place, with the fewest digits that read back as the same
 * number: 0.1 and not 0.10000000000000001. jansson has one number of digits for a whole text. */
static void shorten_fractions(char *text) {
    char *to = text;
    for (const char *from = text; *from;) {
        if (*from == '"') { /* a string is copied as it is */
            *to++ = *from++;
            while (*from && *from != '"') {
                if (*from == '\\' && from[1]) *to++ = *from++;
                *to++ = *from++;
            }
            if (*from) *to++ = *from++;
            continue;
        }
        const size_t size = strspn(from, "+-.0123456789eE");
        char shorter[40] = "";
        if (size > 16 && size < sizeof shorter && memchr(from, '.', size)) {
            const double x = strtod(from, NULL);
            for (int digits = 15; digits <= 16; digits++) {
                snprintf(shorter, sizeof shorter, "%.*g", digits, x);
                if (strtod(shorter, NULL) == x) break;
                shorter[0] = '\0';
            }
            /* Not what another locale wrote, nor what would read back as an integer. */
            if (strspn(shorter, "+-.0123456789e") != strlen(shorter) || !strpbrk(shorter, ".e") ||
                strlen(shorter) >= size)
                shorter[0] = '\0';
        }
        const size_t kept = size > 0 ? size : 1;
        const size_t written = shorter[0] ? strlen(shorter) : kept;
        memmove(to, shorter[0] ? shorter : from, written);
        to += written;
        from += kept;
    }
    *to = '\0';
}

static int json_encode(lua_State *L) {
    const size_t flags = JSON_COMPACT | JSON_SORT_KEYS | JSON_ENCODE_ANY | JSON_REAL_PRECISION(17);
    lua_settop(L, 1);
    document *d = push_document(L);
    lua_pushvalue(L, 1);
    d->root = checked(L, encode_shallow(L));
    if (lua_istable(L, -1)) encode_table(L, d->root, 1);
    d->text = json_dumps(d->root, flags);
    if (!d->text) return raise_error(L, "json: out of memory");
    shorten_fractions(d->text);
    lua_pushstring(L, d->text);
    json_decref(d->root);
    free(d->text);
    *d = (document){0};
    return 1;
}

/* ---- decoding -------------------------------------------------------------------------------- */

/* Pushes a value; keep_null: null as core._json_null. False, and nothing pushed, where it is nested
 * too deeply. */
static bool push_value(lua_State *L, json_t *value, bool keep_null, int depth) {
    size_t i;
    const char *key;
    json_t *item;
    if (depth > MAX_DEPTH) return false;
    luaL_checkstack(L, 4, "json");
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        lua_createtable(L, 0, (int)json_object_size(value));
        json_object_foreach(value, key, item) {
            if (!push_value(L, item, keep_null, depth + 1)) {
                lua_pop(L, 1);
                return false;
            }
            lua_setfield(L, -2, key);
        }
        break;
    case JSON_ARRAY:
        lua_createtable(L, (int)json_array_size(value), 0);
        json_array_foreach(value, i, item) {
            if (!push_value(L, item, keep_null, depth + 1)) {
                lua_pop(L, 1);
                return false;
            }
            lua_rawseti(L, -2, (lua_Integer)i + 1);
        }
        if (json_array_size(value) == 0) luaL_setmetatable(L, LIST_TYPE);
        break;
    case JSON_STRING:
        lua_pushlstring(L, json_string_value(value), json_string_length(value));
        break;
    case JSON_INTEGER: lua_pushinteger(L, json_integer_value(value)); break;
    case JSON_REAL: lua_pushnumber(L, json_real_value(value)); break;
    case JSON_TRUE: lua_pushboolean(L, true); break;
    case JSON_FALSE: lua_pushboolean(L, false); break;
    default:
        if (keep_null) {
            lua_pushlightuserdata(L, NULL);
        } else {
            lua_pushnil(L);
        }
        break;
    }
    return true;
}

static int json_decode(lua_State *L) {
    size_t size;
    json_error_t error;
    lua_settop(L, 2);
    if (lua_type(L, 1) != LUA_TSTRING) return raise_expected(L, "text", "a string", 1);
    const bool keep_null = lua_toboolean(L, 2);
    const char *text = lua_tolstring(L, 1, &size);
    document *d = push_document(L);
    d->root = json_loadb(text, size, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (!d->root) {
        lua_pushnil(L);
        lua_pushfstring(L, "line %d, column %d: %s", error.line, error.column, error.text);
        return 2;
    }
    if (!push_value(L, d->root, keep_null, 0)) {
        lua_pushnil(L);
        lua_pushfstring(L, "expected at most %d nested lists and objects", MAX_DEPTH);
        return 2;
    }
    json_decref(d->root);
    d->root = NULL;
    return 1;
}

void open_json(lua_State *L) {
    static const luaL_Reg functions[] = {
        {"_json_encode", json_encode}, {"_json_decode", json_decode}, {NULL, NULL}};
    luaL_newmetatable(L, DOCUMENT_TYPE);
    lua_pushcfunction(L, document_free);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 1);
    luaL_setfuncs(L, functions, 0);
    luaL_newmetatable(L, LIST_TYPE);
    lua_setfield(L, -2, "_json_list");
    lua_pushlightuserdata(L, NULL);
    lua_setfield(L, -2, "_json_null");
}
