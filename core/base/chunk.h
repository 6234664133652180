/* chunk.h - blocks of a middle size, out of larger pieces of memory in huge pages.
 *
 * An activation of a small model has a megabyte or two. A block of its own would have pages of
 * 4 KiB, and a step of training touches more of them than the processor keeps addresses of: huge
 * pages made a step 1.5 times as fast (bench/LOG.md). A chunk is 32 MiB, aligned to
 * huge pages, and divided into units of 16 KiB; what nobody has written costs nothing.
 */
#ifndef AT_BASE_CHUNK_H
#define AT_BASE_CHUNK_H

#include <stdint.h>

typedef struct at_chunk at_chunk;

/* A block of `bytes` bytes, aligned to a unit, and the chunk it is from. NULL, without a message:
 * the size is not a middle one (32 KiB to below 4 MiB), or the system has no more memory. */
void *at_chunk_take(int64_t bytes, at_chunk **chunk);

/* Gives back a block of that many bytes. An empty chunk stays for reuse where all empty ones
 * together have at most `keepable` bytes. */
void at_chunk_give(at_chunk *chunk, void *block, int64_t bytes, int64_t keepable);

/* Frees empty chunks until at most `keepable` bytes of them remain. */
void at_chunk_trim(int64_t keepable);

#endif
