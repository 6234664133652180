--- Cross-entropy together with the output projection: tokens x vocabulary never exists as a whole.
--- The gradients are computed with the loss, while the logits of a block of tokens are in cache.
local core = require "attune.core"
local graph = require "attune.autograd.graph"

local options = require "attune.util.options"

local names = {"logit_scale", "softcap", "label_smoothing", "z_loss"}

local operation = graph.operation {
  name = "projected_loss",
  forward = function(...)
    local loss, nll, dx, dweight, dbias = core._projected_loss(...)
    return loss, {nll = nll, dx, dweight, dbias}
  end,
  outputs = 2,
  keep = function(node, _, parts)
    node:save(parts[1], parts[2], parts[3])
    for k = 1, 3 do
      if parts[k] then parts[k]:close() end
      parts[k] = nil
    end
  end,
  backward = function(node, dloss)
    local dx, dweight, dbias = node:saved()
    node.kept, node.kept_count = {}, 0 -- the gradients belong to the caller now
    local factor = dloss:item()
    for _, gradient in ipairs {dx, dweight, dbias} do
      if factor ~= 1 then core._scale(gradient, factor) end
    end
    return dx, dweight, dbias
  end,
}

-- Weights as a tensor. A list has the shape of the targets, or their number of elements.
local function tensor_of(weights, targets)
  if type(weights) ~= "table" then return weights end
  local tensor = core.tensor(weights)
  local shape, count = core._integers(targets, "targets").shape, 1
  for _, extent in ipairs(shape) do count = count * extent end
  return tensor.nbytes == 4 * count and tensor:view(table.unpack(shape)) or tensor
end

---@class attune.LossOptions
---@field logit_scale? number of the logits, 1
---@field softcap? number logits become softcap tanh(logits / softcap)
---@field label_smoothing? number the part of the target that is spread over all ids, 0
---@field z_loss? number times the square of log sum e^logit, added to each token's loss, 0

--- The weighted mean over tokens of -log softmax(x weight^T + bias)[target]; tokens of weight 0 are
--- skipped.
---@param x attune.Tensor [.., d_model]
---@param weight attune.Tensor [vocab, d_model]
---@param bias? attune.Tensor [vocab]
---@param targets attune.Tensor|integer[]|integer[][] ids from 0 [..]
---@param weights? attune.Tensor|number[]|number[][] [..], each at least 0; all 1 by default
---@param o? attune.LossOptions
---@return attune.Tensor loss of shape {}
---@return number nll the same without label smoothing and z_loss
return function(x, weight, bias, targets, weights, o)
  o = options.read(o, names, nil)
  weights = tensor_of(weights, targets)
  -- The gradient would end here without a word.
  if core._kind(weights) == "tensor" and core._tracks(weights) then
    core._raise("weights: expected a tensor without gradients, got one that requires them: the "
      .. "loss has no gradient for weights; compute them in attune.no_grad")
  end
  local loss, parts = operation(
    x, weight, bias, targets, weights, core._tracks(x, weight, bias), o.logit_scale or 1,
    o.softcap or 0, o.label_smoothing or 0, o.z_loss or 0
  )
  return loss, parts.nll
end
