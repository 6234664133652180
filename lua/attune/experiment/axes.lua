--- The axes of a sweep: what varies, and the values that each axis takes.
--
-- Every name of `grid` is an axis. The names of `zip` together are one axis, as they move together;
-- the points of `list` are one axis, and so are those of `sample`. The sweep is the product of all
-- axes. A value is a number, a text, a boolean, or a table with a field `name`: scripts get the
-- table, and results, conditions and plots show its name.
local json = require "attune.util.json"
local reader = require "attune.results.reader"
local sample = require "attune.experiment.sample"
local schema = require "attune.results.schema"
local suggest = require "attune.util.suggest"
local sorted_keys = require "attune.util.tables".sorted_keys

local axes = {}

---@class attune.Axis
---@field names string[] parameters that this axis sets, sorted
---@field points table<string, any>[] the values of these parameters, point by point

local function fail(format, ...) error(("experiment: " .. format):format(...), 0) end

local scalar = {number = true, string = true, boolean = true}

--- What results show for a value: the value, or the name of a table; nil for what is no value.
---@param value any
---@return attune.Scalar?
function axes.shown(value)
  if scalar[type(value)] then return value end
  if type(value) ~= "table" then return nil end
  local name = rawget(value, "name")
  return type(name) == "string" and name ~= "" and name or nil
end

-- ---- checks of a declaration -------------------------------------------------------------------

local values_expected = "expected numbers, texts, booleans or tables with a field 'name', got %s"

local function describe(value)
  if type(value) == "table" then return "a table without one" end
  return "a " .. type(value)
end

--- Raises an error for what is no value of a parameter.
---@param where string such as "grid.a"
function axes.check_value(where, value)
  if axes.shown(value) == nil then fail("%s: " .. values_expected, where, describe(value)) end
end

--- Raises an error for what is no list of values.
---@param where string such as "grid.a"
function axes.check_values(where, values)
  if type(values) ~= "table" or #values == 0 then
    local got = type(values) == "table" and "an empty one" or "a " .. type(values)
    fail("%s: expected a list of values, got %s", where, got)
  end
  local kind_of = {}
  for _, value in ipairs(values) do
    axes.check_value(where, value)
    local name = axes.shown(value)
    if kind_of[name] and (kind_of[name] == "table" or type(value) == "table") then
      fail("%s: expected tables with different names, got two values with the name '%s'", where,
        name)
    end
    if name == name then kind_of[name] = type(value) end
  end
end

local function check_zip(zip)
  local count, first
  for _, name in ipairs(sorted_keys(zip)) do
    axes.check_values("zip." .. tostring(name), zip[name])
    if count and #zip[name] ~= count then
      fail("zip.%s: expected %d values, as many as zip.%s has, got %d", name, count, first,
        #zip[name])
    end
    count, first = count or #zip[name], first or name
  end
  if not count then fail "zip: expected lists of values by name, got an empty table" end
end

local function check_list(list)
  if #list == 0 then fail "list: expected a list of points, got an empty one" end
  for i, point in ipairs(list) do
    if type(point) ~= "table" then
      fail("list[%d]: expected a table of parameters, got a %s", i, type(point))
    end
    for name, value in next, point do
      if type(name) ~= "string" then
        fail("list[%d]: expected names as keys, got %s", i, tostring(name))
      end
      axes.check_value(("list[%d].%s"):format(i, name), value)
      if list[1][name] == nil then
        fail("list[%d].%s: expected the parameters of list[1], got another one", i, name)
      end
    end
    for name in next, list[1] do
      if rawget(point, name) == nil then
        fail("list[%d].%s: expected a value, as in list[1], got none", i, name)
      end
    end
  end
end

-- The names that each group declares.
local function names_of(e, group)
  local t = e[group] or {}
  if group == "list" then t = t[1] or {} end
  if group == "sample" then t = t.ranges or {} end
  return t
end

local groups = {"fixed", "grid", "list", "zip", "sample", "derived"}

local function check_name(group, name)
  if type(name) ~= "string" or not name:find "^[%a_][%w_]*$" then
    fail("%s: expected names of letters, digits and _, with no digit at first, got '%s'", group,
      tostring(name))
  end
  if name == "status" then
    fail("%s.status: expected another name, as the results have a column 'status'", group)
  end
end

--- Checks the parameters of a declaration. Raises an error for the first mistake.
---@param e attune.Experiment
---@return table<string, string> group_of the group that declares each parameter
function axes.check(e)
  if e.zip then check_zip(e.zip) end
  if e.list then check_list(e.list) end
  if e.sample then
    sample.check(e.sample, fail)
    for name, range in next, e.sample.ranges do
      local where = ("sample.ranges.%s.values"):format(name)
      if range.values then axes.check_values(where, range.values) end
    end
  end
  local group_of = {}
  for _, group in ipairs(groups) do
    for _, name in ipairs(sorted_keys(names_of(e, group))) do
      check_name(group, name)
      if group_of[name] then
        fail("%s.%s: duplicate parameter, %s declares it too", group, name, group_of[name])
      end
      group_of[name] = group
      local value = names_of(e, group)[name]
      if group == "fixed" then axes.check_value("fixed." .. name, value) end
      if group == "grid" then axes.check_values("grid." .. name, value) end
      if group == "derived" and type(value) ~= "function" then
        fail("derived.%s: expected a function, got a %s", name, type(value))
      end
    end
  end
  if e.seeds then axes.check_seeds(e.seeds) end
  if e.seeds and group_of.seed then
    fail("%s.seed: expected another name, as seeds sets p.seed", group_of.seed)
  end
  return group_of
end

--- Raises an error for what is no list of seeds.
function axes.check_seeds(seeds)
  if type(seeds) ~= "table" or #seeds == 0 then
    fail("seeds: expected a list of integers, got %s", type(seeds) == "table" and "an empty one"
      or "a " .. type(seeds))
  end
  local seen = {}
  for _, seed in ipairs(seeds) do
    if math.type(seed) ~= "integer" or seed < 0 or seed > 1 << 52 then
      fail("seeds: expected integers from 0 to 2^52, got %s", tostring(seed))
    end
    if seen[seed] then fail("seeds: duplicate seed %d", seed) end
    seen[seed] = true
  end
end

-- ---- the axes ----------------------------------------------------------------------------------

local function axis(points)
  return {names = sorted_keys(points[1]), points = points}
end

--- The axes of a declaration, in the order of the parameters; the last one varies fastest.
---@param e attune.Experiment narrowed
---@return attune.Axis[]
function axes.of(e)
  local list = {}
  for _, name in ipairs(sorted_keys(e.grid or {})) do
    local points = {}
    for i, value in ipairs(e.grid[name]) do points[i] = {[name] = value} end
    list[#list + 1] = axis(points)
  end
  if e.zip and next(e.zip) then
    local points = {}
    for name, values in next, e.zip do
      for i, value in ipairs(values) do
        points[i] = points[i] or {}
        points[i][name] = value
      end
    end
    list[#list + 1] = axis(points)
  end
  if e.list and next(e.list) then list[#list + 1] = axis(e.list) end
  if e.sample and next(e.sample.ranges) then list[#list + 1] = axis(sample.points(e.sample)) end
  local rank = {}
  for i, name in ipairs(e.parameters or {}) do rank[name] = i end
  for _, one in ipairs(list) do
    one.rank = math.huge
    for _, name in ipairs(one.names) do one.rank = math.min(one.rank, rank[name] or math.huge) end
  end
  table.sort(list, function(x, y)
    if x.rank ~= y.rank then return x.rank < y.rank end
    return x.names[1] < y.names[1]
  end)
  return list
end

local max_listed = schema.limits.list

--- The axes of a run as experiment.json holds them, the last one varies fastest: the values of the
--- script in their order, then those that --quick or --set adds. Results sort their points by them,
--- as the folder may have points of other runs. Parameters with one value are left out, and so are
--- axes of more than schema.limits.list points, whose records are in the order of the sweep.
---@param e attune.Experiment narrowed
---@return {names: string[], points: attune.Scalar[][]}[]
function axes.listed(e)
  local list, by_names, rank = json.list(), {}, {}
  for i, name in ipairs(e.parameters) do rank[name] = i end
  local function add(names, values)
    local key, row = table.concat(names, " "), json.list()
    for i, name in ipairs(names) do row[i] = axes.shown(values[name]) end
    local one = by_names[key]
    if not one then
      one = {names = json.list(names), points = json.list(), seen = {}, rank = math.huge}
      for _, name in ipairs(names) do one.rank = math.min(one.rank, rank[name] or math.huge) end
      by_names[key] = one
    end
    local text = reader.row_key(row)
    if not one.seen[text] then one.points[#one.points + 1], one.seen[text] = row, true end
  end
  for _, version in ipairs {e.declared, e} do
    for name, value in next, version.fixed or {} do add({name}, {[name] = value}) end
    for _, one in ipairs(axes.of(version)) do
      for _, values in ipairs(one.points) do add(one.names, values) end
    end
  end
  for _, one in next, by_names do
    if #one.points > 1 and #one.points <= max_listed then list[#list + 1] = one end
  end
  table.sort(list, function(x, y)
    if x.rank ~= y.rank then return x.rank < y.rank end
    return x.names[1] < y.names[1]
  end)
  for _, one in ipairs(list) do one.seen, one.rank = nil, nil end
  return list
end

--- The names of all parameters: those of `order` first, then those of fixed, of the axes and of
--- derived, by name within each group.
---@param e attune.Experiment
---@return string[]
function axes.names(e)
  local names, seen = {}, {}
  local function add(list)
    for _, name in ipairs(list) do
      if not seen[name] then
        seen[name] = true
        names[#names + 1] = name
      end
    end
  end
  add(e.order or {})
  add(sorted_keys(e.fixed or {}))
  local varied = {}
  for _, group in ipairs {"grid", "list", "zip", "sample"} do
    for name in next, names_of(e, group) do varied[name] = true end
  end
  add(sorted_keys(varied))
  add(sorted_keys(e.derived or {}))
  return names
end

--- The declared values of a parameter in the order of its axis; nil for a derived one and for one
--- that is sampled.
---@param e attune.Experiment
---@param name string
---@return any[]?
function axes.values(e, name)
  if e.fixed and e.fixed[name] ~= nil then return {e.fixed[name]} end
  if e.grid and e.grid[name] then return e.grid[name] end
  if e.zip and e.zip[name] then return e.zip[name] end
  if not (e.list and e.list[1] and e.list[1][name] ~= nil) then return nil end
  local values, seen = {}, {}
  for _, point in ipairs(e.list) do
    if not seen[point[name]] then
      seen[point[name]] = true
      values[#values + 1] = point[name]
    end
  end
  return values
end

--- Values that show what kind a parameter has: those that are declared, or the ends of its range.
---@return any[]?
function axes.examples(e, name)
  if name == "seed" and e.seeds then return e.seeds end
  local range = e.sample and e.sample.ranges[name]
  if not range then return axes.values(e, name) end
  return range.values or {0}
end

--- Whether a parameter has several values.
---@return boolean
function axes.varies(e, name)
  local values = axes.values(e, name)
  return values and #values > 1 or (e.sample and e.sample.ranges[name] ~= nil) or false
end

-- ---- other values for a run --------------------------------------------------------------------

-- The table with this name: the value itself, or one of a list.
local function table_named(values, name)
  if axes.shown(values) == name then return values end
  for _, value in ipairs(values) do
    if type(value) == "table" and axes.shown(value) == name then return value end
  end
end

-- The declared table that a name stands for, so that --set, `quick` and a trial's request can name
-- it.
local function resolved(e, name, value)
  if type(value) ~= "string" then return value end
  local names, tables = {}, 0
  local declared = axes.examples(e, name) or {}
  for i, one in ipairs(declared) do
    if type(one) == "table" and axes.shown(one) == value then return one end
    names[i], tables = tostring(axes.shown(one)), tables + (type(one) == "table" and 1 or 0)
  end
  if tables > 0 and tables == #declared then
    fail("%s: unknown value '%s': %s", name, value, suggest(value, names))
  end
  return value
end

--- Parameters as the script declares them, from those that results show.
---@param e attune.Experiment
---@param parameters table<string, attune.Scalar>
---@return table<string, any>
function axes.resolve(e, parameters)
  local values = {}
  for name, value in next, parameters do
    local quick = e.quick and e.quick[name]
    local one_of_quick = type(value) == "string" and type(quick) == "table"
    values[name] = one_of_quick and table_named(quick, value) or resolved(e, name, value)
  end
  return values
end

-- Keeps the points of a zip or a list whose parameter has one of the values.
local function kept(group, name, points, value_at, values)
  local list, wanted, shown = {}, {}, {}
  for _, value in ipairs(values) do wanted[axes.shown(value)] = true end
  for i, point in ipairs(points) do
    local value = axes.shown(value_at(i, point))
    shown[#shown + 1] = tostring(value)
    if wanted[value] then list[#list + 1] = i end
  end
  if #list == 0 then
    fail("%s.%s: expected some of its values (%s), got others", group, name,
      table.concat(shown, ", "))
  end
  return list
end

local function pick(t, indices)
  local list = {}
  for i, index in ipairs(indices) do list[i] = t[index] end
  return list
end

local function known_names(e)
  local known = {}
  for _, group in ipairs {"fixed", "grid", "list", "zip", "sample"} do
    for name in next, names_of(e, group) do known[#known + 1] = name end
  end
  return known
end

--- Whether --set may give a parameter other values. Seeds are left to each experiment.
---@param e attune.Experiment
---@param name string
---@return boolean
function axes.has(e, name)
  for _, known in ipairs(known_names(e)) do
    if known == name then return true end
  end
  return false
end

--- Gives a parameter of a copy of a declaration other values. A parameter of fixed moves to grid
--- when there are several; of a zip or a list those points stay that have one of the values; a
--- sampled parameter is no longer sampled.
---@param e attune.Experiment a copy, as experiment.narrowed makes it
---@param name string
---@param values any[]
function axes.override(e, name, values)
  if name == "seed" and e.seeds then
    axes.check_seeds(values)
    e.seeds = values
    return
  end
  local own = {}
  for i, value in ipairs(values) do own[i] = resolved(e, name, value) end
  axes.check_values(name, own)
  if e.fixed[name] ~= nil and #own == 1 then
    e.fixed[name] = own[1]
  elseif e.fixed[name] ~= nil or e.grid[name] then
    e.fixed[name], e.grid[name] = nil, own
  elseif e.zip and e.zip[name] then
    local indices = kept("zip", name, e.zip[name], function(_, value) return value end, own)
    local zip = {}
    for other, list in next, e.zip do zip[other] = pick(list, indices) end
    e.zip = zip
  elseif e.list and e.list[1][name] ~= nil then
    e.list = pick(e.list, kept("list", name, e.list, function(_, p) return p[name] end, own))
  elseif e.sample and e.sample.ranges[name] then
    local ranges, changed = {}, {}
    for other, range in next, e.sample.ranges do ranges[other] = other ~= name and range or nil end
    for field, value in next, e.sample do changed[field] = value end
    changed.ranges = ranges
    e.sample, e.grid[name] = next(ranges) and changed or nil, own
  elseif e.derived and e.derived[name] then
    fail("%s: expected a parameter of fixed or of an axis, got a derived one", name)
  else
    fail("unknown parameter '%s': %s", name, suggest(name, known_names(e)))
  end
end

return axes
