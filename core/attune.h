/* attune.h - the public C interface of attune's core, and its manual.
 *
 * The core computes attention and what stands around it. It knows nothing of Lua, prints nothing
 * and never aborts its host: every call that can fail returns an attune_status, and
 * attune_message() then says which argument was wrong, what was expected and what came.
 *
 * Dimensions, as they are named in all comments:
 *
 *   B batch         Hq query heads    Hk key and value heads, a divisor of Hq    G = Hq / Hk heads
 * that share one kv head Sq query tokens Sk key tokens     D head_dim of q and k Dv head_dim of v
 * and o
 *
 * A tensor argument has its shape in brackets. Out parameters come last; a function that fails
 * leaves them closed (tensors) or NULL (handles). Tensors and handles may be used by one thread at
 * a time; the message is per thread.
 */
#ifndef ATTUNE_H
#define ATTUNE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ATTUNE_API __attribute__((visibility("default")))

#define ATTUNE_VERSION_MAJOR 0
#define ATTUNE_VERSION_MINOR 1
#define ATTUNE_VERSION_PATCH 0
#define ATTUNE_VERSION "0.1.0"

/* The version the library was built as, "0.1.0", to compare with ATTUNE_VERSION. */
ATTUNE_API const char *attune_version(void);

/* ---- status
 * ------------------------------------------------------------------------------------------------------
 */

/* Every status: name, number, what it means in general. The message of a failure says it in
 * particular. */
#define ATTUNE_STATUS_TABLE(X)                                            \
    X(OK, 0, "success")                                                   \
    X(ESHAPE, 1, "shapes do not fit together")                            \
    X(EDTYPE, 2, "wrong dtype")                                           \
    X(EVALUE, 3, "a value is out of range")                               \
    X(EMEMORY, 4, "out of memory, or past the limit set")                 \
    X(ECAPACITY, 5, "the cache is full")                                  \
    X(EENGINE, 6, "the engine that was named does not take this problem") \
    X(ENESTED, 7, "parallel work was started inside parallel work")       \
    X(EINTERRUPT, 8, "interrupted")                                       \
    X(EISA, 9, "this machine lacks the instruction set")                  \
    X(ECLOSED, 10, "the tensor or handle is closed")                      \
    X(EIO, 11, "a file could not be read or written")                     \
    X(EFORMAT, 12, "a file is malformed")

typedef enum attune_status {
#define X(name, number, text) ATTUNE_##name = number,
    ATTUNE_STATUS_TABLE(X)
#undef X
} attune_status;

/* "ESHAPE", and "shapes do not fit together". */
ATTUNE_API const char *attune_status_name(attune_status status);
ATTUNE_API const char *attune_status_text(attune_status status);

/* What the last failure of the calling thread was about; "" before the first. Valid until that
 * thread's next failure. */
ATTUNE_API const char *attune_message(void);

/* ---- the library as a whole
 * -------------------------------------------------------------------------------------- */

/* Chooses the instruction set (ATTUNE_ISA, else the best one here) and the number of threads.
 * Idempotent. Everything else calls it where needed; call it yourself to learn early of an
 * ATTUNE_ISA that is unknown or absent (EISA). */
ATTUNE_API attune_status attune_init(void);

/* Seconds since some fixed point, monotonic. */
ATTUNE_API double attune_clock(void);

/* Threads that parallel work uses, the caller among them. n = 0 only asks. Starts as
 * ATTUNE_THREADS, else what affinity and the cgroup allow. Results have the same bits for any
 * number of threads. */
ATTUNE_API attune_status attune_threads(int n, int *now);

/* Asks work in progress, in whatever thread, to end soon with EINTERRUPT. Safe to call in a signal
 * handler. The flag stands until attune_interrupt_clear(), or until a call has returned EINTERRUPT
 * because of it. */
ATTUNE_API void attune_interrupt(void);
ATTUNE_API void attune_interrupt_clear(void);

/* Bytes of tensors, caches and scratch that are allocated now, the most there ever were since the
 * start or the last attune_memory_reset_peak(), and the limit (0: none) past which an allocation
 * fails with EMEMORY. */
typedef struct attune_memory_info {
    int64_t bytes, peak, limit;
} attune_memory_info;
ATTUNE_API attune_memory_info attune_memory(void);
ATTUNE_API attune_status attune_memory_limit(int64_t bytes);
ATTUNE_API void attune_memory_reset_peak(void);

/* High-water marks within a scope: *mark is opaque; end gives the most bytes above those at the
 * start. Scopes nest. */
typedef struct attune_memory_scope {
    int64_t start, outer_peak;
} attune_memory_scope;
ATTUNE_API void attune_memory_scope_begin(attune_memory_scope *scope);
ATTUNE_API int64_t attune_memory_scope_end(attune_memory_scope *scope);

/* For tests: the n-th allocation from now on fails (1: the next one); 0 switches that off. */
ATTUNE_API void attune_memory_fail_at(int64_t n);

/* Philox 4x32-10 (Salmon et al. 2011): counter and key to four 32-bit words. */
ATTUNE_API void attune_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* ---- tensors
 * -----------------------------------------------------------------------------------------------------
 */

enum { ATTUNE_MAX_RANK = 6 };

/* name, bytes of an element */
#define ATTUNE_DTYPE_TABLE(X)                                                            \
    X(F32, "f32", 4)                                                                     \
    X(F64, "f64", 8) X(BF16, "bf16", 2) X(F16, "f16", 2) X(I8, "i8", 1) X(I32, "i32", 4) \
        X(I64, "i64", 8)

typedef enum attune_dtype {
#define X(symbol, name, bytes) ATTUNE_##symbol,
    ATTUNE_DTYPE_TABLE(X)
#undef X
        ATTUNE_DTYPES
} attune_dtype;

ATTUNE_API const char *attune_dtype_name(attune_dtype dtype);
ATTUNE_API int64_t attune_dtype_size(attune_dtype dtype);
/* EDTYPE names the nearest dtype. */
ATTUNE_API attune_status attune_dtype_parse(const char *name, attune_dtype *out);

/* Some memory. */
typedef struct attune_span {
    const void *data;
    int64_t bytes;
} attune_span;

typedef struct attune_buffer attune_buffer; /* reference-counted storage */

/* A view of a buffer. Plain data: copy it only to pass it on; attune_tensor_share() makes a second
 * owner. */
typedef struct attune_tensor {
    attune_buffer *buffer; /* NULL: closed, or memory of the caller's (attune_tensor_wrap) */
    void *data;            /* the view's first element; NULL: closed */
    attune_dtype dtype;
    int rank;                        /* 0 .. ATTUNE_MAX_RANK; only reductions make rank 0 */
    int64_t shape[ATTUNE_MAX_RANK];  /* each at least 1 */
    int64_t stride[ATTUNE_MAX_RANK]; /* in elements; 0 where broadcast */
} attune_tensor;

/* Axes count from 0 here (the Lua face counts from 1), negative ones from the end. */

ATTUNE_API attune_status attune_tensor_new(attune_dtype dtype, int rank, const int64_t *shape,
                                           attune_tensor *out); /* zeros */
ATTUNE_API attune_status attune_tensor_wrap(
    attune_dtype dtype, int rank, const int64_t *shape, const int64_t *stride, void *data,
    attune_tensor *out); /* the caller keeps data alive; stride NULL: contiguous */
ATTUNE_API attune_status attune_tensor_share(const attune_tensor *t, attune_tensor *out);
ATTUNE_API void attune_tensor_close(attune_tensor *t); /* idempotent */
ATTUNE_API int64_t attune_tensor_count(const attune_tensor *t);
ATTUNE_API int64_t
attune_tensor_nbytes(const attune_tensor *t); /* count times element size, also for a view */
ATTUNE_API bool attune_tensor_is_contiguous(const attune_tensor *t);

/* Views: they share memory with t. view wants a contiguous t (one extent may be -1); slice takes
 * [first, last). */
ATTUNE_API attune_status attune_tensor_view(const attune_tensor *t, int rank, const int64_t *shape,
                                            attune_tensor *out);
ATTUNE_API attune_status attune_tensor_transpose(const attune_tensor *t, int a, int b,
                                                 attune_tensor *out);
ATTUNE_API attune_status attune_tensor_slice(const attune_tensor *t, int axis, int64_t first,
                                             int64_t last, attune_tensor *out);
ATTUNE_API attune_status attune_tensor_select(const attune_tensor *t, int axis, int64_t index,
                                              attune_tensor *out); /* drops the axis */
ATTUNE_API attune_status attune_tensor_expand(const attune_tensor *t, int rank,
                                              const int64_t *shape, attune_tensor *out);

/* Copies. convert rounds to nearest even and keeps NaN; to integers it rounds and saturates (NaN
 * gives 0). */
ATTUNE_API attune_status attune_tensor_convert(const attune_tensor *t, attune_dtype dtype,
                                               attune_tensor *out);
ATTUNE_API attune_status attune_tensor_contiguous(
    const attune_tensor *t, attune_tensor *out); /* shares t where it is contiguous */
ATTUNE_API attune_status attune_tensor_copy(
    const attune_tensor *from, attune_tensor *into); /* same shape, any dtypes, any strides */

/* Single elements, as double or as integer; index is an element's place, rank many. */
ATTUNE_API attune_status attune_tensor_get(const attune_tensor *t, const int64_t *index,
                                           double *out);
ATTUNE_API attune_status attune_tensor_set(attune_tensor *t, const int64_t *index, double value);

ATTUNE_API attune_status attune_tensor_fill(attune_tensor *t, double value);
ATTUNE_API attune_status attune_tensor_arange(attune_tensor *t, double first, double step);
/* Element i of the row-major order draws from Philox counter i under the seed, whatever dtype and
 * strides. */
ATTUNE_API attune_status attune_tensor_normal(attune_tensor *t, uint64_t seed, double mean,
                                              double std);
ATTUNE_API attune_status attune_tensor_uniform(attune_tensor *t, uint64_t seed, double low,
                                               double high);

#define ATTUNE_UNARY_TABLE(X)                                                         \
    X(NEG, "neg")                                                                     \
    X(EXP, "exp") X(LOG, "log") X(SQRT, "sqrt") X(TANH, "tanh") X(SIGMOID, "sigmoid") \
        X(GELU, "gelu") X(SILU, "silu") X(ABS, "abs")
typedef enum attune_unary {
#define X(symbol, name) ATTUNE_##symbol,
    ATTUNE_UNARY_TABLE(X)
#undef X
} attune_unary;
#define ATTUNE_BINARY_TABLE(X) X(ADD, "add") X(SUB, "sub") X(MUL, "mul") X(DIV, "div") X(POW, "pow")
typedef enum attune_binary {
#define X(symbol, name) ATTUNE_##symbol,
    ATTUNE_BINARY_TABLE(X)
#undef X
} attune_binary;
typedef enum attune_reduction { ATTUNE_SUM, ATTUNE_MEAN, ATTUNE_MAX } attune_reduction;

/* Floats stay in their dtype, computed in f32 (f64 in f64); binary broadcasts as NumPy does and
 * wants one dtype. */
ATTUNE_API attune_status attune_tensor_unary(attune_unary op, const attune_tensor *t,
                                             attune_tensor *out);
ATTUNE_API attune_status attune_tensor_binary(attune_binary op, const attune_tensor *a,
                                              const attune_tensor *b, attune_tensor *out);
ATTUNE_API attune_status attune_tensor_binary_scalar(attune_binary op, const attune_tensor *a,
                                                     double b, bool scalar_first,
                                                     attune_tensor *out);
/* Pairwise sums. axis = ATTUNE_ALL_AXES gives shape {}; otherwise the axis is dropped. */
enum { ATTUNE_ALL_AXES = 127 };
ATTUNE_API attune_status attune_tensor_reduce(attune_reduction op, const attune_tensor *t, int axis,
                                              attune_tensor *out);
ATTUNE_API attune_status attune_tensor_softmax(const attune_tensor *t, int axis,
                                               attune_tensor *out); /* a row of -inf gives zeros */
/* a [.., m, k], b [.., k, n] -> [.., m, n]; leading axes broadcast; any strides, without copies for
 * f32 and f64. */
ATTUNE_API attune_status attune_tensor_matmul(const attune_tensor *a, const attune_tensor *b,
                                              attune_tensor *out);

/* ---- attention
 * ---------------------------------------------------------------------------------------------------
 */

typedef enum attune_engine {
    ATTUNE_ENGINE_DEFAULT,   /* tiled; decode for few queries; reference for f64 */
    ATTUNE_ENGINE_REFERENCE, /* in double precision, term by term: what the others are checked
                                against */
    ATTUNE_ENGINE_BLIS, /* the textbook: the whole Sq x Sk score matrix, two matrix products through
                           BLIS */
    ATTUNE_ENGINE_TILED,  /* online softmax over packed tiles; never Sq x Sk */
    ATTUNE_ENGINE_DECODE, /* few queries against many keys, split over the keys */
} attune_engine;

/* Documents packed one after the other into the token axis: a token sees only its own document's.
 * One list for every batch row (rows = 1), or a list a row (rows = B). Each list sums to the number
 * of tokens. */
typedef struct attune_lengths {
    int64_t rows;         /* 0: no packing */
    const int64_t *count; /* [rows] documents of each list */
    const int64_t
        *value; /* [sum of count] tokens of each document, the lists one after the other */
} attune_lengths;

typedef struct attune_position attune_position; /* below */

/* ---- programs: scores and masks as small pieces of code
 * ----------------------------------------------------------- */

/* A program computes one number for a pair of a query and a key, in static single assignment: each
 * instruction names earlier ones. Truth is 1 or 0. Places count from 1, as in Lua: the last query
 * and the last key are the same token. */
typedef enum attune_op {
    ATTUNE_OP_NUMBER,   /* number */
    ATTUNE_OP_SCORE,    /* the score that comes in */
    ATTUNE_OP_BATCH,    /* batch row */
    ATTUNE_OP_HEAD,     /* query head */
    ATTUNE_OP_KV_HEAD,  /* kv head */
    ATTUNE_OP_QUERY,    /* query token */
    ATTUNE_OP_KEY,      /* key token */
    ATTUNE_OP_DISTANCE, /* query token - key token */
    ATTUNE_OP_READ,     /* tensor[a[0], a[1], ..], an integer for each axis, from 1 */
    ATTUNE_OP_ADD,
    ATTUNE_OP_SUB,
    ATTUNE_OP_MUL,
    ATTUNE_OP_DIV,
    ATTUNE_OP_IDIV, /* rounds down */
    ATTUNE_OP_MOD,  /* a - floor(a / b) b */
    ATTUNE_OP_POW,
    ATTUNE_OP_MIN,
    ATTUNE_OP_MAX,
    ATTUNE_OP_LT,
    ATTUNE_OP_LE,
    ATTUNE_OP_EQ,
    ATTUNE_OP_AND,
    ATTUNE_OP_OR,
    ATTUNE_OP_NOT,
    ATTUNE_OP_NEG,
    ATTUNE_OP_ABS,
    ATTUNE_OP_EXP,
    ATTUNE_OP_LOG,
    ATTUNE_OP_SQRT,
    ATTUNE_OP_TANH,
    ATTUNE_OP_SIGMOID,
    ATTUNE_OP_FLOOR,
    ATTUNE_OP_WHERE, /* a[0] ? a[1] : a[2] */
    ATTUNE_OP_COUNT
} attune_op;

typedef struct attune_instruction {
    attune_op op;
    int32_t a[ATTUNE_MAX_RANK]; /* earlier instructions */
    double number;
    int32_t tensor; /* of READ: which of the program's tensors */
    int32_t line;   /* of the source, for messages; 0: unknown */
    bool integer;   /* its values are integers */
} attune_instruction;

/* What a program gives. slope and adjoints serve gradients and may be -1 or none: slope is the
 * derivative of result by SCORE; adjoint n is its derivative by the value of the READ instruction
 * read[n]. */
typedef struct attune_program_outputs {
    int32_t result, slope;
    int32_t reads;
    const int32_t *read, *adjoint;
} attune_program_outputs;

typedef struct attune_program attune_program;

/* The program shares the tensors, whose numbers are read when it runs. name: of errors, as "score".
 * One thread at a time may use a program. EVALUE where an instruction is none. */
ATTUNE_API attune_status attune_program_new(const char *name, const attune_instruction *code,
                                            int32_t count, const attune_tensor *tensors,
                                            int32_t tensor_count,
                                            const attune_program_outputs *outputs,
                                            attune_program **out);
ATTUNE_API void attune_program_close(attune_program *program); /* NULL is fine */

/* Which pairs of B x Hq heads, Sq queries and Sk keys a mask shows. first, last [heads][Sq] and
 * states [heads][ceil(Sq / 64)][ceil(Sk / 64)] belong to the program and stay until it next runs;
 * heads is 1 where the mask is the same for all, else B, Hq or B * Hq. */
typedef struct attune_block_map {
    int64_t heads, row_blocks, key_blocks;
    int64_t pairs, seen; /* of all heads */
    int64_t empty, partial, full;
    const uint8_t *states; /* 0 empty, 1 partial, 2 full */
} attune_block_map;
ATTUNE_API attune_status attune_program_map(attune_program *mask, int64_t B, int64_t Hq, int64_t Hk,
                                            int64_t Sq, int64_t Sk, attune_block_map *out);

/* All zero bytes are the defaults. */
typedef struct attune_attention_options {
    bool causal;    /* the last query is the last key's token; a query sees no later token */
    int64_t window; /* a query sees itself and window - 1 tokens before it (not causal: also after);
                       0: all */
    bool scale_given; /* else 1 / sqrt(D) */
    double scale;     /* any finite number */
    double softcap;   /* c > 0: s becomes c * tanh(s / c); 0: none */
    attune_lengths lengths;
    const attune_tensor
        *sinks; /* [Hq] f32: a logit a head that joins the softmax's denominator; NULL: none */
    attune_program *score; /* what becomes of each score, after softcap; NULL: nothing */
    attune_program *mask;  /* which pairs are seen, beside causal, window and lengths; NULL: all */
    /* Rotary embedding on the way in: q and k are turned as attune_position_rotate does, without
     * copies. An encoding that does not rotate changes nothing. */
    attune_position *rotate;
    const attune_tensor
        *positions; /* of the keys, i64 [Sk] or [B, Sk]; the queries are the last; NULL: 0, 1, .. */
    attune_engine engine;
} attune_attention_options;

/* o = softmax(mask(softcap(scale * q k^T))) v, and lse, the natural logarithm of each row's softmax
 * denominator.
 *
 *   q [B, Hq, Sq, D]   k [B, Hk, Sk, D]   v [B, Hk, Sk, Dv]   ->   o [B, Hq, Sq, Dv] in q's dtype
 * lse [B, Hq, Sq]
 *
 * f32, bf16, f16 or f64, each tensor its own except that f64 goes with f64 only; any strides. lse
 * is f32 (f64 for f64). A row that sees nothing has o = 0 and lse = -inf (with a sink: the sink).
 * options NULL: the defaults. Query head h reads kv head h / G. Errors: ESHAPE, EDTYPE, EVALUE,
 * EENGINE, EMEMORY, EINTERRUPT. */
ATTUNE_API attune_status attune_attention(const attune_tensor *q, const attune_tensor *k,
                                          const attune_tensor *v,
                                          const attune_attention_options *options, attune_tensor *o,
                                          attune_tensor *lse);

/* Gradients of q, k, v and of the sinks, in their dtypes (dsinks in lse's), for the gradient d_o
 * [B, Hq, Sq, Dv] of o, from o and lse as attune_attention gave them with the same options. The
 * scores are computed anew. dsinks may be NULL; it stays closed where there are no sinks. dtables
 * [the score program's tensors] or NULL: gradients of the float tensors that it reads, each like
 * its tensor; closed where there is none. Engines: tiled (the default), and reference, which f64
 * goes to. */
ATTUNE_API attune_status attune_attention_backward(const attune_tensor *d_o, const attune_tensor *q,
                                                   const attune_tensor *k, const attune_tensor *v,
                                                   const attune_tensor *o, const attune_tensor *lse,
                                                   const attune_attention_options *options,
                                                   attune_tensor *dq, attune_tensor *dk,
                                                   attune_tensor *dv, attune_tensor *dsinks,
                                                   attune_tensor *dtables);

/* The probabilities themselves, [B, Hq, Sq, Sk] f32 (f64 for f64). With a sink a row sums to less
 * than one. */
ATTUNE_API attune_status attune_attention_weights(const attune_tensor *q, const attune_tensor *k,
                                                  const attune_attention_options *options,
                                                  attune_tensor *weights);

/* Attention over the union of two disjoint sets of keys, from the results over each.
 *   o1, o2 [B, Hq, Sq, Dv] of one dtype   lse1, lse2 [B, Hq, Sq]   ->   o, lse likewise */
ATTUNE_API attune_status attune_attention_merge(const attune_tensor *o1, const attune_tensor *lse1,
                                                const attune_tensor *o2, const attune_tensor *lse2,
                                                attune_tensor *o, attune_tensor *lse);

/* ---- the key-value cache
 * ----------------------------------------------------------------------------------------- */

typedef struct attune_cache attune_cache;

typedef struct attune_cache_options {
    int64_t batch, kv_heads, head_dim;
    int64_t v_head_dim; /* 0: head_dim */
    int64_t capacity;   /* tokens; with a window it is no limit and may be 0 */
    int64_t window; /* 0: none; else a ring of window + 63 tokens, rounded up to a multiple of 64 */
    attune_dtype
        dtype; /* ATTUNE_F32, ATTUNE_BF16, ATTUNE_F16, or ATTUNE_I8 with a scale a token and head */
} attune_cache_options;

ATTUNE_API attune_status attune_cache_new(const attune_cache_options *options, attune_cache **out);
ATTUNE_API void attune_cache_close(attune_cache *cache); /* NULL is fine */
/* k [B, Hk, S, D], v [B, Hk, S, Dv], any float dtype. counts [B]: how many of the S tokens belong
 * to each batch row; NULL: all. rotate: keys are turned by their places on the way in (they stand
 * at length, length + 1, .. of their batch row); NULL: as they are. ECAPACITY, and any other
 * failure, leaves the cache as it was. */
ATTUNE_API attune_status attune_cache_append(attune_cache *cache, const attune_tensor *k,
                                             const attune_tensor *v, const int64_t *counts,
                                             attune_position *rotate);
/* q [B, Hq, Sq, D]: the last Sq tokens appended (of each batch row) attend to all that the cache
 * holds up to themselves. o [B, Hq, Sq, Dv] in q's dtype, lse [B, Hq, Sq] f32. options: scale,
 * softcap, window, sinks, rotate (of q: the keys were turned when they came), engine (tiled or
 * decode, or the default). */
ATTUNE_API attune_status attune_cache_attend(attune_cache *cache, const attune_tensor *q,
                                             const attune_attention_options *options,
                                             attune_tensor *o, attune_tensor *lse);
/* Keeps the first n tokens of every batch row that has more. EVALUE where a ring no longer holds
 * what would be kept. */
ATTUNE_API attune_status attune_cache_truncate(attune_cache *cache, int64_t n);
ATTUNE_API void attune_cache_reset(attune_cache *cache);
ATTUNE_API int64_t attune_cache_length(
    const attune_cache
        *cache); /* the longest row's tokens ever appended, less what was truncated */
ATTUNE_API int64_t attune_cache_row_length(const attune_cache *cache, int64_t row);
ATTUNE_API int64_t attune_cache_nbytes(const attune_cache *cache); /* what K and V take */
ATTUNE_API attune_span
attune_cache_memory(const attune_cache *cache); /* K and V as they lie, for attune_measure_read */
ATTUNE_API const attune_cache_options *
attune_cache_describe(const attune_cache *cache); /* capacity: the tokens that fit */

/* ---- linear attention
 * -------------------------------------------------------------------------------------------- */

/* Attention without its score matrix: o_i = sum_j phi(q_i) . phi(k_j) v_j / sum_j phi(q_i) .
 * phi(k_j), in time and memory linear in tokens. With w the M rows of the projection, x' = x
 * D^(-1/4), n = |x'|^2 / 2 and c a stabiliser, the features F of one x are
 *
 *   favor   M      e^(w . x' - n - c) + epsilon                            Choromanski et al. 2021
 * (arXiv 2009.14794), lemma 1: positive, softmax's kernel on average trig    2 M    e^(n - c) sin(w
 * . x') + epsilon, then with cosines      the same, equation 5 relu    M      max(w . x', 0) +
 * epsilon                                the same, section 4 elu     D      elu(x) + 1 + epsilon;
 * takes no projection               Katharopoulos et al. 2020 (arXiv 2006.16236), equation 7
 *
 * c is the greatest w . x' of a query, and of all keys of a head (trig: the greatest n). With
 * epsilon 0 it cancels; what is subtracted is then the greatest whole exponent, and of the keys up
 * to the block, so that great scores neither overflow nor vanish. */
typedef enum attune_features {
    ATTUNE_FEATURES_FAVOR,
    ATTUNE_FEATURES_TRIG,
    ATTUNE_FEATURES_RELU,
    ATTUNE_FEATURES_ELU
} attune_features;

typedef struct attune_linear_options {
    bool causal; /* the last query is the last key's token; a query sees no later token */
    attune_features features;
    const attune_tensor *projection; /* [M, D], any float dtype */
    attune_position *rotate; /* turns phi(q) and phi(k) in the numerator only: Su et al. 2021 (arXiv
                                2104.09864), equation 19; its head_dim is F */
    double epsilon;          /* at least 0 */
    int64_t block; /* tokens of a block; 0: what is fastest. Results depend on it in their last bits
                      only */
} attune_linear_options;

/* q [B, Hq, Sq, D]   k [B, Hk, Sk, D]   v [B, Hk, Sk, Dv]   ->   o [B, Hq, Sq, Dv] in q's dtype
 * f32, bf16, f16 (in f32) or all f64; any strides. A query whose denominator is 0 (it sees nothing,
 * or all its features vanish) gives zeros. */
ATTUNE_API attune_status attune_linear_attention(const attune_tensor *q, const attune_tensor *k,
                                                 const attune_tensor *v,
                                                 const attune_linear_options *options,
                                                 attune_tensor *o);
/* Gradients of q, k and v, in f32 blocks, of f64 in f64. The stabiliser is part of the function:
 * with epsilon > 0 gradients pass through it. */
ATTUNE_API attune_status attune_linear_attention_backward(
    const attune_tensor *d_o, const attune_tensor *q, const attune_tensor *k,
    const attune_tensor *v, const attune_linear_options *options, attune_tensor *dq,
    attune_tensor *dk, attune_tensor *dv);

/* [features, head_dim] f32: blocks of head_dim orthogonal rows (the Q of normal values), whose
 * lengths are drawn as those of normal vectors are. */
ATTUNE_API attune_status attune_favor_projection(int64_t head_dim, int64_t features, uint64_t seed,
                                                 attune_tensor *out);
/* x [B, H, S, D] -> [B, H, S, M] in x's dtype: favor's features as above, times M^(-1/2). */
ATTUNE_API attune_status attune_favor_features(const attune_tensor *x,
                                               const attune_tensor *projection, bool query,
                                               double epsilon, attune_tensor *out);

/* What causal linear attention keeps of all tokens before: F rows of Dv sums a kv head, however
 * many tokens. f32. */
typedef struct attune_linear_state attune_linear_state;
typedef struct attune_linear_state_options {
    int64_t batch, kv_heads, head_dim;
    int64_t v_head_dim; /* 0: head_dim */
    attune_features features;
    const attune_tensor *projection;
    attune_position *rotate; /* must outlive the state */
    double epsilon;
} attune_linear_state_options;
ATTUNE_API attune_status attune_linear_state_new(const attune_linear_state_options *options,
                                                 attune_linear_state **out);
ATTUNE_API void attune_linear_state_close(attune_linear_state *state); /* NULL is fine */
/* k [B, Hk, S, D], v [B, Hk, S, Dv], any float dtype. A failure leaves the state as it was. */
ATTUNE_API attune_status attune_linear_state_append(attune_linear_state *state,
                                                    const attune_tensor *k, const attune_tensor *v);
/* q [B, Hq, 1, D], the last token appended -> o [B, Hq, 1, Dv] in q's dtype: the last row of causal
 * attune_linear_attention over all tokens appended. */
ATTUNE_API attune_status attune_linear_state_attend(attune_linear_state *state,
                                                    const attune_tensor *q, attune_tensor *o);
ATTUNE_API void attune_linear_state_reset(attune_linear_state *state);
ATTUNE_API int64_t
attune_linear_state_length(const attune_linear_state *state); /* tokens appended */
ATTUNE_API int64_t attune_linear_state_nbytes(const attune_linear_state *state); /* what it keeps */
ATTUNE_API const attune_linear_state_options *
attune_linear_state_describe(const attune_linear_state *state);

/* ---- position
 * ----------------------------------------------------------------------------------------------------
 */

typedef enum attune_pairing {
    ATTUNE_HALF,        /* dim i turns with dim i + dims / 2: GPT-NeoX, LLaMA, Falcon */
    ATTUNE_INTERLEAVED, /* dim 2 i turns with dim 2 i + 1: RoFormer, GPT-J, PaLM */
} attune_pairing;

/* Whether q or k is rotated: only xpos tells them apart. */
typedef enum attune_side { ATTUNE_QUERY, ATTUNE_KEY } attune_side;

/* The precision in which a rotation's frequencies, angles, cosines and sines are computed; less
 * than f64 shows the damage. */
typedef enum attune_angles {
    ATTUNE_ANGLES_F64,
    ATTUNE_ANGLES_F32,
    ATTUNE_ANGLES_F16
} attune_angles;

typedef enum attune_scaling_type {
    ATTUNE_SCALING_NONE,
    ATTUNE_SCALING_LINEAR,   /* position interpolation: factor */
    ATTUNE_SCALING_NTK,      /* another base: factor */
    ATTUNE_SCALING_DYNAMIC,  /* another base for each length beyond original: factor, original */
    ATTUNE_SCALING_YARN,     /* factor, original, beta_fast, beta_slow, attention_factor, mscale,
                                mscale_all_dim, not_truncated */
    ATTUNE_SCALING_LONGROPE, /* a factor a pair: factor, original, short_factors, long_factors */
    ATTUNE_SCALING_LLAMA3,   /* factor, original, low, high */
} attune_scaling_type;

/* How RoPE goes beyond the length that it was trained at. Zeros are the defaults; factor (and
 * original, but for linear and ntk) must be given. */
typedef struct attune_rope_scaling {
    attune_scaling_type type;
    double factor;
    int64_t original; /* tokens that the model was trained at */
    int64_t
        length; /* dynamic and longrope choose by it; 0: by the largest position + 1 of each call */
    double beta_fast, beta_slow; /* 32, 1 */
    double attention_factor;     /* on cosines and sines; else of mscale, mscale_all_dim, or 0.1 ln
                                    factor + 1 */
    double mscale, mscale_all_dim;
    bool not_truncated; /* yarn's ramp begins and ends between pairs */
    const double *short_factors, *long_factors;
    int64_t short_count, long_count; /* dims / 2 each */
    double low, high;                /* 1, 4 */
} attune_rope_scaling;

/* Rotary embedding (Su et al. 2021, arXiv 2104.09864). All zero but head_dim: the defaults. */
typedef struct attune_rope_options {
    int64_t head_dim;
    int64_t dims; /* how many of head_dim turn, even; 0: all */
    double base;  /* 0: 10000 */
    attune_pairing pairing;
    attune_angles angles;
    attune_rope_scaling scaling;
} attune_rope_options;

/* xPos (Sun et al. 2022, arXiv 2212.10554): RoPE whose q grows and k shrinks with the position, so
 * that scores decay with the distance. */
typedef struct attune_xpos_options {
    int64_t head_dim, dims;
    double base, scale_base; /* 0: 10000, 512 */
    double center;           /* the position of scale 1 */
    attune_pairing pairing;
} attune_xpos_options;

typedef struct attune_t5_options {
    int64_t heads, buckets, max_distance; /* 0: 32 buckets, distance 128 */
    bool causal; /* all buckets for keys before the query; else half of them for keys after it */
    uint64_t seed;
    const attune_tensor
        *table; /* [buckets, heads]: shared, not copied; NULL: normal values times 0.02 */
} attune_t5_options;

ATTUNE_API attune_status attune_position_none(attune_position **out);
ATTUNE_API attune_status attune_position_rope(const attune_rope_options *options,
                                              attune_position **out);
/* A table [max_positions, d_model] of normal values times 0.02, or the one given (shared, not
 * copied); d_model and max_positions are then 0, or must be its. */
ATTUNE_API attune_status attune_position_learned(int64_t d_model, int64_t max_positions,
                                                 uint64_t seed, const attune_tensor *table,
                                                 attune_position **out);
/* Vaswani et al. 2017, section 3.5. halves: all sines, then all cosines; else interleaved. base 0:
 * 10000. */
ATTUNE_API attune_status attune_position_sinusoidal(int64_t d_model, double base, bool halves,
                                                    attune_position **out);
/* Heads whose first half of the dims turns by a token's row, the second half by its column, each as
 * RoPE of head_dim / 2 dims. base 0: 10000. */
ATTUNE_API attune_status attune_position_rope2d(int64_t head_dim, double base,
                                                attune_pairing pairing, attune_position **out);
ATTUNE_API attune_status attune_position_xpos(const attune_xpos_options *options,
                                              attune_position **out);
/* Slopes of Press et al. 2022 (arXiv 2108.12409) for any number of heads. max_bias 0: 8. */
ATTUNE_API attune_status attune_position_alibi(int64_t heads, double max_bias,
                                               attune_position **out);
/* Relative buckets of Raffel et al. 2020 (arXiv 1910.10683). */
ATTUNE_API attune_status attune_position_t5(const attune_t5_options *options,
                                            attune_position **out);
ATTUNE_API void attune_position_close(attune_position *pe);
ATTUNE_API const char *attune_position_name(const attune_position *pe);

/* positions: i64 [S] or [B, S]; NULL: 0, 1, .. S - 1. rope2d: [S, 2] or [B, S, 2] of rows and
 * columns, never NULL. embed: x [B, S, d_model] -> x plus the table's rows. rotate: x [B, H, S, D]
 * -> the same, turned. Out of place; any strides; out has x's dtype. An encoding without that part
 * shares x. in_place: x itself is written and out may be NULL. */
ATTUNE_API attune_status attune_position_embed(attune_position *pe, const attune_tensor *x,
                                               const attune_tensor *positions, attune_tensor *out);
ATTUNE_API attune_status attune_position_rotate(attune_position *pe, const attune_tensor *x,
                                                const attune_tensor *positions, attune_side side,
                                                attune_tensor *out);
ATTUNE_API attune_status attune_position_rotate_in_place(attune_position *pe, attune_tensor *x,
                                                         const attune_tensor *positions,
                                                         attune_side side);
/* The transpose of rotate, which gradients go through. */
ATTUNE_API attune_status attune_position_rotate_backward(attune_position *pe,
                                                         const attune_tensor *d_out,
                                                         const attune_tensor *positions,
                                                         attune_side side, attune_tensor *dx);
/* learned: the table's gradient [max_positions, d_model] for d_out [B, S, d_model], the tokens of a
 * position summed in their order. */
ATTUNE_API attune_status attune_position_embed_backward(attune_position *pe,
                                                        const attune_tensor *d_out,
                                                        const attune_tensor *positions,
                                                        attune_tensor *dtable);

/* What an encoding consists of. What rotates: inv_freq [dims / 2] f64 (dynamic, longrope: at
 * scaling.length, or of short calls) and the factor on cos and sin. learned, t5: the table. alibi:
 * the slopes [heads]. t5: the bucket, from 0, of key position - query position. sided: q and k turn
 * differently. */
ATTUNE_API attune_status attune_position_inv_freq(const attune_position *pe, attune_tensor *out);
ATTUNE_API double attune_position_factor(const attune_position *pe);
ATTUNE_API attune_status attune_position_table(const attune_position *pe, attune_tensor *out);
ATTUNE_API attune_status attune_position_slopes(const attune_position *pe, attune_tensor *out);
ATTUNE_API attune_status attune_position_bucket(const attune_position *pe, int64_t relative,
                                                int64_t *out);
ATTUNE_API void attune_position_distances(const attune_position *pe, int64_t *max_distance,
                                          bool *bidirectional); /* of t5; else 0 and false */
ATTUNE_API bool attune_position_sided(const attune_position *pe);

/* ---- what stands around attention
 * --------------------------------------------------------------------------------- */

/* Each forward beside its gradients. Float tensors of any strides; f32 and f64 are computed as
 * such, bf16 and f16 in f32. Results are new. Rows are the last axis, n long. Sums over rows are
 * taken in an order that the shape alone fixes. */

/* y = x rstd weight, rstd = 1 / sqrt(mean(x^2) + eps): x, y [.., n]   weight [n] or NULL   rstd
 * [..] (Zhang and Sennrich 2019). */
ATTUNE_API attune_status attune_rms_norm(const attune_tensor *x, const attune_tensor *weight,
                                         double eps, attune_tensor *y, attune_tensor *rstd);
ATTUNE_API attune_status attune_rms_norm_backward(const attune_tensor *dy, const attune_tensor *x,
                                                  const attune_tensor *weight,
                                                  const attune_tensor *rstd, attune_tensor *dx,
                                                  attune_tensor *dweight);
/* y = (x - mean) rstd weight + bias: weight, bias [n] or NULL   mean, rstd [..] (Ba et al. 2016).
 * dweight and dbias may be NULL. */
ATTUNE_API attune_status attune_layer_norm(const attune_tensor *x, const attune_tensor *weight,
                                           const attune_tensor *bias, double eps, attune_tensor *y,
                                           attune_tensor *mean, attune_tensor *rstd);
ATTUNE_API attune_status attune_layer_norm_backward(const attune_tensor *dy, const attune_tensor *x,
                                                    const attune_tensor *weight,
                                                    const attune_tensor *mean,
                                                    const attune_tensor *rstd, attune_tensor *dx,
                                                    attune_tensor *dweight, attune_tensor *dbias);
/* x times the normal distribution's probability of x, or its approximation with tanh (Hendrycks and
 * Gimpel 2016). */
ATTUNE_API attune_status attune_gelu(const attune_tensor *x, bool with_tanh, attune_tensor *y);
ATTUNE_API attune_status attune_gelu_backward(const attune_tensor *dy, const attune_tensor *x,
                                              bool with_tanh, attune_tensor *dx);
/* gate sigmoid(gate) up (Shazeer 2020). */
ATTUNE_API attune_status attune_swiglu(const attune_tensor *gate, const attune_tensor *up,
                                       attune_tensor *y);
ATTUNE_API attune_status attune_swiglu_backward(const attune_tensor *dy, const attune_tensor *gate,
                                                const attune_tensor *up, attune_tensor *dgate,
                                                attune_tensor *dup);
/* The mean of -log softmax(logits)[target] over the tokens whose target is not `ignore`: logits
 * [.., n]   targets i64 [..]   lse [..]; 0 where no token counts. */
ATTUNE_API attune_status attune_cross_entropy(const attune_tensor *logits,
                                              const attune_tensor *targets, int64_t ignore,
                                              double *loss, attune_tensor *lse);
ATTUNE_API attune_status attune_cross_entropy_backward(double dloss, const attune_tensor *logits,
                                                       const attune_tensor *targets, int64_t ignore,
                                                       const attune_tensor *lse,
                                                       attune_tensor *dlogits);
/* table [vocabulary, n], ids i64 [..] -> [.., n] */
ATTUNE_API attune_status attune_embedding(const attune_tensor *table, const attune_tensor *ids,
                                          attune_tensor *out);
ATTUNE_API attune_status attune_embedding_backward(const attune_tensor *d_out,
                                                   const attune_tensor *ids, int64_t vocabulary,
                                                   attune_tensor *dtable);

typedef struct attune_adamw_options {
    double lr, beta1, beta2, eps, weight_decay;
    int64_t step; /* from 1 */
} attune_adamw_options;
/* One step in place: p, m (first moment), v (second moment), all of one shape, contiguous, f32 or
 * f64; g any float (Loshchilov and Hutter 2019). */
ATTUNE_API attune_status attune_adamw(const attune_adamw_options *options, attune_tensor *p,
                                      const attune_tensor *g, attune_tensor *m, attune_tensor *v);

/* ---- files
 * -------------------------------------------------------------------------------------------------------
 */

/* safetensors. Names and metadata in the file's own order. */
typedef struct attune_named_tensor {
    char *name;
    attune_tensor tensor;
} attune_named_tensor;
typedef struct attune_text_pair {
    char *key, *value;
} attune_text_pair;
typedef struct attune_archive {
    int64_t tensors, texts;
    attune_named_tensor *tensor;
    attune_text_pair *text;
} attune_archive;
/* EIO: attune_system_error() is errno. EFORMAT: what is wrong, and where. */
ATTUNE_API attune_status attune_archive_load(const char *path, attune_archive *out);
ATTUNE_API attune_status attune_archive_save(
    const char *path, const attune_archive *archive); /* to a temporary name, then renamed */
ATTUNE_API void attune_archive_close(attune_archive *archive);
ATTUNE_API int attune_system_error(void);

/* ---- the machine
 * -------------------------------------------------------------------------------------------------
 */

typedef struct attune_machine_info {
    char cpu[64];             /* the model's name */
    int cores;                /* that this process may use */
    int64_t l1, l2, l3;       /* bytes of a core's data cache and of the last level; 0: unknown */
    int64_t memory;           /* bytes of RAM, or the cgroup's limit where that is less */
    const char *isa;          /* in use */
    int isas;                 /* how many run here */
    const char *isa_names[8]; /* worst first */
    char features[256];       /* what attune asks for, as /proc/cpuinfo spells it */
} attune_machine_info;
ATTUNE_API attune_status attune_machine(attune_machine_info *out);

/* Measured now, by all threads together; each takes about the seconds given. */
typedef enum attune_arithmetic {
    ATTUNE_MULTIPLY_ADD_F32,
    ATTUNE_DOT_BF16,
    ATTUNE_DOT_I8
} attune_arithmetic;
/* Operations a second of the set in use: 2 a multiplication and addition. 0 where the set has no
 * such instruction. */
ATTUNE_API attune_status attune_measure_peak(double seconds, attune_arithmetic arithmetic,
                                             double *operations);
ATTUNE_API attune_status attune_measure_bandwidth(
    double seconds, int64_t bytes,
    double *bytes_per_second); /* reading that many bytes; 0: four times L3, at least 256 MiB */
ATTUNE_API attune_status
attune_measure_read(double seconds, const attune_span *spans, int count,
                    double *bytes_per_second); /* the same, over memory of the caller's */
/* BLIS's own sgemm, n cubed, with its own threads: the usual yardstick. FLOP/s. */
ATTUNE_API attune_status attune_measure_sgemm(double seconds, int64_t n, double *flops);

#ifdef __cplusplus
}
#endif
#endif
