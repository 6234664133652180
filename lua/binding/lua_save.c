/* lua_save.c - saving named tensors. */
#include <stdlib.h>
#include <string.h>

#include "binding.h"

/* How many entries the table at index has; all keys are names. */
static int64_t count_names(lua_State *L, int index, const char *argument) {
    int64_t n = 0;
    for (lua_pushnil(L); lua_next(L, index); lua_pop(L, 1)) {
        if (lua_type(L, -2) != LUA_TSTRING)
            raise_error(L, "%s: expected names as keys, got %s", argument, describe(L, -2));
        check_text(L, -2, argument, "names as keys");
        n++;
    }
    return n;
}

/* Copies the table at index to a list of name, value, name, value .. at `list`, which has room for
 * `count` entries, so that nothing allocates here. Returns how many there are: a finalizer may have
 * changed the table since they were counted. */
static int64_t copy_entries(lua_State *L, int index, int list, int64_t count,
                            const char *argument) {
    int64_t n = 0;
    for (lua_pushnil(L); lua_next(L, index); n++) {
        if (n == count || lua_type(L, -2) != LUA_TSTRING)
            raise_error(L, "%s: expected a table that stays as it is, got more names", argument);
        lua_rawseti(L, list, 2 * n + 2);
        lua_pushvalue(L, -1);
        lua_rawseti(L, list, 2 * n + 1);
    }
    return n;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const attune_named_tensor *)a)->name, ((const attune_named_tensor *)b)->name);
}

static int by_key(const void *a, const void *b) {
    return strcmp(((const attune_text_pair *)a)->key, ((const attune_text_pair *)b)->key);
}

/* Names and tensors of the list at `list`, in the order of the names, so that a file's bytes do not
 * depend on hashing. They are borrowed from the list. */
static void fill_tensors(lua_State *L, int list, attune_archive *a) {
    for (int64_t i = 0; i < a->tensors; i++) {
        lua_rawgeti(L, list, 2 * i + 1);
        lua_rawgeti(L, list, 2 * i + 2);
        const char *name = check_text(L, -2, "tensors", "names as keys");
        a->tensor[i].name = (char *)name;
        a->tensor[i].tensor = *check_tensor(L, -1, name);
        lua_pop(L, 2);
    }
    qsort(a->tensor, (size_t)a->tensors, sizeof *a->tensor, by_name);
}

static void fill_texts(lua_State *L, int list, attune_archive *a) {
    for (int64_t i = 0; i < a->texts; i++) {
        lua_rawgeti(L, list, 2 * i + 1);
        lua_rawgeti(L, list, 2 * i + 2);
        const char *key = check_text(L, -2, "metadata", "names as keys");
        a->text[i].key = (char *)key;
        a->text[i].value = (char *)check_text(L, -1, key, "a text");
        lua_pop(L, 2);
    }
    qsort(a->text, (size_t)a->texts, sizeof *a->text, by_key);
}

static void push_list(lua_State *L, int64_t entries) {
    lua_createtable(L, entries < INT32_MAX / 2 ? (int)(2 * entries) : 0, 0);
}

static int finish(lua_State *L, attune_status status) {
    core_runs = 0;
    if (status != ATTUNE_OK) return push_file_failure(L, status);
    lua_pushboolean(L, true);
    return 1;
}

enum { PATH = 1, TENSORS_IN, METADATA_IN, OPTIONS_IN, TENSORS, TEXTS };

/* ---- safetensors ----------------------------------------------------------------------------- */

static int save_safetensors(lua_State *L, attune_archive *a) {
    a->text = lua_newuserdatauv(L, (size_t)(a->texts + 1) * sizeof *a->text, 0);
    fill_tensors(L, TENSORS, a);
    fill_texts(L, TEXTS, a);
    attune_interrupt_clear();
    core_runs = 1;
    return finish(L, attune_archive_save(lua_tostring(L, PATH), a));
}

/* ---- GGUF ------------------------------------------------------------------------------------ */

typedef struct pair {
    const char *key;
    attune_value value;
} pair;

/* How many elements the list on top of the stack has. Raises where it has other keys than 1 .. n,
 * which a file cannot hold. */
static lua_Integer count_list(lua_State *L, const char *key) {
    const lua_Integer n = (lua_Integer)lua_rawlen(L, -1);
    for (lua_pushnil(L); lua_next(L, -2); lua_pop(L, 1)) {
        const lua_Integer i = lua_isinteger(L, -2) ? lua_tointeger(L, -2) : 0;
        if (i < 1 || i > n)
            raise_error(L, "%s: expected a list, got a table with the key %s", key,
                        describe(L, -2));
    }
    return n;
}

/* Replaces every list among the values of TEXTS by a copy that no user code can reach, and pushes
 * the room of its elements: after that nothing allocates. */
static void copy_lists(lua_State *L, int64_t texts) {
    for (int64_t i = 0; i < texts; i++) {
        lua_rawgeti(L, TEXTS, 2 * i + 1);
        const char *key = check_text(L, -1, "metadata", "names as keys");
        if (lua_rawgeti(L, TEXTS, 2 * i + 2) == LUA_TTABLE) {
            const lua_Integer n = count_list(L, key);
            lua_newtable(L);
            for (lua_Integer e = 1; e <= n; e++) {
                const int type = lua_rawgeti(L, -2, e);
                if (type != LUA_TSTRING && type != LUA_TNUMBER && type != LUA_TBOOLEAN)
                    raise_error(L, "%s: expected a list of texts, numbers or booleans, got %s", key,
                                describe(L, -1));
                lua_rawseti(L, -2, e);
            }
            lua_newuserdatauv(L, (size_t)(n + 1) * sizeof(attune_value), 0);
            lua_rawseti(L, -2, 0); /* element 0 of the copy is the room */
            lua_rawseti(L, TEXTS, 2 * i + 2);
        }
        lua_pop(L, 2);
    }
}

/* The value on top of the stack; texts are borrowed. */
static attune_value value_of(lua_State *L, const char *key) {
    attune_value v = {.kind = ATTUNE_TEXT};
    size_t length;
    switch (lua_type(L, -1)) {
    case LUA_TSTRING:
        v.text = lua_tolstring(L, -1, &length);
        v.length = (int64_t)length;
        break;
    case LUA_TBOOLEAN:
        v.kind = ATTUNE_BOOLEAN;
        v.integer = lua_toboolean(L, -1);
        break;
    case LUA_TNUMBER:
        v.kind = lua_isinteger(L, -1) ? ATTUNE_INTEGER : ATTUNE_NUMBER;
        v.integer = v.kind == ATTUNE_INTEGER ? lua_tointeger(L, -1) : 0;
        v.number = v.kind == ATTUNE_NUMBER ? lua_tonumber(L, -1) : 0;
        break;
    default: raise_expected(L, key, "a text, a number, a boolean or a list of them", -1);
    }
    return v;
}

static attune_value list_of(lua_State *L, const char *key) {
    attune_value v = {.kind = ATTUNE_LIST, .count = (int64_t)lua_rawlen(L, -1)};
    lua_rawgeti(L, -1, 0);
    attune_value *items = lua_touserdata(L, -1);
    lua_pop(L, 1);
    v.items = items;
    for (int64_t e = 0; e < v.count; e++) {
        lua_rawgeti(L, -1, e + 1);
        items[e] = value_of(L, key);
        lua_pop(L, 1);
    }
    return v;
}

static int pair_by_key(const void *a, const void *b) {
    return strcmp(((const pair *)a)->key, ((const pair *)b)->key);
}

static void fill_pairs(lua_State *L, int64_t texts, pair *pairs) {
    for (int64_t i = 0; i < texts; i++) {
        lua_rawgeti(L, TEXTS, 2 * i + 1);
        lua_rawgeti(L, TEXTS, 2 * i + 2);
        pairs[i].key = check_text(L, -2, "metadata", "names as keys");
        pairs[i].value = lua_istable(L, -1) ? list_of(L, pairs[i].key) : value_of(L, pairs[i].key);
        lua_pop(L, 2);
    }
    qsort(pairs, (size_t)texts, sizeof *pairs, pair_by_key);
}

/* Whether a tensor becomes blocks where all matrices do. */
static bool is_matrix(const attune_tensor *t) {
    const bool is_float = t->dtype == ATTUNE_F32 || t->dtype == ATTUNE_F64 ||
                          t->dtype == ATTUNE_F16 || t->dtype == ATTUNE_BF16;
    return is_float && t->rank >= 2 && t->shape[t->rank - 1] % 32 == 0;
}

static int save_gguf(lua_State *L, attune_archive *a, bool q8_0) {
    copy_lists(L, a->texts);
    const size_t texts = (size_t)a->texts + 1;
    pair *pairs = lua_newuserdatauv(L, texts * sizeof *pairs, 0);
    const char **keys = lua_newuserdatauv(L, texts * sizeof *keys, 0);
    attune_value *values = lua_newuserdatauv(L, texts * sizeof *values, 0);
    bool *blocks = lua_newuserdatauv(L, (size_t)a->tensors + 1, 0);
    fill_tensors(L, TENSORS, a);
    fill_pairs(L, a->texts, pairs);
    for (int64_t i = 0; i < a->texts; i++) {
        keys[i] = pairs[i].key;
        values[i] = pairs[i].value;
    }
    for (int64_t i = 0; i < a->tensors; i++) blocks[i] = q8_0 && is_matrix(&a->tensor[i].tensor);
    const attune_gguf g = {.tensors = a->tensors,
                           .texts = a->texts,
                           .tensor = a->tensor,
                           .q8_0 = blocks,
                           .key = keys,
                           .value = values};
    attune_interrupt_clear();
    core_runs = 1;
    return finish(L, attune_gguf_save(lua_tostring(L, PATH), &g));
}

/* ---- save ------------------------------------------------------------------------------------ */

static bool is_gguf(const char *path) {
    const size_t n = strlen(path);
    return n > 5 && strcmp(path + n - 5, ".gguf") == 0;
}

/* The archive's names, texts and tensors are borrowed from two lists on the stack that no user code
 * can reach; its arrays are userdata. All of it is allocated before the first entry is read. */
static int save(lua_State *L) {
    static const char *const known[] = {"q8_0", NULL};
    bool q8_0 = false;
    refuse_further(L, 4, "save: expected a path, tensors, metadata and options");
    lua_settop(L, 4);
    const bool gguf = is_gguf(check_text(L, PATH, "path", "a file's name"));
    if (!lua_istable(L, TENSORS_IN))
        return raise_expected(L, "tensors", "a table {name = tensor}", TENSORS_IN);
    if (!lua_isnil(L, METADATA_IN) && !lua_istable(L, METADATA_IN))
        return raise_expected(L, "metadata", "a table {key = text}", METADATA_IN);
    const options given = read_options(L, OPTIONS_IN, known);
    option_boolean(L, &given, "q8_0", &q8_0);
    lua_settop(L, OPTIONS_IN);
    if (q8_0 && !gguf)
        return raise_error(L, "q8_0: expected a path that ends with .gguf, got %s",
                           describe(L, PATH));
    attune_archive a = {0};
    const int64_t tensors = count_names(L, TENSORS_IN, "tensors");
    const int64_t texts = lua_isnil(L, METADATA_IN) ? 0 : count_names(L, METADATA_IN, "metadata");
    push_list(L, tensors);
    push_list(L, texts);
    a.tensor = lua_newuserdatauv(L, (size_t)(tensors + 1) * sizeof *a.tensor, 0);
    a.tensors = copy_entries(L, TENSORS_IN, TENSORS, tensors, "tensors");
    if (!lua_isnil(L, METADATA_IN))
        a.texts = copy_entries(L, METADATA_IN, TEXTS, texts, "metadata");
    return gguf ? save_gguf(L, &a, q8_0) : save_safetensors(L, &a);
}

void open_save(lua_State *L) {
    lua_pushcfunction(L, save);
    lua_setfield(L, -2, "save");
}
