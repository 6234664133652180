--- Gradients against central differences: (f(x + h) - f(x - h)) / 2h, in f64.
local core = require "attune.core"
local floats = require "attune.autograd.graph".floats
local describe = require "attune.util.options".describe
local options = require "attune.util.options"
local methods = core._tensor_methods
local call = core._call -- fn cannot yield

local STEP = 1e-5 -- h: the difference's own error is near 1e-10 for values near 1

local function is_tensor(x) return core._kind(x) == "tensor" end

-- Copies of the inputs in f64, and which of them have gradients. Others are passed as they are.
local function copies(inputs)
  local list, checked = {n = #inputs}, {}
  for i = 1, list.n do
    local x = inputs[i]
    if is_tensor(x) and floats[x.dtype] then
      list[i] = core._own(core._share(methods.to(x, "f64")))
      checked[#checked + 1] = i
    else
      list[i] = x
    end
  end
  return list, checked
end

-- The tensors that fn returns; raises an error where it returns none.
local function results_of(...)
  local list = {}
  for i = 1, select("#", ...) do
    local x = select(i, ...)
    if is_tensor(x) and floats[x.dtype] then list[#list + 1] = x end
  end
  if #list == 0 then
    core._raise(
      ("gradcheck: expected a function that returns a float tensor, got %s"):format(describe((...)))
    )
  end
  return list
end

-- A result becomes one number: its sum times weights that differ from element to element, so that
-- errors of elements do not cancel.
local function weighted(result, number)
  local flat = methods.view(methods.contiguous(methods.to(result, "f64")), -1)
  local weights = core.uniform(flat.shape, {low = 0.5, high = 1.5, seed = number, dtype = "f64"})
  return (flat * weights):sum()
end

local function value_of(fn, list)
  local sum = 0
  for number, result in ipairs(results_of(call(fn, table.unpack(list, 1, list.n)))) do
    sum = sum + weighted(result, number):item()
  end
  return sum
end

-- What backward gives for each input, as lists of numbers; or nil and the error that it raised: a
-- gradient of a wrong shape is a mismatch, too.
local function gradients_of(fn, list, checked)
  local arguments = {n = list.n, table.unpack(list, 1, list.n)}
  for _, i in ipairs(checked) do
    arguments[i] = methods.requires_grad((core._share(list[i])))
  end
  local loss
  for number, result in ipairs(results_of(call(fn, table.unpack(arguments, 1, list.n)))) do
    local part = weighted(result, number)
    loss = loss and loss + part or part
  end
  if core._node(loss) then
    local ok, message = pcall(methods.backward, loss)
    if not ok then return nil, tostring(message) end
  end
  local gradients = {}
  for _, i in ipairs(checked) do
    local gradient = arguments[i].grad
    gradients[i] = gradient and methods.view(methods.contiguous(gradient), -1):tolist()
  end
  return gradients
end

local function index_text(element, shape)
  local index, rest = {}, element - 1
  for axis = #shape, 1, -1 do
    index[axis] = math.tointeger(rest % shape[axis]) + 1
    rest = rest // shape[axis]
  end
  return table.concat(index, ", ")
end

--- Compares the gradients that backward gives with central differences in f64. Float inputs are
--- converted to f64; others, and options, are passed as they are. A mismatch is no error.
---@param fn function (inputs ..) -> one or more float tensors
---@param inputs table list of what fn takes, with at least one float tensor
---@param given? {bound?: number} of |gradient - difference| / max(1, |difference|); 1e-6
---@return boolean ok
---@return string message the worst element, and what was expected there
---@return number worst the largest difference; NaN where a gradient is
return function(fn, inputs, given)
  if type(fn) ~= "function" then
    core._raise(("gradcheck: expected a function, got %s"):format(describe(fn)))
  end
  if type(inputs) ~= "table" then
    core._raise(("inputs: expected a list, got %s"):format(describe(inputs)))
  end
  local bound = options.read(given, {"bound"}, 2).bound or 1e-6
  if type(bound) ~= "number" then
    core._raise(("bound: expected a number, got %s"):format(describe(bound)))
  end
  local list, checked = copies(inputs)
  if #checked == 0 then
    core._raise("inputs: expected at least one float tensor, whose gradient is compared, got none")
  end
  local before = core._recording(true)
  local _ <close> = setmetatable({}, {__close = function() core._recording(before) end})
  local gradients, failure = gradients_of(fn, list, checked)
  if not gradients then return false, failure, math.huge end
  core._recording(false)
  local worst, where = 0, nil
  for _, i in ipairs(checked) do
    local x, shape = list[i], list[i].shape
    for element = 1, x.nbytes // 8 do
      local value = core._element(x, element)
      core._element(x, element, value + STEP)
      local above = value_of(fn, list)
      core._element(x, element, value - STEP)
      local below = value_of(fn, list)
      core._element(x, element, value)
      local expected = (above - below) / (2 * STEP)
      local got = gradients[i] and gradients[i][element] or 0
      local difference = math.abs(got - expected) / math.max(1, math.abs(expected))
      if worst == worst and not (difference <= worst) or element == 1 and i == checked[1] then
        worst = difference
        where = ("input %d, element [%s]: expected %.12g by differences, got %.12g%s"):format(
          i, index_text(element, shape), expected, got, gradients[i] and "" or " (no gradient came)"
        )
      end
    end
  end
  return worst <= bound, where, worst
end
