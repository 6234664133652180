--- A corpus: a text as token ids, by document, with its sha256.
local core = require "attune.core"
local options = require "attune.util.options"
local random = require "attune.util.random"
local text = require "attune.data.text"

---@class attune.Corpus
---@field path string
---@field kind "bytes"|"bpe"
---@field sha256 string of the whole text, also in a part of it
---@field part string "all", "train" or "validation"
---@field vocab integer the number of ids
---@field ids attune.Tensor i32 [tokens]
---@field tokens integer
---@field bytes integer what the tokens decode to
---@field documents integer
---@field starts integer[] the first token of each document, from 0
---@field merges? attune.Tensor i32 [merges, 2]
---@field token_text string[] the bytes of id 0 at index 1, and so on
local Corpus = {}
Corpus.__index = Corpus

local function list_tensor(list) return core.tensor(list, {dtype = "i64"}) end

-- The bytes of each id.
local function token_texts(merges)
  local texts = {}
  for byte = 0, 255 do texts[byte + 1] = string.char(byte) end
  for _, pair in ipairs(merges and merges:tolist() or {}) do
    texts[#texts + 1] = texts[pair[1] + 1] .. texts[pair[2] + 1]
  end
  return texts
end

-- Fills ids, starts and what follows from them.
local function encode(self, content, starts)
  if self.merges then
    local token_starts
    self.ids, token_starts = core._bpe_encode(self.merges, content, list_tensor(starts))
    self.starts = token_starts:tolist()
  else
    self.ids, self.starts = core._byte_ids(content), starts
  end
  self.bytes, self.tokens, self.documents = #content, self.ids.shape[1], #starts
  return self
end

local function read(path, separator, any_bytes, level)
  if type(path) ~= "string" or path == "" then
    error(("path: expected the name of a file or a folder, got %s"):format(
      options.describe(path)), level + 1)
  end
  if separator ~= nil and (type(separator) ~= "string" or separator == "") then
    error(("separator: expected a text of at least 1 byte, got %s"):format(
      options.describe(separator)), level + 1)
  end
  return text.read(path, separator, any_bytes)
end

local function make(kind, path, content, starts, merges)
  local self = setmetatable({
    kind = kind, path = path, sha256 = core._sha256(content), part = "all", merges = merges,
    token_text = token_texts(merges),
  }, Corpus)
  self.vocab = #self.token_text
  return encode(self, content, starts)
end

local corpus = {}

--- A text as bytes: 256 ids. A failure of a file gives nil, message, code.
---@param path string a file, or a folder whose files are documents
---@param given? {separator: string, any_bytes: boolean} separator divides a file into documents
---@return attune.Corpus?
---@return string? message
---@return string? code
function corpus.bytes(path, given)
  local o = options.read(given, {"separator", "any_bytes"}, 2)
  local content, starts, code = read(path, o.separator, o.any_bytes, 2)
  if not content then return nil, starts, code end
  return make("bytes", path, content, starts)
end

--- A text in byte-pair encoding: 256 bytes and merges learned from the same text, or from the text
--- of `like`, a corpus that was read before. Sennrich et al. 2016 (arXiv 1508.07909). The merges
--- follow from the text alone. Fewer ids than `vocab` result where no pair occurs twice any more.
---@param path string
---@param given {vocab: integer, separator: string, any_bytes: boolean, like: attune.Corpus}
---@return attune.Corpus?
---@return string? message
---@return string? code
function corpus.bpe(path, given)
  local o = options.read(given, {"vocab", "separator", "any_bytes", "like"}, 2, "options",
    "{vocab = 512}")
  local like = o.like
  if like ~= nil and (getmetatable(like) ~= Corpus or not like.merges) then
    error(("like: expected a corpus of data.bpe, got %s"):format(options.describe(like)), 2)
  end
  if not like and (math.type(o.vocab) ~= "integer" or o.vocab < 257 or o.vocab > 1 << 20) then
    error(("vocab: expected an integer from 257 to 1048576, got %s"):format(
      options.describe(o.vocab)), 2)
  end
  local content, starts, code = read(path, o.separator, o.any_bytes, 2)
  if not content then return nil, starts, code end
  local ok, merges = true, like and like.merges
  if not like then
    ok, merges = pcall(core._bpe_train, content, list_tensor(starts), o.vocab)
  end
  if not ok then
    if not merges:find "occurs twice" then error(merges, 2) end
    return nil, path .. ": " .. merges:gsub("^.-text: ", ""), "EFORMAT"
  end
  return make("bpe", path, content, starts, merges)
end

--- The ids of a text.
---@param content string
---@return integer[] ids from 0
function Corpus:encode(content)
  if type(content) ~= "string" then
    error(("text: expected a string, got %s"):format(options.describe(content)), 2)
  end
  if content == "" then return {} end
  if not self.merges then return core._byte_ids(content):tolist() end
  return (core._bpe_encode(self.merges, content, list_tensor {0})):tolist()
end

--- The text of ids.
---@param ids integer[]|attune.Tensor
---@return string
function Corpus:decode(ids)
  if core._kind(ids) == "tensor" then ids = ids:tolist() end
  if type(ids) ~= "table" then
    error(("ids: expected a list of ids, got %s"):format(options.describe(ids)), 2)
  end
  local parts = {}
  for k = 1, rawlen(ids) do
    local id = rawget(ids, k)
    parts[k] = math.type(id) == "integer" and self.token_text[id + 1]
    if not parts[k] then
      error(("ids: expected integers from 0 to %d, got %s as number %d"):format(
        self.vocab - 1, options.describe(id), k), 2)
    end
  end
  return table.concat(parts)
end

--- Bits per byte of a loss in nats: nats / ln 2 / bytes.
---@param nats number the sum over the tokens
---@param bytes? integer that the tokens decode to; by default those of the corpus
---@return number
function Corpus:bits_per_byte(nats, bytes)
  return nats / math.log(2) / (bytes or self.bytes)
end

--- The number of bytes that ids decode to.
---@param ids attune.Tensor|integer[] of any shape
---@param weights? attune.Tensor of the same shape; ids of weight 0 do not count
---@return integer
function Corpus:count_bytes(ids, weights)
  local list = core._kind(ids) == "tensor" and ids:contiguous():view(-1):tolist() or ids
  local counts = weights and weights:contiguous():view(-1):tolist()
  local bytes = 0
  for k, id in ipairs(list) do
    if not counts or counts[k] ~= 0 then bytes = bytes + #self.token_text[id + 1] end
  end
  return bytes
end

-- ---- parts ------------------------------------------------------------------------------------

-- The tokens of the documents, in the order of their numbers, as a corpus.
local function part(self, name, chosen)
  local firsts, counts, starts, tokens = {}, {}, {}, 0
  table.sort(chosen)
  for k, d in ipairs(chosen) do
    firsts[k], starts[k] = self.starts[d], tokens
    counts[k] = (self.starts[d + 1] or self.tokens) - self.starts[d]
    tokens = tokens + counts[k]
  end
  local joined = core._token_ranges(self.ids, list_tensor(firsts), list_tensor(counts))
  local new = {}
  for key, value in next, self do new[key] = value end
  new.ids, new.starts, new.tokens, new.documents, new.part = joined, starts, tokens, #chosen, name
  new.bytes = self.merges and self:count_bytes(joined) or tokens
  return setmetatable(new, Corpus)
end

-- A corpus of one document, in two at a token.
local function cut(self, fraction)
  local last = math.tointeger(self.tokens - math.max(1, math.floor(self.tokens * fraction + 0.5)))
  if last < 1 then
    error(("validation: expected a corpus of at least 2 tokens, got %d"):format(self.tokens), 3)
  end
  local two = {}
  for key, value in next, self do two[key] = value end
  two.starts, two.documents = {0, last}, 2
  setmetatable(two, Corpus)
  return part(two, "train", {1}), part(two, "validation", {2})
end

--- Two parts, by document: documents are drawn until validation has its fraction of the tokens. A
--- corpus of one document is cut in two, and its end is for validation. Both parts keep the sha256
--- of the whole text.
---@param given? {validation: number, seed: integer} 0.1 and 1 by default
---@return attune.Corpus train
---@return attune.Corpus validation
function Corpus:split(given)
  local o = options.read(given, {"validation", "seed"}, 2)
  local fraction, seed = o.validation or 0.1, o.seed or 1
  if type(fraction) ~= "number" or not (fraction > 0 and fraction < 1) then
    error(("validation: expected a fraction between 0 and 1, got %s"):format(
      options.describe(fraction)), 2)
  end
  if math.type(seed) ~= "integer" then
    error(("seed: expected an integer, got %s"):format(options.describe(seed)), 2)
  end
  if self.documents == 1 then return cut(self, fraction) end
  local order, of_train, of_validation, tokens = {}, {}, {}, 0
  for d = 1, self.documents do order[d] = d end
  random.stream(seed):shuffle(order)
  for k, d in ipairs(order) do
    local is_validation = tokens < fraction * self.tokens and k < #order
    if is_validation then tokens = tokens + (self.starts[d + 1] or self.tokens) - self.starts[d] end
    table.insert(is_validation and of_validation or of_train, d)
  end
  return part(self, "train", of_train), part(self, "validation", of_validation)
end

--- For messages and reports.
function Corpus:__tostring()
  return ("corpus %s (%s): %d tokens, %d bytes, %d documents, %d ids, sha256 %s"):format(
    self.path, self.part, self.tokens, self.bytes, self.documents, self.vocab,
    self.sha256:sub(1, 12))
end

--- Whether a value is a corpus.
function corpus.is(x) return getmetatable(x) == Corpus end

return corpus
