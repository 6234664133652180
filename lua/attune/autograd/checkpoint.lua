--- Recomputation (Chen et al. 2016, arXiv 1604.06174): a part of the graph keeps only its inputs,
--- and is computed again when backward reaches it.
local core = require "attune.core"
local engine = require "attune.autograd.engine"
local graph = require "attune.autograd.graph"
local describe = require "attune.util.options".describe
local methods = core._tensor_methods

local function is_tensor(x) return core._kind(x) == "tensor" end

-- What must hold again after the second forward pass, also after an error.
local restoring = {}
function restoring.__close(state)
  core._recording(state.recording)
  core._seeds(state.base, state.draws)
end

-- The arguments as leaves of a graph of their own.
local function detached(node, ...)
  local arguments = {n = select("#", ...), ...}
  for i = 1, node.count do
    if not node.is_tensor[i] then
      arguments[i] = node.others[i]
    else
      local own = core._share(arguments[i])
      arguments[i] = node.needs[i] and methods.requires_grad(own) or own
    end
  end
  return arguments
end

local operation = {name = "checkpoint"}

function operation.backward(node, ...)
  local arguments = detached(node, node:saved())
  local state <close> = setmetatable({recording = core._recording(true)}, restoring)
  state.base, state.draws = core._seeds()
  core._seeds(node.base, node.draws)
  local results = table.pack(core._call(node.fn, table.unpack(arguments, 1, node.count)))
  core._recording(false)
  local roots = {}
  for i = 1, results.n do
    local gradient = select(i, ...)
    local root = gradient and is_tensor(results[i]) and core._node(results[i])
    if root then roots[#roots + 1] = {root, (core._share(gradient))} end
  end
  engine.run(roots)
  local gradients = {}
  for i = 1, node.count do
    local leaf = node.needs[i] and core._node(arguments[i])
    gradients[i] = leaf and leaf.grad
  end
  return table.unpack(gradients, 1, node.count)
end

--- Calls fn with the further arguments and returns what it returns. The graph keeps the arguments
--- only, and backward calls fn again: with the same arguments it must compute the same. Draws of
--- random numbers without a seed start where they did in the first call. Where a tensor that
--- requires gradients, and that fn read, was written in place since, backward is an error.
---@param fn function
return function(fn, ...)
  if type(fn) ~= "function" then
    core._raise(("checkpoint: expected a function, got %s"):format(describe(fn)))
  end
  if not core._recording() then return fn(...) end
  local node = graph.node(operation, {core._nodes(...)})
  node.count, node.fn, node.is_tensor, node.others = select("#", ...), fn, {}, {}
  local tensors = {}
  for i = 1, node.count do
    local x = select(i, ...)
    node.is_tensor[i] = is_tensor(x)
    tensors[i] = node.is_tensor[i] and x
    if not node.is_tensor[i] then node.others[i] = x end
  end
  node.base, node.draws = core._seeds()
  node:save(table.unpack(tensors, 1, node.count))
  local _ <close> = setmetatable({core._recording(false)}, {
    __close = function(s) core._recording(s[1]) end,
  })
  -- What fn reads beside its arguments, such as weights, must be the same when it is called again.
  local reads, results = graph.reads_of(fn, ...)
  node:watch(reads)
  for i = 1, results.n do
    local x = results[i]
    if is_tensor(x) and not core._node(x) and graph.floats[x.dtype] then
      core._set_node(x, i == 1 and node or {of = node, output = i})
    end
  end
  return table.unpack(results, 1, results.n)
end
