--- From a declaration's fixed, grid, where and derived to the list of points.
local sweep = {}

local function sorted_keys(t)
  local keys = {}
  for k in pairs(t or {}) do keys[#keys + 1] = k end
  table.sort(keys)
  return keys
end

--- One text for one set of parameters: names sorted, doubles with 17 digits, texts quoted.
function sweep.canonical(parameters)
  local parts = {}
  for _, k in ipairs(sorted_keys(parameters)) do
    local v = parameters[k]
    local text = math.type(v) == "float" and ("%.17g"):format(v) or type(v) == "string" and ("%q"):format(v) or tostring(v)
    parts[#parts + 1] = k .. "=" .. text
  end
  return table.concat(parts, ";")
end

--- FNV-1a, 64 bits, as 16 hexadecimal digits.
function sweep.hash(text)
  local h = 0xcbf29ce484222325
  for i = 1, #text do h = (h ~ text:byte(i)) * 0x100000001b3 end
  return ("%016x"):format(h)
end

--- Parameter names in their order: as `order` says, then fixed, grid and derived ones by name.
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

-- A derived parameter may use any other: it is computed when it is first asked for.
local function with_derived(base, derived)
  local busy = {}
  return setmetatable(base, {__index = function(p, name)
    local make = derived and derived[name]
    if not make then return nil end
    if busy[name] then error(("derived.%s: expected no circle, got one"):format(name), 0) end
    busy[name] = true
    local value = make(p)
    busy[name] = nil
    local kind = type(value)
    if kind ~= "number" and kind ~= "string" and kind ~= "boolean" then
      error(("derived.%s: expected a number, a text or a boolean, got %s"):format(name, kind), 0)
    end
    rawset(p, name, value)
    return value
  end})
end

-- Every combination, the last name varying fastest.
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

--- The points, in sweep order: {parameters, hash, index}. Raises for two points with the same parameters.
---@param experiment table validated
---@param version string part of the hash: other code, other results
function sweep.points(experiment, version)
  local in_grid, points, by_text = {}, {}, {}
  for _, name in ipairs(sweep.names(experiment)) do
    if experiment.grid and experiment.grid[name] then in_grid[#in_grid + 1] = name end
  end
  combinations(in_grid, experiment.grid or {}, function(varied)
    local p = {}
    for k, v in pairs(experiment.fixed or {}) do p[k] = v end
    for k, v in pairs(varied) do p[k] = v end
    with_derived(p, experiment.derived)
    if experiment.where and not experiment.where(p) then return end
    for name in pairs(experiment.derived or {}) do local _ = p[name] end
    setmetatable(p, nil)
    local text = sweep.canonical(p)
    if by_text[text] then error(("grid: expected points that differ, got two with %s"):format(text), 0) end
    by_text[text] = true
    points[#points + 1] = {parameters = p, hash = sweep.hash(experiment.name .. "\n" .. version .. "\n" .. text), index = #points + 1}
  end)
  return points
end

return sweep
