--- Distribution functions and their quantiles, in double precision.
--
-- Sources: incomplete gamma and beta by series and continued fraction (Press et al., Numerical
-- Recipes, 3rd edition, sections 6.2 and 6.4); log-gamma by Lanczos with g = 7 and 9 coefficients
-- (Godfrey 2001). Quantiles invert their distribution function by bisection.
local distributions = {}

local lanczos = {
  0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313,
  -176.61502916214059, 12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6,
  1.5056327351493116e-7,
}

-- ln Gamma(x) for x > 0.
local function log_gamma(x)
  if x < 0.5 then return math.log(math.pi / math.sin(math.pi * x)) - log_gamma(1 - x) end
  x = x - 1
  local sum, t = lanczos[1], x + 7.5
  for i = 1, 8 do sum = sum + lanczos[i + 1] / (x + i) end
  return 0.5 * math.log(2 * math.pi) + (x + 0.5) * math.log(t) - t + math.log(sum)
end

local tiny, max_terms = 1e-300, 10000

-- The continued fraction of the incomplete beta function, by Lentz's method.
local function beta_fraction(a, b, x)
  local function away_from_zero(v) return math.abs(v) < tiny and tiny or v end
  local c, d = 1.0, 1 / away_from_zero(1 - (a + b) * x / (a + 1))
  local h = d
  for m = 1, max_terms do
    local even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
    d = 1 / away_from_zero(1 + even * d)
    c = away_from_zero(1 + even / c)
    h = h * d * c
    local odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
    d = 1 / away_from_zero(1 + odd * d)
    c = away_from_zero(1 + odd / c)
    h = h * d * c
    if math.abs(d * c - 1) < 1e-16 then break end
  end
  return h
end

-- The regularised incomplete beta function; y is 1 - x, given as it may be more exact.
local function incomplete_beta(a, b, x, y)
  if x <= 0 then return 0.0 end
  if y <= 0 then return 1.0 end
  local log_front = log_gamma(a + b) - log_gamma(a) - log_gamma(b) + a * math.log(x)
    + b * math.log(y)
  local front = math.exp(log_front)
  if x < (a + 1) / (a + b + 2) then return front * beta_fraction(a, b, x) / a end
  return 1 - front * beta_fraction(b, a, y) / b
end

-- The regularised upper incomplete gamma function of a = 1/2, for x >= 0: erfc of the square root.
local function upper_gamma_half(x)
  if x == 0 then return 1.0 end
  local front = math.exp(-x + 0.5 * math.log(x) - log_gamma(0.5))
  if x < 1.5 then
    local sum, term, a = 2.0, 2.0, 0.5
    for _ = 1, max_terms do
      a = a + 1
      term = term * x / a
      sum = sum + term
      if term < sum * 1e-17 then break end
    end
    return 1 - sum * front
  end
  local b = x + 0.5
  local c, d = 1 / tiny, 1 / b
  local h = d
  for i = 1, max_terms do
    local an = -i * (i - 0.5)
    b = b + 2
    d = an * d + b
    if math.abs(d) < tiny then d = tiny end
    c = b + an / c
    if math.abs(c) < tiny then c = tiny end
    d = 1 / d
    h = h * d * c
    if math.abs(d * c - 1) < 1e-16 then break end
  end
  return front * h
end

--- The probability that a standard normal value is below x.
---@param x number
---@return number
function distributions.normal(x)
  local upper = 0.5 * upper_gamma_half(x * x / 2)
  return x > 0 and 1 - upper or upper
end

--- The probability that a standard normal value lies further from 0 than |x|.
---@param x number
---@return number
function distributions.normal_two_sided(x) return upper_gamma_half(x * x / 2) end

--- The probability that a chi-squared value with one degree of freedom is above x.
---@param x number
---@return number
function distributions.chi_squared_one(x) return upper_gamma_half(math.max(x, 0) / 2) end

--- The probability that |t| of Student's distribution is above |t|.
---@param t number
---@param df number degrees of freedom, above 0
---@return number
function distributions.t_two_sided(t, df)
  local square = t * t
  if square == math.huge then return 0.0 end
  return incomplete_beta(df / 2, 0.5, df / (df + square), square / (df + square))
end

-- The x >= 0 at which a two-sided probability falls to p.
local function invert(two_sided, p)
  local low, high = 0.0, 1.0
  while two_sided(high) > p and high < 1e300 do
    low, high = high, high * 2
  end
  for _ = 1, 200 do
    local middle = (low + high) / 2
    if middle == low or middle == high then break end
    if two_sided(middle) > p then low = middle else high = middle end
  end
  return (low + high) / 2
end

local t_known, normal_known = {}, {}

--- The t that |t| exceeds with probability alpha: 12.706 for one degree of freedom and 0.05.
---@param alpha number above 0 and below 1
---@param df number degrees of freedom, above 0
---@return number
function distributions.t_point(alpha, df)
  local of_alpha = t_known[alpha] or {}
  t_known[alpha] = of_alpha
  local point = of_alpha[df]
  if not point then
    point = invert(function(t) return distributions.t_two_sided(t, df) end, alpha)
    -- Only whole numbers of degrees of freedom come again.
    if df % 1 == 0 and df < 1000 then of_alpha[df] = point end
  end
  return point
end

--- The z that a standard normal value exceeds in size with probability alpha: 1.96 for 0.05.
---@param alpha number above 0 and below 1
---@return number
function distributions.normal_point(alpha)
  normal_known[alpha] = normal_known[alpha] or invert(distributions.normal_two_sided, alpha)
  return normal_known[alpha]
end

--- The x below which a standard normal value lies with probability p.
---@param p number
---@return number
function distributions.normal_quantile(p)
  if p <= 0 then return -math.huge end
  if p >= 1 then return math.huge end
  local size = distributions.normal_point(2 * math.min(p, 1 - p))
  return p < 0.5 and -size or size
end

return distributions
