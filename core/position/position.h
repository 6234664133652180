/* position.h - one interface for every positional encoding. An encoding has a part in the embeddings, in the rotation of q and k, or in both; what
 * it lacks is NULL. A family has a file of its own and fills this table. */
#ifndef AT_POSITION_POSITION_H
#define AT_POSITION_POSITION_H

#include "attune.h"

/* Cosines and sines of each pair of dims, factor included: [rows][pairs] each. */
typedef struct at_turns {
    const float *cosine, *sine;
} at_turns;

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

/* positions: NULL, or i64 [S] or [B, S]. */
attune_status at_check_positions(const attune_tensor *positions, int64_t B, int64_t S);

/* A zeroed position of that name; EMEMORY. */
attune_status at_position_new(const char *name, attune_position **out);

#endif
