/* lua_attention.c - attention, its weights, merge. */
#include <math.h>
#include <string.h>

#include "binding.h"

static const char *const engines[] = {"reference", "blis", "tiled", "decode", NULL};

/* Lists of lengths as one block of integers in a userdata, which stays on the stack. The lists are
 * counted first; they may change while the block is made. */
static void read_lengths(lua_State *L, int index, attune_lengths *out) {
    if (lua_type(L, index) != LUA_TTABLE)
        raise_expected(L, "lengths", "a list of document lengths, or one list per batch row",
                       index);
    int64_t rows = (int64_t)lua_rawlen(L, index), total = 0;
    if (rows == 0) raise_error(L, "lengths: expected at least one document, got an empty list");
    const bool nested = lua_rawgeti(L, index, 1) == LUA_TTABLE;
    lua_pop(L, 1);
    if (!nested) {
        total = rows;
        rows = 1;
    }
    for (int64_t r = 0; r < rows && nested; r++) {
        if (lua_rawgeti(L, index, r + 1) != LUA_TTABLE)
            raise_expected(L, "lengths", "lists of lengths, one per batch row", -1);
        total += (int64_t)lua_rawlen(L, -1);
        lua_pop(L, 1);
    }
    int64_t *block = lua_newuserdatauv(L, (size_t)(rows + total) * sizeof *block, 0);
    int64_t *value = block + rows;
    for (int64_t r = 0; r < rows; r++) {
        if (nested)
            lua_rawgeti(L, index, r + 1);
        else
            lua_pushvalue(L, index);
        block[r] = lua_istable(L, -1) ? (int64_t)lua_rawlen(L, -1) : 0;
        if (block[r] > block + rows + total - value)
            raise_error(L, "lengths: expected lists that stay as they are, got more lengths");
        for (int64_t i = 0; i < block[r]; i++) {
            lua_rawgeti(L, -1, i + 1);
            *value++ = check_integer(L, -1, "lengths", 0);
            lua_pop(L, 1);
        }
        lua_pop(L, 1);
    }
    *out = (attune_lengths){.rows = rows, .count = block, .value = block + rows};
}

static const char *const summary_names[] = {"entropy", "distance", "sinks", "columns", NULL};

/* A list of names as a set of attune_summary. */
static unsigned read_summaries(lua_State *L, int index) {
    unsigned wanted = 0;
    if (lua_type(L, index) != LUA_TTABLE)
        raise_expected(L, "summaries", "a list of names, such as {'entropy', 'columns'}", index);
    const int64_t count = (int64_t)lua_rawlen(L, index);
    if (count == 0) {
        lua_pushnil(L);
        if (lua_next(L, index))
            raise_error(
                L, "summaries: expected a list of names, such as {'entropy', 'columns'}, got a "
                   "table of named fields");
    }
    for (int64_t i = 1; i <= count; i++) {
        lua_rawgeti(L, index, i);
        wanted |= 1u << check_choice(L, -1, "summaries", summary_names);
        lua_pop(L, 1);
    }
    return wanted;
}

/* The options, in the order of their stack slots. A cache knows those before CAUSAL. */
enum {
    WINDOW,
    SCALE,
    SOFTCAP,
    SINKS,
    SCORE,
    MASK,
    ROTATE,
    ENGINE,
    SUMMARIES,
    CAUSAL,
    LENGTHS,
    POSITIONS,
    D_LSE
};

static int slot(const attention_call *call, int n) { return call->given.first + n; }

static bool is_given(lua_State *L, const attention_call *call, int n) {
    return !lua_isnil(L, slot(call, n));
}

/* Names that other libraries have: the function that does it. */
static void refuse_bias(lua_State *L, const char *name, int index) {
    const bool meant = strstr(name, "bias") || strstr(name, "mask");
    if (meant && test_tensor(L, index))
        raise_tensor_as_function(L, name, test_tensor(L, index), index);
    if (strstr(name, "bias"))
        raise_error(L,
                    "unknown option '%s': write score = function(s, at) return s + "
                    "bias[at.h][at.i][at.j] end",
                    name);
}

/* A number of tokens, or {tokens before, tokens after}. */
static void read_window(lua_State *L, int index, attune_attention_options *out) {
    if (!lua_istable(L, index)) {
        out->window = check_integer(L, index, "window", 1);
        return;
    }
    if (lua_rawlen(L, index) != 2)
        raise_error(L, "window: expected tokens, or {left, right}, got a list of %d",
                    (int)lua_rawlen(L, index));
    lua_rawgeti(L, index, 1);
    lua_rawgeti(L, index, 2);
    out->two_sided = true;
    out->window_left = check_integer(L, -2, "window", -1);
    out->window_right = check_integer(L, -1, "window", -1);
    lua_pop(L, 2);
}

void read_attention_options(lua_State *L, int index, attention_call *call, attention_use use) {
    static const char *const known[] = {"window",  "scale",     "softcap", "sinks",     "score",
                                        "mask",    "rotate",    "engine",  "summaries", "causal",
                                        "lengths", "positions", NULL};
    static const char *const known_to_backward[] = {
        "window", "scale",     "softcap", "sinks",   "score",     "mask",  "rotate",
        "engine", "summaries", "causal",  "lengths", "positions", "d_lse", NULL};
    static const char *const known_to_cache[] = {"window",    "scale", "softcap", "sinks",
                                                 "score",     "mask",  "rotate",  "engine",
                                                 "summaries", NULL};
    attune_attention_options *out = &call->options;
    memset(out, 0, sizeof *out);
    call->given = read_options_or(L, index,
                                  use == FOR_CACHE      ? known_to_cache
                                  : use == FOR_BACKWARD ? known_to_backward
                                                        : known,
                                  refuse_bias);
    if (is_given(L, call, WINDOW)) read_window(L, slot(call, WINDOW), out);
    if (is_given(L, call, SCALE)) {
        out->scale = check_number(L, slot(call, SCALE), "scale");
        out->scale_given = true;
    }
    if (is_given(L, call, SOFTCAP)) {
        out->softcap = check_number(L, slot(call, SOFTCAP), "softcap");
        if (!(out->softcap > 0))
            raise_expected(L, "softcap", "a positive number", slot(call, SOFTCAP));
    }
    if (is_given(L, call, ENGINE))
        out->engine = (attune_engine)(1 + check_choice(L, slot(call, ENGINE), "engine", engines));
    call->summarized = is_given(L, call, SUMMARIES);
    call->wanted = call->summarized ? read_summaries(L, slot(call, SUMMARIES)) : 0;
    if (use != FOR_CACHE) {
        if (is_given(L, call, CAUSAL)) option_boolean(L, &call->given, "causal", &out->causal);
        if (is_given(L, call, LENGTHS)) read_lengths(L, slot(call, LENGTHS), &out->lengths);
        if (is_given(L, call, POSITIONS))
            out->positions = push_integers(L, slot(call, POSITIONS), "positions");
    }
    call->use = use;
    take_attention_handles(L, call); /* wrong ones are refused before results are made */
}

void take_attention_handles(lua_State *L, attention_call *call) {
    attune_attention_options *out = &call->options;
    if (is_given(L, call, SINKS)) out->sinks = check_tensor(L, slot(call, SINKS), "sinks");
    if (is_given(L, call, SCORE)) out->score = check_program(L, slot(call, SCORE), "score");
    if (is_given(L, call, MASK)) out->mask = check_program(L, slot(call, MASK), "mask");
    if (is_given(L, call, ROTATE)) out->rotate = check_position(L, slot(call, ROTATE), "rotate");
    if (call->use == FOR_BACKWARD && is_given(L, call, D_LSE))
        out->d_lse = check_tensor(L, slot(call, D_LSE), "d_lse");
}

summary_handles push_summary_handles(lua_State *L, const attention_call *call) {
    summary_handles handles = {{NULL}};
    for (int i = 0; i < 4; i++) {
        if (call->wanted & 1u << i)
            handles.tensor[i] = push_tensor(L);
        else
            lua_pushnil(L);
    }
    return handles;
}

int push_summaries(lua_State *L, const attention_call *call, const summary_handles *handles,
                   const attune_summaries *summaries) {
    const attune_tensor *from[] = {&summaries->entropy, &summaries->distance, &summaries->sinks,
                                   &summaries->columns};
    const int first = lua_gettop(L) - 3;
    for (int i = 0; i < 4; i++)
        if (handles->tensor[i]) *handles->tensor[i] = *from[i];
    if (!call->summarized) {
        lua_settop(L, first - 1);
        return 0;
    }
    lua_createtable(L, 0, 4);
    for (int i = 0; i < 4; i++) {
        lua_pushvalue(L, first + i);
        lua_setfield(L, -2, summary_names[i]);
    }
    lua_replace(L, first);
    lua_settop(L, first);
    return 1;
}

static int attention(lua_State *L) {
    attention_call call;
    lua_settop(L, 4);
    attune_tensor *q = check_tensor_of(L, 1, "q", Q_LAYOUT);
    attune_tensor *k = check_tensor_of(L, 2, "k", KV_LAYOUT);
    attune_tensor *v = check_tensor_of(L, 3, "v", KV_LAYOUT);
    read_attention_options(L, 4, &call, FOR_FORWARD);
    attune_tensor *o = push_tensor(L);
    attune_tensor *lse = push_tensor(L);
    const summary_handles handles = push_summary_handles(L, &call);
    attune_summaries summaries;
    take_attention_handles(L, &call);
    RUN(L, attune_attention_summarized(q, k, v, &call.options, call.wanted, o, lse, &summaries));
    return 2 + push_summaries(L, &call, &handles, &summaries);
}

enum { MAX_TABLES = 16 };

/* The tensors that the score program reads, and an empty one for the gradient of each: pairs on the
 * stack. The program's own list of them is never given to user code. */
static int push_table_gradients(lua_State *L, const attention_call *call) {
    if (!is_given(L, call, SCORE)) return 0;
    lua_getiuservalue(L, slot(call, SCORE), 1);
    const int count = (int)lua_rawlen(L, -1), list = lua_gettop(L);
    if (count > MAX_TABLES)
        return raise_error(
            L, "score: expected at most %d tensors in a function with gradients, got %d",
            MAX_TABLES, count);
    luaL_checkstack(L, 2 * count + LUA_MINSTACK, "score");
    for (int t = 0; t < count; t++) {
        lua_rawgeti(L, list, t + 1);
        push_tensor(L);
    }
    lua_remove(L, list);
    return count;
}

/* Pushes the gradient of the tensor of sinks on the top of the stack. Where the score reads it too,
 * `tables` has a gradient for it already, and the sum of both is pushed. */
static void push_gradient_of_sinks(lua_State *L, int tables, attune_tensor *d_sinks, int index) {
    lua_pushvalue(L, -1);
    lua_rawget(L, tables);
    const attune_tensor *other = test_tensor(L, -1);
    if (!other) {
        lua_pop(L, 1);
        lua_pushvalue(L, index);
        return;
    }
    attune_tensor *same = push_tensor(L), *sum = push_tensor(L);
    RUN(L, attune_tensor_convert(other, d_sinks->dtype, same));
    RUN(L, attune_tensor_binary(ATTUNE_ADD, d_sinks, same, sum));
    lua_replace(L, -3);
    lua_pop(L, 1);
}

/* dq, dk, dv, and a table of the gradients of what else the options hold, keyed by its tensor. */
static int attention_backward(lua_State *L) {
    static const char *const names[] = {"d_o", "q", "k", "v", "o", "lse"};
    attention_call call;
    attune_tensor *in[6], dtables[MAX_TABLES];
    lua_settop(L, 7);
    for (int i = 0; i < 6; i++) in[i] = check_tensor(L, i + 1, names[i]);
    read_attention_options(L, 7, &call, FOR_BACKWARD);
    lua_newtable(L);
    const int tables = lua_gettop(L), count = push_table_gradients(L, &call);
    attune_tensor *dq = push_tensor(L), *dk = push_tensor(L), *dv = push_tensor(L);
    attune_tensor *dsinks = push_tensor(L);
    const int d_sinks = lua_gettop(L);
    take_attention_handles(L, &call);
    RUN(L, attune_attention_backward(in[0], in[1], in[2], in[3], in[4], in[5], &call.options, dq,
                                     dk, dv, dsinks, dtables));
    for (int t = 0; t < count; t++) *test_tensor(L, tables + 2 * t + 2) = dtables[t];
    for (int t = 0; t < count; t++) {
        if (!test_tensor(L, tables + 2 * t + 2)->data) continue;
        lua_pushvalue(L, tables + 2 * t + 1);
        lua_pushvalue(L, tables + 2 * t + 2);
        lua_rawset(L, tables);
    }
    if (call.options.sinks) {
        lua_pushvalue(L, slot(&call, SINKS));
        push_gradient_of_sinks(L, tables, dsinks, d_sinks);
        lua_rawset(L, tables);
    }
    lua_settop(L, d_sinks - 1);
    lua_pushvalue(L, tables);
    return 4;
}

static int attention_weights(lua_State *L) {
    attention_call call;
    lua_settop(L, 3);
    attune_tensor *q = check_tensor_of(L, 1, "q", Q_LAYOUT);
    attune_tensor *k = check_tensor_of(L, 2, "k", KV_LAYOUT);
    read_attention_options(L, 3, &call, FOR_FORWARD);
    if (call.summarized)
        raise_error(L, "summaries: expected none, as the weights themselves are the result");
    attune_tensor *weights = push_tensor(L);
    take_attention_handles(L, &call);
    RUN(L, attune_attention_weights(q, k, &call.options, weights));
    return 1;
}

static int merge(lua_State *L) {
    refuse_further(L, 4, "merge: expected o1, lse1, o2 and lse2");
    lua_settop(L, 4);
    attune_tensor *o1 = check_tensor(L, 1, "o1"), *lse1 = check_tensor(L, 2, "lse1");
    attune_tensor *o2 = check_tensor(L, 3, "o2"), *lse2 = check_tensor(L, 4, "lse2");
    attune_tensor *o = push_tensor(L), *lse = push_tensor(L);
    RUN(L, attune_attention_merge(o1, lse1, o2, lse2, o, lse));
    return 2;
}

void open_attention(lua_State *L) {
    static const luaL_Reg functions[] = {{"attention", attention},
                                         {"attention_backward", attention_backward},
                                         {"attention_weights", attention_weights},
                                         {"merge", merge},
                                         {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
}
