local files = require "attune.util.files"
local json = require "attune.util.json"
local new_stream = require "attune.util.random".stream
local stats = require "attune.results.statistics"

-- A function that draws the next number from 0 to below 1.
local function numbers(seed)
  local stream = new_stream(seed)
  return function() return stream:number() end
end

-- Made by tests/golden/statistics/make.py.
local golden = json.decode(files.read "tests/golden/statistics/scipy.json")
local lists = golden.lists

local function near(expected, got, relative, what)
  local bound = relative * math.max(math.abs(expected), 1e-300)
  if not (math.abs(got - expected) <= bound) then
    error(("%s: expected %.17g, got %.17g"):format(what, expected, got), 2)
  end
end

describe("statistics equal scipy's:", function()
  local distributions = require "attune.results.statistics.distributions"
  it("normal and Student's distribution", function()
    for _, case in ipairs(golden.normal) do
      local what = "x " .. case.x
      near(case.below, distributions.normal(case.x), 1e-12, what)
      near(case.outside, distributions.normal_two_sided(case.x), 1e-12, what)
      if math.abs(case.x) < 4 then
        assert.near(case.x, distributions.normal_quantile(case.below), 1e-9)
      end
    end
    for _, case in ipairs(golden.t) do
      local what = ("t %g, df %g"):format(case.t, case.df)
      near(case.outside, distributions.t_two_sided(case.t, case.df), 1e-9, what)
      near(case.point, distributions.t_point(0.01, case.df), 1e-9, what)
    end
  end)
  it("mean, t interval, interquartile range, and the median's interval", function()
    for _, case in ipairs(golden.intervals) do
      local values = lists[case.values]
      near(case.iqr, stats.iqr(values), 1e-9, case.values)
      local c = stats.centre(values)
      local expected = case.median or {centre = case.mean, lo = case.lo, hi = case.hi}
      for _, field in ipairs {"centre", "lo", "hi"} do
        near(expected[field], c[field], 1e-9, case.values .. " " .. field)
      end
    end
  end)
  it("BCa, as far as drawn resamples agree", function()
    for _, case in ipairs(golden.intervals) do
      if case.bca then
        local centre, lo, hi = stats.bca(lists[case.values], {resamples = 20000, seed = test_seed})
        local width = case.bca.hi - case.bca.lo
        near(case.mean, centre, 1e-12, case.values)
        assert.near(case.bca.lo, lo, 0.04 * width)
        assert.near(case.bca.hi, hi, 0.04 * width)
      end
    end
  end)
  it("Mann-Whitney, Brunner-Munzel, Welch, permutation, Hodges-Lehmann", function()
    local count = 0
    for _, case in ipairs(golden.two_samples) do
      local a, b, what = lists[case.a], lists[case.b], case.a .. ", " .. case.b
      for _, name in ipairs {"mann_whitney", "brunner_munzel", "permutation"} do
        if case[name] then
          local test = stats[name](a, b)
          count = count + 1
          near(case[name].p, test.p, 1e-9, what .. ": p of " .. name)
          assert.near(case[name].statistic, test.statistic, 1e-9)
        end
      end
      local t = stats.welch(a, b, 0.01)
      near(case.welch.p, t.p, 1e-8, what .. ": p of welch")
      near(case.welch.lo, t.lo, 1e-9, what)
      near(case.welch.hi, t.hi, 1e-9, what)
      if case.shift then assert.near(case.shift, (stats.shift(a, b, 0.05)), 1e-12) end
    end
    assert.is_true(count > 16)
  end)
  it("signed ranks, sign flips and their centre", function()
    for _, case in ipairs(golden.one_sample) do
      local d = {}
      -- Four digits, as in the golden file: differences that are equal there are equal here.
      for i, x in ipairs(lists[case.values]) do d[i] = math.floor((x - case.centre) * 1e4 + 0.5) end
      for _, name in ipairs {"signed_rank", "sign_flip"} do
        if case[name] then
          near(case[name].p, stats[name](d).p, 1e-9, case.values .. ": " .. name)
        end
      end
      assert.near(case.middle, stats.middle(d, 0.05) / 1e4, 1e-9)
    end
  end)
  it("Kendall's tau, the slope of Theil and Sen, Ljung and Box", function()
    for _, case in ipairs(golden.along) do
      local values = lists[case.values]
      local drift, r, p = stats.drift(values), stats.autocorrelation(values)
      near(case.tau, drift.tau, 1e-9, case.values)
      near(case.p, drift.p, 1e-9, case.values)
      assert.near(case.slope, drift.slope, 1e-12)
      near(case.r, r, 1e-9, case.values)
      near(case.r_p, p, 1e-9, case.values)
    end
  end)
  it("Holm's adjustment", function()
    local adjusted = stats.holm(golden.holm.p)
    for i, p in ipairs(golden.holm.adjusted) do near(p, adjusted[i], 1e-12, "p " .. i) end
    assert.same({0.02, false, 0.02}, stats.holm {0.02, false, 0.01})
  end)
end)

describe("statistics", function()
  local function message(fn, ...) return select(2, pcall(fn, ...)) end
  it("give intervals that hold no difference exactly where their test finds none", function()
    local random = numbers(test_seed)
    for _ = 1, 200 do
      local a, b, d = {}, {}, {}
      for i = 1, 20 do
        a[i], b[i] = random(), random() + 0.25
        d[i] = b[i] - a[i]
      end
      for _, alpha in ipairs {0.01, 0.05} do
        local _, lo, hi = stats.shift(a, b, alpha)
        assert.same(stats.mann_whitney(a, b).p <= alpha, lo > 0 or hi < 0)
        _, lo, hi = stats.middle(d, alpha)
        assert.same(stats.signed_rank(d).p <= alpha, lo > 0 or hi < 0)
      end
    end
  end)
  it("know that five pairs cannot give less than 0.0625", function()
    assert.same(0.0625, stats.sign_flip({1, 2, 3, 4, 5}).p)
    assert.same(0.0625, stats.signed_rank({1, 2, 3, 4, 5}).p)
  end)
  it("draw where there are too many arrangements to count, the same for a seed", function()
    local a, b, d = {}, {}, {}
    for i = 1, 20 do
      a[i], b[i] = i, i + 5.5
      d[i] = i % 3 - 0.5
    end
    local first = stats.permutation(a, b, {seed = 3})
    assert.is_false(first.exact)
    assert.same(first.p, stats.permutation(a, b, {seed = 3}).p)
    assert.near(stats.welch(a, b).p, first.p, 0.01)
    local flips = stats.sign_flip(d, {seed = 3})
    assert.is_false(flips.exact)
    assert.is_true(flips.p > 0 and flips.p < 1)
  end)
  it("refuse BCa below eight values, empty lists and NaN", function()
    local why = message(stats.bca, {1, 2, 3, 4, 5, 6, 7})
    assert.truthy(why:find("bca: expected at least 8 values in values, got 7", 1, true))
    assert.truthy(message(stats.mann_whitney, {}, {1}):find "at least 1 values in a, got 0")
    assert.truthy(message(stats.brunner_munzel, {1, 2}, {1}):find "at least 2 values in b, got 1")
    assert.truthy(message(stats.signed_rank, {1, 0 / 0}):find "expected finite numbers")
    assert.truthy(message(stats.sign_flip):find "got nil")
    assert.same({3, 3, 3}, {stats.bca {3, 3, 3, 3, 3, 3, 3, 3}})
  end)
  it("give tests of equal values a probability of 1", function()
    local same = {2, 2, 2, 2}
    for _, name in ipairs {"mann_whitney", "brunner_munzel", "permutation", "welch"} do
      assert.same(1, stats[name](same, same).p)
    end
    assert.same(1, stats.signed_rank({0, 0}).p)
    assert.same(1, stats.sign_flip({0, 0}).p)
  end)
  it("use the rank sums where lists do not overlap, as ranks then have no variance", function()
    local test = stats.brunner_munzel({1, 2, 3, 4}, {5, 6, 7, 8, 9})
    assert.near(2 / 126, test.p, 1e-12)
    assert.same(math.huge, test.statistic)
  end)
  it("flag outliers, and keep them", function()
    local values = {1.0, 1.01, 0.99, 1.02, 0.98, 1.08, 3.0}
    local found = stats.outliers(values)
    assert.same({index = 7, value = 3.0, severe = true}, found[#found])
    assert.same(7, #values)
    assert.same({}, stats.outliers {1, 1, 1, 9})
    assert.same(1, #stats.outliers {1, 1, 1, 1, 1, 1, 1, 2})
  end)
  it("find a drift, and what repeats", function()
    local rising, alternating = {}, {}
    for i = 1, 12 do
      rising[i] = 10 + 0.1 * i
      alternating[i] = i % 2
    end
    local drift = stats.drift(rising)
    assert.near(0.1, drift.slope, 1e-12)
    assert.near(1.1 / stats.median(rising), drift.total, 1e-12)
    assert.is_true(drift.tau == 1 and drift.p < 1e-7)
    assert.is_true(stats.autocorrelation(alternating) < -0.8)
    assert.is_nil(stats.drift {1, 2, 3, 4})
    assert.same({0, 1}, {stats.drift({2, 2, 2, 2, 2}).tau, stats.drift({2, 2, 2, 2, 2}).p})
    assert.is_nil(stats.autocorrelation {1, 1, 1, 1, 1})
  end)
end)

describe("a comparison", function()
  local function verdict(a, b, better, options)
    local c = stats.compare(a, b, options)
    return stats.verdict(c, better or "lower", nil, options), c
  end
  it("has a direction", function()
    local a, b = {1.0, 1.01, 0.99}, {1.5, 1.49, 1.51}
    local worse, c = verdict(a, b)
    assert.same({"worse", "ratio", "t", false}, {worse, c.kind, c.test, c.paired})
    assert.near(1.5, c.centre, 1e-3)
    assert.is_true(c.lo < 1.5 and c.hi > 1.5 and c.lo > 1.4)
    assert.same("better", (verdict(b, a)))
    assert.same("better", (verdict(a, b, "higher")))
    assert.same("differs", stats.verdict(c))
  end)
  it("cannot tell from too few rounds, and says how many would do", function()
    local cannot, c = verdict({1.0}, {1.2})
    assert.same({"cannot tell", 3}, {cannot, c.rounds_needed})
    assert.is_nil(c.lo)
    assert.same("same", (verdict({7}, {7})))
    cannot, c = verdict({1.0, 1.1, 0.9}, {1.03, 1.12, 0.92})
    assert.same("cannot tell", cannot)
    assert.is_true(c.rounds_needed > 50 and c.rounds_needed < 400)
  end)
  it("says 'same' when a difference of 5% would have shown", function()
    assert.same("same", (verdict({1, 1.001, 0.999}, {1.0005, 1.001, 1})))
    -- 0.5% is certain, and no change that two runs of one program would not show.
    assert.same("same", (verdict({1, 1.0001, 0.9999}, {1.005, 1.0051, 1.0049})))
  end)
  it("counts every difference where nothing scatters", function()
    assert.same("worse", (verdict({1000, 1000}, {1001, 1001})))
    assert.same("same", (verdict({1000, 1000}, {1000, 1000})))
  end)
  it("compares what is not positive by its difference", function()
    local worse, c = verdict({-1, -1.01, -0.99}, {0.5, 0.51, 0.49})
    assert.same({"worse", "difference"}, {worse, c.kind})
    assert.near(1.5, c.centre, 1e-9)
    assert.same("cannot tell", (verdict({1, 2}, {0 / 0, 1})))
    assert.same("cannot tell", (verdict({}, {1})))
  end)
  it("pairs rounds when asked to, so that a drift of both cancels out", function()
    local a, b = {}, {}
    for i = 1, 10 do
      a[i] = 1 + 0.1 * i + 0.001 * (i % 3)
      b[i] = a[i] * (1.03 + 0.001 * (i % 2))
    end
    local worse, c = verdict(a, b, "lower", {paired = true})
    assert.same({"worse", true, "t of pairs"}, {worse, c.paired, c.test})
    local cannot
    cannot, c = verdict(a, b)
    assert.same({"cannot tell", false, "rank sums"}, {cannot, c.paired, c.test})
    local few = {rounds_a = {1, 2, 3}, rounds_b = {3, 2, 9}, paired = true}
    c = stats.compare({1, 2, 3}, {3.3, 2.2, 9}, few)
    assert.same(2, c.n_a)
    assert.near(1.1, c.centre, 1e-12)
    assert.same("t", stats.compare(a, b, {comparisons = 200}).test)
  end)
  it("asks for rounds that then suffice", function()
    -- 5% noise: n values a side find 5% in at least 95% of cases.
    local random = numbers(test_seed)
    local function noise(n, centre)
      local list = {}
      for i = 1, n do
        local z = math.sqrt(-2 * math.log(1 - random())) * math.cos(2 * math.pi * random())
        list[i] = centre * math.exp(0.05 * z)
      end
      return list
    end
    local sum = 0
    for _ = 1, 50 do
      sum = sum + stats.compare(noise(30, 1), noise(30, 1)).rounds_needed
    end
    local n, found = math.ceil(sum / 50), 0
    assert.is_true(n > 28 and n < 52, n)
    for _ = 1, 200 do
      local c = stats.compare(noise(n, 1), noise(n, 1.05))
      if stats.verdict(c, "lower") == "worse" then found = found + 1 end
    end
    assert.is_true(found >= 180, found)
  end)
end)

describe("statistics outside their range", function()
  local quantity = require "attune.results.quantity"
  local statistics = require "attune.results.statistics"

  it("are refused", function()
    for _, case in ipairs {
      {"q from 0 to 1, got 1.5", statistics.quantile, {1, 2}, 1.5},
      {"q from 0 to 1, got nil", statistics.quantile, {1, 2}},
      {"shift: expected alpha between 0 and 1, such as 0.05, got nil", statistics.shift, {1}, {2}},
      {"middle: expected alpha between 0 and 1, such as 0.05, got nil", statistics.middle, {1, 2}},
      {"middle: expected alpha between 0 and 1, such as 0.05, got 1", statistics.middle, {1, 2}, 1},
    } do
      local ok, why = pcall(table.unpack(case, 2))
      assert.is_false(ok)
      assert.matches(case[1], why, 1, true)
    end
  end)
  it("are written NaN, without a sign", function()
    for _, x in ipairs {0 / 0, -(0 / 0)} do
      assert.matches("^NaN ", tostring(quantity.of({x, 1, x}, "value")))
    end
  end)
end)
