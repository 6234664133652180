--- Whether b is better or worse than a, from one value per round of each.
--
-- Values that are all positive are compared as a ratio b / a, through their logarithms; others as a
-- difference b - a.
--   Two lists: from 10 rounds on Wilcoxon's rank sums (Mann and Whitney) with the centre of Hodges
--   and Lehmann; below, geometric means and Welch's t (Welch 1947) of the logarithms.
--   Pairs, when asked for: from 20 rounds on Wilcoxon's signed ranks with the centre of Hodges and
--   Lehmann; below, the geometric mean of the ratios and Student's t of their logarithms.
-- Pairs help where a and b were measured alternately and the machine drifts. Without such a
-- drift, slow rounds spoil more pairs than values: docs/statistics.md has the figures.
local describe = require "attune.results.statistics.describe"
local distributions = require "attune.results.statistics.distributions"
local ranks = require "attune.results.statistics.ranks"

local comparison = {
  --- Probability of a false alarm, over all comparisons of one report together.
  alpha = 0.01,
  --- The change that is looked for: 5%. Rounds suffice when they would find it.
  change = 0.05,
  --- A change below 1% is no change, however certain it is: two runs of one program differ as much.
  threshold = 0.01,
}

local min_rounds_of_rank_sums, min_rounds_of_signed_ranks = 10, 20
local min_rounds = 3 -- suggested where one or two rounds show no spread
local power = 0.95
local max_rounds = 100000

-- Student's t of differences of pairs.
local function paired_t(d, alpha)
  local n, mean = #d, describe.mean(d)
  local error_of_mean = describe.deviation(d) / math.sqrt(n)
  local half = distributions.t_point(alpha, n - 1) * error_of_mean
  local p = mean == 0 and 1.0 or distributions.t_two_sided(mean / error_of_mean, n - 1)
  return {centre = mean, lo = mean - half, hi = mean + half, p = p, test = "t of pairs"}
end

-- Welch's t of two lists, at least two values each.
local function welch(a, b, alpha)
  local of_a, of_b = describe.deviation(a) ^ 2 / #a, describe.deviation(b) ^ 2 / #b
  local shift, spread = describe.mean(b) - describe.mean(a), math.sqrt(of_a + of_b)
  if spread == 0 then
    return {centre = shift, lo = shift, hi = shift, p = shift == 0 and 1.0 or 0.0, test = "t"}
  end
  -- As shares of the variance: its square may be below the smallest number.
  local share = of_a / (of_a + of_b)
  local df = 1 / (share ^ 2 / (#a - 1) + (1 - share) ^ 2 / (#b - 1))
  local half = distributions.t_point(alpha, df) * spread
  local p = distributions.t_two_sided(shift / spread, df)
  return {centre = shift, lo = shift - half, hi = shift + half, p = p, test = "t"}
end

--- Whether two means differ, by Welch's t (Welch 1947): the lists may scatter differently.
---@param a number[] at least two
---@param b number[] at least two
---@param alpha? number 0.05 by default: a 95% interval
---@return {centre: number, lo: number, hi: number, p: number} shift of b's mean above a's
function comparison.welch(a, b, alpha)
  ranks.check("welch", a, "a", 2)
  ranks.check("welch", b, "b", 2)
  local t = welch(a, b, alpha or 0.05)
  t.test = nil
  return t
end

local function by_signed_ranks(d, alpha)
  local centre, lo, hi = ranks.middle(d, alpha)
  return {centre = centre, lo = lo, hi = hi, p = ranks.signed_rank(d).p, test = "signed ranks"}
end

local function by_rank_sums(a, b, alpha)
  local centre, lo, hi = ranks.shift(a, b, alpha)
  return {centre = centre, lo = lo, hi = hi, p = ranks.mann_whitney(a, b).p, test = "rank sums"}
end

-- The standard deviation that the next rounds are expected to have. Where ranks are used it is that
-- of the middle of the values, as one slow round says little about the others.
local function expected_spread(values, by_ranks)
  return by_ranks and describe.iqr(values) / 1.349 or describe.deviation(values)
end

-- How many rounds find a shift with the power above; factor 1 for pairs, 2 for two lists. Ranks
-- need 5% more than t.
local function rounds_to_find(shift, spread, factor, alpha)
  local per_shift = factor * (spread / shift) ^ 2
  local n = min_rounds
  for _ = 1, 50 do
    local df = factor * (n - 1)
    local sum = distributions.t_point(alpha, df)
      + distributions.t_point(2 * (1 - power), df)
    local needed = per_shift * sum ^ 2
    if n >= min_rounds_of_rank_sums then needed = needed / 0.955 end
    needed = math.max(min_rounds, math.ceil(math.min(needed, max_rounds)))
    if needed == n or needed == max_rounds then return needed end
    -- From few rounds on the points of t fall fast: half a step does not swing.
    n = needed < n and needed + (n - needed) // 2 or n + (needed - n + 1) // 2
  end
  return n
end

local function all_positive(values)
  for _, x in ipairs(values) do
    if not (x > 0) then return false end
  end
  return true
end

local function mapped(values, fn)
  local list = {}
  for i, x in ipairs(values) do list[i] = fn(x) end
  return list
end

-- The differences b - a of the rounds that both have.
local function differences(a, b, options)
  local at, list = {}, {}
  for i, x in ipairs(a) do at[options.rounds_a and options.rounds_a[i] or i] = x end
  for i, x in ipairs(b) do
    local round = options.rounds_b and options.rounds_b[i] or i
    if at[round] then list[#list + 1] = x - at[round] end
    at[round] = nil
  end
  return list
end

---@class attune.CompareOptions
---@field paired? boolean a and b were measured alternately: rounds of one number are pairs
---@field rounds_a? integer[] the round of each value; without them by position
---@field rounds_b? integer[]
---@field alpha? number 0.01 by default
---@field change? number to look for: 0.05 by default
---@field threshold? number below which a change is none: 0.01 by default
---@field comparisons? integer among which alpha is shared (Holm); 1 by default

---@class attune.Comparison
---@field kind "ratio"|"difference" of b to a
---@field scale? number of a difference: the size of the mean of a
---@field centre? number nil where a value is missing or not finite
---@field lo? number lower end of the interval with probability 1 - alpha; nil for a single value
---@field hi? number
---@field p? number two-sided; nil for a single value
---@field test? "t"|"t of pairs"|"rank sums"|"signed ranks"
---@field paired boolean
---@field n_a integer number of values
---@field n_b integer
---@field is_exact boolean neither a nor b scatters, over two rounds or more
---@field rounds_needed? integer rounds of each that would find the change; nil: cannot be told

local function rounds_needed(c, spread, centre, factor, scale, options)
  local alpha = (options.alpha or comparison.alpha) / (options.comparisons or 1)
  local change = options.change or comparison.change
  local least = c.kind == "ratio" and math.log(1 + change) or change * scale
  local shift = math.max(least, math.abs(centre))
  return shift > 0 and rounds_to_find(shift, spread, factor, alpha) or nil
end

-- Whether rank sums of so few values can be as unlikely as needed: with some room below alpha.
local function ranks_suffice(n, m, alpha, options)
  if math.min(n, m) < min_rounds_of_rank_sums then return false end
  local arrangements = 1.0
  for i = 1, math.min(n, m) do arrangements = arrangements * (n + m + 1 - i) / i end
  return 2 / arrangements * (options.comparisons or 1) < alpha / 10
end

-- Each returns what its test found and the rounds that would do.

local function compare_pairs(c, d, scale, alpha, options)
  local by_ranks = #d >= min_rounds_of_signed_ranks
  local found = (by_ranks and by_signed_ranks or paired_t)(d, alpha)
  local spread = expected_spread(d, by_ranks)
  return found, rounds_needed(c, spread, found.centre, 1, scale, options)
end

local function compare_lists(c, a, b, scale, alpha, options)
  -- Lists that do not scatter, such as bytes, need no ranks.
  local scatters = describe.deviation(a) > 0 or describe.deviation(b) > 0
  local by_ranks = scatters and ranks_suffice(#a, #b, alpha, options)
  local found = (by_ranks and by_rank_sums or welch)(a, b, alpha)
  local of_a, of_b = expected_spread(a, by_ranks), expected_spread(b, by_ranks)
  local spread = math.sqrt((of_a ^ 2 + of_b ^ 2) / 2)
  return found, rounds_needed(c, spread, found.centre, 2, scale, options)
end

--- Compares two lists with one value per round.
---@param a number[]
---@param b number[]
---@param options? attune.CompareOptions
---@return attune.Comparison
function comparison.compare(a, b, options)
  options = options or {}
  local c = {kind = "ratio", paired = false, n_a = #a, n_b = #b, is_exact = false}
  if #a == 0 or #b == 0 or not (describe.all_finite(a) and describe.all_finite(b)) then return c end
  local alpha, scale = options.alpha or comparison.alpha, nil
  local is_ratio = all_positive(a) and all_positive(b)
  if is_ratio then
    a, b = mapped(a, math.log), mapped(b, math.log)
  else
    scale = math.abs(describe.mean(a))
    c.kind, c.scale = "difference", scale
  end
  local d = options.paired and differences(a, b, options) or {}
  local found
  if #d >= 2 then
    c.paired, c.n_a, c.n_b = true, #d, #d
    found, c.rounds_needed = compare_pairs(c, d, scale, alpha, options)
  elseif #a >= 2 and #b >= 2 then
    found, c.rounds_needed = compare_lists(c, a, b, scale, alpha, options)
  else
    found, c.rounds_needed = {centre = describe.mean(b) - describe.mean(a)}, min_rounds
  end
  c.is_exact = found.p ~= nil and describe.deviation(a) == 0 and describe.deviation(b) == 0
  local back = is_ratio and math.exp or function(x) return x end
  c.centre = back(found.centre)
  if found.lo then c.lo, c.hi = back(found.lo), back(found.hi) end
  c.p, c.test = found.p, found.test
  return c
end

--- Adjusts probabilities for their number, so that one false alarm among all stays as unlikely as
--- alpha says (Holm 1979).
---@param list (number|false)[] false where there is no probability
---@return (number|false)[] adjusted in the same order
function comparison.holm(list)
  local order, adjusted = {}, {}
  for i = 1, #list do
    adjusted[i] = list[i]
    if list[i] then order[#order + 1] = i end
  end
  table.sort(order, function(i, j)
    if list[i] ~= list[j] then return list[i] < list[j] end
    return i < j
  end)
  local max = 0.0
  for k, i in ipairs(order) do
    max = math.max(max, math.min(1, list[i] * (#order - k + 1)))
    adjusted[i] = max
  end
  return adjusted
end

-- Whether everything from lo to hi is no change, or one up to this size.
local function is_within(c, lo, hi, change)
  if not lo then return false end
  if c.kind == "difference" then return math.max(-lo, hi) <= change * c.scale end
  return lo >= 1 - change and hi <= 1 + change
end

---@alias attune.ComparisonVerdict
---| "better"
---| "worse"
---| "differs"     where the metric says neither lower nor higher
---| "same"        any difference is below the change that is looked for
---| "cannot tell" the rounds do not suffice

--- The verdict on b. A difference counts when it is certain (p below alpha) and at least the
--- threshold; without any scatter every difference counts.
---@param c attune.Comparison
---@param better? "lower"|"higher"
---@param p? number|false c.p by default; adjusted by holm where there are several comparisons
---@param options? attune.CompareOptions
---@return attune.ComparisonVerdict
function comparison.verdict(c, better, p, options)
  options = options or {}
  p = p or c.p
  local zero = c.kind == "ratio" and 1 or 0
  if not c.centre then return "cannot tell" end
  if not p then return c.centre == zero and "same" or "cannot tell" end
  if p < (options.alpha or comparison.alpha) then
    local threshold = options.threshold or comparison.threshold
    local is_small = is_within(c, c.centre, c.centre, threshold)
    if is_small and not c.is_exact then return "same" end
    if better == nil then return "differs" end
    return (c.centre < zero) == (better == "lower") and "better" or "worse"
  end
  local change = options.change or comparison.change
  return is_within(c, c.lo, c.hi, change) and "same" or "cannot tell"
end

return comparison
