--- Added tokens: texts that are one token wherever they appear, before and after normalisation.
local bpe = require "attune.text.bpe"
local failure = require "attune.text.failure"
local oniguruma = require "attune.text.oniguruma"
local pattern = require "attune.text.pattern"

local added = {}

---@class attune.text.AddedToken
---@field id integer
---@field content string
---@field special boolean left out of decoded text unless it is asked for
---@field normalized boolean looked for in the normalised text
---@field single_word boolean only where no letter or digit touches it
---@field lstrip boolean takes the white space before it
---@field rstrip boolean takes the white space after it

-- At the position where a search begins.
local word, space, spaces = "\\G[" .. oniguruma.word .. "]", "\\G\\s", "\\G\\s+"

-- The last byte of what matches at `at`; nil: nothing does. Looks at no other part of the text, so
-- that many tokens in a long text take no longer.
local function matched(source, s, at)
  local _, last = pattern.find(pattern.compile(source, "added_tokens"), s, at)
  return last
end

-- Where the character before `at` begins.
local function before(s, at) return utf8.offset(s, -1, at) end

-- Texts by first byte: their lengths, the longest first; and tokens by text. Of tokens with one
-- text the first counts.
local function index_of(tokens)
  local lengths, by_text = {}, {}
  for _, token in ipairs(tokens) do
    local text = token.content
    if text ~= "" then
      by_text[text] = by_text[text] or token
      local first = text:byte()
      lengths[first] = lengths[first] or {}
      lengths[first][#text] = true
    end
  end
  local bytes = {}
  for first, set in pairs(lengths) do
    local list = {}
    for length in pairs(set) do list[#list + 1] = length end
    table.sort(list, function(a, b) return a > b end)
    lengths[first] = list
    bytes[#bytes + 1] = ("%%%s"):format(string.char(first))
    if string.char(first):find "[%w\128-\255]" then bytes[#bytes] = string.char(first) end
  end
  return lengths, by_text, #bytes > 0 and "[" .. table.concat(bytes) .. "]" or nil
end

-- The bytes that a token takes, with the white space around it; nil where it must be a word alone.
local function extent(token, s, first, last, taken)
  if token.single_word then
    if first > 1 and matched(word, s, before(s, first)) then return nil end
    if last < #s and matched(word, s, last + 1) then return nil end
  end
  if token.lstrip then
    while first > taken and matched(space, s, before(s, first)) do first = before(s, first) end
    first = math.max(first, taken)
  end
  if token.rstrip and last < #s then last = matched(spaces, s, last + 1) or last end
  return first, last
end

--- A function that cuts a text: it gives tokens and the texts between them, in order.
---@param tokens attune.text.AddedToken[]
---@return fun(s: string): (attune.text.AddedToken|{text: string, at: integer})[]
function added.splitter(tokens)
  local lengths, by_text, first_bytes = index_of(tokens)
  if not first_bytes then
    return function(s) return s == "" and {} or {{text = s, at = 1}} end
  end
  local function token_at(s, at)
    for _, length in ipairs(lengths[s:byte(at)]) do
      local token = by_text[s:sub(at, at + length - 1)]
      if token then return token, at + length - 1 end
    end
  end
  return function(s)
    local out, taken, at = {}, 1, 1
    while true do
      at = s:find(first_bytes, at)
      if not at then break end
      local token, last = token_at(s, at)
      if not token then
        at = at + 1
      else
        local from, to = extent(token, s, at, last, taken)
        at = last + 1
        if from then
          if from > taken then out[#out + 1] = {text = s:sub(taken, from - 1), at = taken} end
          -- Nothing is left of a token of white space that the token before it took.
          if from <= to then out[#out + 1] = token end
          taken = to + 1
        end
      end
    end
    if taken <= #s then out[#out + 1] = {text = s:sub(taken), at = taken} end
    return out
  end
end

local flags = {"special", "single_word", "lstrip", "rstrip"}

--- The added tokens of tokenizer.json, the special ones first: of two that are alike once they are
--- normalised, a special one counts.
---@param list table[]
---@param ids table<string, integer> of the model
---@param tokens table<integer, string> of the model
---@return attune.text.AddedToken[]
function added.read(list, ids, tokens)
  local special, plain, content_of = {}, {}, {}
  for i, spec in ipairs(list) do
    local where = ("added_tokens[%d]"):format(i)
    if type(spec) ~= "table" then
      failure.raise("%s: expected an object, got a %s", where, type(spec))
    end
    local token = {content = failure.field(spec, "content", "string", where)}
    for _, flag in ipairs(flags) do
      token[flag] = failure.field(spec, flag, "boolean", where, false)
    end
    token.normalized = failure.field(spec, "normalized", "boolean", where, not token.special)
    token.id = ids[token.content] or failure.field(spec, "id", "integer", where)
    if not bpe.is_id(token.id) then
      failure.raise("%s.id: expected an integer from 0 to %d, got %d", where, bpe.max_ids - 1,
        token.id)
    end
    local other = tokens[token.id] or content_of[token.id]
    if other and other ~= token.content then
      failure.raise("%s.id: duplicate id %d: '%s' and '%s'", where, token.id, other, token.content)
    end
    content_of[token.id] = token.content
    table.insert(token.special and special or plain, token)
  end
  table.move(plain, 1, #plain, #special + 1, special)
  return special
end

return added
