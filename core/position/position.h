/* position.h - one interface for every positional encoding.
 *
 * An encoding adds rows to the embeddings, rotates q and k, or adds to the scores. Each family
 * (absolute, alibi, rope, rope2d, t5, xpos) has its own file and fills in this struct; a function
 * pointer that does not apply stays NULL. The families that rotate also use rotate.h. position.c
 * knows no family.
 */
#ifndef AT_POSITION_POSITION_H
#define AT_POSITION_POSITION_H

#include "attune.h"

struct at_rotation_table;

struct attune_position {
    const char *name;
    unsigned capabilities;              /* flags of attune_position_capability */
    void (*close)(attune_position *pe); /* frees what the family allocated; NULL: nothing */

    /* The row that is added to a token at this position, out [d_model] f64. ATTUNE_EVALUE where the
     * position has no row. NULL: the encoding does not embed. */
    attune_status (*row)(const attune_position *pe, int64_t position, double *out);
    int64_t d_model; /* elements of such a row */
    /* learned: [max_positions, d_model]; t5: [buckets, heads]; alibi: the slopes [heads] */
    attune_tensor table;

    /* The cosine and sine [dims / 2] of every pair for a token at position at[0 .. axes - 1], with
     * factor and scale included. NULL: the encoding does not rotate. */
    attune_status (*cos_sin)(const attune_position *pe, const double *frequencies,
                             const int64_t *at, attune_side side, double *cosine, double *sine);
    int64_t head_dim, dims;
    int64_t blocks; /* dims consist of this many blocks, each with its own pairs: 1; rope2d: 2 */
    int axes;       /* numbers per position: 1; rope2d: 2 (row, column) */
    bool sided;     /* q and k rotate differently */
    attune_pairing pairing;
    double base, factor;
    double factor_long; /* the factor that goes with inv_freq_long */
    double *inv_freq;   /* [dims / 2]; NULL: the encoding does not rotate */
    /* Calls longer than `longest` (0: no call) use other frequencies: inv_freq_long [dims / 2], or
     * if that is NULL, those that long_frequencies computes for the length. */
    int64_t longest;
    double *inv_freq_long;
    void (*long_frequencies)(const attune_position *pe, int64_t length, double *out);
    attune_angles angles;
    double growth; /* the factor of dynamic scaling */
    /* Tables for the positions 0, 1, .. up to the largest that was used so far. [0]: for q, or for
     * calls up to `longest`; [1]: for k if sided, or for longer calls. A sided encoding has no long
     * frequencies. */
    struct at_rotation_table *kept[2];

    double scale_base, center; /* xpos */
    bool halves;               /* sinusoidal: all sines, then all cosines */
    int64_t max_distance;      /* t5 */
    bool bidirectional;        /* t5 */
};

/* Checks that the encoding does not rotate, or rotates heads of that head_dim. */
attune_status at_check_rotation(const attune_position *pe, int64_t head_dim);

/* Checks positions of tokens [B][S]: NULL, or i64 [S] or [B, S]; for an encoding of two axes [S, 2]
 * or [B, S, 2], and not NULL. */
attune_status at_check_positions(const attune_position *pe, const attune_tensor *positions,
                                 int64_t B, int64_t S);

/* "[buckets, 2]": the expected shape of a table; an extent that was not given (0) appears by name.
 * The text lives in one buffer per thread. */
const char *at_expected_text(const char *rows, int64_t row_count, const char *columns,
                             int64_t column_count);

/* A new encoding of that name with those capabilities, everything else zero but factor 1.
 * ATTUNE_EMEMORY. */
attune_status at_position_new(const char *name, unsigned capabilities, attune_position **out);

#endif
