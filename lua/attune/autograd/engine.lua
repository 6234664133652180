--- Walks a graph from a result to the leaves: reverse-mode differentiation.
---
--- Nodes are visited from the last created to the first, so each has all its gradients when it is
--- reached, and sums have one order. A node's tensors are closed as soon as it has been visited.
local core = require "attune.core"
local graph = require "attune.autograd.graph"
local describe = require "attune.util.options".describe
local accumulate, share = core._accumulate, core._share

local engine = {}

local function is_open(handle)
  local kind, open = core._kind(handle)
  return kind == "tensor" and open
end

-- The sum of two gradients, which are the engine's own.
local function sum_of(a, b)
  local sum = accumulate(a, b)
  b:close()
  if not rawequal(sum, a) then a:close() end
  return sum
end

local function add_to_leaf(leaf, gradient)
  local before = rawget(leaf, "grad")
  if before ~= nil and is_open(before) then
    leaf.grad = accumulate(before, gradient)
    gradient:close()
    return
  end
  local own = core._own(gradient)
  if not rawequal(own, gradient) then gradient:close() end
  leaf.grad = own
end

-- Gives a gradient to the node, the leaf or the further result of a node that it belongs to.
local function deliver(arrived, input, gradient)
  local output = 1
  if input.of then input, output = input.of, input.output end
  if input.leaf then return add_to_leaf(input, gradient) end
  local gradients = arrived[input]
  if not gradients then
    arrived[input] = {[output] = gradient}
  elseif gradients[output] then
    gradients[output] = sum_of(gradients[output], gradient)
  else
    gradients[output] = gradient
  end
end

-- Gives the results of a node's backward to its inputs.
local function deliver_all(arrived, node, gradients, ...)
  local inputs, custom = node.inputs, node.op.custom
  for i = 1, select("#", ...) do
    local gradient = select(i, ...)
    if gradient then
      if custom then node.op.check_gradient(node, i, gradient) end
      if custom or rawequal(gradient, gradients[1]) or rawequal(gradient, gradients[2]) then
        gradient = share(gradient)
      end
      if inputs[i] then deliver(arrived, inputs[i], gradient) else gradient:close() end
    end
  end
end

-- Whether the operation could add to the gradient of its leaf in place.
local function added(node, gradients)
  local add, leaf = node.op.add, node.inputs[1]
  local sum = add and leaf and leaf.leaf and rawget(leaf, "grad")
  return sum and is_open(sum) and add(node, gradients[1], sum)
end

local function visit(arrived, node)
  local gradients = arrived[node]
  arrived[node] = nil
  if gradients then
    local last = 1
    for output in pairs(gradients) do last = math.max(last, output) end
    if not added(node, gradients) then
      deliver_all(
        arrived, node, gradients, node.op.backward(node, table.unpack(gradients, 1, last)))
    end
    if not node.op.custom then
      for _, gradient in pairs(gradients) do gradient:close() end
    end
  end
  graph.release(node)
end

-- What must hold again when a walk ends, also with an error.
local ending = {}
function ending.__close(state)
  core._recording(state.recording)
  for _, node in ipairs(state.order) do graph.release(node) end
end

--- Adds the gradients of results to the leaves that they depend on.
---@param roots table of {the node, the leaf or {of = node, output = i} of a result, its gradient,
--- which is closed}
function engine.run(roots)
  local order = graph.reachable(roots)
  local state <close> = setmetatable({recording = core._recording(false), order = order}, ending)
  local arrived = {}
  for _, root in ipairs(roots) do deliver(arrived, root[1], root[2]) end
  for i = 1, #state.order do visit(arrived, state.order[i]) end
end

-- The gradient that backward starts with.
local function start_of(result, gradient)
  if gradient == nil then
    if #result.shape > 0 and result.nbytes ~= result:view(-1)[1].nbytes then
      core._raise(
        ("backward: expected a result of one element, such as a loss, got a %s: sum it, or pass "
          .. "its gradient"):format(describe(result))
      )
    end
    return core._full_like(result, 1)
  end
  if type(gradient) == "table" then
    core._raise(
      "backward: expected a gradient tensor or nothing, got a table: a graph is freed while it is "
        .. "walked, and gradients of gradients (create_graph, double backward) are not supported"
    )
  end
  if core._kind(gradient) ~= "tensor" then
    core._raise(("gradient: expected a tensor, got %s"):format(describe(gradient)))
  end
  if describe(gradient) ~= describe(result) then
    core._raise(
      ("gradient: expected a %s, as the result is, got a %s"):format(
        describe(result), describe(gradient)
      )
    )
  end
  return (share(gradient))
end

--- loss:backward(): adds the gradient of every tensor that requires one to its field grad.
---@param result attune.Tensor
---@param gradient? attune.Tensor of the result; 1 by default, for a result of one element
function engine.backward(result, gradient)
  if core._kind(result) ~= "tensor" then
    core._raise(("backward: expected a tensor, got %s"):format(describe(result)))
  end
  local root = core._node(result)
  if not root then
    core._raise(
      ("backward: expected the result of tensors that require gradients, got a %s that depends on "
        .. "none (call requires_grad() on them first; a gradient itself has no graph, so a double "
        .. "backward is not possible)"):format(describe(result))
    )
  end
  -- A custom backward cannot yield: a coroutine cannot leave a walk half-way.
  core._call(engine.run, {{root, start_of(result, gradient)}})
end

return engine
