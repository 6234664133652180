/* by_token.c - linear attention and its gradients token by token in double precision, where every
 * sum over keys has an exponent of its own. It is for heads whose exponents differ by more than the
 * engines in blocks can hold beside one stabiliser: a key of norm 40 next to keys of norm 1, or
 * queries and keys whose largest features are not the same ones. Only without epsilon, where the
 * stabiliser cancels, and for features that are exponentials.
 *
 * Feature m of token x is sigma_m e^(e_m): favor+ has sigma = 1 and e = w . x' (of a key, less
 * |x'|^2 / 2); trig has sines and cosines and e = 0 (of a key, |x'|^2 / 2). Rotation mixes two
 * features, which then share the larger exponent. A sum over keys is x e^(c): the sum of feature m
 * is relative to the max exponent of its terms. For a query, M = max of e_m + c_m, and
 *
 *   Z = sum_m sigma_m z_m e^(e_m + c_m - M)      o = sum_m sigma_m S_m e^(e_m + c_m - M) / Z
 *
 * never overflow, and Z of positive features is at least 1. The other names are those of
 * linear_reference.c; dN and dZ are relative to e^-M, and sums over queries have exponents too.
 */
#include <math.h>
#include <string.h>

#include "base/arena.h"
#include "base/int_math.h"
#include "base/parallel.h"
#include "base/status.h"
#include "linear/linear_problem.h"
#include "tensor/tensor.h"

/* Sums over tokens, one per feature: a number, and a row of Dv numbers. Both are relative to
 * e^exponent, with rotated features in the rows. */
typedef struct feature_sums {
    double *z, *z_exponent; /* [F] */
    double *s, *s_exponent; /* [F][Dv], [F] */
} feature_sums;

typedef struct token_features {
    double *sigma, *e;                  /* [F] */
    double *rotated, *rotated_exponent; /* [F] */
} token_features;

/* What is kept of a query for the gradients of keys. */
typedef struct kept_query {
    double M, Z, dZ;
} kept_query;

typedef struct token_job {
    const at_linear *p;
    attune_tensor *o;
    const at_linear_gradients *g; /* NULL: forward */
    int64_t b, kv;
    double *q_cos_sin, *k_cos_sin; /* [Sq], [Sk][dims]; NULL: nothing rotates */
    double *x, *v, *d_o, *row;     /* [D], [Dv], [Dv], [max(D, Dv)] */
    double *d, *y;                 /* [F] gradients of rotated features, of features times them */
    token_features f;
    feature_sums keys, queries;
    kept_query *kept; /* [G][Sq] */
} token_job;

/* ---- features -------------------------------------------------------------------------------- */

static void load(const attune_tensor *t, int64_t b, int64_t h, int64_t i, double *out) {
    const int64_t *s = t->stride;
    at_load_row_f64(t, b * s[0] + h * s[1] + i * s[2], s[3], t->shape[3], out);
}

static double dot(const double *x, const double *y, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] * y[i];
    return sum;
}

static bool is_trig(const token_job *j) { return j->p->features == ATTUNE_FEATURES_TRIG; }

/* The features of the token in j->x. cos_sin: of the token; NULL: no rotation. */
static void make_features(const token_job *j, bool key, const double *cos_sin) {
    const at_linear *p = j->p;
    const token_features *f = &j->f;
    const double half = key ? dot(j->x, j->x, p->D) / 2 / sqrt((double)p->D) : 0;
    for (int64_t m = 0; m < p->M; m++) {
        const double e = dot((const double *)p->projection.data + m * p->D, j->x, p->D);
        f->e[m] = is_trig(j) ? half : e - half;
        f->sigma[m] = is_trig(j) ? sin(e) : 1;
        if (!is_trig(j)) continue;
        f->e[p->M + m] = half;
        f->sigma[p->M + m] = cos(e);
    }
    memcpy(f->rotated, f->sigma, (size_t)p->F * sizeof *f->sigma);
    memcpy(f->rotated_exponent, f->e, (size_t)p->F * sizeof *f->e);
    const int64_t pairs = cos_sin ? p->rotate->dims / 2 : 0;
    for (int64_t i = 0; i < pairs; i++) {
        int64_t m, l;
        at_pair(p->rotate->pairing, pairs, i, &m, &l);
        const double e = fmax(f->e[m], f->e[l]), a = f->sigma[m] * exp(f->e[m] - e),
                     b = f->sigma[l] * exp(f->e[l] - e), cosine = cos_sin[i],
                     sine = cos_sin[pairs + i];
        f->rotated[m] = a * cosine - b * sine;
        f->rotated[l] = b * cosine + a * sine;
        f->rotated_exponent[m] = f->rotated_exponent[l] = e;
    }
}

static const double *key_features(const token_job *j, int64_t key) {
    const double *cos_sin = j->k_cos_sin ? j->k_cos_sin + key * j->p->rotate->dims : NULL;
    load(&j->p->k, j->b, j->kv, key, j->x);
    load(&j->p->v, j->b, j->kv, key, j->v);
    make_features(j, true, cos_sin);
    return cos_sin;
}

static const double *query_features(const token_job *j, int64_t h, int64_t i) {
    const double *cos_sin = j->q_cos_sin ? j->q_cos_sin + i * j->p->rotate->dims : NULL;
    load(&j->p->q, j->b, h, i, j->x);
    make_features(j, false, cos_sin);
    return cos_sin;
}

/* From j->y, the gradients of the features times e^e of the token in j->x, to its own gradient. A
 * key has |x'|^2 / 2 in its exponent: `along` is its sign. */
static void store_gradient(const token_job *j, double along, attune_tensor *to, int64_t h,
                           int64_t i) {
    const at_linear *p = j->p;
    const double *sigma = j->f.sigma, *y = j->y;
    double sum = 0;
    memset(j->row, 0, (size_t)p->D * sizeof *j->row);
    for (int64_t m = 0; m < p->M; m++) {
        const double *w = (const double *)p->projection.data + m * p->D;
        double slope = y[m];
        if (is_trig(j)) {
            slope = y[m] * sigma[p->M + m] - y[p->M + m] * sigma[m];
            sum += y[m] * sigma[m] + y[p->M + m] * sigma[p->M + m];
        } else {
            sum += y[m];
        }
        for (int64_t d = 0; d < p->D; d++) j->row[d] += slope * w[d];
    }
    for (int64_t d = 0; d < p->D && along != 0; d++)
        j->row[d] += along * sum * j->x[d] / sqrt((double)p->D);
    at_store_row_f64(to, ((j->b * to->shape[1] + h) * to->shape[2] + i) * p->D, 1, p->D, j->row);
}

/* ---- sums ------------------------------------------------------------------------------------ */

static void clear(const at_linear *p, feature_sums *sums) {
    memset(sums->z, 0, (size_t)p->F * sizeof *sums->z);
    memset(sums->s, 0, (size_t)(p->F * p->Dv) * sizeof *sums->s);
    for (int64_t m = 0; m < p->F; m++) sums->z_exponent[m] = sums->s_exponent[m] = -INFINITY;
}

/* A sum gets a term with exponent e: its exponent becomes the larger one. *before: the factor of
 * the sum so far. Returns the factor of the term. */
static double grow(double *exponent, double e, double *before) {
    *before = 1;
    if (e <= *exponent) return exp(e - *exponent);
    *before = exp(*exponent - e);
    *exponent = e;
    return 1;
}

/* sums += the features in j->f, times weight for z, and times x [Dv] for s, all times e^shift. */
static void add_features(const token_job *j, double weight, const double *x, double shift,
                         feature_sums *sums) {
    const int64_t Dv = j->p->Dv;
    for (int64_t m = 0; m < j->p->F; m++) {
        double before, factor = grow(&sums->z_exponent[m], j->f.e[m] + shift, &before);
        sums->z[m] = sums->z[m] * before + j->f.sigma[m] * factor * weight;
        factor = grow(&sums->s_exponent[m], j->f.rotated_exponent[m] + shift, &before);
        factor *= j->f.rotated[m];
        double *s = sums->s + m * Dv;
        if (before != 1)
            for (int64_t d = 0; d < Dv; d++) s[d] *= before;
        for (int64_t d = 0; d < Dv; d++) s[d] += factor * x[d];
    }
}

/* out [Dv] = sum over features of s, times the token's rotated features, times e^shift. */
static void read_sums(const token_job *j, const feature_sums *sums, double shift, double *out) {
    const int64_t Dv = j->p->Dv;
    memset(out, 0, (size_t)Dv * sizeof *out);
    for (int64_t m = 0; m < j->p->F; m++) {
        const double e = j->f.rotated_exponent[m] + sums->s_exponent[m] + shift,
                     factor = j->f.rotated[m] * exp(e), *s = sums->s + m * Dv;
        for (int64_t d = 0; d < Dv; d++) out[d] += factor * s[d];
    }
}

/* j->y: the gradients of the token's features through sums, times e^(e_m + shift): through s, where
 * x [Dv] is the gradient of what read_sums gives, and through z, where it is dz. */
static void features_through(const token_job *j, const feature_sums *sums, const double *x,
                             double dz, double shift, const double *cos_sin) {
    const at_linear *p = j->p;
    const int64_t pairs = cos_sin ? p->rotate->dims / 2 : 0;
    for (int64_t m = 0; m < p->F; m++) j->d[m] = dot(sums->s + m * p->Dv, x, p->Dv);
    for (int64_t i = 0; i < pairs; i++) { /* both sums of a pair have the same exponent */
        int64_t m, l;
        at_pair(p->rotate->pairing, pairs, i, &m, &l);
        const double a = j->d[m], b = j->d[l], cosine = cos_sin[i], sine = cos_sin[pairs + i];
        j->d[m] = a * cosine + b * sine;
        j->d[l] = b * cosine - a * sine;
    }
    for (int64_t m = 0; m < p->F; m++)
        j->y[m] = j->d[m] * exp(sums->s_exponent[m] + j->f.e[m] + shift) +
                  dz * sums->z[m] * exp(sums->z_exponent[m] + j->f.e[m] + shift);
}

/* ---- tokens ---------------------------------------------------------------------------------- */

/* The output of a query against the keys so far, or its gradient. */
static void run_query(const token_job *j, int64_t g, int64_t i) {
    const at_linear *p = j->p;
    const int64_t h = j->kv * p->G + g, index = (j->b * p->Hq + h) * p->Sq + i;
    const double *cos_sin = query_features(j, h, i);
    const feature_sums *sums = &j->keys;
    double M = -INFINITY, Z = 0, along = 0, *o = j->v;
    for (int64_t m = 0; m < p->F; m++) M = fmax(M, j->f.e[m] + sums->z_exponent[m]);
    for (int64_t m = 0; m < p->F; m++)
        Z += j->f.sigma[m] * sums->z[m] * exp(j->f.e[m] + sums->z_exponent[m] - M);
    read_sums(j, sums, -M, o);
    for (int64_t d = 0; d < p->Dv; d++) o[d] = Z == 0 ? 0 : o[d] / Z;
    if (!j->g) {
        at_store_row_f64(j->o, index * p->Dv, 1, p->Dv, o);
        return;
    }
    load(j->g->d_o, j->b, h, i, j->d_o);
    for (int64_t d = 0; d < p->Dv; d++) {
        j->d_o[d] = Z == 0 ? 0 : j->d_o[d] / Z;
        along += j->d_o[d] * o[d];
    }
    j->kept[g * p->Sq + i] = (kept_query){.M = M, .Z = Z, .dZ = -along};
    features_through(j, sums, j->d_o, -along, -M, cos_sin);
    store_gradient(j, 0, j->g->dq, h, i);
}

/* The sums over queries += query i. */
static void add_query(token_job *j, int64_t g, int64_t i) {
    const kept_query kept = j->kept[g * j->p->Sq + i];
    query_features(j, j->kv * j->p->G + g, i);
    load(j->g->d_o, j->b, j->kv * j->p->G + g, i, j->d_o);
    for (int64_t d = 0; d < j->p->Dv; d++) j->d_o[d] = kept.Z == 0 ? 0 : j->d_o[d] / kept.Z;
    add_features(j, kept.dZ, j->d_o, -kept.M, &j->queries);
}

/* The gradients of a key and its value through the sums over queries. */
static void run_key_back(const token_job *j, int64_t key) {
    const at_linear *p = j->p;
    const double *cos_sin = key_features(j, key);
    const int64_t index = ((j->b * p->Hk + j->kv) * p->Sk + key) * p->Dv;
    read_sums(j, &j->queries, 0, j->row);
    at_store_row_f64(j->g->dv, index, 1, p->Dv, j->row);
    features_through(j, &j->queries, j->v, 1, 0, cos_sin);
    store_gradient(j, is_trig(j) ? 1 : -1, j->g->dk, j->kv, key);
}

/* ---- a kv head ------------------------------------------------------------------------------- */

static attune_status run(token_job *j) {
    const at_linear *p = j->p;
    const int64_t offset = p->Sk - p->Sq; /* query i is token i + offset */
    clear(p, &j->keys);
    clear(p, &j->queries);
    for (int64_t key = 0; key < p->Sk; key++) {
        const int64_t i = key - offset;
        if (at_interrupted()) return at_interrupted_status();
        key_features(j, key);
        add_features(j, 1, j->v, 0, &j->keys);
        for (int64_t g = 0; g < p->G && p->causal && i >= 0; g++) run_query(j, g, i);
    }
    for (int64_t i = 0; i < p->Sq && !p->causal; i++) {
        if (at_interrupted()) return at_interrupted_status();
        for (int64_t g = 0; g < p->G; g++) {
            run_query(j, g, i);
            if (j->g) add_query(j, g, i);
        }
    }
    for (int64_t key = p->Sk - 1; key >= 0 && j->g; key--) {
        const int64_t i = key - offset;
        if (at_interrupted()) return at_interrupted_status();
        for (int64_t g = 0; g < p->G && p->causal && i >= 0; g++) add_query(j, g, i);
        run_key_back(j, key);
    }
    return ATTUNE_OK;
}

static attune_status make_rotations(token_job *j) {
    const at_linear *p = j->p;
    if (!p->rotate) return ATTUNE_OK;
    AT_TRY(at_rotation_f64(p->rotate, 0, p->Sk, ATTUNE_KEY, p->Sk, j->k_cos_sin));
    return at_rotation_f64(p->rotate, p->Sk - p->Sq, p->Sq, ATTUNE_QUERY, p->Sk, j->q_cos_sin);
}

static void carve(at_arena *a, token_job *j) {
    const at_linear *p = j->p;
    const int64_t F = p->F, dims = p->rotate ? p->rotate->dims : 0, rows = at_checked_mul(F, p->Dv);
    double **const features[] = {&j->f.sigma,
                                 &j->f.e,
                                 &j->f.rotated,
                                 &j->f.rotated_exponent,
                                 &j->d,
                                 &j->y,
                                 &j->keys.z,
                                 &j->keys.z_exponent,
                                 &j->keys.s_exponent,
                                 &j->queries.z,
                                 &j->queries.z_exponent,
                                 &j->queries.s_exponent};
    for (int i = 0; i < 12; i++) *features[i] = at_arena_take(a, F, sizeof(double));
    j->keys.s = at_arena_take(a, rows, sizeof(double));
    j->queries.s = at_arena_take(a, rows, sizeof(double));
    j->x = at_arena_take(a, p->D, sizeof(double));
    j->v = at_arena_take(a, p->Dv, sizeof(double));
    j->d_o = at_arena_take(a, p->Dv, sizeof(double));
    j->row = at_arena_take(a, p->D > p->Dv ? p->D : p->Dv, sizeof(double));
    j->kept = at_arena_take(a, at_checked_mul(p->G, p->Sq), sizeof *j->kept);
    j->k_cos_sin = p->rotate ? at_arena_take(a, at_checked_mul(p->Sk, dims), sizeof(double)) : NULL;
    j->q_cos_sin = p->rotate ? at_arena_take(a, at_checked_mul(p->Sq, dims), sizeof(double)) : NULL;
}

attune_status at_linear_by_token(const at_linear *p, int64_t head, attune_tensor *o,
                                 const at_linear_gradients *g) {
    token_job j = {.p = p, .o = o, .g = g, .b = head / p->Hk, .kv = head % p->Hk};
    at_arena arena = {0};
    carve(&arena, &j);
    AT_TRY(at_arena_alloc(&arena));
    carve(&arena, &j);
    attune_status status = make_rotations(&j);
    if (status == ATTUNE_OK) status = run(&j);
    at_arena_free(&arena);
    return status;
}

typedef struct again_job {
    const at_linear *p;
    const atomic_bool *again;
    attune_tensor *o;
    const at_linear_gradients *g;
} again_job;

static attune_status again_task(void *context, int64_t head, int thread) {
    const again_job *j = context;
    (void)thread;
    return j->again[head] ? at_linear_by_token(j->p, head, j->o, j->g) : ATTUNE_OK;
}

attune_status at_linear_again(const at_linear *p, const atomic_bool *again, attune_tensor *o,
                              const at_linear_gradients *g) {
    again_job j = {.p = p, .again = again, .o = o, .g = g};
    bool any = false;
    for (int64_t head = 0; head < p->B * p->Hk; head++) any = any || again[head];
    return any ? at_parallel(p->B * p->Hk, again_task, &j) : ATTUNE_OK;
}
