--- Checked integers for the cost model: what a user gave, and products of sizes.
local options = require "attune.util.options"
local sorted_keys = require "attune.util.tables".sorted_keys

local numbers = {}

local max_product = 2.0 ^ 62

--- Raises where a size, which was computed in floating point, does not fit into 63 bits.
---@param level integer as of `error`, from the caller
function numbers.check_size(rounded, level)
  if rounded < max_product then return end
  error(("expected sizes whose product is below 2^62, got about %.3g"):format(rounded), level + 1)
end

--- The product of integers; raises where it does not fit into 63 bits.
---@param level integer as of `error`, from the caller
---@return integer
function numbers.product(level, ...)
  local exact, rounded = 1, 1.0
  for i = 1, select("#", ...) do
    exact = exact * select(i, ...)
    rounded = rounded * select(i, ...)
  end
  numbers.check_size(rounded, level + 1)
  return exact
end

--- An integer option, of at least min.
---@return integer
function numbers.integer(given, name, otherwise, min, level)
  local x = given[name]
  if x == nil then x = otherwise end
  local exact = math.type(x) and math.tointeger(x)
  if exact and exact >= min then return exact end
  local form = "%s: expected an integer of at least %d, got %s"
  error(form:format(name, min, options.describe(x)), level + 1)
end

--- A number option, above `above` and at most `max`.
---@return number
function numbers.number(given, name, otherwise, above, max, level)
  local x = given[name]
  if x == nil then x = otherwise end
  if math.type(x) and x > above and x <= max then return x end
  local form = max < math.huge and "%s: expected a number above %g and at most %g, got %s"
    or "%s: expected a number above %g, got %s"
  local values = max < math.huge and {above, max} or {above}
  values[#values + 1] = options.describe(x)
  error(form:format(name, table.unpack(values)), level + 1)
end

--- One of a table's keys.
---@param known table<string, any>
---@return string name
function numbers.choice(given, name, otherwise, known, level)
  local x = given[name]
  if x == nil then x = otherwise end
  if type(x) == "string" and known[x] ~= nil then return x end
  local names = sorted_keys(known)
  local form = "%s: expected one of %s, got %s"
  error(form:format(name, table.concat(names, ", "), options.describe(x)), level + 1)
end

return numbers
