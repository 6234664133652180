/* problem.c - what linear attention is asked for, checked once. */
#include <math.h>
#include <string.h>

#include "base/dtype.h"
#include "base/memory.h"
#include "base/status.h"
#include "linear/linear_problem.h"
#include "tensor/tensor.h"

static const char *const names[] = {"favor+", "trig", "relu", "elu"};

static attune_status check_tensor(const char *name, const attune_tensor *t, const char *layout) {
    if (!t->data)
        return at_fail(ATTUNE_ECLOSED, "%s: expected a tensor %s, got a closed one", name, layout);
    if (t->rank != 4)
        return at_fail(ATTUNE_ESHAPE, "%s: expected %s, got %s", name, layout,
                       at_shape_text(t->rank, t->shape));
    if (!at_is_float(t->dtype))
        return at_fail(ATTUNE_EDTYPE, "%s: expected f32, bf16, f16 or f64, got %s", name,
                       attune_dtype_name(t->dtype));
    return ATTUNE_OK;
}

attune_status at_linear_check_rotation(attune_position *rotate, int64_t features) {
    if (!rotate) return ATTUNE_OK;
    if (attune_position_capabilities(rotate) & ATTUNE_SCORES) {
        return at_fail(ATTUNE_EVALUE,
                       "rotate: expected an encoding that rotates, got %s, which adds to the "
                       "scores: it needs the full score matrix, which linear attention never forms",
                       rotate->name);
    }
    if (attune_position_capabilities(rotate) & ATTUNE_TWO_AXES) {
        return at_fail(ATTUNE_EVALUE,
                       "rotate: expected an encoding of one position per token, because tokens "
                       "have the positions 0, 1, .. here, got %s",
                       rotate->name);
    }
    if (rotate->inv_freq && rotate->head_dim != features) {
        return at_fail(ATTUNE_ESHAPE,
                       "rotate: expected an encoding of head_dim %lld, the number of features, got "
                       "one of %lld",
                       (long long)features, (long long)rotate->head_dim);
    }
    return ATTUNE_OK;
}

attune_status at_linear_projection(attune_features kind, const attune_tensor *projection,
                                   int64_t head_dim, attune_tensor *out, int64_t *rows,
                                   int64_t *features) {
    memset(out, 0, sizeof *out);
    *rows = 0;
    *features = head_dim;
    if ((int)kind < 0 || kind > ATTUNE_FEATURES_ELU)
        return at_fail(ATTUNE_EVALUE, "features: expected favor+, trig, relu or elu, got number %d",
                       (int)kind);
    if (kind == ATTUNE_FEATURES_ELU) return ATTUNE_OK;
    if (!projection)
        return at_fail(ATTUNE_EVALUE,
                       "projection: expected a tensor [features, %lld] for %s, got none",
                       (long long)head_dim, names[kind]);
    if (!projection->data)
        return at_fail(ATTUNE_ECLOSED,
                       "projection: expected a tensor [features, %lld], got a closed one",
                       (long long)head_dim);
    if (projection->rank != 2 || projection->shape[1] != head_dim) {
        return at_fail(ATTUNE_ESHAPE, "projection: expected [features, %lld], got %s",
                       (long long)head_dim, at_shape_text(projection->rank, projection->shape));
    }
    if (!at_is_float(projection->dtype))
        return at_fail(ATTUNE_EDTYPE, "projection: expected a float dtype, got %s",
                       attune_dtype_name(projection->dtype));
    *rows = projection->shape[0];
    *features = kind == ATTUNE_FEATURES_TRIG ? 2 * *rows : *rows;
    AT_TRY(at_tensor_new(ATTUNE_F64, 2, projection->shape, out));
    const double factor = pow((double)head_dim, -0.25);
    double *w = out->data;
    for (int64_t m = 0; m < *rows; m++) {
        at_load_row_f64(projection, m * projection->stride[0], projection->stride[1], head_dim, w);
        for (int64_t d = 0; d < head_dim; d++) w[d] *= factor;
        w += head_dim;
    }
    return ATTUNE_OK;
}

static attune_status check_shapes(const attune_tensor *q, const attune_tensor *k,
                                  const attune_tensor *v) {
    const int64_t *a = q->shape, *b = k->shape;
    AT_TRY(at_check_extent("k", k, "batch", 0, "q", q));
    AT_TRY(at_check_extent("k", k, "head_dim", 3, "q", q));
    if (a[1] % b[1])
        return at_fail(ATTUNE_ESHAPE,
                       "k: expected a number of kv heads that divides q's %lld, got %lld",
                       (long long)a[1], (long long)b[1]);
    AT_TRY(at_check_extent("v", v, "batch", 0, "k", k));
    AT_TRY(at_check_extent("v", v, "kv_heads", 1, "k", k));
    AT_TRY(at_check_extent("v", v, "keys", 2, "k", k));
    const bool f64 = q->dtype == ATTUNE_F64;
    if ((k->dtype == ATTUNE_F64) != f64)
        return at_fail(ATTUNE_EDTYPE, "k: f64 goes with f64 only: q is %s, got %s",
                       attune_dtype_name(q->dtype), attune_dtype_name(k->dtype));
    if ((v->dtype == ATTUNE_F64) != f64)
        return at_fail(ATTUNE_EDTYPE, "v: f64 goes with f64 only: q is %s, got %s",
                       attune_dtype_name(q->dtype), attune_dtype_name(v->dtype));
    return ATTUNE_OK;
}

static attune_status make(const attune_tensor *q, const attune_tensor *k, const attune_tensor *v,
                          const attune_linear_options *o, at_linear *p) {
    AT_TRY(check_tensor("q", q, "[batch, heads, queries, head_dim]"));
    AT_TRY(check_tensor("k", k, "[batch, kv_heads, keys, head_dim]"));
    AT_TRY(check_tensor("v", v, "[batch, kv_heads, keys, v_head_dim]"));
    AT_TRY(check_shapes(q, k, v));
    if (!(o->epsilon >= 0) || isinf(o->epsilon))
        return at_fail(ATTUNE_EVALUE, "epsilon: expected a number of at least 0, got %g",
                       o->epsilon);
    if (o->block < 0)
        return at_fail(ATTUNE_EVALUE, "block: expected at least 0 tokens, got %lld",
                       (long long)o->block);
    p->B = q->shape[0];
    p->Hq = q->shape[1];
    p->Sq = q->shape[2];
    p->D = q->shape[3];
    p->Hk = k->shape[1];
    p->Sk = k->shape[2];
    p->Dv = v->shape[3];
    p->G = p->Hq / p->Hk;
    p->causal = o->causal;
    p->features = o->features;
    p->epsilon = o->epsilon;
    p->block = o->block;
    p->in_f64 = q->dtype == ATTUNE_F64;
    AT_TRY(at_linear_projection(o->features, o->projection, p->D, &p->projection, &p->M, &p->F));
    AT_TRY(at_linear_check_rotation(o->rotate, p->F));
    if (o->rotate && o->rotate->sided && !o->causal) {
        return at_fail(ATTUNE_EVALUE,
                       "rotate: expected causal = true with %s, got attention over all keys: for "
                       "keys after the query its scale grows with the distance",
                       o->rotate->name);
    }
    AT_TRY(attune_tensor_share(q, &p->q));
    AT_TRY(attune_tensor_share(k, &p->k));
    AT_TRY(attune_tensor_share(v, &p->v));
    if (o->rotate && o->rotate->inv_freq) {
        const int64_t zero = 0, first = p->Sk - p->Sq;
        p->rotate = o->rotate;
        AT_TRY(at_rotation_make(o->rotate, NULL, &zero, 1, p->B, p->Sk, ATTUNE_KEY, p->Sk,
                                &p->k_rotation));
        AT_TRY(at_rotation_make(o->rotate, NULL, &first, 1, p->B, p->Sq, ATTUNE_QUERY, p->Sk,
                                &p->q_rotation));
    }
    return ATTUNE_OK;
}

attune_status at_linear_make(const attune_tensor *q, const attune_tensor *k, const attune_tensor *v,
                             const attune_linear_options *options, at_linear *out) {
    static const attune_linear_options defaults = {0};
    memset(out, 0, sizeof *out);
    AT_TRY(attune_init());
    attune_status status = make(q, k, v, options ? options : &defaults, out);
    if (status != ATTUNE_OK) at_linear_close(out);
    return status;
}

void at_linear_close(at_linear *p) {
    attune_tensor *all[] = {&p->q, &p->k, &p->v, &p->projection};
    for (int i = 0; i < 4; i++) attune_tensor_close(all[i]);
    at_rotation_free(&p->k_rotation);
    at_rotation_free(&p->q_rotation);
    at_free(p->q_cos_sin);
    at_free(p->k_cos_sin);
}

attune_status attune_linear_attention(const attune_tensor *q, const attune_tensor *k,
                                      const attune_tensor *v, const attune_linear_options *options,
                                      attune_tensor *o) {
    at_linear p;
    memset(o, 0, sizeof *o);
    AT_TRY(at_linear_make(q, k, v, options, &p));
    const int64_t shape[4] = {p.B, p.Hq, p.Sq, p.Dv};
    attune_status status = at_tensor_new(p.q.dtype, 4, shape, o);
    if (status == ATTUNE_OK)
        status = p.in_f64 ? at_linear_reference(&p, o) : at_linear_blocked(&p, o);
    if (status != ATTUNE_OK) attune_tensor_close(o);
    at_linear_close(&p);
    return status;
}

attune_status attune_linear_attention_backward(const attune_tensor *d_o, const attune_tensor *q,
                                               const attune_tensor *k, const attune_tensor *v,
                                               const attune_linear_options *options,
                                               attune_tensor *dq, attune_tensor *dk,
                                               attune_tensor *dv) {
    at_linear p;
    attune_tensor *out[3] = {dq, dk, dv};
    for (int i = 0; i < 3; i++) memset(out[i], 0, sizeof *out[i]);
    AT_TRY(check_tensor("d_o", d_o, "[batch, heads, queries, v_head_dim]"));
    AT_TRY(at_linear_make(q, k, v, options, &p));
    const int64_t shape[4] = {p.B, p.Hq, p.Sq, p.Dv};
    attune_status status = ATTUNE_OK;
    if (memcmp(d_o->shape, shape, sizeof shape) != 0) {
        status = at_fail(ATTUNE_ESHAPE, "d_o: expected %s, got %s", at_shape_text(4, shape),
                         at_shape_text(4, d_o->shape));
    } else if ((d_o->dtype == ATTUNE_F64) != p.in_f64) {
        status = at_fail(ATTUNE_EDTYPE, "d_o: f64 goes with f64 only: q is %s, got %s",
                         attune_dtype_name(q->dtype), attune_dtype_name(d_o->dtype));
    }
    const attune_tensor *like[3] = {&p.q, &p.k, &p.v};
    for (int i = 0; i < 3 && status == ATTUNE_OK; i++)
        status = at_tensor_new(like[i]->dtype, 4, like[i]->shape, out[i]);
    const at_linear_gradients g = {.d_o = d_o, .dq = dq, .dk = dk, .dv = dv};
    if (status == ATTUNE_OK)
        status =
            p.in_f64 ? at_linear_reference_backward(&p, &g) : at_linear_blocked_backward(&p, &g);
    for (int i = 0; i < 3 && status != ATTUNE_OK; i++) attune_tensor_close(out[i]);
    at_linear_close(&p);
    return status;
}
