/* lua_program.c - score and mask programs. attune.program in Lua traces a function and passes the
 * instructions to _program_new; the core runs them. */
#include <stdlib.h>
#include <string.h>

#include "binding.h"

attune_program *check_program(lua_State *L, int index, const char *kind) {
    attune_program **p = luaL_testudata(L, index, PROGRAM_TYPE);
    if (!p) {
        raise_expected(L, kind,
                       strcmp(kind, "mask") == 0 ? "a function (at) that returns a comparison"
                                                 : "a function (s, at) that returns a number",
                       index);
    }
    return *p;
}

static int64_t integer_at(lua_State *L, int index, lua_Integer n) {
    lua_rawgeti(L, index, n);
    const int64_t x = (int64_t)lua_tointeger(L, -1);
    lua_pop(L, 1);
    return x;
}

static int32_t *integers(lua_State *L, int index, const char *name, int32_t *count) {
    lua_getfield(L, index, name);
    *count = (int32_t)lua_rawlen(L, -1);
    int32_t *list = lua_newuserdatauv(L, (size_t)(*count + 1) * sizeof *list, 0);
    for (int32_t n = 0; n < *count; n++) list[n] = (int32_t)integer_at(L, -2, n + 1);
    return list;
}

/* (kind, {{op, line, integer, number, tensor, operands ..}, ..}, {tensor, ..}, {result =, slope =,
 * read = {}, adjoint = {}}) */
static int program_new(lua_State *L) {
    const char *kind = luaL_checkstring(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    luaL_checktype(L, 3, LUA_TTABLE);
    luaL_checktype(L, 4, LUA_TTABLE);
    const int32_t count = (int32_t)lua_rawlen(L, 2), tensor_count = (int32_t)lua_rawlen(L, 3);
    attune_instruction *code = lua_newuserdatauv(L, (size_t)(count + 1) * sizeof *code, 0);
    attune_tensor *tensors = lua_newuserdatauv(L, (size_t)(tensor_count + 1) * sizeof *tensors, 0);
    memset(code, 0, (size_t)count * sizeof *code);
    for (int32_t n = 0; n < count; n++) {
        lua_rawgeti(L, 2, n + 1);
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
    for (int32_t t = 0; t < tensor_count; t++) {
        lua_rawgeti(L, 3, t + 1);
        tensors[t] = *check_tensor(L, -1, kind);
        lua_pop(L, 1);
    }
    attune_program_outputs outputs = {.first = 1}; /* Lua counts from 1 */
    lua_getfield(L, 4, "result");
    lua_getfield(L, 4, "slope");
    outputs.result = (int32_t)lua_tointeger(L, -2);
    outputs.slope = (int32_t)lua_tointeger(L, -1);
    outputs.read = integers(L, 4, "read", &outputs.reads);
    outputs.adjoint = integers(L, 4, "adjoint", &outputs.reads);
    attune_program **p = lua_newuserdatauv(L, sizeof *p, 1);
    *p = NULL;
    luaL_setmetatable(L, PROGRAM_TYPE);
    lua_pushvalue(L, 3); /* the tensors live as long as the program that reads them */
    lua_setiuservalue(L, -2, 1);
    RUN(L, attune_program_new(kind, code, count, tensors, tensor_count, &outputs, p));
    return 1;
}

/* (handle, batch, heads, kv_heads, queries, keys) -> a table of counts, and the states as strings,
 * one for each row of tiles */
static int program_map(lua_State *L) {
    attune_program *p = check_program(L, 1, "mask");
    int64_t n[5];
    for (int k = 0; k < 5; k++) n[k] = luaL_checkinteger(L, k + 2);
    attune_block_map map;
    RUN(L, attune_program_map(p, n[0], n[1], n[2], n[3], n[4], &map));
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
    lua_createtable(L, (int)(map.heads * map.row_blocks), 0);
    for (int64_t r = 0; r < map.heads * map.row_blocks; r++) {
        lua_pushlstring(L, (const char *)map.states + r * map.key_blocks, (size_t)map.key_blocks);
        lua_rawseti(L, -2, r + 1);
    }
    lua_setfield(L, -2, "rows");
    return 1;
}

static int p_close(lua_State *L) {
    attune_program **p = luaL_checkudata(L, 1, PROGRAM_TYPE);
    attune_program_close(*p);
    *p = NULL;
    return 0;
}

void open_program(lua_State *L) {
    static const luaL_Reg functions[] = {
        {"_program_new", program_new}, {"_program_map", program_map}, {NULL, NULL}};
    luaL_newmetatable(L, PROGRAM_TYPE);
    lua_pushcfunction(L, p_close);
    lua_setfield(L, -2, "__gc");
    lua_pop(L, 1);
    luaL_setfuncs(L, functions, 0);
}
