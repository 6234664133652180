--- What several architectures share: fields, and parts of descriptions.
local rope_config = require "attune.model.network.rope_config"
local layers = require "attune.model.network.layers"

local common = {}

--- A table of fields from several, the later ones first.
function common.fields(...)
  local all = {}
  for _, fields in ipairs {...} do
    for name, form in pairs(fields) do all[name] = form end
  end
  return all
end

--- The names of GPT-2's configuration for what others call hidden_size and so on.
common.gpt_aliases = {
  n_embd = "hidden_size", n_head = "num_attention_heads", n_layer = "num_hidden_layers",
  n_positions = "max_position_embeddings", n_inner = "intermediate_size",
}

--- Kinds of attention by layer: layer_types where given, else a rule from the layer's number, from
--- 1. Returns a list of true for layers with a window.
function common.sliding(c, rule)
  local sliding = {}
  for i = 1, c.num_hidden_layers do
    local kind = c.layer_types and c.layer_types[i]
    if c.layer_types and kind ~= "sliding_attention" and kind ~= "full_attention" then
      error(("config.json: layer_types: expected full_attention or sliding_attention for each of "
        .. "%d layers, got %s"):format(c.num_hidden_layers, tostring(kind)), 0)
    end
    if kind then sliding[i] = kind == "sliding_attention" else sliding[i] = rule(i) end
  end
  return sliding
end

--- head_dim where the configuration leaves it to follow from the width.
function common.head_dim(c)
  if c.head_dim then return c.head_dim end
  if c.hidden_size % c.num_attention_heads ~= 0 then
    error(("config.json: expected hidden_size to be a multiple of %d heads, got %d"):format(
      c.num_attention_heads, c.hidden_size), 0)
  end
  return c.hidden_size // c.num_attention_heads
end

--- Raises unless the experts per token are some of all, and groups of experts are equal parts.
---@param c table
---@param all string the field with the number of experts
function common.check_experts(c, all)
  local top, count = c.num_experts_per_tok, c[all]
  if not top or top > count then
    error(("config.json: num_experts_per_tok: expected at most %d, %s, got %s"):format(
      count, all, tostring(top)), 0)
  end
  local groups = c.n_group or 1
  if count % groups ~= 0 or (c.topk_group or 1) > groups then
    error(("config.json: expected n_group to divide %d experts and topk_group to be at most "
      .. "n_group, got n_group %d and topk_group %d"):format(count, groups, c.topk_group or 1), 0)
  end
end

--- q, k, v and o of separate matrices.
function common.separate(at, c, spec)
  local heads, kv = c.num_attention_heads, spec.kv_heads or c.num_attention_heads
  local d, n = spec.head_dim, c.hidden_size
  local a = {
    form = "separate", heads = heads, kv_heads = kv, head_dim = d,
    q = {name = at .. "q_proj", inputs = n, outputs = heads * d, bias = spec.bias},
    k = {name = at .. "k_proj", inputs = n, outputs = kv * d, bias = spec.bias},
    v = {name = at .. "v_proj", inputs = n, outputs = kv * d, bias = spec.bias},
    o = {name = at .. (spec.o or "o_proj"), inputs = heads * d, outputs = n, bias = spec.o_bias},
  }
  for name, value in pairs(spec.with or {}) do a[name] = value end
  return a
end

--- gate, up and down under the names of LLaMA.
function common.gated_mlp(at, c, activation, bias, inner)
  inner = inner or c.intermediate_size
  return {
    activation = layers.activation(activation),
    gate = {name = at .. "gate_proj", inputs = c.hidden_size, outputs = inner, bias = bias},
    up = {name = at .. "up_proj", inputs = c.hidden_size, outputs = inner, bias = bias},
    down = {name = at .. "down_proj", inputs = inner, outputs = c.hidden_size, bias = bias},
  }
end

--- up and down.
function common.plain_mlp(c, activation, up, down, bias, transposed)
  local inner = c.intermediate_size or 4 * c.hidden_size
  return {
    activation = layers.activation(activation),
    up = {name = up, inputs = c.hidden_size, outputs = inner, bias = bias, transposed = transposed},
    down = {
      name = down, inputs = inner, outputs = c.hidden_size, bias = bias, transposed = transposed,
    },
  }
end

--- The description of an RMSNorm over n numbers; plus_one: the weight is stored minus 1.
function common.rms(name, n, eps, plus_one)
  return {kind = "rms", name = name, n = n, eps = eps, plus_one = plus_one}
end

--- The description of a LayerNorm over n numbers; bias: false where the file has none.
function common.layer_norm(name, n, eps, bias)
  return {kind = "layer", name = name, n = n, eps = eps, bias = bias ~= false}
end

--- The list of blocks from a function of their number, from 0 as in the names of tensors.
function common.blocks(n, make)
  local blocks = {}
  for i = 0, n - 1 do blocks[i + 1] = make(i) end
  return blocks
end

common.rope = rope_config
common.activation = layers.activation

--- The position options of a configuration with one set of rope parameters.
function common.rope_options(c, head_dim, defaults)
  local set = rope_config.sets(c).default
  if not set then
    error("config.json: rope_parameters: expected one set for all layers, got one per kind", 0)
  end
  return rope_config.options(set, c, head_dim, defaults)
end

return common
