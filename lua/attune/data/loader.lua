--- Batches of a corpus: rows of ids, the ids that follow, and weights. No row predicts across the
--- border of two documents: the first token of a document has weight 0 as a target.
---
--- A loader's state is the number of batches that it has given, so that a run that goes on draws
--- what an uninterrupted one would have drawn.
local core = require "attune.core"
local corpus = require "attune.data.corpus"
local options = require "attune.util.options"
local random = require "attune.util.random"
local rows_of = require "attune.data.rows"
local state = require "attune.data.state"

local known = {
  "corpus", "tokens", "batch", "seed", "order", "packing", "mask", "positions",
}
local choices = {
  order = {"shuffled", "random", "sequential"},
  packing = {"stream", "packed", "separate"},
  positions = {"running", "restart"},
}

---@class attune.Loader
---@field corpus attune.Corpus
---@field tokens integer of a row
---@field batch integer rows of a batch
---@field rows integer of one epoch
---@field waste number the part of the tokens of all rows that belong to no document
local Loader = {}
Loader.__index = Loader

local function choice(o, name, level)
  local value = o[name] == nil and choices[name][1] or o[name]
  for _, one in ipairs(choices[name]) do
    if value == one then return value end
  end
  error(("%s: expected one of %s, got %s"):format(
    name, table.concat(choices[name], ", "), options.describe(value)), level + 1)
end

local function count(o, name, level)
  local value = o[name]
  if math.type(value) ~= "integer" or value < 1 then
    error(("%s: expected an integer of at least 1, got %s"):format(
      name, options.describe(value)), level + 1)
  end
  return value
end

-- Checks the options and fills the loader.
local function read(given, level)
  local o = options.read(given, known, level + 1, "options",
    "{corpus = , tokens = 128, batch = 32}")
  local self = setmetatable({}, Loader)
  if not corpus.is(o.corpus) then
    error(("corpus: expected what data.bytes or data.bpe gives, got %s"):format(
      options.describe(o.corpus)), level + 1)
  end
  self.corpus = o.corpus
  self.tokens, self.batch = count(o, "tokens", level + 1), count(o, "batch", level + 1)
  self.seed = o.seed == nil and 1 or o.seed
  if math.type(self.seed) ~= "integer" then
    error(("seed: expected an integer, got %s"):format(options.describe(o.seed)), level + 1)
  end
  for name in pairs(choices) do self[name] = choice(o, name, level + 1) end
  if o.mask ~= nil and type(o.mask) ~= "boolean" then
    error(("mask: expected true or false, got %s"):format(options.describe(o.mask)), level + 1)
  end
  self.mask = o.mask or false
  return self
end

--- Batches of rows of `tokens` ids.
---
--- packing: "stream" cuts the text, documents one after another, into rows; "packed" puts whole
--- documents, longest first, into the first row that has room, and cuts only documents longer than
--- a row; "separate" gives each document rows of its own, filled up with id 0.
---
--- order: "shuffled" draws each row once per epoch; "random" draws rows that start anywhere
--- (packing "stream" only), with replacement; "sequential" takes them in order.
---
--- mask = true adds {lengths = ..} of the documents of each row, for attention, to what next()
--- returns, and positions = "restart" adds {positions = ..} that start at 0 in each document.
---@param given {corpus: attune.Corpus, tokens: integer, batch: integer, seed: integer,
--- order: string, packing: string, mask: boolean, positions: string}
---@return attune.Loader
local function loader(given)
  local self = read(given, 2)
  if self.order == "random" and self.packing ~= "stream" then
    error(("order: expected packing \"stream\" with random rows, got '%s'"):format(self.packing), 2)
  end
  if self.corpus.tokens <= self.tokens and self.packing == "stream" then
    error(("tokens: expected less than the %d tokens of the corpus, got %d"):format(
      self.corpus.tokens, self.tokens), 2)
  end
  self.plan = rows_of[self.packing](self.corpus, self.tokens)
  self.rows, self.waste = self.plan.rows, self.plan.waste
  if self.order ~= "random" and self.batch > self.rows then
    error(("batch: expected at most the %d rows of %d tokens that the data has, got %d"):format(
      self.rows, self.tokens, self.batch), 2)
  end
  self.batches = 0
  self.epoch_batches = self.rows // self.batch
  return self
end

-- The numbers of the rows of batch n, from 0.
local function numbers(self, n)
  if self.order == "random" then
    local draw, list = random.stream(self.seed, n), {}
    for k = 1, self.batch do list[k] = draw:up_to(self.corpus.tokens - self.tokens) - 1 end
    return list
  end
  local epoch, first = n // self.epoch_batches, n % self.epoch_batches * self.batch
  if self.epoch ~= epoch then
    self.epoch, self.permutation = epoch, {}
    for k = 1, self.rows do self.permutation[k] = k end
    if self.order == "shuffled" then
      random.stream(self.seed, epoch):shuffle(self.permutation)
    end
  end
  return table.move(self.permutation, first + 1, first + self.batch, 1, {})
end

-- What the model is told about documents, besides ids.
local function context(self, lengths)
  if not lengths then return nil end
  local info
  if self.mask then info = {lengths = lengths} end
  if self.positions == "restart" then
    info = info or {}
    local positions = {}
    for r, list in ipairs(lengths) do
      local row = {}
      for _, length in ipairs(list) do
        for p = 0, length - 1 do row[#row + 1] = p end
      end
      positions[r] = row
    end
    info.positions = core.tensor(positions, {dtype = "i64"})
  end
  return info
end

local function make(self, list)
  local ids, targets, weights, lengths
  if self.order == "random" then
    ids, targets, weights, lengths = self.plan:at(list)
  else
    ids, targets, weights, lengths = self.plan:take(list)
  end
  return ids, targets, weights, context(self, lengths)
end

--- The next batch.
---@return attune.Tensor ids i64 [batch, tokens]
---@return attune.Tensor targets i64 [batch, tokens]: the id after each id
---@return attune.Tensor? weights f32 [batch, tokens]: 0 where no target follows; nil: all are 1
---@return {lengths: integer[][], positions: attune.Tensor}? info
function Loader:next()
  local list = numbers(self, self.batches)
  self.batches = self.batches + 1
  return make(self, list)
end

--- Iterates over one epoch in order, the last batch possibly smaller: ids, targets, weights, info.
---@param max_batches? integer
function Loader:each(max_batches)
  local first = 1
  local given = 0
  return function()
    if first > self.rows or given == max_batches then return nil end
    local list = {}
    for row = first, math.min(first + self.batch - 1, self.rows) do list[#list + 1] = row end
    first, given = first + self.batch, given + 1
    local ids, targets, weights, lengths = self.plan:take(list)
    return ids, targets, weights, context(self, lengths)
  end
end

-- What a state says of the loader, since the batches follow from it. A checkpoint of an earlier
-- version has batches and sha256 only.
local function identity(self)
  return {
    sha256 = self.corpus.sha256, documents = self.corpus.documents,
    corpus_tokens = self.corpus.tokens, tokens = self.tokens, batch = self.batch,
    seed = self.seed, order = self.order, packing = self.packing,
  }
end

--- What a checkpoint keeps: the number of batches, and what they follow from.
---@return {batches: integer, sha256: string, documents: integer, corpus_tokens: integer,
--- tokens: integer, batch: integer, seed: integer, order: string, packing: string}
function Loader:state()
  local own = identity(self)
  own.batches = self.batches
  return own
end

--- Raises an error where load_state would.
function Loader:check_state(given) state.read(given, "batches", identity(self), "loader") end

--- Goes on where another loader of the same corpus and options stopped.
---@param given table of state(); fields other than batches may be absent
function Loader:load_state(given)
  self.batches = state.read(given, "batches", identity(self), "loader")
end

return loader
