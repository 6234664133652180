--- MPT and BLOOM: ALiBi (Press et al. 2022) in place of positions in the embeddings; MPT also with
--- learned positions, which MosaicML's own code has and transformers does not.
local attune = require "attune"
local common = require "attune.model.architectures.common"
local published_config = require "attune.model.network.published_config"
local is_empty, is_ignored = published_config.is_empty, published_config.is_ignored

local function refuse(condition, message)
  if condition then error("config.json: " .. message, 0) end
end

-- The fields of attn_config; `false` has no effect at inference.
local attn_fields = {
  alibi = true, alibi_bias_max = true, attn_type = true, clip_qkv = true, prefix_lm = true,
  qk_ln = true, softmax_scale = true, attn_impl = false, attn_pdrop = false,
  attn_uses_sequence_id = false, model_type = false, tie_word_embeddings = false,
}

local function mpt(c)
  local a = c.attn_config
  for name, value in pairs(a) do
    local known = attn_fields[name] ~= nil or is_ignored(name)
    if not known and not is_empty(value) then
      c.report(("config.json: unknown field '%s' of attn_config"):format(tostring(name)))
    end
  end
  local scale, clip = a.softmax_scale, a.clip_qkv
  refuse(scale ~= nil and not (type(scale) == "number" and scale > 0),
    "attn_config.softmax_scale: expected a number above 0, got " .. tostring(scale))
  if clip == false or clip == 0 then clip = nil end
  refuse(clip ~= nil and not (type(clip) == "number" and clip > 0),
    "attn_config.clip_qkv: expected a number above 0, got " .. tostring(clip))
  local n, heads = c.hidden_size, c.num_attention_heads
  local d = common.head_dim {hidden_size = n, num_attention_heads = heads}
  refuse(not c.no_bias, "no_bias: expected true, got false")
  refuse(a.qk_ln, "attn_config.qk_ln: expected false, got true")
  refuse(a.prefix_lm, "attn_config.prefix_lm: expected false, got true")
  refuse(a.attn_type and a.attn_type ~= "multihead_attention",
    "attn_config.attn_type: expected multihead_attention")
  refuse(c.norm_type ~= "low_precision_layernorm" and c.norm_type ~= "layernorm",
    ("norm_type: expected low_precision_layernorm or layernorm, got '%s'"):format(c.norm_type))
  refuse(c.logit_scale, "logit_scale: expected null")
  local score, positions
  if a.alibi ~= false then
    score = attune.position("alibi", {heads = heads, max_bias = a.alibi_bias_max or 8}).score
  elseif c.learned_pos_emb then
    positions = {name = "wpe", rows = c.max_position_embeddings}
  end
  local function norm(name) return common.layer_norm(name, n, c.layer_norm_epsilon, false) end
  return {
    vocab = c.vocab_size, width = n, context = c.max_position_embeddings,
    limit = positions and positions.rows, embedding = {name = "wte", positions = positions},
    blocks = common.blocks(c.num_hidden_layers, function(i)
      local at = ("blocks.%d."):format(i)
      return {
        norm1 = norm(at .. "norm_1"), norm2 = norm(at .. "norm_2"),
        attention = {
          form = "joined", heads = heads, kv_heads = heads, head_dim = d, score = score,
          scale = scale, clip = clip,
          qkv = {name = at .. "attn.Wqkv", inputs = n, outputs = 3 * n},
          o = {name = at .. "attn.out_proj", inputs = n, outputs = n},
        },
        mlp = common.plain_mlp(
          {hidden_size = n, intermediate_size = c.expansion_ratio * n}, "gelu",
          at .. "ffn.up_proj", at .. "ffn.down_proj"
        ),
      }
    end),
    norm = norm "norm_f",
    head = {name = "=lm_head", tied = c.tie_word_embeddings},
  }
end

local function bloom(c)
  local n, heads, d = c.hidden_size, c.num_attention_heads, common.head_dim(c)
  -- transformers leaves biases out there.
  refuse(c.slow_but_exact and c.pretraining_tp > 1,
    "slow_but_exact: expected false beside pretraining_tp above 1, got true")
  local score = attune.position("alibi", {heads = heads}).score
  local function norm(name) return common.layer_norm(name, n, c.layer_norm_epsilon) end
  return {
    vocab = c.vocab_size, width = n, context = c.seq_length or 2048,
    embedding = {name = "word_embeddings", norm = norm "word_embeddings_layernorm"},
    blocks = common.blocks(c.num_hidden_layers, function(i)
      local at = ("h.%d."):format(i)
      return {
        norm1 = norm(at .. "input_layernorm"), norm2 = norm(at .. "post_attention_layernorm"),
        adds_to_normed = c.apply_residual_connection_post_layernorm,
        attention = {
          form = "grouped", heads = heads, kv_heads = heads, head_dim = d, score = score,
          qkv = {
            name = at .. "self_attention.query_key_value", inputs = n, outputs = 3 * n, bias = true,
          },
          o = {name = at .. "self_attention.dense", inputs = n, outputs = n, bias = true},
        },
        mlp = common.plain_mlp({hidden_size = n}, "gelu_new", at .. "mlp.dense_h_to_4h",
          at .. "mlp.dense_4h_to_h", true),
      }
    end),
    norm = norm "ln_f",
    head = {name = "=lm_head", tied = c.tie_word_embeddings},
  }
end

return {
  mpt = {
    fields = {
      hidden_size = "count", num_attention_heads = "count", num_hidden_layers = "count",
      vocab_size = "count", max_position_embeddings = {"count", 2048},
      expansion_ratio = {"count", 4}, layer_norm_epsilon = {"positive", 1e-5},
      no_bias = {"boolean", true}, attn_config = {"table", {}}, logit_scale = {"any"},
      tie_word_embeddings = {"boolean", true}, eos_token_id = {"ids"},
      learned_pos_emb = {"boolean", true}, norm_type = {"text", "low_precision_layernorm"},
    },
    aliases = {
      d_model = "hidden_size", n_heads = "num_attention_heads", n_layers = "num_hidden_layers",
      max_seq_len = "max_position_embeddings",
    },
    ignored = {
      init_device = true, embedding_fraction = true, verbose = true, init_config = true,
    },
    prefixes = {"transformer.", ""}, probe = "wte.weight", describe = mpt,
  },
  bloom = {
    fields = {
      hidden_size = "count", num_attention_heads = "count", num_hidden_layers = "count",
      vocab_size = "count", seq_length = {"count"}, layer_norm_epsilon = {"positive", 1e-5},
      apply_residual_connection_post_layernorm = {"boolean", false},
      slow_but_exact = {"boolean", false}, pretraining_tp = {"integer", 1},
      tie_word_embeddings = {"boolean", true}, eos_token_id = {"ids"},
    },
    aliases = {
      n_embed = "hidden_size", n_layer = "num_hidden_layers", n_head = "num_attention_heads",
    },
    ignored = {
      offset_alibi = true, skip_bias_add = true, skip_bias_add_qkv = true,
      attention_softmax_in_fp32 = true, bias_dropout_fusion = true,
      masked_softmax_fusion = true, unk_token_id = true,
    },
    prefixes = {"transformer.", ""}, probe = "word_embeddings.weight", describe = bloom,
  },
}
