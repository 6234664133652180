/* attune/machine.h - what this machine can do: instruction sets, measured peaks. */
#ifndef ATTUNE_MACHINE_H
#define ATTUNE_MACHINE_H

#include "attune/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct attune_machine_info {
    char cpu[64];             /* the model's name */
    int cores;                /* that this process may use */
    int64_t l1, l2, l3;       /* bytes of a core's data cache and of the last level; 0: unknown */
    int64_t memory;           /* bytes of RAM, or the cgroup's limit where that is less */
    const char *isa;          /* in use */
    int isas;                 /* how many run here */
    const char *isa_names[8]; /* worst first */
    char features[256];       /* what attune asks for, as /proc/cpuinfo spells it */
} attune_machine_info;
ATTUNE_API attune_status attune_machine(attune_machine_info *out);

/* Measured now, by all threads together; each takes about the seconds given. */
typedef enum attune_arithmetic {
    ATTUNE_MULTIPLY_ADD_F32,
    ATTUNE_DOT_BF16,
    ATTUNE_DOT_I8
} attune_arithmetic;
/* Operations a second of the set in use: 2 a multiplication and addition. 0 where the set has no
 * such instruction. */
ATTUNE_API attune_status attune_measure_peak(double seconds, attune_arithmetic arithmetic,
                                             double *operations);
ATTUNE_API attune_status attune_measure_bandwidth(
    double seconds, int64_t bytes,
    double *bytes_per_second); /* reading that many bytes; 0: four times L3, at least 256 MiB */
ATTUNE_API attune_status
attune_measure_read(double seconds, const attune_span *spans, int count,
                    double *bytes_per_second); /* the same, over memory of the caller's */
/* BLIS's own sgemm, n cubed, with its own threads: the usual yardstick. FLOP/s. */
ATTUNE_API attune_status attune_measure_sgemm(double seconds, int64_t n, double *flops);

#ifdef __cplusplus
}
#endif

#endif
