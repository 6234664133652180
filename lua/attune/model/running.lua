--- A loaded model: forward, sessions and generation.
local attune = require "attune"
local options = require "attune.util.options"
local sampling = require "attune.model.sampling"
local session = require "attune.model.session"

---@class attune.model.Model
---@field config table config.json as it was read
---@field warnings string[] unknown fields of the configuration, with {unknown = "warn"}
---@field vocab integer
---@field context integer tokens that the configuration names; a cache may have more
---@field tokenizer? attune.Tokenizer nil where the folder has no tokenizer.json
local running = {}

-- The tokenizer is read when it is first asked for.
function running.__index(self, key)
  if key == "tokenizer" and rawget(self, "tokenizer_path") then
    self.tokenizer = assert(require "attune.text".load(self.tokenizer_path))
    return self.tokenizer
  end
  return running[key]
end

function running.new(parts)
  local d = parts.description
  return setmetatable({
    network = parts.network, config = parts.config, warnings = parts.warnings, vocab = d.vocab,
    context = d.context, limit = d.limit, eos = parts.eos,
  }, running)
end

local function is_id(self, id) return math.type(id) == "integer" and id >= 0 and id < self.vocab end

-- A copy of rows of ids, checked. Levels as of `error`, from the caller.
local function check_rows(self, ids, name, level)
  level = level + 1
  if type(ids) ~= "table" or type(rawget(ids, 1)) ~= "table" then
    error(("%s: expected rows of token ids such as {{1, 2}}, got %s"):format(
      name, options.describe(ids)), level)
  end
  local rows = {}
  for b = 1, rawlen(ids) do
    local row = rawget(ids, b)
    if type(row) ~= "table" or rawlen(row) == 0 then
      error(("%s: expected a list of ids as row %d, got %s"):format(
        name, b, type(row) == "table" and "an empty one" or options.describe(row)), level)
    end
    rows[b] = {}
    for t = 1, rawlen(row) do
      local id = rawget(row, t)
      if not is_id(self, id) then
        error(("%s: expected ids from 0 to %d, got %s"):format(
          name, self.vocab - 1, options.describe(id)), level)
      end
      rows[b][t] = id
    end
    if self.limit and #rows[b] > self.limit then
      error(("%s: expected at most %d tokens, which the model has positions for, got %d"):format(
        name, self.limit, #rows[b]), level)
    end
  end
  return rows
end
running.check_rows = check_rows

-- Rows of one length: shorter ones are padded with id 0, which no token before it attends to.
local function padded(rows)
  local tokens = 0
  for _, row in ipairs(rows) do tokens = math.max(tokens, #row) end
  for _, row in ipairs(rows) do
    for t = #row + 1, tokens do row[t] = 0 end
  end
  return tokens
end

--- The logits of every token. Rows may differ in length: the logits after the end of a row mean
--- nothing.
---@param ids integer[][] from 0
---@return attune.Tensor [batch, tokens, vocab]
function running:forward(ids, given)
  options.read(given, {}, 2)
  local rows = check_rows(self, ids, "ids", 2)
  local tokens = padded(rows)
  local first = {}
  for b = 1, #rows do first[b] = 0 end
  local at = self.network.switches_at
  local x = self.network:run(rows, {
    batch = #rows, tokens = tokens, first = first, long = at ~= nil and tokens > at,
  })
  return self.network:logits(x):view(#rows, tokens, self.vocab)
end

--- A session: caches to which tokens are appended.
---@param given? {batch?: integer, context?: integer, cache?: string}
---@return attune.model.Session
function running:session(given)
  local o = options.read(given, {"batch", "context", "cache"}, 2)
  local s = session.new(self, o, 2)
  return s
end

local known = {
  "tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "stop", "cache",
}

local function stop_ids(self, given, level)
  local list = given
  if given == nil then list = type(self.eos) == "table" and self.eos or {self.eos} end
  if type(list) ~= "table" then
    error(("stop: expected a list of ids, got %s"):format(options.describe(list)), level + 1)
  end
  local stop = {}
  for i = 1, rawlen(list) do stop[rawget(list, i)] = true end
  return stop
end

-- One row after the other, each with its own cache: rows differ in length and in where they stop.
local function continue(self, row, o, stop, sampler, index)
  local s = session.new(self, {context = #row + o.tokens, cache = o.cache, grows = true}, 3)
  local ids = table.move(row, 1, #row, 1, {})
  local logits = s:last(ids)
  for step = 1, o.tokens do
    local id = sampler:next(logits, ids, index, step)
    ids[#ids + 1] = id
    if stop[id] or step == o.tokens then break end
    logits = s:last {id}
  end
  s:close()
  return ids
end

--- Continues each row. Greedy at temperature 0, the default.
---@param ids integer[][] from 0
---@param given? {tokens?: integer, temperature?: number, top_k?: integer, top_p?: number,
---  min_p?: number, repetition_penalty?: number, seed?: integer, stop?: integer[], cache?: string}
---  stop: by default the model's ids of the end of a text; {} never stops
---@return integer[][] prompt and continuation
function running:generate(ids, given)
  local o = options.read(given, known, 2)
  local rows = check_rows(self, ids, "ids", 2)
  o.tokens = o.tokens == nil and 24 or o.tokens
  if math.type(o.tokens) ~= "integer" or o.tokens < 1 then
    error(("tokens: expected at least 1, got %s"):format(options.describe(o.tokens)), 2)
  end
  local stop = stop_ids(self, o.stop, 2)
  local sampler = sampling.new(o, 2)
  local out = {}
  attune.no_grad(function()
    for b, row in ipairs(rows) do out[b] = continue(self, row, o, stop, sampler, b) end
  end)
  return out
end

return running
