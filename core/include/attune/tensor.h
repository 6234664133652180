/* attune/tensor.h - tensors: dtypes, views, elementwise operations, reductions, products. */
#ifndef ATTUNE_TENSOR_H
#define ATTUNE_TENSOR_H

#include "attune/status.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { ATTUNE_MAX_RANK = 6 };

/* X(symbol, name, bytes per element) */
#define ATTUNE_DTYPE_TABLE(X) \
    X(F32, "f32", 4)          \
    X(F64, "f64", 8)          \
    X(BF16, "bf16", 2) X(F16, "f16", 2) X(I8, "i8", 1) X(I32, "i32", 4) X(I64, "i64", 8)

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

/* A range of memory. */
typedef struct attune_span {
    const void *data;
    int64_t bytes;
} attune_span;

typedef struct attune_buffer attune_buffer; /* reference-counted storage */

/* A view of a buffer. A plain copy of the struct is not an owner: attune_tensor_share() makes one.
 */
typedef struct attune_tensor {
    attune_buffer *buffer; /* NULL: closed, or the caller's memory (attune_tensor_wrap) */
    void *data;            /* the first element of the view; NULL: closed */
    attune_dtype dtype;
    int rank;                        /* 0 .. ATTUNE_MAX_RANK; only reductions make rank 0 */
    int64_t shape[ATTUNE_MAX_RANK];  /* each at least 1 */
    int64_t stride[ATTUNE_MAX_RANK]; /* in elements; 0 where broadcast */
} attune_tensor;

/* In all functions axes count from 0, and negative axes from the end: -1 is the last. A result
 * `out` is closed after an error; after success the caller closes it. out may be an argument of the
 * same call only where its comment says so. Errors, where a comment names no others: ECLOSED,
 * ESHAPE, EDTYPE, EVALUE for axes, indices and numbers out of range, EMEMORY, EINTERRUPT. */

/* A new tensor of zeros. Errors: ESHAPE, EDTYPE, EMEMORY. */
ATTUNE_API attune_status attune_tensor_new(attune_dtype dtype, int rank, const int64_t *shape,
                                           attune_tensor *out);
/* A tensor over the caller's memory, which must stay alive until every view of it is closed. stride
 * [rank] in elements; NULL: contiguous. */
ATTUNE_API attune_status attune_tensor_wrap(attune_dtype dtype, int rank, const int64_t *shape,
                                            const int64_t *stride, void *data, attune_tensor *out);
/* Another owner of the same view. */
ATTUNE_API attune_status attune_tensor_share(const attune_tensor *t, attune_tensor *out);
/* Closing a closed tensor does nothing. The memory is freed with its last owner. */
ATTUNE_API void attune_tensor_close(attune_tensor *t);
/* The number of elements, and that times the size of one, also for a view. */
ATTUNE_API int64_t attune_tensor_count(const attune_tensor *t);
ATTUNE_API int64_t attune_tensor_nbytes(const attune_tensor *t);
ATTUNE_API bool attune_tensor_is_contiguous(const attune_tensor *t);
/* The memory that a view looks into. Zeros for memory of the caller. */
typedef struct attune_storage {
    int64_t bytes;
    int64_t owners;  /* tensors that share it */
    int64_t version; /* counts the writes in place, by functions of this library */
} attune_storage;
ATTUNE_API attune_storage attune_tensor_storage(const attune_tensor *t);

/* Views of the same memory. view requires a contiguous t; one extent may be -1 and follows from the
 * others. transpose swaps two axes. slice keeps the indices first <= i < last. select keeps one
 * index and drops the axis. expand repeats axes of extent 1, and adds axes in front, without a
 * copy. */
ATTUNE_API attune_status attune_tensor_view(const attune_tensor *t, int rank, const int64_t *shape,
                                            attune_tensor *out);
ATTUNE_API attune_status attune_tensor_transpose(const attune_tensor *t, int a, int b,
                                                 attune_tensor *out);
ATTUNE_API attune_status attune_tensor_slice(const attune_tensor *t, int axis, int64_t first,
                                             int64_t last, attune_tensor *out);
ATTUNE_API attune_status attune_tensor_select(const attune_tensor *t, int axis, int64_t index,
                                              attune_tensor *out);
ATTUNE_API attune_status attune_tensor_expand(const attune_tensor *t, int rank,
                                              const int64_t *shape, attune_tensor *out);

/* Copies. convert rounds to nearest even and keeps NaN; to integers it rounds and saturates, and
 * NaN gives 0. contiguous shares t where t is contiguous already. copy writes into an open tensor
 * of the same shape, of any dtype and strides, which may share memory with `from`. */
ATTUNE_API attune_status attune_tensor_convert(const attune_tensor *t, attune_dtype dtype,
                                               attune_tensor *out);
ATTUNE_API attune_status attune_tensor_contiguous(const attune_tensor *t, attune_tensor *out);
ATTUNE_API attune_status attune_tensor_copy(const attune_tensor *from, attune_tensor *into);

/* Single elements; index has one index per axis, from 0. EVALUE: index out of range. */
ATTUNE_API attune_status attune_tensor_get(const attune_tensor *t, const int64_t *index,
                                           double *out);
ATTUNE_API attune_status attune_tensor_set(attune_tensor *t, const int64_t *index, double value);

/* Write every element of t in place, in any dtype and strides: one value; first, first + step, ..;
 * normal values; uniform values in [low, high). Element i of the row-major order draws from Philox
 * counter i under the seed. */
ATTUNE_API attune_status attune_tensor_fill(attune_tensor *t, double value);
ATTUNE_API attune_status attune_tensor_arange(attune_tensor *t, double first, double step);
ATTUNE_API attune_status attune_tensor_normal(attune_tensor *t, uint64_t seed, double mean,
                                              double std);
ATTUNE_API attune_status attune_tensor_uniform(attune_tensor *t, uint64_t seed, double low,
                                               double high);

#define ATTUNE_UNARY_TABLE(X) \
    X(NEG, "neg")             \
    X(EXP, "exp")             \
    X(LOG, "log")             \
    X(SQRT, "sqrt")           \
    X(TANH, "tanh")           \
    X(SIGMOID, "sigmoid")     \
    X(GELU, "gelu")           \
    X(SILU, "silu") X(ABS, "abs") X(RELU, "relu") X(GELU_TANH, "gelu_tanh")
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
typedef enum attune_reduction { ATTUNE_SUM, ATTUNE_MEAN, ATTUNE_MAX, ATTUNE_MIN } attune_reduction;
#define ATTUNE_COMPARISON_TABLE(X) \
    X(LT, "lt") X(LE, "le") X(GT, "gt") X(GE, "ge") X(EQ, "eq") X(NE, "ne")
typedef enum attune_comparison {
#define X(symbol, name) ATTUNE_##symbol,
    ATTUNE_COMPARISON_TABLE(X)
#undef X
} attune_comparison;

/* Elementwise operations. Results have the dtype of the arguments and are computed in f32, or in
 * f64 for f64. binary broadcasts like NumPy and requires two tensors of one dtype. */
ATTUNE_API attune_status attune_tensor_unary(attune_unary op, const attune_tensor *t,
                                             attune_tensor *out);
ATTUNE_API attune_status attune_tensor_binary(attune_binary op, const attune_tensor *a,
                                              const attune_tensor *b, attune_tensor *out);
ATTUNE_API attune_status attune_tensor_binary_scalar(attune_binary op, const attune_tensor *a,
                                                     double b, bool scalar_first,
                                                     attune_tensor *out);
/* 1 where the comparison holds, else 0, in i8. Broadcasts; dtypes are equal, or one tensor has rank
 * 0. NaN equals nothing. */
ATTUNE_API attune_status attune_tensor_compare(attune_comparison op, const attune_tensor *a,
                                               const attune_tensor *b, attune_tensor *out);
/* a where the condition (any dtype) is not 0, else b: a and b of one dtype; all broadcast. */
ATTUNE_API attune_status attune_tensor_where(const attune_tensor *condition, const attune_tensor *a,
                                             const attune_tensor *b, attune_tensor *out);

/* cat joins tensors along an axis, in which alone they may differ. stack joins tensors of one shape
 * along a new axis. */
ATTUNE_API attune_status attune_tensor_cat(const attune_tensor *const *tensors, int64_t count,
                                           int axis, attune_tensor *out);
ATTUNE_API attune_status attune_tensor_stack(const attune_tensor *const *tensors, int64_t count,
                                             int axis, attune_tensor *out);
/* indices are i64, from 0. take: [n], the wanted indices of the axis. gather: one index for each
 * element of the result; extents along other axes are at most those of t. */
ATTUNE_API attune_status attune_tensor_take(const attune_tensor *t, const attune_tensor *indices,
                                            int axis, attune_tensor *out);
ATTUNE_API attune_status attune_tensor_gather(const attune_tensor *t, int axis,
                                              const attune_tensor *indices, attune_tensor *out);
/* The index of the max or the min along an axis, which is dropped, or in the row-major order of all
 * elements (ATTUNE_ALL_AXES): i64, the first of equals; NaN counts as max and as min. */
ATTUNE_API attune_status attune_tensor_arg(attune_reduction op, const attune_tensor *t, int axis,
                                           attune_tensor *out);
/* The k largest elements along an axis, in descending order, and their indices, i64. */
ATTUNE_API attune_status attune_tensor_topk(const attune_tensor *t, int64_t k, int axis,
                                            attune_tensor *values, attune_tensor *indices);
/* The sums of all elements up to each; reverse: from each to the last. Summed in double. */
ATTUNE_API attune_status attune_tensor_cumsum(const attune_tensor *t, int axis, bool reverse,
                                              attune_tensor *out);

/* Sum, mean, max or min along one axis, which is dropped, or over all elements (ATTUNE_ALL_AXES),
 * which gives rank 0. Sums are pairwise. */
enum { ATTUNE_ALL_AXES = 127 };
ATTUNE_API attune_status attune_tensor_reduce(attune_reduction op, const attune_tensor *t, int axis,
                                              attune_tensor *out);
/* A row of -inf alone gives zeros. */
ATTUNE_API attune_status attune_tensor_softmax(const attune_tensor *t, int axis,
                                               attune_tensor *out);
/* a [.., m, k], b [.., k, n] -> [.., m, n]; leading axes broadcast; any strides, without copies for
 * f32 and f64. */
ATTUNE_API attune_status attune_tensor_matmul(const attune_tensor *a, const attune_tensor *b,
                                              attune_tensor *out);

#ifdef __cplusplus
}
#endif

#endif
