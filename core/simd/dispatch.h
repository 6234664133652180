/* dispatch.h - the instruction sets of this machine. */
#ifndef AT_SIMD_DISPATCH_H
#define AT_SIMD_DISPATCH_H

#include "simd/table.h"

/* Names of the sets that run here, worst first; returns how many. */
int at_simd_available(const char *names[], int most);

/* Another set's table, for tests; false where it does not run here. Beside those above there is
 * amx_emulated, AMX's kernels over tiles in plain C. */
bool at_simd_table(const char *name, at_simd *out);

#endif
