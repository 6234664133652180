/* binding.h - what the files of the C module attune.core share. handle.h says how a C function is
 * laid out so that user code cannot break it. Errors are raised at the caller's line and name the
 * argument.
 */
#ifndef ATTUNE_BINDING_H
#define ATTUNE_BINDING_H

#include <lauxlib.h>
#include <lua.h>
#include <signal.h>

#include "attune.h"
#include "base/dtype.h"
#include "handle.h"

#define UNREAD_TYPE "attune.unread" /* a tensor of a file, of a dtype that attune lacks */
#define HOOKS "attune.hooks"        /* in the registry: a table of hooks, below */

/* ---- calling the core ------------------------------------------------------------------------ */

/* Raises a message with the line of the caller. The functions of the Lua library do not count as
 * callers. */
int raise_error(lua_State *L, const char *format, ...);
/* Raises a failure. ATTUNE_EINTERRUPT raises "interrupted!". */
int raise_status(lua_State *L, attune_status status);

/* True while a core call runs: Ctrl-C then ends the call, and "interrupted!" is raised once, where
 * pcall can catch it. */
extern volatile sig_atomic_t core_runs;

/* The time now where attune.profile measures, else 0; adds what has passed to the call's times. */
double profile_start(void);
void profile_stop(const char *call, double start);

/* Runs a core call. Out of memory, it lets the collector free what nobody holds and tries once
 * more. `call` runs up to twice and never calls Lua: results are pushed before. */
#define RUN(L, call)                                        \
    do {                                                    \
        attune_interrupt_clear();                           \
        const double start_ = profile_start();              \
        core_runs = 1;                                      \
        attune_status status_ = (call);                     \
        core_runs = 0;                                      \
        if (start_ > 0) profile_stop(#call, start_);        \
        if (status_ == ATTUNE_EMEMORY) {                    \
            collect_in_call(L);                             \
            core_runs = 1;                                  \
            status_ = (call);                               \
            core_runs = 0;                                  \
        }                                                   \
        if (status_ != ATTUNE_OK) raise_status(L, status_); \
    } while (0)

/* ---- tensors --------------------------------------------------------------------------------- */

/* A closed tensor on the stack, to be filled. Lets the collector run when tensors have grown much
 * since it last did. */
attune_tensor *push_tensor(lua_State *L);
/* The open tensor at index; raises with the argument's name otherwise. */
attune_tensor *check_tensor(lua_State *L, int index, const char *name);
/* The same; the message names the layout that is expected, such as "[batch, tokens]". */
#define Q_LAYOUT "[batch, heads, queries, head_dim]"
#define KV_LAYOUT "[batch, kv_heads, keys, head_dim]"
attune_tensor *check_tensor_of(lua_State *L, int index, const char *name, const char *layout);
attune_tensor *test_tensor(lua_State *L, int index); /* NULL: no tensor */
void push_shape(lua_State *L, const attune_tensor *t);
/* An axis as Lua counts it, from 1 or from the end, to the core's. */
int check_axis(lua_State *L, int index, const char *name, const attune_tensor *t);
int axis_of_rank(lua_State *L, int64_t axis, const char *name, int rank);
/* An index in an axis likewise: 1 is the first, -1 the last. Returns from 0. */
int64_t check_index(lua_State *L, int index, const char *name, int64_t extent);
/* (tensor, i, x): t[i] = x, without recording. lua_index.c */
int assign_index(lua_State *L);
/* The value at index is a tensor whose operations are recorded: lua_autograd.c. */
bool is_recorded(lua_State *L, int index);
/* Pushes what print shows of an open tensor: a handle_kind's describe. */
void push_tensor_text(lua_State *L, void *content);

/* ---- arguments ------------------------------------------------------------------------------- */

/* "2x3 f32 tensor", "'abc'", "a closed cache", "nil": for messages. In a buffer of its own. */
const char *describe(lua_State *L, int index);
/* Raises "NAME: expected WHAT, got ..". */
int raise_expected(lua_State *L, const char *name, const char *what, int index);

/* Raises where a call has more than `count` arguments; further ones that are nil are none. `what`:
 * the name of the call and its arguments, for the message. */
void refuse_further(lua_State *L, int count, const char *what);

/* The value at index is this string. */
bool is_text(lua_State *L, int index, const char *text);
/* The string at index, which C can read: without zero bytes. what: "a file's name". */
const char *check_text(lua_State *L, int index, const char *name, const char *what);

int64_t check_integer(lua_State *L, int index, const char *name, int64_t min);
double check_number(lua_State *L, int index, const char *name);
attune_dtype check_dtype(lua_State *L, int index);
/* The position in known (a list that ends with NULL) of the string at index. */
int check_choice(lua_State *L, int index, const char *name, const char *const *known);

/* The known name (in a list that ends with NULL) with the smallest edit distance from name, if that
 * is at most 1 plus a third of name's length; else NULL. */
const char *nearest_name(const char *name, const char *const *known);
/* Raises about an unknown name, with the nearest of the known ones (a list that ends with NULL).
 * what: "option" or "method". */
int raise_unknown(lua_State *L, const char *what, const char *name, const char *const *known);

/* A shape, {2, 3}, at index. */
int check_shape(lua_State *L, int index, const char *name, int64_t shape[ATTUNE_MAX_RANK]);
/* A list of integers at index into a tensor i64 [n], pushed; a list of lists gives [rows, n]. A
 * tensor is converted. */
attune_tensor *push_integers(lua_State *L, int index, const char *name);

/* Whether the number at index is an integer that goes with i64, which double may not hold. */
bool is_exact_integer(lua_State *L, int index, attune_dtype dtype);

/* The tensor at index, pushed, or a number as a tensor of one element of the dtype. */
attune_tensor *push_typed_operand(lua_State *L, int index, const char *name, attune_dtype dtype);
/* Whether t is contiguous and shares its memory with no other tensor. */
bool is_own(const attune_tensor *t);

/* For functions that give one integer: pushes it and returns 1. */
int push_integer(lua_State *L, int64_t n);

/* ---- options --------------------------------------------------------------------------------- */

/* Options are read once: the values of a table of named fields are copied to the stack, in the
 * order of the known names, and the table is not looked at again. */
typedef struct options {
    const char *const *known; /* ends with NULL */
    int first;                /* the stack index of the first known option; nil: not given */
} options;

/* Pushes the options of the table or nil at index. Raises where a name is unknown, or where the
 * table's metatable would answer for fields. */
options read_options(lua_State *L, int index, const char *const *known);
/* The same; calls refuse(L, name, index of its value) before it raises about an unknown name. */
typedef void (*refuse_option)(lua_State *L, const char *name, int index);
options read_options_or(lua_State *L, int index, const char *const *known, refuse_option refuse);

/* The stack index of an option. */
int option(const options *o, const char *name);
/* false: the option is not given, and *out stays as it was. */
bool option_integer(lua_State *L, const options *o, const char *name, int64_t min, int64_t *out);
bool option_number(lua_State *L, const options *o, const char *name, double *out);
bool option_boolean(lua_State *L, const options *o, const char *name, bool *out);
bool option_dtype(lua_State *L, const options *o, attune_dtype *out);
bool option_choice(lua_State *L, const options *o, const char *name, const char *const *known,
                   int *out);
attune_tensor *option_tensor(lua_State *L, const options *o, const char *name); /* NULL: absent */
attune_position *option_position(lua_State *L, const options *o, const char *name);
int64_t required_integer(lua_State *L, const options *o, const char *name); /* at least 1 */

/* ---- files ----------------------------------------------------------------------------------- */

/* Pushes nil, message, code for a failure of files and disks, and returns 3; raises other ones. */
int push_file_failure(lua_State *L, attune_status status);

/* ---- nouns ----------------------------------------------------------------------------------- */

attune_cache *check_cache(lua_State *L, int index);
attune_position *check_position(lua_State *L, int index, const char *name);

/* The program at index (kind: "score" or "mask"). Its first user value is the list of the tensors
 * that it reads. attune/init.lua replaces functions by programs before it calls the core. */
attune_program *check_program(lua_State *L, int index, const char *kind);
/* Refuses a tensor, at index, that is given as a mask, a score or a bias, with the function that
 * does it. */
int raise_tensor_as_function(lua_State *L, const char *name, const attune_tensor *t, int index);

/* ---- hooks ----------------------------------------------------------------------------------- */

/* Functions of the Lua library that the binding calls. core._hook(name, value) registers one:
 *   read          (tensor, traced value) -> traced value; program/traced.lua
 *   write         () raises: t[traced value] = x; program/traced.lua
 *   score_of      (table or slopes, max_distance, bidirectional) -> score function; init.lua.
 *                 max_distance 0: slopes
 *   select        (tensor, index) -> t[i] of a tensor that requires gradients; autograd
 *   assign        (tensor, index, value): t[i] = x where gradients are recorded; autograd
 *   set_grad      (tensor, value): t.grad = value; autograd
 *   library       the folder of the Lua library, as the sources of its functions name it
 * Pushes the hook; raises where nothing is registered. */
void push_hook(lua_State *L, const char *name);

/* ---- attention's options ----------------------------------------------------------------------
 */

typedef enum attention_use { FOR_FORWARD, FOR_BACKWARD, FOR_CACHE } attention_use;

typedef struct attention_call {
    options given;
    attune_attention_options options;
    attention_use use;
    bool summarized; /* the option summaries is given */
    unsigned wanted; /* by it: a set of attune_summary */
} attention_call;

/* Reads the options at index, all but the handles. Pushes what must stay on the stack. */
void read_attention_options(lua_State *L, int index, attention_call *call, attention_use use);
/* Takes the objects out of the handles among the options; nothing of Lua may run from here until
 * the core is called. */
void take_attention_handles(lua_State *L, attention_call *call);

/* Handles for the summaries of a call: those that are not wanted are NULL. */
typedef struct summary_handles {
    attune_tensor *tensor[4];
} summary_handles;
/* Pushes four values, before the handles of the options are taken. */
summary_handles push_summary_handles(lua_State *L, const attention_call *call);
/* Moves the summaries into their handles. Replaces the four values, on top of the stack, by a table
 * of the handles, or by nothing where the option is not given. Returns how many results it left. */
int push_summaries(lua_State *L, const attention_call *call, const summary_handles *handles,
                   const attune_summaries *summaries);

/* Seeds for tensors whose caller gives none: they differ from draw to draw and follow from
 * set_seed. */
uint64_t next_seed(void);

/* Each adds its functions to the module table on top of the stack. */
void open_tensor(lua_State *L);
void open_make(lua_State *L);
void open_index(lua_State *L);
void open_autograd(lua_State *L);
void open_gradients(lua_State *L);
void open_nn(lua_State *L);
void open_attention(lua_State *L);
void open_cache(lua_State *L);
void open_linear(lua_State *L);
void open_position(lua_State *L);
void open_program(lua_State *L);
void open_files(lua_State *L);
void open_infer(lua_State *L);
void open_weight(lua_State *L);
void open_save(lua_State *L);
void open_descriptors(lua_State *L);
void open_machine(lua_State *L);
void open_json(lua_State *L);
void open_text(lua_State *L);
void open_optim(lua_State *L);

#endif
