--- A map of x against y, the value written in each cell.
local frame = require "attune.plot.frame"
local gnuplot = require "attune.plot.gnuplot"
local series = require "attune.plot.series"
local text = require "attune.text"

local number, quote = gnuplot.number, gnuplot.quote

local function ticks(values)
  local parts = {}
  for i, v in ipairs(values) do parts[i] = ("%s %d"):format(quote(text.plain(v)), i) end
  return "(" .. table.concat(parts, ", ") .. ")"
end

return function(results, spec, points)
  local shown = {}
  for _, point in ipairs(points) do
    local base = spec.against ~= nil
    for name, value in pairs(spec.against or {}) do base = base and point.parameters[name] == value end
    if not base then shown[#shown + 1] = point end
  end
  local xs, ys = series.distinct(shown, spec.x), series.distinct(shown, spec.y)
  local metric = series.metric(results, spec.value) or {}
  local same = {facet = spec.y, x = spec.x, against = spec.against}
  local cells, low, high, seen = {}, math.huge, -math.huge, {}
  for _, point in ipairs(shown) do
    local v = series.value(results, points, point, same, spec.value)
    local x, y
    for i, value in ipairs(xs) do x = point.parameters[spec.x] == value and i or x end
    for i, value in ipairs(ys) do y = point.parameters[spec.y] == value and i or y end
    local key = ("%d:%d"):format(x or 0, y or 0)
    if v and v.median and x and y then
      if seen[key] then return nil, ("expected one point a cell, got more for %s %s, %s %s: narrow it with where"):format(spec.x, text.plain(xs[x]), spec.y, text.plain(ys[y])) end
      seen[key] = true
      cells[#cells + 1] = {x, y, v.median}
      low, high = math.min(low, v.median), math.max(high, v.median)
    end
  end
  if #cells == 0 then return nil, "there is no point with a value" end
  local blocks = {{}, {}, {}}
  -- An image needs a value for every cell of its rectangle.
  local by = {}
  for _, c in ipairs(cells) do by[c[1] .. ":" .. c[2]] = c[3] end
  for y = 1, #ys do
    for x = 1, #xs do
      local v = by[x .. ":" .. y]
      blocks[1][#blocks[1] + 1] = ("%d %d %s"):format(x, y, number(v))
      local light = v and high > low and (v - low) / (high - low) > 0.55
      local shade = blocks[light and 3 or 2]
      if v then shade[#shade + 1] = ("%d %d %s"):format(x, y, gnuplot.field(spec.against and ("%.3g×"):format(v) or text.short(v, metric.unit))) end
    end
  end
  local data = {}
  for i, block in ipairs(blocks) do data[i] = #block > 0 and table.concat(block, "\n") or 'NaN NaN ""' end
  local size = {width = math.max(8.5, 2.6 + 1.2 * #xs), height = math.max(4.2, 2.1 + 0.62 * #ys)}
  local script = {frame.title(spec.title or spec.value, table.concat(series.constants(shown, results, spec), " · "), frame.machine(results), size)}
  script[#script + 1] = ("set lmargin at screen 0.17\nset rmargin at screen 0.87\nset bmargin at screen %.3f\nset tmargin at screen %.3f"):format(0.75 / size.height, 1 - 1.0 / size.height)
  script[#script + 1] = ("set xrange [0.5:%g]\nset yrange [0.5:%g]\nset xtics %s\nset ytics %s\nset xlabel %s textcolor rgb quiet\nset cbrange [%s:%s]\nset format cb %s"):format(#xs + 0.5, #ys + 0.5,
    ticks(xs), ticks(ys), quote(spec.x), number(low), number(high > low and high or low + 1), spec.against and "'%g×'" or frame.ticks(metric.unit))
  script[#script + 1] = "load plots.'/heat.gp'"
  return {size = size, script = table.concat(script, "\n"), data = table.concat(data, "\n\n\n") .. "\n"}
end
