--- How often the statistics are right, over simulated runs. docs/statistics.md prints the figures
--- that this file measures with seed 1.
local new_stream = require "attune.util.random".stream
local stats = require "attune.results.statistics"

local stream

local function random() return stream:number() end

local function normal()
  return math.sqrt(-2 * math.log(1 - random())) * math.cos(2 * math.pi * random())
end

local function lognormal() return math.exp(0.02 * normal()) end

-- Fill a and b with one value per round; b is slower by `factor`.
local noises = {
  lognormal = function(a, b, factor, rounds)
    for i = 1, rounds do a[i], b[i] = lognormal(), factor * lognormal() end
  end,
  slowed = function(a, b, factor, rounds)
    local function value() return lognormal() * (random() < 0.05 and 1.2 + 1.8 * random() or 1) end
    for i = 1, rounds do a[i], b[i] = value(), factor * value() end
  end,
  drifting = function(a, b, factor, rounds)
    for i = 1, rounds do
      local drift = 1 + 0.1 * (i - 1) / (rounds - 1)
      a[i], b[i] = drift * lognormal(), factor * drift * lognormal()
    end
  end,
}

local comparisons, rounds = 2000, 20

local function is_found(c, options)
  local verdict = stats.verdict(c, "lower", nil, options)
  return (verdict == "worse" or verdict == "better") and 1 or 0
end

-- How many of 2,000 comparisons say "worse" or "better": by the test alone, and where a change
-- below 1% is none.
local function count(noise, factor, options)
  local found, found_above_threshold = 0, 0
  local a, b = {}, {}
  for _ = 1, comparisons do
    noises[noise](a, b, factor, rounds)
    local c = stats.compare(a, b, options)
    found = found + is_found(c, {threshold = 0})
    found_above_threshold = found_above_threshold + is_found(c)
  end
  return found, found_above_threshold
end

-- ATTUNE_SHOW_FIGURES=1 prints what docs/statistics.md publishes.
local with_figures = os.getenv "ATTUNE_SHOW_FIGURES" ~= nil
local function show(...)
  if with_figures then io.stderr:write(string.format(...), "\n") end
end

local all_noises = {"lognormal", "slowed", "drifting"}

describe("of 2,000 comparisons of 20 rounds", function()
  before_each(function() stream = new_stream(test_seed) end)
  for _, noise in ipairs(all_noises) do
    it(("at most 40 are false alarms and at least 1,900 find 5%% (%s)"):format(noise), function()
      local alarms, usual_alarms = count(noise, 1)
      local found, usual_found = count(noise, 1.05)
      show("%s: %d false alarms, %d found; a change of 1%% at least: %d, %d", noise, alarms, found,
        usual_alarms, usual_found)
      assert.is_true(alarms <= 40 and usual_alarms <= 40, alarms)
      assert.is_true(found >= 1900 and usual_found >= 1900, found)
    end)
  end
  it("false alarms stay as rare where rounds are paired", function()
    for _, noise in ipairs(all_noises) do
      local options = {paired = true}
      local alarms, found = count(noise, 1, options), count(noise, 1.05, options)
      show("%s, paired: %d false alarms, %d found", noise, alarms, found)
      assert.is_true(alarms <= 40, noise .. alarms)
      if noise ~= "slowed" then assert.is_true(found >= 1900, noise .. found) end
    end
  end)
end)

describe("of 2,000 comparisons of 3, 5 or 10 rounds", function()
  before_each(function() stream = new_stream(test_seed) end)
  after_each(function() rounds = 20 end)
  it("at most 40 are false alarms", function()
    for _, n in ipairs {3, 5, 10} do
      rounds = n
      for _, noise in ipairs {"lognormal", "slowed"} do
        local alarms = count(noise, 1)
        show("%s, %d rounds: %d false alarms, %d found", noise, n, alarms,
          with_figures and count(noise, 1.05) or 0)
        assert.is_true(alarms <= 40, n)
      end
    end
  end)
end)

describe("the printed interval holds the quantity that it names", function()
  before_each(function() stream = new_stream(test_seed) end)
  local intervals = 6000
  local kinds = {
    -- The mean of exp(0.02 z) is exp(0.0002); its median, and the geometric mean of its values, 1.
    normal = {draw = normal, mean = 0, median = 0},
    lognormal = {draw = lognormal, mean = math.exp(0.0002), median = 1, ["geometric mean"] = 1},
  }
  for _, case in ipairs {
    {"normal", "centre"}, {"lognormal", "centre"}, {"lognormal", "ratio_centre"},
  } do
    local kind, of = kinds[case[1]], stats[case[2]]
    it(("in 93%% to 97%% of cases (%s, %s)"):format(case[1], case[2]), function()
      for _, n in ipairs {3, 5, 10, 20} do
        local held, name = 0, nil
        for _ = 1, intervals do
          local values = {}
          for i = 1, n do values[i] = kind.draw() end
          local c = of(values)
          local truth = kind[c.kind]
          name = c.kind
          if c.lo <= truth and truth <= c.hi then held = held + 1 end
        end
        local share = 100 * held / intervals
        show("%s, n %d, %s: %.1f%%", case[1], n, name, share)
        assert.is_true(share >= 93 and share <= 97, ("n %d: %.2f%%"):format(n, share))
      end
    end)
  end
end)
