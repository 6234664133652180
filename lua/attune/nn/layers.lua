--- Linear, Embedding, RMSNorm, LayerNorm, Dropout and MLP.
local core = require "attune.core"
local layers = require "attune.autograd.layers"
local graph = require "attune.autograd.graph"
local class = require "attune.nn.module".class
local context = require "attune.nn.context"
local options = require "attune.util.options"
local parameter = require "attune.nn.parameter"
local sorted_keys = require "attune.util.tables".sorted_keys

local nn = {}

-- ---- options ----------------------------------------------------------------------------------

local function check_integer(o, name)
  if o[name] ~= nil and math.type(o[name]) ~= "integer" then
    core._raise(("%s: expected an integer, got %s"):format(name, options.describe(o[name])))
  end
end

local function read(given, known, example)
  local o = options.read(given, known, nil, "options", example)
  if o.name ~= nil and type(o.name) ~= "string" then
    core._raise(("name: expected a string, got %s"):format(options.describe(o.name)))
  end
  check_integer(o, "seed")
  return o
end

local function count(o, name, optional)
  local x = o[name]
  if x == nil and optional then return nil end
  if math.type(x) ~= "integer" or x < 1 then
    core._raise(("%s: expected an integer of at least 1, got %s"):format(name, options.describe(x)))
  end
  return x
end

local function number(o, name, default, min)
  local x = o[name]
  if x == nil then return default end
  if type(x) ~= "number" or x ~= x or x < min or x == math.huge then
    core._raise(("%s: expected a number of at least %g, got %s"):format(
      name, min, options.describe(x)))
  end
  return x
end

local function flag(o, name, default)
  local x = o[name]
  if x == nil then return default end
  if type(x) ~= "boolean" then
    core._raise(("%s: expected true or false, got %s"):format(name, options.describe(x)))
  end
  return x
end

-- What every module knows: the name that its initial values are keyed by, the seed, the dtype.
local common = {"name", "seed", "dtype"}

local function known_with(...)
  return table.move(common, 1, #common, select("#", ...) + 1, {...})
end

-- The name of a member, by which with the seed its initial values are keyed.
local function suffix(o, name) return o.name and o.name .. "." .. name or name end

-- ---- Linear and Embedding ---------------------------------------------------------------------

local STD = 0.02 -- Radford et al. 2019

--- x weight^T + bias.
nn.Linear = class "Linear"
local linear_options = known_with("input", "output", "bias", "std")

---@param given {input: integer, output: integer, bias: boolean, std: number, name: string,
--- seed: integer, dtype: string} bias false and std 0.02 by default
function nn.Linear:init(given)
  local o = read(given, linear_options, "{input = 64, output = 64}")
  local input, output = count(o, "input"), count(o, "output")
  self.weight = parameter.normal({output, input}, {
    std = number(o, "std", STD, 0), name = suffix(o, "weight"), seed = o.seed, dtype = o.dtype,
  })
  if flag(o, "bias", false) then self.bias = parameter.constant({output}, 0, o.dtype) end
end

--- x [.., input] -> [.., output]
function nn.Linear:forward(x) return layers.linear(x, self.weight, self.bias) end

--- The rows of a table that ids name.
nn.Embedding = class "Embedding"
nn.Embedding._is_looked_up = true -- count.lua: not multiplied
local embedding_options = known_with("vocab", "d_model", "std")

---@param given {vocab: integer, d_model: integer, std: number, name: string, seed: integer}
function nn.Embedding:init(given)
  local o = read(given, embedding_options, "{vocab = 256, d_model = 64}")
  self.weight = parameter.normal({count(o, "vocab"), count(o, "d_model")}, {
    std = number(o, "std", STD, 0), name = suffix(o, "weight"), seed = o.seed, dtype = o.dtype,
  })
end

--- ids [.., tokens], from 0 -> [.., tokens, d_model]
function nn.Embedding:forward(ids) return layers.embedding(self.weight, ids) end

-- ---- norms ------------------------------------------------------------------------------------

--- x / sqrt(mean(x^2) + eps) * weight over the last axis (Zhang and Sennrich 2019). With `offset`
--- the factor is offset + weight, which starts at 0 (Gemma: offset 1).
nn.RMSNorm = class "RMSNorm"
local rms_options = known_with("size", "eps", "weight", "offset")

---@param given {size: integer, eps: number, weight: boolean, offset: number}
function nn.RMSNorm:init(given)
  local o = read(given, rms_options, "{size = 64}")
  local size = count(o, "size")
  self._eps, self._offset = number(o, "eps", 1e-6, 0), number(o, "offset", 0, 0)
  if flag(o, "weight", true) then
    self.weight = parameter.constant({size}, self._offset == 0 and 1 or 0, o.dtype)
  end
end

function nn.RMSNorm:forward(x)
  local weight = self.weight
  if weight and self._offset ~= 0 then weight = weight + self._offset end
  return x:rms_norm(weight, self._eps)
end

--- (x - mean) / sqrt(variance + eps) * weight + bias over the last axis (Ba et al. 2016).
nn.LayerNorm = class "LayerNorm"
local layer_options = known_with("size", "eps", "weight", "bias")

---@param given {size: integer, eps: number, weight: boolean, bias: boolean} all true by default
function nn.LayerNorm:init(given)
  local o = read(given, layer_options, "{size = 64}")
  local size = count(o, "size")
  self._eps = number(o, "eps", 1e-5, 0)
  local with_weight = flag(o, "weight", true)
  if with_weight then self.weight = parameter.constant({size}, 1, o.dtype) end
  if flag(o, "bias", with_weight) then self.bias = parameter.constant({size}, 0, o.dtype) end
end

function nn.LayerNorm:forward(x) return x:layer_norm(self.weight, self.bias, self._eps) end

-- ---- Dropout ----------------------------------------------------------------------------------

local dropped = graph.operation {
  name = "dropout",
  forward = function(x, p, seed, step, layer) return core._dropout(x, p, seed, step, layer) end,
  keep = function(node, _, _, p, seed, step, layer)
    node.p, node.seed, node.step, node.layer = p, seed, step, layer
  end,
  backward = function(node, dy)
    return core._dropout(dy, node.p, node.seed, node.step, node.layer)
  end,
}

--- Elements become 0 with probability p, and the others are divided by 1 - p. Which ones follows
--- from the seed, the step and the layer, so that a run that goes on, and a block that is computed
--- again, drop the same. set_step(n), of this module or of one that contains it, gives the step and
--- turns dropout on; without a step x passes. Give each dropout of a model its own layer number.
nn.Dropout = class "Dropout"
local dropout_options = known_with("p", "layer")

---@param given {p: number, layer: integer, seed: integer}
function nn.Dropout:init(given)
  local o = read(given, dropout_options, "{p = 0.1}")
  self._p = number(o, "p", 0, 0)
  if self._p >= 1 then
    core._raise(("dropout: expected from 0 to below 1, got %s"):format(self._p))
  end
  check_integer(o, "layer")
  self._layer, self._seed = o.layer or 0, o.seed or 0
end

---@param x attune.Tensor
---@param given? attune.Context its dropout_step is used in place of that of set_step
function nn.Dropout:forward(x, given)
  if self._p == 0 then return x end
  given = context.of(self, given)
  local step = given and given.dropout_step
  if not step then return x end
  return dropped(x, self._p, self._seed, step, self._layer)
end

-- ---- MLP --------------------------------------------------------------------------------------

local methods = core._tensor_methods
local function gelu(x) return methods.gelu(x) end
local function gelu_tanh(x) return methods.gelu_tanh(x) end
local function relu(x) return methods.relu(x) end
local function silu(x) return methods.silu(x) end

-- Each kind: the function of the gate, or of `up` where there is no gate.
local kinds = {
  gelu = {act = gelu}, gelu_tanh = {act = gelu_tanh}, relu = {act = relu}, silu = {act = silu},
  relu2 = {act = function(x)
    local y <close> = relu(x)
    return y * y
  end},
  swiglu = {gated = true, act = silu}, geglu = {gated = true, act = gelu},
  geglu_tanh = {gated = true, act = gelu_tanh}, reglu = {gated = true, act = relu},
}
nn.mlp_kinds = kinds

--- down(act(up x)), or with a gate down(act(gate x) * up x): Shazeer 2020 (arXiv 2002.05202).
nn.MLP = class "MLP"
local mlp_options = known_with("d_model", "d_ff", "kind", "bias", "std", "std_out", "output")

---@param given {d_model: integer, d_ff: integer, kind: string, bias: boolean, std: number,
--- std_out: number} kind: gelu, gelu_tanh, relu, relu2, silu, swiglu, geglu, geglu_tanh or reglu
function nn.MLP:init(given)
  local o = read(given, mlp_options, "{d_model = 64, d_ff = 256}")
  local d, wide = count(o, "d_model"), count(o, "d_ff")
  local name = o.kind or "gelu"
  local kind = kinds[name]
  if not kind then
    local names = sorted_keys(kinds)
    core._raise(("mlp: expected one of %s, got %s"):format(table.concat(names, ", "),
      options.describe(name)))
  end
  self._act, self._fused = kind.act, name == "swiglu"
  local function linear(field, input, output, std)
    self[field] = nn.Linear {
      input = input, output = output, bias = o.bias, std = std, name = suffix(o, field),
      seed = o.seed, dtype = o.dtype,
    }
  end
  linear("up", d, wide, o.std)
  if kind.gated then linear("gate", d, wide, o.std) end
  linear("down", wide, d, o.std_out or o.std)
end

-- Closes the output or the input of a layer, a tensor that nobody else has seen unless the layer is
-- the user's own: left to the collector, it would stay in memory while backward runs.
local function close_of(layer, x)
  if layer.forward == nn.Linear.forward then x:close() end
end

-- act(up x), or with a gate act(gate x) * up x.
local function hidden_of(mlp, x)
  local up = mlp.up:forward(x)
  if not mlp.gate then
    local hidden = mlp._act(up)
    close_of(mlp.up, up)
    return hidden
  end
  local gate = mlp.gate:forward(x)
  local opened <close> = not mlp._fused and mlp._act(gate) or nil
  local hidden = opened and opened * up or layers.swiglu(gate, up)
  close_of(mlp.gate, gate)
  close_of(mlp.up, up)
  return hidden
end

function nn.MLP:forward(x)
  local hidden = hidden_of(self, x)
  local y = self.down:forward(hidden)
  close_of(self.down, hidden)
  return y
end

return nn
