--- The values of --set: name=value,value,name=value .. A value is a Lua literal: a number, true,
--- false or a text in quotes, which may hold commas. Any other word is a text as it stands.
local lua_tokens = require "attune.util.lua_tokens"
local text = require "attune.util.text"

local function fail(format, ...) error({assignment = format:format(...)}, 0) end

-- The text in quotes at `at`, and where it ends.
local function quoted(source, at)
  local quote, stop = source:sub(at, at), at + 1
  while stop <= #source and source:sub(stop, stop) ~= quote do
    stop = stop + (source:sub(stop, stop) == "\\" and 2 or 1)
  end
  if stop > #source then fail("expected %s at the end of a text, got none", quote) end
  local token = {kind = "string", text = source:sub(at, stop), line = 1}
  return lua_tokens.value(token), stop + 1
end

local function number_of(word)
  local sign, rest = word:match "^%s*([+-]?)(.-)%s*$"
  if not rest:find "^%.?%d" then return nil end
  local value = math.tointeger(tonumber(rest)) or tonumber(rest)
  return value and (sign == "-" and -value or value)
end

-- A word as a value; a text where the script has texts only.
local function literal(word, only_texts)
  if only_texts then return word end
  if word == "true" then return true end
  if word == "false" then return false end
  local number = number_of(word)
  if number == nil then return word end
  return number
end

-- One value at `at`, and where it ends.
local function value_at(source, at, name, only_texts)
  at = source:match("^%s*()", at)
  if source:find("^['\"]", at) then
    local value, after = quoted(source, at)
    after = source:match("^%s*()", after)
    if not source:find("^,", after) and after <= #source then
      fail("%s: expected a comma after a text in quotes, got '%s'", name, source:sub(after, after))
    end
    return value, after
  end
  local word, after = source:match("^([^,]*)()", at)
  word = word:match "^(.-)%s*$"
  if word == "" then fail("%s: expected a value, got none", name) end
  if word:find "^{" or word:find "^%[%[" or word == "nil" then
    fail("%s: expected a number, true, false or a text, got %s", name, text.printable(word))
  end
  return literal(word, only_texts), after
end

local function read(list, only_texts)
  local set, order = {}, {}
  for _, source in ipairs(list) do
    local at, name = 1, nil
    while at <= #source do
      local new_name, after = source:match("^%s*([%a_][%w_]*)%s*=()", at)
      if new_name then
        name, at = new_name, after
        if not set[name] then order[#order + 1] = name end
        set[name] = set[name] or {}
      elseif not name then
        fail("expected name=value, got '%s'", text.printable(source))
      end
      local value
      value, at = value_at(source, at, name, only_texts(name))
      table.insert(set[name], value)
      at = source:match("^,()", at) or at
    end
  end
  return set, order
end

local function kinds_of(values)
  local kinds, count = {}, 0
  for _, value in ipairs(values) do
    local kind = type(value) == "table" and "string" or type(value)
    if not kinds[kind] then kinds[kind], count = true, count + 1 end
  end
  return kinds, count
end

local nouns = {number = "numbers", string = "texts", boolean = "true or false"}

--- Reads the values of --set. A key that comes again gets more values.
---@param list string[]
---@param values_of fun(name: string): any[]? the values that the script declares for a parameter
---@return table<string, any[]>? set
---@return string? message
return function(list, values_of)
  local function only_texts(name)
    local kinds, count = kinds_of(values_of(name) or {})
    return count == 1 and kinds.string
  end
  local ok, set = pcall(read, list, only_texts)
  if not ok then
    if type(set) ~= "table" or not set.assignment then error(set, 0) end
    return nil, "--set: " .. set.assignment
  end
  for name, values in pairs(set) do
    local kinds, count = kinds_of(values_of(name) or {})
    for _, value in ipairs(values) do
      if count == 1 and not kinds[type(value)] then
        return nil, ("--set: %s: expected %s, as in the script, got %s"):format(name,
          nouns[next(kinds)], text.printable(value))
      end
    end
  end
  return set
end
