--- Scores that have names. Each call gives a score function, a few lines over traced values; write your own likewise.
local core = require "attune.core"
local options_of = require "attune.util.options"

local scores = {}

local function tensor(name, x, axes, form)
  local kind, is_open = core._kind(x)
  if kind ~= "tensor" or not is_open or #x.shape ~= axes then
    error(("%s: expected a tensor %s, got %s"):format(name, form, options_of.describe(x)), 3)
  end
end

local function truth(options, name)
  local x = options[name]
  if x ~= nil and type(x) ~= "boolean" then error(("%s: expected true or false, got %s"):format(name, options_of.describe(x)), 3) end
end

--- s becomes c tanh(s / c): Gemma 2 (arXiv 2408.00118, section 2).
---@param c number
function scores.softcap(c)
  if type(c) ~= "number" or not (c > 0 and c < math.huge) then error(("c: expected a positive number, got %s"):format(options_of.describe(c)), 2) end
  return function(s, _) return (s / c):tanh() * c end
end

--- Attention with linear biases: s - slope (i - j), to both sides with |i - j| (Press et al. 2022, arXiv 2108.12409, section 3).
---@param slopes attune.Tensor [heads]
---@param options? {symmetric?: boolean} symmetric: by |i - j|, for masks that are not causal
function scores.alibi(slopes, options)
  tensor("slopes", slopes, 1, "[heads]")
  options = options_of.read(options, {"symmetric"}, 2)
  truth(options, "symmetric")
  if options.symmetric then
    return function(s, at) return s - slopes[at.h] * (at.i - at.j):abs() end
  end
  return function(s, at) return s - slopes[at.h] * (at.i - at.j) end
end

--- T5's relative position bias: s + table[bucket][head], buckets exact for near tokens and logarithmic up to max_distance (Raffel et al. 2020, arXiv 1910.10683, section 2.1).
---@param table attune.Tensor [buckets, heads]
---@param options? {max_distance?: integer, bidirectional?: boolean} 128, true
function scores.t5(table, options)
  tensor("table", table, 2, "[buckets, heads]")
  options = options_of.read(options, {"bidirectional", "max_distance"}, 2)
  truth(options, "bidirectional")
  local buckets, max_distance, bidirectional = table.shape[1], options.max_distance or 128, options.bidirectional ~= false
  local half = bidirectional and buckets // 2 or buckets
  local exact = half // 2
  if exact < 1 then error(("table: expected at least %d buckets, got %d"):format(bidirectional and 4 or 2, buckets), 2) end
  if bidirectional and buckets % 2 == 1 then error(("table: expected an even number of buckets where bidirectional, got %d"):format(buckets), 2) end
  if type(max_distance) ~= "number" or not (max_distance > exact and max_distance < math.huge) then
    error(("max_distance: expected a finite number above %d, the distances that have a bucket of their own, got %s"):format(exact, options_of.describe(max_distance)), 2)
  end
  return function(s, at)
    local relative = at.j - at.i
    local distance = bidirectional and relative:abs() or (-relative):max(0)
    local scale = (half - exact) / math.log(max_distance / exact)
    -- A distance on an edge belongs to the bucket that begins there, as pe:bucket has it, whatever the last bits of a logarithm in f32.
    local far = ((distance:max(1) / exact):log() * scale + 1e-6 * half):floor() + exact
    local bucket = distance:lt(exact):where(distance, far:min(half - 1))
    if bidirectional then bucket = bucket + relative:gt(0):where(half, 0) end
    return s + table[bucket + 1][at.h]
  end
end

--- s - slope |i - j|: farther tokens weigh less, for all heads alike.
---@param slope number
function scores.distance(slope)
  if type(slope) ~= "number" or not (math.abs(slope) < math.huge) then error(("slope: expected a finite number, got %s"):format(options_of.describe(slope)), 2) end
  return function(s, at) return s - slope * (at.i - at.j):abs() end
end

return scores
