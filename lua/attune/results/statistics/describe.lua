--- What describes a list of values: quantiles, mean, spread, outliers, and what repeats along the
--- rounds. Every function leaves its list as it is.
local distributions = require "attune.results.statistics.distributions"

local describe = {}

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
function describe.quantile(values, q)
  if type(q) ~= "number" or not (q >= 0 and q <= 1) then
    error(("quantile: expected q from 0 to 1, got %s"):format(tostring(q)), 2)
  end
  if #values == 0 then return nil end
  local sorted = sorted_copy(values)
  return sorted and of_sorted(sorted, q) or 0 / 0
end

---@return number? median nil for an empty list
function describe.median(values) return describe.quantile(values, 0.5) end

--- The interquartile range.
function describe.iqr(values)
  if #values == 0 then return nil end
  local sorted = sorted_copy(values)
  if not sorted then return 0 / 0 end
  local low, high = of_sorted(sorted, 0.25), of_sorted(sorted, 0.75)
  return low == high and 0 or high - low
end

--- The mean; of equal values exactly that value.
---@return number? mean nil for an empty list
function describe.mean(values)
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
function describe.deviation(values)
  if #values < 2 then return nil end
  local mean, sum = describe.mean(values), 0
  for _, x in ipairs(values) do sum = sum + (x - mean) ^ 2 end
  return math.sqrt(sum / (#values - 1))
end

--- The median absolute deviation divided by the median: how unsteady positive values are.
function describe.unsteadiness(values)
  local median = describe.median(values)
  if not median or median == 0 or not describe.is_finite(median) then return 0 end
  local off = {}
  for i, x in ipairs(values) do off[i] = math.abs(x - median) end
  return describe.median(off) / math.abs(median)
end

--- Whether x is neither NaN nor an infinity.
---@param x number
---@return boolean
function describe.is_finite(x) return x == x and math.abs(x) < math.huge end

---@param values number[]
---@return boolean
function describe.all_finite(values)
  for _, x in ipairs(values) do
    if not describe.is_finite(x) then return false end
  end
  return true
end

---@class attune.Outlier
---@field index integer of the value, from 1
---@field value number
---@field severe boolean beyond three interquartile ranges, else beyond one and a half

--- The values outside Tukey's fences: further than 1.5 interquartile ranges below the first or
--- above the third quartile; severe from 3 on (Tukey 1977, Exploratory Data Analysis, 2D). They are
--- flagged, and stay in every result. Fewer than five values have none.
---@param values number[]
---@return attune.Outlier[]
function describe.outliers(values)
  local list = {}
  if #values < 5 or not describe.all_finite(values) then return list end
  local low, high = describe.quantile(values, 0.25), describe.quantile(values, 0.75)
  local range = high - low
  for i, x in ipairs(values) do
    local beyond = math.max(low - x, x - high)
    if beyond > 1.5 * range then
      list[#list + 1] = {index = i, value = x, severe = beyond > 3 * range}
    end
  end
  return list
end

--- The correlation of each value with the one before it, and the probability of one as far from 0
--- among independent values (Ljung and Box 1978, one lag). Positive: rounds are not independent,
--- and intervals are too narrow.
---@param values number[]
---@return number? r nil for fewer than five values, and for equal or nonfinite ones
---@return number? p
function describe.autocorrelation(values)
  local n = #values
  if n < 5 or not describe.all_finite(values) then return nil end
  local mean, sum, products = describe.mean(values), 0.0, 0.0
  for i, x in ipairs(values) do
    sum = sum + (x - mean) ^ 2
    if i > 1 then products = products + (x - mean) * (values[i - 1] - mean) end
  end
  if not (sum > 0 and sum < math.huge) then return nil end
  local r = products / sum
  return r, distributions.chi_squared_one(n * (n + 2) * r * r / (n - 1))
end

-- The number of orders of n values with each number of discordant pairs, from 0, divided by n!.
local function order_shares(n)
  local shares = {[0] = 1.0}
  local max = 0
  for k = 2, n do
    local next_shares = {}
    for d = 0, max + k - 1 do
      local sum = 0.0
      for j = math.max(0, d - max), math.min(k - 1, d) do sum = sum + shares[d - j] end
      next_shares[d] = sum / k
    end
    shares, max = next_shares, max + k - 1
  end
  return shares
end

-- Cumulative shares for each n, kept: {[n] = {[d] = share of orders with at most d}}.
local kept = {}

-- The two-sided probability of Kendall's s = concordant - discordant pairs; n values without ties.
local function exact_kendall(s, n)
  local max = n * (n - 1) // 2
  if not kept[n] then
    local sum = 0.0
    kept[n] = order_shares(n)
    for d = 0, max do
      sum = sum + kept[n][d]
      kept[n][d] = sum
    end
  end
  return math.min(1, 2 * kept[n][(max - math.abs(s)) // 2])
end

local max_exact_drift = 30
local max_values_of_drift = 1000 -- there are half a million slopes

---@class attune.Drift
---@field tau number Kendall's tau of value and round, from -1 to 1
---@field p number probability of a tau as far from 0 without drift
---@field slope number change per round: the median of all slopes between two rounds
---@field total number slope * (n - 1), divided by the median; 0 where the median is 0

--- Whether values rise or fall with the round: Kendall's tau (Mann 1945; exact up to 30 values
--- without ties, else the normal approximation with the correction for ties, Kendall 1970), with
--- the slope of Theil and Sen (Sen 1968).
---@param values number[]
---@return attune.Drift? drift nil for fewer than 5 values, more than 1,000, and nonfinite ones
function describe.drift(values)
  local n = #values
  if n < 5 or n > max_values_of_drift or not describe.all_finite(values) then return nil end
  local s, slopes, counts, ties = 0, {}, {}, 0
  for i = 1, n do
    counts[values[i]] = (counts[values[i]] or 0) + 1
    for j = i + 1, n do
      local d = values[j] + 0.0 - values[i]
      s = s + (d > 0 and 1 or d < 0 and -1 or 0)
      slopes[#slopes + 1] = d / (j - i)
    end
  end
  local pairs_count, tied_variance = n * (n - 1) / 2, 0
  for _, t in pairs(counts) do
    ties = ties + t * (t - 1) / 2
    tied_variance = tied_variance + t * (t - 1) * (2 * t + 5)
  end
  local p = 1.0
  if ties == 0 and n <= max_exact_drift then
    p = exact_kendall(s, n)
  elseif ties < pairs_count then
    local variance = (n * (n - 1) * (2 * n + 5) - tied_variance) / 18
    p = distributions.normal_two_sided(s / math.sqrt(variance))
  end
  local slope, median = describe.median(slopes), describe.median(values)
  return {
    tau = ties < pairs_count and s / math.sqrt(pairs_count * (pairs_count - ties)) or 0,
    p = p,
    slope = slope,
    total = median ~= 0 and slope * (n - 1) / math.abs(median) or 0,
  }
end

return describe
