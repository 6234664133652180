/* lua_files.c - loading and saving named tensors. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "binding.h"

#define ARCHIVE_TYPE "attune.archive"

/* An archive that the collector closes when an error ends the call early. */
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

/* ---- tensors that were not read -------------------------------------------------------------- */

/* Stands in the table of attune.load for a tensor of a dtype that attune lacks: it can be listed,
 * and any other use is an error. User value 1: its name. */
typedef struct unread {
    char dtype[24];
    int rank;
    int64_t shape[ATTUNE_MAX_RANK];
} unread;

static void push_unread(lua_State *L, const attune_named_tensor *t) {
    unread *u = lua_newuserdatauv(L, sizeof *u, 1);
    memset(u, 0, sizeof *u);
    snprintf(u->dtype, sizeof u->dtype, "%s", t->unread);
    u->rank = t->tensor.rank;
    memcpy(u->shape, t->tensor.shape, sizeof u->shape);
    lua_pushstring(L, t->name);
    lua_setiuservalue(L, -2, 1);
    luaL_setmetatable(L, UNREAD_TYPE);
}

static int u_index(lua_State *L) {
    const unread *u = luaL_checkudata(L, 1, UNREAD_TYPE);
    const char *key = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : "";
    if (strcmp(key, "dtype") == 0) {
        lua_pushstring(L, u->dtype);
        return 1;
    }
    if (strcmp(key, "shape") == 0) {
        lua_createtable(L, u->rank, 0);
        for (int i = 0; i < u->rank; i++) {
            lua_pushinteger(L, u->shape[i]);
            lua_rawseti(L, -2, i + 1);
        }
        return 1;
    }
    lua_getiuservalue(L, 1, 1);
    return raise_error(L,
                       "tensor '%s': dtype %s cannot be read; expected F32, F64, BF16, F16, I8, "
                       "I32, I64, BOOL or U8",
                       lua_tostring(L, -1), u->dtype);
}

static int u_tostring(lua_State *L) {
    const unread *u = luaL_checkudata(L, 1, UNREAD_TYPE);
    lua_pushfstring(L, "tensor of dtype %s, which cannot be read", u->dtype);
    return 1;
}

/* ---- load and save --------------------------------------------------------------------------- */

/* A failure of files and disks is not misuse: nil, message, code. */
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
    return check_text(L, index, "path", "a file's name");
}

static int load(lua_State *L) {
    lua_settop(L, 1);
    const char *path = check_path(L, 1);
    attune_archive *a = push_archive(L);
    attune_interrupt_clear();
    core_runs = 1;
    attune_status status = attune_archive_load(path, a);
    core_runs = 0;
    if (status == ATTUNE_EIO || status == ATTUNE_EFORMAT) return failure(L, status);
    if (status != ATTUNE_OK) return raise_status(L, status);
    lua_createtable(L, 0, (int)a->tensors);
    for (int64_t i = 0; i < a->tensors; i++) {
        if (a->tensor[i].unread) {
            push_unread(L, &a->tensor[i]);
        } else {
            attune_tensor *t = push_tensor(L);
            *t = a->tensor[i].tensor;
            a->tensor[i].tensor = (attune_tensor){0}; /* moved to the table */
        }
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

/* How many entries the table at index has; all keys are names. */
static int64_t count_names(lua_State *L, int index, const char *argument) {
    int64_t n = 0;
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING)
            raise_error(L, "%s: expected names as keys, got %s", argument, describe(L, -2));
        check_text(L, -2, argument, "names as keys");
        n++;
    }
    return n;
}

/* Copies the table at index to a list of name, value, name, value .. at `list`, which has room for
 * `count` entries, so that nothing allocates here. Returns how many there are: a finalizer may have
 * changed the table since they were counted. */
static int64_t copy_entries(lua_State *L, int index, int list, int64_t count,
                            const char *argument) {
    int64_t n = 0;
    for (lua_pushnil(L); lua_next(L, index); n++) {
        if (n == count || lua_type(L, -2) != LUA_TSTRING)
            raise_error(L, "%s: expected a table that stays as it is, got more names", argument);
        lua_rawseti(L, list, 2 * n + 2);
        lua_pushvalue(L, -1);
        lua_rawseti(L, list, 2 * n + 1);
    }
    return n;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const attune_named_tensor *)a)->name, ((const attune_named_tensor *)b)->name);
}

static int by_key(const void *a, const void *b) {
    return strcmp(((const attune_text_pair *)a)->key, ((const attune_text_pair *)b)->key);
}

/* Names and tensors of the list at `list`, in the order of the names, so that a file's bytes do not
 * depend on hashing. They are borrowed from the list. */
static void fill_tensors(lua_State *L, int list, attune_archive *a) {
    for (int64_t i = 0; i < a->tensors; i++) {
        lua_rawgeti(L, list, 2 * i + 1);
        lua_rawgeti(L, list, 2 * i + 2);
        const char *name = check_text(L, -2, "tensors", "names as keys");
        a->tensor[i].name = (char *)name;
        a->tensor[i].tensor = *check_tensor(L, -1, name);
        lua_pop(L, 2);
    }
    qsort(a->tensor, (size_t)a->tensors, sizeof *a->tensor, by_name);
}

static void fill_texts(lua_State *L, int list, attune_archive *a) {
    for (int64_t i = 0; i < a->texts; i++) {
        lua_rawgeti(L, list, 2 * i + 1);
        lua_rawgeti(L, list, 2 * i + 2);
        const char *key = check_text(L, -2, "metadata", "names as keys");
        a->text[i].key = (char *)key;
        a->text[i].value = (char *)check_text(L, -1, key, "a text");
        lua_pop(L, 2);
    }
    qsort(a->text, (size_t)a->texts, sizeof *a->text, by_key);
}

static void push_list(lua_State *L, int64_t entries) {
    lua_createtable(L, entries < INT32_MAX / 2 ? (int)(2 * entries) : 0, 0);
}

/* The archive's names, texts and tensors are borrowed from two lists on the stack that no user code
 * can reach; its arrays are userdata. All of it is allocated before the first entry is read. */
static int save(lua_State *L) {
    enum { TENSORS = 4, TEXTS = 5 };
    lua_settop(L, 3);
    const char *path = check_path(L, 1);
    if (!lua_istable(L, 2)) return raise_expected(L, "tensors", "a table {name = tensor}", 2);
    if (!lua_isnil(L, 3) && !lua_istable(L, 3))
        return raise_expected(L, "metadata", "a table {key = text}", 3);
    const int64_t tensors = count_names(L, 2, "tensors");
    const int64_t texts = lua_isnil(L, 3) ? 0 : count_names(L, 3, "metadata");
    push_list(L, tensors);
    push_list(L, texts);
    attune_archive a = {0};
    a.tensor = lua_newuserdatauv(L, (size_t)(tensors + 1) * sizeof *a.tensor, 0);
    a.text = lua_newuserdatauv(L, (size_t)(texts + 1) * sizeof *a.text, 0);
    a.tensors = copy_entries(L, 2, TENSORS, tensors, "tensors");
    if (!lua_isnil(L, 3)) a.texts = copy_entries(L, 3, TEXTS, texts, "metadata");
    fill_tensors(L, TENSORS, &a);
    fill_texts(L, TEXTS, &a);
    attune_interrupt_clear();
    core_runs = 1;
    attune_status status = attune_archive_save(path, &a);
    core_runs = 0;
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
    static const luaL_Reg of_unread[] = {
        {"__index", u_index}, {"__tostring", u_tostring}, {NULL, NULL}};
    luaL_newmetatable(L, UNREAD_TYPE);
    luaL_setfuncs(L, of_unread, 0);
    lua_pop(L, 1);
    luaL_setfuncs(L, functions, 0);
}
