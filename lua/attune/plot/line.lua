--- Lines with intervals, labelled at their right ends; one panel per value of `facet`.
local frame = require "attune.plot.frame"
local gnuplot = require "attune.plot.gnuplot"
local series = require "attune.plot.series"
local text = require "attune.util.text"

local add, number, quote = gnuplot.add, gnuplot.number, gnuplot.quote
local letter_inches = 0.105 -- width of a letter of the labels
local label_gap_inches = 0.24 -- least distance between two labels

-- The rows {x, y, lo, hi, also} of one line, sorted by x.
local function rows_of(results, all, points, spec)
  local rows = {}
  for _, point in ipairs(points) do
    local v = series.value(results, all, point, spec, spec.y)
    local also = spec.also and series.value(results, all, point, spec, spec.also)
    if v and v.median then
      local lo, hi = v.lo or v.median, v.hi or v.median
      rows[#rows + 1] = {point.parameters[spec.x], v.median, lo, hi, also and also.median}
    end
  end
  table.sort(rows, function(a, b) return a[1] < b[1] end)
  return rows
end

-- Moves labels apart until neighbours are at least `gap` from each other (in fractions of the
-- panel's height), each as near to the end of its line as that allows.
local function spread(labels, gap)
  table.sort(labels, function(a, b) return a.at < b.at end)
  for _ = 1, 200 do
    local moved = false
    for i = 2, #labels do
      local missing = gap - (labels[i].at - labels[i - 1].at)
      if missing > 1e-6 then
        labels[i].at = labels[i].at + missing / 2
        labels[i - 1].at = labels[i - 1].at - missing / 2
        moved = true
      end
    end
    if #labels > 0 and labels[1].at < 0 then
      for _, l in ipairs(labels) do l.at = l.at - labels[1].at end
    end
    if not moved then break end
  end
end

local function with_parameter(points, name, value)
  if not name then return points end
  local kept = {}
  for _, point in ipairs(points) do
    if point.parameters[name] == value then kept[#kept + 1] = point end
  end
  return kept
end

local function label_of(value) return value ~= false and text.plain(value) or nil end

local function panel_lines(results, all, points, spec)
  local lines = {}
  for style, value in ipairs(series.by(all, spec)) do
    local rows = rows_of(results, all, with_parameter(points, spec.by, value), spec)
    -- The line that the others are compared with would be a line of ones.
    local is_base = spec.against and spec.by and spec.against[spec.by] == value
    if #rows > 0 and not is_base then
      lines[#lines + 1] = {label = label_of(value), rows = rows, style = (style - 1) % 8 + 1}
    end
  end
  return lines
end

-- Appends the data blocks of a panel: one per line, then one per line for `also`. Returns the index
-- of the first, from 0.
local function emit_data(lines, spec, blocks)
  local first = #blocks
  for _, line in ipairs(lines) do
    local block = {}
    for i, r in ipairs(line.rows) do
      block[i] = table.concat({number(r[1]), number(r[2]), number(r[3]), number(r[4])}, " ")
    end
    blocks[#blocks + 1] = table.concat(block, "\n")
  end
  for _, line in ipairs(spec.also and lines or {}) do
    local block = {}
    for i, r in ipairs(line.rows) do block[i] = number(r[1]) .. " " .. number(r[5]) end
    blocks[#blocks + 1] = table.concat(block, "\n")
  end
  return first
end

-- All x, and all y that the axis must show.
local function axis_values(panels, log_y)
  local xs, ys = {}, {}
  for _, panel in ipairs(panels) do
    for _, line in ipairs(panel.lines) do
      for _, r in ipairs(line.rows) do
        xs[#xs + 1] = r[1]
        for i = 2, 5 do
          -- The lower end (3) of an interval may be below zero, where a log axis cannot show it.
          local hidden = i == 3 and log_y and r[i] <= 0
          if r[i] and not hidden then ys[#ys + 1] = r[i] end
        end
      end
    end
  end
  return xs, ys
end

local function ranges(panels, spec)
  local log_x = spec.log and spec.log:find "x" and true
  local log_y = spec.log and spec.log:find "y" and true
  local xs, ys = axis_values(panels, log_y)
  if #ys == 0 then return nil, "there is no point with a value" end
  local x1, x2 = frame.range(xs, log_x, 0.04, 0.04)
  local y1, y2 = frame.range(ys, log_y, 0.06, 0.08)
  if not x1 or not y1 then
    return nil, ("log: the %s axis has a value that is not positive"):format(x1 and "y" or "x")
  end
  return {x1 = x1, x2 = x2, y1 = y1, y2 = y2, log_x = log_x, log_y = log_y, xs = xs}
end

-- Up to seven different x get a tick each; with more, gnuplot chooses.
local function x_ticks(xs)
  local seen, list = {}, {}
  for _, x in ipairs(xs) do
    if not seen[x] then
      seen[x] = true
      list[#list + 1] = x
    end
  end
  table.sort(list)
  if #list > 7 then return nil end
  local parts = {}
  for i, x in ipairs(list) do
    local label = (math.type(x) == "integer" and "%d" or "%g"):format(x)
    parts[i] = ("'%s' %s"):format(label, number(x))
  end
  return "(" .. table.concat(parts, ", ") .. ")"
end

local function add_labels(script, panel, r, gap)
  local labels = {}
  for _, line in ipairs(panel.lines) do
    local y = line.rows[#line.rows][2]
    local at = (y - r.y1) / (r.y2 - r.y1)
    if r.log_y then at = math.log(y / r.y1) / math.log(r.y2 / r.y1) end
    if line.label then
      labels[#labels + 1] = {text = line.label, at = at, style = line.style}
    end
  end
  spread(labels, gap)
  for i, l in ipairs(labels) do
    add(script, "set label %d %s at graph 1.02,%.4f left font ',14' textcolor rgb colour[%d]",
      200 + i, quote(l.text), l.at, l.style)
  end
end

-- Room at the left for ticks and at the right for labels, as fractions of the picture's width.
local function margins(panels, r, unit, size)
  local letters = 0
  for _, panel in ipairs(panels) do
    for _, line in ipairs(panel.lines) do
      letters = math.max(letters, line.label and utf8.len(line.label) or 0)
    end
  end
  local small_numbers = r.log_y and r.y1 < 1e-3 and 0.2 or 0
  local extra_unit = letter_inches * math.max(0, #(unit or "") - 3)
  local left = 0.085 + (small_numbers + extra_unit) / size.width
  local labels = (0.2 + letter_inches * math.min(letters, 24)) / size.width
  return left, math.max(#panels > 1 and 0.075 or 0.11, labels)
end

local function panels_of(results, points, spec)
  local panels = {}
  local facets = spec.facet and series.distinct(points, spec.facet) or {false}
  for i, value in ipairs(facets) do
    local mine = with_parameter(points, spec.facet, value)
    panels[i] = {title = label_of(value), lines = panel_lines(results, points, mine, spec)}
  end
  return panels
end

local function add_axes(script, spec, r, unit)
  if r.log_x then add(script, "set logscale x") end
  if r.log_y then add(script, "set logscale y") end
  add(script, "set xrange [%s:%s]", number(r.x1), number(r.x2))
  add(script, "set yrange [%s:%s]", number(r.y1), number(r.y2))
  add(script, "set format y %s", frame.value_ticks(spec, unit))
  local ticks = x_ticks(r.xs)
  if ticks then add(script, "set xtics %s", ticks) end
  add(script, "set xlabel %s textcolor rgb quiet offset 0,0.3", quote(spec.x))
end

local function add_lines(script, panel, spec, blocks)
  local first = emit_data(panel.lines, spec, blocks)
  local styles = {}
  for k, line in ipairs(panel.lines) do styles[k] = line.style end
  if #styles == 0 then return end
  add(script, "series = %d", #styles)
  add(script, "companions = %d", spec.also and 1 or 0)
  add(script, "array style[%d] = [%s]", #styles, table.concat(styles, ","))
  add(script, "first = %d", first)
  add(script, "load plots.'/line.gp'")
end

-- Adds all panels in a grid, filled row by row. Returns the data blocks.
local function add_panels(script, panels, spec, r, unit, size, columns)
  local blocks, rows = {}, math.ceil(#panels / columns)
  local bottom, top = 0.72 / size.height, 1 - 1.0 / size.height
  local left, right = margins(panels, r, unit, size)
  local cell_width, cell_height = (1 - 0.01) / columns, top / rows
  for i, panel in ipairs(panels) do
    local column, row = (i - 1) % columns, (i - 1) // columns
    local x1 = column * cell_width + left
    local x2 = (column + 1) * cell_width - right
    local y2 = top - row * cell_height - (panel.title and 0.28 / size.height or 0)
    local y1 = top - (row + 1) * cell_height + bottom
    frame.margins(script, x1, x2, y1, y2)
    if i > 1 then add(script, "unset label") end
    if panel.title then
      add(script, "set label 150 %s at graph 0,1.07 left font ',15' textcolor rgb ink",
        quote(panel.title))
    end
    add_labels(script, panel, r, label_gap_inches / ((y2 - y1) * size.height))
    add_lines(script, panel, spec, blocks)
  end
  return blocks
end

---@return attune.Figure? figure
---@return string? message
return function(results, spec, points)
  local panels = panels_of(results, points, spec)
  local r, why = ranges(panels, spec)
  if not r then return nil, why end
  local many = #panels > 1
  local columns = many and 2 or 1
  local height = many and 1.0 + 3.2 * math.ceil(#panels / columns) or 5.6
  local size = {width = many and 11 or 8.5, height = height}
  local unit = spec.against and "" or (series.metric(results, spec.y) or {}).unit
  local conditions = series.constants(points, results, spec)
  if spec.also then
    local y, also = spec.y:gsub("_", " "), spec.also:gsub("_", " ")
    table.insert(conditions, 1, ("solid: %s, dashed: %s"):format(y, also))
  end
  local script = {frame.title(results, spec.title or spec.y, conditions, size)}
  add_axes(script, spec, r, unit)
  if many then add(script, "set multiplot") end
  local blocks = add_panels(script, panels, spec, r, unit, size, columns)
  if many then add(script, "unset multiplot") end
  return {
    size = size,
    script = table.concat(script, "\n"),
    data = table.concat(blocks, "\n\n\n") .. "\n",
  }
end
