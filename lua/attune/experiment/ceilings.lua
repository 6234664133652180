--- t:against - times work between readings of the limits of this machine.
--
-- The speed of a machine changes within seconds: its clock, its neighbours, its memory. A speed is
-- therefore told as a fraction of a ceiling that is read just before and just after the work, with
-- measurements of the same length. Williams, Waterman and Patterson, Roofline, Communications of
-- the ACM 52(4), 2009, name the ceilings:
--   seconds >= max(bytes / bandwidth, flops / peak)
local suggest = require "attune.util.suggest"
local text = require "attune.util.text"
local timing = require "attune.experiment.timing"
local copy = require "attune.util.tables".copy
local sorted_keys = require "attune.util.tables".sorted_keys

local ceilings = {}

local default_seconds = 0.06

-- The number of bytes of which the processor's caches hold only a small part when they are read
-- again.
local function past_caches(attune) return math.max(256 << 20, 6 * attune.machine().l3) end

-- BLIS's threads spin for about a millisecond after a product and would slow down what comes next.
local function rest(seconds)
  local until_then = timing.clock() + seconds
  while timing.clock() < until_then do end
end

---@class attune.Ceiling
---@field name? string of its metric: letters, digits and _
---@field unit "FLOP/s"|"B/s" whether flops or bytes of the work are compared with it
---@field peak? boolean no work can be faster
---@field reading fun(seconds: number, memory: attune.Tensor[]|nil): number units per second
---@field needs_memory? boolean whether the reading is one of `memory`

-- The ceilings that are known by name.
---@type table<string, attune.Ceiling>
local known = {
  fma = {unit = "FLOP/s", peak = true, reading = function(seconds)
    return require "attune".measure.peak(seconds)
  end},
  bf16 = {unit = "FLOP/s", peak = true, reading = function(seconds)
    return require "attune".measure.peak(seconds, "bf16")
  end},
  sgemm = {unit = "FLOP/s", reading = function(seconds)
    local rate = require "attune".measure.sgemm(seconds, 2048)
    rest(0.005)
    return rate
  end},
  read = {unit = "B/s", peak = true, needs_memory = true, reading = function(seconds, memory)
    return require "attune".measure.read(seconds, table.unpack(memory))
  end},
}

local option_names = {"bytes", "calls", "ceilings", "flops", "memory", "name", "seconds"}

local function fail(format, ...) error(("against: " .. format):format(...), 0) end

local function is_positive(x) return type(x) == "number" and x > 0 and x < math.huge end

-- The ceiling that an entry of the option `ceilings` names or is, with its name.
local function resolve(entry, i)
  if type(entry) == "string" then
    local ceiling = known[entry]
    if not ceiling then
      fail("unknown ceiling '%s': %s", entry, suggest(entry, sorted_keys(known)))
    end
    local named = copy(ceiling)
    named.name = entry
    return named
  end
  if type(entry) ~= "table" then
    fail("ceilings[%d]: expected a name or a table, got a %s", i, type(entry))
  end
  local own = {
    name = rawget(entry, "name"), unit = rawget(entry, "unit"), peak = rawget(entry, "peak"),
    reading = rawget(entry, "reading"),
  }
  if type(own.name) ~= "string" or not own.name:find "^[%a_][%w_]*$" then
    fail("ceilings[%d].name: expected letters, digits and _, got %s", i, tostring(own.name))
  end
  if own.unit ~= "FLOP/s" and own.unit ~= "B/s" then
    fail("ceilings[%d].unit: expected 'FLOP/s' or 'B/s', got %s", i, tostring(own.unit))
  end
  if type(own.reading) ~= "function" then
    fail("ceilings[%d].reading: expected a function, got a %s", i, type(own.reading))
  end
  return own
end

-- The options, read once and checked.
local function read_options(given)
  if type(given) ~= "table" then fail("expected a table of options, got a %s", type(given)) end
  local known_names, o = {}, {}
  for _, name in ipairs(option_names) do
    known_names[name] = true
    o[name] = rawget(given, name)
  end
  for name in next, given do
    if not known_names[name] then
      fail("unknown option '%s': %s", tostring(name), suggest(tostring(name), option_names))
    end
  end
  for _, name in ipairs {"seconds", "calls", "bytes", "flops"} do
    if o[name] ~= nil and not is_positive(o[name]) then
      fail("%s: expected a positive number, got %s", name, tostring(o[name]))
    end
  end
  if type(o.ceilings) ~= "table" or rawlen(o.ceilings) == 0 then
    fail("ceilings: expected a list of ceilings such as {'fma', 'read'}, got %s",
      type(o.ceilings) == "table" and "an empty table" or "a " .. type(o.ceilings))
  end
  if o.memory ~= nil and (type(o.memory) ~= "table" or rawlen(o.memory) == 0) then
    fail("memory: expected a list of tensors or caches, got a %s", type(o.memory))
  end
  if o.name ~= nil and type(o.name) ~= "string" then
    fail("name: expected a text, got a %s", type(o.name))
  end
  local list = {}
  for i = 1, rawlen(o.ceilings) do
    list[i] = resolve(rawget(o.ceilings, i), i)
    o.needs_memory = o.needs_memory or list[i].needs_memory
    local work = list[i].unit == "B/s" and "bytes" or "flops"
    if not o[work] then fail("%s: expected the %s of a call, got none", list[i].name, work) end
  end
  o.ceilings, o.seconds, o.calls = list, o.seconds or default_seconds, o.calls or 1
  return o
end

local function readings(o, memory)
  local values = {}
  for i, ceiling in ipairs(o.ceilings) do
    local rate = ceiling.reading(o.seconds / 2, memory)
    if not is_positive(rate) then
      fail("%s: expected a reading above 0, got %s", ceiling.name, tostring(rate))
    end
    values[i] = rate
  end
  return values
end

-- At least two calls: the first may still write back what the caches hold of other memory.
local function best_of(fn, seconds)
  local clock, best, calls = timing.clock, math.huge, 0
  local start = clock()
  repeat
    local begin = clock()
    fn()
    best, calls = math.min(best, clock() - begin), calls + 1
  until calls >= 2 and clock() - start >= seconds
  return best
end

-- The metrics of a timing. A peak was at least as high as the higher reading says. Other ceilings
-- may be exceeded, so that the mean of the readings is the fair one.
local function metrics_of(o, seconds, before, after)
  local metrics, of, roofline, exceeded = {}, {}, nil, nil
  for i, ceiling in ipairs(o.ceilings) do
    local x, y = before[i], after[i]
    local rate = ceiling.peak and math.max(x, y) or (x + y) / 2
    local fraction = (ceiling.unit == "B/s" and o.bytes or o.flops) / seconds / rate
    metrics[ceiling.name], of["of_" .. ceiling.name] = rate, fraction
    if ceiling.peak then
      roofline = math.max(roofline or 0, fraction)
      if fraction > 1 and not exceeded then exceeded = {ceiling, fraction, rate} end
    end
  end
  if exceeded then return metrics, exceeded end
  for name, fraction in pairs(of) do metrics[name] = fraction end
  metrics.seconds, metrics.of_roofline = seconds, roofline
  metrics.flop_rate = o.flops and o.flops / seconds
  metrics.intensity = o.flops and o.bytes and o.flops / o.bytes
  return metrics
end

--- Calls fn for some time between readings of ceilings, and returns metrics, one number each:
--- `seconds` of the fastest call; for a ceiling C its reading `C` and `of_C`, the fraction of it
--- that was reached; `of_roofline`, the largest of these fractions over the peaks; `flop_rate`
--- (FLOP/s) and `intensity` (FLOP/B) where flops and bytes are given.
---
--- A round in which the work is faster than a peak is void, as the machine changed its speed or
--- another program used it: only the readings are returned, and a warning says so.
---@param fn function
---@param options attune.AgainstOptions
---@param round integer for the warning
---@param warn fun(text: string)
---@return table<string, number>
function ceilings.against(fn, options, round, warn)
  if type(fn) ~= "function" then fail("expected a function, got a %s", type(fn)) end
  local o = read_options(options)
  local memory, own = o.memory, nil
  if o.needs_memory and not memory then
    local attune = require "attune"
    own = attune.zeros {past_caches(attune) // 4}
    memory = {own}
  end
  fn() -- warms up
  local before = readings(o, memory)
  local seconds = best_of(fn, o.seconds) / o.calls
  local metrics, exceeded = metrics_of(o, seconds, before, readings(o, memory))
  if own then own:close() end -- a trial that leaves tensors behind ends its worker
  if exceeded then
    local ceiling, fraction, rate = table.unpack(exceeded)
    warn(("%sround %d is void: %.2f times the ceiling %s of %s"):format(
      o.name and o.name .. ": " or "", round, fraction, ceiling.name,
      text.quantity(rate, ceiling.unit)))
  end
  return metrics
end

return ceilings
