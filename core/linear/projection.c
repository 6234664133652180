/* projection.c - orthogonal random projections, and the FAVOR+ features as a tensor. */
#include <math.h>
#include <string.h>

#include "base/dtype.h"
#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"
#include "linear/linear_problem.h"
#include "tensor/tensor.h"

/* Makes the rows of a [n, n] orthonormal, in their order, by two passes of Gram-Schmidt, which is
 * as accurate as Householder reflections (Giraud et al. 2005). If the elements are normal values,
 * the result is uniform over the orthogonal matrices, because the R of this QR decomposition has a
 * positive diagonal (Mezzadri 2007). */
static void orthonormal(double *a, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        double *x = a + i * n, length = 0;
        for (int64_t pass = 0; pass < 2 * i; pass++) {
            const double *y = a + pass % i * n;
            double dot = 0;
            for (int64_t d = 0; d < n; d++) dot += x[d] * y[d];
            for (int64_t d = 0; d < n; d++) x[d] -= dot * y[d];
        }
        for (int64_t d = 0; d < n; d++) length += x[d] * x[d];
        for (int64_t d = 0; d < n; d++) x[d] /= sqrt(length);
    }
}

typedef struct projection_job {
    int64_t head_dim, features;
    attune_tensor blocks; /* [blocks, head_dim, head_dim] normal values */
    const attune_tensor *lengths, *out;
} projection_job;

static attune_status block_task(void *context, int64_t task, int thread) {
    projection_job *j = context;
    const int64_t n = j->head_dim;
    double *block = (double *)j->blocks.data + task * n * n;
    const double *lengths = j->lengths->data;
    (void)thread;
    orthonormal(block, n);
    for (int64_t i = 0; i < n && task * n + i < j->features; i++) {
        const int64_t row = task * n + i;
        double square = 0;
        for (int64_t d = 0; d < n; d++) square += lengths[row * n + d] * lengths[row * n + d];
        for (int64_t d = 0; d < n; d++)
            ((float *)j->out->data)[row * n + d] = (float)(block[i * n + d] * sqrt(square));
    }
    return ATTUNE_OK;
}

attune_status attune_favor_projection(int64_t head_dim, int64_t features, uint64_t seed,
                                      attune_tensor *out) {
    memset(out, 0, sizeof *out);
    AT_TRY(attune_init());
    if (head_dim < 1 || head_dim > 1 << 14)
        return at_fail(ATTUNE_EVALUE, "head_dim: expected from 1 to 16384, got %lld",
                       (long long)head_dim);
    if (features < 1 || features > 1 << 24)
        return at_fail(ATTUNE_EVALUE, "features: expected from 1 to 2^24, got %lld",
                       (long long)features);
    const int64_t blocks = at_ceil_div(features, head_dim), cubes[3] = {blocks, head_dim, head_dim},
                  shape[2] = {features, head_dim};
    /* Other streams of random numbers than attune_tensor_normal of the same seed uses: queries and
     * keys that a caller draws with this seed must not be correlated with the projection. */
    attune_tensor lengths = {0};
    projection_job j = {
        .head_dim = head_dim, .features = features, .lengths = &lengths, .out = out};
    attune_status status = attune_tensor_new(ATTUNE_F64, 3, cubes, &j.blocks);
    if (status == ATTUNE_OK)
        status = attune_tensor_normal(&j.blocks, seed ^ 0xd1b54a32d192ed03u, 0, 1);
    if (status == ATTUNE_OK) status = attune_tensor_new(ATTUNE_F64, 2, shape, &lengths);
    if (status == ATTUNE_OK)
        status = attune_tensor_normal(&lengths, seed ^ 0x9e3779b97f4a7c15u, 0, 1);
    if (status == ATTUNE_OK) status = at_tensor_new(ATTUNE_F32, 2, shape, out);
    if (status == ATTUNE_OK) status = at_parallel(blocks, block_task, &j);
    attune_tensor_close(&j.blocks);
    attune_tensor_close(&lengths);
    if (status != ATTUNE_OK) attune_tensor_close(out);
    return status;
}

/* ---- features -------------------------------------------------------------------------------- */

typedef struct features_job {
    const attune_tensor *x, *projection, *out;
    int64_t D, M;
    bool query;
    double epsilon;
    double *max_exponent; /* [B * H] of all keys of a head; unused for queries */
    double *scratch;      /* [threads][D + M] */
} features_job;

static double dot(const double *a, const double *b, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

/* Computes w . x' [M] and x [D] of a token. Returns the max of w . x'. */
static double exponents(const features_job *j, int64_t b, int64_t h, int64_t s, double *x,
                        double *e) {
    const int64_t *stride = j->x->stride;
    double best = -INFINITY;
    at_load_row_f64(j->x, b * stride[0] + h * stride[1] + s * stride[2], stride[3], j->D, x);
    for (int64_t m = 0; m < j->M; m++) {
        e[m] = dot((const double *)j->projection->data + m * j->D, x, j->D);
        best = e[m] > best ? e[m] : best;
    }
    return best;
}

static attune_status max_task(void *context, int64_t head, int thread) {
    features_job *j = context;
    const int64_t *n = j->x->shape;
    double *x = j->scratch + thread * (j->D + j->M);
    j->max_exponent[head] = -INFINITY;
    for (int64_t s = 0; s < n[2]; s++)
        j->max_exponent[head] =
            fmax(j->max_exponent[head], exponents(j, head / n[1], head % n[1], s, x, x + j->D));
    return ATTUNE_OK;
}

static attune_status features_task(void *context, int64_t task, int thread) {
    features_job *j = context;
    const int64_t *n = j->x->shape, head = task / n[2];
    double *x = j->scratch + thread * (j->D + j->M), *e = x + j->D;
    const double own = exponents(j, head / n[1], head % n[1], task % n[2], x, e),
                 ratio = 1 / sqrt((double)j->M);
    const double shift =
        dot(x, x, j->D) / 2 / sqrt((double)j->D) + (j->query ? own : j->max_exponent[head]);
    for (int64_t m = 0; m < j->M; m++) e[m] = ratio * (exp(e[m] - shift) + j->epsilon);
    at_store_row_f64(j->out, task * j->M, 1, j->M, e);
    return ATTUNE_OK;
}

attune_status attune_favor_features(const attune_tensor *x, const attune_tensor *projection,
                                    bool query, double epsilon, attune_tensor *out) {
    const attune_tensor from = *x;
    attune_tensor w;
    int64_t M, F;
    memset(out, 0, sizeof *out);
    AT_TRY(attune_init());
    AT_TRY(at_check_open("x", &from));
    if (from.rank != 4)
        return at_fail(ATTUNE_ESHAPE, "x: expected [batch, heads, tokens, head_dim], got %s",
                       at_shape_text(from.rank, from.shape));
    if (!at_is_float(from.dtype))
        return at_fail(ATTUNE_EDTYPE, "x: expected a float dtype, got %s",
                       attune_dtype_name(from.dtype));
    if (!(epsilon >= 0) || isinf(epsilon))
        return at_fail(ATTUNE_EVALUE, "epsilon: expected a number of at least 0, got %g", epsilon);
    AT_TRY(at_linear_projection(ATTUNE_FEATURES_FAVOR, projection, from.shape[3], &w, &M, &F));
    const int64_t *n = from.shape, shape[4] = {n[0], n[1], n[2], M};
    features_job j = {.x = &from,
                      .projection = &w,
                      .out = out,
                      .D = n[3],
                      .M = M,
                      .query = query,
                      .epsilon = epsilon};
    j.max_exponent = at_alloc(at_checked_mul(n[0] * n[1], (int64_t)sizeof *j.max_exponent));
    j.scratch =
        j.max_exponent
            ? at_alloc(at_checked_mul(at_threads() * (n[3] + M), (int64_t)sizeof *j.scratch))
            : NULL;
    attune_status status = j.scratch ? at_tensor_new(from.dtype, 4, shape, out) : ATTUNE_EMEMORY;
    if (status == ATTUNE_OK && !query) status = at_parallel(n[0] * n[1], max_task, &j);
    if (status == ATTUNE_OK) status = at_parallel(n[0] * n[1] * n[2], features_task, &j);
    at_free(j.max_exponent);
    at_free(j.scratch);
    attune_tensor_close(&w);
    if (status != ATTUNE_OK) attune_tensor_close(out);
    return status;
}
