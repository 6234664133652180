--- JSON for records: floats with 17 digits, integers as integers, keys sorted.
--
-- No Debian module writes floats so that they are read back unchanged, hence the writer here;
-- dkjson reads. JSON has no NaN and no infinities: they are written as the strings "NaN", "Infinity" and
-- "-Infinity", which `json.number` converts back.
local json = {}

local function number_text(x)
  if math.type(x) == "integer" then return ("%d"):format(x) end
  if x ~= x then return '"NaN"' end
  if x == math.huge then return '"Infinity"' end
  if x == -math.huge then return '"-Infinity"' end
  local text = ("%.17g"):format(x)
  -- A float must stay one: "3" would be read back as an integer.
  return text:find "[%.eE]" and text or text .. ".0"
end

local escapes = {
  ['"'] = '\\"',
  ["\\"] = "\\\\",
  ["\n"] = "\\n",
  ["\r"] = "\\r",
  ["\t"] = "\\t",
}
local function escape(c) return escapes[c] or ("\\u%04x"):format(c:byte()) end

local function string_text(s)
  if not utf8.len(s) then s = s:gsub("[\x80-\xff]", "?") end
  return '"' .. s:gsub('[%c"\\\x7f]', escape) .. '"'
end

local function is_list(t)
  local n = #t
  if n == 0 then return next(t) == nil and getmetatable(t) == json.list_type end
  for k in pairs(t) do
    if math.type(k) ~= "integer" or k < 1 or k > n then return false end
  end
  return true
end

json.list_type = {}
--- Marks a table as a list, so that an empty one is written as [] and not as {}.
function json.list(t) return setmetatable(t or {}, json.list_type) end

local write

local function write_table(t, out)
  if is_list(t) then
    out[#out + 1] = "["
    for i = 1, #t do
      if i > 1 then out[#out + 1] = "," end
      write(t[i], out)
    end
    out[#out + 1] = "]"
    return
  end
  local keys = {}
  for k in pairs(t) do
    if type(k) ~= "string" then error("json: expected strings as keys, got " .. tostring(k), 0) end
    keys[#keys + 1] = k
  end
  table.sort(keys)
  out[#out + 1] = "{"
  for i, k in ipairs(keys) do
    out[#out + 1] = (i > 1 and "," or "") .. string_text(k) .. ":"
    write(t[k], out)
  end
  out[#out + 1] = "}"
end

function write(value, out)
  local kind = type(value)
  if kind == "table" then write_table(value, out)
  elseif kind == "number" then out[#out + 1] = number_text(value)
  elseif kind == "string" then out[#out + 1] = string_text(value)
  elseif kind == "boolean" then out[#out + 1] = tostring(value)
  elseif value == json.null then out[#out + 1] = "null"
  else error("json: expected numbers, strings, booleans and tables, got a " .. kind, 0) end
end

json.null = setmetatable({}, {__tostring = function() return "null" end})

--- Writes a value as one line.
---@param value any
---@return string
function json.encode(value)
  if value == json.null then return "null" end
  local out = {}
  write(value, out)
  return table.concat(out)
end

--- Reads a value; nil and a message when the text is no JSON.
---@param text string
---@return any value
---@return string? message
function json.decode(text)
  local value, _, message = require "dkjson".decode(text, 1, nil, nil, nil)
  if message then return nil, message end
  return value
end

local special = {NaN = 0 / 0, Infinity = math.huge, ["-Infinity"] = -math.huge}
--- Converts a number back that was written as a string; other strings give nil.
function json.number(x)
  if type(x) == "string" then return special[x] end
  return x
end

return json
