--- Parameters and FLOPs of a configuration, by part: embedding, attention, mlp, norms, head.
--
-- A FLOP is one multiplication or one addition, so that a matrix of n weights costs 2 n per token.
-- Counted are matrix products, attention over the keys, and norms; activations, softmax and
-- residual sums are left out, as they are below one percent. FLOPs are those of one token that is
-- decoded: with an encoder, those of the decoder.
--
--   attention over n keys: 4 heads head_dim n       (q k and weights v)
--   latent attention:      2 heads (2 kv_rank + rope) n, with the up-projections absorbed into q, o
local numbers = require "attune.model.numbers"

local parts = {}

local gated = {swiglu = true, geglu = true, reglu = true, glu = true}
parts.gated = gated

-- FLOPs per element of a norm: sum of squares, scale, weight; LayerNorm also subtracts the mean.
local norm_flops = {rmsnorm = 4, layernorm = 7}

-- ---- parameters -------------------------------------------------------------------------------

local function norm_size(cfg) return cfg.d_model * (cfg.norm_bias and 2 or 1) end

-- Weights and biases of one attention: {weights, biases}.
local function attention_size(cfg)
  local bias = cfg.attention_bias
  if bias == nil then bias = cfg.bias end
  local d, mla = cfg.d_model, cfg.mla
  if mla then
    local h = cfg.heads
    local q_size = h * (mla.nope + mla.rope)
    return {
      -- Without a rank, q has one projection.
      weights = (mla.q_rank > 0 and mla.q_rank * (d + q_size) or d * q_size)
        + d * (mla.kv_rank + mla.rope) + mla.kv_rank * h * (mla.nope + mla.v) + h * mla.v * d,
      biases = 0,
      norms = mla.q_rank + mla.kv_rank,
    }
  end
  local q, kv = cfg.heads * cfg.head_dim, cfg.kv_heads * cfg.head_dim
  return {weights = 2 * d * q + 2 * d * kv, biases = bias and q + 2 * kv + d or 0, norms = 0}
end

-- Weights and biases of one MLP of a given width.
local function mlp_size(cfg, d_ff)
  local bias = cfg.mlp_bias
  if bias == nil then bias = cfg.bias end
  local matrices = gated[cfg.mlp] and 3 or 2
  return {
    weights = matrices * cfg.d_model * d_ff,
    biases = bias and (matrices - 1) * d_ff + cfg.d_model or 0,
  }
end

-- All parameters of the MLPs, the part that a token uses, and the weights of one expert.
local function mlps(cfg)
  local e = cfg.experts
  local dense = mlp_size(cfg, cfg.d_ff)
  local dense_all = dense.weights + dense.biases
  if not e then
    local layers = cfg.layers + (cfg.encoder_layers or 0)
    return {all = layers * dense_all, used = cfg.layers * dense.weights, expert = 0, routed = 0}
  end
  local sparse_layers = cfg.layers - e.dense_layers
  local expert = mlp_size(cfg, e.d_ff).weights
  local always = cfg.d_model * e.routed + e.shared * expert
  return {
    all = e.dense_layers * dense_all + sparse_layers * (always + e.routed * expert),
    used = e.dense_layers * dense.weights + sparse_layers * (always + e.chosen * expert),
    expert = expert,
    routed = sparse_layers,
  }
end

local function norm_count(cfg)
  local per_layer = cfg.shared_norm and cfg.block == "parallel" and 1 or 2
  if cfg.kind == "encoder-decoder" then
    -- Encoder layers have two norms, decoder layers three, and each side has one at its end.
    return 2 * cfg.encoder_layers + 3 * cfg.layers + 2, 3 * cfg.layers + 1
  end
  return per_layer * cfg.layers + 1, per_layer * cfg.layers + 1
end

local function attention_count(cfg)
  if cfg.kind == "encoder-decoder" then return cfg.encoder_layers + 2 * cfg.layers end
  return cfg.layers
end

-- The relative position table of T5, one per side.
local function bias_tables(cfg)
  if cfg.position ~= "t5" then return 0 end
  return cfg.t5.buckets * cfg.heads * (cfg.kind == "encoder-decoder" and 2 or 1)
end

-- ---- FLOPs ------------------------------------------------------------------------------------

--- The visible keys of the last of `context` tokens.
---@return integer
function parts.visible(cfg, context)
  local window = cfg.window or 0
  return window > 0 and math.min(context, window) or context
end

--- FLOPs of one query token over n keys, in all layers.
---@return number integer where n is one
function parts.over_keys(cfg, n)
  local mla = cfg.mla
  local per_head = mla and 2 * (2 * mla.kv_rank + mla.rope) or 4 * cfg.head_dim
  return cfg.layers * cfg.heads * per_head * n
end

--- The same of one key in a prompt: with latent attention K and V may be expanded, once per token,
--- which over many queries costs less.
---@return integer
function parts.over_key_of_prompt(cfg)
  local absorbed, mla = parts.over_keys(cfg, 1), cfg.mla
  if not mla then return absorbed end
  return math.min(absorbed, cfg.layers * cfg.heads * 2 * (mla.nope + mla.rope + mla.v))
end

local function attention_flops(cfg, context, source)
  local size = attention_size(cfg)
  local flops = 2 * cfg.layers * size.weights
    + parts.over_keys(cfg, parts.visible(cfg, context))
  if cfg.kind == "encoder-decoder" then
    -- Cross-attention: keys and values of the source are computed once, not per token.
    local q_and_o = 2 * cfg.d_model * cfg.heads * cfg.head_dim
    flops = flops + 2 * cfg.layers * q_and_o + parts.over_keys(cfg, source)
  end
  return flops
end

---@class attune.model.Part
---@field name string "embedding", "attention", "mlp", "norms" or "head"
---@field parameters integer
---@field active integer parameters that one token uses
---@field flops integer of one decoded token

local function list_of(cfg, context, source)
  local d = cfg.d_model
  local table_size = cfg.vocab * d
  local position = cfg.position == "learned" and cfg.max_positions * d or 0
  local attention = attention_size(cfg)
  local attention_all = attention.weights + attention.biases + attention.norms
  local mlp = mlps(cfg)
  local norms, used_norms = norm_count(cfg)
  local per_norm = norm_flops[cfg.norm] * d
  local head = cfg.tied and 0 or table_size + (cfg.head_bias and cfg.vocab or 0)
  local list = {
    {name = "embedding", parameters = table_size + position, flops = 0},
    {
      name = "attention", parameters = attention_count(cfg) * attention_all + bias_tables(cfg),
      flops = attention_flops(cfg, context, source),
    },
    {name = "mlp", parameters = mlp.all, flops = 2 * mlp.used},
    {name = "norms", parameters = norms * norm_size(cfg), flops = used_norms * per_norm},
    {name = "head", parameters = head, flops = 2 * table_size},
  }
  for _, part in ipairs(list) do part.active = part.parameters end
  if cfg.experts then list[3].active = mlp.used end
  return list
end

--- The sum of a field over parts.
---@param list attune.model.Part[]
---@param field string
---@return integer
function parts.sum(list, field)
  local total = 0
  for _, part in ipairs(list) do total = total + part[field] end
  return total
end

-- A copy whose integers are floats: their products do not wrap around.
local function in_floats(value)
  if math.type(value) == "integer" then return value + 0.0 end
  if type(value) ~= "table" then return value end
  local copy = {}
  for key, inner in pairs(value) do copy[key] = in_floats(inner) end
  return copy
end

--- The parts of a configuration. Raises where the sum of parameters or FLOPs is not below 2^62.
---@param cfg table a checked configuration
---@param context integer keys, the token itself included
---@param source integer tokens of the encoder
---@param level integer as of `error`, from the caller
---@return attune.model.Part[]
function parts.list(cfg, context, source, level)
  local rounded = list_of(in_floats(cfg), context + 0.0, source + 0.0)
  for _, field in ipairs {"parameters", "flops"} do
    numbers.check_size(parts.sum(rounded, field), level + 1)
  end
  return list_of(cfg, context, source)
end

--- The weights that one decoding step of `batch` tokens reads, by part. The embedding table is read
--- by rows, which is little; a tied head reads all of it. Of the experts of a layer, those that at
--- least one token chose are read: routed (1 - (1 - chosen / routed)^batch), were choices uniform.
---@return {name: string, weights: number}[]
function parts.read_weights(cfg, batch)
  local attention = attention_size(cfg)
  local mlp = mlps(cfg)
  local weights = mlp.used
  if cfg.experts then
    local e = cfg.experts
    local touched = e.routed * (1 - (1 - e.chosen / e.routed) ^ batch)
    weights = weights + mlp.routed * mlp.expert * (touched - e.chosen)
  end
  local projections = cfg.layers * attention.weights
  if cfg.kind == "encoder-decoder" then
    projections = projections + cfg.layers * 2 * cfg.d_model * cfg.heads * cfg.head_dim
  end
  return {
    {name = "attention", weights = projections},
    {name = "mlp", weights = weights},
    {name = "head", weights = cfg.vocab * cfg.d_model},
  }
end

return parts
