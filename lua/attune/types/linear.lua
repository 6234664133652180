---@meta
-- Types of linear attention, for a Lua language server. Nothing loads this file.

---@class attune.LinearOptions
---@field causal? boolean later keys are not visible; the last query and the last key are one token
---@field features? "favor+"|"trig"|"relu"|"elu" favor+ by default
---@field projection? attune.Tensor [features, head_dim]; elu needs none, trig makes two features of
--- each row
---@field rotate? attune.Position rotates the features in the numerator only; its head_dim is the
--- number of features
---@field epsilon? number added to each feature, 0

---@class attune.LinearState
---@field length integer tokens appended
---@field nbytes integer bytes of the state, for any number of tokens
---@field batch integer
---@field kv_heads integer
---@field head_dim integer
---@field v_head_dim integer
---@field features "favor+"|"trig"|"relu"|"elu"
local LinearState = {}
--- Adds the tokens to the sums.
---@param k attune.Tensor [batch, kv_heads, tokens, head_dim]
---@param v attune.Tensor [batch, kv_heads, tokens, v_head_dim]
---@return attune.LinearState self
function LinearState:append(k, v) end
--- The query is the last token appended.
---@param q attune.Tensor [batch, heads, 1, head_dim]
---@return attune.Tensor o [batch, heads, 1, v_head_dim] in q's dtype
function LinearState:attend(q) end
--- Removes all tokens.
---@return attune.LinearState self
function LinearState:reset() end
--- Gives the memory back now. Using the state afterwards raises an error.
function LinearState:close() end

---@class attune.LinearStateOptions
---@field batch? integer 1 by default
---@field kv_heads integer
---@field head_dim integer
---@field v_head_dim? integer head_dim by default
---@field projection? attune.Tensor [features, head_dim]; elu needs none
---@field features? "favor+"|"trig"|"relu"|"elu" favor+ by default
---@field rotate? attune.Position rotates the features in the numerator only
---@field epsilon? number added to each feature, 0

---@class attune
local attune = {}

--- Attention through features: Choromanski et al. 2021 (arXiv 2009.14794), Katharopoulos et al.
--- 2020 (arXiv 2006.16236). Not causal by default.
---@param q attune.Tensor [batch, heads, queries, head_dim]
---@param k attune.Tensor [batch, kv_heads, keys, head_dim]; kv_heads divides heads
---@param v attune.Tensor [batch, kv_heads, keys, v_head_dim]
---@param options attune.LinearOptions
---@return attune.Tensor o [batch, heads, queries, v_head_dim] in q's dtype
function attune.linear_attention(q, k, v, options) end
--- Gradients of linear_attention for d_o, with the same options.
---@param d_o attune.Tensor [batch, heads, queries, v_head_dim]
---@param q attune.Tensor [batch, heads, queries, head_dim]
---@param k attune.Tensor [batch, kv_heads, keys, head_dim]
---@param v attune.Tensor [batch, kv_heads, keys, v_head_dim]
---@param options attune.LinearOptions
---@return attune.Tensor dq in q's shape and dtype
---@return attune.Tensor dk in k's shape and dtype
---@return attune.Tensor dv in v's shape and dtype
function attune.linear_attention_backward(d_o, q, k, v, options) end
--- Blocks of orthogonal rows with the lengths of normal vectors.
---@param options {head_dim: integer, features: integer, seed?: integer}
---@return attune.Tensor [features, head_dim] f32
function attune.favor_projection(options) end
--- Positive random features times features^(-1/2). The max exponent is subtracted first: of each
--- query, or of all keys of a head.
---@param x attune.Tensor [batch, heads, tokens, head_dim]
---@param options {projection: attune.Tensor, query?: boolean, epsilon?: number}
---@return attune.Tensor [batch, heads, tokens, features] in x's dtype
function attune.favor_features(x, options) end
--- The recurrent state of causal linear attention: sums whose memory does not grow with the tokens.
---@param options attune.LinearStateOptions
---@return attune.LinearState
function attune.linear_state(options) end

return attune
