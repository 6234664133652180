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
---@param k attune.Tensor [batch, kv_heads, tokens, head_dim]
---@param v attune.Tensor
---@param options? attune.AppendOptions
---@return attune.Cache self
function Cache:append(k, v, options) end
--- The queries are the last tokens appended.
---@param q attune.Tensor [batch, heads, queries, head_dim]
---@param options? attune.AttendOptions
---@return attune.Tensor o
---@return attune.Tensor lse
---@return attune.Summaries? summaries keys of columns count from the first token ever appended
function Cache:attend(q, options) end
---@param n integer tokens to keep
---@return attune.Cache self
function Cache:truncate(n) end
---@return attune.Cache self
function Cache:reset() end
function Cache:close() end

---@class attune.CacheOptions
---@field batch? integer
---@field kv_heads integer
---@field head_dim integer
---@field v_head_dim? integer
---@field capacity? integer in tokens
---@field window? integer makes the cache a ring
---@field dtype? "f32"|"bf16"|"f16"|"i8"

---@class attune
local attune = {}

---@param options attune.CacheOptions
---@return attune.Cache
function attune.cache(options) end

return attune
