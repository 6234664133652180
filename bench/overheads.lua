--- The overheads of attune: time besides the kernels, of sweeps too (bench/sweeps.lua), and scratch
--- memory. Each is a case with a function `measure`, which returns its metrics.
local attune = require "attune"
local process = require "attune.util.process"

local list = {}

local function overhead(name, measure)
  list[#list + 1] = {name = "overhead-" .. name, part = "overhead", measure = measure}
end

-- One attention call on tensors so small that only the path from Lua to the kernel and back
-- matters.
overhead("call", function(_, t)
  local q = attune.randn({1, 1, 1, 4}, {seed = 1})
  return {seconds = t:time(function()
    local o, lse = attune.attention(q, q, q)
    o:close()
    lse:close()
  end, {budget = 0.2, least = 200})}
end)

local function command() return os.getenv "ATTUNE_COMMAND" or "build/attune" end

-- Seconds of a run of the command, which must succeed.
local function seconds_of(...)
  local start = attune.clock()
  local ended = assert(process.run({command(), ...}, 2, 120))
  local seconds = attune.clock() - start
  if ended.code ~= 0 then error(("%s: %s"):format(command(), ended.said), 0) end
  return seconds
end

overhead("version", function()
  local samples = {}
  for i = 1, 15 do samples[i] = seconds_of "--version" end
  return {seconds = samples}
end)

-- Scratch bytes per thread of a call, without its results, and without one packed copy of a kv
-- head's keys and values per thread (forward) or lse and delta (backward).
local function scratch(tokens, dim, backward)
  local function draw(seed) return attune.randn({1, 8, tokens, dim}, {seed = seed}) end
  local q, k, v, d_o = draw(1), draw(2), draw(3), draw(4)
  local o, lse = attune.attention(q, k, v, {causal = true})
  collectgarbage()
  collectgarbage()
  attune.memory {reset_peak = true}
  local results = backward
    and {attune.attention_backward(d_o, q, k, v, o, lse, {causal = true})}
    or {attune.attention(q, k, v, {causal = true, engine = "tiled"})}
  local memory = attune.memory()
  local apart = backward and 2 * 8 * tokens * 4 or attune.threads() * 2 * tokens * dim * 4
  local bytes = (memory.peak - memory.bytes - apart) / attune.threads()
  for _, result in ipairs(results) do
    if type(result) == "userdata" then result:close() end
  end
  return bytes
end

for _, direction in ipairs {"prefill", "backward"} do
  for _, dim in ipairs {64, 128} do
    for _, tokens in ipairs {2048, 16384} do
      overhead(("scratch-%s-%d-%d"):format(direction, dim, tokens), function(p)
        return {bytes = scratch(tokens // p.shrink, dim, direction == "backward")}
      end)
    end
  end
end

for _, name in ipairs {"sweep-point", "sweep-again", "report"} do
  overhead(name, require "sweeps"[name])
end

return list
