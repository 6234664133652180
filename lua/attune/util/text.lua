--- Numbers and tables as text.
local text = {}

local decimal = {
  {1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}, {1, ""}, {1e-3, "m"}, {1e-6, "µ"}, {1e-9, "n"},
}
local binary = {{2 ^ 40, "Ti"}, {2 ^ 30, "Gi"}, {2 ^ 20, "Mi"}, {2 ^ 10, "Ki"}, {1, ""}}

-- Units that take prefixes: those of physics and of computing, also per something (B/s). Others do
-- not: 0.2 x is not 200 mx, and 1200 tokens are not 1.2 ktokens.
local prefixed = {}
for unit in ("s B b bit Hz W J FLOP FLOPS flop op m g V A K Pa N"):gmatch "%S+" do
  prefixed[unit] = true
end

--- Whether a unit says nothing: none, "" or "1".
function text.is_plain(unit) return not unit or unit == "" or unit == "1" end

--- The prefixes of a unit as {factor, letters}, the largest first; nil for a unit without prefixes.
---@param unit string?
---@return table[]?
function text.prefixes(unit)
  if text.is_plain(unit) or not prefixed[unit:match "^[^/]*"] then return nil end
  return unit:match "^[^/]*" == "B" and binary or decimal
end

-- Numbers below this have all their digits before the point: 2097152, not 2.097e+06.
local max_written_out = 1e9

local function three_digits(x)
  local a = math.abs(x)
  if a >= max_written_out then return "%.3g" end
  return a >= 100 and "%.0f" or a >= 10 and "%.1f" or "%.2f"
end

local function plain_number(x)
  local a = math.abs(x)
  if math.type(x) == "integer" or (a < max_written_out and x == math.floor(x)) then
    return ("%d"):format(math.floor(x))
  end
  return (a >= 1e3 and a < max_written_out and "%.0f" or "%.4g"):format(x)
end

--- A quantity with three digits and a prefix: 0.00123 s is "1.23 ms", 3145728 B is "3.00 MiB".
---@param x number? "-" for nil
---@param unit string? none, "" or "1" for a plain number
---@return string
function text.quantity(x, unit)
  if x == nil then return "-" end
  if x ~= x then return "NaN" end
  if math.abs(x) == math.huge then return x > 0 and "inf" or "-inf" end
  if text.is_plain(unit) then return plain_number(x) end
  if x == 0 then return unit == "%" and "0%" or "0 " .. unit end
  if unit == "%" then
    return math.abs(x) >= 99.95 and plain_number(x) .. "%" or ("%.3g%%"):format(x)
  end
  local prefixes = text.prefixes(unit)
  if not prefixes then return plain_number(x) .. " " .. unit end
  for _, prefix in ipairs(prefixes) do
    -- 0.9995: a number that three digits round up to 1 already takes the larger prefix.
    if math.abs(x) >= prefix[1] * 0.9995 then
      local scaled = x / prefix[1]
      local is_count = prefix[2] == "" and prefixes == binary and scaled == math.floor(scaled)
      local form = is_count and "%.0f" or three_digits(scaled)
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
  if x and text.is_plain(unit) and x ~= math.floor(x) then
    return (math.abs(x) < 1e-3 and "%.0e" or "%.3g"):format(x)
  end
  return text.quantity(x, unit)
end

local short_escapes = {["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t"}

-- Characters beyond ASCII that do not print: C1 controls (a terminal obeys them), line separators,
-- and those that reorder the text around them.
local function is_control(code)
  return code <= 0x9f or code == 0x61c or code == 0x200e or code == 0x200f or code == 0xfeff
    or (code >= 0x2028 and code <= 0x202e) or (code >= 0x2066 and code <= 0x2069)
end

--- A text for a terminal or a page: control characters, characters that reorder text, and bytes
--- that are not UTF-8 are written as escapes such as \n, \x1b and \u{202e}.
---@param s any
---@param keep? string control characters that stay, such as "\n\t"
---@return string
function text.printable(s, keep)
  s = tostring(s)
  if not s:find "[^\x20-\x7e]" then return s end
  local out, at = {}, 1
  while at <= #s do
    local plain, byte = s:match("^[\x20-\x7e]+", at), s:byte(at)
    local step = 1
    if plain then
      out[#out + 1], step = plain, #plain
    elseif byte < 0x80 then
      local c = string.char(byte)
      local kept = keep and keep:find(c, 1, true)
      out[#out + 1] = kept and c or short_escapes[c] or ("\\x%02x"):format(byte)
    elseif utf8.len(s, at, at) then
      local code = utf8.codepoint(s, at)
      local c = utf8.char(code)
      out[#out + 1], step = is_control(code) and ("\\u{%x}"):format(code) or c, #c
    else
      out[#out + 1] = ("\\x%02x"):format(byte)
    end
    at = at + step
  end
  return table.concat(out)
end

--- A text of at most max_bytes bytes, cut between two characters.
---@param s string
---@param max_bytes integer
---@return string
function text.cut(s, max_bytes)
  if #s <= max_bytes then return s end
  local last = max_bytes - 2
  -- 10xxxxxx continues a character of UTF-8.
  while last > 0 and s:byte(last + 1) & 0xc0 == 0x80 do last = last - 1 end
  return s:sub(1, last) .. ".."
end

-- Whole floats below this are exact, and print as integers.
local max_whole = 2.0 ^ 53

--- The value of a parameter, or a reason, as one line. A whole float looks like an integer: 2e6 is
--- "2000000".
---@return string
function text.plain(v)
  if v == nil then return "-" end
  if math.type(v) == "float" then
    local whole = v == math.floor(v) and math.abs(v) < max_whole
    return (whole and "%d" or "%.6g"):format(v)
  end
  return text.printable(v)
end

--- A word in single quotes, as every POSIX shell reads it back unchanged.
---@param word string
---@return string
function text.shell_quote(word) return "'" .. word:gsub("'", "'\\''") .. "'" end

--- A word of a command that a reader may copy: quoted where a shell needs it, and without control
--- characters ($'..' is in POSIX since 2024, and bash, ksh and zsh have it).
---@param word string
---@return string
function text.shell_word(word)
  if word:find "^[%w_./=,:+@%%-]+$" then return word end
  if text.printable(word) == word then return text.shell_quote(word) end
  local escaped = word:gsub("[\\']", "\\%0"):gsub("[^\x20-\x7e]", function(c)
    return ("\\%03o"):format(c:byte())
  end)
  return "$'" .. escaped .. "'"
end

--- A text with ~ in place of the home folder, so that it does not tell the user's name. Only whole
--- names of folders are replaced.
---@param s string
---@param home string? the home folder; nil, "" and "/" replace nothing
---@return string
function text.without_home(s, home)
  if not home then return s end
  home = home:gsub("/+$", "")
  if home == "" then return s end
  local parts, at = {}, 1
  while true do
    local first, last = s:find(home, at, true)
    if not first then break end
    local before, after = s:sub(first - 1, first - 1), s:sub(last + 1, last + 1)
    local whole = not (first > 1 and before:find "[%w_./-]") and not after:find "[%w_.-]"
    parts[#parts + 1] = s:sub(at, first - 1) .. (whole and "~" or home)
    at = last + 1
  end
  return table.concat(parts) .. s:sub(at)
end

local entities = {
  ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["'"] = "&#39;",
}

--- A text for HTML and SVG, in elements and in quoted attributes.
---@param s string
---@return string
function text.xml(s) return (s:gsub("[&<>\"']", entities)) end

--- "1 value", "2 values".
---@param count integer
---@param noun string
---@return string
function text.count(count, noun)
  return ("%d %s%s"):format(count, noun, count == 1 and "" or "s")
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
  local widths, lines, titles, rule = {}, {}, {}, {}
  for i, c in ipairs(columns) do
    titles[i] = text.printable(c[1])
    widths[i] = width(titles[i])
    for _, row in ipairs(rows) do
      row[i] = text.printable(row[i])
      widths[i] = math.max(widths[i], width(row[i]))
    end
    rule[i] = ("-"):rep(widths[i])
  end
  local function line(cells)
    local parts = {}
    for i, c in ipairs(columns) do
      local pad = (" "):rep(widths[i] - width(cells[i]))
      parts[i] = c.right and pad .. cells[i] or cells[i] .. pad
    end
    return (table.concat(parts, "  "):gsub("%s+$", ""))
  end
  lines[1], lines[2] = line(titles), line(rule)
  for _, row in ipairs(rows) do lines[#lines + 1] = line(row) end
  return lines
end

return text
