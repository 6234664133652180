--- DeepSeek-V2 and V3: multi-head latent attention with K and V expanded, and experts of which some
--- are shared (arXiv 2405.04434, 2412.19437).
local common = require "attune.model.architectures.common"

-- YaRN's temperature for the scores, twice: once for q and once for k.
local function score_scale(set, d)
  local mscale = set.mscale_all_dim
  if not mscale or mscale == 0 or set.kind ~= "yarn" then return d ^ -0.5 end
  if type(mscale) ~= "number" then
    error(("config.json: mscale_all_dim: expected a number, got %s"):format(tostring(mscale)), 0)
  end
  local m = set.factor <= 1 and 1 or 0.1 * mscale * math.log(set.factor) + 1
  return d ^ -0.5 * m * m
end

local function attention(c, at, set)
  local n, heads = c.hidden_size, c.num_attention_heads
  local nope, rope, value = c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim
  local d = nope + rope
  if c.qk_head_dim and c.qk_head_dim ~= d then
    error(("config.json: qk_head_dim: expected %d, the sum of qk_nope_head_dim and "
      .. "qk_rope_head_dim, got %d"):format(d, c.qk_head_dim), 0)
  end
  local pairing = c.rope_interleave and "interleaved" or "half"
  local options = common.rope.options(set, c, rope, {pairing = pairing})
  if options then options.head_dim = d end
  local bias = c.attention_bias
  local a = {
    form = "latent", heads = heads, kv_heads = heads, head_dim = d, v_head_dim = value,
    rope_dim = rope, latent = c.kv_lora_rank, rope = options, scale = score_scale(set, d),
    kv_a = {
      name = at .. "kv_a_proj_with_mqa", inputs = n, outputs = c.kv_lora_rank + rope, bias = bias,
    },
    kv_a_norm = common.rms(at .. "kv_a_layernorm", c.kv_lora_rank, 1e-6),
    kv_b = {name = at .. "kv_b_proj", inputs = c.kv_lora_rank, outputs = heads * (nope + value)},
    o = {name = at .. "o_proj", inputs = heads * value, outputs = n, bias = bias},
  }
  if c.q_lora_rank then
    a.q_a = {name = at .. "q_a_proj", inputs = n, outputs = c.q_lora_rank, bias = bias}
    a.q_a_norm = common.rms(at .. "q_a_layernorm", c.q_lora_rank, 1e-6)
    a.q = {name = at .. "q_b_proj", inputs = c.q_lora_rank, outputs = heads * d}
  else
    a.q = {name = at .. "q_proj", inputs = n, outputs = heads * d}
  end
  return a
end

local function experts(c, at, router)
  local n, list = c.hidden_size, {}
  local function mlp(name, inner, bias)
    return common.gated_mlp(name, c, c.hidden_act, bias, inner)
  end
  for e = 0, c.n_routed_experts - 1 do
    list[e + 1] = mlp(("%sexperts.%d."):format(at, e), c.moe_intermediate_size)
  end
  local shared = (c.n_shared_experts or 0) * c.moe_intermediate_size
  common.check_experts(c, "n_routed_experts")
  router.linear = {name = at .. "gate", inputs = n, outputs = c.n_routed_experts}
  router.top, router.factor = c.num_experts_per_tok, c.routed_scaling_factor
  return {
    experts = list, router = router, shared = shared > 0
      and mlp(at .. "shared_experts.", shared, c.mlp_bias),
  }
end

-- The tensors of the layers for multi-token prediction, which are not run.
local function unused_layers(c)
  local patterns = {}
  for i = 1, math.min(c.num_nextn_predict_layers, 16) do
    patterns[i] = ("^model%%.layers%%.%d%%."):format(c.num_hidden_layers + i - 1)
  end
  return patterns
end

local function describe(c, make_router)
  local n = c.hidden_size
  local sets = common.rope.sets(c)
  local function norm(name) return common.rms(name, n, c.rms_norm_eps) end
  return {
    vocab = c.vocab_size, width = n, context = c.max_position_embeddings,
    embedding = {name = "embed_tokens"},
    blocks = common.blocks(c.num_hidden_layers, function(i)
      local at = ("layers.%d."):format(i)
      local sparse = i >= c.first_k_dense_replace and i % c.moe_layer_freq == 0
      return {
        norm1 = norm(at .. "input_layernorm"), norm2 = norm(at .. "post_attention_layernorm"),
        attention = attention(c, at .. "self_attn.", sets.default),
        experts = sparse and experts(c, at .. "mlp.", make_router(at .. "mlp.")) or nil,
        mlp = not sparse and common.gated_mlp(at .. "mlp.", c, c.hidden_act, c.mlp_bias) or nil,
      }
    end),
    norm = norm "norm",
    head = {name = "=lm_head", tied = c.tie_word_embeddings},
    unused = unused_layers(c),
  }
end

local shared = common.fields(common.rope.fields, {
  hidden_size = "count", intermediate_size = "count", num_attention_heads = "count",
  num_hidden_layers = "count", vocab_size = "count", hidden_act = {"text", "silu"},
  rms_norm_eps = {"positive", 1e-6},
  tie_word_embeddings = {"boolean", false}, attention_bias = {"boolean", false},
  qk_head_dim = {"count"}, q_lora_rank = {"count", 1536, null = true},
  kv_lora_rank = {"count", 512}, qk_nope_head_dim = {"count", 128},
  qk_rope_head_dim = {"count", 64}, v_head_dim = {"count", 128},
  moe_layer_freq = {"count", 1}, rope_interleave = {"boolean", true},
  scoring_func = {"text"}, topk_method = {"text"}, eos_token_id = {"ids"},
  num_nextn_predict_layers = {"integer", 0},
})
local of_v2 = common.fields(shared, {
  max_position_embeddings = {"count", 2048}, moe_intermediate_size = {"count", 1407},
  n_routed_experts = {"count", 64}, n_shared_experts = {"integer", 2},
  num_experts_per_tok = {"count"}, first_k_dense_replace = {"integer", 0},
  routed_scaling_factor = {"number", 1.0}, norm_topk_prob = {"boolean", false},
  n_group = {"count", 1}, topk_group = {"count", 1}, mlp_bias = {"boolean", false},
})
local of_v3 = common.fields(shared, {
  max_position_embeddings = {"count", 4096}, moe_intermediate_size = {"count", 2048},
  n_routed_experts = {"count", 256}, n_shared_experts = {"integer", 1},
  num_experts_per_tok = {"count", 8}, first_k_dense_replace = {"integer", 3},
  routed_scaling_factor = {"number", 2.5}, norm_topk_prob = {"boolean", true},
  n_group = {"count", 8}, topk_group = {"count", 4},
})

local function expect(c, field, ...)
  for _, value in ipairs {...} do
    if c[field] == nil or c[field] == value then return end
  end
  error(("config.json: %s: expected %s, got '%s'"):format(
    field, table.concat({...}, " or "), tostring(c[field])), 0)
end

local function architecture(fields, make)
  return {
    fields = fields, prefixes = {"model.", ""}, probe = "embed_tokens.weight",
    ignored = {num_key_value_heads = true, head_dim = true},
    aliases = {
      num_experts = "n_routed_experts", num_local_experts = "n_routed_experts",
      num_mtp_layers = "num_nextn_predict_layers",
    },
    describe = make,
  }
end

return {
  -- Groups count as their largest score.
  deepseek_v2 = architecture(of_v2, function(c)
    expect(c, "scoring_func", "softmax")
    expect(c, "topk_method", "greedy", "group_limited_greedy")
    local limited = c.topk_method == "group_limited_greedy"
    return describe(c, function()
      return {
        scores = "softmax", groups = limited and c.n_group or 1, group_top = c.topk_group,
        group_best = 1,
      }
    end)
  end),
  -- A correction takes part in the choice and not in the weights; groups count as the sum of their
  -- two largest.
  deepseek_v3 = architecture(of_v3, function(c)
    expect(c, "scoring_func", "sigmoid")
    expect(c, "topk_method", "noaux_tc")
    return describe(c, function(at)
      return {
        scores = "sigmoid", correction_name = at .. "gate.e_score_correction_bias",
        groups = c.n_group, group_top = c.topk_group, group_best = 2,
        normalised = c.norm_topk_prob, epsilon = 1e-20,
      }
    end)
  end),
}
