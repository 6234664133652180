/* rotate.h - rotation of q and k by the encodings that rotate (rope, rope2d, xpos): tables of
 * cosines and sines, and their application to one token or to a whole tensor.
 *
 * Dependency order: position.h <- rotate.h <- rope.c, rope2d.c, xpos.c. position.c knows nothing of
 * this file: a rotating encoding frees its tables in its `close` function.
 */
#ifndef AT_POSITION_ROTATE_H
#define AT_POSITION_ROTATE_H

#include "position/position.h"

/* Cosines and sines that several calls may hold at once. The last user frees them. */
typedef struct at_rotation_table {
    int64_t uses, rows;
    float *cosine, *sine; /* [rows][pairs] */
} at_rotation_table;

/* The rotation of some tokens: the cosine and sine of each pair of dims, with the encoding's factor
 * and scale included. */
typedef struct at_rotation {
    int64_t dims, head_dim; /* the first dims of head_dim elements rotate */
    int64_t blocks;         /* dims consist of this many blocks; a pair never crosses blocks */
    attune_pairing pairing;
    bool scales; /* by a factor that leaves the range of f16 at large positions, as xpos does */
    const float *cosine, *sine; /* [rows][dims / 2] each; NULL: nothing rotates */
    int64_t *row;               /* [batch rows or 1][tokens]: the table row of each token */
    int64_t batch_stride;       /* tokens; 0: all batch rows share the positions */
    at_rotation_table *table;
} at_rotation;

/* The elements *m and *n of pair i of `pairs` pairs, which rotate together. */
static inline void at_pair(attune_pairing pairing, int64_t pairs, int64_t i, int64_t *m,
                           int64_t *n) {
    *m = pairing == ATTUNE_HALF ? i : 2 * i;
    *n = pairing == ATTUNE_HALF ? i + pairs : 2 * i + 1;
}

/* Makes the rotation of tokens [B][S] at the given positions, i64 [S] or [B, S] (rope2d: [S, 2] or
 * [B, S, 2]). Without positions, the tokens of batch row b have first[b], first[b] + 1, ..;
 * `firsts` (1 or B) is the length of first. length: the largest position + 1 of the whole call, by
 * which dynamic and longrope scaling choose their frequencies; 0: that of these tokens. An encoding
 * that does not rotate gives an at_rotation without tables. */
attune_status at_rotation_make(attune_position *pe, const attune_tensor *positions,
                               const int64_t *first, int64_t firsts, int64_t B, int64_t S,
                               attune_side side, int64_t length, at_rotation *out);
void at_rotation_free(at_rotation *rotation);

/* The f64 cosines, then sines, of the tokens first, first + 1, ..: out [S][2][dims / 2]. Only for
 * encodings of one axis. */
attune_status at_rotation_f64(const attune_position *pe, int64_t first, int64_t S, attune_side side,
                              int64_t length, double *out);

/* Rotates the head_dim elements of one token; x may be out. at_rotate_token_back applies the
 * transpose, through which gradients flow: the opposite angle, with the same factor and scale. */
void at_rotate_token(const at_rotation *rotation, int64_t b, int64_t token, const float *x,
                     float *out);
void at_rotate_token_back(const at_rotation *rotation, int64_t b, int64_t token, const float *x,
                          float *out);

/* attune_position_rotate within a call of the given length (0: that of these positions), and its
 * transpose for gradients. */
attune_status at_position_rotate(attune_position *pe, const attune_tensor *x,
                                 const attune_tensor *positions, attune_side side, int64_t length,
                                 attune_tensor *out);
attune_status at_position_rotate_back(attune_position *pe, const attune_tensor *x,
                                      const attune_tensor *positions, attune_side side,
                                      int64_t length, attune_tensor *out);

/* Fails where f16 cannot hold the rotated elements x [n] of a token at this position, which the
 * encoding has scaled by `scale`: one is beyond 65504, or all of them are scaled below the
 * resolution of f16. */
attune_status at_check_f16_range(const float *x, int64_t n, double scale, int64_t position);
/* The largest scale of a token's pairs, or the smallest one where all are below 1. */
double at_rotation_scale(const at_rotation *rotation, int64_t b, int64_t token);

/* The largest of the positions + 1; at least 1. */
int64_t at_positions_length(const attune_tensor *positions);

/* Checks the options that several rotating encodings share. A dims of 0 becomes head_dim, a base of
 * 0 becomes 10000. */
attune_status at_check_rotary(int64_t head_dim, int64_t *dims, double *base,
                              attune_pairing pairing);

/* A new encoding that rotates, with room for its frequencies. Its `close` frees them and the
 * tables. */
attune_status at_rotary_new(const char *name, int64_t head_dim, int64_t dims, double base,
                            attune_pairing pairing, attune_position **out);

#endif
