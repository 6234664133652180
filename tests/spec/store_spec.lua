-- Results on disk: what a record holds, the first version of the files, and the commands that
-- query, join and clean folders.
local files = require "attune.util.files"
local json = require "attune.util.json"
local run = require "tests.support.run"
local store = require "attune.results.store"
local text = require "attune.util.text"
local uv = require "luv"

local head = [[return require "attune.experiment" {name = "t", about = "a test", timing = false,
]]

-- Runs a script in a new folder. Returns the folder and the script.
local function measured(body, options)
  local script, dir = run.script(head .. body .. "}"), run.folder()
  local said, status = run.attune(("run %s --out %s %s"):format(script, dir, options or ""))
  assert.same(0, status, said)
  return dir, script
end

local function lines_of(dir)
  local lines = {}
  for _, name in ipairs(files.list(dir .. "/trials")) do
    for line in (files.read(dir .. "/trials/" .. name) or ""):gmatch "[^\n]+" do
      lines[#lines + 1] = line
    end
  end
  return lines
end

local function copy_of(dir)
  local to = run.folder()
  os.execute(("cp -r '%s' '%s'"):format(dir, to))
  return to
end

-- Every file of a folder with its content.
local function contents(dir)
  local all = {}
  for _, folder in ipairs {dir, dir .. "/trials", dir .. "/plots"} do
    for _, name in ipairs(files.list(folder)) do
      all[folder .. "/" .. name] = files.read(folder .. "/" .. name) or "a folder"
    end
  end
  return all
end

describe("a record", function()
  it("without samples is a line of less than 400 bytes", function()
    local dir, script = measured [[fixed = {heads = 32, head_dim = 128, batch = 8, dtype = "bf16"},
      grid = {kv_heads = {1, 8}, context = {4096}, engine = {"decode"}, model = {"llama2-7b"}},
      trial = function(p) return {decode_seconds = p.kv_heads / 7, cache_bytes = 123456789012,
        peak_bytes = 123456789012} end]]
    local lines = lines_of(dir)
    assert.same(1 + 6, #lines)
    for i = 2, #lines do assert.is_true(#lines[i] < 400, lines[i]) end
    run.remove(dir, script)
  end)
  it("tells neither the machine's name nor the user's home, unless asked", function()
    local home, host = run.folder(), uv.os_gethostname()
    assert(files.make_folder(home .. "/lab"))
    assert(files.write(home .. "/lab/x.lua", head .. [[grid = {a = {1, 2}}, rounds = 1,
      trial = function(p, t)
        t:warn("see " .. os.getenv "HOME" .. "/lab")
        if p.a == 2 then error "no" end
        return {y = 1}
      end}]]))
    local command = "cd %s && HOME=%s $OLDPWD/$ATTUNE_BUILD_DIR/attune run %s/lab/x.lua "
      .. "--out %s/out %s 2>&1"
    local function all_files(options)
      local pipe = io.popen(command:format(home, home, home, home, options))
      pipe:read "a"
      pipe:close()
      local parts = {}
      for path, content in pairs(contents(home .. "/out")) do
        parts[#parts + 1] = path:sub(#home + 1) .. content
      end
      return table.concat(parts, "\n")
    end
    local said = all_files ""
    assert.is_nil(said:find(home, 1, true))
    assert.is_nil(said:find('"host"', 1, true))
    assert.truthy(said:find('"script":"~/lab/x.lua"', 1, true))
    assert.truthy(said:find('"warnings":["see ~/lab"]', 1, true))
    assert.truthy(said:find("~/lab/x.lua:5: no", 1, true), said)
    assert.truthy(all_files "--fresh --host":find(('"host":"%s"'):format(host), 1, true))
    run.remove(home)
  end)
  it("keeps every digit of a number, and not more than needed", function()
    local state = test_seed
    for i = 1, 2000 do
      state = state * 6364136223846793005 + 1442695040888963407
      local x = string.unpack("d", string.pack("i8", state))
      if i % 2 == 0 then x = (state >> 40) / 1000 end
      if x == x and math.abs(x) < math.huge then
        local line = json.encode {x, -x, "1.2345678901234567890", 0.1}
        local back = assert(json.decode(line))
        assert.same(x, back[1])
        assert.same(-x, back[2])
        assert.same("float", math.type(back[1]))
        assert.truthy(line:find('"1.2345678901234567890",0.1]', 1, true), line)
      end
    end
    assert.same('{"a\\"0.30000000000000004":0.3}', json.encode {['a"0.30000000000000004'] = 0.3})
    assert.same("[0.30000000000000004,1e-07,1.0]", json.encode {0.1 + 0.2, 1e-7, 1.0})
  end)
end)

describe("the home folder in a text", function()
  it("is written ~ where it is a whole name", function()
    local home = "/home/ann"
    for given, expected in pairs {
      ["/home/ann/x"] = "~/x", ["/home/ann"] = "~", ["/home/anna/x"] = "/home/anna/x",
      ["a /home/ann/x:3: b"] = "a ~/x:3: b", ["--out=/home/ann/y"] = "--out=~/y",
      ["/mnt/home/ann/x"] = "/mnt/home/ann/x", ["/home/ann/home/ann"] = "~/home/ann",
      ["'/home/ann/a b'"] = "'~/a b'",
    } do
      assert.same(expected, text.without_home(given, home))
    end
    for _, none in ipairs {"", "/"} do assert.same("/a", text.without_home("/a", none)) end
    assert.same("/a", text.without_home("/a"))
  end)
end)

describe("a folder of the first version", function()
  it("is read, shown, exported and plotted as ever", function()
    local dir = copy_of "tests/golden/results_v1"
    local results = assert(store.read(dir))
    assert.same({}, {table.unpack(results.warnings, 11)})
    assert.same("version_1", results.name)
    local status, y = {}, {}
    for i, point in ipairs(results.points) do
      status[i], y[i] = point.status, point.metrics.y and point.metrics.y.centre or false
    end
    assert.same({"ok", "ok", "ok", "failed", "ok", "skipped"}, status)
    assert.near(1.15, y[1], 1e-12)
    assert.near(2.15, y[3], 1e-12)
    assert.same(math.huge, y[5])
    assert.is_true(results.points[5].metrics.z.centre ~= results.points[5].metrics.z.centre)
    assert.same({1, 2, 4}, results.points[1].metrics.z.samples[2])
    assert.same("somehost", results.provenance[1].host)
    assert.same("held", results.claims[1].verdict)
    for _, command in ipairs {
      "show %s", "export %s --csv -", "query %s 'a == 1'", "status %s", "gc %s", "plot %s",
      "report %s",
    } do
      local said, code = run.attune(command:format(dir))
      assert.same(0, code, command .. said)
    end
    assert.same(6, #assert(store.read(dir)).points)
    run.remove(dir)
  end)
  it("is measured again by a run, with the reason", function()
    local dir, script = measured [[grid = {a = {1}}, rounds = 1,
      trial = function() return {y = 1} end]]
    local name = files.list(dir .. "/trials")[1]
    local old = files.read(dir .. "/trials/" .. name):gsub('"schema":2', '"schema":1')
      :gsub('"index":1,', '"index":1,"schema":1,'):gsub('"hash":"%x+"', '"hash":"0123456789abcdef"')
    os.remove(dir .. "/trials/" .. name)
    assert(files.write(dir .. "/trials/20200101T000000Z-h-1.jsonl", old))
    local said = run.attune(("run %s --out %s --dry"):format(script, dir))
    assert.truthy(said:find "1 point to be measured again, as an earlier form of the files", said)
    said = run.attune(("run %s --out %s --keep"):format(script, dir))
    assert.truthy(said:find "Nothing was left to measure", said)
    run.remove(dir, script)
  end)
end)

describe("the files of trials", function()
  it("are numbered in the order of the runs, whatever the clock says", function()
    local dir, script = measured "grid = {a = {1, 2}}, trial = function() return {y = 1} end"
    run.attune(("run %s --out %s --rounds 5"):format(script, dir))
    local names = files.list(dir .. "/trials")
    assert.truthy(names[1]:find "^run00001%-" and names[2]:find "^run00002%-")
    run.remove(dir, script)
  end)
end)

describe("attune query", function()
  local dir, script = measured [[grid = {a = {1, 2, 3}, kind = {"x", "y"}}, rounds = 2,
    trial = function(p)
      if p.a == 3 then return nil, "no" end
      return {y = p.a / 2, ["tokens/s"] = {p.a, 3}}
    end]]
  local function rows(expr)
    local said, status = run.attune(("query %s %s --json"):format(dir, text.shell_quote(expr)))
    assert.same(0, status, said)
    return json.decode(said)
  end
  it("finds points by parameters, metrics, intervals and status", function()
    assert.same(2, #rows "a == 1")
    assert.same(1, #rows "y >= 1 and kind == 'x'")
    assert.same(2, #rows "status == 'skipped'")
    assert.same(4, #rows "y.lo <= y and y <= y.hi")
    assert.same(2, #rows "`tokens/s` * 2 > 4.5")
    assert.same(2, #rows "y == nil")
    assert.same({}, rows "y > 100")
    local row = rows "a == 2 and kind == 'y'"[1]
    assert.same({2, "y", "ok", 1, 2.5}, {row.a, row.kind, row.status, row.y, row["tokens/s"]})
  end)
  it("prints a table, and tells misuse", function()
    local said, status = run.attune(("query %s 'a < 3'"):format(dir))
    assert.same(0, status)
    assert.truthy(said:find "kind" and said:find "4 of 6 points\n$", said)
    assert.truthy(run.attune(("query %s 'a < 0'"):format(dir)):find "^0 of 6 points\n$")
    for expr, pattern in pairs {
      ["yy > 1"] = "condition: unknown name 'yy': did you mean 'y'",
      ["a > kind"] = "two numbers or two texts", ["os.exit(1)"] = "unknown name 'os.exit'",
    } do
      said, status = run.attune(("query %s %s"):format(dir, text.shell_quote(expr)))
      assert.same(2, status)
      assert.truthy(said:find("attune query: ", 1, true) and said:find(pattern, 1, true), said)
    end
    assert.same(2, select(2, run.attune "query /nonexistent 'a == 1'"))
  end)
  it("reads the same points as the export with samples", function()
    local csv = run.attune(("export %s --csv - --samples"):format(dir))
    local count = select(2, csv:gsub("\n", ""))
    assert.truthy(csv:find "^a,kind,metric,round,sample,value\n")
    assert.truthy(csv:find "\n2,y,tokens/s,2,1,2\n2,y,tokens/s,2,2,3\n")
    assert.same(1 + 4 * 2 * 3, count)
  end)
  it("takes its folder away", function() run.remove(dir, script) end)
end)

describe("attune status", function()
  it("counts what is there and what is left", function()
    local dir, script = measured([[grid = {a = {1, 2, 3, 4}}, rounds = 2, trial = function(p)
      if p.a == 4 then return nil, "no" end
      return {y = 1} end]], "--rounds 1")
    local said, status = run.attune("status " .. dir)
    assert.same(0, status)
    assert.truthy(said:find "t: 3 ok, 1 skipped; 0 of 4 left\nNo run is writing", said)
    os.execute(("sed -i 's/\"rounds\":1/\"rounds\":2/' %s/experiment.json"):format(dir))
    local s = json.decode((run.attune(("status %s --json"):format(dir))))
    assert.same({3, false, 8 - 3 - 2}, {s.trials.ok, s.running, s.left})
    local lock = require "attune.results.lock"
    local held = lock.take(dir, print)
    assert.truthy(run.attune("status " .. dir):find "A run is writing to this folder")
    lock.release(held)
    run.remove(dir, script)
  end)
end)

describe("attune status of a run with stop_when", function()
  it("counts no rounds that the run does not need", function()
    local dir, script = measured [[grid = {a = {1, 2}}, rounds = 10, stop_when = {y = 0.05},
      trial = function(p) return {y = p.a} end]]
    local said = run.attune("status " .. dir)
    assert.matches("t: 6 ok; 0 of 20 left", said, 1, true)
    assert.same(0, json.decode((run.attune(("status %s --json"):format(dir)))).left)
    run.remove(dir, script)
  end)
end)

describe("attune status of a folder", function()
  it("counts no more rounds of a point than the run asks for, and all points of a merge", function()
    local dir, script = measured([[grid = {a = {1, 2, 3, 4}}, rounds = 3,
      trial = function(p) return {y = p.a} end]], "--rounds 6 --only 'a < 3'")
    local body = files.read(dir .. "/experiment.json"):gsub('"points":2', '"points":4')
    assert(files.write(dir .. "/experiment.json", (body:gsub('"rounds":6', '"rounds":3'))))
    assert.matches("t: 12 ok; 6 of 12 left", (run.attune("status " .. dir)), 1, true)
    local other, out = run.folder(), run.folder()
    run.attune(("run %s --out %s --only 'a > 2' --rounds 6"):format(script, other))
    assert.same(0, select(2, run.attune(("merge %s %s --out %s"):format(dir, other, out))))
    assert.matches("t: 24 ok; 0 of 24 left", (run.attune("status " .. out)), 1, true)
    run.remove(dir, other, out, script)
  end)
end)

describe("attune gc", function()
  it("removes what does not count and changes no result", function()
    local dir, script = measured [[grid = {a = {1, 2}}, rounds = 2,
      trial = function(p) return {y = p.a} end]]
    run.attune(("run %s --out %s --fresh"):format(script, dir))
    local name = dir .. "/trials/" .. files.list(dir .. "/trials")[2]
    local lines = lines_of(dir)
    local failed = lines[2]:gsub('"ok"', '"failed"'):gsub('"round":1', '"round":3')
    local more = {failed, (failed:gsub('"failed"', '"ok"')), lines[3], "torn {", ""}
    local content = table.concat(lines, "\n") .. "\n" .. table.concat(more, "\n")
    assert(files.write(name, content))
    local before = assert(store.read(dir)).points
    local dry = run.attune(("gc %s --dry"):format(dir))
    assert.same(content, files.read(name))
    local said, status = run.attune("gc " .. dir)
    assert.same(0, status)
    assert.same((dry:gsub("would be ", "")), said)
    assert.truthy(said:find "2 records of trials that were tried again", said)
    assert.truthy(said:find "1 line that is no record\n1 file of earlier runs", said)
    assert.same(before, assert(store.read(dir)).points)
    assert.same("Nothing to remove.\n", (run.attune("gc " .. dir)))
    assert.same(6, #lines_of(dir))
    run.remove(dir, script)
  end)
end)

-- "a rounds" of each point of a folder, with the value of its last round.
local function values_of(dir)
  local list = {}
  for i, point in ipairs(assert(store.read(dir)).points) do
    local value = point.metrics.y
    list[i] = ("%d: %s"):format(point.parameters.a, table.concat(value.values, " "))
  end
  return table.concat(list, ", ")
end

describe("attune run --fresh", function()
  local body = [[grid = {a = {1, 2, 3}}, quick = {a = {2}, rounds = 1}, rounds = 2,
    trial = function(p) return {y = tonumber(os.getenv "Y")} end]]
  local function run_with(y, script, dir, options)
    uv.os_setenv("Y", y)
    local said, status = run.attune(("run %s --out %s %s"):format(script, dir, options))
    uv.os_unsetenv "Y"
    assert.same(0, status, said)
  end
  it("measures the points of the run again, and leaves the others", function()
    uv.os_setenv("Y", "1")
    local dir, script = measured(body)
    run_with("2", script, dir, "--fresh --only 'a == 2'")
    assert.same("1: 1 1, 2: 2 2, 3: 1 1", values_of(dir))
    run_with("3", script, dir, "--fresh --set a=3")
    assert.same("1: 1 1, 2: 2 2, 3: 3 3", values_of(dir))
    run_with("4", script, dir, "--fresh --quick")
    assert.same("1: 1 1, 2: 4, 3: 3 3", values_of(dir))
    local old = ""
    for _, name in ipairs(files.list(dir .. "/trials/old")) do
      old = old .. files.read(("%s/trials/old/%s"):format(dir, name))
    end
    assert.same(6, select(2, old:gsub('"hash"', "")))
    run_with("5", script, dir, "--fresh")
    assert.same("1: 5 5, 2: 5 5, 3: 5 5", values_of(dir))
    run.remove(dir, script)
  end)
  it("sets aside the records of the seeds of the run", function()
    uv.os_setenv("Y", "1")
    local dir, script = measured((body:gsub("rounds = 2", "seeds = {1, 2}")))
    run_with("2", script, dir, "--fresh --set seed=2 --only 'a == 1'")
    run_with("3", script, dir, "")
    assert.same("1: 1 2, 2: 1 1, 3: 1 1", values_of(dir))
    run.remove(dir, script)
  end)
  it("is refused beside --retry-failed, which would lose what is measured", function()
    local dir, script = measured "grid = {a = {1}}, trial = function() return {y = 1} end"
    local said, status = run.attune(("run %s --out %s --fresh --retry-failed"):format(script, dir))
    assert.same(2, status)
    assert.matches("--fresh: expected no --retry-failed beside it", said, 1, true)
    assert.falsy(files.kind(dir .. "/trials/old"))
    run.remove(dir, script)
  end)
  it("overwrites no file of an earlier run", function()
    uv.os_setenv("Y", "1")
    local dir, script = measured(body)
    for _, y in ipairs {"2", "3"} do
      local name = files.list(dir .. "/trials")[1]
      if name == "old" then name = files.list(dir .. "/trials")[2] end
      os.rename(("%s/trials/%s"):format(dir, name), dir .. "/trials/run00001.jsonl")
      run_with(y, script, dir, "--fresh")
    end
    assert.same({"run00001-2.jsonl", "run00001.jsonl"}, files.list(dir .. "/trials/old"))
    run.remove(dir, script)
  end)
end)

describe("attune merge", function()
  local body = "grid = {a = {1, 2, 3}}, rounds = 2, trial = function(p) return {y = p.a} end"
  it("joins folders and leaves them as they are", function()
    local dir, script = measured(body, "--only 'a < 3'")
    local other, out = run.folder(), run.folder()
    run.attune(("run %s --out %s --only 'a > 1'"):format(script, other))
    local before = {contents(dir), contents(other)}
    local said, status = run.attune(("merge %s %s --out %s"):format(dir, other, out))
    assert.same(0, status, said)
    assert.truthy(said:find(out .. ": 6, as 2 are in more than one", 1, true), said)
    assert.same(before, {contents(dir), contents(other)})
    local results = assert(store.read(out))
    assert.same({3, 2}, {#results.points, results.points[2].rounds})
    assert.truthy(run.attune(("run %s --out %s"):format(script, out)):find "Nothing was left")
    assert.same(2, select(2, run.attune(("merge %s %s --out %s"):format(dir, other, out))))
    run.remove(dir, other, out, script)
  end)
  it("refuses other experiments, and is told of another script", function()
    local dir, script = measured(body)
    local other, other_script = measured((body:gsub("y = p.a", "y = p.a + 1")))
    local out = run.folder()
    local said, status = run.attune(("merge %s %s --out %s"):format(dir, other, out))
    assert.same(0, status, said)
    assert.truthy(said:find "different versions of the script", said)
    assert.same(2.0, assert(store.read(out)).points[1].metrics.y.centre)
    os.execute(("sed -i 's/\"name\":\"t\"/\"name\":\"u\"/' %s/experiment.json"):format(other))
    local none = run.folder()
    said, status = run.attune(("merge %s %s --out %s"):format(dir, other, none))
    assert.same(2, status)
    assert.truthy(said:find "expected results of 't', as in .*, got those of 'u'", said)
    assert.is_nil(files.kind(none))
    run.remove(dir, other, out, script, other_script)
  end)
end)

describe("rows of samples", function()
  local rows = require "attune.results.rows"

  it("name the seed where seeds are declared", function()
    local results = {
      parameters = {"n"}, metrics = {{name = "m"}}, seeds = {7, 9},
      points = {{parameters = {n = 1}, metrics = {
        m = {samples = {{0.5}, {0.25}}, rounds = {1, 2}},
      }}},
    }
    local columns, list = rows.of_samples(results)
    assert.same({"n", "seed", "metric", "round", "sample", "value"}, columns)
    assert.same({7, 9}, {list[1].seed, list[2].seed})
    results.seeds = nil
    assert.same({"n", "metric", "round", "sample", "value"}, (rows.of_samples(results)))
  end)
end)
