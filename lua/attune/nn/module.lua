--- Modules: plain Lua tables whose fields are parameters and other modules. A module of your own:
---
---     local Gate = nn.module "Gate"
---     function Gate:init(d)
---       self.proj = nn.Linear {input = d, output = d}
---     end
---     function Gate:forward(x)
---       return x * self.proj(x):sigmoid()
---     end
---     local gate = Gate(64)      -- gate(x), gate:parameters(), gate:state(), gate:load_state(t)
---
--- A tensor field that requires gradients is a parameter, named by its field; the fields of a
--- module in a field, or in a list, have its name and a dot before theirs: blocks.1.norm1.weight.
--- Other tensors are state without gradients. A field whose name begins with `_` is left out, and a
--- tensor that is reached twice counts once, under the name that comes first. Dropout is on between
--- module:set_step(n) and module:set_step(nil).
local core = require "attune.core"
local describe = require "attune.util.options".describe
local sorted_keys = require "attune.util.tables".sorted_keys
local suggest = require "attune.util.suggest"

local Module = {}
Module.__index = Module
Module.__name = "attune.Module"

local function is_tensor(x) return core._kind(x) == "tensor" end

local function is_module(x) return type(x) == "table" and type(x.parameters) == "function" end

-- The keys of what belongs to a module, integers first: not those that begin with "_".
local function member_keys(t)
  local keys = {}
  for key in next, t do
    if math.type(key) == "integer" or type(key) == "string" and key:sub(1, 1) ~= "_" then
      keys[#keys + 1] = key
    end
  end
  table.sort(keys, function(a, b)
    if type(a) ~= type(b) then return type(a) == "number" end
    return a < b
  end)
  return keys
end

-- Calls visit(name, tensor) for each tensor below x.
local function walk(x, prefix, visit, seen)
  if seen[x] then return end
  seen[x] = true
  for _, key in ipairs(member_keys(x)) do
    local value = rawget(x, key)
    local name = prefix .. key
    if is_tensor(value) then
      if not seen[value] then
        seen[value] = true
        visit(name, value)
      end
    elseif is_module(value) or type(value) == "table" and getmetatable(value) == nil then
      walk(value, name .. ".", visit, seen)
    end
  end
end

-- Parameters by name, and in the order of names by number.
local Parameters = {}
function Parameters.__index(t, key) return Parameters.lists[t][key] end
function Parameters.__len(t) return #Parameters.lists[t] end
Parameters.lists = setmetatable({}, {__mode = "k"})

local function is_parameter(tensor)
  local node = core._node(tensor)
  return node and node.leaf
end

--- The parameters: {name = tensor}. ipairs and # count them in the order of their names.
---@return table<string, attune.Tensor>
function Module:parameters()
  local found, names = {}, {}
  walk(self, "", function(name, tensor)
    if is_parameter(tensor) then
      found[name] = tensor
      names[#names + 1] = name
    end
  end, {})
  table.sort(names)
  local list = {}
  for k, name in ipairs(names) do list[k] = found[name] end
  Parameters.lists[found] = list
  return setmetatable(found, Parameters)
end

--- All tensors of the module, parameters and others: {name = tensor}, not copied.
---@return table<string, attune.Tensor>
function Module:state()
  local found = {}
  walk(self, "", function(name, tensor) found[name] = tensor end, {})
  return found
end

-- Raises where a state does not fit, before anything is copied.
local function check_state(own, given)
  local names = sorted_keys(own)
  for name, tensor in next, given do
    if not own[name] then
      core._raise(("state: unknown name '%s'; %s"):format(tostring(name),
        suggest(tostring(name), names)))
    end
    if not is_tensor(tensor) then
      core._raise(("%s: expected a tensor, got %s"):format(name, describe(tensor)))
    end
    local want, got = own[name].shape, tensor.shape
    if table.concat(want, "x") ~= table.concat(got, "x") then
      core._raise(("%s: expected shape {%s}, got {%s}"):format(name, table.concat(want, ", "),
        table.concat(got, ", ")))
    end
  end
  for _, name in ipairs(names) do
    if rawget(given, name) == nil then
      core._raise(("state: expected a tensor '%s', got none"):format(name))
    end
  end
end

--- Copies the values of another state into the module's tensors. The names and shapes must be the
--- module's; a state that does not fit changes nothing.
---@param state table<string, attune.Tensor>
function Module:load_state(state)
  if type(state) ~= "table" then
    core._raise(("state: expected a table {name = tensor}, got %s"):format(describe(state)))
  end
  local own = self:state()
  check_state(own, state)
  for name, tensor in next, own do core._copy(state[name], tensor) end
  return self
end

--- The number of elements of all parameters.
---@return integer
function Module:count()
  local sum = 0
  for _, tensor in ipairs(self:parameters()) do
    local elements = 1
    for _, extent in ipairs(tensor.shape) do elements = elements * extent end
    sum = sum + elements
  end
  return sum
end

-- Calls visit(module) for the modules below x; it returns whether those below it are visited, too.
local function each_module(x, visit, seen)
  for _, key in ipairs(member_keys(x)) do
    local value = rawget(x, key)
    local module = is_module(value)
    if (module or type(value) == "table" and getmetatable(value) == nil) and not seen[value] then
      seen[value] = true
      if not module or visit(value) then each_module(value, visit, seen) end
    end
  end
end

--- Turns dropout on in this module and in all modules below it, for the calls that follow. What is
--- dropped follows from the step, the seed and the layer. nil turns dropout off. train.run calls it
--- before each step; a module with a set_step of its own is called.
---@param step? integer
function Module:set_step(step)
  if step ~= nil and math.type(step) ~= "integer" then
    core._raise(("set_step: expected the number of a step, or nil, got %s"):format(describe(step)))
  end
  self._dropout_step = step
  each_module(self, function(part)
    local own = part.set_step
    if own and own ~= Module.set_step then
      own(part, step)
      return false
    end
    part._dropout_step = step
    return true
  end, {[self] = true})
end

--- Makes a class of modules. Calling it makes an instance, for which `init` is called with the
--- arguments; calling an instance calls `forward`.
---@param name string for messages
---@return table
local function class(name)
  local new = {__name = name}
  new.__index = new
  function new.__call(self, ...) return self:forward(...) end
  return setmetatable(new, {
    __index = Module,
    __call = function(_, ...)
      local self = setmetatable({}, new)
      if new.init then new.init(self, ...) end
      return self
    end,
  })
end

return {class = class, is_module = is_module, member_keys = member_keys}
