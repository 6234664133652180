--- Interleaved measurement: in each round every case runs between readings of the ceilings that it
--- is compared with.
--
-- A case is {name, ceilings, make = function() -> {run = fn, flops = , bytes = , times = calls in a
-- run}}; dots: its arithmetic is bf16's dot products, arithmetic: names another ceiling than fma
-- for it; heavy: made
-- anew each round; cold: its bytes come from memory, from `memory` where make returns that. flops
-- and bytes are those that a call cannot do without. Both sides of a
-- ratio are the best of what fits a slot of the same length. A round of a case is void where the
-- case exceeds a peak: then another program had the processor
-- while the peak was read, or memory changed its speed in between.
local attune = require "attune"
local ceilings = require "bench.ceilings"
local stats = require "attune.results.statistics"

local rounds = {}

local SLOT = 0.06 -- seconds

local function best_of(run)
  local start, best = attune.clock(), math.huge
  repeat
    local begin = attune.clock()
    run()
    best = math.min(best, attune.clock() - begin)
  until attune.clock() - start > SLOT
  return best
end

local function readings(names, memory)
  local values = {}
  for _, name in ipairs(names) do values[name] = ceilings.list[name].reading(SLOT / 2, memory) end
  return values
end

-- The ceilings around a case: of a peak the greater reading, of what may also be exceeded (sgemm)
-- the mean.
local function around(before, after)
  local values = {}
  for name, x in pairs(before) do
    values[name] = ceilings.list[name].peak and math.max(x, after[name]) or (x + after[name]) / 2
  end
  return values
end

--- The least time that the ceilings allow a sample.
function rounds.least_seconds(sample)
  local c = sample.ceiling
  return math.max(
    sample.bytes and c.read and sample.bytes / c.read or 0,
    sample.flops and sample.flops / (c[sample.arithmetic] or math.huge) or 0
  )
end

-- The peak that a round exceeds, if any. A call that keeps its data in a cache may well read faster
-- than memory does.
local function exceeded(case, sample)
  local c = sample.ceiling
  if c[sample.arithmetic]
      and sample.flops and sample.flops / sample.seconds > c[sample.arithmetic] then
    return sample.arithmetic
  end
  if case.cold and c.read and sample.bytes / sample.seconds > c.read then return "read" end
end

local problems = {} -- that stay from round to round

--- Runs a case's slot and gives its best seconds, flops and bytes.
function rounds.seconds_of(case, between)
  local problem = problems[case.name] or case.make()
  problems[case.name] = not case.heavy and problem or nil
  problem.run()
  if between then between(problem.memory) end
  local seconds = best_of(problem.run)
  local flops, bytes, times = problem.flops, problem.bytes, problem.times or 1
  if between then between(problem.memory) end
  if case.heavy then
    problem = nil -- luacheck: ignore
    collectgarbage()
    collectgarbage()
  end
  return seconds / times, flops / times, bytes and bytes / times
end

--- samples[case] = list of {seconds, ceiling = {..}, void = peak's name or nil, round}
function rounds.measure(cases, count, told)
  local samples = {}
  for _, case in ipairs(cases) do samples[case.name] = {} end
  for round = 1, count do
    for _, case in ipairs(cases) do
      local read = {}
      local seconds, flops, bytes = rounds.seconds_of(case, function(memory)
        read[#read + 1] = readings(case.ceilings, memory)
      end)
      local ceiling = around(read[1], read[2])
      local sample = {
        round = round,
        seconds = seconds,
        ceiling = ceiling,
        flops = flops,
        bytes = bytes,
        arithmetic = case.arithmetic or case.dots and "bf16" or "fma",
      }
      sample.void = exceeded(case, sample)
      table.insert(samples[case.name], sample)
      if told then told(round, case) end
    end
  end
  return samples
end

--- Another case's sample of the same round; nil where there is none, or it is void.
function rounds.beside(sample, samples, name)
  for _, other in ipairs(samples[name] or {}) do
    if other.round == sample.round and not other.void then return other end
  end
end

-- One sample's ratio to what `of` names: a ceiling, "roofline", or another case of the same round.
local function ratio(sample, of, samples)
  if of == "roofline" then return rounds.least_seconds(sample) / sample.seconds end
  if ceilings.list[of] then
    return (ceilings.list[of].unit == "B/s" and sample.bytes or sample.flops) / sample.seconds
      / sample.ceiling[of]
  end
  local other = rounds.beside(sample, samples, of)
  return other and other.seconds / sample.seconds
end

--- A figure's ratios over the rounds: {median, low, high (quartiles), n, void}.
function rounds.figure(figure, samples)
  local values, void = {}, 0
  for _, sample in ipairs(samples[figure.case]) do
    if sample.void then void = void + 1
    else
      values[#values + 1] = figure.ratio
        and figure.ratio(sample, samples) or not figure.ratio and ratio(sample, figure.of, samples)
        or nil
    end
  end
  return {
    median = stats.median(values),
    low = stats.quantile(values, 0.25),
    high = stats.quantile(values, 0.75),
    n = #values,
    void = void,
  }
end

return rounds
