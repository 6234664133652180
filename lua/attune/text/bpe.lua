--- Byte-pair encoding by a list of merges, as tokenizer.json has it, and by the scores of tokens,
--- as SentencePiece and GGUF files of LLaMA have it.
local failure = require "attune.text.failure"
local merge = require "attune.text.merges"

local bpe = {}

-- A token's number takes 24 bits of a pair's key.
local id_bits = 24
bpe.max_ids = 1 << id_bits

--- Whether a value of a file may be the id of a token.
function bpe.is_id(id) return math.type(id) == "integer" and id >= 0 and id < bpe.max_ids end

-- Words of a text repeat. Short ones are kept, until there are too many.
local max_kept_bytes, max_kept = 64, 20000

local function with_cache(encode_word)
  local kept, count = {}, 0
  return function(word)
    local ids = kept[word]
    if ids then return ids end
    ids = encode_word(word)
    if #word <= max_kept_bytes then
      if count == max_kept then kept, count = {}, 0 end
      kept[word] = ids
      count = count + 1
    end
    return ids
  end
end

--- The numbers of the tokens <0x00> .. <0xFF> by byte text; nil where one is missing.
---@param ids table<string, integer>
function bpe.byte_tokens(ids)
  local list = {}
  for byte = 0, 255 do
    list[string.char(byte)] = ids[("<0x%02X>"):format(byte)]
  end
  return list
end

-- The numbers of the bytes of a character; nil unless every byte has a token.
local function bytes_of(character, byte_ids)
  local list = {}
  for i = 1, #character do
    local id = byte_ids[character:sub(i, i)]
    if not id then return nil end
    list[i] = id
  end
  return list
end

-- {[left << 24 | right] = rank << 24 | number of the merged token}
local function pairs_of(model)
  local ids, found = model.ids, {}
  local strip = #(model.prefix or "")
  for rank, pair in ipairs(model.merges) do
    local left, right
    if type(pair) == "string" then
      left, right = pair:match "^([^ ]+) ([^ ]+)$"
    elseif type(pair) == "table" and #pair == 2 then
      left, right = pair[1], pair[2]
    end
    if type(left) ~= "string" or type(right) ~= "string" then
      failure.raise("merges[%d]: expected two tokens, got %s", rank,
        type(pair) == "string" and "'" .. pair .. "'" or "a " .. type(pair))
    end
    local whole = ids[left .. right:sub(strip + 1)]
    if not (ids[left] and ids[right] and whole) then
      failure.raise("merges[%d]: expected tokens of the vocabulary, got '%s' and '%s'", rank, left,
        right)
    end
    local key = ids[left] << id_bits | ids[right]
    -- Of two merges of one pair the last one counts, as in a map that is filled in order.
    found[key] = rank << id_bits | whole
  end
  return found
end

---@class attune.text.BpeModel
---@field ids table<string, integer>
---@field merges (string|string[])[]
---@field unknown? integer number of the token for what has none
---@field fuse_unknown? boolean
---@field byte_fallback? boolean
---@field ignore_merges? boolean a word that is a token is not split
---@field prefix? string of symbols that do not begin a word
---@field suffix? string of the symbol that ends a word

-- The symbols of a word before merges: the number of each character.
local function symbols_of(model, byte_ids, word)
  local list, pending = {}, nil -- pending: an unknown token that later characters may join
  local ids, at, size = model.ids, 1, #word
  for character in word:gmatch(utf8.charpattern) do
    local symbol = character
    if model.prefix and at > 1 then symbol = model.prefix .. symbol end
    at = at + #character
    if model.suffix and at > size then symbol = symbol .. model.suffix end
    local id = ids[symbol]
    local bytes = not id and model.byte_fallback and bytes_of(symbol, byte_ids)
    if id then
      if pending then list[#list + 1] = pending end
      pending = nil
      list[#list + 1] = id
    elseif bytes then
      table.move(bytes, 1, #bytes, #list + 1, list)
    elseif model.unknown then
      if pending and not model.fuse_unknown then list[#list + 1] = pending end
      pending = model.unknown
    end
  end
  if pending then list[#list + 1] = pending end
  return list
end

--- A function from a word to the numbers of its tokens. Its result must not be changed.
---@param model attune.text.BpeModel
---@return fun(word: string): integer[]
function bpe.by_merges(model)
  local found = pairs_of(model)
  local all = model
  model = {} -- without the merges, which take more memory than what was made of them
  for name, value in pairs(all) do model[name] = value end
  model.merges = nil
  local byte_ids = model.byte_fallback and bpe.byte_tokens(model.ids)
  local function lookup(left, right)
    local merged = found[left << id_bits | right]
    if merged then return merged >> id_bits, merged & (bpe.max_ids - 1) end
  end
  return with_cache(function(word)
    if model.ignore_merges and model.ids[word] then return {model.ids[word]} end
    return merge(symbols_of(model, byte_ids, word), lookup)
  end)
end

--- The same by scores: of all pairs that are a token together, the one with the highest score
--- merges first. Characters without a token become their bytes.
---@param ids table<string, integer>
---@param scores number[] of token id + 1
---@param unknown integer? nil: what has no token is an error
---@return fun(word: string): integer[]
function bpe.by_scores(ids, scores, unknown)
  local order, rank_of = {}, {}
  for id = 0, #scores - 1 do order[id + 1] = id end
  table.sort(order, function(a, b) return scores[a + 1] > scores[b + 1] end)
  local rank, last = 0, nil
  for _, id in ipairs(order) do
    if scores[id + 1] ~= last then rank, last = rank + 1, scores[id + 1] end
    rank_of[id] = rank
  end
  local byte_ids = bpe.byte_tokens(ids)
  local function lookup(left, right)
    local whole = left .. right
    local id = ids[whole]
    if id then return rank_of[id], whole end
  end
  return with_cache(function(word)
    local symbols, result = {}, {}
    for character in word:gmatch(utf8.charpattern) do symbols[#symbols + 1] = character end
    for _, symbol in ipairs(merge(symbols, lookup)) do
      local bytes = not ids[symbol] and bytes_of(symbol, byte_ids)
      if bytes then
        table.move(bytes, 1, #bytes, #result + 1, result)
      else
        result[#result + 1] = ids[symbol] or unknown or failure.no_token(symbol)
      end
    end
    return result
  end)
end

return bpe
