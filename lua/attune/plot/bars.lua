--- Groups of bars, a group for each value of x and a bar for each of `by`: grey, the last one in the accent colour.
local frame = require "attune.plot.frame"
local gnuplot = require "attune.plot.gnuplot"
local series = require "attune.plot.series"
local text = require "attune.text"

local number, quote = gnuplot.number, gnuplot.quote
local greys = {"#BDBDBD", "#8C8C8C", "#6B6B6B", "#D9D9D9"}

return function(results, spec, points)
  local groups = series.distinct(points, spec.x)
  local bars = series.by(points, spec)
  local metric = series.metric(results, spec.y) or {}
  local width = 0.8 / #bars
  local values, blocks, ticks, fills = {}, {}, {}, {}
  for b, bar in ipairs(bars) do
    local block = {}
    for g, group in ipairs(groups) do
      for _, point in ipairs(points) do
        if point.parameters[spec.x] == group and (bar == false or point.parameters[spec.by] == bar) then
          local v = series.value(results, points, point, spec, spec.y)
          if v and v.median then
            local place = g + (b - (#bars + 1) / 2) * width
            values[#values + 1] = v.hi or v.median
            block[#block + 1] = ("%s %s %s %s %s"):format(number(place), number(v.median), number(v.lo ~= v.hi and v.lo or nil), number(v.lo ~= v.hi and v.hi or nil),
              gnuplot.field(spec.against and ("%.3g×"):format(v.median) or text.short(v.median, metric.unit)))
            break
          end
        end
      end
    end
    -- A block without rows would shift the numbers of those after it.
    blocks[b] = #block > 0 and table.concat(block, "\n") or "NaN NaN NaN NaN \"\""
    fills[b] = quote(b == #bars and "#0072B2" or greys[(b - 1) % #greys + 1])
  end
  if #values == 0 then return nil, "there is no point with a value" end
  for g, group in ipairs(groups) do ticks[g] = ("%s %d"):format(quote(text.plain(group)), g) end
  values[#values + 1] = 0
  local low, high = frame.range(values, false, 0, 0.12)
  local size = {width = math.max(8.5, math.min(13, 1.6 + #groups * #bars * 0.85)), height = 5.6}
  local script = {frame.title(spec.title or spec.y, table.concat(series.constants(points, results, spec), " · "), frame.machine(results), size)}
  script[#script + 1] = ("set lmargin at screen 0.1\nset rmargin at screen 0.97\nset bmargin at screen 0.1\nset tmargin at screen 0.75\nset xrange [0.4:%g]\nset yrange [%s:%s]"):format(
    #groups + 0.6, number(low), number(high))
  script[#script + 1] = ("set xtics (%s) font ',15'\nset format y %s\nbarwidth = %g\nseries = %d\narray fill[%d] = [%s]\nlabelfont = %s"):format(table.concat(ticks, ", "),
    spec.against and "'%g×'" or frame.ticks(metric.unit), width * 0.92, #bars, #bars, table.concat(fills, ","), quote(#groups * #bars > 12 and ",10" or ",12"))
  if metric.unit == "B" and not spec.against then script[#script + 1] = "set ytics " .. frame.byte_ticks(high) end
  local at = 0.1
  for b, bar in ipairs(bars) do
    if bar ~= false then
      script[#script + 1] = ("set label %d '■' at screen %.3f,0.80 left font ',14' textcolor rgb fill[%d]\nset label %d %s at screen %.3f,0.80 left font ',14' textcolor rgb ink"):format(
        300 + 2 * b, at, b, 301 + 2 * b, quote(text.plain(bar)), at + 0.02)
      at = at + 0.05 + 0.012 * #text.plain(bar)
    end
  end
  script[#script + 1] = "load plots.'/bars.gp'"
  return {size = size, script = table.concat(script, "\n"), data = table.concat(blocks, "\n\n\n") .. "\n"}
end
