--- GGUF files as models: their metadata become the configuration, and their names the names, that
--- Hugging Face's files have. llama.cpp's conversion has permuted the rows of q and k of LLaMA, so
--- that pairs of neighbouring dims rotate.
local gguf_t5 = require "attune.model.gguf_t5"

local gguf_loader = {}

-- {pairing of the rotation, model_type}. Others are an error.
local kinds = {
  llama = {"interleaved", "llama"}, qwen2 = {"half", "qwen2"}, qwen3 = {"half", "qwen3"},
}

local names = {
  ["model.embed_tokens"] = "token_embd", ["model.norm"] = "output_norm", ["lm_head"] = "output",
}
local names_in_layer = {
  input_layernorm = "attn_norm", post_attention_layernorm = "ffn_norm",
  ["self_attn.q_proj"] = "attn_q", ["self_attn.k_proj"] = "attn_k",
  ["self_attn.v_proj"] = "attn_v", ["self_attn.o_proj"] = "attn_output",
  ["self_attn.q_norm"] = "attn_q_norm", ["self_attn.k_norm"] = "attn_k_norm",
  ["mlp.gate_proj"] = "ffn_gate", ["mlp.up_proj"] = "ffn_up", ["mlp.down_proj"] = "ffn_down",
}
local layer_names_of = {}
for name, stored in pairs(names_in_layer) do layer_names_of[stored] = name end
local names_of = {}
for name, stored in pairs(names) do names_of[stored] = name end

local function stored_name(name)
  local layer, part, kind = name:match "^model%.layers%.(%d+)%.(.+)%.(%a+)$"
  if layer and names_in_layer[part] then
    return ("blk.%s.%s.%s"):format(layer, names_in_layer[part], kind)
  end
  part, kind = name:match "^(.+)%.(%a+)$"
  return part and names[part] and names[part] .. "." .. kind or name
end

local function published_name(stored)
  local layer, part, kind = stored:match "^blk%.(%d+)%.(.+)%.(%a+)$"
  if layer and layer_names_of[part] then
    return ("model.layers.%s.%s.%s"):format(layer, layer_names_of[part], kind)
  end
  part, kind = stored:match "^(.+)%.(%a+)$"
  return part and names_of[part] and names_of[part] .. "." .. kind or stored
end

--- The open file under published names.
---@param file attune.File
---@param architecture any general.architecture
function gguf_loader.renamed(file, architecture)
  local list, to_stored, to_published = {}, stored_name, published_name
  if architecture == "t5" then to_stored, to_published = gguf_t5.names(file) end
  for i, stored in ipairs(file.names) do list[i] = to_published(stored) end
  return {
    names = list,
    info = function(_, name) return file:info(to_stored(name)) end,
    read = function(_, name, dtype) return file:read(to_stored(name), dtype) end,
    _weight = function(_, name, compute) return file:_weight(to_stored(name), compute) end,
  }
end

-- As in llama.cpp, a factor without a type is linear, and scale_linear is an older name of it.
local function rope_scaling(m, at)
  local function of(name) return m[at .. "rope.scaling." .. name] end
  local kind, factor = of "type" or "linear", of "factor"
  if factor == nil then factor = m[at .. "rope.scale_linear"] end
  if kind ~= "none" and kind ~= "linear" and kind ~= "yarn" then
    error(("%srope.scaling.type: expected none, linear or yarn, got '%s'"):format(
      at, tostring(kind)), 0)
  end
  if kind == "none" or factor == nil or factor == 0 then return nil end
  if kind == "linear" then return factor ~= 1 and {type = kind, factor = factor} or nil end
  return {
    type = kind, factor = factor, original_max_position_embeddings = of "original_context_length",
    beta_fast = of "yarn_beta_fast", beta_slow = of "yarn_beta_slow",
  }
end

-- Metadata that change what a model computes, with the values that say nothing.
local neutral = {
  ["rope.scaling.attn_factor"] = {1}, ["rope.scaling.yarn_attn_factor"] = {1},
  ["rope.scaling.yarn_ext_factor"] = {-1, 1}, ["rope.scaling.yarn_log_multiplier"] = {0},
  ["rope.scaling.alpha"] = {0}, ["attention.causal"] = {true},
  ["attention.scale"] = {0}, ["expert_count"] = {0},
  ["logit_scale"] = {0, 1}, ["residual_scale"] = {0, 1}, ["embedding_scale"] = {0, 1},
  ["attention.clamp_kqv"] = {0}, ["attention.max_alibi_bias"] = {0},
  ["attn_logit_softcapping"] = {0}, ["final_logit_softcapping"] = {0},
}

-- Refuses what this loader would have to follow and does not.
local function check_neutral(m, at)
  for name, values in pairs(neutral) do
    local value, is_neutral = m[at .. name], false
    for _, v in ipairs(values) do is_neutral = is_neutral or value == v end
    if value ~= nil and not is_neutral then
      error(("%s%s: expected %s, got %s"):format(
        at, name, tostring(values[#values]), tostring(value)), 0)
    end
  end
  local window, context = m[at .. "attention.sliding_window"], m[at .. "context_length"]
  if window ~= nil and window ~= 0 and not (math.type(window) and math.type(context)
    and window >= context) then
    error(("%sattention.sliding_window: expected none below the context_length of %s, got %s")
      :format(at, tostring(context), tostring(window)), 0)
  end
  local heads, width = m[at .. "attention.head_count"], m[at .. "embedding_length"]
  local d = m[at .. "attention.key_length"]
  if not d and type(heads) == "number" and type(width) == "number" and heads > 0 then
    d = width // heads
  end
  for _, name in ipairs {"rope.dimension_count", "attention.value_length"} do
    local value = m[at .. name]
    if d and value ~= nil and value ~= d then
      error(("%s%s: expected %d, as each head has, got %s"):format(at, name, d, tostring(value)), 0)
    end
  end
end

-- What ends a text, as in llama.cpp: the end of the text, of a turn and of a message. An id, a list
-- of ids, or nil.
local function ends_of(m)
  local ids, seen = {}, {}
  for _, name in ipairs {"eos", "eot", "eom"} do
    local id = m[("tokenizer.ggml.%s_token_id"):format(name)]
    if id ~= id then return id end -- a NaN is no key of a table; what reads it refuses it
    if id ~= nil and not seen[id] then
      ids[#ids + 1], seen[id] = id, true
    end
  end
  return #ids > 1 and ids or ids[1]
end

--- The configuration that the metadata describe, as config.json would say it, and the pairing of
--- the rotation, nil where there is none. Raises, without a position, where the architecture is not
--- supported.
---@param m table<string, any> metadata; a list is {count = of its elements}
---@param file table from renamed
---@param original attune.File
---@return table config
---@return string? pairing
function gguf_loader.config(m, file, original)
  local architecture = m["general.architecture"]
  if architecture == "t5" then return gguf_t5.config(m, original) end
  local kind = kinds[architecture]
  if architecture == nil then
    error("expected a GGUF file with general.architecture, or the folder of a model with its "
      .. "config.json, got a file without either", 0)
  end
  if not kind then
    error(("general.architecture: expected llama, qwen2, qwen3 or t5, got '%s'%s"):format(
      tostring(architecture), architecture == "t5encoder" and ", which has no decoder" or ""), 0)
  end
  local at = architecture .. "."
  check_neutral(m, at)
  local epsilon, scaling = m[at .. "attention.layer_norm_rms_epsilon"], rope_scaling(m, at)
  if epsilon == nil then
    error(at .. "attention.layer_norm_rms_epsilon: expected a number, got nil", 0)
  end
  if scaling and original:info "rope_freqs.weight" then
    error(("%srope.scaling.factor: expected 1 beside rope_freqs.weight, got %s"):format(
      at, tostring(scaling.factor)), 0)
  end
  local tokens = m["tokenizer.ggml.tokens"]
  local embedding = file:info "model.embed_tokens.weight"
  return {
    model_type = kind[2], hidden_size = m[at .. "embedding_length"],
    intermediate_size = m[at .. "feed_forward_length"],
    num_hidden_layers = m[at .. "block_count"],
    num_attention_heads = m[at .. "attention.head_count"],
    num_key_value_heads = m[at .. "attention.head_count_kv"],
    head_dim = m[at .. "attention.key_length"],
    rms_norm_eps = epsilon,
    max_position_embeddings = m[at .. "context_length"],
    rope_theta = m[at .. "rope.freq_base"], rope_scaling = scaling,
    vocab_size = embedding and embedding.shape[1] or m[at .. "vocab_size"]
      or tokens and tokens.count,
    tie_word_embeddings = file:info "lm_head.weight" == nil,
    attention_bias = file:info "model.layers.0.self_attn.q_proj.bias" ~= nil,
    mlp_bias = kind[2] == "llama" and file:info "model.layers.0.mlp.up_proj.bias" ~= nil,
    eos_token_id = ends_of(m),
  }, kind[1]
end

return gguf_loader
