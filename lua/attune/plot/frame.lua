--- Common to all kinds of charts: titles, margins, ranges, formats of ticks.
local gnuplot = require "attune.plot.gnuplot"
local text = require "attune.util.text"

local add, quote = gnuplot.add, gnuplot.quote
local frame = {}

local separator = " · "
local letters_per_inch = 11 -- of the font that the conditions are written in

-- Splits the conditions into two lines: what does not fit into the first goes before the second.
local function wrapped(first, second, width)
  local room, kept, rest = math.floor(letters_per_inch * width), {}, {}
  for part in (first .. separator):gmatch("(.-)" .. separator) do
    local line = table.concat(kept, separator) .. separator .. part
    local fits = #rest == 0 and utf8.len(line, 1, -1, true) <= room
    local to = fits and kept or rest
    to[#to + 1] = part
  end
  rest[#rest + 1] = second
  return table.concat(kept, separator), table.concat(rest, separator)
end

-- The machine and the number of rounds, for the second line of conditions.
local function machine_and_rounds(results)
  local parts = {}
  local run = results.provenance[#results.provenance]
  if run and run.cpu then
    local threads = tostring(run.threads or "?")
    parts[1] = ("%s, %s threads, %s"):format(run.cpu, threads, run.isa or "?")
  end
  local rounds = 0
  for _, point in ipairs(results.points) do rounds = math.max(rounds, point.rounds) end
  local many = "median of %d rounds, 95%% intervals"
  parts[#parts + 1] = rounds == 1 and "one round" or many:format(rounds)
  return table.concat(parts, separator)
end

--- Commands for a title and two lines of conditions above a figure. They take the top 0.95 inch.
---@param results attune.Results
---@param title string
---@param conditions string[] such as "head_dim 128"
---@param size {width: number, height: number} inches
---@return string
function frame.title(results, title, conditions, size)
  local joined = table.concat(conditions, separator)
  local first, second = wrapped(joined, machine_and_rounds(results), size.width)
  local script = {}
  local function line(number, words, inches, font, colour)
    local y = 1 - inches / size.height
    add(script, "set label %d %s at screen 0.02,%.4f left font ',%d' textcolor rgb %s", number,
      quote(words), y, font, colour)
  end
  line(100, title, 0.30, 17, "ink")
  line(101, first, 0.58, 11, "quiet")
  line(102, second, 0.78, 11, "quiet")
  return table.concat(script, "\n") .. "\n"
end

--- Adds commands that set the plot's edges, as fractions of the whole picture.
function frame.margins(script, left, right, bottom, top)
  add(script, "set lmargin at screen %.4f", left)
  add(script, "set rmargin at screen %.4f", right)
  add(script, "set bmargin at screen %.4f", bottom)
  add(script, "set tmargin at screen %.4f", top)
end

--- gnuplot's format, quoted, for the ticks of a unit, with SI or binary prefixes.
---@param unit string?
---@return string
function frame.ticks(unit)
  if unit == "B" then return "'%.0b %BB'" end
  if unit == "%" then return "'%g%%'" end
  if unit and unit ~= "" and unit ~= "1" then return quote("%.0s %c" .. unit) end
  return "'%g'"
end

--- The format of the ticks of a plot's value: a factor where the plot compares, else the unit's.
---@param spec attune.PlotSpec
---@param unit string?
function frame.value_ticks(spec, unit) return spec.against and "'%g×'" or frame.ticks(unit) end

--- A value as it is written into a plot.
---@param spec attune.PlotSpec
---@param value number
---@param unit string?
---@return string
function frame.value_text(spec, value, unit)
  return spec.against and ("%.3g×"):format(value) or text.short(value, unit)
end

--- The range of an axis: the smallest and the largest value with room around them.
---@param values number[]
---@param log boolean? whether the axis is logarithmic
---@param below number room below, as a fraction of the span (of the logarithms on a log axis)
---@param above number room above
---@return number? low nil when a logarithmic axis has a value that is not positive
---@return number? high
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
  -- Values that are all positive get an axis that starts at 0 rather than below it.
  local start = low - below * span
  return low >= 0 and start < 0 and 0 or start, high + above * span
end

--- Ticks of an axis of bytes from 0: steps of a power of two, each with its text.
---@param high number upper end of the axis
---@return string
function frame.byte_ticks(high)
  local step, parts = 1, {}
  while high / step > 8 do step = step * 2 end
  for i = 0, math.floor(high / step) do
    local bytes = i * step
    local label = bytes == 0 and "0" or text.quantity(bytes, "B"):gsub("%.0+ ", " ")
    parts[#parts + 1] = ("%s %d"):format(quote(label), bytes)
  end
  return "(" .. table.concat(parts, ", ") .. ")"
end


return frame
