--- Centres with their own intervals, quantiles, ratios.
--
-- An interval takes one value per round: rounds are independent, samples within a round are not.
-- Intervals are 95%. What is printed is the centre that its interval is of:
--   below 20 values   the mean with Student's t interval; for ratios the geometric mean, with the t
--                     interval of the logarithms
--   from 20 values on the median with the interval between two order statistics (Conover, Practical
--                     Nonparametric Statistics, section 3.2): it holds for any distribution
-- One value is its own centre and has no interval.
local stats = {}

local max_values_of_mean = 19

-- Quantile q of a sorted list, linear between neighbours (Hyndman and Fan 1996, type 7). Between
-- -infinity and infinity it is NaN.
local function of_sorted(sorted, q)
  local at = 1 + (#sorted - 1) * q
  local index = math.floor(at)
  local low, high, fraction = sorted[index], sorted[index + 1], at - index
  if fraction == 0 or low == high then return low end
  if low == -math.huge and high < math.huge then return low end
  -- As floats: a difference of integers may wrap around.
  return low + fraction * (high + 0.0 - low)
end

-- A sorted copy; nil when a value is NaN, which has no place in an order.
local function sorted_copy(values)
  for _, x in ipairs(values) do
    if x ~= x then return nil end
  end
  local copy = table.move(values, 1, #values, 1, {})
  table.sort(copy)
  return copy
end

---@param values number[]
---@param q number from 0 to 1
---@return number? quantile nil for an empty list, NaN when a value is NaN
function stats.quantile(values, q)
  if #values == 0 then return nil end
  local sorted = sorted_copy(values)
  return sorted and of_sorted(sorted, q) or 0 / 0
end

---@return number? median nil for an empty list
function stats.median(values) return stats.quantile(values, 0.5) end

--- The interquartile range.
function stats.iqr(values)
  if #values == 0 then return nil end
  local low, high = stats.quantile(values, 0.25), stats.quantile(values, 0.75)
  return low == high and 0 or high - low
end

--- The mean; of equal values exactly that value.
---@return number? mean nil for an empty list
function stats.mean(values)
  if #values == 0 then return nil end
  local first, sum = values[1] + 0.0, 0.0
  for _, x in ipairs(values) do sum = sum + (x - first) end
  -- An infinity less an infinity is NaN: such values are added as they are.
  if sum ~= sum then
    sum = 0.0
    for _, x in ipairs(values) do sum = sum + x end
    return sum / #values
  end
  return first + sum / #values
end

--- The standard deviation of a sample; nil for fewer than two values.
function stats.deviation(values)
  if #values < 2 then return nil end
  local mean, sum = stats.mean(values), 0
  for _, x in ipairs(values) do sum = sum + (x - mean) ^ 2 end
  return math.sqrt(sum / (#values - 1))
end

--- The median absolute deviation divided by the median: how unsteady positive values are.
function stats.unsteadiness(values)
  local median = stats.median(values)
  if not median or median == 0 or not stats.is_finite(median) then return 0 end
  local off = {}
  for i, x in ipairs(values) do off[i] = math.abs(x - median) end
  return stats.median(off) / math.abs(median)
end

-- The 97.5% points of Student's t for 1 .. 18 degrees of freedom.
local t_points = {
  12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145,
  2.131, 2.120, 2.110, 2.101,
}

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

---@param x number
---@return boolean
function stats.is_finite(x) return x == x and math.abs(x) < math.huge end

local function all_finite(values)
  for _, x in ipairs(values) do
    if not stats.is_finite(x) then return false end
  end
  return true
end

local function t_interval(values)
  local n, mean = #values, stats.mean(values)
  local half = t_points[n - 1] * stats.deviation(values) / math.sqrt(n)
  return mean, mean - half, mean + half
end

local function median_interval(values)
  local sorted = sorted_copy(values)
  local rank = median_rank(#sorted)
  return of_sorted(sorted, 0.5), sorted[rank], sorted[#sorted + 1 - rank]
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
function stats.centre(values)
  local n = #values
  if n < 2 then return {centre = values[1], kind = "value", n = n} end
  if not all_finite(values) then return {centre = stats.median(values), kind = "median", n = n} end
  local is_mean = n <= max_values_of_mean
  local centre, lo, hi = (is_mean and t_interval or median_interval)(values)
  return {centre = centre, kind = is_mean and "mean" or "median", lo = lo, hi = hi, n = n}
end

--- The centre of ratios with its own 95% interval: below 20 ratios their geometric mean. Ratios
--- that are not all positive have their median and no interval.
---@param values number[]
---@return attune.Centre
function stats.ratio_centre(values)
  local logs = {}
  for i, x in ipairs(values) do
    if not (x > 0) then return {centre = stats.median(values), kind = "median", n = #values} end
    logs[i] = math.log(x)
  end
  local c = stats.centre(#values > max_values_of_mean and values or logs)
  if c.kind == "value" then c.centre = values[1] end
  if c.kind == "mean" then
    c.kind = "geometric mean"
    c.centre, c.lo, c.hi = math.exp(c.centre), math.exp(c.lo), math.exp(c.hi)
  elseif c.kind == "median" and not c.lo then
    c.centre = stats.median(values)
  end
  return c
end

--- The 95% interval of the centre; nil for fewer than two values, as one value shows no spread.
---@param values number[]
---@return number? lo
---@return number? hi
function stats.interval(values)
  local c = stats.centre(values)
  return c.lo, c.hi
end

--- The 95% interval of ratios; nil unless all are positive.
function stats.log_interval(values)
  local c = stats.ratio_centre(values)
  return c.lo, c.hi
end

--- Summarises one value per round: the centre with its interval, and the median.
---@param values number[]
---@return {centre: number, kind: string, median: number, lo: number?, hi: number?, iqr: number,
--- n: integer}
function stats.summary(values)
  local summary = stats.centre(values)
  summary.median, summary.iqr = stats.median(values), stats.iqr(values)
  return summary
end

--- How many values would narrow the interval of a centre to a fraction of it on either side, if
--- they scattered as these do; nil when that cannot be told.
---@param values number[]
---@param fraction number such as 0.05
---@return integer? count from #values on
function stats.rounds_for(values, fraction)
  local c = stats.centre(values)
  if not c.lo or c.centre == 0 then return nil end
  local wanted = fraction * math.abs(c.centre)
  if math.max(c.hi - c.centre, c.centre - c.lo) <= wanted then return #values end
  local spread = stats.deviation(values)
  for n = #values + 1, max_values_of_mean do
    if t_points[n - 1] * spread / math.sqrt(n) <= wanted then return n end
  end
  -- The standard error of the median of a normal distribution is 1.253 times that of the mean.
  local n = math.ceil((1.96 * 1.253 * spread / wanted) ^ 2)
  return math.max(n, max_values_of_mean + 1, #values + 1)
end

local sentences = {
  mean = "the mean over the rounds with the 95% interval (Student's t) of this mean",
  median = "the median over the rounds with the 95% interval (order statistics) of this median",
  value = "the value of one round, which has no interval",
}

--- What the printed centres of points are.
---@param points attune.Point[]
---@param with_interval? boolean false where intervals are not printed; true by default
---@return string sentence "" when no point has a value
function stats.sentence(points, with_interval)
  local kinds, parts = {}, {}
  for _, point in ipairs(points) do
    for _, value in pairs(point.metrics) do kinds[value.kind] = true end
  end
  for _, kind in ipairs {"mean", "median", "value"} do
    local words = sentences[kind]
    if with_interval == false then words = words:gsub(" with the .*", ""):gsub(", which.*", "") end
    if kinds[kind] then parts[#parts + 1] = words end
  end
  if #parts == 0 then return "" end
  return ("Each value is %s."):format(table.concat(parts, "; or "))
end

return stats
