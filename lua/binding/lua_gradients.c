/* lua_gradients.c - gradients of the tensor operations, for lua/attune/autograd. */
#include "binding.h"

static const char *const unary_names[] = {
#define X(symbol, name) name,
    ATTUNE_UNARY_TABLE(X)
#undef X
        NULL};
static const char *const binary_names[] = {
#define X(symbol, name) name,
    ATTUNE_BINARY_TABLE(X)
#undef X
        NULL};

/* A shape at index, as a tensor's field gives it: {} is that of one element. */
static int shape_at(lua_State *L, int index, int64_t shape[ATTUNE_MAX_RANK]) {
    luaL_checktype(L, index, LUA_TTABLE);
    return lua_rawlen(L, index) == 0 ? 0 : check_shape(L, index, "shape", shape);
}

/* (name, dy, kept) -> dx. kept: the result where _keeps_result(name), else the argument. */
static int unary_backward(lua_State *L) {
    lua_settop(L, 3);
    const attune_unary op = (attune_unary)check_choice(L, 1, "name", unary_names);
    attune_tensor *dy = check_tensor(L, 2, "dy"), *kept = check_tensor(L, 3, "kept");
    attune_tensor *out = push_tensor(L);
    RUN(L, attune_unary_backward(op, dy, kept, out));
    return 1;
}

static int keeps_result(lua_State *L) {
    const attune_unary op = (attune_unary)check_choice(L, 1, "name", unary_names);
    lua_pushboolean(L, attune_unary_keeps_result(op));
    return 1;
}

/* The tensor at index, or a number as a tensor of one element, pushed. like: its dtype. */
static attune_tensor *push_operand(lua_State *L, int index, const attune_tensor *like) {
    if (test_tensor(L, index)) {
        lua_pushvalue(L, index);
        return check_tensor(L, index, "operand");
    }
    const double number = check_number(L, index, "operand");
    attune_tensor *t = push_tensor(L);
    RUN(L, attune_tensor_new(like->dtype == ATTUNE_F64 ? ATTUNE_F64 : ATTUNE_F32, 0, NULL, t));
    RUN(L, attune_tensor_fill(t, number));
    return t;
}

/* (name, dy, a, b, needs a, needs b) -> da, db; nil where not needed. a or b may be a number. */
static int binary_backward(lua_State *L) {
    lua_settop(L, 6);
    const attune_binary op = (attune_binary)check_choice(L, 1, "name", binary_names);
    attune_tensor *dy = check_tensor(L, 2, "dy");
    attune_tensor *a = push_operand(L, 3, dy), *b = push_operand(L, 4, dy);
    attune_tensor *da = lua_toboolean(L, 5) ? push_tensor(L) : NULL;
    if (!da) lua_pushnil(L);
    attune_tensor *db = lua_toboolean(L, 6) ? push_tensor(L) : NULL;
    if (!db) lua_pushnil(L);
    RUN(L, attune_binary_backward(op, dy, a, b, da, db));
    return 2;
}

/* (tensor, shape) -> its sum over the axes along which the shape was repeated */
static int sum_to(lua_State *L) {
    int64_t shape[ATTUNE_MAX_RANK];
    lua_settop(L, 2);
    attune_tensor *t = check_tensor(L, 1, "tensor");
    const int rank = shape_at(L, 2, shape);
    attune_tensor *out = push_tensor(L);
    RUN(L, attune_sum_to(t, rank, shape, out));
    return 1;
}

/* (dy, y, axis) */
static int softmax_backward(lua_State *L) {
    lua_settop(L, 3);
    attune_tensor *dy = check_tensor(L, 1, "dy"), *y = check_tensor(L, 2, "y");
    const int axis = check_axis(L, 3, "axis", y);
    attune_tensor *out = push_tensor(L);
    RUN(L, attune_softmax_backward(dy, y, axis, out));
    return 1;
}

/* (dy, shape of the argument, axis or nil, "sum" or "mean") */
static int reduce_backward(lua_State *L) {
    int64_t shape[ATTUNE_MAX_RANK];
    lua_settop(L, 4);
    attune_tensor *dy = check_tensor(L, 1, "dy");
    const int rank = shape_at(L, 2, shape);
    int axis = ATTUNE_ALL_AXES;
    if (!lua_isnil(L, 3)) {
        const int64_t given = check_integer(L, 3, "axis", INT64_MIN);
        axis = (int)(given > 0 ? given - 1 : given);
    }
    const attune_reduction op = is_text(L, 4, "mean") ? ATTUNE_MEAN : ATTUNE_SUM;
    attune_tensor *out = push_tensor(L);
    RUN(L, attune_reduce_backward(op, dy, rank, shape, axis, out));
    return 1;
}

/* (dy, shape of the argument, axis, first): axis and first count from 1 */
static int slice_backward(lua_State *L) {
    int64_t shape[ATTUNE_MAX_RANK];
    lua_settop(L, 4);
    attune_tensor *dy = check_tensor(L, 1, "dy");
    const int rank = shape_at(L, 2, shape);
    int64_t axis = check_integer(L, 3, "axis", INT64_MIN),
            first = check_integer(L, 4, "first", INT64_MIN);
    if (axis < 0) axis += rank + 1;
    if (axis < 1 || axis > rank) return raise_expected(L, "axis", "an axis of the shape", 3);
    if (first < 0) first += shape[axis - 1] + 1;
    attune_tensor *out = push_tensor(L);
    RUN(L, attune_slice_backward(dy, rank, shape, (int)axis - 1, first - 1, out));
    return 1;
}

/* (dy, a, b, needs a, needs b) -> da, db */
static int matmul_backward(lua_State *L) {
    lua_settop(L, 5);
    attune_tensor *dy = check_tensor(L, 1, "dy"), *a = check_tensor(L, 2, "a"),
                  *b = check_tensor(L, 3, "b");
    attune_tensor *da = lua_toboolean(L, 4) ? push_tensor(L) : NULL;
    if (!da) lua_pushnil(L);
    attune_tensor *db = lua_toboolean(L, 5) ? push_tensor(L) : NULL;
    if (!db) lua_pushnil(L);
    RUN(L, attune_matmul_backward(dy, a, b, da, db));
    return 2;
}

void open_gradients(lua_State *L) {
    static const luaL_Reg functions[] = {{"_unary_backward", unary_backward},
                                         {"_keeps_result", keeps_result},
                                         {"_binary_backward", binary_backward},
                                         {"_sum_to", sum_to},
                                         {"_softmax_backward", softmax_backward},
                                         {"_reduce_backward", reduce_backward},
                                         {"_slice_backward", slice_backward},
                                         {"_matmul_backward", matmul_backward},
                                         {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
}
