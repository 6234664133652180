/* decode.c - few queries against keys and values as they lie in plain tensors: tiles are packed on
 * the way. */
#include "attention/walk.h"

static void keys_of(const void *context, int64_t b, int64_t h, at_keys *out) {
    const at_problem *p = context;
    *out = (at_keys){
        .layout = at_layout_of(at_packed_dtype(p->k.dtype, p->v.dtype), p->D, p->Dv),
        .source = {
            .k = &p->k, .v = &p->v, .turns = at_rotation_or_null(&p->k_rotation), .b = b, .h = h}};
}

static void sees(const void *context, int64_t b, int64_t i, int64_t *first, int64_t *last) {
    at_problem_visible_keys(context, b, i, first, last);
}

attune_status at_decode(const at_problem *p, attune_tensor *o, attune_tensor *lse) {
    at_walk walk = {.q = &p->q,
                    .o = o,
                    .lse = lse,
                    .B = p->B,
                    .Hk = p->Hk,
                    .G = p->G,
                    .Sq = p->Sq,
                    .turns = at_rotation_or_null(&p->q_rotation),
                    .scale = p->scale,
                    .softcap = p->softcap,
                    .modifier = at_modifies(&p->modifier) ? &p->modifier : NULL,
                    .sinks = p->sinks,
                    .layout = at_layout_of(at_packed_dtype(p->k.dtype, p->v.dtype), p->D, p->Dv),
                    .raw = 1,
                    .context = p,
                    .sees = sees,
                    .keys = keys_of};
    at_walk_scratch scratch;
    attune_status status = at_walk_scratch_new(&walk, &scratch);
    if (status == ATTUNE_OK) status = at_walk_split(&walk, &scratch);
    at_walk_scratch_free(&scratch);
    return status;
}
