local json = require "attune.util.json"
local stats = require "attune.results.statistics"
local sweep = require "attune.experiment.points"
local text = require "attune.util.text"

-- From scipy 1.17.1: stats.t.interval with the mean and sem of the values (of their logarithms for
-- ratios), stats.gmean.
local golden_intervals = {
  {of = stats.centre, values = {1.0, 1.3, 0.9, 1.1, 1.2}, kind = "mean", centre = 1.1,
    lo = 0.9036756838522444, hi = 1.2963243161477558},
  {of = stats.centre, values = {3.25, 2.5}, kind = "mean", centre = 2.875,
    lo = -1.8898267760655099, hi = 7.63982677606551},
  {of = stats.ratio_centre, values = {1.0, 1.3, 0.9, 1.1, 1.2}, kind = "geometric mean",
    centre = 1.090817153065539, lo = 0.9107199284697574, hi = 1.3065290702722558},
  {of = stats.ratio_centre, values = {3.25, 2.5}, kind = "geometric mean",
    centre = 2.8504385627478452, lo = 0.5382919727328119, hi = 15.094038944609991},
}
-- From scipy 1.17.1: where stats.quantile_test(1 .. n, p = 0.5).confidence_interval(0.95) begins.
local golden_ranks = {[20] = 6, [21] = 6, [25] = 8, [50] = 18, [100] = 40, [400] = 180}

describe("stats", function()
  it("computes quantiles, spread and intervals", function()
    assert.same(3, stats.median {5, 1, 3})
    assert.same(2.5, stats.median {1, 2, 3, 4})
    assert.same(2, stats.iqr {1, 2, 3, 4, 5})
    assert.is_nil((stats.interval {1}))
  end)
  it("orders infinities like numbers, and NaN not at all", function()
    local inf = math.huge
    assert.same(inf, stats.median {inf})
    assert.same(inf, stats.median {1, inf, inf})
    assert.same(-inf, stats.median {-inf, -inf, 1})
    assert.same(-inf, stats.median {-inf, -inf})
    assert.same(2, stats.median {1, 2, inf})
    assert.same(inf, stats.median {1, inf})
    assert.same(-inf, stats.median {-inf, 1})
    assert.same(2, stats.quantile({1, 2, 3, 4, inf}, 0.25))
    assert.same(4, stats.quantile({1, 2, 3, 4, inf}, 0.75))
    assert.same(inf, stats.quantile({1, 2, 3, 4, inf}, 1))
    assert.same(0, stats.iqr {inf, inf, inf})
    assert.same(0, stats.unsteadiness {inf, inf})
    local nan = stats.median {1, 0 / 0, 2}
    assert.is_true(nan ~= nan)
    local centre = stats.centre {1, inf, inf}
    assert.same({inf, "median"}, {centre.centre, centre.kind})
    assert.is_nil(centre.lo)
    assert.is_nil(stats.ratio_centre({1, inf}).lo)
    assert.is_nil(stats.ratio_centre({1, 0, 2}).lo)
  end)
  it("computes with integers of any size", function()
    local low, high = math.mininteger, math.maxinteger
    assert.same(0.0, stats.median {low, high})
    assert.is_true(stats.mean {high, high, high} > 0)
    local c = stats.centre {low, high}
    assert.is_true(c.lo < low and c.hi > high)
  end)
  it("prints a centre that its own interval holds, and says which", function()
    local values = {}
    for i = 1, 19 do values[i] = i <= 10 and 1.0 or 1.3 end
    for n = 1, 40 do
      local some = {}
      for i = 1, n do some[i] = values[(i - 1) % 19 + 1] end
      for _, of in ipairs {stats.centre, stats.ratio_centre} do
        local c = of(some)
        if n == 1 then
          assert.same({"value", 1.0}, {c.kind, c.centre})
          assert.is_nil(c.lo)
        else
          assert.is_true(c.lo <= c.centre and c.centre <= c.hi, n)
          local mean = of == stats.centre and "mean" or "geometric mean"
          assert.same(n < 20 and mean or "median", c.kind)
        end
      end
    end
    assert.same(0.1, stats.centre({0.1, 0.1, 0.1}).centre)
  end)
  it("gives the intervals that scipy gives", function()
    for _, case in ipairs(golden_intervals) do
      local c = case.of(case.values)
      assert.same(case.kind, c.kind)
      -- The t points have four digits.
      assert.near(case.centre, c.centre, 1e-12)
      assert.near(case.lo, c.lo, 5e-4 * (case.hi - case.lo))
      assert.near(case.hi, c.hi, 5e-4 * (case.hi - case.lo))
    end
  end)
  it("takes the ranks of the binomial distribution for the interval of a median", function()
    for n, rank in pairs(golden_ranks) do
      local values = {}
      for i = 1, n do values[i] = i end
      local c = stats.centre(values)
      assert.same({rank, n + 1 - rank, "median"}, {c.lo, c.hi, c.kind})
    end
  end)
  it("says in a sentence what the printed values are", function()
    local points = {{metrics = {y = stats.summary {1, 2}, z = stats.summary {1}}}}
    assert.same("Each value is the mean over the rounds; or the value of one round.",
      stats.sentence(points, false))
    assert.truthy(stats.sentence(points):find "95%% interval %(Student's t%) of this mean; or")
    assert.same("", stats.sentence {{metrics = {}}})
  end)
  it("says how many rounds would narrow an interval", function()
    assert.same(3, stats.rounds_for({1, 1, 1}, 0.05))
    assert.is_nil(stats.rounds_for({1}, 0.05))
    assert.is_nil(stats.rounds_for({-1, 1}, 0.05))
    -- A standard deviation of 10%: 18 values by t (2.110 * 0.1 / sqrt(18) = 0.0497).
    assert.same(18, stats.rounds_for({0.9, 1, 1.1}, 0.05))
    assert.same(604, stats.rounds_for({0.5, 1, 1.5}, 0.05))
  end)
  it("has intervals that contain the true mean in about 95% of cases", function()
    -- 1,000 intervals of n values from a normal distribution. The observed rate of 95% has a
    -- standard deviation of 0.7%.
    local state = test_seed
    local function uniform()
      state = (state * 6364136223846793005 + 1442695040888963407)
      return ((state >> 11) & ((1 << 53) - 1)) / 2 ^ 53 + 1e-17
    end
    for _, n in ipairs {3, 5, 10, 30} do
      local covered = 0
      for _ = 1, 1000 do
        local values = {}
        for i = 1, n do
          values[i] = math.sqrt(-2 * math.log(uniform())) * math.cos(2 * math.pi * uniform())
        end
        local lo, hi = stats.interval(values)
        if lo <= 0 and hi >= 0 then covered = covered + 1 end
      end
      assert.is_true(
        covered > 910 and covered < 985, ("n %d: %d of 1000, seed %d"):format(n, covered, test_seed)
      )
    end
  end)
end)

describe("claims", function()
  local claims = require "attune.results.claims"
  local function value(values)
    local v = stats.summary(values)
    v.values, v.rounds = values, {}
    for i = 1, #values do v.rounds[i] = i end
    return v
  end
  local results = {
    parameters = {"a"}, metrics = {{name = "y"}},
    points = {
      {parameters = {a = 1}, metrics = {y = value {2, 4, 8}}},
      {parameters = {a = 2}, metrics = {y = value {1, 1, 1}}},
    },
  }
  it("judge the geometric mean of paired rounds with its own interval", function()
    local ratio = claims.over(results):ratio("y", {a = 1}, {a = 2})
    assert.near(4, ratio.centre, 1e-12)
    assert.same({"geometric mean", 3, 4}, {ratio.kind, ratio.n, ratio.median})
    -- The logarithms are ln 4 +- 4.303 ln 2 / sqrt(3).
    assert.near(4 * 2 ^ -(4.303 / math.sqrt(3)), ratio.lo, 1e-3)
    assert.same("held", ratio:above(0.5).verdict)
    assert.same("failed", ratio:below(0.5).verdict)
    assert.same("undecided", ratio:within(3, 5).verdict)
    assert.truthy(tostring(ratio):find "4 %(geometric mean of 3 rounds, 95%% interval")
  end)
  it("name a bound that is no number, and points that are not there", function()
    local r = claims.over(results)
    local ratio = r:ratio("y", {a = 1}, {a = 2})
    local function message(fn) return select(2, pcall(fn)) end
    local why = message(function() ratio:above "1" end)
    assert.truthy(why:find "stats_spec.*x: expected a number, got '1'")
    assert.truthy(message(function() ratio:within(1) end):find "hi: expected a number, got nil")
    assert.truthy(message(function() r:ratio("y", {a = 9}, {a = 2}) end):find "no point has these")
  end)
end)

describe("json", function()
  it("decodes doubles, integers, strings and lists to the values that were encoded", function()
    local value = {
      a = 0.1,
      b = 1 / 3,
      c = 3,
      d = 3.0,
      e = "q\"\\\n\1é",
      f = {1, 2.5, "x"},
      g = true,
      h = json.list(),
      i = {},
      j = 1e300,
      k = -0.0,
    }
    local back = json.decode(json.encode(value))
    for k, v in pairs(value) do assert.same(v, back[k]) end
    assert.same("integer", math.type(back.c))
    assert.same("float", math.type(back.d))
    assert.same('{"h":[]}', json.encode {h = json.list()})
  end)
  it("writes NaN and infinities as strings that number() converts back", function()
    local back = json.decode(json.encode {0 / 0, math.huge, -math.huge})
    assert.is_true(json.number(back[1]) ~= json.number(back[1]))
    assert.same(math.huge, json.number(back[2]))
    assert.same(-math.huge, json.number(back[3]))
  end)
  it("returns nil and a message for text that is not JSON", function()
    local value, message = json.decode "{\"a\": "
    assert.is_nil(value)
    assert.is_string(message)
  end)
end)

describe("sweeps", function()
  local experiment = require "attune.experiment"
  local function points(e)
    e.name, e.trial = "t", function() end
    return sweep.points(experiment.narrowed(experiment.declare(e), {}), "1")
  end
  it("combine grids in order, derive and filter", function()
    local list = points {fixed = {z = 9}, grid = {
      b = {1, 2},
      a = {"x", "y"},
    }, derived = {c = function(p) return p.d + 1 end, d = function(p)
      return p.b * 10
    end},
      where = function(p) return not (p.a == "y" and p.c == 21) end}
    local texts = {}
    for i, point in ipairs(list) do texts[i] = sweep.canonical(point.parameters) end
    assert.same(
      {'a="x";b=1;c=11;d=10;z=9', 'a="x";b=2;c=21;d=20;z=9', 'a="y";b=1;c=11;d=10;z=9'}, texts
    )
    assert.not_same(list[1].hash, list[2].hash)
    assert.same(16, #list[1].hash)
  end)
  it("load no plotting code with the declaration", function()
    local program = [[
      local declare = require "attune.experiment"
      declare {
        name = "t", grid = {a = {1}}, trial = print,
        plots = {{kind = "line", x = "a", y = "b"}},
      }
      require "attune.experiment.worker"
      for name in pairs(package.loaded) do
        if name:find "^attune%.plot" or name:find "^attune%.report" then print(name) end
      end]]
    local pipe = io.popen("lua5.4 -e '" .. program .. "' 2>&1")
    assert.same("attune.plot.spec\n", pipe:read "a")
    pipe:close()
  end)
  it("refuse two points with the same parameters", function()
    assert.has_error(function() points {grid = {a = {1, 1}}} end)
  end)
end)

describe("quantities", function()
  it("are printed with three digits and a prefix", function()
    assert.same("1.23 ms", text.quantity(0.001234, "s"))
    assert.same("12.3 µs", text.quantity(1.234e-5, "s"))
    assert.same("3.00 MiB", text.quantity(3 * 2 ^ 20, "B"))
    assert.same("-", text.quantity(nil, "s"))
    assert.same("7", text.quantity(7))
    assert.same("1.7e+296 Ts", text.quantity(1.7e308, "s"))
    assert.same("9223372 Ts", text.quantity(2 ^ 63, "s"))
    assert.same("2 min 5 s", text.duration(125))
  end)
  it("have no exponent where a reader expects digits", function()
    assert.same("2097152", text.quantity(2097152.0))
    assert.same("17974 tokens", text.quantity(17973.6, "tokens"))
    assert.same("1.234e+12", text.quantity(1.234e12))
    assert.same({"0%", "12.3%", "100.2%", "1000000%"}, {
      text.quantity(0, "%"), text.quantity(12.34, "%"), text.quantity(100.2, "%"),
      text.quantity(1e6, "%"),
    })
    for value, shown in pairs {[2097152.0] = "2097152", [2.0 ^ 52] = "4503599627370496",
      [1e300] = "1e+300", [-0.0] = "0", [0.1] = "0.1", [math.huge] = "inf"} do
      assert.same(shown, text.plain(value))
    end
  end)
end)
