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
  if not pcall(string.find, "", o.match) then
    core._raise(("groups[%d].match: expected a Lua pattern, got '%s'"):format(k, o.match))
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
  if groups ~= nil and type(groups) ~= "table" then
    core._raise(("groups: expected a list such as {{match = \"embed\", weight_decay = 0}}, got %s")
      :format(options.describe(groups)))
  end
  local read = {}
  for k = 1, groups and rawlen(groups) or 0 do
    read[k] = check_group(rawget(groups, k), k, more)
  end
  for k, group in ipairs(read) do
    local matches = false
    for _, p in ipairs(list) do matches = matches or p.name:find(group.match) ~= nil end
    if not matches then
      core._raise(("groups[%d].match: expected a Lua pattern that matches the name of a parameter, "
        .. "such as '%s', got '%s'"):format(k, list[1].name, group.match))
    end
  end
  for _, p in ipairs(list) do
    p.group = {}
    for _, group in ipairs(read) do
      if p.name:find(group.match) then
        p.group = group
        break
      end
    end
    p.weight_decay = parameters.decay_of(p, weight_decay)
    p.lr_factor = p.group.lr_factor or 1
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
