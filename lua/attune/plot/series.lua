--- From results and a plot's declaration to the numbers that are drawn.
local stats = require "attune.results.statistics"
local text = require "attune.util.text"

local series = {}

local function matches(point, wanted)
  for name, value in pairs(wanted or {}) do
    local have, ok = point.parameters[name], false
    if type(value) == "table" then
      for _, one in ipairs(value) do ok = ok or have == one end
    else
      ok = have == value
    end
    if not ok then return false end
  end
  return true
end

--- The points that a plot shows: those that its `where` keeps and that were measured.
---@param results attune.Results
---@param spec attune.PlotSpec
---@return attune.Point[]
function series.select(results, spec)
  local points = {}
  for _, point in ipairs(results.points) do
    if matches(point, spec.where) and point.status == "ok" then points[#points + 1] = point end
  end
  return points
end

--- Sentences about the points that a plot would show, had they been measured.
---@param results attune.Results
---@param spec attune.PlotSpec
---@return string[]
function series.missing(results, spec)
  local counts, order, parts = {}, {}, {}
  for _, point in ipairs(results.points) do
    if point.status ~= "ok" and matches(point, spec.where) then
      if not counts[point.status] then order[#order + 1] = point.status end
      counts[point.status] = (counts[point.status] or 0) + 1
    end
  end
  for i, status in ipairs(order) do parts[i] = ("%d %s"):format(counts[status], status) end
  if #parts == 0 then return {} end
  return {("Points without a value: %s."):format(table.concat(parts, ", "))}
end

--- The different values of a parameter: numbers sorted, strings in order of appearance.
function series.distinct(points, name)
  local values, seen = {}, {}
  for _, point in ipairs(points) do
    local v = point.parameters[name]
    if v ~= nil and not seen[v] then
      seen[v] = true
      values[#values + 1] = v
    end
  end
  local numeric = true
  for _, v in ipairs(values) do numeric = numeric and type(v) == "number" end
  if numeric then table.sort(values) end
  return values
end

--- The values of a plot's `by`: first those of its `order`, then the others. {false} without `by`.
function series.by(points, spec)
  if not spec.by then return {false} end
  local found, list, listed = {}, {}, {}
  for _, v in ipairs(series.distinct(points, spec.by)) do found[v] = true end
  for _, v in ipairs(spec.order or {}) do
    if found[v] then list[#list + 1], listed[v] = v, true end
  end
  for _, v in ipairs(series.distinct(points, spec.by)) do
    if not listed[v] then list[#list + 1] = v end
  end
  return list
end

--- A metric's declaration, or nil.
---@return attune.Metric?
function series.metric(results, name)
  for _, m in ipairs(results.metrics) do
    if m.name == name then return m end
  end
end

local function same_parameter(a, b, name)
  return not name or a.parameters[name] == b.parameters[name]
end

local function common_parameters(a, b)
  local count = 0
  for name, value in pairs(a.parameters) do
    if b.parameters[name] == value then count = count + 1 end
  end
  return count
end

-- The point to compare with: it has the values of `against` and the same x and facet; of several
-- such points the one with the most parameters in common.
local function baseline(points, point, spec)
  local best, best_count
  local x = spec.kind ~= "heat" and spec.x or nil
  for _, other in ipairs(points) do
    local fits = matches(other, spec.against) and same_parameter(other, point, x)
      and same_parameter(other, point, spec.facet)
    if fits then
      local count = common_parameters(point, other)
      if not best_count or count > best_count then best, best_count = other, count end
    end
  end
  return best
end

-- base over mine where lower is better, else mine over base; rounds are paired.
local function ratio(base, mine, lower)
  local by_round, values = {}, {}
  for i, round in ipairs(base.rounds) do by_round[round] = base.values[i] end
  for i, round in ipairs(mine.rounds) do
    local b = by_round[round]
    local a = mine.values[i]
    if b and a ~= 0 and b ~= 0 then values[#values + 1] = lower and b / a or a / b end
  end
  return #values > 0 and stats.ratio_centre(values) or nil
end

--- A point's value of a metric: the metric itself, or its factor against another point.
---@param results attune.Results
---@param all attune.Point[] where the other point is looked for
---@param point attune.Point
---@param spec attune.PlotSpec
---@param metric string
---@return attune.Centre?
function series.value(results, all, point, spec, metric)
  local mine = point.metrics[metric]
  if not mine then return nil end
  if not spec.against then return mine end
  local other = baseline(all, point, spec)
  local base = other and other.metrics[metric]
  if not base then return nil end
  local m = series.metric(results, metric)
  return ratio(base, mine, not (m and m.better == "higher"))
end

--- The parameters of a point that vary over the results, as "name value, name value".
---@param results attune.Results
---@param point attune.Point
---@return string
function series.name(results, point)
  local parts = {}
  for i, name in ipairs(results.varied) do
    parts[i] = ("%s %s"):format(name, text.plain(point.parameters[name]))
  end
  return table.concat(parts, ", ")
end

--- A copy of a plot's declaration with another value of one field.
function series.changed(spec, field, value)
  local copy = {}
  for k, v in pairs(spec) do copy[k] = v end
  copy[field] = value
  return copy
end

--- The points that have a value of a parameter; all points without a parameter.
function series.with(points, name, value)
  if not name then return points end
  local kept = {}
  for _, point in ipairs(points) do
    if point.parameters[name] == value then kept[#kept + 1] = point end
  end
  return kept
end

-- The names of the parameters in which points differ.
local function differing(results, points)
  local names = {}
  for _, name in ipairs(results.parameters) do
    if #series.distinct(points, name) > 1 then names[#names + 1] = name end
  end
  return names
end

--- The message for a plot in which several points have one mark.
---@param results attune.Results
---@param points attune.Point[] the points of that mark
---@param mark string such as "line" or "cell"
---@param where string the parameters of the mark, such as "n 1"
---@return string
function series.several(results, points, mark, where)
  local names = differing(results, points)
  local format = "expected one point per %s, got %d for %s, which differ in %s: narrow them with "
    .. "where"
  local message = format:format(mark, #points, where, table.concat(names, ", "))
  local can_split = mark == "line and x" or mark == "bar" or mark == "curve" or mark == "box"
  return can_split and ("%s, or set by to one of these parameters"):format(message) or message
end

--- What a plot keeps constant, as texts "name value": for the conditions under its title.
---@return string[]
function series.constants(points, results, spec)
  local used, list = {}, {}
  for _, field in ipairs {"x", "y", "by", "facet"} do used[spec[field] or ""] = true end
  for _, name in ipairs(results.parameters) do
    local values = series.distinct(points, name)
    if not used[name] and #values == 1 then
      list[#list + 1] = ("%s %s"):format(name, text.plain(values[1]))
    end
  end
  return list
end

return series
