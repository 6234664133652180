--- The vocabulary in the metadata of a GGUF file (tokenizer.ggml.*), as llama.cpp reads it.
local bpe = require "attune.text.bpe"
local charsmap = require "attune.text.charsmap"
local core = require "attune.core"
local decoders = require "attune.text.decoders"
local failure = require "attune.text.failure"
local normalizers = require "attune.text.normalizers"
local pretokenizers = require "attune.text.pretokenizers"
local unigram = require "attune.text.unigram"
local byte_level = require "attune.text.byte_level"

local gguf_file = {}

-- Types of tokens (llama.h, llama_token_type).
local unknown_type, control_type, user_type = 2, 3, 4

local space = "\u{2581}"

-- The patterns of tokenizer.ggml.pre.
local contraction = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
local function modern(numbers)
  return contraction .. [[|[^\r\n\p{L}\p{N}]?\p{L}+|]] .. numbers
    .. [[| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+]]
end
local gpt2, digits = {byte_level.pattern}, {[[\p{N}]], byte_level.pattern}
local llama3, qwen2 = {modern [[\p{N}{1,3}]]}, {modern [[\p{N}]]}
local punctuation = [[[\p{P}$+<=>^~|`]+]]
local patterns = {
  ["gpt-2"] = gpt2, mpt = gpt2, olmo = gpt2, ["phi-2"] = gpt2, jais = gpt2,
  starcoder = digits, refact = digits, ["command-r"] = digits, smollm = digits, codeshell = digits,
  ["llama-bpe"] = llama3, ["llama-v3"] = llama3, llama3 = llama3, falcon3 = llama3,
  dbrx = {modern [[\p{N}{1,3}]]}, ["smaug-bpe"] = {modern [[\p{N}{1,3}]]},
  qwen2 = qwen2, stablelm2 = qwen2, ["deepseek-r1-qwen"] = qwen2,
  falcon = {punctuation, byte_level.pattern, "[0-9][0-9][0-9]"},
  default = {
    [[[\p{P}$+<=>^~|]+]], byte_level.pattern, [[\p{N}+]], "[0-9][0-9][0-9]",
  },
}

local function list_of(metadata, name, kind, required)
  local key = "tokenizer.ggml." .. name
  local list = metadata[key]
  if list == nil and not required then return nil end
  if type(list) ~= "table" then
    failure.raise("%s: expected a list, got %s", key, list == nil and "none" or "a " .. type(list))
  end
  for i, value in ipairs(list) do
    if type(value) ~= kind or value ~= value then
      failure.raise("%s: expected a list of %ss, got a %s as number %d", key, kind, type(value), i)
    end
  end
  return list
end

local function value_of(metadata, name, kind, otherwise)
  local key = "tokenizer.ggml." .. name
  local value = metadata[key]
  if value == nil then return otherwise end
  local good = type(value) == kind or kind == "integer" and math.type(value) == "integer"
  if not good then failure.raise("%s: expected a %s, got a %s", key, kind, type(value)) end
  return value
end

-- {token = id}, {id = token}, and the tokens that text may spell: control and user-defined ones.
local function vocabulary(metadata)
  local list = list_of(metadata, "tokens", "string", true)
  local types = list_of(metadata, "token_type", "number") or {}
  local ids, tokens, special = {}, {}, {}
  if #list == 0 or #list > bpe.max_ids then
    failure.raise("tokenizer.ggml.tokens: expected 1 to %d tokens, got %d", bpe.max_ids, #list)
  end
  if #types > 0 and #types ~= #list then
    failure.raise("tokenizer.ggml.token_type: expected %d, one per token, got %d", #list, #types)
  end
  for i, token in ipairs(list) do
    if not utf8.len(token) then failure.raise("tokenizer.ggml.tokens[%d]: expected UTF-8", i) end
    -- Of tokens that are spelled alike, the first is encoded.
    ids[token] = ids[token] or i - 1
    tokens[i - 1] = token
    local kind = types[i]
    if kind == control_type or kind == user_type or kind == unknown_type then
      special[#special + 1] = {
        id = i - 1, content = token, special = kind ~= user_type, normalized = false,
        single_word = false, lstrip = false, rstrip = false,
      }
    end
  end
  return ids, tokens, special
end

local function special_id(metadata, name, tokens)
  local id = value_of(metadata, name .. "_token_id", "integer")
  if id and not tokens[id] then
    failure.raise("tokenizer.ggml.%s_token_id: expected the number of a token, got %d", name, id)
  end
  return id
end

-- Byte-level BPE: {encode, normalize, pretokenize, decoder}.
local function byte_level_parts(metadata, ids)
  local pre = value_of(metadata, "pre", "string", "default")
  if not patterns[pre] then
    failure.raise("tokenizer.ggml.pre: '%s' is not supported", pre)
  end
  return {
    encode_word = bpe.by_merges {
      ids = ids, merges = list_of(metadata, "merges", "string", true),
      ignore_merges = patterns[pre] == llama3,
    },
    normalize = normalizers.new(patterns[pre] == qwen2 and {type = "NFC"} or nil, "normalizer"),
    pretokenize = pretokenizers.by_patterns(patterns[pre], "tokenizer.ggml.pre"),
    decoder = decoders.new({type = "ByteLevel"}, "decoder"),
    adds_bos = patterns[pre] == llama3,
  }
end

local function scores_of(metadata, tokens)
  local scores = list_of(metadata, "scores", "number", true)
  if #scores ~= #tokens + 1 then
    failure.raise("tokenizer.ggml.scores: expected %d, one per token, got %d", #tokens + 1, #scores)
  end
  return scores
end

-- The bytes of a list of numbers.
local function bytes_of(list, name)
  local parts = {}
  for i, byte in ipairs(list) do
    if math.type(byte) ~= "integer" or byte < -128 or byte > 255 then
      failure.raise("tokenizer.ggml.%s[%d]: expected a byte, got %s", name, i, tostring(byte))
    end
    parts[i] = string.char(byte & 255)
  end
  return table.concat(parts)
end

-- Unigram, as T5 has it: the map of characters, spaces that become one, and Viterbi.
local function unigram_parts(metadata, ids, tokens)
  local scores = scores_of(metadata, tokens)
  local map = list_of(metadata, "precompiled_charsmap", "number")
  local mapped = map and charsmap.new(bytes_of(map, "precompiled_charsmap"))
  local prefix = value_of(metadata, "add_space_prefix", "boolean", false)
  local steps = {}
  if value_of(metadata, "remove_extra_whitespaces", "boolean", false) then
    steps = {{type = "Strip"}, {type = "Replace", pattern = {Regex = " {2,}"}, content = " "}}
  end
  if prefix then steps[#steps + 1] = {type = "Prepend", prepend = " "} end
  local spaced = normalizers.new({type = "Sequence", normalizers = steps}, "normalizer")
  local unknown = special_id(metadata, "unknown", tokens)
  if not unknown and tokens[2] then unknown = 2 end
  return {
    encode_word = unigram.new {ids = ids, scores = scores, unknown = unknown},
    normalize = function(s, limit) return spaced(mapped and mapped(s, limit) or s, limit) end,
    pretokenize = pretokenizers.new(
      {type = "Metaspace", replacement = space, prepend_scheme = "never"}, "pre_tokenizer"),
    decoder = decoders.new({
      type = "Metaspace", replacement = space, prepend_scheme = prefix and "always" or "never",
    }, "decoder"),
    adds_bos = false, adds_eos = true,
  }
end

-- SentencePiece by scores, as LLaMA 2 and Gemma have it.
local function scored_parts(metadata, ids, tokens)
  local scores = scores_of(metadata, tokens)
  local prefix = value_of(metadata, "add_space_prefix", "boolean", true)
  local steps = {{type = "Replace", pattern = {String = " "}, content = space}}
  if prefix then table.insert(steps, 1, {type = "Prepend", prepend = space}) end
  local decoding = {
    {type = "Replace", pattern = {String = space}, content = " "}, {type = "ByteFallback"},
    {type = "Fuse"},
  }
  if prefix then decoding[4] = {type = "Strip", content = " ", start = 1, stop = 0} end
  return {
    encode_word = bpe.by_scores(ids, scores, special_id(metadata, "unknown", tokens)),
    normalize = normalizers.new({type = "Sequence", normalizers = steps}, "normalizer"),
    pretokenize = pretokenizers.new(nil, "pre_tokenizer"),
    decoder = decoders.new({type = "Sequence", decoders = decoding}, "decoder"),
    adds_bos = true,
  }
end

local models = {gpt2 = byte_level_parts, llama = scored_parts, t5 = unigram_parts}

--- The parts of a tokenizer; raises a failure.
---@param path string
---@return attune.text.Parts
function gguf_file.read(path)
  local file, why = core.open(path)
  if not file then failure.raise("%s", why:sub(1, #path) == path and why:sub(#path + 3) or why) end
  local metadata = file.metadata
  file:close()
  local kind = value_of(metadata, "model", "string")
  if not kind then failure.raise("tokenizer.ggml.model: expected gpt2, llama or t5, got none") end
  if not models[kind] then
    failure.raise("tokenizer.ggml.model: expected gpt2, llama or t5, got '%s'", kind)
  end
  local ids, tokens, special = vocabulary(metadata)
  local parts = models[kind](metadata, ids, tokens)
  local bos, eos = special_id(metadata, "bos", tokens), special_id(metadata, "eos", tokens)
  parts.ids, parts.tokens, parts.added = ids, tokens, special
  parts.before, parts.after = {}, {}
  if bos and value_of(metadata, "add_bos_token", "boolean", parts.adds_bos) then
    parts.before[1] = bos
  end
  if eos and value_of(metadata, "add_eos_token", "boolean", parts.adds_eos or false) then
    parts.after[1] = eos
  end
  parts.bos, parts.eos = bos, eos
  return parts
end

return gguf_file
