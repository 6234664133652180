--- The numbers of charts over two axes: panels of lines of rows, and what cannot be shown.
local frame = require "attune.plot.frame"
local series = require "attune.plot.series"
local text = require "attune.util.text"

local lines = {}

-- Intervals stretch a logarithmic axis up to this factor beyond all centres, and a linear one up to
-- this multiple of the largest centre. Longer ones are cut, as they would flatten all lines.
local log_reach, linear_reach = 4, 1.5

---@class attune.Row
---@field x number
---@field y number
---@field lo number? the interval of y
---@field hi number?
---@field x_lo number? the interval of x
---@field x_hi number?
---@field also number?
---@field cut_lo boolean? the interval leaves the axis below; lo is where it is drawn to
---@field cut_hi boolean?
---@field label string? written beside the mark
---@field about string? what the mark is, before its values
---@field box number[]? x from, x to, lower whisker, quartiles 1 to 3, upper whisker

---@class attune.Line
---@field label string?
---@field rows attune.Row[]
---@field style integer of theme.gp, from 1
---@field form "line"|"points"|"faint"|"steps"|"fsteps"|"curve"|"box"|"roof"
---@field band boolean? intervals are a band; else each has a stroke

---@class attune.Panel
---@field title string?
---@field lines attune.Line[]

---@class attune.Axis
---@field name string
---@field unit string?
---@field log boolean
---@field base 2|10|nil of a logarithmic axis's ticks
---@field values number[]? what its ticks may stand at
---@field categories attune.Scalar[]? names at 1, 2, 3 ..
---@field index table<attune.Scalar, integer>?
---@field better "lower"|"higher"|nil
---@field low number? the range
---@field high number?

---@class attune.Lines
---@field panels attune.Panel[]
---@field x attune.Axis
---@field y attune.Axis
---@field notes string[]
---@field kind string? what the centres are
---@field what string? "Line chart" ..
---@field legend boolean? entries above the panels in place of labels at the lines' ends
---@field conditions string[]? lines under the title before those of the parameters

--- The label of a value of `by` or `facet`; nil without one. A number alone would not say what it
--- counts.
---@param name string? of the parameter
---@param value attune.Scalar|false
---@return string?
function lines.label(name, value)
  if not name then return nil end
  if type(value) == "string" then return text.plain(value) end
  return ("%s %s"):format(text.printable(name), text.plain(value))
end

-- The different x of all points, or nil when all are numbers: then the axis is one of numbers.
local function categories_of(points, name)
  local values = series.distinct(points, name)
  for _, v in ipairs(values) do
    if type(v) ~= "number" then return values end
  end
end

--- An axis for a parameter or a metric.
---@param results attune.Results
---@param points attune.Point[]
---@param spec attune.PlotSpec
---@param letter "x"|"y"
---@param name string
---@return attune.Axis
function lines.axis(results, points, spec, letter, name)
  local metric = series.metric(results, name)
  local axis = {name = name, base = spec.base}
  if metric then
    axis.unit, axis.better = metric.unit, metric.better
    if letter == "y" then axis.unit = frame.value_unit(spec, metric.unit) end
  else
    axis.categories = categories_of(points, name)
  end
  axis.log = spec.log ~= nil and spec.log:find(letter, 1, true) ~= nil and not axis.categories
  if axis.categories then
    axis.index = {}
    for i, v in ipairs(axis.categories) do axis.index[v] = i end
  end
  return axis
end

-- ---- what an axis cannot show -------------------------------------------------------------------

-- Why a value cannot be shown, or nil: "not positive" on a logarithmic axis, or "not finite".
local function hidden(value, log)
  if not frame.is_drawable(value, log) then return "not finite" end
  return log and value <= 0 and "not positive" or nil
end

local function count(counts, axis, why)
  local key = axis .. ": " .. why
  counts[key] = (counts[key] or 0) + 1
end

--- Whether both axes can show a mark; a mark that is not shown is counted.
---@param data attune.Lines
---@param x number
---@param y number
---@return boolean
function lines.shown(data, x, y)
  local bad_x, bad_y = hidden(x, data.x.log), hidden(y, data.y.log)
  if bad_x then count(data.counts, "x", bad_x) elseif bad_y then count(data.counts, "y", bad_y) end
  return not (bad_x or bad_y)
end

-- Appends what the figure leaves out to the notes.
local function note_all(data, spec)
  local notes = data.notes
  local function note(key, format)
    local n = data.counts[key]
    local verb = n == 1 and "is" or "are"
    if n then notes[#notes + 1] = format:format(text.count(n, "point"), verb) end
  end
  note("y: not positive", "%s with a y of 0 or less %s not shown on the logarithmic axis.")
  note("x: not positive", "%s with an x of 0 or less %s not shown on the logarithmic axis.")
  note("y: not finite", "%s whose y is not finite or beyond 1e100 %s not shown.")
  note("x: not finite", "%s whose x is not finite or beyond 1e100 %s not shown.")
  note("dashed: not positive", "%s with a dashed value of 0 or less %s not shown.")
  note("dashed: not finite", "%s whose dashed value is not finite or beyond 1e100 %s not shown.")
  if data.x.categories and spec.log and spec.log:find "x" then
    notes[#notes + 1] = ("The x axis is not logarithmic, as %s is not a number everywhere.")
      :format(data.x.name)
  end
end

-- ---- rows ---------------------------------------------------------------------------------------

-- What a point has on the axis of x: a value of a parameter, or of a metric with its interval.
local function x_of(data, results, point)
  local axis = data.x
  if not series.metric(results, axis.name) then
    local value = point.parameters[axis.name]
    if axis.index then return axis.index[value] end
    return value
  end
  local value = point.metrics[axis.name]
  if value then return value.centre, value.lo, value.hi end
end

-- One row, or nil when an axis cannot show it, which is counted.
local function row_of(data, x, value, also)
  if not lines.shown(data, x, value.centre) then return nil end
  local row = {x = x, y = value.centre, lo = value.lo, hi = value.hi}
  if also and not hidden(also.centre, data.y.log) then row.also = also.centre end
  if also and not row.also then count(data.counts, "dashed", hidden(also.centre, data.y.log)) end
  return row
end

-- The rows of one line, sorted by x, or nil and a message when several points have the same x.
local function rows_of(data, results, all, points, spec, form)
  local rows, at = {}, {}
  for _, point in ipairs(points) do
    local value = series.value(results, all, point, spec, spec.y)
    local x, x_lo, x_hi = x_of(data, results, point)
    if value and value.centre and x ~= nil then
      if at[x] and form == "line" then
        local where = ("%s %s"):format(spec.x, text.plain(point.parameters[spec.x]))
        return nil, series.several(results, {at[x], point}, "line and x", where)
      end
      at[x] = point
      local also = spec.also and series.value(results, all, point, spec, spec.also)
      local row = row_of(data, x, value, also)
      if row then
        row.x_lo, row.x_hi = x_lo, x_hi
        row.label = spec.label and text.plain(point.parameters[spec.label])
        row.about = form ~= "line" and series.name(results, point) or nil
        rows[#rows + 1] = row
      end
      if value.kind ~= "value" then data.kind = value.kind end
    end
  end
  table.sort(rows, function(a, b) return a.x < b.x end)
  return rows
end

-- Lines of points; the line that the others are compared with would be a line of ones.
local function panel_lines(data, results, all, points, spec, form)
  local list = {}
  for style, value in ipairs(series.by(all, spec)) do
    local is_base = spec.against and spec.by and spec.against[spec.by] == value
    local mine = series.with(points, spec.by, value)
    local rows, why = {}, nil
    if not is_base then rows, why = rows_of(data, results, all, mine, spec, form) end
    if not rows then return nil, why end
    if #rows > 0 then
      list[#list + 1] = {
        label = lines.label(spec.by, value), rows = rows, style = (style - 1) % 8 + 1, form = form,
      }
    end
  end
  return list
end

--- Calls visit with each row and its line.
function lines.each_row(data, visit)
  for _, panel in ipairs(data.panels) do
    for _, line in ipairs(panel.lines) do
      for _, row in ipairs(line.rows) do visit(row, line) end
    end
  end
end

-- ---- ranges -------------------------------------------------------------------------------------

-- How far intervals may stretch an axis.
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
  lines.each_row(data, function(row)
    xs[#xs + 1], centres[#centres + 1] = row.x, row.y
    centres[#centres + 1] = row.also
    for i, at in ipairs(row.box or {}) do
      local list = i <= 2 and xs or centres
      list[#list + 1] = at
    end
  end)
  table.move(centres, 1, #centres, 1, ys)
  local low, high = bounds_of(centres, data.y.log)
  lines.each_row(data, function(row)
    for _, y in ipairs {row.lo or row.y, row.hi or row.y} do
      if y >= low and y <= high then ys[#ys + 1] = y end
    end
  end)
  return xs, ys
end

-- Cuts the intervals that leave an axis just inside its edges. Returns their number.
local function cut_intervals(data, axis, lo, hi)
  local cut, inside = 0, 0.002
  local low = axis.low + inside * (axis.high - axis.low)
  local high = axis.high - inside * (axis.high - axis.low)
  if axis.log then
    local step = (axis.high / axis.low) ^ inside
    low, high = axis.low * step, axis.high / step
  end
  lines.each_row(data, function(row)
    if not row[lo] then return end
    local below, above = row[lo] < axis.low, row[hi] > axis.high
    if below then row[lo] = low end
    if above then row[hi] = high end
    if lo == "lo" then row.cut_lo, row.cut_hi = below, above end
    if below or above then cut = cut + 1 end
  end)
  return cut
end

-- Reference lines that an axis cannot show are left out, with a note.
local function add_references(data, spec, xs, ys)
  data.references = {}
  for _, reference in ipairs(spec.lines or {}) do
    local letter = reference.x and "x" or "y"
    local axis, at = data[letter], reference[letter]
    if axis.index then at = axis.index[at] end
    if type(at) == "number" and not hidden(at, axis.log) then
      local list = letter == "x" and xs or ys
      list[#list + 1] = at
      table.insert(data.references, {letter = letter, at = at, text = reference.text})
    else
      local format = "The line at %s %s is not on the axis."
      table.insert(data.notes, format:format(letter, text.plain(reference[letter])))
    end
  end
end

-- What to say where nothing is left to draw.
local function nothing(data)
  local left_out = table.concat(data.notes, " ")
  return nil, "there is no point with a value" .. (left_out ~= "" and ": " .. left_out or "")
end

--- Gives the axes their ranges and cuts intervals. To be called once all rows are there.
---@param data attune.Lines
---@param spec attune.PlotSpec
---@return attune.Lines? data
---@return string? message
function lines.finish(data, spec)
  local xs, ys = axis_values(data)
  if #ys == 0 then
    note_all(data, spec)
    return nothing(data)
  end
  data.x.values = data.x.values or xs
  add_references(data, spec, xs, ys)
  data.x.low, data.x.high = frame.range(xs, data.x.log, 0.04, 0.04)
  if data.x.categories then data.x.low, data.x.high = 0.4, #data.x.categories + 0.6 end
  if not data.y.low then data.y.low, data.y.high = frame.range(ys, data.y.log, 0.06, 0.08) end
  note_all(data, spec)
  local cut = cut_intervals(data, data.y, "lo", "hi") + cut_intervals(data, data.x, "x_lo", "x_hi")
  if cut > 0 then
    local format = "%s %s the %s (arrows)."
    data.notes[#data.notes + 1] = format:format(text.count(cut, "interval"),
      cut == 1 and "leaves" or "leave", data.y.log and "logarithmic axis" or "axis")
  end
  return data
end

--- The beginning of a chart: axes without ranges, and a panel for each value of `facet`.
---@param results attune.Results
---@param spec attune.PlotSpec
---@param points attune.Point[]
---@param notes string[] what is left out so far; more is appended
---@param fill fun(data: attune.Lines, mine: attune.Point[]): attune.Line[]?, string? of one panel
---@param axes {x: attune.Axis, y: attune.Axis}
---@return attune.Lines? data
---@return string? message
function lines.panels(spec, points, notes, axes, fill)
  local data = {panels = {}, notes = notes, counts = {}, x = axes.x, y = axes.y}
  for i, value in ipairs(spec.facet and series.distinct(points, spec.facet) or {false}) do
    local list, why = fill(data, series.with(points, spec.facet, value))
    if not list then return nil, why end
    data.panels[i] = {title = lines.label(spec.facet, value), lines = list}
  end
  return data
end

--- A chart with one mark per point.
---@param results attune.Results
---@param spec attune.PlotSpec
---@param points attune.Point[]
---@param notes string[] what is left out so far; more is appended
---@param form "line"|"points" a line has one mark per x
---@return attune.Lines? data without ranges: lines.finish gives them
---@return string? message
function lines.of(results, spec, points, notes, form)
  local axes = {
    x = lines.axis(results, points, spec, "x", spec.x),
    y = lines.axis(results, points, spec, "y", spec.y),
  }
  return lines.panels(spec, points, notes, axes, function(data, mine)
    return panel_lines(data, results, points, mine, spec, form)
  end)
end

return lines
