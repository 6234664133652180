--- tokenizer.json, as Hugging Face's tokenizers library writes it.
local added = require "attune.text.added"
local bpe = require "attune.text.bpe"
local decoders = require "attune.text.decoders"
local failure = require "attune.text.failure"
local files = require "attune.util.files"
local json = require "attune.util.json"
local normalizers = require "attune.text.normalizers"
local pretokenizers = require "attune.text.pretokenizers"
local processors = require "attune.text.processors"
local unigram = require "attune.text.unigram"

local field = failure.field

local hf_file = {}

local max_file_bytes = 1 << 28
-- Of a unigram model, which looks for every token at every character.
local max_token_bytes = 1024
local max_steps = 100

-- An id of the vocabulary, checked.
local function check_id(id, token)
  if bpe.is_id(id) then return id end
  local form = "model.vocab: expected integers from 0 to %d as ids, got %s for '%s'"
  failure.raise(form, bpe.max_ids - 1, tostring(id), token)
end

-- A token by its number; two tokens with one number are an error.
local function add_token(tokens, id, token)
  if tokens[id] then
    failure.raise("model.vocab: duplicate id %d: '%s' and '%s'", id, tokens[id], token)
  end
  tokens[id] = token
end

-- {token = number} and {number = token} of a model whose vocabulary is an object.
local function vocabulary(model)
  local ids, tokens = field(model, "vocab", "table", "model"), {}
  for token, id in next, ids do
    if type(token) ~= "string" then
      failure.raise("model.vocab: expected an object of tokens, got a list")
    end
    add_token(tokens, check_id(id, token), token)
  end
  return ids, tokens
end

local function bpe_model(model)
  local ids, tokens = vocabulary(model)
  if model.dropout and model.dropout ~= 0 then
    failure.raise("model.dropout: expected none, got %s", tostring(model.dropout))
  end
  local unknown = model.unk_token
  if unknown ~= nil then
    unknown = ids[field(model, "unk_token", "string", "model")]
    if not unknown then
      failure.raise("model.unk_token: expected a token of the vocabulary, got '%s'",
        model.unk_token)
    end
  end
  local function affix(name)
    local s = field(model, name, "string", "model", "")
    return s ~= "" and s or nil
  end
  local encode = bpe.by_merges {
    ids = ids,
    merges = field(model, "merges", "list", "model"),
    unknown = unknown,
    fuse_unknown = field(model, "fuse_unk", "boolean", "model", false),
    byte_fallback = field(model, "byte_fallback", "boolean", "model", false),
    ignore_merges = field(model, "ignore_merges", "boolean", "model", false),
    prefix = affix "continuing_subword_prefix",
    suffix = affix "end_of_word_suffix",
  }
  return encode, ids, tokens
end

local function unigram_model(model)
  local ids, tokens, scores = {}, {}, {}
  for i, pair in ipairs(field(model, "vocab", "list", "model")) do
    local token, score
    if type(pair) == "table" then
      token, score = pair[1], pair[2]
    end
    if type(token) ~= "string" or type(score) ~= "number" or score ~= score then
      failure.raise("model.vocab[%d]: expected a token and a number", i)
    end
    if #token > max_token_bytes or not utf8.len(token) then
      failure.raise("model.vocab[%d]: expected UTF-8 of at most %d bytes", i, max_token_bytes)
    end
    ids[token], tokens[i - 1], scores[i] = i - 1, token, score
  end
  if #scores == 0 then failure.raise("model.vocab: expected tokens, got none") end
  local unknown = model.unk_id
  if unknown ~= nil and not tokens[field(model, "unk_id", "integer", "model")] then
    failure.raise("model.unk_id: expected less than %d, got %s", #scores, tostring(unknown))
  end
  local encode = unigram.new {
    ids = ids, scores = scores, unknown = unknown,
    byte_fallback = field(model, "byte_fallback", "boolean", "model", false),
  }
  return encode, ids, tokens
end

local models = {BPE = bpe_model, Unigram = unigram_model}

-- The steps of a Sequence, and those within it. A file that says more would take long for any text.
local function check_steps(spec, list_name, where)
  local count = 0
  local function visit(step)
    count = count + 1
    local inner = type(step) == "table" and step[list_name]
    if type(inner) ~= "table" then return end
    for _, each in ipairs(inner) do visit(each) end
  end
  visit(spec)
  if count > max_steps then
    failure.raise("%s: expected at most %d steps, got %d", where, max_steps, count)
  end
end

--- The parts of a tokenizer; raises a failure.
---@param path string
---@return attune.text.Parts
function hf_file.read(path)
  local content, why = files.read(path, max_file_bytes)
  if not content then failure.raise("%s", why) end
  local spec, wrong = json.decode(content)
  if type(spec) ~= "table" then failure.raise("expected JSON: %s", wrong or "an object") end
  local model = field(spec, "model", "table", "tokenizer")
  -- Files of old versions do not say the type of the only model that has merges.
  local kind = model.type or (model.merges and "BPE" or "none")
  if not models[kind] then
    failure.raise("model.type: expected BPE or Unigram, got '%s'", tostring(kind))
  end
  check_steps(spec.normalizer, "normalizers", "normalizer")
  check_steps(spec.pre_tokenizer, "pretokenizers", "pre_tokenizer")
  check_steps(spec.decoder, "decoders", "decoder")
  check_steps(spec.post_processor, "processors", "post_processor")
  local encode, ids, tokens = models[kind](model)
  local before, after = processors.new(spec.post_processor, "post_processor")
  return {
    encode_word = encode,
    ids = ids,
    tokens = tokens,
    added = added.read(field(spec, "added_tokens", "list", "tokenizer", {}), ids, tokens),
    normalize = normalizers.new(spec.normalizer, "normalizer"),
    pretokenize = pretokenizers.new(spec.pre_tokenizer, "pre_tokenizer"),
    decoder = decoders.new(spec.decoder, "decoder"),
    before = before,
    after = after,
  }
end

return hf_file
