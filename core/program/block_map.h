/* map.h - block maps: which pairs a mask shows, row by row and tile by tile.
 *
 * Tiles are AT_TILE queries by AT_TILE keys, the queries counted from the first, the keys from
 * token 0. Whatever a tile's range of values decides is not looked at pair by pair.
 */
#ifndef AT_PROGRAM_MAP_H
#define AT_PROGRAM_MAP_H

#include "program/binding.h"

enum { AT_TILE_EMPTY, AT_TILE_PARTIAL, AT_TILE_FULL };

typedef struct at_block_map {
    int64_t B, Hq, Sq, from, to; /* of the extent */
    int64_t *base;               /* [B] */
    uint64_t checksum;           /* of the tensors that the mask reads */
    int64_t rows_b, rows_h;      /* 1 where all are alike */
    int64_t row_blocks, key_blocks, first_block;
    int32_t *first, *last; /* [rows_b][rows_h][Sq]: the keys [first, last) hold all that the query
                              sees, counted from `from` */
    bool contiguous;       /* and nothing else */
    uint8_t *state;        /* [rows_b][rows_h][row_blocks][key_blocks] */
    int64_t seen, pairs;
} at_block_map;

/* The map of a bound mask: the program's own, made unless it has one for the same extent and the
 * same numbers in its tensors. */
attune_status at_block_map_of(attune_program *mask, const at_binding *bound,
                              const at_block_map **out);
void at_block_map_free(at_block_map *map);

static inline int64_t at_block_map_row(const at_block_map *m, int64_t b, int64_t h) {
    return (m->rows_b > 1 ? b : 0) * m->rows_h + (m->rows_h > 1 ? h : 0);
}

/* Narrows the keys [*first, *last) to those that query i of head (b, h) sees. */
static inline void at_block_map_narrow(const at_block_map *m, int64_t b, int64_t h, int64_t i,
                                       int64_t *first, int64_t *last) {
    const int64_t place = at_block_map_row(m, b, h) * m->Sq + i;
    if (m->from + m->first[place] > *first) *first = m->from + m->first[place];
    if (m->from + m->last[place] < *last) *last = m->from + m->last[place];
}

/* The state of the tile that holds query i and key `key`. */
static inline int at_block_map_state(const at_block_map *m, int64_t b, int64_t h, int64_t i,
                                     int64_t key) {
    return m->state[(at_block_map_row(m, b, h) * m->row_blocks + i / AT_TILE) * m->key_blocks +
                    key / AT_TILE - m->first_block];
}

#endif
