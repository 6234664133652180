-- Declarations of sweeps: lists, zips, samples, seeds, tables as values; other values for a run.
local assignments = require "attune.cli.assignments"
local axes = require "attune.experiment.axes"
local condition = require "attune.experiment.condition"
local experiment = require "attune.experiment"
local files = require "attune.util.files"
local json = require "attune.util.json"
local run = require "tests.support.run"
local sample = require "attune.experiment.sample"
local store = require "attune.results.store"
local sweep = require "attune.experiment.points"

local function declared(e)
  e.name, e.trial = e.name or "t", e.trial or function() end
  return experiment.declare(e)
end

local function points(e, options)
  return sweep.points(experiment.narrowed(declared(e), options or {}), "1")
end

local function texts(e, options)
  local list = {}
  for i, point in ipairs(points(e, options)) do list[i] = sweep.canonical(point.parameters) end
  return list
end

describe("a list", function()
  it("is points as they stand, multiplied with other axes", function()
    assert.same({"a=1;b=2", "a=3;b=4"}, texts {list = {{a = 1, b = 2}, {a = 3, b = 4}}})
    assert.same({'a=1;c="x"', 'a=1;c="y"', 'a=2;c="x"', 'a=2;c="y"'},
      texts {list = {{a = 1}, {a = 2}}, grid = {c = {"x", "y"}}})
  end)
end)

describe("a zip", function()
  it("moves parameters together", function()
    assert.same({"d=128;h=32", "d=64;h=48"}, texts {zip = {h = {32, 48}, d = {128, 64}}})
  end)
end)

describe("a table as a value", function()
  local big, small = {name = "big", width = 8}, {name = "small", width = 4}
  it("reaches the script whole and the results by its name", function()
    local seen = {}
    local list = points {grid = {model = {big, small}, a = {1, 2}},
      where = function(p) return p.model.width > 4 or p.a == 1 end,
      derived = {w = function(p)
        seen[#seen + 1] = p.model
        return p.model.width * p.a
      end}}
    assert.same(3, #list)
    assert.same({model = "big", a = 1, w = 8}, list[1].parameters)
    assert.equal(big, list[1].values.model)
    assert.equal(big, seen[1])
  end)
  it("has a hash that follows what is in it", function()
    local function hash(value) return points({grid = {m = {value}}})[1].hash end
    local one = hash {name = "m", list = {1, 2}, f = print}
    assert.same(one, hash {f = print, name = "m", list = {1, 2}})
    assert.not_same(one, hash {name = "m", list = {1, 3}, f = print})
    assert.not_same(one, hash {name = "m", list = {1, 2}, g = print})
    local loop = {name = "m"}
    loop.loop = loop
    assert.has_error(function() hash(loop) end, "a parameter's table: expected at most 50 nested "
      .. "tables, got more, or a table inside itself")
  end)
  it("is chosen by name in quick and --set", function()
    local e = {grid = {m = {big, small}}, quick = {m = "small"}}
    assert.equal(small, points(e, {quick = true})[1].values.m)
    assert.equal(big, points(e, {set = {m = {"big"}}})[1].values.m)
    assert.has_error(function() points(e, {set = {m = {"bg"}}}) end,
      "experiment: m: unknown value 'bg': did you mean 'big'?")
  end)
  it("is found again in the trial's process, functions included", function()
    local script, dir = run.script [[return require "attune.experiment" {name = "t", rounds = 1,
      timing = false, grid = {m = {{name = "twice", f = function(x) return 2 * x end},
        {name = "square", f = function(x) return x * x end}}, a = {3}},
      trial = function(p) return {y = p.m.f(p.a)} end}]], run.folder()
    local said, status = run.attune(("run %s --out %s"):format(script, dir))
    assert.same(0, status, said)
    local list = assert(store.read(dir)).points
    assert.same({6.0, 9.0}, {list[1].metrics.y.centre, list[2].metrics.y.centre})
    assert.same("square", list[2].parameters.m)
    run.remove(script, dir)
  end)
end)

describe("quick", function()
  it("replaces the values of a parameter n, and n of a sample", function()
    assert.same({"n=1"}, texts({grid = {n = {1, 2}}, quick = {n = {1}}}, {quick = true}))
    local sampled = {sample = {n = 8, ranges = {x = {0, 1}}}, quick = {n = 2}}
    assert.same(2, #points(sampled, {quick = true}))
  end)
  it("refuses a name that could mean a parameter or a field, and values of another type", function()
    local function refused(e, wanted)
      assert.has_error(function() declared(e) end, "experiment: " .. wanted)
    end
    refused({grid = {rounds = {1, 2}}, quick = {rounds = {1}}},
      "grid.rounds: expected another name, as quick.rounds is the field rounds of the experiment")
    refused({sample = {n = 2, ranges = {n = {0, 1}}}, quick = {n = 1}},
      "sample.n: expected another name, as quick.n is the n of sample")
    refused({grid = {a = {1}}, quick = {timeout = {1}}},
      "quick.timeout: expected a number, got a table")
    refused({grid = {a = {1}}, quick = {n = 1}}, "unknown field 'quick.n': did you mean 'a'?")
  end)
end)

describe("the order of points", function()
  it("is that of the script, whatever an earlier run of some of them was", function()
    local script, dir = run.script [[return require "attune.experiment" {name = "t", rounds = 1,
      timing = false, grid = {k = {"a", "b", "c"}, n = {"s", "m"}}, fixed = {f = 1},
      quick = {k = {"c", "b"}}, trial = function() return {y = 1} end}]], run.folder()
    local function order_after(options)
      local said, status = run.attune(("run %s --out %s %s"):format(script, dir, options))
      assert.same(0, status, said)
      local list = {}
      for i, point in ipairs(assert(store.read(dir)).points) do
        local p = point.parameters
        list[i] = p.k .. p.n .. (p.f == 1 and "" or p.f)
      end
      return table.concat(list, " ")
    end
    assert.same("bs bm cs cm", order_after "--quick")
    assert.same("as am bs bm cs cm", order_after "")
    assert.same("as am bs bm cs cm as2", order_after "--set f=2,k=a,n=s")
    run.remove(script, dir)
  end)
end)

describe("a sample", function()
  local ranges = {
    lr = {log = {1e-4, 1e-2}}, k = {integer = {1, 4}}, x = {-1, 1}, batch = {integer = {1, 64},
      log = true}, kind = {values = {"a", "b", "c"}},
  }
  for _, method in ipairs {"random", "sobol", "latin"} do
    it("of method " .. method .. " stays in its ranges and depends on the seed alone", function()
      local function draw(seed)
        return sample.points {n = 200, method = method, seed = seed, ranges = ranges}
      end
      local list, low, kinds = draw(1), 0, {}
      assert.same(list, draw(1))
      assert.not_same(list, draw(2))
      for _, p in ipairs(list) do
        assert.is_true(p.lr >= 1e-4 and p.lr <= 1e-2 and p.x >= -1 and p.x < 1)
        assert.is_true(math.type(p.k) == "integer" and p.k >= 1 and p.k <= 4)
        assert.is_true(math.type(p.batch) == "integer" and p.batch >= 1 and p.batch <= 64)
        if p.lr < 1e-3 then low = low + 1 end
        kinds[p.kind] = (kinds[p.kind] or 0) + 1
      end
      -- Half of a logarithmic range lies below its geometric mean.
      assert.is_true(math.abs(low - 100) <= 25, low)
      for _, kind in ipairs {"a", "b", "c"} do assert.is_true(kinds[kind] > 40) end
    end)
  end
  it("of method latin has one point in each of n intervals", function()
    local seen = {}
    for _, p in ipairs(sample.points {n = 50, method = "latin", ranges = {x = {0, 50}}}) do
      seen[math.floor(p.x)] = true
    end
    for i = 0, 49 do assert.is_true(seen[i], i) end
  end)
  it("of method sobol is the sequence of scipy, shifted by the seed", function()
    local golden = json.decode(assert(files.read "tests/golden/sobol.json"))
    assert.same(golden, sample.sobol(#golden, #golden[1]))
    local halves = {}
    for _, p in ipairs(sample.points {n = 64, method = "sobol", ranges = {x = {0, 64}}}) do
      halves[math.floor(p.x)] = true
    end
    for i = 0, 63 do assert.is_true(halves[i], i) end
  end)
  it("keeps points that coincide once", function()
    assert.same(3, #sample.points {n = 100, ranges = {k = {integer = {1, 3}}}})
  end)
end)

describe("a wrong sweep", function()
  it("is refused with a reason", function()
    local function refused(e, pattern)
      local ok, why = pcall(declared, e)
      assert.is_false(ok, pattern)
      assert.truthy(why:find(pattern), why)
    end
    refused({list = {}}, "list: expected a list of points, got an empty one")
    refused({list = {{a = 1}, {b = 1}}}, "list%[2%].b: expected the parameters of list%[1%]")
    refused({list = {{a = 1, b = 2}, {a = 1}}}, "list%[2%].b: expected a value")
    refused({zip = {a = {1, 2}, b = {1}}}, "zip.b: expected 2 values, as many as zip.a has, got 1")
    refused({grid = {a = {{}}}}, "a table without one")
    refused({grid = {a = {{name = "x"}, {name = "x"}}}}, "two values with the name 'x'")
    refused({grid = {a = {1}}, list = {{a = 2}}}, "list.a: duplicate parameter, grid declares it")
    refused({sample = {n = 0, ranges = {x = {0, 1}}}}, "sample.n: expected an integer from 1")
    refused({sample = {n = 1, ranges = {x = {1, 0}}}}, "sample.ranges.x: expected a range")
    refused({sample = {n = 1, ranges = {x = {log = {0, 1}}}}}, "a logarithmic one from 0 on")
    refused({sample = {n = 1, method = "sobl", ranges = {x = {0, 1}}}}, "did you mean 'sobol'")
    refused({sample = {n = 1, rnges = {}}}, "unknown field 'sample.rnges': did you mean 'ranges'")
    refused({grid = {a = {1}}, seeds = {1, 1}}, "duplicate seed 1")
    refused({grid = {seed = {1}}, seeds = {1}}, "seed: expected another name")
    refused({grid = {a = {1}}, stop_when = {y = 2}}, "stop_when: expected metrics with")
    refused({grid = {a = {1}}, budget = -1}, "budget: expected seconds above 0")
    refused({}, "grid: expected grid or fixed, got neither")
  end)
end)

describe("--set", function()
  local function set(list, e)
    return assignments(list, function(name) return axes.examples(e, name) end)
  end
  local e = {grid = {a = {1, 2}, s = {"x"}, on = {true}, any = {1, "x"}, m = {{name = "n"}}},
    fixed = {f = 1.5}, sample = {n = 1, ranges = {r = {0, 1}}}}
  it("reads Lua literals; quotes keep commas; bare words are texts", function()
    assert.same({a = {1, -2, 16, 1e3}, f = {math.huge}}, set({"a=1,-2,0x10,1e3,f=1e999"}, e))
    assert.same({s = {"x, y=3", 'it"s\n', "7", "a b"}}, set({[[s="x, y=3",'it"s\n',7, a b ]]}, e))
    assert.same({on = {false}, any = {"w", 3}, m = {"n"}}, set({"on=false,any=w,3,m=n"}, e))
    assert.same({new = {"x=y"}}, set({"new=x=y"}, e))
  end)
  it("repeated for a key adds values", function()
    assert.same({a = {1, 2}, f = {3}}, set({"a=1", "f=3", "a=2"}, e))
  end)
  it("is checked against the script", function()
    for text, pattern in pairs {
      ["a=b"] = "a: expected numbers, as in the script, got b",
      ["on=1"] = "on: expected true or false, as in the script, got 1",
      ["r=x"] = "r: expected numbers", ["a="] = "a: expected a value, got none",
      ["a=1,,"] = "a: expected a value, got none", ["a"] = "expected name=value, got 'a'",
      ["s='x"] = "expected ' at the end of a text",
      ["s='x'y"] = "s: expected a comma after a text",
      ["a={1}"] = "a: expected a number, true, false or a text, got {1}",
      ["a=nil"] = "a: expected a number, true, false or a text, got nil",
    } do
      local value, why = set({text}, e)
      assert.is_nil(value, text)
      assert.truthy(why:find("--set: " .. pattern, 1, true), why)
    end
  end)
  it("and conditions give values or one message for any text", function()
    local pieces = {
      "a", "b", "s", "`", "'", '"', "==", "<", "and", "or", "not", "(", ")", "-", "/", "//", "%",
      "^", "1", "1e3", "0x", ".5", "nil", "true", "\\", "\n", "\27", "{",
      "[[", ",", ",,", "=", "a=",
      "b=", "\0", "é", "\xff", "..", "1e999", " ", "seconds.lo",
    }
    local state = test_seed
    local function random(n)
      state = state * 6364136223846793005 + 1442695040888963407
      return (state >> 33) % n + 1
    end
    for _ = 1, 20000 do
      local parts = {}
      for i = 1, random(12) do parts[i] = pieces[random(#pieces)] end
      local text = table.concat(parts, random(2) == 1 and " " or "")
      local value, why = set({text}, e)
      assert.truthy(value or why:find "^%-%-set: ", text)
      local ok, holds = pcall(condition.compile, text, {"a", "b", "s", "seconds.lo"})
      if ok then ok, holds = pcall(holds, {a = 1, b = "x", s = 2.5}) end
      assert.truthy(ok or holds:find "^%-%-only: ", text)
    end
  end)
  it("does not set a derived parameter", function()
    assert.has_error(function()
      texts({grid = {a = {1}}, derived = {d = function(p) return p.a end}}, {set = {d = {4}}})
    end, "experiment: d: expected a parameter of fixed or of an axis, got a derived one")
  end)
  it("keeps those points of a list or a zip that have the value, and ends sampling", function()
    assert.same({"a=3;b=4"}, texts({list = {{a = 1, b = 2}, {a = 3, b = 4}}}, {set = {b = {4}}}))
    assert.same({"d=64;h=48"}, texts({zip = {h = {32, 48}, d = {128, 64}}}, {set = {h = {48}}}))
    assert.same({"x=5", "x=6"}, texts({sample = {n = 9, ranges = {x = {0, 1}}}},
      {set = {x = {5, 6}}}))
    assert.has_error(function() texts({zip = {h = {32, 48}}}, {set = {h = {7}}}) end,
      "experiment: zip.h: expected some of its values (32, 48), got others")
  end)
end)

local head = [[return require "attune.experiment" {name = "t", about = "a test", timing = false,
]]

describe("seeds", function()
  it("are averaged over: one value for each seed, the mean of its rounds", function()
    local script, dir = run.script(head .. [[grid = {a = {1, 2}}, seeds = {5, 7, 9},
      trial = function(p, t) return {y = p.a * p.seed + t.round} end}]]), run.folder()
    local said, status = run.attune(("run %s --out %s --rounds 2"):format(script, dir))
    assert.same(0, status, said)
    local results = assert(store.read(dir))
    assert.same({5, 7, 9}, results.seeds)
    assert.same(2, #results.points)
    assert.same({11.5, 15.5, 19.5}, results.points[2].metrics.y.values)
    assert.same({"a"}, results.varied)
    -- More seeds are measured beside those that are there.
    said = run.attune(("run %s --out %s --rounds 2 --set seed=5,11 --dry"):format(script, dir))
    assert.truthy(said:find "2 points, 2 seeds, 2 rounds each", said)
    assert.truthy(said:find "4 of 8 trials left: about", said)
    assert.same(0, select(2, run.attune(("run %s --out %s --set seed=5,11"):format(script, dir))))
    assert.same({11.5, 23}, assert(store.read(dir)).points[2].metrics.y.values)
    run.remove(script, dir)
  end)
  it("are what more of would narrow intervals: rounds of a seed are one value", function()
    local script, dir = run.script(head .. [[grid = {a = {1, 2}}, seeds = {1, 2, 3}, rounds = 2,
      trial = function(p, t) return {y = p.a + p.seed} end,
      plots = {{kind = "bars", x = "a", y = "y", name = "y"}},
      claims = {{"a", function(r) return r:ratio("y", {a = 2}, {a = 1}):above(1.2) end}}}]]),
      run.folder()
    local said, status = run.attune(("run %s --out %s"):format(script, dir))
    assert.same(0, status, said)
    assert.truthy(said:find("mean over the seeds", 1, true), said)
    assert.truthy(said:find("too few seeds: about", 1, true), said)
    assert.truthy(said:find("(geometric mean of 3 seeds, ", 1, true), said)
    assert.truthy(said:find("; about 5 seeds would decide", 1, true), said)
    local page = assert(files.read(dir .. "/report.html"))
    for _, words in ipairs {"6 trials each", "To narrow half of them takes about", " seeds (--set",
      "in 6 trials, with 3 seeds; ", "mean over the seeds", "mean of 3 seeds"} do
      assert.truthy(page:find(words, 1, true), words)
    end
    assert.falsy(page:find("%d rounds") or said:find("%-%-rounds"))
    run.remove(script, dir)
  end)
end)

describe("stop_when", function()
  it("ends a point once its interval is narrow enough", function()
    local script, dir = run.script(head .. [[grid = {a = {1, 2}}, rounds = 8,
      stop_when = {y = 0.05}, trial = function(p, t)
        return {y = p.a == 1 and 1 + t.round / 1e4 or t.round}
      end}]]), run.folder()
    local command = ("run %s --out %s"):format(script, dir)
    local said, status = run.attune(command)
    assert.same(0, status, said)
    local list = assert(store.read(dir)).points
    assert.same({3, 8}, {list[1].rounds, list[2].rounds})
    assert.truthy(run.attune(command):find "Nothing was left to measure")
    run.remove(script, dir)
  end)
end)

describe("a metric that no trial returns", function()
  it("is a warning of a complete run, and an error in stop_when where metrics are declared",
    function()
      local function said_by(fields, options)
        local script, dir = run.script(head .. fields .. [[, grid = {a = {1, 2}}, rounds = 1,
          trial = function() return {y = 1} end}]]), run.folder()
        local said, status = run.attune(("run %s --out %s %s"):format(script, dir, options or ""))
        run.remove(script, dir)
        return said, status
      end
      local declared_z = "metrics = {y = {}, z = {}}"
      local warning = "metrics.z: no trial returned this metric"
      assert.matches(warning, said_by(declared_z), 1, true)
      assert.not_matches(warning, said_by(declared_z, "--only 'a == 1'"), 1, true)
      assert.matches("stop_when.zz: no trial returned this metric",
        said_by "stop_when = {zz = 0.1}", 1, true)
      local said, status = said_by "metrics = {y = {}}, stop_when = {yy = 0.1}"
      assert.same(2, status)
      assert.matches("stop_when: unknown metric 'yy': did you mean 'y'?", said, 1, true)
    end)
end)

describe("a budget", function()
  it("that is spent leaves the other trials to the next run", function()
    local script, dir = run.script(head .. [[grid = {a = {1, 2, 3}}, rounds = 1, budget = 0.05,
      trial = function(p) require "luv".sleep(100) return {y = p.a} end}]]), run.folder()
    local command = ("run %s --out %s"):format(script, dir)
    local said, status = run.attune(command)
    assert.same(0, status, said)
    assert.truthy(said:find "budget of 0.05 s is spent: 2 trials not measured", said)
    run.attune(command)
    run.attune(command)
    assert.same(3, #assert(store.read(dir)).points)
    run.remove(script, dir)
  end)
end)

describe("--retry-failed", function()
  it("runs only what was tried and has no result", function()
    local script, dir = run.script(head .. [[grid = {a = {1, 2, 3}}, rounds = 1,
      trial = function(p)
        if p.a == 2 and not os.getenv "FIXED" then error "not yet" end
        return {y = p.a}
      end}]]), run.folder()
    local command = ("run %s --out %s"):format(script, dir)
    assert.same(1, select(2, run.attune(command .. " --only 'a < 3'")))
    local again = "FIXED=1 $ATTUNE_BUILD_DIR/attune %s --retry-failed 2>&1"
    local pipe = io.popen(again:format(command))
    pipe:read "a"
    pipe:close()
    local list = assert(store.read(dir)).points
    assert.same({"ok", "ok"}, {list[1].status, list[2].status})
    assert.same(2, #list)
    run.remove(script, dir)
  end)
end)
