--- Scores that have names. Each call returns a score function: a few lines over traced values, as
--- you would write it. s is the score, at.i the query's token, at.j the key's, both from 1.
local core = require "attune.core"
local options_of = require "attune.util.options"

local scores = {}

-- The checks raise errors for the caller of the score's maker.

local function check_tensor(name, x, axes, form)
  local kind, is_open = core._kind(x)
  if kind ~= "tensor" or not is_open or #x.shape ~= axes then
    error(("%s: expected a tensor %s, got %s"):format(name, form, options_of.describe(x)), 3)
  end
end

local function check_boolean(options, name)
  local x = options[name]
  if x ~= nil and type(x) ~= "boolean" then
    error(("%s: expected true or false, got %s"):format(name, options_of.describe(x)), 3)
  end
end

--- c tanh(s / c): Gemma 2 (arXiv 2408.00118, section 2).
---@param c number
function scores.softcap(c)
  if type(c) ~= "number" or not (c > 0 and c < math.huge) then
    error(("c: expected a positive number, got %s"):format(options_of.describe(c)), 2)
  end
  return function(s, _) return (s / c):tanh() * c end
end

--- Attention with linear biases: s - slope (i - j), with one slope per head (Press et al. 2022,
--- arXiv 2108.12409, section 3).
---@param slopes attune.Tensor [heads]
---@param options? {symmetric?: boolean} symmetric: s - slope |i - j|, for masks that are not causal
function scores.alibi(slopes, options)
  check_tensor("slopes", slopes, 1, "[heads]")
  options = options_of.read(options, {"symmetric"}, 2)
  check_boolean(options, "symmetric")
  if options.symmetric then
    return function(s, at) return s - slopes[at.h] * (at.i - at.j):abs() end
  end
  return function(s, at) return s - slopes[at.h] * (at.i - at.j) end
end

-- Distances below `exact` have a bucket of their own; `half` is the number of buckets of one sign.
local function t5_buckets(table, max_distance, bidirectional)
  local buckets = table.shape[1]
  local half = bidirectional and buckets // 2 or buckets
  local exact = half // 2
  if exact < 1 then
    local message = "table: expected at least %d buckets, got %d"
    error(message:format(bidirectional and 4 or 2, buckets), 3)
  end
  if bidirectional and buckets % 2 == 1 then
    local message = "table: expected an even number of buckets where bidirectional, got %d"
    error(message:format(buckets), 3)
  end
  if type(max_distance) ~= "number" or not (max_distance > exact and max_distance < math.huge) then
    local message = "max_distance: expected a finite number above %d, the distances that have a "
      .. "bucket of their own, got %s"
    error(message:format(exact, options_of.describe(max_distance)), 3)
  end
  return half, exact
end

--- T5's relative position bias: s + table[bucket][head]. Near tokens have a bucket per distance;
--- farther ones share buckets, logarithmic up to max_distance (Raffel et al. 2020, arXiv
--- 1910.10683, section 2.1).
---@param table attune.Tensor [buckets, heads]
---@param options? {max_distance?: integer, bidirectional?: boolean} 128, true
function scores.t5(table, options)
  check_tensor("table", table, 2, "[buckets, heads]")
  options = options_of.read(options, {"bidirectional", "max_distance"}, 2)
  check_boolean(options, "bidirectional")
  local max_distance, bidirectional = options.max_distance or 128, options.bidirectional ~= false
  local half, exact = t5_buckets(table, max_distance, bidirectional)
  return function(s, at)
    local relative = at.j - at.i
    local distance = bidirectional and relative:abs() or (-relative):max(0)
    local scale = (half - exact) / math.log(max_distance / exact)
    -- 1e-6 half: a distance on an edge belongs to the bucket that begins there, as in pe:bucket,
    -- whatever the last bits of the logarithm are in f32.
    local far = ((distance:max(1) / exact):log() * scale + 1e-6 * half):floor() + exact
    local bucket = distance:lt(exact):where(distance, far:min(half - 1))
    if bidirectional then bucket = bucket + relative:gt(0):where(half, 0) end
    return s + table[bucket + 1][at.h]
  end
end

--- s - slope |i - j|: the same for all heads.
---@param slope number
function scores.distance(slope)
  if type(slope) ~= "number" or not (math.abs(slope) < math.huge) then
    error(("slope: expected a finite number, got %s"):format(options_of.describe(slope)), 2)
  end
  return function(s, at) return s - slope * (at.i - at.j):abs() end
end

return scores
