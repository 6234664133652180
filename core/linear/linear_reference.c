/* linear_reference.c - linear attention and its gradients in double precision, in blocks through
 * BLIS: the oracle that the f32 engines are checked against.
 *
 * With a_i, b_j the features of query i and key j, A_i, B_j the same after the rotation,
 * N_i = sum_j (A_i . B_j) v_j, Z_i = sum_j a_i . b_j and o_i = N_i / Z_i, the gradients are
 *
 *   dN_i = do_i / Z_i               dZ_i = -(dN_i . o_i)
 *   dA_i = S_i dN_i                 S_i = sum_j B_j v_j^T
 *   dB_j = R_j v_j                  R_j = sum_i A_i dN_i^T
 *   da_i = rotate_back(dA_i) + dZ_i sum_j b_j
 *   db_j = rotate_back(dB_j) + sum_i dZ_i a_i
 *   dv_j = R_j^T B_j
 *
 * If causal, j runs up to i, and i runs from j on: S grows from the first block up, R from the last
 * block down (Katharopoulos et al. 2020, equations 13 to 15). A task is a kv head with all query
 * heads that share it.
 */
#include <math.h>
#include <string.h>

#include "base/arena.h"
#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"
#include "linear/linear_problem.h"
#include "tensor/gemm.h"
#include "tensor/tensor.h"

enum { BLOCK = 64 };

typedef struct plain_scratch {
    double *kx, *qx, *v, *g;               /* [n][D], [n][D], [n][Dv] x 2; g: d_o, then dN */
    double *kp, *qp;                       /* [n][M] w . x' */
    double *k, *q, *k_rotated, *q_rotated; /* [n][F] */
    double *k_factor;                      /* [n] trig: e^(n - c) */
    double *df, *df_rotated;               /* [n][F] */
    double *scores, *slopes;               /* [n][n] */
    double *o, *dx;                        /* [n][Dv], [n][D] */
    double *s, *r, *z, *rz, *prefix;       /* [F][Dv] x 2, [F] x 3 */
    double *Z, *dZ;                        /* [G][Sq] */
    bool uneven;                           /* a denominator is too small for one stabiliser */
    bool finite;                           /* whether all values of the block are */
    at_arena arena;
} plain_scratch;

typedef struct plain_job {
    const at_linear *p;
    attune_tensor *o;
    const at_linear_gradients *g; /* NULL: forward */
    int64_t block;
    plain_scratch *thread;
} plain_job;

/* C = A B + beta C on one thread, because the callers are tasks of parallel work. */
static void product(int64_t m, int64_t n, int64_t k, const double *a, int64_t a_row,
                    int64_t a_column, const double *b, int64_t b_row, int64_t b_column, double beta,
                    double *c, int64_t c_row) {
    if (m > 0 && n > 0)
        at_gemm_f64(m, n, k, 1, a, a_row, a_column, b, b_row, b_column, beta, c, c_row, 1);
}

static void carve(at_arena *a, const plain_job *j, plain_scratch *s) {
    const at_linear *p = j->p;
    const int64_t n = j->block, M = p->M ? p->M : 1, state = at_checked_mul(p->F, p->Dv);
    const size_t size = sizeof(double);
    s->kx = at_arena_take(a, n * p->D, size);
    s->qx = at_arena_take(a, n * p->D, size);
    s->v = at_arena_take(a, n * p->Dv, size);
    s->g = at_arena_take(a, n * p->Dv, size);
    s->kp = at_arena_take(a, n * M, size);
    s->qp = at_arena_take(a, n * M, size);
    s->k = at_arena_take(a, n * p->F, size);
    s->q = at_arena_take(a, n * p->F, size);
    s->k_rotated = at_arena_take(a, n * p->F, size);
    s->q_rotated = at_arena_take(a, n * p->F, size);
    s->k_factor = at_arena_take(a, n, size);
    s->df = at_arena_take(a, n * p->F, size);
    s->df_rotated = at_arena_take(a, n * p->F, size);
    s->scores = at_arena_take(a, n * n, size);
    s->slopes = at_arena_take(a, n * n, size);
    s->o = at_arena_take(a, n * p->Dv, size);
    s->dx = at_arena_take(a, n * p->D, size);
    s->s = at_arena_take(a, state, size);
    s->r = at_arena_take(a, state, size);
    s->z = at_arena_take(a, p->F, size);
    s->rz = at_arena_take(a, p->F, size);
    s->prefix = at_arena_take(a, p->F, size);
    s->Z = at_arena_take(a, p->G * p->Sq, size);
    s->dZ = at_arena_take(a, p->G * p->Sq, size);
}

static attune_status scratch_new(const plain_job *j, plain_scratch *s) {
    carve(&s->arena, j, s);
    AT_TRY(at_arena_alloc(&s->arena));
    carve(&s->arena, j, s);
    return ATTUNE_OK;
}

static void load(const attune_tensor *t, int64_t b, int64_t h, int64_t first, int64_t count,
                 double *out) {
    const int64_t *s = t->stride, n = t->shape[3];
    for (int64_t i = 0; i < count; i++)
        at_load_row_f64(t, b * s[0] + h * s[1] + (first + i) * s[2], s[3], n, out + i * n);
}

/* ---- features -------------------------------------------------------------------------------- */

static double half_square(const at_linear *p, const double *x) {
    double sum = 0;
    for (int64_t d = 0; d < p->D; d++) sum += x[d] * x[d];
    return sum / 2 / sqrt((double)p->D);
}

static void project(const at_linear *p, const double *x, int64_t n, double *out) {
    if (p->M) product(n, p->M, p->D, x, p->D, 1, p->projection.data, 1, p->D, 0, out, p->M);
}

static int64_t index_of_max(const double *x, int64_t n) {
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

/* The stabiliser of a head's keys: its value, and the token and column that it comes from. */
typedef struct stabiliser {
    double max_exponent;
    double first_exponent; /* of the keys that are visible to the first query, if causal */
    int64_t token, column;
} stabiliser;

/* Beyond these f64 loses rows beside one stabiliser: then the head is computed by token. */
static const double MAX_RISE = 600, MIN_DENOMINATOR = 1e-250;

static void find_stabiliser(const plain_job *j, plain_scratch *s, int64_t b, int64_t h,
                            stabiliser *out) {
    const at_linear *p = j->p;
    *out = (stabiliser){.max_exponent = -INFINITY, .first_exponent = INFINITY};
    for (int64_t first = 0; first < p->Sk && (p->features == ATTUNE_FEATURES_FAVOR ||
                                              p->features == ATTUNE_FEATURES_TRIG);
         first += j->block) {
        const int64_t n = p->Sk - first < j->block ? p->Sk - first : j->block;
        load(&p->k, b, h, first, n, s->kx);
        project(p, s->kx, n, s->kp);
        for (int64_t i = 0; i < n; i++) {
            const double half = half_square(p, s->kx + i * p->D);
            const int64_t m = index_of_max(s->kp + i * p->M, p->M);
            const double x = p->features == ATTUNE_FEATURES_TRIG
                                 ? half
                                 : s->kp[i * p->M + m] - (p->epsilon > 0 ? 0 : half);
            if (x > out->max_exponent)
                *out = (stabiliser){.max_exponent = x,
                                    .first_exponent = out->first_exponent,
                                    .token = first + i,
                                    .column = m};
            if (p->causal && first + i == (p->Sk > p->Sq ? p->Sk - p->Sq : 0))
                out->first_exponent = out->max_exponent;
        }
    }
}

/* Computes the features f [n][F] of n tokens, and w . x' into e [n][M]. shift: the stabiliser of
 * the keys; NULL: the tokens are queries. factor [n]: trig's e^(half - max_exponent) of keys. */
static void make_features(const at_linear *p, const double *x, int64_t n, const stabiliser *shift,
                          double *e, double *f, double *factor) {
    project(p, x, n, e);
    for (int64_t i = 0; i < n; i++) {
        const double half = half_square(p, x);
        switch (p->features) {
        case ATTUNE_FEATURES_FAVOR: {
            const double by = shift ? half + shift->max_exponent
                                    : e[index_of_max(e, p->M)] + (p->epsilon > 0 ? half : 0);
            for (int64_t m = 0; m < p->M; m++) f[m] = exp(e[m] - by) + p->epsilon;
            break;
        }
        case ATTUNE_FEATURES_TRIG: {
            const double by = shift ? exp(half - shift->max_exponent) : 1;
            if (shift) factor[i] = by;
            for (int64_t m = 0; m < p->M; m++) {
                f[m] = by * sin(e[m]) + p->epsilon;
                f[p->M + m] = by * cos(e[m]) + p->epsilon;
            }
            break;
        }
        case ATTUNE_FEATURES_RELU:
            for (int64_t m = 0; m < p->M; m++) f[m] = (e[m] < 0 ? 0 : e[m]) + p->epsilon;
            break;
        default:
            for (int64_t d = 0; d < p->D; d++)
                f[d] = (x[d] > 0 ? x[d] + 1 : exp(x[d])) + p->epsilon;
        }
        x += p->D;
        e += p->M;
        f += p->F;
    }
}

/* From df, the gradients of features, computes dx, the gradients of tokens; e is overwritten.
 * Returns minus the gradient of the stabiliser of keys. */
static double features_backward(const at_linear *p, const double *x, int64_t n,
                                const stabiliser *shift, double *e, const double *f,
                                const double *factor, const double *df, double *dx) {
    const double c = 1 / sqrt((double)p->D);
    double total = 0;
    if (p->features == ATTUNE_FEATURES_ELU) {
        for (int64_t i = 0; i < n * p->D; i++) dx[i] = df[i] * (x[i] > 0 ? 1 : exp(x[i]));
        return 0;
    }
    for (int64_t i = 0; i < n; i++) {
        double *row = e + i * p->M, sum = 0;
        const double *a = f + i * p->F, *d = df + i * p->F;
        const int64_t best = index_of_max(row, p->M);
        for (int64_t m = 0; m < p->M; m++) {
            if (p->features == ATTUNE_FEATURES_FAVOR) {
                row[m] = d[m] * (a[m] - p->epsilon);
                sum += row[m];
            } else if (p->features == ATTUNE_FEATURES_TRIG) {
                const double by = shift ? factor[i] : 1, sine = by * sin(row[m]),
                             cosine = by * cos(row[m]);
                sum += d[m] * sine + d[p->M + m] * cosine;
                row[m] = d[m] * cosine - d[p->M + m] * sine;
            } else {
                row[m] = row[m] > 0 ? d[m] : 0;
            }
        }
        /* A query has a stabiliser of its own. Without epsilon it cancels, and trig's is the
         * whole exponent. */
        if (!shift && p->features == ATTUNE_FEATURES_FAVOR && p->epsilon > 0) row[best] -= sum;
        double along = 0; /* the derivative by |x'|^2 / 2 */
        if (p->features == ATTUNE_FEATURES_FAVOR && (shift || p->epsilon > 0)) along = -sum * c;
        if (p->features == ATTUNE_FEATURES_TRIG && shift) along = sum * c;
        for (int64_t d2 = 0; d2 < p->D; d2++) dx[i * p->D + d2] = along * x[i * p->D + d2];
        total += sum;
    }
    product(n, p->D, p->M, e, p->M, 1, p->projection.data, p->D, 1, 1, dx, p->D);
    return p->features == ATTUNE_FEATURES_RELU ? 0 : total;
}

/* Rotates the features of n tokens by their rows of cosines and sines. sign -1 rotates gradients
 * back. */
static void rotate_rows(const at_linear *p, const double *x, int64_t n, const double *rotation,
                        double sign, double *out) {
    const attune_position *pe = p->rotate;
    if (!pe) {
        memcpy(out, x, (size_t)(n * p->F) * sizeof *x);
        return;
    }
    const int64_t pairs = pe->dims / 2;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t d = 0; d < pairs; d++) {
            const double cosine = rotation[d], sine = rotation[pairs + d] * sign;
            int64_t m, l;
            at_pair(pe->pairing, pairs, d, &m, &l);
            const double a = x[m], b = x[l];
            out[m] = a * cosine - b * sine;
            out[l] = b * cosine + a * sine;
        }
        memcpy(out + 2 * pairs, x + 2 * pairs, (size_t)(p->F - 2 * pairs) * sizeof *x);
        x += p->F;
        out += p->F;
        rotation += 2 * pairs;
    }
}

static const double *rotation_of(const at_linear *p, const double *cos_sin, int64_t token) {
    return p->rotate ? cos_sin + token * p->rotate->dims : NULL;
}

/* ---- blocks ---------------------------------------------------------------------------------- */

typedef struct span {
    int64_t first, n; /* tokens of keys, or queries */
} span;

static void make_keys(const plain_job *j, plain_scratch *s, int64_t b, int64_t kv, span k,
                      const stabiliser *shift) {
    const at_linear *p = j->p;
    load(&p->k, b, kv, k.first, k.n, s->kx);
    load(&p->v, b, kv, k.first, k.n, s->v);
    make_features(p, s->kx, k.n, shift, s->kp, s->k, s->k_factor);
    rotate_rows(p, s->k, k.n, rotation_of(p, p->k_cos_sin, k.first), 1, s->k_rotated);
    s->finite = true;
    for (int64_t i = 0; i < k.n * p->Dv; i++) s->finite = s->finite && isfinite(s->v[i]);
}

static void make_queries(const plain_job *j, plain_scratch *s, int64_t b, int64_t h, span q) {
    const at_linear *p = j->p;
    load(&p->q, b, h, q.first, q.n, s->qx);
    make_features(p, s->qx, q.n, NULL, s->qp, s->q, NULL);
    rotate_rows(p, s->q, q.n, rotation_of(p, p->q_cos_sin, q.first), 1, s->q_rotated);
}

/* Adds the block's keys to s and z. */
static void add_keys(const at_linear *p, plain_scratch *s, int64_t n) {
    product(p->F, p->Dv, n, s->k_rotated, 1, p->F, s->v, p->Dv, 1, 1, s->s, p->Dv);
    for (int64_t i = 0; i < n; i++)
        for (int64_t f = 0; f < p->F; f++) s->z[f] += s->k[i * p->F + f];
}

/* x [rows][keys]: sets row r to zero at the keys after skip + r, which are not visible to it. */
static void hide(double *x, int64_t rows, int64_t keys, int64_t skip) {
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = skip + r + 1; c < keys; c++) x[r * keys + c] = 0;
}

/* Computes the outputs of a block of queries over the keys in s and z and, if keys > 0, over the
 * keys of the same block up to each query. With gradients it then computes dq and leaves dN in
 * s->g. */
static void queries_forward(const plain_job *j, plain_scratch *s, int64_t b, int64_t h, span q,
                            int64_t keys, int64_t skip) {
    const at_linear *p = j->p;
    double *Z = s->Z + h % p->G * p->Sq + q.first, *dZ = s->dZ + h % p->G * p->Sq + q.first;
    product(q.n, p->Dv, p->F, s->q_rotated, p->F, 1, s->s, p->Dv, 1, 0, s->o, p->Dv);
    if (keys) {
        product(q.n, keys, p->F, s->q_rotated, p->F, 1, s->k_rotated, 1, p->F, 0, s->scores, keys);
        hide(s->scores, q.n, keys, skip);
        if (s->finite)
            product(q.n, p->Dv, keys, s->scores, keys, 1, s->v, p->Dv, 1, 1, s->o, p->Dv);
        else /* an Inf or NaN must not reach rows to which it is not visible */
            for (int64_t r = 0; r < q.n; r++)
                product(1, p->Dv, skip + r + 1, s->scores + r * keys, keys, 1, s->v, p->Dv, 1, 1,
                        s->o + r * p->Dv, p->Dv);
    }
    if (j->g) load(j->g->d_o, b, h, q.first, q.n, s->g);
    memcpy(s->prefix, s->z, (size_t)p->F * sizeof *s->z);
    for (int64_t r = 0, next = 0; r < q.n; r++) {
        for (; keys && next <= skip + r; next++)
            for (int64_t f = 0; f < p->F; f++) s->prefix[f] += s->k[next * p->F + f];
        double sum = 0, *o = s->o + r * p->Dv;
        for (int64_t f = 0; f < p->F; f++) sum += s->q[r * p->F + f] * s->prefix[f];
        Z[r] = sum;
        if (p->features == ATTUNE_FEATURES_FAVOR && sum < MIN_DENOMINATOR) s->uneven = true;
        for (int64_t d = 0; d < p->Dv; d++) o[d] = sum == 0 ? 0 : o[d] / sum;
        if (!j->g) {
            at_store_row_f64(j->o, ((b * p->Hq + h) * p->Sq + q.first + r) * p->Dv, 1, p->Dv, o);
            continue;
        }
        double *g = s->g + r * p->Dv, along = 0;
        for (int64_t d = 0; d < p->Dv; d++) {
            g[d] = sum == 0 ? 0 : g[d] / sum;
            along += g[d] * o[d];
        }
        dZ[r] = -along;
        for (int64_t f = 0; f < p->F; f++) s->df[r * p->F + f] = -along * s->prefix[f];
    }
    if (!j->g) return;
    product(q.n, p->F, p->Dv, s->g, p->Dv, 1, s->s, 1, p->Dv, 0, s->df_rotated, p->F);
    if (keys) {
        product(q.n, keys, p->Dv, s->g, p->Dv, 1, s->v, 1, p->Dv, 0, s->slopes, keys);
        hide(s->slopes, q.n, keys, skip);
        product(q.n, p->F, keys, s->slopes, keys, 1, s->k_rotated, p->F, 1, 1, s->df_rotated, p->F);
    }
    rotate_rows(p, s->df_rotated, q.n, rotation_of(p, p->q_cos_sin, q.first), -1, s->df_rotated);
    for (int64_t i = 0; i < q.n * p->F; i++) s->df[i] += s->df_rotated[i];
    features_backward(p, s->qx, q.n, NULL, s->qp, s->q, NULL, s->df, s->dx);
    for (int64_t r = 0; r < q.n; r++)
        at_store_row_f64(j->g->dq, ((b * p->Hq + h) * p->Sq + q.first + r) * p->D, 1, p->D,
                         s->dx + r * p->D);
}

/* Computes dN of a block of queries from the Z that queries_forward stored. */
static void load_slopes(const plain_job *j, plain_scratch *s, int64_t b, int64_t h, span q) {
    const at_linear *p = j->p;
    const double *Z = s->Z + h % p->G * p->Sq + q.first;
    load(j->g->d_o, b, h, q.first, q.n, s->g);
    for (int64_t r = 0; r < q.n; r++)
        for (int64_t d = 0; d < p->Dv; d++)
            s->g[r * p->Dv + d] = Z[r] == 0 ? 0 : s->g[r * p->Dv + d] / Z[r];
}

/* Adds the block's queries to r and rz. */
static void add_queries(const at_linear *p, plain_scratch *s, int64_t h, span q) {
    const double *dZ = s->dZ + h % p->G * p->Sq + q.first;
    product(p->F, p->Dv, q.n, s->q_rotated, 1, p->F, s->g, p->Dv, 1, 1, s->r, p->Dv);
    for (int64_t i = 0; i < q.n; i++)
        for (int64_t f = 0; f < p->F; f++) s->rz[f] += dZ[i] * s->q[i * p->F + f];
}

/* ---- a kv head ------------------------------------------------------------------------------- */

static span queries_of(const at_linear *p, span k, int64_t *skip) {
    const int64_t offset = p->Sk - p->Sq;
    *skip = offset > k.first ? offset - k.first : 0;
    return *skip < k.n ? (span){.first = k.first + *skip - offset, .n = k.n - *skip} : (span){0, 0};
}

static span block_of(int64_t number, int64_t block, int64_t all) {
    const int64_t first = number * block;
    return (span){.first = first, .n = all - first < block ? all - first : block};
}

/* Computes dv and dk of a block of keys. r and rz hold the queries of later blocks; if causal, the
 * queries of this block are added here. Returns minus the stabiliser's gradient. */
static double keys_backward(const plain_job *j, plain_scratch *s, int64_t b, int64_t kv, span k,
                            const stabiliser *shift) {
    const at_linear *p = j->p;
    int64_t skip = 0;
    const span q = p->causal ? queries_of(p, k, &skip) : (span){0, 0};
    double *dv = s->o;
    make_keys(j, s, b, kv, k, shift);
    product(k.n, p->Dv, p->F, s->k_rotated, p->F, 1, s->r, p->Dv, 1, 0, dv, p->Dv);
    product(k.n, p->F, p->Dv, s->v, p->Dv, 1, s->r, 1, p->Dv, 0, s->df_rotated, p->F);
    for (int64_t i = 0; i < k.n; i++) memcpy(s->df + i * p->F, s->rz, (size_t)p->F * sizeof *s->rz);
    for (int64_t g = 0; g < p->G && q.n; g++) {
        const int64_t h = kv * p->G + g;
        const double *dZ = s->dZ + g * p->Sq + q.first;
        make_queries(j, s, b, h, q);
        load_slopes(j, s, b, h, q);
        product(q.n, k.n, p->F, s->q_rotated, p->F, 1, s->k_rotated, 1, p->F, 0, s->scores, k.n);
        hide(s->scores, q.n, k.n, skip);
        product(q.n, k.n, p->Dv, s->g, p->Dv, 1, s->v, 1, p->Dv, 0, s->slopes, k.n);
        hide(s->slopes, q.n, k.n, skip);
        product(k.n, p->Dv, q.n, s->scores, 1, k.n, s->g, p->Dv, 1, 1, dv, p->Dv);
        product(k.n, p->F, q.n, s->slopes, 1, k.n, s->q_rotated, p->F, 1, 1, s->df_rotated, p->F);
        memset(s->prefix, 0, (size_t)p->F * sizeof *s->prefix);
        for (int64_t i = k.n - 1, r = q.n - 1; i >= 0; i--) {
            for (; r >= 0 && skip + r >= i; r--)
                for (int64_t f = 0; f < p->F; f++) s->prefix[f] += dZ[r] * s->q[r * p->F + f];
            for (int64_t f = 0; f < p->F; f++) s->df[i * p->F + f] += s->prefix[f];
        }
        add_queries(p, s, h, q);
    }
    rotate_rows(p, s->df_rotated, k.n, rotation_of(p, p->k_cos_sin, k.first), -1, s->df_rotated);
    for (int64_t i = 0; i < k.n * p->F; i++) s->df[i] += s->df_rotated[i];
    const double total =
        features_backward(p, s->kx, k.n, shift, s->kp, s->k, s->k_factor, s->df, s->dx);
    const int64_t index = (b * p->Hk + kv) * p->Sk + k.first;
    for (int64_t i = 0; i < k.n; i++) {
        at_store_row_f64(j->g->dv, (index + i) * p->Dv, 1, p->Dv, dv + i * p->Dv);
        at_store_row_f64(j->g->dk, (index + i) * p->D, 1, p->D, s->dx + i * p->D);
    }
    return total;
}

/* The stabiliser of the keys is one of their exponents. With epsilon > 0 it does not cancel: its
 * gradient belongs to that token. */
static void stabiliser_backward(const plain_job *j, plain_scratch *s, int64_t b, int64_t kv,
                                const stabiliser *shift, double total) {
    const at_linear *p = j->p;
    const int64_t index = ((b * p->Hk + kv) * p->Sk + shift->token) * p->D;
    const double *w = (const double *)p->projection.data + shift->column * p->D,
                 c = 1 / sqrt((double)p->D);
    load(&p->k, b, kv, shift->token, 1, s->kx);
    at_load_row_f64(j->g->dk, index, 1, p->D, s->dx);
    for (int64_t d = 0; d < p->D; d++)
        s->dx[d] -= total * (p->features == ATTUNE_FEATURES_TRIG ? c * s->kx[d] : w[d]);
    at_store_row_f64(j->g->dk, index, 1, p->D, s->dx);
}

static attune_status head_task(void *context, int64_t head, int thread) {
    plain_job *j = context;
    const at_linear *p = j->p;
    plain_scratch *s = &j->thread[thread];
    const int64_t b = head / p->Hk, kv = head % p->Hk, key_blocks = at_ceil_div(p->Sk, j->block),
                  query_blocks = at_ceil_div(p->Sq, j->block);
    attune_tensor *const rows =
        j->g ? j->g->dq : j->o; /* no key is visible to queries before the first */
    const int64_t row = attune_dtype_size(rows->dtype) * rows->shape[3];
    stabiliser shift;
    memset(s->s, 0, (size_t)(p->F * p->Dv) * sizeof *s->s);
    memset(s->r, 0, (size_t)(p->F * p->Dv) * sizeof *s->r);
    memset(s->z, 0, (size_t)p->F * sizeof *s->z);
    memset(s->rz, 0, (size_t)p->F * sizeof *s->rz);
    find_stabiliser(j, s, b, kv, &shift);
    s->uneven = shift.max_exponent - shift.first_exponent > MAX_RISE;
    for (int64_t n = 0; n < key_blocks; n++) {
        const span k = block_of(n, j->block, p->Sk);
        int64_t skip;
        const span q = queries_of(p, k, &skip);
        if (at_interrupted()) return at_interrupted_status();
        make_keys(j, s, b, kv, k, &shift);
        for (int64_t g = 0; g < p->G && p->causal && q.n; g++) {
            make_queries(j, s, b, kv * p->G + g, q);
            queries_forward(j, s, b, kv * p->G + g, q, k.n, skip);
        }
        add_keys(p, s, k.n);
    }
    for (int64_t g = 0; g < p->G; g++) {
        const int64_t h = kv * p->G + g;
        for (int64_t n = 0; n < query_blocks && !p->causal; n++) {
            const span q = block_of(n, j->block, p->Sq);
            if (at_interrupted()) return at_interrupted_status();
            make_queries(j, s, b, h, q);
            queries_forward(j, s, b, h, q, 0, 0);
            if (j->g) add_queries(p, s, h, q);
        }
        if (p->causal && p->Sq > p->Sk)
            memset((char *)rows->data + (b * p->Hq + h) * p->Sq * row, 0,
                   (size_t)((p->Sq - p->Sk) * row));
    }
    if (s->uneven && at_linear_is_relative(p->features, p->epsilon))
        return at_linear_by_token(p, head, j->o, j->g);
    if (!j->g) return ATTUNE_OK;
    double total = 0;
    for (int64_t n = key_blocks - 1; n >= 0; n--) {
        if (at_interrupted()) return at_interrupted_status();
        total += keys_backward(j, s, b, kv, block_of(n, j->block, p->Sk), &shift);
    }
    if (p->epsilon > 0 &&
        (p->features == ATTUNE_FEATURES_FAVOR || p->features == ATTUNE_FEATURES_TRIG))
        stabiliser_backward(j, s, b, kv, &shift, total);
    return ATTUNE_OK;
}

static attune_status run(plain_job *j) {
    const int threads = at_threads();
    attune_status status = ATTUNE_OK;
    const int64_t longest = j->p->Sq > j->p->Sk ? j->p->Sq : j->p->Sk;
    j->block = j->p->block ? j->p->block : BLOCK;
    if (j->block > longest) j->block = longest;
    j->thread = at_alloc_zeroed(threads * (int64_t)sizeof *j->thread);
    if (!j->thread) return ATTUNE_EMEMORY;
    for (int t = 0; t < threads && status == ATTUNE_OK; t++) status = scratch_new(j, &j->thread[t]);
    if (status == ATTUNE_OK) status = at_parallel(j->p->B * j->p->Hk, head_task, j);
    for (int t = 0; t < threads; t++) at_arena_free(&j->thread[t].arena);
    at_free(j->thread);
    return status;
}

static attune_status make_rotations(at_linear *p) {
    if (!p->rotate) return ATTUNE_OK;
    const int64_t row = p->rotate->dims * (int64_t)sizeof(double);
    p->q_cos_sin = at_alloc(at_checked_mul(p->Sq, row));
    p->k_cos_sin = p->q_cos_sin ? at_alloc(at_checked_mul(p->Sk, row)) : NULL;
    if (!p->k_cos_sin) return ATTUNE_EMEMORY;
    AT_TRY(at_rotation_f64(p->rotate, 0, p->Sk, ATTUNE_KEY, p->Sk, p->k_cos_sin));
    return at_rotation_f64(p->rotate, p->Sk - p->Sq, p->Sq, ATTUNE_QUERY, p->Sk, p->q_cos_sin);
}

attune_status at_linear_reference(at_linear *p, attune_tensor *o) {
    AT_TRY(make_rotations(p));
    plain_job j = {.p = p, .o = o};
    return run(&j);
}

attune_status at_linear_reference_backward(at_linear *p, const at_linear_gradients *g) {
    AT_TRY(make_rotations(p));
    plain_job j = {.p = p, .g = g};
    return run(&j);
}
