--- What a function computes with beside its arguments: upvalues, the functions among them, and the
--- globals that it reads.
local recording = require "attune.program.recording"

local upvalues = {}

-- Functions of the library through which nothing is searched.
local opaque = {}

--- Excludes a function of the library, and what is reached through it, from all searches here.
function upvalues.exclude(fn)
  opaque[fn] = true
  return fn
end

local max_upvalues = 255 -- of a Lua function

local function next_upvalue(fn, n)
  n = n + 1
  if n > max_upvalues then return nil end
  local name, value = debug.getupvalue(fn, n)
  if name and name ~= "" then return n, name, value end
end

-- The upvalues of a Lua function, one (number, name, value) at a time. Those of a C function have
-- the name "".
local function each_upvalue(fn) return next_upvalue, fn, 0 end

-- Whether an upvalue is the table of globals: _ENV. Upvalues of stripped functions have no names.
local function is_environment(name, value)
  return type(value) == "table" and (name == "_ENV" or name == "(no name)" and rawequal(value, _G))
end

--- fn, the functions among its upvalues, theirs, and those in the lists that the library's
--- functions hold, as masks.all does.
---@return function[]
function upvalues.reached(fn)
  local list, seen = {}, {}
  local function visit(f)
    if seen[f] or opaque[f] then return end
    seen[f] = true
    list[#list + 1] = f
    for _, name, value in each_upvalue(f) do
      if type(value) == "function" then
        visit(value)
      elseif name == "parts" and type(value) == "table"
        and recording.is_library(debug.getinfo(f, "S")) then
        for _, part in ipairs(value) do visit(part) end
      end
    end
  end
  visit(fn)
  return list
end

--- Notes which globals fn and the functions that it reaches read and write from now on: a proxy
--- takes the place of their table of globals.
---@param fn function
---@param restores function[] gets functions that undo this; call the last one first
---@return table # its keys are the names of the globals; the table of globals is in its metatable
function upvalues.watch_globals(fn, restores)
  local globals, env = {}, nil
  local proxy
  proxy = setmetatable({}, {
    __index = function(_, key)
      if key == "_G" then return proxy end
      globals[key] = true
      return env[key]
    end,
    __newindex = function(_, key, x)
      env[key] = x
      globals[key] = true
    end,
    __pairs = function() return pairs(env) end,
  })
  for _, f in ipairs(upvalues.reached(fn)) do
    for n, name, value in each_upvalue(f) do
      if is_environment(name, value) and not rawequal(value, proxy)
        and (env == nil or rawequal(value, env)) then
        env = value
        restores[#restores + 1] = function()
          local _, now = debug.getupvalue(f, n)
          if rawequal(now, proxy) then debug.setupvalue(f, n, value) end
        end
        debug.setupvalue(f, n, proxy)
      end
    end
  end
  return setmetatable(globals, {env = env})
end

-- Tables among upvalues are searched this deep.
local max_depth = 4

local function index(t, key) return t[key] end

--- Calls visit(x) with everything that fn computes with, always in the same order: functions and
--- their upvalues, tables with what is in them, and globals.
---@param fn function
---@param globals table of watch_globals
---@param skips fun(x: table): boolean whether a table is not to be searched
---@param visit fun(x: any)
function upvalues.each_dependency(fn, globals, skips, visit)
  local seen = {}
  local function value(x, depth)
    visit(x)
    if type(x) == "function" and not seen[x] and not opaque[x] then
      seen[x] = true
      for _, name, y in each_upvalue(x) do
        if not is_environment(name, y) then value(y, depth + 1) end
      end
    elseif type(x) == "table" and not seen[x] and depth < max_depth and not skips(x) then
      seen[x] = true
      for key, y in next, x do
        visit(key)
        value(y, depth + 1)
      end
    end
  end
  value(fn, 0)
  local env = getmetatable(globals).env
  for key in pairs(globals) do
    visit(key)
    local ok, x = pcall(index, env, key)
    if not ok then x = nil end
    value(x, 1)
  end
end

return upvalues
