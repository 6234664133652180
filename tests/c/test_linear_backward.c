/* test_linear_backward.c - gradients of linear attention: in f64 against differences, in f32
 * against f64 within a bound that follows from the problem. */
#include "linear_cases.h"
#include "test.h"

#if defined FEW_CASES
enum { PROBLEMS = 40, STEP = 11 };
#else
enum { PROBLEMS = 200, STEP = 3 };
#endif

static double value_of(const linear_case *c, const attune_tensor *d_o) {
    attune_tensor o, g;
    double sum = 0;
    MUST(attune_linear_attention(&c->q, &c->k, &c->v, &c->options, &o));
    MUST(attune_tensor_contiguous(d_o, &g));
    for (int64_t i = 0, n = attune_tensor_count(&o); i < n; i++)
        sum += ((const double *)o.data)[i] * ((const double *)g.data)[i];
    attune_tensor_close(&o);
    attune_tensor_close(&g);
    return sum;
}

static void gradients_agree_with_differences(void **state) {
    (void)state;
    for (int n = 0; n < 32; n++) {
        linear_case c = {.seed = (uint64_t)n,
                         .B = 1,
                         .Hq = 4,
                         .Hk = 2,
                         .Sq = n % 3 ? 9 : 6,
                         .Sk = n % 3 == 2 ? 7 : 9,
                         .D = 5,
                         .Dv = 3,
                         .M = 6,
                         .dtype = ATTUNE_F64};
        c.options = (attune_linear_options){.causal = n & 1,
                                            .features = (attune_features)(n / 2 % 4),
                                            .epsilon = n & 8 || n / 2 % 4 == 2 ? 0.05 : 0,
                                            .block = 4};
        linear_tensors(&c);
        if (c.options.features == ATTUNE_FEATURES_TRIG)
            c.options.epsilon += 2; /* keeps denominators away from 0 */
        if (n & 16) linear_turn(&c, n & 4 ? ATTUNE_HALF : ATTUNE_INTERLEAVED);
        const int64_t shape[4] = {1, 4, c.Sq, 3};
        attune_tensor d_o, d[3], *in[3] = {&c.q, &c.k, &c.v};
        random_tensor(99, shape, ATTUNE_F64, true, &d_o);
        MUST(attune_linear_attention_backward(&d_o, &c.q, &c.k, &c.v, &c.options, &d[0], &d[1],
                                              &d[2]));
        for (int t = 0; t < 3; t++) {
            for (int64_t i = 0, count = attune_tensor_count(in[t]); i < count; i++) {
                double *x = (double *)in[t]->data + i, before = *x, value[2];
                for (int side = 0; side < 2; side++) {

                    *x = before + (side ? 1e-5 : -1e-5);
                    value[side] = value_of(&c, &d_o);
                }
                *x = before;
                const double slope = (value[1] - value[0]) / 2e-5,
                             got = ((const double *)d[t].data)[i];
                if (!(fabs(slope - got) <= 1e-6 * (1 + fabs(slope))))
                    fail_msg("gradient %d, element %d: %g, got %g: %s", t, (int)i, slope, got,
                             linear_text(&c));
            }
            attune_tensor_close(&d[t]);
        }
        attune_tensor_close(&d_o);
        linear_close(&c);
    }
}

/* ---- the bound ------------------------------------------------------------------------------
 *
 * A gradient is a sum of products: of features, values, slopes of outputs, rows of the projection,
 * and quotients by Z. An f32 result may differ by the products' absolute values, each times the
 * relative error of its factors. A product has at most 8 features, Z's among them: each errs by 4
 * units and by twice the max_exponent sum of |w x'| and |x'|^2 / 2, as it is their exponential; and
 * Z_i errs relatively by as much as the sum of its terms' absolute values is greater than itself.
 *
 * Where a ReLU's w . x' has no certain sign its whole slope may be there or not. */

typedef struct token {
    double *x, *value, *size,
        *rotated;        /* [D], [F]: features, their absolute values at most, and rotated ones' */
    double *row;         /* [M] the factor of a feature's gradient before w . x' */
    bool *unsure;        /* [M] */
    int64_t best;        /* of w . x' */
    double max_exponent; /* w . x', or, trig, |x'|^2 / 2 */
} token;

typedef struct bounds {
    const linear_case *c;
    double error; /* of a product, relatively */
    double *back; /* [F] */
    double *w;    /* [M][D] times D^(-1/4) */
} bounds;

static void *room(int64_t n) { return calloc((size_t)(n > 0 ? n : 1), sizeof(double)); }

/* Absolute values at most after a rotation, either way. */
static void rotate_sizes(const linear_case *c, const double *x, double *out) {
    memcpy(out, x, (size_t)c->F * sizeof *x);
    for (int64_t i = 0; c->pe && i < c->pe->dims / 2; i++) {
        const int64_t m = c->pe->pairing == ATTUNE_HALF ? i : 2 * i,
                      l = c->pe->pairing == ATTUNE_HALF ? i + c->pe->dims / 2 : 2 * i + 1;
        out[m] = out[l] = hypot(x[m], x[l]);
    }
}

/* The features of x; shift NAN: x is a query. *rounding grows to the max sum of the terms of its
 * exponents. */
static void token_make(const bounds *s, const attune_tensor *t, int64_t b, int64_t h, int64_t i,
                       double shift, double *rounding, token *out) {
    const linear_case *c = s->c;
    const double epsilon = c->options.epsilon;
    double half = 0, *e = room(c->M), *terms = room(c->M);
    out->x = room(c->D);
    out->value = room(c->F);
    out->size = room(c->F);
    out->rotated = room(c->F);

    out->row = room(c->M);
    out->unsure = room(c->M);
    out->best = 0;
    for (int64_t d = 0; d < c->D; d++) {
        out->x[d] = linear_at(t, b, h, i, d);

        half += out->x[d] * out->x[d] / 2 / sqrt((double)c->D);
    }
    for (int64_t m = 0; m < c->M; m++) {
        for (int64_t d = 0; d < c->D; d++) {
            e[m] += s->w[m * c->D + d] * out->x[d];

            terms[m] += fabs(s->w[m * c->D + d] * out->x[d]);
        }
        if (e[m] > e[out->best]) out->best = m;
        *rounding = fmax(*rounding, terms[m] + half);
    }
    out->max_exponent = c->options.features == ATTUNE_FEATURES_TRIG ? half : e[out->best];
    for (int64_t m = 0; m < c->F; m++) {
        const double a = c->M ? e[m % c->M] : 0;
        switch (c->options.features) {
        case ATTUNE_FEATURES_FAVOR:
            out->value[m] = out->row[m] = out->size[m] =
                exp(a - half - (isnan(shift) ? e[out->best] : shift)) + epsilon;
            break;
        case ATTUNE_FEATURES_TRIG:
            out->size[m] = isnan(shift) ? 1 : exp(half - shift);
            out->value[m] = out->size[m] * (m < c->M ? sin(a) : cos(a)) + epsilon;
            out->row[m % c->M] = out->size[m] += epsilon;
            break;
        case ATTUNE_FEATURES_RELU:
            out->unsure[m] = fabs(a) <= 0x1p-20 * terms[m];
            out->row[m] = a > 0;
            out->value[m] = fmax(a, 0) + epsilon;

            out->size[m] = (a > 0 ? terms[m] : 0) + epsilon;
            break;
        default:
            out->value[m] = out->size[m] =
                (out->x[m] > 0 ? out->x[m] + 1 : exp(out->x[m])) + epsilon;
            break;
        }
    }
    rotate_sizes(c, out->size, out->rotated);
    free(e);
    free(terms);
}

static void token_free(token *t) {
    free(t->x);
    free(t->value);
    free(t->size);
    free(t->rotated);
    free(t->row);
    free(t->unsure);
}

/* From df, bounds of features' gradients, to dx, those of x. Returns that of what goes to the
 * stabiliser. */
static double through(const bounds *s, const token *t, const double *df, bool key, double *dx) {
    const linear_case *c = s->c;
    const attune_features kind = c->options.features;
    double sum = 0, along = 0;
    if (kind == ATTUNE_FEATURES_ELU) {
        for (int64_t d = 0; d < c->D; d++)
            dx[d] = df[d] * (t->x[d] > 0 ? 1 : exp(t->x[d]) + c->options.epsilon);
        return 0;
    }
    for (int64_t m = 0; m < c->M; m++) {
        const double d = df[m] + (kind == ATTUNE_FEATURES_TRIG ? df[c->M + m] : 0),
                     row = d * (t->unsure[m] ? 1 / s->error : t->row[m]);
        sum += row;
        for (int64_t i = 0; i < c->D; i++) dx[i] += row * fabs(s->w[m * c->D + i]);
    }
    if (kind == ATTUNE_FEATURES_RELU) return 0;
    if (key || (kind == ATTUNE_FEATURES_FAVOR && c->options.epsilon > 0))
        along = sum / sqrt((double)c->D);
    for (int64_t i = 0; i < c->D; i++) {
        dx[i] += along * fabs(t->x[i]);
        if (!key && kind == ATTUNE_FEATURES_FAVOR && c->options.epsilon > 0)
            dx[i] += sum * fabs(s->w[t->best * c->D + i]);
    }
    return sum;
}

/* A query's part: its dq, and what it adds to the keys that are visible to it. */
static void query_bounds(const bounds *s, const token *q, const token *keys, int64_t visible,
                         const double *d_o, const double *v, double *dq, double *dk,
                         double *dk_flat, double *dv) {
    const linear_case *c = s->c;
    const int64_t F = c->F, Dv = c->Dv;
    double Z = 0, Z_terms = 0, along = 0, *da = room(F), *sum = room(F), *slopes = room(visible);
    for (int64_t j = 0; j < visible; j++) {
        for (int64_t f = 0; f < F; f++) {
            sum[f] += keys[j].size[f];
            Z += q->value[f] * keys[j].value[f];

            Z_terms += q->size[f] * keys[j].size[f];
        }
    }
    const double grown = s->error * Z_terms / fabs(Z),
                 error = grown < 1 ? grown / (1 - grown) : 1e30;
    for (int64_t j = 0; j < visible && Z != 0; j++) {
        double weight = 0;
        for (int64_t d = 0; d < Dv; d++) slopes[j] += fabs(d_o[d] / Z * v[j * Dv + d]);
        for (int64_t f = 0; f < F; f++) {
            da[f] += slopes[j] * keys[j].rotated[f];
            weight += q->rotated[f] * keys[j].rotated[f];
        }
        for (int64_t d = 0; d < Dv; d++) dv[j * Dv + d] += error * weight * fabs(d_o[d] / Z);
        for (int64_t f = 0; f < F; f++) dk[j * F + f] += error * slopes[j] * q->rotated[f];
    }
    for (int64_t f = 0; f < F && Z != 0; f++) along += q->rotated[f] * da[f] / fabs(Z);
    for (int64_t j = 0; j < visible; j++)
        for (int64_t f = 0; f < F; f++) dk_flat[j * F + f] += error * along * q->size[f];
    rotate_sizes(c, da, s->back);
    for (int64_t f = 0; f < F; f++) s->back[f] = error * (s->back[f] + along * sum[f]);
    through(s, q, s->back, false, dq);
    free(da);
    free(sum);
    free(slopes);
}

/* v is contiguous. The bounds of dq, dk and dv of a kv head, and in *beyond, for 16 bits, what is
 * rounded a second time in dk. */
static void head_bounds(bounds *s, const attune_tensor *v, const attune_tensor *d_o, int64_t b,
                        int64_t kv, double *dq, double *dk, double *dv, double *beyond) {
    const linear_case *c = s->c;
    const int64_t G = c->Hq / c->Hk, F = c->F;
    token *keys = calloc((size_t)c->Sk, sizeof *keys),
          *queries = calloc((size_t)(G * c->Sq), sizeof *queries);
    double rounding = 0, total = 0, *rotated = room(c->Sk * F), *flat = room(c->Sk * F),
           *slope = room(c->Dv);
    int64_t best = 0;
    for (int64_t j = 0; j < c->Sk; j++) {
        token_make(s, &c->k, b, kv, j, 0, &rounding, &keys[j]);
        if (keys[j].max_exponent > keys[best].max_exponent) best = j;
    }
    const double shift = keys[best].max_exponent;
    for (int64_t j = 0; j < c->Sk; j++) {
        token_free(&keys[j]);
        token_make(s, &c->k, b, kv, j, shift, &rounding, &keys[j]);
    }
    for (int64_t n = 0; n < G * c->Sq; n++)
        token_make(s, &c->q, b, kv * G + n / c->Sq, n % c->Sq, NAN, &rounding, &queries[n]);
    s->error = 0x1p-24 * 8 * (4 + 2 * rounding);
    for (int64_t n = 0; n < G * c->Sq; n++) {
        const int64_t i = n % c->Sq, visible = c->options.causal ? i + 1 + c->Sk - c->Sq : c->Sk;
        for (int64_t d = 0; d < c->Dv; d++) slope[d] = linear_at(d_o, b, kv * G + n / c->Sq, i, d);
        if (visible > 0)
            query_bounds(s, &queries[n], keys, visible, slope,
                         (const double *)v->data + (b * c->Hk + kv) * c->Sk * c->Dv, dq + n * c->D,
                         rotated, flat, dv);
    }
    for (int64_t j = 0; j < c->Sk; j++) {
        rotate_sizes(c, rotated + j * F, s->back);
        for (int64_t f = 0; f < F; f++) s->back[f] += flat[j * F + f];
        total += through(s, &keys[j], s->back, true, dk + j * c->D);
    }
    for (int64_t d = 0;
         d < c->D && c->options.epsilon > 0 && c->options.features <= ATTUNE_FEATURES_TRIG; d++) {
        const double w = c->options.features == ATTUNE_FEATURES_TRIG
                             ? keys[best].x[d] / sqrt((double)c->D)
                             : s->w[keys[best].best * c->D + d];
        dk[best * c->D + d] += total * fabs(w);

        beyond[best * c->D + d] = total / s->error * fabs(w);
    }
    for (int64_t j = 0; j < c->Sk; j++) token_free(&keys[j]);
    for (int64_t n = 0; n < G * c->Sq; n++) token_free(&queries[n]);
    free(keys);
    free(queries);
    free(rotated);
    free(flat);
    free(slope);
}

static void compare(const linear_case *c, const char *name, const attune_tensor *got,
                    const attune_tensor *want, int64_t b, int64_t h, const double *bound,
                    const double *beyond) {
    const double unit = c->dtype == ATTUNE_BF16  ? 0x1p-8
                        : c->dtype == ATTUNE_F16 ? 0x1p-11
                                                 : 0,
                 min_step = c->dtype == ATTUNE_F16 ? 0x1p-23 : 0;
    for (int64_t i = 0; i < got->shape[2]; i++) {
        for (int64_t d = 0; d < got->shape[3]; d++) {
            const double x = linear_at(got, b, h, i, d), y = linear_at(want, b, h, i, d);
            const int64_t index = i * got->shape[3] + d;
            const double allowed =
                bound[index] + unit * (fabs(y) + bound[index] + (beyond ? 2 * beyond[index] : 0)) +
                min_step + 1e-30;
            if (c->dtype == ATTUNE_F16 && fabs(y) + allowed > 65504) continue; /* may be infinite */
            if (!(fabs(x - y) <= allowed)) {
                fail_msg("%s[%d][%d][%d][%d] is %.9g, in double precision %.9g, bound %g: %s", name,
                         (int)b, (int)h, (int)i, (int)d, x, y, allowed, linear_text(c));
            }
        }
    }
}

/* The gradients d of a problem in its dtype against those of f64. */
static void check(const linear_case *c, const attune_tensor *d_o, const attune_tensor *d) {
    const int64_t G = c->Hq / c->Hk;
    attune_tensor in_f64[4], truth[3];
    const attune_tensor *in[4] = {&c->q, &c->k, &c->v, d_o};
    for (int i = 0; i < 4; i++) MUST(attune_tensor_convert(in[i], ATTUNE_F64, &in_f64[i]));
    MUST(attune_linear_attention_backward(&in_f64[3], &in_f64[0], &in_f64[1], &in_f64[2],
                                          &c->options, &truth[0], &truth[1], &truth[2]));
    bounds s = {.c = c, .back = room(c->F), .w = room(c->M * c->D)};
    for (int64_t i = 0; i < c->M * c->D; i++)
        s.w[i] = (double)((const float *)c->w.data)[i] * pow((double)c->D, -0.25);
    for (int64_t head = 0; head < c->B * c->Hk; head++) {
        const int64_t b = head / c->Hk, kv = head % c->Hk;
        double *dq = room(G * c->Sq * c->D), *dk = room(c->Sk * c->D), *dv = room(c->Sk * c->Dv),
               *beyond = room(c->Sk * c->D);
        head_bounds(&s, &in_f64[2], &in_f64[3], b, kv, dq, dk, dv, beyond);
        for (int64_t g = 0; g < G; g++)
            compare(c, "dq", &d[0], &truth[0], b, kv * G + g, dq + g * c->Sq * c->D, NULL);
        compare(c, "dk", &d[1], &truth[1], b, kv, dk, beyond);
        compare(c, "dv", &d[2], &truth[2], b, kv, dv, NULL);
        free(dq);
        free(dk);
        free(dv);
        free(beyond);
    }
    free(s.back);
    free(s.w);
    for (int i = 0; i < 4; i++) attune_tensor_close(&in_f64[i]);
    for (int i = 0; i < 3; i++) attune_tensor_close(&truth[i]);
}

static void slopes_of(const linear_case *c, attune_tensor *d_o) {
    const int64_t shape[4] = {c->B, c->Hq, c->Sq, c->Dv};
    random_tensor(c->seed * 4 + 3, shape, c->dtype, c->strided, d_o);
}

static void run_and_check(const linear_case *c) {
    attune_tensor d_o, d[3];
    slopes_of(c, &d_o);
    MUST(attune_linear_attention_backward(&d_o, &c->q, &c->k, &c->v, &c->options, &d[0], &d[1],
                                          &d[2]));
    for (int i = 0; i < 3; i++) assert_int_equal(d[i].dtype, c->dtype);
    check(c, &d_o, d);
    for (int i = 0; i < 3; i++) attune_tensor_close(&d[i]);
    attune_tensor_close(&d_o);
}

/* ---- in f32 ---------------------------------------------------------------------------------- */

static void gradients_agree_with_f64(void **state) {
    (void)state;
    static const attune_dtype dtypes[] = {ATTUNE_F32, ATTUNE_F32, ATTUNE_BF16, ATTUNE_F32,
                                          ATTUNE_F16};
    for (uint64_t seed = 1; seed <= PROBLEMS; seed++) {
        linear_case c;
        linear_make(seed, dtypes[seed % 5], seed % 10 == 0 ? 200 : 40, &c);
        run_and_check(&c);
        linear_close(&c);
    }
}

/* Long enough for sections, of all features; with fewer queries too. */
static void long_sequences(void **state) {
    (void)state;
    for (int n = 0; n < 32; n += STEP) {
        linear_case c;
        const attune_features kind = (attune_features)(n / 2 % 4);
        linear_long((uint64_t)n, n & 8 ? 2 : 1, 1, 500, kind,
                    n & 16 || kind == ATTUNE_FEATURES_RELU ? 1e-2 : 0, n & 1, &c);
        if (kind == ATTUNE_FEATURES_TRIG && n & 16)
            c.options.epsilon = 2; /* keeps denominators away from 0 */
        if (n & 8) linear_turn(&c, ATTUNE_INTERLEAVED);
        for (int64_t queries = 500; queries > 0; queries -= 270) {
            attune_tensor all = c.q;
            MUST(attune_tensor_slice(&all, 2, 500 - queries, 500, &c.q));
            c.Sq = queries;
            c.options.block = queries == 500 ? 5 : 16;
            run_and_check(&c);
            attune_tensor_close(&c.q);
            c.q = all;
        }
        linear_close(&c);
    }
}

/* Exponents of hundreds that grow, or fall, from token to token: nothing overflows or vanishes. */
static void large_scores(void **state) {
    (void)state;
    for (int n = 0; n < 8; n++) {
        linear_case c = {.seed = 21,
                         .B = 1,
                         .Hq = 2,
                         .Hk = 1,
                         .Sq = 300,
                         .Sk = 300,
                         .D = 64,
                         .Dv = 8,
                         .M = 32,
                         .dtype = ATTUNE_F32};
        c.options.causal = n & 1;

        c.options.features = n & 4 ? ATTUNE_FEATURES_TRIG : ATTUNE_FEATURES_FAVOR;

        c.options.block = 16;
        linear_tensors(&c);
        for (int64_t i = 0; i < 300 * 64; i++) {
            const float index = (float)(i / 64) / 300;
            ((float *)c.k.data)[i] *= 2 + 2 * (n & 2 ? index : 1 - index);
        }
        run_and_check(&c);
        attune_tensor d_o, d[3];
        slopes_of(&c, &d_o);
        MUST(attune_linear_attention_backward(&d_o, &c.q, &c.k, &c.v, &c.options, &d[0], &d[1],
                                              &d[2]));
        for (int t = 0; t < 3; t++) {
            double max_exponent = 0;
            for (int64_t i = 0, count = attune_tensor_count(&d[t]); i < count; i++)
                max_exponent = fmax(max_exponent, fabs((double)((float *)d[t].data)[i]));
            assert_true(isfinite(max_exponent) && max_exponent > 1e-3);
            attune_tensor_close(&d[t]);
        }
        attune_tensor_close(&d_o);
        linear_close(&c);
    }
}

static void run_all(const linear_case *c, const attune_tensor *d_o, attune_tensor d[3]) {
    MUST(attune_linear_attention_backward(d_o, &c->q, &c->k, &c->v, &c->options, &d[0], &d[1],
                                          &d[2]));
}

static bool same_rows(const attune_tensor *a, const attune_tensor *b, int64_t from, int64_t to) {
    attune_tensor x, y;
    MUST(attune_tensor_slice(a, 2, from, to, &x));
    MUST(attune_tensor_slice(b, 2, from, to, &y));
    const bool same = difference(&x, &y) == 0;
    attune_tensor_close(&x);
    attune_tensor_close(&y);
    return same;
}

/* An Inf or NaN of token 77 in v or k reaches dq of the rows that attend to it and of no earlier
 * row, and v is not in dv; in d_o it reaches the keys that row 77 attends to, and no later key. */
static void nonfinite_values_reach_only_visible_rows(void **state) {
    (void)state;
    for (int n = 0; n < 6; n++) {
        linear_case c;
        linear_of_100(ATTUNE_F32, &c);
        attune_tensor d_o, before[3], after[3];
        slopes_of(&c, &d_o);
        attune_tensor *changed = n < 2 ? &c.v : n < 4 ? &c.k : &d_o;
        const int64_t index[4] = {0, 0, 77, 3};
        run_all(&c, &d_o, before);
        MUST(attune_tensor_set(changed, index, n & 1 ? (double)INFINITY : NAN));
        run_all(&c, &d_o, after);
        if (n < 4) {
            assert_true(same_rows(&before[0], &after[0], 0, 77));
            for (int64_t i = 77; i < 100; i++)
                assert_false(isfinite(linear_at(&after[0], 0, 1, i, 3)));
            if (n < 2) assert_true(same_rows(&before[2], &after[2], 0, 100));
        } else {
            for (int t = 1; t < 3; t++) assert_true(same_rows(&before[t], &after[t], 78, 100));
            assert_false(isfinite(linear_at(&after[1], 0, 0, 77, 3)) ||
                         isfinite(linear_at(&after[2], 0, 0, 77, 3)));
        }
        for (int t = 0; t < 3; t++) {
            attune_tensor_close(&before[t]);
            attune_tensor_close(&after[t]);
        }
        attune_tensor_close(&d_o);
        linear_close(&c);
    }
}

static void bits_do_not_depend_on_threads(void **state) {
    (void)state;
    for (int n = 0; n < 16; n += STEP) {
        linear_case c;
        attune_tensor d_o, one[3], many[3];
        linear_long(7, 4, n & 2 ? 1 : 2, 700, (attune_features)(n / 4), n & 2 ? 1e-3 : 0, n & 1,
                    &c);
        c.options.block = 16; /* many sections */
        slopes_of(&c, &d_o);
        for (int threads = 1; threads <= 3; threads++) {
            attune_tensor *d = threads == 1 ? one : many;
            MUST(attune_threads(threads, NULL));
            MUST(attune_linear_attention_backward(&d_o, &c.q, &c.k, &c.v, &c.options, &d[0], &d[1],
                                                  &d[2]));
            for (int t = 0; t < 3 && threads > 1; t++) {
                assert_memory_equal(one[t].data, many[t].data,
                                    (size_t)attune_tensor_nbytes(&one[t]));
                attune_tensor_close(&many[t]);
            }
        }
        MUST(attune_threads(2, NULL));
        for (int t = 0; t < 3; t++) attune_tensor_close(&one[t]);
        attune_tensor_close(&d_o);
        linear_close(&c);
    }
}

/* With as many tokens again, as much memory beside inputs and results but for two numbers a query
 * and one a block. */
static void memory_is_linear(void **state) {
    (void)state;
    int64_t peak[2];
    for (int n = 0; n < 2; n++) {
        linear_case c;
        attune_tensor d_o, d[3];
        linear_long(9, 2, 1, n ? 8192 : 4096, ATTUNE_FEATURES_FAVOR, 0, true, &c);
        slopes_of(&c, &d_o);
        const int64_t before = attune_memory().bytes;
        attune_memory_reset_peak();
        MUST(attune_linear_attention_backward(&d_o, &c.q, &c.k, &c.v, &c.options, &d[0], &d[1],
                                              &d[2]));
        peak[n] = attune_memory().peak - before;
        for (int t = 0; t < 3; t++) {
            peak[n] -= attune_tensor_nbytes(&d[t]);
            attune_tensor_close(&d[t]);
        }
        attune_tensor_close(&d_o);
        linear_close(&c);
    }
    assert_true(peak[1] - peak[0] <= 4096 * (2 * 2 * 4 + 64));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(gradients_agree_with_differences),
                                       cmocka_unit_test(gradients_agree_with_f64),
                                       cmocka_unit_test(long_sequences),
                                       cmocka_unit_test(large_scores),
                                       cmocka_unit_test(nonfinite_values_reach_only_visible_rows),
                                       cmocka_unit_test(bits_do_not_depend_on_threads),
                                       cmocka_unit_test(memory_is_linear)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
