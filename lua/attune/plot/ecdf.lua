--- The empirical distribution of a metric's samples: for each value, the fraction of samples up to
--- it. One staircase per value of `by`.
local lines = require "attune.plot.lines"
local panels = require "attune.plot.panels"
local samples = require "attune.plot.samples"
local series = require "attune.plot.series"

local max_steps = 400 -- of one staircase; more samples are thinned

local function staircase(data, sorted)
  local rows, n = {}, #sorted
  local stride = math.max(1, n // max_steps)
  for i = 1, n do
    local last = sorted[i] ~= sorted[i + 1] -- equal samples make one step
    if last and (i % stride == 0 or i == 1 or i == n) and lines.shown(data, sorted[i], 0) then
      rows[#rows + 1] = {x = sorted[i], y = i / n}
    end
  end
  if #rows > 0 then table.insert(rows, 1, {x = rows[1].x, y = 0}) end
  return rows
end

local function fill(data, results, spec, mine, all)
  local list = {}
  for style, value in ipairs(series.by(all, spec)) do
    local own = series.with(mine, spec.by, value)
    local point, why = samples.point(results, own, spec, "curve", {{spec.by, value}})
    if why then return nil, why end
    local rows = {}
    if point then
      local sorted, bad = samples.sorted(point.metrics[spec.y])
      data.bad = (data.bad or 0) + bad
      rows = staircase(data, sorted)
    end
    if #rows > 0 then
      list[#list + 1] = {
        label = lines.label(spec.by, value), rows = rows, style = (style - 1) % 8 + 1,
        form = "staircase",
      }
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
  local x = lines.axis(results, points, {log = spec.log, base = spec.base}, "x", spec.y)
  local y = {name = "fraction of samples", log = false, low = -0.02, high = 1.04}
  y.ticks = {}
  for i, share in ipairs {"0", "0.25", "0.5", "0.75", "1"} do
    y.ticks[i] = {at = tonumber(share), label = share}
  end
  local data, why = lines.panels(spec, points, notes, {x = x, y = y}, function(data, mine)
    return fill(data, results, spec, mine, points)
  end)
  if data and (data.bad or 0) > 0 then
    notes[#notes + 1] = ("Samples that are not finite or beyond 1e100: %d."):format(data.bad)
  end
  if data then data, why = lines.finish(data, spec) end
  if not data then return nil, why end
  data.what, data.legend = "Empirical distribution", true
  data.conditions = {"samples of all rounds"}
  return panels.figure(results, spec, data, points, look)
end
