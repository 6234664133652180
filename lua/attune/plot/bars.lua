--- Groups of bars: one group per value of x and one bar per value of `by`. The bars are grey, the
--- last one of each group is in the accent colour.
local frame = require "attune.plot.frame"
local gnuplot = require "attune.plot.gnuplot"
local letters = require "attune.plot.letters"
local series = require "attune.plot.series"
local text = require "attune.util.text"
local ticks = require "attune.plot.ticks"

local add, number, quote = gnuplot.add, gnuplot.number, gnuplot.quote
local font = frame.font
local accent, greys = "#0072B2", {"#BDBDBD", "#8C8C8C", "#6B6B6B", "#D9D9D9"}
local group_width = 0.8 -- of the distance between two groups

-- Inches.
local plot_height, max_plot_width, bar_pitch = 3.9, 13, 0.85
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
    for g, group in ipairs(groups) do
      local v, why = value_of(results, points, spec, group, bar)
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

-- One data block per bar with rows "x y lo hi", then one with the labels, rows "x y label".
local function data_of(rows, bar_count, with_text)
  local blocks, labels = {}, {}
  for b = 1, bar_count do blocks[b] = {} end
  for _, row in ipairs(rows) do
    local v = row.value
    local x = row.group + (row.bar - (bar_count + 1) / 2) * group_width / bar_count
    local has_interval = v.lo and v.lo ~= v.hi
    local block = blocks[row.bar]
    block[#block + 1] = table.concat({
      number(x),
      number(v.centre),
      number(has_interval and v.lo or nil),
      number(has_interval and v.hi or nil),
    }, " ")
    -- A label stands above the bar and its interval.
    local top = math.max(0, v.centre, has_interval and v.hi or 0)
    if with_text then
      labels[#labels + 1] = table.concat({number(x), number(top), gnuplot.field(row.text)}, " ")
    end
  end
  for b, block in ipairs(blocks) do
    -- A block without rows would change the index of the blocks after it.
    blocks[b] = #block > 0 and table.concat(block, "\n") or "NaN NaN NaN NaN"
  end
  blocks[#blocks + 1] = #labels > 0 and table.concat(labels, "\n") or 'NaN NaN ""'
  return table.concat(blocks, "\n\n\n") .. "\n"
end

local function colour_of(b, count)
  return b == count and accent or greys[(b - 1) % #greys + 1]
end

local function legend_of(bars, width)
  local entries = {}
  for b, bar in ipairs(bars) do
    if bar == false then return nil end
    entries[b] = {text = text.plain(bar), colour = quote(colour_of(b, #bars))}
  end
  return frame.legend(entries, width)
end

-- Where everything is, in inches, and how values are written.
local function layout_of(groups, bars, rows, low, high, unit)
  local layout = {y_ticks = ticks.linear(low, high, unit, unit == "B" and 6 or 8)}
  layout.left = math.max(0.6, ticks.width(layout.y_ticks, font.tick) + 0.3)
  layout.right = 0.25
  local count = #groups * #bars
  layout.plot_width = math.max(7.4, math.min(max_plot_width, 1.0 + count * bar_pitch))
  local pitch = layout.plot_width / (#groups + 0.2)
  layout.x_ticks = ticks.categories(groups)
  layout.x_height, layout.reach = ticks.room(layout.x_ticks, font.tick, pitch)
  if layout.reach then
    layout.left = math.max(layout.left, layout.reach - pitch / 2 + 0.1)
    if pitch < 0.2 then
      layout.x_ticks = ticks.thinned(layout.x_ticks, 17, function(at) return at * pitch * 2 end)
    end
  end
  local bar, value_width = pitch * group_width / #bars, 0
  for _, row in ipairs(rows) do
    value_width = math.max(value_width, letters.width(row.text, 100))
  end
  layout.value_font = value_width * 0.12 <= bar and 12 or small_font
  layout.values_rotated = value_width * layout.value_font / 100 > bar
  layout.with_text = not layout.values_rotated or bar >= 0.17
  layout.above = layout.with_text
    and (layout.values_rotated and value_width * layout.value_font / 100 + 0.15 or 0.3) or 0.1
  layout.width = layout.left + layout.plot_width + layout.right
  return layout
end

local function note_all(notes, bad, layout)
  if bad > 0 then
    local format = "%s that %s not finite or beyond 1e100 %s no bar."
    notes[#notes + 1] = format:format(frame.count(bad, "value"), bad == 1 and "is" or "are",
      bad == 1 and "has" or "have")
  end
  if not layout.with_text then notes[#notes + 1] = "The bars are too narrow for their values." end
end

local function add_axes(script, layout, groups, low, high)
  -- Room above the bars for their values.
  local top = high + (high - low) * layout.above / plot_height
  add(script, "set xrange [0.4:%g]", #groups + 0.6)
  add(script, "set yrange [%s:%s]", number(low), number(top))
  local angle = layout.reach and ticks.tilted or ""
  add(script, "set xtics%s scale 0 %s font ',%d'", angle, ticks.command(layout.x_ticks), font.tick)
  add(script, "set ytics scale 0 %s font ',%d'", ticks.command(layout.y_ticks), font.tick)
end

---@param notes string[] what is left out so far; more is appended
---@return attune.Figure? figure
---@return string? message
return function(results, spec, points, notes)
  local groups, bars = series.distinct(points, spec.x), series.by(points, spec)
  local unit = (series.metric(results, spec.y) or {}).unit
  local rows, bad, kind = values_of(results, spec, points, groups, bars)
  if not rows then return nil, bad end
  if #rows == 0 then return nil, "there is no point with a value up to 1e100" end
  local shown = {0}
  for _, row in ipairs(rows) do
    local v = row.value
    shown[#shown + 1] = v.centre
    shown[#shown + 1], shown[#shown + 2] = v.hi, v.lo
    row.text = letters.clean(frame.value_text(spec, v.centre, unit), 24)
  end
  local low, high = frame.range(shown, false, 0, 0)
  local layout = layout_of(groups, bars, rows, low, high, frame.value_unit(spec, unit))
  note_all(notes, bad, layout)
  local conditions = series.constants(points, results, spec)
  local head = frame.head(results, spec.title or spec.y, conditions, notes, kind, layout.width)
  local legend = legend_of(bars, layout.width)
  local above = head.height + (legend and legend.height or 0)
  local bottom = layout.x_height + 0.46
  local size = {width = layout.width, height = above + plot_height + bottom}
  local script = {}
  frame.add_head(script, head, size)
  if legend then frame.add_legend(script, legend, size.height - head.height, size) end
  frame.margins(script, layout.left / size.width, 1 - layout.right / size.width,
    bottom / size.height, (bottom + plot_height) / size.height)
  add_axes(script, layout, groups, low, high)
  add(script, "set label 151 %s at screen %.4f,%.4f center font ',%d' textcolor rgb quiet",
    quote(letters.clean(spec.x, 48)), (layout.left + layout.plot_width / 2) / size.width,
    (bottom - layout.x_height - 0.17) / size.height, font.label)
  local fills = {}
  for b = 1, #bars do fills[b] = quote(colour_of(b, #bars)) end
  add(script, "barwidth = %g", group_width / #bars * 0.92)
  add(script, "series = %d", #bars)
  add(script, "array fill[%d] = [%s]", #bars, table.concat(fills, ","))
  add(script, "labelfont = ',%d'", layout.value_font)
  add(script, "labels = %d", layout.with_text and 1 or 0)
  add(script, "labelangle = %d", layout.values_rotated and 90 or 0)
  add(script, "load 'bars.gp'")
  return {
    size = size,
    script = table.concat(script, "\n"),
    data = data_of(rows, #bars, layout.with_text),
    notes = notes,
  }
end
