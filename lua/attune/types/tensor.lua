---@meta
-- Types of tensors, for a Lua language server. Nothing loads this file.
-- Axes and indices count from 1, negative ones from the end. Wrong arguments raise an error.

---@alias attune.operand attune.Tensor|number

--- A view of numbers in memory. Views (t[i], view, transpose, slice, expand) share memory.
---@class attune.Tensor
---@field shape integer[]
---@field dtype attune.dtype
---@field nbytes integer count times element size
---@field [integer] attune.Tensor the i-th along the first axis
---@field [attune.Traced] attune.Traced in a score or mask function: one index per axis, from 1
---@operator add(attune.operand): attune.Tensor
---@operator sub(attune.operand): attune.Tensor
---@operator mul(attune.operand): attune.Tensor
---@operator div(attune.operand): attune.Tensor
---@operator pow(attune.operand): attune.Tensor
---@operator unm: attune.Tensor
---@operator len: integer
local Tensor = {}
--- All numbers, exactly.
---@return table|number nested as the shape is
function Tensor:tolist() end
--- The number of a tensor of one element.
---@return number the only element
function Tensor:item() end
--- Rounds to nearest even; to integers it rounds and saturates.
---@param dtype attune.dtype
---@return attune.Tensor
function Tensor:to(dtype) end
--- The same numbers in row-major order.
---@return attune.Tensor itself where it is contiguous
function Tensor:contiguous() end
--- The same memory in another shape; the tensor must be contiguous.
---@param ... integer|integer[] one may be -1
---@return attune.Tensor
function Tensor:view(...) end
--- The same memory with two axes swapped.
---@param a integer
---@param b integer
---@return attune.Tensor
function Tensor:transpose(a, b) end
--- The same memory, indices first to last of an axis.
---@param axis integer
---@param first integer
---@param last integer included
---@return attune.Tensor
function Tensor:slice(axis, first, last) end
--- The same memory, in which axes of extent 1 repeat; new axes come in front.
---@param ... integer|integer[] axes of 1 repeat
---@return attune.Tensor
function Tensor:expand(...) end
--- The sum along an axis, which is dropped, or of all elements.
---@param axis? integer without it over all, giving shape {}
---@return attune.Tensor of integers: i64, exact up to 2^53
function Tensor:sum(axis) end
--- The mean along an axis, which is dropped, or of all elements.
---@param axis? integer
---@return attune.Tensor of integers: f32
function Tensor:mean(axis) end
--- The max along an axis, which is dropped, or of all elements.
---@param axis? integer
---@return attune.Tensor NaN where one is
function Tensor:max(axis) end
--- The min along an axis, which is dropped, or of all elements.
---@param axis? integer
---@return attune.Tensor NaN where one is
function Tensor:min(axis) end
--- The index of the max along an axis, which is dropped.
---@param axis? integer without it over all elements, in row-major order
---@return attune.Tensor i64, from 1: the first of equals; NaN counts as the largest
function Tensor:argmax(axis) end
--- The index of the min along an axis, which is dropped.
---@param axis? integer
---@return attune.Tensor i64, from 1; NaN counts as the smallest
function Tensor:argmin(axis) end
--- The k largest along an axis, whose extent becomes k.
---@param k integer
---@param axis? integer the last
---@return attune.Tensor values the k largest, in descending order
---@return attune.Tensor indices i64, from 1
function Tensor:topk(k, axis) end
--- Sums along an axis, in the same shape.
---@param axis integer
---@return attune.Tensor the sum of all elements up to each; of integers: i64
function Tensor:cumsum(axis) end
--- 1 where self < x, else 0, in i8. Broadcasts.
---@param x attune.operand
---@return attune.Tensor
function Tensor:lt(x) end
--- As lt, where self <= x.
---@param x attune.operand
---@return attune.Tensor
function Tensor:le(x) end
--- As lt, where self > x.
---@param x attune.operand
---@return attune.Tensor
function Tensor:gt(x) end
--- As lt, where self >= x.
---@param x attune.operand
---@return attune.Tensor
function Tensor:ge(x) end
--- As lt, where self == x.
---@param x attune.operand
---@return attune.Tensor
function Tensor:eq(x) end
--- As lt, where self ~= x.
---@param x attune.operand
---@return attune.Tensor
function Tensor:ne(x) end
--- The listed indices of an axis, whose extent becomes n.
---@param indices integer[]|attune.Tensor [n], from 1, negative from the end
---@param axis? integer 1
---@return attune.Tensor
function Tensor:take(indices, axis) end
--- result[i][j] = self[i][indices[i][j]] for axis 2 of two.
---@param axis integer
---@param indices integer[]|integer[][]|attune.Tensor shaped as the result, from 1; lists for one or
--- two axes
---@return attune.Tensor
function Tensor:gather(axis, indices) end
--- A copy with memory of its own.
---@return attune.Tensor
function Tensor:clone() end
--- Writes in place, also into a view. t[i] = x writes into t[i].
---@param x attune.operand broadcasts
---@return attune.Tensor itself
function Tensor:copy(x) end
--- Writes one number into every element, in place, also into a view.
---@param x number
---@return attune.Tensor itself
function Tensor:fill(x) end
--- e^x of each element, in the same shape and dtype.
---@return attune.Tensor
function Tensor:exp() end
--- The natural logarithm of each element.
---@return attune.Tensor
function Tensor:log() end
--- The square root of each element.
---@return attune.Tensor
function Tensor:sqrt() end
--- The hyperbolic tangent of each element.
---@return attune.Tensor
function Tensor:tanh() end
--- 1 / (1 + e^-x) of each element.
---@return attune.Tensor
function Tensor:sigmoid() end
--- GELU of each element: Hendrycks and Gimpel 2016.
---@return attune.Tensor x times the normal distribution's probability of x (erf)
function Tensor:gelu() end
--- SiLU of each element.
---@return attune.Tensor x times sigmoid(x)
function Tensor:silu() end
--- The absolute value of each element.
---@return attune.Tensor
function Tensor:abs() end
--- e^x / sum of e^x along an axis, in the same shape.
---@param axis integer
---@return attune.Tensor a row of -inf gives zeros
function Tensor:softmax(axis) end
--- Gives the memory back now. Idempotent; using the tensor afterwards raises.
function Tensor:close() end

---@class attune
local attune = {}

--- A tensor of the given numbers.
---@param data table numbers, nested as the shape is
---@param options? {shape?: integer[], dtype?: attune.dtype}
---@return attune.Tensor
function attune.tensor(data, options) end
--- A tensor of zeros.
---@param shape integer[]
---@param options? {dtype?: attune.dtype}
---@return attune.Tensor
function attune.zeros(shape, options) end
--- A tensor of ones.
---@param shape integer[]
---@param options? {dtype?: attune.dtype}
---@return attune.Tensor
function attune.ones(shape, options) end
--- A tensor of one number.
---@param shape integer[]
---@param value number
---@param options? {dtype?: attune.dtype}
---@return attune.Tensor
function attune.full(shape, value, options) end
--- arange(n): 0 .. n - 1. arange(first, last, step): last included.
---@param first integer|number
---@param last? number
---@param step? number
---@param options? {dtype?: attune.dtype}
---@return attune.Tensor
function attune.arange(first, last, step, options) end
--- Normal numbers, of mean 0 and standard deviation 1 by default. Element n draws from Philox
--- counter n under the seed.
---@param shape integer[]
---@param options? {seed?: integer, dtype?: attune.dtype, mean?: number, std?: number}
---@return attune.Tensor
function attune.randn(shape, options) end
--- Uniform numbers from low (0) to below high (1), drawn as in randn.
---@param shape integer[]
---@param options? {seed?: integer, dtype?: attune.dtype, low?: number, high?: number}
---@return attune.Tensor
function attune.uniform(shape, options) end
--- Joins tensors along an axis, in which alone they may differ.
---@param tensors attune.Tensor[]
---@param axis? integer 1
---@return attune.Tensor
function attune.cat(tensors, axis) end
--- Joins tensors of one shape along a new axis.
---@param tensors attune.Tensor[]
---@param axis? integer of the result; 1
---@return attune.Tensor
function attune.stack(tensors, axis) end
--- a where the condition is not 0, else b; all broadcast.
---@param condition attune.Tensor of any dtype
---@param a attune.operand
---@param b attune.operand
---@return attune.Tensor
function attune.where(condition, a, b) end
--- a [.., m, k], b [.., k, n]: leading axes broadcast; any strides.
---@param a attune.Tensor
---@param b attune.Tensor of a's dtype
---@return attune.Tensor [.., m, n]
function attune.matmul(a, b) end

return attune
