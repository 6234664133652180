--- Groups of bars: one group per value of x and one bar per value of `by`. Up to five bars are
--- grey, the last one of each group in the accent colour; more have colours. With `stacked` the
--- bars of a group stand on each other; with `parts`, a list of metrics, these are the bars. With
--- `facet` there is a panel for each value of that parameter, and all have the same axes.
local frame = require "attune.plot.frame"
local gnuplot = require "attune.plot.gnuplot"
local letters = require "attune.plot.letters"
local lines = require "attune.plot.lines"
local series = require "attune.plot.series"
local terminal = require "attune.plot.terminal"
local text = require "attune.util.text"
local ticks = require "attune.plot.ticks"

local add, number, quote = gnuplot.add, gnuplot.number, gnuplot.quote
local font = frame.font
local group_width = 0.8 -- of the distance between two groups

-- Inches.
local plot_height, max_plot_width, bar_pitch = 3.9, 13, 0.85
local panel_height, panel_width, max_panel_width = 2.3, 4.2, 9.5 -- of one of several
local max_half_width = 5.4 -- of a panel that has another beside it
local max_panels = 24
local small_font = 10 -- of values where bars are narrow

-- The value of the point of a group and a bar that was measured; nil and a message when there are
-- several such points.
local function value_of(results, points, spec, group, bar)
  local found, at
  local mine = series.with(points, spec.x, group)
  if bar ~= false then mine = series.with(mine, spec.by, bar) end
  for _, point in ipairs(mine) do
    local v = series.value(results, points, point, spec, spec.y)
    if v and v.centre then
      if found then
        local where = ("%s %s"):format(spec.x, text.plain(group))
        return nil, series.several(results, {at, point}, "bar", where)
      end
      found, at = v, point
    end
  end
  return found
end

-- A value without an interval that cannot be drawn, such as one of -1e300 and 1e300.
local function drawable(v)
  if v.lo and frame.is_drawable(v.lo) and frame.is_drawable(v.hi) then return v end
  return {centre = v.centre, kind = v.kind}
end

-- Rows {group, bar, value} of what can be drawn, the number of values that are not finite, and what
-- the centres are. nil and a message when a bar has several points.
local function values_of(results, spec, points, groups, bars)
  local rows, bad, kind = {}, 0, nil
  for b, bar in ipairs(bars) do
    local mine = spec
    if spec.parts then mine, bar = series.changed(spec, "y", bar), false end
    for g, group in ipairs(groups) do
      local v, why = value_of(results, points, mine, group, bar)
      if why then return nil, why end
      if v and frame.is_drawable(v.centre) then
        rows[#rows + 1] = {group = g, bar = b, value = drawable(v)}
        if v.kind ~= "value" then kind = v.kind end
      elseif v then
        bad = bad + 1
      end
    end
  end
  return rows, bad, kind
end

-- Gives each row its place: x, bottom and top. Returns what is written above: each bar's value, or
-- the sum of a stack.
local function place_rows(rows, groups, bars, spec)
  local sums, tops = {}, {}
  for _, row in ipairs(rows) do
    local v, g = row.value, row.group
    if not spec.stacked then
      row.x = g + (row.bar - (#bars + 1) / 2) * group_width / #bars
      row.bottom, row.top = 0, v.centre
      row.lo, row.hi = v.lo, v.hi
      local high = row.hi and row.hi > row.lo and row.hi or 0
      tops[#tops + 1] = {x = row.x, at = math.max(0, v.centre, high), value = v.centre}
    else
      -- Values below 0 are stacked downwards.
      local key = g .. (v.centre < 0 and "-" or "+")
      row.x, row.bottom = g, sums[key] or 0
      row.top = row.bottom + v.centre
      sums[key] = row.top
    end
  end
  for g = 1, spec.stacked and #groups or 0 do
    local up, down = sums[g .. "+"], sums[g .. "-"]
    if up or down then
      tops[#tops + 1] = {x = g, at = up or 0, value = (up or 0) + (down or 0)}
    end
  end
  return tops
end

-- One data block per bar with rows "x bottom top lo hi", then one with the labels, rows
-- "x y label".
local function data_of(rows, bars, tops, with_text)
  local blocks, labels = {}, {}
  for b, bar in ipairs(bars) do
    local name = bar and letters.clean(bar):gsub("\\", "/") or "bars"
    blocks[b] = {"# " .. name, "# x\tbottom\ttop\tlow\thigh"}
  end
  for _, row in ipairs(rows) do
    local has_interval = row.lo and row.lo ~= row.hi
    local block = blocks[row.bar]
    block[#block + 1] = gnuplot.row(number(row.x), number(row.bottom), number(row.top),
      number(has_interval and row.lo or nil), number(has_interval and row.hi or nil))
  end
  for _, top in ipairs(with_text and tops or {}) do
    labels[#labels + 1] = gnuplot.row(number(top.x), number(top.at), gnuplot.field(top.text))
  end
  for b, block in ipairs(blocks) do
    -- A block without rows would change the index of the blocks after it.
    if #block == 2 then block[3] = gnuplot.row("NaN", "NaN", "NaN", "NaN", "NaN") end
    blocks[b] = table.concat(block, "\n")
  end
  blocks[#blocks + 1] = "# x\ty\ttext\n"
    .. (#labels > 0 and table.concat(labels, "\n") or 'NaN\tNaN\t""')
  return table.concat(blocks, "\n\n\n")
end

local grey_count = 4

-- The parts of a stack touch, so that they need more than greys, and so do many bars.
local function colour_of(b, count, spec)
  if spec.stacked or count > grey_count + 1 then return ("part[%d]"):format((b - 1) % 8 + 1) end
  return b == count and "accent" or ("grey[%d]"):format(b)
end

local function legend_of(bars, width, spec)
  local entries = {}
  for b, bar in ipairs(bars) do
    if bar == false then return nil end
    entries[b] = {text = lines.label(spec.by or "part", bar), colour = colour_of(b, #bars, spec)}
  end
  return frame.legend(entries, width)
end

-- Where everything is, in inches, and how values are written.
local function layout_of(groups, bars, panels, low, high, unit, spec, look)
  local many = panels[1].title ~= nil
  local side_by_side = spec.stacked and 1 or #bars
  local wanted = 1.0 + #groups * side_by_side * bar_pitch
  local beside = many and #panels > 1 and wanted <= max_half_width
  local layout = {many = many, columns = beside and 2 or 1}
  layout.rows = math.ceil(#panels / layout.columns)
  layout.plot_height = (many and panel_height or plot_height) * look.width
  layout.y_ticks = ticks.linear(low, high, unit, (many or unit == "B") and 6 or 8)
  layout.left = math.max(0.6, ticks.width(layout.y_ticks, font.tick) + 0.3)
  layout.right = 0.25
  local least, most = many and panel_width or 7.4, many and max_panel_width or max_plot_width
  layout.plot_width = math.max(least, math.min(most, wanted)) * look.width
  local pitch = layout.plot_width / (#groups + 0.2)
  layout.x_ticks = ticks.categories(groups)
  layout.x_height, layout.reach = ticks.room(layout.x_ticks, font.tick, pitch)
  if layout.reach then
    layout.left = math.max(layout.left, layout.reach - pitch / 2 + 0.1)
    if pitch < 0.2 then
      layout.x_ticks = ticks.thinned(layout.x_ticks, 17, function(at) return at * pitch * 2 end)
    end
  end
  layout.pitch, layout.bars = pitch, side_by_side
  local bar, value_width = pitch * group_width / side_by_side, 0
  for _, panel in ipairs(panels) do
    for _, top in ipairs(panel.tops) do
      value_width = math.max(value_width, letters.width(top.text, 100))
    end
  end
  layout.value_font = value_width * 0.12 <= bar and 12 or small_font
  layout.values_rotated = value_width * layout.value_font / 100 > bar
  layout.with_text = not layout.values_rotated or bar >= 0.17
  layout.above = layout.with_text
    and (layout.values_rotated and value_width * layout.value_font / 100 + 0.15 or 0.3) or 0.1
  layout.step = layout.left + layout.plot_width + layout.right -- from one panel to the next
  layout.width = math.max(layout.columns * layout.step, many and 7.4 * look.width or 0)
  layout.title = many and 0.4 or 0
  layout.under = layout.x_height + 0.46
  return layout
end

local function note_all(notes, bad, layout)
  if bad > 0 then
    local format = "%s that %s not finite or beyond 1e100 %s no bar."
    notes[#notes + 1] = format:format(text.count(bad, "value"), bad == 1 and "is" or "are",
      bad == 1 and "has" or "have")
  end
  if not layout.with_text then notes[#notes + 1] = "The bars are too narrow for their values." end
end

local function add_axes(script, layout, groups, low, top)
  add(script, "set xrange [0.4:%g]", #groups + 0.6)
  add(script, "set yrange [%s:%s]", number(low), number(top))
  local angle = layout.reach and ticks.tilted or ""
  add(script, "set xtics%s scale 0 %s font ',%d'", angle, ticks.command(layout.x_ticks), font.tick)
  add(script, "set ytics scale 0 %s font ',%d'", ticks.command(layout.y_ticks), font.tick)
end

-- Adds the bars of a panel with their values. at: inches from the lower edge for a value.
local function add_spots(spots, panel, groups, bars, layout, left, at, spec, words)
  local title = panel.title and panel.title .. ", " or ""
  for _, row in ipairs(panel.rows) do
    local low, high = math.min(row.bottom, row.top), math.max(row.bottom, row.top)
    local bar = bars[row.bar]
    local name = bar and (", %s %s"):format(spec.by or "part", text.plain(bar)) or ""
    local v, interval = row.value, ""
    if v.lo and v.hi > v.lo then interval = (" (%s to %s)"):format(words(v.lo), words(v.hi)) end
    spots[#spots + 1] = {
      x = left + (row.x - 0.4) * layout.pitch,
      y = (at(low) + at(high)) / 2,
      width = layout.pitch * group_width / layout.bars * 0.92,
      height = math.max(0.06, at(high) - at(low)),
      text = ("%s%s %s%s: %s%s"):format(title, spec.x, text.plain(groups[row.group]), name,
        words(v.centre), interval),
    }
  end
end

-- The figure in sentences: the first bars with their values.
local function describe(spots, spec)
  local parts = {("Bar chart of %s."):format(spec.y or table.concat(spec.parts, ", "))}
  for i = 1, math.min(#spots, 12) do parts[i + 1] = spots[i].text .. "." end
  if #spots > 12 then parts[#parts + 1] = ("And %d more bars."):format(#spots - 12) end
  return table.concat(parts, " ")
end

-- What the chart compares, in the terminal. The bars of all panels have one scale.
local function term_of(panels, groups, bars, spec, notes, words)
  return function(width, colour)
    local list = {}
    for _, panel in ipairs(panels) do
      for g, group in ipairs(groups) do
        for _, row in ipairs(panel.rows) do
          if row.group == g then
            list[#list + 1] = {
              panel = panel.title, group = text.plain(group),
              name = bars[row.bar] and text.plain(bars[row.bar]),
              value = row.value.centre, text = words(row.value.centre),
              style = (row.bar - 1) % 8 + 1,
            }
          end
        end
      end
    end
    return terminal.bars(spec.title or spec.y or "", list, notes, width, colour)
  end
end

-- The panels: one, or one per value of `facet` that has a bar; the number of values without a bar;
-- what the centres are. nil and a message when a bar has several points.
local function panels_of(results, spec, points, groups, bars)
  local panels, all_bad, kind = {}, 0, nil
  for _, value in ipairs(spec.facet and series.distinct(points, spec.facet) or {false}) do
    local mine = series.with(points, spec.facet, value)
    local rows, bad, found = values_of(results, spec, mine, groups, bars)
    if not rows then return nil, bad end
    all_bad, kind = all_bad + bad, kind or found
    if #rows > 0 then
      local tops = place_rows(rows, groups, bars, spec)
      panels[#panels + 1] = {rows = rows, tops = tops, title = lines.label(spec.facet, value)}
    end
  end
  if #panels == 0 then return nil, "there is no point with a value up to 1e100" end
  if #panels > max_panels then
    local format = "facet: expected at most %d values of %s, got %d"
    return nil, format:format(max_panels, spec.facet, #panels)
  end
  return panels, all_bad, kind
end

-- All values that the axis must show, 0 among them.
local function shown_values(panels)
  local shown = {0}
  for _, panel in ipairs(panels) do
    for _, row in ipairs(panel.rows) do
      shown[#shown + 1] = row.top
      shown[#shown + 1], shown[#shown + 2] = row.hi, row.lo
    end
  end
  return shown
end

-- Adds all panels, row by row. Returns their data and the spots.
local function add_panels(script, panels, groups, bars, spec, layout, low, top, above, size, words)
  local blocks, spots, height = {}, {}, layout.plot_height
  for i, panel in ipairs(panels) do
    local column, row = (i - 1) % layout.columns, (i - 1) // layout.columns
    local left = column * layout.step + layout.left
    local bottom = size.height - above - row * (layout.title + height + layout.under)
      - layout.title - height
    frame.margins(script, left / size.width, (left + layout.plot_width) / size.width,
      bottom / size.height, (bottom + height) / size.height)
    if i > 1 then add(script, "unset label") end
    if panel.title then
      add(script, "set label 150 %s at screen %.4f,%.4f left font ',%d' textcolor rgb ink",
        quote(letters.clean(panel.title, 48)), left / size.width,
        (bottom + height + 0.18) / size.height, font.panel)
    end
    add(script, "set label 151 %s at screen %.4f,%.4f center font ',%d' textcolor rgb quiet",
      quote(letters.clean(spec.x, 48)), (left + layout.plot_width / 2) / size.width,
      (bottom - layout.x_height - 0.17) / size.height, font.label)
    blocks[i] = data_of(panel.rows, bars, panel.tops, layout.with_text)
    add(script, "first = %d", (i - 1) * (#bars + 1))
    add(script, "load 'bars.gp'")
    local function at(y) return bottom + (y / 2 - low / 2) / (top / 2 - low / 2) * height end
    add_spots(spots, panel, groups, bars, layout, left, at, spec, words)
  end
  return table.concat(blocks, "\n\n\n") .. "\n", spots
end

---@param notes string[] what is left out so far; more is appended
---@param look attune.Look
---@return attune.Figure? figure
---@return string? message
return function(results, spec, points, notes, look)
  local groups = series.distinct(points, spec.x)
  local bars = spec.parts or series.by(points, spec)
  local metric = spec.y or spec.parts[1]
  if spec.parts then spec = series.changed(spec, "stacked", spec.stacked ~= false) end
  local unit = (series.metric(results, metric) or {}).unit
  local panels, bad, kind = panels_of(results, spec, points, groups, bars)
  if not panels then return nil, bad end
  local function words(value) return letters.clean(frame.value_text(spec, value, unit), 24) end
  for _, panel in ipairs(panels) do
    for _, top in ipairs(panel.tops) do top.text = words(top.value) end
  end
  local low, high = frame.range(shown_values(panels), false, 0.03, 0)
  local value_unit = frame.value_unit(spec, unit)
  local layout = layout_of(groups, bars, panels, low, high, value_unit, spec, look)
  note_all(notes, bad, layout)
  local conditions = series.constants(points, results, spec)
  local title = spec.title or spec.y or table.concat(spec.parts, ", ")
  local drawn = kind and spec.stacked and kind .. " alone" or kind
  local head = frame.head(results, title, conditions, notes, drawn, layout.width)
  local legend = legend_of(bars, layout.width, spec)
  local above = head.height + (legend and legend.height or 0)
  local step = layout.title + layout.plot_height + layout.under
  local size = {width = layout.width, height = above + layout.rows * step}
  local script = {}
  frame.add_head(script, head, size)
  if legend then frame.add_legend(script, legend, size.height - head.height, size) end
  -- Room above the bars for their values.
  local top = high + (high - low) * layout.above / layout.plot_height
  add_axes(script, layout, groups, low, top)
  local fills = {}
  for b = 1, #bars do fills[b] = colour_of(b, #bars, spec) end
  add(script, "barwidth = %g", group_width / layout.bars * 0.92)
  add(script, "series = %d", #bars)
  add(script, "array fill[%d] = [%s]", #bars, table.concat(fills, ","))
  add(script, "labelfont = ',%d'", layout.value_font)
  add(script, "labels = %d", layout.with_text and 1 or 0)
  add(script, "labelangle = %d", layout.values_rotated and 90 or 0)
  if layout.many then add(script, "set multiplot") end
  local data, spots = add_panels(script, panels, groups, bars, spec, layout, low, top, above, size,
    words)
  if layout.many then add(script, "unset multiplot") end
  return {
    size = size,
    script = table.concat(script, "\n"),
    data = data,
    notes = notes,
    spots = spots,
    words = describe(spots, spec),
    term = term_of(panels, groups, bars, series.changed(spec, "title", title), notes, words),
  }
end
