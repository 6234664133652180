--- Lines with intervals, labelled at their right ends; one panel per value of `facet`.
--
-- x is a parameter, and each point is a mark. Or y is a metric with a list of numbers, such as the
-- losses of a training, and each point is a curve: `along` names their axis, which counts from
-- 1, or x is another metric with a list of the same length. The values of the rounds at one place
-- of the list have a centre with an interval: a band.
local lines = require "attune.plot.lines"
local panels = require "attune.plot.panels"
local series = require "attune.plot.series"
local stats = require "attune.results.statistics"

local max_whiskers = 12 -- with more marks on a line, the intervals become a band
local max_curve = 400 -- marks of a curve; longer lists are averaged

-- The place and the values of all rounds for a part of the lists, from item `first` to `last`.
local function part_of(m, xs, first, last)
  local values, sum = {}, 0
  for round, list in ipairs(m.samples) do
    local mine = {}
    for i = first, math.min(last, #list) do mine[#mine + 1] = list[i] end
    values[round] = stats.mean(mine)
  end
  for i = first, last do sum = sum + (xs and xs[i] or i) end
  return sum / (last - first + 1), values
end

-- The rows of a curve.
local function curve_rows(data, spec, point)
  local m = point.metrics[spec.y]
  local of_x = not spec.along and point.metrics[spec.x]
  local xs = of_x and of_x.samples[1] or nil
  local longest = 0
  for _, list in ipairs(m.samples) do longest = math.max(longest, #list) end
  if xs and #xs ~= longest then
    local format = "%s: expected as many numbers as %s has, %d, got %d"
    return nil, format:format(spec.x, spec.y, longest, #xs)
  end
  local rows, stride = {}, math.ceil(longest / max_curve)
  for first = 1, longest, stride do
    local x, values = part_of(m, xs, first, math.min(longest, first + stride - 1))
    local c = stats.centre(values)
    if c.centre and lines.shown(data, x, c.centre) then
      rows[#rows + 1] = {x = x, y = c.centre, lo = c.lo, hi = c.hi}
      if c.kind ~= "value" then data.kind = c.kind end
    end
  end
  if stride > 1 then data.stride = math.max(data.stride or 1, stride) end
  return rows
end

-- A curve for each value of `by`.
local function curves(data, results, spec, mine, all)
  local list = {}
  for style, value in ipairs(series.by(all, spec)) do
    local found
    for _, point in ipairs(series.with(mine, spec.by, value)) do
      if point.metrics[spec.y] then
        if found then
          local where = spec.by and ("%s %s"):format(spec.by, tostring(value)) or "the figure"
          return nil, series.several(results, {found, point}, "curve", where)
        end
        found = point
      end
    end
    local rows, why = {}, nil
    if found then rows, why = curve_rows(data, spec, found) end
    if not rows then return nil, why end
    if #rows > 0 then
      list[#list + 1] = {
        label = lines.label(spec.by, value), rows = rows, style = (style - 1) % 8 + 1,
        form = "curve", band = spec.band ~= false,
      }
    end
  end
  return list
end

local function curves_of(results, spec, points, notes)
  local name = spec.along or spec.x
  local metric = series.metric(results, name)
  local axes = {
    x = {
      name = name, unit = metric and metric.unit, base = spec.base,
      log = spec.log ~= nil and spec.log:find("x", 1, true) ~= nil,
    },
    y = lines.axis(results, points, spec, "y", spec.y),
  }
  local data, why = lines.panels(spec, points, notes, axes, function(data, mine)
    return curves(data, results, spec, mine, points)
  end)
  if data and data.stride then
    notes[#notes + 1] = ("Each place of a curve is the mean of %d numbers."):format(data.stride)
  end
  return data, why
end

---@param results attune.Results
---@param spec attune.PlotSpec
---@param points attune.Point[]
---@param notes string[] what is left out so far; more is appended
---@param look attune.Look
---@return attune.Figure? figure
---@return string? message
return function(results, spec, points, notes, look)
  local of_lists = spec.along or series.metric(results, spec.x)
  local data, why
  if of_lists then data, why = curves_of(results, spec, points, notes)
  else data, why = lines.of(results, spec, points, notes, "line") end
  if data then data, why = lines.finish(data, spec) end
  if not data then return nil, why end
  lines.each_row(data, function(_, line)
    if line.form == "line" then
      line.band = spec.band or (spec.band == nil and #line.rows > max_whiskers)
    end
  end)
  if spec.also then
    local y, also = spec.y:gsub("_", " "), spec.also:gsub("_", " ")
    data.conditions = {("solid: %s, dashed: %s"):format(y, also)}
  end
  return panels.figure(results, spec, data, points, look)
end
