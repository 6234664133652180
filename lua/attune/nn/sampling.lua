--- Chooses the next token from logits: greedy, or drawn after a temperature, top-k, top-p (Holtzman
--- et al. 2019), min-p (Nguyen et al. 2024) and a repetition penalty (Keskar et al. 2019). Draws
--- are Philox numbers of the seed, the row and the step, so that they do not depend on other rows.
local core = require "attune.core"
local options = require "attune.util.options"

local sampling = {}
sampling.__index = sampling

local limits = {
  temperature = {0, math.huge, "a number of at least 0"},
  top_k = {1, math.huge, "an integer of at least 1"},
  top_p = {0, 1, "a number above 0 and up to 1"},
  min_p = {0, 1, "a number from 0 to 1"},
  repetition_penalty = {0, math.huge, "a positive number"},
}
local names = {"temperature", "top_k", "top_p", "min_p", "repetition_penalty"}

local function check(o, level)
  for _, name in ipairs(names) do
    local x, limit = o[name], limits[name]
    local positive = name == "top_p" or name == "repetition_penalty"
    if x ~= nil and (type(x) ~= "number" or not (x >= limit[1] and x <= limit[2])
      or x == math.huge or positive and x == 0
      or name == "top_k" and math.type(x) ~= "integer") then
      error(("%s: expected %s, got %s"):format(name, limit[3], options.describe(x)), level + 1)
    end
  end
  if o.seed ~= nil and math.type(o.seed) ~= "integer" then
    error(("seed: expected an integer, got %s"):format(options.describe(o.seed)), level + 1)
  end
end

--- From {temperature, top_k, top_p, min_p, repetition_penalty, seed}.
function sampling.new(o, level)
  check(o, level + 1)
  local self = setmetatable({
    temperature = o.temperature or 0, top_k = o.top_k, top_p = o.top_p, min_p = o.min_p,
    penalty = o.repetition_penalty, seed = o.seed,
  }, sampling)
  if self.temperature > 0 and not self.seed then
    -- Seeds of calls without one follow from set_seed.
    self.seed = math.floor(core.uniform({1}, {high = 2 ^ 31, dtype = "f64"}):tolist()[1])
  end
  return self
end

--- Whether the next id is the one with the largest logit.
function sampling:is_greedy() return self.temperature == 0 and not self.penalty end

-- Tokens that are there already become less likely.
local function penalise(logits, ids, penalty)
  local seen = {}
  for _, id in ipairs(ids) do
    if not seen[id] then
      seen[id] = true
      local x = logits[id + 1]
      logits[id + 1] = x > 0 and x / penalty or x * penalty
    end
  end
end

local function refuse_nan(id)
  core._raise(("logits: expected numbers, got NaN for id %d"):format(id - 1))
end

local function largest(logits)
  local best = 1
  for i, x in ipairs(logits) do
    if x ~= x then refuse_nan(i) end
    if x > logits[best] then best = i end
  end
  return best
end

--- The id, from 0, of the largest logit of each row. Raises where a logit is NaN.
---@param logits attune.Tensor [rows, vocab]
---@return integer[]
function sampling.greedy(logits)
  local ids = logits:argmax(2):tolist()
  for row, id in ipairs(ids) do
    local x = logits[row][id]:item() -- of numbers and NaN, argmax gives NaN
    if x ~= x then refuse_nan(id) end
    ids[row] = id - 1
  end
  return ids
end

-- The candidates, most likely first, each {id from 1, probability}.
local function candidates(self, logits)
  local max, list = logits[largest(logits)], {}
  for i, x in ipairs(logits) do
    -- Below e^-40 of the largest a token is never drawn.
    local y = x == max and 0 or (x - max) / self.temperature -- max may be infinite
    if y > -40 then list[#list + 1] = {i, math.exp(y)} end
  end
  table.sort(list, function(a, b)
    if a[2] ~= b[2] then return a[2] > b[2] end
    return a[1] < b[1]
  end)
  return list
end

-- How many of the candidates stay.
local function kept(self, list)
  local n = math.min(self.top_k or #list, #list)
  local sum, sums = 0, 0
  for i = 1, n do sum = sum + list[i][2] end
  for i = 1, n do
    if self.min_p and list[i][2] < self.min_p * list[1][2] then return i - 1 end
    if self.top_p and sums >= self.top_p * sum then return i - 1 end
    sums = sums + list[i][2]
  end
  return n
end

--- The next id, from 0.
---@param logits attune.Tensor [1, vocab]
---@param ids integer[] the tokens so far
---@param row integer
---@param step integer
---@return integer
function sampling:next(logits, ids, row, step)
  if self:is_greedy() then return sampling.greedy(logits)[1] end
  logits = logits:tolist()[1]
  if self.penalty then penalise(logits, ids, self.penalty) end
  if self.temperature == 0 then return largest(logits) - 1 end
  local list = candidates(self, logits)
  local n, sum = kept(self, list), 0
  for i = 1, n do sum = sum + list[i][2] end
  local words = core.philox({step, row, 0, 0}, {self.seed & 0xffffffff, self.seed >> 32})
  local u = (words[1] * 2 ^ 21 + (words[2] >> 11)) * 2 ^ -53 * sum
  for i = 1, n - 1 do
    u = u - list[i][2]
    if u < 0 then return list[i][1] - 1 end
  end
  return list[n][1] - 1
end

return sampling
