--- Centres with their own intervals.
--
-- An interval takes one value per round: rounds are independent, samples within a round are not.
-- Intervals are 95%. What is printed is the centre that its interval is of:
--   below 20 values   the mean with Student's t interval; for ratios the geometric mean, with the t
--                     interval of the logarithms
--   from 20 values on the median with the interval between two order statistics (Conover, Practical
--                     Nonparametric Statistics, section 3.2): it holds for any distribution
-- One value is its own centre and has no interval.
local describe = require "attune.results.statistics.describe"
local distributions = require "attune.results.statistics.distributions"

local intervals = {}

local max_values_of_mean = 19
local alpha = 0.05
local max_rounds = 1e9

-- Ranks r and n + 1 - r of the order statistics around the median: the largest r for which a fair
-- coin, thrown n times, shows fewer than r heads with a probability of at most 2.5%.
local function median_rank(n)
  -- 2^-n is no double beyond n = 1074; there the normal approximation is off by a rank at most.
  if n > 1000 then return math.floor((n - 1.96 * math.sqrt(n)) / 2) end
  local term, sum, rank = 2.0 ^ -n, 0, 0
  while sum + term <= 0.025 do
    sum = sum + term
    rank = rank + 1
    term = term * (n - rank + 1) / rank
  end
  return rank
end

local function t_interval(values)
  local n, mean = #values, describe.mean(values)
  local half = distributions.t_point(alpha, n - 1) * describe.deviation(values) / math.sqrt(n)
  return mean, mean - half, mean + half
end

local function median_interval(values)
  local sorted = table.move(values, 1, #values, 1, {})
  table.sort(sorted)
  local rank = median_rank(#sorted)
  return describe.median(sorted), sorted[rank], sorted[#sorted + 1 - rank]
end

---@class attune.Centre
---@field centre number? nil for an empty list
---@field kind "value"|"mean"|"geometric mean"|"median" what the centre is
---@field lo number? lower end of the 95% interval of this centre
---@field hi number? upper end
---@field n integer number of values

--- The centre of values with its own 95% interval. One value has no interval. Values of which one
--- is not finite have their median and no interval.
---@param values number[]
---@return attune.Centre
function intervals.centre(values)
  local n = #values
  if n < 2 then return {centre = values[1], kind = "value", n = n} end
  if not describe.all_finite(values) then
    return {centre = describe.median(values), kind = "median", n = n}
  end
  local is_mean = n <= max_values_of_mean
  local centre, lo, hi = (is_mean and t_interval or median_interval)(values)
  return {centre = centre, kind = is_mean and "mean" or "median", lo = lo, hi = hi, n = n}
end

--- The centre of ratios with its own 95% interval: below 20 ratios their geometric mean. Ratios
--- that are not all positive have their median and no interval.
---@param values number[]
---@return attune.Centre
function intervals.ratio_centre(values)
  local logs = {}
  for i, x in ipairs(values) do
    if not (x > 0) then return {centre = describe.median(values), kind = "median", n = #values} end
    logs[i] = math.log(x)
  end
  local c = intervals.centre(#values > max_values_of_mean and values or logs)
  if c.kind == "value" then c.centre = values[1] end
  if c.kind == "mean" then
    c.kind = "geometric mean"
    c.centre, c.lo, c.hi = math.exp(c.centre), math.exp(c.lo), math.exp(c.hi)
  elseif c.kind == "median" and not c.lo then
    c.centre = describe.median(values)
  end
  return c
end

--- The 95% interval of the centre; nil for fewer than two values, as one value shows no spread.
---@param values number[]
---@return number? lo
---@return number? hi
function intervals.interval(values)
  local c = intervals.centre(values)
  return c.lo, c.hi
end

--- Summarises one value per round: the centre with its interval, and the median.
---@param values number[]
---@return {centre: number, kind: string, median: number, lo: number?, hi: number?, iqr: number,
--- n: integer}
function intervals.summary(values)
  local summary = intervals.centre(values)
  summary.median, summary.iqr = describe.median(values), describe.iqr(values)
  return summary
end

--- How many values would narrow the interval of a centre to a fraction of it on either side, if
--- they scattered as these do; nil when that cannot be told.
---@param values number[]
---@param fraction number such as 0.05
---@return integer? count from #values on
function intervals.rounds_for(values, fraction)
  local centre = intervals.centre(values).centre
  if not centre or centre == 0 then return nil end
  return intervals.rounds_for_width(values, fraction * math.abs(centre))
end

--- How many values would narrow the interval of a centre to `wanted` on either side, if they
--- scattered as these do; nil when that cannot be told.
---@param values number[]
---@param wanted number
---@return integer? count from #values on
function intervals.rounds_for_width(values, wanted)
  local c = intervals.centre(values)
  if not c.lo or not (wanted > 0) then return nil end
  if math.max(c.hi - c.centre, c.centre - c.lo) <= wanted then return #values end
  local spread = describe.deviation(values)
  for n = #values + 1, max_values_of_mean do
    if distributions.t_point(alpha, n - 1) * spread / math.sqrt(n) <= wanted then return n end
  end
  -- The standard error of the median of a normal distribution is 1.253 times that of the mean.
  local n = math.ceil(math.min((1.96 * 1.253 * spread / wanted) ^ 2, max_rounds))
  return math.max(n, max_values_of_mean + 1, #values + 1)
end

return intervals
