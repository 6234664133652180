--- Gemma 4 (text): scores without a scale, norms of q, k and v, layers that use the keys and values
--- of an earlier one, values that are the keys, an input per layer and token, and a factor per
--- block.
local common = require "attune.model.architectures.common"
local layers = require "attune.model.network.layers"

-- The block whose keys block i (from 1) uses: the last of its kind that has its own; nil: its own.
local function sources(c, sliding)
  local own, last, from = c.num_hidden_layers - c.num_kv_shared_layers, {}, {}
  for i = 1, c.num_hidden_layers do
    if i <= own then last[sliding[i]] = i else from[i] = last[sliding[i]] end
  end
  return from
end

local function refuse(condition, message)
  if condition then error("config.json: " .. message, 0) end
end

-- head_dim and kv heads of layer i, from 1. transformers 5.24 lists the layers that differ, by
-- number from 0.
local function shape_of(c, i, sliding, alternative)
  if c.per_layer_config then
    local own = c.per_layer_config[tostring(i - 1)] or {}
    for name in pairs(own) do
      refuse(name ~= "head_dim" and name ~= "num_key_value_heads",
        ("unknown field '%s' of per_layer_config"):format(tostring(name)))
    end
    return own.head_dim or c.head_dim, own.num_key_value_heads or c.num_key_value_heads
  end
  return sliding and c.head_dim or c.global_head_dim,
    alternative and c.num_global_key_value_heads or c.num_key_value_heads
end

local function attention(c, at, i, sliding, from, sets)
  local alternative = c.attention_k_eq_v and not sliding
  local d, kv = shape_of(c, i, sliding, alternative)
  local kind = sliding and "sliding_attention" or "full_attention"
  local set = sets[kind] or sets.default
  refuse(not set, ("rope_parameters: expected a set of %s, got none"):format(kind))
  local defaults = {theta = sliding and 10000 or 1000000}
  local function norm(name) return common.rms(at .. "self_attn." .. name, d, c.rms_norm_eps) end
  local a = common.separate(at .. "self_attn.", c, {
    kv_heads = kv, head_dim = d, bias = c.attention_bias, o_bias = c.attention_bias,
    with = {
      scale = 1, rope = common.rope.options(set, c, d, defaults),
      window = sliding and c.sliding_window or nil, q_norm = norm "q_norm", k_norm = norm "k_norm",
      v_norm = {kind = "rms", n = d, eps = c.rms_norm_eps}, shares = from[i], keeps = true,
    },
  })
  if alternative then a.v = nil end
  return a
end

local function layer_inputs(c)
  local width = c.hidden_size_per_layer_input
  return {
    table = "embed_tokens_per_layer", vocab = c.vocab_size_per_layer_input or c.vocab_size,
    table_scale = width ^ 0.5, width = width, projection = "per_layer_model_projection",
    projection_scale = c.hidden_size ^ -0.5,
    norm = common.rms("per_layer_projection_norm", width, c.rms_norm_eps),
  }
end

-- Files may have keys and values of layers that use those of an earlier one.
local function unused(from)
  local patterns = {}
  for i in pairs(from) do
    for _, part in ipairs {"k_proj", "v_proj", "k_norm", "v_norm"} do
      patterns[#patterns + 1] = ("layers%%.%d%%.self_attn%%.%s%%."):format(i - 1, part)
    end
  end
  return patterns
end

local function describe(c)
  refuse(c.enable_moe_block, "enable_moe_block: expected false, got true")
  refuse(c.use_bidirectional_attention, "use_bidirectional_attention: expected null")
  local n, eps = c.hidden_size, c.rms_norm_eps
  local sliding = common.sliding(c, function(i) return i % 6 ~= 0 end)
  sliding[c.num_hidden_layers] = false -- whatever layer_types says
  local from, sets = sources(c, sliding), common.rope.sets(c)
  local activation = layers.activation(c.hidden_activation)
  local inputs = c.hidden_size_per_layer_input > 0
  return {
    vocab = c.vocab_size, width = n, context = c.max_position_embeddings,
    embedding = {name = "embed_tokens", scale = n ^ 0.5}, unused = unused(from),
    layer_inputs = inputs and layer_inputs(c) or nil,
    blocks = common.blocks(c.num_hidden_layers, function(i)
      local at = ("layers.%d."):format(i)
      local function norm(name) return common.rms(at .. name, n, eps) end
      local inner = c.intermediate_size
      if c.use_double_wide_mlp and from[i + 1] then inner = 2 * inner end
      local width = c.hidden_size_per_layer_input
      return {
        norm1 = norm "input_layernorm", after1 = norm "post_attention_layernorm",
        norm2 = norm "pre_feedforward_layernorm", after2 = norm "post_feedforward_layernorm",
        attention = attention(c, at, i + 1, sliding[i + 1], from, sets),
        mlp = common.gated_mlp(at .. "mlp.", c, activation, false, inner),
        scalar = at .. "layer_scalar",
        layer_input = inputs and {
          gate = {name = at .. "per_layer_input_gate", inputs = n, outputs = width},
          projection = {name = at .. "per_layer_projection", inputs = width, outputs = n},
          norm = norm "post_per_layer_input_norm", activation = activation,
        } or nil,
      }
    end),
    norm = common.rms("norm", n, eps),
    head = {
      name = "=lm_head", tied = c.tie_word_embeddings, softcap = c.final_logit_softcapping,
    },
  }
end

local rope_parameters = {
  sliding_attention = {rope_type = "default", rope_theta = 10000},
  full_attention = {
    rope_type = "proportional", partial_rotary_factor = 0.25, rope_theta = 1000000,
  },
}

return {
  gemma4_text = {
    fields = common.fields(common.rope.fields, {
      hidden_size = "count", intermediate_size = "count", num_attention_heads = "count",
      num_hidden_layers = "count", num_key_value_heads = {"count", 4}, vocab_size = "count",
      head_dim = {"count", 256}, global_head_dim = {"count", 512},
      num_global_key_value_heads = {"count"}, hidden_activation = {"text", "gelu_pytorch_tanh"},
      rms_norm_eps = {"positive", 1e-6}, max_position_embeddings = {"count", 131072},
      attention_bias = {"boolean", false}, attention_k_eq_v = {"boolean", false},
      tie_word_embeddings = {"boolean", true}, sliding_window = {"count", 512},
      layer_types = {"table"}, per_layer_config = {"table"}, final_logit_softcapping = {"positive"},
      hidden_size_per_layer_input = {"integer", 256}, vocab_size_per_layer_input = {"count"},
      num_kv_shared_layers = {"integer", 0}, use_double_wide_mlp = {"boolean", false},
      rope_parameters = {"table", rope_parameters}, enable_moe_block = {"boolean", false},
      use_bidirectional_attention = {"any"},
      eos_token_id = {"ids"},
    }),
    ignored = {num_experts = true, top_k_experts = true, moe_intermediate_size = true},
    prefixes = {"model.language_model.", "model.", ""}, probe = "embed_tokens.weight",
    describe = describe,
  },
}
