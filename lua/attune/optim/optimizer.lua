--- What all optimisers have in common: steps, moments, state.
local core = require "attune.core"
local options = require "attune.util.options"

---@class attune.Optimizer
---@field lr number the rate of the next step; schedules set it
---@field steps integer that were made
local Optimizer = {}
Optimizer.__index = Optimizer

--- An optimiser over a list of parameters. moments: the names of the tensors that it keeps for each
--- one; a function gives the names of one parameter. step(self, p, gradient, lr) steps one.
---@return attune.Optimizer
function Optimizer.new(kind, list, lr, moments, step)
  local self = {kind = kind, lr = lr, steps = 0, _list = list, _step = step}
  for _, p in ipairs(list) do
    p.moments = {}
    for _, name in ipairs(type(moments) == "function" and moments(p) or moments) do
      p.moments[name] = core.zeros(p.tensor.shape, {dtype = p.tensor.dtype})
    end
  end
  return setmetatable(self, Optimizer)
end

--- Steps every parameter that has a gradient, in place.
function Optimizer:step()
  local lr = self.lr
  if type(lr) ~= "number" or not (lr >= 0 and lr < math.huge) then
    core._raise(("lr: expected a number of at least 0, got %s"):format(options.describe(lr)))
  end
  self.steps = self.steps + 1
  for _, p in ipairs(self._list) do
    local gradient = p.tensor.grad
    if gradient then self._step(self, p, gradient, lr * p.lr_factor) end
  end
end

-- Whether it steps one of these tensors.
function Optimizer:_steps_one_of(tensors)
  local own = {}
  for _, p in ipairs(self._list) do own[p.tensor] = true end
  for _, tensor in next, tensors do
    if own[tensor] then return true end
  end
  return false
end

--- Forgets all gradients.
function Optimizer:zero_grad()
  for _, p in ipairs(self._list) do p.tensor.grad = nil end
end

--- What a checkpoint keeps: the number of steps, the rate, and the moments by parameter, which are
--- not copied.
---@return {kind: string, steps: integer, lr: number, moments: table<string, attune.Tensor>}
function Optimizer:state()
  local moments = {}
  for _, p in ipairs(self._list) do
    for name, tensor in next, p.moments do moments[name .. "." .. p.name] = tensor end
  end
  return {kind = self.kind, steps = self.steps, lr = self.lr, moments = moments}
end

local function check(own, given)
  if given.kind ~= own.kind then
    core._raise(("kind: expected the state of %s, got that of %s"):format(
      own.kind, options.describe(given.kind)))
  end
  if math.type(given.steps) ~= "integer" or given.steps < 0 then
    core._raise(("steps: expected an integer of at least 0, got %s"):format(
      options.describe(given.steps)))
  end
  for name, tensor in next, own.moments do
    local other = type(given.moments) == "table" and rawget(given.moments, name)
    if core._kind(other) ~= "tensor" then
      core._raise(("moments: expected a tensor '%s', got %s"):format(
        name, options.describe(other)))
    end
    if table.concat(other.shape, "x") ~= table.concat(tensor.shape, "x") then
      core._raise(("moments: %s: expected shape {%s}, got {%s}"):format(
        name, table.concat(tensor.shape, ", "), table.concat(other.shape, ", ")))
    end
    if other.dtype ~= tensor.dtype then
      core._raise(("moments: %s: expected dtype %s, got %s"):format(
        name, tensor.dtype, other.dtype))
    end
  end
end

local function read_state(self, state)
  local given = options.read(state, {"kind", "steps", "lr", "moments"}, 3, "state", "of state()")
  local own = self:state()
  check(own, given)
  return own, given
end

--- Raises an error where load_state would.
function Optimizer:check_state(state) read_state(self, state) end

--- Goes on from the state of another optimiser of the same kind and parameters.
function Optimizer:load_state(state)
  local own, given = read_state(self, state)
  for name, tensor in next, own.moments do core._copy(given.moments[name], tensor) end
  self.steps, self.lr = given.steps, given.lr or self.lr
end

return Optimizer
