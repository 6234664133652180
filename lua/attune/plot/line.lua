--- Lines with intervals, labelled at their right ends; one panel per value of `facet`.
local frame = require "attune.plot.frame"
local gnuplot = require "attune.plot.gnuplot"
local letters = require "attune.plot.letters"
local lines = require "attune.plot.lines"
local series = require "attune.plot.series"
local ticks = require "attune.plot.ticks"

local add, number, quote = gnuplot.add, gnuplot.number, gnuplot.quote
local font = frame.font

-- Inches.
local label_gap = 0.24 -- min distance between two labels
local max_label_width = 2.6 -- wider ones go into a legend below
local panel_height = 2.15 -- of one of several panels
local right_edge = 0.2 -- right of a panel without labels

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

-- Appends the data blocks of a panel: one per line, then one per line for `also`. Returns the index
-- of the first, from 0.
local function emit_data(panel, spec, blocks)
  local first = #blocks
  for _, line in ipairs(panel.lines) do
    local block = {}
    for i, r in ipairs(line.rows) do
      local cut = ("%d %d"):format(r.cut_lo and 1 or 0, r.cut_hi and 1 or 0)
      block[i] = table.concat({number(r.x), number(r.y), number(r.lo), number(r.hi), cut}, " ")
    end
    blocks[#blocks + 1] = table.concat(block, "\n")
  end
  for _, line in ipairs(spec.also and panel.lines or {}) do
    local block = {}
    for i, r in ipairs(line.rows) do block[i] = number(r.x) .. " " .. number(r.also) end
    blocks[#blocks + 1] = table.concat(block, "\n")
  end
  return first
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

-- The ticks of x on an axis of this width, the height of their labels, and the reach of names at an
-- angle.
local function x_ticks(data, inches)
  local function place(at)
    if data.log_x then at = math.log(at / data.x1) / math.log(data.x2 / data.x1) * inches
    else at = (at - data.x1) / (data.x2 - data.x1) * inches end
    return at
  end
  if data.categories then
    local list = ticks.categories(data.categories)
    local pitch = inches / #list
    local height, reach = ticks.room(list, font.tick, pitch)
    -- At an angle the names need little room beside each other.
    if pitch < 0.2 and reach then list = ticks.thinned(list, font.tick, place) end
    return list, height, reach
  end
  local xs = distinct(data.xs)
  local list
  if #xs <= max_own_ticks then
    list = ticks.at(xs)
  elseif data.log_x then
    list = ticks.log(data.x1, data.x2, nil, 7)
  else
    list = ticks.linear(data.x1, data.x2, nil, 7)
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

local function add_labels(script, panel, data, gap)
  local labels = {}
  for _, line in ipairs(panel.lines) do
    local y = line.rows[#line.rows].y
    local at = (y - data.y1) / (data.y2 - data.y1)
    if data.log_y then at = math.log(y / data.y1) / math.log(data.y2 / data.y1) end
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
  if data.log_x then add(script, "set logscale x") end
  if data.log_y then add(script, "set logscale y") end
  add(script, "set xrange [%s:%s]", number(data.x1), number(data.x2))
  add(script, "set yrange [%s:%s]", number(data.y1), number(data.y2))
  add(script, "set ytics %s font ',%d'", ticks.command(layout.y_ticks), font.tick)
  local angle = layout.reach and ticks.tilted or ""
  add(script, "set xtics%s %s font ',%d'", angle, ticks.command(layout.x_ticks), font.tick)
end

local function add_lines(script, panel, spec, blocks)
  local first = emit_data(panel, spec, blocks)
  local styles = {}
  for k, line in ipairs(panel.lines) do styles[k] = line.style end
  add(script, "series = %d", math.max(1, #styles))
  add(script, "companions = %d", spec.also and 1 or 0)
  add(script, "array style[%d] = [%s]", math.max(1, #styles),
    #styles > 0 and table.concat(styles, ",") or "1")
  add(script, "first = %d", first)
  if #styles == 0 then blocks[#blocks + 1] = "NaN NaN NaN NaN 0 0" end
  if #styles == 0 and spec.also then blocks[#blocks + 1] = "NaN NaN" end
  add(script, "load 'line.gp'")
end

-- Where everything is, in inches.
local function layout_of(data, head_of, unit)
  local many = #data.panels > 1
  local layout = {many = many, columns = many and 2 or 1}
  layout.rows = math.ceil(#data.panels / layout.columns)
  layout.width = layout.many and 11 or 8.5
  layout.panel_height = layout.many and panel_height or 3.9
  local count = (layout.many or unit == "B") and 6 or 8
  layout.y_ticks = (data.log_y and ticks.log or ticks.linear)(data.y1, data.y2, unit, count)
  layout.left = math.max(0.55, ticks.width(layout.y_ticks, font.tick) + 0.3)
  local widest, fits = labels_fit(data, layout.panel_height)
  layout.beside = fits
  layout.right = fits and widest > 0 and widest + 0.25 or right_edge
  layout.panel_width = layout.width / layout.columns - layout.left - layout.right
  if layout.panel_width < 2.6 then
    layout.width = layout.width + layout.columns * (2.6 - layout.panel_width)
    layout.panel_width = 2.6
  end
  layout.x_ticks, layout.x_height, layout.reach = x_ticks(data, layout.panel_width)
  if layout.reach then
    local first = (1 - data.x1) / (data.x2 - data.x1) * layout.panel_width
    local lacking = layout.reach - layout.left - first
    if lacking > 0 then
      layout.left, layout.width = layout.left + lacking, layout.width + layout.columns * lacking
    end
  end
  layout.under = layout.x_height + 0.46
  layout.above = layout.many and 0.4 or 0.1
  layout.legend = not fits and frame.legend(legend_entries(data), layout.width) or nil
  layout.head = head_of(layout.width)
  local body = layout.rows * (layout.above + layout.panel_height + layout.under)
  local legend_height = layout.legend and layout.legend.height or 0
  layout.size = {width = layout.width, height = layout.head.height + body + legend_height + 0.05}
  return layout
end

-- Adds all panels in a grid, filled row by row. Returns the data blocks.
local function add_panels(script, data, spec, layout)
  local blocks, size = {}, layout.size
  local cell = layout.width / layout.columns
  for i, panel in ipairs(data.panels) do
    local column, row = (i - 1) % layout.columns, (i - 1) // layout.columns
    local x = column * cell + layout.left
    local step = layout.above + layout.panel_height + layout.under
    local top = size.height - layout.head.height - row * step - layout.above
    local bottom = top - layout.panel_height
    frame.margins(script, x / size.width, (x + layout.panel_width) / size.width,
      bottom / size.height, top / size.height)
    if i > 1 then add(script, "unset label") end
    if panel.title then
      add(script, "set label 150 %s at screen %.4f,%.4f left font ',%d' textcolor rgb ink",
        quote(letters.clean(panel.title, 48)), x / size.width, (top + 0.2) / size.height,
        font.panel)
    end
    add(script, "set label 151 %s at screen %.4f,%.4f center font ',%d' textcolor rgb quiet",
      quote(letters.clean(spec.x, 48)), (x + layout.panel_width / 2) / size.width,
      (bottom - layout.x_height - 0.17) / size.height, font.label)
    if layout.beside then add_labels(script, panel, data, label_gap / layout.panel_height) end
    add_lines(script, panel, spec, blocks)
  end
  return blocks
end

---@param notes string[] what is left out so far; more is appended
---@return attune.Figure? figure
---@return string? message
return function(results, spec, points, notes)
  local data, why = lines.of(results, spec, points, notes)
  if not data then return nil, why end
  if #data.panels > max_panels then
    local format = "facet: expected at most %d values of %s, got %d"
    return nil, format:format(max_panels, spec.facet, #data.panels)
  end
  local unit = frame.value_unit(spec, (series.metric(results, spec.y) or {}).unit)
  local conditions = series.constants(points, results, spec)
  if spec.also then
    local y, also = spec.y:gsub("_", " "), spec.also:gsub("_", " ")
    table.insert(conditions, 1, ("solid: %s, dashed: %s"):format(y, also))
  end
  local layout = layout_of(data, function(width)
    return frame.head(results, spec.title or spec.y, conditions, data.notes, data.kind, width)
  end, unit)
  local script = {}
  frame.add_head(script, layout.head, layout.size)
  if layout.legend then
    frame.add_legend(script, layout.legend, layout.legend.height, layout.size)
  end
  add_axes(script, layout, data)
  if layout.many then add(script, "set multiplot") end
  local blocks = add_panels(script, data, spec, layout)
  if layout.many then add(script, "unset multiplot") end
  return {
    size = layout.size,
    script = table.concat(script, "\n"),
    data = table.concat(blocks, "\n\n\n") .. "\n",
    notes = data.notes,
  }
end
