/* rope.c - rotary embedding: Su et al. 2021 (RoFormer, arXiv 2104.09864), equation 34.
 *
 * Pair i of the dims turns by the angle t theta_i at position t, theta_i = base^(-2 i / dims):
 *   x' = x cos - y sin      y' = y cos + x sin
 * so that q . k after turning depends on the difference of their positions only. Angles are computed in f64, tables kept in f32.
 */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"
#include "position/position.h"
#include "tensor/tensor.h"

attune_status attune_position_rope(const attune_rope_options *options, attune_position **out) {
    attune_rope_options o = *options;
    *out = NULL;
    if (o.head_dim < 2) return at_fail(ATTUNE_EVALUE, "head_dim: expected at least 2, got %lld", (long long)o.head_dim);
    if (o.dims == 0) o.dims = o.head_dim;
    if (o.dims < 2 || o.dims % 2 || o.dims > o.head_dim) {
        return at_fail(ATTUNE_EVALUE, "dims: expected an even number from 2 to head_dim, %lld, got %lld", (long long)o.head_dim, (long long)o.dims);
    }
    if (o.base == 0) o.base = 10000;
    if (!(o.base > 0) || isinf(o.base)) return at_fail(ATTUNE_EVALUE, "base: expected a positive number, got %g", o.base);
    if (o.pairing != ATTUNE_HALF && o.pairing != ATTUNE_INTERLEAVED)
        return at_fail(ATTUNE_EVALUE, "pairing: expected half or interleaved, got number %d", (int)o.pairing);
    attune_position *pe;
    AT_TRY(at_position_new("rope", &pe));
    pe->head_dim = o.head_dim, pe->dims = o.dims, pe->base = o.base, pe->pairing = o.pairing;
    pe->inv_freq = at_alloc(o.dims / 2 * (int64_t)sizeof *pe->inv_freq);
    if (!pe->inv_freq) {
        attune_position_close(pe);
        return ATTUNE_EMEMORY;
    }
    for (int64_t i = 0; i < o.dims / 2; i++) pe->inv_freq[i] = pow(o.base, -2.0 * (double)i / (double)o.dims);
    *out = pe;
    return ATTUNE_OK;
}

/* ---- tables ------------------------------------------------------------------------------------------------------ */

static void fill_turns(const attune_position *pe, int64_t position, float *cosine, float *sine) {
    for (int64_t i = 0; i < pe->dims / 2; i++) {
        double angle = (double)position * pe->inv_freq[i];
        cosine[i] = (float)(cos(angle) * pe->factor), sine[i] = (float)(sin(angle) * pe->factor);
    }
}

/* Positions below this many are kept once computed; text this long is common, a lone position far out is not. */
enum { MOST_CACHED = 1 << 17 };

/* Makes positions 0 .. n - 1 cached. */
static attune_status cache_turns(attune_position *pe, int64_t n) {
    if (n <= pe->cached) return ATTUNE_OK;
    const int64_t pairs = pe->dims / 2;
    int64_t size = pe->cached ? pe->cached : 64;
    while (size < n) size *= 2;
    float *cosine = at_alloc(size * pairs * (int64_t)sizeof *cosine), *sine = cosine ? at_alloc(size * pairs * (int64_t)sizeof *sine) : NULL;
    if (!sine) {
        at_free(cosine);
        return ATTUNE_EMEMORY;
    }
    if (pe->cached) {
        memcpy(cosine, pe->cosine, (size_t)(pe->cached * pairs) * sizeof *cosine);
        memcpy(sine, pe->sine, (size_t)(pe->cached * pairs) * sizeof *sine);
    }
    for (int64_t t = pe->cached; t < size; t++) fill_turns(pe, t, cosine + t * pairs, sine + t * pairs);
    at_free(pe->cosine);
    at_free(pe->sine);
    pe->cosine = cosine, pe->sine = sine, pe->cached = size;
    return ATTUNE_OK;
}

/* ---- rotation ---------------------------------------------------------------------------------------------------- */

typedef struct rotate_job {
    const attune_position *pe;
    const attune_tensor *x, *positions, *out;
    float *scratch; /* [threads][head_dim + dims], where positions are not cached or x is not plain f32 */
} rotate_job;

enum { TASK_ELEMENTS = 1 << 15 };

static int64_t position_of(const rotate_job *j, int64_t b, int64_t s) {
    const attune_tensor *p = j->positions;
    if (!p) return s;
    return ((const int64_t *)p->data)[p->rank == 1 ? s * p->stride[0] : b * p->stride[0] + s * p->stride[1]];
}

static void turn(const attune_position *pe, const float *x, float *out, const float *cosine, const float *sine) {
    const int64_t pairs = pe->dims / 2;
    if (pe->pairing == ATTUNE_HALF) {
        for (int64_t i = 0; i < pairs; i++) {
            float a = x[i], b = x[i + pairs];
            out[i] = a * cosine[i] - b * sine[i];
            out[i + pairs] = b * cosine[i] + a * sine[i];
        }
    } else {
        for (int64_t i = 0; i < pairs; i++) {
            float a = x[2 * i], b = x[2 * i + 1];
            out[2 * i] = a * cosine[i] - b * sine[i];
            out[2 * i + 1] = b * cosine[i] + a * sine[i];
        }
    }
}

static void turn_f64(const rotate_job *j, int64_t from, int64_t to, int64_t position) {
    const attune_position *pe = j->pe;
    const int64_t pairs = pe->dims / 2, xs = j->x->stride[3], os = j->out->stride[3];
    const double *x = (const double *)j->x->data + from;
    double *out = (double *)j->out->data + to;
    for (int64_t i = 0; i < pairs; i++) {
        double c = cos((double)position * pe->inv_freq[i]) * pe->factor, s = sin((double)position * pe->inv_freq[i]) * pe->factor;
        int64_t m = pe->pairing == ATTUNE_HALF ? i : 2 * i, n = pe->pairing == ATTUNE_HALF ? i + pairs : 2 * i + 1;
        double a = x[m * xs], b = x[n * xs];
        out[m * os] = a * c - b * s, out[n * os] = b * c + a * s;
    }
    for (int64_t d = pe->dims; d < pe->head_dim; d++) out[d * os] = x[d * xs];
}

static attune_status rotate_task(void *context, int64_t task, int thread) {
    rotate_job *j = context;
    const attune_position *pe = j->pe;
    const int64_t *n = j->x->shape, *xs = j->x->stride, *os = j->out->stride, D = pe->head_dim, pairs = pe->dims / 2;
    const int64_t rows_per_task = TASK_ELEMENTS / D + 1, rows = n[0] * n[1] * n[2];
    float *wide = j->scratch + thread * (D + pe->dims), *own = wide + D;
    for (int64_t row = task * rows_per_task; row < (task + 1) * rows_per_task && row < rows; row++) {
        const int64_t s = row % n[2], h = row / n[2] % n[1], b = row / n[2] / n[1], position = position_of(j, b, s);
        const int64_t from = b * xs[0] + h * xs[1] + s * xs[2], to = b * os[0] + h * os[1] + s * os[2];
        if (j->x->dtype == ATTUNE_F64) {
            turn_f64(j, from, to, position);
            continue;
        }
        const float *cosine = own, *sine = own + pairs;
        if (position >= 0 && position < pe->cached)
            cosine = pe->cosine + position * pairs, sine = pe->sine + position * pairs;
        else
            fill_turns(pe, position, own, own + pairs);
        if (j->x->dtype == ATTUNE_F32 && xs[3] == 1 && os[3] == 1) {
            const float *x = (const float *)j->x->data + from;
            float *out = (float *)j->out->data + to;
            turn(pe, x, out, cosine, sine);
            if (out != x && pe->dims < D) memcpy(out + pe->dims, x + pe->dims, (size_t)(D - pe->dims) * sizeof *x);
        } else {
            at_load_row(j->x, from, xs[3], D, wide);
            turn(pe, wide, wide, cosine, sine);
            at_store_row(j->out, to, os[3], D, wide);
        }
    }
    return ATTUNE_OK;
}

static attune_status run(attune_position *pe, const attune_tensor *x, const attune_tensor *positions, const attune_tensor *out) {
    int64_t greatest = -1;
    rotate_job job = {.pe = pe, .x = x, .positions = positions, .out = out};
    const int64_t *n = x->shape;
    for (int64_t b = 0; b < (positions && positions->rank == 2 ? n[0] : 1); b++) {
        for (int64_t s = 0; s < n[2]; s++) {
            int64_t t = positions ? position_of(&job, b, s) : n[2] - 1;
            if (t > greatest) greatest = t;
            if (!positions) break;
        }
    }
    if (greatest < MOST_CACHED && x->dtype != ATTUNE_F64) AT_TRY(cache_turns(pe, greatest + 1));
    job.scratch = at_alloc(at_threads() * (pe->head_dim + pe->dims) * (int64_t)sizeof *job.scratch);
    if (!job.scratch) return ATTUNE_EMEMORY;
    const int64_t rows_per_task = TASK_ELEMENTS / pe->head_dim + 1;
    attune_status status = at_parallel((n[0] * n[1] * n[2] + rows_per_task - 1) / rows_per_task, rotate_task, &job);
    at_free(job.scratch);
    return status;
}

static attune_status check(const attune_position *pe, const attune_tensor *x, const attune_tensor *positions) {
    if (x->rank != 4 || x->shape[3] != pe->head_dim) {
        return at_fail(ATTUNE_ESHAPE, "x: expected [batch, heads, tokens, %lld], got %s", (long long)pe->head_dim, at_shape_text(x->rank, x->shape));
    }
    if (x->dtype == ATTUNE_I8 || x->dtype == ATTUNE_I32 || x->dtype == ATTUNE_I64) {
        return at_fail(ATTUNE_EDTYPE, "x: expected a float dtype, got %s", attune_dtype_name(x->dtype));
    }
    return at_check_positions(positions, x->shape[0], x->shape[2]);
}

attune_status attune_position_rotate(attune_position *pe, const attune_tensor *x, const attune_tensor *positions, attune_tensor *out) {
    attune_tensor from = *x;
    memset(out, 0, sizeof *out);
    AT_TRY(at_check_open("x", &from));
    if (!pe->inv_freq) return attune_tensor_share(&from, out);
    AT_TRY(check(pe, &from, positions));
    AT_TRY(attune_tensor_new(from.dtype, 4, from.shape, out));
    attune_status status = run(pe, &from, positions, out);
    if (status != ATTUNE_OK) attune_tensor_close(out);
    return status;
}

attune_status attune_position_rotate_in_place(attune_position *pe, attune_tensor *x, const attune_tensor *positions) {
    AT_TRY(at_check_open("x", x));
    if (!pe->inv_freq) return ATTUNE_OK;
    AT_TRY(check(pe, x, positions));
    return run(pe, x, positions, x);
}
