/* lua_program.c - score and mask programs. attune.program in Lua traces a function and passes the
 * instructions to _program_new; the core runs them. */
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "binding.h"

/* Pushes the function that does what a tensor as mask or bias was meant to do. */
static const char *push_function_for(lua_State *L, const attune_tensor *t, const char *name) {
    static const char *const reads[] = {"", "[at.j]", "[at.i][at.j]", "[at.h][at.i][at.j]",
                                        "[at.b][at.h][at.i][at.j]"};
    const char *read = t->rank <= 4 ? reads[t->rank] : "[..]";
    if (at_is_float(t->dtype))
        return lua_pushfstring(L, "score = function(s, at) return s + %s%s end", name, read);
    return lua_pushfstring(L, "mask = function(at) return %s%s:ne(0) end", name, read);
}

int raise_tensor_as_function(lua_State *L, const char *name, const attune_tensor *t, int index) {
    if (!t->data) return raise_expected(L, name, "a function", index);
    const char *function = push_function_for(L, t, strstr(name, "bias") ? "bias" : "m");
    return raise_error(L, "%s: expected a function, got a %s; write %s", name, describe(L, index),
                       function);
}

attune_program *check_program(lua_State *L, int index, const char *kind) {
    if (test_tensor(L, index)) raise_tensor_as_function(L, kind, test_tensor(L, index), index);
    if (!test_handle(L, index, &program_kind)) {
        raise_expected(L, kind,
                       strcmp(kind, "mask") == 0 ? "a function (at) that returns a comparison"
                                                 : "a function (s, at) that returns a number",
                       index);
    }
    return *(attune_program **)check_open(L, index, &program_kind, kind);
}

static int64_t integer_at(lua_State *L, int index, lua_Integer n) {
    lua_rawgeti(L, index, n);
    const int64_t x = (int64_t)lua_tointeger(L, -1);
    lua_pop(L, 1);
    return x;
}

/* The list of integers in a field of the table at index; lives in userdata that this pushes. */
static int32_t *push_list(lua_State *L, int index, const char *name, int32_t *count) {
    lua_getfield(L, index, name);
    luaL_checktype(L, -1, LUA_TTABLE);
    *count = (int32_t)lua_rawlen(L, -1);
    int32_t *list = lua_newuserdatauv(L, (size_t)(*count + 1) * sizeof *list, 0);
    for (int32_t n = 0; n < *count; n++) list[n] = (int32_t)integer_at(L, -2, n + 1);
    return list;
}

static void read_code(lua_State *L, int index, attune_instruction *code, int32_t count) {
    memset(code, 0, (size_t)count * sizeof *code);
    for (int32_t n = 0; n < count; n++) {
        if (lua_rawgeti(L, index, n + 1) != LUA_TTABLE)
            raise_expected(L, "code", "a table per instruction", -1);
        const int row = lua_gettop(L), size = (int)lua_rawlen(L, row);
        code[n].op = (attune_op)integer_at(L, row, 1);
        code[n].line = (int32_t)integer_at(L, row, 2);
        code[n].integer = integer_at(L, row, 3) != 0;
        lua_rawgeti(L, row, 4);
        code[n].number = (double)lua_tonumber(L, -1);
        code[n].tensor = (int32_t)integer_at(L, row, 5);
        for (int k = 6; k <= size && k - 6 < ATTUNE_MAX_RANK; k++)
            code[n].a[k - 6] = (int32_t)integer_at(L, row, k);
        lua_settop(L, row - 1);
    }
}

/* (kind, {{op, line, integer, number, tensor, operands ..}, ..}, {tensor, ..}, {result =, slope =,
 * read = {}, adjoint = {}}) */
static int program_new(lua_State *L) {
    lua_settop(L, 4);
    const char *kind = luaL_checkstring(L, 1);
    for (int index = 2; index <= 4; index++) luaL_checktype(L, index, LUA_TTABLE);
    const int32_t count = (int32_t)lua_rawlen(L, 2), tensor_count = (int32_t)lua_rawlen(L, 3);
    attune_instruction *code = lua_newuserdatauv(L, (size_t)(count + 1) * sizeof *code, 0);
    attune_tensor *tensors = lua_newuserdatauv(L, (size_t)(tensor_count + 1) * sizeof *tensors, 0);
    read_code(L, 2, code, count);
    attune_program_outputs outputs = {.first = 1}; /* Lua counts from 1 */
    int32_t adjoints;
    lua_getfield(L, 4, "result");
    lua_getfield(L, 4, "slope");
    outputs.result = (int32_t)lua_tointeger(L, -2);
    outputs.slope = (int32_t)lua_tointeger(L, -1);
    outputs.read = push_list(L, 4, "read", &outputs.reads);
    outputs.adjoint = push_list(L, 4, "adjoint", &adjoints);
    if (adjoints != outputs.reads)
        return raise_error(L, "adjoint: expected %d, one per read, got %d", (int)outputs.reads,
                           (int)adjoints);
    attune_program **p = push_handle(L, &program_kind, 1);
    /* The program's own list of its tensors, which live as long as the program. */
    lua_createtable(L, tensor_count, 0);
    for (int32_t t = 0; t < tensor_count; t++) {
        lua_rawgeti(L, 3, t + 1);
        lua_rawseti(L, -2, t + 1);
    }
    lua_pushvalue(L, -1);
    lua_setiuservalue(L, -3, 1);
    const int list = lua_gettop(L);
    luaL_checkstack(L, tensor_count + LUA_MINSTACK, kind);
    for (int32_t t = 0; t < tensor_count; t++) {
        lua_rawgeti(L, list, t + 1); /* stays, so that RUN finds it */
        tensors[t] = *check_tensor(L, -1, kind);
    }
    RUN(L, attune_program_new(kind, code, count, tensors, tensor_count, &outputs, p));
    lua_settop(L, list - 1);
    return 1;
}

/* (handle, batch, heads, kv_heads, queries, keys) -> a table of counts, and the states as strings,
 * one per row of tiles */
static int program_map(lua_State *L) {
    static const char *const names[] = {"batch", "heads", "kv_heads", "queries", "keys"};
    int64_t n[5];
    attune_block_map map;
    lua_settop(L, 6);
    for (int k = 0; k < 5; k++) n[k] = check_integer(L, k + 2, names[k], 1);
    attune_program *p = check_program(L, 1, "mask");
    RUN(L, attune_program_map(p, n[0], n[1], n[2], n[3], n[4], &map));
    /* The states belong to the program, which may run again while tables are made: copied first. */
    const int64_t rows = map.heads * map.row_blocks, columns = map.key_blocks;
    lua_pushlstring(L, (const char *)map.states, (size_t)(rows * columns));
    const char *states = lua_tostring(L, -1);
    lua_createtable(L, 0, 8);
    const struct {
        const char *name;
        int64_t value;
    } fields[] = {{"heads", map.heads}, {"pairs", map.pairs},     {"visible", map.visible},
                  {"empty", map.empty}, {"partial", map.partial}, {"full", map.full}};
    for (size_t k = 0; k < sizeof fields / sizeof *fields; k++) {
        lua_pushinteger(L, fields[k].value);
        lua_setfield(L, -2, fields[k].name);
    }
    lua_createtable(L, rows < INT32_MAX ? (int)rows : 0, 0);
    for (int64_t r = 0; r < rows; r++) {
        lua_pushlstring(L, states + r * columns, (size_t)columns);
        lua_rawseti(L, -2, r + 1);
    }
    lua_setfield(L, -2, "rows");
    return 1;
}

/* ---- the handle ------------------------------------------------------------------------------ */

static bool p_is_open(const void *content) { return *(attune_program *const *)content != NULL; }

static void p_free(void *content) {
    attune_program **p = content;
    attune_program_close(*p);
    *p = NULL;
}

static void p_describe(lua_State *L, void *content) {
    (void)content;
    lua_pushliteral(L, "program");
}

static const luaL_Reg methods[] = {{NULL, NULL}}, fields[] = {{NULL, NULL}};

const handle_kind program_kind = {.type = "attune.program",
                                  .argument = "program",
                                  .noun = "program",
                                  .size = sizeof(attune_program *),
                                  .is_open = p_is_open,
                                  .close = p_free,
                                  .describe = p_describe,
                                  .methods = methods,
                                  .fields = fields};

void open_program(lua_State *L) {
    static const luaL_Reg functions[] = {
        {"_program_new", program_new}, {"_program_map", program_map}, {NULL, NULL}};
    define_handle(L, &program_kind, NULL);
    lua_pop(L, 1);
    luaL_setfuncs(L, functions, 0);
}
