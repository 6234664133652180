--- A loaded model: forward, sessions and generation.
local attune = require "attune"
local checked = require "attune.model.ids"
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

--- A loaded model from its network, its configuration and its tokenizer.
function running.new(parts)
  local d = parts.description
  return setmetatable({
    network = parts.network, config = parts.config, warnings = parts.warnings, vocab = d.vocab,
    context = d.context, limit = d.limit, eos = parts.eos,
  }, running)
end

-- Rows of one length: shorter ones are padded with id 0, which no token before it attends to.
local function padded(rows)
  local tokens = 0
  for _, row in ipairs(rows) do tokens = math.max(tokens, #row) end
  for _, row in ipairs(rows) do
    for t = #row + 1, tokens do row[t] = 0 end
  end
  return tokens
end

-- Of a model with an encoder, whose rows must have one length: it attends to all of them.
local function forward_both(self, rows, decoder_ids)
  checked.check_even(rows, "ids", 3)
  if decoder_ids == nil then
    decoder_ids = {}
    for b = 1, #rows do decoder_ids[b] = {self.network.start} end
  end
  local targets = checked.rows(self, decoder_ids, "decoder_ids", 3)
  if #targets ~= #rows then
    error(("decoder_ids: expected %d rows, as ids, got %d"):format(#rows, #targets), 3)
  end
  local tokens, first = padded(targets), {}
  for b = 1, #rows do first[b] = 0 end
  local x = self.network:run(targets, {
    batch = #rows, tokens = tokens, first = first, memory = self.network:memory(rows),
  })
  return self.network:logits(x):view(#rows, tokens, self.vocab)
end

--- The logits of every token. Rows may differ in length: the logits after the end of a row mean
--- nothing. A model with an encoder (T5) takes its ids and gives the logits of decoder_ids, by
--- default of the one that starts a text.
---@param ids integer[][] from 0
---@param given? {decoder_ids?: integer[][], summaries?: attune.SummaryName[]} summaries: where
---  attention looks, see attune.attention; of a model without encoder
---@return attune.Tensor logits [batch, tokens, vocab]
---@return attune.Summaries[]? summaries of each block, with the option of that name. In columns the
---  tokens after the end of a shorter row count too
function running:forward(ids, given)
  local o = options.read(given, {"decoder_ids", "summaries"}, 2)
  local rows = checked.rows(self, ids, "ids", 2)
  if self.network.encoder then
    if o.summaries ~= nil then error("summaries: expected nil for a model with an encoder", 2) end
    return forward_both(self, rows, o.decoder_ids)
  end
  if o.decoder_ids ~= nil then error("decoder_ids: expected nil for a model without encoder", 2) end
  local tokens = padded(rows)
  local first = {}
  for b = 1, #rows do first[b] = 0 end
  local at = self.network.switches_at
  local summaries_of = o.summaries ~= nil and {} or nil
  local x = self.network:run(rows, {
    batch = #rows, tokens = tokens, first = first, long = at ~= nil and tokens > at,
    summaries = o.summaries, summaries_of = summaries_of,
  })
  local logits = self.network:logits(x):view(#rows, tokens, self.vocab)
  if summaries_of then return logits, summaries_of end
  return logits
end

--- A session: caches to which tokens are appended. encoder_ids: what the encoder of T5 reads; the
--- tokens are then those of the decoder.
---@param given? {batch?: integer, context?: integer, cache?: string, encoder_ids?: integer[][]}
---@return attune.model.Session
function running:session(given)
  local o = options.read(given, {"batch", "context", "cache", "encoder_ids"}, 2)
  local s = session.new(self, o, 2)
  return s
end

local known = {
  "tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "stop", "cache",
  "decoder_ids",
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
-- source: what the encoder reads; nil: there is none.
local function continue(self, row, source, o, stop, sampler, index)
  local s = session.new(self, {
    context = #row + o.tokens, cache = o.cache, grows = true, encoder_ids = source and {source},
  }, 3)
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

-- What the decoder starts with.
local function decoder_rows(self, rows, given)
  if given ~= nil then return checked.rows(self, given, "decoder_ids", 3) end
  local out = {}
  for b = 1, #rows do out[b] = {self.network.start} end
  return out
end

--- Continues each row. Greedy at temperature 0, the default. With an encoder (T5), ids are what it
--- reads, and the result is the decoder's ids, which start with decoder_ids.
---@param ids integer[][] from 0
---@param given? {tokens?: integer, temperature?: number, top_k?: integer, top_p?: number,
---  min_p?: number, repetition_penalty?: number, seed?: integer, stop?: integer[], cache?: string}
---  stop: by default the model's ids of the end of a text; {} never stops
---@return integer[][] prompt and continuation
function running:generate(ids, given)
  local o = options.read(given, known, 2)
  local rows, sources = checked.rows(self, ids, "ids", 2), {}
  if self.network.encoder then rows, sources = decoder_rows(self, rows, o.decoder_ids), rows end
  o.tokens = o.tokens == nil and 24 or o.tokens
  if math.type(o.tokens) ~= "integer" or o.tokens < 1 then
    error(("tokens: expected at least 1, got %s"):format(options.describe(o.tokens)), 2)
  end
  local stop = stop_ids(self, o.stop, 2)
  local sampler = sampling.new(o, 2)
  local out = {}
  attune.no_grad(function()
    for b, row in ipairs(rows) do out[b] = continue(self, row, sources[b], o, stop, sampler, b) end
  end)
  return out
end

return running
