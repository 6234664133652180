--- Small pictures, one for each value of x: the metric's list of numbers is a square, row by row. Light is 0, the accent colour the greatest of all;
-- where there are numbers below 0, orange is as far below it.
local frame = require "attune.plot.frame"
local gnuplot = require "attune.plot.gnuplot"
local series = require "attune.plot.series"
local text = require "attune.text"

local number, quote = gnuplot.number, gnuplot.quote
local light, dark, below = {0xE9, 0xEE, 0xF3}, {0x00, 0x72, 0xB2}, {0xD5, 0x5E, 0x00}
-- Up to so many cells a side each is a box of its own; with more, a picture is an image, of at least so many dots a side, or viewers would blur it.
local boxes_most, image_dots = 48, 240

-- Red, green and blue of a share of the greatest, from -1 to 1.
local function colour(share)
  local rgb, to = {}, share < 0 and below or dark
  for n = 1, 3 do rgb[n] = math.floor(light[n] + math.abs(share) * (to[n] - light[n]) + 0.5) end
  return rgb
end

local function packed(rgb) return (rgb[1] * 256 + rgb[2]) * 256 + rgb[3] end

-- Shares of the greatest; what is no number is light.
local function shares(cells, greatest)
  local list = {}
  for n, cell in ipairs(cells) do list[n] = cell == cell and math.max(-1, math.min(1, cell / greatest)) or 0 end
  return list
end

-- Rows "x1 x2 y1 y2 colour", y downwards: the ground, then a box each cell that is not 0, with some room between them.
local function boxes(cells, side, greatest)
  local rows, gap = {("0 %d 0 %d %d"):format(side, side, packed(colour(0)))}, 0.06
  for n, share in ipairs(shares(cells, greatest)) do
    local x, y = (n - 1) % side, (n - 1) // side
    local box = {number(x + gap), number(x + 1 - gap), number(y + gap), number(y + 1 - gap), packed(colour(share))}
    if share ~= 0 then rows[#rows + 1] = table.concat(box, " ") end
  end
  return table.concat(rows, "\n")
end

-- Rows "x y red green blue", a dot each. 32 shades to either side tell as much as eyes do and keep the file small.
local function dots(cells, side, greatest)
  local rows, each, line = {}, math.ceil(image_dots / side), {}
  for n, share in ipairs(shares(cells, greatest)) do
    local x, y = (n - 1) % side, (n - 1) // side
    local rgb = table.concat(colour(math.floor(share * 32 + 0.5) / 32), " ")
    for i = 0, each - 1 do line[#line + 1] = {x + (i + 0.5) / each, rgb} end
    if x == side - 1 then
      for i = 0, each - 1 do
        for _, dot in ipairs(line) do rows[#rows + 1] = ("%.6g %.6g %s"):format(dot[1], y + (i + 0.5) / each, dot[2]) end
      end
      line = {}
    end
  end
  return table.concat(rows, "\n")
end

-- What the colours mean, right of the title.
local function key(least, greatest, size)
  local script, at = {}, 1 - 0.2 / size.width
  for n, share in ipairs {1, 0, -1} do
    if share >= 0 or least < 0 then
      local label = ("%.3g"):format(share * greatest):gsub("-", "−")
      local y = 1 - 0.3 / size.height
      script[#script + 1] = ("set label %d %s at screen %.4f,%.4f right font ',11' textcolor rgb quiet"):format(110 + 2 * n, quote(label), at, y)
      at = at - (0.05 + 0.09 * utf8.len(label)) / size.width
      script[#script + 1] = ("set label %d '■' at screen %.4f,%.4f right font ',14' textcolor rgb '#%06X'"):format(111 + 2 * n, at, y, packed(colour(share)))
      at = at - 0.35 / size.width
    end
  end
  return table.concat(script, "\n")
end

return function(results, spec, points)
  local pictures, least, greatest = {}, 0, 0
  for _, value in ipairs(series.by(points, {by = spec.x, order = spec.order})) do
    for _, point in ipairs(points) do
      local m = point.parameters[spec.x] == value and point.metrics[spec.y]
      if m then
        if pictures[#pictures] and pictures[#pictures].value == value then return nil, ("expected one point a picture, got more for %s %s: narrow it with where"):format(spec.x, text.plain(value)) end
        local cells = m.samples[#m.samples]
        local side = math.tointeger(math.floor(math.sqrt(#cells) + 0.5))
        if side * side ~= #cells then return nil, ("%s: expected as many numbers as a square has, got %d for %s %s"):format(spec.y, #cells, spec.x, text.plain(value)) end
        for _, cell in ipairs(cells) do
          if cell == cell and math.abs(cell) < math.huge then least, greatest = math.min(least, cell), math.max(greatest, math.abs(cell)) end
        end
        local also = spec.also and point.metrics[spec.also]
        pictures[#pictures + 1] = {value = value, cells = cells, side = side, also = also and text.quantity(also.median, (series.metric(results, spec.also) or {}).unit)}
      end
    end
  end
  if #pictures == 0 then return nil, "there is no point with a value" end
  if greatest == 0 then greatest = 1 end
  local columns = math.min(#pictures, 4)
  local rows, cell, title, left, under = math.ceil(#pictures / columns), 2.4, 0.62, spec.down and 0.55 or 0.3, spec.across and 0.25 or 0
  local size = {width = math.max(8.5, columns * (cell + left) + 0.3), height = 1.05 + rows * (cell + title + under)}
  local script, blocks = {frame.title(spec.title or spec.y, table.concat(series.constants(points, results, spec), " · "), frame.machine(results), size), key(least, greatest, size), "set multiplot"}, {}
  for n, picture in ipairs(pictures) do
    local x = left + (n - 1) % columns * (cell + left)
    local y = size.height - 1.0 - (n - 1) // columns * (cell + title + under) - title
    local image = picture.side > boxes_most
    blocks[n] = (image and dots or boxes)(picture.cells, picture.side, greatest)
    if n > 1 then script[#script + 1] = "unset label" end
    script[#script + 1] = ("set lmargin at screen %.4f\nset rmargin at screen %.4f\nset tmargin at screen %.4f\nset bmargin at screen %.4f\nset xrange [0:%d]\nset yrange [%d:0]"):format(
      x / size.width, (x + cell) / size.width, y / size.height, (y - cell) / size.height, picture.side, picture.side)
    script[#script + 1] = ("set label 201 %s at graph 0,1.13 left font ',13' textcolor rgb ink\nset label 202 %s at graph 0,1.045 left font ',11' textcolor rgb quiet"):format(
      quote(text.plain(picture.value)), quote(picture.also and ("%s %s"):format(picture.also, (spec.also:gsub("_", " "))) or ""))
    if spec.across then script[#script + 1] = ("set label 203 %s at graph 0.5,-0.06 center font ',11' textcolor rgb quiet"):format(quote(spec.across)) end
    if spec.down then script[#script + 1] = ("set label 204 %s at graph -0.06,0.5 center rotate by -90 font ',11' textcolor rgb quiet"):format(quote(spec.down)) end
    script[#script + 1] = ("block = %d\nimage = %d\nload plots.'/pixels.gp'"):format(n - 1, image and 1 or 0)
  end
  script[#script + 1] = "unset multiplot"
  return {size = size, script = table.concat(script, "\n"), data = table.concat(blocks, "\n\n\n") .. "\n"}
end
