-- Folders of results from strangers: whatever is in them, a command ends with one clear line and
-- status 2, or leaves the bad part out; nothing outside the folder is read or written.
local files = require "attune.util.files"
local json = require "attune.util.json"
local reader = require "attune.results.reader"
local run = require "tests.support.run"
local store = require "attune.results.store"
local uv = require "luv"

local function description()
  return {
    schema = 1, name = "t", about = "a", quick = false, script = "x.lua", rounds = 2,
    command = "attune run x.lua", parameters = json.list {"a"},
    metrics = json.list {{name = "y", unit = "s"}},
    plots = json.list {{kind = "line", x = "a", y = "y"}}, claims = json.list {"c"},
  }
end

local function record(a, round)
  return {
    schema = 1, hash = ("%016x"):format(a), index = a, round = round, attempt = 1, status = "ok",
    seed = 1, parameters = {a = a}, metrics = {y = {samples = {1.5, 2.5}}}, seconds = 0.1, load = 0,
    warnings = json.list {"w"},
  }
end

local function header() return {schema = 1, header = {time = "now", cpu = "c", cores = 2}} end

-- A folder of results; change edits the tables before they are written.
local function folder_of(change)
  local dir = run.folder()
  assert(files.make_folder(dir .. "/trials"))
  local parts = {
    description = description(),
    lines = {header(), record(1, 1), record(2, 1), record(1, 2), record(2, 2)},
    claims = json.list {{text = "c", verdict = "held", detail = "d"}},
  }
  if change then change(parts) end
  local function text_of(value) return type(value) == "string" and value or json.encode(value) end
  assert(files.write(dir .. "/experiment.json", text_of(parts.description)))
  if parts.claims then assert(files.write(dir .. "/claims.json", text_of(parts.claims))) end
  local lines = {}
  for i, line in ipairs(parts.lines) do lines[i] = text_of(line) end
  assert(files.write(dir .. "/trials/1.jsonl", table.concat(lines, "\n") .. "\n"))
  return dir
end

local function quoted(path) return "'" .. path:gsub("'", "'\\''") .. "'" end

-- Every command that reads a folder: no traceback, no control characters.
local function check_commands(dir, wanted)
  for _, command in ipairs {
    "show %s", "export %s --csv -", "export %s --json -", "history %s", "history %s --json -",
  } do
    local said, status = run.attune(command:format(quoted(dir)))
    assert.is_nil(said:find("traceback", 1, true), said)
    assert.is_nil(said:find("[\27\7]"), said)
    assert.same(wanted, status, said)
    if wanted == 2 then
      local _, lines = said:gsub("\n", "")
      assert.same(1, lines, said)
    end
  end
end

describe("a malformed description", function()
  local deep = ("["):rep(3000) .. ("]"):rep(3000)
  local cases = {
    ["no object"] = function(p) p.description = "[]" end,
    ["null"] = function(p) p.description = "null" end,
    ["cut short"] = function(p) p.description = '{"schema":1,"na' end,
    ["deep"] = function(p) p.description = deep end,
    ["no name"] = function(p) p.description.name = nil end,
    ["a name with a path"] = function(p) p.description.name = "../x" end,
    ["a name of the wrong type"] = function(p) p.description.name = {} end,
    ["a long name"] = function(p) p.description.name = ("x"):rep(1000) end,
    ["a newer schema"] = function(p) p.description.schema = 99 end,
    ["no schema"] = function(p) p.description.schema = nil end,
    ["an about of the wrong type"] = function(p) p.description.about = {1} end,
    ["rounds as a text"] = function(p) p.description.rounds = "2" end,
    ["parameters as a text"] = function(p) p.description.parameters = "a" end,
    ["parameters of numbers"] = function(p) p.description.parameters = {1, 2} end,
    ["parameters with a null"] = function(p) p.description.parameters = {"a", json.null, "b"} end,
    ["no parameters"] = function(p) p.description.parameters = nil end,
    ["too many parameters"] = function(p)
      for i = 1, 5000 do p.description.parameters[i] = "p" .. i end
    end,
    ["metrics of texts"] = function(p) p.description.metrics = {"y"} end,
    ["a metric without a name"] = function(p) p.description.metrics = {{unit = "s"}} end,
    ["a unit of the wrong type"] = function(p) p.description.metrics[1].unit = 3 end,
    ["a unit of 100 kB"] = function(p) p.description.metrics[1].unit = ("x"):rep(100000) end,
    ["better of another word"] = function(p) p.description.metrics[1].better = "faster" end,
    ["plots of texts"] = function(p) p.description.plots = {"line"} end,
    ["a kind that is a module"] = function(p) p.description.plots[1].kind = "init" end,
    ["a kind that is a path"] = function(p) p.description.plots[1].kind = "../../x" end,
    ["a kind of the wrong type"] = function(p) p.description.plots[1].kind = {} end,
    ["a plot's name with a path"] = function(p) p.description.plots[1].name = "../../x" end,
    ["a plot's name that is a path"] = function(p) p.description.plots[1].name = "/tmp/x" end,
    ["a plot without x"] = function(p) p.description.plots[1].x = nil end,
    ["a plot with x of a wrong type"] = function(p) p.description.plots[1].x = {1} end,
    ["a heat map without a value"] = function(p) p.description.plots[1].kind = "heat" end,
    ["a plot's log"] = function(p) p.description.plots[1].log = "z" end,
    ["a plot's where"] = function(p) p.description.plots[1].where = {a = {{1}}} end,
    ["a plot's order"] = function(p) p.description.plots[1].order = {x = 1} end,
    ["a title of the wrong type"] = function(p) p.description.plots[1].title = {} end,
    ["claims of numbers"] = function(p) p.description.claims = {1} end,
    ["too many plots"] = function(p)
      for i = 1, 1001 do p.description.plots[i] = {kind = "line", x = "a", y = "y"} end
    end,
    ["a command of the wrong type"] = function(p) p.description.command = {} end,
  }
  it("is one line and status 2", function()
    for name, change in pairs(cases) do
      local dir = folder_of(change)
      local ok, results, why = pcall(store.read, dir)
      assert.is_true(ok, name)
      assert.is_nil(results, name)
      assert.truthy(why:find "expected", name .. ": " .. why)
      run.remove(dir)
    end
    for _, name in ipairs {"deep", "a kind that is a path", "a unit of 100 kB", "no name"} do
      local dir = folder_of(cases[name])
      check_commands(dir, 2)
      for _, command in ipairs {"plot", "report"} do
        local said, status = run.attune(command .. " " .. dir)
        assert.same(2, status, said)
      end
      assert.is_nil(files.kind(dir .. "/plots"))
      run.remove(dir)
    end
  end)
end)

describe("a malformed record", function()
  local cases = {
    ["deep JSON"] = ("["):rep(100000) .. ("]"):rep(100000),
    ["text"] = "hello \27[31m",
    ["a number"] = "3",
    ["null"] = "null",
    ["cut short"] = '{"schema":1,"hash":"00',
    ["no hash"] = function(r) r.hash = nil end,
    ["a hash of the wrong type"] = function(r) r.hash = {1} end,
    ["a long hash"] = function(r) r.hash = ("0"):rep(10000) end,
    ["an index as a text"] = function(r) r.index = "1" end,
    ["no index"] = function(r) r.index = nil end,
    ["an index with a fraction"] = function(r) r.index = 1.5 end,
    ["a round as a table"] = function(r) r.round = {} end,
    ["round zero"] = function(r) r.round = 0 end,
    ["another status"] = function(r) r.status = "great" end,
    ["a status as a list"] = function(r) r.status = {1} end,
    ["a reason as a table"] = function(r) r.status, r.reason = "failed", {1} end,
    ["no parameters"] = function(r) r.parameters = nil end,
    ["parameters as a text"] = function(r) r.parameters = "a" end,
    ["a parameter as a table"] = function(r) r.parameters.a = {1} end,
    ["metrics as a list"] = function(r) r.metrics = {1, 2} end,
    ["metrics as a number"] = function(r) r.metrics = 7 end,
    ["a metric as a text"] = function(r) r.metrics.y = "fast" end,
    ["samples as a text"] = function(r) r.metrics.y = {samples = "fast"} end,
    ["no samples"] = function(r) r.metrics.y = {} end,
    ["samples of texts"] = function(r) r.metrics.y = {samples = {"a"}} end,
    ["samples of tables"] = function(r) r.metrics.y = {samples = {{{}}}} end,
    ["samples with a null"] = function(r) r.metrics.y = {samples = {1, json.null, 2}} end,
    ["warnings as a text"] = function(r) r.warnings = "w" end,
    ["warnings of tables"] = function(r) r.warnings = {{}} end,
    ["seconds as a table"] = function(r) r.seconds = {} end,
    ["a long name of a metric"] = function(r) r.metrics[("m"):rep(10000)] = 1 end,
    ["too many metrics"] = function(r)
      for i = 1, 2000 do r.metrics["m" .. i] = 1 end
    end,
  }
  it("is reported and skipped, and the others are read", function()
    for name, change in pairs(cases) do
      local dir = folder_of(function(p)
        local line = change
        if type(change) == "function" then
          line = record(2, 1)
          change(line)
        end
        p.lines[3] = line
      end)
      local ok, results = pcall(store.read, dir)
      assert.is_true(ok, name .. ": " .. tostring(results))
      assert.same(2, #results.points, name)
      assert.same(2, results.points[1].rounds, name)
      assert.same(1, results.points[2].rounds, name)
      local found = table.concat(results.warnings, "\n")
      local expected = "trials/1.jsonl: line 3 is no record: "
      assert.truthy(found:find(expected, 1, true), name .. ": " .. found)
      run.remove(dir)
    end
    local dir = folder_of(function(p) p.lines[3] = cases["deep JSON"] end)
    check_commands(dir, 0)
    run.remove(dir)
  end)
  it("does not flood the warnings", function()
    local dir = folder_of(function(p)
      for i = 1, 5000 do p.lines[#p.lines + 1] = "bad" .. i end
    end)
    local results = assert(store.read(dir))
    assert.is_true(#results.warnings < 50)
    assert.truthy(table.concat(results.warnings, "\n"):find "and 4980 more lines are no records")
    run.remove(dir)
  end)
  it("may be a header, and claims may be malformed, too", function()
    local dir = folder_of(function(p)
      p.lines[1] = {schema = 1, header = {cpu = {}, git = 3}}
      p.claims = {{text = {}, verdict = "true"}}
    end)
    local results = assert(store.read(dir))
    assert.same(0, #results.provenance)
    assert.same({}, results.claims)
    local warnings = table.concat(results.warnings, "\n")
    assert.truthy(warnings:find "line 1 is no record: header" and warnings:find "claims.json")
    run.remove(dir)
  end)
end)

describe("a mutated folder", function()
  it("never raises an error when it is read", function()
    local count = tonumber(os.getenv "ATTUNE_FUZZ_FOLDERS") or 200
    local state = test_seed
    local function random(n)
      state = (state * 6364136223846793005 + 1442695040888963407)
      return (state >> 33) % n + 1
    end
    local values = {
      "", "x", "../../x", "\27[31m", ("x"):rep(70000), -1, 0, 1.5, 1 << 60, true, json.null, "NaN",
      "Infinity", json.list(), {}, {a = 1}, {1, 2}, {{}}, {samples = {}},
    }
    -- Replaces or deletes a random field of a table, or of a table inside it.
    local function mutate(t)
      local keys = {}
      for k in pairs(t) do keys[#keys + 1] = k end
      table.sort(keys, function(x, y) return tostring(x) < tostring(y) end)
      if #keys == 0 then return end
      local key = keys[random(#keys)]
      if type(t[key]) == "table" and random(3) > 1 then return mutate(t[key]) end
      if random(5) == 1 and type(key) == "string" then t[key] = nil
      else t[key] = values[random(#values)] end
    end
    for i = 1, count do
      local dir = folder_of(function(p)
        for _ = 1, random(3) do mutate(p) end
        if type(p.lines) ~= "table" then p.lines = {} end
        for j, line in ipairs(p.lines) do
          if random(20) == 1 then
            local whole = type(line) == "string" and line or json.encode(line)
            p.lines[j] = whole:sub(1, random(#whole + 1) - 1)
          end
        end
        for _, name in ipairs {"description", "claims"} do
          if type(p[name]) ~= "table" and type(p[name]) ~= "string" then p[name] = "1" end
        end
        for j, line in pairs(p.lines) do
          if type(j) ~= "number" then p.lines[j] = nil
          elseif type(line) ~= "table" then p.lines[j] = tostring(line) end
        end
      end)
      local ok, results, why = pcall(store.read, dir)
      assert.is_true(ok, ("folder %d of seed %d: %s"):format(i, test_seed, tostring(results)))
      if results then
        local results_table = require "attune.cli.results_table"
        local shown, lines = pcall(results_table, results)
        assert.is_true(shown, ("folder %d of seed %d: %s"):format(i, test_seed, tostring(lines)))
      else
        assert.is_string(why)
      end
      run.remove(dir)
    end
  end)
end)

describe("a link in a folder of results", function()
  local function victim_of(dir)
    local victim = dir .. ".victim"
    assert(files.make_folder(victim))
    assert(files.write(victim .. "/file", "precious"))
    return victim
  end
  local function untouched(victim)
    assert.same({"file"}, files.list(victim))
    assert.same("precious", files.read(victim .. "/file"))
  end
  local script = [[return require "attune.experiment" {name = "t", grid = {a = {1, 2}}, rounds = 1,
    timing = false, trial = function(p) return {y = p.a} end,
    plots = {{kind = "line", x = "a", y = "y"}}}]]
  it("in place of a file that attune writes is replaced, its target stays", function()
    local dir = folder_of()
    local victim = victim_of(dir)
    assert(files.make_folder(dir .. "/plots"))
    for _, name in ipairs {"report.html", "report.md", "plots/01-y.svg", "plots/01-y.png"} do
      assert(uv.fs_symlink(victim .. "/file", dir .. "/" .. name))
    end
    for _, command in ipairs {"plot", "report"} do
      local said, status = run.attune(command .. " " .. dir)
      assert.same(0, status, said)
    end
    untouched(victim)
    assert.same("file", files.kind_inside(dir .. "/report.html"))
    run.remove(dir, victim)
  end)
  it("in place of a folder or of a file that is read is refused", function()
    for _, name in ipairs {"plots", "trials", "experiment.json"} do
      local dir = folder_of()
      local victim = victim_of(dir)
      run.remove(dir .. "/" .. name)
      local target = name == "experiment.json" and victim .. "/file" or victim
      assert(uv.fs_symlink(target, dir .. "/" .. name))
      local path = run.script(script)
      for _, command in ipairs {"plot ", "report ", "show ", ("run %s --out "):format(path)} do
        local said, status = run.attune(command .. dir)
        assert.same(2, status, command .. name .. said)
        assert.truthy(said:find "link", said)
      end
      untouched(victim)
      run.remove(dir, victim, path)
    end
  end)
  it("in place of records or claims is skipped and said", function()
    local dir = folder_of()
    local victim = victim_of(dir)
    run.remove(dir .. "/claims.json")
    assert(uv.fs_symlink(victim .. "/file", dir .. "/trials/2.jsonl"))
    assert(uv.fs_symlink(victim .. "/file", dir .. "/claims.json"))
    assert(os.execute("mkfifo " .. dir .. "/trials/3.jsonl"))
    local results = assert(store.read(dir))
    local warnings = table.concat(results.warnings, "\n")
    assert.truthy(warnings:find "2.jsonl is skipped: .*symbolic link", warnings)
    assert.truthy(warnings:find "3.jsonl is skipped: .*FIFO", warnings)
    assert.truthy(warnings:find "claims.json is left out: .*symbolic link", warnings)
    run.remove(dir, victim)
  end)
end)

describe("names and texts of a stranger", function()
  it("reach the terminal without control characters", function()
    local bad = "\27]0;x\7\u{202e}\u{9b}31m\r\n"
    local dir = folder_of(function(p)
      p.description.about = bad
      p.description.metrics[1].unit = "\27[31m"
      p.description.metrics[2] = {name = "z" .. bad}
      for _, line in ipairs(p.lines) do
        if line.metrics then
          line.metrics["z" .. bad] = 1
          line.parameters.a = "v" .. line.index .. bad
          line.warnings = {bad}
        end
      end
      p.lines[5].status, p.lines[5].reason = "failed", bad
      p.claims[1].text, p.claims[1].detail = bad, bad
    end)
    local said, status = run.attune("show " .. dir)
    assert.same(0, status)
    assert.is_nil(said:gsub("\n", ""):find "%c", said)
    assert.is_nil(said:find "\u{202e}")
    assert.is_nil(said:find "\u{9b}")
    run.remove(dir)
  end)
end)

describe("what reader.records reads", function()
  it("is limited in size", function()
    local limits = require "attune.results.schema".limits
    local before = limits.record
    limits.record = 300
    local dir = folder_of(function(p) p.lines[2].warnings = {("w"):rep(400)} end)
    local records, _, warnings = reader.records(dir)
    limits.record = before
    assert.same(3, #records)
    assert.truthy(warnings[1]:find "expected at most 300 bytes")
    run.remove(dir)
  end)
end)
