/* problems.c - random attention problems. */
#include "problems.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MUST(call)                                                                           \
    do {                                                                                     \
        if ((call) != ATTUNE_OK) {                                                           \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, attune_message()); \
            abort();                                                                         \
        }                                                                                    \
    } while (0)

int64_t draw(uint64_t seed, uint32_t n, int64_t below) {
    const uint32_t counter[4] = {n, 0, 0, 0x7e57},
                   key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t word[4];
    attune_philox(counter, key, word);
    return (int64_t)(word[0] % (uint64_t)below);
}

void random_tensor(uint64_t seed, const int64_t shape[4], attune_dtype dtype, bool strided,
                   attune_tensor *out) {
    const int64_t swapped[4] = {shape[0], shape[2], shape[1], shape[3]};
    attune_tensor base;
    MUST(attune_tensor_new(dtype, 4, strided ? swapped : shape, &base));
    MUST(attune_tensor_normal(&base, seed, 0, 1));
    if (!strided) {
        *out = base;
        return;
    }
    MUST(attune_tensor_transpose(&base, 1, 2, out));
    attune_tensor_close(&base);
}

/* Splits the tokens into random documents. */
static void make_lengths(problem *p, int64_t rows) {
    int64_t *value = p->lengths;
    uint32_t n = 100;
    for (int64_t row = 0; row < rows; row++) {
        p->counts[row] = 0;
        for (int64_t left = p->Sk; left > 0; p->counts[row]++) {
            int64_t length = p->counts[row] >= 100 ? left : 1 + draw(p->seed, n++, left);
            *value++ = length;
            left -= length;
        }
    }
    p->options.lengths = (attune_lengths){.rows = rows, .count = p->counts, .value = p->lengths};
}

void problem_make(uint64_t seed, int64_t max_tokens, problem *p) {
    static const int64_t groups[] = {1, 1, 2, 3, 4, 8, 16, 71},
                         dims[] = {1, 3, 8, 16, 17, 32, 40, 64, 64, 80, 128, 128, 256, 512};
    static const attune_dtype dtypes[] = {ATTUNE_F32, ATTUNE_F32, ATTUNE_BF16, ATTUNE_F16};
    memset(p, 0, sizeof *p);
    p->seed = seed;
    p->B = 1 + draw(seed, 0, 2);
    p->Hk = 1 + draw(seed, 1, 3);
    int64_t G = groups[draw(seed, 2, 8)];
    p->Hq = p->Hk * G;
    p->D = dims[draw(seed, 3, 14)];
    p->Dv = draw(seed, 4, 4) ? p->D : dims[draw(seed, 5, 14)];
    int64_t budget = 6000000 / (p->B * p->Hq * (p->D + p->Dv)); /* keeps the reference short */
    p->Sq = 1 + draw(seed, 6, max_tokens);
    p->Sk = draw(seed, 7, 2) ? p->Sq : 1 + draw(seed, 8, max_tokens);
    while (p->Sq * p->Sk > budget && p->Sq * p->Sk > 1) {
        p->Sq = (p->Sq + 1) / 2;
        p->Sk = (p->Sk + 1) / 2;
    }
    p->dtype = dtypes[draw(seed, 9, 4)];
    p->strided = draw(seed, 10, 3) == 0;
    attune_attention_options *o = &p->options;
    o->causal = draw(seed, 11, 2);
    if (draw(seed, 12, 3) == 0) o->window = 1 + draw(seed, 13, p->Sk + 3);
    if (!o->window && draw(seed, 21, 3) == 0) {
        o->two_sided = true;
        o->window_left = draw(seed, 22, p->Sk + 3) - 1;
        o->window_right = draw(seed, 23, p->Sk + 3) - 1;
    }
    if (draw(seed, 14, 3) == 0) {
        o->scale_given = true;
        o->scale = (double)draw(seed, 15, 200) / 100 - 0.5;
    }
    if (draw(seed, 16, 4) == 0) o->softcap = 1 + (double)draw(seed, 17, 30);
    if (draw(seed, 18, 4) == 0 && p->Sq <= p->Sk) make_lengths(p, draw(seed, 19, 2) ? 1 : p->B);
    if (draw(seed, 20, 4) == 0) {
        MUST(attune_tensor_new(ATTUNE_F32, 1, &p->Hq, &p->sinks));
        MUST(attune_tensor_normal(&p->sinks, seed + 3, 0, 2));
        o->sinks = &p->sinks;
    }
    const int64_t q[4] = {p->B, p->Hq, p->Sq, p->D}, k[4] = {p->B, p->Hk, p->Sk, p->D},
                  v[4] = {p->B, p->Hk, p->Sk, p->Dv};
    random_tensor(seed * 4, q, p->dtype, p->strided, &p->q);
    random_tensor(seed * 4 + 1, k, p->dtype, p->strided, &p->k);
    random_tensor(seed * 4 + 2, v, p->dtype, p->strided, &p->v);
}

void problem_close(problem *p) {
    attune_tensor_close(&p->q);
    attune_tensor_close(&p->k);
    attune_tensor_close(&p->v);
    attune_tensor_close(&p->sinks);
}

const char *problem_text(const problem *p) {
    static char text[256];
    const attune_attention_options *o = &p->options;
    snprintf(text, sizeof text,
             "seed %llu: B %lld, Hq %lld, Hk %lld, Sq %lld, Sk %lld, D %lld, Dv %lld, %s%s%s, "
             "window %lld (%lld, %lld), scale %g, softcap %g, lengths %lld%s",
             (unsigned long long)p->seed, (long long)p->B, (long long)p->Hq, (long long)p->Hk,
             (long long)p->Sq, (long long)p->Sk, (long long)p->D, (long long)p->Dv,
             attune_dtype_name(p->dtype), p->strided ? ", strided" : "",
             o->causal ? ", causal" : "", (long long)o->window, (long long)o->window_left,
             (long long)o->window_right, o->scale_given ? o->scale : 0, o->softcap,
             (long long)o->lengths.rows, o->sinks ? ", sinks" : "");
    return text;
}

static float at(const attune_tensor *t, int64_t a, int64_t b, int64_t c, int64_t d) {
    double x = 0;
    const int64_t index[4] = {a, b, c, d};
    MUST(attune_tensor_get(t, index, &x));
    return (float)x;
}

static bool hidden(const problem *p, int64_t b, int64_t i, int64_t j) {
    const attune_attention_options *o = &p->options;
    int64_t index = i + p->Sk - p->Sq;
    if (o->causal && j > index) return true;
    if (o->window && (j <= index - o->window || j >= index + o->window)) return true;
    if (o->two_sided && o->window_left >= 0 && j < index - o->window_left) return true;
    if (o->two_sided && o->window_right >= 0 && j > index + o->window_right) return true;
    if (o->lengths.rows == 0) return false;
    const int64_t *value = o->lengths.value, row = o->lengths.rows == 1 ? 0 : b;
    for (int64_t r = 0; r < row; r++) value += o->lengths.count[r];
    int64_t begin = 0, n = 0;
    while (index >= begin + value[n]) begin += value[n++];
    return j < begin || j >= begin + value[n];
}

static double ulp(attune_dtype dtype) {
    return dtype == ATTUNE_BF16 ? 0x1p-8 : dtype == ATTUNE_F16 ? 0x1p-11 : 0x1p-24;
}

/* What bound_of measures: the largest errors of f32 attention, written in the plainest way, and the
 * largest numbers that occur in it. */
typedef struct measured {
    double error_o, error_lse;
    double o, lse, v, score, terms; /* terms: the sum of |q_d k_d| of a score, scaled */
} measured;

static void load_keys(const problem *p, int64_t b, int64_t kv, float *k, float *v, measured *m) {
    for (int64_t j = 0; j < p->Sk; j++) {
        for (int64_t d = 0; d < p->D; d++) k[j * p->D + d] = at(&p->k, b, kv, j, d);
        for (int64_t d = 0; d < p->Dv; d++) {
            v[j * p->Dv + d] = at(&p->v, b, kv, j, d);
            m->v = fmax(m->v, fabs((double)v[j * p->Dv + d]));
        }
    }
}

/* The scores s [Sk] of query i, q [D], over the keys k, -inf where hidden. Returns the max with the
 * sink.
 */
static float scores_of(const problem *p, int64_t b, int64_t i, const float *q, const float *k,
                       float sink, float *s, measured *m) {
    const float cap = (float)p->options.softcap,
                scale = (float)(p->options.scale_given ? p->options.scale : 1 / sqrt((double)p->D));
    float max = sink;
    for (int64_t j = 0; j < p->Sk; j++) {
        s[j] = -INFINITY;
        if (hidden(p, b, i, j)) continue;
        float dot = 0;
        double terms = 0;
        for (int64_t d = 0; d < p->D; d++) {
            const float term = q[d] * k[j * p->D + d];
            dot += term;
            terms += fabs((double)term);
        }
        s[j] = dot * scale;
        m->terms = fmax(m->terms, terms * fabs((double)scale));
        m->score = fmax(m->score, fabs((double)s[j]));
        if (cap > 0) s[j] = cap * tanhf(s[j] / cap);
        max = fmaxf(max, s[j]);
    }
    return max;
}

static void measure_row(const problem *p, const float *s, float sum, const float *v, int64_t b,
                        int64_t h, int64_t i, const attune_tensor *o, measured *m) {
    for (int64_t d = 0; d < p->Dv; d++) {
        float x = 0;
        for (int64_t j = 0; j < p->Sk; j++) x += s[j] * v[j * p->Dv + d];
        const double truth = at(o, b, h, i, d);
        m->o = fmax(m->o, fabs(truth));
        if (p->dtype == ATTUNE_F32) m->error_o = fmax(m->error_o, fabs((double)(x / sum) - truth));
    }
}

error_bound bound_of(const problem *p, const attune_tensor *o, const attune_tensor *lse) {
    float *s = malloc((size_t)p->Sk * sizeof *s), *q = malloc((size_t)p->D * sizeof *q),
          *k = malloc((size_t)(p->Sk * p->D) * sizeof *k),
          *v = malloc((size_t)(p->Sk * p->Dv) * sizeof *v);
    const int64_t group = p->Hq / p->Hk;
    measured m = {0};
    for (int64_t b = 0; b < p->B; b++) {
        for (int64_t h = 0; h < p->Hq; h++) {
            if (h % group == 0) load_keys(p, b, h / group, k, v, &m);
            const float sink = p->options.sinks ? ((const float *)p->sinks.data)[h] : -INFINITY;
            for (int64_t i = 0; i < p->Sq; i++) {
                for (int64_t d = 0; d < p->D; d++) q[d] = at(&p->q, b, h, i, d);
                const float max = scores_of(p, b, i, q, k, sink, s, &m);
                if (max == -INFINITY) continue;
                float sum = 0;
                for (int64_t j = 0; j < p->Sk; j++) {
                    s[j] = expf(s[j] - max);
                    sum += s[j];
                }
                sum += expf(sink - max);
                const float truth = ((const float *)lse->data)[(b * p->Hq + h) * p->Sq + i];
                m.lse = fmax(m.lse, fabs((double)truth));
                m.error_lse = fmax(m.error_lse, fabs((double)(max + logf(sum)) - (double)truth));
                measure_row(p, s, sum, v, b, h, i, o, &m);
            }
        }
    }
    free(s);
    free(q);
    free(k);
    free(v);
    /* Scaling q first rounds each of its elements, and so each term of a score, by half a unit. */
    const double rounding = 4 * 0x1p-24 * (1 + m.score) + 0x1p-24 * m.terms;
    /* Two roundings to a 16-bit dtype of nearly the same number are at most one unit apart. */
    return (error_bound){.o = 2 * m.error_o + rounding * m.v + 2 * ulp(p->dtype) * m.o,
                         .lse = 2 * m.error_lse + rounding + 0x1p-23 * m.lse};
}

double difference(const attune_tensor *a, const attune_tensor *b) {
    attune_tensor x, y, fx, fy;
    double worst = 0;
    MUST(attune_tensor_convert(a, ATTUNE_F64, &x));
    MUST(attune_tensor_convert(b, ATTUNE_F64, &y));
    MUST(attune_tensor_contiguous(&x, &fx));
    MUST(attune_tensor_contiguous(&y, &fy));
    const double *p = fx.data, *q = fy.data;
    for (int64_t i = 0, n = attune_tensor_count(&fx); i < n; i++) {
        double d = p[i] == q[i] || (isnan(p[i]) && isnan(q[i])) ? 0 : fabs(p[i] - q[i]);
        if (!(d <= worst)) worst = isnan(d) ? INFINITY : d;
    }
    attune_tensor_close(&x);
    attune_tensor_close(&y);
    attune_tensor_close(&fx);
    attune_tensor_close(&fy);
    return worst;
}
