--- What the kinds of charts share: titles, ranges, tick formats.
local gnuplot = require "attune.plot.gnuplot"

local frame = {}

local separator = " · "

-- Two lines of conditions: what does not fit into the first goes before the second. An inch holds about 11 letters.
local function wrapped(first, second, width)
  local room, kept, rest = math.floor(11 * width), {}, {}
  for part in (first .. separator):gmatch("(.-)" .. separator) do
    local to = #rest == 0 and utf8.len(table.concat(kept, separator) .. separator .. part, 1, -1, true) <= room and kept or rest
    to[#to + 1] = part
  end
  rest[#rest + 1] = second
  return table.concat(kept, separator), table.concat(rest, separator)
end

--- Title and two lines of conditions above a figure, as gnuplot labels on the whole screen. They take the top 0.95 inch.
function frame.title(title, first, second, size)
  first, second = wrapped(first, second, size.width)
  local function at(inches) return 1 - inches / size.height end
  return ("set label 100 %s at screen 0.02,%.4f left font ',17' textcolor rgb ink\nset label 101 %s at screen 0.02,%.4f left font ',11' textcolor rgb quiet\nset label 102 %s at screen 0.02,%.4f left font ',11' textcolor rgb quiet\n"):format(
    gnuplot.quote(title), at(0.30), gnuplot.quote(first), at(0.58), gnuplot.quote(second), at(0.78))
end

--- The format of a unit's ticks, with SI prefixes.
function frame.ticks(unit)
  if unit == "B" then return "'%.0b %BB'" end
  if unit == "%" then return "'%g%%'" end
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

--- Ticks of an axis of bytes from 0: steps of a power of two, each with its text.
function frame.byte_ticks(high)
  local step, parts = 1, {}
  while high / step > 8 do step = step * 2 end
  for i = 0, math.floor(high / step) do
    local bytes = i * step
    local label = bytes == 0 and "0" or require "attune.text".quantity(bytes, "B"):gsub("%.0+ ", " ")
    parts[#parts + 1] = ("%s %d"):format(gnuplot.quote(label), bytes)
  end
  return "(" .. table.concat(parts, ", ") .. ")"
end

--- The machine and the rounds, for the second line of conditions.
function frame.machine(results)
  local parts = {}
  local machine = results.provenance[#results.provenance]
  if machine and machine.cpu then parts[1] = ("%s, %s threads, %s"):format(machine.cpu, tostring(machine.threads or "?"), machine.isa or "?") end
  local rounds = 0
  for _, point in ipairs(results.points) do rounds = math.max(rounds, point.rounds) end
  parts[#parts + 1] = rounds == 1 and "one round" or ("median of %d rounds, 95%% intervals"):format(rounds)
  return table.concat(parts, " · ")
end

return frame
