--- Phi-3: LLaMA with q, k and v in one matrix, gate and up in another, and LongRoPE.
local common = require "attune.model.architectures.common"

-- The first files say su or yarn where they mean longrope.
local function renamed(set)
  if not set or (set.rope_type or set.type) ~= "yarn" then return set end
  local copy = {}
  for name, value in pairs(set) do copy[name] = value end
  copy.rope_type, copy.type = "longrope", nil
  return copy
end

local function describe(c)
  c.rope_scaling, c.rope_parameters = renamed(c.rope_scaling), renamed(c.rope_parameters)
  local n, heads, d = c.hidden_size, c.num_attention_heads, common.head_dim(c)
  local kv = c.num_key_value_heads or heads
  local rope = common.rope_options(c, d, {partial = 1, rounds_up = true})
  local function norm(name) return common.rms(name, n, c.rms_norm_eps) end
  local bias = c.attention_bias
  return {
    vocab = c.vocab_size, width = n, context = c.max_position_embeddings,
    embedding = {name = "embed_tokens"},
    blocks = common.blocks(c.num_hidden_layers, function(i)
      local at = ("layers.%d."):format(i)
      return {
        norm1 = norm(at .. "input_layernorm"), norm2 = norm(at .. "post_attention_layernorm"),
        attention = {
          form = "joined", heads = heads, kv_heads = kv, head_dim = d, rope = rope,
          window = c.sliding_window,
          qkv = {
            name = at .. "self_attn.qkv_proj", inputs = n, outputs = (heads + 2 * kv) * d,
            bias = bias,
          },
          o = {name = at .. "self_attn.o_proj", inputs = heads * d, outputs = n, bias = bias},
        },
        mlp = {
          activation = c.hidden_act,
          gate_up = {
            name = at .. "mlp.gate_up_proj", inputs = n, outputs = 2 * c.intermediate_size,
          },
          down = {name = at .. "mlp.down_proj", inputs = c.intermediate_size, outputs = n},
        },
      }
    end),
    norm = norm "norm",
    head = {name = "=lm_head", tied = c.tie_word_embeddings},
  }
end

return {
  phi3 = {
    fields = common.fields(common.rope.fields, {
      hidden_size = "count", intermediate_size = "count", num_attention_heads = "count",
      num_hidden_layers = "count", num_key_value_heads = {"count"}, vocab_size = "count",
      hidden_act = {"text", "silu"}, rms_norm_eps = {"positive", 1e-5}, head_dim = {"count"},
      max_position_embeddings = {"count", 4096}, tie_word_embeddings = {"boolean", false},
      original_max_position_embeddings = {"count", 4096}, sliding_window = {"count"},
      attention_bias = {"boolean", false}, eos_token_id = {"ids"},
    }),
    ignored = {full_attn_mod = true, interpolate_factor = true}, -- of Phi-4-mini; nobody reads them
    prefixes = {"model.", ""}, probe = "embed_tokens.weight", describe = describe,
  },
}
