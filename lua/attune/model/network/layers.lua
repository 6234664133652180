--- What the blocks of a decoder consist of: linear layers, norms, activations and mixtures of
--- experts, over rows x [tokens, width] in f32.
local core = require "attune.core"
local scope = require "attune.model.network.scope"

local layers = {}

-- ---- linear -------------------------------------------------------------------------------------

--- y = x w' + b.
---@param w table weights (attune.model.network.weights)
---@param spec {name: string, inputs: integer, outputs: integer, bias?: boolean,
---  transposed?: boolean} transposed: the file has [inputs, outputs]
function layers.linear(w, spec)
  local name = spec.name .. ".weight"
  local matrix
  if spec.transposed then
    matrix = core._weight(w:get(name, {spec.inputs, spec.outputs}):transpose(1, 2))
  else
    matrix = w:matrix(name, spec.outputs, spec.inputs)
  end
  local bias
  if spec.bias then
    bias = w:get(spec.name .. ".bias", {spec.outputs})
  end
  return layers.linear_of(matrix, bias)
end

--- The same from a matrix [outputs, inputs] of core._weight or weights:matrix.
function layers.linear_of(matrix, bias) return {matrix = matrix, bias = bias} end

--- x [tokens, inputs] times the matrix, plus the bias where there is one.
function layers.apply(linear, x)
  return linear.matrix:apply(x, linear.bias)
end
local apply = layers.apply

--- x through several layers, the same as apply(linear, x) of each; two or three layers.
---@return attune.Tensor ... one per layer
function layers.apply_all(x, a, b, c)
  if not c then
    local p, q = core._apply_all(x, a.matrix, a.bias or false, b.matrix, b.bias or false)
    return p, q
  end
  local p, q, r = core._apply_all(x, a.matrix, a.bias or false, b.matrix, b.bias or false,
    c.matrix, c.bias or false)
  return p, q, r
end

-- ---- norms --------------------------------------------------------------------------------------

--- LayerNorm or RMSNorm over the last axis.
---@param w table weights
---@param spec {name?: string, kind: "layer"|"rms", eps: number, n: integer, bias?: boolean,
---  plus_one?: boolean} without a name: no weights; plus_one: the file has the weights less one
function layers.norm(w, spec)
  local weight = spec.name and w:get(spec.name .. ".weight", {spec.n})
  if spec.plus_one then weight = weight + 1 end
  return {
    weight = weight, bias = spec.bias and w:get(spec.name .. ".bias", {spec.n}) or nil,
    eps = spec.eps, centred = spec.kind == "layer",
  }
end

--- x normalised over its last axis.
function layers.normalise(norm, x)
  local y
  if norm.centred then
    y = core._layer_norm(x, norm.weight, norm.bias, norm.eps)
  else
    y = core._rms_norm(x, norm.weight, norm.eps)
  end
  return y
end

-- ---- activations --------------------------------------------------------------------------------

local function gelu(x) return x:gelu() end
local function gelu_tanh(x) return x:gelu_tanh() end
local function silu(x) return x:silu() end
local activations = {
  gelu = gelu, gelu_python = gelu, gelu_new = gelu_tanh,
  gelu_fast = gelu_tanh, gelu_pytorch_tanh = gelu_tanh,
  gelu_tanh = gelu_tanh, silu = silu, swish = silu,
  relu = function(x) return x:relu() end,
  quick_gelu = function(x) return x * (x * 1.702):sigmoid() end,
}

--- The activation of a published name; raises, without a position, where it is unknown.
function layers.activation(name)
  if not activations[name] then
    error(("config.json: expected an activation such as gelu, gelu_new, silu or relu, got '%s'")
      :format(tostring(name)), 0)
  end
  return name
end

--- x under the activation of that name.
function layers.activate(name, x) return activations[name](x) end

local function clamp(x, low, high)
  if low then x = (x + low + (x - low):abs()) * 0.5 end
  return (x + high - (x - high):abs()) * 0.5
end
layers.clamp = clamp

--- activation(gate) up
local function gated(activation, gate, up)
  if activation == "silu" or activation == "swish" then return core._swiglu(gate, up) end
  return activations[activation](gate) * up
end

-- ---- perceptrons --------------------------------------------------------------------------------

--- down(f(up x)), or down(f(gate x) up x). gate_up: both from one matrix, the gate first.
---@param w table weights
---@param spec {activation: string, up?: table, gate?: table, gate_up?: table, down: table}
function layers.mlp(w, spec)
  local mlp = {activation = layers.activation(spec.activation), down = layers.linear(w, spec.down)}
  for _, name in ipairs {"up", "gate", "gate_up"} do
    if spec[name] then mlp[name] = layers.linear(w, spec[name]) end
  end
  return mlp
end

-- What the last matrix of the feed-forward layer takes.
local function hidden(mlp, x)
  if mlp.gate_up then
    local both <close> = apply(mlp.gate_up, x)
    local half = both.shape[2] // 2
    local h = gated(mlp.activation, both:slice(2, 1, half), both:slice(2, half + 1, 2 * half))
    return h
  end
  local h
  if mlp.gate then
    local s <close> = scope.new()
    local gate, up = s(layers.apply_all(x, mlp.gate, mlp.up))
    h = gated(mlp.activation, gate, up)
  else
    local up <close> = apply(mlp.up, x)
    h = activations[mlp.activation](up)
  end
  return h
end

--- x [tokens, d_model] through the feed-forward layer. Intermediate tensors are closed at once:
--- the collector would let it take more memory than the weights.
function layers.run_mlp(mlp, x)
  local h <close> = hidden(mlp, x)
  local y = apply(mlp.down, h)
  return y
end

return layers
