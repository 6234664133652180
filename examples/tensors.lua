-- Tensors: views share memory, operations broadcast, reductions name an axis (from 1).
local attune = require "attune"

local x = attune.tensor({1, 2, 3, 4, 5, 6}, {shape = {2, 3}})
print("rows", table.concat(x:sum(2):tolist(), " "))
print("transposed", table.concat(x:transpose(1, 2).shape, " x "))

local weights = attune.randn({3, 4}, {seed = 1})
local y = attune.matmul(x, weights)
print("product", table.concat(y.shape, " x "))

local ok, message = pcall(attune.matmul, x, x)
print("refused", not ok, message)
