/* lua_text.c - text as token ids; for attune/data. Texts are Lua strings, which stay on the stack
 * while the core reads them. */
#include "binding.h"

static attune_span check_span(lua_State *L, int index) {
    size_t bytes;
    if (lua_type(L, index) != LUA_TSTRING) raise_expected(L, "text", "a string", index);
    const char *data = lua_tolstring(L, index, &bytes);
    return (attune_span){.data = data, .bytes = (int64_t)bytes};
}

/* core._sha256(text) -> 64 hexadecimal digits */
static int sha256(lua_State *L) {
    char hex[65];
    attune_sha256(check_span(L, 1), hex);
    lua_pushstring(L, hex);
    return 1;
}

/* core._utf8_prefix(text) -> the number of bytes before the first one that is not UTF-8 */
static int utf8_prefix(lua_State *L) {
    lua_pushinteger(L, attune_utf8_prefix(check_span(L, 1)));
    return 1;
}

/* core._byte_ids(text) -> i32 [bytes] */
static int byte_ids(lua_State *L) {
    lua_settop(L, 1);
    const attune_span text = check_span(L, 1);
    attune_tensor *ids = push_tensor(L);
    RUN(L, attune_byte_ids(text, ids));
    return 1;
}

/* core._bpe_train(text, starts i64 [documents], vocabulary) -> merges i32 [merges, 2] */
static int bpe_train(lua_State *L) {
    lua_settop(L, 3);
    const attune_span text = check_span(L, 1);
    const int64_t vocabulary = check_integer(L, 3, "vocab", 1);
    attune_tensor *merges = push_tensor(L);
    attune_tensor *starts = check_tensor(L, 2, "starts");
    RUN(L, attune_bpe_train(text, starts, vocabulary, merges));
    return 1;
}

/* core._bpe_encode(merges, text, starts) -> ids i32 [tokens], token_starts i64 [documents] */
static int bpe_encode(lua_State *L) {
    lua_settop(L, 3);
    const attune_span text = check_span(L, 2);
    attune_tensor *ids = push_tensor(L), *token_starts = push_tensor(L);
    attune_tensor *merges = check_tensor(L, 1, "merges"), *starts = check_tensor(L, 3, "starts");
    RUN(L, attune_bpe_encode(merges, text, starts, ids, token_starts));
    return 2;
}

/* core._token_windows(ids i32 [n], starts i64 [rows], tokens) -> i64 [rows, tokens] */
static int token_windows(lua_State *L) {
    lua_settop(L, 3);
    const int64_t tokens = check_integer(L, 3, "tokens", 1);
    attune_tensor *out = push_tensor(L);
    attune_tensor *ids = check_tensor(L, 1, "ids"), *starts = check_tensor(L, 2, "starts");
    RUN(L, attune_token_windows(ids, starts, tokens, out));
    return 1;
}

/* core._token_ranges(ids i32 [n], starts i64 [ranges], counts i64 [ranges]) -> i32 [tokens] */
static int token_ranges(lua_State *L) {
    lua_settop(L, 3);
    attune_tensor *out = push_tensor(L);
    attune_tensor *ids = check_tensor(L, 1, "ids"), *starts = check_tensor(L, 2, "starts"),
                  *counts = check_tensor(L, 3, "counts");
    RUN(L, attune_token_ranges(ids, starts, counts, out));
    return 1;
}

void open_text(lua_State *L) {
    static const luaL_Reg functions[] = {{"_sha256", sha256},
                                         {"_utf8_prefix", utf8_prefix},
                                         {"_byte_ids", byte_ids},
                                         {"_bpe_train", bpe_train},
                                         {"_bpe_encode", bpe_encode},
                                         {"_token_windows", token_windows},
                                         {"_token_ranges", token_ranges},
                                         {NULL, NULL}};
    luaL_setfuncs(L, functions, 0);
}
