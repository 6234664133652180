--- Operations of users: a forward and a backward in Lua.
---
---     local cube = require "attune.autograd".operation {
---       name = "cube",
---       forward = function(x) return x * x * x end,        -- not recorded
---       keep = function(node, y, x) node:save(x) end,      -- what backward needs
---       backward = function(node, dy)                      -- a gradient per argument
---         local x = node:saved()
---         return dy * x * x * 3
---       end,
---     }
---
--- The engine shares what user code sees and never closes it, and checks the gradients that it
--- returns: their shape and dtype are those of the arguments.
local core = require "attune.core"
local graph = require "attune.autograd.graph"
local options = require "attune.util.options"
local describe = options.describe

local function is_tensor(x) return core._kind(x) == "tensor" end

local restoring = {__close = function(state) core._recording(state[1]) end}

local function check_function(given, name, optional)
  if type(given[name]) == "function" or optional and given[name] == nil then return end
  core._raise(("%s: expected a function, got %s"):format(name, describe(given[name])))
end

--- Makes a function of tensors whose gradient is given.
---@param given {name: string, forward: function, keep?: function, backward: function}
---@return function
return function(given)
  given = options.read(
    given, {"name", "forward", "keep", "backward"}, 2, "operation", "with forward and backward"
  )
  if type(given.name) ~= "string" then
    core._raise(("name: expected a string, got %s"):format(describe(given.name)))
  end
  check_function(given, "forward")
  check_function(given, "backward")
  check_function(given, "keep", true)
  local op = {name = given.name, custom = true, keep = given.keep, backward = given.backward}

  function op.forward(...)
    local _ <close> = setmetatable({core._recording(false)}, restoring)
    return (core._call(given.forward, ...))
  end

  -- Before keep: the result is a float tensor of its own; what the arguments are.
  function op.note(node, y, ...)
    if not is_tensor(y) or not graph.floats[y.dtype] then
      core._raise(
        ("%s: expected forward to return a float tensor, got %s"):format(op.name, describe(y))
      )
    end
    node.arguments = {}
    for i = 1, select("#", ...) do node.arguments[i] = describe((select(i, ...))) end
  end

  function op.check_gradient(node, i, gradient)
    if not node.inputs[i] then return end
    if not is_tensor(gradient) or describe(gradient) ~= node.arguments[i] then
      core._raise(
        ("%s: expected backward to return a %s for argument %d, got %s"):format(
          op.name, node.arguments[i], i, describe(gradient)
        )
      )
    end
  end

  return graph.operation(op)
end
