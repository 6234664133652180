--- Tokenizers: text to token ids and back, from a tokenizer.json or the vocabulary of a GGUF file.
-- Ids count from 0, as everywhere in models.
local added = require "attune.text.added"
local failure = require "attune.text.failure"
local options = require "attune.util.options"
local utf = require "attune.text.utf"

local text = {}

---@class attune.text.Parts
---@field encode_word fun(word: string): integer[]
---@field ids table<string, integer>
---@field tokens table<integer, string>
---@field added attune.text.AddedToken[]
---@field normalize fun(s: string, limit: integer): string
---@field pretokenize fun(pieces: table[]): table[]
---@field decoder fun(): table
---@field before integer[] special tokens before a text
---@field after integer[]
---@field bos? integer
---@field eos? integer

---@class attune.Tokenizer
---@field size integer one more than the largest id
---@field bos? integer id of the beginning-of-text token, where the file names it
---@field eos? integer
local Tokenizer = {}
Tokenizer.__index = Tokenizer
Tokenizer.__name = "attune.Tokenizer"

-- Parts by tokenizer, so that a user cannot change them.
local parts_of = setmetatable({}, {__mode = "k"})

local function check(tokenizer, level)
  local parts = parts_of[tokenizer]
  if parts then return parts end
  error(("tokenizer: expected a tokenizer, got %s"):format(options.describe(tokenizer)), level + 1)
end

local function wants_special(given, level)
  local special = options.read(given, {"special"}, level + 1).special
  if special ~= nil and type(special) ~= "boolean" then
    error(("special: expected true or false, got %s"):format(options.describe(special)), level + 1)
  end
  return special or false
end

-- What the file's rules may make of a text of n bytes: its longest maps of one character (U+FDFA)
-- give 11 bytes for one.
local function longest_text(n) return 65536 + 32 * n end

local function new_tokenizer(parts)
  local largest = -1
  for id in pairs(parts.tokens) do largest = math.max(largest, id) end
  local plain, normalized, special = {}, {}, {}
  for _, token in ipairs(parts.added) do
    parts.tokens[token.id] = token.content
    largest = math.max(largest, token.id)
    if token.special then special[token.content] = true end
    if token.normalized then
      local copy = {}
      for name, value in pairs(token) do copy[name] = value end
      local ok, content = pcall(parts.normalize, token.content, longest_text(#token.content))
      if not ok then failure.raise("added_tokens: %s", tostring(content)) end
      copy.content = content
      normalized[#normalized + 1] = copy
      -- Such a token is decoded to its normalised text, as by Hugging Face's library.
      parts.tokens[token.id] = copy.content
    else
      plain[#plain + 1] = token
    end
  end
  parts.split, parts.split_normalized = added.splitter(plain), added.splitter(normalized)
  parts.special = special
  local tokenizer = setmetatable({size = largest + 1, bos = parts.bos, eos = parts.eos}, Tokenizer)
  parts_of[tokenizer] = parts
  return tokenizer
end

local function append(list, more) table.move(more, 1, #more, #list + 1, list) end

local function encode_text(parts, s, starts, ids)
  for _, piece in ipairs(parts.split_normalized(parts.normalize(s, longest_text(#s)))) do
    if piece.id then
      ids[#ids + 1] = piece.id
    else
      for _, word in ipairs(parts.pretokenize {{piece.text, starts and piece.at == 1}}) do
        if word[1] ~= "" then append(ids, parts.encode_word(word[1])) end
      end
    end
  end
end

--- The ids of a text. A text that spells an added token is that token.
---@param s string UTF-8
---@param given? {special?: boolean} true: with the special tokens that the file puts around a text
---@return integer[] ids from 0
function Tokenizer:encode(s, given)
  local parts = check(self, 2)
  local special = wants_special(given, 2)
  if type(s) ~= "string" then
    error(("text: expected a string, got %s"):format(options.describe(s)), 2)
  end
  local bad = utf.invalid(s)
  if bad then
    error(("text: expected UTF-8, got byte 0x%02X at position %d"):format(s:byte(bad), bad), 2)
  end
  local ids = {}
  if special then append(ids, parts.before) end
  for _, piece in ipairs(parts.split(s)) do
    if piece.id then
      ids[#ids + 1] = piece.id
    else
      encode_text(parts, piece.text, piece.at == 1, ids)
    end
  end
  if special then append(ids, parts.after) end
  return ids
end

---@class attune.TextStream
local Stream = {}
Stream.__index = Stream
Stream.__name = "attune.TextStream"

local streams = setmetatable({}, {__mode = "k"})

local function check_id(id, name, level)
  if math.type(id) == "integer" and id >= 0 then return end
  local form = "%s: expected an integer of at least 0, got %s"
  error(form:format(name, options.describe(id)), level + 1)
end

-- The token of an id; nil for one that is to be left out, or that the vocabulary lacks.
local function token_of(parts, id, special)
  local token = parts.tokens[id]
  if token and (special or not parts.special[token]) then return token end
end

--- A decoder that takes ids one by one and never gives half a UTF-8 character. What it gives is
--- together what `decode` gives.
---@param given? {special?: boolean} true: special tokens are text too
---@return attune.TextStream
function Tokenizer:stream(given)
  local parts = check(self, 2)
  local stream = setmetatable({}, Stream)
  streams[stream] = {
    parts = parts, decoder = parts.decoder(), special = wants_special(given, 2),
  }
  return stream
end

local function state_of(stream, level)
  local state = streams[stream]
  if state then return state end
  error(("stream: expected an open stream, got %s"):format(options.describe(stream)), level + 1)
end

--- The text that an id completes; "" while a character or a run of bytes is incomplete.
---@param id integer
---@return string
function Stream:push(id)
  local state = state_of(self, 2)
  check_id(id, "id", 2)
  local token = token_of(state.parts, id, state.special)
  return token and state.decoder.push(token) or ""
end

--- What is left, with U+FFFD for what is no UTF-8. The stream is closed.
---@return string
function Stream:finish()
  local state = state_of(self, 2)
  streams[self] = nil
  return state.decoder.finish()
end

--- The text of ids. Bytes that are not UTF-8 become U+FFFD; ids that the vocabulary lacks give
--- nothing, as models may have more rows than the vocabulary.
---@param ids integer[]
---@param given? {special?: boolean} true: special tokens are text too
---@return string
function Tokenizer:decode(ids, given)
  local parts = check(self, 2)
  local special = wants_special(given, 2)
  if type(ids) ~= "table" then
    error(("ids: expected a list of integers, got %s"):format(options.describe(ids)), 2)
  end
  local decoder, out = parts.decoder(), {}
  for i = 1, rawlen(ids) do
    local id = rawget(ids, i)
    check_id(id, ("ids[%d]"):format(i), 2)
    local token = token_of(parts, id, special)
    if token then out[#out + 1] = decoder.push(token) end
  end
  out[#out + 1] = decoder.finish()
  return table.concat(out)
end

--- The token of an id as the file spells it; nil where there is none.
---@param id integer
---@return string?
function Tokenizer:token(id)
  local parts = check(self, 2)
  check_id(id, "id", 2)
  return parts.tokens[id]
end

--- The id of a token as the file spells it; nil where there is none.
---@param token string
---@return integer?
function Tokenizer:id(token)
  local parts = check(self, 2)
  if type(token) ~= "string" then
    error(("token: expected a string, got %s"):format(options.describe(token)), 2)
  end
  for _, entry in ipairs(parts.added) do
    if entry.content == token then return entry.id end
  end
  return parts.ids[token]
end

-- Whether a file begins as GGUF does.
local function is_gguf(path)
  local file, why, code = io.open(path, "rb")
  if not file then return nil, why, code end
  local magic = file:read(4)
  file:close()
  return magic == "GGUF"
end

--- A tokenizer from a tokenizer.json, a folder that holds one, or a GGUF file.
---@param path string
---@param level? integer as of `error`, from the caller
---@return attune.Tokenizer? tokenizer nil where the file cannot be read, is malformed, or needs
---  what attune lacks
---@return string? message
---@return integer? code errno, where the file cannot be read
function text.load(path, level)
  if type(path) ~= "string" or path:find "\0" then
    local form = "path: expected a file's name, got %s"
    error(form:format(options.describe(path)), (level or 1) + 1)
  end
  local files = require "attune.util.files"
  if files.kind(path) == "directory" then path = path .. "/tokenizer.json" end
  local kind = files.kind(path)
  if kind and kind ~= "file" then return nil, path .. ": expected a file, got a " .. kind end
  local gguf, why, code = is_gguf(path)
  if gguf == nil then return nil, why, code end
  local reader = require(gguf and "attune.text.gguf_file" or "attune.text.hf_file")
  local parts, wrong = failure.catch(reader.read, path)
  if not parts then return nil, ("%s: %s"):format(path, wrong) end
  local tokenizer
  tokenizer, wrong = failure.catch(new_tokenizer, parts)
  if not tokenizer then return nil, ("%s: %s"):format(path, wrong) end
  return tokenizer
end

return text
