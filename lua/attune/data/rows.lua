--- Rows of tokens that a loader draws from a corpus, in three kinds of packing. A plan has `rows`,
--- `waste`, and take(numbers) -> ids, targets, weights, lengths.
local core = require "attune.core"
local first_fit = require "attune.data.first_fit"

local function list_tensor(list, dtype) return core.tensor(list, {dtype = dtype or "i64"}) end

-- ---- the text cut into rows -------------------------------------------------------------------

local Stream = {}
Stream.__index = Stream

-- The index in starts of the document that holds the token at `offset`, from 0.
local function document_at(starts, offset)
  local low, high = 1, #starts
  while low < high do
    local middle = (low + high + 1) // 2
    if starts[middle] <= offset then low = middle else high = middle - 1 end
  end
  return low
end

-- Weights and document lengths of a row that starts at `offset`.
local function borders(self, offset)
  local starts, tokens = self.corpus.starts, self.tokens
  local weights, lengths, last = {}, {}, offset
  for k = 1, tokens do weights[k] = 1 end
  for d = document_at(starts, offset) + 1, #starts do
    local start = starts[d]
    if start > offset + tokens then break end
    weights[start - offset] = 0 -- the target of the token before
    if start < offset + tokens and start > last then
      lengths[#lengths + 1] = start - last
      last = start
    end
  end
  lengths[#lengths + 1] = offset + tokens - last
  return weights, lengths
end

--- Rows that start at any offset, from 0.
function Stream:at(offsets)
  local after = {}
  for k, offset in ipairs(offsets) do after[k] = offset + 1 end
  local ids = core._token_windows(self.corpus.ids, list_tensor(offsets), self.tokens)
  local targets = core._token_windows(self.corpus.ids, list_tensor(after), self.tokens)
  if self.corpus.documents == 1 then return ids, targets end
  local weights, lengths = {}, {}
  for k, offset in ipairs(offsets) do weights[k], lengths[k] = borders(self, offset) end
  return ids, targets, list_tensor(weights, "f32"), lengths
end

function Stream:take(numbers)
  local offsets = {}
  for k, row in ipairs(numbers) do offsets[k] = (row - 1) * self.tokens end
  return self:at(offsets)
end

local function stream(corpus, tokens)
  return setmetatable(
    {corpus = corpus, tokens = tokens, rows = (corpus.tokens - 1) // tokens, waste = 0}, Stream)
end

-- ---- documents in rows ------------------------------------------------------------------------

local Pieces = {}
Pieces.__index = Pieces

-- Documents cut into pieces of at most `tokens`. A document of one token has nothing to predict.
local function cut(corpus, tokens)
  local pieces = {}
  for d, first in ipairs(corpus.starts) do
    local stop = corpus.starts[d + 1] or corpus.tokens
    local offset = first
    while stop - offset > 1 do
      local length = math.min(tokens, stop - offset)
      pieces[#pieces + 1] = {offset = offset, length = length, is_end = offset + length == stop}
      offset = offset + length
    end
  end
  if #pieces == 0 then
    error("corpus: expected a document of at least 2 tokens, got none", 4)
  end
  return pieces
end

-- Appends the ids, targets and weights of a piece to a row. The last token of a document predicts
-- nothing.
local function append(self, piece, row)
  local count, length = #row.ids, piece.length
  local last = piece.offset + length + (piece.is_end and 0 or 1)
  local list = self.corpus.ids:slice(1, piece.offset + 1, last):tolist()
  for k = 1, length do
    row.ids[count + k] = list[k]
    row.targets[count + k] = list[k + 1] or 0
    row.weights[count + k] = list[k + 1] and 1 or 0
  end
  row.lengths[#row.lengths + 1] = length
end

function Pieces:take(numbers)
  local ids, targets, weights, lengths = {}, {}, {}, {}
  for k, number in ipairs(numbers) do
    local row = {ids = {}, targets = {}, weights = {}, lengths = {}}
    for _, piece in ipairs(self.list[number]) do append(self, self.pieces[piece], row) end
    local used = #row.ids
    for p = used + 1, self.tokens do row.ids[p], row.targets[p], row.weights[p] = 0, 0, 0 end
    if used < self.tokens then row.lengths[#row.lengths + 1] = self.tokens - used end
    ids[k], targets[k], weights[k], lengths[k] = row.ids, row.targets, row.weights, row.lengths
  end
  return list_tensor(ids), list_tensor(targets), list_tensor(weights, "f32"), lengths
end

local function plan(corpus, tokens, pieces, list)
  local used = 0
  for _, piece in ipairs(pieces) do used = used + piece.length end
  return setmetatable({
    corpus = corpus, tokens = tokens, pieces = pieces, list = list, rows = #list,
    waste = 1 - used / (#list * tokens),
  }, Pieces)
end

local function separate(corpus, tokens)
  local pieces, list = cut(corpus, tokens), {}
  for n = 1, #pieces do list[n] = {n} end
  return plan(corpus, tokens, pieces, list)
end

local function packed(corpus, tokens)
  local pieces, sizes = cut(corpus, tokens), {}
  for n, piece in ipairs(pieces) do sizes[n] = piece.length end
  return plan(corpus, tokens, pieces, (first_fit(sizes, tokens)))
end

return {stream = stream, separate = separate, packed = packed}
