--- Interleaved measurement: in each round every case runs between readings of the ceilings that it is compared with.
--
-- A case is {name, make = function() -> {run = fn, flops = , bytes = }}: flops and bytes are those that a call cannot do without. Both sides of a ratio are
-- the best of what fits a slot of the same length. A round of a case is void where the case exceeds a peak: then another program had the processor
-- while the peak was read, or memory changed its speed in between.
local attune = require "attune"
local ceilings = require "bench.ceilings"
local stats = require "attune.stats"

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

local function readings(names)
  local values = {}
  for _, name in ipairs(names) do values[name] = ceilings.list[name].reading(SLOT / 2) end
  return values
end

-- The ceilings around a case: of a peak the greater reading, of what may also be exceeded (sgemm) the mean.
local function around(before, after)
  local values = {}
  for name, x in pairs(before) do values[name] = ceilings.list[name].peak and math.max(x, after[name]) or (x + after[name]) / 2 end
  return values
end

--- The least time that the ceilings allow.
function rounds.least_seconds(problem, ceiling)
  return math.max(problem.bytes and problem.bytes / ceiling.read or 0, problem.flops and problem.flops / ceiling.fma or 0)
end

-- The peak that a round exceeds, if any. A call that keeps its data in a cache may well read faster than memory does.
local function exceeded(case, problem, seconds, ceiling)
  if ceiling.fma and problem.flops and not case.halves and problem.flops / seconds > ceiling.fma then return "fma" end
  if ceiling.read and problem.bytes and case.cold and problem.bytes / seconds > ceiling.read then return "read" end
end

--- samples[case] = list of {seconds, ceiling = {..}, void = peak's name or nil, round}
function rounds.measure(cases, count, told)
  local samples, problems = {}, {}
  for _, case in ipairs(cases) do samples[case.name] = {} end
  for round = 1, count do
    for _, case in ipairs(cases) do
      problems[case.name] = problems[case.name] or case.make()
      local problem = problems[case.name]
      problem.run()
      local before = readings(case.ceilings)
      local seconds = best_of(problem.run)
      local ceiling = around(before, readings(case.ceilings))
      table.insert(samples[case.name], {round = round, seconds = seconds, ceiling = ceiling, flops = problem.flops, bytes = problem.bytes,
        void = exceeded(case, problem, seconds, ceiling)})
      if case.heavy then
        problems[case.name] = nil
        collectgarbage()
        collectgarbage()
      end
      if told then told(round, case) end
    end
  end
  return samples
end

-- One sample's ratio to what `of` names: a ceiling, "roofline", or another case of the same round.
local function ratio(sample, of, samples)
  if of == "roofline" then return rounds.least_seconds(sample, sample.ceiling) / sample.seconds end
  if ceilings.list[of] then return (ceilings.list[of].unit == "B/s" and sample.bytes or sample.flops) / sample.seconds / sample.ceiling[of] end
  for _, other in ipairs(samples[of] or {}) do
    if other.round == sample.round and not other.void then return other.seconds / sample.seconds end
  end
end

--- A figure's ratios over the rounds: {median, low, high (quartiles), n, void}.
function rounds.figure(figure, samples)
  local values, void = {}, 0
  for _, sample in ipairs(samples[figure.case]) do
    if sample.void then void = void + 1
    else values[#values + 1] = figure.ratio and figure.ratio(sample, samples) or not figure.ratio and ratio(sample, figure.of, samples) or nil end
  end
  return {median = stats.median(values), low = stats.quantile(values, 0.25), high = stats.quantile(values, 0.75), n = #values, void = void}
end

return rounds
