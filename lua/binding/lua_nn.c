/* lua_nn.c - what training needs besides attention, each with its gradient. */
#include "binding.h"

/* The tensor at index, or NULL where it is nil. */
static attune_tensor *optional_tensor(lua_State *L, int index, const char *name) {
    return lua_isnoneornil(L, index) ? NULL : check_tensor(L, index, name);
}

/* A result that is wanted where the value at index is not nil or false; else nil is pushed. */
static attune_tensor *push_wanted(lua_State *L, int index) {
    if (lua_toboolean(L, index)) return push_tensor(L);
    lua_pushnil(L);
    return NULL;
}

static double eps_at(lua_State *L, int index) {
    return lua_isnoneornil(L, index) ? 1e-5 : check_number(L, index, "eps");
}

/* (x, weight or nil, eps) -> y, rstd */
static int rms_norm(lua_State *L) {
    lua_settop(L, 3);
    attune_tensor *x = check_tensor(L, 1, "x"), *weight = optional_tensor(L, 2, "weight");
    const double eps = eps_at(L, 3);
    attune_tensor *y = push_tensor(L), *rstd = push_tensor(L);
    RUN(L, attune_rms_norm(x, weight, eps, y, rstd));
    return 2;
}

/* (dy, x, weight or nil, rstd) -> dx, dweight */
static int rms_norm_backward(lua_State *L) {
    lua_settop(L, 4);
    attune_tensor *dy = check_tensor(L, 1, "dy"), *x = check_tensor(L, 2, "x"),
                  *weight = optional_tensor(L, 3, "weight"), *rstd = check_tensor(L, 4, "rstd");
    attune_tensor *dx = push_tensor(L), *dweight = push_wanted(L, 3);
    RUN(L, attune_rms_norm_backward(dy, x, weight, rstd, dx, dweight));
    return 2;
}

/* (x, weight or nil, bias or nil, eps) -> y, mean, rstd */
static int layer_norm(lua_State *L) {
    lua_settop(L, 4);
    attune_tensor *x = check_tensor(L, 1, "x"), *weight = optional_tensor(L, 2, "weight"),
                  *bias = optional_tensor(L, 3, "bias");
    const double eps = eps_at(L, 4);
    attune_tensor *y = push_tensor(L), *mean = push_tensor(L), *rstd = push_tensor(L);
    RUN(L, attune_layer_norm(x, weight, bias, eps, y, mean, rstd));
    return 3;
}

/* (dy, x, weight or nil, mean, rstd, needs bias) -> dx, dweight, dbias */
static int layer_norm_backward(lua_State *L) {
    lua_settop(L, 6);
    attune_tensor *dy = check_tensor(L, 1, "dy"), *x = check_tensor(L, 2, "x"),
                  *weight = optional_tensor(L, 3, "weight"), *mean = check_tensor(L, 4, "mean"),
                  *rstd = check_tensor(L, 5, "rstd");
    attune_tensor *dx = push_tensor(L), *dweight = push_wanted(L, 3), *dbias = push_wanted(L, 6);
    RUN(L, attune_layer_norm_backward(dy, x, weight, mean, rstd, dx, dweight, dbias));
    return 3;
}

static int swiglu(lua_State *L) {
    lua_settop(L, 2);
    attune_tensor *gate = check_tensor(L, 1, "gate"), *up = check_tensor(L, 2, "up");
    attune_tensor *y = push_tensor(L);
    RUN(L, attune_swiglu(gate, up, y));
    return 1;
}

/* (dy, gate, up) -> dgate, dup */
static int swiglu_backward(lua_State *L) {
    lua_settop(L, 3);
    attune_tensor *dy = check_tensor(L, 1, "dy"), *gate = check_tensor(L, 2, "gate"),
                  *up = check_tensor(L, 3, "up");
    attune_tensor *dgate = push_tensor(L), *dup = push_tensor(L);
    RUN(L, attune_swiglu_backward(dy, gate, up, dgate, dup));
    return 2;
}

/* ---- linear ---------------------------------------------------------------------------------- */

/* (x, weight, bias or nil) -> y */
static int linear(lua_State *L) {
    lua_settop(L, 3);
    attune_tensor *x = check_tensor(L, 1, "x"), *weight = check_tensor(L, 2, "weight"),
                  *bias = optional_tensor(L, 3, "bias");
    attune_tensor *y = push_tensor(L);
    RUN(L, attune_linear(x, weight, bias, y));
    return 1;
}

/* (dy, x, weight, needs x, needs weight, needs bias) -> dx, dweight, dbias */
static int linear_backward(lua_State *L) {
    lua_settop(L, 6);
    attune_tensor *dy = check_tensor(L, 1, "dy"), *x = check_tensor(L, 2, "x"),
                  *weight = check_tensor(L, 3, "weight");
    attune_tensor *dx = push_wanted(L, 4), *dweight = push_wanted(L, 5), *dbias = push_wanted(L, 6);
    RUN(L, attune_linear_backward(dy, x, weight, dx, dweight, dbias));
    return 3;
}

/* ---- embedding and loss ---------------------------------------------------------------------- */

/* (table, ids) -> [.., d_model]; ids from 0, a list, a list of lists or a tensor */
static int embedding(lua_State *L) {
    lua_settop(L, 2);
    check_tensor(L, 1, "table");
    attune_tensor *ids = push_integers(L, 2, "ids"), *out = push_tensor(L);
    RUN(L, attune_embedding(check_tensor(L, 1, "table"), ids, out));
    return 1;
}

/* (dy, ids, vocabulary) -> dtable */
static int embedding_backward(lua_State *L) {
    lua_settop(L, 3);
    check_tensor(L, 1, "dy");
    const int64_t vocabulary = check_integer(L, 3, "vocabulary", 1);
    attune_tensor *ids = push_integers(L, 2, "ids"), *out = push_tensor(L);
    RUN(L, attune_embedding_backward(check_tensor(L, 1, "dy"), ids, vocabulary, out));
    return 1;
}

/* (dy, ids, sum) -> whether the gradient was added to sum in place, which must be its own tensor */
static int embedding_accumulate(lua_State *L) {
    lua_settop(L, 3);
    check_tensor(L, 1, "dy");
    check_tensor(L, 3, "sum");
    attune_tensor *ids = push_integers(L, 2, "ids"), *dy = check_tensor(L, 1, "dy"),
                  *sum = check_tensor(L, 3, "sum");
    const bool fits = is_own(sum) && sum->dtype == dy->dtype &&
                      (sum->dtype == ATTUNE_F32 || sum->dtype == ATTUNE_F64);
    if (fits) RUN(L, attune_embedding_accumulate(dy, ids, sum));
    lua_pushboolean(L, fits);
    return 1;
}

static int64_t ignore_at(lua_State *L, int index) {
    return lua_isnoneornil(L, index) ? -1 : check_integer(L, index, "ignore", INT64_MIN);
}

/* (logits, targets, ignore: -1) -> loss, lse. The loss has shape {}. */
static int cross_entropy(lua_State *L) {
    double loss = 0;
    lua_settop(L, 3);
    check_tensor(L, 1, "logits");
    const int64_t ignore = ignore_at(L, 3);
    attune_tensor *targets = push_integers(L, 2, "targets"), *out = push_tensor(L),
                  *lse = push_tensor(L);
    attune_tensor *logits = check_tensor(L, 1, "logits");
    RUN(L, attune_cross_entropy(logits, targets, ignore, &loss, lse));
    const attune_dtype dtype = logits->dtype == ATTUNE_F64 ? ATTUNE_F64 : ATTUNE_F32;
    RUN(L, attune_tensor_new(dtype, 0, NULL, out));
    RUN(L, attune_tensor_fill(out, loss));
    return 2;
}

/* (dloss, logits, targets, ignore, lse) -> dlogits */
static int cross_entropy_backward(lua_State *L) {
    double dloss = 0;
    lua_settop(L, 5);
    check_tensor(L, 2, "logits");
    const int64_t ignore = ignore_at(L, 4), at[ATTUNE_MAX_RANK] = {0};
    attune_tensor *targets = push_integers(L, 3, "targets"), *out = push_tensor(L);
    RUN(L, attune_tensor_get(check_tensor(L, 1, "dloss"), at, &dloss));
    RUN(L, attune_cross_entropy_backward(dloss, check_tensor(L, 2, "logits"), targets, ignore,
                                         check_tensor(L, 5, "lse"), out));
    return 1;
}

/* ---- positions ------------------------------------------------------------------------------- */

/* (position, d_out, positions or nil, "q" or "k") -> dx */
static int rotate_backward(lua_State *L) {
    lua_settop(L, 4);
    check_position(L, 1, "position");
    check_tensor(L, 2, "d_out");
    const attune_side side = is_text(L, 4, "k") ? ATTUNE_KEY : ATTUNE_QUERY;
    attune_tensor *positions = lua_isnil(L, 3) ? NULL : push_integers(L, 3, "positions");
    attune_tensor *out = push_tensor(L);
    attune_position *pe = check_position(L, 1, "position");
    RUN(L, attune_position_rotate_backward(pe, check_tensor(L, 2, "d_out"), positions, side, out));
    return 1;
}

/* (position, d_out, positions or nil) -> dtable, of a learned encoding */
static int embed_backward(lua_State *L) {
    lua_settop(L, 3);
    check_position(L, 1, "position");
    check_tensor(L, 2, "d_out");
    attune_tensor *positions = lua_isnil(L, 3) ? NULL : push_integers(L, 3, "positions");
    attune_tensor *out = push_tensor(L);
    attune_position *pe = check_position(L, 1, "position");
    RUN(L, attune_position_embed_backward(pe, check_tensor(L, 2, "d_out"), positions, out));
    return 1;
}

void open_nn(lua_State *L) {
    static const luaL_Reg functions[] = {{"_rms_norm", rms_norm},
                                         {"_rms_norm_backward", rms_norm_backward},
                                         {"_layer_norm", layer_norm},
                                         {"_layer_norm_backward", layer_norm_backward},
                                         {"_swiglu", swiglu},
                                         {"_swiglu_backward", swiglu_backward},
                                         {"_linear", linear},
                                         {"_linear_backward", linear_backward},
                                         {"_embedding", embedding},
                                         {"_embedding_backward", embedding_backward},
                                         {"_embedding_accumulate", embedding_accumulate},
                                         {"_cross_entropy", cross_entropy},
                                         {"_cross_entropy_backward", cross_entropy_backward},
                                         {"_rotate_backward", rotate_backward},
                                         {"_embed_backward", embed_backward},
                                         {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
}
