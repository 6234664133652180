-- What a sweep costs besides its trials, counted in operations rather than in seconds: the cost of
-- a run, of a rerun and of a report is proportional to the number of points, and a trial in a
-- worker that ran others before opens no file but the script and those of its measurements.
local experiment = require "attune.experiment"
local files = require "attune.util.files"
local made = require "tests.support.made_results"
local report = require "attune.report"
local run = require "tests.support.run"
local runner = require "attune.experiment.runner"
local store = require "attune.results.store"
local uv = require "luv"

-- Thousands of instructions of Lua's machine that a call takes in this process.
local function instructions(body)
  local count = 0
  local hook, mask, number = debug.gethook() -- of a test of coverage, for one
  collectgarbage "stop" -- finalisers would be counted too
  debug.sethook(function() count = count + 1 end, "", 1000)
  local ok, why = xpcall(body, debug.traceback)
  debug.sethook(hook, mask, number)
  collectgarbage "restart"
  assert(ok, why)
  return count
end

local function script_with(points)
  return run.script(([[
    local list = {}
    for i = 1, %d do list[i] = i end
    return require "attune.experiment" {
      name = "cost", about = "costs", rounds = 1, timing = false, grid = {i = list},
      metrics = {x = {unit = "s", better = "lower"}},
      trial = function(p) return {x = p.i} end,
    }]]):format(points))
end

-- Calls body with the options of a run of that number of points, and removes what it left.
local function with_run(points, body)
  run.with_folder(function(folder)
    local script = script_with(points)
    local standard_error = io.stderr
    rawset(io, "stderr", io.tmpfile()) -- the progress of the run
    local ok, why = pcall(body, {
      script = script, dir = folder .. "/results",
      worker = {"lua5.4", "lua/bin/attune", "trial"},
    })
    io.stderr:close()
    rawset(io, "stderr", standard_error)
    run.remove(script)
    assert(ok, why)
  end)
end

local function run_whole(options)
  local outcome = assert(runner.run(options))
  if outcome.lock then require "attune.results.lock".release(outcome.lock) end
  return outcome
end

-- Instructions of a run, of a rerun and of a report.
local function costs(points)
  local of_run, of_rerun, of_report
  with_run(points, function(options)
    of_run = instructions(function() assert.same(points, run_whole(options).measured) end)
    of_rerun = instructions(function() assert.same(0, run_whole(options).measured) end)
    local results = assert(store.read(options.dir))
    of_report = instructions(function() assert(report.write(results, options.dir)) end)
  end)
  return of_run, of_rerun, of_report
end

describe("the cost of a sweep", function()
  it("grows in proportion to the number of points", function()
    local function check(what, few, many)
      -- Twice the points, and what each costs grows by at most a fifth.
      assert.is_true(many <= 2.4 * few, ("%s: %d thousand instructions for 400 points, %d for 800")
        :format(what, few, many))
    end
    local run_few, rerun_few, report_few = costs(400)
    local run_many, rerun_many, report_many = costs(800)
    check("run", run_few, run_many)
    check("rerun", rerun_few, rerun_many)
    check("report", report_few, report_many)
  end)

  it("is at most 16,000 instructions per point for a rerun", function()
    local _, rerun = costs(500)
    assert.is_true(rerun <= 16 * 500, rerun .. " thousand for 500 points")
  end)

  it("reads one file per trial in a worker that ran others before", function()
    with_run(2, function(options)
      local names, search, read = {}, package.searchpath, files.read
      assert(experiment.load(options.script))
      assert(experiment.reload(options.script))
      rawset(package, "searchpath", function(name, ...)
        names[#names + 1] = "module " .. name
        return search(name, ...)
      end)
      files.read = function(path, ...)
        names[#names + 1] = path
        return read(path, ...)
      end
      local ok, why = pcall(experiment.reload, options.script)
      rawset(package, "searchpath", search)
      files.read = read
      assert(ok, why)
      assert.same({options.script}, names)
    end)
  end)
end)

describe("a report of 1,000 points", function()
  it("with four figures has at most 3 MB", function()
    local points = {}
    for a = 1, 100 do
      for m = 1, 10 do
        local y = 1e-3 * a * m
        points[#points + 1] = {{a = a, m = m}, {y = {y, 1.01 * y, 1.02 * y}, z = a * m}}
      end
    end
    local results = made.results(points, {
      {kind = "line", x = "a", y = "y", by = "m", log = "xy"},
      {kind = "heat", x = "a", y = "m", value = "z"},
      {kind = "bars", x = "a", y = "z", by = "m", where = {a = {1, 2, 3, 4}}},
      {kind = "scatter", x = "z", y = "y"},
    })
    local dir = made.drawn(results, {formats = {"svg"}})
    assert(report.write(results, dir))
    local size = uv.fs_stat(dir .. "/report.html").size
    run.remove(dir)
    assert.is_true(size > 3e5 and size <= 3e6, size .. " bytes")
  end)
end)
