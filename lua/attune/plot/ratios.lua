--- The figure of a comparison: for each metric the ratio B / A at each point, with its interval and
--- a line at 1.
local plot = require "attune.plot"
local schema = require "attune.results.schema"
local series = require "attune.plot.series"

local ratios = {}

local max_panels = 12

-- Parameters for x, by and facet: the number with the most values is x.
local function axes_of(points, names)
  local order = {}
  for i, name in ipairs(names) do
    local values = series.distinct(points, name)
    local is_number = type(values[1]) == "number"
    order[i] = {name = name, count = #values, rank = (is_number and 1e6 or 0) + #values}
  end
  table.sort(order, function(x, y)
    if x.rank ~= y.rank then return x.rank > y.rank end
    return x.name < y.name
  end)
  local axes = {}
  for _, one in ipairs(order) do
    if one.count > 1 or #axes == 0 then axes[#axes + 1] = one end
  end
  return axes
end

-- A value of the results that plots read.
local function value_of(comparison)
  local c = comparison
  return {
    centre = c.centre, lo = c.lo, hi = c.hi, median = c.centre, kind = "ratio", iqr = 0,
    n = 1, values = {c.centre}, samples = {{c.centre}}, rounds = {1}, cpus = {"unknown"},
  }
end

-- Points of one metric; their parameters, and "processor" where rows name one.
local function points_of(report, metric)
  local points = {}
  for _, row in ipairs(report.rows) do
    if row.metric == metric and row.comparison.kind == "ratio" and row.comparison.centre then
      local parameters = {}
      for name, value in pairs(row.parameters) do parameters[name] = value end
      parameters.processor = row.cpu
      if next(parameters) == nil then parameters.all = "all points" end
      points[#points + 1] = {
        hash = ("%016x"):format(#points), index = #points + 1, parameters = parameters,
        status = "ok", rounds = math.min(row.comparison.n_a, row.comparison.n_b),
        metrics = {["B / A"] = value_of(row.comparison)},
      }
    end
  end
  return points
end

-- One results table per metric, with one plot.
local function results_of(report, metric)
  local points = points_of(report, metric)
  if #points == 0 then return nil end
  local names = {}
  for name in pairs(points[1].parameters) do names[#names + 1] = name end
  table.sort(names)
  local axes = axes_of(points, names)
  local spec = {
    kind = "line", x = axes[1].name, y = "B / A", lines = {{y = 1, text = "A"}},
    title = ("%s: B / A with %g%% intervals"):format(metric, 100 * (1 - report.alpha)),
    by = axes[2] and axes[2].name,
    facet = axes[3] and axes[3].count <= max_panels and axes[3].name or nil,
  }
  local first = series.distinct(points, spec.x)
  if #first > 2 and type(first[1]) == "number" and first[1] > 0
    and first[#first] / first[1] >= 8 then
    spec.log = "x"
  end
  return schema.results {
    dir = report.b.dir, name = report.b.name, parameters = names, varied = names,
    metrics = {{name = "B / A"}}, plots = {spec}, claims = {}, warnings = {}, points = points,
    provenance = report.b.provenance,
  }
end

--- Draws the ratios of a report into dir/plots, one figure per metric.
---@param report attune.CompareReport
---@param dir string
---@return string[]? paths nil when nothing can be drawn
---@return string[]|string warnings a message when paths is nil
function ratios.draw(report, dir)
  local made, warnings, seen = {}, {}, {}
  for _, row in ipairs(report.rows) do
    local results = not seen[row.metric] and results_of(report, row.metric)
    seen[row.metric] = true
    if results then
      local name = "ratio-" .. row.metric:sub(1, 90):gsub("[^%w_-]", "_")
      local paths, why = plot.draw(results, dir, {names = {name}})
      if not paths then return nil, why end
      table.move(paths, 1, #paths, #made + 1, made)
      table.move(why, 1, #why, #warnings + 1, warnings)
    end
  end
  if #made == 0 then return nil, "plot: expected a ratio, got none" end
  return made, warnings
end

return ratios
