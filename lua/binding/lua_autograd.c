/* lua_autograd.c - what lua/attune/autograd needs of tensors: the node of each in the graph, shares
 * of them that the graph keeps, and their versions.
 *
 * A tensor's first user value is its node, a table that only the Lua library makes; nil: no
 * gradient is recorded for it.
 */
#include <string.h>

#include "binding.h"

/* Whether operations are recorded. attune.no_grad switches it off while a function runs. */
static bool recording = true;

static bool push_node(lua_State *L, int index) {
    if (!test_tensor(L, index)) return false;
    if (lua_getiuservalue(L, index, 1) == LUA_TTABLE) return true;
    lua_pop(L, 1);
    return false;
}

bool is_recorded(lua_State *L, int index) {
    if (!recording || !push_node(L, index)) return false;
    lua_pop(L, 1);
    return true;
}

/* (tensor) -> its node or nil */
static int node(lua_State *L) {
    lua_settop(L, 1);
    if (!push_node(L, 1)) lua_pushnil(L);
    return 1;
}

/* (tensor, node, is a leaf). The second user value is the version of the memory that the node
 * describes; a leaf, whose memory optimisers write, has none. */
static int set_node(lua_State *L) {
    lua_settop(L, 3);
    const attune_tensor *t = check_tensor(L, 1, "tensor");
    if (lua_toboolean(L, 3))
        lua_pushnil(L);
    else
        lua_pushinteger(L, attune_tensor_storage(t).version);
    lua_setiuservalue(L, 1, 2);
    lua_settop(L, 2);
    lua_setiuservalue(L, 1, 1);
    return 0;
}

/* Raises where the tensor at index was written since its node was made: through another view, whose
 * node is another. */
static void check_version(lua_State *L, int index) {
    const attune_tensor *t = test_tensor(L, index);
    if (lua_getiuservalue(L, index, 2) == LUA_TNUMBER && t->data &&
        lua_tointeger(L, -1) != attune_tensor_storage(t).version)
        raise_error(L, "tensor: expected a result whose memory is as it was computed, got one that "
                       "was modified in place through another view; make this view again");
    lua_pop(L, 1);
}

/* (..) -> for each argument its node, or false */
static int nodes(lua_State *L) {
    const int count = lua_gettop(L);
    luaL_checkstack(L, count + LUA_MINSTACK, "arguments");
    for (int i = 1; i <= count; i++) {
        if (push_node(L, i))
            check_version(L, i);
        else
            lua_pushboolean(L, false);
    }
    return count;
}

/* (..) -> whether operations are recorded and some argument has a node */
static int tracks(lua_State *L) {
    const int count = lua_gettop(L);
    bool found = false;
    for (int i = 1; i <= count && recording && !found; i++) found = is_recorded(L, i);
    lua_pushboolean(L, found);
    return 1;
}

/* ([boolean]) -> what it was */
static int set_recording(lua_State *L) {
    const bool before = recording;
    if (!lua_isnoneornil(L, 1)) recording = lua_toboolean(L, 1);
    lua_pushboolean(L, before);
    return 1;
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* (tensor) -> another handle of the same view, the version of its memory */
static int share(lua_State *L) {
    lua_settop(L, 1);
    check_tensor(L, 1, "tensor");
    attune_tensor *out = push_tensor(L);
    RUN(L, attune_tensor_share(check_tensor(L, 1, "tensor"), out));
    lua_pushinteger(L, attune_tensor_storage(out).version);
    return 2;
}

static int version(lua_State *L) {
    return push_integer(L, attune_tensor_storage(check_tensor(L, 1, "tensor")).version);
}

/* (tensor) -> how many tensors share its memory */
static int owners(lua_State *L) {
    return push_integer(L, attune_tensor_storage(check_tensor(L, 1, "tensor")).owners);
}

/* (tensor) -> what identifies its memory, the bytes of that */
static int storage(lua_State *L) {
    const attune_tensor *t = check_tensor(L, 1, "tensor");
    lua_pushlightuserdata(L, t->buffer ? (void *)t->buffer : t->data);
    lua_pushinteger(L, t->buffer ? attune_tensor_storage(t).bytes : attune_tensor_nbytes(t));
    return 2;
}

bool is_own(const attune_tensor *t) {
    return t->buffer && attune_tensor_storage(t).owners == 1 && attune_tensor_is_contiguous(t);
}

/* (tensor) -> itself where it is contiguous and shares its memory with nobody, else a copy */
static int own(lua_State *L) {
    lua_settop(L, 1);
    if (is_own(check_tensor(L, 1, "tensor"))) return 1;
    attune_tensor *out = push_tensor(L);
    attune_tensor *t = check_tensor(L, 1, "tensor");
    RUN(L, attune_tensor_convert(t, t->dtype, out));
    return 1;
}

/* (sum, tensor) -> their sum: in place, where nobody else has sum's memory */
static int accumulate(lua_State *L) {
    lua_settop(L, 2);
    attune_tensor *sum = check_tensor(L, 1, "sum"), *t = check_tensor(L, 2, "tensor");
    if (is_own(sum)) {
        RUN(L, attune_tensor_accumulate(sum, t));
        lua_settop(L, 1);
        return 1;
    }
    attune_tensor *out = push_tensor(L);
    sum = check_tensor(L, 1, "sum");
    t = check_tensor(L, 2, "tensor");
    RUN(L, attune_tensor_binary(ATTUNE_ADD, sum, t, out));
    return 1;
}

/* (tensor, value) -> a new tensor of its shape and dtype */
static int full_like(lua_State *L) {
    lua_settop(L, 2);
    check_tensor(L, 1, "tensor");
    const double value = check_number(L, 2, "value");
    attune_tensor *out = push_tensor(L);
    const attune_tensor *t = check_tensor(L, 1, "tensor");
    RUN(L, attune_tensor_new(t->dtype, t->rank, t->shape, out));
    RUN(L, attune_tensor_fill(out, value));
    return 1;
}

/* (contiguous tensor, index in row-major order from 1, [number]) -> the element, or writes it */
static int element(lua_State *L) {
    lua_settop(L, 3);
    attune_tensor flat = *check_tensor(L, 1, "tensor");
    const int64_t count = attune_tensor_count(&flat), i = check_integer(L, 2, "index", 1) - 1;
    if (i >= count || !attune_tensor_is_contiguous(&flat))
        return raise_error(L, "index: expected from 1 to %I of a contiguous tensor, got %I",
                           (LUAI_UACINT)count, (LUAI_UACINT)i + 1);
    flat.rank = 1;
    flat.shape[0] = count;
    flat.stride[0] = 1;
    double x = 0;
    if (!lua_isnil(L, 3)) {
        RUN(L, attune_tensor_set(&flat, &i, check_number(L, 3, "value")));
        return 0;
    }
    RUN(L, attune_tensor_get(&flat, &i, &x));
    lua_pushnumber(L, x);
    return 1;
}

/* (list of integers, lists of them, or tensor, [their name in messages]) -> a new i64 tensor */
static int integers(lua_State *L) {
    const char *name = luaL_optstring(L, 2, "integers");
    lua_settop(L, 2);
    push_integers(L, 1, name);
    return 1;
}

/* (message): raises it at the line that called the library. */
static int raise_message(lua_State *L) { return raise_error(L, "%s", luaL_checkstring(L, 1)); }

/* ---- times ----------------------------------------------------------------------------------- */

enum { MAX_CALLS = 512 };

static struct {
    int depth; /* of calls of attune.profile */
    int count;
    struct {
        const char *call; /* the text of a call in this library */
        int64_t calls;
        double seconds;
    } of[MAX_CALLS];
} times;

double profile_start(void) { return times.depth > 0 ? attune_clock() : 0; }

void profile_stop(const char *call, double start) {
    const double seconds = attune_clock() - start;
    int i = 0;
    while (i < times.count && times.of[i].call != call) i++;
    if (i == MAX_CALLS) return;
    if (i == times.count) {
        times.of[i].call = call;
        times.count++;
    }
    times.of[i].calls++;
    times.of[i].seconds += seconds;
}

/* Pushes "matmul" for "attune_tensor_matmul(a, b, out)". */
static void push_call_name(lua_State *L, const char *call) {
    if (strncmp(call, "attune_", 7) == 0) call += 7;
    if (strncmp(call, "tensor_", 7) == 0) call += 7;
    lua_pushlstring(L, call, strcspn(call, "("));
}

/* ([true: starts, false: ends]) -> {name = {calls, seconds}} of all calls that were measured */
static int profile(lua_State *L) {
    lua_settop(L, 1);
    if (!lua_isnil(L, 1)) times.depth += lua_toboolean(L, 1) ? 1 : -1;
    lua_newtable(L);
    for (int i = 0; i < times.count; i++) {
        push_call_name(L, times.of[i].call);
        lua_pushvalue(L, -1);
        if (lua_rawget(L, 2) != LUA_TTABLE) { /* two places may call one function */
            lua_pop(L, 1);
            lua_createtable(L, 2, 0);
            lua_pushinteger(L, 0);
            lua_rawseti(L, -2, 1);
            lua_pushnumber(L, 0);
            lua_rawseti(L, -2, 2);
        }
        lua_rawgeti(L, -1, 1);
        lua_pushinteger(L, lua_tointeger(L, -1) + times.of[i].calls);
        lua_rawseti(L, -3, 1);
        lua_pop(L, 1);
        lua_rawgeti(L, -1, 2);
        lua_pushnumber(L, lua_tonumber(L, -1) + times.of[i].seconds);
        lua_rawseti(L, -3, 2);
        lua_pop(L, 1);
        lua_rawset(L, 2);
    }
    return 1;
}

void open_autograd(lua_State *L) {
    static const luaL_Reg functions[] = {{"_node", node},
                                         {"_set_node", set_node},
                                         {"_nodes", nodes},
                                         {"_tracks", tracks},
                                         {"_recording", set_recording},
                                         {"_share", share},
                                         {"_version", version},
                                         {"_storage", storage},
                                         {"_own", own},
                                         {"_accumulate", accumulate},
                                         {"_full_like", full_like},
                                         {"_raise", raise_message},
                                         {"_integers", integers},
                                         {"_profile", profile},
                                         {"_owners", owners},
                                         {"_element", element},
                                         {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
}
