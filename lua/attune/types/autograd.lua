---@meta
-- Types of gradients, for a Lua language server. Nothing loads this file.

---@class attune.Tensor
---@field grad? attune.Tensor what backward() added up; assign nil to start again
local Tensor = {}
--- Marks a float tensor as one whose gradients are wanted.
---@return attune.Tensor itself
function Tensor:requires_grad() end
--- Adds the gradients of a result to the field grad of the tensors that require them. The graph is
--- freed while it is walked.
---@param gradient? attune.Tensor of the result; 1 by default, for a result of one element
function Tensor:backward(gradient) end
--- max(x, 0) of each element.
---@return attune.Tensor
function Tensor:relu() end
--- GELU of each element, with tanh.
---@return attune.Tensor GELU's approximation with tanh
function Tensor:gelu_tanh() end
--- x / sqrt(mean(x^2) + eps) * weight over the last axis: Zhang and Sennrich 2019.
---@param weight? attune.Tensor [n]
---@param eps? number 1e-5
---@return attune.Tensor
function Tensor:rms_norm(weight, eps) end
--- (x - mean) / sqrt(variance + eps) * weight + bias over the last axis: Ba et al. 2016.
---@param weight? attune.Tensor [n]
---@param bias? attune.Tensor [n]
---@param eps? number 1e-5
---@return attune.Tensor
function Tensor:layer_norm(weight, bias, eps) end

---@class attune
local attune = {}

--- Calls fn with the further arguments; nothing is recorded while it runs.
---@param fn function
---@return any ... what fn returns
function attune.no_grad(fn, ...) end
--- The bytes that the graph of a result keeps for its backward, without those of the tensors whose
--- gradients are wanted.
---@param result attune.Tensor
---@return integer
function attune.graph_bytes(result) end
--- Compares gradients with central differences in f64. A mismatch is no error.
---@param fn function (inputs ..) -> float tensors
---@param inputs table with at least one float tensor; those are converted to f64
---@param options? {bound?: number} 1e-6
---@return boolean ok
---@return string message the worst element
---@return number worst
function attune.gradcheck(fn, inputs, options) end
---@class attune.Profile
---@field wall number seconds
---@field core number seconds in the core; the rest is Lua
---@field calls integer of the core
---@field operations table<string, {calls: integer, core: number}>

--- Calls fn and measures where its time goes.
---@param fn function
---@return attune.Profile
function attune.profile(fn) end

--- `require "attune.autograd"`
---@class attune.autograd
---@field layers {linear: function, embedding: function, cross_entropy: function, swiglu: function}
local autograd = {}

--- Calls fn with the further arguments; the graph keeps only these, and backward calls fn again.
---@param fn function
---@return any ... what fn returns
function autograd.checkpoint(fn, ...) end
--- A function of tensors whose gradient is given: keep(node, result, ..) saves with node:save what
--- backward(node, d) needs, which returns a gradient per argument.
---@param given {name: string, forward: function, keep?: function, backward: function}
---@return function
function autograd.operation(given) end

return attune
