--- The parameters that an optimiser steps, and the options of their groups.
local core = require "attune.core"
local options = require "attune.util.options"
local sorted_keys = require "attune.util.tables".sorted_keys

local parameters = {}

--- The tensors by name, in the order of names: a list {name =, tensor =}. A list of tensors has the
--- names "1", "2" and so on.
---@param given table<string, attune.Tensor>|attune.Tensor[]
function parameters.list(given)
  if type(given) ~= "table" then
    core._raise(("parameters: expected a table of tensors, such as model:parameters(), got %s")
      :format(options.describe(given)))
  end
  local list = {}
  for name, tensor in next, given do
    if core._kind(tensor) ~= "tensor" then
      core._raise(("parameters: expected tensors, got %s as '%s'"):format(
        options.describe(tensor), tostring(name)))
    end
    list[#list + 1] = {name = tostring(name), order = name, tensor = tensor}
  end
  if #list == 0 then
    core._raise "parameters: expected at least one tensor that requires gradients, got none"
  end
  table.sort(list, function(a, b)
    if type(a.order) ~= type(b.order) then return type(a.order) == "number" end
    return a.order < b.order
  end)
  local names = {}
  for _, p in ipairs(list) do
    local key = core._node(p.tensor) or p.tensor
    if names[key] then
      core._raise(("parameters: expected each tensor once, got one as '%s' and as '%s'"):format(
        names[key], p.name))
    end
    names[key] = p.name
  end
  return list
end

--- The same for tensors that an optimiser can step: leaves in f32 or f64.
---@param given table<string, attune.Tensor>|attune.Tensor[]
function parameters.trainable(given)
  local list = parameters.list(given)
  for _, p in ipairs(list) do
    local node, dtype = core._node(p.tensor), p.tensor.dtype
    if dtype ~= "f32" and dtype ~= "f64" then
      core._raise(("parameters: expected f32 or f64 tensors, got a %s as '%s'"):format(
        options.describe(p.tensor), p.name))
    end
    if not (node and node.leaf) then
      core._raise(("parameters: expected tensors that require gradients, got a %s as '%s', %s")
        :format(options.describe(p.tensor), p.name, node and "the result of an operation"
          or "which does not (call requires_grad() on it first)"))
    end
  end
  return list
end

-- The type of each field of a group.
local group_fields = {match = "string", weight_decay = "number", lr_factor = "number"}

local function check_group(group, k, more)
  local known = sorted_keys(group_fields)
  for _, name in ipairs(sorted_keys(more or {})) do known[#known + 1] = name end
  local o = options.read(group, known, 5, ("groups[%d]"):format(k), '{match = "embed"}')
  if type(o.match) ~= "string" then
    core._raise(("groups[%d].match: expected a Lua pattern of names, got %s"):format(
      k, options.describe(o.match)))
  end
  for name, value in next, o do
    local kind = group_fields[name] or more[name]
    if kind == "number" and (type(value) ~= kind or not (value >= 0 and value < math.huge)) then
      core._raise(("groups[%d].%s: expected a number of at least 0, got %s"):format(
        k, name, options.describe(value)))
    elseif kind == "boolean" and type(value) ~= kind then
      core._raise(("groups[%d].%s: expected true or false, got %s"):format(
        k, name, options.describe(value)))
    end
  end
  return o
end

-- Whether the pattern of group k matches the name.
local function matches(group, k, name)
  local ok, found = pcall(string.find, name, group.match)
  if ok then return found ~= nil end
  core._raise(("groups[%d].match: expected a Lua pattern, got '%s' (%s)"):format(
    k, group.match, found))
end

-- The groups, checked.
local function read_groups(groups, more)
  if groups == nil then return {} end
  local example = "a list such as {{match = \"embed\", weight_decay = 0}}"
  if type(groups) ~= "table" then
    core._raise(("groups: expected %s, got %s"):format(example, options.describe(groups)))
  end
  local read = {}
  for key in next, groups do
    if math.type(key) ~= "integer" or key < 1 or key > rawlen(groups) then
      core._raise(("groups: expected %s, got a table with the field %s"):format(
        example, options.describe(key)))
    end
  end
  for k = 1, rawlen(groups) do read[k] = check_group(rawget(groups, k), k, more) end
  return read
end

--- The weight decay of a parameter: what its group says, else the given one for tensors of two axes
--- or more, and 0 for others.
---@param p table of parameters.grouped
---@param weight_decay number
function parameters.decay_of(p, weight_decay)
  return p.group.weight_decay or #p.tensor.shape >= 2 and weight_decay or 0
end

--- Gives each parameter its group, its weight decay and the factor of its rate. The group is the
--- first one whose pattern matches the name; it overrides both.
---@param list table[] of parameters.list
---@param weight_decay number of tensors of two axes or more
---@param groups? {match: string, weight_decay?: number, lr_factor?: number}[]
---@param more? table<string, string> further fields of groups, with their types
function parameters.grouped(list, weight_decay, groups, more)
  local read, has_match = read_groups(groups, more), {}
  for _, p in ipairs(list) do
    p.group = nil
    for k, group in ipairs(read) do
      if matches(group, k, p.name) then
        p.group, has_match[k] = p.group or group, true
      end
    end
    p.group = p.group or {}
    p.weight_decay = parameters.decay_of(p, weight_decay)
    p.lr_factor = p.group.lr_factor or 1
  end
  for k, group in ipairs(read) do
    if not has_match[k] then
      core._raise(("groups[%d].match: expected a Lua pattern that matches the name of a parameter, "
        .. "such as '%s', got '%s'"):format(k, list[1].name, group.match))
    end
  end
  return list
end

--- Checks a number of the options.
function parameters.number(o, name, default, below)
  local x = o[name]
  if x == nil then x = default end
  if type(x) ~= "number" or not (x >= 0 and x < (below or math.huge)) then
    core._raise(("%s: expected a number of at least 0%s, got %s"):format(
      name, below and (" and below %g"):format(below) or "", options.describe(x)))
  end
  return x
end

return parameters
