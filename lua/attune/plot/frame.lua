--- Common to all kinds of charts: titles, margins, ranges, legends.
local gnuplot = require "attune.plot.gnuplot"
local letters = require "attune.plot.letters"
local repeats = require "attune.results.repeats"
local text = require "attune.util.text"

local add, quote = gnuplot.add, gnuplot.quote
local frame = {}

local separator = " · "
local side = 0.17 -- inches at the left and the right of titles and legends
local max_condition_lines = 6

--- Fonts: a font of 100 is one inch high.
frame.font = {title = 17, panel = 15, tick = 15, label = 14, cell = 13, condition = 11}

local kinds = {}
for _, kind in ipairs {"median", "mean", "geometric mean"} do
  kinds[kind .. " alone"] = kind .. " of %s %ss"
  kinds[kind] = kinds[kind .. " alone"] .. ", 95%% intervals"
end

-- The machine and the number of rounds, or of seeds.
local function machine_and_rounds(results, kind)
  local parts = {}
  local run = results.provenance[#results.provenance]
  if run and run.cpu then
    local threads = run.threads == 1 and "1 thread" or ("%s threads"):format(run.threads or "?")
    parts[1] = ("%s, %s, %s"):format(run.cpu, threads, run.isa or "?")
  end
  local count, word = 0, repeats.word(results)
  for _, point in ipairs(results.points) do
    for _, value in pairs(results.seeds and point.metrics or {}) do
      count = math.max(count, value.n)
    end
  end
  local counts = count
  if not results.seeds then counts, count = repeats.rounds(results) end
  if count == 1 then
    parts[#parts + 1] = "one " .. word
  elseif kinds[kind] then
    parts[#parts + 1] = kinds[kind]:format(counts, word)
  end
  return parts
end

---@class attune.Head
---@field lines {text: string, inches: number, font: number, colour: string}[] from the upper edge
---@field height number inches

--- The lines above a figure: its title, what it keeps constant, the machine, what it leaves out.
---@param results attune.Results
---@param title string
---@param conditions string[] such as "head_dim 128"
---@param notes string[] what the figure leaves out
---@param kind string? what the drawn centres are: "mean", "geometric mean", "median" or "value";
--- "mean alone" and so on where their intervals are not drawn
---@param width number of the figure in inches
---@param taken number? inches at the right of the title that are used otherwise
---@return attune.Head
function frame.head(results, title, conditions, notes, kind, width, taken)
  local head, y = {lines = {}}, 0.02
  local function lines(list, font, colour, step)
    for _, line in ipairs(list) do
      y = y + step
      head.lines[#head.lines + 1] = {text = line, inches = y, font = font, colour = colour}
    end
  end
  local room, font = width - 2 * side, frame.font.condition
  local function clean(list)
    local cleaned = {}
    for i, s in ipairs(list) do cleaned[i] = letters.clean(s, 120) end
    return cleaned
  end
  local titles = letters.wrap(letters.clean(title), frame.font.title, room - (taken or 0))
  lines(titles, frame.font.title, "ink", 0.28)
  y = y + 0.08
  local constant = letters.fill(clean(conditions), separator, font, room)
  if #constant > max_condition_lines then
    constant = table.move(constant, 1, max_condition_lines, 1, {})
    constant[max_condition_lines] = constant[max_condition_lines] .. " …"
  end
  lines(constant, font, "quiet", 0.2)
  local machine = clean(machine_and_rounds(results, kind))
  lines(letters.fill(machine, separator, font, room), font, "quiet", 0.2)
  for _, note in ipairs(notes) do
    lines(letters.wrap(letters.clean(note), font, room), font, "warned", 0.2)
  end
  head.height = y + 0.17
  return head
end

--- Adds the commands that write the lines above a figure.
---@param script string[]
---@param head attune.Head
---@param size {width: number, height: number}
function frame.add_head(script, head, size)
  for i, line in ipairs(head.lines) do
    add(script, "set label %d %s at screen %.4f,%.4f left font ',%d' textcolor rgb %s", 1000 + i,
      quote(line.text), side / size.width, 1 - line.inches / size.height, line.font, line.colour)
  end
end

--- Adds commands that set the plot's edges, as fractions of the whole picture.
function frame.margins(script, left, right, bottom, top)
  add(script, "set lmargin at screen %.4f", left)
  add(script, "set rmargin at screen %.4f", right)
  add(script, "set bmargin at screen %.4f", bottom)
  add(script, "set tmargin at screen %.4f", top)
end

--- The unit of the ticks of a plot's value: a factor where the plot compares.
---@param spec attune.PlotSpec
---@param unit string?
---@return string?
function frame.value_unit(spec, unit)
  if spec.against then return "×" end
  return unit
end

--- A value as it is written into a plot.
---@param spec attune.PlotSpec
---@param value number
---@param unit string?
---@return string
function frame.value_text(spec, value, unit)
  return spec.against and ("%.3g×"):format(value) or text.short(value, unit)
end

--- Whether a value can be drawn: it is finite, and neither so large nor, on a logarithmic axis, so
--- small that sums and quotients of values leave the range of doubles.
---@param value number
---@param log boolean?
---@return boolean
function frame.is_drawable(value, log)
  -- As a float: the smallest integer has no absolute value among integers.
  local size = math.abs(value + 0.0)
  return size <= 1e100 and (not log or size >= 1e-100 or value <= 0)
end

--- The range of an axis: the smallest and the largest value with room around them.
---@param values number[] finite; positive for a logarithmic axis
---@param log boolean? whether the axis is logarithmic
---@param below number room below, as a fraction of the span (of the logarithms on a log axis)
---@param above number room above
---@return number low
---@return number high above low
function frame.range(values, log, below, above)
  local low, high = math.huge, -math.huge
  -- As floats: differences of integers may wrap around.
  for _, v in ipairs(values) do low, high = math.min(low, v + 0.0), math.max(high, v + 0.0) end
  if log then
    local a, b = math.log(low), math.log(high)
    local span = math.max(b - a, math.log(2))
    -- exp of more than 709 is no double.
    return math.exp(math.max(a - below * span, -700)), math.exp(math.min(b + above * span, 709))
  end
  local span = high - low
  -- gnuplot takes a range of less than about 1e-100 for an empty one.
  if span <= math.max(1e-12 * math.max(math.abs(low), math.abs(high)), 1e-100) then
    span = math.abs(high) > 1e-100 and math.abs(high) or 1
  end
  span = math.min(span, 1e300)
  -- Values that are all positive get an axis that starts at 0 rather than below it.
  local start = low - below * span
  return low >= 0 and start < 0 and 0 or start, high + above * span
end

---@class attune.LegendEntry
---@field text string
---@field colour string a gnuplot expression
---@field shape? string a gnuplot expression; a square without one

--- The positions of a legend's entries, in rows. An entry that is wider than a row is wrapped.
---@param entries attune.LegendEntry[]
---@param width number of the figure in inches
---@return table legend rows {entry, text, x, row} and height, in inches
function frame.legend(entries, width)
  local font, gap, sign = frame.font.label, 0.3, 0.24
  local room = width - 2 * side
  local rows, x, row = {}, 0, 1
  for _, entry in ipairs(entries) do
    local lines = letters.wrap(letters.clean(entry.text), font, room - sign)
    if #lines == 0 then lines = {" "} end
    local entry_width = sign + letters.width(lines[1], font)
    if x > 0 and x + entry_width > room then x, row = 0, row + 1 end
    for i, line in ipairs(lines) do
      if i > 1 then row = row + 1 end
      rows[#rows + 1] = {entry = i == 1 and entry or nil, text = line, x = side + x, row = row}
    end
    x = #lines > 1 and room or x + entry_width + gap
  end
  return {rows = rows, height = 0.24 * row + 0.08, sign = sign}
end

--- Adds the commands that draw a legend.
---@param script string[]
---@param legend table from frame.legend
---@param top number inches from the lower edge of the figure to the legend's upper edge
---@param size {width: number, height: number}
function frame.add_legend(script, legend, top, size)
  for i, r in ipairs(legend.rows) do
    local y = (top - 0.24 * r.row + 0.08) / size.height
    if r.entry then
      local format = "set label %d '' at screen %.4f,%.4f point pointtype %s pointsize sign "
        .. "linecolor rgb %s"
      local x = (r.x + 0.08) / size.width
      add(script, format, 3000 + i, x, y, r.entry.shape or "5", r.entry.colour)
    end
    add(script, "set label %d %s at screen %.4f,%.4f left font ',%d' textcolor rgb ink", 5000 + i,
      quote(r.text), (r.x + legend.sign) / size.width, y, frame.font.label)
  end
end

return frame
