--- Runs on a cluster, with programs of tests/support/slurm in place of Slurm.
local files = require "attune.util.files"
local json = require "attune.util.json"
local run = require "tests.support.run"
local slurm = require "attune.experiment.executor.slurm"
local store = require "attune.results.store"
local submission = require "attune.experiment.submission"
local text = require "attune.util.text"
local uv = require "luv"

local attune = uv.fs_realpath(os.getenv "ATTUNE_BUILD_DIR" or "build") .. "/attune"
local programs = uv.fs_realpath "tests/support/slurm"

-- Calls body with a cluster: its folder, a script of `fields`, a folder of results, and functions
-- that start attune.
local function with_cluster(fields, body)
  run.with_folder(function(folder)
    local c = {folder = folder, out = folder .. "/out", script = folder .. "/swept.lua"}
    c.environment = ("FAKE_SLURM=%s PATH=%s:$PATH"):format(text.shell_quote(folder), programs)
    assert(files.write(c.script, 'return require "attune.experiment" {name = "swept", ' .. fields
      .. "}"))
    -- Output on both streams, and the exit status.
    function c.attune(arguments)
      return run.in_folder(folder, ("export %s; %s %s"):format(c.environment, attune, arguments))
    end
    function c.run(options)
      return c.attune(("run %s --executor slurm --out %s %s"):format(text.shell_quote(c.script),
        text.shell_quote(c.out), options or ""))
    end
    function c.mark(name, content) assert(files.write(folder .. "/" .. name, content or "")) end
    function c.unmark(name) os.remove(folder .. "/" .. name) end
    body(c)
  end)
end

local quick = [[timing = false, rounds = 2, grid = {a = {1, 2, 3, 4, 5, 6}},
  trial = function(p) return {y = p.a} end]]

-- A trial that ends its task once: the first time that point 3 runs.
local lossy = [[timing = false, rounds = 2, grid = {a = {1, 2, 3, 4, 5, 6}},
  trial = function(p)
    local mark = os.getenv "FAKE_SLURM" .. "/lost"
    if p.a == 3 and not io.open(mark) then
      io.open(mark, "w"):close()
      local uv = require "luv"
      uv.kill(uv.os_getppid(), "sigkill")
      uv.sleep(10000)
    end
    return {y = p.a}
  end]]

-- Every trial of six points in two rounds is recorded once.
local function check_complete(dir)
  local seen, count = {}, 0
  for _, record in ipairs((store.records(dir))) do
    local key = store.key(record.hash, record.round)
    assert.is_nil(seen[key], key .. " is there twice")
    seen[key], count = true, count + 1
    assert.same("ok", record.status, record.reason)
  end
  assert.same(12, count)
  local results = assert(store.read(dir))
  for _, point in ipairs(results.points) do
    assert.same(point.parameters.a, point.metrics.y.centre)
    assert.same(2, point.metrics.y.n)
  end
  assert.same("file", files.kind(dir .. "/report.html"))
end

describe("a run with --executor slurm", function()
  it("submits tasks of --points and measures each once, into a file per task", function()
    with_cluster(quick, function(c)
      local said, status = c.run "--points 4 --slurm '--partition=long -t \"2 h\"'"
      assert.same(0, status, said)
      assert.truthy(said:find("Slurm job 1: 12 trials in 2 tasks", 1, true), said)
      assert.truthy(said:find("%[12/12%] a %d %(round %d%)"), said)
      check_complete(c.out)
      assert.same(2, #files.list(c.out .. "/trials"))
      assert.is_nil(files.kind(c.out .. "/slurm"))
      local words = "\n" .. files.read(c.folder .. "/words")
      for _, word in ipairs {"--requeue", "--partition=long", "-t\n2 h", "--array=1-2"} do
        assert.truthy(words:find("\n" .. word .. "\n", 1, true), words)
      end
      assert.is_nil(words:find "exclusive")
      said, status = c.run()
      assert.same(0, status, said)
      assert.truthy(said:find "Nothing was left to measure", said)
      assert.same({"1"}, files.list(c.folder .. "/jobs"))
    end)
  end)
  it("asks for machines of its own when trials are timed", function()
    with_cluster([[rounds = 1, grid = {a = {1}}, trial = function(p) return {y = 1} end]],
      function(c)
        local said, status = c.run()
        assert.same(0, status, said)
        assert.truthy(files.read(c.folder .. "/words"):find "%-%-exclusive\n")
      end)
  end)
  it("gives the records that a run on this machine gives", function()
    local body = [[timing = false, rounds = 2, grid = {a = {1, 2, 3}, b = {0.5, 1 / 0}},
      seeds = {4, 7}, trial = function(p)
        if p.a == 3 then return nil, "not for three" end
        if p.a == 2 and p.seed == 7 then error("no seven", 0) end
        return {y = p.a * p.b, r = math.random(), s = {1.0, p.seed}}
      end]]
    with_cluster(body, function(c)
      local function records(dir)
        local list = {}
        for _, r in ipairs((store.records(dir))) do
          local key = store.key(r.hash, r.round, r.seed)
          list[key] = {r.index, r.parameters, r.status, r.metrics, r.source,
            (r.reason or ""):match "^[^\n]*"}
        end
        return list
      end
      local _, status = c.run "--points 1"
      assert.same(1, status)
      local said
      said, status = c.attune(("run %s --out here"):format(c.script))
      assert.same(1, status, said)
      assert.same(records(c.folder .. "/here"), records(c.out))
    end)
  end)
  it("quotes hostile names of folders, scripts and options", function()
    with_cluster(quick, function(c)
      local hostile = "a'b \"c\" $(touch bad) `touch bad` %j\\n;#"
      c.out = ("%s/%s"):format(c.folder, hostile)
      local script = ("%s/%s.lua"):format(c.folder, hostile)
      assert(uv.fs_rename(c.script, script))
      c.script = script
      local said, status = c.run("--slurm " .. text.shell_quote "--comment='$(touch bad) \"'")
      assert.same(0, status, said)
      check_complete(c.out)
      assert.is_nil(files.kind(c.folder .. "/bad"))
      assert.truthy(files.read(c.folder .. "/words"):find('--comment=$(touch bad) "\n', 1, true))
    end)
  end)
  it("stops at the first failure with --fail-fast", function()
    with_cluster([[timing = false, rounds = 50, grid = {a = {1, 2}}, trial = function(p)
      if p.a == 2 then error "no" end
      require "luv".sleep(100)
      return {y = 1}
    end]], function(c)
      local said, status = c.run "--points 1 --fail-fast"
      assert.same(1, status, said)
      assert.is_true(#(store.records(c.out)) < 60)
      assert.is_nil(files.kind(c.out .. "/slurm"))
    end)
  end)
end)

describe("a task that is lost", function()
  it("is submitted again with what it had not measured", function()
    with_cluster(lossy, function(c)
      local said, status = c.run "--points 3"
      assert.same(0, status, said)
      assert.truthy(said:find("task 1 of Slurm job 1 was lost (NODE_FAIL) with 4 trials, which are "
        .. "submitted again", 1, true), said)
      assert.truthy(said:find("Slurm job 2: 4 trials in 1 task", 1, true), said)
      check_complete(c.out)
    end)
  end)
  it("and that Slurm has forgotten is found by its accounts", function()
    with_cluster(lossy, function(c)
      c.mark "forget"
      c.mark("accounts", "1_1|OUT_OF_MEMORY\n1_2|COMPLETED\n")
      local said, status = c.run "--points 3"
      assert.same(0, status, said)
      assert.truthy(said:find("was lost (OUT_OF_MEMORY)", 1, true), said)
      check_complete(c.out)
    end)
  end)
  it("goes on where it was when Slurm starts it again", function()
    with_cluster(lossy, function(c)
      c.mark "restart"
      local said, status = c.run "--points 6"
      assert.same(0, status, said)
      assert.is_nil(said:find "was lost", said)
      assert.same({"1"}, files.list(c.folder .. "/jobs"))
      check_complete(c.out)
    end)
  end)
  it("says what it printed last", function()
    run.with_folder(function(folder)
      local s = {folder = folder}
      assert.is_nil(submission.last_words(s, 1))
      assert(files.write(folder .. "/task-1.out", "first\nslurmstepd: \27[1mno space left\n \n"))
      assert.same("slurmstepd: \\x1b[1mno space left", submission.last_words(s, 1))
      assert(files.write(folder .. "/task-1.out", "\n \n"))
      assert.is_nil(submission.last_words(s, 1))
    end)
  end)
  it("three times without a record is not submitted again", function()
    with_cluster([[timing = false, rounds = 1, grid = {a = {1, 2}}, trial = function(p)
      if p.a == 2 then return {y = 1} end
      print "last words"
      require "luv".kill(require "luv".os_getppid(), "sigkill")
      require "luv".sleep(10000)
    end]], function(c)
      local said, status = c.run "--points 1"
      assert.same(1, status, said)
      assert.truthy(said:find("which is not submitted again: lost 3 times", 1, true), said)
      assert.truthy(said:find("1 trial was lost with its task; the same command submits it again.",
        1, true), said)
      assert.same(1, #(store.records(c.out)))
    end)
  end)
end)

describe("--detach", function()
  it("leaves the jobs, which status follows and the same command takes in", function()
    with_cluster(quick, function(c)
      c.mark "hold"
      local said, status = c.run "--points 2 --detach"
      assert.same(0, status, said)
      assert.truthy(said:find("Submitted: Slurm job 1. attune status ", 1, true), said)
      said, status = c.attune "status out"
      assert.same(0, status, said)
      assert.truthy(said:find("swept: no trial yet; 12 of 12 left\n"
        .. "Slurm job 1, 3 tasks: 3 queued\n", 1, true), said)
      said, status = c.attune "run swept.lua --out out"
      assert.same(2, status)
      assert.truthy(said:find("expected no job that measures for this folder, got Slurm job 1", 1,
        true), said)
      assert.truthy(said:find("scancel 1", 1, true), said)
      said, status = c.run "--fresh"
      assert.same(2, status, said)
      said, status = c.run "--points 2 --detach"
      assert.same(0, status, said)
      assert.same({"1"}, files.list(c.folder .. "/jobs"))
      c.mark "down"
      said = c.attune "status out"
      assert.truthy(said:find("3 tasks: 3 unknown", 1, true), said)
      assert.truthy(said:find("Unable to contact slurm controller", 1, true), said)
      c.unmark "down"
      c.unmark "hold"
      local left
      repeat
        uv.sleep(50)
        said = c.attune "status out --json"
        left = json.decode(said:match "^[^\n]*").left
      until left == 0
      -- A task ends after its last record.
      repeat said = c.attune "status out" until not said:find "running"
      assert.truthy(said:find "the same attune run command draws the report", said)
      said, status = c.run()
      assert.same(0, status, said)
      check_complete(c.out)
      assert.is_nil(files.kind(c.out .. "/slurm"))
      said = c.attune "status out --json"
      assert.truthy(said:find('"slurm":[]', 1, true), said)
    end)
  end)
  it("and an edit of the script: the tasks say so and measure nothing", function()
    with_cluster(quick, function(c)
      c.mark "hold"
      local said, status = c.run "--detach"
      assert.same(0, status, said)
      c.mark("swept.lua", ('return require "attune.experiment" {name = "swept", %s}'):format(
        (quick:gsub("y = p.a", "y = p.a + 0"))))
      c.unmark "hold"
      said, status = c.run()
      assert.same(2, status, said)
      assert.truthy(said:find "it was edited since; run the command again", said)
      said, status = c.run()
      assert.same(0, status, said)
      check_complete(c.out)
    end)
  end)
end)

-- Starts a run, and calls interrupt(process id) once some trials are recorded.
local function interrupted(c, interrupt)
  local said, ended = "", nil
  local pipe = uv.new_pipe(false)
  local environment = {}
  local variables = uv.os_environ() -- LD_PRELOAD of a build with sanitizers is one of them
  variables.FAKE_SLURM, variables.PATH = c.folder, programs .. ":" .. variables.PATH
  for name, value in pairs(variables) do environment[#environment + 1] = name .. "=" .. value end
  local handle, pid = uv.spawn("sh", {
    args = {"-c", 'exec "$0" "$@" 2>&1', attune, "run", c.script, "--executor", "slurm", "--out",
      c.out, "--points", "2"},
    env = environment, stdio = {nil, pipe},
  }, function(code) ended = code end)
  pipe:read_start(function(_, chunk) said = said .. (chunk or "") end)
  while not ended and not said:find "%[2/" do uv.run "once" end
  interrupt(pid)
  while not ended do uv.run "once" end
  handle:close()
  pipe:close()
  uv.run "nowait"
  return said, ended
end

local slow = quick:gsub("return", "require 'luv'.sleep(150) return")

describe("a signal to a run on a cluster", function()
  it("SIGINT cancels the jobs, and the same command measures the rest", function()
    with_cluster(slow, function(c)
      local said, status = interrupted(c, function(pid) uv.kill(pid, "sigint") end)
      assert.same(130, status, said)
      assert.truthy(said:find("Ctrl-C: cancelling the jobs", 1, true), said)
      for _, name in ipairs(files.list(c.folder .. "/jobs/1")) do
        local state = name:find "^%d+$" and files.read(c.folder .. "/jobs/1/" .. name)
        assert.is_true(not state or state ~= "RUNNING\n" and state ~= "PENDING\n", state)
      end
      assert.is_nil(files.kind(c.out .. "/slurm/run00001/submission.json"))
      said, status = c.run()
      assert.same(0, status, said)
      check_complete(c.out)
    end)
  end)
  it("SIGHUP leaves the jobs, and the same command waits for them", function()
    with_cluster(slow, function(c)
      local said, status = interrupted(c, function(pid) uv.kill(pid, "sighup") end)
      assert.same(129, status, said)
      assert.is_nil(files.kind(c.folder .. "/cancelled"))
      said, status = c.run()
      assert.same(0, status, said)
      assert.truthy(said:find "was submitted before; waiting for it", said)
      assert.same({"1"}, files.list(c.folder .. "/jobs"))
      check_complete(c.out)
    end)
  end)
  it("SIGKILL leaves the jobs, too", function()
    with_cluster(slow, function(c)
      interrupted(c, function(pid) uv.kill(pid, "sigkill") end)
      local said, status = c.run()
      assert.same(0, status, said)
      check_complete(c.out)
    end)
  end)
end)

describe("without a cluster", function()
  it("--executor slurm is misuse that names the package", function()
    with_cluster(quick, function(c)
      assert(files.make_folder(c.folder .. "/bin"))
      local lua = io.popen("command -v lua5.4"):read "l"
      assert(uv.fs_symlink(lua, c.folder .. "/bin/lua5.4"))
      c.environment = "PATH=" .. c.folder .. "/bin"
      local said, status = c.run()
      assert.same(2, status, said)
      assert.truthy(said:find("the Debian package slurm-client", 1, true), said)
      assert.is_nil(files.kind(c.out))
    end)
  end)
  it("what sbatch refuses is told, and nothing is left of the job", function()
    with_cluster(quick, function(c)
      c.mark("refuse", "sbatch: error: invalid partition specified: nowhere\n")
      local said, status = c.run "--slurm --partition=nowhere"
      assert.same(2, status, said)
      assert.truthy(said:find("invalid partition specified: nowhere", 1, true), said)
      assert.is_nil(files.kind(c.out .. "/slurm"))
    end)
  end)
  it("its options are misuse, and so are wrong ones", function()
    with_cluster(quick, function(c)
      local slurm_run = "run swept.lua --executor slurm "
      for arguments, message in pairs {
        ["run swept.lua --points 3"] = "--points: expected --executor slurm with it, got no",
        ["run swept.lua --detach --executor local"] = "--detach: expected --executor slurm with it",
        ["run swept.lua --executor pbs"] = "--executor: expected local or slurm, got 'pbs'",
        [slurm_run .. "--points 0"] = "--points: expected an integer from 1",
        [slurm_run .. "--slurm main"] = "expected options of sbatch such as --partition=NAME",
        [slurm_run .. "--slurm '--a=\"b'"] = "--slurm: expected options with closed quotes",
        [slurm_run .. "--slurm '--array=1-2'"] = "--slurm: --array: expected another option",
      } do
        local said, status = c.attune(arguments)
        assert.same(2, status, said)
        assert.truthy(said:find(message, 1, true), said)
      end
    end)
  end)
end)

describe("options of sbatch", function()
  it("are split as a shell splits words, and nothing is expanded", function()
    for given, wanted in pairs {
      [" --a=1  -b 2 "] = {"--a=1", "-b", "2"},
      ["--a='x y'z"] = {"--a=x yz"},
      ['--a="x \\" $y \\$z"'] = {'--a=x " $y $z'},
      ["--a=\\ b\\'"] = {"--a= b'"},
      ["--a ''"] = {"--a", ""},
      [""] = {},
    } do
      assert.same(wanted, slurm.options(given), given)
    end
  end)
end)

describe("a folder of results from a stranger", function()
  it("names no job that is cancelled or waited for", function()
    run.with_folder(function(folder)
      local job = folder .. "/slurm/run00001"
      assert(files.make_folder(job))
      local good = {base = "run00001-2026Z", name = "attune-x-00", tasks = 1, losses = 0}
      local function count(change)
        local value = {}
        for k, v in pairs(good) do value[k] = v end
        for k, v in pairs(change) do value[k] = v end
        assert(files.write(job .. "/submission.json", json.encode(value)))
        return #submission.list(folder)
      end
      assert.same(1, count {})
      for _, change in ipairs {
        {name = "other"}, {name = "attune-x-00,other"}, {base = "../../x"}, {tasks = -1},
        {tasks = 1 << 40}, {tasks = "1"}, {job = "1 2"}, {job = 7}, {losses = -1},
      } do
        assert.same(0, count(change), json.encode(change))
      end
      count {}
      assert(uv.fs_rename(folder .. "/slurm", folder .. "/elsewhere"))
      assert(uv.fs_symlink(folder .. "/elsewhere", folder .. "/slurm"))
      assert.same(0, #submission.list(folder))
    end)
  end)
end)
