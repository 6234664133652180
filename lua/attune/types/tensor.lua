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
---@return table|number nested as the shape is
function Tensor:tolist() end
---@return number the only element
function Tensor:item() end
--- Rounds to nearest even; to integers it rounds and saturates.
---@param dtype attune.dtype
---@return attune.Tensor
function Tensor:to(dtype) end
---@return attune.Tensor itself where it is contiguous
function Tensor:contiguous() end
---@param ... integer|integer[] one may be -1
---@return attune.Tensor
function Tensor:view(...) end
---@param a integer
---@param b integer
---@return attune.Tensor
function Tensor:transpose(a, b) end
---@param axis integer
---@param first integer
---@param last integer included
---@return attune.Tensor
function Tensor:slice(axis, first, last) end
---@param ... integer|integer[] axes of 1 repeat
---@return attune.Tensor
function Tensor:expand(...) end
---@param axis? integer without it over all, giving shape {}
---@return attune.Tensor of integers: i64, exact up to 2^53
function Tensor:sum(axis) end
---@param axis? integer
---@return attune.Tensor of integers: f32
function Tensor:mean(axis) end
---@param axis? integer
---@return attune.Tensor NaN where one is
function Tensor:max(axis) end
---@param axis? integer
---@return attune.Tensor NaN where one is
function Tensor:min(axis) end
---@param axis? integer without it over all elements, in row-major order
---@return attune.Tensor i64, from 1: the first of equals; NaN counts as the largest
function Tensor:argmax(axis) end
---@param axis? integer
---@return attune.Tensor i64, from 1; NaN counts as the smallest
function Tensor:argmin(axis) end
---@param k integer
---@param axis? integer the last
---@return attune.Tensor values the k largest, in descending order
---@return attune.Tensor indices i64, from 1
function Tensor:topk(k, axis) end
---@param axis integer
---@return attune.Tensor the sum of all elements up to each; of integers: i64
function Tensor:cumsum(axis) end
--- Comparisons broadcast; the result is i8, of 0 and 1.
---@param x attune.operand
---@return attune.Tensor
function Tensor:lt(x) end
---@param x attune.operand
---@return attune.Tensor
function Tensor:le(x) end
---@param x attune.operand
---@return attune.Tensor
function Tensor:gt(x) end
---@param x attune.operand
---@return attune.Tensor
function Tensor:ge(x) end
---@param x attune.operand
---@return attune.Tensor
function Tensor:eq(x) end
---@param x attune.operand
---@return attune.Tensor
function Tensor:ne(x) end
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
---@return attune.Tensor a copy with memory of its own
function Tensor:clone() end
--- Writes in place, also into a view. t[i] = x writes into t[i].
---@param x attune.operand broadcasts
---@return attune.Tensor itself
function Tensor:copy(x) end
---@param x number
---@return attune.Tensor itself
function Tensor:fill(x) end
---@return attune.Tensor
function Tensor:exp() end
---@return attune.Tensor
function Tensor:log() end
---@return attune.Tensor
function Tensor:sqrt() end
---@return attune.Tensor
function Tensor:tanh() end
---@return attune.Tensor
function Tensor:sigmoid() end
---@return attune.Tensor x times the normal distribution's probability of x (erf)
function Tensor:gelu() end
---@return attune.Tensor x times sigmoid(x)
function Tensor:silu() end
---@return attune.Tensor
function Tensor:abs() end
---@param axis integer
---@return attune.Tensor a row of -inf gives zeros
function Tensor:softmax(axis) end
--- Gives the memory back now. Idempotent; using the tensor afterwards raises.
function Tensor:close() end

---@class attune
local attune = {}

---@param data table numbers, nested as the shape is
---@param options? {shape?: integer[], dtype?: attune.dtype}
---@return attune.Tensor
function attune.tensor(data, options) end
---@param shape integer[]
---@param options? {dtype?: attune.dtype}
---@return attune.Tensor
function attune.zeros(shape, options) end
---@param shape integer[]
---@param options? {dtype?: attune.dtype}
---@return attune.Tensor
function attune.ones(shape, options) end
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
---@param shape integer[]
---@param options? {seed?: integer, dtype?: attune.dtype, mean?: number, std?: number}
---@return attune.Tensor
function attune.randn(shape, options) end
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
---@param b attune.Tensor
---@return attune.Tensor
function attune.matmul(a, b) end

return attune
