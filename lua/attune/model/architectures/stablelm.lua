--- StableLM: LayerNorm, partial rotation, gated MLP; biases of q, k and v, norms per head and
--- parallel blocks by the configuration.
local common = require "attune.model.architectures.common"

local function describe(c)
  local n, heads, d = c.hidden_size, c.num_attention_heads, common.head_dim(c)
  local kv = c.num_key_value_heads or heads
  local rope = common.rope_options(c, d, {partial = 0.25})
  local function norm(name) return common.layer_norm(name, n, c.layer_norm_eps) end
  local function head_norm(at, count)
    if not c.qk_layernorm then return nil end
    local names = {}
    for h = 1, count do names[h] = ("%s.norms.%d.weight"):format(at, h - 1) end
    return {kind = "layer", n = d, eps = c.layer_norm_eps, per_head = names}
  end
  return {
    vocab = c.vocab_size, width = n, context = c.max_position_embeddings,
    embedding = {name = "embed_tokens"},
    blocks = common.blocks(c.num_hidden_layers, function(i)
      local at = ("layers.%d."):format(i)
      return {
        parallel = c.use_parallel_residual, norm1 = norm(at .. "input_layernorm"),
        norm2 = not c.use_parallel_residual and norm(at .. "post_attention_layernorm") or nil,
        attention = common.separate(at .. "self_attn.", c, {
          kv_heads = kv, head_dim = d, bias = c.use_qkv_bias,
          with = {
            rope = rope, q_norm = head_norm(at .. "self_attn.q_layernorm", heads),
            k_norm = head_norm(at .. "self_attn.k_layernorm", kv),
          },
        }),
        mlp = common.gated_mlp(at .. "mlp.", c, c.hidden_act),
      }
    end),
    norm = norm "norm",
    head = {name = "=lm_head", tied = c.tie_word_embeddings},
  }
end

return {
  stablelm = {
    fields = common.fields(common.rope.fields, {
      hidden_size = "count", intermediate_size = "count", num_attention_heads = "count",
      num_hidden_layers = "count", num_key_value_heads = {"count", 32}, vocab_size = "count",
      hidden_act = {"text", "silu"}, layer_norm_eps = {"positive", 1e-5},
      max_position_embeddings = {"count", 4096}, tie_word_embeddings = {"boolean", false},
      use_qkv_bias = {"boolean", false}, qk_layernorm = {"boolean", false},
      use_parallel_residual = {"boolean", false}, eos_token_id = {"ids"},
    }),
    ignored = {rotary_scaling_factor = true}, -- of StableLM 3B; nobody reads it
    prefixes = {"model.", ""}, probe = "embed_tokens.weight", describe = describe,
  },
}
