--- Boxes of a metric's samples: quartiles, whiskers to the last sample within 1.5 interquartile
--- ranges of the box, and the samples beyond (Tukey, Exploratory Data Analysis, 1977). One group
--- per value of x, one box per value of `by`.
local lines = require "attune.plot.lines"
local panels = require "attune.plot.panels"
local samples = require "attune.plot.samples"
local series = require "attune.plot.series"
local stats = require "attune.results.statistics"
local text = require "attune.util.text"

local group_width = 0.7 -- of the distance between two groups
local max_outliers = 200 -- of one figure; the others are counted

-- The row of a box, and the samples beyond its whiskers.
local function box_row(sorted, x, width)
  local q1, q3 = stats.quantile(sorted, 0.25), stats.quantile(sorted, 0.75)
  local low_fence, high_fence = q1 - 1.5 * (q3 - q1), q3 + 1.5 * (q3 - q1)
  local low, high, beyond = q1, q3, {}
  for _, value in ipairs(sorted) do
    if value < low_fence or value > high_fence then beyond[#beyond + 1] = value end
    if value >= low_fence then low = math.min(low, value) end
    if value <= high_fence then high = math.max(high, value) end
  end
  local median = stats.quantile(sorted, 0.5)
  local box = {x - width / 2, x + width / 2, low, q1, median, q3, high}
  return {x = x, y = median, box = box}, beyond
end

-- Samples that a logarithmic axis cannot show are left out and counted.
local function shown_of(data, sorted)
  if not data.y.log then return sorted end
  local kept = {}
  for _, value in ipairs(sorted) do
    if lines.shown(data, 1, value) then kept[#kept + 1] = value end
  end
  return kept
end

local function fill(data, results, spec, mine, all, groups)
  local list, bys = {}, series.by(all, spec)
  local width = group_width / #bys
  for b, by in ipairs(bys) do
    local boxes, outliers = {}, {}
    for g, group in ipairs(groups) do
      local own = series.with(series.with(mine, spec.by, by), spec.x, group)
      local point, why = samples.point(results, own, spec, "box", {{spec.x, group}, {spec.by, by}})
      if why then return nil, why end
      local sorted, bad = {}, 0
      if point then sorted, bad = samples.sorted(point.metrics[spec.y]) end
      data.bad = data.bad + bad
      sorted = shown_of(data, sorted)
      if #sorted > 0 then
        local x = g + (b - (#bys + 1) / 2) * width
        local row, beyond = box_row(sorted, x, width * 0.84)
        boxes[#boxes + 1] = row
        for _, value in ipairs(beyond) do
          data.outliers = data.outliers + 1
          if data.outliers <= max_outliers then outliers[#outliers + 1] = {x = x, y = value} end
        end
      end
    end
    local label, style = lines.label(spec.by, by), (b - 1) % 8 + 1
    if #boxes > 0 then
      list[#list + 1] = {label = label, rows = boxes, style = style, form = "box"}
    end
    if #outliers > 0 then
      list[#list + 1] = {label = label, rows = outliers, style = style, form = "faint"}
    end
  end
  return list
end

---@param results attune.Results
---@param spec attune.PlotSpec
---@param points attune.Point[]
---@param notes string[] what is left out so far; more is appended
---@param look attune.Look
---@return attune.Figure? figure
---@return string? message
return function(results, spec, points, notes, look)
  local groups = spec.x and series.distinct(points, spec.x) or {false}
  local x = {name = spec.x or "", log = false, categories = groups, index = {}}
  for i, group in ipairs(groups) do x.index[group] = i end
  if not spec.x then x.categories = {""} end
  local axes = {x = x, y = lines.axis(results, points, spec, "y", spec.y)}
  local data, why = lines.panels(spec, points, notes, axes, function(data, mine)
    data.bad, data.outliers = data.bad or 0, data.outliers or 0
    return fill(data, results, spec, mine, points, groups)
  end)
  if data then
    if data.bad > 0 then
      notes[#notes + 1] = ("Samples that are not finite or beyond 1e100: %d."):format(data.bad)
    end
    if data.outliers > max_outliers then
      notes[#notes + 1] = ("%s beyond the whiskers are not shown."):format(
        text.count(data.outliers - max_outliers, "sample"))
    end
    data, why = lines.finish(data, series.changed(spec, "log", data.y.log and "y" or nil))
  end
  if not data then return nil, why end
  data.what, data.legend = "Box plot", true
  data.conditions = {
    "samples of all rounds: median, quartiles, whiskers within 1.5 interquartile ranges",
  }
  return panels.figure(results, spec, data, points, look)
end
