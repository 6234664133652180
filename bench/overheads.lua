--- The overheads of attune: time besides the kernels, of sweeps too, and scratch memory.
local attune = require "attune"
local process = require "attune.util.process"
local stats = require "attune.results.statistics"
local uv = require "luv"

local overheads = {}

-- Seconds of one attention call on tensors so small that only the path from Lua to the kernel and
-- back matters.
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

local function seconds_of(program, arguments)
  local start = uv.hrtime()
  local ended = assert(process.run({program, table.unpack(arguments)}, 1, 60))
  assert(ended.code == 0, program .. " failed")
  return (uv.hrtime() - start) * 1e-9
end

local function version()
  local samples = {}
  for i = 1, 15 do
    samples[i] = seconds_of(os.getenv "ATTUNE_COMMAND" or "build/attune", {"--version"})
  end
  return stats.median(samples)
end

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
  for _, t in ipairs(results) do
    if type(t) == "userdata" then t:close() end
  end
  return bytes
end

--- {text, value, at_most, unit}
function overheads.measure()
  local rows = {
    {"one attention call on tiny tensors, from Lua", call(), 5e-6, "s"},
    {"`attune --version`", version(), 30e-3, "s"},
  }
  for _, row in ipairs(require "bench.sweeps".measure()) do rows[#rows + 1] = row end
  for _, backward in ipairs {false, true} do
    for _, dim in ipairs {64, 128} do
      for _, tokens in ipairs {2048, 16384} do
        rows[#rows + 1] = {("scratch per thread, %s, f32, H 8, S %d, "
          .. "D %d, without %s"):format(backward and "backward" or "prefill",
          tokens, dim,
          backward
            and "lse and delta"
            or "a packed copy of a head's K and V"), scratch(tokens, dim, backward), backward
            and 4 << 20 or 2 << 20, "B"}
      end
    end
  end
  return rows
end

return overheads
