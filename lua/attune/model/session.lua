--- A session keeps the keys and values of the tokens so far, one cache per block.
local checked = require "attune.model.ids"
local options = require "attune.util.options"

---@class attune.model.Session
---@field length integer tokens appended
local session = {}
session.__index = session

-- Tokens per call of the decoder. A cache that is a ring takes at most 64 queries.
local chunk_of_rings, chunk = 64, 256

local function positive(value, name, level)
  if math.type(value) ~= "integer" or value < 1 then
    error(("%s: expected an integer of at least 1, got %s"):format(name, options.describe(value)),
      level + 1)
  end
  return value
end

--- Of a model, with {batch, context, cache}. grows: the context is room, and not known to be used.
function session.new(model, o, level)
  local batch = positive(o.batch == nil and 1 or o.batch, "batch", level)
  local context = positive(o.context == nil and model.context or o.context, "context", level)
  if model.limit and context > model.limit then
    error(("context: expected at most %d tokens, which the model has positions for, got %d"):format(
      model.limit, context), level + 1)
  end
  local dtype = o.cache == nil and "f32" or o.cache
  if o.grows then o.context = nil end
  local self = setmetatable({
    model = model, batch = batch, context = context, length = 0,
    caches = model.network:caches {batch = batch, context = context, dtype = dtype},
  }, session)
  local at = model.network.switches_at
  self.switches_at, self.long = at, at ~= nil and o.context ~= nil and context > at
  if at and not self.long then self.rows = {} end
  if model.network.encoder then
    local sources = checked.rows(model, o.encoder_ids, "encoder_ids", level + 1)
    checked.check_even(sources, "encoder_ids", level + 1)
    if #sources ~= batch then
      error(("encoder_ids: expected %d rows, got %d"):format(batch, #sources), level + 1)
    end
    self.memory = model.network:memory(sources)
  elseif o.encoder_ids ~= nil then
    error("encoder_ids: expected nil for a model without encoder", level + 1)
  end
  self.chunk = chunk
  for _, cache in pairs(self.caches) do
    if cache.window then self.chunk = chunk_of_rings end
  end
  return self
end

local function piece_of(rows, first, last)
  local piece = {}
  for b, row in ipairs(rows) do piece[b] = table.move(row, first, last, 1, {}) end
  return piece
end

local run

-- LongRoPE rotates all tokens of a text that is longer than the trained length in another way. When
-- a session that did not know its length grows beyond that, its keys are computed again.
local function lengthen(self, rows)
  for b, row in ipairs(rows) do
    self.rows[b] = self.rows[b] or {}
    table.move(row, 1, #row, #self.rows[b] + 1, self.rows[b])
  end
  if #self.rows[1] <= self.switches_at then return end
  local before = self.length
  local old = piece_of(self.rows, 1, before)
  self.rows, self.long, self.length = nil, true, 0
  for _, cache in pairs(self.caches) do cache:reset() end
  if before > 0 then run(self, old, function() end) end
end

-- Runs the decoder over rows of one length and hands the stream of each piece to `with`.
function run(self, rows, with)
  if self.rows then lengthen(self, rows) end
  local tokens = #rows[1]
  for at = 1, tokens, self.chunk do
    local n = math.min(self.chunk, tokens - at + 1)
    local first = {}
    for b = 1, self.batch do first[b] = self.length end
    local x = self.model.network:run(piece_of(rows, at, at + n - 1), {
      batch = self.batch, tokens = n, first = first, caches = self.caches,
      long = self.long, memory = self.memory,
    })
    self.length = self.length + n
    with(x, n)
  end
end

local function check(self, ids, level)
  level = level + 1
  local rows = ids
  if self.batch == 1 and type(ids) == "table" and type(rawget(ids, 1)) ~= "table" then
    rows = {ids}
  end
  rows = checked.rows(self.model, rows, "ids", level)
  if #rows ~= self.batch then
    error(("ids: expected %d rows, got %d"):format(self.batch, #rows), level)
  end
  checked.check_even(rows, "ids", level)
  if self.length + #rows[1] > self.context then
    error(("ids: expected at most %d more tokens in a context of %d, got %d"):format(
      self.context - self.length, self.context, #rows[1]), level)
  end
  return rows
end

--- Appends tokens: a row of ids per batch row; for one row the ids alone will do.
---@param ids integer[]|integer[][]
---@return attune.Tensor logits [batch, tokens, vocab] of the tokens appended
function session:append(ids)
  local rows = check(self, ids, 2)
  local network, parts = self.model.network, nil
  local tokens, at = #rows[1], 0
  local joined = {}
  run(self, rows, function(x, n)
    parts = network:logits(x):view(self.batch, n, self.model.vocab)
    joined[#joined + 1] = parts
    at = at + n
  end)
  if #joined == 1 then return joined[1] end
  local core = require "attune.core"
  local all = joined[1]:transpose(2, 3)
  for i = 2, #joined do all = core._join(all, joined[i]:transpose(2, 3)) end
  all = all:transpose(2, 3):contiguous()
  assert(at == tokens)
  return all
end

--- The logits [1, vocab] of the last of the ids, without those of the others.
function session:last(ids)
  local network, last = self.model.network, nil
  run(self, {ids}, function(x, n) last = x:slice(1, n, n):contiguous() end)
  return network:logits(last)
end

--- Keeps the first n tokens.
---@param n integer
function session:truncate(n)
  if math.type(n) ~= "integer" or n < 0 or n > self.length then
    error(("n: expected from 0 to %d tokens, got %s"):format(self.length, options.describe(n)), 2)
  end
  -- A ring may refuse, and then nothing has changed.
  for _, cache in pairs(self.caches) do
    if cache.window then cache:truncate(n) end
  end
  for _, cache in pairs(self.caches) do
    if not cache.window then cache:truncate(n) end
  end
  for b, row in ipairs(self.rows or {}) do self.rows[b] = table.move(row, 1, n, 1, {}) end
  self.length = n
end

--- Frees the caches.
function session:close()
  for _, cache in pairs(self.caches) do cache:close() end
end

return session
