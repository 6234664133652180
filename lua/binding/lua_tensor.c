/* tensor.c - tensors: fields, methods, operators. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "binding.h"

/* Tensor bytes when the collector last ran through. Lua sees only small handles, so it is told when
 * what they hold has grown. */
static int64_t bytes_after_collection;

attune_tensor *push_tensor(lua_State *L) {
    int64_t now = attune_memory().bytes;
    if (now < bytes_after_collection) bytes_after_collection = now;
    if (now - bytes_after_collection > ((int64_t)64 << 20) + bytes_after_collection / 2) {
        lua_gc(L, LUA_GCCOLLECT);
        bytes_after_collection = attune_memory().bytes;
    }
    attune_tensor *t = lua_newuserdatauv(L, sizeof *t, 0);
    memset(t, 0, sizeof *t);
    luaL_setmetatable(L, TENSOR_TYPE);
    return t;
}

attune_tensor *test_tensor(lua_State *L, int index) {
    return lua_type(L, index) == LUA_TUSERDATA ? luaL_testudata(L, index, TENSOR_TYPE) : NULL;
}

attune_tensor *check_tensor(lua_State *L, int index, const char *name) {
    attune_tensor *t = test_tensor(L, index);
    if (!t || !t->data) raise_expected(L, name, "a tensor", index);
    return t;
}

void push_shape(lua_State *L, const attune_tensor *t) {
    lua_createtable(L, t->rank, 0);
    for (int i = 0; i < t->rank; i++) {
        lua_pushinteger(L, t->shape[i]);
        lua_rawseti(L, -2, i + 1);
    }
}

static attune_tensor *self(lua_State *L) { return check_tensor(L, 1, "tensor"); }

/* An axis as Lua counts it, from 1 or from the end, to the core's. */
static int check_axis(lua_State *L, int index, const char *name, const attune_tensor *t) {
    int64_t axis = check_integer(L, index, name, INT64_MIN);
    if (axis == 0 || axis > t->rank || axis < -t->rank) {
        raise_error(L, "%s: expected from 1 to %d, or from -1 to -%d, got %I", name, t->rank,
                    t->rank, (LUAI_UACINT)axis);
    }
    return (int)(axis > 0 ? axis - 1 : axis);
}

/* Places in an axis likewise: 1 is the first, -1 the last. Returns from 0. */
static int64_t check_place(lua_State *L, int index, const char *name, int64_t extent) {
    int64_t i = check_integer(L, index, name, INT64_MIN);
    if (i == 0 || i > extent || i < -extent) {
        raise_error(L, "%s: expected from 1 to %I, or from -1 to %I, got %I", name,
                    (LUAI_UACINT)extent, (LUAI_UACINT)-extent, (LUAI_UACINT)i);
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
    int rank = read_extents(L, shape);
    RUN(L, attune_tensor_view(t, rank, shape, push_tensor(L)));
    return 1;
}

static int t_expand(lua_State *L) {
    attune_tensor *t = self(L);
    int64_t shape[ATTUNE_MAX_RANK];
    int rank = read_extents(L, shape);
    RUN(L, attune_tensor_expand(t, rank, shape, push_tensor(L)));
    return 1;
}

static int t_transpose(lua_State *L) {
    attune_tensor *t = self(L);
    int a = check_axis(L, 2, "a", t), b = check_axis(L, 3, "b", t);
    RUN(L, attune_tensor_transpose(t, a, b, push_tensor(L)));
    return 1;
}

static int t_slice(lua_State *L) {
    attune_tensor *t = self(L);
    int axis = check_axis(L, 2, "axis", t);
    int64_t extent = t->shape[axis < 0 ? axis + t->rank : axis];
    int64_t first = check_place(L, 3, "first", extent), last = check_place(L, 4, "last", extent);
    if (last < first)
        return raise_error(L, "last: expected at least first, %I, got %I", (LUAI_UACINT)first + 1,
                           (LUAI_UACINT)last + 1);
    RUN(L, attune_tensor_slice(t, axis, first, last + 1, push_tensor(L)));
    return 1;
}

static int t_contiguous(lua_State *L) {
    RUN(L, attune_tensor_contiguous(self(L), push_tensor(L)));
    return 1;
}

static int t_to(lua_State *L) {
    attune_tensor *t = self(L);
    attune_dtype dtype;
    if (lua_type(L, 2) != LUA_TSTRING) return raise_expected(L, "dtype", "a name such as 'f32'", 2);
    RUN(L, attune_dtype_parse(lua_tostring(L, 2), &dtype));
    RUN(L, attune_tensor_convert(t, dtype, push_tensor(L)));
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

static int t_tolist(lua_State *L) {
    push_nested(L, self(L), 0, 0);
    return 1;
}

static int t_item(lua_State *L) {
    attune_tensor *t = self(L);
    if (attune_tensor_count(t) != 1)
        return raise_error(L, "item: expected a tensor of one element, got %s", describe(L, 1));
    push_element(L, t, 0);
    return 1;
}

static int t_close(lua_State *L) {
    attune_tensor_close(luaL_checkudata(L, 1, TENSOR_TYPE));
    return 0;
}

static int t_tostring(lua_State *L) {
    attune_tensor *t = luaL_checkudata(L, 1, TENSOR_TYPE);
    enum { SHOWN = 8 };
    if (!t->data) {
        lua_pushliteral(L, "closed tensor");
        return 1;
    }
    luaL_Buffer b;
    luaL_buffinit(L, &b);
    luaL_addstring(&b, describe(L, 1));
    luaL_addstring(&b, " {");
    const int64_t n = attune_tensor_count(t);
    for (int64_t i = 0; i < n && i < SHOWN; i++) {
        int64_t rest = i, index[ATTUNE_MAX_RANK] = {0};
        double x = 0;
        char text[40];
        for (int a = t->rank - 1; a >= 0; a--) {
            index[a] = rest % t->shape[a];
            rest /= t->shape[a];
        }
        attune_tensor_get(t, index, &x);
        snprintf(text, sizeof text, "%s%.6g", i ? ", " : "", x);
        luaL_addstring(&b, text);
    }
    luaL_addstring(&b, n > SHOWN ? ", ..}" : "}");
    luaL_pushresult(&b);
    return 1;
}

static int t_len(lua_State *L) {
    attune_tensor *t = self(L);
    lua_pushinteger(L, t->rank ? t->shape[0] : 0);
    return 1;
}

/* ---- arithmetic ------------------------------------------------------------------------------ */

static int binary(lua_State *L, attune_binary op) {
    attune_tensor *a = test_tensor(L, 1), *b = test_tensor(L, 2);
    if (a) check_tensor(L, 1, "left operand");
    if (b) check_tensor(L, 2, "right operand");
    if (a && b) {
        RUN(L, attune_tensor_binary(op, a, b, push_tensor(L)));
        return 1;
    }
    double x = check_number(L, a ? 2 : 1, a ? "right operand" : "left operand");
    RUN(L, attune_tensor_binary_scalar(op, a ? a : b, x, !a, push_tensor(L)));
    return 1;
}

static int t_add(lua_State *L) { return binary(L, ATTUNE_ADD); }
static int t_sub(lua_State *L) { return binary(L, ATTUNE_SUB); }
static int t_mul(lua_State *L) { return binary(L, ATTUNE_MUL); }
static int t_div(lua_State *L) { return binary(L, ATTUNE_DIV); }
static int t_pow(lua_State *L) { return binary(L, ATTUNE_POW); }

static int unary(lua_State *L, attune_unary op) {
    RUN(L, attune_tensor_unary(op, self(L), push_tensor(L)));
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

static int reduce(lua_State *L, attune_reduction op) {
    attune_tensor *t = self(L);
    int axis = lua_isnoneornil(L, 2) ? ATTUNE_ALL_AXES : check_axis(L, 2, "axis", t);
    RUN(L, attune_tensor_reduce(op, t, axis, push_tensor(L)));
    return 1;
}

static int t_sum(lua_State *L) { return reduce(L, ATTUNE_SUM); }
static int t_mean(lua_State *L) { return reduce(L, ATTUNE_MEAN); }
static int t_max(lua_State *L) { return reduce(L, ATTUNE_MAX); }

static int t_softmax(lua_State *L) {
    attune_tensor *t = self(L);
    int axis = check_axis(L, 2, "axis", t);
    RUN(L, attune_tensor_softmax(t, axis, push_tensor(L)));
    return 1;
}

static int matmul(lua_State *L) {
    attune_tensor *a = check_tensor(L, 1, "a"), *b = check_tensor(L, 2, "b");
    RUN(L, attune_tensor_matmul(a, b, push_tensor(L)));
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
                                   {"close", t_close},
                                   {"exp", t_exp},
                                   {"log", t_log},
                                   {"sqrt", t_sqrt},
                                   {"tanh", t_tanh},
                                   {"sigmoid", t_sigmoid},
                                   {"gelu", t_gelu},
                                   {"silu", t_silu},
                                   {"abs", t_abs},
                                   {"sum", t_sum},
                                   {"mean", t_mean},
                                   {"max", t_max},
                                   {"softmax", t_softmax},
                                   {NULL, NULL}};

/* Upvalue 1: the methods. */
static int t_index(lua_State *L) {
    attune_tensor *t = luaL_checkudata(L, 1, TENSOR_TYPE);
    if (lua_type(L, 2) == LUA_TSTRING) {
        lua_pushvalue(L, 2);
        if (lua_rawget(L, lua_upvalueindex(1)) != LUA_TNIL) return 1;
        const char *name = lua_tostring(L, 2);
        check_tensor(L, 1, "tensor");
        if (strcmp(name, "shape") == 0)
            push_shape(L, t);
        else if (strcmp(name, "dtype") == 0)
            lua_pushstring(L, attune_dtype_name(t->dtype));
        else if (strcmp(name, "nbytes") == 0)
            lua_pushinteger(L, attune_tensor_nbytes(t));
        else {
            const char *known[sizeof methods / sizeof *methods + 3];
            int n = 0;
            for (; methods[n].name; n++) known[n] = methods[n].name;
            known[n++] = "shape";
            known[n++] = "dtype";
            known[n++] = "nbytes";
            known[n] = NULL;
            raise_unknown(L, "method or field", name, known);
        }
        return 1;
    }
    check_tensor(L, 1, "tensor");
    if (lua_istable(L, 2) && luaL_getmetafield(L, 2, "__name") == LUA_TSTRING &&
        strcmp(lua_tostring(L, -1), "traced value") == 0) {
        lua_settop(L, 2);
        push_hook(L, "read");
        lua_insert(L, 1);
        lua_settop(L, 3);
        lua_call(L, 2, 1);
        return 1;
    }
    lua_settop(L, 2);
    if (t->rank == 0)
        return raise_error(L, "index: expected a tensor with axes, got %s", describe(L, 1));
    int64_t i = check_place(L, 2, "index", t->shape[0]);
    RUN(L, attune_tensor_select(t, 0, i, push_tensor(L)));
    return 1;
}

void open_tensor(lua_State *L) {
    static const luaL_Reg meta[] = {
        {"__add", t_add},  {"__sub", t_sub},     {"__mul", t_mul}, {"__div", t_div},
        {"__pow", t_pow},  {"__unm", t_neg},     {"__len", t_len}, {"__tostring", t_tostring},
        {"__gc", t_close}, {"__close", t_close}, {NULL, NULL}};
    luaL_newmetatable(L, TENSOR_TYPE);
    luaL_setfuncs(L, meta, 0);
    luaL_newlib(L, methods);
    lua_pushcclosure(L, t_index, 1);
    lua_setfield(L, -2, "__index");
    lua_pop(L, 1);
    lua_pushcfunction(L, matmul);
    lua_setfield(L, -2, "matmul");
}
