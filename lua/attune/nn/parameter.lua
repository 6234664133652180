--- Parameters and their initial values.
---
--- The values of a parameter follow from its name and the seed of the model alone: element i of the
--- row-major order is drawn from word i of Philox under the key sha256(name) + seed. So two models
--- that differ in one option share the values of all parameters of the same name and shape, and a
--- narrower matrix [out, in] has the first rows of a wider one: MQA's k is the first kv head of
--- MHA's.
local core = require "attune.core"

local parameter = {}

-- Counting parameters without making them: the total while it is on, else nil.
local counting

local function key_of(name, seed)
  return (tonumber(core._sha256(name):sub(1, 15), 16) + seed) & math.maxinteger
end

-- What marks a parameter that is only counted.
local Counted = {}

-- A counted parameter has nothing but a shape.
local function counted(shape)
  local elements = 1
  for _, extent in ipairs(shape) do elements = elements * extent end
  counting = counting + elements
  return setmetatable({shape = shape}, Counted)
end

--- Normal values, of mean 0.
---@param shape integer[]
---@param o {std: number, name: string, seed?: integer, dtype?: string} without a seed the values
--- differ from call to call and follow from attune.set_seed
function parameter.normal(shape, o)
  if counting then return counted(shape) end
  local seed = o.seed and key_of(o.name, o.seed)
  return core.randn(shape, {std = o.std, seed = seed, dtype = o.dtype}):requires_grad()
end

--- One value in all elements.
function parameter.constant(shape, value, dtype)
  if counting then return counted(shape) end
  return core.full(shape, value, {dtype = dtype}):requires_grad()
end

--- The random projection of FAVOR+ and its kin: state without gradients.
---@param name string
---@param c table of config.layers
---@param rows integer
function parameter.projection(name, c, rows)
  if counting then return nil end
  local w = core.favor_projection {
    head_dim = c.head_dim, features = rows, seed = c.seed and key_of(name, c.seed),
  }
  return c.dtype == "f64" and w:to "f64" or w
end

--- A handle of a positional encoding, which is not made while parameters are counted.
function parameter.position(name, options)
  if counting then return {name = name} end
  return core.position(name, options)
end

--- Whether parameters are only counted at present.
function parameter.is_counting() return counting ~= nil end

--- Whether a parameter is only counted.
function parameter.is_counted(x) return getmetatable(x) == Counted end

local restoring = {__close = function() counting = nil end}

--- Calls make(..) while parameters are only counted.
---@return integer parameters
---@return any made
function parameter.count(make, ...)
  local _ <close> = setmetatable({}, restoring)
  counting = 0
  local made = make(...)
  return counting, made
end

return parameter
