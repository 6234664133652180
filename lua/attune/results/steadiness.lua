--- Which values are unstable, why, and what helps.
local repeats = require "attune.results.repeats"
local schema = require "attune.results.schema"
local stats = require "attune.results.statistics"

local steadiness = {}

-- What each cause says and what to do about it. experiment/conditions.lua finds the first six while
-- it times; the others show in the rounds.
local words = {
  steal = "the host gave the processor to others (steal time): use a machine of your own, or "
    .. "more rounds (--rounds)",
  load = "other programs used the processor (load): stop them, or run when the machine is idle",
  faults = "memory was touched for the first time (page faults): raise warmups of t:time, or make "
    .. "tensors before it",
  frequency = "the processor's frequency changed: set the governor to performance, or raise "
    .. "warmups of t:time",
  samples = "there are few samples per round: raise budget or least of t:time",
  unknown = "no cause was found: more rounds (--rounds) show how much it matters",
  drift = "values rise or fall with the round (drift): let the machine warm up, and compare only "
    .. "what was measured in alternation",
  dependent = "each round repeats the one before (autocorrelation), so that intervals are too "
    .. "narrow: make rounds longer, or look for what else runs",
  rounds = "there are too few %ss", -- what gives a point several values
}
local order = {"steal", "load", "faults", "frequency", "samples", "unknown", "drift", "dependent",
  "rounds"}

local max_half_width = 0.05 -- of the value
local max_p_of_drift, min_total_drift = 0.01, 0.05
local min_autocorrelation = 0.4

-- The cause that most rounds name.
local function main_cause(causes)
  local best
  for _, cause in ipairs(order) do
    local count = causes[cause]
    if count and (not best or count > causes[best]) then best = cause end
  end
  return best
end

-- Whether all rounds lie within so small a range that nothing needs a closer look.
local function is_narrow(values, centre)
  local min, max = math.huge, -math.huge
  for _, x in ipairs(values) do min, max = math.min(min, x), math.max(max, x) end
  return max - min <= math.min(min_total_drift, max_half_width) * math.abs(centre)
end

--- Why a value is unstable; nil when it is not.
---@param value attune.Value
---@return string? cause
---@return integer? rounds that would do, where the cause is "rounds"
function steadiness.cause(value)
  local causes = value.causes
  if value.n >= 2 and is_narrow(value.values, value.centre) then
    return value.unsteady and (causes and main_cause(causes) or "unknown") or nil
  end
  local drift = stats.drift(value.values)
  if drift and drift.p < max_p_of_drift and math.abs(drift.total) > min_total_drift then
    return "drift"
  end
  local r, p = stats.autocorrelation(value.values)
  if r and r > min_autocorrelation and p < max_p_of_drift then return "dependent" end
  if value.unsteady then return causes and main_cause(causes) or "unknown" end
  local rounds = value.lo and stats.rounds_for(value.values, max_half_width)
  if rounds and rounds > value.n then return "rounds", rounds end
end

local max_named_rounds = 1000

-- "rounds: about 5 would do (--rounds)"
local function words_of(cause, list, results)
  if cause ~= "rounds" then return words[cause] end
  table.sort(list)
  local most = list[#list]
  local function text(n)
    return n > max_named_rounds and "more than 1000" or ("about %d"):format(n)
  end
  local half = list[(#list + 1) // 2]
  local would_do = half == most and ("%s would do"):format(text(most))
    or ("%s would do for half of them, %s for all"):format(text(half), text(most))
  local few = words.rounds:format(repeats.word(results))
  return ("%s: %s (%s)"):format(few, would_do, repeats.option(results))
end

-- "seconds: 3 rounds are beyond ..", or nil. In a narrow range outliers do not matter.
local function outliers_sentence(results, metric)
  local count, severe, points = 0, 0, 0
  for _, point in ipairs(results.points) do
    local value = point.metrics[metric.name]
    local found = value and not is_narrow(value.values, value.centre)
      and stats.outliers(value.values) or {}
    count, points = count + #found, points + (#found > 0 and 1 or 0)
    for _, outlier in ipairs(found) do severe = severe + (outlier.severe and 1 or 0) end
  end
  if count == 0 then return nil end
  local word = repeats.word(results)
  local format = "%s: %s beyond 1.5 interquartile ranges (outliers, %d of them beyond 3) at %s; "
    .. "they are kept."
  return format:format(metric.name,
    count == 1 and ("one %s is"):format(word) or ("%d %ss are"):format(count, word), severe,
    points == 1 and "one point" or points .. " points")
end

-- For a metric: how many values have each cause, how many values there are, and the rounds that
-- would do where there are too few.
local function count_causes(results, metric)
  local counts, all, rounds = {}, 0, {}
  for _, point in ipairs(results.points) do
    local value = point.metrics[metric.name]
    if value then
      all = all + 1
      local cause, needed = steadiness.cause(value)
      if cause then counts[cause] = (counts[cause] or 0) + 1 end
      rounds[#rounds + 1] = needed
    end
  end
  return counts, all, rounds
end

--- Sentences on the unstable values of results: for each metric and cause how many values it has,
--- and the remedy.
---@param results attune.Results
---@param skip? table<string, boolean> causes to leave out
---@return string[]
function steadiness.sentences(results, skip)
  local list = {}
  for _, metric in ipairs(results.metrics) do
    local counts, all, rounds = count_causes(results, metric)
    for _, cause in ipairs(order) do
      if counts[cause] and not (skip and skip[cause]) then
        list[#list + 1] = ("%s is unstable in %d of %d points: %s."):format(metric.name,
          counts[cause], all, words_of(cause, rounds, results))
      end
    end
    list[#list + 1] = outliers_sentence(results, metric)
  end
  return list
end

local max_sentences = 2

--- The same in one line where there are more than two sentences: how many values of each metric
--- are unstable, and the most frequent cause with its remedy.
---@param results attune.Results
---@param where string where all of them are
---@param skip? table<string, boolean> causes to leave out
---@return string[]
function steadiness.summary(results, where, skip)
  local sentences = steadiness.sentences(results, skip)
  if #sentences <= max_sentences then return sentences end
  local parts, causes, unstable, all_rounds = {}, {}, 0, {}
  for _, metric in ipairs(results.metrics) do
    local counts, all, rounds = count_causes(results, metric)
    local of_metric = 0
    for cause, count in pairs(counts) do
      if not (skip and skip[cause]) then
        of_metric, causes[cause] = of_metric + count, (causes[cause] or 0) + count
      end
    end
    table.move(rounds, 1, #rounds, #all_rounds + 1, all_rounds)
    unstable = unstable + of_metric
    if of_metric > 0 then
      parts[#parts + 1] = ("%s in %d of %d points"):format(metric.name, of_metric, all)
    end
  end
  if unstable == 0 then return sentences end -- only outliers
  local cause = main_cause(causes)
  local format = "Unstable: %s. Most frequent cause (%d of %d): %s. %s"
  return {format:format(table.concat(parts, ", "), causes[cause], unstable,
    words_of(cause, all_rounds, results), where)}
end

-- Every cause that a record may name has words.
for cause in pairs(schema.causes) do assert(words[cause], cause) end

return steadiness
