/* lua_cache.c - the key-value cache. */
#include <string.h>

#include "binding.h"

attune_cache *check_cache(lua_State *L, int index) {
    return *(attune_cache **)check_open(L, index, &cache_kind, "cache");
}

static int cache(lua_State *L) {
    static const char *const known[] = {"batch",    "kv_heads", "head_dim", "v_head_dim",
                                        "capacity", "window",   "dtype",    NULL};
    attune_cache_options o = {.batch = 1};
    lua_settop(L, 1);
    if (!lua_istable(L, 1))
        return raise_expected(L, "options",
                              "a table such as {kv_heads = 1, head_dim = 128, capacity = 8192}", 1);
    const options given = read_options(L, 1, known);
    option_integer(L, &given, "batch", 1, &o.batch);
    o.kv_heads = required_integer(L, &given, "kv_heads");
    o.head_dim = required_integer(L, &given, "head_dim");
    option_integer(L, &given, "v_head_dim", 1, &o.v_head_dim);
    option_integer(L, &given, "window", 1, &o.window);
    if (!option_integer(L, &given, "capacity", 1, &o.capacity) && !o.window)
        return raise_error(L, "capacity: expected a number of tokens (or a window), got nil");
    option_dtype(L, &given, &o.dtype);
    attune_cache **c = push_handle(L, &cache_kind, 0);
    RUN(L, attune_cache_new(&o, c));
    return 1;
}

static int c_append(lua_State *L) {
    static const char *const known[] = {"counts", "rotate", NULL};
    refuse_further(L, 4, "append: expected k, v and options");
    lua_settop(L, 4);
    check_cache(L, 1);
    static const char layout[] = "[batch, kv_heads, tokens, head_dim]";
    attune_tensor *k = check_tensor_of(L, 2, "k", layout);
    attune_tensor *v = check_tensor_of(L, 3, "v", layout), *counts = NULL;
    const options given = read_options(L, 4, known);
    if (!lua_isnil(L, option(&given, "counts")))
        counts = push_integers(L, option(&given, "counts"), "counts");
    attune_cache *c = check_cache(L, 1);
    attune_position *rotate = option_position(L, &given, "rotate");
    const int64_t batch = attune_cache_describe(c)->batch;
    if (counts && (counts->rank != 1 || counts->shape[0] != batch)) {
        return raise_error(L, "counts: expected %I numbers, one per batch row, got %s",
                           (LUAI_UACINT)batch, describe(L, option(&given, "counts")));
    }
    RUN(L, attune_cache_append(c, k, v, counts ? counts->data : NULL, rotate));
    lua_settop(L, 1);
    return 1;
}

static int c_attend(lua_State *L) {
    attention_call call;
    lua_settop(L, 3);
    check_cache(L, 1);
    attune_tensor *q = check_tensor_of(L, 2, "q", Q_LAYOUT);
    read_attention_options(L, 3, &call, FOR_CACHE);
    attune_tensor *o = push_tensor(L);
    attune_tensor *lse = push_tensor(L);
    const summary_handles handles = push_summary_handles(L, &call);
    attune_summaries summaries;
    take_attention_handles(L, &call);
    attune_cache *c = check_cache(L, 1);
    RUN(L, attune_cache_attend_summarized(c, q, &call.options, call.wanted, o, lse, &summaries));
    return 2 + push_summaries(L, &call, &handles, &summaries);
}

static int c_truncate(lua_State *L) {
    lua_settop(L, 2);
    attune_cache *c = check_cache(L, 1);
    const int64_t n = check_integer(L, 2, "n", 0);
    RUN(L, attune_cache_truncate(c, n));
    lua_settop(L, 1);
    return 1;
}

static int c_reset(lua_State *L) {
    attune_cache_reset(check_cache(L, 1));
    lua_settop(L, 1);
    return 1;
}

/* ---- the handle ------------------------------------------------------------------------------ */

static bool c_is_open(const void *content) { return *(attune_cache *const *)content != NULL; }

static void c_free(void *content) {
    attune_cache **c = content;
    attune_cache_close(*c);
    *c = NULL;
}

static void c_describe(lua_State *L, void *content) {
    const attune_cache *c = *(attune_cache **)content;
    const attune_cache_options *o = attune_cache_describe(c);
    lua_pushfstring(L, "%s cache of batch %I, %I kv heads of %I: %I of %I tokens",
                    attune_dtype_name(o->dtype), (LUAI_UACINT)o->batch, (LUAI_UACINT)o->kv_heads,
                    (LUAI_UACINT)o->head_dim, (LUAI_UACINT)attune_cache_length(c),
                    (LUAI_UACINT)o->capacity);
}

static const attune_cache_options *own_options(lua_State *L) {
    return attune_cache_describe(check_cache(L, 1));
}

static int f_length(lua_State *L) {
    return push_integer(L, attune_cache_length(check_cache(L, 1)));
}
static int f_nbytes(lua_State *L) {
    return push_integer(L, attune_cache_nbytes(check_cache(L, 1)));
}
static int f_capacity(lua_State *L) { return push_integer(L, own_options(L)->capacity); }
static int f_batch(lua_State *L) { return push_integer(L, own_options(L)->batch); }
static int f_kv_heads(lua_State *L) { return push_integer(L, own_options(L)->kv_heads); }
static int f_head_dim(lua_State *L) { return push_integer(L, own_options(L)->head_dim); }

static int f_dtype(lua_State *L) {
    lua_pushstring(L, attune_dtype_name(own_options(L)->dtype));
    return 1;
}

static int f_window(lua_State *L) {
    const int64_t window = own_options(L)->window;
    if (window)
        lua_pushinteger(L, window);
    else
        lua_pushnil(L);
    return 1;
}

static int f_lengths(lua_State *L) {
    const int64_t batch = own_options(L)->batch;
    lua_createtable(L, batch < INT32_MAX ? (int)batch : 0, 0);
    for (int64_t b = 0; b < batch; b++) {
        lua_pushinteger(L, attune_cache_row_length(check_cache(L, 1), b));
        lua_rawseti(L, -2, b + 1);
    }
    return 1;
}

static const luaL_Reg methods[] = {{"append", c_append},     {"attend", c_attend},
                                   {"truncate", c_truncate}, {"reset", c_reset},
                                   {"close", NULL},          {NULL, NULL}},
                      fields[] = {{"length", f_length},     {"lengths", f_lengths},
                                  {"nbytes", f_nbytes},     {"dtype", f_dtype},
                                  {"capacity", f_capacity}, {"batch", f_batch},
                                  {"kv_heads", f_kv_heads}, {"head_dim", f_head_dim},
                                  {"window", f_window},     {NULL, NULL}};

const handle_kind cache_kind = {.type = "attune.cache",
                                .argument = "cache",
                                .noun = "cache",
                                .size = sizeof(attune_cache *),
                                .is_open = c_is_open,
                                .close = c_free,
                                .describe = c_describe,
                                .methods = methods,
                                .fields = fields};

void open_cache(lua_State *L) {
    define_handle(L, &cache_kind, NULL);
    lua_setfield(L, -2, "_cache_methods"); /* init.lua wraps attend */
    lua_pushcfunction(L, cache);
    lua_setfield(L, -2, "cache");
}
