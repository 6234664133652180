--- Figures for a terminal: lines of dots (Braille patterns of 2 x 4 dots per letter) with ticks.
local letters = require "attune.plot.letters"
local marks = require "attune.plot.marks"
local text = require "attune.util.text"
local ticks = require "attune.plot.ticks"

local terminal = {}

local min_width, max_width, rows = 40, 100, 16
local max_own_ticks = 9 -- up to this number of different x, each gets a tick
local signs = {"o", "x", "+", "*", "#", "@", "%", "&"} -- of lines 1 to 8
local colours = {"34", "33", "32", "35", "93", "36", "0", "90"} -- of the terminal, like theme.gp

-- The bits of a Braille pattern: column, then row from above.
local bits = {{0x01, 0x02, 0x04, 0x40}, {0x08, 0x10, 0x20, 0x80}}

local function canvas_of(columns)
  return {columns = columns, dots = {}, signs = {}, styles = {}}
end

-- Sets one dot; x and y are fractions of the canvas.
local function dot(canvas, x, y, style)
  local px = math.floor(x * (canvas.columns * 2 - 1) + 0.5)
  local py = math.floor((1 - y) * (rows * 4 - 1) + 0.5)
  if px < 0 or py < 0 or px >= canvas.columns * 2 or py >= rows * 4 then return end
  local cell = py // 4 * canvas.columns + px // 2
  canvas.dots[cell] = (canvas.dots[cell] or 0) | bits[px % 2 + 1][py % 4 + 1]
  canvas.styles[cell] = canvas.styles[cell] or style
end

local function stroke(canvas, x1, y1, x2, y2, style)
  local steps = math.max(math.abs(x2 - x1) * canvas.columns * 2, math.abs(y2 - y1) * rows * 4)
  steps = math.max(1, math.min(4000, math.ceil(steps)))
  for i = 0, steps do
    dot(canvas, x1 + (x2 - x1) * i / steps, y1 + (y2 - y1) * i / steps, style)
  end
end

local function sign(canvas, x, y, style)
  local column = math.floor(x * (canvas.columns - 1) + 0.5)
  local row = math.floor((1 - y) * (rows - 1) + 0.5)
  if column < 0 or row < 0 or column >= canvas.columns or row >= rows then return end
  canvas.signs[row * canvas.columns + column] = signs[style]
  canvas.styles[row * canvas.columns + column] = style
end

local function painted(s, style, colour)
  if not colour or not style then return s end
  return ("\27[%sm%s\27[0m"):format(colours[style], s)
end

local function canvas_line(canvas, row, colour)
  local out = {}
  for column = 0, canvas.columns - 1 do
    local cell = row * canvas.columns + column
    local letter = canvas.signs[cell]
      or canvas.dots[cell] and utf8.char(0x2800 + canvas.dots[cell]) or " "
    out[#out + 1] = letter == " " and letter or painted(letter, canvas.styles[cell], colour)
  end
  return table.concat(out)
end

local joined = {
  line = true, curve = true, steps = true, fsteps = true, staircase = true, roof = true,
}
local bare = {curve = true, staircase = true, roof = true}

local function draw_line(canvas, data, line)
  local last
  local function at(row) return marks.fraction(data.x, row.x), marks.fraction(data.y, row.y) end
  for _, row in ipairs(line.rows) do
    local x, y = at(row)
    if last and joined[line.form] then stroke(canvas, last[1], last[2], x, y, line.style) end
    last = {x, y}
    if row.box then
      stroke(canvas, x, marks.fraction(data.y, row.box[3]), x, marks.fraction(data.y, row.box[7]),
        line.style)
    end
  end
  for _, row in ipairs(bare[line.form] and {} or line.rows) do
    local x, y = at(row)
    sign(canvas, x, y, line.style)
  end
end

-- Labels of y by row, and the width of the widest.
local function y_labels(axis)
  local make = axis.log and ticks.log or ticks.linear
  local by_row, widest = {}, 1
  for _, tick in ipairs(axis.ticks or make(axis.low, axis.high, axis.unit, 5, axis.base)) do
    local row = math.floor((1 - marks.fraction(axis, tick.at)) * (rows - 1) + 0.5)
    if tick.label ~= "" and row >= 0 and row < rows and not by_row[row] then
      by_row[row] = tick.label
      widest = math.max(widest, utf8.len(tick.label))
    end
  end
  return by_row, widest
end

-- Writes words into a line of blanks, unless they touch what is there.
local function put(cells, at, words)
  local n = utf8.len(words)
  at = math.max(1, math.min(at - n // 2, #cells - n + 1))
  for i = at - 1, at + n do
    if cells[i] and cells[i] ~= " " then return end
  end
  local i = at
  for _, code in utf8.codes(words) do
    if cells[i] then cells[i] = utf8.char(code) end
    i = i + 1
  end
end

local function distinct(values)
  local seen, list = {}, {}
  for _, value in ipairs(values) do
    if not seen[value] then list[#list + 1] = value end
    seen[value] = true
  end
  table.sort(list)
  return list
end

local function x_line(axis, columns)
  local cells, list = {}, ticks.categories(axis.categories or {})
  for i = 1, columns do cells[i] = " " end
  local values = axis.values and distinct(axis.values) or {}
  if #values > 0 and #values <= max_own_ticks and not axis.unit and not axis.categories then
    list = ticks.at(values)
  elseif not axis.categories then
    list = (axis.log and ticks.log or ticks.linear)(axis.low, axis.high, axis.unit, 5, axis.base)
  end
  for _, tick in ipairs(list) do
    local label = letters.clean(tick.label, 16)
    local at = math.floor(marks.fraction(axis, tick.at) * (columns - 1) + 1.5)
    if label ~= "" and at >= 1 and at <= columns then put(cells, at, label) end
  end
  return (table.concat(cells):gsub("%s+$", ""))
end

local function panel_lines(data, panel, width, colour, out)
  local by_row, widest = y_labels(data.y)
  local canvas = canvas_of(width - widest - 2)
  for _, line in ipairs(panel.lines) do draw_line(canvas, data, line) end
  for row = 0, rows - 1 do
    local label = by_row[row] or ""
    local pad = (" "):rep(widest - utf8.len(label))
    local line = canvas_line(canvas, row, colour):gsub("%s+$", "")
    out[#out + 1] = ("%s%s %s%s"):format(pad, label, by_row[row] and "┤" or "│", line)
  end
  local indent = (" "):rep(widest + 1)
  out[#out + 1] = indent .. "└" .. ("─"):rep(canvas.columns)
  out[#out + 1] = indent .. " " .. x_line(data.x, canvas.columns)
  local name = letters.clean(data.x.name, 48)
  out[#out + 1] = indent .. (" "):rep(math.max(1, (canvas.columns - utf8.len(name)) // 2)) .. name
end

local function legend(data, colour, out)
  local seen, parts = {}, {}
  for _, panel in ipairs(data.panels) do
    for _, line in ipairs(panel.lines) do
      if line.label and not seen[line.label] then
        seen[line.label] = true
        local mark = bare[line.form] and "⠒" or signs[line.style]
        parts[#parts + 1] = painted(mark, line.style, colour) .. " " .. text.printable(line.label)
      end
    end
  end
  if #parts > 0 then out[#out + 1] = table.concat(parts, "   ") end
end

-- A title, and the name of y under it where the title does not say it.
local function add_title(out, title, name)
  out[#out + 1] = letters.clean(title)
  if name ~= title then out[#out + 1] = letters.clean(name, 48) end
end

--- A chart of panels.
---@param data attune.Lines
---@param spec attune.PlotSpec
---@param width integer columns of the terminal
---@param colour boolean
---@return string[] lines
function terminal.panels(data, spec, width, colour)
  width = math.max(min_width, math.min(max_width, width))
  local out = {}
  add_title(out, spec.title or spec.y, data.y.name)
  legend(data, colour, out)
  for _, panel in ipairs(data.panels) do
    if panel.title then out[#out + 1] = letters.clean(panel.title, 48) end
    panel_lines(data, panel, width, colour, out)
  end
  for _, note in ipairs(data.notes) do out[#out + 1] = text.printable(note) end
  return out
end

local eighths = {"▏", "▎", "▍", "▌", "▋", "▊", "▉"}

-- A bar of a length in letters.
local function bar(length)
  local whole = math.floor(length)
  local part = math.floor((length - whole) * 8)
  return ("█"):rep(whole) .. (eighths[part] or "")
end

--- Bars, one per line.
---@param title string
---@param list {panel: string?, group: string, name: string?, value: number, text: string,
--- style: integer}[] the name of a panel stands above its bars
---@param notes string[]
---@return string[] lines
function terminal.bars(title, list, notes, width, colour)
  width = math.max(min_width, math.min(max_width, width))
  local out, names, widest, high, value_width = {letters.clean(title)}, {}, 1, 0, 1
  for i, item in ipairs(list) do
    names[i] = letters.clean(item.name and item.group .. ", " .. item.name or item.group, 24)
    widest = math.max(widest, utf8.len(names[i]))
    value_width = math.max(value_width, utf8.len(item.text))
    high = math.max(high, math.abs(item.value))
  end
  local room, panel = width - widest - value_width - 4, nil
  for i, item in ipairs(list) do
    if item.panel ~= panel then out[#out + 1] = letters.clean(item.panel or "", 48) end
    panel = item.panel
    local pad = (" "):rep(widest - utf8.len(names[i]))
    local length = high > 0 and math.abs(item.value) / high * room or 0
    local drawn = painted(bar(length), item.style, colour)
    -- A bar to the left of 0 is told by its sign only.
    out[#out + 1] = ("%s%s %s %s"):format(pad, names[i], drawn, item.text)
  end
  for _, note in ipairs(notes) do out[#out + 1] = text.printable(note) end
  return out
end

local shades = {" ", "░", "▒", "▓", "█"}

--- Cells in rows, each with its value and a shade.
---@param title string
---@param xs string[] names of columns
---@param ys string[] names of rows, from below
---@param cells {x: integer, y: integer, text: string, fraction: number?}[]
---@param notes string[]
---@return string[] lines
function terminal.cells(title, xs, ys, cells, notes, width)
  width = math.max(min_width, width)
  local grid, head, rows_of = {}, {{""}}, {}
  for i, x in ipairs(xs) do head[i + 1] = {letters.clean(x, 16), right = true} end
  for _, cell in ipairs(cells) do
    local shade = cell.fraction and shades[math.floor(cell.fraction * 4 + 0.5) + 1] or "?"
    grid[cell.y] = grid[cell.y] or {}
    grid[cell.y][cell.x] = cell.text .. " " .. shade:rep(2)
  end
  for y = #ys, 1, -1 do
    local row = {letters.clean(ys[y], 16)}
    for x = 1, #xs do row[x + 1] = grid[y] and grid[y][x] or "" end
    rows_of[#rows_of + 1] = row
  end
  local out = {letters.clean(title)}
  for _, line in ipairs(text.columns(head, rows_of)) do
    -- Columns that the terminal has no room for are cut; the table of attune show has them.
    if utf8.len(line) > width then line = line:sub(1, utf8.offset(line, width) - 1) .. "…" end
    out[#out + 1] = line
  end
  for _, note in ipairs(notes) do out[#out + 1] = text.printable(note) end
  return out
end

--- Squares of numbers: two letters per cell, one picture below the other.
---@param title string
---@param pictures {name: string, side: integer, cells: number[]}[]
---@param max_size number
---@return string[] lines
function terminal.pictures(title, pictures, max_size, width)
  local out = {letters.clean(title)}
  for _, picture in ipairs(pictures) do
    out[#out + 1] = letters.clean(picture.name, 60)
    local step = math.max(1, math.ceil(picture.side * 2 / math.max(min_width, width)))
    for y = 1, picture.side, step do
      local line = {}
      for x = 1, picture.side, step do
        local cell = picture.cells[(y - 1) * picture.side + x]
        local size = cell == cell and math.min(1, math.abs(cell) / max_size) or 0
        line[#line + 1] = shades[math.ceil(size * 4) + 1]:rep(2)
      end
      out[#out + 1] = table.concat(line)
    end
  end
  return out
end

return terminal
