--- What the prompt of `attune repl` shows and completes. Completing runs no code of the user's: it
--- reads tables by raw access, and methods of attune's handles.
local text = require "attune.util.text"

local words = {}

local max_entries, max_depth, max_text = 20, 3, 200 -- of a table that is shown
local max_candidates = 200

local keywords = {}
for word in ([[and break do else elseif end false for function goto if in local nil not or repeat
  return then true until while]]):gmatch "%S+" do
  keywords[#keywords + 1] = word
end

-- The table in which the fields of a value are found by raw access; nil without one.
local function fields_of(value)
  if type(value) == "table" then return value end
  local meta = debug.getmetatable(value)
  local index = type(meta) == "table" and rawget(meta, "__index")
  -- The methods of attune's handles are the second upvalue (lua/binding/handle.c).
  if type(index) == "function" and type(value) == "userdata" then
    local _, methods = debug.getupvalue(index, 2)
    index = methods
  end
  return type(index) == "table" and index or nil
end

-- The value of "a.b.c" by raw access; nil where there is none.
local function value_of(path, globals)
  local value = globals
  for name in path:gmatch "[^.:]+" do
    local fields = fields_of(value)
    if not fields then return nil end
    value = rawget(fields, name)
  end
  return value
end

-- Names that begin with a text, sorted; those that begin with _ only when asked for.
local function names_in(fields, begin, found)
  for name in next, fields do
    local fits = type(name) == "string" and name:find "^[%a_][%w_]*$"
      and name:sub(1, #begin) == begin
    if fits and (begin:sub(1, 1) == "_" or name:sub(1, 1) ~= "_") then found[name] = true end
  end
end

--- The ways to go on with the last word of a line, such as "attune.attention" for "attune.att".
---@param line string up to the cursor
---@param globals table
---@return string[] whole words, sorted
function words.complete(line, globals)
  local word = line:match "[%a_][%w_.:]*$"
  if not word then return {} end
  local path, mark, begin = word:match "^(.*)([.:])([%w_]*)$"
  local found, list = {}, {}
  if path then
    local fields = fields_of(value_of(path, globals))
    if fields then names_in(fields, begin, found) end
  else
    begin = word
    names_in(globals, begin, found)
    for _, keyword in ipairs(keywords) do
      if keyword:sub(1, #begin) == begin then found[keyword] = true end
    end
  end
  for name in pairs(found) do list[#list + 1] = path and path .. mark .. name or name end
  table.sort(list)
  return table.move(list, 1, math.min(#list, max_candidates), 1, {})
end

local function is_name(key) return type(key) == "string" and key:find "^[%a_][%w_]*$" ~= nil end

local shown

local function key_text(key)
  if is_name(key) then return key .. " = " end
  return ("[%s] = "):format(type(key) == "string" and ("%q"):format(key) or tostring(key))
end

-- The entries of a table: the list, then the other keys, sorted.
local function entries_of(t, depth)
  local parts, count = {}, #t
  for i = 1, math.min(count, max_entries) do parts[i] = shown(t[i], depth + 1) end
  local keys = {}
  for key in next, t do
    local in_list = math.type(key) == "integer" and key >= 1 and key <= count
    if not in_list then keys[#keys + 1] = key end
  end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  for _, key in ipairs(keys) do
    if #parts >= max_entries then break end
    parts[#parts + 1] = key_text(key) .. shown(t[key], depth + 1)
  end
  local left = count + #keys - #parts
  if left > 0 then parts[#parts + 1] = (".. %d more"):format(left) end
  return parts
end

function shown(value, depth)
  if type(value) == "string" and depth > 0 then
    return ("%q"):format(text.cut(text.printable(value), max_text))
  end
  local meta = type(value) == "table" and debug.getmetatable(value)
  if type(value) ~= "table" or (meta and (meta.__tostring or meta.__name)) then
    local words_of = tostring(value)
    -- A tensor has rows; inside a table its first line must do.
    return depth > 0 and words_of:match "^[^\n]*" or words_of
  end
  if depth >= max_depth then return next(value) == nil and "{}" or "{..}" end
  local parts = entries_of(value, depth)
  local line = "{" .. table.concat(parts, ", ") .. "}"
  if #line <= 80 and not line:find "\n" then return line end
  local indent = ("  "):rep(depth + 1)
  return "{\n" .. indent .. table.concat(parts, ",\n" .. indent) .. "\n" .. ("  "):rep(depth) .. "}"
end

--- A value as the prompt shows it: a plain table with its entries, all else as tostring says.
---@param value any
---@return string
function words.show(value) return shown(value, 0) end

return words
