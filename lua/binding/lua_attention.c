/* attention.c - attention, its weights, merge. */
#include <math.h>
#include <string.h>

#include "binding.h"

static const char *const engines[] = {"reference", "blis", "tiled", "decode", NULL};

/* Lists of lengths as one block of integers in a userdata, which stays on the stack. */
static void read_lengths(lua_State *L, int index, attune_lengths *out) {
    if (lua_type(L, index) != LUA_TTABLE)
        raise_expected(L, "lengths", "a list of document lengths, or one for each batch row",
                       index);
    index = lua_absindex(L, index);
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
            raise_expected(L, "lengths", "lists of lengths, one for each batch row", -1);
        total += (int64_t)lua_rawlen(L, -1);
        lua_pop(L, 1);
    }
    int64_t *block = lua_newuserdatauv(L, (size_t)(rows + total) * sizeof *block, 0),
            *value = block + rows;
    for (int64_t r = 0; r < rows; r++) {
        if (nested)
            lua_rawgeti(L, index, r + 1);
        else
            lua_pushvalue(L, index);
        block[r] = (int64_t)lua_rawlen(L, -1);
        for (int64_t i = 0; i < block[r]; i++) {
            lua_rawgeti(L, -1, i + 1);
            *value++ = check_integer(L, -1, "lengths", 1);
            lua_pop(L, 1);
        }
        lua_pop(L, 1);
    }
    *out = (attune_lengths){.rows = rows, .count = block, .value = block + rows};
}

/* One pass over the table: this runs for every call, however small. */
void read_attention_options(lua_State *L, int index, attune_attention_options *out,
                            bool for_cache) {
    static const char *const known[] = {"causal",  "window",    "scale",  "softcap",
                                        "lengths", "sinks",     "score",  "mask",
                                        "rotate",  "positions", "engine", NULL};
    static const char *const known_to_cache[] = {"window", "scale",  "softcap", "sinks", "score",
                                                 "mask",   "rotate", "engine",  NULL};
    memset(out, 0, sizeof *out);
    if (lua_isnoneornil(L, index)) return;
    if (lua_type(L, index) != LUA_TTABLE)
        raise_expected(L, "options", "a table of named fields", index);
    for (lua_pushnil(L); lua_next(L, index);) {
        if (lua_type(L, -2) != LUA_TSTRING)
            raise_error(L, "options: expected named fields, got %s as a name", describe(L, -2));
        const char *name = lua_tostring(L, -2);
        int choice = 0;
        if (strcmp(name, "scale") == 0) {
            out->scale = check_number(L, -1, "scale");
            out->scale_given = true;
        } else if (strcmp(name, "window") == 0) {
            out->window = check_integer(L, -1, "window", 1);
        } else if (strcmp(name, "softcap") == 0) {
            out->softcap = check_number(L, -1, "softcap");
            if (!(out->softcap > 0)) raise_expected(L, "softcap", "a positive number", -1);
        } else if (strcmp(name, "sinks") == 0) {
            out->sinks = check_tensor(L, -1, "sinks");
        } else if (strcmp(name, "engine") == 0) {
            option_choice(L, index, "engine", engines, &choice);
            out->engine = (attune_engine)(choice + 1);
        } else if (strcmp(name, "rotate") == 0) {
            out->rotate = check_position(L, -1, "rotate");
        } else if (strcmp(name, "score") == 0) {
            out->score = check_program(L, -1, "score");
        } else if (strcmp(name, "mask") == 0) {
            out->mask = check_program(L, -1, "mask");
        } else if (!for_cache && strcmp(name, "positions") == 0) {
            out->positions = push_integers(L, -1, "positions");
            lua_insert(L, -3); /* below the key, out of lua_next's way */
        } else if (!for_cache && strcmp(name, "causal") == 0) {
            if (!lua_isboolean(L, -1)) raise_expected(L, "causal", "true or false", -1);
            out->causal = lua_toboolean(L, -1);
        } else if (!for_cache && strcmp(name, "lengths") == 0) {
            read_lengths(L, -1, &out->lengths);
            lua_insert(L, -3); /* below the key, out of lua_next's way */
        } else {
            raise_unknown(L, "option", name, for_cache ? known_to_cache : known);
        }
        lua_pop(L, 1);
    }
}

static int attention(lua_State *L) {
    attune_attention_options options;
    lua_settop(L, 4);
    attune_tensor *q = check_tensor(L, 1, "q"), *k = check_tensor(L, 2, "k"),
                  *v = check_tensor(L, 3, "v");
    read_attention_options(L, 4, &options, false);
    attune_tensor *o = push_tensor(L), *lse = push_tensor(L);
    RUN(L, attune_attention(q, k, v, &options, o, lse));
    return 2;
}

enum { MAX_TABLES = 16 };

/* Pushes each tensor that the score program reads and an empty one for its gradient. */
static int push_table_gradients(lua_State *L, const attune_attention_options *options,
                                attune_tensor **to) {
    if (!options->score) return 0;
    lua_getfield(L, 7, "score");
    lua_getiuservalue(L, -1, 1);
    lua_remove(L, -2);
    const int count = (int)lua_rawlen(L, -1), list = lua_gettop(L);
    if (count > MAX_TABLES)
        return raise_error(
            L, "score: expected at most %d tensors in a function with gradients, got %d",
            MAX_TABLES, count);
    luaL_checkstack(L, 2 * count + 8, "score");
    for (int t = 0; t < count; t++) {
        lua_rawgeti(L, list, t + 1);
        to[t] = push_tensor(L);
    }
    lua_remove(L, list);
    return count;
}

/* dq, dk, dv, and a table of the gradients of what else the options hold, keyed by its tensor. */
static int attention_backward(lua_State *L) {
    attune_attention_options options;
    lua_settop(L, 7);
    attune_tensor *in[6];
    static const char *const names[] = {"d_o", "q", "k", "v", "o", "lse"};
    for (int i = 0; i < 6; i++) in[i] = check_tensor(L, i + 1, names[i]);
    read_attention_options(L, 7, &options, false);
    lua_newtable(L);
    int tables = lua_gettop(L);
    attune_tensor *of_tables[MAX_TABLES], dtables[MAX_TABLES], *dq, *dk, *dv, *dsinks;
    memset(of_tables, 0, sizeof of_tables);
    const int first = lua_gettop(L) + 1, count = push_table_gradients(L, &options, of_tables);
    dq = push_tensor(L);
    dk = push_tensor(L);
    dv = push_tensor(L);
    dsinks = push_tensor(L);
    RUN(L, attune_attention_backward(in[0], in[1], in[2], in[3], in[4], in[5], &options, dq, dk, dv,
                                     dsinks, dtables));
    for (int t = 0; t < count; t++) {
        *of_tables[t] = dtables[t];
        if (!dtables[t].data) continue;
        lua_pushvalue(L, first + 2 * t);
        lua_pushvalue(L, first + 2 * t + 1);
        lua_settable(L, tables);
    }
    if (options.sinks) {
        lua_getfield(L, 7, "sinks");
        lua_insert(L, -2);
        lua_settable(L, tables);
    } else {
        lua_pop(L, 1);
    }
    lua_pushvalue(L, tables);
    return 4;
}

static int attention_weights(lua_State *L) {
    attune_attention_options options;
    lua_settop(L, 3);
    attune_tensor *q = check_tensor(L, 1, "q"), *k = check_tensor(L, 2, "k");
    read_attention_options(L, 3, &options, false);
    attune_tensor *weights = push_tensor(L);
    RUN(L, attune_attention_weights(q, k, &options, weights));
    return 1;
}

static int merge(lua_State *L) {
    attune_tensor *o1 = check_tensor(L, 1, "o1"), *lse1 = check_tensor(L, 2, "lse1"),
                  *o2 = check_tensor(L, 3, "o2"), *lse2 = check_tensor(L, 4, "lse2");
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
