--- Points drawn from ranges: independent, a Sobol sequence, or a Latin hypercube.
--
-- The same seed gives the same points on every machine. Random numbers are Philox 4x32-10
-- (attune.philox) with the index of the point and of the parameter as counter.
--
--   Sobol: I. M. Sobol 1967; direction numbers new-joe-kuo-6 of S. Joe and F. Y. Kuo 2008. The seed
--     shifts all points: each coordinate's 32 bits are combined with a random word by exclusive or,
--     which keeps the balance of the sequence.
--   Latin hypercube: M. D. McKay, R. J. Beckman and W. J. Conover 1979: each of n equal intervals
--     of every parameter holds one point.
local core = require "attune.core"
local suggest = require "attune.util.suggest"
local sorted_keys = require "attune.util.tables".sorted_keys

local sample = {}

local methods = {"random", "sobol", "latin"}
local max_points = 100000

-- Primitive polynomials and initial direction numbers for the parameters from the second on:
-- degree s, coefficients a, then m_1 .. m_s.
local direction_numbers = {
  {1, 0, 1},
  {2, 1, 1, 3},
  {3, 1, 1, 3, 1},
  {3, 2, 1, 1, 1},
  {4, 1, 1, 1, 3, 3},
  {4, 4, 1, 3, 5, 13},
  {5, 2, 1, 1, 5, 5, 17},
  {5, 4, 1, 1, 5, 5, 5},
  {5, 7, 1, 1, 7, 11, 19},
  {5, 11, 1, 1, 5, 1, 1},
  {5, 13, 1, 1, 1, 3, 11},
  {5, 14, 1, 3, 5, 5, 31},
  {6, 1, 1, 3, 3, 9, 7, 49},
  {6, 13, 1, 1, 1, 15, 21, 21},
  {6, 16, 1, 3, 1, 13, 27, 49},
  {6, 19, 1, 1, 1, 15, 7, 5},
  {6, 22, 1, 3, 1, 15, 13, 25},
  {6, 25, 1, 1, 5, 5, 19, 61},
  {7, 1, 1, 3, 7, 11, 23, 15, 103},
  {7, 4, 1, 3, 7, 13, 13, 15, 69},
}

local bits = 32

-- The 32 direction numbers of a dimension, from 1, as integers of 32 bits.
local function directions(dimension)
  local v = {}
  if dimension == 1 then
    for k = 1, bits do v[k] = 1 << (bits - k) end
    return v
  end
  local row = direction_numbers[dimension - 1]
  local s, a = row[1], row[2]
  for k = 1, math.min(s, bits) do v[k] = row[2 + k] << (bits - k) end
  for k = s + 1, bits do
    v[k] = v[k - s] ~ (v[k - s] >> s)
    for i = 1, s - 1 do
      if (a >> (s - 1 - i)) & 1 == 1 then v[k] = v[k] ~ v[k - i] end
    end
  end
  return v
end

--- The first points of the Sobol sequence that no seed shifts, as integers of 32 bits.
---@param n integer
---@param dimensions integer at most 21
---@return integer[][]
function sample.sobol(n, dimensions)
  local points, current, v = {}, {}, {}
  for d = 1, dimensions do
    v[d], current[d] = directions(d), 0
  end
  for i = 1, n do
    points[i] = table.move(current, 1, dimensions, 1, {})
    -- Gray code: the next point differs by the direction of the lowest zero bit of i - 1.
    local bit, rest = 1, i - 1
    while rest & 1 == 1 do
      bit, rest = bit + 1, rest >> 1
    end
    for d = 1, dimensions do current[d] = current[d] ~ v[d][bit] end
  end
  return points
end

local max_sobol_dimensions = #direction_numbers + 1

-- Two random words of 32 bits for a point and a parameter.
local function random_words(seed, point, dimension)
  local words = core.philox({point, dimension, 0, 0}, {seed & 0xffffffff, seed >> 32})
  return words[1], words[2]
end

-- A random number from 0 up to but not including 1.
local function random(seed, point, dimension)
  local high, low = random_words(seed, point, dimension)
  return ((high << 21) | (low >> 11)) * 2.0 ^ -53
end

-- Each method gives the coordinates of n points, each from 0 up to but not including 1.
local coordinates = {}

function coordinates.random(n, dimensions, seed)
  local points = {}
  for i = 1, n do
    points[i] = {}
    for d = 1, dimensions do points[i][d] = random(seed, i, d) end
  end
  return points
end

function coordinates.sobol(n, dimensions, seed)
  local points, shift = sample.sobol(n, dimensions), {}
  for d = 1, dimensions do shift[d] = random_words(seed, 0, d) end
  for i = 1, n do
    for d = 1, dimensions do points[i][d] = (points[i][d] ~ shift[d]) * 2.0 ^ -bits end
  end
  return points
end

function coordinates.latin(n, dimensions, seed)
  local points = {}
  for i = 1, n do points[i] = {} end
  for d = 1, dimensions do
    local order = {}
    for i = 1, n do order[i] = i end
    for i = n, 2, -1 do
      local j = math.floor(random(seed, i, dimensions + d) * i) + 1
      order[i], order[j] = order[j], order[i]
    end
    for i = 1, n do points[i][d] = (order[i] - 1 + random(seed, i, d)) / n end
  end
  return points
end

-- ---- ranges ------------------------------------------------------------------------------------

-- A range as {lo, hi, log, integer}, or {values}; nil and a message.
local function read_range(range)
  if type(range) ~= "table" then return nil, "a " .. type(range) end
  for key in next, range do
    local known = key == 1 or key == 2 or key == "log" or key == "integer" or key == "values"
    if not known then return nil, ("a field '%s'"):format(tostring(key)) end
  end
  if range.values ~= nil then return {values = range.values} end
  local log, integer = range.log, range.integer
  local ends = type(log) == "table" and log or type(integer) == "table" and integer or range
  local lo, hi = ends[1], ends[2]
  if type(lo) ~= "number" or type(hi) ~= "number" then return nil, "one without two numbers" end
  if not (lo < hi and hi - lo < math.huge) then
    return nil, ("one from %s to %s"):format(lo, hi)
  end
  if log and lo <= 0 then return nil, ("a logarithmic one from %s on"):format(lo) end
  if integer and not (math.tointeger(lo) and math.tointeger(hi)) then
    return nil, "one of integers without two integers"
  end
  return {lo = lo, hi = hi, log = log and true, integer = integer and true}
end

local expected_range = "sample.ranges.%s: expected a range such as {0, 1}, {log = {1e-4, 1e-2}}, "
  .. "{integer = {1, 64}} or {values = {..}}, got %s"

local function place(range, u)
  if range.values then return range.values[math.floor(u * #range.values) + 1] end
  local lo, hi = range.lo, range.integer and range.hi + 1 or range.hi
  local x = range.log and math.exp(math.log(lo) + u * (math.log(hi) - math.log(lo)))
    or lo + u * (hi - lo)
  if not range.integer then return math.max(lo + 0.0, math.min(x, hi + 0.0)) end
  return math.tointeger(math.max(lo, math.min(math.floor(x), hi - 1)))
end

-- ---- declaration -------------------------------------------------------------------------------

local fields = {n = true, method = true, seed = true, ranges = true}

--- Checks the field `sample` of a declaration.
---@param s table
---@param fail fun(format: string, ...) raises an error
function sample.check(s, fail)
  for name in next, s do
    if not fields[name] then
      fail("unknown field 'sample.%s': %s", tostring(name),
        suggest(tostring(name), {"n", "method", "seed", "ranges"}))
    end
  end
  if math.type(s.n) ~= "integer" or s.n < 1 or s.n > max_points then
    fail("sample.n: expected an integer from 1 to %d, got %s", max_points, tostring(s.n))
  end
  if s.seed ~= nil and (math.type(s.seed) ~= "integer" or s.seed < 0) then
    fail("sample.seed: expected an integer of at least 0, got %s", tostring(s.seed))
  end
  if s.method ~= nil and not coordinates[s.method] then
    fail("unknown method '%s' of sample: %s", tostring(s.method),
      suggest(tostring(s.method), methods))
  end
  if type(s.ranges) ~= "table" or next(s.ranges) == nil then
    fail("sample.ranges: expected ranges by name, got %s", type(s.ranges) == "table"
      and "an empty table" or "a " .. type(s.ranges))
  end
  local dimensions = 0
  for name, range in next, s.ranges do
    dimensions = dimensions + 1
    local read, got = read_range(range)
    if not read then fail(expected_range, tostring(name), got) end
    if read.values and (type(read.values) ~= "table" or #read.values == 0) then
      fail(expected_range, tostring(name), "no values")
    end
  end
  if s.method == "sobol" and dimensions > max_sobol_dimensions then
    fail("sample.ranges: expected at most %d for method 'sobol', got %d", max_sobol_dimensions,
      dimensions)
  end
end

--- The points that a declaration's field `sample` describes. Parameters are counted by name. With
--- integers and values points may coincide: each is kept once.
---@param s {n: integer, method: string?, seed: integer?, ranges: table<string, table>}
---@return table<string, any>[]
function sample.points(s)
  local names, ranges = sorted_keys(s.ranges), {}
  for d, name in ipairs(names) do ranges[d] = read_range(s.ranges[name]) end
  local list, seen = {}, {}
  for _, u in ipairs(coordinates[s.method or "random"](s.n, #names, s.seed or 1)) do
    local point, key = {}, {}
    for d, name in ipairs(names) do
      point[name] = place(ranges[d], u[d])
      key[d] = ("%s %q"):format(type(point[name]),
        type(point[name]) == "table" and point[name].name or point[name])
    end
    local text = table.concat(key, ";")
    if not seen[text] then
      seen[text] = true
      list[#list + 1] = point
    end
  end
  return list
end

return sample
