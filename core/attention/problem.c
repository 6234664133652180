/* problem.c - validates q, k, v and the options of an attention call. */
#include "attention/problem.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "tensor/tensor.h"

static attune_status check_tensor(const char *name, const attune_tensor *t, const char *layout) {
    if (!t || !t->data)
        return at_fail(ATTUNE_ECLOSED, "%s: expected a tensor %s, got a closed one", name, layout);
    if (t->rank != 4) {
        return at_fail(ATTUNE_ESHAPE, "%s: expected 4 axes, %s, got %d, %s", name, layout, t->rank,
                       at_shape_text(t->rank, t->shape));
    }
    if (!at_is_float(t->dtype)) {
        return at_fail(ATTUNE_EDTYPE, "%s: expected f32, bf16, f16 or f64, got %s", name,
                       attune_dtype_name(t->dtype));
    }
    return ATTUNE_OK;
}

static attune_status check_shapes(const attune_tensor *q, const attune_tensor *k,
                                  const attune_tensor *v) {
    const int64_t *a = q->shape, *b = k->shape;
    AT_TRY(at_check_extent("k", k, "batch", 0, "q", q));
    AT_TRY(at_check_extent("k", k, "head_dim", 3, "q", q));
    if (a[1] % b[1] != 0) {
        return at_fail(
            ATTUNE_ESHAPE,
            "k: expected a number of kv heads that divides q's %lld heads, got %lld (q %s, k %s)",
            (long long)a[1], (long long)b[1], at_shape_text(4, a), at_shape_text(4, b));
    }
    if (!v) return ATTUNE_OK;
    AT_TRY(at_check_extent("v", v, "batch", 0, "k", k));
    AT_TRY(at_check_extent("v", v, "kv_heads", 1, "k", k));
    return at_check_extent("v", v, "keys", 2, "k", k);
}

/* Sets p->document to the range of each token's document. */
static attune_status make_documents(const attune_lengths *lengths, at_problem *p) {
    if (lengths->rows == 0) return ATTUNE_OK;
    if (lengths->rows != 1 && lengths->rows != p->query.B) {
        return at_fail(
            ATTUNE_ESHAPE,
            "lengths: expected one list, or one for each of %lld batch rows, got %lld lists",
            (long long)p->query.B, (long long)lengths->rows);
    }
    if (p->query.Sq > p->Sk) {
        return at_fail(ATTUNE_ESHAPE,
                       "lengths: expected no more queries than keys, got %lld and %lld",
                       (long long)p->query.Sq, (long long)p->Sk);
    }
    int64_t tokens = at_checked_mul(lengths->rows, p->Sk);
    p->document = at_alloc(at_checked_mul(tokens, 2 * (int64_t)sizeof(int64_t)));
    if (!p->document) return ATTUNE_EMEMORY;
    p->document_rows = lengths->rows;
    const int64_t *value = lengths->value;
    for (int64_t row = 0; row < lengths->rows; row++) {
        int64_t token = 0, *span = p->document + row * p->Sk * 2;
        for (int64_t n = 0; n < lengths->count[row]; n++) {
            int64_t length = *value++;
            if (length < 0) {
                return at_fail(ATTUNE_EVALUE,
                               "lengths: expected documents of at least 0 tokens, got %lld",
                               (long long)length);
            }
            if (length > p->Sk - token) {
                token = p->Sk + 1; /* too long: an error below */
                length = 0;
            }
            for (int64_t t = token; t < token + length; t++) {
                span[2 * t] = token;
                span[2 * t + 1] = token + length;
            }
            token += length;
            if (token > p->Sk) break;
        }
        if (token != p->Sk) {
            int64_t sum = 0;
            const int64_t *list = lengths->value;
            for (int64_t r = 0; r < row; r++) list += lengths->count[r];
            for (int64_t n = 0; n < lengths->count[row]; n++) {
                if (list[n] > 0) sum = sum < INT64_MAX - list[n] ? sum + list[n] : INT64_MAX;
            }
            return at_fail(ATTUNE_ESHAPE,
                           "lengths: expected a sum of %lld tokens, got %lld (list " AT_INDEX ")",
                           (long long)p->Sk, (long long)sum, (long long)row);
        }
    }
    return ATTUNE_OK;
}

/* ---- rotation -------------------------------------------------------------------------------- */

attune_status at_last_positions(const at_problem *p, const attune_tensor *positions, int64_t n,
                                attune_tensor *out) {
    if (positions) {
        const int axis = positions->rank - (p->position_axes > 1 ? 2 : 1); /* of the tokens */
        return attune_tensor_slice(positions, axis, p->Sk - n, p->Sk, out);
    }
    AT_TRY(at_tensor_new(ATTUNE_I64, 1, &n, out));
    return attune_tensor_arange(out, (double)(p->Sk - n), 1);
}

/* *own becomes *view rotated, in f64 for the reference and in f32 for blis; *view then borrows it.
 */
static attune_status rotate_tensor(const at_problem *p, attune_position *pe,
                                   const attune_tensor *positions, attune_side side,
                                   attune_tensor *view, attune_tensor *own) {
    attune_tensor converted;
    AT_TRY(attune_tensor_convert(
        view, p->engine == ATTUNE_ENGINE_REFERENCE ? ATTUNE_F64 : ATTUNE_F32, &converted));
    attune_status status =
        at_position_rotate(pe, &converted, positions, side, p->position_length, own);
    attune_tensor_close(&converted);
    if (status == ATTUNE_OK) *view = *own;
    return status;
}

static attune_status make_rotations(const attune_attention_options *o, at_problem *p) {
    if (!o->rotate)
        return o->positions ? at_fail(ATTUNE_EVALUE, "positions: expected with rotate only")
                            : ATTUNE_OK;
    AT_TRY(at_check_rotation(o->rotate, p->query.D));
    AT_TRY(at_check_positions(o->rotate, o->positions, p->query.B, p->Sk));
    if (o->positions && p->query.Sq > p->Sk) {
        return at_fail(ATTUNE_ESHAPE,
                       "positions: expected no more queries than keys, got %lld and %lld",
                       (long long)p->query.Sq, (long long)p->Sk);
    }
    if (!o->rotate->inv_freq) return ATTUNE_OK;
    p->position_axes = o->rotate->axes;
    p->position_length = p->position_axes > 1 ? 1
                         : o->positions       ? at_positions_length(o->positions)
                                              : p->Sk;
    attune_tensor of_q = {0}, of_k = {0};
    attune_status status = at_last_positions(p, o->positions, p->query.Sq, &of_q);
    if (status == ATTUNE_OK) status = at_last_positions(p, o->positions, p->Sk, &of_k);
    if (p->engine == ATTUNE_ENGINE_REFERENCE || p->engine == ATTUNE_ENGINE_BLIS) {
        if (status == ATTUNE_OK)
            status = rotate_tensor(p, o->rotate, &of_q, ATTUNE_QUERY, &p->query.q, &p->rotated_q);
        if (status == ATTUNE_OK)
            status = rotate_tensor(p, o->rotate, &of_k, ATTUNE_KEY, &p->k, &p->rotated_k);
    } else {
        if (status == ATTUNE_OK)
            status = at_rotation_make(o->rotate, &of_q, NULL, 0, p->query.B, p->query.Sq,
                                      ATTUNE_QUERY, p->position_length, &p->query.rotation);
        if (status == ATTUNE_OK)
            status = at_rotation_make(o->rotate, &of_k, NULL, 0, p->query.B, p->Sk, ATTUNE_KEY,
                                      p->position_length, &p->k_rotation);
    }
    attune_tensor_close(&of_q);
    attune_tensor_close(&of_k);
    return status;
}

static void visible_keys(const void *context, int64_t b, int64_t i, int64_t *first, int64_t *last) {
    at_problem_visible_keys(context, b, i, first, last);
}

static attune_status make_modifier(const attune_attention_options *o, at_problem *p) {
    if (!o->score && !o->mask) return ATTUNE_OK;
    const at_extent extent = {
        .B = p->query.B, .Hq = p->query.Hq, .G = p->query.G, .Sq = p->query.Sq, .to = p->Sk};
    return at_modifier_make(o->score, o->mask, &extent,
                            (p->gradients ? AT_WITH_GRADIENTS : 0) |
                                (p->engine == ATTUNE_ENGINE_REFERENCE ? AT_IN_DOUBLE : 0),
                            visible_keys, p, &p->query.modifier);
}

/* No query has more than Sk + Sq tokens on one side. A longer side hides nothing, and would
 * overflow. */
static void make_window(const attune_attention_options *o, at_problem *p) {
    const int64_t unlimited = p->Sk + p->query.Sq;
    const int64_t side = o->window - 1; /* window 0: -1 */
    const int64_t left = o->two_sided ? o->window_left : side;
    const int64_t right = o->two_sided ? o->window_right : side;
    p->left = left < 0 || left > unlimited ? unlimited : left;
    p->right = right < 0 || right > unlimited ? unlimited : right;
}

static attune_engine chosen_engine(const attune_tensor *q, const attune_attention_options *o) {
    if (o->engine != ATTUNE_ENGINE_DEFAULT) return o->engine;
    if (q->dtype == ATTUNE_F64) return ATTUNE_ENGINE_REFERENCE;
    const bool few = q->shape[2] <= AT_DECODE_QUERIES && o->lengths.rows == 0;
    return few ? ATTUNE_ENGINE_DECODE : ATTUNE_ENGINE_TILED;
}

attune_status at_check_engine(attune_engine engine, const attune_tensor *q,
                              const attune_attention_options *o) {
    if (q->dtype == ATTUNE_F64 && engine != ATTUNE_ENGINE_REFERENCE) {
        return at_fail(ATTUNE_EENGINE,
                       "engine: expected reference for f64, which the others do not take");
    }
    if (engine != ATTUNE_ENGINE_DECODE) return ATTUNE_OK;
    if (o->lengths.rows) {
        return at_fail(ATTUNE_EENGINE,
                       "engine: decode takes no lengths; expected tiled, blis or reference");
    }
    if (q->shape[2] > AT_DECODE_QUERIES) {
        return at_fail(ATTUNE_EENGINE,
                       "engine: decode takes at most %d queries, got %lld; expected tiled, blis "
                       "or reference",
                       AT_DECODE_QUERIES, (long long)q->shape[2]);
    }
    return ATTUNE_OK;
}

attune_status at_problem_make(const attune_tensor *q, const attune_tensor *k,
                              const attune_tensor *v, const attune_attention_options *options,
                              bool gradients, at_problem *out) {
    static const attune_attention_options defaults = {0};
    const attune_attention_options *o = options ? options : &defaults;
    memset(out, 0, sizeof *out);
    out->gradients = gradients;
    AT_TRY(attune_init());
    AT_TRY(check_tensor("q", q, "[batch, heads, queries, head_dim]"));
    AT_TRY(check_tensor("k", k, "[batch, kv_heads, keys, head_dim]"));
    if (v) AT_TRY(check_tensor("v", v, "[batch, kv_heads, keys, head_dim]"));
    AT_TRY(check_shapes(q, k, v));
    const attune_tensor *others[] = {k, v ? v : k};
    for (int i = 0; i < 2; i++) {
        if ((q->dtype == ATTUNE_F64) != (others[i]->dtype == ATTUNE_F64)) {
            return at_fail(ATTUNE_EDTYPE, "%s: expected %s to go with q %s, got %s", i ? "v" : "k",
                           q->dtype == ATTUNE_F64 ? "f64" : "f32, bf16 or f16",
                           attune_dtype_name(q->dtype), attune_dtype_name(others[i]->dtype));
        }
    }
    AT_TRY(at_check_options(o, q->dtype == ATTUNE_F64));

    at_problem *p = out;
    p->engine = chosen_engine(q, o);
    AT_TRY(at_check_engine(p->engine, q, o));
    p->k = *k;
    if (v) p->v = *v;
    p->Sk = k->shape[2];
    p->Dv = v ? v->shape[3] : 0;
    p->causal = o->causal;
    attune_status status = at_query_side_make(q, k->shape[1], o, &p->query);
    make_window(o, p);
    p->query.visible_keys = visible_keys;
    p->query.visible_keys_context = p;
    if (status == ATTUNE_OK) status = make_documents(&o->lengths, p);
    if (status == ATTUNE_OK) status = make_rotations(o, p);
    if (status == ATTUNE_OK) status = make_modifier(o, p);
    if (status != ATTUNE_OK) at_problem_close(p);
    return status;
}

void at_problem_close(at_problem *p) {
    at_query_side_close(&p->query);
    at_free(p->document);
    at_rotation_free(&p->k_rotation);
    attune_tensor_close(&p->rotated_q);
    attune_tensor_close(&p->rotated_k);
    p->document = NULL;
}

void at_problem_visible_keys(const at_problem *p, int64_t b, int64_t i, int64_t *first,
                             int64_t *last) {
    /* The queries are the last Sq of the Sk tokens. A query with a negative position comes before
     * all keys. */
    const int64_t at = i + p->Sk - p->query.Sq;
    int64_t begin = 0, end = p->Sk;
    if (p->causal && at + 1 < end) end = at + 1;
    if (at - p->left > begin) begin = at - p->left;
    if (at + p->right + 1 < end) end = at + p->right + 1;
    if (p->document) {
        const int64_t *span = p->document + ((p->document_rows == 1 ? 0 : b) * p->Sk + at) * 2;
        if (span[0] > begin) begin = span[0];
        if (span[1] < end) end = span[1];
    }
    *first = begin;
    *last = end;
}

void at_problem_visible_keys_of_head(const at_problem *p, int64_t b, int64_t h, int64_t i,
                                     int64_t *first, int64_t *last) {
    at_problem_visible_keys(p, b, i, first, last);
    at_modifier_narrow(&p->query.modifier, b, h, i, first, last);
}

/* ---- the pair of tensors as a key source ----------------------------------------------------- */

at_unpacked_keys at_pair_keys(const at_problem *p, int64_t b, int64_t h) {
    return (at_unpacked_keys){
        .k = &p->k, .v = &p->v, .rotation = at_rotation_or_null(&p->k_rotation), .b = b, .h = h};
}

static at_layout pair_layout(const at_problem *p) {
    const attune_dtype dtype = at_packed_dtype(p->k.dtype, p->v.dtype);
    /* f16 may not hold keys that the rotation scales. */
    return at_layout_of(dtype == ATTUNE_F16 && p->k_rotation.scales ? ATTUNE_F32 : dtype,
                        p->query.D, p->Dv);
}

static void pair_keys(const void *context, int64_t b, int64_t h, at_keys *out) {
    const at_problem *p = context;
    *out = (at_keys){.layout = pair_layout(p), .unpacked = at_pair_keys(p, b, h)};
}

at_key_source at_pair_source(const at_problem *p, int64_t kept_tiles) {
    return (at_key_source){
        .layout = pair_layout(p), .kept_tiles = kept_tiles, .keys = pair_keys, .context = p};
}
