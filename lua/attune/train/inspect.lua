--- Names the tensor where the first NaN or Inf arises: a failed step is computed again with checks.
local core = require "attune.core"
local floats = require "attune.autograd.graph".floats
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

local function is_wrong(x)
  return core._kind(x) == "tensor" and floats[x.dtype] and not is_finite(x)
end

-- Runs fn while the results of every module are looked at. The first wrong one in the order of
-- computation is returned; modules inside a wrong one come before it.
local function watched(model, fn)
  local found
  local changed = {}
  each_module(model, "", function(part, name)
    local forward = part.forward
    if type(forward) ~= "function" then return end
    local function look(...)
      for k = 1, select("#", ...) do
        if not found and is_wrong((select(k, ...))) then found = name end
      end
      return ...
    end
    changed[#changed + 1] = {part, rawget(part, "forward")}
    rawset(part, "forward", function(...) return look(forward(...)) end)
  end, {})
  local ok, why = pcall(fn)
  -- A module of two names was changed twice.
  for k = #changed, 1, -1 do rawset(changed[k][1], "forward", changed[k][2]) end
  if not ok then error(why, 0) end
  return found
end

-- The leaves of a graph, which get the gradients: {leaf = name of the parameter}.
local function leaves_of(parameters)
  local leaves = {}
  for name, p in next, parameters do
    local node = core._node(p)
    if node and node.leaf then leaves[node] = name end
  end
  return leaves
end

-- Runs fn while the first gradient of every parameter is looked at. Backward assigns it to a new
-- field of the leaf. Returns the name of the first that is not finite, in the order in which they
-- arrive; one that further gradients of its own made so comes before what arrives after it.
local function watched_gradients(parameters, fn)
  local leaves, arrived, found = leaves_of(parameters), {}, nil
  local function first_arrived()
    for _, leaf in ipairs(arrived) do
      if leaf.grad and not is_finite(leaf.grad) then return leaves[leaf] end
    end
  end
  local watch = {__newindex = function(leaf, key, value)
    rawset(leaf, key, value)
    if key ~= "grad" or found then return end
    arrived[#arrived + 1] = leaf
    if value and not is_finite(value) then found = first_arrived() end
  end}
  for leaf in next, leaves do setmetatable(leaf, watch) end
  local ok, result = pcall(fn)
  for leaf in next, leaves do setmetatable(leaf, nil) end
  if not ok then error(result, 0) end
  return result, found or first_arrived()
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
  local gradient
  wrong, gradient = watched_gradients(parameters, function() return watched(model, backward) end)
  if wrong then return ("the result of '%s' is the first that is not finite"):format(wrong) end
  if gradient then
    return ("the gradient of '%s' is the first in backward that is not finite"):format(gradient)
  end
  return "all results of modules and all gradients are finite; the loss itself is not"
end

return inspect
