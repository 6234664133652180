--- Numbers and tables as text.
local text = {}

local decimal = {
  {1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}, {1, ""}, {1e-3, "m"}, {1e-6, "µ"}, {1e-9, "n"},
}
local binary = {{2 ^ 40, "Ti"}, {2 ^ 30, "Gi"}, {2 ^ 20, "Mi"}, {2 ^ 10, "Ki"}, {1, ""}}

local function without_unit(unit) return not unit or unit == "" or unit == "1" end

local function three_digits(x)
  local a = math.abs(x)
  return a >= 100 and "%.0f" or a >= 10 and "%.1f" or "%.2f"
end

local function plain_number(x)
  if math.type(x) == "integer" or (x == math.floor(x) and math.abs(x) < 1e6) then
    return ("%d"):format(math.floor(x))
  end
  return ("%.4g"):format(x)
end

--- A quantity with three digits and a prefix: 0.00123 s is "1.23 ms", 3145728 B is "3.00 MiB".
---@param x number? "-" for nil
---@param unit string? none, "" or "1" for a plain number
---@return string
function text.quantity(x, unit)
  if x == nil then return "-" end
  if x ~= x then return "NaN" end
  if math.abs(x) == math.huge then return x > 0 and "inf" or "-inf" end
  if without_unit(unit) then return plain_number(x) end
  if x == 0 then return "0 " .. unit end
  if unit == "%" then return (math.abs(x) >= 99.95 and "%.4g%%" or "%.3g%%"):format(x) end
  for _, prefix in ipairs(unit == "B" and binary or decimal) do
    -- 0.9995: a number that three digits round up to 1 already takes the larger prefix.
    if math.abs(x) >= prefix[1] * 0.9995 then
      local scaled = x / prefix[1]
      local form = prefix[2] == "" and unit == "B" and "%.0f" or three_digits(scaled)
      return (form .. " %s%s"):format(scaled, prefix[2], unit)
    end
  end
  return ("%.3g %s"):format(x, unit)
end

--- A quantity where space is small: at most three digits, and one digit below a thousandth.
---@param x number?
---@param unit string?
---@return string
function text.short(x, unit)
  if x and without_unit(unit) and x ~= math.floor(x) then
    return (math.abs(x) < 1e-3 and "%.0e" or "%.3g"):format(x)
  end
  return text.quantity(x, unit)
end

--- The value of a parameter, or a reason, as one line.
---@return string
function text.plain(v)
  if v == nil then return "-" end
  if math.type(v) == "float" then return ("%.6g"):format(v) end
  return (tostring(v):gsub("%c", " "))
end

--- Seconds as people say them: "12 s", "3 min 20 s", "2 h 5 min".
---@param seconds number
---@return string
function text.duration(seconds)
  local s = math.floor(seconds + 0.5)
  if s < 60 then return ("%d s"):format(s) end
  if s < 3600 then return ("%d min %d s"):format(s // 60, s % 60) end
  return ("%d h %d min"):format(s // 3600, s % 3600 // 60)
end

local function width(s) return utf8.len(s) or #s end

--- The lines of a table with aligned columns, a line of titles and a rule first.
---@param columns {[1]: string, right: boolean?}[] titles; right: aligned to the right
---@param rows string[][]
---@return string[]
function text.columns(columns, rows)
  local widths, lines = {}, {}
  for i, c in ipairs(columns) do
    widths[i] = width(c[1])
    for _, row in ipairs(rows) do widths[i] = math.max(widths[i], width(row[i])) end
  end
  local function line(cells)
    local parts = {}
    for i, c in ipairs(columns) do
      local pad = (" "):rep(widths[i] - width(cells[i]))
      parts[i] = c.right and pad .. cells[i] or cells[i] .. pad
    end
    return (table.concat(parts, "  "):gsub("%s+$", ""))
  end
  local titles, rule = {}, {}
  for i, c in ipairs(columns) do titles[i], rule[i] = c[1], ("-"):rep(widths[i]) end
  lines[1], lines[2] = line(titles), line(rule)
  for _, row in ipairs(rows) do lines[#lines + 1] = line(row) end
  return lines
end

return text
