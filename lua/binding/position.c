/* position.c - positional encodings. */
#include <string.h>

#include "binding.h"

attune_position *test_position(lua_State *L, int index) {
    attune_position **pe = luaL_testudata(L, index, POSITION_TYPE);
    return pe ? *pe : NULL;
}

attune_position *check_position(lua_State *L, int index, const char *name) {
    attune_position **pe = luaL_testudata(L, index, POSITION_TYPE);
    if (!pe) raise_expected(L, name, "a positional encoding", index);
    if (!*pe) luaL_error(L, "%s: expected an open positional encoding, got a closed one", name);
    return *pe;
}

static attune_position **push_position(lua_State *L) {
    attune_position **pe = lua_newuserdatauv(L, sizeof *pe, 0);
    *pe = NULL;
    luaL_setmetatable(L, POSITION_TYPE);
    return pe;
}

static int64_t required(lua_State *L, int options, const char *name) {
    int64_t n = 0;
    if (!option_integer(L, options, name, 1, &n)) luaL_error(L, "%s: expected an integer, got nil", name);
    return n;
}

static const char *const pairings[] = {"half", "interleaved", NULL};

static void read_rope(lua_State *L, int index, attune_rope_options *out) {
    int pairing = 0;
    option_integer(L, index, "dims", 2, &out->dims);
    if (option_number(L, index, "base", &out->base) && !(out->base > 0)) luaL_error(L, "base: expected a positive number, got %f", out->base);
    option_choice(L, index, "pairing", pairings, &pairing);
    out->pairing = (attune_pairing)pairing;
}

/* ---- making ------------------------------------------------------------------------------------------------------ */

static void make_none(lua_State *L, int options) {
    static const char *const known[] = {"head_dim", "d_model", NULL}; /* a sweep over names passes what the others need */
    check_options(L, options, known);
    RUN(L, attune_position_none(push_position(L)));
}

static void make_rope(lua_State *L, int options) {
    static const char *const known[] = {"head_dim", "base", "dims", "pairing", NULL};
    attune_rope_options o = {0};
    check_options(L, options, known);
    o.head_dim = required(L, options, "head_dim");
    read_rope(L, options, &o);
    RUN(L, attune_position_rope(&o, push_position(L)));
}

static void make_learned(lua_State *L, int options) {
    static const char *const known[] = {"d_model", "max_positions", "seed", "table", NULL};
    int64_t seed = 0;
    check_options(L, options, known);
    if (!lua_isnil(L, options) && lua_getfield(L, options, "table") != LUA_TNIL) {
        attune_tensor *table = check_tensor(L, -1, "table");
        RUN(L, attune_position_learned(0, 0, 0, table, push_position(L)));
        return;
    }
    int64_t d_model = required(L, options, "d_model"), most = required(L, options, "max_positions");
    if (!option_integer(L, options, "seed", INT64_MIN, &seed)) seed = (int64_t)next_seed();
    RUN(L, attune_position_learned(d_model, most, (uint64_t)seed, NULL, push_position(L)));
}

static void make_sinusoidal(lua_State *L, int options) {
    static const char *const known[] = {"d_model", "base", "layout", NULL}, *const layouts[] = {"interleaved", "halves", NULL};
    int layout = 0;
    double base = 0;
    check_options(L, options, known);
    int64_t d_model = required(L, options, "d_model");
    option_number(L, options, "base", &base);
    option_choice(L, options, "layout", layouts, &layout);
    RUN(L, attune_position_sinusoidal(d_model, base, layout == 1, push_position(L)));
}

static const char *const names[] = {"none", "rope", "learned", "sinusoidal", NULL};
static void (*const makers[])(lua_State *L, int options) = {make_none, make_rope, make_learned, make_sinusoidal};

static int position(lua_State *L) {
    lua_settop(L, 2);
    if (lua_type(L, 1) != LUA_TSTRING) return raise_expected(L, "name", "the name of an encoding, such as 'rope'", 1);
    int i = 0;
    while (names[i] && strcmp(names[i], lua_tostring(L, 1)) != 0) i++;
    if (!names[i]) return raise_unknown(L, "positional encoding", lua_tostring(L, 1), names);
    if (!lua_isnil(L, 2) && !lua_istable(L, 2)) return raise_expected(L, "options", "a table of named fields", 2);
    makers[i](L, 2);
    return 1;
}

/* ---- using ------------------------------------------------------------------------------------------------------- */

/* A list or tensor of positions at index, or NULL for 0, 1, .. */
static attune_tensor *read_positions(lua_State *L, int index) { return lua_isnoneornil(L, index) ? NULL : push_integers(L, index, "positions"); }

static int p_rotate(lua_State *L) {
    lua_settop(L, 4);
    attune_position *pe = check_position(L, 1, "position");
    attune_tensor *x = check_tensor(L, 2, "x"), unused;
    if (!lua_isnil(L, 4)) {
        const char *which = lua_tostring(L, 4);
        if (!which || (strcmp(which, "q") != 0 && strcmp(which, "k") != 0)) return raise_expected(L, "which", "'q' or 'k'", 4);
    }
    if (attune_position_inv_freq(pe, &unused) != ATTUNE_OK) { /* no rotation: x itself */
        lua_settop(L, 2);
        return 1;
    }
    attune_tensor_close(&unused);
    attune_tensor *positions = read_positions(L, 3);
    RUN(L, attune_position_rotate(pe, x, positions, push_tensor(L)));
    return 1;
}

static int p_embed(lua_State *L) {
    lua_settop(L, 3);
    attune_position *pe = check_position(L, 1, "position");
    attune_tensor *x = check_tensor(L, 2, "x");
    const char *name = attune_position_name(pe);
    if (strcmp(name, "learned") != 0 && strcmp(name, "sinusoidal") != 0) { /* no embedding: x itself */
        lua_settop(L, 2);
        return 1;
    }
    attune_tensor *positions = read_positions(L, 3);
    RUN(L, attune_position_embed(pe, x, positions, push_tensor(L)));
    return 1;
}

static int p_parameters(lua_State *L) {
    attune_position *pe = check_position(L, 1, "position");
    lua_newtable(L);
    attune_tensor *t = push_tensor(L);
    if (attune_position_table(pe, t) == ATTUNE_OK)
        lua_setfield(L, -2, "weight");
    else
        lua_pop(L, 1);
    return 1;
}

static int p_close(lua_State *L) {
    attune_position **pe = luaL_checkudata(L, 1, POSITION_TYPE);
    attune_position_close(*pe);
    *pe = NULL;
    return 0;
}

static int p_tostring(lua_State *L) {
    attune_position *pe = test_position(L, 1);
    lua_pushfstring(L, pe ? "position %s" : "closed position", pe ? attune_position_name(pe) : "");
    return 1;
}

static const luaL_Reg methods[] = {{"rotate", p_rotate}, {"embed", p_embed}, {"parameters", p_parameters}, {"close", p_close}, {NULL, NULL}};

/* Upvalue 1: the methods. */
static int p_index(lua_State *L) {
    luaL_checkudata(L, 1, POSITION_TYPE);
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) return 1;
    attune_position *pe = check_position(L, 1, "position");
    const char *name = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : describe(L, 2);
    static const char *const known[] = {"rotate", "embed", "parameters", "close", "name", "score", "inv_freq", "factor", "table", NULL};
    if (strcmp(name, "name") == 0)
        lua_pushstring(L, attune_position_name(pe));
    else if (strcmp(name, "score") == 0)
        lua_pushnil(L); /* none of these encodings has a part in the scores */
    else if (strcmp(name, "factor") == 0)
        lua_pushnumber(L, attune_position_factor(pe));
    else if (strcmp(name, "inv_freq") == 0) {
        if (attune_position_inv_freq(pe, push_tensor(L)) != ATTUNE_OK) lua_pushnil(L);
    } else if (strcmp(name, "table") == 0) {
        if (attune_position_table(pe, push_tensor(L)) != ATTUNE_OK) lua_pushnil(L);
    } else
        raise_unknown(L, "method or field", name, known);
    return 1;
}

static int rope(lua_State *L) {
    static const char *const known[] = {"base", "dims", "pairing", "positions", NULL};
    attune_rope_options o = {0};
    lua_settop(L, 2);
    attune_tensor *x = check_tensor(L, 1, "x"), *positions = NULL;
    check_options(L, 2, known);
    read_rope(L, 2, &o);
    if (x->rank != 4) return raise_expected(L, "x", "a tensor [batch, heads, tokens, head_dim]", 1);
    o.head_dim = x->shape[3];
    if (!lua_isnil(L, 2)) {
        lua_getfield(L, 2, "positions");
        positions = read_positions(L, lua_gettop(L));
    }
    attune_position **pe = push_position(L);
    RUN(L, attune_position_rope(&o, pe));
    RUN(L, attune_position_rotate(*pe, x, positions, push_tensor(L)));
    return 1;
}

void open_position(lua_State *L) {
    static const luaL_Reg meta[] = {{"__gc", p_close}, {"__close", p_close}, {"__tostring", p_tostring}, {NULL, NULL}},
                          functions[] = {{"position", position}, {"rope", rope}, {NULL, NULL}};
    luaL_newmetatable(L, POSITION_TYPE);
    luaL_setfuncs(L, meta, 0);
    luaL_newlib(L, methods);
    lua_pushcclosure(L, p_index, 1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
    luaL_setfuncs(L, functions, 0);
}
