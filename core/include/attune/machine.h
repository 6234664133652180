/* attune/machine.h - what this machine can do: instruction sets, measured peaks. */
#ifndef ATTUNE_MACHINE_H
#define ATTUNE_MACHINE_H

#include "attune/tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct attune_machine_info {
    char cpu[64];             /* model name */
    int cores;                /* available to this process */
    int64_t l1, l2, l3;       /* bytes of data cache per level; 0: unknown */
    int64_t memory;           /* bytes of RAM, or the limit of the cgroup if smaller */
    const char *isa;          /* instruction set in use */
    int isas;                 /* number of sets that run on this machine */
    const char *isa_names[8]; /* from the slowest to the fastest */
    char features[256];       /* CPU features that attune can use, as in /proc/cpuinfo */
} attune_machine_info;
ATTUNE_API attune_status attune_machine(attune_machine_info *out);

/* Measurements by all threads together. Each takes about `seconds`. */
typedef enum attune_arithmetic {
    ATTUNE_MULTIPLY_ADD_F32,
    ATTUNE_DOT_BF16,
    ATTUNE_DOT_I8
} attune_arithmetic;
/* Operations per second of the instruction set in use; a multiplication and addition counts as 2. 0
 * if the set has no such instruction. */
ATTUNE_API attune_status attune_measure_peak(double seconds, attune_arithmetic arithmetic,
                                             double *operations);
/* Bandwidth of reading `bytes` bytes again and again. 0: of reading 256 MiB that are removed from
 * the caches before each reading; where attune_evict fails, four times the last cache, at least 256
 * MiB. */
ATTUNE_API attune_status attune_measure_bandwidth(double seconds, int64_t bytes,
                                                  double *bytes_per_second);
/* Bandwidth of reading the memory of `count` spans, by the faster of a loop with prefetches and one
 * without. EVALUE: fewer than 64 bytes per thread. */
ATTUNE_API attune_status attune_measure_read(double seconds, const attune_span *spans, int count,
                                             double *bytes_per_second);
/* Removes the memory of `count` spans from the caches of all cores, without changing it, so that
 * what is timed next reads it from memory. EVALUE: a span without memory; EISA: neither
 * x86-64 nor AArch64. */
ATTUNE_API attune_status attune_evict(const attune_span *spans, int count);
/* FLOP/s of BLIS's own sgemm on its own threads: [n, n] times [n, n], n from 1 to 32768. */
ATTUNE_API attune_status attune_measure_sgemm(double seconds, int64_t n, double *flops);

#ifdef __cplusplus
}
#endif

#endif
