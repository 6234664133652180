--- Failures of a file that holds a vocabulary: it is malformed, or needs what attune lacks. They
--- are raised as a value of their own, so that `text.load` tells them from mistakes of attune.
local text = require "attune.util.text"

local failure = {}

-- Messages quote what a file holds: control characters are escaped, and long texts cut.
local max_message_bytes = 500

local mark = {}

--- Raises. The message names the field, what was expected and what came.
function failure.raise(form, ...)
  local message = text.cut(text.printable(form:format(...)), max_message_bytes)
  error(setmetatable({message = message}, mark), 0)
end

--- Raises, for a text that has characters without a token, where there is no unknown token.
---@param characters string
function failure.no_token(characters)
  error(("text: expected characters that have tokens, as the file names no unknown token, got '%s'")
    :format(text.cut(text.printable(characters), max_message_bytes)), 0)
end

--- Calls fn. Gives its result, or nil and the message of a failure; other errors are raised again.
function failure.catch(fn, ...)
  local ok, result = pcall(fn, ...)
  if ok then return result end
  if getmetatable(result) == mark then return nil, result.message end
  error(result, 0)
end

--- A field of a table of the file. kind: a Lua type, or "integer" (at least 0), or "list".
---@param otherwise any what a field that is absent counts as; nil: the field must be there
function failure.field(t, name, kind, where, otherwise)
  local value = t[name]
  if value == nil then
    if otherwise ~= nil then return otherwise end
    failure.raise("%s.%s: expected a %s, got none", where, name, kind)
  end
  local good = type(value) == kind
    or kind == "integer" and math.type(value) == "integer" and value >= 0
    or kind == "list" and type(value) == "table" and (#value > 0 or next(value) == nil)
  if not good then
    local got = type(value) == "number" and tostring(value) or "a " .. type(value)
    failure.raise("%s.%s: expected a %s, got %s", where, name, kind, got)
  end
  return value
end

return failure
