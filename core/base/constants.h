/* constants.h - mathematical constants, to more digits than a double holds.
 *
 * The softmax is computed with powers of two: e^x = 2^(x log2 e), and a logarithm to base 2 times
 * ln 2 is a natural one. Kernels in f32 round them: (float)AT_LOG2_E.
 */
#ifndef AT_BASE_CONSTANTS_H
#define AT_BASE_CONSTANTS_H

#define AT_LOG2_E 1.44269504088896340736 /* log2(e) */
#define AT_LN_2 0.693147180559945309417  /* ln(2) */

#endif
