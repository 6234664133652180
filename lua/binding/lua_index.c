/* lua_index.c - tensors that are joined, compared, indexed and written in place.
 *
 * Indices count from 1, or from the end where they are negative, as in t[i].
 */
#include <math.h>

#include "binding.h"

/* ---- joining --------------------------------------------------------------------------------- */

/* The tensors of the list at 1, each on the stack; their addresses in userdata that this pushes. */
static const attune_tensor *const *push_list(lua_State *L, int64_t *count) {
    if (!lua_istable(L, 1)) raise_expected(L, "tensors", "a list of tensors", 1);
    *count = (int64_t)lua_rawlen(L, 1);
    if (*count == 0) raise_error(L, "tensors: expected at least one tensor, got an empty list");
    if (*count > 1 << 20)
        raise_error(L, "tensors: expected at most 2^20, got %I", (LUAI_UACINT)*count);
    luaL_checkstack(L, (int)*count + LUA_MINSTACK, "tensors");
    const attune_tensor **list = lua_newuserdatauv(L, (size_t)*count * sizeof *list, 0);
    for (int64_t i = 0; i < *count; i++) {
        lua_rawgeti(L, 1, i + 1);
        list[i] = check_tensor(L, -1, "tensors");
    }
    return list;
}

/* An axis of the result, which has `rank` axes. */
static int axis_of(lua_State *L, int index, int rank) {
    const int64_t axis = lua_isnoneornil(L, index) ? 1 : check_integer(L, index, "axis", INT64_MIN);
    return axis_of_rank(L, axis, "axis", rank);
}

/* The size of an axis, which may count from the end. */
static int64_t axis_extent(int axis, int rank, const int64_t *shape) {
    return shape[axis < 0 ? axis + rank : axis];
}

/* The list is read before the result is made, and its tensors are looked at again after: a
 * finalizer may have closed one. */
static void check_list(lua_State *L, int first, int64_t count) {
    for (int64_t i = 0; i < count; i++) check_tensor(L, first + (int)i, "tensors");
}

/* (list, axis) */
static int cat(lua_State *L) {
    int64_t count;
    lua_settop(L, 2);
    const attune_tensor *const *list = push_list(L, &count);
    const int axis = axis_of(L, 2, list[0]->rank);
    attune_tensor *out = push_tensor(L);
    check_list(L, 4, count);
    RUN(L, attune_tensor_cat(list, count, axis, out));
    return 1;
}

static int stack(lua_State *L) {
    int64_t count;
    lua_settop(L, 2);
    const attune_tensor *const *list = push_list(L, &count);
    const int axis = axis_of(L, 2, list[0]->rank + 1);
    attune_tensor *out = push_tensor(L);
    check_list(L, 4, count);
    RUN(L, attune_tensor_stack(list, count, axis, out));
    return 1;
}

/* ---- comparing ------------------------------------------------------------------------------- */

/* The dtype in which a number is compared with a tensor: that of f32 for floats, so that 0.1 equals
 * the f32 nearest to it. */
static attune_dtype number_dtype(lua_State *L, int index, const attune_tensor *t) {
    if (!at_is_integer(t->dtype)) return t->dtype == ATTUNE_F64 ? ATTUNE_F64 : ATTUNE_F32;
    const double x = lua_tonumber(L, index);
    return t->dtype == ATTUNE_I64 && x == floor(x) ? ATTUNE_I64 : ATTUNE_F64;
}

static int compare(lua_State *L, attune_comparison op) {
    lua_settop(L, 2);
    attune_tensor *a = check_tensor(L, 1, "tensor");
    attune_tensor *b = push_typed_operand(L, 2, "operand", number_dtype(L, 2, a));
    attune_tensor *out = push_tensor(L);
    RUN(L, attune_tensor_compare(op, check_tensor(L, 1, "tensor"), b, out));
    return 1;
}

static int t_lt(lua_State *L) { return compare(L, ATTUNE_LT); }
static int t_le(lua_State *L) { return compare(L, ATTUNE_LE); }
static int t_gt(lua_State *L) { return compare(L, ATTUNE_GT); }
static int t_ge(lua_State *L) { return compare(L, ATTUNE_GE); }
static int t_eq(lua_State *L) { return compare(L, ATTUNE_EQ); }
static int t_ne(lua_State *L) { return compare(L, ATTUNE_NE); }

/* (condition, a, b): a and b are tensors or numbers */
static int where(lua_State *L) {
    lua_settop(L, 3);
    check_tensor(L, 1, "condition");
    const attune_tensor *like = test_tensor(L, 2)   ? check_tensor(L, 2, "a")
                                : test_tensor(L, 3) ? check_tensor(L, 3, "b")
                                                    : NULL;
    const attune_dtype dtype = like ? like->dtype : ATTUNE_F32;
    push_typed_operand(L, 2, "a", dtype);
    push_typed_operand(L, 3, "b", dtype);
    attune_tensor *out = push_tensor(L);
    RUN(L, attune_tensor_where(check_tensor(L, 1, "condition"), check_tensor(L, 4, "a"),
                               check_tensor(L, 5, "b"), out));
    return 1;
}

/* ---- indexing -------------------------------------------------------------------------------- */

/* The indices at index as a new tensor that counts from 0. */
static attune_tensor *push_indices(lua_State *L, int index, int64_t extent) {
    attune_tensor *t = push_integers(L, index, "indices");
    int64_t *x = t->data;
    for (int64_t i = 0, count = attune_tensor_count(t); i < count; i++) {
        if (x[i] == 0 || x[i] > extent || x[i] < -extent)
            raise_error(
                L, "indices: expected from 1 to %I, or from -1 to %I, got %I (index out of range)",
                (LUAI_UACINT)extent, (LUAI_UACINT)-extent, (LUAI_UACINT)x[i]);
        x[i] += x[i] > 0 ? -1 : extent;
    }
    return t;
}

static int64_t extent_of(const attune_tensor *t, int axis) {
    return axis_extent(axis, t->rank, t->shape);
}

static attune_tensor *self(lua_State *L) { return check_tensor(L, 1, "tensor"); }

/* (tensor, indices, axis: 1) */
static int t_take(lua_State *L) {
    lua_settop(L, 3);
    if (lua_isnil(L, 3)) {
        lua_pushinteger(L, 1);
        lua_replace(L, 3);
    }
    const int axis = check_axis(L, 3, "axis", self(L));
    attune_tensor *indices = push_indices(L, 2, extent_of(self(L), axis));
    attune_tensor *out = push_tensor(L);
    RUN(L, attune_tensor_take(self(L), indices, axis, out));
    return 1;
}

/* (tensor, axis, indices) */
static int t_gather(lua_State *L) {
    lua_settop(L, 3);
    const int axis = check_axis(L, 2, "axis", self(L));
    attune_tensor *indices = push_indices(L, 3, extent_of(self(L), axis));
    attune_tensor *out = push_tensor(L);
    RUN(L, attune_tensor_gather(self(L), axis, indices, out));
    return 1;
}

/* Indices as Lua counts them. */
static void from_one(attune_tensor *t) {
    int64_t *x = t->data;
    for (int64_t i = 0, count = attune_tensor_count(t); i < count; i++) x[i]++;
}

/* (tensor, k, axis: the last) -> values, indices */
static int t_topk(lua_State *L) {
    lua_settop(L, 3);
    self(L);
    const int64_t k = check_integer(L, 2, "k", 1);
    const int axis = lua_isnil(L, 3) ? -1 : check_axis(L, 3, "axis", self(L));
    attune_tensor *values = push_tensor(L), *indices = push_tensor(L);
    RUN(L, attune_tensor_topk(self(L), k, axis, values, indices));
    from_one(indices);
    return 2;
}

static int arg(lua_State *L, attune_reduction op) {
    lua_settop(L, 2);
    const int axis = lua_isnil(L, 2) ? ATTUNE_ALL_AXES : check_axis(L, 2, "axis", self(L));
    attune_tensor *out = push_tensor(L);
    RUN(L, attune_tensor_arg(op, self(L), axis, out));
    from_one(out);
    return 1;
}

static int t_argmax(lua_State *L) { return arg(L, ATTUNE_MAX); }
static int t_argmin(lua_State *L) { return arg(L, ATTUNE_MIN); }

static int t_cumsum(lua_State *L) {
    lua_settop(L, 2);
    const int axis = check_axis(L, 2, "axis", self(L));
    attune_tensor *out = push_tensor(L);
    RUN(L, attune_tensor_cumsum(self(L), axis, false, out));
    return 1;
}

/* ---- in place -------------------------------------------------------------------------------- */

static int t_clone(lua_State *L) {
    lua_settop(L, 1);
    self(L);
    attune_tensor *out = push_tensor(L);
    RUN(L, attune_tensor_convert(self(L), self(L)->dtype, out));
    return 1;
}

/* Writes the number or the tensor at index, which broadcasts, into t. */
static void write_in_place(lua_State *L, attune_tensor *t, int index, const char *name) {
    index = lua_absindex(L, index);
    if (is_exact_integer(L, index, t->dtype)) {
        push_typed_operand(L, index, name, t->dtype);
        lua_replace(L, index);
    }
    if (!test_tensor(L, index)) {
        const double x = check_number(L, index, name);
        if (at_is_integer(t->dtype) && x != floor(x))
            raise_expected(L, name, "an integer to go with integers", index);
        RUN(L, attune_tensor_fill(t, x));
        return;
    }
    attune_tensor repeated = {0};
    check_tensor(L, index, name);
    RUN(L, attune_tensor_expand(test_tensor(L, index), t->rank, t->shape, &repeated));
    /* Nothing of Lua runs until the share is closed. */
    attune_interrupt_clear();
    core_runs = 1;
    const attune_status status = attune_tensor_copy(&repeated, t);
    core_runs = 0;
    attune_tensor_close(&repeated);
    if (status != ATTUNE_OK) raise_status(L, status);
}

/* (tensor, tensor or number) -> tensor */
static int t_copy(lua_State *L) {
    lua_settop(L, 2);
    write_in_place(L, self(L), 2, "x");
    lua_settop(L, 1);
    return 1;
}

/* (tensor, number) -> tensor */
static int t_fill(lua_State *L) {
    lua_settop(L, 2);
    self(L);
    check_number(L, 2, "x");
    write_in_place(L, self(L), 2, "x");
    lua_settop(L, 1);
    return 1;
}

int assign_index(lua_State *L) {
    lua_settop(L, 3);
    const attune_tensor *t = self(L);
    if (t->rank == 0)
        return raise_error(L, "index: expected a tensor with axes, got %s", describe(L, 1));
    const int64_t i = check_index(L, 2, "index", t->shape[0]);
    attune_tensor *part = push_tensor(L);
    RUN(L, attune_tensor_select(self(L), 0, i, part));
    write_in_place(L, part, 3, "value");
    attune_tensor_close(part);
    lua_settop(L, 1);
    return 1;
}

/* ---- for gradients --------------------------------------------------------------------------- */

static int shape_at(lua_State *L, int index, int64_t shape[ATTUNE_MAX_RANK]) {
    luaL_checktype(L, index, LUA_TTABLE);
    return lua_rawlen(L, index) == 0 ? 0 : check_shape(L, index, "shape", shape);
}

/* (dy, indices from 1, axis, shape) */
static int take_backward(lua_State *L) {
    int64_t shape[ATTUNE_MAX_RANK];
    lua_settop(L, 4);
    self(L);
    const int rank = shape_at(L, 4, shape), axis = axis_of(L, 3, rank);
    attune_tensor *indices = push_indices(L, 2, axis_extent(axis, rank, shape));
    attune_tensor *out = push_tensor(L);
    RUN(L, attune_take_backward(self(L), indices, axis, rank, shape, out));
    return 1;
}

/* (dy, axis, indices from 1, shape) */
static int gather_backward(lua_State *L) {
    int64_t shape[ATTUNE_MAX_RANK];
    lua_settop(L, 4);
    self(L);
    const int rank = shape_at(L, 4, shape), axis = axis_of(L, 2, rank);
    attune_tensor *indices = push_indices(L, 3, axis_extent(axis, rank, shape));
    attune_tensor *out = push_tensor(L);
    RUN(L, attune_gather_backward(self(L), axis, indices, rank, shape, out));
    return 1;
}

/* (dy, indices from 1, shape, axis or nil) */
static int arg_backward(lua_State *L) {
    int64_t shape[ATTUNE_MAX_RANK];
    lua_settop(L, 4);
    self(L);
    const int rank = shape_at(L, 3, shape),
              axis = lua_isnil(L, 4) ? ATTUNE_ALL_AXES : axis_of(L, 4, rank);
    int64_t extent = 1;
    if (axis != ATTUNE_ALL_AXES)
        extent = axis_extent(axis, rank, shape);
    else
        for (int i = 0; i < rank; i++) extent *= shape[i];
    attune_tensor *indices = push_indices(L, 2, extent);
    attune_tensor *out = push_tensor(L);
    RUN(L, attune_arg_backward(self(L), indices, rank, shape, axis, out));
    return 1;
}

/* (dy, axis) */
static int cumsum_backward(lua_State *L) {
    lua_settop(L, 2);
    const int axis = check_axis(L, 2, "axis", self(L));
    attune_tensor *out = push_tensor(L);
    RUN(L, attune_tensor_cumsum(self(L), axis, true, out));
    return 1;
}

void open_index(lua_State *L) {
    static const luaL_Reg functions[] = {{"cat", cat},
                                         {"stack", stack},
                                         {"where", where},
                                         {"_assign", assign_index},
                                         {"_take_backward", take_backward},
                                         {"_gather_backward", gather_backward},
                                         {"_arg_backward", arg_backward},
                                         {"_cumsum_backward", cumsum_backward},
                                         {NULL, NULL}};
    static const luaL_Reg methods[] = {
        {"lt", t_lt},       {"le", t_le},         {"gt", t_gt},         {"ge", t_ge},
        {"eq", t_eq},       {"ne", t_ne},         {"take", t_take},     {"gather", t_gather},
        {"topk", t_topk},   {"argmax", t_argmax}, {"argmin", t_argmin}, {"cumsum", t_cumsum},
        {"clone", t_clone}, {"copy", t_copy},     {"fill", t_fill},     {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
    lua_getfield(L, -1, "_tensor_methods");
    luaL_setfuncs(L, methods, 0);
    lua_pop(L, 1);
}
