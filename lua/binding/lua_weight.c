/* lua_weight.c - matrices of weights in the format of their file, for lua/attune/model. */
#include <string.h>

#include "binding.h"

static bool w_is_open(const void *content) { return *(attune_weight *const *)content != NULL; }

static void w_close(void *content) {
    attune_weight **w = content;
    attune_weight_close(*w);
    *w = NULL;
}

static void w_describe(lua_State *L, void *content) {
    const attune_stored s = attune_weight_describe(*(attune_weight **)content);
    lua_pushfstring(L, "%s weight [%I, %I]", s.format, (LUAI_UACINT)s.shape[0],
                    (LUAI_UACINT)s.shape[1]);
}

static const attune_weight *check_weight(lua_State *L) {
    return *(attune_weight **)check_open(L, 1, &weight_kind, "weight");
}

/* weight:apply(x [rows, inputs], bias or nil) -> [rows, outputs] */
static int w_apply(lua_State *L) {
    lua_settop(L, 3);
    check_weight(L);
    check_tensor(L, 2, "x");
    attune_tensor *y = push_tensor(L);
    const attune_weight *w = check_weight(L);
    const attune_tensor *x = check_tensor(L, 2, "x"),
                        *bias = lua_isnil(L, 3) ? NULL : check_tensor(L, 3, "bias");
    RUN(L, attune_weight_apply(w, x, bias, y));
    return 1;
}

/* core._apply_all(x [rows, inputs], weight, bias or false, weight, bias or false, ..) -> [rows,
 * outputs] of each, the same as weight:apply(x, bias) */
static int apply_all(lua_State *L) {
    const int count = (lua_gettop(L) - 1) / 2;
    const attune_weight *w[ATTUNE_MAX_WEIGHTS];
    const attune_tensor *bias[ATTUNE_MAX_WEIGHTS];
    attune_tensor *out[ATTUNE_MAX_WEIGHTS], y[ATTUNE_MAX_WEIGHTS];
    if (count < 1 || count > ATTUNE_MAX_WEIGHTS || lua_gettop(L) != 1 + 2 * count)
        return raise_error(L, "expected x, and from 1 to %d pairs of a weight and a bias or false",
                           ATTUNE_MAX_WEIGHTS);
    for (int i = 0; i < count; i++) out[i] = push_tensor(L);
    const attune_tensor *x = check_tensor(L, 1, "x");
    for (int i = 0; i < count; i++) {
        w[i] = *(attune_weight **)check_open(L, 2 + 2 * i, &weight_kind, "weight");
        bias[i] = lua_toboolean(L, 3 + 2 * i) ? check_tensor(L, 3 + 2 * i, "bias") : NULL;
    }
    RUN(L, attune_weights_apply(w, bias, count, x, y));
    for (int i = 0; i < count; i++) *out[i] = y[i];
    return count;
}

/* weight:rows(ids from 0) -> [.., inputs] */
static int w_rows(lua_State *L) {
    lua_settop(L, 2);
    check_weight(L);
    attune_tensor *ids = push_integers(L, 2, "ids"), *out = push_tensor(L);
    const attune_weight *w = check_weight(L);
    RUN(L, attune_weight_rows(w, ids, out));
    return 1;
}

static int f_shape(lua_State *L) {
    const attune_stored s = attune_weight_describe(check_weight(L));
    lua_createtable(L, 2, 0);
    for (int i = 0; i < 2; i++) {
        lua_pushinteger(L, s.shape[i]);
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

static int f_format(lua_State *L) {
    lua_pushstring(L, attune_weight_describe(check_weight(L)).format);
    return 1;
}

static int f_nbytes(lua_State *L) {
    return push_integer(L, attune_weight_describe(check_weight(L)).bytes);
}

static const luaL_Reg
    methods[] = {{"apply", w_apply}, {"rows", w_rows}, {"close", NULL}, {NULL, NULL}},
    fields[] = {{"shape", f_shape}, {"format", f_format}, {"nbytes", f_nbytes}, {NULL, NULL}};

const handle_kind weight_kind = {.type = "attune.weight",
                                 .argument = "weight",
                                 .noun = "weight",
                                 .size = sizeof(attune_weight *),
                                 .is_open = w_is_open,
                                 .close = w_close,
                                 .describe = w_describe,
                                 .methods = methods,
                                 .fields = fields};

/* core._weight(matrix [outputs, inputs]) -> weight */
static int weight(lua_State *L) {
    lua_settop(L, 1);
    check_tensor(L, 1, "matrix");
    attune_weight **w = push_handle(L, &weight_kind, 0);
    const attune_tensor *matrix = check_tensor(L, 1, "matrix");
    RUN(L, attune_weight_of(matrix, w));
    return 1;
}

void open_weight(lua_State *L) {
    define_handle(L, &weight_kind, NULL);
    lua_pop(L, 1);
    lua_pushcfunction(L, weight);
    lua_setfield(L, -2, "_weight");
    lua_pushcfunction(L, apply_all);
    lua_setfield(L, -2, "_apply_all");
}
