--- Attention and positional encodings with gradients.
---
--- The core's options are a table, and tensors in it (sinks, the tensors that a score reads) have
--- gradients too: the operations below take them as further arguments after the options.
local core = require "attune.core"
local graph = require "attune.autograd.graph"
local answers = require "attune.util.options".answers
local refuse_further = require "attune.util.options".refuse_further
local operation = graph.operation

local tensor_methods = core._tensor_methods
local attention = {}

-- A copy of options that nothing can change until backward reads them: lists one and two levels
-- deep are copied.
local function frozen(value, depth)
  if type(value) ~= "table" or depth == 0 or answers(value) then return value end
  local copy = {}
  for name, field in next, value do copy[name] = frozen(field, depth - 1) end
  return copy
end

-- Adds the tensors in options, which backward reads again, to a list.
local function add_tensors(list, value, depth)
  if type(value) == "userdata" then
    if core._kind(value) == "tensor" then list[#list + 1] = value end
  elseif type(value) == "table" and depth > 0 and not answers(value) then
    for _, field in next, value do add_tensors(list, field, depth - 1) end
  end
  return list
end

-- ---- exact attention ---------------------------------------------------------------------------

local forward_only = {blis = true, decode = true} -- engines that compute no gradients

local exact = operation {
  name = "attention",
  forward = function(q, k, v, options) return core._attention(q, k, v, options) end,
  outputs = 2,
  results = 2,
  keep = function(node, o, lse, q, k, v, options, watched, ...)
    node.options, node.tables = options or {}, {...}
    node:save(q, k, v, o, lse, ...)
    if watched then node:watch(watched) end
  end,
  backward = function(node, d_o, d_lse)
    local q, k, v, o, lse = node:saved()
    local options = node.options
    options.d_lse = d_lse
    if forward_only[options.engine] then options.engine = nil end
    local dq, dk, dv, found =
      core._attention_backward(d_o or core._full_like(o, 0), q, k, v, o, lse, options)
    local gradients = {}
    for i, tensor in ipairs(node.tables) do
      local gradient = found[tensor] -- that of sinks has lse's dtype
      gradients[i] = gradient and tensor_methods.to(gradient, tensor.dtype)
    end
    return dq, dk, dv, nil, nil, table.unpack(gradients, 1, #node.tables)
  end,
}

--- attune.attention with programs in place of functions.
---@param tables? attune.Tensor[] that the score reads
---@param masks? attune.Tensor[] that the mask reads
function attention.attention(q, k, v, options, tables, masks)
  if options == nil then return exact(q, k, v) end
  if type(options) ~= "table" or answers(options) then return core._attention(q, k, v, options) end
  local extra, seen = {}, {}
  local function add(tensor)
    if tensor ~= nil and not seen[tensor] and core._tracks(tensor) then
      seen[tensor] = true
      extra[#extra + 1] = tensor
    end
  end
  add(rawget(options, "sinks"))
  for _, tensor in ipairs(tables or {}) do add(tensor) end
  if #extra == 0 and not core._tracks(q, k, v) then
    graph.note(q, k, v, rawget(options, "sinks"), table.unpack(tables or {}))
    return core._attention(q, k, v, options)
  end
  local own, watched = frozen(options, 3), {}
  for _, list in ipairs {tables or {}, masks or {}, add_tensors({}, own, 3)} do
    for _, tensor in ipairs(list) do
      if not seen[tensor] then watched[#watched + 1] = tensor end
    end
  end
  return exact(q, k, v, own, watched, table.unpack(extra))
end

-- ---- linear attention --------------------------------------------------------------------------

local linear = operation {
  name = "linear_attention",
  forward = core.linear_attention,
  keep = function(node, _, q, k, v, options)
    node.options = frozen(options, 1)
    node:save(q, k, v)
    node:watch(add_tensors({}, node.options, 1))
  end,
  backward = function(node, d_o)
    local q, k, v = node:saved()
    return core._linear_attention_backward(d_o, q, k, v, node.options)
  end,
}

-- ---- positional encodings ----------------------------------------------------------------------

local methods = core._position_methods

methods.rotate = operation {
  name = "rotate",
  forward = methods.rotate,
  passes = true,
  keep = function(node, _, pe, _, positions, which)
    node.pe, node.positions, node.which = pe, positions and core._integers(positions), which
  end,
  backward = function(node, dy)
    return nil, core._rotate_backward(node.pe, dy, node.positions, node.which)
  end,
}

local plain_embed = methods.embed
local embed = operation {
  name = "embed",
  forward = function(pe, x, positions) return plain_embed(pe, x, positions) end,
  passes = true,
  keep = function(node, _, pe, _, positions)
    node.pe, node.positions = pe, positions and core._integers(positions)
  end,
  backward = function(node, dy)
    local dtable = node.needs[4] and core._embed_backward(node.pe, dy, node.positions)
    return nil, dy, nil, dtable
  end,
}

-- The table of a learned encoding is a further argument.
function methods.embed(pe, x, positions, ...)
  refuse_further("embed: expected x and positions", ...)
  if core._kind(pe) == "position" and pe.name == "learned" then
    return embed(pe, x, positions, pe.table)
  end
  return embed(pe, x, positions)
end

--- Puts the recorded versions of the core's functions in their place.
local rotate = methods.rotate
local plain_rope = core.rope

-- attune.rope makes its encoding anew for each call; a gradient needs it again.
local function rope(x, options)
  if not core._tracks(x) or type(options) == "table" and answers(options) then
    graph.note(x)
    return plain_rope(x, options)
  end
  local shape = x.shape
  if #shape ~= 4 then return plain_rope(x, options) end
  local given, positions = {head_dim = shape[4]}, nil
  for name, value in next, options or {} do
    if name == "positions" then positions = value else given[name] = value end
  end
  return rotate(core.position("rope", given), x, positions)
end

-- ---- merging -----------------------------------------------------------------------------------

-- o = w1 o1 + w2 o2 with w = e^(lse_i - lse), so
-- do1 = w1 do and dlse1 = w1 (do . (o1 - o) + dlse).
local function merge_part(d_o, d_lse, o, lse, part, part_lse)
  local weight = core.where(lse:eq(-math.huge), 0, (part_lse:to(lse.dtype) - lse):exp())
  local shape = weight.shape
  local wide = weight:view(shape[1], shape[2], shape[3], 1)
  local dpart = d_o and d_o * wide:to(d_o.dtype)
  local arrived = d_o and (d_o * (part - o)):sum(-1):to(lse.dtype)
  if d_lse then arrived = arrived and arrived + d_lse or d_lse end
  return dpart, (arrived * weight):to(part_lse.dtype)
end

local merge = operation {
  name = "merge",
  forward = core.merge,
  outputs = 2,
  results = 2,
  keep = function(node, o, lse, o1, lse1, o2, lse2) node:save(o, lse, o1, lse1, o2, lse2) end,
  backward = function(node, d_o, d_lse)
    local o, lse, o1, lse1, o2, lse2 = node:saved()
    local do1, dlse1 = merge_part(d_o, d_lse, o, lse, o1, lse1)
    local do2, dlse2 = merge_part(d_o, d_lse, o, lse, o2, lse2)
    return do1, dlse1, do2, dlse2
  end,
}

-- ---- without gradients -------------------------------------------------------------------------

-- A gradient would end here without a word, so it is an error.
local function without_gradient(name, forward)
  return function(...)
    if core._tracks(...) then
      core._raise(
        name .. ": expected tensors without gradients, as it has none: call it in attune.no_grad"
      )
    end
    return forward(...)
  end
end

--- Puts the recording forms of rope, merge and linear attention in place of the core's, and forms
--- that refuse tensors with gradients in place of the functions that have none.
function attention.install()
  core.linear_attention, core.rope, core.merge = linear, rope, merge
  for _, name in ipairs {"attention_weights", "favor_features"} do
    core[name] = without_gradient(name, core[name])
  end
end

return attention
