--- A session keeps the keys and values of the tokens so far, one cache per block.
local attune = require "attune"
local checked = require "attune.model.ids"
local core = require "attune.core"
local options = require "attune.util.options"

---@class attune.model.Session
---@field length integer tokens appended; of rows of different lengths, those of the longest
---@field nbytes integer that its caches take
local session = {}
session.__index = session

-- Tokens per call of the decoder. A cache that is a ring takes at most 64 queries.
local chunk_of_rings, chunk = 64, 256

local dtypes = {f32 = true, bf16 = true, f16 = true, i8 = true}

local function dtype_of(model, given, level)
  local dtype = given == nil and (model.cache or "f32") or given
  if type(dtype) ~= "string" or not dtypes[dtype] then
    error(("cache: expected f32, bf16, f16 or i8, got %s"):format(options.describe(dtype)),
      level + 1)
  end
  return dtype
end

--- The tokens that a cache can hold at most.
session.max_tokens = 1 << 40

local function count_of(value, name, level)
  if math.type(value) ~= "integer" or value < 1 or value > session.max_tokens then
    error(("%s: expected an integer from 1 to 2^40, got %s"):format(
      name, options.describe(value)), level + 1)
  end
  return value
end

-- What the encoder reads, as checked rows; nil for a model without one.
local function sources_of(model, given, batch, level)
  level = level + 1
  if not model.network.encoder then
    if given ~= nil then error("encoder_ids: expected nil for a model without encoder", level) end
    return nil
  end
  local sources = checked.rows(model, given, "encoder_ids", level)
  checked.check_even(sources, "encoder_ids", level)
  if #sources ~= batch then
    error(("encoder_ids: expected %d rows, got %d"):format(batch, #sources), level)
  end
  return sources
end

--- Raises where session.new would refuse these options.
---@return {batch: integer, context: integer, cache: string, sources?: integer[][]}
function session.check(model, o, level)
  level = level + 1
  if model.bidirectional then
    error("expected a causal model, got one whose tokens attend to later ones "
      .. "(use_bidirectional_attention): it has forward, but no session, generate or loss", level)
  end
  local batch = count_of(o.batch == nil and 1 or o.batch, "batch", level)
  local context = count_of(o.context == nil and model.context or o.context, "context", level)
  if model.limit and context > model.limit then
    error(("context: expected at most %d tokens, which the model has positions for, got %d"):format(
      model.limit, context), level)
  end
  return {
    batch = batch, context = context, cache = dtype_of(model, o.cache, level),
    sources = sources_of(model, o.encoder_ids, batch, level),
  }
end

--- Of a model, with {batch, context, cache, encoder_ids}. grows: the context is room, and not known
--- to be used.
function session.new(model, o, level)
  local c = session.check(model, o, level + 1)
  local self = setmetatable({
    model = model, batch = c.batch, context = c.context, length = 0, highest = 0, collect_at = 0,
    caches = model.network:caches {batch = c.batch, context = c.context, dtype = c.cache},
  }, session)
  local at = model.network.switches_at
  local is_known = o.context ~= nil and not o.grows
  self.switches_at, self.long = at, at ~= nil and is_known and c.context > at
  if at and not self.long then self.rows = {} end
  self.memory = c.sources and model.network:memory(c.sources)
  self.chunk, self.nbytes = chunk, 0
  for _, cache in pairs(self.caches) do
    if cache.window then self.chunk = chunk_of_rings end
    self.nbytes = self.nbytes + cache.nbytes
  end
  return self
end

local function piece_of(rows, first, last)
  local piece = {}
  for b, row in ipairs(rows) do piece[b] = table.move(row, first, last, 1, {}) end
  return piece
end

-- Handles of tensors are garbage, 170 KiB per token of a model of 30 layers. Lua would let them
-- become as large as all that lives, which is megabytes with a tokenizer, and they split up the
-- memory that closed tensors leave. So garbage is collected once it is 2 MiB, or a quarter of what
-- lives.
local max_garbage = 2048 -- KiB

-- A prompt of at least this many tokens leaves blocks that a token at a time does not need: as many
-- megabytes as decoding adds. Zeroed pages cost less than 1% of such a prompt.
local long_prompt = 64

local function collect(self)
  if not collectgarbage "isrunning" then return end
  if collectgarbage "count" > self.collect_at then
    collectgarbage()
    local live = collectgarbage "count"
    self.collect_at = live + math.max(max_garbage, live / 4)
  end
end

-- An append that failed may have left tokens in some of the caches.
local function remove_leftovers(self)
  for _, cache in pairs(self.caches) do
    if cache.length > self.length then cache:truncate(self.length) end
  end
end

-- Runs the decoder over rows of one length and hands the stream of each piece to `with`, and with
-- `wanted`, names of summaries, those of each block.
local function run_pieces(self, rows, with, wanted)
  local tokens = #rows[1]
  for at = 1, tokens, self.chunk do
    local n = math.min(self.chunk, tokens - at + 1)
    local first = {}
    for b = 1, self.batch do first[b] = self.length end
    local summaries = wanted and {}
    self.highest = math.max(self.highest, self.length + n)
    local x = self.model.network:run(piece_of(rows, at, at + n - 1), {
      batch = self.batch, tokens = n, first = first, caches = self.caches,
      long = self.long, memory = self.memory, summaries = wanted, summaries_of = summaries,
    })
    self.length = self.length + n
    with(x, n, summaries)
    x:close()
    collect(self)
  end
  if tokens >= long_prompt then core._trim() end
end

-- LongRoPE rotates all tokens of a text that is longer than the trained length in another way. When
-- a session that did not know its length crosses that one, its keys are computed again.
local function rotate_again(self, long)
  local tokens = self.length
  self.long, self.length, self.highest = long, 0, 0
  for _, cache in pairs(self.caches) do cache:reset() end
  if tokens > 0 then run_pieces(self, piece_of(self.rows, 1, tokens), function() end) end
end

-- The tokens so far and those of rows, in self.rows.
local function lengthen(self, rows)
  local tokens = self.length + #rows[1]
  for b, row in ipairs(rows) do
    local all = self.rows[b] or {}
    for i = #all, self.length + 1, -1 do all[i] = nil end
    self.rows[b] = table.move(row, 1, #row, self.length + 1, all)
  end
  local long = tokens > self.switches_at
  if long ~= self.long then rotate_again(self, long) end
end

local function run(self, rows, with, wanted)
  remove_leftovers(self)
  if self.rows then lengthen(self, rows) end
  run_pieces(self, rows, with, wanted)
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

-- The columns of two pieces: the earlier one lacks the keys of the later one.
local function added_columns(a, b)
  local batch, heads, keys = table.unpack(a.shape)
  local more = b.shape[3] - keys
  return b + attune.cat({a, attune.zeros({batch, heads, more}, {dtype = a.dtype})}, 3)
end

-- The summaries of a block over all pieces.
local function join_summaries(all, piece)
  for i, block in pairs(piece) do
    all[i] = all[i] or {}
    for name, t in pairs(block) do
      local before = all[i][name]
      if not before then
        all[i][name] = t
      elseif name == "columns" then
        all[i][name] = added_columns(before, t)
      else
        all[i][name] = attune.cat({before, t}, 3)
      end
    end
  end
end

--- Appends tokens: a row of ids per batch row; for one row the ids alone will do. An append that
--- fails, for want of memory for instance, may have appended a part of the tokens: see `length`.
---@param ids integer[]|integer[][]
---@param given? {summaries?: attune.SummaryName[]} where attention looks, see attune.attention
---@return attune.Tensor logits [batch, tokens, vocab] of the tokens appended
---@return attune.Summaries[]? summaries of each block, with that option: of the tokens appended as
---  queries; columns over all tokens of the session
function session:append(ids, given)
  local o = options.read(given, {"summaries"}, 2)
  local rows = check(self, ids, 2)
  local network, tokens, done, logits = self.model.network, #rows[1], 0, nil
  local all = o.summaries ~= nil and {} or nil
  run(self, rows, function(x, n, summaries)
    local piece = network:logits(x):view(self.batch, n, self.model.vocab)
    if n == tokens then
      logits = piece
    else
      logits = logits or attune.zeros {self.batch, tokens, self.model.vocab}
      logits:slice(2, done + 1, done + n):copy(piece)
      piece:close()
    end
    done = done + n
    if all then join_summaries(all, summaries) end
  end, o.summaries)
  if all then return logits, all end
  return logits
end

--- Appends a row and hands the stream x [n, width] of each piece to `with(x, n)`.
function session:each_piece(ids, with) run(self, {ids}, with) end

-- The tokens of slots at .. at + n - 1, where rows end together and `tokens` is the longest:
-- their ids, how many each row has, and the order of slots that has each row's own ones first.
local function aligned_piece(rows, tokens, at, n)
  local piece, counts, own_first, uneven = {}, {}, {}, false
  for b, row in ipairs(rows) do
    local empty = tokens - #row
    piece[b], counts[b] = {}, math.max(0, math.min(n, at + n - 1 - empty))
    uneven = uneven or counts[b] < n
    for slot = 1, n do
      piece[b][slot] = row[at + slot - 1 - empty] or 0
      -- Own tokens are the last ones. What the cache does not take may be any slot.
      local from = math.min(n, slot + n - counts[b])
      own_first[#own_first + 1] = (b - 1) * n + from
    end
  end
  if uneven then return piece, counts, attune.tensor(own_first, {dtype = "i32"}) end
  return piece, counts
end

-- As run, for rows of different lengths, which may be empty. The stream holds the slots of all
-- rows, of which each row's own ones are the last.
local function run_uneven(self, rows, with)
  local tokens = 0
  for _, row in ipairs(rows) do tokens = math.max(tokens, #row) end
  for at = 1, tokens, self.chunk do
    local n = math.min(self.chunk, tokens - at + 1)
    local piece, counts, own_first = aligned_piece(rows, tokens, at, n)
    local first = {}
    for b = 1, self.batch do first[b] = self.lengths[b] - (n - counts[b]) end
    local x = self.model.network:run(piece, {
      batch = self.batch, tokens = n, first = first, caches = self.caches,
      counts = own_first and counts, own_first = own_first,
    })
    for b = 1, self.batch do
      self.lengths[b] = self.lengths[b] + counts[b]
      self.length = math.max(self.length, self.lengths[b])
    end
    with(x, n)
    x:close()
    collect(self)
  end
  if tokens >= long_prompt then core._trim() end
end

--- Appends rows of any lengths, which may be empty, and returns the logits [batch, vocab] of the
--- last token of each row; those of an empty row mean nothing. A session that has appended so takes
--- no other calls. Not for models whose rotation follows from the length of a text.
---@param rows integer[][]
---@return attune.Tensor
function session:last(rows)
  self.lengths = self.lengths or {}
  for b = 1, self.batch do self.lengths[b] = self.lengths[b] or self.length end
  local network, last = self.model.network, nil
  local runs = self.batch == 1 and run or run_uneven
  runs(self, rows, function(x, n)
    if last then last:close() end
    last = x:view(self.batch, n, x.shape[2]):slice(2, n, n):contiguous():view(self.batch, -1)
  end)
  local rows_of_last <close> = last
  local logits = network:logits(rows_of_last)
  return logits
end

-- The ring that refuses the most truncations; nil where none has lost a token. highest: the most
-- tokens that the session has had since it was empty.
local function strictest_ring(self)
  local strictest, fewest = nil, 0
  for _, cache in pairs(self.caches) do
    local lost = cache.window and self.highest - cache.capacity or 0
    if lost > 0 and lost + cache.window > fewest then
      strictest, fewest = cache, lost + cache.window
    end
  end
  return strictest
end

--- Keeps the first n tokens.
---@param n integer
function session:truncate(n)
  if math.type(n) ~= "integer" or n < 0 or n > self.length then
    error(("n: expected from 0 to %d tokens, got %s"):format(self.length, options.describe(n)), 2)
  end
  -- A ring may refuse, and then nothing has changed.
  local ring = strictest_ring(self)
  if ring then ring:truncate(n) end
  for _, cache in pairs(self.caches) do cache:truncate(n) end
  self.length = n
  if n == 0 then self.highest = 0 end
end

--- Frees the caches.
function session:close()
  for _, cache in pairs(self.caches) do cache:close() end
end

session.__close = session.close

return session
