/* binding.h - what the files of the C module attune.core share.
 *
 * A handle is a userdata that holds the core's struct. It is put into its closed state and given
 * its metatable before anything can raise, so that an error half-way leaks nothing: the collector
 * closes it. Errors are raised at the caller's line and name the argument.
 */
#ifndef ATTUNE_BINDING_H
#define ATTUNE_BINDING_H

#include <lauxlib.h>
#include <lua.h>
#include <signal.h>

#include "attune.h"

#define TENSOR_TYPE "attune.tensor"
#define CACHE_TYPE "attune.cache"
#define POSITION_TYPE "attune.position"
#define PROGRAM_TYPE "attune.program"
#define HOOKS "attune.hooks" /* in the registry: a table of hooks, below */

/* ---- calling the core ------------------------------------------------------------------------ */

/* Raises a message with the line of the caller. Functions of attune/init.lua that only prepare the
 * arguments of a core function do not count as callers. */
int raise_error(lua_State *L, const char *format, ...);
/* Raises a failure. ATTUNE_EINTERRUPT raises "interrupted!". */
int raise_status(lua_State *L, attune_status status);

/* True while a core call runs: Ctrl-C is then the call's affair, and "interrupted!" is raised once,
 * where pcall can catch it. */
extern volatile sig_atomic_t core_runs;

/* Runs a core call; out of memory, it lets the collector free what nobody holds and tries once
 * more. */
#define RUN(L, call)                                        \
    do {                                                    \
        attune_interrupt_clear();                           \
        core_runs = 1;                                      \
        attune_status status_ = (call);                     \
        if (status_ == ATTUNE_EMEMORY) {                    \
            lua_gc(L, LUA_GCCOLLECT);                       \
            status_ = (call);                               \
        }                                                   \
        core_runs = 0;                                      \
        if (status_ != ATTUNE_OK) raise_status(L, status_); \
    } while (0)

/* ---- tensors --------------------------------------------------------------------------------- */

/* A closed tensor on the stack, to be filled. Lets the collector run when tensors have grown much
 * since it last did. */
attune_tensor *push_tensor(lua_State *L);
/* The open tensor at index; raises with the argument's name otherwise. */
attune_tensor *check_tensor(lua_State *L, int index, const char *name);
attune_tensor *test_tensor(lua_State *L, int index); /* NULL: no tensor */
void push_shape(lua_State *L, const attune_tensor *t);

/* ---- arguments and options ------------------------------------------------------------------- */

/* "2x3 f32 tensor", "a string, 'abc'", "nil": for messages. In a buffer of its own. */
const char *describe(lua_State *L, int index);
/* Raises "NAME: expected WHAT, got ..". */
int raise_expected(lua_State *L, const char *name, const char *what, int index);

int64_t check_integer(lua_State *L, int index, const char *name, int64_t least);
double check_number(lua_State *L, int index, const char *name);

/* The known name (in a list that ends with NULL) with the smallest edit distance from name, if that
 * is at most 1 plus a third of name's length; else NULL. */
const char *nearest_name(const char *name, const char *const *known);
/* Raises about an unknown name, with the nearest of the known ones (a list that ends with NULL).
 * what: "option" or "method". */
int raise_unknown(lua_State *L, const char *what, const char *name, const char *const *known);

/* The value at index is nil or a table whose keys are all in known; raises otherwise. */
void check_options(lua_State *L, int index, const char *const *known);
/* Fields of the table at index (which may be nil); false: absent. */
bool option_integer(lua_State *L, int index, const char *name, int64_t least, int64_t *out);
bool option_number(lua_State *L, int index, const char *name, double *out);
bool option_boolean(lua_State *L, int index, const char *name, bool *out);
bool option_dtype(lua_State *L, int index, attune_dtype *out);
/* The index in known of a string option. */
bool option_choice(lua_State *L, int index, const char *name, const char *const *known, int *out);

/* A shape, {2, 3}, at index. */
int check_shape(lua_State *L, int index, const char *name, int64_t shape[ATTUNE_MAX_RANK]);
/* A list of integers at index into a tensor i64 [n], pushed; a list of lists gives [rows, n]. A
 * tensor is converted. */
attune_tensor *push_integers(lua_State *L, int index, const char *name);

/* ---- nouns ----------------------------------------------------------------------------------- */

attune_cache *check_cache(lua_State *L, int index);
attune_position *check_position(lua_State *L, int index, const char *name);
attune_position *test_position(lua_State *L, int index);

/* The program at index (kind: "score" or "mask"). Its first user value is the list of the tensors
 * that it reads. attune/init.lua replaces functions by programs before it calls the core. */
attune_program *check_program(lua_State *L, int index, const char *kind);

/* ---- hooks ----------------------------------------------------------------------------------- */

/* Functions of the Lua library that the binding calls. core._hook(name, value) registers one:
 *   read          (tensor, traced value) -> traced value; program/trace.lua
 *   score_of      (name, table or slopes, max_distance, bidirectional) -> score function; init.lua
 *   wrapper       the source name of init.lua, whose functions wrap functions of the core
 * Pushes the hook; raises where nothing is registered. */
void push_hook(lua_State *L, const char *name);

/* Reads attention's options at index into out. Lists live in userdata that this pushes: leave them
 * there until the call is done. */
void read_attention_options(lua_State *L, int index, attune_attention_options *out, bool for_cache);

/* Seeds for tensors whose caller gives none: they differ from draw to draw and follow from
 * set_seed. */
uint64_t next_seed(void);

void open_tensor(
    lua_State *L); /* each adds its functions to the module table on top of the stack */
void open_make(lua_State *L);
void open_attention(lua_State *L);
void open_cache(lua_State *L);
void open_linear(lua_State *L);
void open_position(lua_State *L);
void open_program(lua_State *L);
void open_files(lua_State *L);
void open_descriptors(lua_State *L);
void open_machine(lua_State *L);
void open_json(lua_State *L);

#endif
