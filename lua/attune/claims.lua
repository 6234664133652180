--- What a claim's function is given, and its verdict.
local stats = require "attune.stats"
local suggest = require "attune.suggest"

local Ratio = {}
Ratio.__index = Ratio

local function verdict(self, held, failed, bound)
  local name = held and "held" or failed and "failed" or "undecided"
  return setmetatable({verdict = name, ratio = self, bound = bound}, {__name = "attune.verdict"})
end

local function figure(x) return x and ("%.3g"):format(x) or "?" end

--- The whole interval lies above x: held; below: failed; else undecided.
function Ratio:above(x)
  return verdict(self, self.lo and self.lo > x, self.hi and self.hi <= x, ("above %s"):format(figure(x)))
end
function Ratio:below(x)
  return verdict(self, self.hi and self.hi < x, self.lo and self.lo >= x, ("below %s"):format(figure(x)))
end
function Ratio:within(lo, hi)
  return verdict(self, self.lo and self.lo >= lo and self.hi <= hi, self.lo and (self.hi < lo or self.lo > hi), ("from %s to %s"):format(figure(lo), figure(hi)))
end
Ratio.__tostring = function(self)
  if not self.lo then return ("%s (one round: no interval)"):format(figure(self.median)) end
  return ("%s (95%% interval %s to %s, %d rounds)"):format(figure(self.median), figure(self.lo), figure(self.hi), self.n)
end

local Results = {}
Results.__index = Results

local function matches(point, wanted)
  for name, value in pairs(wanted or {}) do
    if point.parameters[name] ~= value then return false end
  end
  return true
end

local function known_parameters(self, wanted, level)
  for name in pairs(wanted or {}) do
    local found
    for _, p in ipairs(self.results.parameters) do found = found or p == name end
    if not found then error(("unknown parameter '%s': %s"):format(tostring(name), suggest(tostring(name), self.results.parameters)), level + 1) end
  end
end

local function check_metric(self, metric, level)
  local names = {}
  for _, m in ipairs(self.results.metrics) do
    if m.name == metric then return end
    names[#names + 1] = m.name
  end
  error(("unknown metric '%s': %s"):format(tostring(metric), suggest(tostring(metric), names)), level + 1)
end

--- The points that have these parameters.
function Results:where(wanted)
  known_parameters(self, wanted, 2)
  local kept = {}
  for _, point in ipairs(self.points) do
    if matches(point, wanted) then kept[#kept + 1] = point end
  end
  return setmetatable({results = self.results, points = kept}, Results)
end

--- Each point's median of a metric, in sweep order; points without it are left out.
function Results:values(metric)
  check_metric(self, metric, 2)
  local values = {}
  for _, point in ipairs(self.points) do
    local m = point.metrics[metric]
    if m then values[#values + 1] = m.median end
  end
  return values
end

-- The greatest or smallest value that a parameter takes.
function Results:extreme(parameter, sign)
  local best
  for _, point in ipairs(self.points) do
    local v = point.parameters[parameter]
    if type(v) == "number" and (not best or v * sign > best * sign) then best = v end
  end
  return best
end

--- metric at a over metric at b. a and b name parameters; each must leave one point. Rounds are paired, as they were measured one after the other.
function Results:ratio(metric, a, b)
  check_metric(self, metric, 2)
  known_parameters(self, a, 2)
  known_parameters(self, b, 2)
  local function one(wanted, name)
    local found = self:where(wanted).points
    local ok = {}
    for _, point in ipairs(found) do
      if point.metrics[metric] then ok[#ok + 1] = point end
    end
    if #ok ~= 1 then error(("ratio: expected one point with '%s' for %s, got %d; narrow it with r:where"):format(metric, name, #ok), 3) end
    return ok[1].metrics[metric]
  end
  local x, y = one(a, "a"), one(b, "b")
  local by_round, ratios = {}, {}
  for i, round in ipairs(y.rounds) do by_round[round] = y.values[i] end
  for i, round in ipairs(x.rounds) do
    if by_round[round] then ratios[#ratios + 1] = x.values[i] / by_round[round] end
  end
  local lo, hi = stats.log_interval(ratios)
  return setmetatable({median = stats.median(ratios), lo = lo, hi = hi, n = #ratios, values = ratios}, Ratio)
end

local claims = {}

--- The handle over results that claims and scripts use.
function claims.over(results) return setmetatable({results = results, points = results.points}, Results) end

-- A claim's value as {verdict, detail}.
local function judged(value, detail)
  if type(value) == "boolean" then return value and "held" or "failed", detail end
  local meta = getmetatable(value)
  if meta and meta.__name == "attune.verdict" then return value.verdict, ("%s; claimed %s"):format(tostring(value.ratio), value.bound) .. (detail and "; " .. detail or "") end
  if value == nil then return "undecided", detail or "the claim's function returned nothing" end
  return "failed", ("the claim's function returned a %s; expected a boolean or what :above, :below or :within gives"):format(type(value))
end

--- Every claim's text, verdict and detail. A claim that raises failed, with the message as its detail.
function claims.judge(experiment, results)
  local list = {}
  for i, claim in ipairs(experiment.claims or {}) do
    local ok, value, detail = pcall(claim[2], claims.over(results))
    local v, d
    if ok then v, d = judged(value, detail and tostring(detail)) else v, d = "failed", "error: " .. tostring(value) end
    list[i] = {text = claim[1], verdict = v, detail = d}
  end
  return list
end

return claims
