--- Gemma 1 to 3: embeddings times the square root of the width, RMSNorm with weights less one,
--- GeGLU; Gemma 2 and 3 have norms after their parts too, softcaps or norms of q and k, and windows
--- in some layers.
local common = require "attune.model.architectures.common"
local layers = require "attune.model.network.layers"

local shared = common.fields(common.rope.fields, {
  hidden_size = "count", intermediate_size = "count", num_attention_heads = "count",
  num_hidden_layers = "count", num_key_value_heads = {"count"}, vocab_size = "count",
  head_dim = {"count", 256}, hidden_activation = {"text"}, hidden_act = {"text"},
  rms_norm_eps = {"positive", 1e-6}, max_position_embeddings = {"count", 8192},
  attention_bias = {"boolean", false}, tie_word_embeddings = {"boolean", true},
  eos_token_id = {"ids"},
})

-- v: activation, four_norms, window(i), rope(i, d), qk_norm, softcap, final_softcap, scale,
-- bidirectional
local function describe(c, v)
  local n, d, eps = c.hidden_size, c.head_dim, c.rms_norm_eps
  local activation = layers.activation(v.activation or c.hidden_activation or "gelu_pytorch_tanh")
  return {
    vocab = c.vocab_size, width = n, context = c.max_position_embeddings,
    bidirectional = v.bidirectional, embedding = {name = "embed_tokens", scale = n ^ 0.5},
    blocks = common.blocks(c.num_hidden_layers, function(i)
      local at = ("layers.%d."):format(i)
      local function norm(name, size) return common.rms(at .. name, size or n, eps, true) end
      local b = {
        norm1 = norm "input_layernorm",
        attention = common.separate(at .. "self_attn.", c, {
          kv_heads = c.num_key_value_heads or c.num_attention_heads, head_dim = d,
          bias = c.attention_bias, o_bias = c.attention_bias,
          with = {
            rope = v.rope(i + 1, d), window = v.window and v.window(i + 1) or nil,
            softcap = v.softcap, scale = v.scale, causal = not v.bidirectional,
            q_norm = v.qk_norm and norm("self_attn.q_norm", d) or nil,
            k_norm = v.qk_norm and norm("self_attn.k_norm", d) or nil,
          },
        }),
        mlp = common.gated_mlp(at .. "mlp.", c, activation),
      }
      if v.four_norms then
        b.after1, b.norm2 = norm "post_attention_layernorm", norm "pre_feedforward_layernorm"
        b.after2 = norm "post_feedforward_layernorm"
      else
        b.norm2 = norm "post_attention_layernorm"
      end
      return b
    end),
    norm = common.rms("norm", n, eps, true),
    head = {name = "=lm_head", tied = c.tie_word_embeddings, softcap = v.final_softcap},
  }
end

local function architecture(fields, of, ignored)
  return {
    fields = common.fields(shared, fields), prefixes = {"model.", ""}, ignored = ignored,
    probe = "embed_tokens.weight", describe = of,
  }
end

local function one_rope(c)
  return function(_, d) return common.rope_options(c, d) end
end

local function refuse_bidirectional(c)
  if c.use_bidirectional_attention then
    error("config.json: use_bidirectional_attention: expected false or null", 0)
  end
end

-- hidden_act of Gemma 1 says gelu where the model was trained with the approximation.
local function activation_of_gemma1(c)
  local act, activation = c.hidden_act, c.hidden_activation
  if act == "gelu" then act = nil end
  if act and activation and act ~= activation then
    error(("config.json: hidden_act is '%s' and hidden_activation is '%s'; expected one value")
      :format(act, activation), 0)
  end
  return act or activation
end

return {
  gemma = architecture({num_key_value_heads = {"count", 16}}, function(c)
    return describe(c, {rope = one_rope(c), activation = activation_of_gemma1(c)})
  end),
  gemma2 = architecture(
    {
      attn_logit_softcapping = {"positive", 50.0, null = true},
      num_key_value_heads = {"count", 4},
      final_logit_softcapping = {"positive", 30.0, null = true},
      query_pre_attn_scalar = {"positive", 256}, sliding_window = {"count", 4096},
      layer_types = {"table"}, use_bidirectional_attention = {"any"},
    },
    function(c)
      refuse_bidirectional(c)
      local sliding = common.sliding(c, function(i) return i % 2 == 1 end)
      return describe(c, {
        four_norms = true, rope = one_rope(c), scale = c.query_pre_attn_scalar ^ -0.5,
        softcap = c.attn_logit_softcapping, final_softcap = c.final_logit_softcapping,
        window = function(i) return sliding[i] and c.sliding_window or nil end,
      })
    end
  ),
  -- Layers with a window have a rotation of their own, without scaling.
  gemma3_text = architecture(
    {
      num_key_value_heads = {"count", 4},
      final_logit_softcapping = {"positive"},
      query_pre_attn_scalar = {"positive", 256}, sliding_window = {"count", 4096},
      sliding_window_pattern = {"count", 6}, layer_types = {"table"},
      rope_local_base_freq = {"positive"}, max_position_embeddings = {"count", 131072},
      use_bidirectional_attention = {"boolean", false},
    },
    function(c)
      local sliding = common.sliding(c, function(i) return i % c.sliding_window_pattern ~= 0 end)
      -- Half of the window is before a token and half after it.
      local window = c.sliding_window
      if c.use_bidirectional_attention then window = window // 2 + 1 end
      local sets = common.rope.sets(c)
      local of_window, local_theta = sets.sliding_attention, c.rope_local_base_freq
      if of_window and of_window.theta and local_theta and of_window.theta ~= local_theta then
        error("config.json: rope_local_base_freq and rope_parameters.sliding_attention.rope_theta "
          .. "differ; expected one value", 0)
      end
      local function rope(i, d)
        local set = sets.full_attention or sets.default
        if not sliding[i] then return common.rope.options(set, c, d, {theta = 1000000}) end
        set = of_window or {kind = "default"}
        return common.rope.options(set, c, d, {theta = local_theta or 10000})
      end
      return describe(c, {
        four_norms = true, qk_norm = true, rope = rope, scale = c.query_pre_attn_scalar ^ -0.5,
        final_softcap = c.final_logit_softcapping,
        window = function(i) return sliding[i] and window or nil end,
        bidirectional = c.use_bidirectional_attention,
      })
    end,
    -- The published code does not cap the scores, whatever attn_logit_softcapping says.
    {cache_implementation = true, _sliding_window_pattern = true, attn_logit_softcapping = true}
  ),
}
