--- Tests by ranks and the intervals that go with them. They hold for any distribution; one slow
--- round counts as one rank. Ties get the mean of their ranks.
local describe = require "attune.results.statistics.describe"
local distributions = require "attune.results.statistics.distributions"

local ranks = {}

-- The ranks of a list from 1, ties with their mean; the sum of t^3 - t over groups of t ties.
local function rank(values)
  local order = {}
  for i = 1, #values do order[i] = i end
  table.sort(order, function(i, j)
    if values[i] ~= values[j] then return values[i] < values[j] end
    return i < j
  end)
  local list, ties, first = {}, 0, 1
  while first <= #order do
    local last = first
    while last < #order and values[order[last + 1]] == values[order[first]] do last = last + 1 end
    for i = first, last do list[order[i]] = (first + last) / 2 end
    local t = last - first + 1
    ties = ties + (t * t * t - t)
    first = last + 1
  end
  return list, ties
end

local function sorted(values)
  local list = table.move(values, 1, #values, 1, {})
  table.sort(list)
  return list
end

local function check(name, values, label, min_count)
  local count = type(values) == "table" and #values or nil
  if not count or count < min_count then
    error(("%s: expected at least %d values in %s, got %s"):format(name, min_count, label,
      count or tostring(values)), 3)
  end
  if not describe.all_finite(values) then
    error(("%s: expected finite numbers in %s, got NaN or an infinity"):format(name, label), 3)
  end
end

ranks.check = check

-- Raises an error for what is no probability of an interval to miss.
local function check_alpha(name, alpha)
  if type(alpha) == "number" and alpha > 0 and alpha < 1 then return end
  error(("%s: expected alpha between 0 and 1, such as 0.05, got %s"):format(name, tostring(alpha)),
    3)
end

-- The number of subsets of `size` of the weights (whole numbers), or of any size, for each sum.
local function subset_sums(weights, size)
  local total = 0
  for _, w in ipairs(weights) do total = total + w end
  local counts, sizes = {}, size or 0
  for k = 0, sizes do
    counts[k] = {}
    for s = 0, total do counts[k][s] = 0.0 end
  end
  counts[0][0] = 1.0
  local reached = 0
  for i, w in ipairs(weights) do
    for k = math.min(sizes, i), size and 1 or 0, -1 do
      local from, to = counts[size and k - 1 or 0], counts[k]
      for s = reached, 0, -1 do
        if from[s] ~= 0 then to[s + w] = to[s + w] + from[s] end
      end
    end
    reached = reached + w
  end
  return counts[sizes], total
end

-- Cumulative shares of sums: shares[s] is the share of subsets with a sum of at most s.
local function cumulative(weights, size)
  local counts, total = subset_sums(weights, size)
  local shares, sum = {}, 0.0
  for s = 0, total do
    sum = sum + counts[s]
    shares[s] = sum
  end
  for s = 0, total do shares[s] = shares[s] / sum end
  return shares, total
end

-- The shares for ranks 1 .. n without ties, kept: {[n] = {[size] = shares}}; size 0: any size.
local kept = {}
local function untied(n, size)
  kept[n] = kept[n] or {}
  local entry = kept[n][size or 0]
  if not entry then
    local weights = {}
    for i = 1, n do weights[i] = i end
    local shares, total = cumulative(weights, size)
    entry = {shares = shares, total = total}
    kept[n][size or 0] = entry
  end
  return entry.shares, entry.total
end

-- The two-sided probability of a sum of ranks among all subsets.
local function exact(list, ties, size, observed)
  local shares, total
  local factor = ties == 0 and 1 or 2 -- a mean of two ranks has a half
  if ties == 0 then
    shares, total = untied(#list, size)
  else
    local weights = {}
    for i, r in ipairs(list) do weights[i] = math.tointeger(2 * r) end
    shares, total = cumulative(weights, size)
  end
  local s = math.tointeger(factor * observed)
  local below, above = shares[s], s > 0 and 1 - shares[s - 1] or 1.0
  -- Sums as far from the other end are as likely, and 1 - share would lose digits.
  if size == nil then
    above = shares[total - s]
  elseif ties == 0 then
    above = shares[size * (#list + 1) - s]
  end
  return math.min(1, 2 * math.min(below, above))
end

-- The ranks of two sorted lists together, the sum of t^3 - t over groups of t ties, and the sum of
-- the ranks of the first list.
local function merged_ranks(a, b)
  local n, m, i, j, ties, sum, list = #a, #b, 1, 1, 0, 0, {}
  while i <= n or j <= m do
    local value = (j > m or i <= n and a[i] <= b[j]) and a[i] or b[j]
    local first_of_a, first = i, i + j - 1
    while i <= n and a[i] == value do i = i + 1 end
    while j <= m and b[j] == value do j = j + 1 end
    local t = i + j - 1 - first
    local mean = first + (t - 1) / 2
    for k = first, first + t - 1 do list[k] = mean end
    sum = sum + (i - first_of_a) * mean
    ties = ties + (t * t * t - t)
  end
  return list, ties, sum
end

local max_exact, max_exact_with_ties = 50, 24

---@class attune.Test
---@field p number two-sided probability of a result as extreme without a difference
---@field statistic number
---@field exact boolean whether p counts every arrangement of the ranks
---@field df? number degrees of freedom

--- Mann and Whitney 1947 (Wilcoxon's rank sum): whether values of one list tend to be larger. Exact
--- up to 50 values together, with ties up to 24; else the normal approximation with the correction
--- for ties and for continuity.
---@param a number[]
---@param b number[]
---@return attune.Test statistic: the pairs in which the value of a is larger, ties half
function ranks.mann_whitney(a, b)
  check("mann_whitney", a, "a", 1)
  check("mann_whitney", b, "b", 1)
  local n, m = #a, #b
  local list, ties, sum = merged_ranks(sorted(a), sorted(b))
  local u = sum - n * (n + 1) / 2
  if n + m <= (ties == 0 and max_exact or max_exact_with_ties) then
    -- The smaller list, whose subsets are fewer.
    if m < n then
      sum = (n + m) * (n + m + 1) / 2 - sum
      n = m
    end
    return {statistic = u, p = exact(list, ties, n, sum), exact = true}
  end
  local total = n + m
  local variance = n * m / 12 * (total + 1 - ties / (total * (total - 1)))
  local off = math.max(0, math.abs(u - n * m / 2) - 0.5)
  local p = variance > 0 and distributions.normal_two_sided(off / math.sqrt(variance)) or 1.0
  return {statistic = u, p = p, exact = false}
end

--- Wilcoxon 1945 (signed ranks): whether differences of pairs lie around 0. Zeros are left out.
--- Exact up to 50 differences, also with ties; else the normal approximation with the correction
--- for ties.
---@param differences number[]
---@return attune.Test statistic: the sum of the ranks of positive differences
function ranks.signed_rank(differences)
  check("signed_rank", differences, "differences", 1)
  local sizes, signs = {}, {}
  for _, d in ipairs(differences) do
    if d ~= 0 then
      sizes[#sizes + 1] = math.abs(d)
      signs[#signs + 1] = d > 0
    end
  end
  local n = #sizes
  if n == 0 then return {statistic = 0, p = 1.0, exact = true} end
  local list, ties = rank(sizes)
  local sum = 0
  for i, r in ipairs(list) do
    if signs[i] then sum = sum + r end
  end
  if n <= max_exact then
    return {statistic = sum, p = exact(list, ties, nil, sum), exact = true}
  end
  local variance = n * (n + 1) * (2 * n + 1) / 24 - ties / 48
  local z = (sum - n * (n + 1) / 4) / math.sqrt(variance)
  return {statistic = sum, p = distributions.normal_two_sided(z), exact = false}
end

--- Brunner and Munzel 2000: like mann_whitney, and also right where the lists scatter differently.
--- By Student's t, at least two values per list. Lists that do not overlap have no variance of
--- ranks: there p is that of mann_whitney.
---@param a number[]
---@param b number[]
---@return attune.Test statistic: positive where b is larger
function ranks.brunner_munzel(a, b)
  check("brunner_munzel", a, "a", 2)
  check("brunner_munzel", b, "b", 2)
  local n, m = #a, #b
  local all = rank(table.move(b, 1, m, n + 1, table.move(a, 1, n, 1, {})))
  local of_a, of_b = rank(a), rank(b)
  local mean_a, mean_b = 0, 0
  for i = 1, n do mean_a = mean_a + all[i] / n end
  for i = 1, m do mean_b = mean_b + all[n + i] / m end
  local var_a, var_b = 0, 0
  for i = 1, n do
    var_a = var_a + (all[i] - of_a[i] - mean_a + (n + 1) / 2) ^ 2 / (n - 1)
  end
  for i = 1, m do
    var_b = var_b + (all[n + i] - of_b[i] - mean_b + (m + 1) / 2) ^ 2 / (m - 1)
  end
  local spread = n * var_a + m * var_b
  -- Ranks are halves of whole numbers: a variance below this is the rounding of zero.
  if spread < 1e-9 then
    local same = math.abs(mean_a - mean_b) < 1e-9
    local p = same and 1.0 or ranks.mann_whitney(a, b).p
    return {statistic = same and 0 or (mean_b - mean_a) * math.huge, p = p, exact = true}
  end
  local w = n * m * (mean_b - mean_a) / ((n + m) * math.sqrt(spread))
  local df = spread ^ 2 / ((n * var_a) ^ 2 / (n - 1) + (m * var_b) ^ 2 / (m - 1))
  return {statistic = w, p = distributions.t_two_sided(w, df), df = df, exact = false}
end

-- ---- intervals ----------------------------------------------------------------------------------

-- The largest k for which a sum of ranks below its k-th smallest value has a probability of at
-- most `probability`.
local function rank_within(shares, lowest, probability)
  local k = 0
  while shares[lowest + k] and shares[lowest + k] <= probability do k = k + 1 end
  return k
end

local max_collected = 16

-- The k-th smallest of `total` numbers from min to max. count(x): how many are at most x;
-- collect(low, high): those above low and up to high.
local function kth(numbers, k)
  local low, high, below, at_most = -math.huge, numbers.max, 0, numbers.total
  local a, b = numbers.min, numbers.max
  while at_most - below > max_collected do
    local middle = a + (b - a) / 2
    -- Neighbours, of which many numbers are the same.
    if middle <= a or middle >= b then return numbers.count(a) >= k and a or b end
    local count = numbers.count(middle)
    if count >= k then
      b, high, at_most = middle, middle, count
    else
      a, low, below = middle, middle, count
    end
  end
  local few = numbers.collect(low, high)
  table.sort(few)
  return few[k - below]
end

-- The median of the numbers and the interval from the k-th smallest to the k-th largest.
local function middle_and_interval(numbers, k)
  local total = numbers.total
  local half = total // 2
  local centre = total % 2 == 1 and kth(numbers, half + 1)
    or (kth(numbers, half) + kth(numbers, half + 1)) / 2
  if k < 1 then return centre end
  return centre, kth(numbers, k), kth(numbers, total + 1 - k)
end

--- How far b lies above a: the median of all differences b[j] - a[i], with the interval that
--- mann_whitney gives (Hodges and Lehmann 1963).
---@param a number[]
---@param b number[]
---@param alpha number 0.05 for a 95% interval
---@return number shift
---@return number? lo nil where so few values have no interval
---@return number? hi
function ranks.shift(a, b, alpha)
  check("shift", a, "a", 1)
  check("shift", b, "b", 1)
  check_alpha("shift", alpha)
  a, b = sorted(a), sorted(b)
  local n, m = #a, #b
  local numbers = {total = n * m, min = b[1] - a[n], max = b[m] - a[1]}
  function numbers.count(x)
    local pairs_count, j = 0, 0
    for i = 1, n do
      while j < m and b[j + 1] - a[i] <= x do j = j + 1 end
      pairs_count = pairs_count + j
    end
    return pairs_count
  end
  function numbers.collect(low, high)
    local list, first = {}, 1
    for i = 1, n do
      while first <= m and b[first] - a[i] <= low do first = first + 1 end
      local j = first
      while j <= m and b[j] - a[i] <= high do
        list[#list + 1] = b[j] - a[i]
        j = j + 1
      end
    end
    return list
  end
  local k
  if n + m <= max_exact then
    local size = math.min(n, m)
    k = rank_within(untied(n + m, size), size * (size + 1) // 2, alpha / 2)
  else
    local deviation = math.sqrt(n * m * (n + m + 1) / 12)
    k = math.floor(n * m / 2 - distributions.normal_point(alpha) * deviation)
  end
  return middle_and_interval(numbers, k)
end

--- The middle of differences: the median of the means of all pairs of them, each with itself too,
--- with the interval that signed_rank gives (Hodges and Lehmann 1963).
---@param differences number[]
---@param alpha number 0.05 for a 95% interval
---@return number centre
---@return number? lo nil where so few values have no interval
---@return number? hi
function ranks.middle(differences, alpha)
  check("middle", differences, "differences", 1)
  check_alpha("middle", alpha)
  local d = sorted(differences)
  local n = #d
  local numbers = {total = n * (n + 1) // 2, min = d[1], max = d[n]}
  -- A pair i <= j counts when the mean of d[i] and d[j] is at most x.
  function numbers.count(x)
    local pairs_count, j = 0, n
    for i = 1, n do
      while j >= i and (d[i] + d[j]) / 2 > x do j = j - 1 end
      if j < i then break end
      pairs_count = pairs_count + j - i + 1
    end
    return pairs_count
  end
  function numbers.collect(low, high)
    local list, last = {}, n
    for i = 1, n do
      while last >= i and (d[i] + d[last]) / 2 > high do last = last - 1 end
      local j = last
      while j >= i and (d[i] + d[j]) / 2 > low do
        list[#list + 1] = (d[i] + d[j]) / 2
        j = j - 1
      end
    end
    return list
  end
  local k
  if n <= max_exact then
    k = rank_within(untied(n), 0, alpha / 2)
  else
    local deviation = math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
    k = math.floor(n * (n + 1) / 4 - distributions.normal_point(alpha) * deviation)
  end
  return middle_and_interval(numbers, k)
end

return ranks
