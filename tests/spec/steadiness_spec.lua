local conditions = require "attune.experiment.conditions"
local stats = require "attune.results.statistics"
local steadiness = require "attune.results.steadiness"

-- Conditions one second apart on a machine with two processors, this program using one.
local function state(change)
  local now = {
    time = 10, own = 5, major_faults = 0, minor_faults = 100, frequency = 3e6,
    processors = {used = 1000, stolen = 0, all = 2000},
  }
  local later = {
    time = 11, own = 6, major_faults = 0, minor_faults = 110, frequency = 3e6,
    processors = {used = 1100, stolen = 0, all = 2200},
  }
  change(later)
  return now, later
end

local function cause(change, samples)
  local now, later = state(change)
  return conditions.cause(now, later, samples or 50)
end

describe("the cause of unsteady samples", function()
  it("is what the machine did meanwhile", function()
    assert.same("unknown", cause(function() end))
    assert.same("steal", cause(function(s) s.processors.stolen = 10 end))
    assert.same("load", cause(function(s) s.processors.used = 1150 end))
    assert.same("faults", cause(function(s) s.major_faults = 1 end))
    assert.same("faults", cause(function(s) s.minor_faults = 5000 end))
    assert.same("frequency", cause(function(s) s.frequency = 2e6 end))
    assert.same("samples", cause(function() end, 5))
  end)
  it("is found without the files of Linux", function()
    assert.same("unknown", cause(function(s) s.processors, s.frequency = nil, nil end))
    local now = conditions.now()
    assert.is_true(now.time > 0 and now.own > 0)
    assert.is_string(conditions.cause(now, conditions.now(), 20))
  end)
end)

describe("unstable values", function()
  local function value(values, more)
    local v = stats.summary(values)
    v.values = values
    for k, x in pairs(more or {}) do v[k] = x end
    return v
  end
  local function sentences(...)
    local points = {}
    for i, v in ipairs {...} do points[i] = {metrics = {seconds = v}} end
    return steadiness.sentences {metrics = {{name = "seconds"}}, points = points}
  end
  it("are named with cause and remedy", function()
    local steady = value {1, 1.001, 0.999}
    local loaded = value({1, 1.001, 0.999}, {unsteady = true, causes = {load = 2, steal = 1}})
    assert.same({}, sentences(steady))
    assert.same({
      "seconds is unstable in 1 of 2 points: other programs used the processor (load): stop them, "
        .. "or run when the machine is idle.",
    }, sentences(steady, loaded))
    local said = sentences(value({1, 1}, {unsteady = true}))[1]
    assert.truthy(said:find("no cause was found", 1, true))
  end)
  it("say how many rounds would do", function()
    local few = value {0.9, 1, 1.1}
    local expected = "seconds is unstable in 1 of 1 points: there are too few rounds: "
      .. "about 18 would do (--rounds)."
    assert.same({expected}, sentences(few))
    local said = sentences(few, value {0.97, 1, 1.03})[1]
    assert.truthy(said:find "about %d+ would do for half of them, about 18 for all")
  end)
  it("of several metrics and causes have a summary of one line", function()
    local steady = value {1, 1.001, 0.999}
    local loaded = value({1, 1.001, 0.999}, {unsteady = true, causes = {load = 2, steal = 1}})
    local stolen = value({1, 1.001, 0.999}, {unsteady = true, causes = {steal = 3}})
    local function results(...)
      local points = {}
      for i, pair in ipairs {...} do points[i] = {metrics = {a = pair[1], b = pair[2]}} end
      return {metrics = {{name = "a"}, {name = "b"}}, points = points}
    end
    assert.same({
      "Unstable: a in 2 of 3 points, b in 1 of 3 points. Most frequent cause (2 of 3): other "
        .. "programs used the processor (load): stop them, or run when the machine is idle. The "
        .. "report and attune show have all.",
    }, steadiness.summary(results({loaded, steady}, {stolen, steady}, {steady, loaded}),
      "The report and attune show have all."))
    -- Two sentences are said as they are.
    local two = results({loaded, steady}, {stolen, steady})
    assert.same(2, #steadiness.summary(two, ""))
    assert.same(steadiness.sentences(two), steadiness.summary(two, ""))
  end)
  it("are rounds that repeat the one before, too", function()
    local waves = {}
    for i = 1, 24 do waves[i] = 1 + 0.1 * ((i - 1) // 6 % 2) end
    assert.truthy(sentences(value(waves))[1]:find("autocorrelation", 1, true))
  end)
  it("and outliers are counted, and kept", function()
    local slow = value {1, 1.001, 0.999, 1.002, 0.998, 1.0005, 0.9995, 1.001, 0.999, 1, 1, 1.5}
    local said = table.concat(sentences(slow, value {1, 1}), "\n")
    assert.truthy(said:find("seconds: one round is beyond 1.5 interquartile ranges (outliers, 1 of "
      .. "them beyond 3) at one point; they are kept.", 1, true))
    assert.same(12, slow.n)
  end)
  it("show a drift along the rounds", function()
    local rising = {}
    for i = 1, 20 do rising[i] = 1 + 0.01 * i end
    assert.truthy(sentences(value(rising))[1]:find("drift", 1, true))
  end)
end)
