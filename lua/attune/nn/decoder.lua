--- A decoder-only language model of blocks: GPT, LLaMA, Falcon, PaLM and their kin by options.
local core = require "attune.core"
local class = require "attune.nn.module".class
local contexts = require "attune.nn.context"
local Block = require "attune.nn.block"
local Encodings = require "attune.nn.encoding"
local config = require "attune.nn.config"
local layers = require "attune.nn.layers"
local loss = require "attune.nn.loss"
local autograd = require "attune.autograd"
local linear = require "attune.autograd.layers".linear
local methods = core._tensor_methods
local describe = require "attune.util.options".describe

---@class attune.DecoderOptions
---@field vocab integer
---@field d_model integer
---@field layers integer
---@field heads integer
---@field kv_heads? integer heads by default; 1 for MQA
---@field head_dim? integer d_model / heads
---@field v_head_dim? integer of v, head_dim
---@field d_ff? integer 4 d_model
---@field mlp? string gelu, gelu_tanh, relu, relu2, silu, swiglu, geglu, geglu_tanh, reglu, none
---@field norm? "rmsnorm"|"layernorm"|"none"
---@field norm_eps? number 1e-6 for rmsnorm, 1e-5 for layernorm
---@field norm_bias? boolean of layernorm, true
---@field norm_weight? boolean true
---@field norm_offset? number rmsnorm multiplies by offset + weight: 1 for Gemma
---@field norm_place? "before"|"after"|"both"|"residual" block.lua has the formulas
---@field final_norm? boolean true
---@field embed_norm? boolean a norm after the embeddings, as BLOOM has
---@field block? "serial"|"parallel"
---@field shared_norm? boolean parallel blocks: one norm for attention and MLP
---@field position? string none, learned, sinusoidal, rope, rope2d, xpos, alibi, t5; its options are
--- the table of that name: rope = {base = 5e5, scaling = {..}}, t5 = {buckets = 32},
--- sinusoidal = {scale = 0.03}, times the sines
---@field context? integer tokens of a learned table
---@field tied? boolean the output projection is the embedding, true
---@field bias? boolean of all linear layers, false; qkv_bias, o_bias, mlp_bias, head_bias override
---@field window? integer|integer[] visible keys of a query, its own token included; {left, right}
---@field softcap? number of the scores
---@field scale? number of the scores, 1 / sqrt(head_dim)
---@field sinks? boolean one learned logit per head
---@field qk_norm? boolean|"heads"|"all" norms of q and k before rotation: per head, or over all
---@field gate? boolean the result of attention times sigmoid(gate(x))
---@field k_equals_v? boolean v is k before its norm and rotation
---@field linear? table linear attention: {features = "favor+", count = 64, epsilon = 0}
---@field causal? boolean true
---@field cross? boolean attention to context.memory after the causal one
---@field pattern? table[] options per layer, repeated over the layers; share_kv = n uses the k and
--- v of layer n, or of n layers before where n is negative
---@field embed_scale? number times the embeddings
---@field logit_scale? number times the logits
---@field logit_softcap? number
---@field residual_scale? number times each branch
---@field label_smoothing? number of loss
---@field z_loss? number of loss
---@field dropout? number after embeddings and branches, 0
---@field recompute? boolean blocks are computed again in backward, and keep only their input
---@field seed? integer 0
---@field std? number of initial weights, 0.02
---@field std_out? number of o and down, std / sqrt(2 layers)
---@field dtype? "f32"|"f64"

---@class attune.Decoder
---@field config attune.DecoderOptions with defaults, a copy; they make the same model again
---@field blocks table[]
local Decoder = class "Decoder"
Decoder._is_decoder = true -- count.lua

---@param given attune.DecoderOptions
---@param embed? table an embedding to share with another model
---@param first_dropout? integer the number of the first dropout, 0
---@param prefix? string of the names that initial values are keyed by
function Decoder:init(given, embed, first_dropout, prefix)
  local c = config.read(given)
  prefix = prefix or ""
  c.first_dropout = first_dropout or 0
  self._c = c
  self.embed = embed or layers.Embedding {
    vocab = c.vocab, d_model = c.d_model, std = c.std, name = prefix .. "embed", seed = c.seed,
    dtype = c.dtype,
  }
  self.position = Encodings(prefix, c.seed, c.dtype)
  if c.embed_norm then self.embed_norm = Block.norm_of(c, c.d_model) end
  self._dropout = layers.Dropout {p = c.dropout, layer = c.first_dropout, seed = c.seed}
  self.blocks = {}
  for n, layer in ipairs(config.layers(c)) do
    self.blocks[n] = Block(layer, self.position, prefix .. "blocks." .. n)
    if layer.share_kv then self._shares = true end
    if c.recompute and (layer.share_kv or layer.cross) then
      core._raise "recompute: expected layers whose only input is x; share_kv and cross have more"
    end
  end
  if config.is_added(c.position) then
    local encoding = self.position:of(c)
    self._embedding, self._max_positions = encoding.embed, encoding.max_positions
  end
  if c.final_norm then self.norm = Block.norm_of(c, c.d_model) end
  if not c.tied then
    self.head = layers.Linear {
      input = c.d_model, output = c.vocab, bias = c.head_bias, std = c.std,
      name = prefix .. "head", seed = c.seed, dtype = c.dtype,
    }
  end
  self._loss = {
    logit_scale = c.logit_scale, softcap = c.logit_softcap, label_smoothing = c.label_smoothing,
    z_loss = c.z_loss,
  }
  self.config = config.public(c)
end

-- ids as a tensor i64 [batch, tokens]: a list of one row, a list of rows or a tensor.
local function tensor_of(ids, name)
  if core._kind(ids) ~= "tensor" and type(ids) ~= "table" then
    core._raise(("%s: expected ids [batch, tokens] from 0, got %s"):format(name, describe(ids)))
  end
  local t = core._integers(ids, name)
  if #t.shape == 1 then t = t:view(1, t.shape[1]) end
  if #t.shape ~= 2 then
    core._raise(("%s: expected ids [batch, tokens], got %s"):format(name, describe(t)))
  end
  return t
end

-- The context of this call, with a table for the keys and values that layers share.
local function context_of(self, given)
  local context = contexts.of(self, given)
  if not self._shares then return context end
  context = contexts.copy(context)
  context.kv = context.kv or {}
  return context
end

--- The hidden states after the last norm.
---@param ids attune.Tensor|integer[]|integer[][] [batch, tokens], from 0
---@param context? attune.Context
---@return attune.Tensor [batch, tokens, d_model]
function Decoder:hidden(ids, context)
  local c = self._c
  ids = tensor_of(ids, "ids")
  context = context_of(self, context)
  local positions = context and context.positions
  if self._max_positions and not positions and ids.shape[2] > self._max_positions then
    local form = "ids: expected at most context = %d tokens, which learned positions have, got %d"
    core._raise(form:format(self._max_positions, ids.shape[2]))
  end
  local x = self.embed:forward(ids)
  if c.embed_scale then x = x * c.embed_scale end
  if self._embedding then x = self._embedding(x, positions) end
  if self.embed_norm then x = self.embed_norm:forward(x) end
  x = self._dropout:forward(x, context)
  for _, block in ipairs(self.blocks) do x = self:run_block(block, x, context) end
  if self.norm then x = self.norm:forward(x) end
  return x
end

--- One block; a model that does more between blocks overrides it. With `recompute` the graph keeps
--- the block's input only.
function Decoder:run_block(block, x, context)
  if not self._c.recompute then return block:forward(x, context) end
  return autograd.checkpoint(function(y) return block:forward(y, context) end, x)
end

--- Logits of hidden states.
---@param x attune.Tensor [.., d_model]
---@return attune.Tensor [.., vocab]
function Decoder:logits(x)
  local c = self._c
  local y = self.head and self.head:forward(x)
    or linear(x, self.embed.weight)
  if c.logit_scale then y = y * c.logit_scale end
  if c.logit_softcap then y = methods.tanh(y * (1 / c.logit_softcap)) * c.logit_softcap end
  return y
end

--- Logits of every token.
---@param ids attune.Tensor|integer[]|integer[][] [batch, tokens], from 0
---@param context? attune.Context
---@return attune.Tensor [batch, tokens, vocab]
function Decoder:forward(ids, context) return self:logits(self:hidden(ids, context)) end

--- The loss of predicting targets: the weighted mean over tokens, in nats.
---@param ids attune.Tensor|integer[]|integer[][] [batch, tokens], from 0
---@param targets attune.Tensor|integer[]|integer[][] the id after each id
---@param weights? attune.Tensor|number[]|number[][] [batch, tokens], at least 0; all 1 by default
---@param context? attune.Context
---@return attune.Tensor loss of shape {}
---@return number nll without label smoothing and z_loss
function Decoder:loss(ids, targets, weights, context)
  local x = self:hidden(ids, context)
  targets = tensor_of(targets, "targets")
  local head = self.head
  return loss(
    x, head and head.weight or self.embed.weight, head and head.bias, targets, weights, self._loss)
end

return Decoder
