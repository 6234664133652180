/* linear.c - linear attention, its features, and its state. */
#include <math.h>
#include <string.h>

#include "binding.h"

#define STATE_TYPE "attune.linear_state"

static const char *const features[] = {"favor+", "trig", "relu", "elu", NULL};

static double read_epsilon(lua_State *L, int index) {
    double epsilon = 0;
    if (option_number(L, index, "epsilon", &epsilon) && !(epsilon >= 0 && isfinite(epsilon)))
        raise_error(L, "epsilon: expected a number of at least 0, got %f", epsilon);
    return epsilon;
}

/* The tensor or encoding at a field stays on the stack. */
static attune_tensor *read_projection(lua_State *L, int index) {
    if (lua_isnil(L, index) || lua_getfield(L, index, "projection") == LUA_TNIL) return NULL;
    return check_tensor(L, -1, "projection");
}
static attune_position *read_rotate(lua_State *L, int index) {
    if (lua_isnil(L, index) || lua_getfield(L, index, "rotate") == LUA_TNIL) return NULL;
    return check_position(L, -1, "rotate");
}

/* What attention has and this cannot have: the reason, rather than an unknown name. */
static void refuse_scores(lua_State *L, int index) {
    static const char *const without[][2] = {
        {"score", "change"}, {"mask", "hide"}, {"softcap", "cap"}, {"window", "hide"}};
    for (size_t n = 0; n < sizeof without / sizeof *without && lua_istable(L, index); n++) {
        if (lua_getfield(L, index, without[n][0]) != LUA_TNIL) {
            raise_error(L,
                        "%s: linear attention never forms the scores q . k that it would %s; leave "
                        "it out, or use attune.attention",
                        without[n][0], without[n][1]);
        }
        lua_pop(L, 1);
    }
}

static void read_options(lua_State *L, int index, attune_linear_options *out) {
    static const char *const known[] = {"causal", "features", "projection",
                                        "rotate", "epsilon",  NULL};
    int kind = 0;
    *out = (attune_linear_options){0};
    refuse_scores(L, index);
    check_options(L, index, known);
    option_boolean(L, index, "causal", &out->causal);
    option_choice(L, index, "features", features, &kind);
    out->features = (attune_features)kind;
    out->epsilon = read_epsilon(L, index);
    out->projection = read_projection(L, index);
    out->rotate = read_rotate(L, index);
}

static int linear_attention(lua_State *L) {
    attune_linear_options o;
    lua_settop(L, 4);
    attune_tensor *q = check_tensor(L, 1, "q"), *k = check_tensor(L, 2, "k"),
                  *v = check_tensor(L, 3, "v");
    read_options(L, 4, &o);
    attune_tensor *out = push_tensor(L);
    RUN(L, attune_linear_attention(q, k, v, &o, out));
    return 1;
}

static int linear_attention_backward(lua_State *L) {
    attune_linear_options o;
    lua_settop(L, 5);
    attune_tensor *d_o = check_tensor(L, 1, "d_o"), *q = check_tensor(L, 2, "q"),
                  *k = check_tensor(L, 3, "k"), *v = check_tensor(L, 4, "v");
    read_options(L, 5, &o);
    attune_tensor *dq = push_tensor(L), *dk = push_tensor(L), *dv = push_tensor(L);
    RUN(L, attune_linear_attention_backward(d_o, q, k, v, &o, dq, dk, dv));
    return 3;
}

static int64_t required(lua_State *L, const char *name) {
    int64_t n = 0;
    if (!option_integer(L, 1, name, 1, &n))
        raise_error(L, "%s: expected an integer, got nil", name);
    return n;
}

static int favor_projection(lua_State *L) {
    static const char *const known[] = {"head_dim", "features", "seed", NULL};
    int64_t seed = 0;
    lua_settop(L, 1);
    if (!lua_istable(L, 1))
        return raise_expected(L, "options",
                              "a table such as {head_dim = 64, features = 256, seed = 1}", 1);
    check_options(L, 1, known);
    const int64_t head_dim = required(L, "head_dim"), rows = required(L, "features");
    if (!option_integer(L, 1, "seed", INT64_MIN, &seed)) seed = (int64_t)next_seed();
    RUN(L, attune_favor_projection(head_dim, rows, (uint64_t)seed, push_tensor(L)));
    return 1;
}

static int favor_features(lua_State *L) {
    static const char *const known[] = {"projection", "query", "epsilon", NULL};
    bool query = false;
    lua_settop(L, 2);
    attune_tensor *x = check_tensor(L, 1, "x");
    check_options(L, 2, known);
    option_boolean(L, 2, "query", &query);
    const double epsilon = read_epsilon(L, 2);
    attune_tensor *projection = read_projection(L, 2);
    RUN(L, attune_favor_features(x, projection, query, epsilon, push_tensor(L)));
    return 1;
}

/* ---- the state ------------------------------------------------------------------------------- */

static attune_linear_state **check_handle(lua_State *L, int index) {
    attune_linear_state **s = luaL_testudata(L, index, STATE_TYPE);
    if (!s) raise_expected(L, "state", "a linear state", index);
    return s;
}

static attune_linear_state *check_state(lua_State *L, int index) {
    attune_linear_state **s = check_handle(L, index);
    if (!*s) raise_error(L, "state: expected an open linear state, got a closed one");
    return *s;
}

static int linear_state(lua_State *L) {
    static const char *const known[] = {"batch",      "kv_heads",   "head_dim",
                                        "v_head_dim", "projection", "features",
                                        "rotate",     "epsilon",    NULL};
    attune_linear_state_options o = {.batch = 1};
    int kind = 0;
    lua_settop(L, 1);
    if (!lua_istable(L, 1))
        return raise_expected(L, "options",
                              "a table such as {kv_heads = 1, head_dim = 64, projection = w}", 1);
    check_options(L, 1, known);
    option_integer(L, 1, "batch", 1, &o.batch);
    o.kv_heads = required(L, "kv_heads");
    o.head_dim = required(L, "head_dim");
    option_integer(L, 1, "v_head_dim", 1, &o.v_head_dim);
    option_choice(L, 1, "features", features, &kind);
    o.features = (attune_features)kind;
    o.epsilon = read_epsilon(L, 1);
    o.projection = read_projection(L, 1);
    o.rotate = read_rotate(L, 1);
    attune_linear_state **s = lua_newuserdatauv(L, sizeof *s, 1);
    *s = NULL;
    luaL_setmetatable(L, STATE_TYPE);
    if (o.rotate) { /* lives as long as the state */
        lua_getfield(L, 1, "rotate");
        lua_setiuservalue(L, -2, 1);
    }
    RUN(L, attune_linear_state_new(&o, s));
    return 1;
}

/* The encoding may have been closed since. */
static void check_rotation(lua_State *L) {
    if (lua_getiuservalue(L, 1, 1) != LUA_TNIL) check_position(L, -1, "rotate");
    lua_pop(L, 1);
}

static int s_append(lua_State *L) {
    lua_settop(L, 3);
    attune_linear_state *s = check_state(L, 1);
    attune_tensor *k = check_tensor(L, 2, "k"), *v = check_tensor(L, 3, "v");
    check_rotation(L);
    RUN(L, attune_linear_state_append(s, k, v));
    lua_settop(L, 1);
    return 1;
}

static int s_attend(lua_State *L) {
    lua_settop(L, 2);
    attune_linear_state *s = check_state(L, 1);
    attune_tensor *q = check_tensor(L, 2, "q");
    check_rotation(L);
    RUN(L, attune_linear_state_attend(s, q, push_tensor(L)));
    return 1;
}

static int s_reset(lua_State *L) {
    attune_linear_state_reset(check_state(L, 1));
    lua_settop(L, 1);
    return 1;
}

static int s_close(lua_State *L) {
    attune_linear_state **s = check_handle(L, 1);
    attune_linear_state_close(*s);
    *s = NULL;
    return 0;
}

static int s_tostring(lua_State *L) {
    attune_linear_state **s = check_handle(L, 1);
    if (!*s) {
        lua_pushliteral(L, "closed linear state");
        return 1;
    }
    const attune_linear_state_options *o = attune_linear_state_describe(*s);
    lua_pushfstring(L, "linear state (%s) of batch %I, %I kv heads of %I: %I tokens",
                    features[o->features], (LUAI_UACINT)o->batch, (LUAI_UACINT)o->kv_heads,
                    (LUAI_UACINT)o->head_dim, (LUAI_UACINT)attune_linear_state_length(*s));
    return 1;
}

static const luaL_Reg methods[] = {{"append", s_append},
                                   {"attend", s_attend},
                                   {"reset", s_reset},
                                   {"close", s_close},
                                   {NULL, NULL}};

/* Upvalue 1: the methods. */
static int s_index(lua_State *L) {
    check_handle(L, 1);
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) return 1;
    attune_linear_state *s = check_state(L, 1);
    const attune_linear_state_options *o = attune_linear_state_describe(s);
    const char *name = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : describe(L, 2);
    static const char *const known[] = {"append",   "attend",     "reset",    "close",
                                        "length",   "nbytes",     "batch",    "kv_heads",
                                        "head_dim", "v_head_dim", "features", NULL};
    if (strcmp(name, "length") == 0)
        lua_pushinteger(L, attune_linear_state_length(s));
    else if (strcmp(name, "nbytes") == 0)
        lua_pushinteger(L, attune_linear_state_nbytes(s));
    else if (strcmp(name, "batch") == 0)
        lua_pushinteger(L, o->batch);
    else if (strcmp(name, "kv_heads") == 0)
        lua_pushinteger(L, o->kv_heads);
    else if (strcmp(name, "head_dim") == 0)
        lua_pushinteger(L, o->head_dim);
    else if (strcmp(name, "v_head_dim") == 0)
        lua_pushinteger(L, o->v_head_dim);
    else if (strcmp(name, "features") == 0)
        lua_pushstring(L, features[o->features]);
    else
        raise_unknown(L, "method or field", name, known);
    return 1;
}

void open_linear(lua_State *L) {
    static const luaL_Reg meta[] = {{"__gc", s_close},
                                    {"__close", s_close},
                                    {"__tostring", s_tostring},
                                    {NULL, NULL}},
                          functions[] = {{"linear_attention", linear_attention},
                                         {"linear_attention_backward", linear_attention_backward},
                                         {"favor_projection", favor_projection},
                                         {"favor_features", favor_features},
                                         {"linear_state", linear_state},
                                         {NULL, NULL}};
    luaL_newmetatable(L, STATE_TYPE);
    luaL_setfuncs(L, meta, 0);
    luaL_newlib(L, methods);
    lua_pushcclosure(L, s_index, 1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
    luaL_setfuncs(L, functions, 0);
}
