--- Counts the lines of lua/attune that a process runs. tools/coverage names this file in LUA_INIT,
--- so that every lua5.4 process loads it first, workers too. Each process writes its lines into a
--- file of its own under $ATTUNE_COVERAGE. A process that a signal ends writes nothing.
-- luacheck: ignore 122
local folder = os.getenv "ATTUNE_COVERAGE"
local exit, create, wrap = os.exit, coroutine.create, coroutine.wrap
local ran = {}

local function count(_, line)
  if not line then return end -- a stripped function
  local source = debug.getinfo(2, "S").source
  local lines = ran[source]
  if not lines then
    lines = {}
    ran[source] = lines
  end
  lines[line] = true
end

local function write()
  local unique = os.tmpname()
  local out = io.open(folder .. "/" .. unique:match "[^/]+$", "w")
  os.remove(unique)
  if not out then return end
  for source, lines in pairs(ran) do
    local path = source:match "lua/attune/.*%.lua$"
    for line in pairs(path and lines or {}) do out:write(path, ":", line, "\n") end
  end
  out:close()
  ran = {}
end

-- A hook belongs to one coroutine: new ones get it when they start.
local function counted(fn)
  return function(...)
    debug.sethook(count, "l")
    return fn(...)
  end
end

function coroutine.create(fn) return create(counted(fn)) end
function coroutine.wrap(fn) return wrap(counted(fn)) end

function os.exit(...)
  write()
  exit(...)
end

-- The registry outlives everything else: its object is collected when the state closes.
debug.getregistry().attune_line_counter = setmetatable({}, {__gc = write})
debug.sethook(count, "l")
