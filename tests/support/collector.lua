--- Makes the collector aggressive, so that an object that C code still uses but no longer anchors
--- is collected at once. ATTUNE_TEST_COLLECTOR names the mode:
---   generational  a young collection whenever memory grew by 1%
---   step          every allocation is followed by a step of the incremental collector, which never
---                 rests: a cycle ends after a few hundred allocations
---   full          every allocation inside a C function of attune is followed by a whole cycle, in
---                 the first 50 calls of each function; later calls are as with step
local mode = os.getenv "ATTUNE_TEST_COLLECTOR"

-- setpause 0: the next cycle starts when one ends. The collector works until it has paid for what
-- was allocated, so that each allocation starts a step; 2^0 bytes is the smallest one.
local function rest() collectgarbage("incremental", 200, 100, 13) end
local function step() collectgarbage("incremental", 1, 100, 1) end
-- A step of 2^50 bytes ends only with its cycle.
local function full() collectgarbage("incremental", 1, 400, 50) end

if mode == "generational" then
  collectgarbage("generational", 1, 100)
elseif mode == "step" then
  step()
elseif mode == "full" then
  -- The hook turns the collector up when a C function of attune is called and down when that
  -- function returns. A hook adds no level to the stack: messages still name the caller's line.
  local getinfo = debug.getinfo
  local calls = {} -- of each C function of attune
  local depths = setmetatable({}, {__mode = "k"}) -- of nested calls, per coroutine

  local function collect(value, seen)
    local kind = type(value)
    if kind == "function" and getinfo(value, "S").what == "C" then calls[value] = 0 end
    if kind ~= "table" or seen[value] then return end
    seen[value] = true
    for _, inner in next, value do collect(inner, seen) end
  end

  local function hook(event)
    local func = getinfo(2, "f").func
    local count = calls[func]
    local thread = coroutine.running()
    if event == "return" then
      -- A function that raised an error has no return event, but the pcall around it has one.
      if func == pcall or func == xpcall then
        depths[thread] = 0
      elseif count then
        depths[thread] = math.max((depths[thread] or 0) - 1, 0)
      else
        return
      end
      if depths[thread] == 0 then rest() end
    elseif count then
      calls[func] = count + 1
      depths[thread] = (depths[thread] or 0) + 1
      if count < 50 then full() else step() end
    end
  end

  local create, wrap = coroutine.create, coroutine.wrap
  local function hooked(fn)
    return function(...)
      debug.sethook(hook, "cr")
      return fn(...)
    end
  end
  -- luacheck: push ignore 122
  function coroutine.create(fn) return create(hooked(fn)) end
  function coroutine.wrap(fn) return wrap(hooked(fn)) end
  -- luacheck: pop

  local seen = {}
  collect(require "attune.core", seen)
  for name, value in pairs(debug.getregistry()) do
    if type(name) == "string" and name:find "^attune" then collect(value, seen) end
  end
  debug.sethook(hook, "cr")
else
  error("ATTUNE_TEST_COLLECTOR: expected generational, step or full, got " .. mode)
end
