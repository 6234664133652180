/* lua_linear.c - linear attention, its features, and its state. */
#include <math.h>
#include <string.h>

#include "binding.h"

static const char *const features[] = {"favor+", "trig", "relu", "elu", NULL};

static double read_epsilon(lua_State *L, const options *given) {
    double epsilon = 0;
    if (option_number(L, given, "epsilon", &epsilon) && !(epsilon >= 0 && isfinite(epsilon)))
        raise_error(L, "epsilon: expected a number of at least 0, got %f", epsilon);
    return epsilon;
}

static attune_features read_features(lua_State *L, const options *given) {
    int features_index = 0;
    option_choice(L, given, "features", features, &features_index);
    return (attune_features)features_index;
}

/* Options of attention that linear attention cannot have: the reason, not an unknown name. */
static void refuse_scores(lua_State *L, int index) {
    static const char *const without[][2] = {
        {"score", "change"}, {"mask", "hide"}, {"softcap", "cap"}, {"window", "hide"}};
    for (size_t n = 0; n < sizeof without / sizeof *without && lua_istable(L, index); n++) {
        lua_pushstring(L, without[n][0]);
        if (lua_rawget(L, index) != LUA_TNIL) {
            raise_error(L,
                        "%s: linear attention never forms the scores q . k that it would %s; leave "
                        "it out, or use attune.attention",
                        without[n][0], without[n][1]);
        }
        lua_pop(L, 1);
    }
}

typedef struct linear_call {
    options given;
    attune_linear_options options;
} linear_call;

static void take_handles(lua_State *L, linear_call *call) {
    call->options.projection = option_tensor(L, &call->given, "projection");
    call->options.rotate = option_position(L, &call->given, "rotate");
}

static void read_linear_options(lua_State *L, int index, linear_call *call) {
    static const char *const known[] = {"causal", "features", "projection",
                                        "rotate", "epsilon",  NULL};
    call->options = (attune_linear_options){0};
    refuse_scores(L, index);
    call->given = read_options(L, index, known);
    option_boolean(L, &call->given, "causal", &call->options.causal);
    call->options.features = read_features(L, &call->given);
    call->options.epsilon = read_epsilon(L, &call->given);
    take_handles(L, call); /* wrong ones are refused before results are made */
}

static int linear_attention(lua_State *L) {
    linear_call call;
    refuse_further(L, 4, "linear_attention: expected q, k, v and options");
    lua_settop(L, 4);
    attune_tensor *q = check_tensor(L, 1, "q");
    attune_tensor *k = check_tensor(L, 2, "k");
    attune_tensor *v = check_tensor(L, 3, "v");
    read_linear_options(L, 4, &call);
    attune_tensor *out = push_tensor(L);
    take_handles(L, &call);
    RUN(L, attune_linear_attention(q, k, v, &call.options, out));
    return 1;
}

static int linear_attention_backward(lua_State *L) {
    linear_call call;
    refuse_further(L, 5, "linear_attention_backward: expected d_o, q, k, v and options");
    lua_settop(L, 5);
    attune_tensor *d_o = check_tensor(L, 1, "d_o");
    attune_tensor *q = check_tensor(L, 2, "q");
    attune_tensor *k = check_tensor(L, 3, "k");
    attune_tensor *v = check_tensor(L, 4, "v");
    read_linear_options(L, 5, &call);
    attune_tensor *dq = push_tensor(L), *dk = push_tensor(L), *dv = push_tensor(L);
    take_handles(L, &call);
    RUN(L, attune_linear_attention_backward(d_o, q, k, v, &call.options, dq, dk, dv));
    return 3;
}

static int favor_projection(lua_State *L) {
    static const char *const known[] = {"head_dim", "features", "seed", NULL};
    int64_t seed = 0;
    lua_settop(L, 1);
    if (!lua_istable(L, 1))
        return raise_expected(L, "options",
                              "a table such as {head_dim = 64, features = 256, seed = 1}", 1);
    const options given = read_options(L, 1, known);
    const int64_t head_dim = required_integer(L, &given, "head_dim");
    const int64_t rows = required_integer(L, &given, "features");
    if (!option_integer(L, &given, "seed", INT64_MIN, &seed)) seed = (int64_t)next_seed();
    attune_tensor *out = push_tensor(L);
    RUN(L, attune_favor_projection(head_dim, rows, (uint64_t)seed, out));
    return 1;
}

static int favor_features(lua_State *L) {
    static const char *const known[] = {"projection", "query", "epsilon", NULL};
    bool query = false;
    lua_settop(L, 2);
    attune_tensor *x = check_tensor(L, 1, "x");
    const options given = read_options(L, 2, known);
    option_boolean(L, &given, "query", &query);
    const double epsilon = read_epsilon(L, &given);
    attune_tensor *projection = option_tensor(L, &given, "projection");
    attune_tensor *out = push_tensor(L);
    RUN(L, attune_favor_features(x, projection, query, epsilon, out));
    return 1;
}

/* ---- the state ------------------------------------------------------------------------------- */

static attune_linear_state *check_state(lua_State *L) {
    return *(attune_linear_state **)check_open(L, 1, &state_kind, "state");
}

static int linear_state(lua_State *L) {
    static const char *const known[] = {"batch",      "kv_heads",   "head_dim",
                                        "v_head_dim", "projection", "features",
                                        "rotate",     "epsilon",    NULL};
    attune_linear_state_options o = {.batch = 1};
    lua_settop(L, 1);
    if (!lua_istable(L, 1))
        return raise_expected(L, "options",
                              "a table such as {kv_heads = 1, head_dim = 64, projection = w}", 1);
    const options given = read_options(L, 1, known);
    option_integer(L, &given, "batch", 1, &o.batch);
    o.kv_heads = required_integer(L, &given, "kv_heads");
    o.head_dim = required_integer(L, &given, "head_dim");
    option_integer(L, &given, "v_head_dim", 1, &o.v_head_dim);
    o.features = read_features(L, &given);
    o.epsilon = read_epsilon(L, &given);
    attune_linear_state **s = push_handle(L, &state_kind, 1);
    lua_pushvalue(L, option(&given, "rotate")); /* lives as long as the state */
    lua_setiuservalue(L, -2, 1);
    o.projection = option_tensor(L, &given, "projection");
    o.rotate = option_position(L, &given, "rotate");
    RUN(L, attune_linear_state_new(&o, s));
    return 1;
}

/* The encoding of the state at index 1 must still be open. It stays on the stack. */
static void push_rotation(lua_State *L) { lua_getiuservalue(L, 1, 1); }

static attune_linear_state *check_state_and_rotation(lua_State *L, int rotation) {
    if (!lua_isnil(L, rotation)) check_position(L, rotation, "rotate");
    return check_state(L);
}

/* Options that a cache takes here belong to the state itself. */
static void refuse_options(lua_State *L, int index) {
    if (!lua_isnoneornil(L, index))
        raise_error(L,
                    "options: expected none here, as attune.linear_state takes them (rotate, "
                    "features), got a %s",
                    luaL_typename(L, index));
}

static int s_append(lua_State *L) {
    refuse_options(L, 4);
    lua_settop(L, 3);
    check_state(L);
    attune_tensor *k = check_tensor(L, 2, "k"), *v = check_tensor(L, 3, "v");
    push_rotation(L);
    attune_linear_state *s = check_state_and_rotation(L, 4);
    RUN(L, attune_linear_state_append(s, k, v));
    lua_settop(L, 1);
    return 1;
}

static int s_attend(lua_State *L) {
    refuse_options(L, 3);
    lua_settop(L, 2);
    check_state(L);
    attune_tensor *q = check_tensor(L, 2, "q");
    push_rotation(L);
    attune_tensor *o = push_tensor(L);
    attune_linear_state *s = check_state_and_rotation(L, 3);
    RUN(L, attune_linear_state_attend(s, q, o));
    return 1;
}

static int s_reset(lua_State *L) {
    attune_linear_state_reset(check_state(L));
    lua_settop(L, 1);
    return 1;
}

/* ---- the handle ------------------------------------------------------------------------------ */

static bool s_is_open(const void *content) {
    return *(attune_linear_state *const *)content != NULL;
}

static void s_free(void *content) {
    attune_linear_state **s = content;
    attune_linear_state_close(*s);
    *s = NULL;
}

static void s_describe(lua_State *L, void *content) {
    const attune_linear_state *s = *(attune_linear_state **)content;
    const attune_linear_state_options *o = attune_linear_state_describe(s);
    lua_pushfstring(L, "linear state (%s) of batch %I, %I kv heads of %I: %I tokens",
                    features[o->features], (LUAI_UACINT)o->batch, (LUAI_UACINT)o->kv_heads,
                    (LUAI_UACINT)o->head_dim, (LUAI_UACINT)attune_linear_state_length(s));
}

static const attune_linear_state_options *own_options(lua_State *L) {
    return attune_linear_state_describe(check_state(L));
}

static int f_length(lua_State *L) {
    return push_integer(L, attune_linear_state_length(check_state(L)));
}
static int f_nbytes(lua_State *L) {
    return push_integer(L, attune_linear_state_nbytes(check_state(L)));
}
static int f_batch(lua_State *L) { return push_integer(L, own_options(L)->batch); }
static int f_kv_heads(lua_State *L) { return push_integer(L, own_options(L)->kv_heads); }
static int f_head_dim(lua_State *L) { return push_integer(L, own_options(L)->head_dim); }
static int f_v_head_dim(lua_State *L) { return push_integer(L, own_options(L)->v_head_dim); }

static int f_features(lua_State *L) {
    lua_pushstring(L, features[own_options(L)->features]);
    return 1;
}

static const luaL_Reg methods[] = {{"append", s_append},
                                   {"attend", s_attend},
                                   {"reset", s_reset},
                                   {"close", NULL},
                                   {NULL, NULL}},
                      fields[] = {{"length", f_length},     {"nbytes", f_nbytes},
                                  {"batch", f_batch},       {"kv_heads", f_kv_heads},
                                  {"head_dim", f_head_dim}, {"v_head_dim", f_v_head_dim},
                                  {"features", f_features}, {NULL, NULL}};

const handle_kind state_kind = {.type = "attune.linear_state",
                                .argument = "state",
                                .noun = "linear state",
                                .size = sizeof(attune_linear_state *),
                                .is_open = s_is_open,
                                .close = s_free,
                                .describe = s_describe,
                                .methods = methods,
                                .fields = fields};

void open_linear(lua_State *L) {
    static const luaL_Reg functions[] = {{"linear_attention", linear_attention},
                                         {"linear_attention_backward", linear_attention_backward},
                                         {"favor_projection", favor_projection},
                                         {"favor_features", favor_features},
                                         {"linear_state", linear_state},
                                         {NULL, NULL}};
    define_handle(L, &state_kind, NULL);
    lua_pop(L, 1);
    luaL_setfuncs(L, functions, 0);
}
