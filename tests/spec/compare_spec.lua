local compare = require "attune.results.compare"
local files = require "attune.util.files"
local history = require "attune.results.history"
local json = require "attune.util.json"
local run = require "tests.support.run"
local stats = require "attune.results.statistics"
local store = require "attune.results.store"

-- Results in memory: points are {parameters, {metric = values}}.
local function results(dir, points, more)
  local list, names, seen = {}, {}, {}
  for i, point in ipairs(points) do
    local metrics = {}
    for name, values in pairs(point[2]) do
      local v = stats.summary(values)
      v.values, v.rounds, v.cpus = values, {}, {}
      for k = 1, #values do
        v.rounds[k], v.cpus[k] = k, more and more.cpus and more.cpus[k] or more and more.cpu or "X"
      end
      metrics[name] = v
    end
    for name in pairs(point[1]) do
      if not seen[name] then
        seen[name] = true
        names[#names + 1] = name
      end
    end
    local count = select(2, next(point[2]))
    list[i] = {
      parameters = point[1], metrics = metrics, status = point.status or "ok",
      rounds = count and #count or 0, index = i, hash = ("%016x"):format(i),
    }
  end
  table.sort(names)
  return {
    dir = dir, name = "t", parameters = names, varied = names, points = list,
    metrics = {{name = "seconds", unit = "s", better = "lower"}},
    provenance = {{time = more and more.time or "2026-01-01T00:00:00Z", isa = more and more.isa}},
  }
end

local fast, slow = {1.00, 1.01, 0.99, 1.02, 0.98}, {1.50, 1.51, 1.49, 1.52, 1.48}

local function verdicts(report)
  local list = {}
  for i, row in ipairs(report.rows) do list[i] = row.verdict end
  return list
end

describe("compare", function()
  it("pairs points by their parameters and says which became worse", function()
    local a = results("A", {{{n = 1}, {seconds = fast}}, {{n = 2}, {seconds = fast}},
      {{n = 3}, {seconds = fast}}})
    local b = results("B", {{{n = 2.0}, {seconds = slow}}, {{n = 1}, {seconds = fast}},
      {{n = 4}, {seconds = fast}}})
    local report = assert(compare.folders(a, b))
    assert.same({"same", "worse"}, verdicts(report))
    assert.same({1, 1}, {report.only_a, report.only_b})
    assert.near(1.5, report.rows[2].comparison.centre, 0.01)
    local back = assert(compare.folders(b, a))
    assert.same({"better", "same"}, verdicts(back))
  end)
  it("takes a change below the threshold as none, in both directions", function()
    local a = results("A", {{{n = 1}, {seconds = {100, 100.1, 99.9, 100}}}})
    for value, wanted in pairs {
      [82] = "same", [118] = "same", [79] = "better", [121] = "worse",
    } do
      local b = results("B", {{{n = 1}, {seconds = {value, value + 0.1, value - 0.1, value}}}})
      assert.same({wanted}, verdicts(compare.folders(a, b, {threshold = 0.2})))
    end
  end)
  it("adjusts for the number of comparisons", function()
    local a, b = {}, {}
    for i = 1, 40 do
      a[i] = {{n = i}, {seconds = {1, 1.01, 0.99, 1.02}}}
      b[i] = {{n = i}, {seconds = i == 7 and {1.04, 1.05, 1.03, 1.02} or {1, 1.01, 0.99, 1.02}}}
    end
    local one = compare.folders(results("A", {a[7]}), results("B", {b[7]}))
    local all = compare.folders(results("A", a), results("B", b))
    assert.is_true(all.rows[7].p > 10 * one.rows[1].p)
    assert.same("cannot tell", all.rows[7].verdict)
    assert.is_true(all.rows[7].comparison.rounds_needed > one.rows[1].comparison.rounds_needed)
  end)
  it("makes one comparison per value of --by", function()
    local a, b = {}, {}
    for n = 1, 2 do
      for m = 1, 3 do
        local values = {}
        for i, x in ipairs(fast) do values[i] = x * m * n end
        a[#a + 1] = {{n = n, m = m}, {seconds = values}}
        local later = {}
        for i, x in ipairs(values) do later[i] = n == 2 and 1.2 * x or x end
        b[#b + 1] = {{n = n, m = m}, {seconds = later}}
      end
    end
    local report = assert(compare.folders(results("A", a), results("B", b), {by = {"n"}}))
    assert.same({"same", "worse"}, verdicts(report))
    assert.near(1.2, report.rows[2].comparison.centre, 1e-9)
    assert.same({n = 2}, report.rows[2].parameters)
    assert.same(3, report.rows[2].pairs)
    -- The geometric mean of m = 1, 2, 3.
    assert.near(6 ^ (1 / 3), report.rows[1].a.centre, 1e-3)
  end)
  it("keeps a group of --by where one of its points failed in B", function()
    local a = results("A", {{{n = 1, m = 1}, {seconds = fast}}, {{n = 1, m = 2}, {seconds = fast}}})
    local b = results("B", {{{n = 1, m = 1}, {seconds = slow}},
      {{n = 1, m = 2}, {}, status = "failed"}})
    local report = assert(compare.folders(a, b, {by = {"n"}}))
    assert.same({1, 1, 1}, {#report.rows, report.rows[1].pairs, #report.lost})
    assert.near(1.5, report.rows[1].comparison.centre, 0.01)
  end)
  it("pairs with --by what differs in another parameter", function()
    local a = results("A", {{{n = 1, how = "x"}, {seconds = fast}}})
    local b = results("B", {{{n = 1, how = "y"}, {seconds = slow}}})
    local report, why = compare.folders(a, b)
    assert.is_nil(report)
    assert.truthy(why:find("--by NAME", 1, true))
    assert.same({"worse"}, verdicts(assert(compare.folders(a, b, {by = {"n"}}))))
  end)
  it("ignores a parameter that only one folder has, unless points then agree", function()
    local a = results("A", {{{n = 1}, {seconds = fast}}})
    assert.same({"same"}, verdicts(compare.folders(a,
      results("B", {{{n = 1, new = 5}, {seconds = fast}}}))))
    local _, why = compare.folders(a, results("B", {{{n = 1, new = 5}, {seconds = fast}},
      {{n = 1, new = 6}, {seconds = fast}}}))
    assert.truthy(why:find "B: expected one point .* differ in new")
  end)
  it("never compares across processors", function()
    local a = results("A", {{{n = 1}, {seconds = fast}}}, {cpu = "AMD EPYC"})
    local b = results("B", {{{n = 1}, {seconds = slow}}}, {cpu = "Xeon"})
    local report, why = compare.folders(a, b)
    assert.is_nil(report)
    assert.truthy(why:find "expected results of one processor, got 'AMD EPYC' in A and 'Xeon' in B")
  end)
  it("compares each processor by itself where folders have several", function()
    local cpus = {"EPYC", "EPYC", "EPYC", "Xeon", "Xeon", "Xeon"}
    local a = results("A", {{{n = 1}, {seconds = {1, 1.01, 0.99, 5, 5.05, 4.95}}}}, {cpus = cpus})
    local b = results("B", {{{n = 1}, {seconds = {1.5, 1.51, 1.49, 5, 5.05, 4.95}}}},
      {cpus = cpus})
    local report = assert(compare.folders(a, b))
    assert.same({"worse", "same"}, verdicts(report))
    assert.same({"EPYC", "Xeon"}, {report.rows[1].cpu, report.rows[2].cpu})
  end)
  it("refuses a metric whose unit or direction differs", function()
    local a = results("A", {{{n = 1}, {seconds = fast}}})
    local b = results("B", {{{n = 1}, {seconds = slow}}})
    b.metrics = {{name = "seconds", unit = "ms", better = "lower"}}
    local wanted = "metric 'seconds': expected one unit in all folders, got s in A and ms in B"
    local report, why = compare.folders(a, b)
    assert.same({false, wanted}, {report or false, why})
    report, why = history.of {a, b}
    assert.same({false, wanted}, {report or false, why})
    b.metrics = {{name = "seconds", unit = "s", better = "higher"}}
    report, why = compare.folders(a, b)
    assert.same({false, "metric 'seconds': expected one 'better' in all folders, got lower in A "
      .. "and higher in B"}, {report or false, why})
    b.metrics = {{name = "seconds", unit = "s"}}
    assert(compare.folders(a, b))
  end)
  it("counts a point that no longer ends ok", function()
    local a = results("A", {{{n = 1}, {seconds = fast}}, {{n = 2}, {seconds = fast}}})
    local b = results("B", {{{n = 1}, {seconds = fast}}, {{n = 2}, {}, status = "timeout"}})
    local report = assert(compare.folders(a, b))
    assert.same("timeout", report.lost[1].status)
  end)
  it("counts a value that is no longer finite as a point that is no longer ok", function()
    local a = results("A", {{{n = 1}, {seconds = fast}}, {{n = 2}, {seconds = fast}}})
    for _, x in ipairs {0 / 0, math.huge} do
      local b = results("B", {{{n = 1}, {seconds = {1, x, 1}}}, {{n = 2}, {seconds = fast}}})
      local lost = assert(compare.folders(a, b)).lost
      assert.same({1, "not finite"}, {#lost, lost[1].status})
      assert.same({n = 1}, lost[1].parameters)
      assert.same(0, #compare.folders(b, a).lost)
      assert.same(0, #compare.folders(b, b).lost)
    end
  end)
  it("compares seed by seed where both folders declare the same seeds", function()
    local a, b = {}, {}
    for i = 1, 8 do
      a[i] = 1 + 0.2 * i
      b[i] = a[i] * (1.03 + 0.001 * (i % 2))
    end
    local one = results("A", {{{n = 1}, {seconds = a}}})
    local two = results("B", {{{n = 1}, {seconds = b}}})
    assert.same({"cannot tell"}, verdicts(compare.folders(one, two)))
    one.seeds, two.seeds = {1, 2, 3, 4, 5, 6, 7, 8}, {1, 2, 3, 4, 5, 6, 7, 8}
    local report = compare.folders(one, two)
    assert.same({{"worse"}, true}, {verdicts(report), report.paired})
    two.seeds = {1, 2, 3, 4, 5, 6, 7, 9}
    assert.same({"cannot tell"}, verdicts(compare.folders(one, two)))
  end)
  it("pairs what was measured with one seed, wherever the seed stands", function()
    local a = results("A", {{{n = 1}, {seconds = {10, 20, 30}}}})
    local b = results("B", {{{n = 1}, {seconds = {20, 30, 41}}}})
    a.seeds, b.seeds = {1, 2, 3}, {2, 3, 4}
    local comparison = compare.folders(a, b, {paired = true}).rows[1].comparison
    assert.same({1, 1, 1}, {comparison.centre, comparison.lo, comparison.hi})
    b.seeds = nil
    local _, why = compare.folders(a, b, {paired = true})
    assert.matches("expected folders that both declare seeds, or neither, got seeds in A only", why)
  end)
  it("notes what else differs", function()
    local a = results("A", {{{n = 1}, {seconds = fast}}}, {isa = "avx2"})
    local b = results("B", {{{n = 1}, {seconds = fast}}}, {isa = "c"})
    assert.same({"instruction set: A avx2, B c"}, compare.folders(a, b).notes)
  end)
  it("suggests the metric and the parameter that were meant", function()
    local a = results("A", {{{context = 1}, {seconds = fast}}})
    local _, why = compare.folders(a, a, {metric = "second"})
    assert.truthy(why:find "unknown metric 'second' of A: .*seconds")
    _, why = compare.folders(a, a, {by = {"contxt"}})
    assert.truthy(why:find "unknown parameter 'contxt' of A: .*context")
  end)
end)

describe("history", function()
  it("orders folders by time and compares each with the one before", function()
    local list = {
      results("C", {{{n = 1}, {seconds = slow}}}, {time = "2026-03-01T00:00:00Z"}),
      results("A", {{{n = 1}, {seconds = fast}}}, {time = "2026-01-01T00:00:00Z"}),
      results("B", {{{n = 1}, {seconds = fast}}}, {time = "2026-02-01T00:00:00Z"}),
    }
    local h = assert(history.of(list))
    local dirs, found = {}, {}
    for i, entry in ipairs(h.series[1].entries) do
      dirs[i], found[i] = h.folders[entry.folder].dir, entry.verdict or "-"
    end
    assert.same({"A", "B", "C"}, dirs)
    assert.same({"-", "same", "worse"}, found)
  end)
  it("goes back to the last folder of the same processor", function()
    local function one(dir, month, values, cpu)
      return results(dir, {{{n = 1}, {seconds = values}}},
        {time = ("2026-%02d-01"):format(month), cpu = cpu})
    end
    local h = history.of {one("A", 1, fast, "X"), one("B", 2, slow, "Y"), one("C", 3, slow, "X")}
    local entries = h.series[1].entries
    assert.is_nil(entries[2].verdict)
    assert.same("worse", entries[3].verdict)
  end)
  it("refuses folders of different experiments", function()
    local a, b = results("A", {{{n = 1}, {seconds = fast}}}),
      results("B", {{{n = 1}, {seconds = fast}}})
    b.name = "other"
    local _, why = history.of {a, b}
    assert.truthy(why:find "one experiment, got 't' in A and 'other' in B")
    _, why = history.of({a}, {metric = "secs"})
    assert.truthy(why:find "unknown metric 'secs'")
  end)
end)

describe("the commands compare and history", function()
  local script = run.script [[return require "attune.experiment" {
    name = "t", grid = {n = {1, 2}}, rounds = 4,
    metrics = {seconds = {unit = "s", better = "lower"}},
    trial = function(p, t)
      local slower = p.n == 2 and tonumber(os.getenv "SLOWER" or 1) or 1
      return {seconds = p.n * slower * (1 + 0.001 * (t.round % 3))}
    end,
  }]]
  local a, b, other = run.folder(), run.folder(), run.folder()
  local uv = require "luv"
  assert.same(0, select(2, run.attune(("run %s --out %s"):format(script, a))))
  uv.os_setenv("SLOWER", "1.25")
  assert.same(0, select(2, run.attune(("run %s --out %s"):format(script, b))))
  uv.os_unsetenv "SLOWER"
  teardown(function() run.remove(a, b, other, script) end)

  it("print a table and end with 1 for something worse", function()
    local said, status = run.attune(("compare %s %s"):format(a, b))
    assert.same(1, status)
    assert.truthy(said:find "2%s+seconds%s+2%.00 s%s+2%.50 s%s+1%.2500%s+1%.%d+ to 1%.%d+.*worse")
    assert.truthy(said:find("1 worse, 1 same.", 1, true))
    assert.truthy(said:find("all 2 comparisons: 1% (Holm)", 1, true))
    said, status = run.attune(("compare %s %s"):format(b, a))
    assert.same(0, status)
    assert.truthy(said:find("1 better, 1 same.", 1, true))
    assert.same(0, select(2, run.attune(("compare %s %s --by n --paired"):format(a, a))))
  end)
  it("write JSON, alone on standard output", function()
    local said, status = run.attune(("compare %s %s --json -"):format(a, b))
    local value = json.decode(said)
    assert.same(1, status)
    assert.same("worse", value.comparisons[2].verdict)
    assert.near(1.25, value.comparisons[2].ratio, 1e-9)
    assert.same({better = 0, worse = 1, same = 1, differs = 0, ["cannot tell"] = 0}, value.counts)
    local path = os.tmpname()
    run.attune(("history %s %s --json %s"):format(a, b, path))
    local h = json.decode(files.read(path))
    assert.same({a, b}, {h.folders[1].dir, h.folders[2].dir})
    assert.same("worse", h.series[2].entries[2].verdict)
    run.remove(path)
  end)
  it("draw the ratios", function()
    local dir = run.folder()
    local said, status = run.attune(("compare %s %s --plot %s"):format(a, b, dir))
    assert.same({1, "file"}, {status, files.kind(dir .. "/plots/ratio-seconds.svg")}, said)
    run.remove(dir)
  end)
  it("print how values changed", function()
    local said, status = run.attune(("history %s %s --metric seconds"):format(a, b))
    assert.same(0, status)
    assert.truthy(said:find "seconds %(n 2%).*2%.00 s.*2%.50 s.*1%.2500%s+worse")
    assert.same(0, select(2, run.attune("history " .. a)))
  end)
  it("refuse to merge folders whose units differ", function()
    local dirs, text = {}, [[return require "attune.experiment" {name = "t", timing = false,
      rounds = 1, grid = {a = {1}}, metrics = {m = {unit = "%s"}},
      trial = function() return {m = 1} end}]]
    for i, unit in ipairs {"s", "ms"} do
      local path = run.script(text:format(unit))
      dirs[i] = run.folder()
      run.attune(("run %s --out %s"):format(path, dirs[i]))
      run.remove(path)
    end
    local out = run.folder()
    local said, status = run.attune(("merge %s %s --out %s"):format(dirs[1], dirs[2], out))
    assert.same(2, status)
    assert.matches("metric 'm': expected one unit in all folders, got s in", said, 1, true)
    assert.is_nil(files.kind(out))
    run.remove(dirs[1], dirs[2], out)
  end)
  it("end with 2 for misuse, and where nothing can be compared", function()
    for _, words in ipairs {
      a, a .. " /nonexistent", ("%s %s --metric secs"):format(a, b),
      ("%s %s --by q"):format(a, b), ("%s %s --json /nonexistent/x"):format(a, b),
    } do
      local said, status = run.attune("compare " .. words)
      assert.same(2, status, said)
    end
    assert.same(2, select(2, run.attune "history /nonexistent"))
  end)
  it("refuse results of another processor", function()
    os.execute(("cp -r '%s' '%s'"):format(b, other))
    for _, name in ipairs(files.list(other .. "/trials")) do
      local path = other .. "/trials/" .. name
      if files.kind(path) == "file" then
        local content = files.read(path):gsub('"cpu":"[^"]*"', '"cpu":"Another \\u001b[31m CPU"')
        assert(files.write(path, content))
      end
    end
    local said, status = run.attune(("compare %s %s"):format(a, other))
    assert.same(2, status)
    assert.truthy(said:find("processor: expected results of one processor", 1, true))
    assert.is_nil(said:find "\27")
    said, status = run.attune(("history %s %s"):format(a, other))
    assert.same(0, status)
    assert.truthy(said:find("processor", 1, true))
    assert.is_nil(said:find "\27")
    assert.is_nil(assert(store.read(other)).points[1].metrics.seconds.cpus[1]:find "Xeon")
  end)
end)
