--- Small pictures, one per value of x. The metric is a list of n * n numbers: a square, row by row.
--- 0 is light and the largest size is in the accent colour; numbers below 0 are orange.
local frame = require "attune.plot.frame"
local gnuplot = require "attune.plot.gnuplot"
local letters = require "attune.plot.letters"
local lines = require "attune.plot.lines"
local series = require "attune.plot.series"
local terminal = require "attune.plot.terminal"
local text = require "attune.util.text"

local max_pictures, max_side = 64, 2048

local add, number, quote = gnuplot.add, gnuplot.number, gnuplot.quote

-- Up to this side length each cell is drawn as a box. A larger picture is an image with at least
-- min_image_side dots per side, as viewers blur images with fewer.
local max_box_side, min_image_side = 48, 240

-- Shades per colour of an image: eyes tell no more apart, and the file stays small.
local shades = 32

-- Red, green and blue of a fraction of the largest size, from -1 to 1.
local function colour(fraction, tones)
  local rgb, full = {}, fraction < 0 and tones.below or tones.accent
  for n = 1, 3 do
    rgb[n] = math.floor(tones.light[n] + math.abs(fraction) * (full[n] - tones.light[n]) + 0.5)
  end
  return rgb
end

-- One integer, 0xRRGGBB.
local function packed(rgb) return (rgb[1] * 256 + rgb[2]) * 256 + rgb[3] end

-- Cells as fractions of the largest size; NaN becomes 0.
local function fractions(cells, max_size)
  local list = {}
  for n, cell in ipairs(cells) do
    list[n] = cell == cell and math.max(-1, math.min(1, cell / max_size)) or 0
  end
  return list
end

-- Rows "x1 x2 y1 y2 colour", y downwards: the background, then one box per cell that is not 0, with
-- a gap between boxes.
local function boxes(cells, side, max_size, tones)
  local ground = gnuplot.row(0, side, 0, side, packed(colour(0, tones)))
  local rows, gap = {"# x from\tto\ty from\tto\tcolour", ground}, 0.06
  for n, fraction in ipairs(fractions(cells, max_size)) do
    local x, y = (n - 1) % side, (n - 1) // side
    if fraction ~= 0 then
      rows[#rows + 1] = table.concat({
        number(x + gap),
        number(x + 1 - gap),
        number(y + gap),
        number(y + 1 - gap),
        packed(colour(fraction, tones)),
      }, "\t")
    end
  end
  return table.concat(rows, "\n")
end

-- Rows "x y red green blue", one per dot; a cell covers several dots.
local function dots(cells, side, max_size, tones)
  local rows, per_cell, line = {}, math.ceil(min_image_side / side), {}
  for n, fraction in ipairs(fractions(cells, max_size)) do
    local x, y = (n - 1) % side, (n - 1) // side
    local rgb = table.concat(colour(math.floor(fraction * shades + 0.5) / shades, tones), "\t")
    for i = 0, per_cell - 1 do line[#line + 1] = {x + (i + 0.5) / per_cell, rgb} end
    if x == side - 1 then
      for i = 0, per_cell - 1 do
        local dot_y = y + (i + 0.5) / per_cell
        for _, dot in ipairs(line) do
          rows[#rows + 1] = ("%.6g\t%.6g\t%s"):format(dot[1], dot_y, dot[2])
        end
      end
      line = {}
    end
  end
  return table.concat(rows, "\n")
end

-- Commands for the meaning of the colours, at the right of the title.
local function colour_key(has_negative, max_size, size, tones)
  local script, x = {}, 1 - 0.2 / size.width
  local y = 1 - 0.3 / size.height
  for n, fraction in ipairs {1, 0, -1} do
    if fraction >= 0 or has_negative then
      local label = ("%.3g"):format(fraction * max_size):gsub("-", "−")
      add(script, "set label %d %s at screen %.4f,%.4f right font ',11' textcolor rgb quiet",
        110 + 2 * n, quote(label), x, y)
      x = x - (0.05 + 0.09 * utf8.len(label)) / size.width
      add(script, "set label %d '■' at screen %.4f,%.4f right font ',14' textcolor rgb '#%06X'",
        111 + 2 * n, x, y, packed(colour(fraction, tones)))
      x = x - 0.35 / size.width
    end
  end
  -- The room that the key takes at the right, in inches.
  return table.concat(script, "\n"), (1 - x) * size.width
end

-- The picture of one point, or nil and a message.
local function picture_of(results, spec, point, value)
  local samples = point.metrics[spec.y].samples
  local cells = samples[#samples]
  local side = math.tointeger(math.floor(math.sqrt(#cells) + 0.5))
  if side > max_side then
    local format = "%s: expected at most %d numbers per side, got %d for %s %s"
    return nil, format:format(spec.y, max_side, side, spec.x, text.plain(value))
  end
  if side * side ~= #cells or side == 0 then
    local format = "%s: expected as many numbers as a square has, got %d for %s %s"
    return nil, format:format(spec.y, #cells, spec.x, text.plain(value))
  end
  local also = spec.also and point.metrics[spec.also]
  local unit = (spec.also and series.metric(results, spec.also) or {}).unit
  return {
    value = value,
    label = lines.label(spec.x, value),
    cells = cells,
    side = side,
    also = also and text.quantity(also.centre, unit),
  }
end

-- All pictures in the order of x, or nil and a message.
local function pictures_of(results, spec, points)
  local pictures = {}
  for _, value in ipairs(series.by(points, {by = spec.x, order = spec.order})) do
    local found
    for _, point in ipairs(points) do
      if point.parameters[spec.x] == value and point.metrics[spec.y] then
        if found then
          local format = "expected one point per picture, got more for %s %s: narrow it with where"
          return nil, format:format(spec.x, text.plain(value))
        end
        local picture, why = picture_of(results, spec, point, value)
        if not picture then return nil, why end
        pictures[#pictures + 1] = picture
        found = true
      end
    end
  end
  if #pictures == 0 then return nil, "there is no point with a value" end
  if #pictures > max_pictures then
    local format = "expected at most %d pictures, got %d: narrow them with where"
    return nil, format:format(max_pictures, #pictures)
  end
  return pictures
end

-- The largest |cell| of all pictures (1 when all are 0), and whether a cell is below 0.
local function extent(pictures)
  local max_size, has_negative = 0, false
  for _, picture in ipairs(pictures) do
    for _, cell in ipairs(picture.cells) do
      if cell == cell and math.abs(cell) < math.huge then
        has_negative = has_negative or cell < 0
        max_size = math.max(max_size, math.abs(cell))
      end
    end
  end
  return max_size > 0 and max_size or 1, has_negative
end

-- Lines of text above a picture, from the lowest up.
local function add_captions(script, spec, picture, at, size)
  local x, y = at.x / size.width, at.top + 0.13
  local also = picture.also and ("%s %s"):format(picture.also, (spec.also:gsub("_", " "))) or ""
  local function line(label, words, font, ink)
    add(script, "set label %d %s at screen %.4f,%.4f left font ',%d' textcolor rgb %s", label,
      quote(words), x, y / size.height, font, ink)
    y = y + 0.2
  end
  if also ~= "" then line(202, letters.clean(also, 36), 11, "quiet") end
  for n = #picture.name, 1, -1 do line(210 + n, picture.name[n], 13, "ink") end
  if spec.across then
    add(script, "set label 203 %s at graph 0.5,-0.06 center font ',11' textcolor rgb quiet",
      quote(letters.clean(spec.across, 36)))
  end
  if spec.down then
    add(script,
      "set label 204 %s at graph -0.06,0.5 center rotate by -90 font ',11' textcolor rgb quiet",
      quote(letters.clean(spec.down, 36)))
  end
end

-- The name of each picture in lines that fit above it. Returns the largest number of lines.
local function wrap_names(pictures, room)
  local longest = 1
  for _, picture in ipairs(pictures) do
    picture.name = letters.wrap(letters.clean(picture.label, 120), 13, room)
    longest = math.max(longest, #picture.name)
  end
  return longest
end

-- The figure in sentences.
local function describe(pictures, spec)
  local names = {}
  for n, picture in ipairs(pictures) do
    if n > 12 then break end
    names[n] = text.plain(picture.value)
    if picture.also then names[n] = ("%s (%s %s)"):format(names[n], spec.also, picture.also) end
  end
  local more = #pictures > 12 and (" and %d more"):format(#pictures - 12) or ""
  return ("%s of %s: squares of numbers for %s %s%s."):format(text.count(#pictures, "picture"),
    spec.y, spec.x, table.concat(names, ", "), more)
end

---@param notes string[] what is left out so far
---@param look attune.Look
---@return attune.Figure? figure
---@return string? message
return function(results, spec, points, notes, look)
  local pictures, why = pictures_of(results, spec, points)
  if not pictures then return nil, why end
  local max_size, has_negative = extent(pictures)
  local columns = math.min(#pictures, 4)
  local rows = math.ceil(#pictures / columns)
  -- Inches: a picture's side, the room above it, at its left and below it.
  local cell = 2.4
  local title = 0.22 + 0.2 * wrap_names(pictures, cell) + (spec.also and 0.2 or 0)
  local left, under = spec.down and 0.55 or 0.3, spec.across and 0.25 or 0
  local width = math.max(8.5, columns * (cell + left) + 0.3)
  local conditions = series.constants(points, results, spec)
  local _, taken = colour_key(has_negative, max_size, {width = width, height = 1},
    look.pixels)
  local head = frame.head(results, spec.title or spec.y, conditions, notes, nil, width, taken + 0.2)
  local size = {width = width, height = head.height + 0.1 + rows * (cell + title + under)}
  local key = colour_key(has_negative, max_size, size, look.pixels)
  local script = {}
  frame.add_head(script, head, size)
  add(script, "%s", key)
  add(script, "set multiplot")
  local blocks, spots = {}, {}
  for n, picture in ipairs(pictures) do
    local column, row = (n - 1) % columns, (n - 1) // columns
    local x = left + column * (cell + left)
    local y = size.height - head.height - row * (cell + title + under) - title
    local is_image = picture.side > max_box_side
    blocks[n] = (is_image and dots or boxes)(picture.cells, picture.side, max_size, look.pixels)
    if n > 1 then add(script, "unset label") end
    spots[n] = {
      x = x + cell / 2, y = y - cell / 2, width = cell, height = cell,
      text = ("%s %s%s"):format(spec.x, text.plain(picture.value),
        picture.also and (": %s %s"):format(picture.also, spec.also) or ""),
    }
    frame.margins(script, x / size.width, (x + cell) / size.width, (y - cell) / size.height,
      y / size.height)
    add(script, "set xrange [0:%d]", picture.side)
    add(script, "set yrange [%d:0]", picture.side)
    add_captions(script, spec, picture, {x = x, top = y}, size)
    add(script, "block = %d", n - 1)
    add(script, "image = %d", is_image and 1 or 0)
    add(script, "load 'pixels.gp'")
  end
  add(script, "unset multiplot")
  return {
    size = size,
    script = table.concat(script, "\n"),
    data = table.concat(blocks, "\n\n\n") .. "\n",
    notes = notes,
    spots = spots,
    words = describe(pictures, spec),
    term = function(columns_of_terminal)
      local list = {}
      for n, picture in ipairs(pictures) do
        list[n] = {name = text.plain(picture.value), side = picture.side, cells = picture.cells}
      end
      return terminal.pictures(spec.title or spec.y, list, max_size, columns_of_terminal)
    end,
  }
end
