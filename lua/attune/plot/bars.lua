--- Groups of bars: one group per value of x and one bar per value of `by`. The bars are grey, the
--- last one of each group is in the accent colour.
local frame = require "attune.plot.frame"
local gnuplot = require "attune.plot.gnuplot"
local series = require "attune.plot.series"
local text = require "attune.util.text"

local add, number, quote = gnuplot.add, gnuplot.number, gnuplot.quote
local accent, greys = "#0072B2", {"#BDBDBD", "#8C8C8C", "#6B6B6B", "#D9D9D9"}
local group_width = 0.8 -- of the distance between two groups

-- The value of the first point that is in the group, belongs to the bar and was measured.
local function value_of(results, points, spec, group, bar)
  for _, point in ipairs(points) do
    local in_bar = bar == false or point.parameters[spec.by] == bar
    if point.parameters[spec.x] == group and in_bar then
      local v = series.value(results, points, point, spec, spec.y)
      if v and v.median then return v end
    end
  end
end

-- One data block per bar with rows "x y lo hi label", and all values that the axis must show.
local function data_blocks(results, spec, points, groups, bars, unit)
  local values, blocks = {}, {}
  local width = group_width / #bars
  for b, bar in ipairs(bars) do
    local block = {}
    for g, group in ipairs(groups) do
      local v = value_of(results, points, spec, group, bar)
      if v then
        local x = g + (b - (#bars + 1) / 2) * width
        local has_interval = v.lo ~= v.hi
        values[#values + 1] = v.hi or v.median
        block[#block + 1] = table.concat({
          number(x),
          number(v.median),
          number(has_interval and v.lo or nil),
          number(has_interval and v.hi or nil),
          gnuplot.field(frame.value_text(spec, v.median, unit)),
        }, " ")
      end
    end
    -- A block without rows would change the index of the blocks after it.
    blocks[b] = #block > 0 and table.concat(block, "\n") or 'NaN NaN NaN NaN ""'
  end
  return blocks, values
end

-- The names of the bars with their colours, in a row under the title.
local function add_legend(script, bars)
  local x = 0.1
  for b, bar in ipairs(bars) do
    if bar ~= false then
      local name, label = text.plain(bar), 300 + 2 * b
      add(script, "set label %d '■' at screen %.3f,0.80 left font ',14' textcolor rgb fill[%d]",
        label, x, b)
      add(script, "set label %d %s at screen %.3f,0.80 left font ',14' textcolor rgb ink",
        label + 1, quote(name), x + 0.02)
      x = x + 0.05 + 0.012 * #name
    end
  end
end

---@return attune.Figure? figure
---@return string? message
return function(results, spec, points)
  local groups, bars = series.distinct(points, spec.x), series.by(points, spec)
  local unit = (series.metric(results, spec.y) or {}).unit
  local blocks, values = data_blocks(results, spec, points, groups, bars, unit)
  if #values == 0 then return nil, "there is no point with a value" end
  local ticks, fills = {}, {}
  for g, group in ipairs(groups) do ticks[g] = ("%s %d"):format(quote(text.plain(group)), g) end
  for b = 1, #bars do fills[b] = quote(b == #bars and accent or greys[(b - 1) % #greys + 1]) end
  values[#values + 1] = 0
  local low, high = frame.range(values, false, 0, 0.12)
  local count = #groups * #bars
  local size = {width = math.max(8.5, math.min(13, 1.6 + count * 0.85)), height = 5.6}
  local conditions = series.constants(points, results, spec)
  local script = {frame.title(results, spec.title or spec.y, conditions, size)}
  frame.margins(script, 0.1, 0.97, 0.1, 0.75)
  add(script, "set xrange [0.4:%g]", #groups + 0.6)
  add(script, "set yrange [%s:%s]", number(low), number(high))
  add(script, "set xtics (%s) font ',15'", table.concat(ticks, ", "))
  add(script, "set format y %s", frame.value_ticks(spec, unit))
  add(script, "barwidth = %g", group_width / #bars * 0.92)
  add(script, "series = %d", #bars)
  add(script, "array fill[%d] = [%s]", #bars, table.concat(fills, ","))
  add(script, "labelfont = %s", quote(count > 12 and ",10" or ",12"))
  if unit == "B" and not spec.against then add(script, "set ytics %s", frame.byte_ticks(high)) end
  add_legend(script, bars)
  add(script, "load plots.'/bars.gp'")
  return {
    size = size,
    script = table.concat(script, "\n"),
    data = table.concat(blocks, "\n\n\n") .. "\n",
  }
end
