/* attune/position.h - positional encodings. */
#ifndef ATTUNE_POSITION_H
#define ATTUNE_POSITION_H

#include "attune/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct attune_position attune_position;

/* What an encoding does and needs: flags for attune_position_capabilities. "none" has no flag. */
typedef enum attune_position_capability {
    ATTUNE_EMBEDS = 1,   /* adds rows to the embeddings: learned, sinusoidal */
    ATTUNE_ROTATES = 2,  /* rotates q and k: rope, rope2d, xpos */
    ATTUNE_SCORES = 4,   /* adds to the scores: alibi, t5 */
    ATTUNE_SIDED = 8,    /* q and k rotate differently, so the right attune_side matters: xpos */
    ATTUNE_TWO_AXES = 16 /* a position is a row and a column, and must be given: rope2d */
} attune_position_capability;

typedef enum attune_pairing {
    ATTUNE_HALF,        /* dims i and i + dims / 2 form a pair: GPT-NeoX, LLaMA, Falcon */
    ATTUNE_INTERLEAVED, /* dims 2 i and 2 i + 1 form a pair: RoFormer, GPT-J, PaLM */
} attune_pairing;

/* Whether q or k is rotated. Only xpos rotates them differently (ATTUNE_SIDED). */
typedef enum attune_side { ATTUNE_QUERY, ATTUNE_KEY } attune_side;

/* The precision in which a rotation's frequencies, angles, cosines and sines are computed; less
 * than f64 loses accuracy at large positions. */
typedef enum attune_angles {
    ATTUNE_ANGLES_F64,
    ATTUNE_ANGLES_F32,
    ATTUNE_ANGLES_F16
} attune_angles;

typedef enum attune_scaling_type {
    ATTUNE_SCALING_NONE,
    ATTUNE_SCALING_LINEAR,   /* position interpolation. Fields: factor */
    ATTUNE_SCALING_NTK,      /* another base. Fields: factor */
    ATTUNE_SCALING_DYNAMIC,  /* another base for each length beyond original. Fields:
                                factor, original */
    ATTUNE_SCALING_YARN,     /* factor, original, beta_fast, beta_slow, attention_factor, mscale,
                                mscale_all_dim, not_truncated */
    ATTUNE_SCALING_LONGROPE, /* one factor per pair. Fields: factor, original, short_factors,
                                long_factors, attention_factor, short_mscale, long_mscale */
    ATTUNE_SCALING_LLAMA3,   /* factor, original, low, high */
    ATTUNE_SCALING_PROPORTIONAL, /* pairs and frequencies of the whole head, of which only the first
                                    `dims` / 2 pairs rotate. Fields: factor, 0: 1 */
} attune_scaling_type;

/* How RoPE is scaled beyond the length that the model was trained at. A zero field means its
 * default. factor must be given, and original too except for linear and ntk. */
typedef struct attune_rope_scaling {
    attune_scaling_type type;
    double factor;
    int64_t original; /* the trained length, in tokens */
    int64_t length;   /* the length by which dynamic and longrope choose their frequencies; 0: the
                         largest position + 1 of each call */
    double beta_fast, beta_slow; /* 32, 1 */
    double attention_factor;     /* multiplies cosines and sines; 0, yarn: computed from mscale and
                                    mscale_all_dim, or if those are 0 too, 0.1 ln factor + 1;
                                    longrope: sqrt(1 + ln factor / ln original) */
    double mscale, mscale_all_dim;
    double short_mscale, long_mscale; /* longrope: in place of attention_factor, for calls up to
                                         the trained length and for longer ones */
    bool not_truncated;               /* the ends of yarn's ramp are not rounded to whole pairs */
    const double *short_factors, *long_factors;
    int64_t short_count, long_count; /* dims / 2 each */
    double low, high;                /* 1, 4 */
} attune_rope_scaling;

/* Rotary embedding (Su et al. 2021, arXiv 2104.09864). head_dim must be given; a zero in any other
 * field is its default. */
typedef struct attune_rope_options {
    int64_t head_dim;
    int64_t dims; /* the number of dims of head_dim that rotate, even; 0: all */
    double base;  /* 0: 10000 */
    attune_pairing pairing;
    attune_angles angles;
    attune_rope_scaling scaling;
    const double *inv_freq; /* [inv_freq_count], dims / 2 of them, each at least 0: in place of base
                               and scaling; NULL: none */
    int64_t inv_freq_count;
} attune_rope_options;

/* xPos (Sun et al. 2022, arXiv 2212.10554): RoPE whose q grows and k shrinks with the position, so
 * that scores decay with the distance. head_dim must be given. The paper pairs as
 * ATTUNE_INTERLEAVED does; zero bytes are ATTUNE_HALF. */
typedef struct attune_xpos_options {
    int64_t head_dim, dims;  /* dims 0: all */
    double base, scale_base; /* 0: 10000, 512 */
    double center;           /* the position of scale 1 */
    attune_pairing pairing;
} attune_xpos_options;

typedef struct attune_t5_options {
    int64_t heads, buckets, max_distance; /* 0: 32 buckets, distance 128 */
    bool causal; /* all buckets for keys before the query; else half of them for keys after it */
    uint64_t seed;
    const attune_tensor *table; /* [buckets, heads]: shared, not copied; NULL: normal values times
                                   0.02, drawn with the seed */
} attune_t5_options;

/* Makers of encodings. *out is NULL after an error: EVALUE, ESHAPE, EDTYPE, EMEMORY. */
ATTUNE_API attune_status attune_position_none(attune_position **out);
ATTUNE_API attune_status attune_position_rope(const attune_rope_options *options,
                                              attune_position **out);
/* Learned rows. Without a table: [max_positions, d_model] of normal values times 0.02. With a
 * table, which is shared, not copied: d_model and max_positions are 0 or equal its extents. */
ATTUNE_API attune_status attune_position_learned(int64_t d_model, int64_t max_positions,
                                                 uint64_t seed, const attune_tensor *table,
                                                 attune_position **out);
/* Sines and cosines (Vaswani et al. 2017, section 3.5). halves: all sines, then all cosines; else
 * interleaved. base 0: 10000. */
ATTUNE_API attune_status attune_position_sinusoidal(int64_t d_model, double base, bool halves,
                                                    attune_position **out);
/* The first half of a head's dims is rotated by the token's row, the second half by its column,
 * each as RoPE of head_dim / 2 dims. base 0: 10000. */
ATTUNE_API attune_status attune_position_rope2d(int64_t head_dim, double base,
                                                attune_pairing pairing, attune_position **out);
ATTUNE_API attune_status attune_position_xpos(const attune_xpos_options *options,
                                              attune_position **out);
/* Slopes of Press et al. 2022 (arXiv 2108.12409) for any number of heads. max_bias 0: 8. */
ATTUNE_API attune_status attune_position_alibi(int64_t heads, double max_bias,
                                               attune_position **out);
/* Relative buckets of Raffel et al. 2020 (arXiv 1910.10683). */
ATTUNE_API attune_status attune_position_t5(const attune_t5_options *options,
                                            attune_position **out);
ATTUNE_API void attune_position_close(attune_position *pe);
ATTUNE_API const char *attune_position_name(const attune_position *pe);
/* Flags of attune_position_capability. */
ATTUNE_API unsigned attune_position_capabilities(const attune_position *pe);

/* embed: x [B, S, d_model] -> x plus the row of each token's position. rotate: x [B, H, S, D] -> x
 * rotated by each token's position; side matters for xpos only.
 *
 * positions: i64 [S] or [B, S]; NULL: 0, 1, .. S - 1. For rope2d [S, 2] or [B, S, 2], of rows and
 * columns, and never NULL. x has any strides and any float dtype, and out has its dtype. An
 * encoding without that part gives out = x, shared. rotate_in_place writes x itself. Errors:
 * ECLOSED, ESHAPE, EDTYPE, EVALUE for a position out of range, EMEMORY, EINTERRUPT. */
ATTUNE_API attune_status attune_position_embed(attune_position *pe, const attune_tensor *x,
                                               const attune_tensor *positions, attune_tensor *out);
ATTUNE_API attune_status attune_position_rotate(attune_position *pe, const attune_tensor *x,
                                                const attune_tensor *positions, attune_side side,
                                                attune_tensor *out);
ATTUNE_API attune_status attune_position_rotate_in_place(attune_position *pe, attune_tensor *x,
                                                         const attune_tensor *positions,
                                                         attune_side side);
/* The transpose of rotate, through which gradients flow. */
ATTUNE_API attune_status attune_position_rotate_backward(attune_position *pe,
                                                         const attune_tensor *d_out,
                                                         const attune_tensor *positions,
                                                         attune_side side, attune_tensor *dx);
/* learned: the table's gradient [max_positions, d_model] for d_out [B, S, d_model], the tokens of a
 * position summed in their order. */
ATTUNE_API attune_status attune_position_embed_backward(attune_position *pe,
                                                        const attune_tensor *d_out,
                                                        const attune_tensor *positions,
                                                        attune_tensor *dtable);

/* The parts of an encoding. A tensor `out` is for the caller to close. ATTUNE_EVALUE where the
 * encoding lacks the part.
 * - inv_freq: [dims / 2] f64, of encodings that rotate. With dynamic and longrope scaling they are
 *   those at scaling.length, or those of calls up to the trained length.
 * - factor: the scale of cosines and sines; 1 where nothing is scaled.
 * - table: learned [max_positions, d_model], t5 [buckets, heads].
 * - slopes: alibi's, [heads].
 * - bucket: t5's, from 0, of relative = key position - query position.
 * - sided: q and k rotate differently. */
ATTUNE_API attune_status attune_position_inv_freq(const attune_position *pe, attune_tensor *out);
ATTUNE_API double attune_position_factor(const attune_position *pe);
ATTUNE_API attune_status attune_position_table(const attune_position *pe, attune_tensor *out);
ATTUNE_API attune_status attune_position_slopes(const attune_position *pe, attune_tensor *out);
ATTUNE_API attune_status attune_position_bucket(const attune_position *pe, int64_t relative,
                                                int64_t *out);
ATTUNE_API void attune_position_distances(const attune_position *pe, int64_t *max_distance,
                                          bool *bidirectional); /* of t5; else 0 and false */
ATTUNE_API bool attune_position_sided(const attune_position *pe);

#ifdef __cplusplus
}
#endif

#endif
