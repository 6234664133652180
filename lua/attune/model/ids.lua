--- Checks of token ids that a caller gives.
local options = require "attune.util.options"

local ids = {}

local function describe(given)
  if type(given) ~= "table" then return options.describe(given) end
  if next(given) == nil then return "an empty table" end
  if rawlen(given) == 0 then return "a table of fields" end
  return ("a list whose first element is %s"):format(options.describe(rawget(given, 1)))
end

--- A copy of rows of ids, which may differ in length. Levels as of `error`, from the caller.
---@param model attune.model.Model
---@param given any
---@param name string of the argument
---@param level integer
---@return integer[][]
function ids.rows(model, given, name, level)
  level = level + 1
  if type(given) ~= "table" or type(rawget(given, 1)) ~= "table" then
    error(("%s: expected rows of token ids, such as {{5, 17}}, got %s"):format(
      name, describe(given)), level)
  end
  local rows = {}
  for b = 1, rawlen(given) do
    local row = rawget(given, b)
    if type(row) ~= "table" or rawlen(row) == 0 then
      error(("%s: expected a list of ids as row %d, got %s"):format(
        name, b, type(row) == "table" and "an empty one" or options.describe(row)), level)
    end
    rows[b] = {}
    for t = 1, rawlen(row) do
      local id = rawget(row, t)
      if math.type(id) ~= "integer" or id < 0 or id >= model.vocab then
        error(("%s: expected ids from 0 to %d, got %s"):format(
          name, model.vocab - 1, options.describe(id)), level)
      end
      rows[b][t] = id
    end
    if model.limit and #rows[b] > model.limit then
      error(("%s: expected at most %d tokens, which the model has positions for, got %d"):format(
        name, model.limit, #rows[b]), level)
    end
  end
  return rows
end

--- Raises unless there are as many rows as ids has.
function ids.check_count(rows, count, name, level)
  if #rows ~= count then
    error(("%s: expected %d rows, as ids, got %d"):format(name, count, #rows), level + 1)
  end
end

--- Raises unless all rows have one length.
function ids.check_even(rows, name, level)
  for _, row in ipairs(rows) do
    if #row ~= #rows[1] then
      error(("%s: expected rows of one length, got %d and %d"):format(name, #rows[1], #row),
        level + 1)
    end
  end
end

return ids
