--- JSON for records: floats with as many digits as read back as the same number, integers as
--- integers, keys sorted.
--
-- The core reads and writes it (jansson). JSON has no NaN and no infinities: they are written as
-- the strings "NaN", "Infinity" and "-Infinity", which `json.number` converts back.
local core = require "attune.core"

local json = {}

--- Null in a value to be written. A null that is read is nil, unless json.decode keeps it.
json.null = core._json_null

--- Marks a table as a list, so that an empty one is written as [] and not as {}.
function json.list(t) return setmetatable(t or {}, core._json_list) end

--- Writes a value as one line.
---@param value any
---@return string
json.encode = core._json_encode

--- Reads a value; nil and a message when the text is no JSON.
---@param text string
---@param keep_null? boolean null becomes json.null
---@return any value
---@return string? message
json.decode = core._json_decode

local special = {NaN = 0 / 0, Infinity = math.huge, ["-Infinity"] = -math.huge}
--- Converts a number back that was written as a string; other strings give nil.
function json.number(x)
  if type(x) == "string" then return special[x] end
  return x
end

return json
