/* position.c - positional encodings. A handle keeps two values: its table or slopes, so that each
 * look gives the same tensor, and its score. */
#include <string.h>

#include "binding.h"

attune_position *test_position(lua_State *L, int index) {
    attune_position **pe = luaL_testudata(L, index, POSITION_TYPE);
    return pe ? *pe : NULL;
}

attune_position *check_position(lua_State *L, int index, const char *name) {
    attune_position **pe = luaL_testudata(L, index, POSITION_TYPE);
    if (!pe) raise_expected(L, name, "a positional encoding", index);
    if (!*pe) raise_error(L, "%s: expected an open positional encoding, got a closed one", name);
    return *pe;
}

enum { TABLE = 1, SCORE = 2 };

static attune_position **push_position(lua_State *L) {
    attune_position **pe = lua_newuserdatauv(L, sizeof *pe, 2);
    *pe = NULL;
    luaL_setmetatable(L, POSITION_TYPE);
    return pe;
}

static int64_t required(lua_State *L, int options, const char *name) {
    int64_t n = 0;
    if (!option_integer(L, options, name, 1, &n))
        raise_error(L, "%s: expected an integer, got nil", name);
    return n;
}

static const char *const pairings[] = {"half", "interleaved", NULL};

static void read_base(lua_State *L, int index, double *out) {
    if (option_number(L, index, "base", out) && !(*out > 0))
        raise_error(L, "base: expected a positive number, got %f", *out);
}

static attune_pairing read_pairing(lua_State *L, int index, attune_pairing otherwise) {
    int pairing = (int)otherwise;
    option_choice(L, index, "pairing", pairings, &pairing);
    return (attune_pairing)pairing;
}

/* A list of numbers at the field, or NULL; it lives in userdata that this pushes. */
static double *read_numbers(lua_State *L, int index, const char *name, int64_t *count) {
    if (lua_getfield(L, index, name) != LUA_TTABLE) {
        raise_expected(L, name, "a list of numbers", -1);
        return NULL;
    }
    const int list = lua_gettop(L);
    *count = (int64_t)lua_rawlen(L, list);
    double *out = lua_newuserdatauv(L, (size_t)(*count ? *count : 1) * sizeof *out, 0);
    for (int64_t i = 0; i < *count; i++) {
        lua_rawgeti(L, list, i + 1);
        out[i] = check_number(L, -1, name);
        lua_pop(L, 1);
    }
    return out;
}

static double required_number(lua_State *L, int index, const char *name) {
    double x = 0;
    if (!option_number(L, index, name, &x)) raise_error(L, "%s: expected a number, got nil", name);
    return x;
}

/* A number that must not be zero, which would mean the default. */
static void read_positive(lua_State *L, int index, const char *name, double *out) {
    if (option_number(L, index, name, out) && !(*out > 0))
        raise_error(L, "%s: expected a positive number, got %f", name, *out);
}

/* Scaling pushes what must stay until the encoding is made. */
static void read_scaling(lua_State *L, int options, attune_rope_scaling *out) {
    static const char *const types[] = {"linear",   "ntk",    "dynamic", "yarn",
                                        "longrope", "llama3", NULL};
    static const char *const
        plain[] = {"type", "factor", "original", "length", NULL},
        *const yarn[] = {"type",      "factor",           "original", "length",         "beta_fast",
                         "beta_slow", "attention_factor", "mscale",   "mscale_all_dim", "truncate",
                         NULL},
        *const longrope[] = {"type", "factor", "original", "length", "short", "long", NULL},
        *const llama3[] = {"type", "factor", "original", "length", "low", "high", NULL};
    static const char *const *const known[] = {plain, plain, plain, yarn, longrope, llama3};
    int type = -1;
    bool truncate = true;
    if (lua_isnil(L, options)) return;
    lua_getfield(L, options, "scaling");
    const int s = lua_gettop(L);
    if (lua_isnil(L, s)) return;
    if (!lua_istable(L, s))
        raise_expected(L, "scaling", "a table such as {type = 'linear', factor = 8}", s);
    option_choice(L, s, "type", types, &type);
    if (type < 0) raise_error(L, "type: expected the name of a scaling, such as 'yarn', got nil");
    check_options(L, s, known[type]);
    out->type = (attune_scaling_type)(type + 1);
    out->factor = required_number(L, s, "factor");
    if (!option_integer(L, s, "original", 1, &out->original) &&
        out->type != ATTUNE_SCALING_LINEAR && out->type != ATTUNE_SCALING_NTK)
        raise_error(L, "original: expected an integer, got nil");
    option_integer(L, s, "length", 1, &out->length);
    read_positive(L, s, "beta_fast", &out->beta_fast);
    read_positive(L, s, "beta_slow", &out->beta_slow);
    read_positive(L, s, "attention_factor", &out->attention_factor);
    option_number(L, s, "mscale", &out->mscale);
    option_number(L, s, "mscale_all_dim", &out->mscale_all_dim);
    option_boolean(L, s, "truncate", &truncate);
    out->not_truncated = !truncate;
    read_positive(L, s, "low", &out->low);
    read_positive(L, s, "high", &out->high);
    if (out->type == ATTUNE_SCALING_LONGROPE) {
        out->short_factors = read_numbers(L, s, "short", &out->short_count);
        out->long_factors = read_numbers(L, s, "long", &out->long_count);
    }
}

static void read_rope(lua_State *L, int index, attune_rope_options *out) {
    static const char *const precisions[] = {"f64", "f32", "f16", NULL};
    int angles = 0;
    option_integer(L, index, "dims", 2, &out->dims);
    read_base(L, index, &out->base);
    out->pairing = read_pairing(L, index, ATTUNE_HALF);
    option_choice(L, index, "angles", precisions, &angles);
    out->angles = (attune_angles)angles;
    read_scaling(L, index, &out->scaling);
}

/* ---- making ---------------------------------------------------------------------------------- */

static void make_none(lua_State *L, int options) {
    static const char *const known[] = {"head_dim", "d_model", "heads",
                                        NULL}; /* a sweep over names passes what the others need */
    check_options(L, options, known);
    RUN(L, attune_position_none(push_position(L)));
}

static void make_rope(lua_State *L, int options) {
    static const char *const known[] = {"head_dim", "base",    "dims", "pairing",
                                        "angles",   "scaling", NULL};
    attune_rope_options o = {0};
    check_options(L, options, known);
    o.head_dim = required(L, options, "head_dim");
    read_rope(L, options, &o);
    RUN(L, attune_position_rope(&o, push_position(L)));
}

/* The table that was given is the one that shows, not another handle on its memory. */
static void keep_table(lua_State *L, int options) {
    lua_getfield(L, options, "table");
    lua_setiuservalue(L, -2, TABLE);
}

static void make_learned(lua_State *L, int options) {
    static const char *const known[] = {"d_model", "max_positions", "seed", "table", NULL};
    int64_t seed = 0;
    check_options(L, options, known);
    if (!lua_isnil(L, options) && lua_getfield(L, options, "table") != LUA_TNIL) {
        attune_tensor *table = check_tensor(L, -1, "table");
        int64_t d_model = 0, most = 0;
        option_integer(L, options, "d_model", 1, &d_model);
        option_integer(L, options, "max_positions", 1, &most);
        RUN(L, attune_position_learned(d_model, most, 0, table, push_position(L)));
        keep_table(L, options);
        return;
    }
    int64_t d_model = required(L, options, "d_model"), most = required(L, options, "max_positions");
    if (!option_integer(L, options, "seed", INT64_MIN, &seed)) seed = (int64_t)next_seed();
    RUN(L, attune_position_learned(d_model, most, (uint64_t)seed, NULL, push_position(L)));
}

static void make_sinusoidal(lua_State *L, int options) {
    static const char *const known[] = {"d_model", "base", "layout", NULL}, *const layouts[] = {
                                                                                "interleaved",
                                                                                "halves", NULL};
    int layout = 0;
    double base = 0;
    check_options(L, options, known);
    int64_t d_model = required(L, options, "d_model");
    read_base(L, options, &base);
    option_choice(L, options, "layout", layouts, &layout);
    RUN(L, attune_position_sinusoidal(d_model, base, layout == 1, push_position(L)));
}

static void make_rope2d(lua_State *L, int options) {
    static const char *const known[] = {"head_dim", "base", "pairing", NULL};
    double base = 0;
    check_options(L, options, known);
    int64_t head_dim = required(L, options, "head_dim");
    read_base(L, options, &base);
    attune_pairing pairing = read_pairing(L, options, ATTUNE_HALF);
    RUN(L, attune_position_rope2d(head_dim, base, pairing, push_position(L)));
}

static void make_xpos(lua_State *L, int options) {
    static const char *const known[] = {"head_dim", "base",   "dims", "scale_base",
                                        "pairing",  "center", NULL};
    attune_xpos_options o = {0};
    check_options(L, options, known);
    o.head_dim = required(L, options, "head_dim");
    option_integer(L, options, "dims", 2, &o.dims);
    read_base(L, options, &o.base);
    read_positive(L, options, "scale_base", &o.scale_base);
    option_number(L, options, "center", &o.center);
    o.pairing = read_pairing(L, options, ATTUNE_INTERLEAVED);
    RUN(L, attune_position_xpos(&o, push_position(L)));
}

static void make_alibi(lua_State *L, int options) {
    static const char *const known[] = {"heads", "max_bias", NULL};
    double max_bias = 0;
    check_options(L, options, known);
    int64_t heads = required(L, options, "heads");
    read_positive(L, options, "max_bias", &max_bias);
    RUN(L, attune_position_alibi(heads, max_bias, push_position(L)));
}

static void make_t5(lua_State *L, int options) {
    static const char *const known[] = {"heads", "buckets", "max_distance", "bidirectional", "seed",
                                        "table", NULL};
    attune_t5_options o = {0};
    bool bidirectional = true;
    int64_t seed = 0;
    check_options(L, options, known);
    option_integer(L, options, "heads", 1, &o.heads);
    option_integer(L, options, "buckets", 1, &o.buckets);
    option_integer(L, options, "max_distance", 1, &o.max_distance);
    option_boolean(L, options, "bidirectional", &bidirectional);
    o.causal = !bidirectional;
    if (!lua_isnil(L, options) && lua_getfield(L, options, "table") != LUA_TNIL) {
        o.table = check_tensor(L, -1, "table");
        RUN(L, attune_position_t5(&o, push_position(L)));
        keep_table(L, options);
        return;
    }
    required(L, options, "heads");
    o.seed = option_integer(L, options, "seed", INT64_MIN, &seed) ? (uint64_t)seed : next_seed();
    RUN(L, attune_position_t5(&o, push_position(L)));
}

static const char *const names[] = {"none", "rope",  "learned", "sinusoidal", "rope2d",
                                    "xpos", "alibi", "t5",      NULL};
static void (*const makers[])(lua_State *L,
                              int options) = {make_none,   make_rope, make_learned, make_sinusoidal,
                                              make_rope2d, make_xpos, make_alibi,   make_t5};

static int position(lua_State *L) {
    lua_settop(L, 2);
    if (lua_type(L, 1) != LUA_TSTRING)
        return raise_expected(L, "name", "the name of an encoding, such as 'rope'", 1);
    int i = 0;
    while (names[i] && strcmp(names[i], lua_tostring(L, 1)) != 0) i++;
    if (!names[i]) return raise_unknown(L, "positional encoding", lua_tostring(L, 1), names);
    if (!lua_isnil(L, 2) && !lua_istable(L, 2))
        return raise_expected(L, "options", "a table of named fields", 2);
    makers[i](L, 2);
    return 1;
}

/* ---- using ----------------------------------------------------------------------------------- */

/* A list or tensor of positions at index, or NULL for 0, 1, .. */
static attune_tensor *read_positions(lua_State *L, int index) {
    return lua_isnoneornil(L, index) ? NULL : push_integers(L, index, "positions");
}

static int p_rotate(lua_State *L) {
    lua_settop(L, 4);
    attune_position *pe = check_position(L, 1, "position");
    attune_tensor *x = check_tensor(L, 2, "x");
    attune_side side = ATTUNE_QUERY;
    const unsigned capabilities = attune_position_capabilities(pe);
    const bool sided = (capabilities & ATTUNE_SIDED) != 0;
    if (!lua_isnil(L, 4) || sided) {
        const char *which = lua_type(L, 4) == LUA_TSTRING ? lua_tostring(L, 4) : "";
        if (strcmp(which, "q") != 0 && strcmp(which, "k") != 0)
            return raise_expected(L, "which",
                                  sided ? "'q' or 'k', which xpos tells apart" : "'q' or 'k'", 4);
        side = *which == 'q' ? ATTUNE_QUERY : ATTUNE_KEY;
    }
    if (!(capabilities & ATTUNE_ROTATES)) { /* no rotation: x itself */
        lua_settop(L, 2);
        return 1;
    }
    attune_tensor *positions = read_positions(L, 3);
    RUN(L, attune_position_rotate(pe, x, positions, side, push_tensor(L)));
    return 1;
}

static int p_embed(lua_State *L) {
    lua_settop(L, 3);
    attune_position *pe = check_position(L, 1, "position");
    attune_tensor *x = check_tensor(L, 2, "x");
    if (!(attune_position_capabilities(pe) & ATTUNE_EMBEDS)) { /* no embedding: x itself */
        lua_settop(L, 2);
        return 1;
    }
    attune_tensor *positions = read_positions(L, 3);
    RUN(L, attune_position_embed(pe, x, positions, push_tensor(L)));
    return 1;
}

/* The table or the slopes of the handle at index 1, the same object each time; nil where it has
 * none. Pushes one value. */
static void push_kept(lua_State *L,
                      attune_status (*get)(const attune_position *pe, attune_tensor *out)) {
    attune_tensor unused;
    attune_position *pe = check_position(L, 1, "position");
    if (get(pe, &unused) != ATTUNE_OK) {
        lua_pushnil(L);
        return;
    }
    attune_tensor_close(&unused);
    if (lua_getiuservalue(L, 1, TABLE) != LUA_TNIL) return;
    lua_pop(L, 1);
    RUN(L, get(pe, push_tensor(L)));
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, 1, TABLE);
}

static int p_parameters(lua_State *L) {
    lua_settop(L, 1);
    lua_newtable(L);
    push_kept(L, attune_position_table);
    lua_setfield(L, -2, "weight");
    return 1;
}

static int p_bucket(lua_State *L) {
    attune_position *pe = check_position(L, 1, "position");
    int64_t relative = check_integer(L, 2, "relative", INT64_MIN), bucket = 0;
    RUN(L, attune_position_bucket(pe, relative, &bucket));
    lua_pushinteger(L, bucket);
    return 1;
}

/* The score function over the kept table or slopes, which the hook score_of makes: the same closure
 * each time; nil where the encoding has no part in the scores. */
static void push_score(lua_State *L) {
    attune_position *pe = check_position(L, 1, "position");
    const char *name = attune_position_name(pe);
    const bool alibi = strcmp(name, "alibi") == 0, t5 = strcmp(name, "t5") == 0;
    if (!alibi && !t5) {
        lua_pushnil(L);
        return;
    }
    if (lua_getiuservalue(L, 1, SCORE) != LUA_TNIL) return;
    lua_pop(L, 1);
    push_hook(L, "score_of");
    lua_pushstring(L, name);
    push_kept(L, alibi ? attune_position_slopes : attune_position_table);
    if (t5) {
        int64_t max_distance = 0;
        bool bidirectional = false;
        attune_position_distances(pe, &max_distance, &bidirectional);
        lua_pushinteger(L, max_distance);
        lua_pushboolean(L, bidirectional);
    }
    lua_call(L, alibi ? 2 : 4, 1);
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, 1, SCORE);
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

static const luaL_Reg methods[] = {{"rotate", p_rotate},         {"embed", p_embed},
                                   {"parameters", p_parameters}, {"bucket", p_bucket},
                                   {"close", p_close},           {NULL, NULL}};

/* Upvalue 1: the methods. */
static int p_index(lua_State *L) {
    luaL_checkudata(L, 1, POSITION_TYPE);
    lua_pushvalue(L, 2);
    if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) return 1;
    attune_position *pe = check_position(L, 1, "position");
    const char *name = lua_type(L, 2) == LUA_TSTRING ? lua_tostring(L, 2) : describe(L, 2);
    static const char *const known[] = {"rotate", "embed", "parameters", "bucket",
                                        "close",  "name",  "score",      "inv_freq",
                                        "factor", "table", "slopes",     NULL};
    if (strcmp(name, "name") == 0)
        lua_pushstring(L, attune_position_name(pe));
    else if (strcmp(name, "score") == 0)
        push_score(L);
    else if (strcmp(name, "factor") == 0)
        lua_pushnumber(L, attune_position_factor(pe));
    else if (strcmp(name, "table") == 0)
        push_kept(L, attune_position_table);
    else if (strcmp(name, "slopes") == 0)
        push_kept(L, attune_position_slopes);
    else if (strcmp(name, "inv_freq") == 0) {
        if (attune_position_inv_freq(pe, push_tensor(L)) != ATTUNE_OK) lua_pushnil(L);
    } else
        raise_unknown(L, "method or field", name, known);
    return 1;
}

static int rope(lua_State *L) {
    static const char *const known[] = {"base",   "dims",    "pairing", "positions",
                                        "angles", "scaling", NULL};
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
    RUN(L, attune_position_rotate(*pe, x, positions, ATTUNE_QUERY, push_tensor(L)));
    return 1;
}

void open_position(lua_State *L) {
    static const luaL_Reg meta[] = {{"__gc", p_close},
                                    {"__close", p_close},
                                    {"__tostring", p_tostring},
                                    {NULL, NULL}},
                          functions[] = {{"position", position}, {"rope", rope}, {NULL, NULL}};
    luaL_newmetatable(L, POSITION_TYPE);
    luaL_setfuncs(L, meta, 0);
    luaL_newlib(L, methods);
    lua_pushcclosure(L, p_index, 1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
    luaL_setfuncs(L, functions, 0);
}
