/* lua_files.c - files of named tensors: opening one, and loading it whole. Saving: lua_save.c. */
#include <stdio.h>
#include <string.h>

#include "binding.h"

static void push_extents(lua_State *L, int rank, const int64_t *shape) {
    lua_createtable(L, rank, 0);
    for (int i = 0; i < rank; i++) {
        lua_pushinteger(L, shape[i]);
        lua_rawseti(L, -2, i + 1);
    }
}

/* ---- tensors that were not read -------------------------------------------------------------- */

/* Stands in the table of attune.load for a tensor of a dtype that attune lacks: it can be listed,
 * and any other use is an error. User value 1: its name. */
typedef struct unread {
    char dtype[24];
    int rank;
    int64_t shape[ATTUNE_MAX_RANK];
} unread;

static void push_unread(lua_State *L, const attune_stored *t) {
    unread *u = lua_newuserdatauv(L, sizeof *u, 1);
    memset(u, 0, sizeof *u);
    snprintf(u->dtype, sizeof u->dtype, "%s", t->format);
    u->rank = t->rank;
    memcpy(u->shape, t->shape, sizeof u->shape);
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
        push_extents(L, u->rank, u->shape);
        return 1;
    }
    lua_getiuservalue(L, 1, 1);
    return raise_error(L,
                       "tensor '%s': dtype %s cannot be read; expected F32, F64, BF16, F16, I8, "
                       "I32, I64, BOOL, U8, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K or Q6_K",
                       lua_tostring(L, -1), u->dtype);
}

static int u_tostring(lua_State *L) {
    const unread *u = luaL_checkudata(L, 1, UNREAD_TYPE);
    lua_pushfstring(L, "tensor of dtype %s, which cannot be read", u->dtype);
    return 1;
}

/* ---- failures -------------------------------------------------------------------------------- */

/* A failure of files and disks is not misuse: nil, message, code. */
int push_file_failure(lua_State *L, attune_status status) {
    if (status != ATTUNE_EIO && status != ATTUNE_EFORMAT) return raise_status(L, status);
    lua_pushnil(L);
    lua_pushstring(L, attune_message_from(1));
    if (status == ATTUNE_EIO)
        lua_pushinteger(L, attune_system_error());
    else
        lua_pushstring(L, attune_status_name(status));
    return 3;
}

/* ---- open files ------------------------------------------------------------------------------ */

static bool f_is_open(const void *content) { return *(attune_file *const *)content != NULL; }

static void f_close(void *content) {
    attune_file **f = content;
    attune_file_close(*f);
    *f = NULL;
}

static void f_describe(lua_State *L, void *content) {
    const attune_file *f = *(attune_file **)content;
    lua_pushfstring(L, "file of %I tensors", (LUAI_UACINT)attune_file_tensors(f));
}

/* The file of handle 1. A finalizer may close it whenever Lua allocates, so that every loop asks
 * again. */
static attune_file *check_file(lua_State *L) {
    return *(attune_file **)check_open(L, 1, &file_kind, "file");
}

/* Opens path into a new handle, which is pushed. */
static attune_status open_path(lua_State *L, const char *path) {
    attune_file **f = push_handle(L, &file_kind, 0);
    attune_interrupt_clear();
    core_runs = 1;
    const attune_status status = attune_file_open(path, f);
    core_runs = 0;
    return status;
}

static int open_file(lua_State *L) {
    lua_settop(L, 1);
    const attune_status status = open_path(L, check_text(L, 1, "path", "a file's name"));
    return status == ATTUNE_OK ? 1 : push_file_failure(L, status);
}

static int f_names(lua_State *L) {
    const int64_t n = attune_file_tensors(check_file(L));
    lua_createtable(L, (int)n, 0);
    for (int64_t i = 0; i < n; i++) {
        lua_pushstring(L, attune_file_tensor(check_file(L), i).name);
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

/* The number of the tensor whose name is argument 2; -1: there is none. */
static int64_t find(lua_State *L) {
    check_file(L);
    const char *name = check_text(L, 2, "name", "the name of a tensor");
    return attune_file_find(check_file(L), name);
}

static int f_info(lua_State *L) {
    lua_settop(L, 2);
    const int64_t i = find(L);
    if (i < 0) {
        lua_pushnil(L);
        return 1;
    }
    const attune_stored t = attune_file_tensor(check_file(L), i);
    lua_createtable(L, 0, 4);
    push_extents(L, t.rank, t.shape);
    lua_setfield(L, 3, "shape");
    lua_pushinteger(L, t.bytes);
    lua_setfield(L, 3, "bytes");
    if (t.dtype != ATTUNE_DTYPES) {
        lua_pushstring(L, attune_dtype_name(t.dtype));
        lua_setfield(L, 3, "dtype");
    }
    lua_pushstring(L, attune_file_tensor(check_file(L), i).format);
    lua_setfield(L, 3, "format");
    return 1;
}

static int f_read(lua_State *L) {
    refuse_further(L, 3, "read: expected a name and a dtype");
    lua_settop(L, 3);
    const int64_t i = find(L);
    if (i < 0)
        return raise_error(L, "name: expected the name of a tensor of the file, got %s",
                           describe(L, 2));
    const attune_dtype dtype = lua_isnil(L, 3) ? ATTUNE_DTYPES : check_dtype(L, 3);
    attune_tensor *t = push_tensor(L);
    const attune_file *f = check_file(L);
    attune_interrupt_clear();
    core_runs = 1;
    attune_status status = attune_file_read(f, i, dtype, t);
    core_runs = 0;
    if (status == ATTUNE_EMEMORY) {
        collect_in_call(L);
        core_runs = 1;
        status = attune_file_read(f, i, dtype, t);
        core_runs = 0;
    }
    return status == ATTUNE_OK ? 1 : push_file_failure(L, status);
}

/* file:_weight(name, compute: "f32" (default) or "i8") -> weight */
static int f_read_weight(lua_State *L) {
    lua_settop(L, 3);
    const bool integers =
        !lua_isnil(L, 3) && strcmp(check_text(L, 3, "compute", "f32 or i8"), "i8") == 0;
    const int64_t i = find(L);
    if (i < 0)
        return raise_error(L, "name: expected the name of a tensor of the file, got %s",
                           describe(L, 2));
    attune_weight **w = push_handle(L, &weight_kind, 0);
    attune_file *f = check_file(L);
    attune_interrupt_clear();
    core_runs = 1;
    const attune_status status =
        attune_weight_read(f, i, integers ? ATTUNE_COMPUTE_I8 : ATTUNE_COMPUTE_F32, w);
    core_runs = 0;
    return status == ATTUNE_OK ? 1 : push_file_failure(L, status);
}

/* ---- metadata -------------------------------------------------------------------------------- */

/* Pushes a value of the open file in handle `index`. */
static void push_value(lua_State *L, int index, attune_value *v) {
    switch (v->kind) {
    case ATTUNE_TEXT: lua_pushlstring(L, v->text, (size_t)v->length); break;
    case ATTUNE_INTEGER: lua_pushinteger(L, v->integer); break;
    case ATTUNE_NUMBER: lua_pushnumber(L, v->number); break;
    case ATTUNE_BOOLEAN: lua_pushboolean(L, v->integer != 0); break;
    case ATTUNE_LIST: {
        attune_value element;
        luaL_checkstack(L, 4, "lists of metadata");
        lua_createtable(L, v->count < INT32_MAX ? (int)v->count : 0, 0);
        for (int64_t i = 1; v->count > 0; i++) {
            check_open(L, index, &file_kind, "file");
            if (!attune_value_next(v, &element)) break;
            push_value(L, index, &element);
            lua_rawseti(L, -2, i);
        }
        break;
    }
    }
}

/* Pushes the metadata of the open file in handle `index` as a table. lists: whole, or their counts
 * alone. */
static void push_metadata(lua_State *L, int index, bool lists) {
    const attune_file *f = *(attune_file **)check_open(L, index, &file_kind, "file");
    const int64_t n = attune_file_texts(f);
    attune_value v;
    lua_createtable(L, 0, (int)n);
    for (int64_t i = 0; i < n; i++) {
        f = *(attune_file **)check_open(L, index, &file_kind, "file");
        lua_pushstring(L, attune_file_text(f, i, &v));
        check_open(L, index, &file_kind, "file");
        if (lists || v.kind != ATTUNE_LIST) {
            push_value(L, index, &v);
        } else {
            lua_createtable(L, 0, 1);
            lua_pushinteger(L, v.count);
            lua_setfield(L, -2, "count");
        }
        lua_rawset(L, -3);
    }
}

static int f_metadata(lua_State *L) {
    push_metadata(L, 1, true);
    return 1;
}

/* file:_short_metadata() -> the metadata, a list as {count = of its elements}: a vocabulary is tens
 * of thousands of texts. */
static int f_short_metadata(lua_State *L) {
    push_metadata(L, 1, false);
    return 1;
}

static const luaL_Reg methods[] = {{"info", f_info},
                                   {"read", f_read},
                                   {"_weight", f_read_weight},
                                   {"_short_metadata", f_short_metadata},
                                   {"close", NULL},
                                   {NULL, NULL}},
                      fields[] = {{"names", f_names}, {"metadata", f_metadata}, {NULL, NULL}};

const handle_kind file_kind = {.type = "attune.file",
                               .argument = "file",
                               .noun = "file",
                               .size = sizeof(attune_file *),
                               .is_open = f_is_open,
                               .close = f_close,
                               .describe = f_describe,
                               .methods = methods,
                               .fields = fields};

/* ---- whole files ----------------------------------------------------------------------------- */

static int load(lua_State *L) {
    enum { PATH = 1, FILE_HANDLE, TENSORS };
    lua_settop(L, 1);
    attune_status status = open_path(L, check_text(L, PATH, "path", "a file's name"));
    if (status != ATTUNE_OK) return push_file_failure(L, status);
    const attune_file *f = *(attune_file **)check_open(L, FILE_HANDLE, &file_kind, "file");
    const int64_t n = attune_file_tensors(f);
    lua_createtable(L, 0, (int)n);
    for (int64_t i = 0; i < n; i++) {
        f = *(attune_file **)check_open(L, FILE_HANDLE, &file_kind, "file");
        const attune_stored stored = attune_file_tensor(f, i);
        if (stored.dtype == ATTUNE_DTYPES) {
            push_unread(L, &stored);
        } else {
            attune_tensor *t = push_tensor(L);
            f = *(attune_file **)check_open(L, FILE_HANDLE, &file_kind, "file");
            core_runs = 1;
            status = attune_file_read(f, i, ATTUNE_DTYPES, t);
            core_runs = 0;
            if (status != ATTUNE_OK) return push_file_failure(L, status);
        }
        f = *(attune_file **)check_open(L, FILE_HANDLE, &file_kind, "file");
        lua_setfield(L, TENSORS, attune_file_tensor(f, i).name);
    }
    push_metadata(L, FILE_HANDLE, true);
    return 2;
}

void open_files(lua_State *L) {
    static const luaL_Reg functions[] = {{"load", load}, {"open", open_file}, {NULL, NULL}};
    static const luaL_Reg of_unread[] = {
        {"__index", u_index}, {"__tostring", u_tostring}, {NULL, NULL}};
    define_handle(L, &file_kind, NULL);
    lua_pop(L, 1);
    luaL_newmetatable(L, UNREAD_TYPE);
    luaL_setfuncs(L, of_unread, 0);
    lua_pop(L, 1);
    luaL_setfuncs(L, functions, 0);
}
