--- Numbers and tables as text.
local text = {}

local prefixes = {{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}, {1, ""}, {1e-3, "m"}, {1e-6, "µ"}, {1e-9, "n"}}
local binary = {{2 ^ 40, "Ti"}, {2 ^ 30, "Gi"}, {2 ^ 20, "Mi"}, {2 ^ 10, "Ki"}, {1, ""}}

local function digits(x)
  local a = math.abs(x)
  return a >= 100 and "%.0f" or a >= 10 and "%.1f" or "%.2f"
end

--- A quantity with three digits and a prefix: 0.00123 s is "1.23 ms", 3145728 B is "3.00 MiB".
---@param x number?
---@param unit string?
function text.quantity(x, unit)
  if x == nil then return "-" end
  if x ~= x then return "NaN" end
  if math.abs(x) == math.huge then return x > 0 and "inf" or "-inf" end
  if not unit or unit == "" or unit == "1" then
    if math.type(x) == "integer" or (x == math.floor(x) and math.abs(x) < 1e6) then return ("%d"):format(math.floor(x)) end
    return ("%.4g"):format(x)
  end
  if x == 0 then return "0 " .. unit end
  if unit == "%" then return (math.abs(x) >= 99.95 and "%.4g%%" or "%.3g%%"):format(x) end
  for _, p in ipairs(unit == "B" and binary or prefixes) do
    if math.abs(x) >= p[1] * 0.9995 then
      local scaled = x / p[1]
      local form = p[2] == "" and unit == "B" and "%.0f" or digits(scaled)
      return (form .. " %s%s"):format(scaled, p[2], unit)
    end
  end
  return ("%.3g %s"):format(x, unit)
end

--- A quantity where there is little room: at most three digits, one below a thousandth.
function text.short(x, unit)
  if x and (not unit or unit == "" or unit == "1") and x ~= math.floor(x) then return (math.abs(x) < 1e-3 and "%.0e" or "%.3g"):format(x) end
  return text.quantity(x, unit)
end

--- A parameter's or reason's value as one line.
function text.plain(v)
  if v == nil then return "-" end
  if math.type(v) == "float" then return ("%.6g"):format(v) end
  return (tostring(v):gsub("%c", " "))
end

--- Seconds as people say them: "12 s", "3 min 20 s", "2 h 5 min".
function text.duration(seconds)
  local s = math.floor(seconds + 0.5)
  if s < 60 then return ("%d s"):format(s) end
  if s < 3600 then return ("%d min %d s"):format(s // 60, s % 60) end
  return ("%d h %d min"):format(s // 3600, s % 3600 // 60)
end

local function width(s) return utf8.len(s) or #s end

--- Lines of a table: columns of {title, right = boolean}, rows of texts.
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

--- Results as a table of text: varied parameters, status where a point is not ok, metrics' medians.
---@param results table what store.read returns
---@param most? integer rows at most
function text.results(results, most)
  local columns, rows = {}, {}
  local names = #results.varied > 0 and results.varied or results.parameters
  for _, name in ipairs(names) do
    local numeric = results.points[1] and type(results.points[1].parameters[name]) == "number"
    columns[#columns + 1] = {name, right = numeric}
  end
  local odd = false
  for _, point in ipairs(results.points) do odd = odd or point.status ~= "ok" end
  if odd then columns[#columns + 1] = {"status"} end
  for _, m in ipairs(results.metrics) do columns[#columns + 1] = {m.name, right = true} end
  for i, point in ipairs(results.points) do
    if most and i > most then break end
    local row = {}
    for _, name in ipairs(names) do row[#row + 1] = text.plain(point.parameters[name]) end
    if odd then row[#row + 1] = point.status end
    for _, m in ipairs(results.metrics) do
      local value = point.metrics[m.name]
      row[#row + 1] = text.quantity(value and value.median, m.unit)
    end
    rows[#rows + 1] = row
  end
  local lines = text.columns(columns, rows)
  if most and #results.points > most then
    lines[#lines + 1] = (".. and %d points more: attune show %s"):format(#results.points - most, results.dir)
  end
  return lines
end

return text
