--- Options of functions that are written in Lua, read once and by raw access, as the core reads its
--- own: a metatable cannot run code while they are read, nor change them afterwards.
local core = require "attune.core"
local suggest = require "attune.util.suggest"

-- What a metatable does when fields are read; nil: nothing.
local function answers(t)
  local meta = debug.getmetatable(t)
  if not meta then return nil end
  return rawget(meta, "__index") ~= nil and "__index"
    or rawget(meta, "__pairs") ~= nil and "__pairs"
    or nil
end

local options = {}

--- The metamethod that would answer for fields of a table, "__index" or "__pairs"; else nil.
---@param t table
---@return string?
options.answers = answers

--- What came, for messages. Runs no metamethod but those of attune's own handles.
---@param x any
---@return string
function options.describe(x)
  if type(x) == "string" then return ("'%s'"):format(x) end
  local kind, is_open = core._kind(x)
  if kind == "tensor" and is_open then
    local shape = #x.shape > 0 and table.concat(x.shape, "x") or "scalar"
    return ("%s %s tensor"):format(shape, x.dtype)
  end
  if type(x) == "number" or type(x) == "boolean" or x == nil or kind then
    return tostring(x)
  end
  return "a " .. type(x)
end

-- Raises a message at a level, or at the line that called the library.
local function fail(message, level)
  if level then error(message, level + 1) end
  core._raise(message)
end

--- Raises, at the line that called the library, where one of the values, arguments that a call does
--- not have, is not nil.
---@param what string the name of the call and its arguments, for the message
---@param ... any
function options.refuse_further(what, ...)
  for n = 1, select("#", ...) do
    local value = select(n, ...)
    if value ~= nil then
      core._raise(("%s, got a further argument, %s"):format(what, options.describe(value)))
    end
  end
end

--- A copy of a table of named fields. Raises at the given level where it is not a plain table or
--- has unknown names.
---@param given any nil counts as empty, where required is not given
---@param known string[]
---@param level? integer as of `error`, from the caller; nil: the line that called the library
---@param name? string of the argument in messages; "options"
---@param required? string an example of the table, which must then be given
---@return table
function options.read(given, known, level, name, required)
  name = name or "options"
  level = level and level + 1
  if given == nil and not required then return {} end
  if type(given) ~= "table" then
    local form = required and "a table " .. required or "a table of named fields"
    fail(("%s: expected %s, got %s"):format(name, form, options.describe(given)), level)
  end
  if answers(given) then
    local form = "%s: expected a plain table, got one whose metatable has %s"
    fail(form:format(name, answers(given)), level)
  end
  local copy = {}
  for key, value in next, given do
    local is_known = false
    for _, other in ipairs(known) do is_known = is_known or other == key end
    if not is_known then
      if type(key) ~= "string" then
        local form = "%s: expected named fields, got %s as a name"
        fail(form:format(name, options.describe(key)), level)
      end
      local form = name == "options" and "unknown option '%s'; %s"
        or "unknown field '%s' of " .. name .. "; %s"
      fail(form:format(key, suggest(key, known)), level)
    end
    copy[key] = value
  end
  return copy
end

return options
