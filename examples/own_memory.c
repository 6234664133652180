/* Tensors over the caller's own memory, a view, and an error message. */
#include <attune.h>
#include <stdio.h>

int main(void) {
    float numbers[6] = {1, 2, 3, 4, 5, 6};
    attune_tensor x, columns, sum, product;
    if (attune_tensor_wrap(ATTUNE_F32, 2, (int64_t[]){2, 3}, NULL, numbers, &x)) return 1;
    if (attune_tensor_slice(&x, 1, 0, 2, &columns)) return 1; /* the columns 0 and 1 */
    if (attune_tensor_binary(ATTUNE_ADD, &columns, &columns, &sum)) return 1;

    double value;
    if (attune_tensor_get(&sum, (int64_t[]){1, 1}, &value)) return 1;
    printf("2 * x[1][1] = %g\n", value);

    attune_status status = attune_tensor_binary(ATTUNE_MUL, &x, &columns, &product);
    printf("%s: %s\n", attune_status_name(status), attune_message());

    attune_tensor_close(&sum);
    attune_tensor_close(&columns);
    attune_tensor_close(&x); /* numbers stay the caller's */
    return status == ATTUNE_ESHAPE ? 0 : 1;
}
