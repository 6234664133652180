--- generation_config.json, which lies beside config.json in many checkpoints. Of what it says only
--- the ids that end a text are read: the other fields are options of sampling, which a caller
--- chooses.
local options = require "attune.util.options"

local generation_config = {}

-- An id or a list of ids as integers; nil: neither.
local function ids_of(value)
  if type(value) == "table" then
    local ids, count = {}, 0
    for i, inner in ipairs(value) do ids[i] = type(inner) ~= "table" and ids_of(inner) or nil end
    for _ in pairs(value) do count = count + 1 end
    return #ids == count and ids or nil
  end
  local id = type(value) == "number" and math.tointeger(value)
  return id and id >= 0 and id or nil
end

--- {eos = an id or a list of ids}; without eos where the file does not say, and where there is
--- none. Or nil, a message and a code.
---@param path string
---@param read_config fun(path: string): table?, any, any
---@return {eos?: integer|integer[]}?
---@return string? message
---@return any code
function generation_config.read(path, read_config)
  if not require "luv".fs_stat(path) then return {} end
  local config, message, code = read_config(path)
  if not config then return nil, message, code end
  local given = config.eos_token_id
  local eos = ids_of(given)
  if given ~= nil and not eos then
    message = ("%s: eos_token_id: expected an id or a list of ids, got %s"):format(
      path, options.describe(given))
    return nil, message, "EFORMAT"
  end
  return {eos = eos}
end

return generation_config
