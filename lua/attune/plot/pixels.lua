--- Small pictures, one per value of x. The metric is a list of n * n numbers: a square, row by row.
--- 0 is light and the largest size is in the accent colour; numbers below 0 are orange. With
--- `facet` the pictures of each of its values have a heading. All pictures have one scale.
local frame = require "attune.plot.frame"
local gnuplot = require "attune.plot.gnuplot"
local letters = require "attune.plot.letters"
local lines = require "attune.plot.lines"
local series = require "attune.plot.series"
local terminal = require "attune.plot.terminal"
local text = require "attune.util.text"

local max_pictures, max_side, max_columns = 64, 2048, 4

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

-- The pictures of some points in the order of x, or nil and a message.
local function pictures_of(results, spec, points)
  local pictures = {}
  for _, value in ipairs(series.by(points, {by = spec.x, order = spec.order})) do
    local found
    for _, point in ipairs(points) do
      if point.parameters[spec.x] == value and point.metrics[spec.y] then
        if found then
          local where = ("%s %s"):format(spec.x, text.plain(value))
          return nil, series.several(results, {found, point}, "picture", where)
        end
        local picture, why = picture_of(results, spec, point, value)
        if not picture then return nil, why end
        pictures[#pictures + 1] = picture
        found = point
      end
    end
  end
  return pictures
end

-- The pictures in groups {title?, first, count}: one per value of `facet` that has a picture. nil
-- and a message when a picture has several points, or there are too many pictures.
local function groups_of(results, spec, points)
  local groups, pictures = {}, {}
  for _, value in ipairs(spec.facet and series.distinct(points, spec.facet) or {false}) do
    local mine, why = pictures_of(results, spec, series.with(points, spec.facet, value))
    if not mine then return nil, why end
    if #mine > 0 then
      local title = lines.label(spec.facet, value)
      groups[#groups + 1] = {title = title, first = #pictures + 1, count = #mine}
      for _, picture in ipairs(mine) do picture.group = title end
      table.move(mine, 1, #mine, #pictures + 1, pictures)
    end
  end
  if #pictures == 0 then return nil, "there is no point with a value" end
  if #pictures > max_pictures then
    local format = "expected at most %d pictures, got %d: narrow them with where"
    return nil, format:format(max_pictures, #pictures)
  end
  return groups, pictures
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
    names[n] = (picture.group and picture.group .. ", " or "") .. text.plain(picture.value)
    if picture.also then names[n] = ("%s (%s %s)"):format(names[n], spec.also, picture.also) end
  end
  local more = #pictures > 12 and (" and %d more"):format(#pictures - 12) or ""
  return ("%s of %s: squares of numbers for %s %s%s."):format(text.count(#pictures, "picture"),
    spec.y, (spec.facet and spec.facet .. ", " or "") .. spec.x, table.concat(names, ", "), more)
end

-- Where everything is, in inches. The upper edge of picture n is pictures[n].at, measured from the
-- lower edge of the head.
local function layout_of(groups, pictures, spec)
  local layout = {cell = 2.4, columns = 1, left = spec.down and 0.55 or 0.3}
  for _, group in ipairs(groups) do
    layout.columns = math.max(layout.columns, math.min(group.count, max_columns))
  end
  local under = spec.across and 0.25 or 0
  layout.title = 0.22 + 0.2 * wrap_names(pictures, layout.cell) + (spec.also and 0.2 or 0)
  layout.width = math.max(8.5, layout.columns * (layout.cell + layout.left) + 0.3)
  local y = 0.1
  for _, group in ipairs(groups) do
    group.at = y + 0.22
    y = y + (group.title and 0.38 or 0)
    for n = 0, group.count - 1 do
      local picture = pictures[group.first + n]
      picture.column = n % layout.columns
      picture.at = y + n // layout.columns * (layout.cell + layout.title + under) + layout.title
    end
    y = y + math.ceil(group.count / layout.columns) * (layout.cell + layout.title + under)
  end
  layout.height = y
  return layout
end

-- Adds one picture. Returns its data and its spot.
local function add_picture(script, n, picture, spec, layout, max_size, tones, top, size)
  local cell = layout.cell
  local x, y = layout.left + picture.column * (cell + layout.left), top - picture.at
  local is_image = picture.side > max_box_side
  frame.margins(script, x / size.width, (x + cell) / size.width, (y - cell) / size.height,
    y / size.height)
  add(script, "set xrange [0:%d]", picture.side)
  add(script, "set yrange [%d:0]", picture.side)
  add_captions(script, spec, picture, {x = x, top = y}, size)
  add(script, "block = %d", n - 1)
  add(script, "image = %d", is_image and 1 or 0)
  add(script, "load 'pixels.gp'")
  return (is_image and dots or boxes)(picture.cells, picture.side, max_size, tones), {
    x = x + cell / 2, y = y - cell / 2, width = cell, height = cell,
    text = ("%s%s %s%s"):format(picture.group and picture.group .. ", " or "", spec.x,
      text.plain(picture.value),
      picture.also and (": %s %s"):format(picture.also, spec.also) or ""),
  }
end

---@param notes string[] what is left out so far
---@param look attune.Look
---@return attune.Figure? figure
---@return string? message
return function(results, spec, points, notes, look)
  local groups, pictures = groups_of(results, spec, points)
  if not groups then return nil, pictures end
  local max_size, has_negative = extent(pictures)
  local layout = layout_of(groups, pictures, spec)
  local conditions = series.constants(points, results, spec)
  local _, taken = colour_key(has_negative, max_size, {width = layout.width, height = 1},
    look.pixels)
  local head = frame.head(results, spec.title or spec.y, conditions, notes, nil, layout.width,
    taken + 0.2)
  local size = {width = layout.width, height = head.height + layout.height}
  local key = colour_key(has_negative, max_size, size, look.pixels)
  local script, top = {}, size.height - head.height
  frame.add_head(script, head, size)
  add(script, "%s", key)
  for i, group in ipairs(groups) do
    if group.title then
      add(script, "set label %d %s at screen %.4f,%.4f left font ',%d' textcolor rgb ink", 300 + i,
        quote(letters.clean(group.title, 60)), layout.left / size.width,
        (top - group.at) / size.height, frame.font.panel)
    end
  end
  add(script, "set multiplot")
  local blocks, spots = {}, {}
  for n, picture in ipairs(pictures) do
    if n > 1 then add(script, "unset label") end
    blocks[n], spots[n] = add_picture(script, n, picture, spec, layout, max_size, look.pixels, top,
      size)
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
        local name = (picture.group and picture.group .. ", " or "") .. text.plain(picture.value)
        list[n] = {name = name, side = picture.side, cells = picture.cells}
      end
      return terminal.pictures(spec.title or spec.y, list, max_size, columns_of_terminal)
    end,
  }
end
