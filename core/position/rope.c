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
#include "simd/table.h"
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

/* ---- the turns of one call --------------------------------------------------------------------------------------- */

static int64_t position_of(const attune_tensor *p, int64_t b, int64_t s) {
    return ((const int64_t *)p->data)[p->rank == 1 ? s * p->stride[0] : b * p->stride[0] + s * p->stride[1]];
}

/* Positions that are not kept get tables of this call's own, a row a token. */
static attune_status own_tables(const attune_position *pe, int64_t tokens, at_turns *t) {
    const int64_t pairs = pe->dims / 2;
    t->own = at_alloc(at_checked_mul(at_checked_mul(tokens, pairs), 2 * (int64_t)sizeof *t->own));
    if (!t->own) return ATTUNE_EMEMORY;
    for (int64_t n = 0; n < tokens; n++) {
        fill_turns(pe, t->row[n], t->own + n * pairs, t->own + (tokens + n) * pairs);
        t->row[n] = n;
    }
    t->cosine = t->own, t->sine = t->own + tokens * pairs;
    return ATTUNE_OK;
}

attune_status at_turns_make(attune_position *pe, const attune_tensor *positions, const int64_t *first, int64_t firsts, int64_t B, int64_t S, at_turns *out) {
    memset(out, 0, sizeof *out);
    if (!pe->inv_freq) return ATTUNE_OK;
    const int64_t lists = !positions ? firsts : positions->rank == 2 ? B : 1;
    out->dims = pe->dims, out->head_dim = pe->head_dim, out->pairing = pe->pairing, out->batch_stride = lists > 1 ? S : 0;
    out->row = at_alloc(at_checked_mul(at_checked_mul(lists, S), (int64_t)sizeof *out->row));
    if (!out->row) return ATTUNE_EMEMORY;
    int64_t least = 0, greatest = -1;
    for (int64_t b = 0; b < lists; b++) {
        for (int64_t s = 0; s < S; s++) {
            const int64_t t = out->row[b * S + s] = positions ? position_of(positions, b, s) : first[b] + s;
            if (t > greatest) greatest = t;
            if (t < least) least = t;
        }
    }
    attune_status status = least < 0 || greatest >= MOST_CACHED ? own_tables(pe, lists * S, out) : cache_turns(pe, greatest + 1);
    if (status != ATTUNE_OK) {
        at_turns_free(out);
        return status;
    }
    if (!out->own) out->cosine = pe->cosine, out->sine = pe->sine;
    return ATTUNE_OK;
}

void at_turns_free(at_turns *turns) {
    at_free(turns->row);
    at_free(turns->own);
    memset(turns, 0, sizeof *turns);
}

static void turn(const at_turns *t, int64_t b, int64_t token, const float *x, float sign, float *out) {
    const at_elementwise_kernels *kernels = &at_simd_now()->elementwise;
    const int64_t pairs = t->dims / 2, row = t->row[b * t->batch_stride + token] * pairs;
    (t->pairing == ATTUNE_HALF ? kernels->turn_halves : kernels->turn_pairs)(x, t->cosine + row, t->sine + row, sign, pairs, out);
    if (out != x && t->dims < t->head_dim) memcpy(out + t->dims, x + t->dims, (size_t)(t->head_dim - t->dims) * sizeof *x);
}

void at_turn(const at_turns *t, int64_t b, int64_t token, const float *x, float *out) { turn(t, b, token, x, 1, out); }

void at_turn_back(const at_turns *t, int64_t b, int64_t token, const float *x, float *out) { turn(t, b, token, x, -1, out); }

/* ---- rotation of whole tensors ----------------------------------------------------------------------------------- */

typedef struct rotate_job {
    const attune_position *pe;
    const attune_tensor *x, *positions, *out;
    at_turns turns; /* but for f64 */
    float sign;     /* -1: backwards */
    float *wide;    /* [threads][head_dim] */
} rotate_job;

enum { TASK_ELEMENTS = 1 << 15 };

static void turn_f64(const rotate_job *j, int64_t from, int64_t to, int64_t position) {
    const attune_position *pe = j->pe;
    const int64_t pairs = pe->dims / 2, xs = j->x->stride[3], os = j->out->stride[3];
    const double *x = (const double *)j->x->data + from;
    double *out = (double *)j->out->data + to;
    for (int64_t i = 0; i < pairs; i++) {
        double c = cos((double)position * pe->inv_freq[i]) * pe->factor, s = sin((double)position * pe->inv_freq[i]) * pe->factor * (double)j->sign;
        int64_t m = pe->pairing == ATTUNE_HALF ? i : 2 * i, n = pe->pairing == ATTUNE_HALF ? i + pairs : 2 * i + 1;
        double a = x[m * xs], b = x[n * xs];
        out[m * os] = a * c - b * s, out[n * os] = b * c + a * s;
    }
    for (int64_t d = pe->dims; d < pe->head_dim; d++) out[d * os] = x[d * xs];
}

static attune_status rotate_task(void *context, int64_t task, int thread) {
    rotate_job *j = context;
    const int64_t *n = j->x->shape, *xs = j->x->stride, *os = j->out->stride, D = j->pe->head_dim;
    const int64_t rows_per_task = TASK_ELEMENTS / D + 1, rows = n[0] * n[1] * n[2];
    float *wide = j->wide + thread * D;
    for (int64_t row = task * rows_per_task; row < (task + 1) * rows_per_task && row < rows; row++) {
        const int64_t s = row % n[2], h = row / n[2] % n[1], b = row / n[2] / n[1];
        const int64_t from = b * xs[0] + h * xs[1] + s * xs[2], to = b * os[0] + h * os[1] + s * os[2];
        if (j->x->dtype == ATTUNE_F64) {
            turn_f64(j, from, to, j->positions ? position_of(j->positions, b, s) : s);
        } else if (j->x->dtype == ATTUNE_F32 && xs[3] == 1 && os[3] == 1) {
            turn(&j->turns, b, s, (const float *)j->x->data + from, j->sign, (float *)j->out->data + to);
        } else {
            at_load_row(j->x, from, xs[3], D, wide);
            turn(&j->turns, b, s, wide, j->sign, wide);
            at_store_row(j->out, to, os[3], D, wide);
        }
    }
    return ATTUNE_OK;
}

static attune_status run(attune_position *pe, const attune_tensor *x, const attune_tensor *positions, float sign, const attune_tensor *out) {
    rotate_job job = {.pe = pe, .x = x, .positions = positions, .out = out, .sign = sign};
    const int64_t *n = x->shape;
    const int64_t zero = 0;
    if (x->dtype != ATTUNE_F64) AT_TRY(at_turns_make(pe, positions, &zero, 1, n[0], n[2], &job.turns));
    const int64_t rows_per_task = TASK_ELEMENTS / pe->head_dim + 1;
    job.wide = at_alloc(at_threads() * pe->head_dim * (int64_t)sizeof *job.wide);
    attune_status status = job.wide ? at_parallel((n[0] * n[1] * n[2] + rows_per_task - 1) / rows_per_task, rotate_task, &job) : ATTUNE_EMEMORY;
    at_free(job.wide);
    at_turns_free(&job.turns);
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

static attune_status rotated(attune_position *pe, const attune_tensor *x, const attune_tensor *positions, float sign, attune_tensor *out) {
    attune_tensor from = *x;
    memset(out, 0, sizeof *out);
    AT_TRY(at_check_open("x", &from));
    if (!pe->inv_freq) return attune_tensor_share(&from, out);
    AT_TRY(check(pe, &from, positions));
    AT_TRY(at_tensor_new(from.dtype, 4, from.shape, out));
    attune_status status = run(pe, &from, positions, sign, out);
    if (status != ATTUNE_OK) attune_tensor_close(out);
    return status;
}

attune_status attune_position_rotate(attune_position *pe, const attune_tensor *x, const attune_tensor *positions, attune_tensor *out) {
    return rotated(pe, x, positions, 1, out);
}

attune_status at_position_rotate_back(attune_position *pe, const attune_tensor *x, const attune_tensor *positions, attune_tensor *out) {
    return rotated(pe, x, positions, -1, out);
}

attune_status attune_position_rotate_in_place(attune_position *pe, attune_tensor *x, const attune_tensor *positions) {
    AT_TRY(at_check_open("x", x));
    if (!pe->inv_freq) return ATTUNE_OK;
    AT_TRY(check(pe, x, positions));
    return run(pe, x, positions, 1, x);
}
