--- LLaMA and the models that differ from it in a few places: Mistral, Qwen 2 and 3, SmolLM3, OLMo 2
--- and 3, Mixtral.
local common = require "attune.model.architectures.common"

local shared = common.fields(common.rope.fields, {
  hidden_size = "count", intermediate_size = "count", num_attention_heads = "count",
  num_hidden_layers = "count", num_key_value_heads = {"count"}, vocab_size = "count",
  max_position_embeddings = {"count", 2048}, hidden_act = {"text", "silu"},
  rms_norm_eps = {"positive", 1e-6}, tie_word_embeddings = {"boolean", false},
  head_dim = {"count"}, attention_bias = {"boolean", false}, eos_token_id = {"ids"},
})

-- A GGUF file has pairs of neighbours, and LLaMA 3's scaling as a factor per pair.
local function rope_of(c, d, theta)
  local options = common.rope_options(c, d, {pairing = c.pairing, theta = theta})
  if c.rope_factors then
    options.inv_freq, options.scaling = {}, nil
    if #c.rope_factors ~= options.dims // 2 then
      error(("rope_freqs.weight: expected %d numbers, got %d"):format(
        options.dims // 2, #c.rope_factors), 0)
    end
    for i, factor in ipairs(c.rope_factors) do
      options.inv_freq[i] = options.base ^ (-2 * (i - 1) / options.dims) / factor
    end
  end
  return options
end

-- The blocks' differences: v.bias, v.o_bias, v.window(i), v.rope(i), v.qk_norm = "head" | "all",
-- v.post_norms (OLMo 2: norms after the parts in place of before them), v.experts(at), v.theta.
local function describe(c, v)
  local n, heads, d = c.hidden_size, c.num_attention_heads, common.head_dim(c)
  local kv = c.num_key_value_heads or heads
  local eps = c.rms_norm_eps
  local rope = not v.rope and rope_of(c, d, v.theta) or nil
  local function block(i)
    local at = ("layers.%d."):format(i)
    local all = v.qk_norm == "all"
    local function qk_norm(name, count)
      if not v.qk_norm then return nil end
      return common.rms(at .. "self_attn." .. name, all and count * d or d, eps)
    end
    local function norm(name) return common.rms(at .. name, n, eps) end
    local b = {
      attention = common.separate(at .. "self_attn.", c, {
        kv_heads = kv, head_dim = d, bias = v.bias, o_bias = v.o_bias,
        with = {
          window = v.window and v.window(i + 1) or nil, flat_norm = all,
          q_norm = qk_norm("q_norm", heads), k_norm = qk_norm("k_norm", kv),
        },
      }),
    }
    if v.rope then b.attention.rope = v.rope(i + 1, d) else b.attention.rope = rope end
    if v.post_norms then
      b.after1, b.after2 = norm "post_attention_layernorm", norm "post_feedforward_layernorm"
    else
      b.norm1, b.norm2 = norm "input_layernorm", norm "post_attention_layernorm"
    end
    if v.experts then
      b.experts = v.experts(at)
    else
      b.mlp = common.gated_mlp(at .. "mlp.", c, c.hidden_act, v.mlp_bias)
    end
    return b
  end
  return {
    vocab = c.vocab_size, width = n, context = c.max_position_embeddings,
    embedding = {name = "embed_tokens"}, blocks = common.blocks(c.num_hidden_layers, block),
    norm = common.rms("norm", n, eps), head = {name = "=lm_head", tied = c.tie_word_embeddings},
  }
end

local function architecture(fields, ignored, of, aliases)
  return {
    fields = common.fields(shared, fields), ignored = ignored, aliases = aliases,
    prefixes = {"model.", ""}, probe = "embed_tokens.weight",
    unused = {"^rope_freqs%.weight$"}, describe = of,
  }
end

-- A window from layer max_window_layers on, where use_sliding_window says so.
local function late_window(c)
  local sliding = common.sliding(c, function(i)
    return c.use_sliding_window and c.sliding_window and i > c.max_window_layers
  end)
  return function(i)
    return c.use_sliding_window and sliding[i] and c.sliding_window or nil
  end
end

local windows = {
  sliding_window = {"count", 4096, null = true}, use_sliding_window = {"boolean", false},
  max_window_layers = {"integer", 28}, layer_types = {"table"},
}

local qwen = common.fields(windows, {
  num_key_value_heads = {"count", 32, null = true}, max_position_embeddings = {"count", 32768},
})

local function mixtral_experts(c)
  common.check_experts(c, "num_local_experts")
  return function(at)
    local list = {}
    for e = 0, c.num_local_experts - 1 do
      local name = ("%sblock_sparse_moe.experts.%d."):format(at, e)
      list[e + 1] = {
        activation = c.hidden_act,
        gate = {name = name .. "w1", inputs = c.hidden_size, outputs = c.intermediate_size},
        up = {name = name .. "w3", inputs = c.hidden_size, outputs = c.intermediate_size},
        down = {name = name .. "w2", inputs = c.intermediate_size, outputs = c.hidden_size},
      }
    end
    return {
      experts = list,
      router = {
        linear = {
          name = at .. "block_sparse_moe.gate", inputs = c.hidden_size,
          outputs = c.num_local_experts,
        },
        scores = "softmax", top = c.num_experts_per_tok, normalised = true,
      },
    }
  end
end

-- transformers calls the one with layer_types Ministral, also where the file says Mistral.
local mistral = architecture({
  num_key_value_heads = {"count", 8, null = true}, sliding_window = {"count", 4096, null = true},
  layer_types = {"table"}, max_position_embeddings = {"count", 131072},
}, {}, function(c)
  local sliding = common.sliding(c, function() return true end)
  return describe(c, {window = function(i) return sliding[i] and c.sliding_window or nil end})
end)

return {
  llama = architecture({mlp_bias = {"boolean", false}}, {}, function(c)
    return describe(c, {bias = c.attention_bias, o_bias = c.attention_bias, mlp_bias = c.mlp_bias})
  end),
  mistral = mistral, ministral = mistral,
  qwen2 = architecture(qwen, {}, function(c)
    return describe(c, {bias = true, window = late_window(c)})
  end),
  qwen3 = architecture(qwen, {}, function(c)
    c.head_dim = c.head_dim or 128
    return describe(c, {
      bias = c.attention_bias, o_bias = c.attention_bias, qk_norm = "head", window = late_window(c),
    })
  end),
  -- no_rope_layers says 1 for the layers that rotate.
  smollm3 = architecture(
    common.fields(windows, {
      mlp_bias = {"boolean", false}, no_rope_layers = {"table"},
      no_rope_layer_interval = {"count", 4}, tie_word_embeddings = {"boolean", true},
      sliding_window = {"count"}, num_key_value_heads = {"count", 4, null = true},
      max_position_embeddings = {"count", 32768},
    }), {},
    function(c)
      if c.no_rope_layers and #c.no_rope_layers < c.num_hidden_layers then
        local form = "config.json: no_rope_layers: expected a number for each of %d layers, got %d"
        error(form:format(c.num_hidden_layers, #c.no_rope_layers), 0)
      end
      local function rotates(i)
        if c.no_rope_layers then return c.no_rope_layers[i] ~= 0 end
        return i % c.no_rope_layer_interval ~= 0
      end
      local function rope(i, d)
        return rotates(i) and common.rope_options(c, d, {theta = 2000000}) or nil
      end
      -- Where the file does not say, the layers that do not rotate have the window.
      local sliding = common.sliding(c, function(i) return not rotates(i) end)
      return describe(c, {
        bias = c.attention_bias, o_bias = c.attention_bias, mlp_bias = c.mlp_bias, rope = rope,
        window = function(i)
          return c.use_sliding_window and sliding[i] and c.sliding_window or nil
        end,
      })
    end
  ),
  olmo2 = architecture({rms_norm_eps = {"positive", 1e-5}}, {}, function(c)
    return describe(c, {
      bias = c.attention_bias, o_bias = c.attention_bias, qk_norm = "all", post_norms = true,
    })
  end),
  -- Layers with a window have a rotation of their own, or that of the others without scaling.
  olmo3 = architecture(
    {
      sliding_window = {"count", 4096}, layer_types = {"table"}, rms_norm_eps = {"positive", 1e-5},
    }, {},
    function(c)
      local sliding = common.sliding(c, function(i) return i % 4 ~= 0 end)
      local sets = common.rope.sets(c)
      local of_window = sets.sliding_attention
        or {kind = "default", theta = sets.default and sets.default.theta}
      local function rope(i, d)
        local set = sliding[i] and of_window or sets.full_attention or sets.default
        return common.rope.options(set or {kind = "default"}, c, d, {theta = 500000})
      end
      return describe(c, {
        bias = c.attention_bias, o_bias = c.attention_bias, qk_norm = "all", post_norms = true,
        rope = rope, window = function(i) return sliding[i] and c.sliding_window or nil end,
      })
    end),
  mixtral = architecture(
    {
      num_local_experts = {"count", 8}, num_experts_per_tok = {"count", 2},
      sliding_window = {"count"}, rms_norm_eps = {"positive", 1e-5},
      num_key_value_heads = {"count", 8, null = true},
      max_position_embeddings = {"count", 131072},
    }, {},
    function(c)
      return describe(c, {
        theta = 1000000,
        experts = mixtral_experts(c), window = function() return c.sliding_window end,
      })
    end, {num_experts = "num_local_experts"}
  ),
}
