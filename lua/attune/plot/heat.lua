--- A heat map of x against y with the value written in each cell; several with `facet`, which have
--- the same cells and the same colours. Or the value is a list of numbers, whose places are the
--- rows: `along` names them.
local frame = require "attune.plot.frame"
local gnuplot = require "attune.plot.gnuplot"
local letters = require "attune.plot.letters"
local lines = require "attune.plot.lines"
local series = require "attune.plot.series"
local stats = require "attune.results.statistics"
local terminal = require "attune.plot.terminal"
local text = require "attune.util.text"
local ticks = require "attune.plot.ticks"

local add, number, quote = gnuplot.add, gnuplot.number, gnuplot.quote
local font = frame.font

-- Above this fraction of the range a cell's colour is light and its text dark.
local light_above = 0.55

-- Inches.
local min_cell_width, max_cell_width, cell_height = 0.3, 2.4, 0.62
local max_width, max_height = 16, 14
local max_left = 4.5
local gap = 0.03 -- between cells
local one_width, panel_width = 5.5, 3.2 -- the least width of one map, and of one of several
local panels_width = 12 -- of all maps that stand side by side
local max_panels = 24

local function index_of(values, wanted)
  for i, value in ipairs(values) do
    if value == wanted then return i end
  end
end

-- The points to show: all, but not those that the others are compared with.
local function shown_points(points, spec)
  if not spec.against then return points end
  local shown = {}
  for _, point in ipairs(points) do
    local is_base = true
    for name, value in pairs(spec.against) do
      is_base = is_base and point.parameters[name] == value
    end
    if not is_base then shown[#shown + 1] = point end
  end
  return shown
end

-- A point for each place of the lists of the value: its centre over the rounds is the value there.
local function points_of_lists(points, spec)
  local list = {}
  for _, point in ipairs(points) do
    local samples, longest = (point.metrics[spec.value] or {}).samples or {}, 0
    for _, one in ipairs(samples) do
      longest = math.max(longest, type(one) == "table" and #one or 0)
    end
    for place = 1, longest do
      local values, parameters = {}, {[spec.along] = place}
      for _, one in ipairs(samples) do values[#values + 1] = one[place] end
      for name, value in pairs(point.parameters) do
        if name ~= spec.along then parameters[name] = value end
      end
      list[#list + 1] = {
        parameters = parameters, metrics = {[spec.value] = stats.centre(values)},
        hash = point.hash, status = point.status,
      }
    end
  end
  return list
end

local no_value = "there is no point with a value"

-- Cells {x, y, value} and what their centres are; nil and a message when two points fall into one.
local function cells_of(results, spec, points, shown, xs, ys)
  local cells, at, kind = {}, {}, nil
  local same = {facet = spec.y, x = spec.x, against = spec.against}
  for _, point in ipairs(shown) do
    local v = series.value(results, points, point, same, spec.value)
    local x = index_of(xs, point.parameters[spec.x])
    local y = index_of(ys, point.parameters[spec.y])
    if v and v.centre and x and y then
      local key = x .. ":" .. y
      if at[key] then
        local where = ("%s %s, %s %s"):format(spec.x, text.plain(xs[x]), spec.y, text.plain(ys[y]))
        return nil, series.several(results, {at[key], point}, "cell", where)
      end
      at[key] = point
      cells[#cells + 1] = {x = x, y = y, value = v.centre}
      if v.kind ~= "value" then kind = v.kind end
    end
  end
  if #cells == 0 then return nil, no_value end
  return cells, kind
end

-- Whether the colour scale can show a value.
local function has_colour(value, log)
  return frame.is_drawable(value, log) and not (log and value <= 0)
end

-- The smallest and the largest value that has a colour; nil when there is none.
local function extent(panels, log)
  local low, high
  for _, panel in ipairs(panels) do
    for _, cell in ipairs(panel.cells) do
      local value = cell.value
      if has_colour(value, log) then
        low, high = math.min(low or value, value), math.max(high or value, value)
      end
    end
  end
  return low, high
end

-- Where a value is between the ends of the scale, from 0 to 1.
local function fraction_of(value, scale)
  if not (scale.high > scale.low) then return 0 end
  if scale.log then return math.log(value / scale.low) / math.log(scale.high / scale.low) end
  -- Half of each, as the difference of two large numbers may be infinite.
  return (value / 2 - scale.low / 2) / (scale.high / 2 - scale.low / 2)
end

-- Four data blocks: boxes "x y x1 x2 y1 y2 value" of the cells with a colour, boxes without one,
-- then rows "x y text" of the dark and of the light cells.
-- Returns the data and for each block whether it has rows.
local function data_of(cells, scale, layout)
  local boxes, bare, dark, light = {}, {}, {}, {}
  -- Cells without room for a text touch each other.
  local space = layout.with_text and gap / 2 or 0
  local half_x, half_y = 0.5 - space / layout.cell_width, 0.5 - space / layout.cell_height
  for _, cell in ipairs(cells) do
    local box = ("%d\t%d\t%.4f\t%.4f\t%.4f\t%.4f"):format(cell.x, cell.y, cell.x - half_x,
      cell.x + half_x, cell.y - half_y, cell.y + half_y)
    local is_coloured = has_colour(cell.value, scale.log)
    local list = is_coloured and boxes or bare
    list[#list + 1] = box .. "\t" .. number(cell.value)
    cell.fraction = is_coloured and fraction_of(cell.value, scale) or nil
    local is_light = not is_coloured or cell.fraction > light_above
    local row = gnuplot.row(cell.x, cell.y, gnuplot.field(cell.text))
    list = is_light and light or dark
    if layout.with_text then list[#list + 1] = row end
  end
  local blocks, has = {}, {}
  for i, block in ipairs {boxes, bare, dark, light} do
    local names = i <= 2 and "# x\ty\tfrom\tto\tfrom y\tto y\tvalue\n" or "# x\ty\ttext\n"
    local nothing = i <= 2 and ("NaN\t"):rep(6) .. "NaN" or 'NaN\tNaN\t""'
    blocks[i] = names .. (#block > 0 and table.concat(block, "\n") or nothing)
    has[i] = #block > 0 and 1 or 0
  end
  return table.concat(blocks, "\n\n\n"), has
end

-- Ticks of the rows: where rows are thin, every stride-th only, so that names do not touch.
local function thin_rows(list, height)
  local stride = math.ceil(0.2 / height)
  for i, tick in ipairs(list) do
    if (i - 1) % stride ~= 0 then tick.label = "" end
  end
  return list
end

-- Where everything is, in inches.
local function layout_of(xs, ys, panels, look)
  local layout, widest = {many = panels[1].title ~= nil}, 0
  for _, panel in ipairs(panels) do
    for _, cell in ipairs(panel.cells) do
      widest = math.max(widest, letters.width(cell.text, font.cell))
    end
  end
  local names = ticks.categories(xs)
  local wanted = math.max(widest, ticks.width(names, font.tick)) + 0.14
  local least_width = layout.many and panel_width or one_width
  layout.cell_width = math.min(math.max(wanted, least_width * look.width / #xs), max_cell_width)
  layout.cell_height = cell_height
  layout.y_ticks = ticks.categories(ys)
  layout.left = math.min(max_left, math.max(0.7, ticks.width(layout.y_ticks, font.tick) + 0.25))
  layout.right = 1.35
  local room = max_width - layout.left - layout.right
  layout.cell_width = math.max(math.min(layout.cell_width, room / #xs), 0.02)
  layout.cell_height = math.max(math.min(layout.cell_height, max_height / #ys), 0.02)
  if #ys == 1 then layout.cell_height = 1 end
  layout.with_text = widest <= layout.cell_width and layout.cell_height >= 0.19
  layout.y_ticks = thin_rows(layout.y_ticks, layout.cell_height)
  layout.x_ticks = names
  layout.x_height, layout.reach = ticks.room(names, font.tick, layout.cell_width)
  if layout.reach then
    if layout.cell_width < min_cell_width then
      layout.x_ticks = ticks.thinned(names, 17, function(at) return at * layout.cell_width * 2 end)
    end
    layout.left = math.max(layout.left, layout.reach - layout.cell_width / 2 + 0.1)
  end
  layout.plot_width, layout.plot_height = #xs * layout.cell_width, #ys * layout.cell_height
  layout.step = layout.left + layout.plot_width + 0.2 -- from one map to the next
  layout.columns = math.max(1, math.min(#panels, panels_width * look.width // layout.step))
  layout.rows = math.ceil(#panels / layout.columns)
  layout.above = layout.many and 0.42 or 0.1
  layout.under = layout.x_height + 0.46
  layout.bar = layout.columns * layout.step + 0.05 -- left edge of the colour bar
  -- A single narrow column needs room for its title.
  layout.width = math.max(layout.columns * layout.step + layout.right - 0.2, 7 * look.width)
  return layout
end

local function add_colours(script, layout, scale, unit, size, bottom)
  add(script, "bar = %d", scale.low and scale.high > scale.low and 1 or 0)
  local low, high = scale.low, scale.high
  if not low then return end
  if scale.log then add(script, "set logscale cb") end
  -- Equal values have one colour and no colour bar, but gnuplot wants a range.
  if high == low and scale.log then
    add(script, "set cbrange [%s:%s]", number(low / 2), number(high * 2))
  elseif high == low then
    local room = math.max(1, math.abs(low)) / 2
    add(script, "set cbrange [%s:%s]", number(low - room), number(high + room))
  end
  if high == low then return end
  add(script, "set cbrange [%s:%s]", number(low), number(high))
  local count = math.max(2, math.min(8, layout.plot_height // 0.22))
  local key = (scale.log and ticks.log or ticks.linear)(low, high, unit, count, scale.base)
  add(script, "set cbtics scale 0 %s font ',%d'", ticks.command(key), font.condition)
  add(script, "set colorbox user origin %.4f,%.4f size %.4f,%.4f", layout.bar / size.width,
    bottom / size.height, 0.18 / size.width, layout.plot_height / size.height)
end

local function note_all(notes, panels, log, with_text)
  local bad, hidden = 0, 0
  for _, panel in ipairs(panels) do
    for _, cell in ipairs(panel.cells) do
      if not frame.is_drawable(cell.value, log) then
        bad = bad + 1
      elseif log and cell.value <= 0 then
        hidden = hidden + 1
      end
    end
  end
  local function note(count, words)
    if count == 0 then return end
    notes[#notes + 1] = ("%s %s %s and %s no colour."):format(text.count(count, "value"),
      count == 1 and "is" or "are", words, count == 1 and "has" or "have")
  end
  note(bad, "not finite or beyond 1e100")
  note(hidden, "not positive, as the logarithmic colours need,")
  if not with_text then notes[#notes + 1] = "The cells are too small for their values." end
end

-- Adds the cells of a map with their values.
local function add_spots(spots, panel, xs, ys, layout, at, spec)
  local title = panel.title and panel.title .. ", " or ""
  for _, cell in ipairs(panel.cells) do
    spots[#spots + 1] = {
      x = at.left + (cell.x - 0.5) * layout.cell_width,
      y = at.bottom + (cell.y - 0.5) * layout.cell_height,
      width = layout.cell_width,
      height = layout.cell_height,
      text = ("%s%s %s, %s %s: %s"):format(title, spec.x, text.plain(xs[cell.x]), spec.y,
        text.plain(ys[cell.y]), cell.text),
    }
  end
end

-- The figure in sentences: its extremes.
local function describe(panels, xs, ys, spec)
  local least, most, of_least, of_most
  local count = 0
  for _, panel in ipairs(panels) do
    count = count + #panel.cells
    for _, cell in ipairs(panel.cells) do
      if frame.is_drawable(cell.value) then
        if not least or cell.value < least.value then least, of_least = cell, panel end
        if not most or cell.value > most.value then most, of_most = cell, panel end
      end
    end
  end
  local maps = panels[1].title and ("%s, one per %s"):format(text.count(#panels, "heat map"),
    spec.facet) or "Heat map"
  local words = ("%s of %s over %s and %s, %s%s."):format(maps, spec.value, spec.x, spec.y,
    text.count(count, "cell"), spec.log and ", logarithmic colours" or "")
  local function named(cell, panel)
    return ("%s at %s%s %s, %s %s"):format(cell.text, panel.title and panel.title .. ", " or "",
      spec.x, text.plain(xs[cell.x]), spec.y, text.plain(ys[cell.y]))
  end
  if not least then return words end
  return ("%s Smallest: %s. Largest: %s."):format(words, named(least, of_least),
    named(most, of_most))
end

local function names(values)
  local list = {}
  for i, value in ipairs(values) do list[i] = text.plain(value) end
  return list
end

-- The maps: one, or one per value of `facet` that has a cell. nil and a message when a cell has
-- several points.
local function panels_of(results, spec, points, xs, ys)
  local panels, kind, why = {}, nil, nil
  for _, value in ipairs(spec.facet and series.distinct(points, spec.facet) or {false}) do
    local mine = series.with(points, spec.facet, value)
    local cells, found = cells_of(results, spec, mine, shown_points(mine, spec), xs, ys)
    if not cells and found ~= no_value then return nil, found end
    why = not cells and found or why
    if cells then
      panels[#panels + 1] = {cells = cells, title = lines.label(spec.facet, value)}
      kind = kind or found
    end
  end
  if #panels == 0 then return nil, why end
  if #panels > max_panels then
    local format = "facet: expected at most %d values of %s, got %d"
    return nil, format:format(max_panels, spec.facet, #panels)
  end
  return panels, kind
end

-- Adds the names of the axes of a map, and the map's title.
local function add_names(script, panel, layout, spec, at, size)
  local function name(number_of_label, words, x, y, place, font_size, ink)
    add(script, "set label %d %s at screen %.4f,%.4f %s font ',%d' textcolor rgb %s",
      number_of_label, quote(words), x / size.width, y / size.height, place, font_size, ink)
  end
  local below = at.bottom - layout.x_height - 0.17
  name(151, letters.clean(spec.x, 48), at.left + layout.plot_width / 2, below, "center",
    font.label, "quiet")
  name(152, letters.clean(spec.y, 48), at.left - layout.left + 0.17, below, "left", font.label,
    "quiet")
  if panel.title then
    name(150, letters.clean(panel.title, 48), at.left, at.bottom + layout.plot_height + 0.16,
      "left", font.panel, "ink")
  end
end

-- Adds all maps, row by row. Returns their data and the spots.
local function add_panels(script, panels, xs, ys, spec, layout, scale, head, size)
  local blocks, spots = {}, {}
  for i, panel in ipairs(panels) do
    local column, row = (i - 1) % layout.columns, (i - 1) // layout.columns
    local step = layout.above + layout.plot_height + layout.under
    local at = {
      left = column * layout.step + layout.left,
      bottom = size.height - head.height - (row + 1) * step + layout.under,
    }
    frame.margins(script, at.left / size.width, (at.left + layout.plot_width) / size.width,
      at.bottom / size.height, (at.bottom + layout.plot_height) / size.height)
    if i > 1 then add(script, "unset label\nbar = 0") end
    add_names(script, panel, layout, spec, at, size)
    if i == 1 then
      add_colours(script, layout, scale, scale.unit, size, at.bottom)
    end
    local data, has = data_of(panel.cells, scale, layout)
    blocks[i] = data
    add(script, "first = %d", 4 * (i - 1))
    add(script, "array has[4] = [%s]", table.concat(has, ","))
    add(script, "load 'heat.gp'")
    add_spots(spots, panel, xs, ys, layout, at, spec)
  end
  return table.concat(blocks, "\n\n\n") .. "\n", spots
end

local function term_of(title, panels, xs, ys, notes)
  return function(width)
    local out = {}
    for i, panel in ipairs(panels) do
      local last = i == #panels and notes or {}
      local drawn = terminal.cells(panel.title or title, names(xs), names(ys), panel.cells, last,
        width)
      if i == 1 and panel.title then out[1] = letters.clean(title) end
      table.move(drawn, 1, #drawn, #out + 1, out)
    end
    return out
  end
end

---@param notes string[] what is left out so far; more is appended
---@param look attune.Look
---@return attune.Figure? figure
---@return string? message
return function(results, spec, points, notes, look)
  if spec.along then
    points = points_of_lists(points, spec)
    if #points == 0 then return nil, spec.value .. ": expected a metric with lists of numbers" end
    spec = series.changed(spec, "y", spec.along)
  end
  local shown = shown_points(points, spec)
  local xs, ys = series.distinct(shown, spec.x), series.distinct(shown, spec.y)
  local unit = (series.metric(results, spec.value) or {}).unit
  local panels, kind = panels_of(results, spec, points, xs, ys)
  if not panels then return nil, kind end
  for _, panel in ipairs(panels) do
    for _, cell in ipairs(panel.cells) do
      cell.text = letters.clean(frame.value_text(spec, cell.value, unit), 24)
    end
  end
  local scale = {log = spec.log == "value", base = spec.base}
  scale.low, scale.high = extent(panels, scale.log)
  scale.unit = frame.value_unit(spec, unit)
  local layout = layout_of(xs, ys, panels, look)
  note_all(notes, panels, scale.log, layout.with_text)
  local title = spec.title or spec.value
  local head = frame.head(results, title, series.constants(shown, results, spec), notes,
    kind and kind .. " alone", layout.width)
  local step = layout.above + layout.plot_height + layout.under
  local size = {width = layout.width, height = head.height + layout.rows * step}
  local script = {}
  frame.add_head(script, head, size)
  add(script, "set xrange [0.5:%g]", #xs + 0.5)
  add(script, "set yrange [0.5:%g]", #ys + 0.5)
  local angle = layout.reach and ticks.tilted or ""
  add(script, "set xtics%s scale 0 %s font ',%d'", angle, ticks.command(layout.x_ticks), font.tick)
  add(script, "set ytics scale 0 %s font ',%d'", ticks.command(layout.y_ticks), font.tick)
  add(script, "cellfont = ',%d'", font.cell)
  if layout.many then add(script, "set multiplot") end
  local data, spots = add_panels(script, panels, xs, ys, spec, layout, scale, head, size)
  if layout.many then add(script, "unset multiplot") end
  return {
    size = size,
    script = table.concat(script, "\n"),
    data = data,
    notes = notes,
    spots = spots,
    words = describe(panels, xs, ys, spec),
    term = term_of(title, panels, xs, ys, notes),
  }
end
