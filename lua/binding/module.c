/* module.c - the C module attune.core: loading it, and what Ctrl-C does. */
#include <signal.h>
#include <string.h>

#include "binding.h"

/* ---- Ctrl-C ---------------------------------------------------------------------------------- */

static struct sigaction before;

volatile sig_atomic_t core_runs;

/* A core call that runs ends with "interrupted!". Otherwise the handler that was there before is
 * called (lua's own stops the script between two instructions), or the default action is taken. */
static void on_interrupt(int number, siginfo_t *info, void *context) {
    if (core_runs) {
        attune_interrupt();
    } else if (before.sa_flags & SA_SIGINFO) {
        before.sa_sigaction(number, info, context);
    } else if (before.sa_handler == SIG_DFL) {
        signal(number, SIG_DFL);
        raise(number);
    } else if (before.sa_handler != SIG_IGN) {
        before.sa_handler(number);
    }
}

static void handle_interrupts(void) {
    static bool done;
    if (done) return;
    done = true;
    if (sigaction(SIGINT, NULL, &before) != 0 ||
        (!(before.sa_flags & SA_SIGINFO) && before.sa_handler == SIG_IGN))
        return;
    struct sigaction ours = {.sa_sigaction = on_interrupt, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigemptyset(&ours.sa_mask);
    sigaction(SIGINT, &ours, NULL);
}

/* ---- hooks ----------------------------------------------------------------------------------- */

static int hook(lua_State *L) {
    luaL_checkstring(L, 1);
    lua_settop(L, 2);
    luaL_getsubtable(L, LUA_REGISTRYINDEX, HOOKS);
    lua_insert(L, 1);
    lua_settable(L, 1);
    return 0;
}

void push_hook(lua_State *L, const char *name) {
    luaL_getsubtable(L, LUA_REGISTRYINDEX, HOOKS);
    if (lua_getfield(L, -1, name) == LUA_TNIL)
        raise_error(L, "attune.core: the Lua library is not loaded; write require \"attune\"");
    lua_remove(L, -2);
}

/* ---- names ----------------------------------------------------------------------------------- */

/* (name, list of known names) -> the nearest of them, or nil. For attune/util/suggest.lua. */
static int nearest(lua_State *L) {
    const char *name = luaL_checkstring(L, 1);
    luaL_checktype(L, 2, LUA_TTABLE);
    lua_settop(L, 2);
    const int count = (int)lua_rawlen(L, 2);
    const char **known = lua_newuserdatauv(L, (size_t)(count + 1) * sizeof *known, 0);
    luaL_checkstack(L, count + 4, "known names");
    for (int i = 0; i < count; i++) {
        lua_rawgeti(L, 2, i + 1);
        known[i] = luaL_checkstring(L, -1); /* stays on the stack, so that it stays alive */
    }
    known[count] = NULL;
    lua_pushstring(L, nearest_name(name, known));
    return 1;
}

/* ---- calling and asking -----------------------------------------------------------------------
 */

/* core._call(function, ..) -> what the function returns. The function cannot yield: a coroutine
 * cannot leave a trace half-way. */
static int call(lua_State *L) {
    luaL_checkany(L, 1);
    lua_call(L, lua_gettop(L) - 1, LUA_MULTRET);
    return lua_gettop(L);
}

/* core._kind(value) -> "tensor", "cache", "position", "program", "state" or nil, and whether it is
 * open. */
static int kind(lua_State *L) {
    bool is_open = false;
    lua_settop(L, 1);
    const handle_kind *found = kind_at(L, 1, &is_open);
    lua_pushstring(L, found ? found->argument : NULL);
    lua_pushboolean(L, is_open);
    return 2;
}

/* ---- loading --------------------------------------------------------------------------------- */

__attribute__((visibility("default"))) int luaopen_attune_core(lua_State *L);

int luaopen_attune_core(lua_State *L) {
    attune_status status = attune_init();
    if (status != ATTUNE_OK) return raise_status(L, status);
    handle_interrupts();
    lua_newtable(L);
    open_tensor(L);
    open_index(L);
    open_make(L);
    open_autograd(L);
    open_gradients(L);
    open_nn(L);
    open_attention(L);
    open_cache(L);
    open_linear(L);
    open_position(L);
    open_program(L);
    open_files(L);
    open_infer(L);
    open_weight(L);
    open_save(L);
    open_descriptors(L);
    open_machine(L);
    open_json(L);
    open_text(L);
    open_optim(L);
    lua_pushcfunction(L, hook);
    lua_setfield(L, -2, "_hook");
    lua_pushcfunction(L, call);
    lua_setfield(L, -2, "_call");
    lua_pushcfunction(L, kind);
    lua_setfield(L, -2, "_kind");
    lua_pushcfunction(L, nearest);
    lua_setfield(L, -2, "_nearest");
    return 1;
}
