/* dispatch.h - the instruction sets of this machine. */
#ifndef AT_SIMD_DISPATCH_H
#define AT_SIMD_DISPATCH_H

#include "simd/table.h"

/* Writes at most max_names names of the sets that run here, slowest first. Returns their number. */
int at_simd_available(const char *names[], int max_names);

/* The table of the named set, for tests. Returns false where the set does not run here. Besides the
 * sets above there is amx_emulated: AMX's kernels over tile registers in plain C. */
bool at_simd_table(const char *name, at_simd *out);

#endif
