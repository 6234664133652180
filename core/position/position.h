/* position.h - one interface for every positional encoding. An encoding has a part in the
 * embeddings, in the rotation of q and k, or in the scores; what it lacks is NULL. A family has a
 * file of its own and fills this table. */
#ifndef AT_POSITION_POSITION_H
#define AT_POSITION_POSITION_H

#include "attune.h"

/* Cosines and sines that several calls may hold at once; the last to let go frees them. */
typedef struct at_rotation_table {
    int64_t uses, rows;
    float *cosine, *sine; /* [rows][pairs] */
} at_rotation_table;

/* The turns of some tokens, ready for use: cosines and sines of each pair of dims, factor and scale
 * included. */
typedef struct at_rotation {
    int64_t dims, head_dim;
    int64_t blocks; /* of dims, each with pairs of its own */
    attune_pairing pairing;
    const float *cosine, *sine; /* [rows][dims / 2] each; NULL: nothing turns */
    int64_t *row;               /* [batch rows or 1][tokens]: the tables' row for each token */
    int64_t batch_stride;       /* tokens; 0: the same for each batch row */
    at_rotation_table *table;
} at_rotation;

/* For tokens [B][S] at the given positions, i64 [S] or [B, S] (rope2d: [S, 2] or [B, S, 2]);
 * positions NULL: from first[b] on, `firsts` (1 or B) of them. length: the largest position + 1 of
 * the whole call, by which dynamic and longrope choose; 0: that of these tokens. An encoding that
 * turns nothing gives turns without tables. */
attune_status at_rotation_make(attune_position *pe, const attune_tensor *positions,
                               const int64_t *first, int64_t firsts, int64_t B, int64_t S,
                               attune_side side, int64_t length, at_rotation *out);
void at_rotation_free(at_rotation *turns);

/* Cosines, then sines, of the tokens first, first + 1, ..: out [S][2][dims / 2]. For encodings of
 * one axis. */
attune_status at_rotation_f64(const attune_position *pe, int64_t first, int64_t S, attune_side side,
                              int64_t length, double *out);

/* One token's head_dim elements; x may be out. at_rotate_token_back is its transpose, which
 * gradients go through: backwards, factor and scale once more. */
void at_rotate_token(const at_rotation *turns, int64_t b, int64_t token, const float *x,
                     float *out);
void at_rotate_token_back(const at_rotation *turns, int64_t b, int64_t token, const float *x,
                          float *out);

/* attune_position_rotate within a call of that length (0: of these positions), and its transpose,
 * for gradients. */
attune_status at_position_rotate(attune_position *pe, const attune_tensor *x,
                                 const attune_tensor *positions, attune_side side, int64_t length,
                                 attune_tensor *out);
attune_status at_position_rotate_back(attune_position *pe, const attune_tensor *x,
                                      const attune_tensor *positions, attune_side side,
                                      int64_t length, attune_tensor *out);

/* The largest position + 1; at least 1. */
int64_t at_positions_length(const attune_tensor *positions);

struct attune_position {
    const char *name;
    void (*close)(attune_position *pe);
    /* The row to add for one position, [d_model] f64. EVALUE where there is none. */
    attune_status (*row)(const attune_position *pe, int64_t position, double *out);
    int64_t d_model; /* of row */
    attune_tensor
        table; /* learned [max_positions, d_model], t5 [buckets, heads], alibi's slopes [heads] */

    /* Rotation; frequencies NULL: none. turn: cosine and sine of every pair for a token, factor and
     * scale included. */
    attune_status (*turn)(const attune_position *pe, const double *frequencies, const int64_t *at,
                          attune_side side, double *cosine, double *sine);
    int64_t head_dim, dims;
    int64_t blocks; /* of dims, each with pairs of its own: 1; rope2d 2 */
    int axes;       /* numbers that make a position: 1; rope2d 2 */
    bool sided;     /* q and k turn differently */
    attune_pairing pairing;
    double base, factor;
    double *inv_freq; /* [dims / 2] */
    /* In calls longer than `longest` (0: in none) other frequencies hold: these, or else those that
     * long_frequencies gives for the length. */
    int64_t longest;
    double *inv_freq_long;
    void (*long_frequencies)(const attune_position *pe, int64_t length, double *out);
    attune_angles angles;
    double growth;              /* of dynamic: the factor */
    at_rotation_table *kept[2]; /* positions 0, 1, .. that have been asked for: of q and k, or of
                               short and long calls; sided encodings have no long ones */

    double scale_base, center; /* xpos */
    bool halves;               /* sinusoidal */
    int64_t max_distance;      /* t5 */
    bool bidirectional;
};

/* Nothing to rotate, or rotation of heads of that many dims. */
attune_status at_check_rotation(const attune_position *pe, int64_t head_dim);

/* positions: NULL, or i64 [S] or [B, S]; for an encoding of two axes [S, 2] or [B, S, 2], and not
 * NULL. */
attune_status at_check_positions(const attune_position *pe, const attune_tensor *positions,
                                 int64_t B, int64_t S);

/* base, and dims of head_dim, as several encodings take them: zeros become defaults. */
attune_status at_check_rotary(int64_t head_dim, int64_t *dims, double *base,
                              attune_pairing pairing);

/* "[buckets, 2]": a table's shape in words, extents that were not given (0) by name. One buffer a
 * thread. */
const char *at_expected_text(const char *rows, int64_t row_count, const char *columns,
                             int64_t column_count);

/* A zeroed position of that name; EMEMORY. */
attune_status at_position_new(const char *name, attune_position **out);
/* One that rotates, with room for its frequencies; at_rotary_close frees what rotation takes, if
 * any. */
attune_status at_rotary_new(const char *name, int64_t head_dim, int64_t dims, double base,
                            attune_pairing pairing, attune_position **out);
void at_rotary_close(attune_position *pe);

#endif
