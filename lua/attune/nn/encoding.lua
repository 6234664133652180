--- Positional encodings of a model: handles shared by the layers, and the tables that are learned.
local core = require "attune.core"
local embedding = require "attune.autograd.layers".embedding
local class = require "attune.nn.module".class
local parameter = require "attune.nn.parameter"
local program = require "attune.program"
local scores = require "attune.program.scores"
local describe = require "attune.util.options".describe

--- The encodings of one model. Its tensors are position.weight (learned) and position.table (t5).
local Encodings = class "Encodings"
Encodings._is_looked_up = true -- count.lua: not multiplied

--- prefix begins the names of the tensors; seed and dtype are those of the model.
function Encodings:init(prefix, seed, dtype)
  self._made, self._prefix, self._seed, self._dtype = {}, prefix, seed, dtype
end

-- A text that is the same for equal options.
local function key_of(name, o)
  local parts = {}
  for field, value in next, o do
    if type(value) == "table" then value = "{" .. key_of("", value) .. "}" end
    if core._kind(value) == "tensor" then value = core._storage(value) end
    parts[#parts + 1] = ("%s=%s"):format(field, value)
  end
  table.sort(parts)
  return name .. "(" .. table.concat(parts, ",") .. ")"
end

local function merged(o, more)
  local all = {}
  for name, value in next, more or {} do all[name] = value end
  for name, value in next, o do all[name] = value end
  return all
end

local TABLE_STD = 0.02

-- Each makes what one encoding needs of one layer: {embed =, rotate =, score =}.
local makers = {}

function makers.none() return {} end

-- Positions as a tensor that fits x [batch, tokens, d_model] and a table.
local function positions_of(positions, x, count)
  local t, batch, tokens = core._integers(positions, "positions"), x.shape[1], x.shape[2]
  local shape = t.shape
  if shape[#shape] ~= tokens or #shape > 2 or #shape == 2 and shape[1] ~= batch then
    core._raise(("positions: expected [%d] or [%d, %d], got [%s]"):format(
      tokens, batch, tokens, table.concat(shape, ", ")))
  end
  for _, wrong in ipairs {t:min():item(), t:max():item()} do
    if wrong < 0 or wrong >= count then
      core._raise(("positions: expected from 0 to %d, as context = %d, got %d"):format(
        count - 1, count, wrong))
    end
  end
  return t
end

function makers.learned(self, c)
  if not c.context then
    core._raise("context: expected a number of tokens, which learned positions need, got nil")
  end
  if not self.weight then
    self.weight = parameter.normal({c.context, c.d_model}, {
      std = TABLE_STD, name = self._prefix .. "position.weight", seed = self._seed,
      dtype = self._dtype,
    })
  end
  if parameter.is_counted(self.weight) then return {} end
  local weight = self.weight
  local function embed(x, positions)
    if positions then return x + embedding(weight, positions_of(positions, x, c.context)) end
    return x + weight:slice(1, 1, x.shape[2])
  end
  return {embed = embed, max_positions = c.context}
end

-- scale: the sines are of size 1, which is large beside embeddings with the usual initial values.
function makers.sinusoidal(_, c)
  local given = merged({d_model = c.d_model}, c.sinusoidal)
  local scale = given.scale == nil and 1 or given.scale
  if type(scale) ~= "number" or not (scale > 0 and scale < math.huge) then
    core._raise("sinusoidal.scale: expected a number above 0, got " .. describe(scale))
  end
  given.scale = nil
  local pe = parameter.position("sinusoidal", given)
  if scale == 1 then return {embed = function(x, positions) return pe:embed(x, positions) end} end
  return {embed = function(x, positions) return pe:embed(x * (1 / scale), positions) * scale end}
end

local function rotating(name)
  return function(_, c)
    -- Linear attention rotates features.
    local dims = c.linear and c.linear.total or c.head_dim
    return {rotate = parameter.position(name, merged({head_dim = dims}, c[name]))}
  end
end
makers.rope, makers.rope2d, makers.xpos = rotating "rope", rotating "rope2d", rotating "xpos"

function makers.alibi(_, c)
  local pe = parameter.position("alibi", merged({heads = c.heads}, c.alibi))
  if parameter.is_counting() then return {} end
  return {score = scores.alibi(pe.slopes, {symmetric = not c.causal})}
end

function makers.t5(self, c)
  local o = merged({}, c.t5)
  local buckets = o.buckets or 32
  local bidirectional = o.bidirectional
  if bidirectional == nil then bidirectional = not c.causal end
  local min, even = bidirectional and 4 or 2, bidirectional and " even" or ""
  if buckets < min or bidirectional and buckets % 2 == 1 then
    core._raise(("t5.buckets: expected an%s integer of at least %d%s, got %d"):format(
      even, min, bidirectional and " where attention looks both ways" or "", buckets))
  end
  local max_distance = o.max_distance or 128
  local exact = (bidirectional and buckets // 2 or buckets) // 2
  if max_distance <= exact then
    core._raise(("t5.max_distance: expected more than the %d distances that have their own "
      .. "buckets, got %d"):format(exact, max_distance))
  end
  if not self.table then
    -- Programs read tables in f32, whatever the dtype of the model.
    self.table = parameter.normal({buckets, c.heads}, {
      std = TABLE_STD, name = self._prefix .. "position.table", seed = self._seed,
    })
  end
  for axis, wanted in ipairs {buckets, c.heads} do
    if self.table.shape[axis] ~= wanted then
      local form = "pattern: expected the same %s in all layers of one t5 table, %d, got %d"
      core._raise(form:format(axis == 1 and "buckets" or "heads", self.table.shape[axis], wanted))
    end
  end
  if parameter.is_counted(self.table) then return {} end
  return {score = scores.t5(self.table, {
    max_distance = max_distance, bidirectional = bidirectional,
  })}
end

--- What a layer of these options adds to attention; layers of equal options share it.
---@param c table of config.layers
---@return {embed?: function, rotate?: attune.Position, score?: function}
function Encodings:of(c)
  local key = key_of(c.position, merged({
    heads = c.heads, head_dim = c.head_dim, d_model = c.d_model, context = c.context,
    causal = c.causal, features = c.linear and c.linear.total or nil,
  }, c[c.position]))
  if not self._made[key] then self._made[key] = makers[c.position](self, c) end
  return self._made[key]
end

--- The program and the tensors of a score, for the core.
function Encodings.program(score) return program.handle(score, "score") end

return Encodings
