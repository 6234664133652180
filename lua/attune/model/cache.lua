--- Bytes of keys and values: by the formula, and as attune's own cache takes them.
local numbers = require "attune.model.numbers"
local parts = require "attune.model.parts"

local cache = {}

local bytes_of = {f32 = 4, bf16 = 2, f16 = 2, i8 = 1}
local scale_bytes = 4 -- one f32 scale per K row and per V row of an i8 cache

-- attune's cache (core/simd/tile.h): tiles of 64 tokens, head_dim in steps of 16.
local tile_tokens, dim_step = 64, 16

cache.dtypes = bytes_of
cache.shardings = {heads = true, batch = true}

local function round_up(n, step) return (n + step - 1) // step * step end

local function row_bytes(head_dim, dtype)
  return head_dim * bytes_of[dtype] + (dtype == "i8" and scale_bytes or 0)
end

-- Bytes of a number of tokens of `batch` rows in all layers with a number of kv heads.
local function bytes(cfg, batch, tokens, kv_heads, dtype, level)
  local mla = cfg.mla
  local rows, row = 2 * kv_heads, row_bytes(cfg.head_dim, dtype)
  if mla then rows, row = 1, row_bytes(mla.kv_rank + mla.rope, dtype) end
  local product = numbers.product(level + 1, batch, tokens, cfg.layers, rows, row)
  return product
end

--- The formula's bytes; o: {context, batch, dtype, source}.
---@return integer
function cache.formula(cfg, o, level)
  local tokens = parts.visible(cfg, o.context)
  if cfg.kind == "encoder-decoder" then tokens = tokens + o.source end
  local sum = bytes(cfg, o.batch, tokens, cfg.kv_heads, o.dtype, level + 1)
  return sum
end

-- The tokens that a cache of a session has room for: a ring only where it is the smaller one.
local function tokens_held(context, window)
  local ring = window and window > 0 and window + tile_tokens - 1 or context
  return round_up(math.min(ring, context), tile_tokens)
end

--- What attune.cache takes, one per layer.
---@return integer
function cache.attune_bytes(cfg, o, level)
  local k_dim, v_dim, kv_heads = cfg.head_dim, cfg.head_dim, cfg.kv_heads
  if cfg.mla then
    k_dim, v_dim, kv_heads = cfg.mla.nope + cfg.mla.rope, cfg.mla.v, cfg.heads
  end
  local tokens = tokens_held(o.context, cfg.window)
  if cfg.kind == "encoder-decoder" then tokens = tokens + round_up(o.source, tile_tokens) end
  local per_token = row_bytes(round_up(k_dim, dim_step), o.dtype)
    + row_bytes(round_up(v_dim, dim_step), o.dtype)
  local product = numbers.product(level + 1, cfg.layers, o.batch, kv_heads, tokens, per_token)
  return product
end

--- The rows of a batch whose keys and values one chip holds, and its kv heads of each.
---@return integer rows
---@return integer kv_heads
function cache.held_by_chip(cfg, batch, place)
  if place.sharding == "batch" then return -(-batch // place.chips), cfg.kv_heads end
  return batch, -(-cfg.kv_heads // place.chips)
end

--- Bytes of keys and values on one chip. place: {chips, sharding}.
---@return integer
function cache.per_chip(cfg, o, place, level)
  local batch, kv_heads = cache.held_by_chip(cfg, o.batch, place)
  local tokens = parts.visible(cfg, o.context)
  if cfg.kind == "encoder-decoder" then tokens = tokens + o.source end
  local sum = bytes(cfg, batch, tokens, kv_heads, o.dtype, level + 1)
  return sum
end

--- The longest context that fits into memory * fraction of each chip.
---@param o {batch: integer, dtype: string, source: integer}
---@param place {memory: integer, fraction: number, chips: integer, sharding: string}
---@return integer|number tokens; math.huge where a window fits
function cache.longest(cfg, o, place, level)
  level = level + 1
  local budget = place.memory * place.fraction
  local one = {context = 1, source = 0, batch = o.batch, dtype = o.dtype}
  local per_token = cache.per_chip(cfg, one, place, level)
  if cfg.kind == "encoder-decoder" then budget = budget - per_token * o.source end
  local tokens = math.max(0, math.floor(budget / per_token))
  local window = cfg.window or 0
  if window > 0 and tokens >= window then return math.huge end
  return tokens
end

return cache
