/* Multi-query attention: 8 query heads read one kv head.
 *
 *   cc attention.c $(pkg-config --cflags --libs attune) && ./a.out */
#include <attune.h>
#include <stdio.h>
#include <stdlib.h>

static void check(attune_status status) {
    if (status == ATTUNE_OK) return;
    fprintf(stderr, "%s: %s\n", attune_status_name(status), attune_message());
    exit(1);
}

int main(void) {
    const int64_t q_shape[] = {1, 8, 16, 64}; /* [batch, heads, tokens, head_dim] */
    const int64_t k_shape[] = {1, 1, 16, 64}; /* [batch, kv_heads, tokens, head_dim] */
    attune_tensor q, k, v, o, lse;
    check(attune_tensor_new(ATTUNE_F32, 4, q_shape, &q));
    check(attune_tensor_new(ATTUNE_F32, 4, k_shape, &k));
    check(attune_tensor_new(ATTUNE_F32, 4, k_shape, &v));
    check(attune_tensor_normal(&q, 1, 0, 1));
    check(attune_tensor_normal(&k, 2, 0, 1));
    check(attune_tensor_normal(&v, 3, 0, 1));

    const attune_attention_options options = {.causal = true};
    check(attune_attention(&q, &k, &v, &options, &o, &lse));

    double value;
    const int64_t last[] = {0, 7, 15, 0};
    check(attune_tensor_get(&o, last, &value));
    printf("o is [%d, %d, %d, %d]; o[0][7][15][0] = %g\n", (int)o.shape[0], (int)o.shape[1],
           (int)o.shape[2], (int)o.shape[3], value);
    attune_tensor *all[] = {&q, &k, &v, &o, &lse};
    for (int i = 0; i < 5; i++) attune_tensor_close(all[i]);
    return 0;
}
