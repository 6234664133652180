--- Tests and intervals by counting or drawing rearrangements of the values.
local describe = require "attune.results.statistics.describe"
local distributions = require "attune.results.statistics.distributions"
local ranks = require "attune.results.statistics.ranks"
local random = require "attune.util.random"

local check = ranks.check
local resampling = {}

local max_counted = 200000 -- rearrangements; beyond, this many are drawn
local max_drawn = 20000

-- The number of subsets of k out of n, as a float.
local function choose(n, k)
  local count = 1.0
  for i = 1, k do count = count * (n - k + i) / i end
  return count
end

-- Counts sums at or beyond the observed one. Sums that differ by rounding alone are equal.
local function new_tally(observed, scale)
  local slack = 1e-12 * scale
  local tally = {low = 0, high = 0, total = 0}
  function tally.add(sum)
    if sum <= observed + slack then tally.low = tally.low + 1 end
    if sum >= observed - slack then tally.high = tally.high + 1 end
    tally.total = tally.total + 1
  end
  -- One is added where arrangements are drawn: the observed one is one of them (Phipson and Smyth
  -- 2010).
  function tally.p(drawn)
    local extra = drawn and 1 or 0
    return math.min(1, 2 * (math.min(tally.low, tally.high) + extra) / (tally.total + extra))
  end
  return tally
end

local function size_of(values)
  local sum = 0.0
  for _, x in ipairs(values) do sum = sum + math.abs(x) end
  return sum
end

-- Calls add with the sum of every subset of k values.
local function all_sums(values, k, add)
  local n = #values
  local function visit(first, left, sum)
    if left == 0 then return add(sum) end
    for i = first, n - left + 1 do visit(i + 1, left - 1, sum + values[i]) end
  end
  visit(1, k, 0.0)
end

--- Whether the means of two lists differ (Fisher's permutation test): p is twice the share of ways
--- to deal all values into two lists of these sizes in which the first sum is as extreme on its
--- side. Exact up to 200,000 ways; beyond, 20,000 seeded draws.
---@param a number[]
---@param b number[]
---@param options? {seed: integer?}
---@return attune.Test statistic: mean of a less mean of b
function resampling.permutation(a, b, options)
  check("permutation", a, "a", 1)
  check("permutation", b, "b", 1)
  local n, m = #a, #b
  local all = table.move(b, 1, m, n + 1, table.move(a, 1, n, 1, {}))
  local observed = 0.0
  for i = 1, n do observed = observed + all[i] end
  local tally = new_tally(observed, size_of(all))
  local is_exact = choose(n + m, math.min(n, m)) <= max_counted
  if is_exact then
    all_sums(all, n, tally.add)
  else
    local stream = random.stream(options and options.seed or 1)
    for _ = 1, max_drawn do
      local sum = 0.0
      for i = 1, n do
        local j = i + math.floor(stream:number() * (n + m - i + 1))
        all[i], all[j] = all[j], all[i]
        sum = sum + all[i]
      end
      tally.add(sum)
    end
  end
  local difference = describe.mean(a) - describe.mean(b)
  return {statistic = difference, p = tally.p(not is_exact), exact = is_exact}
end

--- Whether the mean of differences of pairs is 0 (Fisher 1935): p is the share of the 2^n choices
--- of signs with a sum as far from 0. Exact up to 17 differences; beyond, 20,000 seeded draws. Five
--- pairs cannot give a p below 0.0625.
---@param differences number[]
---@param options? {seed: integer?}
---@return attune.Test statistic: the mean
function resampling.sign_flip(differences, options)
  check("sign_flip", differences, "differences", 1)
  local n, observed = #differences, 0.0
  for _, d in ipairs(differences) do observed = observed + d end
  local tally = new_tally(observed, size_of(differences))
  local is_exact = 2.0 ^ n <= max_counted
  if is_exact then
    local function visit(i, sum)
      if i > n then return tally.add(sum) end
      visit(i + 1, sum + differences[i])
      visit(i + 1, sum - differences[i])
    end
    visit(1, 0.0)
  else
    local stream = random.stream(options and options.seed or 1)
    for _ = 1, max_drawn do
      local sum = 0.0
      for i = 1, n do sum = sum + (stream:number() < 0.5 and differences[i] or -differences[i]) end
      tally.add(sum)
    end
  end
  local mean = describe.mean(differences)
  return {statistic = mean, p = tally.p(not is_exact), exact = is_exact}
end

local min_values_of_bca = 8

-- Bias and acceleration of BCa (Efron 1987, equations 2.8 and 6.6): from the share of resampled
-- statistics below the observed one, and from the statistics without one value each.
local function corrections(values, statistic, observed, resampled)
  local below, without, cubes, squares = 0, {}, 0.0, 0.0
  for _, x in ipairs(resampled) do
    below = below + (x < observed and 1 or x == observed and 0.5 or 0)
  end
  for i = 1, #values do
    local rest = table.move(values, 1, i - 1, 1, {})
    table.move(values, i + 1, #values, i, rest)
    without[i] = statistic(rest)
  end
  local mean = describe.mean(without)
  for _, x in ipairs(without) do
    cubes, squares = cubes + (mean - x) ^ 3, squares + (mean - x) ^ 2
  end
  local bias = distributions.normal_quantile(below / #resampled)
  return bias, squares > 0 and cubes / (6 * squares ^ 1.5) or 0
end

---@class attune.BootstrapOptions
---@field statistic? fun(values: number[]): number the mean by default
---@field resamples? integer 10,000 by default
---@field alpha? number 0.05 by default: a 95% interval
---@field seed? integer 1 by default

--- The bootstrap interval BCa: bias-corrected and accelerated (Efron 1987). Below 8 values it is
--- refused: from 5 values a nominal 95% interval holds the mean in 85% of cases.
---@param values number[] at least 8
---@param options? attune.BootstrapOptions
---@return number statistic of the values
---@return number lo
---@return number hi
function resampling.bca(values, options)
  check("bca", values, "values", min_values_of_bca)
  options = options or {}
  local statistic, count = options.statistic or describe.mean, options.resamples or 10000
  local alpha, stream = options.alpha or 0.05, random.stream(options.seed or 1)
  local n, observed, resampled = #values, statistic(values), {}
  for r = 1, count do
    local drawn = {}
    for i = 1, n do drawn[i] = values[1 + math.floor(stream:number() * n)] end
    resampled[r] = statistic(drawn)
  end
  local bias, acceleration = corrections(values, statistic, observed, resampled)
  -- All resamples agree: the statistic does not vary.
  if not describe.is_finite(bias) then
    return observed, describe.quantile(resampled, 0), describe.quantile(resampled, 1)
  end
  local function at(p)
    local z = bias + distributions.normal_quantile(p)
    local q = distributions.normal(bias + z / (1 - acceleration * z))
    return describe.quantile(resampled, q)
  end
  return observed, at(alpha / 2), at(1 - alpha / 2)
end

return resampling
