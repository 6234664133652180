--- Falcon: the forms of 7B (multi-query, one norm, parallel), 40B and 180B (grouped, two norms,
--- parallel) and RW (ALiBi, serial). RefinedWeb and RefinedWebModel are what the first files of 40B
--- and of the others call themselves; RefinedWeb has the new architecture and no field for it.
local attune = require "attune"
local common = require "attune.model.architectures.common"

local fields = common.fields(common.rope.fields, {
  hidden_size = "count", num_attention_heads = "count", num_hidden_layers = "count",
  vocab_size = "count", layer_norm_epsilon = {"positive", 1e-5}, alibi = {"boolean", false},
  bias = {"boolean", false}, multi_query = {"boolean", true},
  new_decoder_architecture = {"boolean", false}, parallel_attn = {"boolean", true},
  num_kv_heads = {"count"}, num_ln_in_parallel_attn = {"integer"},
  ffn_hidden_size = {"count"}, activation = {"text", "gelu"},
  max_position_embeddings = {"count", 2048}, tie_word_embeddings = {"boolean", true},
  eos_token_id = {"ids"},
})

-- Falcon rounds slopes, numbers of keys and products to bf16, and multiplies the bias by the scale
-- of the scores too. The bias is that of the key alone, which differs by a constant per row from
-- that of the distance. transformers 5 adds it twice, before the scale and in the mask, and so does
-- this.
-- The bias is a table, which grows with the text: the program of a score cannot round to bf16.
local function alibi_of_length(heads, head_dim)
  local slopes = attune.position("alibi", {heads = heads}).slopes:to "bf16":to "f32"
  local tokens, score = 1024, nil
  return function(count)
    if score and count <= tokens then return score end
    tokens = math.max(count, 2 * tokens)
    local keys = attune.arange(tokens):to "bf16":to "f32":view(1, tokens)
    local bias = (slopes:view(heads, 1) * keys):to "bf16":to "f32" * (2 * head_dim ^ -0.5)
    score = function(s, at) return s + bias[at.h][at.j] end
    return score
  end
end

local function describe(c)
  local heads, n = c.num_attention_heads, c.hidden_size
  local d = common.head_dim {hidden_size = n, num_attention_heads = heads}
  local grouped = c.new_decoder_architecture
  local kv = grouped and (c.num_kv_heads or heads) or c.multi_query and 1 or heads
  local two_norms = grouped and (c.num_ln_in_parallel_attn or 2) == 2
  local rope = not c.alibi and common.rope_options(c, d) or nil
  local score_of_length = c.alibi and alibi_of_length(heads, d) or nil
  local function norm(name) return common.layer_norm(name, n, c.layer_norm_epsilon) end
  local parallel = grouped or c.parallel_attn
  return {
    vocab = c.vocab_size, width = n, context = c.max_position_embeddings,
    embedding = {name = "word_embeddings"},
    blocks = common.blocks(c.num_hidden_layers, function(i)
      local at = ("h.%d."):format(i)
      return {
        parallel = parallel,
        norm1 = norm(at .. (two_norms and "ln_attn" or "input_layernorm")),
        norm2 = two_norms and norm(at .. "ln_mlp")
          or not parallel and norm(at .. "post_attention_layernorm") or nil,
        attention = {
          -- Without the new architecture, one matrix holds all of q, then k and v of one head.
          form = not grouped and c.multi_query and "joined" or "grouped",
          heads = heads, kv_heads = kv, head_dim = d, rope = rope,
          score_of_length = score_of_length,
          qkv = {
            name = at .. "self_attention.query_key_value", inputs = n,
            outputs = (heads + 2 * kv) * d, bias = c.bias,
          },
          o = {name = at .. "self_attention.dense", inputs = heads * d, outputs = n, bias = c.bias},
        },
        mlp = common.plain_mlp(
          {hidden_size = n, intermediate_size = c.ffn_hidden_size}, c.activation,
          at .. "mlp.dense_h_to_4h", at .. "mlp.dense_4h_to_h", c.bias
        ),
      }
    end),
    norm = norm "ln_f",
    head = {name = "=lm_head", tied = c.tie_word_embeddings},
  }
end

local function falcon(its_fields)
  return {
    fields = its_fields, aliases = {n_layer = "num_hidden_layers", n_head = "num_attention_heads",
      n_head_kv = "num_kv_heads", n_embed = "hidden_size"},
    prefixes = {"transformer.", ""}, probe = "word_embeddings.weight", describe = describe,
  }
end

return {
  falcon = falcon(fields),
  RefinedWebModel = falcon(fields),
  RefinedWeb = falcon(common.fields(fields, {new_decoder_architecture = {"boolean", true}})),
}
