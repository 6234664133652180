---@meta
-- Types of key-value caches, for a Lua language server. Nothing loads this file.

---@class attune.AppendOptions
---@field counts? integer[] number of tokens that belong to each batch row
---@field rotate? attune.Position rotates k before it is stored

---@class attune.Cache
---@field length integer number of tokens appended to the longest row
---@field lengths integer[] of each batch row
---@field nbytes integer bytes of K and V
---@field dtype attune.dtype
---@field capacity integer in tokens
---@field batch integer
---@field kv_heads integer
---@field head_dim integer
---@field window? integer
local Cache = {}
--- Appends tokens. Raises an error and leaves the cache unchanged when they do not fit.
---@param k attune.Tensor [batch, kv_heads, tokens, head_dim] of any float dtype
---@param v attune.Tensor [batch, kv_heads, tokens, v_head_dim] of any float dtype
---@param options? attune.AppendOptions
---@return attune.Cache self
function Cache:append(k, v, options) end
--- Causal attention over the cache. The queries are the last tokens appended; with a window at most
--- 64.
---@param q attune.Tensor [batch, heads, queries, head_dim] of any float dtype
---@param options? attune.AttendOptions
---@return attune.Tensor o [batch, heads, queries, v_head_dim] in q's dtype
---@return attune.Tensor lse [batch, heads, queries] f32
---@return attune.Summaries? summaries keys of columns count from the first token ever appended
function Cache:attend(q, options) end
--- Keeps the first n tokens. Raises an error for more than there are, and where a ring no longer
--- holds them.
---@param n integer
---@return attune.Cache self
function Cache:truncate(n) end
--- Removes all tokens.
---@return attune.Cache self
function Cache:reset() end
--- Gives the memory back now. Using the cache afterwards raises an error.
function Cache:close() end

---@class attune.CacheOptions
---@field batch? integer 1 by default
---@field kv_heads integer
---@field head_dim integer
---@field v_head_dim? integer head_dim by default
---@field capacity? integer in tokens of a batch row; may be left out with a window
---@field window? integer tokens: makes the cache a ring of window + 63 tokens, rounded up to a
--- multiple of 64
---@field dtype? "f32"|"bf16"|"f16"|"i8" f32 by default; i8 has one scale per token and kv head

---@class attune
local attune = {}

--- A key-value cache: the keys and values of earlier tokens, packed for reading.
---@param options attune.CacheOptions
---@return attune.Cache
function attune.cache(options) end

return attune
