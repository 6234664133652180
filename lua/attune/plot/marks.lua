--- The marks of a panel: data blocks, gnuplot's commands for them, and where each mark is.
local frame = require "attune.plot.frame"
local gnuplot = require "attune.plot.gnuplot"
local letters = require "attune.plot.letters"
local text = require "attune.util.text"

local add, number, quote = gnuplot.add, gnuplot.number, gnuplot.quote
local font = frame.font

local marks = {}

--- Where a value is on an axis, from 0 to 1.
---@param axis attune.Axis
---@param at number
---@return number
function marks.fraction(axis, at)
  if axis.log then return math.log(at / axis.low) / math.log(axis.high / axis.low) end
  -- Half of each, as the difference of two large numbers may be infinite.
  return (at / 2 - axis.low / 2) / (axis.high / 2 - axis.low / 2)
end

--- A value of an axis as text.
---@param axis attune.Axis
---@param value number
---@return string
function marks.value(axis, value)
  if axis.categories then return text.plain(axis.categories[math.floor(value + 0.5)]) end
  if axis.unit == "×" then return ("%.3g×"):format(value) end
  if axis.unit then return text.quantity(value, axis.unit) end
  return text.plain(value)
end

-- ---- data and commands -------------------------------------------------------------------------

local function has(line, test)
  for _, row in ipairs(line.rows) do
    if test(row) then return true end
  end
  return false
end

local function y_interval(row) return row.lo and row.hi > row.lo end
local function x_interval(row) return row.x_lo and row.x_hi > row.x_lo end

-- The columns of a line's block: names, and functions of a row.
local function columns_of(line, spec, data)
  local columns = {}
  local function column(name, value) columns[#columns + 1] = {name, value} end
  column(data.x.name, function(r) return r.x end)
  column(data.y.name, function(r) return r.y end)
  if line.form == "box" then
    for i, name in ipairs {"from", "to", "low", "quarter", "median", "three quarters", "high"} do
      column(name, function(r) return r.box[i] end)
    end
    return columns
  end
  local with_y, with_x = has(line, y_interval), has(line, x_interval)
  if with_y or with_x or spec.also then
    column("low", function(r) return r.lo end)
    column("high", function(r) return r.hi end)
  end
  if spec.also then column(spec.also, function(r) return r.also end) end
  if with_x then
    column("x low", function(r) return r.x_lo end)
    column("x high", function(r) return r.x_hi end)
  end
  return columns
end

-- A line of a data file that gnuplot skips. A \ at its end would hide the next line.
local function comment(...)
  local words = {...}
  for i, word in ipairs(words) do words[i] = letters.clean(word):gsub("\\", "/") end
  return "# " .. table.concat(words, "\t")
end

local function block_of(line, panel, columns)
  local names, out = {}, {}
  for i, column in ipairs(columns) do names[i] = column[1] end
  local title = {}
  title[#title + 1] = panel.title
  title[#title + 1] = line.label
  out[1] = #title > 0 and comment(table.concat(title, ", ")) or nil
  out[#out + 1] = comment(table.unpack(names))
  for _, row in ipairs(line.rows) do
    local fields = {}
    for i, column in ipairs(columns) do fields[i] = number(column[2](row)) end
    out[#out + 1] = table.concat(fields, "\t")
  end
  return table.concat(out, "\n")
end

local strokes = {}

-- What a line with marks and intervals is drawn with.
local function stroke_points(line, say)
  local style, hollow = line.style, ""
  if line.form == "faint" then hollow = (" pointtype shape[%d]-1"):format(style) end
  if has(line, x_interval) then
    local at = line.columns
    say("1:2:%d:%d with xerrorbars linestyle %d linewidth 0.8 pointtype 0", at - 1, at, style)
  end
  if not has(line, y_interval) or line.band then
    say("1:2 with points linestyle %d linewidth 1.1%s", style, hollow)
    return
  end
  say("1:($4>$3 ? $2 : NaN):3:4 with yerrorbars linestyle %d linewidth 1.1%s", style, hollow)
  if has(line, function(row) return not y_interval(row) end) then
    say("1:($4>$3 ? NaN : $2) with points linestyle %d linewidth 1.1%s", style, hollow)
  end
end

local function stroke_band(line, say)
  if not (line.band and has(line, y_interval)) then return end
  say("1:($4>$3 ? $3 : $2):($4>$3 ? $4 : $2) with filledcurves fillcolor rgb colour[%d] "
    .. "fillstyle transparent solid 0.18 noborder", line.style)
end

strokes.points, strokes.faint = stroke_points, stroke_points

function strokes.line(line, say)
  stroke_band(line, say)
  say("1:2 with lines linestyle %d", line.style)
  stroke_points(line, say)
end

function strokes.curve(line, say)
  stroke_band(line, say)
  say("1:2 with lines linestyle %d", line.style)
end

function strokes.steps(line, say)
  say("1:2 with %s linestyle %d", line.form, line.style)
  stroke_points(line, say)
end
strokes.fsteps = strokes.steps

function strokes.staircase(line, say) say("1:2 with steps linestyle %d", line.style) end

function strokes.roof(_, say) say "1:2 with lines linecolor rgb quiet linewidth 1.4" end

function strokes.box(line, say)
  local style = line.style
  -- Columns: x, y, from, to, low, quartiles 1 to 3, high.
  say("1:7:3:4:6:8 with boxxyerror fillcolor rgb colour[%d] fillstyle transparent solid 0.25 "
    .. "border linecolor rgb colour[%d] linewidth 1.1", style, style)
  say("3:7:($4-$3):(0) with vectors nohead linestyle %d linewidth 2.6", style)
  say("1:5:(0):($6-$5) with vectors nohead linestyle %d linewidth 1.1", style)
  say("1:8:(0):($9-$8) with vectors nohead linestyle %d linewidth 1.1", style)
end

-- An arrow at the edge where an interval leaves the axis.
local function add_cut_arrows(script, panel)
  for _, line in ipairs(panel.lines) do
    for _, row in ipairs(line.rows) do
      for _, edge in ipairs {row.cut_lo and row.lo or false, row.cut_hi and row.hi or false} do
        if edge then
          local x, y = number(row.x), number(row.y)
          add(script, "set arrow from %s,%s to %s,%s head filled size screen 0.012,22 "
            .. "linecolor rgb colour[%d] linewidth 1.1", x, y, x, number(edge), line.style)
        end
      end
    end
  end
end

--- Adds a panel's data blocks and its plot command.
---@param script string[]
---@param data attune.Lines
---@param panel attune.Panel
---@param spec attune.PlotSpec
---@param blocks string[]
function marks.add(script, data, panel, spec, blocks)
  add_cut_arrows(script, panel)
  local parts = {}
  for _, line in ipairs(panel.lines) do
    local columns = columns_of(line, spec, data)
    line.columns = #columns
    local index = #blocks
    blocks[index + 1] = block_of(line, panel, columns)
    local function say(format, ...)
      local words = select("#", ...) > 0 and format:format(...) or format
      parts[#parts + 1] = ("data index %d using %s notitle"):format(index, words)
    end
    strokes[line.form](line, say)
    if spec.also and line.form == "line" then
      say("1:5 with lines dashtype (6,5) linecolor rgb colour[%d] linewidth 1.1", line.style)
    end
  end
  if #parts == 0 then
    parts[1], blocks[#blocks + 1] = "NaN notitle", "NaN\tNaN"
  end
  add(script, "%s", "plot " .. table.concat(parts, ", \\\n     "))
end

-- ---- texts beside marks ------------------------------------------------------------------------

-- Functions from values of x and of y to inches.
local function places_on(data, at)
  return function(x) return at.left + marks.fraction(data.x, x) * (at.right - at.left) end,
    function(y) return at.bottom + marks.fraction(data.y, y) * (at.top - at.bottom) end
end

--- Adds the reference lines of a panel.
---@param at {left: number, right: number, top: number, bottom: number} inches
function marks.add_references(script, data, at, size)
  for i, reference in ipairs(data.references or {}) do
    local along = reference.letter == "x" and "first %s,graph 0 to first %s,graph 1"
      or "graph 0,first %s to graph 1,first %s"
    along = along:format(number(reference.at), number(reference.at))
    add(script, "set arrow from %s nohead dashtype (4,4) linecolor rgb quiet linewidth 1", along)
    if reference.text then
      local share = marks.fraction(data[reference.letter], reference.at)
      local x, y, side = at.left + 0.06, at.bottom + share * (at.top - at.bottom) + 0.1, "left"
      if reference.letter == "x" then
        x, y = at.left + share * (at.right - at.left) + 0.06, at.top - 0.08
        -- At the right edge the text stands left of its line.
        if share > 0.75 then x, side = x - 0.12, "right" end
      end
      add(script, "set label %d %s at screen %.4f,%.4f %s font ',%d' textcolor rgb quiet", 400 + i,
        quote(letters.clean(reference.text, 48)), x / size.width, y / size.height, side,
        font.condition)
    end
  end
end

local function overlaps(a, b)
  return a[1] < b[3] and b[1] < a[3] and a[2] < b[4] and b[2] < a[4]
end

-- From a mark to a text beside it, in inches, and how the text is aligned.
local mark_places = {
  {0.1, 0, "left"}, {-0.1, 0, "right"}, {0.06, 0.14, "left"}, {0.06, -0.14, "left"},
  {-0.06, 0.14, "right"}, {-0.06, -0.14, "right"},
}

-- The first place beside a mark at which a text touches no other text and no edge, or nil.
local function free_place(x, y, width, at, taken, is_roof)
  local places = is_roof and {{0, 0.12, "right"}, {0.12, -0.02, "left"}} or mark_places
  for _, place in ipairs(places) do
    local left = x + place[1]
    if place[3] == "right" then left = left - width end
    if place[3] == "center" then left = left - width / 2 end
    local box = {left, y + place[2] - 0.07, left + width, y + place[2] + 0.07}
    local free = box[1] >= at.left and box[3] <= at.right + 0.1 and box[2] >= at.bottom
    for _, other in ipairs(taken) do free = free and not overlaps(box, other) end
    if free then return {x + place[1], y + place[2], place[3]}, box end
  end
end

--- Adds the names of marks, where there is room for them.
function marks.add_row_labels(script, data, panel, at, size)
  local taken, wanted = {}, {}
  local x_at, y_at = places_on(data, at)
  local function take(...) taken[#taken + 1] = {...} end
  for _, line in ipairs(panel.lines) do
    for _, row in ipairs(line.rows) do
      local x, y = x_at(row.x), y_at(row.y)
      if line.form ~= "roof" then
        take(x - 0.05, y - 0.05, x + 0.05, y + 0.05)
        if y_interval(row) then take(x - 0.03, y_at(row.lo), x + 0.03, y_at(row.hi)) end
        if x_interval(row) then take(x_at(row.x_lo), y - 0.03, x_at(row.x_hi), y + 0.03) end
      end
      if row.label then wanted[#wanted + 1] = {row = row, line = line, x = x, y = y} end
    end
  end
  for i, w in ipairs(wanted) do
    local words = letters.clean(w.row.label, 40)
    local width = letters.width(words, font.condition)
    local place, box = free_place(w.x, w.y, width, at, taken, w.line.form == "roof")
    if place then
      taken[#taken + 1] = box
      add(script, "set label %d %s at screen %.4f,%.4f %s font ',%d' textcolor rgb %s", 10000 + i,
        quote(words), place[1] / size.width, place[2] / size.height, place[3], font.condition,
        w.line.form == "roof" and "quiet" or "ink")
    end
  end
end

-- ---- spots -------------------------------------------------------------------------------------

-- A mark in words: "kv_heads 8, context 512: seconds 1.20 ms (1.10 ms to 1.30 ms)".
local function about(data, panel, line, row)
  local names = {}
  names[1] = panel.title
  names[#names + 1] = line.label
  names[#names + 1] = row.about
  names[#names + 1] = ("%s %s"):format(data.x.name, marks.value(data.x, row.x))
  local words = ("%s: %s %s"):format(table.concat(names, ", "), data.y.name,
    marks.value(data.y, row.y))
  if y_interval(row) and not (row.cut_lo or row.cut_hi) then
    local low, high = marks.value(data.y, row.lo), marks.value(data.y, row.hi)
    words = words .. (" (%s to %s)"):format(low, high)
  end
  if row.box then
    words = words .. (", quartiles %s and %s"):format(marks.value(data.y, row.box[4]),
      marks.value(data.y, row.box[6]))
  end
  return words
end

--- Appends where each mark of a panel is, with its values.
---@param spots attune.Spot[]
function marks.spots(spots, data, panel, at)
  local x_at, y_at = places_on(data, at)
  for _, line in ipairs(panel.lines) do
    for _, row in ipairs(line.form ~= "roof" and line.rows or {}) do
      local spot = {x = x_at(row.x), y = y_at(row.y), text = about(data, panel, line, row)}
      local box = row.box
      if box then
        spot.width = x_at(box[2]) - x_at(box[1])
        spot.y = (y_at(box[4]) + y_at(box[6])) / 2
        spot.height = math.max(0.06, y_at(box[6]) - y_at(box[4]))
      end
      spots[#spots + 1] = spot
    end
  end
end

return marks
