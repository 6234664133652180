--- A roofline: operations per second against operations per byte, under the roofs of bandwidth and
--- peak. Williams, Waterman and Patterson, Roofline, Communications of the ACM 52(4), 2009:
---   y <= min(peak, x bandwidth)
local frame = require "attune.plot.frame"
local lines = require "attune.plot.lines"
local panels = require "attune.plot.panels"
local series = require "attune.plot.series"
local stats = require "attune.results.statistics"
local text = require "attune.util.text"

local reach = 3 -- factor by which the roofs go beyond the marks

-- A limit: a number, or the median of a metric over the points.
local function limit_of(results, points, given, name)
  if type(given) == "number" then return given end
  if not series.metric(results, given) then
    return nil, ("%s: expected a number or a metric of the results, got '%s'"):format(name, given)
  end
  local values = {}
  for _, point in ipairs(points) do
    local m = point.metrics[given]
    values[#values + 1] = m and m.centre
  end
  local limit = stats.median(values)
  if limit and limit > 0 and frame.is_drawable(limit, true) then return limit end
  local format = "%s: expected a positive metric, got %s for %s"
  return nil, format:format(name, text.plain(limit), given)
end

-- The peaks: those that a list names and the results have, or the only one. nil and a message
-- where there is none.
local function peaks_of(results, points, given)
  if type(given) ~= "table" then
    local peak, why = limit_of(results, points, given, "peak")
    return peak and {peak}, why
  end
  local list, why = {}, "peak: expected numbers or metrics, got an empty list"
  for _, one in ipairs(given) do
    local peak
    peak, why = limit_of(results, points, one, "peak")
    if peak then list[#list + 1] = peak end
  end
  if #list == 0 then return nil, why end
  table.sort(list)
  return list
end

-- The roof over an axis of x: up to the ridge, then level.
local function roof(low, high, peak, bandwidth, unit)
  local ridge = peak / bandwidth
  local rows = {{x = low, y = math.min(peak, bandwidth * low)}}
  if ridge > low and ridge < high then rows[2] = {x = ridge, y = peak} end
  rows[#rows + 1] = {x = high, y = math.min(peak, bandwidth * high)}
  rows[1].label = ridge > low and text.quantity(bandwidth, "B/s") or nil
  rows[#rows].label = ridge < high and text.quantity(peak, unit) or nil
  return {rows = rows, style = 8, form = "roof"}
end

---@param results attune.Results
---@param spec attune.PlotSpec
---@param points attune.Point[]
---@param notes string[] what is left out so far; more is appended
---@param look attune.Look
---@return attune.Figure? figure
---@return string? message
return function(results, spec, points, notes, look)
  local both = series.changed(spec, "log", "xy")
  local peaks, why = peaks_of(results, points, spec.peak)
  local bandwidth
  if peaks then bandwidth, why = limit_of(results, points, spec.bandwidth, "bandwidth") end
  if not bandwidth then return nil, why end
  local data
  data, why = lines.of(results, both, points, notes, "points")
  if not data then return nil, why end
  if data.x.categories then
    return nil, ("x: expected operations per byte, got texts of %s"):format(spec.x)
  end
  local low, high = math.huge, 0
  lines.each_row(data, function(row)
    low, high = math.min(low, row.x), math.max(high, row.x)
  end)
  low = math.min(low, peaks[1] / bandwidth) / reach
  high = math.max(high, peaks[#peaks] / bandwidth) * reach
  if high < math.huge and low > 0 then
    for _, panel in ipairs(data.panels) do
      for i, peak in ipairs(peaks) do
        local line = roof(low, high, peak, bandwidth, data.y.unit or "FLOP/s")
        if i > 1 then line.rows[1].label = nil end -- all have the same slope
        table.insert(panel.lines, 1, line)
      end
    end
  end
  data, why = lines.finish(data, both)
  if not data then return nil, why end
  data.what, data.legend = "Roofline", true
  data.x.has_own_ends = true -- those of the roof are no values that a reader looks for
  return panels.figure(results, both, data, points, look)
end
