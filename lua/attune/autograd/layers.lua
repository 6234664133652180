--- What models consist of, with gradients: norms, activations, linear layers, embeddings and the
--- loss. `require "attune.autograd.layers"` gives the functions that are not methods of tensors.
local core = require "attune.core"
local graph = require "attune.autograd.graph"
local operation = graph.operation
local methods = core._tensor_methods

local layers = {}

-- ---- norms -------------------------------------------------------------------------------------

--- x / sqrt(mean(x^2) + eps) * weight over the last axis: Zhang and Sennrich 2019.
---@param x attune.Tensor [.., n]
---@param weight? attune.Tensor [n]
---@param eps? number 1e-5
methods.rms_norm = operation {
  name = "rms_norm",
  forward = core._rms_norm,
  outputs = 2,
  returns = 1,
  keep = function(node, _, rstd, x, weight) node:save(x, weight, rstd) end,
  backward = function(node, dy)
    local x, weight, rstd = node:saved()
    return core._rms_norm_backward(dy, x, weight or nil, rstd)
  end,
}

--- (x - mean) / sqrt(variance + eps) * weight + bias over the last axis: Ba et al. 2016.
---@param x attune.Tensor [.., n]
---@param weight? attune.Tensor [n]
---@param bias? attune.Tensor [n]
---@param eps? number 1e-5
methods.layer_norm = operation {
  name = "layer_norm",
  forward = core._layer_norm,
  outputs = 3,
  returns = 1,
  keep = function(node, _, mean, rstd, x, weight) node:save(x, weight, mean, rstd) end,
  backward = function(node, dy)
    local x, weight, mean, rstd = node:saved()
    return core._layer_norm_backward(dy, x, weight or nil, mean, rstd, node.needs[3])
  end,
}

-- ---- layers ------------------------------------------------------------------------------------

--- silu(gate) * up: Shazeer 2020 (arXiv 2002.05202).
---@param gate attune.Tensor
---@param up attune.Tensor of gate's shape
layers.swiglu = operation {
  name = "swiglu",
  forward = core._swiglu,
  keep = function(node, _, gate, up) node:save(gate, up) end,
  backward = function(node, dy) return core._swiglu_backward(dy, node:saved()) end,
}

--- x weight^T + bias.
---@param x attune.Tensor [.., in]
---@param weight attune.Tensor [out, in]
---@param bias? attune.Tensor [out]
layers.linear = operation {
  name = "linear",
  forward = core._linear,
  keep = function(node, _, x, weight) node:save(x, weight) end,
  backward = function(node, dy)
    local x, weight = node:saved()
    local needs = node.needs
    return core._linear_backward(dy, x, weight, needs[1], needs[2], needs[3])
  end,
}

--- The rows of a table that ids name.
---@param table attune.Tensor [vocabulary, d_model]
---@param ids attune.Tensor|integer[]|integer[][] from 0
layers.embedding = operation {
  name = "embedding",
  forward = core._embedding,
  keep = function(node, _, rows, ids)
    node.vocabulary = rows.shape[1]
    node.ids = core._integers(ids)
  end,
  backward = function(node, dy) return core._embedding_backward(dy, node.ids, node.vocabulary) end,
  add = function(node, dy, sum) return core._embedding_accumulate(dy, node.ids, sum) end,
}

--- The mean of -log softmax(logits)[target] over the tokens whose target is not `ignore`.
---@param logits attune.Tensor [.., vocabulary]
---@param targets attune.Tensor|integer[]|integer[][] ids from 0
---@param ignore? integer -1
layers.cross_entropy = operation {
  name = "cross_entropy",
  forward = core._cross_entropy,
  outputs = 2,
  returns = 1,
  keep = function(node, _, lse, logits, targets, ignore)
    node.targets, node.ignore = core._integers(targets), ignore
    node:save(logits, lse)
  end,
  backward = function(node, dloss)
    local logits, lse = node:saved()
    return core._cross_entropy_backward(dloss, logits, node.targets, node.ignore, lse)
  end,
}

return layers
