--- A centre with its interval that a claim can judge: a ratio, a difference or a value.
local distributions = require "attune.results.statistics.distributions"
local stats = require "attune.results.statistics"

---@class attune.Quantity: attune.Centre
---@field median number
---@field values number[] one per round
---@field what "ratio"|"difference"|"value"
---@field word "seed"|"round" what each value is of
---@field missing? string why there are no values; every claim about it is then undecided
---@field p? number of a family: two-sided, that of no difference; adjusted for the family (Holm)
---@field comparisons? integer of a family: the number of its comparisons
local Quantity = {}
Quantity.__index = Quantity

local quantity = {}

-- Three digits; a number of thousands has all digits before its point.
local function figure(x)
  if not x then return "?" end
  -- As in tables: C writes the sign of a NaN, which means nothing.
  if x ~= x then return "NaN" end
  local a = math.abs(x)
  return (a >= 1e3 and a < 1e9 and "%.0f" or "%.3g"):format(x)
end

--- The quantity of values, one per round, or per seed.
---@param values number[]
---@param what "ratio"|"difference"|"value"
---@param word "seed"|"round"
---@return attune.Quantity
function quantity.of(values, what, word)
  local q = (what == "ratio" and stats.ratio_centre or stats.centre)(values)
  q.median, q.values, q.what, q.word = stats.median(values), values, what, word
  return setmetatable(q, Quantity)
end

--- A quantity without values, such as that of a variant that a partial run leaves out.
---@param what "ratio"|"difference"|"value"
---@param why string
---@return attune.Quantity
function quantity.missing(what, why)
  return setmetatable({values = {}, n = 0, kind = "value", what = what, missing = why}, Quantity)
end

-- The values whose mean the interval is of: for ratios their logarithms, and the value of no
-- difference.
local function on_scale_of_mean(q)
  local values = {}
  for i, x in ipairs(q.values) do
    if q.what == "ratio" and not (x > 0) then return nil end
    values[i] = q.what == "ratio" and math.log(x) or x
    if math.abs(values[i]) == math.huge or values[i] ~= values[i] then return nil end
  end
  return #values >= 2 and values or nil
end

--- The two-sided probability of values as far from no difference (0, or a ratio of 1) by chance:
--- Student's t of the rounds. Rounds that do not scatter at all give 0, or 1 for no difference.
---@return number? p nil for fewer than two values and for values that are not finite
function Quantity:probability()
  local values = on_scale_of_mean(self)
  if not values then return nil end
  local mean, spread = stats.mean(values), stats.deviation(values)
  if spread == 0 then return mean == 0 and 1.0 or 0.0 end
  return distributions.t_two_sided(mean / spread * math.sqrt(#values), #values - 1)
end

local alpha, power = 0.05, 0.8

--- The smallest effect that this number of rounds finds, with a probability of 80%, as different
--- from none, if they scatter as these do: (t(0.975) + t(0.8)) s / sqrt(n) with the n - 1 degrees
--- of freedom of the paired t test. For a ratio it is the part by which it differs from 1.
---@return number? effect nil for fewer than two values and for values that are not finite
function Quantity:resolves()
  local values = on_scale_of_mean(self)
  if not values then return nil end
  local df = #values - 1
  local t = distributions.t_point(alpha, df) + distributions.t_point(2 * (1 - power), df)
  local effect = t * stats.deviation(values) / math.sqrt(#values)
  return self.what == "ratio" and math.exp(effect) - 1 or effect
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
  if q.missing then name = "undecided" end
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
  if lo > hi then
    error(("within: expected lo of at most hi, got %s and %s"):format(lo, hi), 2)
  end
  local held = self.lo and self.lo >= lo and self.hi <= hi
  local failed = self.lo and (self.hi < lo or self.lo > hi)
  local words = ("from %s to %s"):format(figure(lo), figure(hi))
  return verdict(self, held, failed, words, {lo, hi})
end

--- Held when the value of no difference (0, or a ratio of 1) lies outside the interval; in a
--- family, when Holm's probability is below 5%. Never failed, as no run can show that there is no
--- difference: claim `within` a margin for that.
function Quantity:differs()
  local nothing = self.what == "ratio" and 1 or 0
  local held = self.lo and (self.lo > nothing or self.hi < nothing)
  if self.p then held = self.p < alpha end
  return verdict(self, held, false, "other than " .. figure(nothing), {nothing})
end

-- "; resolves 0.3%; p 0.02 (Holm, 6 comparisons)"
local function resolution(self)
  local words, effect = "", self.what ~= "value" and self:resolves()
  if effect and effect > 0 then
    local as_text = self.what == "ratio" and figure(100 * effect) .. "%" or figure(effect)
    words = "; resolves " .. as_text
  end
  if self.p then
    words = words .. ("; p %.2g (Holm, %d comparison%s)"):format(
      self.p, self.comparisons, self.comparisons == 1 and "" or "s")
  end
  return words
end

Quantity.__tostring = function(self)
  if self.missing then return self.missing end
  if self.n == 1 then return ("%s (one %s: no interval)"):format(figure(self.centre), self.word) end
  if not self.lo then
    local why = self.what == "ratio" and "a ratio is not positive and finite"
      or "a value is not finite"
    return ("%s (median of %d %ss; no interval: %s)"):format(figure(self.centre), self.n, self.word,
      why)
  end
  local format = "%s (%s of %d %ss, 95%% interval %s to %s)%s"
  return format:format(figure(self.centre), self.kind, self.n, self.word, figure(self.lo),
    figure(self.hi), resolution(self))
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
    detail = detail .. ("; about %d %ss would decide"):format(value.rounds, value.quantity.word)
  end
  return value.verdict, detail, not value.quantity.missing and value.quantity or nil
end

return quantity
