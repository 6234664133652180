--- The states of loaders and tasks, which checkpoints keep: how many batches or sequences were
--- given, and what these follow from.
local options = require "attune.util.options"
local sorted_keys = require "attune.util.tables".sorted_keys

local state = {}

--- The number of batches or sequences of a state that fits. A checkpoint of an earlier version has
--- fewer fields than `own`. Errors are at the line that called the caller.
---@param given table
---@param counter string the field with the number: "batches" or "sequences"
---@param own table what they follow from
---@param whose string "loader" or "task", for messages
---@return integer
function state.read(given, counter, own, whose)
  local names = sorted_keys(own)
  local s = options.read(given, {counter, table.unpack(names)}, 3, "state",
    ("{%s = n}"):format(counter))
  local count = s[counter]
  if math.type(count) ~= "integer" or count < 0 then
    error(("%s: expected an integer of at least 0, got %s"):format(
      counter, options.describe(count)), 3)
  end
  -- Of another text everything else differs, too.
  for _, name in ipairs {"sha256", table.unpack(names)} do
    if s[name] ~= nil and s[name] ~= own[name] then
      error(("%s: expected %s of the %s, got %s; the checkpoint is of %s"):format(
        name, options.describe(own[name]), whose, options.describe(s[name]),
        name == "sha256" and "another text" or "other " .. counter), 3)
    end
  end
  return count
end

return state
