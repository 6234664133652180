--- t:time - how long a function takes, measured until it is known well enough.
local uv = require "luv"
local stats = require "attune.stats"

local timing = {}

local core_clock
function timing.clock()
  if not core_clock then
    local core = package.loaded["attune.core"]
    core_clock = core and core.clock or function() return uv.hrtime() * 1e-9 end
  end
  return core_clock()
end

---@class attune.TimeOptions
---@field budget? number seconds to spend at most once there are `least` samples; 1
---@field least? integer samples; 5
---@field most? integer samples; 1000
---@field spread? number enough when the median's uncertainty is below this share of it; 0.01
---@field warmups? integer calls before the first sample; 1
---@field before? function runs before each sample, outside its time

local known = {"budget", "least", "most", "spread", "warmups", "before"}

-- A clock's reading costs and errs by some tens of nanoseconds: shorter calls are timed many at a time.
local shortest = 20e-6

local function sample(fn, batch, before)
  if before then before() end
  local clock = timing.clock
  local start = clock()
  for _ = 1, batch do fn() end
  return (clock() - start) / batch
end

--- Calls fn again and again. Returns {samples, warmups, batch, unsteady}: every sample, in seconds a call.
---@param fn function
---@param options? attune.TimeOptions
function timing.time(fn, options)
  options = options or {}
  if type(fn) ~= "function" then error("time: expected a function, got a " .. type(fn), 3) end
  for k in pairs(options) do
    local found
    for _, name in ipairs(known) do found = found or name == k end
    if not found then error(("unknown option '%s': %s"):format(tostring(k), require "attune.suggest"(tostring(k), known)), 3) end
  end
  local least, most, budget = options.least or 5, options.most or 1000, options.budget or 1
  local warmups, first = options.warmups or 1, nil
  for _ = 1, warmups do first = sample(fn, 1, options.before) end
  first = first or sample(fn, 1, options.before)
  local batch = 1
  -- With something to run before each call a batch would time all but the first of them without it.
  if first < shortest and not options.before then
    batch = math.max(1, math.ceil(shortest / math.max(first, 1e-9)))
    sample(fn, batch)
  end
  local samples, start = {}, timing.clock()
  while #samples < most do
    samples[#samples + 1] = sample(fn, batch, options.before)
    if #samples >= least then
      if timing.clock() - start >= budget then break end
      if stats.unsteadiness(samples) / math.sqrt(#samples) < (options.spread or 0.01) and #samples >= 2 * least then break end
    end
  end
  return {samples = samples, warmups = warmups, batch = batch, unsteady = stats.unsteadiness(samples) > 0.05 or nil}
end

return timing
