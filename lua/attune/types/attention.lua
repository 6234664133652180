---@meta
-- Types of attention, for a Lua language server. Nothing loads this file.
-- Shapes: q [batch, heads, queries, head_dim], k [batch, kv_heads, keys, head_dim],
-- v [batch, kv_heads, keys, v_head_dim]. kv_heads divides heads. Token positions count from 0.

---@class attune.AttentionOptions
---@field causal? boolean later keys are not visible; the last query and the last key are one token
---@field window? integer|integer[] a query attends to itself and the window - 1 tokens before it;
--- when not causal, also to the window - 1 tokens after it. {left, right}: to itself, left tokens
--- before it and right tokens after it; -1: no limit
---@field scale? number 1 / sqrt(head_dim) by default
---@field softcap? number s becomes softcap * tanh(s / softcap): Gemma 2
---@field lengths? integer[]|integer[][] tokens of each packed document: one list for all rows of
--- the batch, or one list per row
---@field sinks? attune.Tensor [heads] of any float dtype: one logit per head, which joins the
--- softmax's denominator
---@field score? attune.ScoreFunction|attune.Program applied to each score, after softcap
---@field mask? attune.MaskFunction|attune.Program restricts the visible pairs further
---@field rotate? attune.Position rotates q and k while they are read
---@field positions? integer[]|integer[][]|attune.Tensor with rotate: positions of the keys, [keys]
--- or [batch, keys]; the queries have the last ones; 0, 1, .. by default
---@field engine? "reference"|"blis"|"tiled"|"decode" this engine runs, or it is an error
---@field summaries? attune.SummaryName[] what the third result tells about the weights; any engine
--- except blis

--- The options of attention, and the gradient that arrives through lse.
---@class attune.BackwardOptions: attune.AttentionOptions
---@field d_lse? attune.Tensor [batch, heads, queries]; none by default

---@alias attune.SummaryName "entropy"|"distance"|"sinks"|"columns"

--- Of the weights that attention_weights gives: where a sink takes part they sum to less than 1. A
--- row without visible keys has zeros. f32, or f64 for f64. Only what was asked for is there.
---@class attune.Summaries
---@field entropy? attune.Tensor [batch, heads, queries] in nats
---@field distance? attune.Tensor [batch, heads, queries] the mean of |i - j| under the weights
---@field sinks? attune.Tensor [batch, heads, queries] the weight on the first 4 keys of each row
---@field columns? attune.Tensor [batch, heads, keys] the sum over queries of the weight on each key

---@class attune.AttendOptions
---@field window? integer|integer[] not more than the cache's own
---@field scale? number
---@field softcap? number
---@field sinks? attune.Tensor [heads]
---@field score? attune.ScoreFunction|attune.Program applied to each score, after softcap
---@field mask? attune.MaskFunction|attune.Program restricts the visible pairs further
---@field rotate? attune.Position rotates q by the queries' positions while it is read
---@field engine? "tiled"|"decode"
---@field summaries? attune.SummaryName[]

---@class attune.Packed
---@field ids attune.Tensor [rows, capacity] i64
---@field positions attune.Tensor [rows, capacity] i64; they count from 0 in each document
---@field lengths integer[][] per row, the tokens of each document
---@field documents integer[][] per row, the documents in it
---@field waste number fraction of all slots that hold no token

---@class attune
local attune = {}

--- softmax(mask(score(softcap(scale q k^T)))) v. Shapes, dtypes and options that do not fit raise
--- an error, as in all functions below.
---@param q attune.Tensor [batch, heads, queries, head_dim]
---@param k attune.Tensor [batch, kv_heads, keys, head_dim]; kv_heads divides heads
---@param v attune.Tensor [batch, kv_heads, keys, v_head_dim]
---@param options? attune.AttentionOptions
---@return attune.Tensor o [batch, heads, queries, v_head_dim] in q's dtype; zeros for a row without
--- visible keys
---@return attune.Tensor lse [batch, heads, queries] natural log of the denominator, f32 (f64 for
--- f64); -inf for a row without visible keys (with a sink: the sink)
---@return attune.Summaries? summaries with the option of that name
function attune.attention(q, k, v, options) end
--- Gradients for d_o, from o and lse that attention returned with the same options. Dao et al. 2022
--- (arXiv 2205.14135), algorithm 4.
---@param d_o attune.Tensor [batch, heads, queries, v_head_dim]
---@param q attune.Tensor [batch, heads, queries, head_dim]
---@param k attune.Tensor [batch, kv_heads, keys, head_dim]
---@param v attune.Tensor [batch, kv_heads, keys, v_head_dim]
---@param o attune.Tensor [batch, heads, queries, v_head_dim]
---@param lse attune.Tensor [batch, heads, queries]
---@param options? attune.BackwardOptions engine: tiled (the default) or reference
---@return attune.Tensor dq in q's shape and dtype
---@return attune.Tensor dk in k's shape and dtype
---@return attune.Tensor dv in v's shape and dtype
---@return table<attune.Tensor, attune.Tensor> dtables gradients of sinks and of each float tensor
--- that the score reads, keyed by the tensor
function attune.attention_backward(d_o, q, k, v, o, lse, options) end
--- The probabilities of the softmax, computed by reference. With a sink a row sums to less than 1.
---@param q attune.Tensor [batch, heads, queries, head_dim]
---@param k attune.Tensor [batch, kv_heads, keys, head_dim]
---@param options? attune.AttentionOptions without summaries
---@return attune.Tensor weights [batch, heads, queries, keys] f32 (f64 for f64)
function attune.attention_weights(q, k, options) end
--- Attention over the union of two disjoint sets of keys, from the results over each set.
---@param o1 attune.Tensor [batch, heads, queries, v_head_dim]
---@param lse1 attune.Tensor [batch, heads, queries]
---@param o2 attune.Tensor as o1, of the same dtype
---@param lse2 attune.Tensor as lse1
---@return attune.Tensor o [batch, heads, queries, v_head_dim]
---@return attune.Tensor lse [batch, heads, queries]
function attune.merge(o1, lse1, o2, lse2) end

--- Packs documents into rows of `capacity` tokens: longest first, each into the first row with
--- room. The rest of a row is its last "document", with ids 0.
---@param documents integer[][] ids
---@param options {capacity: integer}
---@return attune.Packed
function attune.pack(documents, options) end

return attune
