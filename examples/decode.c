/* Decoding: each step appends one token to a key-value cache and attends to all tokens so far. */
#include <attune.h>
#include <stdio.h>
#include <stdlib.h>

static void check(attune_status status) {
    if (status == ATTUNE_OK) return;
    fprintf(stderr, "%s: %s\n", attune_status_name(status), attune_message());
    exit(1);
}

static attune_tensor normal(int64_t heads, uint64_t seed) {
    attune_tensor t;
    check(attune_tensor_new(ATTUNE_F32, 4, (int64_t[]){1, heads, 1, 64}, &t));
    check(attune_tensor_normal(&t, seed, 0, 1));
    return t;
}

int main(void) {
    attune_cache *cache;
    const attune_cache_options shape = {
        .batch = 1, .kv_heads = 2, .head_dim = 64, .capacity = 128, .dtype = ATTUNE_BF16};
    check(attune_cache_new(&shape, &cache));
    for (uint64_t step = 0; step < 4; step++) {
        attune_tensor q = normal(8, 3 * step), k = normal(2, 3 * step + 1);
        attune_tensor v = normal(2, 3 * step + 2), o, lse;
        check(attune_cache_append(cache, &k, &v, NULL, NULL)); /* NULL: every batch row, no RoPE */
        check(attune_cache_attend(cache, &q, NULL, &o, &lse)); /* NULL: default options */
        attune_tensor *all[] = {&q, &k, &v, &o, &lse};
        for (int i = 0; i < 5; i++) attune_tensor_close(all[i]);
    }
    printf("%d tokens, %d bytes\n", (int)attune_cache_length(cache),
           (int)attune_cache_nbytes(cache));
    attune_cache_close(cache);
    return 0;
}
