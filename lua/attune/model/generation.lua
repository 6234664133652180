--- m:generate: continues rows of ids. Rows that differ in length run together: their keys are kept
--- per row, and the slots before a shorter row's first token are visible to none of its tokens.
local attune = require "attune"
local checked = require "attune.model.ids"
local lookup = require "attune.model.lookup"
local options = require "attune.util.options"
local sampling = require "attune.nn.sampling"
local session = require "attune.model.session"

local generation = {}

local known = {
  "tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "stop", "cache",
  "decoder_ids", "each", "lookup",
}

local rows_at_once, default_tokens = 8, 24

local function stop_ids(model, given, level)
  local list = given
  if given == nil then list = type(model.eos) == "table" and model.eos or {model.eos} end
  if type(list) ~= "table" then
    error(("stop: expected a list of ids, got %s"):format(options.describe(list)), level + 1)
  end
  local stop, count = {}, rawlen(list)
  for i, id in next, list do
    local is_in_list = math.type(i) == "integer" and i >= 1 and i <= count
    if not is_in_list or math.type(id) ~= "integer" then
      error(("stop: expected a list of ids, got %s"):format(is_in_list and options.describe(id)
        or "a table with the field " .. options.describe(i)), level + 1)
    end
    -- A model may name ids above its vocabulary; a caller who does is mistaken.
    if given ~= nil and (id < 0 or id >= model.vocab) then
      error(("stop: expected ids from 0 to %d, got %d"):format(model.vocab - 1, id), level + 1)
    end
    stop[id] = true
  end
  return stop
end

local function read(model, given, level)
  level = level + 1
  local o = options.read(given, known, level)
  if o.tokens ~= nil and (math.type(o.tokens) ~= "integer" or o.tokens < 1) then
    error(("tokens: expected an integer of at least 1, got %s"):format(
      options.describe(o.tokens)), level)
  end
  if o.each ~= nil and type(o.each) ~= "function" then
    error(("each: expected a function, got %s"):format(options.describe(o.each)), level)
  end
  o.stop = stop_ids(model, o.stop, level)
  o.lookup = lookup.read(o.lookup, level)
  o.sampler = sampling.new(o, level)
  if o.lookup and not o.sampler:is_greedy() then
    error("lookup: expected temperature 0 and no repetition_penalty beside it", level)
  end
  return o
end

-- The number of ids that a row of n ids gets. Learned positions limit it; the last id is not read,
-- and needs none.
local function tokens_of(model, n, o, level)
  local room = (model.limit or session.max_tokens) - n + 1
  if o.tokens and o.tokens > room then
    if not model.limit then
      error(("tokens: expected at most 2^40, got %d"):format(o.tokens), level + 1)
    end
    local form = "tokens: expected at most %d after a prompt of %d, as the model has positions for "
      .. "%d tokens, got %d"
    error(form:format(room, n, model.limit, o.tokens), level + 1)
  end
  return math.min(o.tokens or default_tokens, room)
end

-- What the decoder of a model with an encoder starts with.
local function decoder_rows(model, rows, given, level)
  if given ~= nil then
    local targets = checked.rows(model, given, "decoder_ids", level + 1)
    checked.check_count(targets, #rows, "decoder_ids", level + 1)
    return targets
  end
  local out = {}
  for b = 1, #rows do out[b] = {model.network.start} end
  return out
end

-- Whether rows must run one by one: an encoder's rows have one length, and these rotations depend
-- on the length of a text.
local function runs_alone(network)
  return network.encoder or network.switches_at or lookup.dynamic_from(network)
end

-- Appends an id to a row and tells o.each; false where the row ends. left: the ids it may get.
local function taker(o, ids, index, left)
  return function(id)
    ids[#ids + 1] = id
    left = left - 1
    local goes_on = not o.each or o.each(index, id) ~= false
    return goes_on and left > 0 and not o.stop[id]
  end
end

-- Rows first .. first + #rows - 1 of the call, together; rows are continued in place. tokens: how
-- many each row of the call gets at most.
local function continue(model, rows, first, tokens, source, o, level)
  local context = 0
  for b, row in ipairs(rows) do context = math.max(context, #row + tokens[first + b - 1] - 1) end
  local s <close> = session.new(model, {
    batch = #rows, context = context, cache = o.cache, grows = true,
    encoder_ids = source and {source},
  }, level + 1)
  local take, new, running = {}, {}, #rows
  for b, row in ipairs(rows) do
    take[b] = taker(o, row, first + b - 1, tokens[first + b - 1])
    new[b] = table.move(row, 1, #row, 1, {})
  end
  local logits = s:last(new)
  if o.lookup then return lookup.continue(s, rows[1], logits, o.lookup, take[1], o.counts) end
  for step = 1, math.huge do
    for b, row in ipairs(rows) do
      if #new[b] > 0 then
        local own = #rows == 1 and logits or logits:slice(1, b, b):contiguous()
        local id = o.sampler:next(own, row, first + b - 1, step)
        local goes_on = take[b](id)
        new[b] = goes_on and {id} or {}
        running = running - (goes_on and 0 or 1)
      end
    end
    logits:close()
    if running == 0 then return end
    logits = s:last(new)
  end
end

--- Continues rows, as m:generate says.
---@param model attune.model.Model
---@param ids integer[][]
---@param given? attune.model.Sampling tokens: the number of ids added at most, by default 24, or
---  fewer where learned positions end; temperature (0: greedy), top_k, top_p, min_p,
---  repetition_penalty and seed as attune.nn.sampling says; stop: ids that end a row, by default
---  the model's, {} never stops; cache: its dtype; each(row, id) is called for each new id, and
---  ends the row where it returns false; lookup = {ngram = 3, tokens = 3}: speculative decoding by
---  attune.model.lookup
---@param level integer as of `error`, from the caller
---@return integer[][] prompt and continuation
---@return attune.model.LookupCounts? counts
function generation.generate(model, ids, given, level)
  level = level + 1
  local o = read(model, given, level)
  local rows, sources = checked.rows(model, ids, "ids", level), {}
  if model.network.encoder then
    rows, sources = decoder_rows(model, rows, o.decoder_ids, level), rows
  elseif o.decoder_ids ~= nil then
    error("decoder_ids: expected nil for a model without encoder", level)
  end
  local tokens = {}
  for b, row in ipairs(rows) do tokens[b] = tokens_of(model, #row, o, level) end
  -- Misuse is an error here, as the caller's line cannot be told from inside no_grad.
  session.check(model, {
    context = 1, cache = o.cache, encoder_ids = sources[1] and {sources[1]},
  }, level)
  if o.lookup then o.counts = {passes = 0, proposed = 0, accepted = 0} end
  local count = (o.lookup or runs_alone(model.network)) and 1 or rows_at_once
  attune.no_grad(function()
    for first = 1, #rows, count do
      local group = table.move(rows, first, math.min(first + count - 1, #rows), 1, {})
      continue(model, group, first, tokens, sources[first], o, level)
    end
  end)
  return rows, o.counts
end

return generation
