/* block_map.h - block maps: which pairs of query and key a mask program lets through, row by row
 * and tile by tile.
 *
 * A tile is AT_TILE queries by AT_TILE keys. Queries count from the first query of the problem,
 * keys from token 0. Where the range of the mask's values over a tile decides the tile, its pairs
 * are not computed.
 */
#ifndef AT_PROGRAM_BLOCK_MAP_H
#define AT_PROGRAM_BLOCK_MAP_H

#include "program/binding.h"

/* The state of a tile: no pair, some pairs or all pairs are visible. */
enum { AT_TILE_EMPTY, AT_TILE_PARTIAL, AT_TILE_FULL };

typedef struct at_block_map {
    int64_t B, Hq, Sq, from, to; /* of the extent */
    int64_t *base;               /* [B] */
    uint64_t checksum;           /* of the tensors that the mask reads */
    int64_t rows_b, rows_h;      /* B and Hq, or 1 where all batch rows or heads agree */
    int64_t row_blocks, key_blocks;
    int64_t first_block;    /* number of the first key block, counted from token 0 */
    int32_t *first, *last;  /* [rows_b][rows_h][Sq]: keys [first, last) contain all visible keys of
                               the query; counted from `from` */
    bool contiguous;        /* all keys [first, last) are visible, for every query */
    uint8_t *state;         /* [rows_b][rows_h][row_blocks][key_blocks] */
    int64_t visible, pairs; /* visible pairs, and all pairs, of rows_b * rows_h heads */
} at_block_map;

/* The map of a bound mask. The program keeps its last maps: one is reused for the same extent and
 * the same numbers in the mask's tensors. The map belongs to the program. */
attune_status at_block_map_of(attune_program *mask, const at_binding *binding,
                              const at_block_map **out);

static inline int64_t at_block_map_row(const at_block_map *m, int64_t b, int64_t h) {
    return (m->rows_b > 1 ? b : 0) * m->rows_h + (m->rows_h > 1 ? h : 0);
}

/* Narrows [*first, *last) to the range that contains the visible keys of query i of head (b, h). */
static inline void at_block_map_narrow(const at_block_map *m, int64_t b, int64_t h, int64_t i,
                                       int64_t *first, int64_t *last) {
    const int64_t offset = at_block_map_row(m, b, h) * m->Sq + i;
    if (m->from + m->first[offset] > *first) *first = m->from + m->first[offset];
    if (m->from + m->last[offset] < *last) *last = m->from + m->last[offset];
}

/* The state of the tile that holds query i and key `key`. */
static inline int at_block_map_state(const at_block_map *m, int64_t b, int64_t h, int64_t i,
                                     int64_t key) {
    return m->state[(at_block_map_row(m, b, h) * m->row_blocks + i / AT_TILE) * m->key_blocks +
                    key / AT_TILE - m->first_block];
}

/* The keys [*first, *last) that query i of batch row b may attend to, regardless of masks. */
typedef void (*at_visible_keys)(const void *context, int64_t b, int64_t i, int64_t *first,
                                int64_t *last);

#endif
