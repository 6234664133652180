--- Small pictures, one for each value of x: the metric's list of numbers is a square, row by row, from light (0) to the accent colour (the greatest).
local frame = require "attune.plot.frame"
local gnuplot = require "attune.plot.gnuplot"
local series = require "attune.plot.series"
local text = require "attune.text"

local number, quote = gnuplot.number, gnuplot.quote
local light, dark = {0xE9, 0xEE, 0xF3}, {0x00, 0x72, 0xB2}

local function colour(share)
  local rgb = 0
  for n = 1, 3 do rgb = rgb * 256 + math.floor(light[n] + share * (dark[n] - light[n]) + 0.5) end
  return rgb
end

-- Rows "x1 x2 y1 y2 colour" of one picture, y downwards: the ground, then a box each cell that is not 0 with some room between them or, where they are many, a box each run of equal ones.
local function boxes(cells, side, greatest)
  local rows, gap = {("0 %d 0 %d %d"):format(side, side, colour(0))}, side <= 48 and 0.06 or 0
  for y = 1, side do
    local x = 1
    while x <= side do
      local value, last = cells[(y - 1) * side + x], x
      while gap == 0 and last < side and cells[(y - 1) * side + last + 1] == value do last = last + 1 end
      local share = value == value and math.max(0, math.min(1, value / greatest)) or 0
      -- Runs reach a little into the next row, so that no seam shows.
      if share > 0 then
        rows[#rows + 1] = ("%s %s %s %s %d"):format(number(x - 1 + gap), number(last - gap), number(y - 1 + gap), number(gap == 0 and math.min(side, y + 0.1) or y - gap), colour(share))
      end
      x = last + 1
    end
  end
  return table.concat(rows, "\n")
end

return function(results, spec, points)
  local pictures, greatest = {}, 0
  for _, value in ipairs(series.by(points, {by = spec.x, order = spec.order})) do
    for _, point in ipairs(points) do
      local m = point.parameters[spec.x] == value and point.metrics[spec.y]
      if m then
        if pictures[#pictures] and pictures[#pictures].value == value then return nil, ("expected one point a picture, got more for %s %s: narrow it with where"):format(spec.x, text.plain(value)) end
        local cells = m.samples[#m.samples]
        local side = math.tointeger(math.floor(math.sqrt(#cells) + 0.5))
        if side * side ~= #cells then return nil, ("%s: expected as many numbers as a square has, got %d for %s %s"):format(spec.y, #cells, spec.x, text.plain(value)) end
        for _, cell in ipairs(cells) do greatest = math.max(greatest, cell == cell and cell < math.huge and cell or 0) end
        local also = spec.also and point.metrics[spec.also]
        pictures[#pictures + 1] = {value = value, cells = cells, side = side, also = also and text.quantity(also.median, (series.metric(results, spec.also) or {}).unit)}
      end
    end
  end
  if #pictures == 0 then return nil, "there is no point with a value" end
  if greatest == 0 then greatest = 1 end
  local columns = math.min(#pictures, 4)
  local rows, cell, title = math.ceil(#pictures / columns), 2.4, 0.62
  local size = {width = math.max(8.5, columns * (cell + 0.3) + 0.3), height = 1.05 + rows * (cell + title)}
  local script, blocks = {frame.title(spec.title or spec.y, table.concat(series.constants(points, results, spec), " · "), frame.machine(results), size), "set multiplot"}, {}
  for n, picture in ipairs(pictures) do
    local x = 0.3 + (n - 1) % columns * (cell + 0.3)
    local y = size.height - 1.0 - (n - 1) // columns * (cell + title) - title
    blocks[n] = boxes(picture.cells, picture.side, greatest)
    if n > 1 then script[#script + 1] = "unset label" end
    script[#script + 1] = ("set lmargin at screen %.4f\nset rmargin at screen %.4f\nset tmargin at screen %.4f\nset bmargin at screen %.4f\nset xrange [0:%d]\nset yrange [%d:0]"):format(
      x / size.width, (x + cell) / size.width, y / size.height, (y - cell) / size.height, picture.side, picture.side)
    script[#script + 1] = ("set label 201 %s at graph 0,1.13 left font ',13' textcolor rgb ink\nset label 202 %s at graph 0,1.045 left font ',11' textcolor rgb quiet\nblock = %d\nload plots.'/pixels.gp'"):format(
      quote(text.plain(picture.value)), quote(picture.also and ("%s %s"):format(picture.also, (spec.also:gsub("_", " "))) or ""), n - 1)
  end
  script[#script + 1] = "unset multiplot"
  return {size = size, script = table.concat(script, "\n"), data = table.concat(blocks, "\n\n\n") .. "\n"}
end
