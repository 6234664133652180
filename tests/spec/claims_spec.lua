local claims = require "attune.results.claims"
local experiment = require "attune.experiment"
local files = require "attune.util.files"
local papers = require "attune.report.papers"
local reference = require "attune.results.reference"
local run = require "tests.support.run"
local stats = require "attune.results.statistics"
local store = require "attune.results.store"

local function value(values, cpu)
  local v = stats.summary(values)
  v.values, v.rounds, v.cpus = values, {}, {}
  for i = 1, #values do v.rounds[i], v.cpus[i] = i, cpu or "AMD EPYC 9R14" end
  return v
end

local function results(points, metric)
  return {
    parameters = {"a"}, varied = {"a"}, points = points,
    metrics = {metric or {name = "y", unit = "s", better = "lower"}},
  }
end

local function message(fn, ...) return select(2, pcall(fn, ...)) end

describe("a name that a claim or a reference value has of a point", function()
  local function refused(fields, wanted)
    fields.name, fields.trial, fields.grid = "t", function() end, {a = {1, 2}}
    assert.same("experiment: " .. wanted, message(experiment.declare, fields))
  end
  local function fn() return true end
  it("is a parameter of the script", function()
    refused({claims = {{"c", fn, needs = {{z = 1}}}}},
      "claims[1].needs[1]: unknown parameter 'z': did you mean 'a'?")
    refused({claims = {{"c", fn, needs = {a = 1}}}}, "claims[1].needs: expected a list of "
      .. "parameters such as {{heads = 8}}, got a table with a field 'a'")
    refused({reference = {EPYC = {y = {1, 0.1, where = {z = 1}}}}},
      "reference['EPYC'].y.where: unknown parameter 'z': did you mean 'a'?")
  end)
  it("of a plot is a parameter, and its order has values of it", function()
    local function plot(more)
      more.kind, more.x, more.y = more.kind or "line", more.x or "a", more.y or "y"
      return {plots = {more}}
    end
    refused(plot {by = "aa"}, "plots[1].by: unknown parameter 'aa': did you mean 'a'?")
    refused(plot {facet = "aa"}, "plots[1].facet: unknown parameter 'aa': did you mean 'a'?")
    refused(plot {where = {aa = 1}}, "plots[1].where: unknown parameter 'aa': did you mean 'a'?")
    refused(plot {by = "a", order = {2, 3}},
      "plots[1].order: unknown value '3' of a: expected one of 1, 2")
    for _, kind in ipairs {"bars", "box", "ecdf", "pixels"} do
      refused(plot {kind = kind, x = "aa"},
        "plots[1].x: unknown parameter 'aa': did you mean 'a'?")
    end
    refused(plot {kind = "heat", y = "aa", value = "z"},
      "plots[1].y: unknown parameter 'aa': did you mean 'a'?")
    refused(plot {label = "aa"}, "plots[1].label: unknown parameter 'aa': did you mean 'a'?")
    refused(plot {y = "a"}, "plots[1].y: expected a metric, got the parameter 'a'")
    refused(plot {also = "a"}, "plots[1].also: expected a metric, got the parameter 'a'")
    local fields = plot {by = "a", order = {2, 3}}
    fields.name, fields.trial, fields.grid = "t", function() end, {a = {1, 2}}
    fields.quick = {a = 3}
    assert.is_true(pcall(experiment.declare, fields))
  end)
  it("is that of a point, in a run of all points", function()
    local all = results {{parameters = {a = 1}, metrics = {y = value {1, 1, 1}}}}
    local declared = {
      claims = {{"c", fn, needs = {{a = 9}}}},
      reference = {EPYC = {y = {1, 0.1, where = {a = 9}}, z = {1, 0.1}}, Zen = {z = {1, 0.1}}},
    }
    local list = claims.judge(declared, all)
    assert.same({"failed", "failed", "failed"},
      {list[1].verdict, list[2].verdict, list[3].verdict})
    assert.same({"needs: no point of the script has a 9", "where: no point of the script has a 9",
      "no trial returned the metric 'z'"}, {list[1].detail, list[2].detail, list[3].detail})
    assert.is_nil(list[4])
    assert.same({}, claims.judge(declared, all, true))
  end)
end)

describe("claims", function()
  local two = results {
    {parameters = {a = 1}, metrics = {y = value {1, 1.1, 0.9, 1.05}}},
    {parameters = {a = 2}, metrics = {y = value {2, 2.3, 1.7, 2.1}}},
  }
  local function judge(claim) return claims.judge({claims = {claim}}, two)[1] end

  it("carry source, the paper's figure and ours", function()
    local verdict = judge {"twice", function(r)
      return r:ratio("y", {a = 2}, {a = 1}):above(1.5)
    end, source = "Shazeer 2019", paper = 12.1}
    assert.same({"held", "Shazeer 2019", 12.1}, {verdict.verdict, verdict.source, verdict.paper})
    assert.near(2, verdict.ours.centre, 0.05)
    assert.same({"geometric mean", 4}, {verdict.ours.kind, verdict.ours.rounds})
    assert.is_true(verdict.ours.lo < 2 and verdict.ours.hi > 2)
  end)
  it("that are undecided say how many rounds would decide", function()
    local verdict = judge {"more", function(r)
      return r:ratio("y", {a = 2}, {a = 1}):above(1.95)
    end}
    assert.same("undecided", verdict.verdict)
    assert.truthy(verdict.detail:find "about %d+ rounds would decide")
  end)
  it("judge values and differences, which may be negative", function()
    local verdict = judge {"one", function(r) return r:value("y", {a = 1}):within(0.5, 1.5) end}
    assert.same({"held", "mean"}, {verdict.verdict, verdict.ours.kind})
    verdict = judge {"less", function(r)
      return r:difference("y", {a = 1}, {a = 2}):below(-0.5)
    end}
    assert.same("held", verdict.verdict)
    assert.near(-1.0125, verdict.ours.centre, 1e-9)
    local r = claims.over(two)
    assert.truthy(message(r.value, r, "y"):find "value: expected one point with 'y', got 2")
    assert.truthy(message(r.difference, r, "y", {b = 1}, {a = 2}):find "unknown parameter 'b'")
    assert.truthy(message(r.ratio, r, "z", {a = 1}, {a = 2}):find "unknown metric 'z'")
  end)
  it("say why a point has no value", function()
    local r = claims.over(results {
      {parameters = {a = 1}, metrics = {y = value {1}}},
      {parameters = {a = 2}, metrics = {}, status = "timeout"},
      {parameters = {a = 3}, metrics = {}, status = "ok"},
    })
    for a, why in pairs {
      [2] = "the point with these parameters has status 'timeout'",
      [3] = "the trial of the point with these parameters did not return it",
      [4] = "no point has these parameters",
    } do
      assert.matches("value: expected one point with 'y', got none: " .. why,
        message(r.value, r, "y", {a = a}), 1, true)
    end
  end)
  it("keep the points that have one of a list of values", function()
    local r = claims.over(two)
    assert.same(2, #r:where {a = {1, 2, 3}}:values "y")
    assert.same({}, r:where({a = {3}}):values "y")
  end)
  it("that end the process or have exchanged bounds have failed", function()
    local verdict = judge {"ends", function() os.exit(7) end}
    assert.same("failed", verdict.verdict)
    assert.truthy(verdict.detail:find("os.exit: expected the claim's function to return", 1, true))
    verdict = judge {"within", function(r) return r:value("y", {a = 1}):within(8, 6) end}
    assert.truthy(verdict.detail:find("within: expected lo of at most hi, got 8 and 6", 1, true))
  end)
  it("write thousands without an exponent", function()
    local many = results {{parameters = {a = 1}, metrics = {y = value {12000, 12400, 11900}}}}
    local verdict = claims.judge({claims = {{"many", function(r)
      return r:value("y", {a = 1}):above(1.5e3)
    end}}}, many)[1]
    assert.same("12100 (mean of 3 rounds, 95% interval 11443 to 12757); claimed above 1500",
      verdict.detail)
  end)
  it("that raise an error name the script's file and line, never attune's own", function()
    local source = table.concat({
      'local function helper(r) return r:where {a = 3}:values "y"[1] + 1 end',
      "return {",
      '  function(r) return r:ratio("z", {a = 1}, {a = 2}):above(1) end,',
      '  function(r) return r:value("y", {a = 1}):above "one" end,',
      "  function(r) return r:where(5) end,",
      "  function(r) return helper(r) > 1 end,",
      "  function() error {} end,",
      '  function(r) return r:family("y", nil, "ratio"):of(2):above(1) end,',
      '  function(r) local q = r:value("y", {a = 1}); return q:above(q.none) end,',
      "}",
    }, "\n")
    local list = assert(load(source, "@script.lua"))()
    local wanted = {
      "script.lua:3: unknown metric 'z': ", "script.lua:4: x: expected a number, got 'one'",
      "script.lua:5: expected a table of parameters, such as {kv_heads = 1}, got a number",
      "script.lua:1: attempt to perform arithmetic on a nil value", "script.lua:7: a table",
      "script.lua:8: family: expected one parameter", "script.lua:9: x: expected a number, got nil",
    }
    for i, fn in ipairs(list) do
      local verdict = judge {"claim", fn}
      assert.same("failed", verdict.verdict)
      assert.same("error: " .. wanted[i], verdict.detail:sub(1, 7 + #wanted[i]))
      assert.is_nil(verdict.detail:find("attune/", 1, true), verdict.detail)
    end
  end)
  it("that raise an error are undecided where points are missing", function()
    local list = {claims = {{"no", function(r) return r:where {a = 3}:values "y"[1] > 1 end}}}
    assert.same("failed", claims.judge(list, two)[1].verdict)
    local verdict = claims.judge(list, two, true)[1]
    assert.same("undecided", verdict.verdict)
    assert.truthy(verdict.detail:find("not all points are measured (error: ", 1, true))
  end)
  it("have no other fields", function()
    local function declare(claim)
      return experiment.declare {
        name = "t", grid = {a = {1}}, trial = function() end, claims = {claim},
      }
    end
    local fn = function() return true end
    assert.truthy(message(declare, {"x", fn, sorce = "y"}):find "unknown field 'sorce': .*source")
    local why = message(declare, {"x", fn, source = 1})
    assert.truthy(why:find "claims%[1%].source: expected a text")
    assert.truthy(message(declare, {"x", fn, paper = {}}):find "expected a number or a text")
    declare {"x", fn, source = "a", paper = 12.1}
  end)
end)

describe("reference values", function()
  local declared = {["AMD EPYC"] = {y = {1, 0.1}}}
  local function verdict(values, metric, more)
    local list = reference.judge(more or declared,
      results({{parameters = {a = 1}, metrics = {y = value(values)}}}, metric))
    return list[1] and list[1].verdict, list[1]
  end
  it("hold within their tolerance, and fail beyond it", function()
    assert.same("held", (verdict {1, 1.01, 0.99}))
    assert.same("failed", (verdict {1.5, 1.51, 1.49}))
    assert.same("undecided", (verdict {1, 1.3, 0.9}))
    assert.same("undecided", (verdict {1}))
    local _, claim = verdict {1.5, 1.51, 1.49}
    assert.same("Reference for AMD EPYC: y is 1.00 s within 10%", claim.text)
    assert.truthy(claim.detail:find("1.50 s (95% interval", 1, true))
  end)
  it("hold for what is better, where the metric says what that is", function()
    local held, claim = verdict {0.5, 0.51, 0.49}
    assert.same("held", held)
    assert.truthy(claim.detail:find("better than the reference", 1, true))
    assert.same("failed", (verdict({0.5, 0.51, 0.49}, {name = "y", better = "higher"})))
    assert.same("failed", (verdict({0.5, 0.51, 0.49}, {name = "y"})))
  end)
  it("say nothing on other machines", function()
    assert.is_nil((verdict({1, 1}, nil, {["Xeon"] = {y = {1, 0.1}}})))
  end)
  it("choose points, and name the worst one", function()
    local several = results {
      {parameters = {a = 1}, metrics = {y = value {1, 1.01, 0.99}}},
      {parameters = {a = 2}, metrics = {y = value {3, 3.01, 2.99}}},
    }
    local list = reference.judge({["AMD EPYC"] = {y = {
      {1, 0.1, where = {a = 1}}, {3, 0.1, where = {a = 2}}, {1, 0.1},
    }}}, several)
    assert.same({"held", "held", "failed"}, {list[1].verdict, list[2].verdict, list[3].verdict})
    assert.truthy(list[1].text:find("within 10% at a 1", 1, true))
    assert.truthy(list[3].detail:find("at a 2 (2 points)", 1, true))
  end)
  it("are checked when they are declared", function()
    local function why(of)
      return message(experiment.declare, {
        name = "t", grid = {a = {1}}, trial = function() end, reference = of,
      })
    end
    assert.truthy(why {[1] = {}}:find "reference: expected a table such as")
    assert.truthy(why {X = {y = 3}}:find "reference%['X'%].y: expected {value, tolerance}")
    assert.truthy(why {X = {y = {1, -1}}}:find "expected a tolerance above 0")
    assert.truthy(why {X = {y = {1, 0.1, were = {}}}}:find "unknown field 'were': .*where")
    assert.is_table(why {X = {y = {{1, 0.1, where = {a = 1}}}}})
  end)
end)

describe("the page of papers' claims", function()
  local script = run.script [[return require "attune.experiment" {
    name = "t", about = "what | it asks", grid = {a = {1, 2}}, rounds = 3,
    trial = function(p, t) return {y = p.a * (1 + t.round / 1000)} end,
    claims = {
      {"Two is *twice* one", function(r) return r:ratio("y", {a = 2}, {a = 1}):above(1) end,
        source = "Shazeer 2019", paper = 2.5},
      {"of the script's own", function() return true end},
      {"in words", function() return true, "so | it is" end, source = "Pope 2022"},
    },
  }]]
  local plain = run.script [[return require "attune.experiment" {
    name = "u", grid = {a = {1}}, rounds = 1, trial = function() return {y = 1} end,
    claims = {{"no source", function() return true end}},
  }]]
  local out = run.folder()
  teardown(function() run.remove(out, script, plain) end)

  it("has claim, paper's figure, ours with its interval, verdict and conditions", function()
    local build = os.getenv "ATTUNE_BUILD_DIR" or "build"
    local words = {"tools/papers", build .. "/attune", out, script, plain, ">/dev/null 2>&1"}
    local ok = os.execute(table.concat(words, " "))
    assert.is_true(ok)
    local page = files.read(out .. "/papers.md")
    local row = "| Two is \\*twice\\* one | Shazeer 2019 | 2.5 | 2 (geometric mean of 3 rounds, "
      .. "2 to 2) | held |"
    assert.truthy(page:find(row, 1, true))
    assert.truthy(page:find("| in words | Pope 2022 |  | so \\| it is | held |", 1, true))
    assert.is_nil(page:find "script's own")
    assert.truthy(page:find "Conditions: .*threads.*3 rounds")
    -- An experiment without such claims is not run.
    assert.is_nil(files.kind(out .. "/u"))
  end)
  it("rests on what claims.json keeps, which show prints too", function()
    local kept = assert(store.read(out .. "/t")).claims[1]
    assert.same({"Shazeer 2019", 2.5, 3}, {kept.source, kept.paper, kept.ours.rounds})
    local said = run.attune("show " .. out .. "/t")
    assert.truthy(said:find("Shazeer 2019: 2.5", 1, true))
    assert.same("paper: 3", papers.origin {paper = 3})
    assert.is_nil(papers.origin {})
  end)
end)
