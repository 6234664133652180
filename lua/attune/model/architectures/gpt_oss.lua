--- GPT-OSS: sinks, windows in every second layer, YaRN, and experts with a clamped SwiGLU.
local attune = require "attune"
local common = require "attune.model.architectures.common"
local layers = require "attune.model.network.layers"

-- Experts in two tensors for all: gate and up alternate along the last axis. A matrix is
-- [inputs, outputs].
local function make_experts(c, at)
  local n, inner, count = c.hidden_size, c.intermediate_size, c.num_local_experts
  return function(w)
    local gate_up = w:get(at .. "gate_up_proj", {count, n, 2 * inner})
    local gate_up_bias = w:get(at .. "gate_up_proj_bias", {count, 2 * inner})
    local down = w:get(at .. "down_proj", {count, inner, n})
    local down_bias = w:get(at .. "down_proj_bias", {count, n})
    local limit, alpha = c.swiglu_limit, c.swiglu_alpha
    local list = {}
    for e = 1, count do
      list[e] = function(x)
        local both = (attune.matmul(x, gate_up[e]) + gate_up_bias[e]):view(x.shape[1], inner, 2)
        local function half(i) return both:slice(3, i, i):contiguous():view(x.shape[1], inner) end
        local gate, up = layers.clamp(half(1), nil, limit), layers.clamp(half(2), -limit, limit)
        local h = (up + 1) * (gate * (gate * alpha):sigmoid())
        return attune.matmul(h, down[e]) + down_bias[e]
      end
    end
    return list
  end
end

-- What a configuration without any scaling means.
local default_scaling = {
  rope_type = "yarn", factor = 32, beta_fast = 32, beta_slow = 1, truncate = false,
  original_max_position_embeddings = 4096,
}

local function describe(c)
  local n, d, bias = c.hidden_size, c.head_dim, c.attention_bias
  if not c.rope_parameters and next(c.rope_scaling or {}) == nil then
    c.rope_scaling = default_scaling
  end
  local rope = common.rope_options(c, d, {theta = 150000})
  local sliding = common.sliding(c, function(i) return i % 2 == 1 end)
  common.check_experts(c, "num_local_experts")
  local function norm(name) return common.rms(name, n, c.rms_norm_eps) end
  return {
    vocab = c.vocab_size, width = n, context = c.max_position_embeddings,
    embedding = {name = "embed_tokens"},
    blocks = common.blocks(c.num_hidden_layers, function(i)
      local at = ("layers.%d."):format(i)
      return {
        norm1 = norm(at .. "input_layernorm"), norm2 = norm(at .. "post_attention_layernorm"),
        attention = common.separate(at .. "self_attn.", c, {
          kv_heads = c.num_key_value_heads, head_dim = d, bias = bias, o_bias = bias,
          with = {
            rope = rope, window = sliding[i + 1] and c.sliding_window or nil,
            sinks = at .. "self_attn.sinks",
          },
        }),
        experts = {
          make = make_experts(c, at .. "mlp.experts."),
          router = {
            linear = {
              name = at .. "mlp.router", inputs = n, outputs = c.num_local_experts, bias = true,
            },
            scores = "logits", top = c.num_experts_per_tok,
          },
        },
      }
    end),
    norm = norm "norm",
    head = {name = "=lm_head", tied = c.tie_word_embeddings},
  }
end

return {
  gpt_oss = {
    fields = common.fields(common.rope.fields, {
      hidden_size = "count", intermediate_size = "count", num_attention_heads = "count",
      num_hidden_layers = "count", num_key_value_heads = {"count", 8}, vocab_size = "count",
      head_dim = {"count", 64}, rms_norm_eps = {"positive", 1e-5},
      attention_bias = {"boolean", true},
      max_position_embeddings = {"count", 131072}, tie_word_embeddings = {"boolean", false},
      sliding_window = {"count", 128}, layer_types = {"table"}, swiglu_limit = {"number", 7.0},
      swiglu_alpha = {"number", 1.702}, num_local_experts = {"count", 128},
      num_experts_per_tok = {"count", 4}, eos_token_id = {"ids"},
    }),
    aliases = {experts_per_token = "num_experts_per_tok", num_experts = "num_local_experts"},
    ignored = {hidden_act = true, initial_context_length = true}, joins_experts = true,
    prefixes = {"model.", ""}, probe = "embed_tokens.weight", describe = describe,
  },
}
