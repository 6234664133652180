--- T5 (Raffel et al. 2020): an encoder and a decoder with relative biases, RMSNorm, no scale of the
--- scores.
local common = require "attune.model.architectures.common"
local encoder_decoder = require "attune.model.network.encoder_decoder"

-- The name of the activation and whether there is a gate; dense_act_fn and is_gated_act, which
-- files repeat, come before feed_forward_proj.
local function activation(c)
  local gated = c.feed_forward_proj:match "^gated%-(.+)$"
  local name = gated == "gelu" and "gelu_new" or gated or c.feed_forward_proj
  local has_gate = c.is_gated_act
  if has_gate == nil then has_gate = gated ~= nil end
  return c.dense_act_fn or name, has_gate
end

local function mlp(c, at)
  local name, gated = activation(c)
  local function matrix(part, inputs, outputs)
    return {name = at .. "DenseReluDense." .. part, inputs = inputs, outputs = outputs}
  end
  local n, inner = c.hidden_size, c.d_ff
  return {
    activation = common.activation(name), down = matrix("wo", inner, n),
    gate = gated and matrix("wi_0", n, inner) or nil,
    up = matrix(gated and "wi_1" or "wi", n, inner),
  }
end

local function attention(c, at, causal, bias)
  local n, heads, d = c.hidden_size, c.num_attention_heads, c.d_kv
  local function matrix(part, inputs, outputs)
    return {name = at .. part, inputs = inputs, outputs = outputs}
  end
  return {
    form = "separate", heads = heads, kv_heads = heads, head_dim = d, scale = 1, causal = causal,
    q = matrix("q", n, heads * d), k = matrix("k", n, heads * d), v = matrix("v", n, heads * d),
    o = matrix("o", heads * d, n), bias = bias,
  }
end

-- One of both stacks. All of its blocks share the bias of the first one.
local function stack(c, at, count, is_decoder)
  local function norm(name) return common.rms(name, c.hidden_size, c.layer_norm_epsilon) end
  local bias = {
    name = at .. "block.0.layer.0.SelfAttention.relative_attention_bias.weight",
    buckets = c.relative_attention_num_buckets, max_distance = c.relative_attention_max_distance,
    bidirectional = not is_decoder,
  }
  local last = is_decoder and 2 or 1
  return {
    vocab = c.vocab_size, width = c.hidden_size, embedding = {name = "shared"},
    blocks = common.blocks(count, function(i)
      local layer = ("%sblock.%d.layer."):format(at, i)
      return {
        norm1 = norm(layer .. "0.layer_norm"), norm2 = norm(layer .. last .. ".layer_norm"),
        attention = attention(c, layer .. "0.SelfAttention.", is_decoder, bias),
        cross_norm = is_decoder and norm(layer .. "1.layer_norm") or nil,
        cross = is_decoder and attention(c, layer .. "1.EncDecAttention.", false) or nil,
        mlp = mlp(c, layer .. last .. "."),
      }
    end),
    norm = norm(at .. "final_layer_norm"),
  }
end

local function describe(c)
  local decoder = stack(c, "decoder.", c.num_decoder_layers or c.num_hidden_layers, true)
  decoder.encoder = stack(c, "encoder.", c.num_hidden_layers, false)
  -- T5 1.1 says that its head is not tied, and does not scale its input; transformers 5 says the
  -- latter in a field of its own.
  local scales = c.scale_decoder_outputs
  if scales == nil then scales = c.tie_word_embeddings end
  decoder.head = {
    name = "lm_head", tied = true,
    scale = scales and c.hidden_size ^ -0.5 or nil,
  }
  if c.decoder_start_token_id >= c.vocab_size then
    error(("config.json: decoder_start_token_id: expected an id below %d, got %d"):format(
      c.vocab_size, c.decoder_start_token_id), 0)
  end
  decoder.start, decoder.context = c.decoder_start_token_id, c.n_positions
  return decoder
end

return {
  t5 = {
    fields = {
      hidden_size = "count", d_kv = {"count", 64}, d_ff = "count",
      num_hidden_layers = "count", num_decoder_layers = {"count"},
      num_attention_heads = "count", vocab_size = "count",
      relative_attention_num_buckets = {"count", 32},
      relative_attention_max_distance = {"count", 128}, layer_norm_epsilon = {"positive", 1e-6},
      feed_forward_proj = {"text", "relu"}, tie_word_embeddings = {"boolean", true},
      decoder_start_token_id = {"integer", 0}, n_positions = {"count", 512},
      dense_act_fn = {"text"}, is_gated_act = {"boolean"},
      scale_decoder_outputs = {"boolean"}, eos_token_id = {"ids", 1, null = true},
    },
    aliases = {
      d_model = "hidden_size", num_layers = "num_hidden_layers",
      num_heads = "num_attention_heads", head_dim = "d_kv",
    },
    ignored = {
      is_encoder_decoder = true, output_past = true, classifier_dropout = true,
    },
    prefixes = {""}, probe = "shared.weight",
    unused = {
      "^encoder%.embed_tokens%.weight$", "^decoder%.embed_tokens%.weight$",
      "EncDecAttention%.relative_attention_bias%.weight$",
    },
    describe = describe, network = encoder_decoder,
  },
}
