--- Interleaved measurement: in each round every case runs between readings of the ceilings that it
--- is compared with.
--
-- A case is {name, ceilings, make, dots, arithmetic, heavy, cold}:
--   make        function() -> {run = fn, flops = , bytes = , times = calls per run, memory = };
--               flops and bytes are the minimum that a call needs
--   dots        the arithmetic is bf16 dot products
--   arithmetic  the name of another ceiling than fma
--   heavy       made again in each round
--   cold        its bytes come from memory; bandwidth is read from `memory` where make returns it
-- Both sides of a ratio are the best call of a slot of the same length. A round of a case is void
-- where the case exceeds a peak: then another program used the processor while the peak was read,
-- or memory changed its speed in between.
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

-- The ceilings of a case: for a peak the max of the two readings; for sgemm, which a case may
-- exceed, their mean.
local function around(before, after)
  local values = {}
  for name, x in pairs(before) do
    values[name] = ceilings.list[name].peak and math.max(x, after[name]) or (x + after[name]) / 2
  end
  return values
end

--- The min time that the ceilings allow for a sample.
function rounds.min_seconds(sample)
  local c = sample.ceiling
  return math.max(
    sample.bytes and c.read and sample.bytes / c.read or 0,
    sample.flops and sample.flops / (c[sample.arithmetic] or math.huge) or 0
  )
end

-- The peak that a sample exceeds, if any. Only cold cases are compared with the bandwidth of
-- memory: others may read their data from a cache.
local function exceeded(case, sample)
  local c = sample.ceiling
  if c[sample.arithmetic]
      and sample.flops and sample.flops / sample.seconds > c[sample.arithmetic] then
    return sample.arithmetic
  end
  if case.cold and c.read and sample.bytes / sample.seconds > c.read then return "read" end
end

local problems = {} -- by case name, kept from round to round

--- Runs a case for one slot. Returns the best seconds, flops and bytes per call.
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

--- Returns samples: samples[case name] = list of {seconds, ceiling = {..}, void = name of the
--- exceeded peak or nil, round}. progress(round, case) is called after each sample.
function rounds.measure(cases, count, progress)
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
      if progress then progress(round, case) end
    end
  end
  return samples
end

--- Another case's sample of the same round; nil where there is none, or it is void.
function rounds.same_round(sample, samples, name)
  for _, other in ipairs(samples[name] or {}) do
    if other.round == sample.round and not other.void then return other end
  end
end

-- One sample's ratio to what `of` names: a ceiling, "roofline", or another case of the same round.
local function ratio(sample, of, samples)
  if of == "roofline" then return rounds.min_seconds(sample) / sample.seconds end
  if ceilings.list[of] then
    return (ceilings.list[of].unit == "B/s" and sample.bytes or sample.flops) / sample.seconds
      / sample.ceiling[of]
  end
  local other = rounds.same_round(sample, samples, of)
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
