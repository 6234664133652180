--- A heat map of x against y with the value written in each cell.
local frame = require "attune.plot.frame"
local gnuplot = require "attune.plot.gnuplot"
local letters = require "attune.plot.letters"
local series = require "attune.plot.series"
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
  if #cells == 0 then return nil, "there is no point with a value" end
  return cells, kind
end

-- The smallest and the largest finite value; nil when there is none.
local function extent(cells)
  local low, high
  for _, cell in ipairs(cells) do
    if frame.is_drawable(cell.value) then
      low, high = math.min(low or cell.value, cell.value), math.max(high or cell.value, cell.value)
    end
  end
  return low, high
end

-- Four data blocks: boxes "x y x1 x2 y1 y2 value" of the cells with a colour, boxes without one,
-- then rows "x y text" of the dark and of the light cells.
-- Returns the data and for each block whether it has rows.
local function data_of(cells, low, high, layout)
  local boxes, bare, dark, light = {}, {}, {}, {}
  -- Cells without room for a text touch each other.
  local space = layout.with_text and gap / 2 or 0
  local half_x, half_y = 0.5 - space / layout.cell_width, 0.5 - space / layout.cell_height
  for _, cell in ipairs(cells) do
    local box = ("%d\t%d\t%.4f\t%.4f\t%.4f\t%.4f"):format(cell.x, cell.y, cell.x - half_x,
      cell.x + half_x, cell.y - half_y, cell.y + half_y)
    local is_finite = frame.is_drawable(cell.value)
    local list = is_finite and boxes or bare
    list[#list + 1] = box .. "\t" .. number(cell.value)
    -- Half of each, as the difference of two large numbers may be infinite.
    local fraction = is_finite and high > low
      and (cell.value / 2 - low / 2) / (high / 2 - low / 2) or 0
    local is_light = not is_finite or fraction > light_above
    cell.fraction = is_finite and fraction or nil
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
  return table.concat(blocks, "\n\n\n") .. "\n", has
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
local function layout_of(xs, ys, cells, look)
  local layout, widest = {}, 0
  for _, cell in ipairs(cells) do
    widest = math.max(widest, letters.width(cell.text, font.cell))
  end
  local names = ticks.categories(xs)
  local wanted = math.max(widest, ticks.width(names, font.tick)) + 0.14
  layout.cell_width = math.min(math.max(wanted, 5.5 * look.width / #xs), max_cell_width)
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
  -- A single narrow column needs room for its title.
  layout.width = math.max(layout.left + layout.plot_width + layout.right, 7 * look.width)
  return layout
end

local function add_colours(script, layout, low, high, unit, size, bottom)
  add(script, "bar = %d", low and high > low and 1 or 0)
  if not low then return end
  -- Equal values have one colour and no colour bar, but gnuplot wants a range.
  local room = high > low and 0 or math.max(1, math.abs(low)) / 2
  add(script, "set cbrange [%s:%s]", number(low - room), number(high + room))
  if high == low then return end
  local key = ticks.linear(low, high, unit, math.max(2, math.min(8, layout.plot_height // 0.22)))
  add(script, "set cbtics scale 0 %s font ',%d'", ticks.command(key), font.condition)
  add(script, "set colorbox user origin %.4f,%.4f size %.4f,%.4f",
    (layout.left + layout.plot_width + 0.25) / size.width, bottom / size.height,
    0.18 / size.width, layout.plot_height / size.height)
end

local function note_all(notes, cells, with_text)
  local bad = 0
  for _, cell in ipairs(cells) do
    if not frame.is_drawable(cell.value) then bad = bad + 1 end
  end
  if bad > 0 then
    local format = "%s %s not finite or beyond 1e100 and %s no colour."
    notes[#notes + 1] = format:format(text.count(bad, "value"), bad == 1 and "is" or "are",
      bad == 1 and "has" or "have")
  end
  if not with_text then notes[#notes + 1] = "The cells are too small for their values." end
end

-- Where each cell is, with its value.
local function spots_of(cells, xs, ys, layout, bottom, spec)
  local spots = {}
  for i, cell in ipairs(cells) do
    spots[i] = {
      x = layout.left + (cell.x - 0.5) * layout.cell_width,
      y = bottom + (cell.y - 0.5) * layout.cell_height,
      width = layout.cell_width,
      height = layout.cell_height,
      text = ("%s %s, %s %s: %s"):format(spec.x, text.plain(xs[cell.x]), spec.y,
        text.plain(ys[cell.y]), cell.text),
    }
  end
  return spots
end

-- The figure in sentences: its extremes.
local function describe(cells, xs, ys, spec)
  local least, most
  for _, cell in ipairs(cells) do
    if frame.is_drawable(cell.value) then
      if not least or cell.value < least.value then least = cell end
      if not most or cell.value > most.value then most = cell end
    end
  end
  local words = ("Heat map of %s over %s and %s, %s."):format(spec.value, spec.x, spec.y,
    text.count(#cells, "cell"))
  local function named(cell)
    return ("%s at %s %s, %s %s"):format(cell.text, spec.x, text.plain(xs[cell.x]), spec.y,
      text.plain(ys[cell.y]))
  end
  if not least then return words end
  return ("%s Smallest: %s. Largest: %s."):format(words, named(least), named(most))
end

local function names(values)
  local list = {}
  for i, value in ipairs(values) do list[i] = text.plain(value) end
  return list
end

---@param notes string[] what is left out so far; more is appended
---@param look attune.Look
---@return attune.Figure? figure
---@return string? message
return function(results, spec, points, notes, look)
  local shown = shown_points(points, spec)
  local xs, ys = series.distinct(shown, spec.x), series.distinct(shown, spec.y)
  local unit = (series.metric(results, spec.value) or {}).unit
  local cells, kind = cells_of(results, spec, points, shown, xs, ys)
  if not cells then return nil, kind end
  for _, cell in ipairs(cells) do
    cell.text = letters.clean(frame.value_text(spec, cell.value, unit), 24)
  end
  local layout = layout_of(xs, ys, cells, look)
  note_all(notes, cells, layout.with_text)
  local conditions = series.constants(shown, results, spec)
  local title = spec.title or spec.value
  local head = frame.head(results, title, conditions, notes, kind, layout.width)
  local bottom = layout.x_height + 0.46
  local height = head.height + 0.1 + layout.plot_height + bottom
  local size = {width = layout.width, height = height}
  local script = {}
  frame.add_head(script, head, size)
  frame.margins(script, layout.left / size.width, (layout.left + layout.plot_width) / size.width,
    bottom / size.height, (bottom + layout.plot_height) / size.height)
  add(script, "set xrange [0.5:%g]", #xs + 0.5)
  add(script, "set yrange [0.5:%g]", #ys + 0.5)
  local angle = layout.reach and ticks.tilted or ""
  add(script, "set xtics%s scale 0 %s font ',%d'", angle, ticks.command(layout.x_ticks), font.tick)
  add(script, "set ytics scale 0 %s font ',%d'", ticks.command(layout.y_ticks), font.tick)
  add(script, "set label 151 %s at screen %.4f,%.4f center font ',%d' textcolor rgb quiet",
    quote(letters.clean(spec.x, 48)), (layout.left + layout.plot_width / 2) / size.width,
    (bottom - layout.x_height - 0.17) / size.height, font.label)
  add(script, "set label 152 %s at screen %.4f,%.4f left font ',%d' textcolor rgb quiet",
    quote(letters.clean(spec.y, 48)), 0.17 / size.width,
    (bottom - layout.x_height - 0.17) / size.height, font.label)
  add(script, "cellfont = ',%d'", font.cell)
  local low, high = extent(cells)
  local value_unit = frame.value_unit(spec, unit)
  add_colours(script, layout, low, high, value_unit, size, bottom)
  local data, has = data_of(cells, low or 0, high or 0, layout)
  add(script, "array has[4] = [%s]", table.concat(has, ","))
  add(script, "load 'heat.gp'")
  return {
    size = size,
    script = table.concat(script, "\n"),
    data = data,
    notes = notes,
    spots = spots_of(cells, xs, ys, layout, bottom, spec),
    words = describe(cells, xs, ys, spec),
    term = function(width)
      return terminal.cells(title, names(xs), names(ys), cells, notes, width)
    end,
  }
end
