--- Draws panels of lines and marks over two axes: the layout in inches, and the script.
local describe = require "attune.plot.describe"
local frame = require "attune.plot.frame"
local gnuplot = require "attune.plot.gnuplot"
local letters = require "attune.plot.letters"
local marks = require "attune.plot.marks"
local series = require "attune.plot.series"
local terminal = require "attune.plot.terminal"
local ticks = require "attune.plot.ticks"

local add, number, quote = gnuplot.add, gnuplot.number, gnuplot.quote
local font = frame.font

-- Inches.
local label_gap = 0.24 -- min distance between two labels
local max_label_width = 2.6 -- wider ones go into a legend below
local panel_height = 2.15 -- of one of several panels
local right_edge = 0.2 -- right of a panel without labels

local panels = {}

local max_own_ticks = 9 -- up to this number of different x, each gets a tick
local max_panels = 24

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
    local below = #labels > 0 and math.max(0, -labels[1].at) or 0
    local above = #labels > 0 and math.max(0, labels[#labels].at - 1) or 0
    for _, l in ipairs(labels) do l.at = l.at + below - above end
    if not moved then break end
  end
end

local function distinct(xs)
  local seen, list = {}, {}
  for _, x in ipairs(xs) do
    if not seen[x] then
      seen[x] = true
      list[#list + 1] = x
    end
  end
  table.sort(list)
  return list
end

local function all_powers_of_two(xs)
  for _, x in ipairs(xs) do
    if x <= 0 or math.log(x, 2) % 1 ~= 0 then return false end
  end
  return #xs > 2
end

-- The ticks of x on an axis of this width, the height of their labels, and the reach of names at an
-- angle.
local function x_ticks(axis, inches)
  local function place(at) return marks.fraction(axis, at) * inches end
  if axis.categories then
    local list = ticks.categories(axis.categories)
    local pitch = inches / #list
    local height, reach = ticks.room(list, font.tick, pitch)
    -- At an angle the names need little room beside each other.
    if pitch < 0.2 and reach then list = ticks.thinned(list, font.tick, place) end
    return list, height, reach
  end
  local xs = distinct(axis.values)
  local list
  if #xs <= max_own_ticks and not axis.unit and not axis.has_own_ends then
    list = ticks.at(xs)
  elseif axis.log then
    local base = axis.base or (all_powers_of_two(xs) and 2) or nil
    list = ticks.log(axis.low, axis.high, axis.unit, 7, base)
  else
    list = ticks.linear(axis.low, axis.high, axis.unit, 7)
  end
  return ticks.thinned(list, font.tick, place), 0.24
end

-- The labels of all lines, each once, with their styles.
local function legend_entries(data)
  local entries, seen = {}, {}
  for _, panel in ipairs(data.panels) do
    for _, line in ipairs(panel.lines) do
      if line.label and not seen[line.label] then
        seen[line.label] = true
        entries[#entries + 1] = {
          text = line.label,
          colour = ("colour[%d]"):format(line.style),
          shape = ("shape[%d]"):format(line.style),
        }
      end
    end
  end
  return entries
end

-- The width of the widest label, and whether labels fit beside panels of this height.
local function labels_fit(data, height)
  local max_width, max_lines = 0, 0
  for _, panel in ipairs(data.panels) do
    max_lines = math.max(max_lines, #panel.lines)
    for _, line in ipairs(panel.lines) do
      local width = line.label and letters.width(letters.clean(line.label), font.label) or 0
      max_width = math.max(max_width, width)
    end
  end
  return max_width, max_width <= max_label_width and max_lines * label_gap <= height
end

local function add_end_labels(script, panel, data, gap)
  local labels = {}
  for _, line in ipairs(panel.lines) do
    local at = marks.fraction(data.y, line.rows[#line.rows].y)
    if line.label then
      labels[#labels + 1] = {text = line.label, at = at, style = line.style}
    end
  end
  spread(labels, gap)
  for i, l in ipairs(labels) do
    add(script, "set label %d %s at graph 1.02,%.4f left font ',%d' textcolor rgb colour[%d]",
      200 + i, quote(l.text), l.at, font.label, l.style)
  end
end

local function add_axes(script, layout, data)
  if data.x.log then add(script, "set logscale x") end
  if data.y.log then add(script, "set logscale y") end
  add(script, "set xrange [%s:%s]", number(data.x.low), number(data.x.high))
  add(script, "set yrange [%s:%s]", number(data.y.low), number(data.y.high))
  add(script, "set ytics %s font ',%d'", ticks.command(layout.y_ticks), font.tick)
  local angle = layout.reach and ticks.tilted or ""
  add(script, "set xtics%s %s font ',%d'", angle, ticks.command(layout.x_ticks), font.tick)
end

local arrows = {lower = "lower is better", higher = "higher is better"}

-- The name of an axis, and which direction of it is better where that matters.
local function axis_name(axis, with_better)
  local name = letters.clean(axis.name, 48)
  local better = with_better and arrows[axis.better]
  return better and ("%s (%s)"):format(name, better) or name
end

-- The labels under the head: above all panels for a chart of marks, below them for lines whose
-- labels do not fit beside them.
local function place_legend(layout, data, fits)
  local entries = legend_entries(data)
  if #entries == 0 or (fits and not data.legend) then return end
  layout.legend = frame.legend(entries, layout.width)
  layout.legend_above = data.legend and layout.legend.height or 0
  layout.legend_below = data.legend and 0 or layout.legend.height
end

-- Where everything is, in inches.
local function layout_of(data, head_of, look)
  local many = #data.panels > 1
  local layout = {many = many, columns = many and 2 or 1, legend_above = 0, legend_below = 0}
  layout.rows = math.ceil(#data.panels / layout.columns)
  layout.width = (layout.many and 11 or 8.5) * look.width
  layout.panel_height = (layout.many and panel_height or 3.9) * look.width
  local unit = data.y.unit
  local count = math.floor(((layout.many or unit == "B") and 6 or 8) * look.width)
  layout.y_ticks = data.y.ticks
    or (data.y.log and ticks.log or ticks.linear)(data.y.low, data.y.high, unit, count, data.y.base)
  layout.left = math.max(0.55, ticks.width(layout.y_ticks, font.tick) + 0.3)
  local widest, fits = labels_fit(data, layout.panel_height)
  layout.beside = fits and not data.legend
  layout.right = layout.beside and widest > 0 and widest + 0.25 or right_edge
  layout.panel_width = layout.width / layout.columns - layout.left - layout.right
  if layout.panel_width < 2.6 then
    layout.width = layout.width + layout.columns * (2.6 - layout.panel_width)
    layout.panel_width = 2.6
  end
  layout.x_ticks, layout.x_height, layout.reach = x_ticks(data.x, layout.panel_width)
  -- Half of a label at the end of the axis stands beyond it.
  local beyond = 0
  for _, tick in ipairs(layout.reach and {} or layout.x_ticks) do
    local at = marks.fraction(data.x, tick.at) * layout.panel_width
    local over = at + letters.width(tick.label, font.tick) * 0.45 - layout.panel_width
    beyond = math.max(beyond, over + 0.08 - layout.right)
  end
  layout.right, layout.width = layout.right + beyond, layout.width + layout.columns * beyond
  if layout.reach then
    local lacking = layout.reach - layout.left - marks.fraction(data.x, 1) * layout.panel_width
    if lacking > 0 then
      layout.left, layout.width = layout.left + lacking, layout.width + layout.columns * lacking
    end
  end
  layout.under = layout.x_height + 0.5
  local titled = layout.many or data.panels[1] and data.panels[1].title
  layout.above = (titled and 0.4 or 0.1) + (data.y_label and 0.28 or 0)
  place_legend(layout, data, fits)
  layout.head = head_of(layout.width)
  local body = layout.rows * (layout.above + layout.panel_height + layout.under)
  layout.size = {
    width = layout.width,
    height = layout.head.height + layout.legend_above + body + layout.legend_below + 0.05,
  }
  return layout
end

local function add_names(script, data, panel, layout, at)
  local size = layout.size
  if panel.title then
    add(script, "set label 150 %s at screen %.4f,%.4f left font ',%d' textcolor rgb ink",
      quote(letters.clean(panel.title, 48)), at.left / size.width,
      (at.top + (data.y_label and 0.45 or 0.2)) / size.height, font.panel)
  end
  if data.y_label then
    add(script, "set label 152 %s at screen %.4f,%.4f left font ',%d' textcolor rgb quiet",
      quote(axis_name(data.y, data.with_better)), at.left / size.width,
      (at.top + 0.16) / size.height, font.label)
  end
  add(script, "set label 151 %s at screen %.4f,%.4f center font ',%d' textcolor rgb quiet",
    quote(axis_name(data.x, data.with_better)), (at.left + layout.panel_width / 2) / size.width,
    (at.bottom - layout.x_height - 0.24) / size.height, font.label)
end

-- Adds all panels in a grid, filled row by row. Returns the data blocks and the spots.
local function add_panels(script, data, spec, layout)
  local blocks, spots, size = {}, {}, layout.size
  local cell = layout.width / layout.columns
  for i, panel in ipairs(data.panels) do
    local column, row = (i - 1) % layout.columns, (i - 1) // layout.columns
    local step = layout.above + layout.panel_height + layout.under
    local at = {left = column * cell + layout.left}
    at.right = at.left + layout.panel_width
    at.top = size.height - layout.head.height - layout.legend_above - row * step - layout.above
    at.bottom = at.top - layout.panel_height
    frame.margins(script, at.left / size.width, at.right / size.width, at.bottom / size.height,
      at.top / size.height)
    if i > 1 then add(script, "unset label\nunset arrow") end
    add_names(script, data, panel, layout, at)
    if layout.beside then add_end_labels(script, panel, data, label_gap / layout.panel_height) end
    marks.add_references(script, data, at, size)
    marks.add_row_labels(script, data, panel, at, size)
    marks.add(script, data, panel, spec, blocks)
    marks.spots(spots, data, panel, at)
  end
  return blocks, spots
end

--- A figure of panels.
---@param results attune.Results
---@param spec attune.PlotSpec
---@param data attune.Lines with ranges
---@param points attune.Point[]
---@param look attune.Look
---@return attune.Figure? figure
---@return string? message
function panels.figure(results, spec, data, points, look)
  if #data.panels > max_panels then
    local format = "facet: expected at most %d values of %s, got %d"
    return nil, format:format(max_panels, spec.facet, #data.panels)
  end
  local title = spec.title or spec.y
  data.y_label = data.y.name ~= title or data.with_better
  local conditions = series.constants(points, results, spec)
  for i, condition in ipairs(data.conditions or {}) do table.insert(conditions, i, condition) end
  local layout = layout_of(data, function(width)
    return frame.head(results, title, conditions, data.notes, data.kind, width)
  end, look)
  local script = {}
  frame.add_head(script, layout.head, layout.size)
  if layout.legend then
    local top = data.legend and layout.size.height - layout.head.height or layout.legend.height
    frame.add_legend(script, layout.legend, top, layout.size)
  end
  add_axes(script, layout, data)
  if layout.many then add(script, "set multiplot") end
  local blocks, spots = add_panels(script, data, spec, layout)
  if layout.many then add(script, "unset multiplot") end
  return {
    size = layout.size,
    script = table.concat(script, "\n"),
    data = table.concat(blocks, "\n\n\n") .. "\n",
    notes = data.notes,
    spots = spots,
    words = describe.panels(data),
    term = function(width, colour) return terminal.panels(data, spec, width, colour) end,
  }
end

return panels
