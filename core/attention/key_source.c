/* key_source.c - packed tiles of keys and values, and f32 rows of tensors of any dtype. */
#include "attention/key_source.h"

#include <string.h>

#include "base/memory.h"
#include "base/numbers.h"
#include "simd/table.h"

at_layout at_layout_of(attune_dtype dtype, int64_t D, int64_t Dv) {
    const int64_t size = AT_TILE * attune_dtype_size(dtype);
    at_layout l = {
        .dtype = dtype, .D = D, .Dv = Dv, .v = at_checked_mul(size, at_round_up(D, AT_DIM))};
    l.bytes = l.v + at_checked_mul(size, at_round_up(Dv, AT_DIM));
    return l;
}

attune_dtype at_packed_dtype(attune_dtype k, attune_dtype v) {
    return k == v && (k == ATTUNE_BF16 || k == ATTUNE_F16) ? k : ATTUNE_F32;
}

/* n elements, `stride` apart, as f32. Returns the tensor's own memory where it has that form, else
 * `to`. */
static const float *f32_elements(const attune_tensor *t, int64_t offset, int64_t stride, int64_t n,
                                 float *to) {
    const at_elementwise_kernels *kernels = &at_simd_now()->elementwise;
    if (t->dtype == ATTUNE_F32) {
        const float *x = (const float *)t->data + offset;
        if (stride == 1) return x;
        for (int64_t i = 0; i < n; i++) to[i] = x[i * stride];
        return to;
    }
    const uint16_t *x = (const uint16_t *)t->data + offset;
    if (stride == 1) {
        (t->dtype == ATTUNE_BF16 ? kernels->bf16_to_f32 : kernels->f16_to_f32)(x, to, n);
        return to;
    }
    for (int64_t i = 0; i < n; i++)
        to[i] =
            t->dtype == ATTUNE_BF16 ? at_bf16_to_f32(x[i * stride]) : at_f16_to_f32(x[i * stride]);
    return to;
}

void at_f32_row(const attune_tensor *t, const at_rotation *rotation, int64_t b, int64_t h,
                int64_t token, float *to) {
    const int64_t *s = t->stride, n = t->shape[3];
    const float *row = f32_elements(t, b * s[0] + h * s[1] + token * s[2], s[3], n, to);
    if (rotation)
        at_rotate_token(rotation, b, token, row, to);
    else if (row != to)
        memcpy(to, row, (size_t)n * sizeof *row);
}

const float *at_f32_rows(const attune_tensor *t, const at_rotation *rotation, int64_t b, int64_t h,
                         int64_t first, int64_t count, float *to, int64_t *stride) {
    const int64_t *s = t->stride, n = t->shape[3];
    if (!rotation && t->dtype == ATTUNE_F32 && s[3] == 1) {
        *stride = s[2];
        return (const float *)t->data + b * s[0] + h * s[1] + first * s[2];
    }
    *stride = n;
    for (int64_t i = 0; i < count; i++) at_f32_row(t, rotation, b, h, first + i, to + i * n);
    return to;
}

void at_pack_tile(const at_keys *keys, int64_t slot, int lane, const at_unpacked_keys *from,
                  int64_t first, int64_t count, float *f32_rows) {
    const at_attention_kernels *kernels = &at_simd_now()->attention;
    const at_layout *l = &keys->layout;
    char *tile = keys->tiles + slot * l->bytes;
    float *scales = keys->scales ? keys->scales + slot * 2 * AT_TILE : NULL;
    int64_t stride;
    const float *x =
        at_f32_rows(from->k, from->rotation, from->b, from->h, first, count, f32_rows, &stride);
    kernels->pack_keys(x, stride, lane, (int)count, l->D, l->dtype, tile, scales);
    if (!from->v) return;
    x = at_f32_rows(from->v, NULL, from->b, from->h, first, count, f32_rows, &stride);
    if (!kernels->pack_values(x, stride, lane, (int)count, l->Dv, l->dtype, tile + l->v,
                              scales ? scales + AT_TILE : NULL))
        keys->nonfinite[slot] = 1;
}
