/* lua_position.c - positional encodings. A handle has two user values: its table or slopes, so that
 * each look gives the same tensor, and its score. */
#include <string.h>

#include "binding.h"

enum { TABLE = 1, SCORE = 2 };

attune_position *check_position(lua_State *L, int index, const char *name) {
    return *(attune_position **)check_open(L, index, &position_kind, name);
}

static attune_position **push_position(lua_State *L) { return push_handle(L, &position_kind, 2); }

static const char *const pairings[] = {"half", "interleaved", NULL};

static void read_base(lua_State *L, const options *given, double *out) {
    if (option_number(L, given, "base", out) && !(*out > 0))
        raise_error(L, "base: expected a positive number, got %f", *out);
}

static attune_pairing read_pairing(lua_State *L, const options *given, attune_pairing otherwise) {
    int pairing = (int)otherwise;
    option_choice(L, given, "pairing", pairings, &pairing);
    return (attune_pairing)pairing;
}

/* A list of numbers; it lives in userdata that this pushes. */
static double *push_numbers(lua_State *L, const options *given, const char *name, int64_t *count) {
    const int list = option(given, name);
    if (!lua_istable(L, list)) raise_expected(L, name, "a list of numbers", list);
    *count = (int64_t)lua_rawlen(L, list);
    double *out = lua_newuserdatauv(L, (size_t)(*count + 1) * sizeof *out, 0);
    for (int64_t i = 0; i < *count; i++) {
        lua_rawgeti(L, list, i + 1);
        out[i] = check_number(L, -1, name);
        lua_pop(L, 1);
    }
    return out;
}

/* A number that must not be zero, which would mean the default. */
static void read_positive(lua_State *L, const options *given, const char *name, double *out) {
    if (option_number(L, given, name, out) && !(*out > 0))
        raise_error(L, "%s: expected a positive number, got %f", name, *out);
}

/* The name of the scaling in the table at index, as an index into types. */
static int scaling_type(lua_State *L, int index, const char *const *types) {
    lua_pushliteral(L, "type");
    if (lua_rawget(L, index) == LUA_TNIL)
        raise_error(L, "type: expected the name of a scaling, such as 'yarn', got nil");
    const int type = check_choice(L, -1, "type", types);
    lua_pop(L, 1);
    return type;
}

/* Reads the scaling at index. Pushes what must stay until the encoding is made. */
static void read_scaling(lua_State *L, int index, attune_rope_scaling *out) {
    static const char *const types[] = {"linear",   "ntk",    "dynamic",      "yarn",
                                        "longrope", "llama3", "proportional", NULL};
    static const char *const
        plain[] = {"type", "factor", "original", "length", NULL},
        *const yarn[] = {"type",      "factor",           "original", "length",         "beta_fast",
                         "beta_slow", "attention_factor", "mscale",   "mscale_all_dim", "truncate",
                         NULL},
        *const longrope[] = {"type", "factor",           "original",     "length",      "short",
                             "long", "attention_factor", "short_mscale", "long_mscale", NULL},
        *const proportional[] = {"type", "factor", NULL}, *const llama3[] = {"type",     "factor",
                                                                             "original", "length",
                                                                             "low",      "high",
                                                                             NULL};
    static const char *const *const known[] = {plain,    plain,  plain,       yarn,
                                               longrope, llama3, proportional};
    bool truncate = true;
    if (!lua_istable(L, index))
        raise_expected(L, "scaling", "a table such as {type = 'linear', factor = 8}", index);
    const int type = scaling_type(L, index, types);
    const options given = read_options(L, index, known[type]);
    out->type = (attune_scaling_type)(type + 1);
    if (out->type == ATTUNE_SCALING_PROPORTIONAL) {
        read_positive(L, &given, "factor", &out->factor);
        return;
    }
    if (!option_number(L, &given, "factor", &out->factor))
        raise_error(L, "factor: expected a number, got nil");
    if (!option_integer(L, &given, "original", 1, &out->original) &&
        out->type != ATTUNE_SCALING_LINEAR && out->type != ATTUNE_SCALING_NTK)
        raise_error(L, "original: expected an integer, got nil");
    option_integer(L, &given, "length", 1, &out->length);
    switch (out->type) {
    case ATTUNE_SCALING_YARN:
        read_positive(L, &given, "beta_fast", &out->beta_fast);
        read_positive(L, &given, "beta_slow", &out->beta_slow);
        read_positive(L, &given, "attention_factor", &out->attention_factor);
        option_number(L, &given, "mscale", &out->mscale);
        option_number(L, &given, "mscale_all_dim", &out->mscale_all_dim);
        option_boolean(L, &given, "truncate", &truncate);
        out->not_truncated = !truncate;
        break;
    case ATTUNE_SCALING_LONGROPE:
        out->short_factors = push_numbers(L, &given, "short", &out->short_count);
        out->long_factors = push_numbers(L, &given, "long", &out->long_count);
        read_positive(L, &given, "attention_factor", &out->attention_factor);
        read_positive(L, &given, "short_mscale", &out->short_mscale);
        read_positive(L, &given, "long_mscale", &out->long_mscale);
        break;
    case ATTUNE_SCALING_LLAMA3:
        read_positive(L, &given, "low", &out->low);
        read_positive(L, &given, "high", &out->high);
        break;
    default: break;
    }
}

static void read_rope(lua_State *L, const options *given, attune_rope_options *out) {
    static const char *const precisions[] = {"f64", "f32", "f16", NULL};
    int angles = 0;
    option_integer(L, given, "dims", 2, &out->dims);
    read_base(L, given, &out->base);
    out->pairing = read_pairing(L, given, ATTUNE_HALF);
    option_choice(L, given, "angles", precisions, &angles);
    out->angles = (attune_angles)angles;
    if (!lua_isnil(L, option(given, "scaling")))
        read_scaling(L, option(given, "scaling"), &out->scaling);
    if (!lua_isnil(L, option(given, "inv_freq")))
        out->inv_freq = push_numbers(L, given, "inv_freq", &out->inv_freq_count);
}

/* ---- making ---------------------------------------------------------------------------------- */

/* Each reads the options at index 2 and pushes an encoding. */
static void make_none(lua_State *L) {
    /* A sweep over names passes what the other encodings need. */
    static const char *const known[] = {"head_dim", "d_model", "heads", NULL};
    read_options(L, 2, known);
    attune_position **pe = push_position(L);
    RUN(L, attune_position_none(pe));
}

static void make_rope(lua_State *L) {
    static const char *const known[] = {"head_dim", "base",    "dims",     "pairing",
                                        "angles",   "scaling", "inv_freq", NULL};
    attune_rope_options o = {0};
    const options given = read_options(L, 2, known);
    o.head_dim = required_integer(L, &given, "head_dim");
    read_rope(L, &given, &o);
    attune_position **pe = push_position(L);
    RUN(L, attune_position_rope(&o, pe));
}

/* The handle on top of the stack shows the table that was given, not another handle on its memory.
 */
static void keep_table(lua_State *L, const options *given) {
    lua_pushvalue(L, option(given, "table"));
    lua_setiuservalue(L, -2, TABLE);
}

static void make_learned(lua_State *L) {
    static const char *const known[] = {"d_model", "max_positions", "seed", "table", NULL};
    int64_t d_model = 0, max_positions = 0, seed = 0;
    const options given = read_options(L, 2, known);
    const bool has_table = option_tensor(L, &given, "table") != NULL;
    if (has_table) {
        option_integer(L, &given, "d_model", 1, &d_model);
        option_integer(L, &given, "max_positions", 1, &max_positions);
    } else {
        d_model = required_integer(L, &given, "d_model");
        max_positions = required_integer(L, &given, "max_positions");
        if (!option_integer(L, &given, "seed", INT64_MIN, &seed)) seed = (int64_t)next_seed();
    }
    attune_position **pe = push_position(L);
    if (has_table) keep_table(L, &given);
    attune_tensor *table = option_tensor(L, &given, "table");
    RUN(L, attune_position_learned(d_model, max_positions, (uint64_t)seed, table, pe));
}

static void make_sinusoidal(lua_State *L) {
    static const char *const known[] = {"d_model", "base", "layout", NULL};
    static const char *const layouts[] = {"interleaved", "halves", NULL};
    int layout = 0;
    double base = 0;
    const options given = read_options(L, 2, known);
    const int64_t d_model = required_integer(L, &given, "d_model");
    read_base(L, &given, &base);
    option_choice(L, &given, "layout", layouts, &layout);
    attune_position **pe = push_position(L);
    RUN(L, attune_position_sinusoidal(d_model, base, layout == 1, pe));
}

static void make_rope2d(lua_State *L) {
    static const char *const known[] = {"head_dim", "base", "pairing", NULL};
    double base = 0;
    const options given = read_options(L, 2, known);
    const int64_t head_dim = required_integer(L, &given, "head_dim");
    read_base(L, &given, &base);
    const attune_pairing pairing = read_pairing(L, &given, ATTUNE_HALF);
    attune_position **pe = push_position(L);
    RUN(L, attune_position_rope2d(head_dim, base, pairing, pe));
}

static void make_xpos(lua_State *L) {
    static const char *const known[] = {"head_dim", "base",   "dims", "scale_base",
                                        "pairing",  "center", NULL};
    attune_xpos_options o = {0};
    const options given = read_options(L, 2, known);
    o.head_dim = required_integer(L, &given, "head_dim");
    option_integer(L, &given, "dims", 2, &o.dims);
    read_base(L, &given, &o.base);
    read_positive(L, &given, "scale_base", &o.scale_base);
    option_number(L, &given, "center", &o.center);
    o.pairing = read_pairing(L, &given, ATTUNE_INTERLEAVED);
    attune_position **pe = push_position(L);
    RUN(L, attune_position_xpos(&o, pe));
}

static void make_alibi(lua_State *L) {
    static const char *const known[] = {"heads", "max_bias", NULL};
    double max_bias = 0;
    const options given = read_options(L, 2, known);
    const int64_t heads = required_integer(L, &given, "heads");
    read_positive(L, &given, "max_bias", &max_bias);
    attune_position **pe = push_position(L);
    RUN(L, attune_position_alibi(heads, max_bias, pe));
}

static void make_t5(lua_State *L) {
    static const char *const known[] = {"heads", "buckets", "max_distance", "bidirectional", "seed",
                                        "table", NULL};
    attune_t5_options o = {0};
    bool bidirectional = true;
    int64_t seed = 0;
    const options given = read_options(L, 2, known);
    option_integer(L, &given, "heads", 1, &o.heads);
    option_integer(L, &given, "buckets", 1, &o.buckets);
    option_integer(L, &given, "max_distance", 1, &o.max_distance);
    option_boolean(L, &given, "bidirectional", &bidirectional);
    o.causal = !bidirectional;
    const bool has_table = option_tensor(L, &given, "table") != NULL;
    if (!has_table) {
        required_integer(L, &given, "heads");
        const bool seeded = option_integer(L, &given, "seed", INT64_MIN, &seed);
        o.seed = seeded ? (uint64_t)seed : next_seed();
    }
    attune_position **pe = push_position(L);
    if (has_table) keep_table(L, &given);
    o.table = option_tensor(L, &given, "table");
    RUN(L, attune_position_t5(&o, pe));
}

static const char *const names[] = {"none", "rope",  "learned", "sinusoidal", "rope2d",
                                    "xpos", "alibi", "t5",      NULL};
static void (*const makers[])(lua_State *L) = {make_none,       make_rope,   make_learned,
                                               make_sinusoidal, make_rope2d, make_xpos,
                                               make_alibi,      make_t5};

static int position(lua_State *L) {
    lua_settop(L, 2);
    const char *name = check_text(L, 1, "name", "the name of an encoding, such as 'rope'");
    int i = 0;
    while (names[i] && strcmp(names[i], name) != 0) i++;
    if (!names[i]) return raise_unknown(L, "positional encoding", name, names);
    makers[i](L);
    return 1;
}

/* ---- using ----------------------------------------------------------------------------------- */

/* A list or tensor of positions at index, or NULL for 0, 1, .. */
static attune_tensor *read_positions(lua_State *L, int index) {
    return lua_isnoneornil(L, index) ? NULL : push_integers(L, index, "positions");
}

/* The side at index: "q", "k", or nil where q and k rotate alike. */
static attune_side check_side(lua_State *L, int index, bool sided) {
    if (lua_isnil(L, index) && !sided) return ATTUNE_QUERY;
    if (is_text(L, index, "q")) return ATTUNE_QUERY;
    if (is_text(L, index, "k")) return ATTUNE_KEY;
    raise_expected(L, "which", sided ? "'q' or 'k', which xpos tells apart" : "'q' or 'k'", index);
    return ATTUNE_QUERY;
}

static int p_rotate(lua_State *L) {
    refuse_further(L, 4, "rotate: expected x, positions, and 'q' or 'k'");
    lua_settop(L, 4);
    const unsigned capabilities = attune_position_capabilities(check_position(L, 1, "position"));
    attune_tensor *x = check_tensor_of(L, 2, "x", "[batch, heads, tokens, head_dim]");
    const attune_side side = check_side(L, 4, (capabilities & ATTUNE_SIDED) != 0);
    if (!(capabilities & ATTUNE_ROTATES)) { /* no rotation: x itself */
        lua_settop(L, 2);
        return 1;
    }
    attune_tensor *positions = read_positions(L, 3);
    attune_tensor *out = push_tensor(L);
    attune_position *pe = check_position(L, 1, "position");
    RUN(L, attune_position_rotate(pe, x, positions, side, out));
    return 1;
}

static int p_embed(lua_State *L) {
    lua_settop(L, 3);
    const unsigned capabilities = attune_position_capabilities(check_position(L, 1, "position"));
    attune_tensor *x = check_tensor_of(L, 2, "x", "[batch, tokens, d_model]");
    if (!(capabilities & ATTUNE_EMBEDS)) { /* no embedding: x itself */
        lua_settop(L, 2);
        return 1;
    }
    attune_tensor *positions = read_positions(L, 3);
    attune_tensor *out = push_tensor(L);
    attune_position *pe = check_position(L, 1, "position");
    RUN(L, attune_position_embed(pe, x, positions, out));
    return 1;
}

typedef attune_status (*tensor_getter)(const attune_position *pe, attune_tensor *out);

/* The table or the slopes of the handle at index 1, the same object each time; nil where it has
 * none. Pushes one value. */
static void push_kept(lua_State *L, tensor_getter get) {
    attune_tensor unused;
    if (get(check_position(L, 1, "position"), &unused) != ATTUNE_OK) {
        lua_pushnil(L);
        return;
    }
    attune_tensor_close(&unused);
    if (lua_getiuservalue(L, 1, TABLE) != LUA_TNIL) return;
    lua_pop(L, 1);
    attune_tensor *out = push_tensor(L);
    attune_position *pe = check_position(L, 1, "position");
    RUN(L, get(pe, out));
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
    lua_settop(L, 2);
    int64_t bucket = 0;
    attune_position *pe = check_position(L, 1, "position");
    const int64_t relative = check_integer(L, 2, "relative", INT64_MIN);
    RUN(L, attune_position_bucket(pe, relative, &bucket));
    lua_pushinteger(L, bucket);
    return 1;
}

/* The score function over the kept table or slopes, which the hook score_of makes: the same closure
 * each time; nil where the encoding has no part in the scores. */
static int f_score(lua_State *L) {
    attune_position *pe = check_position(L, 1, "position");
    if (!(attune_position_capabilities(pe) & ATTUNE_SCORES)) {
        lua_pushnil(L);
        return 1;
    }
    if (lua_getiuservalue(L, 1, SCORE) != LUA_TNIL) return 1;
    lua_pop(L, 1);
    int64_t max_distance = 0; /* 0: the encoding has no table of distances, but slopes */
    bool bidirectional = false;
    attune_position_distances(pe, &max_distance, &bidirectional);
    push_hook(L, "score_of");
    push_kept(L, max_distance ? attune_position_table : attune_position_slopes);
    lua_pushinteger(L, max_distance);
    lua_pushboolean(L, bidirectional);
    lua_call(L, 3, 1);
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, 1, SCORE);
    return 1;
}

/* ---- the handle ------------------------------------------------------------------------------ */

static bool p_is_open(const void *content) { return *(attune_position *const *)content != NULL; }

static void p_free(void *content) {
    attune_position **pe = content;
    attune_position_close(*pe);
    *pe = NULL;
}

static void p_describe(lua_State *L, void *content) {
    lua_pushfstring(L, "position %s", attune_position_name(*(attune_position **)content));
}

static int f_name(lua_State *L) {
    lua_pushstring(L, attune_position_name(check_position(L, 1, "position")));
    return 1;
}

static int f_factor(lua_State *L) {
    lua_pushnumber(L, attune_position_factor(check_position(L, 1, "position")));
    return 1;
}

static int f_table(lua_State *L) {
    push_kept(L, attune_position_table);
    return 1;
}

static int f_slopes(lua_State *L) {
    push_kept(L, attune_position_slopes);
    return 1;
}

static int f_inv_freq(lua_State *L) {
    attune_tensor *out = push_tensor(L);
    if (attune_position_inv_freq(check_position(L, 1, "position"), out) != ATTUNE_OK)
        lua_pushnil(L);
    return 1;
}

static const luaL_Reg
    methods[] = {{"rotate", p_rotate}, {"embed", p_embed}, {"parameters", p_parameters},
                 {"bucket", p_bucket}, {"close", NULL},    {NULL, NULL}},
    fields[] = {{"name", f_name},     {"score", f_score}, {"inv_freq", f_inv_freq},
                {"factor", f_factor}, {"table", f_table}, {"slopes", f_slopes},
                {NULL, NULL}};

const handle_kind position_kind = {.type = "attune.position",
                                   .argument = "position",
                                   .noun = "positional encoding",
                                   .size = sizeof(attune_position *),
                                   .is_open = p_is_open,
                                   .close = p_free,
                                   .describe = p_describe,
                                   .methods = methods,
                                   .fields = fields};

/* ---- rotating once --------------------------------------------------------------------------- */

static int rope(lua_State *L) {
    static const char *const known[] = {"base",   "dims",    "pairing",  "positions",
                                        "angles", "scaling", "inv_freq", NULL};
    attune_rope_options o = {0};
    lua_settop(L, 2);
    attune_tensor *x = check_tensor_of(L, 1, "x", "[batch, heads, tokens, head_dim]");
    const options given = read_options(L, 2, known);
    read_rope(L, &given, &o);
    if (x->rank != 4) return raise_expected(L, "x", "a tensor [batch, heads, tokens, head_dim]", 1);
    o.head_dim = x->shape[3];
    attune_tensor *positions = read_positions(L, option(&given, "positions"));
    attune_position **pe = push_position(L);
    attune_tensor *out = push_tensor(L);
    RUN(L, attune_position_rope(&o, pe));
    RUN(L, attune_position_rotate(*pe, x, positions, ATTUNE_QUERY, out));
    return 1;
}

void open_position(lua_State *L) {
    static const luaL_Reg functions[] = {{"position", position}, {"rope", rope}, {NULL, NULL}};
    define_handle(L, &position_kind, NULL);
    lua_setfield(L, -2, "_position_methods"); /* for the Lua library, which records them */
    luaL_setfuncs(L, functions, 0);
}
