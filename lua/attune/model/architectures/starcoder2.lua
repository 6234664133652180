--- StarCoder2: LayerNorm, grouped kv heads, RoPE, a window, biases.
local common = require "attune.model.architectures.common"

local function describe(c)
  local n, d = c.hidden_size, common.head_dim(c)
  local rope = common.rope_options(c, d)
  local function norm(name)
    return common.layer_norm(name, n, c.norm_epsilon)
  end
  if c.norm_type ~= "layer_norm" or c.mlp_type ~= "default" then
    error("config.json: expected norm_type layer_norm and mlp_type default", 0)
  end
  return {
    vocab = c.vocab_size, width = n, context = c.max_position_embeddings,
    embedding = {name = "embed_tokens"},
    blocks = common.blocks(c.num_hidden_layers, function(i)
      local at = ("layers.%d."):format(i)
      return {
        norm1 = norm(at .. "input_layernorm"), norm2 = norm(at .. "post_attention_layernorm"),
        attention = common.separate(at .. "self_attn.", c, {
          kv_heads = c.num_key_value_heads, head_dim = d, bias = c.use_bias, o_bias = c.use_bias,
          with = {rope = rope, window = c.sliding_window},
        }),
        mlp = common.plain_mlp(c, c.hidden_act, at .. "mlp.c_fc", at .. "mlp.c_proj", c.use_bias),
      }
    end),
    norm = norm "norm",
    head = {name = "=lm_head", tied = c.tie_word_embeddings},
  }
end

return {
  starcoder2 = {
    fields = common.fields(common.rope.fields, {
      hidden_size = "count", num_attention_heads = "count", num_hidden_layers = "count",
      num_key_value_heads = {"count", 2}, intermediate_size = "count", vocab_size = "count",
      max_position_embeddings = {"count", 4096}, hidden_act = {"text", "gelu_pytorch_tanh"},
      norm_epsilon = {"positive", 1e-5}, sliding_window = {"count"}, use_bias = {"boolean", true},
      tie_word_embeddings = {"boolean", true}, head_dim = {"count"}, eos_token_id = {"ids"},
      norm_type = {"text", "layer_norm"}, mlp_type = {"text", "default"},
    }),
    prefixes = {"model.", ""}, probe = "embed_tokens.weight", describe = describe,
  },
}
