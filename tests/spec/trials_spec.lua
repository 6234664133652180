-- Trials in processes: when one is used again, what is kept of a crash, several at a time, kills.
local files = require "attune.util.files"
local run = require "tests.support.run"
local store = require "attune.results.store"
local uv = require "luv"

local attune = os.getenv "ATTUNE_BUILD_DIR" or "build"
attune = (attune:sub(1, 1) == "/" and attune or uv.cwd() .. "/" .. attune) .. "/attune"

local head = [[return require "attune.experiment" {name = "t", about = "a test",
]]

-- Runs a script in a new folder. Returns the records, what was said, the folder and the script.
local function records_of(body, options, status_wanted)
  local script, dir = run.script(head .. body .. "}"), run.folder()
  local said, status = run.attune(("run %s --out %s %s"):format(script, dir, options or ""))
  assert.same(status_wanted or 0, status, said)
  local list = store.records(dir)
  table.sort(list, function(x, y)
    if x.round ~= y.round then return x.round < y.round end
    return x.index < y.index
  end)
  return list, said, dir, script
end

-- The values of a metric in the order of the points, and how many different ones there are.
local function metric(records, name)
  local values, seen, different = {}, {}, 0
  for i, record in ipairs(records) do
    local value = record.metrics and record.metrics[name] or false
    values[i] = value
    if not seen[value] then different = different + 1 end
    seen[value] = true
  end
  return values, different
end

local pid = 'pid = require "luv".os_getpid()'

describe("the name of a metric", function()
  it("is not that of another column of the results", function()
    local format = "timing = false, rounds = 1, grid = {y = {1}}, trial = function(p) "
      .. "return {%s} end"
    for returned, wanted in pairs {
      ["y = 10"] = "metric y: expected another name, as a parameter has this one",
      ["status = 1"] = "metric status: expected another name",
      ["m = 1, ['m.lo'] = 2"] = "metric m.lo: expected another name, as this is an end of",
      ["m = 1, ['m.hi'] = 2"] = "metric m.hi: expected another name, as this is an end of",
    } do
      local records, _, dir, script = records_of(format:format(returned), nil, 1)
      assert.same("failed", records[1].status)
      assert.matches(wanted, records[1].reason, 1, true)
      run.remove(dir, script)
    end
  end)
  it("is refused where it is declared", function()
    local format = "grid = {y = {1}}, metrics = {%s}, trial = function(p) return {} end"
    for declared, wanted in pairs {
      ["y = {}"] = "metrics.y: expected another name, as a parameter has this one",
      ["status = {}"] = "metrics.status: expected another name",
      ["m = {}, ['m.lo'] = {}"] = "metrics.m.lo: expected another name",
    } do
      local _, said, dir, script = records_of(format:format(declared), nil, 2)
      assert.matches(wanted, said, 1, true)
      run.remove(dir, script)
    end
  end)
end)

describe("a mistake of a trial", function()
  local function reason_of(body)
    local records, _, dir, script = records_of(("timing = false, rounds = 1, grid = {a = {1}}, "
      .. "trial = function(p, t) %s end"):format(body), nil, 1)
    run.remove(dir, script)
    return records[1].reason
  end
  it("is named without addresses of memory", function()
    assert.matches("^a table\n", reason_of "error({code = 3})")
    assert.matches("^seven\n",
      reason_of "error(setmetatable({}, {__tostring = function() return 'seven' end}))")
    assert.same("trial: y: expected a number or a list of numbers, got a table with a field 'a'",
      reason_of "return {y = {a = 1}}")
    assert.matches("warn: expected a text, got nil", reason_of "t:warn()", 1, true)
  end)
  it("is found in the options of t:time", function()
    for options, wanted in pairs {
      ["budget = -1"] = "time: budget: expected seconds of at least 0, got -1",
      ["spread = 0"] = "time: spread: expected a number above 0, got 0",
      ["least = 0.5"] = "time: least: expected an integer from 1, got 0.5",
      ["least = 9, most = 3"] = "time: least: expected at most 3, as most says, got 9",
    } do
      local reason = reason_of(("t:time(function() end, {%s})"):format(options))
      assert.matches(wanted, reason, 1, true)
      assert.matches("%.lua:2: time", reason)
    end
  end)
end)

describe("a script", function()
  it("may begin with a byte order mark", function()
    local script = run.script("\xEF\xBB\xBF" .. head .. "grid = {a = {1}}, trial = print}")
    local said, status = run.attune(("run %s --dry"):format(script))
    assert.same(0, status, said)
    run.remove(script)
  end)
end)

describe("a worker", function()
  it("runs one trial after the other", function()
    local records, _, dir, script = records_of("timing = false, rounds = 2, "
      .. "grid = {a = {1, 2, 3}}, trial = function(p) return {" .. pid .. "} end")
    assert.same({6, 1}, {#records, select(2, metric(records, "pid"))})
    run.remove(dir, script)
  end)
  it("runs one round, where trials are timed", function()
    local records, _, dir, script = records_of("rounds = 3, grid = {a = {1, 2, 3}}, "
      .. "trial = function(p) return {" .. pid .. "} end")
    local pids, different = metric(records, "pid")
    assert.same(3, different)
    assert.same(pids[1], pids[3])
    run.remove(dir, script)
  end)
  it("runs one trial with reuse = false", function()
    local records, _, dir, script = records_of("timing = false, reuse = false, rounds = 2, "
      .. "grid = {a = {1, 2, 3}}, trial = function(p) return {" .. pid .. "} end")
    assert.same(6, select(2, metric(records, "pid")))
    run.remove(dir, script)
  end)
  it("loads the script and its modules anew for each trial", function()
    local folder = run.folder()
    assert(files.make_folder(folder))
    assert(files.write(folder .. "/counted.lua", "local m = {n = 0} return m"))
    assert(files.write(folder .. "/x.lua", [[
      local n, counted = 0, require "counted"
      return require "attune.experiment" {name = "x", timing = false, grid = {a = {1, 2, 3}},
        rounds = 1, trial = function()
          n, counted.n = n + 1, counted.n + 1
          return {n = n, m = counted.n, ]] .. pid .. [[}
        end}]]))
    local said, status = run.attune(("run %s/x.lua --out %s/out"):format(folder, folder))
    assert.same(0, status, said)
    local records = store.records(folder .. "/out")
    assert.same({1, 1, 1}, (metric(records, "n")))
    assert.same({1, 1, 1}, (metric(records, "m")))
    assert.same(1, select(2, metric(records, "pid")))
    run.remove(folder)
  end)
  it("ends after a trial that leaves something behind", function()
    local left = {
      "LEFT = 1", "string.left = 1", "io.popen 'true':close()", "os.execute 'true'",
      "require 'luv'.os_setenv('LEFT', '1')", "require 'luv'.chdir '/'",
      "require('attune').kept = require('attune').zeros {10}", "error 'failed'",
      "require('attune').file = io.open '/dev/null'",
      "setmetatable(_G, {})",
    }
    for _, code in ipairs(left) do
      local records, _, dir, script = records_of(([[timing = false, rounds = 1,
        grid = {a = {1, 2, 3}}, trial = function(p)
          local result = {seen = LEFT or string.left or os.getenv "LEFT" or 0, %s}
          if p.a == 1 then %s end
          return result
        end]]):format(pid, code), "", code:find "^error" and 1 or 0)
      local pids = metric(records, "pid")
      assert.not_same(pids[1], pids[2], code)
      assert.same(pids[2], pids[3], code)
      assert.same({0, 0}, {table.unpack(metric(records, "seen"), 2)}, code)
      run.remove(dir, script)
    end
  end)
  it("goes on after a trial that closes what it opened", function()
    local records, _, dir, script = records_of([[timing = false, rounds = 1, grid = {a = {1, 2, 3}},
      trial = function(p)
        local x, file = require "attune".zeros {1000}, io.open "/dev/null"
        os.setlocale "C.UTF-8"
        return {y = x.nbytes, open = file and 1, ]] .. pid .. [[}
      end]])
    assert.same(1, select(2, metric(records, "pid")))
    run.remove(dir, script)
  end)
  it("gives a trial the same random numbers whatever ran before", function()
    local body = [[timing = false, rounds = 2, grid = {a = {1, 2, 3}}, trial = function(p)
      return {x = require "attune".randn({1}):item(), y = math.random()} end]]
    local all, _, dir, script = records_of(body)
    local one, _, other, other_script = records_of(body, "--only 'a == 3'")
    assert.same(6, select(2, metric(all, "x")))
    for i, round in ipairs {3, 6} do
      assert.same(all[round].metrics, one[i].metrics)
    end
    run.remove(dir, script, other, other_script)
  end)
end)

describe("a trial that ends its worker", function()
  it("is recorded with the signal and what it printed, and the next one runs", function()
    local records, said, dir, script = records_of([[timing = false, rounds = 1,
      grid = {a = {1, 2, 3}}, trial = function(p)
        print("trial", p.a)
        io.stderr:write "last words\n"
        local uv = require "luv"
        if p.a == 2 then uv.kill(uv.os_getpid(), "sigsegv") end
        return {y = p.a}
      end]], "", 1)
    assert.same("failed", records[2].status)
    assert.same("SIGSEGV", records[2].signal)
    assert.same("the worker was killed by SIGSEGV: last words", records[2].reason)
    assert.truthy(said:find "failed: a 2 %(round 1%): the worker was killed by SIGSEGV", said)
    for i, record in ipairs(records) do
      assert.truthy(record.output:find "last words\n", i)
      if i ~= 2 then assert.truthy(record.output:find("trial\t" .. i .. "\n", 1, true)) end
    end
    local shown = run.attune(("show %s --output"):format(dir))
    assert.truthy(shown:find "a 2, round 1: failed\n", shown)
    assert.truthy(shown:find "\n  last words\n", shown)
    run.remove(dir, script)
  end)
  it("by os.exit is a failure, and so is a worker that is killed from outside", function()
    local records, _, dir, script = records_of([[timing = false, rounds = 1,
      grid = {a = {1, 2}}, trial = function(p)
        if p.a == 1 then os.exit(3) end
        return {y = 1}
      end]], "", 1)
    assert.same("the worker ended with status 3 and no record: it printed nothing",
      records[1].reason)
    assert.same("ok", records[2].status)
    run.remove(dir, script)
  end)
end)

-- The processes that a process has started.
local function children_of(process)
  local text = files.read(("/proc/%d/task/%d/children"):format(process, process), 1 << 16)
  return (text or ""):gmatch "%d+"
end

describe("a worker that is killed at random moments", function()
  it("costs its trial and nothing else", function()
    local script, dir = run.script(head .. [[timing = false, rounds = 3,
      grid = {a = {1, 2, 3, 4, 5, 6, 7, 8}}, trial = function(p)
        require "luv".sleep(10)
        return {y = p.a}
      end}]]), run.folder()
    local state, kills = test_seed, 0
    local ended
    for _ = 1, 30 do
      local code
      local handle, process = uv.spawn(attune, {args = {"run", script, "--out", dir}},
        function(status) code = status end)
      local timer = uv.new_timer()
      timer:start(30, 20 + (state >> 33) % 60, function()
        for child in children_of(process) do
          if not code and kills < 20 and uv.kill(math.tointeger(child), "sigkill") then
            kills = kills + 1
          end
        end
      end)
      while not code do uv.run "once" end
      timer:close()
      handle:close()
      uv.run "nowait"
      state = state * 6364136223846793005 + 1442695040888963407
      ended = code
      if code == 0 then break end
    end
    assert.same(0, ended)
    assert.is_true(kills > 0)
    local ok, failed = {}, 0
    for _, record in ipairs((store.records(dir))) do
      local key = record.hash .. record.round
      if record.status == "ok" then ok[key] = (ok[key] or 0) + 1 else failed = failed + 1 end
      if record.status ~= "ok" then assert.same("SIGKILL", record.signal) end
    end
    local count = 0
    for _, times in pairs(ok) do
      assert.same(1, times)
      count = count + 1
    end
    assert.same(24, count)
    assert.is_true(failed <= kills)
    run.remove(script, dir)
  end)
end)

describe("--jobs", function()
  it("runs trials side by side, each on processors of its own", function()
    -- Each trial waits until the other one has begun.
    local marks = run.folder()
    local records, _, dir, script = records_of(([[timing = false, rounds = 1, timeout = 60,
      grid = {a = {1, 2}}, trial = function(p)
        local core = require "attune.core"
        io.open("%s" .. p.a, "w"):close()
        while not io.open("%s" .. 3 - p.a) do require "luv".sleep(5) end
        local list = core._processors()
        return {first = list[1], count = #list, threads = core.threads()}
      end]]):format(marks, marks), "--jobs 2")
    local core = require "attune.core"
    local all = core._processors()
    local each = math.max(1, #all // 2)
    assert.same({each, each}, (metric(records, "count")))
    assert.same({each, each}, (metric(records, "threads")))
    assert.same(math.min(2, #all), select(2, metric(records, "first")))
    run.remove(dir, script, marks .. 1, marks .. 2)
  end)
  it("measures every point once, in any number of jobs", function()
    local records, _, dir, script = records_of([[timing = false, rounds = 3,
      grid = {a = {1, 2, 3, 4, 5, 6, 7}}, trial = function(p) return {y = p.a} end]], "--jobs 5")
    assert.same(21, #records)
    local results = assert(store.read(dir))
    for _, point in ipairs(results.points) do assert.same(3, point.rounds) end
    run.remove(dir, script)
  end)
  it("leaves trials that time alone", function()
    local records, said, dir, script = records_of([[rounds = 1, grid = {a = {1, 2, 3}},
      trial = function(p)
        local mark = os.getenv "HOME" and require "luv".os_tmpdir() .. "/attune-alone"
        assert(not io.open(mark))
        io.open(mark, "w"):close()
        require "luv".sleep(20)
        os.remove(mark)
        return {y = 1}
      end]], "--jobs 3")
    assert.truthy(said:find "trials that time run alone", said)
    assert.same(3, #records)
    run.remove(dir, script)
  end)
  it("of a wrong number is misuse", function()
    for _, jobs in ipairs {"0", "x", "1.5", "-1", "100000"} do
      local said, status = run.attune("run x.lua --jobs=" .. jobs)
      assert.same(2, status)
      assert.truthy(said:find("--jobs: expected an integer from 1 to 1024", 1, true), said)
    end
  end)
  it("stops with --fail-fast after the trials that run", function()
    local records, _, dir, script = records_of([[timing = false, rounds = 40,
      grid = {a = {1, 2}}, trial = function(p, t)
        if p.a == 2 then error "x" end
        require "luv".sleep(100)
        return {y = 1}
      end]], "--jobs 2 --fail-fast", 1)
    assert.is_true(#records >= 2 and #records < 41)
    run.remove(dir, script)
  end)
end)

describe("limits of a trial", function()
  it("hold for each trial of a worker that is used again", function()
    local records, _, dir, script = records_of([[timing = false, rounds = 1, timeout = 4,
      memory = 300 << 20, grid = {a = {1, 2, 3, 4, 5}}, trial = function(p)
        if p.a == 2 then require "luv".sleep(20000) end
        if p.a == 4 then
          local list = {}
          for i = 1, 1 << 30 do list[i] = ("x"):rep(1000) .. i end
        end
        return {y = 1}
      end]], "", 1)
    local status = {}
    for i, record in ipairs(records) do status[i] = record.status end
    assert.same({"ok", "timeout", "ok", "ok"}, {status[1], status[2], status[3], status[5]})
    assert.truthy(status[4] == "oom" or status[4] == "timeout", status[4])
    run.remove(dir, script)
  end)
end)
