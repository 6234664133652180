--- The context of a call: what modules get beside x or ids. A module of one's own may read further
--- fields, whose names begin with `_`; other unknown names are errors.
local core = require "attune.core"
local options = require "attune.util.options"
local suggest = require "attune.util.suggest"
local describe = options.describe

---@class attune.Context
---@field lengths? table of packed documents, as attune.attention has
---@field positions? attune.Tensor|integer[] of the tokens, from 0
---@field memory? attune.Tensor [batch, tokens, d_model], which cross-attention reads
---@field dropout_step? integer|false of dropout, in place of that of module:set_step; false: none
---@field attend? fun(attention, q, k, v, context): attune.Tensor in place of Attention's own
---@field kv? table each layer's k and v, for layers that share them

local context = {}

local function is_list(x) return type(x) == "table" or core._kind(x) == "tensor" end
local function is_tensor(x) return core._kind(x) == "tensor" end

-- Each field: the check, and what a message says was expected.
local fields = {
  lengths = {is_list, "the tokens of each document, such as {{2, 3}, {5}}"},
  positions = {is_list, "positions of the tokens, from 0"},
  memory = {is_tensor, "a tensor [batch, tokens, d_model]"},
  dropout_step = {function(x) return math.type(x) == "integer" or x == false end,
    "an integer or false"},
  attend = {function(x) return type(x) == "function" end, "a function"},
  kv = {function(x) return type(x) == "table" end, "a table"},
}
local names = {}
for name in pairs(fields) do names[#names + 1] = name end
table.sort(names)

-- Contexts that were checked.
local checked = setmetatable({}, {__mode = "k"})

local function check(name, x)
  local field = fields[name]
  if not field then
    if type(name) == "string" and name:sub(1, 1) == "_" then return end
    core._raise(("context: unknown field '%s'; %s"):format(tostring(name),
      suggest(tostring(name), names)))
  end
  if not field[1](x) then
    core._raise(("context.%s: expected %s, got %s"):format(name, field[2], describe(x)))
  end
end

--- A copy of what a caller gave, checked; an empty table for nil.
---@param given? attune.Context
---@return attune.Context
function context.copy(given)
  local copy = {}
  if given ~= nil then
    if type(given) ~= "table" or options.answers(given) then
      core._raise(("context: expected a plain table such as {lengths = {{2, 3}}}, got %s"):format(
        describe(given)))
    end
    for name, x in next, given do
      if not checked[given] then check(name, x) end
      copy[name] = x
    end
  end
  checked[copy] = true
  return copy
end

--- The context of a call of a module, with the step of the module's set_step where it has no other.
---@param module table
---@param given? attune.Context
---@return attune.Context? nil where there is nothing to say
function context.of(module, given)
  local step = module._dropout_step
  if given == nil and step == nil then return nil end
  if checked[given] and (step == nil or given.dropout_step ~= nil) then return given end
  local copy = context.copy(given)
  if copy.dropout_step == nil then copy.dropout_step = step end
  return copy
end

return context
