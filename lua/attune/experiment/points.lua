--- Turns a declaration into the list of points to measure: the product of its axes, with the fixed
--- and the derived parameters, filtered by `where`.
local axes = require "attune.experiment.axes"
local sorted_keys = require "attune.util.tables".sorted_keys

local sweep = {}

-- What JSON cannot hold is stored as these texts (util/json.lua), so that no text may equal them.
local reserved = {NaN = true, Infinity = true, ["-Infinity"] = true}

local function check_value(name, value)
  if value ~= value or reserved[value] then
    error(("%s: expected a value other than NaN, or the text 'NaN' or 'Infinity', got %s")
      :format(name, tostring(value)), 0)
  end
end

-- ---- hashes ------------------------------------------------------------------------------------

local max_depth = 50

-- A text that is the same for equal values. A table is written with all that is in it, read raw.
-- Of a function and of userdata it says the type alone: the fingerprint of the script
-- (script_text.essence) covers the code of functions.
local function canonical_value(v, depth)
  if math.type(v) == "float" then return ("%.17g"):format(v) end
  if type(v) == "string" then return ("%q"):format(v) end
  local simple = type(v) == "number" or type(v) == "boolean"
  if type(v) ~= "table" then return simple and tostring(v) or type(v) end
  if depth >= max_depth then
    error(("a parameter's table: expected at most %d nested tables, got more, or a table inside "
      .. "itself"):format(max_depth), 0)
  end
  local parts = {}
  for i, k in ipairs(sorted_keys(v)) do
    parts[i] = canonical_value(k, depth + 1) .. "=" .. canonical_value(rawget(v, k), depth + 1)
  end
  return "{" .. table.concat(parts, ";") .. "}"
end

--- One string per set of parameters: names sorted, floats with 17 digits, strings quoted.
---@param parameters table<string, any>
---@param names? string[] those of the parameters, sorted
---@return string
function sweep.canonical(parameters, names)
  local parts = {}
  for i, k in ipairs(names or sorted_keys(parameters)) do
    parts[i] = k .. "=" .. canonical_value(parameters[k], 0)
  end
  return table.concat(parts, ";")
end

local offset_basis, prime = 0xcbf29ce484222325, 0x100000001b3

-- Eight bytes at a time, as a sweep has many points.
local function fnv(h, text)
  local byte, whole = string.byte, #text // 8 * 8
  for i = 1, whole, 8 do
    local b1, b2, b3, b4, b5, b6, b7, b8 = byte(text, i, i + 7)
    h = (h ~ b1) * prime
    h = (h ~ b2) * prime
    h = (h ~ b3) * prime
    h = (h ~ b4) * prime
    h = (h ~ b5) * prime
    h = (h ~ b6) * prime
    h = (h ~ b7) * prime
    h = (h ~ b8) * prime
  end
  for i = whole + 1, #text do h = (h ~ byte(text, i)) * prime end
  return h
end

--- The hash FNV-1a of 64 bits.
---@param text string
---@return string 16 hexadecimal digits
function sweep.hash(text) return ("%016x"):format(fnv(offset_basis, text)) end

--- The seed of a trial. It depends on the point's parameters and the round alone: a repeated trial
--- gets the same one, also after the script was edited.
---@param point attune.SweepPoint
---@param round integer
---@return integer
function sweep.seed(point, round)
  return tonumber(sweep.hash(point.base .. ":" .. round):sub(1, 7), 16)
end

-- ---- points ------------------------------------------------------------------------------------

-- A derived parameter may use any other, so each is computed when it is first read.
local function with_derived(base, derived)
  local busy = {}
  return setmetatable(base, {__index = function(p, name)
    local make = derived and derived[name]
    if not make then return nil end
    if busy[name] then
      error(("derived.%s: dependency cycle, it needs its own value"):format(name), 0)
    end
    busy[name] = true
    local value = make(p)
    busy[name] = nil
    local kind = type(value)
    if kind ~= "number" and kind ~= "string" and kind ~= "boolean" then
      error(("derived.%s: expected a number, a string or a boolean, got %s"):format(name, kind), 0)
    end
    rawset(p, name, value)
    return value
  end})
end

-- Visits every combination of the axes' points; the last axis varies fastest.
local function combinations(list, visit)
  local point = {}
  local function at(i)
    if i > #list then return visit(point) end
    for _, values in ipairs(list[i].points) do
      for name, value in next, values do point[name] = value end
      at(i + 1)
    end
  end
  at(1)
end

local max_combinations, max_points = 10000000, 100000

local function check_size(list)
  local count = 1.0
  for _, axis in ipairs(list) do count = count * #axis.points end
  if count > max_combinations then
    error(("grid: expected at most %d combinations of values, got %.3g"):format(max_combinations,
      count), 0)
  end
end

---@class attune.SweepPoint
---@field parameters table<string, attune.Scalar> as results show them: tables by their names
---@field values table<string, any> as the script declares them
---@field hash string 16 hexadecimal digits, from the experiment's name, the version of attune, the
--- source of the trial and the parameters
---@field base string the same without version and source: what seeds follow from
---@field index integer from 1
---@field environment? table<string, string> variables of its workers, filled in by plan.points

--- The points in sweep order. Raises an error for two points with the same parameters.
---@param experiment attune.Experiment checked by declare
---@param version string part of the hash, as other code may give other results
---@return attune.SweepPoint[]
function sweep.points(experiment, version)
  local points, by_text, list, names = {}, {}, axes.of(experiment), nil
  check_size(list)
  local name = fnv(offset_basis, experiment.name .. "\n")
  local code = fnv(offset_basis, ("%s\n%s\n"):format(version, experiment.source or ""))
  combinations(list, function(varied)
    local p = {}
    for k, v in next, experiment.fixed or {} do p[k] = v end
    for k, v in next, varied do p[k] = v end
    with_derived(p, experiment.derived)
    if experiment.where and not experiment.where(p) then return end
    -- Reading each derived parameter stores its value in p.
    for parameter in next, experiment.derived or {} do local _ = p[parameter] end
    setmetatable(p, nil)
    names = names or sorted_keys(p) -- all points have the same
    local text = sweep.canonical(p, names)
    if by_text[text] then
      error(("grid: duplicate point, got two with %s"):format(text), 0)
    end
    by_text[text] = true
    if #points >= max_points then
      error(("grid: expected at most %d points, got more"):format(max_points), 0)
    end
    local shown, base = {}, fnv(name, text)
    for parameter, value in next, p do
      shown[parameter] = axes.shown(value)
      check_value(parameter, shown[parameter])
    end
    points[#points + 1] = {
      parameters = shown,
      values = p,
      hash = ("%016x"):format(base ~ code),
      base = ("%016x"):format(base),
      index = #points + 1,
    }
  end)
  return points
end

return sweep
