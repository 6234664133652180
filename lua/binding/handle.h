/* handle.h - handles: the userdata that hold the core's tensors, caches, encodings, programs and
 * linear states.
 *
 * How user code cannot pull an object away from a call:
 *
 * - Lua code runs inside a C function only where the collector may run (any allocation by Lua,
 *   which can run a finalizer), or where C calls Lua. No core function calls Lua.
 * - A C function therefore reads its arguments and options, makes the handles of its results, and
 *   then, last of all, takes the objects out of their handles and calls the core.
 * - Every handle of the call stays on the stack of the C function. When the core is out of memory,
 *   RUN marks those handles as in use, lets the collector run and calls the core again. Closing a
 *   handle that is in use is an error.
 */
#ifndef ATTUNE_BINDING_HANDLE_H
#define ATTUNE_BINDING_HANDLE_H

#include <lauxlib.h>
#include <lua.h>
#include <stdbool.h>

#include "attune.h"

/* What the handles of one kind have in common. The content of a handle is an attune_tensor, or a
 * pointer to an object of the core. Content of zero bytes is closed. */
typedef struct handle_kind {
    const char *type;     /* the name of the metatable in the registry */
    const char *argument; /* how messages name the handle as an argument: "cache" */
    const char *noun;     /* in "expected an open NOUN" and "closed NOUN" */
    size_t size;          /* of the content, in bytes */
    bool (*is_open)(const void *content);
    void (*close)(void *content);                  /* frees; the content is then closed */
    void (*describe)(lua_State *L, void *content); /* pushes what tostring gives for an open one */
    const luaL_Reg *methods, *fields; /* a field is a function that pushes one value of handle 1 */
    int (*index)(lua_State *L);       /* answers keys that are not strings; NULL: no such keys */
} handle_kind;

extern const handle_kind tensor_kind, cache_kind, position_kind, program_kind, state_kind,
    file_kind, weight_kind;

/* Makes the metatable of the kind, with more metamethods than the common ones (NULL: none), and
 * pushes the table of its methods. */
void define_handle(lua_State *L, const handle_kind *kind, const luaL_Reg *metamethods);

/* Pushes a closed handle with `user_values` user values. Returns its content, to be filled. */
void *push_handle(lua_State *L, const handle_kind *kind, int user_values);

/* The content of the handle at index; NULL where there is none of this kind. */
void *test_handle(lua_State *L, int index, const handle_kind *kind);
/* The same; raises with the argument's name where there is none. */
void *check_handle(lua_State *L, int index, const handle_kind *kind, const char *name);
/* The same; raises where the handle is closed, too. */
void *check_open(lua_State *L, int index, const handle_kind *kind, const char *name);

/* The kind of the handle at index, and whether it is open; NULL: no handle. */
const handle_kind *kind_at(lua_State *L, int index, bool *is_open);

/* Collects garbage while the handles on the stack of the running C function count as in use. */
void collect_in_call(lua_State *L);

#endif
