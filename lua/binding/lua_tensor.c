/* lua_tensor.c - tensors: fields, methods, operators. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "binding.h"

/* Lua sees only small handles, so its collector is told when what they hold has grown. */
static struct {
    int64_t bytes;       /* of tensors, when the collector last ran through */
    double end, seconds; /* when it ended, and how long it took */
} collection;

enum { SMALL_GROWTH = 1 << 16, MAX_SHARE = 64 };

/* Collections take at most a part in MAX_SHARE of the time, unless tensors have grown by half: so
 * what nobody holds is soon freed in a small heap of Lua, and a large one costs no more. When
 * garbage is freed changes no result. */
static bool collection_is_due(int64_t now) {
    const int64_t growth = now - collection.bytes;
    if (growth <= SMALL_GROWTH || growth <= collection.bytes / 64) return false;
    return growth > ((int64_t)64 << 20) + collection.bytes / 2 ||
           attune_clock() - collection.end > MAX_SHARE * collection.seconds;
}

attune_tensor *push_tensor(lua_State *L) {
    const int64_t now = attune_memory().bytes;
    if (now < collection.bytes) collection.bytes = now;
    if (collection_is_due(now)) {
        const double start = attune_clock();
        lua_gc(L, LUA_GCCOLLECT);
        collection.end = attune_clock();
        collection.seconds = collection.end - start;
        collection.bytes = attune_memory().bytes;
    }
    return push_handle(L, &tensor_kind, 2); /* the user values: lua_autograd.c */
}

attune_tensor *test_tensor(lua_State *L, int index) { return test_handle(L, index, &tensor_kind); }

attune_tensor *check_tensor(lua_State *L, int index, const char *name) {
    return check_open(L, index, &tensor_kind, name);
}

attune_tensor *check_tensor_of(lua_State *L, int index, const char *name, const char *layout) {
    if (!test_tensor(L, index)) {
        lua_pushfstring(L, "a tensor %s", layout);
        raise_expected(L, name, lua_tostring(L, -1), index);
    }
    return check_tensor(L, index, name);
}

void push_shape(lua_State *L, const attune_tensor *t) {
    lua_createtable(L, t->rank, 0);
    for (int i = 0; i < t->rank; i++) {
        lua_pushinteger(L, t->shape[i]);
        lua_rawseti(L, -2, i + 1);
    }
}

static attune_tensor *self(lua_State *L) { return check_tensor(L, 1, "tensor"); }

int axis_of_rank(lua_State *L, int64_t axis, const char *name, int rank) {
    if (rank == 0)
        raise_error(L, "%s: expected a tensor with axes, got one of one element without any", name);
    if (axis == 0 || axis > rank || axis < -rank) {
        raise_error(L, "%s: expected from 1 to %d, or from -1 to -%d, got %I (axis out of range)",
                    name, rank, rank, (LUAI_UACINT)axis);
    }
    return (int)(axis > 0 ? axis - 1 : axis);
}

int check_axis(lua_State *L, int index, const char *name, const attune_tensor *t) {
    return axis_of_rank(L, check_integer(L, index, name, INT64_MIN), name, t->rank);
}

int64_t check_index(lua_State *L, int index, const char *name, int64_t extent) {
    int64_t i = check_integer(L, index, name, INT64_MIN);
    if (i == 0 || i > extent || i < -extent) {
        raise_error(L, "%s: expected from 1 to %I, or from -1 to %I, got %I (index out of range)",
                    name, (LUAI_UACINT)extent, (LUAI_UACINT)-extent, (LUAI_UACINT)i);
    }
    return i > 0 ? i - 1 : i + extent;
}

/* ---- views ----------------------------------------------------------------------------------- */

/* Extents as numbers or as one table, from argument 2 on. */
static int read_extents(lua_State *L, int64_t shape[ATTUNE_MAX_RANK]) {
    const bool table = lua_istable(L, 2);
    int64_t n = table ? (int64_t)lua_rawlen(L, 2) : lua_gettop(L) - 1;
    if (n < 1 || n > ATTUNE_MAX_RANK)
        raise_error(L, "shape: expected from 1 to %d extents, got %d", ATTUNE_MAX_RANK, (int)n);
    for (int i = 0; i < (int)n; i++) {
        if (table) lua_rawgeti(L, 2, i + 1);
        shape[i] = check_integer(L, table ? -1 : i + 2, "shape", -1);
        if (table) lua_pop(L, 1);
    }
    return (int)n;
}

static int t_view(lua_State *L) {
    attune_tensor *t = self(L);
    int64_t shape[ATTUNE_MAX_RANK];
    const int rank = read_extents(L, shape);
    attune_tensor *out = push_tensor(L);
    RUN(L, attune_tensor_view(t, rank, shape, out));
    return 1;
}

static int t_expand(lua_State *L) {
    attune_tensor *t = self(L);
    int64_t shape[ATTUNE_MAX_RANK];
    const int rank = read_extents(L, shape);
    attune_tensor *out = push_tensor(L);
    RUN(L, attune_tensor_expand(t, rank, shape, out));
    return 1;
}

static int t_transpose(lua_State *L) {
    attune_tensor *t = self(L);
    const int a = check_axis(L, 2, "a", t), b = check_axis(L, 3, "b", t);
    attune_tensor *out = push_tensor(L);
    RUN(L, attune_tensor_transpose(t, a, b, out));
    return 1;
}

static int t_slice(lua_State *L) {
    attune_tensor *t = self(L);
    int axis = check_axis(L, 2, "axis", t);
    int64_t extent = t->shape[axis < 0 ? axis + t->rank : axis];
    int64_t first = check_index(L, 3, "first", extent), last = check_index(L, 4, "last", extent);
    if (last < first)
        return raise_error(L, "last: expected at least first, %I, got %I", (LUAI_UACINT)first + 1,
                           (LUAI_UACINT)last + 1);
    attune_tensor *out = push_tensor(L);
    RUN(L, attune_tensor_slice(t, axis, first, last + 1, out));
    return 1;
}

static int t_contiguous(lua_State *L) {
    attune_tensor *t = self(L), *out = push_tensor(L);
    RUN(L, attune_tensor_contiguous(t, out));
    return 1;
}

static int t_to(lua_State *L) {
    attune_tensor *t = self(L);
    const attune_dtype dtype = check_dtype(L, 2);
    attune_tensor *out = push_tensor(L);
    RUN(L, attune_tensor_convert(t, dtype, out));
    return 1;
}

/* ---- values ---------------------------------------------------------------------------------- */

static void push_element(lua_State *L, const attune_tensor *t, int64_t offset) {
    switch (t->dtype) {
    case ATTUNE_I8: lua_pushinteger(L, ((const int8_t *)t->data)[offset]); return;
    case ATTUNE_I32: lua_pushinteger(L, ((const int32_t *)t->data)[offset]); return;
    case ATTUNE_I64: lua_pushinteger(L, ((const int64_t *)t->data)[offset]); return;
    case ATTUNE_F32: lua_pushnumber(L, (double)((const float *)t->data)[offset]); return;
    case ATTUNE_F64: lua_pushnumber(L, ((const double *)t->data)[offset]); return;
    default: break;
    }
    double x = 0;
    const int64_t index[1] = {0};
    attune_tensor one = *t;
    one.rank = 0;
    one.data = (char *)t->data + offset * attune_dtype_size(t->dtype);
    attune_tensor_get(&one, index, &x);
    lua_pushnumber(L, x);
}

static void push_nested(lua_State *L, const attune_tensor *t, int axis, int64_t offset) {
    if (axis == t->rank) {
        push_element(L, t, offset);
        return;
    }
    luaL_checkstack(L, 3, "tolist");
    lua_createtable(L, t->shape[axis] > 1 << 24 ? 1 << 24 : (int)t->shape[axis], 0);
    for (int64_t i = 0; i < t->shape[axis]; i++) {
        push_nested(L, t, axis + 1, offset + i * t->stride[axis]);
        lua_rawseti(L, -2, i + 1);
    }
}

/* Tables are made while elements are read, so the elements are those of a tensor that shares the
 * memory and that nobody else can close. */
static int t_tolist(lua_State *L) {
    attune_tensor *t = self(L), *own = push_tensor(L);
    RUN(L, attune_tensor_share(t, own));
    push_nested(L, own, 0, 0);
    attune_tensor_close(own);
    return 1;
}

static int t_item(lua_State *L) {
    attune_tensor *t = self(L);
    if (attune_tensor_count(t) != 1)
        return raise_error(L, "item: expected a tensor of one element, got %s", describe(L, 1));
    push_element(L, t, 0);
    return 1;
}

static int t_len(lua_State *L) {
    attune_tensor *t = self(L);
    return push_integer(L, t->rank ? t->shape[0] : 0);
}

/* ---- arithmetic ------------------------------------------------------------------------------ */

static bool is_traced_value(lua_State *L, int index) {
    if (!lua_istable(L, index) || luaL_getmetafield(L, index, "__name") == LUA_TNIL) return false;
    const bool traced = is_text(L, -1, "traced value");
    lua_pop(L, 1);
    return traced;
}

/* A tensor and a traced value, at stack index `traced`: the traced value records the operation. */
static int binary_traced(lua_State *L, int traced, const char *event) {
    if (luaL_getmetafield(L, traced, event) == LUA_TNIL)
        return raise_expected(L, "operand", "a traced value", traced);
    lua_insert(L, 1);
    lua_call(L, 2, 1);
    return 1;
}

static int binary(lua_State *L, attune_binary op, const char *event) {
    lua_settop(L, 2);
    if (is_traced_value(L, 1)) return binary_traced(L, 1, event);
    if (is_traced_value(L, 2)) return binary_traced(L, 2, event);
    attune_tensor *a = test_tensor(L, 1), *b = test_tensor(L, 2);
    if (a) check_tensor(L, 1, "left operand");
    if (b) check_tensor(L, 2, "right operand");
    if (a && b) {
        attune_tensor *out = push_tensor(L);
        RUN(L, attune_tensor_binary(op, a, b, out));
        return 1;
    }
    if (!a && !b) check_tensor(L, 1, "left operand"); /* the metamethod, called by hand */
    const int number = a ? 2 : 1;
    const double x = check_number(L, number, a ? "right operand" : "left operand");
    if (is_exact_integer(L, number, (a ? a : b)->dtype)) {
        const attune_tensor *scalar = push_typed_operand(L, number, "operand", ATTUNE_I64);
        attune_tensor *out = push_tensor(L);
        RUN(L, attune_tensor_binary(op, a ? a : scalar, a ? scalar : b, out));
        return 1;
    }
    attune_tensor *out = push_tensor(L);
    RUN(L, attune_tensor_binary_scalar(op, a ? a : b, x, !a, out));
    return 1;
}

static int t_add(lua_State *L) { return binary(L, ATTUNE_ADD, "__add"); }
static int t_sub(lua_State *L) { return binary(L, ATTUNE_SUB, "__sub"); }
static int t_mul(lua_State *L) { return binary(L, ATTUNE_MUL, "__mul"); }
static int t_div(lua_State *L) { return binary(L, ATTUNE_DIV, "__div"); }
static int t_pow(lua_State *L) { return binary(L, ATTUNE_POW, "__pow"); }

static int unary(lua_State *L, attune_unary op) {
    attune_tensor *t = self(L), *out = push_tensor(L);
    RUN(L, attune_tensor_unary(op, t, out));
    return 1;
}

static int t_neg(lua_State *L) { return unary(L, ATTUNE_NEG); }
static int t_exp(lua_State *L) { return unary(L, ATTUNE_EXP); }
static int t_log(lua_State *L) { return unary(L, ATTUNE_LOG); }
static int t_sqrt(lua_State *L) { return unary(L, ATTUNE_SQRT); }
static int t_tanh(lua_State *L) { return unary(L, ATTUNE_TANH); }
static int t_sigmoid(lua_State *L) { return unary(L, ATTUNE_SIGMOID); }
static int t_gelu(lua_State *L) { return unary(L, ATTUNE_GELU); }
static int t_silu(lua_State *L) { return unary(L, ATTUNE_SILU); }
static int t_abs(lua_State *L) { return unary(L, ATTUNE_ABS); }
static int t_relu(lua_State *L) { return unary(L, ATTUNE_RELU); }
static int t_gelu_tanh(lua_State *L) { return unary(L, ATTUNE_GELU_TANH); }

static int reduce(lua_State *L, attune_reduction op) {
    attune_tensor *t = self(L);
    const int axis = lua_isnoneornil(L, 2) ? ATTUNE_ALL_AXES : check_axis(L, 2, "axis", t);
    attune_tensor *out = push_tensor(L);
    RUN(L, attune_tensor_reduce(op, t, axis, out));
    return 1;
}

static int t_sum(lua_State *L) { return reduce(L, ATTUNE_SUM); }
static int t_mean(lua_State *L) { return reduce(L, ATTUNE_MEAN); }
static int t_max(lua_State *L) { return reduce(L, ATTUNE_MAX); }
static int t_min(lua_State *L) { return reduce(L, ATTUNE_MIN); }

static int t_softmax(lua_State *L) {
    attune_tensor *t = self(L);
    const int axis = check_axis(L, 2, "axis", t);
    attune_tensor *out = push_tensor(L);
    RUN(L, attune_tensor_softmax(t, axis, out));
    return 1;
}

static int matmul(lua_State *L) {
    attune_tensor *a = check_tensor(L, 1, "a"), *b = check_tensor(L, 2, "b");
    attune_tensor *out = push_tensor(L);
    RUN(L, attune_tensor_matmul(a, b, out));
    return 1;
}

/* ---- the metatable --------------------------------------------------------------------------- */

static const luaL_Reg methods[] = {{"view", t_view},
                                   {"expand", t_expand},
                                   {"transpose", t_transpose},
                                   {"slice", t_slice},
                                   {"contiguous", t_contiguous},
                                   {"to", t_to},
                                   {"tolist", t_tolist},
                                   {"item", t_item},
                                   {"close", NULL},
                                   {"exp", t_exp},
                                   {"log", t_log},
                                   {"sqrt", t_sqrt},
                                   {"tanh", t_tanh},
                                   {"sigmoid", t_sigmoid},
                                   {"gelu", t_gelu},
                                   {"silu", t_silu},
                                   {"abs", t_abs},
                                   {"relu", t_relu},
                                   {"gelu_tanh", t_gelu_tanh},
                                   {"sum", t_sum},
                                   {"mean", t_mean},
                                   {"max", t_max},
                                   {"min", t_min},
                                   {"softmax", t_softmax},
                                   /* lua_index.c adds these */
                                   {"lt", NULL},
                                   {"le", NULL},
                                   {"gt", NULL},
                                   {"ge", NULL},
                                   {"eq", NULL},
                                   {"ne", NULL},
                                   {"take", NULL},
                                   {"gather", NULL},
                                   {"topk", NULL},
                                   {"argmax", NULL},
                                   {"argmin", NULL},
                                   {"cumsum", NULL},
                                   {"clone", NULL},
                                   {"copy", NULL},
                                   {"fill", NULL},
                                   /* lua/attune/autograd adds these */
                                   {"rms_norm", NULL},
                                   {"layer_norm", NULL},
                                   {"requires_grad", NULL},
                                   {"backward", NULL},
                                   {NULL, NULL}};

static int f_shape(lua_State *L) {
    push_shape(L, self(L));
    return 1;
}

static int f_dtype(lua_State *L) {
    lua_pushstring(L, attune_dtype_name(self(L)->dtype));
    return 1;
}

static int f_nbytes(lua_State *L) { return push_integer(L, attune_tensor_nbytes(self(L))); }

/* The gradient that backward() left; nil: none. */
static int f_grad(lua_State *L) {
    if (lua_getiuservalue(L, 1, 1) != LUA_TTABLE) {
        lua_pushnil(L);
        return 1;
    }
    lua_pushliteral(L, "grad");
    lua_rawget(L, -2);
    return 1;
}

static const luaL_Reg fields[] = {
    {"shape", f_shape}, {"dtype", f_dtype}, {"nbytes", f_nbytes}, {"grad", f_grad}, {NULL, NULL}};

/* (tensor, i, axis: 1): t[i], without recording. */
static int select_index(lua_State *L) {
    lua_settop(L, 3);
    attune_tensor *t = self(L);
    if (t->rank == 0)
        return raise_error(L, "index: expected a tensor with axes, got %s", describe(L, 1));
    const int axis = lua_isnil(L, 3) ? 0 : check_axis(L, 3, "axis", t);
    const int64_t i = check_index(L, 2, "index", t->shape[axis < 0 ? axis + t->rank : axis]);
    attune_tensor *out = push_tensor(L);
    RUN(L, attune_tensor_select(t, axis, i, out));
    return 1;
}

/* t[i] is a view; t[traced value] is a read in a score or mask. */
static int t_index(lua_State *L) {
    lua_settop(L, 2);
    self(L);
    if (is_traced_value(L, 2)) {
        push_hook(L, "read");
        lua_insert(L, 1);
        lua_call(L, 2, 1);
        return 1;
    }
    if (is_recorded(L, 1)) {
        push_hook(L, "select");
        lua_insert(L, 1);
        lua_call(L, 2, 1);
        return 1;
    }
    return select_index(L);
}

static int t_newindex(lua_State *L) {
    lua_settop(L, 3);
    self(L);
    if (is_traced_value(L, 2) || is_traced_value(L, 3)) {
        push_hook(L, "write");
        lua_call(L, 0, 0);
    }
    if (is_text(L, 2, "grad")) {
        push_hook(L, "set_grad");
        lua_pushvalue(L, 1);
        lua_pushvalue(L, 3);
        lua_call(L, 2, 0);
        return 0;
    }
    if (lua_type(L, 2) == LUA_TSTRING)
        return raise_error(L, "field: expected 'grad' or an index to assign, got '%s'",
                           lua_tostring(L, 2));
    if (is_recorded(L, 1) || is_recorded(L, 3)) {
        push_hook(L, "assign");
        lua_insert(L, 1);
        lua_call(L, 3, 0);
        return 0;
    }
    assign_index(L);
    return 0;
}

/* ---- the handle ------------------------------------------------------------------------------ */

static bool t_is_open(const void *content) {
    return ((const attune_tensor *)content)->data != NULL;
}

static void t_free(void *content) { attune_tensor_close(content); }

const handle_kind tensor_kind = {.type = "attune.tensor",
                                 .argument = "tensor",
                                 .noun = "tensor",
                                 .size = sizeof(attune_tensor),
                                 .is_open = t_is_open,
                                 .close = t_free,
                                 .describe = push_tensor_text,
                                 .methods = methods,
                                 .fields = fields,
                                 .index = t_index};

void open_tensor(lua_State *L) {
    static const luaL_Reg operators[] = {
        {"__add", t_add}, {"__sub", t_sub},           {"__mul", t_mul},
        {"__div", t_div}, {"__pow", t_pow},           {"__unm", t_neg},
        {"__len", t_len}, {"__newindex", t_newindex}, {NULL, NULL}};
    define_handle(L, &tensor_kind, operators);
    /* For the Lua library, which adds methods and records operators. */
    lua_setfield(L, -2, "_tensor_methods");
    luaL_getmetatable(L, tensor_kind.type);
    lua_setfield(L, -2, "_tensor_operators");
    lua_pushcfunction(L, select_index);
    lua_setfield(L, -2, "_select");
    lua_pushcfunction(L, matmul);
    lua_setfield(L, -2, "matmul");
}
