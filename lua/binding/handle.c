/* handle.c - making, checking and closing handles. */
#include "handle.h"

#include <string.h>

#include "binding.h"

typedef struct handle {
    const handle_kind *kind;
    int64_t uses; /* the number of calls that use the handle while the collector runs */
    /* the content follows */
} handle;

enum { MAX_NAMES = 80 }; /* methods and fields of one kind */

static const handle_kind *const kinds[] = {&tensor_kind, &cache_kind, &position_kind, &program_kind,
                                           &state_kind,  &file_kind,  &weight_kind};

static void *content_of(handle *h) { return h + 1; }

/* The kind is read from the userdata itself, so that another metatable does not make a cache a
 * tensor. */
static handle *handle_at(lua_State *L, int index, const handle_kind *kind) {
    if (lua_type(L, index) != LUA_TUSERDATA) return NULL;
    if (lua_rawlen(L, index) != sizeof(handle) + kind->size) return NULL;
    handle *h = lua_touserdata(L, index);
    return h->kind == kind ? h : NULL;
}

void *push_handle(lua_State *L, const handle_kind *kind, int user_values) {
    handle *h = lua_newuserdatauv(L, sizeof *h + kind->size, user_values);
    *h = (handle){.kind = kind};
    memset(content_of(h), 0, kind->size);
    luaL_setmetatable(L, kind->type);
    return content_of(h);
}

void *test_handle(lua_State *L, int index, const handle_kind *kind) {
    handle *h = handle_at(L, index, kind);
    return h ? content_of(h) : NULL;
}

void *check_handle(lua_State *L, int index, const handle_kind *kind, const char *name) {
    index = lua_absindex(L, index);
    void *content = test_handle(L, index, kind);
    if (!content) {
        lua_pushfstring(L, "a %s", kind->noun);
        raise_expected(L, name, lua_tostring(L, -1), index);
    }
    return content;
}

void *check_open(lua_State *L, int index, const handle_kind *kind, const char *name) {
    void *content = check_handle(L, index, kind, name);
    if (!kind->is_open(content))
        raise_error(L, "%s: expected an open %s, got a closed one", name, kind->noun);
    return content;
}

const handle_kind *kind_at(lua_State *L, int index, bool *is_open) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const void *content = test_handle(L, index, kinds[i]);
        if (!content) continue;
        *is_open = kinds[i]->is_open(content);
        return kinds[i];
    }
    return NULL;
}

static void mark_in_use(lua_State *L, int64_t change) {
    for (int index = lua_gettop(L); index > 0; index--) {
        for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
            handle *h = handle_at(L, index, kinds[i]);
            if (h) h->uses += change;
        }
    }
}

void collect_in_call(lua_State *L) {
    mark_in_use(L, 1);
    lua_gc(L, LUA_GCCOLLECT);
    mark_in_use(L, -1);
}

/* ---- the common metamethods ------------------------------------------------------------------ */

/* Each has the kind as its first upvalue. */
static const handle_kind *own_kind(lua_State *L) { return lua_touserdata(L, lua_upvalueindex(1)); }

/* close, __close and __gc. Closing a closed handle does nothing. */
static int close_handle(lua_State *L) {
    const handle_kind *kind = own_kind(L);
    void *content = check_handle(L, 1, kind, kind->argument);
    if (((handle *)content)[-1].uses > 0) {
        return raise_error(L, "%s: expected a %s that is not in use, got one that a call is using",
                           kind->argument, kind->noun);
    }
    kind->close(content);
    return 0;
}

static int handle_tostring(lua_State *L) {
    const handle_kind *kind = own_kind(L);
    void *content = check_handle(L, 1, kind, kind->argument);
    if (kind->is_open(content))
        kind->describe(L, content);
    else
        lua_pushfstring(L, "closed %s", kind->noun);
    return 1;
}

static int raise_unknown_field(lua_State *L, const handle_kind *kind) {
    const char *known[MAX_NAMES + 1];
    int n = 0;
    const luaL_Reg *const lists[] = {kind->methods, kind->fields};
    for (int i = 0; i < 2; i++) {
        /* A name that begins with "_" is private. */
        for (const luaL_Reg *r = lists[i]; r->name && n < MAX_NAMES; r++)
            if (r->name[0] != '_') known[n++] = r->name;
    }
    known[n] = NULL;
    const char *name = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : describe(L, 2);
    return raise_unknown(L, "method or field", name, known);
}

/* Upvalue 2: the methods. */
static int handle_index(lua_State *L) {
    const handle_kind *kind = own_kind(L);
    lua_settop(L, 2);
    check_handle(L, 1, kind, kind->argument);
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(2)) != LUA_TNIL) return 1;
    lua_pop(L, 1);
    check_open(L, 1, kind, kind->argument);
    if (kind->index && lua_type(L, 2) != LUA_TSTRING) return kind->index(L);
    for (const luaL_Reg *field = kind->fields; field->name; field++) {
        if (!is_text(L, 2, field->name)) continue;
        lua_settop(L, 1);
        return field->func(L);
    }
    return raise_unknown_field(L, kind);
}

static void set_metamethod(lua_State *L, const handle_kind *kind, const char *name,
                           lua_CFunction function) {
    lua_pushlightuserdata(L, (void *)kind);
    lua_pushcclosure(L, function, 1);
    lua_setfield(L, -2, name);
}

void define_handle(lua_State *L, const handle_kind *kind, const luaL_Reg *metamethods) {
    luaL_newmetatable(L, kind->type);
    if (metamethods) luaL_setfuncs(L, metamethods, 0);
    set_metamethod(L, kind, "__gc", close_handle);
    set_metamethod(L, kind, "__close", close_handle);
    set_metamethod(L, kind, "__tostring", handle_tostring);
    lua_newtable(L);
    for (const luaL_Reg *method = kind->methods; method->name; method++) {
        if (strcmp(method->name, "close") == 0) {
            set_metamethod(L, kind, "close", close_handle);
            continue;
        }
        if (!method->func) continue; /* the Lua library adds it */
        lua_pushcfunction(L, method->func);
        lua_setfield(L, -2, method->name);
    }
    lua_pushlightuserdata(L, (void *)kind); /* metatable, methods, kind */
    lua_pushvalue(L, -2);
    lua_pushcclosure(L, handle_index, 2);
    lua_setfield(L, -3, "__index");
    lua_remove(L, -2);
}
