--- The ticks of an axis: where they are, and labels that differ from each other and are exact.
--
-- gnuplot's own labels round to the digits of a format, which makes neighbours equal (1 s, 2 s, 2 s
-- for steps of 0.5 s). Ticks are therefore computed here and handed over one by one.
local gnuplot = require "attune.plot.gnuplot"
local letters = require "attune.plot.letters"
local text = require "attune.util.text"

local ticks = {}

---@class attune.Tick
---@field at number
---@field label string "" for a tick without one
---@field minor? boolean

local max_label_letters = 60
local upright_height, max_tilted_height = 0.24, 2.4 -- inches, of labels under an axis

-- What follows the number: "%", "×" or a unit. A prefix such as "m" belongs to the unit.
local function suffix(unit, prefix)
  if text.is_plain(unit) then return "" end
  if unit == "%" or unit == "×" then return unit end
  return " " .. prefix .. letters.clean(unit, 20)
end

local function minus(s) return (s:gsub("^%-", "−")) end

-- A number with as few digits after the point as it needs, at most `max_digits`.
local function shortest(x, max_digits)
  for digits = 0, max_digits do
    local s = ("%." .. digits .. "f"):format(x)
    local exact = math.abs(tonumber(s) - x) <= 1e-9 * math.abs(x)
    if digits == max_digits or exact then return s, digits end
  end
end

-- The factor and the letters of the prefix for a value of this size.
local function prefix_for(size, unit)
  local list = text.prefixes(unit)
  if list then
    for _, prefix in ipairs(list) do
      if size >= prefix[1] * (1 - 1e-9) then return prefix[1], prefix[2] end
    end
    return list[#list][1], list[#list][2]
  end
  -- Without prefixes very large and very small numbers get an exponent.
  if size >= 1e6 or (size > 0 and size < 1e-3) then
    local exponent = math.floor(math.log(size, 10) + 1e-9)
    return 10.0 ^ exponent, exponent
  end
  return 1, ""
end

-- The label of one value, with the digits that the value itself needs.
local function exact(value, unit)
  if value == 0 then return "0" end
  local factor, prefix = prefix_for(math.abs(value), unit)
  local number = minus(shortest(value / factor, 9))
  if math.type(prefix) == "integer" then return number .. "e" .. prefix .. suffix(unit, "") end
  return number .. suffix(unit, prefix)
end

-- The smallest of 1, 2 and 5 times a power of 10 (of the powers of 2 for bytes) that is at least x.
local function nice_step(x, unit)
  if unit == "B" and x > 1 then return 2.0 ^ math.ceil(math.log(x, 2) - 1e-9) end
  local power = 10.0 ^ math.floor(math.log(x, 10))
  for _, m in ipairs {1, 2, 5} do
    if m * power >= x * (1 - 1e-9) then return m * power end
  end
  return 10 * power
end

--- Ticks of a linear axis. All labels have the prefix of the largest one.
---@param low number
---@param high number above low
---@param unit string? "×" for a factor
---@param count integer the approximate number of ticks
---@return attune.Tick[]
function ticks.linear(low, high, unit, count)
  local step = nice_step((high - low) / count, unit)
  local first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
  local size = math.max(math.abs(first), math.abs(last)) * step
  local factor, prefix = prefix_for(size, unit)
  local list = {}
  -- A range so far from 0 that doubles cannot tell its ticks apart has none in between.
  if last - first > 4 * count or first + 1 == first then return list end
  for i = first, last do
    local value = i * step
    local number = minus(shortest(value / factor, 12))
    local is_exponent = math.type(prefix) == "integer"
    local tail = is_exponent and "e" .. prefix .. suffix(unit, "") or suffix(unit, prefix)
    list[#list + 1] = {at = value, label = value == 0 and "0" or number .. tail}
  end
  return list
end

-- Ticks at powers of a base, every stride-th labelled; the others and, between few powers of 10,
-- their multiples are minor ticks.
local function powers(low, high, base, unit, count)
  local log_low, log_high = math.log(low, base), math.log(high, base)
  local first, last = math.ceil(log_low - 1e-9), math.floor(log_high + 1e-9)
  local stride = math.max(1, math.ceil((last - first + 1) / count))
  local list, labelled = {}, 0
  for k = first - 1, last do
    local at, has_label = base ^ k, k % stride == 0
    if k >= first then
      local label = has_label and exact(at, unit) or ""
      list[#list + 1] = {at = at, label = label, minor = not has_label}
      labelled = labelled + (has_label and 1 or 0)
    end
    for m = 2, base == 10 and stride == 1 and 9 or 1 do
      local between = m * at
      if between >= low and between <= high then
        list[#list + 1] = {at = between, label = "", minor = true}
      end
    end
  end
  return list, labelled
end

-- Labels at these multiples of the powers of 10, where an axis holds fewer than two powers.
local function multiples(low, high, unit, factors)
  local list = {}
  for k = math.floor(math.log(low, 10)), math.ceil(math.log(high, 10)) do
    for _, m in ipairs(factors) do
      local at = m * 10.0 ^ k
      if at >= low and at <= high then list[#list + 1] = {at = at, label = exact(at, unit)} end
    end
  end
  return list
end

--- Ticks of a logarithmic axis.
---@param low number above 0
---@param high number above low
---@param unit string?
---@param count integer the approximate number of labels
---@param base? 2|10 by default 2 for bytes and 10 for all else
---@return attune.Tick[]
function ticks.log(low, high, unit, count, base)
  base = base or (unit == "B" and 2 or 10)
  local list, labelled = powers(low, high, base, unit, count)
  if labelled >= 2 then return list end
  for _, factors in ipairs {{1, 2, 5}, {1, 1.5, 2, 3, 4, 5, 6, 8}} do
    list = multiples(low, high, unit, factors)
    if #list >= 3 and #list <= count + 2 then return list end
  end
  return ticks.linear(low, high, unit, count)
end

--- Ticks at given numbers, with labels that differ from each other.
---@param values number[] distinct
---@return attune.Tick[]
function ticks.at(values)
  for digits = 6, 17 do
    local list, seen, distinct = {}, {}, true
    for i, x in ipairs(values) do
      local label = math.type(x) == "integer" and ("%d"):format(x)
        or ("%." .. digits .. "g"):format(x)
      distinct = distinct and not seen[label]
      seen[label] = true
      list[i] = {at = x, label = minus(label)}
    end
    if distinct or digits == 17 then return list end
  end
end

--- Ticks at 1, 2, 3 .. with the names of categories.
---@param values attune.Scalar[]
---@return attune.Tick[]
function ticks.categories(values)
  local list = {}
  for i, v in ipairs(values) do
    list[i] = {at = i, label = letters.clean(text.plain(v), max_label_letters)}
  end
  return list
end

--- The width of the widest label in inches.
---@param list attune.Tick[]
---@param font number
---@return number
function ticks.width(list, font)
  local widest = 0
  for _, tick in ipairs(list) do widest = math.max(widest, letters.width(tick.label, font)) end
  return widest
end

--- The gnuplot option for names at an angle.
ticks.tilted = " rotate by 35 right"

--- How much room names take under a horizontal axis. Where they do not fit side by side they are
--- written at an angle, and the first one begins left of its tick.
---@param list attune.Tick[]
---@param font number
---@param pitch number inches between two ticks
---@return number height inches
---@return number? reach inches from the first name's begin to its tick; nil: not at an angle
function ticks.room(list, font, pitch)
  local widest = ticks.width(list, font)
  if widest + 0.1 <= pitch then return upright_height end
  local height = math.min(max_tilted_height, widest * 0.6 + 0.2)
  return height, letters.width(list[1].label, font) * 0.85
end

--- Removes labels that would touch their neighbours on a horizontal axis. The ticks stay.
---@param list attune.Tick[] sorted by position
---@param font number
---@param inches fun(at: number): number the position of a value on the axis
---@return attune.Tick[]
function ticks.thinned(list, font, inches)
  local gap, kept, last = 0.09, {}, nil
  local function touches(a, b)
    local half = (letters.width(a.label, font) + letters.width(b.label, font)) / 2
    return inches(b.at) - inches(a.at) < half + gap
  end
  for _, tick in ipairs(list) do
    if tick.label ~= "" and (not last or not touches(last, tick)) then
      kept[tick], last = true, tick
    end
  end
  -- The end of an axis says more than the label before it.
  local final
  for _, tick in ipairs(list) do
    if tick.label ~= "" then final = tick end
  end
  if final and not kept[final] and last and last ~= list[1] then
    kept[last], kept[final] = nil, true
  end
  local thin = {}
  for i, tick in ipairs(list) do
    local label = kept[tick] and tick.label or ""
    thin[i] = {at = tick.at, label = label, minor = tick.minor}
  end
  return thin
end

--- The ticks as gnuplot's command reads them.
---@param list attune.Tick[]
---@return string
function ticks.command(list)
  local parts = {}
  for i, tick in ipairs(list) do
    local label = gnuplot.tick_label(tick.label)
    parts[i] = ("%s %s %d"):format(label, gnuplot.number(tick.at), tick.minor and 1 or 0)
  end
  return "(" .. table.concat(parts, ", ") .. ")"
end

return ticks
