-- t:against, the environment of workers, claims that need points, and runs of two builds.
local against = require "attune.experiment.ceilings".against
local files = require "attune.util.files"
local run = require "tests.support.run"
local store = require "attune.results.store"

local function ceiling(name, unit, rate, peak)
  return {name = name, unit = unit, peak = peak, reading = function() return rate end}
end

-- What is warned of, and the metrics of work of 1e6 flops and 1e3 bytes.
local function measured(list, options)
  local warnings = {}
  local o = {ceilings = list, flops = 1e6, bytes = 1e3, seconds = 1e-4}
  for name, value in pairs(options or {}) do o[name] = value end
  local metrics = against(function() end, o, 3, function(w) warnings[#warnings + 1] = w end)
  return metrics, warnings
end

local function refused(options, what)
  local ok, why = pcall(against, function() end, options, 1, print)
  assert.is_false(ok)
  assert.truthy(why:find(what, 1, true), why)
end

describe("t:against", function()
  it("gives the fraction of each ceiling, and the largest over the peaks", function()
    local m, warnings = measured {
      ceiling("a", "FLOP/s", 1e30, true), ceiling("b", "B/s", 1e30, true),
      ceiling("c", "B/s", 1e-3),
    }
    assert.same({}, warnings)
    assert.same(1e30, m.a)
    local function near(x, y) assert.is_true(math.abs(x / y - 1) < 1e-9, x .. " and " .. y) end
    near(m.of_a, 1e6 / m.seconds / 1e30)
    near(m.of_b, 1e3 / m.seconds / 1e30)
    near(m.of_c, 1e3 / m.seconds / 1e-3)
    assert.same(m.of_a, m.of_roofline)
    near(m.flop_rate, 1e6 / m.seconds)
    assert.same(1e3, m.intensity)
  end)

  it("divides the time by the calls of a run", function()
    local calls = 0
    local m = against(function() calls = calls + 1 end, {
      ceilings = {ceiling("a", "FLOP/s", 1)}, flops = 1, calls = 1000000, seconds = 1e-4,
    }, 1, print)
    assert.is_true(calls >= 2)
    assert.is_true(m.seconds < 1e-6)
  end)

  it("takes the higher reading of a peak, and of other ceilings the mean", function()
    local at = 0
    local function rising()
      at = at + 1
      return at
    end
    local m = measured {{name = "a", unit = "B/s", reading = rising}}
    assert.same(1.5, m.a)
    at = 1e30
    m = measured {{name = "a", unit = "B/s", peak = true, reading = function()
      at = at * 2
      return at
    end}}
    assert.same(4e30, m.a)
  end)

  it("leaves only the readings of a round in which a peak is exceeded, and says so", function()
    local m, warnings = measured({ceiling("a", "FLOP/s", 1e-3, true)}, {name = "work"})
    assert.same({a = 1e-3}, m)
    assert.same(1, #warnings)
    local said = warnings[1]
    assert.truthy(said:find("^work: round 3 is void: .* times the ceiling a of"), said)
  end)

  it("refuses what it cannot compare", function()
    refused({}, "ceilings: expected a list of ceilings")
    refused({ceilings = {"fms"}}, "unknown ceiling 'fms': did you mean 'fma'")
    refused({ceilings = {"fma"}}, "fma: expected the flops of a call, got none")
    refused({ceilings = {"read"}, flops = 1}, "read: expected the bytes of a call, got none")
    refused({ceilings = {"fma"}, flops = -1}, "flops: expected a positive number, got -1")
    refused({ceilings = {"fma"}, flop = 1}, "unknown option 'flop': did you mean 'flops'")
    refused({ceilings = {{name = "a b"}}}, "ceilings[1].name: expected letters")
    refused({ceilings = {{name = "a", unit = "s"}}}, "expected 'FLOP/s' or 'B/s', got s")
    refused({ceilings = {ceiling("a", "B/s", 0)}, bytes = 1}, "a: expected a reading above 0")
  end)
end)

local script = [[return require "attune.experiment" {
  name = "t", rounds = 1, grid = {a = {"x", "y"}},
  environment = function(p) return p.a == "y" and {ATTUNE_TEST_WORD = p.a} or nil end,
  trial = function() return {set = os.getenv "ATTUNE_TEST_WORD" == "y" and 1 or 0} end,
  claims = {
    {"both", function(r) return #r:values "set" == 2 end, needs = {{a = "x"}, {a = "y"}}},
    {"one", function(r) return #r:values "set" >= 1 end, needs = {{a = "x"}}},
  },
}]]

describe("an experiment", function()
  it("sets variables of the environment of a point's worker", function()
    local path, dir = run.script(script), run.folder()
    local said, status = run.attune(("run %s --out %s"):format(path, dir))
    assert.same(0, status, said)
    local results = store.read(dir)
    assert.same(0, results.points[1].metrics.set.centre)
    assert.same(1, results.points[2].metrics.set.centre)
    assert.same(2, #results.claims)
    run.remove(path, dir)
  end)

  it("does not judge a claim that needs a point outside the run", function()
    local path, dir = run.script(script), run.folder()
    local said = run.attune(([[run %s --out %s --only 'a == "x"']]):format(path, dir))
    local results = store.read(dir)
    assert.same({1, "one"}, {#results.claims, results.claims[1] and results.claims[1].text}, said)
    run.remove(path, dir)
  end)

  it("refuses an environment of other values", function()
    local path = run.script((script:gsub("ATTUNE_TEST_WORD = p.a", "ATTUNE_TEST_WORD = 1")))
    local said, status = run.attune("run " .. path .. " --dry")
    assert.same(2, status)
    assert.truthy(said:find("environment.ATTUNE_TEST_WORD: expected a text, got 1", 1, true), said)
    run.remove(path)
  end)
end)

describe("run --against", function()
  it("refuses what is no build of attune", function()
    local path, dir = run.script(script), run.folder()
    local said, status = run.attune(("run %s --out %s --against /no/such"):format(path, dir))
    assert.same(2, status)
    assert.truthy(said:find("--against: expected the attune command of another build", 1, true),
      said)
    said, status = run.attune(("run %s --out %s --against /bin/echo"):format(path, dir))
    assert.same(2, status)
    assert.truthy(said:find("--version gave status 0 and", 1, true), said)
    assert.is_nil(files.kind(dir))
    run.remove(path)
  end)
end)
