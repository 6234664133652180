/* files.c - loading and saving named tensors. */
#include <string.h>

#include "binding.h"

#define ARCHIVE_TYPE "attune.archive"

/* An archive that the collector closes when an error cuts the way short. */
static attune_archive *push_archive(lua_State *L) {
    attune_archive *a = lua_newuserdatauv(L, sizeof *a, 0);
    memset(a, 0, sizeof *a);
    luaL_setmetatable(L, ARCHIVE_TYPE);
    return a;
}

static int a_close(lua_State *L) {
    attune_archive_close(luaL_checkudata(L, 1, ARCHIVE_TYPE));
    return 0;
}

/* A failure of files and disks is no misuse: nil, message, code. */
static int failure(lua_State *L, attune_status status) {
    lua_pushnil(L);
    lua_pushstring(L, attune_message_from(1));
    if (status == ATTUNE_EIO)
        lua_pushinteger(L, attune_system_error());
    else
        lua_pushstring(L, attune_status_name(status));
    return 3;
}

static const char *check_path(lua_State *L, int index) {
    if (lua_type(L, index) != LUA_TSTRING) raise_expected(L, "path", "a file's name", index);
    return lua_tostring(L, index);
}

static int load(lua_State *L) {
    const char *path = check_path(L, 1);
    lua_settop(L, 1);
    attune_archive *a = push_archive(L);
    attune_status status = attune_archive_load(path, a);
    if (status == ATTUNE_EIO || status == ATTUNE_EFORMAT) return failure(L, status);
    if (status != ATTUNE_OK) return raise_status(L, status);
    lua_createtable(L, 0, (int)a->tensors);
    for (int64_t i = 0; i < a->tensors; i++) {
        attune_tensor *t = push_tensor(L);
        *t = a->tensor[i].tensor;
        a->tensor[i].tensor = (attune_tensor){0}; /* moved: the table's now */
        lua_setfield(L, 3, a->tensor[i].name);
    }
    lua_createtable(L, 0, (int)a->texts);
    for (int64_t i = 0; i < a->texts; i++) {
        lua_pushstring(L, a->text[i].value);
        lua_setfield(L, 4, a->text[i].key);
    }
    attune_archive_close(a);
    return 2;
}

/* The names of a table in their order, so that a file's bytes do not depend on hashing. Pushes a
 * list; returns how many. */
static int64_t push_sorted_names(lua_State *L, int index, const char *argument) {
    int64_t n = 0;
    lua_newtable(L);
    int list = lua_gettop(L);
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING)
            raise_error(L, "%s: expected names as keys, got %s", argument, describe(L, -2));
        lua_pushvalue(L, -2);
        lua_rawseti(L, list, ++n);
    }
    lua_getglobal(L, "table");
    lua_getfield(L, -1, "sort");
    lua_pushvalue(L, list);
    lua_call(L, 1, 0);
    lua_settop(L, list);
    return n;
}

/* The archive's names and tensors are borrowed from the Lua values on the stack; its own two arrays
 * are userdata. */
static int save(lua_State *L) {
    const char *path = check_path(L, 1);
    lua_settop(L, 3);
    if (!lua_istable(L, 2)) return raise_expected(L, "tensors", "a table {name = tensor}", 2);
    if (!lua_isnil(L, 3) && !lua_istable(L, 3))
        return raise_expected(L, "metadata", "a table {key = text}", 3);
    attune_archive a = {0};
    a.tensors = push_sorted_names(L, 2, "tensors");
    a.tensor = lua_newuserdatauv(L, (size_t)(a.tensors + 1) * sizeof *a.tensor, 0);
    for (int64_t i = 0; i < a.tensors; i++) {
        lua_rawgeti(L, 4, i + 1);
        a.tensor[i].name = (char *)lua_tostring(L, -1);
        lua_getfield(L, 2, a.tensor[i].name);
        a.tensor[i].tensor = *check_tensor(L, -1, a.tensor[i].name);
        lua_pop(L, 2);
    }
    if (!lua_isnil(L, 3)) {
        a.texts = push_sorted_names(L, 3, "metadata");
        a.text = lua_newuserdatauv(L, (size_t)(a.texts + 1) * sizeof *a.text, 0);
        for (int64_t i = 0; i < a.texts; i++) {
            lua_rawgeti(L, 6, i + 1);
            a.text[i].key = (char *)lua_tostring(L, -1);
            if (lua_getfield(L, 3, a.text[i].key) != LUA_TSTRING)
                return raise_expected(L, a.text[i].key, "a text", -1);
            a.text[i].value = (char *)lua_tostring(L, -1);
            lua_pop(L, 2);
        }
    }
    attune_status status = attune_archive_save(path, &a);
    if (status == ATTUNE_EIO) return failure(L, status);
    if (status != ATTUNE_OK) return raise_status(L, status);
    lua_pushboolean(L, true);
    return 1;
}

void open_files(lua_State *L) {
    static const luaL_Reg functions[] = {{"load", load}, {"save", save}, {NULL, NULL}};
    luaL_newmetatable(L, ARCHIVE_TYPE);
    lua_pushcfunction(L, a_close);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 1);
    luaL_setfuncs(L, functions, 0);
}
