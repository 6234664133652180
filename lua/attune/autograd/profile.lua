--- Where the time of a function goes: in the core, by operation, and in Lua.
local core = require "attune.core"
local describe = require "attune.util.options".describe

---@class attune.Profile
---@field wall number seconds
---@field core number seconds in the core; the rest is Lua
---@field calls integer of the core
---@field operations table<string, {calls: integer, core: number}> by function of the core

local stopping = {__close = function() core._profile(false) end}

--- Calls fn and measures it.
---@param fn function
---@return attune.Profile
return function(fn)
  if type(fn) ~= "function" then
    core._raise(("profile: expected a function, got %s"):format(describe(fn)))
  end
  local _ <close> = setmetatable({}, stopping)
  local before = core._profile(true)
  local start = core.clock()
  core._call(fn)
  local wall = core.clock() - start
  local result = {wall = wall, core = 0, calls = 0, operations = {}}
  for name, after in pairs(core._profile()) do
    local earlier = before[name] or {0, 0}
    local calls, seconds = after[1] - earlier[1], after[2] - earlier[2]
    if calls > 0 then
      result.operations[name] = {calls = calls, core = seconds}
      result.calls, result.core = result.calls + calls, result.core + seconds
    end
  end
  return result
end
