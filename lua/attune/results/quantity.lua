--- A centre with its interval that a claim can judge: a ratio, a difference or a value.
local stats = require "attune.results.statistics"

---@class attune.Quantity: attune.Centre
---@field median number
---@field values number[] one per round
---@field what "ratio"|"difference"|"value"
local Quantity = {}
Quantity.__index = Quantity

local quantity = {}

local function figure(x) return x and ("%.3g"):format(x) or "?" end

--- The quantity of values, one per round.
---@param values number[]
---@param what "ratio"|"difference"|"value"
---@return attune.Quantity
function quantity.of(values, what)
  local q = (what == "ratio" and stats.ratio_centre or stats.centre)(values)
  q.median, q.values, q.what = stats.median(values), values, what
  return setmetatable(q, Quantity)
end

-- About how many rounds would move the interval off the nearest bound; nil when that is unknown.
local function rounds_to_decide(q, bounds)
  if not q.lo then return nil end
  local values, centre, nearest = q.values, q.centre, nil
  local in_logs = q.kind == "geometric mean"
  if in_logs then
    values, centre = {}, math.log(centre)
    for i, x in ipairs(q.values) do values[i] = math.log(x) end
  end
  for _, bound in ipairs(bounds) do
    if not in_logs or bound > 0 then
      local off = math.abs((in_logs and math.log(bound) or bound) - centre)
      nearest = math.min(nearest or off, off)
    end
  end
  return nearest and stats.rounds_for_width(values, nearest)
end

local function verdict(q, held, failed, words, bounds)
  local name = held and "held" or failed and "failed" or "undecided"
  return setmetatable({
    verdict = name,
    quantity = q,
    bound = words,
    rounds = name == "undecided" and rounds_to_decide(q, bounds) or nil,
  }, {__name = "attune.verdict"})
end

-- Raises an error, at the line of the caller's caller, for a bound that is no number.
local function check_bound(bound, name)
  if type(bound) == "number" and bound == bound then return end
  local got = type(bound) == "string" and ("'%s'"):format(bound) or tostring(bound)
  error(("%s: expected a number, got %s"):format(name, got), 3)
end

--- Held when the whole interval lies above x, failed when all of it lies below, else undecided.
---@param x number
function Quantity:above(x)
  check_bound(x, "x")
  local held, failed = self.lo and self.lo > x, self.hi and self.hi <= x
  return verdict(self, held, failed, "above " .. figure(x), {x})
end

--- Held when the whole interval lies below x.
---@param x number
function Quantity:below(x)
  check_bound(x, "x")
  local held, failed = self.hi and self.hi < x, self.lo and self.lo >= x
  return verdict(self, held, failed, "below " .. figure(x), {x})
end

--- Held when the whole interval lies from lo to hi.
---@param lo number
---@param hi number
function Quantity:within(lo, hi)
  check_bound(lo, "lo")
  check_bound(hi, "hi")
  local held = self.lo and self.lo >= lo and self.hi <= hi
  local failed = self.lo and (self.hi < lo or self.lo > hi)
  local words = ("from %s to %s"):format(figure(lo), figure(hi))
  return verdict(self, held, failed, words, {lo, hi})
end

Quantity.__tostring = function(self)
  if self.n == 1 then return ("%s (one round: no interval)"):format(figure(self.centre)) end
  if not self.lo then
    local why = self.what == "ratio" and "a ratio is not positive and finite"
      or "a value is not finite"
    return ("%s (median of %d rounds; no interval: %s)"):format(figure(self.centre), self.n, why)
  end
  local format = "%s (%s of %d rounds, 95%% interval %s to %s)"
  return format:format(figure(self.centre), self.kind, self.n, figure(self.lo), figure(self.hi))
end

local max_named_rounds = 10000

--- What a claim's function returned, when that is a verdict: its name, a sentence, the quantity.
---@param value any
---@return "held"|"failed"|"undecided"|nil verdict
---@return string? detail
---@return attune.Quantity?
function quantity.judged(value)
  local meta = getmetatable(value)
  if type(meta) ~= "table" or meta.__name ~= "attune.verdict" then return nil end
  local detail = ("%s; claimed %s"):format(tostring(value.quantity), value.bound)
  if value.rounds and value.rounds <= max_named_rounds then
    detail = detail .. ("; about %d rounds would decide"):format(value.rounds)
  end
  return value.verdict, detail, value.quantity
end

return quantity
