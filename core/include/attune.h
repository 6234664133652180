/* attune.h - the public C interface of attune.
 *
 * The library computes attention and what attention needs. It prints nothing and never aborts the
 * host: every call that can fail returns an attune_status. After a failure attune_message() names
 * the argument, what was expected and what came.
 *
 * Dimensions, as all comments name them:
 *
 *   B   batch
 *   Hq  query heads
 *   Hk  key and value heads, a divisor of Hq
 *   G   Hq / Hk, the query heads that share one kv head
 *   Sq  query tokens
 *   Sk  key tokens
 *   D   head_dim of q and k
 *   Dv  head_dim of v and o
 *
 * A tensor argument has its shape in brackets. Indices and positions count from 0. Out parameters
 * come last; a function that fails leaves them closed (tensors) or NULL (handles). A tensor or a
 * handle may be used by one thread at a time; the message is per thread.
 *
 * Each subject has its own header, which is its manual.
 */
#ifndef ATTUNE_H
#define ATTUNE_H

#include "attune/status.h"
#include "attune/library.h"
#include "attune/tensor.h"
#include "attune/position.h"
#include "attune/program.h"
#include "attune/attention.h"
#include "attune/cache.h"
#include "attune/linear.h"
#include "attune/nn.h"
#include "attune/optim.h"
#include "attune/tokenize.h"
#include "attune/files.h"
#include "attune/weight.h"
#include "attune/machine.h"

#endif
