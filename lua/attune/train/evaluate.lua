--- The loss over a whole text or over batches of a task, and the share of answers that are right.
local core = require "attune.core"
local options = require "attune.util.options"
local without_dropout = require "attune.train.without_dropout"

local evaluate = {}

local function read(given)
  local o = options.read(given, {"batches", "batch"}, 3)
  for _, name in ipairs {"batches", "batch"} do
    local x = o[name]
    if x ~= nil and (math.type(x) ~= "integer" or x < 1) then
      core._raise(("%s: expected an integer of at least 1, got %s"):format(
        name, options.describe(x)))
    end
  end
  return o
end

local function sum_of(weights, targets)
  if weights then return weights:sum():item() end
  local count = 1
  for _, extent in ipairs(targets.shape) do count = count * extent end
  return count
end

local function tensor_of(x, make)
  return type(x) == "table" and make(x) or x
end

-- Targets and weights as tensors, where data gave lists, as a model takes them.
local function as_tensors(targets, weights)
  targets = tensor_of(targets, function(x) return core._integers(x, "targets") end)
  if core._kind(targets) ~= "tensor" then
    core._raise(("data: expected targets as the second result, a tensor or a list of rows, got %s")
      :format(options.describe(targets)))
  end
  return targets, tensor_of(weights, core.tensor)
end

-- The targets and weights of a batch; an EncoderDecoder has the source before them.
local function counted_of(model, _, x, y, z)
  if model._reads_source then x, y = y, z end
  return as_tensors(x, y)
end

local function logits_of(model, x, y, z, w)
  if model._reads_source then return model:forward(x, y, w) end
  return model:forward(x, z)
end

local function check_count(tokens)
  if tokens == 0 then core._raise "data: expected at least one token that counts, got none" end
end

-- Iterates over batches: all of a loader's, or a number of a task's.
local function batches_of(data, o)
  if type(data) ~= "function"
    and (type(data) ~= "table" or type(data.each) ~= "function" and type(data.next) ~= "function")
  then
    core._raise(("data: expected a loader, a task, or a function that returns ids, targets, "
      .. "weights, got %s"):format(options.describe(data)))
  end
  if type(data) == "table" and type(data.each) == "function" then return data:each(o.batches) end
  local left = o.batches or 10
  local size = o.batch or 32
  return function()
    if left == 0 then return nil end
    left = left - 1
    if type(data) == "function" then return data() end
    return data:next(size)
  end
end

--- The mean loss in nats per token, without gradients and dropout, weighted by tokens over the
--- batches.
---@param model table with loss(ids, targets, weights, info); an EncoderDecoder takes the ids of the
--- source first, and data gives them first
---@param data table a loader (one epoch in order), or a task or a function that gives batches
---@param given? {batches: integer, batch: integer} all batches of a loader, 10 of others; batch:
--- rows of a task, 32
---@return {loss: number, tokens: number, nats: number, bits_per_byte: number?} bits_per_byte of a
--- loader's corpus
function evaluate.loss(model, data, given)
  local o = read(given)
  local nats, tokens, bytes = 0, 0, 0
  local corpus = type(data) == "table" and data.corpus
  without_dropout(model, function()
    for a, b, c, d, e in batches_of(data, o) do
      local loss, nll = model:loss(a, b, c, d, e)
      local targets, weights = counted_of(model, a, b, c, d)
      local count = sum_of(weights, targets)
      nats = nats + (nll or loss:item()) * count
      tokens = tokens + count
      if corpus then bytes = bytes + corpus:count_bytes(targets, weights) end
    end
  end)
  check_count(tokens)
  return {
    loss = nats / tokens, tokens = tokens, nats = nats,
    bits_per_byte = corpus and nats / math.log(2) / bytes or nil,
  }
end

--- The share of targets that have the largest logit, each by itself, and the share of rows whose
--- targets all have it; only targets of a weight above 0 count.
---@param model table with forward(ids, info) -> logits
---@param data table as of loss
---@param given? {batches: integer, batch: integer}
---@return number tokens
---@return number rows
function evaluate.accuracy(model, data, given)
  local o = read(given)
  local right, counted, right_rows, rows = 0, 0, 0, 0
  without_dropout(model, function()
    for a, b, c, d, e in batches_of(data, o) do
      local chosen = logits_of(model, a, b, d, e):argmax(-1):tolist()
      local targets, weights = counted_of(model, a, b, c, d)
      if #targets.shape == 1 then
        targets, weights = targets:view(1, -1), weights and weights:view(1, -1)
      end
      local wanted, counts = targets:tolist(), weights and weights:tolist()
      for r = 1, #wanted do
        local whole, any = true, false
        for k = 1, #wanted[r] do
          if not counts or counts[r][k] > 0 then
            any, counted = true, counted + 1
            -- argmax counts from 1, ids from 0.
            if chosen[r][k] - 1 == wanted[r][k] then right = right + 1 else whole = false end
          end
        end
        if any then rows, right_rows = rows + 1, right_rows + (whole and 1 or 0) end
      end
    end
  end)
  check_count(counted)
  return right / counted, right_rows / rows
end

return evaluate
