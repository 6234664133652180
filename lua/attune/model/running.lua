--- A loaded model: forward, sessions, generation, loss, and the same model with other attention.
local checked = require "attune.model.ids"
local generation = require "attune.model.generation"
local loss = require "attune.model.loss"
local options = require "attune.util.options"
local session = require "attune.model.session"

---@class attune.model.Model
---@field config table config.json as it was read
---@field warnings string[] unknown fields of the configuration, with {unknown = "warn"}
---@field vocab integer
---@field eos? integer|integer[] what ends a text: of generation_config.json, else of config.json
---@field context integer tokens that the configuration names; a cache may have more
---@field tokenizer? attune.Tokenizer nil where the folder has no tokenizer.json
local running = {}

-- The tokenizer is read when it is first asked for.
function running.__index(self, key)
  if key == "tokenizer" and rawget(self, "tokenizer_path") then
    local tokenizer, message = require "attune.text".load(self.tokenizer_path)
    if not tokenizer then error(message, 2) end
    self.tokenizer = tokenizer
    collectgarbage() -- what the file was made of: megabytes in tens of thousands of texts
    return self.tokenizer
  end
  return running[key]
end

--- A loaded model from its network, its configuration and its tokenizer.
function running.new(parts)
  local d = parts.description
  return setmetatable({
    network = parts.network, config = parts.config, warnings = parts.warnings, vocab = d.vocab,
    context = d.context, limit = d.limit, eos = parts.eos, bidirectional = d.bidirectional,
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
local function forward_both(self, rows, decoder_ids, level)
  level = level + 1
  checked.check_even(rows, "ids", level)
  if decoder_ids == nil then
    decoder_ids = {}
    for b = 1, #rows do decoder_ids[b] = {self.network.start} end
  end
  local targets = checked.rows(self, decoder_ids, "decoder_ids", level)
  checked.check_count(targets, #rows, "decoder_ids", level)
  local tokens, first = padded(targets), {}
  for b = 1, #rows do first[b] = 0 end
  local x = self.network:run(targets, {
    batch = #rows, tokens = tokens, first = first, memory = self.network:memory(rows),
  })
  return self.network:logits(x):view(#rows, tokens, self.vocab)
end

--- The logits of every token. Rows may differ in length: the logits after the end of a row mean
--- nothing. A rotation that follows from the length of a text (dynamic, longrope) is that of the
--- longest row, as in transformers. Where tokens attend to later ones (Gemma 3 with
--- use_bidirectional_attention) rows have one length. A model with an encoder (T5) takes its ids
--- and gives the logits of decoder_ids, by default of the one that starts a text.
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
    local logits = forward_both(self, rows, o.decoder_ids, 2)
    return logits
  end
  if o.decoder_ids ~= nil then error("decoder_ids: expected nil for a model without encoder", 2) end
  if self.bidirectional then checked.check_even(rows, "ids", 2) end
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

--- Continues each row. Greedy at temperature 0, the default. With an encoder (T5), ids are what it
--- reads, and the result is the decoder's ids, which start with decoder_ids. Rows may differ in
--- length: each row's ids are those that it has alone.
---@param ids integer[][] from 0
---@param given? attune.model.Sampling see attune.model.generation
---@return integer[][] prompt and continuation
---@return attune.model.LookupCounts? counts with the option `lookup`
function running:generate(ids, given)
  local out, counts = generation.generate(self, ids, given, 2)
  return out, counts
end

--- The mean of -log p over the ids after the first, in nats: e to its power is the perplexity. Keys
--- and values pass a cache, as while generating.
---@param ids integer[] from 0, at least 2
---@param given? {cache?: attune.model.CacheDtype, after?: integer} after: the first ids, 1 by
---  default, are read and not counted
---@return number nats
---@return integer count of ids that the mean is over
function running:loss(ids, given)
  local o = options.read(given, {"cache", "after"}, 2)
  if self.network.encoder then
    error("expected a model without encoder, got one with an encoder, which has no loss", 2)
  end
  if type(ids) ~= "table" then
    error(("ids: expected a list of ids, such as {5, 17}, got %s"):format(options.describe(ids)), 2)
  end
  local rows = checked.rows(self, {ids}, "ids", 2)
  local after = o.after == nil and 1 or o.after
  if #rows[1] < 2 then error("ids: expected at least 2, got 1", 2) end
  if math.type(after) ~= "integer" or after < 1 or after >= #rows[1] then
    error(("after: expected an integer from 1 to %d, got %s"):format(
      #rows[1] - 1, options.describe(after)), 2)
  end
  local nats, count = loss(self, rows[1], o.cache, after, 2)
  return nats, count
end

--- The same model with other attention, which shares its other weights.
---
--- kv_heads: a divisor of the model's number; the projections of keys and values of neighbouring
--- heads are averaged (Ainslie et al. 2023, arXiv 2305.13245). window: visible keys of a query,
--- its own token included; false: all. rope_scaling: as of attune.position("rope"), in place of the
--- model's; false: none. rope_base. cache: the dtype of sessions, where they name none. layers: the
--- numbers, from 1, of those that change; all by default. A layer that uses the keys of another
--- changes with it. Of a model with an encoder only the decoder changes.
---@param given {kv_heads?: integer, window?: integer|false, rope_scaling?: table|false,
---  rope_base?: number, cache?: attune.model.CacheDtype, layers?: integer[]}
---@return attune.model.Model
function running:with(given)
  local changed = require "attune.model.changes".new(self, given, 2)
  return changed
end

return running
