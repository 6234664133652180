--- The handle over results that a claim's function gets, and the verdict on a claim.
local stats = require "attune.results.statistics"
local suggest = require "attune.util.suggest"

-- A ratio of two metrics with its interval: attune.Centre, and median, values.
local Ratio = {}
Ratio.__index = Ratio

local function verdict(self, held, failed, bound)
  local name = held and "held" or failed and "failed" or "undecided"
  return setmetatable({verdict = name, ratio = self, bound = bound}, {__name = "attune.verdict"})
end

local function figure(x) return x and ("%.3g"):format(x) or "?" end

-- Raises an error, at the line of the caller's caller, for a bound that is no number.
local function check_bound(bound, name)
  if type(bound) == "number" and bound == bound then return end
  local got = type(bound) == "string" and ("'%s'"):format(bound) or tostring(bound)
  error(("%s: expected a number, got %s"):format(name, got), 3)
end

--- Held when the whole interval lies above x, failed when all of it lies below, else undecided.
---@param x number
function Ratio:above(x)
  check_bound(x, "x")
  local held, failed = self.lo and self.lo > x, self.hi and self.hi <= x
  return verdict(self, held, failed, "above " .. figure(x))
end

--- Held when the whole interval lies below x.
---@param x number
function Ratio:below(x)
  check_bound(x, "x")
  local held, failed = self.hi and self.hi < x, self.lo and self.lo >= x
  return verdict(self, held, failed, "below " .. figure(x))
end

--- Held when the whole interval lies from lo to hi.
---@param lo number
---@param hi number
function Ratio:within(lo, hi)
  check_bound(lo, "lo")
  check_bound(hi, "hi")
  local held = self.lo and self.lo >= lo and self.hi <= hi
  local failed = self.lo and (self.hi < lo or self.lo > hi)
  return verdict(self, held, failed, ("from %s to %s"):format(figure(lo), figure(hi)))
end

Ratio.__tostring = function(self)
  if self.n == 1 then return ("%s (one round: no interval)"):format(figure(self.centre)) end
  if not self.lo then
    local format = "%s (median of %d rounds; no interval: a ratio is not positive and finite)"
    return format:format(figure(self.centre), self.n)
  end
  local format = "%s (%s of %d rounds, 95%% interval %s to %s)"
  return format:format(figure(self.centre), self.kind, self.n, figure(self.lo), figure(self.hi))
end

local Handle = {}
Handle.__index = Handle

local function matches(point, wanted)
  for name, value in pairs(wanted or {}) do
    if point.parameters[name] ~= value then return false end
  end
  return true
end

local function check_parameters(self, wanted, level)
  local known = self.results.parameters
  for name in pairs(wanted or {}) do
    local found
    for _, p in ipairs(known) do found = found or p == name end
    if not found then
      local hint = suggest(tostring(name), known)
      error(("unknown parameter '%s': %s"):format(tostring(name), hint), level + 1)
    end
  end
end

local function check_metric(self, metric, level)
  local names = {}
  for _, m in ipairs(self.results.metrics) do
    if m.name == metric then return end
    names[#names + 1] = m.name
  end
  local hint = suggest(tostring(metric), names)
  error(("unknown metric '%s': %s"):format(tostring(metric), hint), level + 1)
end

--- A handle over the points that have these parameters.
---@param wanted table<string, attune.Scalar>
function Handle:where(wanted)
  check_parameters(self, wanted, 2)
  local kept = {}
  for _, point in ipairs(self.points) do
    if matches(point, wanted) then kept[#kept + 1] = point end
  end
  return setmetatable({results = self.results, points = kept}, Handle)
end

--- The median of a metric at each point, in sweep order; points without it are left out.
---@param metric string
---@return number[]
function Handle:values(metric)
  check_metric(self, metric, 2)
  local values = {}
  for _, point in ipairs(self.points) do
    local m = point.metrics[metric]
    if m then values[#values + 1] = m.median end
  end
  return values
end

--- The largest value of a parameter (sign 1) or the smallest (sign -1).
---@param parameter string
---@param sign 1|-1
---@return number?
function Handle:extreme(parameter, sign)
  local best
  for _, point in ipairs(self.points) do
    local v = point.parameters[parameter]
    if type(v) == "number" and (not best or v * sign > best * sign) then best = v end
  end
  return best
end

-- The metric's value at the only point that has it among those with the wanted parameters.
local function value_of_one(self, metric, wanted, name, level)
  local values = {}
  for _, point in ipairs(self.points) do
    local value = matches(point, wanted) and point.metrics[metric]
    if value then values[#values + 1] = value end
  end
  if #values == 0 then
    local format = "ratio: expected one point with '%s' for %s, got none: "
      .. "no point has these parameters"
    error(format:format(metric, name), level + 1)
  end
  if #values > 1 then
    local format = "ratio: expected one point with '%s' for %s, got %d; narrow it with r:where"
    error(format:format(metric, name, #values), level + 1)
  end
  return values[1]
end

--- The metric at a divided by the metric at b. Each of a and b must match one point. Rounds are
--- paired, as they were measured one after the other.
---@param metric string
---@param a table<string, attune.Scalar>
---@param b table<string, attune.Scalar>
function Handle:ratio(metric, a, b)
  check_metric(self, metric, 2)
  check_parameters(self, a, 2)
  check_parameters(self, b, 2)
  local x, y = value_of_one(self, metric, a, "a", 2), value_of_one(self, metric, b, "b", 2)
  local by_round, ratios = {}, {}
  for i, round in ipairs(y.rounds) do by_round[round] = y.values[i] end
  for i, round in ipairs(x.rounds) do
    if by_round[round] then ratios[#ratios + 1] = x.values[i] / by_round[round] end
  end
  local ratio = stats.ratio_centre(ratios)
  ratio.median, ratio.values = stats.median(ratios), ratios
  return setmetatable(ratio, Ratio)
end

local claims = {}

--- The handle over results that claims and scripts use.
---@param results attune.Results
function claims.over(results)
  return setmetatable({results = results, points = results.points}, Handle)
end

-- Turns what a claim's function returned into verdict and detail.
local function judged(value, detail)
  if type(value) == "boolean" then return value and "held" or "failed", detail end
  local meta = getmetatable(value)
  if type(meta) == "table" and meta.__name == "attune.verdict" then
    local ratio = ("%s; claimed %s"):format(tostring(value.ratio), value.bound)
    return value.verdict, ratio .. (detail and "; " .. detail or "")
  end
  if value == nil then return "undecided", detail or "the claim's function returned nothing" end
  local format = "the claim's function returned a %s; "
    .. "expected a boolean or the result of :above, :below or :within"
  return "failed", format:format(type(value))
end

--- Judges every claim. A claim whose function raises an error has failed, with the error as detail.
---@param experiment attune.Experiment
---@param results attune.Results
---@return attune.ClaimVerdict[]
function claims.judge(experiment, results)
  local list = {}
  for i, claim in ipairs(experiment.claims or {}) do
    local ok, v, d = pcall(function()
      local value, detail = claim[2](claims.over(results))
      return judged(value, detail and tostring(detail))
    end)
    os.setlocale "C" -- numbers are written with a point, whatever the function has set
    if not ok then
      v, d = "failed", "error: " .. (type(v) == "string" and v or "a " .. type(v))
    end
    list[i] = {text = claim[1], verdict = v, detail = d}
  end
  return list
end

return claims
