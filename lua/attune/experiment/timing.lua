--- t:time - measures how long a function takes, until the median is known well enough.
local uv = require "luv"
local conditions = require "attune.experiment.conditions"
local stats = require "attune.results.statistics"

local timing = {}

local core_clock
--- Seconds on a monotonic clock: the core's when it is loaded, else luv's.
---@return number
function timing.clock()
  if not core_clock then
    local core = package.loaded["attune.core"]
    core_clock = core and core.clock or function() return uv.hrtime() * 1e-9 end
  end
  return core_clock()
end

local default_min, default_max = 5, 1000 -- samples
local option_names = {"budget", "least", "most", "spread", "warmups", "before"}

-- Reading the clock costs tens of nanoseconds and errs by as much. A call that is shorter than this
-- many seconds is therefore timed in batches of at least this length.
local min_batch_seconds = 20e-6

-- A median absolute deviation above 5% of the median marks a value as unsteady.
local unsteady_above = 0.05

-- Raises an error at the line of the trial for a value that is out of range.
local function check_values(options)
  local function check(name, is_right, expected)
    local value = options[name]
    if value ~= nil and not (type(value) == "number" and is_right(value)) then
      error(("time: %s: expected %s, got %s"):format(name, expected, tostring(value)), 5)
    end
  end
  local function is_count(x) return x >= 1 and x == math.floor(x) end
  check("budget", function(x) return x >= 0 end, "seconds of at least 0")
  check("spread", function(x) return x > 0 end, "a number above 0")
  check("warmups", function(x) return x >= 0 and x == math.floor(x) end, "an integer from 0")
  check("least", is_count, "an integer from 1")
  check("most", is_count, "an integer from 1")
  if options.before ~= nil and type(options.before) ~= "function" then
    error(("time: before: expected a function, got a %s"):format(type(options.before)), 4)
  end
  local min_count, max_count = options.least or default_min, options.most or default_max
  -- A script that gives most alone may give fewer than the default of least.
  if options.least and min_count > max_count then
    error(("time: least: expected at most %s, as most says, got %s"):format(max_count, min_count),
      4)
  end
end

local function check_options(options)
  for k in pairs(options) do
    local found
    for _, name in ipairs(option_names) do found = found or name == k end
    if not found then
      local hint = require "attune.util.suggest"(tostring(k), option_names)
      error(("unknown option '%s': %s"):format(tostring(k), hint), 3)
    end
  end
  check_values(options)
end

-- Seconds per call, averaged over a batch of calls.
local function sample(fn, batch, before)
  if before then before() end
  local clock = timing.clock
  local start = clock()
  for _ = 1, batch do fn() end
  return (clock() - start) / batch
end

-- Calls per sample. `before` runs once per sample, so that with it a batch of one is right.
local function batch_size(first, before)
  if first >= min_batch_seconds or before then return 1 end
  return math.max(1, math.ceil(min_batch_seconds / math.max(first, 1e-9)))
end

-- The median's relative uncertainty falls with the square root of the number of samples.
local function known_well(samples, spread)
  return stats.unsteadiness(samples) / math.sqrt(#samples) < spread
end

--- Calls fn again and again and keeps every sample.
---@param fn function
---@param options? attune.TimeOptions
---@return attune.Timing
function timing.time(fn, options)
  options = options or {}
  if type(fn) ~= "function" then error("time: expected a function, got a " .. type(fn), 2) end
  check_options(options)
  local min_count, max_count = options.least or default_min, options.most or default_max
  local budget, spread = options.budget or 1, options.spread or 0.01
  local warmups, before, first = options.warmups or 1, options.before, nil
  for _ = 1, warmups do first = sample(fn, 1, before) end
  first = first or sample(fn, 1, before)
  local batch = batch_size(first, before)
  if batch > 1 then sample(fn, batch) end -- warms the batch up
  local before_samples = conditions.now()
  local samples, start = {}, timing.clock()
  while #samples < max_count do
    samples[#samples + 1] = sample(fn, batch, before)
    if #samples >= min_count then
      if timing.clock() - start >= budget then break end
      if known_well(samples, spread) and #samples >= 2 * min_count then break end
    end
  end
  local unsteady = stats.unsteadiness(samples) > unsteady_above or nil
  return {
    samples = samples,
    warmups = warmups,
    batch = batch,
    unsteady = unsteady,
    cause = unsteady and conditions.cause(before_samples, conditions.now(), #samples),
  }
end

return timing
