--- Whether a trial left its process as it was, so that the next trial may run in it.
--
-- The script is loaded anew for each trial (experiment.reload), so that its locals and its modules
-- start afresh. What is compared here is what a script can change beyond them: globals and the
-- standard library, the working folder, the environment, open files, tensors, memory. A trial that
-- started a program always ends its worker, as the program may still run.
local uv = require "luv"
local copy = require "attune.util.tables".copy

local leftovers = {}

local max_growth_bytes = 64 << 20

-- Programs that were started; nil until the functions that start them are watched.
local programs

local function watch_programs()
  if programs then return end
  programs = 0
  for _, place in ipairs {{io, "popen"}, {os, "execute"}, {uv, "spawn"}} do
    local library, name = place[1], place[2]
    local start = library[name]
    library[name] = function(...)
      programs = programs + 1
      return start(...)
    end
  end
end

local function same(t, c)
  for k, v in next, t do
    if not rawequal(c[k], v) then return false end
  end
  for k in next, c do
    if t[k] == nil then return false end
  end
  return true
end

local libraries = {"coroutine", "debug", "io", "math", "os", "string", "table", "utf8"}

local function open_files()
  local count, request = 0, uv.fs_scandir "/proc/self/fd"
  while request and uv.fs_scandir_next(request) do count = count + 1 end
  return count
end

--- The process as it is before its first trial.
---@param core? table attune.core, where it is loaded
---@return table
function leftovers.now(core)
  watch_programs()
  local now = {
    core = core,
    trials = 0,
    programs = programs,
    globals = copy(_G),
    libraries = {},
    strings = getmetatable "".__index,
    folder = uv.cwd(),
    environment = uv.os_environ(),
    files = open_files(),
    resident = uv.resident_set_memory(),
  }
  for _, name in ipairs(libraries) do now.libraries[name] = copy(_G[name]) end
  if core then
    local memory = core.memory()
    now.bytes, now.limit, now.threads = memory.bytes, memory.limit, core.threads()
  end
  return now
end

local function tables_are_same(before)
  if not same(_G, before.globals) or getmetatable(_G) then return false end
  for _, name in ipairs(libraries) do
    if not same(_G[name], before.libraries[name]) then return false end
  end
  return getmetatable "".__index == before.strings
end

-- Whether files and tensors are as before. What a trial no longer uses is collected first.
local function handles_are_same(before)
  local function are_same()
    local bytes = before.core and before.core.memory().bytes
    return open_files() == before.files and bytes == before.bytes
  end
  if are_same() then return true end
  collectgarbage()
  collectgarbage()
  return are_same()
end

--- Whether the process is as it was.
---@param before table
---@return boolean
function leftovers.none(before)
  return programs == before.programs
    and tables_are_same(before)
    and uv.cwd() == before.folder
    and same(uv.os_environ(), before.environment)
    and handles_are_same(before)
    and uv.resident_set_memory() - before.resident <= max_growth_bytes
end

return leftovers
