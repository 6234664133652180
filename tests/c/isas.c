/* isas.c - prints the instruction sets of this machine, for tests/run. */
#include <stdio.h>

#include "attune.h"

int main(void) {
    attune_machine_info info;
    if (attune_machine(&info) != ATTUNE_OK) return 1;
    for (int i = info.isas - 1; i >= 0; i--) printf("%s%s", info.isa_names[i], i ? " " : "\n");
    return 0;
}
