/* rotate.c - what all rotating encodings share: tables of cosines and sines, and the rotation of a
 * token and of whole tensors.
 *
 * Pair (x, y) of the dims rotates by an angle. Cosine and sine carry the same scale.
 *   x' = x cos - y sin      y' = y cos + x sin
 * Tables are computed in f64 and kept in f32. f64 tensors use the f64 values.
 */
#include <math.h>
#include <string.h>

#include "base/int_math.h"
#include "base/memory.h"
#include "base/parallel.h"
#include "base/status.h"
#include "position/rotate.h"
#include "simd/table.h"
#include "tensor/tensor.h"

/* Rotations of positions below this one are kept once computed: text of this length is common, a
 * single position far beyond it is not. */
enum { MAX_KEPT = 1 << 17 };

/* ---- tables ---------------------------------------------------------------------------------- */

static void table_release(at_rotation_table *t) {
    if (t && --t->uses == 0) {
        at_free(t->cosine);
        at_free(t);
    }
}

static attune_status table_new(int64_t rows, int64_t pairs, at_rotation_table **out) {
    at_rotation_table *t = *out = at_alloc_zeroed((int64_t)sizeof *t);
    if (!t) return ATTUNE_EMEMORY;
    t->cosine =
        at_alloc(at_checked_mul(at_checked_mul(rows, pairs), 2 * (int64_t)sizeof *t->cosine));
    t->uses = 1;
    t->rows = rows;
    if (t->cosine) {
        t->sine = t->cosine + rows * pairs;
        return ATTUNE_OK;
    }
    at_free(t);
    *out = NULL;
    return ATTUNE_EMEMORY;
}

/* The frequencies of one call, and scratch. */
typedef struct call {
    const double *frequencies;
    int slot;        /* index into pe->kept; -1: this call's rotations are not kept */
    double *own;     /* [pairs] frequencies that only this call uses, or NULL */
    double *cos_sin; /* [2][pairs] scratch for one row */
} call;

static void call_end(call *c) {
    at_free(c->own);
    at_free(c->cos_sin);
}

static attune_status call_begin(const attune_position *pe, int64_t length, attune_side side,
                                call *out) {
    const int64_t bytes = pe->dims / 2 * (int64_t)sizeof(double);
    *out = (call){.frequencies = pe->inv_freq,
                  .slot = pe->sided && side == ATTUNE_KEY ? 1 : 0,
                  .cos_sin = at_alloc(2 * bytes)};
    if (!out->cos_sin) return ATTUNE_EMEMORY;
    if (!pe->longest || length <= pe->longest) return ATTUNE_OK;
    if (pe->inv_freq_long) {
        out->frequencies = pe->inv_freq_long;
        out->slot = 1;
        return ATTUNE_OK;
    }
    out->own = at_alloc(bytes);
    if (!out->own) {
        call_end(out);
        return ATTUNE_EMEMORY;
    }
    pe->long_frequencies(pe, length, out->own);
    out->frequencies = out->own;
    out->slot = -1;
    return ATTUNE_OK;
}

attune_status at_rotation_f64(const attune_position *pe, int64_t first, int64_t S, attune_side side,
                              int64_t length, double *out) {
    const int64_t pairs = pe->dims / 2;
    call c;
    AT_TRY(call_begin(pe, length, side, &c));
    attune_status status = ATTUNE_OK;
    for (int64_t i = 0, at = first; i < S && status == ATTUNE_OK; i++) {
        status = pe->cos_sin(pe, c.frequencies, &at, side, out + i * 2 * pairs,
                             out + (i * 2 + 1) * pairs);
        at++;
    }
    call_end(&c);
    return status;
}

static attune_status fill_row(const attune_position *pe, const call *c, const int64_t *at,
                              attune_side side, at_rotation_table *t, int64_t row) {
    const int64_t pairs = pe->dims / 2;
    AT_TRY(pe->cos_sin(pe, c->frequencies, at, side, c->cos_sin, c->cos_sin + pairs));
    for (int64_t i = 0; i < pairs; i++) {
        t->cosine[row * pairs + i] = (float)c->cos_sin[i];
        t->sine[row * pairs + i] = (float)c->cos_sin[pairs + i];
    }
    return ATTUNE_OK;
}

/* Extends the kept table to positions 0 .. n - 1. A call that still holds the shorter table keeps
 * it alive. */
static attune_status extend_kept(attune_position *pe, const call *c, attune_side side, int64_t n) {
    at_rotation_table *old = pe->kept[c->slot], *t;
    const int64_t pairs = pe->dims / 2, have = old ? old->rows : 0;
    if (n <= have) return ATTUNE_OK;
    int64_t rows = have ? have : 64;
    while (rows < n) rows *= 2;
    attune_status status = table_new(rows, pairs, &t);
    if (status != ATTUNE_OK) return status;
    if (have) {
        memcpy(t->cosine, old->cosine, (size_t)(have * pairs) * sizeof *t->cosine);
        memcpy(t->sine, old->sine, (size_t)(have * pairs) * sizeof *t->sine);
    }
    for (int64_t at = have; at < rows; at++) {
        status = fill_row(pe, c, &at, side, t, at);
        if (status == ATTUNE_OK) continue;
        if (at < n) {
            table_release(t);
            return status;
        }
        t->rows = at; /* positions from here on have no rotation, and none was asked for */
        break;
    }
    table_release(old);
    pe->kept[c->slot] = t;
    return ATTUNE_OK;
}

/* ---- the rotation of one call -------------------------------------------------------------------
 */

/* Axis a of the position of token s of row b. */
static int64_t position_of(const attune_position *pe, const attune_tensor *p, int64_t b, int64_t s,
                           int a) {
    const int first = p->rank - (pe->axes > 1 ? 2 : 1);
    return ((const int64_t *)p->data)[(first ? b * p->stride[0] : 0) + s * p->stride[first] +
                                      (pe->axes > 1 ? a * p->stride[first + 1] : 0)];
}

int64_t at_positions_length(const attune_tensor *p) {
    int64_t max = 0;
    const bool rows = p->rank == 2;
    for (int64_t b = 0; b < (rows ? p->shape[0] : 1); b++) {
        for (int64_t s = 0; s < p->shape[p->rank - 1]; s++) {
            const int64_t t =
                ((const int64_t *)
                     p->data)[(rows ? b * p->stride[0] : 0) + s * p->stride[p->rank - 1]];
            if (t > max && t < INT64_MAX) max = t;
        }
    }
    return max + 1;
}

/* Makes a table that only this call uses, one row per token, for positions that are not kept. */
static attune_status own_table(const attune_position *pe, const call *c,
                               const attune_tensor *positions, attune_side side, int64_t lists,
                               int64_t S, at_rotation *t) {
    AT_TRY(table_new(lists * S, pe->dims / 2, &t->table));
    for (int64_t n = 0; n < lists * S; n++) {
        int64_t at[2] = {t->row[n], 0};
        if (pe->axes > 1) at[1] = position_of(pe, positions, n / S, n % S, 1);
        AT_TRY(fill_row(pe, c, at, side, t->table, n));
        t->row[n] = n;
    }
    return ATTUNE_OK;
}

attune_status at_rotation_make(attune_position *pe, const attune_tensor *positions,
                               const int64_t *first, int64_t firsts, int64_t B, int64_t S,
                               attune_side side, int64_t length, at_rotation *out) {
    memset(out, 0, sizeof *out);
    if (!pe->inv_freq) return ATTUNE_OK;
    if (pe->axes > 1 && !positions)
        return at_fail(ATTUNE_EVALUE,
                       "positions: expected a row and a column for each token with %s, got none",
                       pe->name);
    const int64_t lists = !positions ? firsts : positions->rank > pe->axes ? B : 1;
    out->dims = pe->dims;
    out->head_dim = pe->head_dim;
    out->blocks = pe->blocks;
    out->pairing = pe->pairing;
    out->scales = pe->sided;
    out->batch_stride = lists > 1 ? S : 0;
    out->row = at_alloc(at_checked_mul(at_checked_mul(lists, S), (int64_t)sizeof *out->row));
    if (!out->row) return ATTUNE_EMEMORY;
    int64_t min = 0, max = -1;
    for (int64_t b = 0; b < lists; b++) {
        for (int64_t s = 0; s < S; s++) {
            const int64_t t = out->row[b * S + s] =
                positions ? position_of(pe, positions, b, s, 0) : first[b] + s;
            if (t > max) max = t;
            if (t < min) min = t;
        }
    }
    call c;
    attune_status status = call_begin(pe,
                                      length            ? length
                                      : max < INT64_MAX ? max + 1
                                                        : max,
                                      side, &c);
    if (status == ATTUNE_OK) {
        const bool kept = min >= 0 && max < MAX_KEPT && pe->axes <= 1 && c.slot >= 0;
        status = kept ? extend_kept(pe, &c, side, max + 1) : ATTUNE_EVALUE;
        if (status == ATTUNE_OK) {
            out->table = pe->kept[c.slot];
            out->table->uses++;
        } else if (status == ATTUNE_EVALUE) {
            /* Not kept, or a position up to max has no rotation: perhaps none of the call's. */
            status = own_table(pe, &c, positions, side, lists, S, out);
        }
        call_end(&c);
    }
    if (status != ATTUNE_OK) {
        at_rotation_free(out);
        return status;
    }
    out->cosine = out->table->cosine;
    out->sine = out->table->sine;
    return ATTUNE_OK;
}

void at_rotation_free(at_rotation *rotation) {
    at_free(rotation->row);
    table_release(rotation->table);
    memset(rotation, 0, sizeof *rotation);
}

static void rotate_token(const at_rotation *t, int64_t b, int64_t token, const float *x, float sign,
                         float *out) {
    const at_elementwise_kernels *kernels = &at_simd_now()->elementwise;
    const int64_t all = t->dims / 2, row = t->row[b * t->batch_stride + token] * all,
                  pairs = all / t->blocks;
    for (int64_t n = 0; n < all; n += pairs)
        (t->pairing == ATTUNE_HALF ? kernels->rotate_halves : kernels->rotate_pairs)(
            x + 2 * n, t->cosine + row + n, t->sine + row + n, sign, pairs, out + 2 * n);
    if (out != x && t->dims < t->head_dim)
        memcpy(out + t->dims, x + t->dims, (size_t)(t->head_dim - t->dims) * sizeof *x);
}

void at_rotate_token(const at_rotation *t, int64_t b, int64_t token, const float *x, float *out) {
    rotate_token(t, b, token, x, 1, out);
}

void at_rotate_token_back(const at_rotation *t, int64_t b, int64_t token, const float *x,
                          float *out) {
    rotate_token(t, b, token, x, -1, out);
}

/* ---- the range of f16 ------------------------------------------------------------------------ */

double at_rotation_scale(const at_rotation *t, int64_t b, int64_t token) {
    const int64_t pairs = t->dims / 2, row = t->row[b * t->batch_stride + token] * pairs;
    double min = INFINITY, max = 0;
    for (int64_t i = 0; i < pairs; i++) {
        const double scale = hypot((double)t->cosine[row + i], (double)t->sine[row + i]);
        min = fmin(min, scale);
        max = fmax(max, scale);
    }
    return max > 1.001 ? max : min;
}

attune_status at_check_f16_range(const float *x, int64_t n, double scale, int64_t position) {
    float max = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(x[i])) return ATTUNE_OK; /* it was not finite before */
        max = fmaxf(max, fabsf(x[i]));
    }
    if (max <= 65504.0f && scale >= 0x1p-16) return ATTUNE_OK;
    return at_fail(ATTUNE_EVALUE,
                   "dtype: expected bf16 or f32 for xpos at position %lld: its scale there, %.3g, "
                   "leaves the range of f16",
                   (long long)position, scale);
}

/* ---- rotation of whole tensors --------------------------------------------------------------- */

typedef struct rotate_job {
    attune_position *pe;
    const attune_tensor *x, *positions, *out;
    attune_side side;
    at_rotation rotation; /* but for f64 */
    call call;            /* of f64 */
    double *cosine;       /* [threads][2][dims / 2], of f64 */
    float sign;           /* -1: backwards */
    float *row;           /* [threads][head_dim] */
} rotate_job;

enum { TASK_ELEMENTS = 1 << 15 };

static attune_status rotate_f64(const rotate_job *j, int64_t from, int64_t to, int64_t b, int64_t s,
                                int thread) {
    const attune_position *pe = j->pe;
    const int64_t all = pe->dims / 2, pairs = all / pe->blocks, xs = j->x->stride[3],
                  os = j->out->stride[3];
    const double *x = (const double *)j->x->data + from;
    double *out = (double *)j->out->data + to, *cosine = j->cosine + thread * 2 * all,
           *sine = cosine + all;
    int64_t at[2] = {s, 0};
    for (int a = 0; j->positions && a < pe->axes; a++)
        at[a] = position_of(pe, j->positions, b, s, a);
    AT_TRY(pe->cos_sin(pe, j->call.frequencies, at, j->side, cosine, sine));
    for (int64_t i = 0; i < all; i++) {
        int64_t m, n;
        at_pair(pe->pairing, pairs, i % pairs, &m, &n);
        m += i / pairs * 2 * pairs;
        n += i / pairs * 2 * pairs;
        const double a = x[m * xs], c = x[n * xs], sin = sine[i] * (double)j->sign;
        out[m * os] = a * cosine[i] - c * sin;
        out[n * os] = c * cosine[i] + a * sin;
    }
    for (int64_t d = pe->dims; d < pe->head_dim; d++) out[d * os] = x[d * xs];
    return ATTUNE_OK;
}

static attune_status rotate_task(void *context, int64_t task, int thread) {
    rotate_job *j = context;
    const int64_t *n = j->x->shape, *xs = j->x->stride, *os = j->out->stride, D = j->pe->head_dim;
    const int64_t rows_per_task = TASK_ELEMENTS / D + 1, rows = n[0] * n[1] * n[2];
    float *row_f32 = j->row + thread * D;
    for (int64_t row = task * rows_per_task; row < (task + 1) * rows_per_task && row < rows;
         row++) {
        const int64_t s = row % n[2], h = row / n[2] % n[1], b = row / n[2] / n[1];
        const int64_t from = b * xs[0] + h * xs[1] + s * xs[2],
                      to = b * os[0] + h * os[1] + s * os[2];
        if (j->x->dtype == ATTUNE_F64) {
            AT_TRY(rotate_f64(j, from, to, b, s, thread));
        } else if (j->x->dtype == ATTUNE_F32 && xs[3] == 1 && os[3] == 1) {
            rotate_token(&j->rotation, b, s, (const float *)j->x->data + from, j->sign,
                         (float *)j->out->data + to);
        } else {
            at_load_row(j->x, from, xs[3], D, row_f32);
            rotate_token(&j->rotation, b, s, row_f32, j->sign, row_f32);
            if (j->rotation.scales && j->out->dtype == ATTUNE_F16)
                AT_TRY(at_check_f16_range(row_f32, D, at_rotation_scale(&j->rotation, b, s),
                                          j->positions ? position_of(j->pe, j->positions, b, s, 0)
                                                       : s));
            at_store_row(j->out, to, os[3], D, row_f32);
        }
    }
    return ATTUNE_OK;
}

static attune_status run(attune_position *pe, const attune_tensor *x,
                         const attune_tensor *positions, attune_side side, int64_t length,
                         float sign, const attune_tensor *out) {
    rotate_job job = {
        .pe = pe, .x = x, .positions = positions, .out = out, .side = side, .sign = sign};
    const int64_t *n = x->shape, zero = 0, rows_per_task = TASK_ELEMENTS / pe->head_dim + 1;
    attune_status status;
    if (x->dtype == ATTUNE_F64) {
        if (!length) length = pe->axes > 1 ? 1 : positions ? at_positions_length(positions) : n[2];
        status = call_begin(pe, length, side, &job.call);
        if (status != ATTUNE_OK) return status;
        job.cosine = at_alloc(at_threads() * pe->dims * (int64_t)sizeof *job.cosine);
        if (!job.cosine) status = ATTUNE_EMEMORY;
    } else {
        status = at_rotation_make(pe, positions, &zero, 1, n[0], n[2], side, length, &job.rotation);
    }
    if (status == ATTUNE_OK) {
        job.row = at_alloc(at_threads() * pe->head_dim * (int64_t)sizeof *job.row);
        status =
            job.row ? at_parallel(at_ceil_div(n[0] * n[1] * n[2], rows_per_task), rotate_task, &job)
                    : ATTUNE_EMEMORY;
    }
    at_free(job.row);
    at_free(job.cosine);
    call_end(&job.call);
    at_rotation_free(&job.rotation);
    return status;
}

static attune_status check(const attune_position *pe, const attune_tensor *x,
                           const attune_tensor *positions) {
    if (x->rank != 4 || x->shape[3] != pe->head_dim) {
        return at_fail(ATTUNE_ESHAPE,
                       "x: expected [batch, heads, tokens, head_dim] with head_dim %lld, got %s",
                       (long long)pe->head_dim, at_shape_text(x->rank, x->shape));
    }
    if (at_is_integer(x->dtype)) {
        return at_fail(ATTUNE_EDTYPE, "x: expected a float dtype, got %s",
                       attune_dtype_name(x->dtype));
    }
    return at_check_positions(pe, positions, x->shape[0], x->shape[2]);
}

static attune_status rotated(attune_position *pe, const attune_tensor *x,
                             const attune_tensor *positions, attune_side side, int64_t length,
                             float sign, attune_tensor *out) {
    attune_tensor from = *x;
    memset(out, 0, sizeof *out);
    AT_TRY(at_check_open("x", &from));
    if (!pe->inv_freq) return attune_tensor_share(&from, out);
    AT_TRY(check(pe, &from, positions));
    AT_TRY(at_tensor_new(from.dtype, 4, from.shape, out));
    attune_status status = run(pe, &from, positions, side, length, sign, out);
    if (status != ATTUNE_OK) attune_tensor_close(out);
    return status;
}

attune_status at_position_rotate(attune_position *pe, const attune_tensor *x,
                                 const attune_tensor *positions, attune_side side, int64_t length,
                                 attune_tensor *out) {
    return rotated(pe, x, positions, side, length, 1, out);
}

attune_status at_position_rotate_back(attune_position *pe, const attune_tensor *x,
                                      const attune_tensor *positions, attune_side side,
                                      int64_t length, attune_tensor *out) {
    return rotated(pe, x, positions, side, length, -1, out);
}

attune_status attune_position_rotate(attune_position *pe, const attune_tensor *x,
                                     const attune_tensor *positions, attune_side side,
                                     attune_tensor *out) {
    return rotated(pe, x, positions, side, 0, 1, out);
}

attune_status attune_position_rotate_backward(attune_position *pe, const attune_tensor *d_out,
                                              const attune_tensor *positions, attune_side side,
                                              attune_tensor *dx) {
    return rotated(pe, d_out, positions, side, 0, -1, dx);
}

attune_status attune_position_rotate_in_place(attune_position *pe, attune_tensor *x,
                                              const attune_tensor *positions, attune_side side) {
    AT_TRY(at_check_open("x", x));
    if (!pe->inv_freq) return ATTUNE_OK;
    AT_TRY(check(pe, x, positions));
    at_tensor_written(x);
    return run(pe, x, positions, side, 0, 1, x);
}

/* ---- making and closing
 * ---------------------------------------------------------------------------------- */

attune_status at_check_rotary(int64_t head_dim, int64_t *dims, double *base,
                              attune_pairing pairing) {
    if (head_dim < 2)
        return at_fail(ATTUNE_EVALUE, "head_dim: expected at least 2, got %lld",
                       (long long)head_dim);
    if (*dims == 0) *dims = head_dim;
    if (*dims < 2 || *dims % 2 || *dims > head_dim) {
        return at_fail(ATTUNE_EVALUE,
                       "dims: expected an even number from 2 to head_dim, %lld, got %lld",
                       (long long)head_dim, (long long)*dims);
    }
    if (*base == 0) *base = 10000;
    if (!(*base > 0) || isinf(*base))
        return at_fail(ATTUNE_EVALUE, "base: expected a positive number, got %g", *base);
    if (pairing != ATTUNE_HALF && pairing != ATTUNE_INTERLEAVED)
        return at_fail(ATTUNE_EVALUE, "pairing: expected half or interleaved, got number %d",
                       (int)pairing);
    return ATTUNE_OK;
}

static void rotary_close(attune_position *pe) {
    for (int i = 0; i < 2; i++) table_release(pe->kept[i]);
    at_free(pe->inv_freq);
    at_free(pe->inv_freq_long);
}

attune_status at_rotary_new(const char *name, int64_t head_dim, int64_t dims, double base,
                            attune_pairing pairing, attune_position **out) {
    attune_position *pe;
    *out = NULL;
    AT_TRY(at_position_new(name, ATTUNE_ROTATES, &pe));
    pe->close = rotary_close;
    pe->head_dim = head_dim;
    pe->dims = dims;
    pe->base = base;
    pe->pairing = pairing;
    pe->blocks = 1;
    pe->axes = 1;
    pe->inv_freq = at_alloc(at_checked_mul(dims / 2, (int64_t)sizeof *pe->inv_freq));
    if (!pe->inv_freq) {
        attune_position_close(pe);
        return ATTUNE_EMEMORY;
    }
    *out = pe;
    return ATTUNE_OK;
}
