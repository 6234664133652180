--- A heat map of x against y with the value written in each cell.
local frame = require "attune.plot.frame"
local gnuplot = require "attune.plot.gnuplot"
local series = require "attune.plot.series"
local text = require "attune.util.text"

local add, number, quote = gnuplot.add, gnuplot.number, gnuplot.quote

-- Above this fraction of the range a cell's colour is light and its text dark.
local light_above = 0.55

local function ticks(values)
  local parts = {}
  for i, v in ipairs(values) do parts[i] = ("%s %d"):format(quote(text.plain(v)), i) end
  return "(" .. table.concat(parts, ", ") .. ")"
end

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

-- {["x:y"] = value} by column and row, with the smallest and the largest value. nil and a message
-- when two points fall into one cell.
local function cell_values(results, spec, points, shown, xs, ys)
  local cells, low, high = {}, math.huge, -math.huge
  local same = {facet = spec.y, x = spec.x, against = spec.against}
  for _, point in ipairs(shown) do
    local v = series.value(results, points, point, same, spec.value)
    local x = index_of(xs, point.parameters[spec.x])
    local y = index_of(ys, point.parameters[spec.y])
    if v and v.median and x and y then
      local key = x .. ":" .. y
      if cells[key] then
        local format = "expected one point per cell, got more for %s %s, %s %s: "
          .. "narrow it with where"
        return nil, format:format(spec.x, text.plain(xs[x]), spec.y, text.plain(ys[y]))
      end
      cells[key] = v.median
      low, high = math.min(low, v.median), math.max(high, v.median)
    end
  end
  if not next(cells) then return nil, "there is no point with a value" end
  return cells, low, high
end

-- Three data blocks: rows "x y value" of all cells, as an image needs a value for each, then rows
-- "x y text" of the dark and of the light cells.
local function data_of(spec, cells, columns, rows, low, high, unit)
  local all, dark, light = {}, {}, {}
  for y = 1, rows do
    for x = 1, columns do
      local v = cells[x .. ":" .. y]
      all[#all + 1] = ("%d %d %s"):format(x, y, number(v))
      if v then
        local is_light = high > low and (v - low) / (high - low) > light_above
        local block = is_light and light or dark
        local label = gnuplot.field(frame.value_text(spec, v, unit))
        block[#block + 1] = ("%d %d %s"):format(x, y, label)
      end
    end
  end
  local data = {}
  for i, block in ipairs {all, dark, light} do
    data[i] = #block > 0 and table.concat(block, "\n") or 'NaN NaN ""'
  end
  return table.concat(data, "\n\n\n") .. "\n"
end

---@return attune.Figure? figure
---@return string? message
return function(results, spec, points)
  local shown = shown_points(points, spec)
  local xs, ys = series.distinct(shown, spec.x), series.distinct(shown, spec.y)
  local unit = (series.metric(results, spec.value) or {}).unit
  local cells, low, high = cell_values(results, spec, points, shown, xs, ys)
  if not cells then return nil, low end
  local size = {width = math.max(8.5, 2.6 + 1.2 * #xs), height = math.max(4.2, 2.1 + 0.62 * #ys)}
  local conditions = series.constants(shown, results, spec)
  local script = {frame.title(results, spec.title or spec.value, conditions, size)}
  frame.margins(script, 0.17, 0.87, 0.75 / size.height, 1 - 1.0 / size.height)
  add(script, "set xrange [0.5:%g]", #xs + 0.5)
  add(script, "set yrange [0.5:%g]", #ys + 0.5)
  add(script, "set xtics %s", ticks(xs))
  add(script, "set ytics %s", ticks(ys))
  add(script, "set xlabel %s textcolor rgb quiet", quote(spec.x))
  add(script, "set cbrange [%s:%s]", number(low), number(high > low and high or low + 1))
  add(script, "set format cb %s", frame.value_ticks(spec, unit))
  add(script, "load plots.'/heat.gp'")
  return {
    size = size,
    script = table.concat(script, "\n"),
    data = data_of(spec, cells, #xs, #ys, low, high, unit),
  }
end
