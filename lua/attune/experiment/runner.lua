--- Runs a sweep: one worker process per trial, round by round, each record stored as it comes.
local uv = require "luv"
local executor = require "attune.experiment.executor.local"
local experiment = require "attune.experiment"
local lock = require "attune.results.lock"
local plan = require "attune.experiment.plan"
local progress = require "attune.experiment.progress"
local provenance = require "attune.results.provenance"
local schema = require "attune.results.schema"
local store = require "attune.results.store"
local text = require "attune.util.text"
local validate = require "attune.results.validate"

local runner = {}

-- Ctrl-C, SIGTERM and a closed terminal set control.stop and the command's exit status.
local function watch_signals(control)
  local handles = {}
  for name, status in pairs {sigint = 130, sigterm = 143, sighup = 129} do
    local s = uv.new_signal()
    s:start(name, function()
      control.stop = true
      control.status = control.status or status
    end)
    s:unref()
    handles[#handles + 1] = s
  end
  return function()
    for _, s in ipairs(handles) do
      s:stop()
      s:close()
    end
    uv.run "nowait"
  end
end

-- A record is short: nobody needs more digits of these.
local function rounded(x, scale) return math.floor(x * scale + 0.5) / scale end

-- Runs one trial and fills in what the runner knows; nil when the run was stopped.
local function record_of(e, trial, options, control)
  local point = trial.point
  local record = executor.run(e, {
    script = options.script,
    parameters = point.parameters,
    round = trial.round,
    seed = trial.seed,
    quick = options.quick or false,
    memory = e.memory,
    parent = uv.os_getpid(),
  }, control)
  if not record then return nil end
  record.schema = schema.version
  record.hash, record.index = point.hash, point.index
  record.round, record.attempt = trial.round, trial.attempt > 1 and trial.attempt or nil
  record.seed, record.parameters = trial.seed, point.parameters
  record.load = rounded((uv.loadavg()), 100)
  record.seconds = rounded(record.seconds, 1e6)
  if record.source == e.source then record.source = nil end
  if record.warnings and #record.warnings == 0 then record.warnings = nil end
  if record.reason then record.reason = text.without_home(record.reason, uv.os_homedir()) end
  for i, warning in ipairs(record.warnings or {}) do
    record.warnings[i] = text.without_home(warning, uv.os_homedir())
  end
  return record
end

local cannot_write = "%s: writing a record: %s; the results before it are kept"

-- Runs all trials in order. Returns {measured, stopped, left}, or nil and a message when a record
-- cannot be written. left: trials that did not start before the budget of seconds was spent.
local function run_trials(e, trials, options, control, bar, writer)
  local measured, stopped, given_up, left = 0, nil, {}, 0
  local begin = uv.hrtime()
  for _, trial in ipairs(trials.list) do
    local hash = trial.point.hash
    if e.budget and (uv.hrtime() - begin) * 1e-9 >= e.budget then
      left = left + 1
    elseif given_up[hash] or trials.enough:done(hash) then
      bar.total = bar.total - 1
    else
      local what = plan.trial_text(e, trial)
      bar:begin(what)
      local record = record_of(e, trial, options, control)
      if not record then
        stopped = true
        break
      end
      local written, why = writer:write(record)
      if not written then
        return nil, cannot_write:format(options.dir, why)
      end
      measured = measured + 1
      trials.enough:add(record)
      -- A point that failed once is not tried again in later rounds of this run.
      if record.status ~= "ok" then given_up[hash] = true end
      bar:finish(what, record)
      local failed = record.status ~= "ok" and record.status ~= "skipped"
      if failed and options.fail_fast then break end
    end
    if control.stop then
      stopped = true
      break
    end
  end
  return {measured = measured, stopped = stopped, left = left}
end

-- The declaration as this run uses it, its points and its description; nil and a message.
local function prepare(options)
  local e, why = experiment.load(options.script)
  if not e then return nil, why end
  local ok, result = pcall(experiment.narrowed, e, options)
  if not ok then return nil, result end
  e = result
  ok, result = pcall(plan.points, e, options.only)
  if not ok then return nil, result end
  if #result == 0 then
    return nil, "grid: expected at least one point, got none (where, derived or --only leave none)"
  end
  local description = plan.describe(e, options, #result)
  why = validate.description(description)
  if why then return nil, why end
  return e, result, description
end

local function count_of(n, noun) return ("%d %s%s"):format(n, noun, n == 1 and "" or "s") end

-- Says which points are measured again although the folder has records of their parameters.
local function explain(options, changed, say)
  for _, change in ipairs(changed) do
    local format = options.keep and "%s: %s with records that are kept, although %s"
      or "%s: %s to be measured again, as %s; --keep accepts the records"
    say(format:format(options.dir, count_of(change.count, "point"), change.reason))
  end
end

-- What is still to be run in a folder that this run holds; nil and a message.
local function open(options, e, points, description, say)
  local ok, why = store.open(options.dir, description)
  if not ok then return nil, why end
  local loaded
  loaded, why = store.load(options.dir)
  if not loaded then return nil, why end
  if options.fresh then
    ok, why = store.clear(options.dir)
    if not ok then return nil, why end
  else
    explain(options, plan.changes(e, points, loaded.records, options.keep), say)
  end
  local list, enough = plan.trials(e, points, loaded.records, options)
  return {list = list, enough = enough, loaded = loaded}
end

-- Runs the trials. Returns what run_trials returns.
local function measure(e, trials, options, control)
  local unwatch = watch_signals(control)
  local bar = progress(#trials.list)
  local about = {host = options.host, source = e.source}
  local header = #trials.list > 0 and provenance(options.script, options.command or "", about) or {}
  local writer = store.writer(options.dir, header)
  local done, message = run_trials(e, trials, options, control, bar, writer)
  bar:close()
  local flushed, why = writer:close()
  unwatch()
  if done and not flushed then return nil, cannot_write:format(options.dir, why) end
  return done, message
end

local function to_standard_error(message)
  io.stderr:write("attune run: ", text.printable(message), "\n")
end

-- What a run would do, without a change to the folder.
local function dry_run(options, e, points)
  local records = {}
  local there = store.description(options.dir)
  if there and there.name == e.name then records = store.records(options.dir) end
  explain(options, plan.changes(e, points, records, options.keep), to_standard_error)
  local trials = plan.trials(e, points, records, options)
  local seconds, count = plan.estimate(trials, records)
  return {
    measured = 0,
    points = points,
    experiment = e,
    dry = true,
    trials = trials,
    seconds = seconds,
    seen = count,
  }
end

--- Runs what is still to be run. The folder stays locked until outcome.lock is closed or the
--- process ends.
---@param options attune.RunOptions
---@return attune.RunOutcome? outcome nil for misuse or a full disk
---@return string? message
function runner.run(options)
  local e, points, description = prepare(options)
  if not e then return nil, points end
  if options.dry then return dry_run(options, e, points) end
  local ok, why = store.make(options.dir, e.name)
  if not ok then return nil, why end
  local held
  held, why = lock.take(options.dir, to_standard_error)
  if held == nil then return nil, why end
  local trials, done
  trials, why = open(options, e, points, description, to_standard_error)
  local control = {worker = options.worker}
  if trials then done, why = measure(e, trials, options, control) end
  if not done then
    lock.release(held)
    return nil, why
  end
  return {
    measured = done.measured,
    stopped = done.stopped,
    left = done.left,
    loaded = done.measured == 0 and not options.fresh and trials.loaded or nil,
    status = control.status,
    points = points,
    experiment = e,
    lock = held or nil,
  }
end

return runner
