--- A transformer block: attention and an MLP around a residual stream.
---
---   before    x + f(norm(x))               (Radford et al. 2019)
---   after     x + norm(f(x))               (OLMo 2)
---   both      x + norm(f(norm(x)))         (Gemma 2)
---   residual  norm(x + f(x))               (Vaswani et al. 2017)
---   parallel  x + attention(norm1(x)) + mlp(norm2(x)), or of one shared norm (PaLM, Falcon)
local class = require "attune.nn.module".class
local contexts = require "attune.nn.context"
local Attention = require "attune.nn.attention"
local config = require "attune.nn.config"
local Encodings = require "attune.nn.encoding"
local layers = require "attune.nn.layers"
local copy = require "attune.util.tables".copy

local Block = class "Block"

--- The norm of a size that the options ask for; nil for none.
local function norm_of(c, size)
  if c.norm == "none" then return nil end
  if c.norm == "layernorm" then
    return layers.LayerNorm {
      size = size, eps = c.norm_eps, weight = c.norm_weight, bias = c.norm_bias, dtype = c.dtype,
    }
  end
  return layers.RMSNorm {
    size = size, eps = c.norm_eps, weight = c.norm_weight, offset = c.norm_offset, dtype = c.dtype,
  }
end
Block.norm_of = norm_of

local function pick(a, b)
  if a ~= nil then return a end
  return b
end

--- By itself, a block takes the options that nn.Decoder has for a layer and for blocks, beside
--- d_model. layers is the number of blocks of the model, by which o and down begin smaller; layer,
--- its number among them, tells its dropout from that of others. Without a seed its initial values
--- differ from call to call. A Decoder passes more:
---@param c table the options, or those of config.layers
---@param encodings? table
---@param name? string such as "blocks.1"
function Block:init(c, encodings, name)
  if not encodings then
    c = config.part(c, "block")
    name = c.name or ""
    self.position = Encodings(name == "" and "" or name .. ".", c.seed, c.dtype)
    encodings = self.position
  end
  local prefix = name == "" and "" or name .. "."
  local std = c.std or 0.02
  local std_out = c.std_out or std / math.sqrt(2 * c.layers)
  self._c = c
  local shared = c.block == "parallel" and c.shared_norm
  local has_mlp = c.mlp ~= "none"
  self.norm1 = norm_of(c, c.d_model)
  if has_mlp and not shared then self.norm2 = norm_of(c, c.d_model) end
  if c.norm_place == "both" then
    self.norm1_after = norm_of(c, c.d_model)
    if has_mlp then self.norm2_after = norm_of(c, c.d_model) end
  end
  self.attention = Attention(c, encodings:of(c), prefix .. "attention", std_out)
  if c.cross then
    local other = copy(c)
    other.is_cross, other.causal, other.position = true, false, "none"
    other.window, other.share_kv, other.k_equals_v = nil, nil, nil
    self.cross = Attention(other, encodings:of(other), prefix .. "cross", std_out)
    self.norm_cross = norm_of(c, c.d_model)
    if c.norm_place == "both" then self.norm_cross_after = norm_of(c, c.d_model) end
  end
  if has_mlp then
    self.mlp = layers.MLP {
      d_model = c.d_model, d_ff = c.d_ff, kind = c.mlp, bias = pick(c.mlp_bias, c.bias),
      std = std, std_out = std_out, name = prefix .. "mlp", seed = c.seed, dtype = c.dtype,
    }
  end
  -- Each dropout of the model has a number: 0 for the embeddings, two per block, and after those
  -- of all blocks one per cross-attention.
  local function dropout(n)
    return layers.Dropout {p = c.dropout, layer = (c.first_dropout or 0) + n, seed = c.seed}
  end
  self._dropout1, self._dropout2 = dropout(2 * c.layer - 1), dropout(2 * c.layer)
  if c.cross then self._dropout_cross = dropout(2 * c.layers + c.layer) end
end

local function apply(norm, x)
  if norm then return norm:forward(x) end
  return x
end

-- One branch around the residual stream.
local function branch(self, x, module, norm, norm_after, dropout, context)
  local c = self._c
  local place = c.norm_place
  local input = (place == "before" or place == "both") and apply(norm, x) or x
  local output = module:forward(input, context)
  local y = output
  if place == "after" then y = apply(norm, y) end
  if place == "both" then y = apply(norm_after, y) end
  y = dropout:forward(y, context)
  if c.residual_scale then y = y * c.residual_scale end
  local sum = x + y
  -- Nothing needs what a module of this library gave to the stream; the collector would come late.
  local forward = module.forward
  local is_own = forward == Attention.forward or forward == layers.MLP.forward
  if is_own and rawequal(y, output) then output:close() end
  if place == "residual" then return apply(norm, sum) end
  return sum
end

local function parallel(self, x, context)
  local c = self._c
  local h = apply(self.norm1, x)
  local a = self._dropout1:forward(self.attention:forward(h, context), context)
  if self.mlp then
    local h2 = c.shared_norm and h or apply(self.norm2, x)
    a = a + self._dropout2:forward(self.mlp:forward(h2, context), context)
  end
  if c.residual_scale then a = a * c.residual_scale end
  return x + a
end

--- x [batch, tokens, d_model] -> the same shape.
---@param x attune.Tensor
---@param context? attune.Context
function Block:forward(x, context)
  context = contexts.of(self, context)
  if self._c.block == "parallel" then return parallel(self, x, context) end
  x = branch(self, x, self.attention, self.norm1, self.norm1_after, self._dropout1, context)
  if self.cross then
    x = branch(self, x, self.cross, self.norm_cross, self.norm_cross_after, self._dropout_cross,
      context)
  end
  if not self.mlp then return x end
  return branch(self, x, self.mlp, self.norm2, self.norm2_after, self._dropout2, context)
end

return Block
