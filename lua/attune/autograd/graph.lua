--- The graph of recorded operations.
---
--- An operation is one table that `graph.operation` turns into a function:
---
---     local times = graph.operation {
---       name = "times",
---       forward = core_times,                        -- (a, b) -> y: one call of the core
---       keep = function(node, y, a, b)               -- results, then arguments
---         node:save(node.needs[2] and a, node.needs[1] and b)
---       end,
---       backward = function(node, dy)                -- a gradient per argument, in order
---         local a, b = node:saved()
---         return node.needs[1] and dy * b, node.needs[2] and dy * a
---       end,
---     }
---
--- Calling it runs `forward`. Where an argument requires gradients, it also makes a node. What
--- `backward` needs is kept in `keep`: tensors with node:save, which shares them and remembers the
--- version of their memory; numbers and shapes as fields of the node. `node.needs[i]` says whether
--- the gradient of argument i is wanted. Tensors that options or programs hold are named with
--- node:watch, so that a write into them is noticed, too. `backward` gets one gradient per result
--- (nil where none arrived) and returns one per argument; nil and false stand for none. It returns
--- new tensors or dy itself, never a tensor that it saved: the engine closes what it is done with.
---
--- More fields: `outputs` (the tensors that forward returns, 1), `results` (those of them with a
--- gradient, from the first on, 1), `returns = 1` (the caller gets only the first), `passes`
--- (forward may return an argument: then nothing is recorded), `custom` (user code: what it sees is
--- left to the collector).
---
--- `add(node, dy, sum)`, where it is there, is called in place of `backward` when the first
--- argument is a leaf with a gradient, sum: it adds to sum in place and returns true, or does
--- nothing and returns false.
---
--- `check`, where it is there, is called with the arguments before forward: it refuses what cannot
--- be recorded.
---
--- A node is the user value of its result, so a graph lives as long as the result that it made.
--- Nodes point to the nodes of their arguments, never to tensors of the user.
local core = require "attune.core"
local nodes_of, set_node, tracks = core._nodes, core._set_node, core._tracks
local share, version_of = core._share, core._version

local graph = {}

---@class attune.Node
---@field op table the operation
---@field sequence integer counts nodes in the order of creation
---@field inputs table per argument: a node, a leaf, {of = node, output = i}, or false
---@field needs table per argument: whether its gradient is wanted
local Node = {}
Node.__index = Node

--- Keeps tensors for backward; nil and false stand for none.
function Node:save(...)
  local count = select("#", ...)
  local list, versions = {...}, {}
  for i = 1, count do
    if list[i] then list[i], versions[i] = share(list[i]) end
  end
  self.kept, self.versions, self.kept_count = list, versions, count
end

--- Remembers the versions of further tensors that backward reads.
---@param tensors attune.Tensor[]
function Node:watch(tensors)
  local watched = self.watched or {}
  for _, tensor in ipairs(tensors) do watched[#watched + 1] = {share(tensor)} end
  self.watched = watched
end

local library = debug.getinfo(1, "S").source:match "^(.*/)autograd/[^/]*$"

-- Raises a message for the line of the user that a walk was started from: core._raise does not look
-- beyond core._call, in which a walk runs.
local function raise(message)
  local level, info = 2, debug.getinfo(2, "Sl")
  while info and (info.currentline < 0 or library and info.source:sub(1, #library) == library) do
    level = level + 1
    info = debug.getinfo(level, "Sl")
  end
  error(info and ("%s:%d: %s"):format(info.short_src, info.currentline, message) or message, 0)
end

local function check_version(node, tensor, version)
  if version_of(tensor) == version then return end
  raise(
    ("backward: a tensor that '%s' needs was modified in place after the forward pass "
      .. "(version %d, expected %d): write to a clone, or call backward first"):format(
      node.op.name, version_of(tensor), version
    )
  )
end

--- The tensors that were kept. Raises an error where one of them, or a watched one, was written in
--- place since.
function Node:saved()
  local list, versions = self.kept, self.versions
  for i = 1, self.kept_count do
    if list[i] then check_version(self, list[i], versions[i]) end
  end
  for _, entry in ipairs(self.watched or {}) do check_version(self, entry[1], entry[2]) end
  return table.unpack(list, 1, self.kept_count)
end

local function is_argument(x, ...)
  for i = 1, select("#", ...) do
    if rawequal(x, (select(i, ...))) then return true end
  end
  return false
end

local created = 0

--- Dtypes that have gradients.
graph.floats = {f32 = true, f64 = true, bf16 = true, f16 = true}

--- A new node.
---@param op table
---@param inputs table per argument: its node, or false
---@return attune.Node
function graph.node(op, inputs)
  created = created + 1
  local needs = {}
  for i = 1, #inputs do needs[i] = inputs[i] and true end
  return setmetatable({op = op, sequence = created, inputs = inputs, needs = needs}, Node)
end

-- Finishes the record of an operation whose forward pass returned y, z and w.
local function record(op, inputs, y, z, w, ...)
  if op.passes and is_argument(y, ...) then return y end
  local node = graph.node(op, inputs)
  local outputs = op.outputs or 1
  if op.custom then op.note(node, y, ...) end
  if op.keep then
    if outputs == 1 then
      op.keep(node, y, ...)
    elseif outputs == 2 then
      op.keep(node, y, z, ...)
    else
      op.keep(node, y, z, w, ...)
    end
  end
  set_node(y, node)
  if op.results == 2 then set_node(z, {of = node, output = 2}) end
  if op.returns == 1 or outputs == 1 then return y end
  if outputs == 2 and w ~= nil then return y, z, w end -- what else the caller asked for
  return y, z
end

local function forward_of(op, inputs, count, ...)
  if op.check then op.check(...) end
  if count == 1 then return record(op, inputs, op.forward(...), nil, nil, ...) end
  local y, z, w = op.forward(...)
  return record(op, inputs, y, z, w, ...)
end

-- Tensors that require gradients and that operations read although nothing is recorded: {the
-- identity of its memory = tensor}. nil: not asked for.
local reads

--- Notes arguments of an operation that is not recorded.
function graph.note(...)
  if not reads then return end
  for i = 1, select("#", ...) do
    local x = select(i, ...)
    local is_tensor = type(x) == "userdata" and core._kind(x) == "tensor"
    if is_tensor and core._node(x) then reads[core._storage(x)] = x end
  end
end

local noting = {__close = function(before) reads = before[1] end}

--- Calls fn with the further arguments. Returns the tensors that require gradients and that
--- operations read meanwhile, and the packed results.
---@return attune.Tensor[]
---@return table
function graph.reads_of(fn, ...)
  local _ <close> = setmetatable({reads}, noting)
  reads = {}
  local results = table.pack(core._call(fn, ...))
  local list = {}
  for _, tensor in pairs(reads) do list[#list + 1] = tensor end
  return list, results
end

--- The function of an operation.
---@param op table
---@return function
function graph.operation(op)
  local forward, outputs = op.forward, op.outputs or 1
  return function(...)
    if not tracks(...) then
      if reads then graph.note(...) end
      if op.returns == 1 then return (forward(...)) end
      return forward(...)
    end
    return forward_of(op, {nodes_of(...)}, outputs, ...)
  end
end

--- Makes a node that has no more use: its tensors are closed, and walking it again is an error.
function graph.release(node)
  if node.released then return end
  node.released = true
  local kept = node.kept
  if kept and not node.op.custom then
    for i = 1, node.kept_count do
      if kept[i] then kept[i]:close() end
    end
  end
  for _, entry in ipairs(node.watched or {}) do entry[1]:close() end
  node.kept, node.versions, node.inputs, node.watched = nil, nil, nil, nil
end

--- The nodes that results depend on, from the last created to the first; and the leaves among them.
--- Raises an error where one has been released.
---@param roots table of {node, leaf or further result of a node}
function graph.reachable(roots)
  local order, leaves, seen, stack, top = {}, {}, {}, {}, 0
  for _, root in ipairs(roots) do
    local from = root[1].of or root[1]
    if not seen[from] then
      seen[from] = true
      top = top + 1
      stack[top] = from
    end
  end
  while top > 0 do
    local node = stack[top]
    top = top - 1
    if node.leaf then
      leaves[#leaves + 1] = node
    else
      if node.released then
        raise(
          "backward: expected a graph that was not walked yet, got one that an earlier backward "
            .. "has freed: run the forward pass again (a second backward needs a second graph)"
        )
      end
      order[#order + 1] = node
      for _, input in ipairs(node.inputs) do
        local from = input and (input.of or input)
        if from and not seen[from] then
          seen[from] = true
          top = top + 1
          stack[top] = from
        end
      end
    end
  end
  table.sort(order, function(a, b) return a.sequence > b.sequence end)
  return order, leaves
end

return graph
