--- The numbers of a line chart: panels of lines of rows, and what cannot be shown.
local frame = require "attune.plot.frame"
local series = require "attune.plot.series"
local text = require "attune.util.text"

local lines = {}

-- Intervals stretch a logarithmic axis up to this factor beyond all centres, and a linear one up to
-- this multiple of the largest centre. Longer ones are cut, as they would flatten all lines.
local log_reach, linear_reach = 4, 1.5

---@class attune.LineRow
---@field x number
---@field y number
---@field lo number
---@field hi number
---@field also number?
---@field cut_lo boolean? the interval leaves the axis below; lo is where it is drawn to
---@field cut_hi boolean?

---@class attune.Panel
---@field title string?
---@field lines {label: string?, rows: attune.LineRow[], style: integer}[]

---@class attune.Lines
---@field panels attune.Panel[]
---@field categories attune.Scalar[]? the values of x where they are not all numbers
---@field log_x boolean
---@field log_y boolean
---@field notes string[]
---@field kind string? what the centres are
---@field x1 number? the range of the axes
---@field x2 number?
---@field y1 number?
---@field y2 number?

local function label_of(value) return value ~= false and text.plain(value) or nil end

-- The different x of all points, or nil when all are numbers: then the axis is one of numbers.
local function categories_of(points, spec)
  local values = series.distinct(points, spec.x)
  for _, v in ipairs(values) do
    if type(v) ~= "number" then return values end
  end
end

-- Why a point cannot be shown, or nil: "not positive" on a logarithmic axis, or "not finite".
local function hidden(value, log)
  if not frame.is_drawable(value, log) then return "not finite" end
  return log and value <= 0 and "not positive" or nil
end

local function count(counts, axis, why)
  local key = axis .. ": " .. why
  counts[key] = (counts[key] or 0) + 1
end

-- One row, or nil when an axis cannot show it, which is counted.
local function row_of(data, x, value, also, counts)
  local bad_x, bad_y = hidden(x, data.log_x), hidden(value.centre, data.log_y)
  if bad_x then count(counts, "x", bad_x) elseif bad_y then count(counts, "y", bad_y) end
  if bad_x or bad_y then return nil end
  local y = value.centre
  local row = {x = x, y = y, lo = value.lo or y, hi = value.hi or y}
  if also and not hidden(also.centre, data.log_y) then row.also = also.centre end
  if also and not row.also then count(counts, "dashed", hidden(also.centre, data.log_y)) end
  return row
end

-- The rows of one line, sorted by x, or nil and a message when several points have the same x.
local function rows_of(data, results, all, points, spec, counts)
  local rows, at = {}, {}
  for _, point in ipairs(points) do
    local value = series.value(results, all, point, spec, spec.y)
    local x = point.parameters[spec.x]
    if value and value.centre and x ~= nil then
      if at[x] then
        local where = ("%s %s"):format(spec.x, text.plain(x))
        return nil, series.several(results, {at[x], point}, "line and x", where)
      end
      at[x] = point
      local also = spec.also and series.value(results, all, point, spec, spec.also)
      local row = row_of(data, data.index and data.index[x] or x, value, also, counts)
      if value.kind ~= "value" then data.kind = value.kind end
      rows[#rows + 1] = row
    end
  end
  table.sort(rows, function(a, b) return a.x < b.x end)
  return rows
end

local function panel_lines(data, results, all, points, spec, counts)
  local list = {}
  for style, value in ipairs(series.by(all, spec)) do
    -- The line that the others are compared with would be a line of ones.
    local is_base = spec.against and spec.by and spec.against[spec.by] == value
    local mine = series.with(points, spec.by, value)
    local rows, why = {}, nil
    if not is_base then rows, why = rows_of(data, results, all, mine, spec, counts) end
    if not rows then return nil, why end
    if #rows > 0 then
      list[#list + 1] = {label = label_of(value), rows = rows, style = (style - 1) % 8 + 1}
    end
  end
  return list
end

local function each_row(panels, visit)
  for _, panel in ipairs(panels) do
    for _, line in ipairs(panel.lines) do
      for _, row in ipairs(line.rows) do visit(row) end
    end
  end
end

-- How far intervals may stretch the axis of y.
local function bounds_of(centres, log)
  local low, high = math.huge, -math.huge
  for _, y in ipairs(centres) do low, high = math.min(low, y), math.max(high, y) end
  if log then return low / log_reach, high * log_reach end
  local room = linear_reach * math.max(high - low, math.abs(high), math.abs(low))
  return low - room, high + room
end

-- The numbers that the axes must show: all centres, and the ends of intervals that are not cut.
local function axis_values(data)
  local xs, centres, ys = {}, {}, {}
  each_row(data.panels, function(row)
    xs[#xs + 1], centres[#centres + 1] = row.x, row.y
    centres[#centres + 1] = row.also
  end)
  table.move(centres, 1, #centres, 1, ys)
  local low, high = bounds_of(centres, data.log_y)
  each_row(data.panels, function(row)
    for _, y in ipairs {row.lo, row.hi} do
      if y >= low and y <= high then ys[#ys + 1] = y end
    end
  end)
  return xs, ys
end

-- Cuts the intervals that leave the axis of y just inside its edges. Returns their number.
local function cut_intervals(data)
  local cut, inside = 0, 0.002
  local low = data.y1 + inside * (data.y2 - data.y1)
  local high = data.y2 - inside * (data.y2 - data.y1)
  if data.log_y then
    local step = (data.y2 / data.y1) ^ inside
    low, high = data.y1 * step, data.y2 / step
  end
  each_row(data.panels, function(row)
    row.cut_lo, row.cut_hi = row.lo < data.y1, row.hi > data.y2
    if row.cut_lo then row.lo = low end
    if row.cut_hi then row.hi = high end
    if row.cut_lo or row.cut_hi then cut = cut + 1 end
  end)
  return cut
end

-- Appends what the figure leaves out to notes.
local function note_all(notes, data, counts, cut, spec)
  local function note(key, format)
    local n = counts[key]
    local verb = n == 1 and "is" or "are"
    if n then notes[#notes + 1] = format:format(frame.count(n, "point"), verb) end
  end
  note("y: not positive", "%s with a y of 0 or less %s not shown on the logarithmic axis.")
  note("x: not positive", "%s with an x of 0 or less %s not shown on the logarithmic axis.")
  note("y: not finite", "%s whose y is not finite or beyond 1e100 %s not shown.")
  note("x: not finite", "%s whose x is not finite or beyond 1e100 %s not shown.")
  note("dashed: not positive", "%s with a dashed value of 0 or less %s not shown.")
  note("dashed: not finite", "%s whose dashed value is not finite or beyond 1e100 %s not shown.")
  if cut > 0 then
    local verb = cut == 1 and "leaves" or "leave"
    local axis = data.log_y and "logarithmic axis" or "axis"
    local format = "%s %s the %s (arrows)."
    notes[#notes + 1] = format:format(frame.count(cut, "interval"), verb, axis)
  end
  if data.categories and spec.log and spec.log:find "x" then
    notes[#notes + 1] = ("The x axis is not logarithmic, as %s is not a number everywhere.")
      :format(spec.x)
  end
  return notes
end

--- The panels of a plot with the ranges of their axes.
---@param results attune.Results
---@param spec attune.PlotSpec
---@param points attune.Point[]
---@param notes string[] what is left out so far; more is appended
---@return attune.Lines? data
---@return string? message
function lines.of(results, spec, points, notes)
  local data = {panels = {}, notes = notes, categories = categories_of(points, spec)}
  data.log_x = spec.log ~= nil and spec.log:find "x" ~= nil and not data.categories
  data.log_y = spec.log ~= nil and spec.log:find "y" ~= nil
  if data.categories then
    data.index = {}
    for i, v in ipairs(data.categories) do data.index[v] = i end
  end
  local counts = {}
  for i, value in ipairs(spec.facet and series.distinct(points, spec.facet) or {false}) do
    local mine = series.with(points, spec.facet, value)
    local list, why = panel_lines(data, results, points, mine, spec, counts)
    if not list then return nil, why end
    data.panels[i] = {title = label_of(value), lines = list}
  end
  local xs, ys = axis_values(data)
  if #ys == 0 then
    local left_out = table.concat(note_all(notes, data, counts, 0, spec), " ")
    return nil, "there is no point with a value" .. (left_out ~= "" and ": " .. left_out or "")
  end
  data.xs = xs
  data.x1, data.x2 = frame.range(xs, data.log_x, 0.04, 0.04)
  if data.categories then data.x1, data.x2 = 0.7, #data.categories + 0.3 end
  data.y1, data.y2 = frame.range(ys, data.log_y, 0.06, 0.08)
  note_all(notes, data, counts, cut_intervals(data), spec)
  return data
end

return lines
