--- What attune itself costs beside the work: figures in seconds, as users feel them.
local attune = require "attune"
local stats = require "attune.stats"
local uv = require "luv"

local overheads = {}

-- One attention call on tensors so small that only the way from Lua to the kernel and back counts.
local function call()
  local q = attune.randn({1, 1, 1, 4}, {seed = 1})
  local samples = {}
  for i = 1, 200 do
    local start = attune.clock()
    for _ = 1, 50 do attune.attention(q, q, q) end
    samples[i] = (attune.clock() - start) / 50
  end
  return stats.median(samples)
end

local function seconds_of(program, arguments, input)
  local pipe, done = uv.new_pipe(false), false
  local start = uv.hrtime()
  local handle = assert(uv.spawn(program, {args = arguments, stdio = {pipe, nil, nil}}, function() done = true end))
  if input then pipe:write(input) end
  pipe:shutdown()
  while not done do uv.run "once" end
  local seconds = (uv.hrtime() - start) * 1e-9
  handle:close()
  pipe:close()
  uv.run "nowait"
  return seconds
end

local function version()
  local samples = {}
  for i = 1, 15 do samples[i] = seconds_of(os.getenv "ATTUNE_COMMAND" or "build/attune", {"--version"}) end
  return stats.median(samples)
end

-- A run of trials that do nothing, less what as many workers take that are started by hand with the same request.
local function runner()
  local count = 40
  local script, dir = os.tmpname() .. ".lua", os.tmpname()
  os.remove(dir)
  local f = assert(io.open(script, "w"))
  f:write(('return require "attune.experiment" {name = "nothing", grid = {i = {%s}}, rounds = 1, trial = function() return {x = 1} end}'):format(
    table.concat((function() local t = {} for i = 1, count do t[i] = i end return t end)(), ",")))
  f:close()
  local command = os.getenv "ATTUNE_COMMAND" or "build/attune"
  local request = require "attune.json".encode {script = script, parameters = {i = 1}, round = 1, seed = 1, quick = false} .. "\n"
  local differences = {}
  for i = 1, 5 do
    local whole = seconds_of(command, {"run", script, "--out", dir .. i}) - seconds_of(command, {"run", script, "--out", dir .. i}) -- the second measures nothing
    local alone = 0
    for _ = 1, count do alone = alone + seconds_of("lua5.4", {require "attune.place".lua .. "/bin/attune", "trial"}, request) end
    differences[i] = (whole - alone) / count
  end
  os.execute(("rm -rf %s %s*"):format(script, dir))
  return stats.median(differences)
end

--- {text, seconds, at_most}
function overheads.measure()
  return {
    {"one attention call on tiny tensors, from Lua", call(), 5e-6},
    {"`attune --version`", version(), 30e-3},
    {"a trial, beside starting its worker", runner(), 5e-3},
  }
end

return overheads
