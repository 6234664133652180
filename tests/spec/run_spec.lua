local run = require "tests.support.run"
local files = require "attune.util.files"
local json = require "attune.util.json"
local store = require "attune.results.store"

local head = [[return require "attune.experiment" {
  name = "t", about = "a test", metrics = {square = {unit = "1"}},
]]

local function with(body, options)
  local script, dir = run.script(head .. body .. "}"), run.folder()
  local said, status = run.attune(("run %s --out %s %s"):format(script, dir, options or ""))
  return said, status, dir, script
end

describe("a run", function()
  it("stores every round of every point, plots, report and claims", function()
    local said, status, dir, script = with [[
      grid = {a = {1, 2, 3}}, rounds = 2, plots = {{kind = "line", x = "a", y = "square"}},
      trial = function(p, t)
        local seconds = t:time(function() end, {budget = 0.01, most = 10})
        return {square = p.a ^ 2, list = {1, 2, 6}, seconds = seconds}
      end,
      claims = {
        {"nine", function(r) return r:values "square"[3] == 9 end},
        {"ratio", function(r) return r:ratio("square", {a = 2}, {a = 1}):above(3) end},
        {"not so", function(r) return r:ratio("square", {a = 2}, {a = 1}):below(3) end},
      }]]
    assert.same(1, status)
    assert.truthy(
      said:find "held%s+nine" and said:find "held%s+ratio" and said:find "FAILED%s+not so"
    )
    local results = assert(store.read(dir))
    assert.same(3, #results.points)
    assert.same({"a"}, results.varied)
    local m = results.points[2].metrics
    assert.same({4.0, 4.0}, m.square.values)
    assert.same(2, m.list.median)
    assert.same(10, #m.seconds.samples[1])
    assert.truthy(
      files.kind(dir .. "/plots/01-square.svg")
        and files.kind(dir .. "/plots/01-square.pdf") and files.kind(dir .. "/report.html")
    )
    local header = results.provenance[1]
    assert.truthy(
      header.cpu
        and header.threads and header.build and header.script == script and header.time
        and header.isa
    )
    run.remove(dir, script)
  end)
  it("does not fail by a claim about points that it was told to leave out", function()
    local body = [[
      grid = {a = {1, 2}}, fixed = {b = 1}, rounds = 1, quick = {a = {1}},
      trial = function(p) return {square = p.a * p.a} end,
      claims = {{"two", function(r)
        local values = r:values "square"
        return #values == 2 and values[1] == 1
      end}}]]
    local function status_of(options)
      local said, status, dir, script = with(body, options)
      run.remove(dir, script)
      return status, said
    end
    assert.same(0, (status_of ""))
    for _, options in ipairs {"--quick", "--only 'a == 1'", "--set a=1", "--set b=1,2"} do
      local status, said = status_of(options)
      assert.same(0, status, options)
      assert.truthy(said:find "FAILED%s+two")
      assert.same(1, (status_of(options .. " --strict")), options)
    end
    -- Another value of what is fixed leaves the claim as it is.
    local status, dir, script = select(2, with(body:gsub("p.a %* p.a", "p.a * p.b"), "--set b=3"))
    assert.same(1, status)
    run.remove(dir, script)
  end)
  it("tells crash, timeout, error, out of memory and skipped apart, and continues", function()
    local said, status, dir, script = with([[
      grid = {a = {1, 2, 3, 4, 5, 6}}, rounds = 2, timeout = 4, memory = 400 << 20,
      trial = function(p)
        if p.a == 1 then error "deliberate" end
        if p.a == 2 then while true do end end
        if p.a == 3 then local uv = require "luv" uv.kill(uv.os_getpid(), "sigsegv") end
        if p.a == 4 then return nil, "not for four" end
        if p.a == 5 then return {square = require "attune".zeros({1 << 27}).nbytes} end
        return {square = 36}
      end]])
    assert.same(1, status)
    local results = assert(store.read(dir))
    local status_of = {}
    for i, point in ipairs(results.points) do status_of[i] = point.status end
    assert.same({"failed", "timeout", "failed", "skipped", "oom", "ok"}, status_of)
    assert.truthy(results.points[1].reason:find "deliberate")
    assert.truthy(results.points[3].reason:find "SIGSEGV")
    assert.same("not for four", results.points[4].reason)
    assert.truthy(results.points[5].reason:find "limit")
    assert.truthy(said:find "failed: a 1 %(round 1%): .*deliberate")
    run.remove(dir, script)
  end)
  it("interleaves the points of a round", function()
    local _, _, dir, script = with [[
      grid = {a = {1, 2}}, rounds = 3, trial = function(p, t) return {square = t.round} end]]
    local order = {}
    for _, r in ipairs(store.records(dir)) do
      order[#order + 1] = r.round .. ":" .. r.parameters.a
    end
    assert.same({"1:1", "1:2", "2:1", "2:2", "3:1", "3:2"}, order)
    run.remove(dir, script)
  end)
  it("continues where it stopped, also after SIGKILL in the middle of a record", function()
    local script = run.script(head .. [[grid = {a = {1, 2, 3, 4}}, rounds = 1, trial = function(p)
      local f = io.open(os.getenv "MARKS", "a")
      f:write(p.a, "\n")
      f:close()
      if p.a == 3 and not io.open(os.getenv "MARKS" .. ".go") then while true do end end
      return {square = p.a} end}]])
    local dir, marks = run.folder(), run.folder()
    os.execute(([[
      MARKS=%s setsid $ATTUNE_BUILD_DIR/attune run %s --out %s >/dev/null 2>&1 &
      p=$!
      while ! grep -q 3 %s 2>/dev/null; do sleep 0.02; done
      kill -9 $p
      wait $p 2>/dev/null]]):format(marks, script, dir, marks))
    local name = files.list(dir .. "/trials")[1]
    local f = assert(io.open(dir .. "/trials/" .. name, "a"))
    f:write '{"attempt":1,"hash":"cut'
    f:close()
    io.open(marks .. ".go", "w"):close()
    local said, status = run.attune(("run %s --out %s"):format(script, dir):gsub("^", ""), nil)
    -- MARKS is not set for it: its trials fail, but those that were measured are kept
    assert.same(1, status)
    local kept = 0
    for _, r in ipairs(store.records(dir)) do
      if r.status == "ok" then kept = kept + 1 end
    end
    assert.same(2, kept)
    local command = "MARKS=%s $ATTUNE_BUILD_DIR/attune run %s --out %s >/dev/null 2>&1"
    os.execute(command:format(marks, script, dir))
    local results = assert(store.read(dir))
    assert.same(4, #results.points)
    for _, point in ipairs(results.points) do assert.same("ok", point.status) end
    local ran = {}
    for line in io.lines(marks) do ran[line] = (ran[line] or 0) + 1 end
    assert.same({["1"] = 1, ["2"] = 1, ["3"] = 2, ["4"] = 1}, ran)
    assert.truthy(#said > 0)
    run.remove(script, dir, marks, marks .. ".go")
  end)
  it("measures no point twice, and with --fresh keeps the old trials", function()
    local dir = run.folder()
    local script = run.script(
      head .. "grid = {a = {1}}, trial = function(p) return {square = 1} end}"
    )
    run.attune(("run %s --out %s"):format(script, dir))
    local before = files.read(dir .. "/report.html")
    local said, status = run.attune(("run %s --out %s"):format(script, dir))
    assert.same(0, status)
    assert.truthy(said:find "Nothing was left to measure")
    assert.same(before, files.read(dir .. "/report.html"))
    run.attune(("run %s --out %s --fresh"):format(script, dir))
    assert.same(1, #files.list(dir .. "/trials/old"))
    run.remove(script, dir)
  end)
  it("judges claims again that partial runs or another text left behind", function()
    local dir = run.folder()
    local function script_with(more)
      return run.script(head .. [[grid = {a = {1, 2, 3}}, rounds = 2, trial = function(p, t)
        return {y = p.a + t.round / 100} end, ]] .. more .. "}")
    end
    local failing = script_with [[claims = {{"c", function(r)
      return r:ratio("y", {a = 2}, {a = 1}):above(3) end}}]]
    run.attune(("run %s --out %s --only 'a < 3'"):format(failing, dir))
    run.attune(("run %s --out %s --only 'a == 3'"):format(failing, dir))
    local said, status = run.attune(("run %s --out %s"):format(failing, dir))
    assert.matches("Nothing was left to measure", said, 1, true)
    assert.matches("FAILED     c", said, 1, true)
    assert.same(1, status)
    assert.matches("failed", files.read(dir .. "/report.md"))
    local edited = script_with [[claims = {{"d", function(r)
      return r:ratio("y", {a = 2}, {a = 1}):above(1) end}},
      plots = {{kind = "line", x = "a", y = "y", name = "new"}}]]
    said, status = run.attune(("run %s --out %s"):format(edited, dir))
    assert.matches("Nothing was left to measure", said, 1, true)
    assert.matches("held       d", said, 1, true)
    assert.same(0, status)
    assert.same("file", files.kind(dir .. "/plots/01-new.svg"))
    -- A partial run that measures nothing leaves the verdicts of the whole one.
    run.attune(("run %s --out %s --only 'a == 3'"):format(edited, dir))
    assert.matches('"held"', files.read(dir .. "/claims.json"))
    run.remove(failing, edited, dir)
  end)
  it("ends after the running trial at Ctrl-C, at once at a second one, at SIGTERM and SIGHUP",
    function()
    local script = run.script(head .. [[grid = {a = {1, 2, 3}}, rounds = 1, trial = function(p)
      if p.a == 2 then
        io.open(os.getenv "MARKS", "w"):close()
        if os.getenv "LONG" then while true do end end
        while not io.open(os.getenv "MARKS" .. ".go") do require "luv".sleep(5) end
      end
      return {square = 1}
    end}]])
    -- A shell starts background work with SIGINT ignored; luv's handler takes it all the same.
    local start = [[
      MARKS=%s %s $ATTUNE_BUILD_DIR/attune run %s --out %s 2>%s.said &
      p=$!
      while [ ! -e %s ]; do sleep 0.02; done
      kill -%s $p
      while ! grep -q 'ending' %s.said; do sleep 0.02; done
      %s
      wait $p
      echo exit $?]]
    local function ended(signal, long, more)
      local dir, marks = run.folder(), run.folder()
      local words = start:format(marks, long, script, dir, marks, marks, signal, marks, more)
      local pipe = io.popen((words:gsub("MARKED", marks)))
      local said = pipe:read "a"
      pipe:close()
      said = said .. files.read(marks .. ".said")
      local kept = 0
      for _, record in ipairs((store.records(dir))) do
        if record.status == "ok" then kept = kept + 1 end
      end
      run.remove(dir, marks, marks .. ".go", marks .. ".said")
      return said, kept
    end
    local said, kept = ended("INT", "", "touch MARKED.go")
    assert.truthy(said:find "exit 130" and said:find "ending after the running trial", said)
    assert.same(2, kept)
    assert.truthy(said:find "Stopped. 2 trials of this run are kept")
    said, kept = ended("INT", "LONG=1", "kill -INT $p")
    assert.truthy(said:find "exit 130", said)
    assert.same(1, kept)
    for signal, status in pairs {TERM = 143, HUP = 129} do
      said, kept = ended(signal, "LONG=1", "")
      assert.truthy(said:find("exit " .. status) and said:find "ending now", said)
      assert.same(1, kept)
    end
    run.remove(script)
  end)
  it("takes --set, --only, --dry, --quick and --fail-fast", function()
    local script = run.script(head .. [[
      fixed = {b = 3}, grid = {a = {1, 2, 3}}, quick = {a = {1}}, rounds = 1, trial = function(p)
        if p.a == 2 then error "x" end
        return {square = p.a * p.b}
      end}]])
    local function dry(options) return (run.attune(("run %s --dry %s"):format(script, options))) end
    assert.truthy(dry "":find "3 points, 1 round each")
    assert.truthy(dry "--quick":find "1 point,")
    assert.truthy(dry "--set a=5,6 --rounds 2":find "a 5\na 6\n2 points, 2 rounds")
    assert.truthy(dry "--only 'a > 1 and b == 3'":find "2 points")
    local dir = run.folder()
    local said, status = run.attune(("run %s --out %s --fail-fast"):format(script, dir))
    assert.same(1, status)
    assert.same(2, #assert(store.read(dir)).points)
    assert.truthy(said:find "failed: a 2")
    run.remove(script, dir)
  end)
end)

describe("misuse exits with 2 and a clear message", function()
  local function refused(text, pattern, options)
    local script, dir = run.script(text), run.folder()
    local said, status = run.attune(("run %s --out %s %s"):format(script, dir, options or ""))
    assert.same(2, status, said)
    assert.truthy(said:find(pattern), said)
    assert.is_nil(files.kind(dir))
    run.remove(script)
  end
  it("of scripts", function()
    refused("return {", "lua:1: .*near <eof>")
    refused("return 3", "expected a script that returns an experiment")
    refused("error 'oops'", "oops")
    refused(
      'return require "attune.experiment" {trial = print, grid = {a = {1}}}',
      "name: expected letters, digits, %- and _, got none"
    )
    refused(
      'return require "attune.experiment" {name = "x y", trial = print, grid = {a = {1}}}',
      "name: expected letters, digits, %- and _, got 'x y'"
    )
    refused(
      'return require "attune.experiment" {name = "x", grid = {a = {1}}}',
      "trial: expected a function, got none"
    )
    refused(
      'return require "attune.experiment" {name = "x", trial = print}',
      "grid: expected grid or fixed, got neither"
    )
    refused(head .. "gird = {a = {1}}, trial = print}", "unknown field 'gird': did you mean 'grid'")
    refused(head .. "grid = {a = {1, 1}}, trial = print}", "duplicate point, got two with a=1")
    refused(
      head .. "grid = {a = {}}, trial = print}",
      "grid.a: expected a list of values, got an empty one"
    )
    refused(
      head .. 'grid = {a = {1}}, trial = print, plots = {{kind = "lines", x = "a", y = "b"}}}',
      "unknown kind 'lines': did you mean 'line'"
    )
    refused(head .. "grid = {a = {1}}, trial = print}", "unknown parameter 'b'", "--set b=3")
    refused(head .. "grid = {a = {1}}, trial = print, timeout = math.huge}", "timeout: expected")
    refused(head .. "grid = {a = {1}}, trial = print, rounds = 1 << 40}", "rounds: expected")
    refused(head .. "grid = {a = {1}}, trial = print, memory = 0 / 0}", "memory: expected")
    refused(head .. "grid = {a = {1, 0 / 0}}, trial = print}", "other than NaN")
    refused(
      head .. [[metrics = {y = {unit = ("x"):rep(100000)}}, grid = {a = {1}}, trial = print}]],
      "lua: experiment: metrics.y.unit: expected at most 32 bytes, got 100000"
    )
    refused(
      head .. [[grid = (function()
        local grid, values = {}, {}
        for i = 1, 100 do values[i] = i end
        for i = 1, 9 do grid["p" .. i] = values end
        return grid
      end)(), trial = print}]],
      "grid: expected at most 10000000 combinations"
    )
    refused(
      head .. "grid = {a = {1}}, where = function() return false end, trial = print}",
      "at least one point"
    )
    local said, status = run.attune "run /nonexistent.lua"
    assert.same(2, status)
    assert.truthy(said:find "/nonexistent.lua")
  end)
  it("of folders", function()
    local script = run.script(
      head .. "grid = {a = {1}}, trial = function() return {square = 1} end}"
    )
    local file = run.script ""
    local said, status = run.attune(("run %s --out %s"):format(script, file))
    assert.same(2, status)
    assert.truthy(said:find "expected a folder, got a file")
    local other = run.script(
      (head:gsub('"t"', '"u"')) .. "grid = {a = {1}}, trial = function() return {square = 1} end}"
    )
    local dir = run.folder()
    run.attune(("run %s --out %s"):format(script, dir))
    said, status = run.attune(("run %s --out %s"):format(other, dir))
    assert.same(2, status)
    assert.truthy(said:find "expected results of 'u', got those of 't'")
    for _, command in ipairs {"show", "plot", "report", "export --csv -"} do
      local words, flags = command:match "^(%S+)(.*)"
      said, status = run.attune(("%s /tmp %s"):format(words, flags))
      assert.same(2, status, command)
      assert.truthy(said:find "expected", said)
    end
    run.remove(script, file, other, dir)
  end)
  it("of a full disk, and keeps the records that were written", function()
    local script = run.script(
      head .. "grid = {a = {1, 2, 3}}, rounds = 1, trial = function(p) return {square = p.a} end}"
    )
    -- A limit on the size of files acts as a disk that is full.
    local dir = run.folder()
    local pipe = io.popen(
      (
        "trap '' XFSZ; ulimit -f 1; $ATTUNE_BUILD_DIR/attune run %s --out %s 2>&1; echo exit $?"
      ):format(script, dir)
    )
    local said = pipe:read "a"
    pipe:close()
    assert.truthy(said:find "exit 2", said)
    assert.truthy(said:find "writing a record", said)
    run.remove(script, dir)
  end)
  it("of the command", function()
    local said, status = run.attune "rnu"
    assert.same(2, status)
    assert.truthy(said:find "unknown command 'rnu': did you mean 'run'")
    said, status = run.attune "run x.lua --quik"
    assert.same(2, status)
    assert.truthy(said:find "quick")
    assert.same(2, select(2, run.attune "run"))
    assert.same(2, select(2, run.attune "export /tmp"))
    for _, command in ipairs {
      "run", "list", "show", "plot", "report", "export", "info", "env", "repl", "query", "status",
      "merge", "gc",
    } do
      assert.same(0, select(2, run.attune(command .. " --help")), command)
      assert.same(0, select(2, run.attune(command .. " --version")), command)
    end
    assert.truthy(run.attune "--version":find "^attune %d")
    assert.truthy(run.attune "--help":find "Commands:")
  end)
end)

describe("export", function()
  it("has one row per point, 17 digits, and intervals", function()
    local _, _, dir, script = with [[
      grid = {a = {1, 2}}, rounds = 2, trial = function(p, t)
        if p.a == 2 then return nil, "no" end
        return {square = 0.1 + t.round / 3}
      end]]
    local csv = run.attune(("export %s --csv -"):format(dir))
    local lines = {}
    for line in csv:gmatch "[^\n]+" do lines[#lines + 1] = line end
    assert.same("a,status,square,square.lo,square.hi", lines[1])
    assert.truthy(lines[2]:find "^1,ok,0%.%d%d%d%d%d%d%d%d%d%d%d%d%d%d+,")
    assert.same("2,skipped,,,", lines[3])
    local rows = json.decode((run.attune(("export %s --json -"):format(dir))))
    assert.same(2, #rows)
    assert.near(0.1 + 0.5, rows[1].square, 1e-15)
    local file = run.folder()
    assert.same(0, select(2, run.attune(("export %s --csv %s"):format(dir, file))))
    assert.same(csv, files.read(file))
    run.remove(dir, script, file)
  end)
end)

describe("the prompt and the environment", function()
  it("evaluates expressions and statements", function()
    local input = run.script [[
1 + 1
x = 3
for i = 1, 2 do
  x = x + i
end
x
attune.ones({2})
error 'no'
]]
    local said, status = run.attune("repl", input)
    assert.same(0, status)
    assert.truthy(said:find("2\n6\nf32 tensor [2]\n[1.0, 1.0]\n", 1, true) and said:find "no", said)
    run.remove(input)
  end)
  it("of a script by a plain lua5.4 is that of attune run", function()
    run.with_folder(function(folder)
      local declaration = [[require "attune.experiment" {
        name = "plain", timing = false, rounds = 1, grid = {a = {1, 2}},
        trial = function(p) return {square = p.a ^ 2} end,
      }]]
      assert(files.write(folder .. "/plain.lua", "return " .. declaration))
      assert(files.write(folder .. "/named.lua", ("local e = %s\nreturn e"):format(declaration)))
      assert(files.write(folder .. "/other.lua", [[
        print(dofile "plain.lua".name, loadfile "named.lua"().name)]]))
      local environment = ('eval "$(%s/attune env)"; '):format(
        require "luv".fs_realpath(os.getenv "ATTUNE_BUILD_DIR" or "build"))
      local function shell(command) return run.in_folder(folder, environment .. command) end
      local said, status = shell "lua5.4 plain.lua --set a=1,2,3 --out A"
      assert.same(0, status, said)
      assert.same(3, #assert(store.read(folder .. "/A")).points)
      said, status = shell "lua5.4 named.lua && lua5.4 named.lua"
      assert.same(0, status, said)
      assert.truthy(said:find("Nothing was left to measure", 1, true), said)
      said, status = shell "lua5.4 plain.lua --quik"
      assert.same(2, status, said)
      assert.truthy(said:find("unknown option '--quik'", 1, true), said)
      -- A program that only loads the script runs nothing.
      said, status = shell "lua5.4 other.lua"
      assert.same({"plain\tplain\n", 0}, {said, status})
    end)
  end)
  it("lets a plain lua5.4 find attune", function()
    local pipe = io.popen [[
      cd / && eval "$("$OLDPWD/$ATTUNE_BUILD_DIR/attune" env)" &&
        lua5.4 -e 'print(require "attune".version)']]
    assert.truthy(pipe:read "a":find "^%d+%.%d+")
    pipe:close()
  end)
end)
