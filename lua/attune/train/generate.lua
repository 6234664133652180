--- Text from a small model: ids chosen one by one, each from a full forward pass. Real models with
--- a cache are in attune.model.
local core = require "attune.core"
local options = require "attune.util.options"
local sampling = require "attune.nn.sampling"
local without_dropout = require "attune.train.without_dropout"

local known = {
  "tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "context",
}

local function at_least_1(o, name, default)
  local value = o[name] == nil and default or o[name]
  if value ~= nil and (math.type(value) ~= "integer" or value < 1) then
    core._raise(("%s: expected an integer of at least 1, got %s"):format(
      name, options.describe(value)))
  end
  return value
end

-- The tokens that a model with learned positions can read; nil for other models.
local function table_of(model)
  local config = model.config
  return type(config) == "table" and config.position == "learned" and config.context or nil
end

--- Continues ids.
---@param model table with forward(ids) -> logits [1, tokens, vocab]
---@param ids integer[] from 0, at least one
---@param given {tokens?: integer, temperature?: number, top_k?: integer, top_p?: number,
---  min_p?: number, repetition_penalty?: number, seed?: integer, context?: integer} tokens 100;
---  temperature 1; the others as attune.nn.sampling says; seed 0; context: the number of last ids
---  that the model reads at most, for a model with learned positions the size of their table, for
---  others all
---@return integer[] ids with the continuation
return function(model, ids, given)
  local o = options.read(given, known, 2)
  if type(ids) ~= "table" or #ids == 0 then
    core._raise(("ids: expected a list of at least one id, got %s"):format(options.describe(ids)))
  end
  local learned = table_of(model)
  local tokens, context = at_least_1(o, "tokens", 100), at_least_1(o, "context", learned)
  if learned and context > learned then
    core._raise(("context: expected at most the %d learned positions of the model, got %d"):format(
      learned, context))
  end
  o.temperature = o.temperature == nil and 1 or o.temperature
  o.seed = o.seed == nil and 0 or o.seed
  local list, sampler = table.move(ids, 1, #ids, 1, {}), sampling.new(o, 2)
  without_dropout(model, function()
    for step = 1, tokens do
      local first = math.max(1, #list - (context or #list) + 1)
      local logits = model:forward({table.move(list, first, #list, 1, {})})
      local last = logits:slice(2, logits.shape[2], logits.shape[2]):contiguous():view(1, -1)
      list[#list + 1] = sampler:next(last, list, 1, step)
    end
  end)
  return list
end
