/* key_source.h - where the keys and values of attention come from, as tiles of AT_TILE tokens.
 *
 * The tiled and decode engines and the cache read keys through this interface only. A key source
 * either has packed tiles in memory, or has plain tensors whose tiles are packed lazily.
 */
#ifndef AT_ATTENTION_KEY_SOURCE_H
#define AT_ATTENTION_KEY_SOURCE_H

#include "attune.h"
#include "position/rotate.h"

/* A packed tile holds AT_TILE tokens of one kv head: first their keys, then their values, so that
 * decoding reads memory in one stream. */
typedef struct at_layout {
    attune_dtype dtype;
    int64_t D, Dv;
    int64_t v;     /* byte offset of the values in a tile */
    int64_t bytes; /* of a tile */
} at_layout;
at_layout at_layout_of(attune_dtype dtype, int64_t D, int64_t Dv);

/* The dtype of the packed tiles of such tensors: their own where it is bf16 or f16 in both, else
 * f32. */
attune_dtype at_packed_dtype(attune_dtype k, attune_dtype v);

/* The tokens of kv head (b, h) in plain tensors. */
typedef struct at_unpacked_keys {
    const attune_tensor *k, *v;  /* [B, Hk, Sk, dims], any float dtype but f64, any strides; v NULL:
                                    only keys are packed */
    const at_rotation *rotation; /* of the keys, applied lazily; NULL: none */
    int64_t b, h;
} at_unpacked_keys;

/* The keys and values of one kv head as packed tiles. Tile t holds the tokens from AT_TILE * t on.
 * It is in slot t, or, in a ring, in slot t % ring. */
typedef struct at_keys {
    at_layout layout;
    char *tiles;        /* [slots][layout.bytes]; NULL: tiles are packed lazily, from `unpacked` */
    float *scales;      /* [slots][2][AT_TILE]: the scale of each token's key, then of each value;
                           for i8 only */
    int64_t ring;       /* the number of slots of a ring; 0: not a ring */
    uint8_t *nonfinite; /* [slots]: 1 where the tile's values hold an Inf or NaN; NULL: none does */
    at_unpacked_keys unpacked;
    int64_t prefetch_end; /* prefetch the tokens before this one; 0: only those that are read */
} at_keys;

/* Packs the tokens [first, first + count) of `from` into the tile in `slot`, from lane `lane` on.
 * f32_rows: scratch [AT_TILE][max(D, Dv)]. */
void at_pack_tile(const at_keys *keys, int64_t slot, int lane, const at_unpacked_keys *from,
                  int64_t first, int64_t count, float *f32_rows);

/* A key source for all kv heads. */
typedef struct at_key_source {
    at_layout layout;
    int64_t kept_tiles; /* tiles are packed lazily and each thread keeps this many of them; 0: tiles
                           are packed already */
    void (*keys)(const void *context, int64_t b, int64_t h, at_keys *out); /* of kv head (b, h) */
    const void *context;                                                   /* for keys */
} at_key_source;

/* Token `token` of head (b, h) of t [B, H, S, dims] as f32 [dims] in `to`, rotated unless rotation
 * is NULL. */
void at_f32_row(const attune_tensor *t, const at_rotation *rotation, int64_t b, int64_t h,
                int64_t token, float *to);

/* The same for the tokens [first, first + count). Returns rows that are *stride floats apart: the
 * tensor's own memory where it is f32 and not rotated, else `to` [count][dims]. */
const float *at_f32_rows(const attune_tensor *t, const at_rotation *rotation, int64_t b, int64_t h,
                         int64_t first, int64_t count, float *to, int64_t *stride);

#endif
