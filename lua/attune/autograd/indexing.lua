--- Joining, choosing, indexing, ordering and writing in place, with gradients. graph.lua says how
--- an operation is registered.
local core = require "attune.core"
local graph = require "attune.autograd.graph"
local operation = graph.operation
local methods = core._tensor_methods
local select_index, slice = core._select, methods.slice

-- ---- joining -----------------------------------------------------------------------------------

-- The operations take the axis first and the tensors one by one.
local function joining(name, join, part_of)
  local recorded = operation {
    name = name,
    forward = function(axis, ...) return join({...}, axis) end,
    keep = function(node, y, axis, ...)
      node.axis, node.extents = axis > 0 and axis or #y.shape + axis + 1, {}
      for i, tensor in ipairs {...} do node.extents[i] = tensor.shape[node.axis] end
    end,
    backward = function(node, dy)
      local gradients, first = {}, 1
      for i = 1, #node.needs - 1 do
        local gradient
        gradient, first = part_of(node, dy, i, first)
        gradients[i] = gradient
      end
      return nil, table.unpack(gradients, 1, #node.needs - 1)
    end,
  }
  return function(list, axis)
    if type(list) ~= "table" then return join(list, axis) end
    local tensors, count = {}, rawlen(list)
    for i = 1, count do tensors[i] = rawget(list, i) end
    if not core._tracks(table.unpack(tensors, 1, count)) then
      graph.note(table.unpack(tensors, 1, count))
      return join(tensors, axis)
    end
    return recorded(axis or 1, table.unpack(tensors, 1, count))
  end
end

core.cat = joining("cat", core.cat, function(node, dy, i, first)
  local last = first + node.extents[i] - 1
  return node.needs[i + 1] and slice(dy, node.axis, first, last), last + 1
end)

core.stack = joining("stack", core.stack, function(node, dy, i, first)
  if not node.needs[i + 1] then return false, first end
  return select_index(dy, i, node.axis), first
end)

-- ---- choosing ----------------------------------------------------------------------------------

local where = core.where
core.where = operation {
  name = "where",
  forward = where,
  keep = function(node, _, condition, a, b)
    node.shape_a = type(a) ~= "number" and a.shape
    node.shape_b = type(b) ~= "number" and b.shape
    node:save(condition)
  end,
  backward = function(node, dy)
    local condition = node:saved()
    local da, db
    if node.needs[2] then
      local whole <close> = where(condition, dy, 0)
      da = core._sum_to(whole, node.shape_a)
    end
    if node.needs[3] then
      local whole <close> = where(condition, 0, dy)
      db = core._sum_to(whole, node.shape_b)
    end
    return nil, da, db
  end,
}

-- Comparisons have no gradient, but a function that is computed again reads what they compare.
for _, name in ipairs {"lt", "le", "gt", "ge", "eq", "ne"} do
  local compare = methods[name]
  methods[name] = function(a, b)
    graph.note(a, b)
    return compare(a, b)
  end
end

local function extremum(name, arg)
  local indices_of = methods[arg]
  return operation {
    name = name,
    forward = methods[name],
    keep = function(node, _, x, axis)
      node.shape, node.axis = x.shape, axis
      node:save(indices_of(x, axis))
    end,
    backward = function(node, dy)
      return core._arg_backward(dy, node:saved(), node.shape, node.axis)
    end,
  }
end

methods.max = extremum("max", "argmax")
methods.min = extremum("min", "argmin")

methods.topk = operation {
  name = "topk",
  forward = methods.topk,
  outputs = 2,
  keep = function(node, _, indices, x, _, axis)
    node.shape, node.axis = x.shape, axis or -1
    node:save(indices)
  end,
  backward = function(node, dy)
    return core._gather_backward(dy, node.axis, node:saved(), node.shape)
  end,
}

-- ---- indexing ----------------------------------------------------------------------------------

methods.take = operation {
  name = "take",
  forward = methods.take,
  keep = function(node, _, x, indices, axis)
    node.shape, node.axis, node.indices = x.shape, axis or 1, core._integers(indices)
  end,
  backward = function(node, dy)
    return core._take_backward(dy, node.indices, node.axis, node.shape)
  end,
}

methods.gather = operation {
  name = "gather",
  forward = methods.gather,
  keep = function(node, _, x, axis, indices)
    node.shape, node.axis, node.indices = x.shape, axis, core._integers(indices)
  end,
  backward = function(node, dy)
    return core._gather_backward(dy, node.axis, node.indices, node.shape)
  end,
}

methods.cumsum = operation {
  name = "cumsum",
  forward = methods.cumsum,
  keep = function(node, _, _, axis) node.axis = axis end,
  backward = function(node, dy) return core._cumsum_backward(dy, node.axis) end,
}

-- ---- in place ----------------------------------------------------------------------------------

local clone = methods.clone
methods.clone = operation {
  name = "clone",
  forward = clone,
  backward = function(_, dy) return dy end,
}

-- A write is recorded as an operation whose result is the tensor itself. Another view of the same
-- memory would not know of it, so there must be none.
local function check_write(tensor)
  local node = core._node(tensor)
  if node and node.leaf then
    core._raise(
      "in place: expected a tensor without requires_grad(), got one whose gradients are wanted: "
        .. "write to it in attune.no_grad"
    )
  end
  if core._owners(tensor) > 1 then collectgarbage() end
  if core._owners(tensor) > 1 then
    core._raise(
      "in place: expected a tensor that shares its memory with no other while gradients are "
        .. "recorded, got a view or one that has views: write t[i] = x on the whole tensor, or "
        .. "build it with attune.cat, stack or where"
    )
  end
end

-- The gradient of x, which was written into a part of the shape of dy.
local function of_written(node, i, dy)
  if not node.needs[i] then return nil end
  local sum <close> = core._sum_to(dy, node.x_shape)
  return methods.to(sum, node.x_dtype)
end

local function keep_written(node, x)
  if node.needs[node.x_index] then node.x_shape, node.x_dtype = x.shape, x.dtype end
end

local plain_copy, plain_fill, plain_assign = methods.copy, methods.fill, core._assign

local recorded_copy = operation {
  name = "copy",
  check = check_write,
  forward = plain_copy,
  keep = function(node, _, _, x)
    node.x_index = 2
    keep_written(node, x)
  end,
  backward = function(node, dy) return nil, of_written(node, 2, dy) end,
}

local recorded_fill = operation {
  name = "fill",
  check = check_write,
  forward = plain_fill,
  backward = function() return nil end,
}

local recorded_assign = operation {
  name = "assignment",
  check = check_write,
  forward = plain_assign,
  keep = function(node, _, _, i, x)
    node.x_index, node.i = 3, i
    keep_written(node, x)
  end,
  backward = function(node, dy)
    local dx
    if node.needs[3] then
      local part <close> = select_index(dy, node.i)
      dx = of_written(node, 3, part)
    end
    return node.needs[1] and plain_assign(clone(dy), node.i, 0), nil, dx
  end,
}

-- Outside the graph, a tensor that has a node goes on with it: the new numbers are its own.
local function keeping_node(tensor, write, ...)
  local node = core._node(tensor)
  local result = write(tensor, ...)
  if node and not node.leaf then core._set_node(tensor, node) end
  return result
end

function methods.copy(tensor, x)
  if core._tracks(tensor, x) then return recorded_copy(tensor, x) end
  graph.note(x)
  return keeping_node(tensor, plain_copy, x)
end

function methods.fill(tensor, x)
  if core._tracks(tensor) then return recorded_fill(tensor, x) end
  return keeping_node(tensor, plain_fill, x)
end

core._hook("assign", recorded_assign)
