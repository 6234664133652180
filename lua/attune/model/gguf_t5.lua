--- GGUF files of T5: names of tensors and the configuration, as llama.cpp converts them.
local gguf_t5 = {}

local attention = {q = "attn_q", k = "attn_k", v = "attn_v", o = "attn_o",
  relative_attention_bias = "attn_rel_b"}

-- {published part of a block = stored part}; last: the number of the feed-forward layer.
local function parts_of(last, gated)
  local parts = {["layer.0.layer_norm"] = "attn_norm"}
  for published, stored in pairs(attention) do
    parts["layer.0.SelfAttention." .. published] = stored
    if last == 2 then parts["layer.1.EncDecAttention." .. published] = "cross_" .. stored end
  end
  if last == 2 then parts["layer.1.layer_norm"] = "cross_attn_norm" end
  local at = ("layer.%d."):format(last)
  parts[at .. "layer_norm"], parts[at .. "DenseReluDense.wo"] = "ffn_norm", "ffn_down"
  parts[at .. "DenseReluDense." .. (gated and "wi_1" or "wi")] = "ffn_up"
  if gated then parts[at .. "DenseReluDense.wi_0"] = "ffn_gate" end
  return parts
end

local function inverse(t)
  local result = {}
  for key, value in pairs(t) do result[value] = key end
  return result
end

local function is_gated(file) return file:info "enc.blk.0.ffn_gate.weight" ~= nil end

--- The function from published names to those of the open file, and its inverse. Names without a
--- counterpart are left as they are.
---@param file attune.File
---@return fun(name: string): string
---@return fun(name: string): string
function gguf_t5.names(file)
  local gated = is_gated(file)
  local whole = {
    ["shared.weight"] = "token_embd.weight", ["lm_head.weight"] = "output.weight",
    ["encoder.final_layer_norm.weight"] = "enc.output_norm.weight",
    ["decoder.final_layer_norm.weight"] = "dec.output_norm.weight",
  }
  local parts = {encoder = parts_of(1, gated), decoder = parts_of(2, gated)}
  local published_whole = inverse(whole)
  local published_parts = {enc = inverse(parts.encoder), dec = inverse(parts.decoder)}
  local function stored(name)
    local side, i, part = name:match "^(%a+)%.block%.(%d+)%.(.+)%.weight$"
    part = parts[side] and parts[side][part]
    return part and ("%s.blk.%s.%s.weight"):format(side:sub(1, 3), i, part) or whole[name] or name
  end
  local function published(name)
    local side, i, part = name:match "^(%a+)%.blk%.(%d+)%.(.+)%.weight$"
    part = published_parts[side] and published_parts[side][part]
    return part and ("%scoder.block.%s.%s.weight"):format(side:sub(1, 2), i, part)
      or published_whole[name] or name
  end
  return stored, published
end

--- The configuration that the metadata describe. llama.cpp's files do not hold the largest distance
--- of the biases, which it takes to be 128, nor the activation: gelu where there is a gate, relu
--- where there is none. Nor do they say whether the input of a tied head is scaled: that of the
--- first T5 is, that of T5 1.1, which has a gate, is not.
---@param m table<string, any> metadata; a list is {count = of its elements}
---@param file attune.File
---@return table
function gguf_t5.config(m, file)
  local embedding, size = file:info "token_embd.weight", m["t5.attention.key_length"]
  local values, tied = m["t5.attention.value_length"], file:info "output.weight" == nil
  if values ~= nil and values ~= size then
    error(("t5.attention.value_length: expected that of keys, %s, got %s"):format(
      tostring(size), tostring(values)), 0)
  end
  return {
    model_type = "t5", hidden_size = m["t5.embedding_length"], d_kv = size,
    d_ff = m["t5.feed_forward_length"], num_hidden_layers = m["t5.block_count"],
    num_decoder_layers = m["t5.decoder_block_count"],
    num_attention_heads = m["t5.attention.head_count"],
    vocab_size = embedding and embedding.shape[1] or m["t5.vocab_size"],
    relative_attention_num_buckets = m["t5.attention.relative_buckets_count"],
    layer_norm_epsilon = m["t5.attention.layer_norm_rms_epsilon"],
    feed_forward_proj = is_gated(file) and "gated-gelu" or "relu",
    tie_word_embeddings = tied, scale_decoder_outputs = tied and not is_gated(file),
    decoder_start_token_id = m["t5.decoder_start_token_id"],
    n_positions = m["t5.context_length"], eos_token_id = m["tokenizer.ggml.eos_token_id"],
  }
end

return gguf_t5
