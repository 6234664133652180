--- What the kinds of charts share: titles, ranges, tick formats.
local gnuplot = require "attune.plot.gnuplot"

local frame = {}

--- Title and sub-title above a figure, as gnuplot labels on the whole screen.
function frame.title(title, subtitle, size)
  local top = 1 - 0.32 / size.height
  return ("set label 100 %s at screen 0.02,%.4f left font ',%s' textcolor rgb ink\nset label 101 %s at screen 0.02,%.4f left font ',%s' textcolor rgb quiet\n"):format(
    gnuplot.quote(title), top, "18", gnuplot.quote(subtitle), top - 0.30 / size.height, "13")
end

--- The format of a unit's ticks, with SI prefixes.
function frame.ticks(unit)
  if unit == "B" then return "'%.0b %BB'" end
  if unit and unit ~= "" and unit ~= "1" then return gnuplot.quote("%.0s %c" .. unit) end
  return "'%g'"
end

--- Lowest and highest of some numbers with room around them: a share of the span, in logarithms where the axis is logarithmic.
function frame.range(values, log, below, above)
  local low, high = math.huge, -math.huge
  for _, v in ipairs(values) do low, high = math.min(low, v), math.max(high, v) end
  if log then
    if low <= 0 then return nil end
    local a, b = math.log(low), math.log(high)
    local span = math.max(b - a, math.log(2))
    return math.exp(a - below * span), math.exp(b + above * span)
  end
  local span = high - low
  if span == 0 then span = math.abs(high) > 0 and math.abs(high) or 1 end
  return (low >= 0 and low - below * span < 0) and 0 or low - below * span, high + above * span
end

--- The machine and the rounds, for sub-titles.
function frame.conditions(results, constants)
  local parts = table.move(constants, 1, #constants, 1, {})
  local machine = results.provenance[#results.provenance]
  if machine and machine.cpu then parts[#parts + 1] = ("%s, %s threads, %s"):format(machine.cpu, tostring(machine.threads or "?"), machine.isa or "?") end
  local rounds = 0
  for _, point in ipairs(results.points) do rounds = math.max(rounds, point.rounds) end
  parts[#parts + 1] = rounds == 1 and "one round" or ("median of %d rounds, 95%% intervals"):format(rounds)
  return table.concat(parts, " · ")
end

return frame
