--- Cohere (Command R), Cohere 2 (Command R7B), and PaLM: parallel blocks with one LayerNorm without
--- bias, interleaved RoPE, tied embeddings, logits times logit_scale. PaLM (Chowdhery et al. 2022,
--- section 2) is the form with one kv head whose embedding is scaled by width^(-1/2) at the end.
local common = require "attune.model.architectures.common"

local shared = common.fields(common.rope.fields, {
  hidden_size = "count", num_attention_heads = "count", num_hidden_layers = "count",
  vocab_size = "count", intermediate_size = "count", num_key_value_heads = {"count"},
  head_dim = {"count"}, hidden_act = {"text", "silu"}, layer_norm_eps = {"positive", 1e-5},
  max_position_embeddings = {"count", 8192}, tie_word_embeddings = {"boolean", true},
  attention_bias = {"boolean", false}, logit_scale = {"number", 0.0625}, eos_token_id = {"ids"},
})

local function describe(c, variant)
  local n, heads, d = c.hidden_size, c.num_attention_heads, common.head_dim(c)
  local rope = common.rope_options(c, d, {pairing = "interleaved", theta = variant.theta})
  local function norm(name) return common.layer_norm(name, n, c.layer_norm_eps, false) end
  local function head_norm(name, count)
    return c.use_qk_norm and {
      kind = "layer", name = name, n = d, eps = c.layer_norm_eps, per_head = count,
    } or nil
  end
  local kv = c.num_key_value_heads or heads
  return {
    vocab = c.vocab_size, width = n, context = c.max_position_embeddings,
    embedding = {name = "embed_tokens"},
    blocks = common.blocks(c.num_hidden_layers, function(i)
      local at = ("layers.%d."):format(i)
      local window = variant.window and variant.window(i + 1)
      return {
        parallel = true,
        norm1 = norm(at .. "input_layernorm"),
        attention = common.separate(at .. "self_attn.", c, {
          kv_heads = kv, head_dim = d, bias = c.attention_bias, o_bias = c.attention_bias,
          with = {
            window = window or nil, rope = (window or not variant.window) and rope or nil,
            q_norm = head_norm(at .. "self_attn.q_norm", heads),
            k_norm = head_norm(at .. "self_attn.k_norm", kv),
          },
        }),
        mlp = common.gated_mlp(at .. "mlp.", c, c.hidden_act),
      }
    end),
    norm = norm "norm",
    head = {name = "=lm_head", tied = c.tie_word_embeddings, scale = c.logit_scale},
  }
end

local function architecture(fields, ignored, of)
  return {
    fields = common.fields(shared, fields), ignored = ignored, prefixes = {"model.", ""},
    probe = "embed_tokens.weight", describe = of,
  }
end

return {
  cohere = architecture({use_qk_norm = {"boolean", false}}, {model_max_length = true},
    function(c) return describe(c, {theta = 500000}) end),
  -- Layers without a window have no rotation.
  cohere2 = architecture(
    {
      sliding_window = {"count", 4096}, sliding_window_pattern = {"count", 4},
      layer_types = {"table"},
    },
    {
      layer_switch = true, order_of_interleaved_layers = true, position_embedding_type = true,
      rotary_pct = true, use_embedding_sharing = true, use_gated_activation = true,
      use_parallel_block = true, use_parallel_embedding = true, model_max_length = true,
      _sliding_window_pattern = true, -- transformers 4 writes it beside layer_types
    },
    function(c)
      local sliding = common.sliding(c, function(i) return i % c.sliding_window_pattern ~= 0 end)
      return describe(c, {window = function(i) return sliding[i] and c.sliding_window end})
    end
  ),
  palm = architecture({logit_scale = {"number"}}, {}, function(c)
    c.num_key_value_heads = c.num_key_value_heads or 1
    c.logit_scale = c.logit_scale or c.hidden_size ^ -0.5
    return describe(c, {})
  end),
}
