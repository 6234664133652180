--- Automatic differentiation: which tensors require gradients, and the functions of attune that use
--- the graph. graph.lua says how an operation is registered, engine.lua how a graph is walked.
local core = require "attune.core"
-- Gradients that users call by hand keep their names; the operations use these.
core._attention, core._attention_backward = core.attention, core.attention_backward
core._linear_attention_backward = core.linear_attention_backward

local engine = require "attune.autograd.engine"
local graph = require "attune.autograd.graph"
local describe = require "attune.util.options".describe
require "attune.autograd.operations"
require "attune.autograd.indexing"
local layers = require "attune.autograd.layers"
local attention = require "attune.autograd.attention"
attention.install()

local autograd = {
  layers = layers,
  attention = attention.attention,
  checkpoint = require "attune.autograd.checkpoint",
  operation = require "attune.autograd.custom",
}
local methods = core._tensor_methods

--- Marks a tensor as one whose gradients are wanted: operations on it are recorded, and backward
--- adds to its field grad. Returns the tensor.
function methods.requires_grad(tensor)
  if core._kind(tensor) ~= "tensor" then
    core._raise(("requires_grad: expected a tensor, got %s"):format(describe(tensor)))
  end
  if core._node(tensor) then return tensor end
  if not graph.floats[tensor.dtype] then
    core._raise(
      ("requires_grad: expected a float tensor (f32, f64, bf16, f16), got a %s"):format(
        describe(tensor)
      )
    )
  end
  core._set_node(tensor, {leaf = true, storage = core._storage(tensor)}, true)
  return tensor
end

methods.backward = engine.backward

core._hook("set_grad", function(tensor, gradient)
  local node = core._node(tensor)
  if not (node and node.leaf) then
    core._raise("grad: expected a tensor on which requires_grad() was called")
  end
  if gradient ~= nil then
    if core._kind(gradient) ~= "tensor" or describe(gradient) ~= describe(tensor) then
      core._raise(
        ("grad: expected nil or a %s, got %s"):format(describe(tensor), describe(gradient))
      )
    end
  end
  node.grad = gradient
end)

local restoring = {__close = function(state) core._recording(state[1]) end}

--- Calls fn with the further arguments; nothing is recorded while it runs. Returns what fn returns.
---@param fn function
function autograd.no_grad(fn, ...)
  if type(fn) ~= "function" then
    core._raise(("no_grad: expected a function, got %s"):format(describe(fn)))
  end
  local _ <close> = setmetatable({core._recording(false)}, restoring)
  return core._call(fn, ...)
end

--- The bytes that the graph of a result keeps for its backward, each memory once; without that of
--- the tensors whose gradients are wanted.
---@param result attune.Tensor
---@return integer
function autograd.graph_bytes(result)
  local root = core._kind(result) == "tensor" and core._node(result)
  if not root then
    core._raise(
      ("graph_bytes: expected the result of tensors that require gradients, got %s"):format(
        describe(result)
      )
    )
  end
  local order, leaves = graph.reachable {{root}}
  local counted, bytes = {}, 0
  for _, leaf in ipairs(leaves) do counted[leaf.storage] = true end
  for _, node in ipairs(order) do
    for i = 1, node.kept_count or 0 do
      if node.kept[i] then
        local storage, size = core._storage(node.kept[i])
        if not counted[storage] then
          counted[storage] = true
          bytes = bytes + size
        end
      end
    end
  end
  return bytes
end

return autograd
