--- How well a model predicts a text.
local attune = require "attune"
local session = require "attune.model.session"

-- Rows of logits at a time.
local rows_at_once = 64

-- The sum of log(sum(e^x)) - x[target] over rows of logits [n, vocab].
local function sum_of(logits, targets)
  local n = #targets
  local largest = logits:max(2):view(n, 1)
  local spread = (logits - largest):exp():sum(2):log() + largest:view(n)
  local chosen = logits:gather(2, attune.tensor(targets, {shape = {n, 1}, dtype = "i64"}))
  return (spread - chosen:view(n)):to "f64":sum():item()
end

--- The mean of -log p(ids[t]) over t > after, in nats, and the number of these t.
---@param model attune.model.Model
---@param ids integer[] from 0
---@param cache? string dtype
---@param after integer
---@param level integer as of `error`, from the caller
---@return number
---@return integer
return function(model, ids, cache, after, level)
  local s <close> = session.new(model, {context = #ids, cache = cache}, level + 1)
  local total, at = 0, 0 -- at: tokens before the piece
  attune.no_grad(function()
    s:each_piece(ids, function(x, n)
      -- Token at + t is predicted by row t - 1 of the piece.
      local last = math.min(n, #ids - 1 - at)
      for first = math.max(1, after - at), last, rows_at_once do
        local count = math.min(rows_at_once, last - first + 1)
        local targets = {}
        for t = 1, count do targets[t] = ids[at + first + t] + 1 end
        local rows = x:slice(1, first, first + count - 1):contiguous()
        total = total + sum_of(model.network:logits(rows), targets)
      end
      at = at + n
    end)
  end)
  return total / (#ids - after), #ids - after
end
