--- Names the tensor where the first NaN or Inf arises: a failed step is computed again with checks.
local core = require "attune.core"
local module = require "attune.nn.module"
local sorted_keys = require "attune.util.tables".sorted_keys

local inspect = {}

local function is_finite(tensor)
  local sum = core._sum_of_squares(tensor)
  return sum == sum and sum < math.huge
end

-- The name and the tensor of the first that is not finite, in the order of names.
local function first_wrong(tensors)
  local names = sorted_keys(tensors)
  for _, name in ipairs(names) do
    if not is_finite(tensors[name]) then return name end
  end
end

-- Calls visit(module, name) for the modules below x.
local function each_module(x, prefix, visit, seen)
  if seen[x] then return end
  seen[x] = true
  for _, key in ipairs(module.member_keys(x)) do
    local value, name = rawget(x, key), prefix .. key
    if module.is_module(value) then visit(value, name) end
    if type(value) == "table" and core._kind(value) == nil
      and (module.is_module(value) or getmetatable(value) == nil)
    then
      each_module(value, name .. ".", visit, seen)
    end
  end
end

-- Runs fn while the result of every module is looked at. The first wrong one in the order of
-- computation is returned; modules inside a wrong one come before it.
local function watched(model, fn)
  local found
  local changed = {}
  each_module(model, "", function(part, name)
    local forward = part.forward
    if type(forward) ~= "function" then return end
    changed[#changed + 1] = part
    part.forward = function(self, ...)
      local y = forward(self, ...)
      if not found and core._kind(y) == "tensor" and not is_finite(y) then found = name end
      return y
    end
  end, {})
  local ok, why = pcall(fn)
  for _, part in ipairs(changed) do part.forward = nil end
  if not ok then error(why, 0) end
  return found
end

--- Computes a failed step again and says where the first value arises that is not finite.
---@param model table
---@param backward fun() computes the losses of the step and their gradients, of which there are
--- none yet
---@return string
function inspect.replay(model, backward)
  local parameters = model.parameters and model:parameters() or {}
  local wrong = first_wrong(parameters)
  if wrong then return ("parameter '%s' is not finite before the step"):format(wrong) end
  wrong = watched(model, backward)
  if wrong then return ("the result of '%s' is the first that is not finite"):format(wrong) end
  local gradients = {}
  for name, p in next, parameters do gradients[name] = p.grad end
  wrong = first_wrong(gradients)
  if wrong then return ("the gradient of '%s' is not finite"):format(wrong) end
  return "all results of modules and all gradients are finite; the loss itself is not"
end

return inspect
