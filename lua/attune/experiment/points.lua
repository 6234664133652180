--- Turns a declaration's fixed, grid, where and derived into the list of points to measure.
local sweep = {}

local function sorted_keys(t)
  local keys = {}
  for k in pairs(t or {}) do keys[#keys + 1] = k end
  table.sort(keys)
  return keys
end

-- What JSON cannot hold is stored as these texts (util/json.lua), so that no text may equal them.
local reserved = {NaN = true, Infinity = true, ["-Infinity"] = true}

local function check_value(name, value)
  if value ~= value or reserved[value] then
    error(("%s: expected a value other than NaN, or the text 'NaN' or 'Infinity', got %s")
      :format(name, tostring(value)), 0)
  end
end

local function canonical_value(v)
  if math.type(v) == "float" then return ("%.17g"):format(v) end
  if type(v) == "string" then return ("%q"):format(v) end
  return tostring(v)
end

--- One string per set of parameters: names sorted, floats with 17 digits, strings quoted.
---@param parameters table<string, any>
---@return string
function sweep.canonical(parameters)
  local parts = {}
  for _, k in ipairs(sorted_keys(parameters)) do
    parts[#parts + 1] = k .. "=" .. canonical_value(parameters[k])
  end
  return table.concat(parts, ";")
end

--- The hash FNV-1a of 64 bits.
---@param text string
---@return string 16 hexadecimal digits
function sweep.hash(text)
  local h = 0xcbf29ce484222325
  for i = 1, #text do h = (h ~ text:byte(i)) * 0x100000001b3 end
  return ("%016x"):format(h)
end

--- Parameter names in table order: first those of `order`, then fixed, grid and derived by name.
---@param experiment attune.Experiment
---@return string[]
function sweep.names(experiment)
  local names, seen = {}, {}
  local function add(list)
    for _, name in ipairs(list) do
      if not seen[name] then
        seen[name] = true
        names[#names + 1] = name
      end
    end
  end
  add(experiment.order or {})
  add(sorted_keys(experiment.fixed))
  add(sorted_keys(experiment.grid))
  add(sorted_keys(experiment.derived))
  return names
end

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

-- Visits every combination of the grid's values; the last name varies fastest.
local function combinations(names, grid, visit)
  local point = {}
  local function at(i)
    if i > #names then return visit(point) end
    for _, value in ipairs(grid[names[i]]) do
      point[names[i]] = value
      at(i + 1)
    end
  end
  at(1)
end

local max_combinations, max_points = 10000000, 100000

local function check_size(names, grid)
  local count = 1.0
  for _, name in ipairs(names) do count = count * #grid[name] end
  if count > max_combinations then
    error(("grid: expected at most %d combinations of values, got %.3g"):format(max_combinations,
      count), 0)
  end
end

--- The points in sweep order. Raises an error for two points with the same parameters.
---@param experiment attune.Experiment checked by declare
---@param version string part of the hash, as other code may give other results
---@return {parameters: table<string, any>, hash: string, index: integer}[]
function sweep.points(experiment, version)
  local in_grid, points, by_text = {}, {}, {}
  for _, name in ipairs(sweep.names(experiment)) do
    if experiment.grid and experiment.grid[name] then in_grid[#in_grid + 1] = name end
  end
  check_size(in_grid, experiment.grid)
  combinations(in_grid, experiment.grid or {}, function(varied)
    local p = {}
    for k, v in pairs(experiment.fixed or {}) do p[k] = v end
    for k, v in pairs(varied) do p[k] = v end
    with_derived(p, experiment.derived)
    if experiment.where and not experiment.where(p) then return end
    -- Reading each derived parameter stores its value in p.
    for name in pairs(experiment.derived or {}) do local _ = p[name] end
    setmetatable(p, nil)
    local text = sweep.canonical(p)
    if by_text[text] then
      error(("grid: duplicate point, got two with %s"):format(text), 0)
    end
    by_text[text] = true
    if #points >= max_points then
      error(("grid: expected at most %d points, got more"):format(max_points), 0)
    end
    for name, value in pairs(p) do check_value(name, value) end
    points[#points + 1] = {
      parameters = p,
      hash = sweep.hash(experiment.name .. "\n" .. version .. "\n" .. text),
      index = #points + 1,
    }
  end)
  return points
end

return sweep
