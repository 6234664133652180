/* position.h - one interface for every positional encoding. An encoding has a part in the embeddings, in the rotation of q and k, or in both; what
 * it lacks is NULL. A family has a file of its own and fills this table. */
#ifndef AT_POSITION_POSITION_H
#define AT_POSITION_POSITION_H

#include "attune.h"

/* The turns of some tokens, ready for use: cosines and sines of each pair of dims, factor included. */
typedef struct at_turns {
    int64_t dims, head_dim;
    attune_pairing pairing;
    const float *cosine, *sine; /* [rows][dims / 2] each; NULL: nothing turns */
    int64_t *row;               /* [batch rows or 1][tokens]: the tables' row for each token */
    int64_t batch_stride;       /* tokens; 0: the same for each batch row */
    float *own;                 /* tables of this call's alone */
} at_turns;

/* For tokens [B][S] at the given positions, i64 [S] or [B, S]; positions NULL: from first[b] on, `firsts` (1 or B) of them. An encoding that turns nothing gives
 * turns without tables. */
attune_status at_turns_make(attune_position *pe, const attune_tensor *positions, const int64_t *first, int64_t firsts, int64_t B, int64_t S, at_turns *out);
void at_turns_free(at_turns *turns);

/* One token's head_dim elements; x may be out. at_turn_back is its transpose, which gradients go through: backwards, the factor once more. */
void at_turn(const at_turns *turns, int64_t b, int64_t token, const float *x, float *out);
void at_turn_back(const at_turns *turns, int64_t b, int64_t token, const float *x, float *out);

/* The transpose of attune_position_rotate, for gradients. */
attune_status at_position_rotate_back(attune_position *pe, const attune_tensor *x, const attune_tensor *positions, attune_tensor *out);

struct attune_position {
    const char *name;
    void (*close)(attune_position *pe);
    /* The row to add for one position, [d_model] f64. EVALUE where there is none. */
    attune_status (*row)(const attune_position *pe, int64_t position, double *out);
    int64_t d_model; /* of row */
    attune_tensor table;

    int64_t head_dim, dims; /* of rotation */
    attune_pairing pairing;
    double base, factor;
    double *inv_freq;     /* [dims / 2] */
    float *cosine, *sine; /* [cached][dims / 2]: positions 0, 1, .. that have been asked for */
    int64_t cached;
    bool halves;
};

/* Nothing to rotate, or rotation of heads of that many dims. */
attune_status at_check_rotation(const attune_position *pe, int64_t head_dim);

/* positions: NULL, or i64 [S] or [B, S]. */
attune_status at_check_positions(const attune_tensor *positions, int64_t B, int64_t S);

/* A zeroed position of that name; EMEMORY. */
attune_status at_position_new(const char *name, attune_position **out);

#endif
