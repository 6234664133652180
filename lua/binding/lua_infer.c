/* lua_infer.c - what running a model needs besides attention, for lua/attune/model and without
 * gradients.
 */
#include <string.h>

#include "binding.h"

/* (sum [tokens, n], rows [count, n], list of count ids from 0, list of weights): adds in place. */
static int add_rows(lua_State *L) {
    lua_settop(L, 4);
    luaL_checktype(L, 3, LUA_TTABLE);
    luaL_checktype(L, 4, LUA_TTABLE);
    const int64_t count = check_tensor(L, 2, "rows")->shape[0];
    int64_t *ids = lua_newuserdatauv(L, (size_t)count * sizeof *ids, 0);
    double *weights = lua_newuserdatauv(L, (size_t)count * sizeof *weights, 0);
    for (int64_t i = 0; i < count; i++) {
        lua_rawgeti(L, 3, i + 1);
        lua_rawgeti(L, 4, i + 1);
        ids[i] = check_integer(L, -2, "ids", 0);
        weights[i] = check_number(L, -1, "weights");
        lua_pop(L, 2);
    }
    attune_tensor *sum = check_tensor(L, 1, "sum");
    const attune_tensor *from = check_tensor(L, 2, "rows");
    if (from->shape[0] != count) return raise_error(L, "rows: expected a tensor that stays open");
    RUN(L, attune_add_rows(sum, from, ids, weights));
    return 0;
}

/* (a, b) -> a and b joined along the last axis; b is expanded to a's other extents. */
static attune_status join_into(const attune_tensor *a, const attune_tensor *b, attune_tensor *out) {
    const int last = a->rank - 1;
    int64_t shape[ATTUNE_MAX_RANK] = {0};
    attune_tensor view = {0}, wide = {0};
    memcpy(shape, a->shape, sizeof shape);
    shape[last] = b->shape[last];
    attune_status status = attune_tensor_expand(b, a->rank, shape, &wide);
    shape[last] = a->shape[last] + b->shape[last];
    if (status == ATTUNE_OK) status = attune_tensor_new(a->dtype, a->rank, shape, out);
    if (status == ATTUNE_OK) status = attune_tensor_slice(out, last, 0, a->shape[last], &view);
    if (status == ATTUNE_OK) status = attune_tensor_copy(a, &view);
    attune_tensor_close(&view);
    if (status == ATTUNE_OK)
        status = attune_tensor_slice(out, last, a->shape[last], shape[last], &view);
    if (status == ATTUNE_OK) status = attune_tensor_copy(&wide, &view);
    attune_tensor_close(&view);
    attune_tensor_close(&wide);
    if (status != ATTUNE_OK) attune_tensor_close(out);
    return status;
}

static int join(lua_State *L) {
    lua_settop(L, 2);
    check_tensor(L, 1, "a");
    check_tensor(L, 2, "b");
    attune_tensor *y = push_tensor(L);
    const attune_tensor *a = check_tensor(L, 1, "a"), *b = check_tensor(L, 2, "b");
    if (a->rank != b->rank || a->rank < 1)
        return raise_error(L, "b: expected as many axes as a, %d, got %d", a->rank, b->rank);
    RUN(L, join_into(a, b, y));
    return 1;
}

void open_infer(lua_State *L) {
    static const luaL_Reg functions[] = {{"_add_rows", add_rows}, {"_join", join}, {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
}
