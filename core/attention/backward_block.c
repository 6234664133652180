/* backward_block.c - which keys of a block are visible to which of its rows. */
#include "attention/backward_block.h"

void at_block_find_visible(const at_problem *p, at_backward_block *k) {
    k->whole = true;
    for (int64_t r = 0; r < k->rows; r++) {
        int64_t first, last;
        at_problem_visible_keys_of_head(p, k->b, k->h, k->token + r, &first, &last);
        first = first > k->key ? first - k->key : 0;
        last = last - k->key < k->keys ? last - k->key : k->keys;
        if (first >= last) first = last = 0;
        k->first[r] = (int)first;
        k->last[r] = (int)last;
        k->whole = k->whole && first == 0 && last == k->keys;
    }
}

bool at_block_columns(const at_backward_block *k, int64_t from, int64_t to, int64_t panel,
                      int64_t *left, int64_t *right) {
    *left = k->keys;
    *right = 0;
    for (int64_t r = from; r < to; r++) {
        if (k->first[r] >= k->last[r]) continue;
        if (k->first[r] < *left) *left = k->first[r];
        if (k->last[r] > *right) *right = k->last[r];
    }
    *left = *left / panel * panel;
    *right = at_round_up(*right, panel);
    return *left < *right;
}

bool at_block_rows(const at_backward_block *k, int64_t from, int64_t to, int64_t *top,
                   int64_t *bottom) {
    *top = k->rows;
    *bottom = 0;
    for (int64_t r = 0; r < k->rows; r++) {
        if (k->first[r] >= k->last[r] || k->first[r] >= to || k->last[r] <= from) continue;
        if (r < *top) *top = r;
        *bottom = r + 1;
    }
    return *top < *bottom;
}

bool at_block_is_visible(const at_problem *p, const at_backward_block *k) {
    if (!at_has_gaps(&p->query.modifier)) return true;
    for (int64_t key = k->key; key < k->key + k->keys; key += AT_TILE)
        if (at_modifier_any_visible(&p->query.modifier, k->b, k->h, k->token, k->token + k->rows,
                                    key))
            return true;
    return false;
}
