-- The runner under attack: kills, two runs at once, trials that answer anything, terminals and
-- disks that fail, folders with strange names.
local files = require "attune.util.files"
local run = require "tests.support.run"
local store = require "attune.results.store"
local text = require "attune.util.text"
local uv = require "luv"

local build = os.getenv "ATTUNE_BUILD_DIR" or "build"
local here = uv.cwd()
local attune = build:sub(1, 1) == "/" and build .. "/attune" or here .. "/" .. build .. "/attune"

local head = [[return require "attune.experiment" {name = "t", about = "a test", timing = false,
]]

local function script_with(body) return run.script(head .. body .. "}") end

-- Output of a shell command, both streams, and its exit status.
local function shell(command)
  local pipe = io.popen("{ " .. command .. "; } 2>&1; echo \"exit $?\"")
  local said, status = pipe:read "a":match "^(.-)exit (%d+)%s*$"
  pipe:close()
  return said, math.tointeger(tonumber(status))
end

local function quoted(path) return text.shell_quote(path) end

-- Starts the command in the background. Returns its process.
local function start(arguments, environment)
  local process = {}
  local out, err = uv.new_pipe(false), uv.new_pipe(false)
  process.said = ""
  local options = {args = arguments, stdio = {nil, out, err}, env = environment}
  process.handle, process.pid = uv.spawn(attune, options, function(code, signal)
    process.code, process.signal = code, signal
  end)
  local function collect(_, chunk) process.said = process.said .. (chunk or "") end
  out:read_start(collect)
  err:read_start(collect)
  function process.wait()
    while not process.code do uv.run "once" end
    for _ = 1, 10 do uv.run "nowait" end
    for _, handle in ipairs {out, err, process.handle} do
      if not handle:is_closing() then handle:close() end
    end
    uv.run "nowait"
    return process.said, process.code
  end
  return process
end

-- How often each round of each point was recorded as ok.
local function counts(dir)
  local found = {}
  for _, record in ipairs((store.records(dir))) do
    local key = record.hash .. ":" .. record.round
    if record.status == "ok" then found[key] = (found[key] or 0) + 1 end
  end
  return found
end

local function check_complete(dir, wanted)
  local total = 0
  for key, count in pairs(counts(dir)) do
    assert.same(1, count, key .. " was recorded twice")
    total = total + 1
  end
  assert.same(wanted, total)
  for _, name in ipairs {"", "/trials", "/plots"} do
    for _, file in ipairs(files.list(dir .. name)) do
      assert.is_false(files.is_temporary(file), file .. " is left over")
    end
  end
end

describe("a run that is killed", function()
  it("at 30 random moments goes on each time and records nothing twice", function()
    local script = script_with [[grid = {a = {1, 2, 3, 4, 5, 6, 7, 8}}, rounds = 4,
      trial = function(p) require "luv".sleep(20) return {y = p.a} end]]
    local dir = run.folder()
    local state = test_seed
    for _ = 1, 30 do
      state = state * 6364136223846793005 + 1442695040888963407
      local process = start {"run", script, "--out", dir}
      local timer = uv.new_timer()
      timer:start((state >> 33) % 400, 0, function()
        if not process.code then uv.kill(process.pid, "sigkill") end
      end)
      local said, code = process.wait()
      timer:close()
      assert.truthy(process.signal == 9 or code == 0, said)
    end
    local said, status = shell(("%s run %s --out %s"):format(attune, script, dir))
    assert.same(0, status, said)
    check_complete(dir, 32)
    run.remove(script, dir)
  end)
  it("before experiment.json is whole leaves a folder that the next run takes", function()
    local script = script_with [[grid = {a = {1}}, rounds = 1,
      trial = function(p) return {y = p.a} end]]
    for _, content in ipairs {"", '{"schema":1,"na', "{}{"} do
      local dir = run.folder()
      assert(files.make_folder(dir .. "/trials"))
      assert(files.write(dir .. "/experiment.json", content))
      assert(files.write(dir .. "/.attune-999999999-00ff", "left"))
      local said, status = shell(("%s run %s --out %s"):format(attune, script, dir))
      assert.same(0, status, said)
      check_complete(dir, 1)
      run.remove(dir)
    end
    -- A file that is whole and says something else is not taken.
    local dir = run.folder()
    assert(files.make_folder(dir))
    assert(files.write(dir .. "/experiment.json", '{"mine":1}'))
    local said, status = shell(("%s run %s --out %s"):format(attune, script, dir))
    assert.same(2, status, said)
    assert.same('{"mine":1}', files.read(dir .. "/experiment.json"))
    run.remove(script, dir)
  end)
end)

describe("two runs in one folder", function()
  it("follow each other: the second says that it waits and records nothing twice", function()
    local script = script_with [[grid = {a = {1, 2, 3, 4}}, rounds = 2,
      trial = function(p) require "luv".sleep(100) return {y = p.a} end]]
    local dir = run.folder()
    local first = start {"run", script, "--out", dir}
    while #files.list(dir .. "/trials") == 0 and not first.code do uv.run "nowait" uv.sleep(5) end
    local said, status = shell(("%s run %s --out %s"):format(attune, script, dir))
    assert.same(0, status, said)
    assert.truthy(said:find "another run is writing to this folder", said)
    assert.truthy(said:find "Nothing was left to measure", said)
    local first_said, first_code = first.wait()
    assert.same(0, first_code, first_said)
    check_complete(dir, 8)
    run.remove(script, dir)
  end)
  it("end with 130 when Ctrl-C comes while the second waits", function()
    local script = script_with [[grid = {a = {1}}, rounds = 1,
      trial = function(p) require "luv".sleep(1500) return {y = p.a} end]]
    local dir = run.folder()
    local first = start {"run", script, "--out", dir}
    while not files.kind(dir .. "/trials") and not first.code do uv.run "nowait" uv.sleep(5) end
    local second = start {"run", script, "--out", dir}
    while not second.said:find "waiting" and not second.code do uv.run "once" end
    uv.kill(second.pid, "sigint")
    local said, code = second.wait()
    assert.same(130, code, said)
    assert.is_nil(said:find "traceback", said)
    first.wait()
    run.remove(script, dir)
  end)
  it("do not wait for a run that was killed", function()
    local script = script_with [[grid = {a = {1}}, rounds = 1, trial = function(p)
      if os.getenv "SLOW" then require "luv".sleep(60000) end
      return {y = p.a}
    end]]
    local dir = run.folder()
    local first = start({"run", script, "--out", dir}, {"SLOW=1", "PATH=" .. os.getenv "PATH"})
    while not files.kind(dir .. "/trials") and not first.code do uv.run "nowait" uv.sleep(5) end
    uv.sleep(200)
    uv.kill(first.pid, "sigkill")
    first.wait()
    local said, status = shell(("%s run %s --out %s"):format(attune, script, dir))
    assert.same(0, status, said)
    assert.is_nil(said:find "another run", said)
    run.remove(script, dir)
  end)
end)

describe("a results folder that disappears", function()
  it("while a run writes is an error", function()
    local script = script_with [[grid = {a = {1, 2, 3}}, rounds = 1, trial = function(p)
      if p.a == 2 then os.execute("rm -rf " .. os.getenv "GONE") end
      return {y = p.a}
    end]]
    local dir = run.folder()
    local said, status = shell(("GONE=%s %s run %s --out %s"):format(dir, attune, script, dir))
    assert.same(2, status, said)
    assert.truthy(said:find "deleted or moved", said)
    run.remove(script, dir)
  end)
end)

describe("a trial's answer", function()
  it("that is none makes that trial failed, and the run goes on", function()
    local script = script_with [=[grid = {a = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}}, rounds = 1,
      trial = function(p)
        local deep = {}
        for _ = 1, 1000 do deep = {deep} end
        local function answer(line)
          local uv = require "luv"
          line = line .. "\n"
          while #line > 0 do line = line:sub(assert(uv.fs_write(3, line, -1)) + 1) end
          while true do end
        end
        local trials = {
          function() return {y = deep} end,
          function() return {y = {samples = {{1}}}} end,
          function() return {y = "text", [3] = 4} end,
          function() return {y = {samples = "abc"}} end,
          function()
            local list = {}
            for i = 1, 1100000 do list[i] = i end
            return {y = list}
          end,
          function() return {[("x"):rep(200)] = 1} end,
          function() error(("long "):rep(1 << 20)) end,
          function() answer '{"status":"great","metrics":{"y":[[[[]]]]}}' end,
          function() answer(("["):rep(1 << 20)) end,
          function() answer(("x"):rep(20 << 20)) end,
          function() return setmetatable({y = 1}, {__pairs = error, __index = error}) end,
        }
        return trials[p.a]()
      end]=]
    local dir = run.folder()
    local said, status = shell(("%s run %s --out %s"):format(attune, script, dir))
    assert.same(1, status, said)
    local results = assert(store.read(dir))
    assert.same({}, results.warnings)
    assert.same(11, #results.points)
    for i, point in ipairs(results.points) do
      assert.same(i == 11 and "ok" or "failed", point.status, i .. said)
      assert.is_true(#(point.reason or "") < 70000)
    end
    for i, pattern in pairs {
      "expected a number", "expected a number", "expected", "expected a list", "at most", "at most",
      "long long", "answer", "answer", "too long",
    } do
      assert.truthy(results.points[i].reason:find(pattern), i .. ": " .. results.points[i].reason)
    end
    run.remove(script, dir)
  end)
  it("does not wait for children that keep the pipes open", function()
    local script = script_with [[grid = {a = {1, 2, 3}}, rounds = 1, timeout = 20,
      trial = function(p)
        if p.a == 1 then os.execute "setsid sleep 30 &" end
        if p.a == 2 then KEPT = io.popen "sleep 30" end
        if p.a == 3 then os.execute "sleep 30 &" end
        return {y = p.a}
      end]]
    local dir = run.folder()
    local begin = uv.hrtime()
    local said, status = shell(("timeout 60 %s run %s --out %s"):format(attune, script, dir))
    assert.same(0, status, said)
    assert.is_true((uv.hrtime() - begin) * 1e-9 < 15)
    check_complete(dir, 3)
    run.remove(script, dir)
  end)
  it("keeps infinities of parameters and metrics", function()
    local script = script_with [[grid = {a = {1, math.huge}}, rounds = 1, trial = function(p)
      assert(type(p.a) == "number")
      return {y = p.a, z = -math.huge, n = 0 / 0}
    end]]
    local dir = run.folder()
    local said, status = shell(("%s run %s --out %s"):format(attune, script, dir))
    assert.same(0, status, said)
    local point = assert(store.read(dir)).points[2]
    assert.same(math.huge, point.parameters.a)
    assert.same(math.huge, point.metrics.y.values[1])
    assert.same(-math.huge, point.metrics.z.values[1])
    run.remove(script, dir)
  end)
end)

describe("files that a trial has open", function()
  it("are not inherited by programs that it starts", function()
    local script = script_with [[grid = {a = {1}}, rounds = 1, trial = function()
      local kept = io.open("/dev/null")
      local pipe = io.popen "ls -l /proc/self/fd"
      local list = pipe:read "a"
      pipe:close()
      kept:close()
      -- Of the shell's and of ls: 0, 1, 2 and the folder that ls reads.
      return {y = select(2, list:gsub("%->", ""))}
    end]]
    local dir = run.folder()
    local said, status = shell(("exec 7</dev/null; %s run %s --out %s"):format(attune, script, dir))
    assert.same(0, status, said)
    assert.same(4, assert(store.read(dir)).points[1].metrics.y.values[1])
    run.remove(script, dir)
  end)
end)

describe("standard output", function()
  local script = script_with [[grid = {a = {1}}, rounds = 1, trial = function() return {y = 1} end]]
  local dir = run.folder()
  it("that is full or closed gives status 1 and a message", function()
    for _, where in ipairs {">/dev/full", ">&-"} do
      local said, status = shell(("%s run %s --out %s %s"):format(attune, script, dir, where))
      assert.same(1, status, said)
      assert.truthy(said:find "standard output: ", said)
      for _, command in ipairs {
        "show " .. dir, "export --csv - " .. dir, "list", "--help", "--version", "plot --help",
      } do
        said, status = shell(("%s %s %s"):format(attune, command, where))
        assert.same(1, status, command .. where .. said)
        assert.truthy(said:find "standard output: ", said)
      end
    end
    assert.same("ok", assert(store.read(dir)).points[1].status)
    local said, status = shell(("%s show %s 2>&-"):format(attune, dir))
    assert.same(0, status)
    assert.truthy(said:find "a test")
    said, status = shell(("%s export %s --csv /dev/full"):format(attune, dir))
    assert.same(1, status)
    assert.truthy(said:find "expected a file, got a device", said)
  end)
  it("that is a closed pipe does not stop a run", function()
    run.remove(dir)
    local said = shell(("%s run %s --out %s | true"):format(attune, script, dir))
    assert.truthy(said:find "standard output: ", said)
    assert.same("ok", assert(store.read(dir)).points[1].status)
    run.remove(script, dir)
  end)
end)

describe("names of files and folders", function()
  local script = script_with [[grid = {a = {1, 2}}, rounds = 1,
    plots = {{kind = "line", x = "a", y = "y"}}, trial = function(p) return {y = p.a} end]]
  it("are never commands, and may hold anything", function()
    local folder = run.folder()
    assert(files.make_folder(folder))
    for _, name in ipairs {
      "|touch y", "$(touch y)`touch y`", "it's a\"b\n;touch y", "--csv", " ", "-\27[31m%s%d",
    } do
      local at = "cd " .. folder .. " && "
      local out = quoted("--out=" .. name)
      local said, status = shell(("%s%s run %s %s"):format(at, attune, script, out))
      assert.same(0, status, said)
      assert.is_nil(said:gsub("\n", ""):find "%c", said)
      for _, command in ipairs {"show", "plot", "report", "export --csv -"} do
        local words = ("%s %s -- %s"):format(attune, command, quoted(name))
        if command:find "export" then words = attune .. " export --csv=- -- " .. quoted(name) end
        said, status = shell(at .. words)
        assert.same(0, status, words .. said)
      end
      assert.is_nil(files.kind(folder .. "/y"), name)
      assert.same("file", files.kind(folder .. "/" .. name .. "/plots/01-y.svg"), name)
      local report = files.read(folder .. "/" .. name .. "/report.md")
      assert.is_nil(report:gsub("\n", ""):find "%c", name)
    end
    run.remove(folder, script)
  end)
end)

describe("a script", function()
  it("that was edited is measured again with the reason, or kept with --keep", function()
    local body = [[grid = {a = {1, 2}}, rounds = 1, plots = {%s}, trial = function(p)
      return {y = p.a + %d}
    end]]
    local dir, script = run.folder(), script_with(body:format("", 0))
    local command = ("%s run %s --out %s"):format(attune, script, dir)
    shell(command .. " --only 'a == 1'")
    -- Plots may change without a word.
    assert(files.write(script, head .. body:format('{kind = "line", x = "a", y = "y"}', 0) .. "}"))
    assert.is_nil(shell(command .. " --dry"):find "edited")
    assert.is_nil(shell(command .. " --only 'a == 1'"):find "edited")
    assert(files.write(script, head .. body:format("", 5) .. "}"))
    local said = shell(command .. " --keep")
    assert.truthy(said:find "1 point with records that are kept, although the script", said)
    local warning = assert(store.read(dir)).warnings[1]
    assert.truthy(warning:find "1 of 2 trials were measured before the script was edited", warning)
    said = shell(command .. " --dry")
    assert.truthy(said:find "1 point .* measured again, as the script was edited", said)
    assert.truthy(said:find "1 of 2 trials left", said)
    said = shell(command)
    assert.truthy(said:find "1 point .* measured again, as the script was edited", said)
    local results = assert(store.read(dir))
    assert.same({}, results.warnings)
    assert.same(2, #results.points)
    assert.same(6, results.points[1].metrics.y.centre)
    assert.truthy(shell(attune .. " gc " .. dir):find "1 record .* supersedes")
    assert.same(3, #results.provenance)
    assert.same(2, #assert(store.read(dir)).provenance)
    assert.truthy(shell(command):find "Nothing was left to measure")
    run.remove(dir, script)
  end)
  it("is measured again when a module changes that a trial requires", function()
    local folder = run.folder()
    assert(files.make_folder(folder))
    assert(files.write(folder .. "/inner.lua", "return 1 -- a comment"))
    assert(files.write(folder .. "/outer.lua", 'return {value = require "inner"}'))
    assert(files.write(folder .. "/x.lua", [[return require "attune.experiment" {name = "x",
      grid = {a = {1}}, rounds = 1, timing = false,
      trial = function() return {y = require("outer").value} end}]]))
    local command = ("cd %s && %s run x.lua --out out"):format(folder, attune)
    shell(command)
    assert(files.write(folder .. "/inner.lua", "return 1 -- another comment"))
    assert.truthy(shell(command):find "Nothing was left to measure")
    assert(files.write(folder .. "/inner.lua", "return 2"))
    local said = shell(command)
    assert.truthy(said:find "1 point to be measured again, as the script was edited", said)
    assert.same(2, assert(store.read(folder .. "/out")).points[1].metrics.y.centre)
    run.remove(folder)
  end)
  it("finds modules of its own folder from wherever attune is started", function()
    local folder = run.folder()
    assert(files.make_folder(folder .. "/scripts"))
    assert(files.write(folder .. "/scripts/my_helper.lua", "return {value = 42}"))
    assert(files.write(folder .. "/scripts/x.lua", [[local helper = require "my_helper"
      return require "attune.experiment" {name = "x", grid = {a = {1}}, rounds = 1, timing = false,
        trial = function() return {y = require "my_helper".value + helper.value} end}]]))
    for _, at in ipairs {folder .. "/scripts", folder, "/"} do
      local path = at == "/" and folder .. "/scripts/x.lua"
        or at == folder and "scripts/x.lua" or "x.lua"
      local words = "cd %s && %s run %s --fresh --out %s/out"
      local said, status = shell(words:format(at, attune, path, folder))
      assert.same(0, status, said)
    end
    assert.same(84, assert(store.read(folder .. "/out")).points[1].metrics.y.values[1])
    run.remove(folder)
  end)
  it("is not run by attune list, nor is a module of the current folder", function()
    local folder = run.folder()
    assert(files.make_folder(folder .. "/scripts"))
    local trap = ("os.execute 'touch %s/ran' "):format(folder)
    assert(files.write(folder .. "/scripts/a.lua", trap
      .. 'return require "attune.experiment" {name = "a", about = "what a\27 asks"}'))
    assert(files.write(folder .. "/scripts/b.lua", trap .. "while true do end"))
    for _, name in ipairs {"argparse", "luv", "readline", "dkjson", "attune"} do
      assert(files.write(("%s/%s.lua"):format(folder, name), trap .. "return {}"))
    end
    local said, status = shell(("cd %s && %s list scripts"):format(folder, attune))
    assert.same(0, status, said)
    assert.truthy(said:find "scripts/a.lua%s+what a\\x1b asks", said)
    assert.truthy(said:find "scripts/b.lua%s+not an experiment", said)
    assert.is_nil(files.kind(folder .. "/ran"))
    run.remove(folder)
  end)
  it("may set another locale: numbers keep their point", function()
    local script = script_with [[grid = {a = {1.5}}, rounds = 1, trial = function(p)
      for _, name in ipairs {"de_DE.UTF-8", "fr_FR.UTF-8", "C.UTF-8"} do
        if os.setlocale(name) then break end
      end
      return {y = p.a}
    end, where = function() os.setlocale "C.UTF-8" return true end]]
    local dir = run.folder()
    local words = "LC_ALL=de_DE.UTF-8 %s run %s --out %s"
    local said, status = shell(words:format(attune, script, dir))
    assert.same(0, status, said)
    assert.same(1.5, assert(store.read(dir)).points[1].metrics.y.values[1])
    run.remove(script, dir)
  end)
end)

describe("a word after the script", function()
  it("is there for the script and its trials", function()
    local script = script_with [[rounds = 1, grid = {a = {#(os.getenv "ATTUNE_ARGUMENT" or "")}},
      argument = "a word",
      trial = function(p) return {y = p.a * 10 + #os.getenv "ATTUNE_ARGUMENT"} end]]
    local dir = run.folder()
    local said, status = shell(("%s run %s 'a b' --out %s"):format(attune, script, dir))
    assert.same(0, status, said)
    assert.same(33, assert(store.read(dir)).points[1].metrics.y.values[1])
    said, status = shell(("%s run %s one two --out %s"):format(attune, script, dir))
    assert.same(2, status, said)
    run.remove(script)
    script = script_with "grid = {a = {1}}, trial = function() return {y = 1} end"
    said, status = shell(("%s run %s quick --out %s"):format(attune, script, dir))
    assert.same(2, status, said)
    assert.truthy(said:find("takes no argument after its name, got 'quick'", 1, true), said)
    run.remove(dir, script)
  end)
end)

describe("a trial that a script skipped", function()
  it("is decided again by the edited script, also with --keep", function()
    local body = [[grid = {a = {1, 2}}, seeds = {1, 2, 3}, trial = function(p)
      if p.a == %d or p.seed == 1 then return {y = p.seed} end
      return nil, "one seed is enough"
    end]]
    local dir, script = run.folder(), script_with(body:format(1))
    local command = ("%s run %s --out %s"):format(attune, script, dir)
    shell(command)
    local function values(i) return assert(store.read(dir)).points[i].metrics.y.values end
    assert.same({{1, 2, 3}, {1}}, {values(1), values(2)})
    assert(files.write(script, head .. body:format(2) .. "}"))
    local said, status = shell(command .. " --keep")
    assert.same(0, status, said)
    assert.same({{1, 2, 3}, {1, 2, 3}}, {values(1), values(2)})
    said = shell(attune .. " status " .. dir)
    assert.truthy(said:find("6 ok; 0 of 6 left", 1, true), said)
    run.remove(dir, script)
  end)
end)

describe("the total of a run", function()
  it("leaves trials of a point out once it is skipped", function()
    local script = script_with [[grid = {x = {1, 2, 3}}, seeds = {1, 2, 3, 4},
      trial = function(p) if p.x == 1 or p.seed == 1 then return {y = p.x} end end]]
    run.with_folder(function(folder)
      local said = shell(attune .. " run " .. script .. " --out " .. quoted(folder .. "/r"))
      -- Four of x = 1, and one of each other x before it is skipped: 2 x 2 trials are not run.
      assert.truthy(said:find("[4/12] x 1 (seed 2)", 1, true), said)
      assert.truthy(said:find("[8/8] x 1 (seed 4)", 1, true), said)
    end)
    run.remove(script)
  end)
end)

describe("without gnuplot", function()
  it("a run ends with its table and one line", function()
    local bin, dir = run.folder(), run.folder()
    assert(files.make_folder(bin))
    local lua = shell "command -v lua5.4":match "%S+"
    for name, target in pairs {["lua5.4"] = lua, sh = "/bin/sh"} do
      assert(uv.fs_symlink(target, bin .. "/" .. name))
    end
    local script = script_with [[grid = {a = {1, 2}}, rounds = 1,
      plots = {{kind = "line", x = "a", y = "y"}}, trial = function(p) return {y = p.a} end]]
    local said, status = shell(("PATH=%s %s run %s --out %s"):format(bin, attune, script, dir))
    assert.same(0, status, said)
    local _, lines = said:gsub("gnuplot: ", "")
    assert.same(1, lines, said)
    assert.truthy(said:find "\n1  1\n2  2\n", said)
    run.remove(bin, dir, script)
  end)
end)

describe("--only", function()
  it("compares with false, names unknown parameters and always ends", function()
    local script = script_with [[grid = {on = {true, false}, a = {1, 2}},
      trial = function() return {y = 1} end]]
    local function dry(only)
      return shell(("timeout 10 %s run %s --dry --only %s"):format(attune, script, quoted(only)))
    end
    assert.truthy(dry "on == false":find "2 points")
    assert.truthy(dry "not on and a > 1":find "1 point,")
    local said, status = dry "aa == 1"
    assert.same(2, status)
    assert.truthy(said:find "unknown parameter 'aa': did you mean 'a'", said)
    said, status = dry "(function() while true do end end)()"
    assert.same(2, status, said)
    said, status = dry "('x'):rep(1 << 40)"
    assert.same(2, status, said)
    run.remove(script)
  end)
end)

describe("a folder of gnuplot", function()
  it("that a killed process left is cleared by the next that draws", function()
    local left = uv.os_tmpdir() .. "/attune-plot-999999999-0a1B2c"
    assert(files.make_folder(left))
    assert(files.write(left .. "/figure.gp", ""))
    require "attune.plot.gnuplot".draw("svg", "figure", "", "")
    assert.is_nil(files.kind(left))
  end)
end)

describe("attune trial", function()
  it("says that it expects a request", function()
    for _, input in ipairs {"", "{}", "[1]", "\27", '{"script":1,"parameters":{}}'} do
      local said, status = shell(("printf '%%s' %s | %s trial"):format(quoted(input), attune))
      assert.same(2, status, said)
      assert.truthy(said:find "^attune trial: expected a request[^\n\27]*\n$", said)
    end
  end)
end)

describe("t:time", function()
  it("names the script's line for an unknown option", function()
    local script = script_with [[grid = {a = {1}}, trial = function(p, t)
      return {y = t:time(print, {budgt = 1})} end]]
    local dir = run.folder()
    local said, status = shell(("%s run %s --out %s"):format(attune, script, dir))
    assert.same(1, status)
    assert.truthy(said:find("lua:3: unknown option 'budgt': did you mean 'budget'", 1, true), said)
    run.remove(script, dir)
  end)
end)
