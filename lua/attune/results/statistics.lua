--- Medians, intervals, ratios.
--
-- An interval takes one value per round: rounds are independent, samples within a round are not.
-- Intervals are 95%. Below 20 values they are Student's t (of 5 values a bootstrap covers 85%, t
-- covers 96%), from 20 values on a percentile bootstrap with a fixed seed.
local core = require "attune.core"

local stats = {}

-- Quantile q of a sorted list, linear between neighbours (Hyndman and Fan 1996, type 7).
local function of_sorted(sorted, q)
  local at = 1 + (#sorted - 1) * q
  local low = math.floor(at)
  local high = math.min(low + 1, #sorted)
  return sorted[low] + (at - low) * (sorted[high] - sorted[low])
end

local function sorted_copy(values)
  local copy = table.move(values, 1, #values, 1, {})
  table.sort(copy)
  return copy
end

---@param values number[]
---@param q number from 0 to 1
---@return number? quantile nil for an empty list
function stats.quantile(values, q)
  if #values == 0 then return nil end
  return of_sorted(sorted_copy(values), q)
end

---@return number? median nil for an empty list
function stats.median(values) return stats.quantile(values, 0.5) end

--- The interquartile range.
function stats.iqr(values)
  if #values == 0 then return nil end
  local sorted = sorted_copy(values)
  return of_sorted(sorted, 0.75) - of_sorted(sorted, 0.25)
end

function stats.mean(values)
  if #values == 0 then return nil end
  local sum = 0
  for _, x in ipairs(values) do sum = sum + x end
  return sum / #values
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
  if not median or median == 0 then return 0 end
  local off = {}
  for i, x in ipairs(values) do off[i] = math.abs(x - median) end
  return stats.median(off) / math.abs(median)
end

-- The 97.5% points of Student's t for 1 .. 18 degrees of freedom.
local t_points = {
  12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145,
  2.131, 2.120, 2.110, 2.101,
}

-- Integers from 1 to n, each time the same ones: the words of Philox with `seed` as its key.
local function generator(seed)
  local key, block, words, used = {seed, 0}, 0, {}, 4
  return function(n)
    if used == 4 then
      words = core.philox({block, 0, 0, 0}, key)
      block, used = block + 1, 0
    end
    used = used + 1
    return (words[used] * n >> 32) + 1
  end
end

local function bootstrap(values, resamples)
  local draw, medians = generator(#values), {}
  for r = 1, resamples do
    local sample = {}
    for i = 1, #values do sample[i] = values[draw(#values)] end
    medians[r] = stats.median(sample)
  end
  table.sort(medians)
  return of_sorted(medians, 0.025), of_sorted(medians, 0.975)
end

--- The 95% interval of the centre; nil for fewer than two values, as one value shows no spread.
---@param values number[]
---@return number? lo
---@return number? hi
function stats.interval(values)
  local n = #values
  if n < 2 then return nil end
  if n >= 20 then return bootstrap(values, 2000) end
  local half = t_points[n - 1] * stats.deviation(values) / math.sqrt(n)
  local centre = stats.mean(values)
  return centre - half, centre + half
end

--- The 95% interval of ratios, computed from their logarithms; nil unless all are positive.
function stats.log_interval(values)
  local logs = {}
  for i, x in ipairs(values) do
    if not (x > 0) then return nil end
    logs[i] = math.log(x)
  end
  local lo, hi = stats.interval(logs)
  if not lo then return nil end
  return math.exp(lo), math.exp(hi)
end

--- Summarises one value per round.
---@param values number[]
---@return {median: number, lo: number?, hi: number?, iqr: number, n: integer}
function stats.summary(values)
  local lo, hi = stats.interval(values)
  return {median = stats.median(values), lo = lo, hi = hi, iqr = stats.iqr(values), n = #values}
end

return stats
