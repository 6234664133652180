--- Text from a small model: ids drawn one by one, each from a full forward pass. Real models with a
--- cache are in attune.model.
local autograd = require "attune.autograd"
local core = require "attune.core"
local options = require "attune.util.options"
local random = require "attune.util.random"

-- An id drawn from logits / temperature among the top_k largest; temperature 0: the largest.
local function draw(logits, o, stream)
  local order = {}
  for id = 1, #logits do order[id] = id end
  table.sort(order, function(a, b)
    if logits[a] ~= logits[b] then return logits[a] > logits[b] end
    return a < b
  end)
  if o.temperature == 0 then return order[1] - 1 end
  local count = math.min(o.top_k or #order, #order)
  local sum, weights = 0, {}
  for k = 1, count do
    weights[k] = math.exp((logits[order[k]] - logits[order[1]]) / o.temperature)
    sum = sum + weights[k]
  end
  local x = stream:number() * sum
  for k = 1, count do
    x = x - weights[k]
    if x < 0 then return order[k] - 1 end
  end
  return order[count] - 1
end

--- Continues ids.
---@param model table with forward(ids) -> logits [1, tokens, vocab]
---@param ids integer[] from 0, at least one
---@param given {tokens: integer, temperature: number, top_k: integer, seed: integer,
--- context: integer} temperature 1; context: the number of last ids that the model reads at most
---@return integer[] ids with the continuation
return function(model, ids, given)
  local o = options.read(given, {"tokens", "temperature", "top_k", "seed", "context"}, 2)
  if type(ids) ~= "table" or #ids == 0 then
    core._raise(("ids: expected a list of at least one id, got %s"):format(options.describe(ids)))
  end
  o.temperature = o.temperature or 1
  local list, stream = table.move(ids, 1, #ids, 1, {}), random.stream(o.seed or 0, 1)
  autograd.no_grad(function()
    for _ = 1, o.tokens or 100 do
      local first = math.max(1, #list - (o.context or #list) + 1)
      local logits = model:forward({table.move(list, first, #list, 1, {})})
      local last = logits.shape[2]
      list[#list + 1] = draw(logits:slice(2, last, last):contiguous():view(-1):tolist(), o, stream)
    end
  end)
  return list
end
