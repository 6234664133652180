--- Attention as a module: projections of q, k and v, their norms, and what is done with the result.
---
---     local attention = nn.Attention {d_model = 64, heads = 4, kv_heads = 1, window = 128}
---     local y = attention(x)          -- x and y [batch, tokens, d_model]
local core = require "attune.core"
local attention = require "attune.autograd".attention
local class = require "attune.nn.module".class
local contexts = require "attune.nn.context"
local config = require "attune.nn.config"
local layers = require "attune.nn.layers"
local linear_documents = require "attune.nn.linear_documents"
local parameter = require "attune.nn.parameter"
local Encodings = require "attune.nn.encoding"
local describe = require "attune.util.options".describe

local Attention = class "Attention"

local function norm_of(c, size)
  if c.norm == "layernorm" then
    return layers.LayerNorm {size = size, eps = c.norm_eps, bias = false, dtype = c.dtype}
  end
  return layers.RMSNorm {
    size = size, eps = c.norm_eps, offset = c.norm_offset, dtype = c.dtype,
  }
end

local function pick(a, b)
  if a ~= nil then return a end
  return b
end

-- FAVOR+ and its kin draw one row of the projection per feature, except trig, which makes two
-- features of each row, and elu, which needs no projection.
local function linear_of(self, c, prefix)
  local features, count = c.linear.features or "favor+", c.linear.count
  if features ~= "elu" and not count then
    core._raise('linear: expected a number of features, such as {features = "favor+", count = 64}')
  end
  self._linear = {
    causal = c.causal, features = features, epsilon = c.linear.epsilon,
    rotate = self._encoding.rotate,
  }
  if features == "elu" then return end
  local rows = features == "trig" and count // 2 or count
  self.projection = parameter.projection(prefix .. "projection", c, rows)
  self._linear.projection = self.projection
end

--- By itself, attention takes the options that nn.Decoder has for a layer: heads, kv_heads,
--- head_dim, position and its table, window, softcap, linear and so on, beside d_model. Without a
--- seed its initial values differ from call to call. A Decoder passes more:
---@param c table the options, or those of config.layers
---@param encoding? table of Encodings:of
---@param name? string such as "blocks.1.attention"
---@param std_out? number of the output projection
function Attention:init(c, encoding, name, std_out)
  if not encoding then
    c = config.part(c, "attention")
    name, std_out = c.name or "", c.std_out
    self.position = Encodings(name == "" and "" or name .. ".", c.seed, c.dtype)
    encoding = self.position:of(c)
  end
  local prefix = name == "" and "" or name .. "."
  local function linear(field, input, output, bias, std)
    self[field] = layers.Linear {
      input = input, output = output, bias = bias, std = std or c.std,
      name = prefix .. field, seed = c.seed, dtype = c.dtype,
    }
  end
  local bias = pick(c.qkv_bias, c.bias)
  self._c, self._encoding = c, encoding
  linear("q", c.d_model, c.heads * c.head_dim, bias)
  if not c.share_kv then
    linear("k", c.d_model, c.kv_heads * c.head_dim, bias)
    if not c.k_equals_v then linear("v", c.d_model, c.kv_heads * c.v_head_dim, bias) end
  end
  linear("o", c.heads * c.v_head_dim, c.d_model, pick(c.o_bias, c.bias), std_out)
  if c.gate then linear("gate", c.d_model, c.heads * c.v_head_dim, false) end
  if c.qk_norm then
    local per_head = c.qk_norm == "heads"
    self.q_norm = norm_of(c, c.head_dim * (per_head and 1 or c.heads))
    if not c.share_kv then self.k_norm = norm_of(c, c.head_dim * (per_head and 1 or c.kv_heads)) end
  end
  if c.sinks then self.sinks = parameter.constant({c.heads}, 0) end
  if c.linear then linear_of(self, c, prefix) end
end

-- [batch, tokens, heads * size] -> [batch, heads, tokens, size], normed over all or each head.
local function split(x, heads, size, norm, per_head)
  if norm and not per_head then x = norm:forward(x) end
  local shape = x.shape
  x = x:view(shape[1], shape[2], heads, size)
  if norm and per_head then x = norm:forward(x) end
  return x:transpose(2, 3)
end

--- q, k and v of a layer: [batch, heads, tokens, head_dim], not rotated.
---@param x attune.Tensor [batch, tokens, d_model]
---@param memory? attune.Tensor what k and v come from; x
function Attention:project(x, memory)
  local c = self._c
  local per_head = c.qk_norm == "heads"
  local q = split(self.q:forward(x), c.heads, c.head_dim, self.q_norm, per_head)
  if not self.k then return q end
  local from = memory or x
  local keys = self.k:forward(from)
  local k = split(keys, c.kv_heads, c.head_dim, self.k_norm, per_head)
  local v = self.v and self.v:forward(from) or keys
  return q, k, split(v, c.kv_heads, c.v_head_dim)
end

--- The options of core attention for a call.
function Attention:options(context)
  local c, encoding = self._c, self._encoding
  local o = {
    causal = c.causal or nil, window = c.window, scale = c.scale, softcap = c.softcap,
    sinks = self.sinks, lengths = context and context.lengths, rotate = encoding.rotate,
  }
  if encoding.rotate then o.positions = context and context.positions end
  return o
end

--- softmax attention of projected heads; linear attention where the options say so.
function Attention:attend(q, k, v, context)
  if self._linear then return linear_documents(q, k, v, self._linear, context) end
  local o, tables = self:options(context), nil
  if self._encoding.score then o.score, tables = Encodings.program(self._encoding.score) end
  return (attention(q, k, v, o, tables))
end

--- x [batch, tokens, d_model] -> the same shape. context.kv keeps each layer's k and v for layers
--- that share them; context.attend replaces `attend`, as a session with a cache does.
---@param x attune.Tensor
---@param context? attune.Context
function Attention:forward(x, context)
  local c = self._c
  if core._kind(x) ~= "tensor" or #x.shape ~= 3 then
    core._raise(("x: expected a tensor [batch, tokens, %d], got %s"):format(c.d_model, describe(x)))
  end
  context = contexts.of(self, context)
  local memory = c.is_cross and context and context.memory
  if c.is_cross and not memory then
    core._raise("context.memory: expected a tensor [batch, tokens, d_model], which "
      .. "cross-attention reads, got nil")
  end
  local q, k, v = self:project(x, memory or nil)
  local kv = context and context.kv
  if c.share_kv then
    local from = kv and kv[c.share_kv]
    if not from then
      core._raise(("share_kv: expected context.kv with the k and v of layer %d"):format(c.share_kv))
    end
    k, v = from[1], from[2]
  elseif kv and not c.is_cross then
    kv[c.layer] = {k, v}
  end
  local attend = context and context.attend or self.attend
  local o = attend(self, q, k, v, context):transpose(2, 3):contiguous()
  local shape = o.shape
  o = o:view(shape[1], shape[2], c.heads * c.v_head_dim)
  if self.gate then o = o * self.gate:forward(x):sigmoid() end
  return self.o:forward(o)
end

return Attention
