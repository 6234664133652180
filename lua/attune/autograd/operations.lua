--- Tensor operations with gradients: arithmetic, products, reductions and views. Each is one table
--- of forward and backward (graph.lua says how).
local core = require "attune.core"
local graph = require "attune.autograd.graph"
local operation = graph.operation

local methods, operators = core._tensor_methods, core._tensor_operators

-- ---- elementwise -------------------------------------------------------------------------------

local function unary(name, forward)
  local backward = core._unary_backward
  local keeps_result = core._keeps_result(name)
  return operation {
    name = name,
    forward = forward,
    keep = function(node, y, x) node:save(keeps_result and y or x) end,
    backward = function(node, dy) return backward(name, dy, (node:saved())) end,
  }
end

for _, name in ipairs {
  "exp", "log", "sqrt", "tanh", "sigmoid", "gelu", "gelu_tanh", "silu", "abs", "relu",
} do
  methods[name] = unary(name, methods[name])
end

local negate = operators.__unm
operators.__unm = operation {
  name = "neg",
  forward = function(x) return negate(x) end,
  backward = function(_, dy) return negate(dy) end,
}

local function is_number(x) return type(x) == "number" end

-- + and -: the gradient needs only the shapes.
local function keep_shapes(node, _, a, b)
  node.shapes = {not is_number(a) and a.shape, not is_number(b) and b.shape}
end

local function summed(node, i, dy) return node.needs[i] and core._sum_to(dy, node.shapes[i]) end

operators.__add = operation {
  name = "add",
  forward = operators.__add,
  keep = keep_shapes,
  backward = function(node, dy) return summed(node, 1, dy), summed(node, 2, dy) end,
}

operators.__sub = operation {
  name = "sub",
  forward = operators.__sub,
  keep = keep_shapes,
  backward = function(node, dy)
    if not node.needs[2] then return summed(node, 1, dy) end
    local minus <close> = negate(dy)
    return summed(node, 1, dy), summed(node, 2, minus)
  end,
}

-- / and ^ keep both operands.
local function binary(name, forward)
  local backward = core._binary_backward
  return operation {
    name = name,
    forward = forward,
    keep = function(node, _, a, b)
      node.number_a, node.number_b = is_number(a) and a, is_number(b) and b
      node:save(not is_number(a) and a, not is_number(b) and b)
    end,
    backward = function(node, dy)
      local a, b = node:saved()
      return backward(
        name, dy, node.number_a or a, node.number_b or b, node.needs[1], node.needs[2]
      )
    end,
  }
end

operators.__div = binary("div", operators.__div)
operators.__pow = binary("pow", operators.__pow)

local multiply = operators.__mul
operators.__mul = operation {
  name = "mul",
  forward = multiply,
  keep = function(node, y, a, b)
    keep_shapes(node, y, a, b)
    node.number = is_number(a) and a or is_number(b) and b
    if not node.number then node:save(node.needs[2] and a, node.needs[1] and b) end
  end,
  backward = function(node, dy)
    if node.number then
      local dx = multiply(dy, node.number)
      return node.needs[1] and dx, node.needs[2] and dx
    end
    local a, b = node:saved()
    local da, db
    if node.needs[1] and node.needs[2] then
      return core._binary_backward("mul", dy, a, b, true, true)
    elseif node.needs[1] then
      local whole <close> = multiply(dy, b)
      da = core._sum_to(whole, node.shapes[1])
    else
      local whole <close> = multiply(dy, a)
      db = core._sum_to(whole, node.shapes[2])
    end
    return da, db
  end,
}

-- ---- products and reductions -------------------------------------------------------------------

core.matmul = operation {
  name = "matmul",
  forward = core.matmul,
  keep = function(node, _, a, b) node:save(a, b) end,
  backward = function(node, dy)
    local a, b = node:saved()
    return core._matmul_backward(dy, a, b, node.needs[1], node.needs[2])
  end,
}

local function reduction(name, forward)
  return operation {
    name = name,
    forward = forward,
    keep = function(node, _, x, axis) node.shape, node.axis = x.shape, axis end,
    backward = function(node, dy) return core._reduce_backward(dy, node.shape, node.axis, name) end,
  }
end

local convert = methods.to

-- Whether x is an open tensor of integers.
local function is_integer(x)
  local kind, open = core._kind(x)
  return kind == "tensor" and open and not graph.floats[x.dtype]
end

-- A function of integers in i64, so that counts do not saturate.
local function in_i64(forward)
  return function(x, axis)
    if not is_integer(x) or x.dtype == "i64" then return forward(x, axis) end
    local wide <close> = convert(x, "i64")
    return forward(wide, axis)
  end
end

local mean = methods.mean
-- The mean of integers, computed in f64, is f32.
local function mean_of(x, axis)
  if not is_integer(x) then return mean(x, axis) end
  local wide <close> = convert(x, "f64")
  local y <close> = mean(wide, axis)
  return convert(y, "f32")
end

methods.sum = reduction("sum", in_i64(methods.sum))
methods.mean = reduction("mean", mean_of)
-- The gradient of cumsum is in indexing.lua.
methods.cumsum = in_i64(methods.cumsum)

methods.softmax = operation {
  name = "softmax",
  forward = methods.softmax,
  keep = function(node, y, _, axis)
    node.axis = axis
    node:save(y)
  end,
  backward = function(node, dy) return core._softmax_backward(dy, node:saved(), node.axis) end,
}

-- ---- views and copies --------------------------------------------------------------------------

local view, contiguous = methods.view, methods.contiguous

-- dy with the shape of the argument.
local function viewed(dy, shape)
  local whole <close> = contiguous(dy)
  if #shape == 0 then return core._sum_to(whole, shape) end
  return view(whole, shape)
end

methods.view = operation {
  name = "view",
  forward = view,
  keep = function(node, _, x) node.shape = x.shape end,
  backward = function(node, dy) return viewed(dy, node.shape) end,
}

local transpose = methods.transpose
methods.transpose = operation {
  name = "transpose",
  forward = transpose,
  keep = function(node, _, _, a, b) node.a, node.b = a, b end,
  backward = function(node, dy) return transpose(dy, node.a, node.b) end,
}

methods.expand = operation {
  name = "expand",
  forward = methods.expand,
  keep = function(node, _, x) node.shape = x.shape end,
  backward = function(node, dy) return core._sum_to(dy, node.shape) end,
}

methods.slice = operation {
  name = "slice",
  forward = methods.slice,
  keep = function(node, _, x, axis, first)
    node.shape, node.axis, node.first = x.shape, axis, first
  end,
  backward = function(node, dy)
    return core._slice_backward(dy, node.shape, node.axis, node.first)
  end,
}

core._hook("select", operation {
  name = "index",
  forward = core._select,
  keep = function(node, _, x, i) node.shape, node.i = x.shape, i end,
  backward = function(node, dy) return core._slice_backward(dy, node.shape, 1, node.i) end,
})

methods.contiguous = operation {
  name = "contiguous",
  forward = contiguous,
  backward = function(_, dy) return dy end,
}

local to_float = operation {
  name = "to",
  forward = convert,
  keep = function(node, _, x) node.dtype = x.dtype end,
  backward = function(node, dy) return convert(dy, node.dtype) end,
}
-- Integers have no gradient.
function methods.to(x, dtype) return (graph.floats[dtype] and to_float or convert)(x, dtype) end
