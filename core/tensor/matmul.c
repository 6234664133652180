/* matmul.c - matrix products, any strides, batched: f32 by tensor/product.h, f64 by BLIS.
 *
 * Each task is a block of rows or of columns of one product, which is multiplied on one thread. The
 * shape alone decides the blocks, so the bits do not depend on the number of threads.
 */
#include <string.h>

#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"
#include "tensor/gemm.h"
#include "tensor/product.h"
#include "tensor/tensor.h"

/* The max number of operations per task: about 90 ms of one core at 100 GFLOP/s. */
static const double MAX_WORK = 9e9;
enum { GRAIN = 32 }; /* blocks have a multiple of this many rows or columns */

typedef struct matmul_job {
    attune_tensor a, b, c;                   /* of one rank; leading axes are expanded */
    int64_t m, n, k, batches, blocks, block; /* block: rows or columns per block */
    bool by_rows;
} matmul_job;

static attune_status multiply(void *context, int64_t task, int thread) {
    matmul_job *j = context;
    (void)thread;
    const int r = j->c.rank;
    int64_t batch = task / j->blocks, begin = task % j->blocks * j->block, offset[3] = {0, 0, 0};
    const attune_tensor *t[3] = {&j->a, &j->b, &j->c};
    for (int i = r - 3; i >= 0; i--) {
        int64_t index = batch % j->c.shape[i];
        batch /= j->c.shape[i];
        for (int x = 0; x < 3; x++) offset[x] += index * t[x]->stride[i];
    }
    int64_t m = j->m, n = j->n;
    if (j->by_rows) {
        m = m - begin < j->block ? m - begin : j->block;
        offset[0] += begin * j->a.stride[r - 2];
        offset[2] += begin * j->c.stride[r - 2];
    } else {
        n = n - begin < j->block ? n - begin : j->block;
        offset[1] += begin * j->b.stride[r - 1];
        offset[2] += begin * j->c.stride[r - 1];
    }
    const int64_t *as = j->a.stride + r - 2, *bs = j->b.stride + r - 2, *cs = j->c.stride + r - 2;
    if (j->c.dtype == ATTUNE_F64) {
        at_gemm_f64(m, n, j->k, 1, (const double *)j->a.data + offset[0], as[0], as[1],
                    (const double *)j->b.data + offset[1], bs[0], bs[1], 0,
                    (double *)j->c.data + offset[2], cs[0], cs[1]);
    } else {
        const at_f32_product p = {.m = m,
                                  .n = n,
                                  .k = j->k,
                                  .a = (const float *)j->a.data + offset[0],
                                  .a_row = as[0],
                                  .a_column = as[1],
                                  .b = (const float *)j->b.data + offset[1],
                                  .b_row = bs[0],
                                  .b_column = bs[1],
                                  .c = (float *)j->c.data + offset[2],
                                  .c_row = cs[0]};
        return at_multiply_f32(&p);
    }
    return ATTUNE_OK;
}

static attune_status run(matmul_job *j) {
    /* The blocks depend on the shape and on the cores of the machine, not on the number of threads:
     * BLIS chooses its kernels by size, and they differ in the last bits. Each block packs the
     * other operand again, so there are no more blocks than cores, unless a task would then run too
     * long to be interrupted. */
    j->by_rows = j->m >= j->n;
    const int64_t length = j->by_rows ? j->m : j->n;
    const double work = 2.0 * (double)j->m * (double)j->n * (double)j->k;
    int64_t blocks = work < 1e7 ? 1 : at_cores();
    if (work / (double)blocks > MAX_WORK) blocks = (int64_t)(work / MAX_WORK) + 1;
    j->block = at_ceil_div(length, blocks);
    j->block = at_round_up(j->block, GRAIN);
    j->blocks = at_ceil_div(length, j->block);
    return at_parallel(j->batches * j->blocks, multiply, j);
}

/* f32 and f64 tensors without a copy; other dtypes as new f32 tensors. */
static attune_status in_product_dtype(const attune_tensor *t, attune_tensor *out) {
    return t->dtype == ATTUNE_F32 || t->dtype == ATTUNE_F64
               ? attune_tensor_share(t, out)
               : attune_tensor_convert(t, ATTUNE_F32, out);
}

static attune_status check(const attune_tensor *a, const attune_tensor *b, int *rank,
                           int64_t *shape) {
    AT_TRY(at_check_open("a", a));
    AT_TRY(at_check_open("b", b));
    const attune_tensor *t[2] = {a, b};
    for (int i = 0; i < 2; i++) {
        if (t[i]->rank < 2)
            return at_fail(ATTUNE_ESHAPE, "%s: expected at least 2 axes, got %s", i ? "b" : "a",
                           at_shape_text(t[i]->rank, t[i]->shape));
        attune_dtype d = t[i]->dtype;
        if (at_is_integer(d))
            return at_fail(ATTUNE_EDTYPE, "%s: expected a float dtype, got %s", i ? "b" : "a",
                           attune_dtype_name(d));
    }
    if (a->dtype != b->dtype)
        return at_fail(ATTUNE_EDTYPE, "b: expected %s, as a, got %s", attune_dtype_name(a->dtype),
                       attune_dtype_name(b->dtype));
    const int64_t k = a->shape[a->rank - 1];
    if (b->shape[b->rank - 2] != k) {
        return at_fail(ATTUNE_ESHAPE, "b: expected [.., %lld, columns] to go with a %s, got %s",
                       (long long)k, at_shape_text(a->rank, a->shape),
                       at_shape_text(b->rank, b->shape));
    }
    *rank = a->rank > b->rank ? a->rank : b->rank;
    for (int i = 3; i <= *rank; i++) {
        int64_t x = i <= a->rank ? a->shape[a->rank - i] : 1,
                y = i <= b->rank ? b->shape[b->rank - i] : 1;
        if (x != y && x != 1 && y != 1) {
            return at_fail(ATTUNE_ESHAPE,
                           "b: expected leading axes that broadcast with a %s, got %s",
                           at_shape_text(a->rank, a->shape), at_shape_text(b->rank, b->shape));
        }
        shape[*rank - i] = x > y ? x : y;
    }
    shape[*rank - 2] = a->shape[a->rank - 2];
    shape[*rank - 1] = b->shape[b->rank - 1];
    return ATTUNE_OK;
}

attune_status attune_tensor_matmul(const attune_tensor *a, const attune_tensor *b,
                                   attune_tensor *out) {
    attune_tensor x = *a, y = *b, left = {0}, right = {0};
    int64_t shape[ATTUNE_MAX_RANK] = {0}, from[ATTUNE_MAX_RANK];
    int rank = 0;
    memset(out, 0, sizeof *out);
    AT_TRY(attune_init());
    AT_TRY(check(&x, &y, &rank, shape));
    matmul_job j = {
        .m = shape[rank - 2], .n = shape[rank - 1], .k = x.shape[x.rank - 1], .batches = 1};
    for (int i = 0; i < rank - 2; i++) j.batches *= shape[i];
    attune_status status = in_product_dtype(&x, &left);
    if (status == ATTUNE_OK) status = in_product_dtype(&y, &right);
    memcpy(from, shape, sizeof from);
    from[rank - 1] = j.k;
    if (status == ATTUNE_OK) status = attune_tensor_expand(&left, rank, from, &j.a);
    from[rank - 2] = j.k;
    from[rank - 1] = j.n;
    if (status == ATTUNE_OK) status = attune_tensor_expand(&right, rank, from, &j.b);
    if (status == ATTUNE_OK) status = at_tensor_new(left.dtype, rank, shape, &j.c);
    if (status == ATTUNE_OK) status = run(&j);
    if (status == ATTUNE_OK)
        status = x.dtype == j.c.dtype ? attune_tensor_share(&j.c, out)
                                      : attune_tensor_convert(&j.c, x.dtype, out);
    attune_tensor *all[] = {&left, &right, &j.a, &j.b, &j.c};
    for (int i = 0; i < 5; i++) attune_tensor_close(all[i]);
    return status;
}
