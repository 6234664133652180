--- Runs a sweep: one worker process per trial, round by round, each record stored as it comes.
local uv = require "luv"
local axes = require "attune.experiment.axes"
local executor = require "attune.experiment.executor.local"
local experiment = require "attune.experiment"
local files = require "attune.util.files"
local lock = require "attune.results.lock"
local plan = require "attune.experiment.plan"
local progress = require "attune.experiment.progress"
local provenance = require "attune.results.provenance"
local store = require "attune.results.store"
local text = require "attune.util.text"
local validate = require "attune.results.validate"

local runner = {}

local function to_standard_error(message)
  io.stderr:write("attune run: ", text.printable(message), "\n")
end

local signals = {
  {"sigint", 130, "Ctrl-C"},
  {"sigterm", 143, "SIGTERM"},
  {"sighup", 129, "SIGHUP (the terminal was closed)"},
}

-- Signals set fields of control: `stop`, after which no trial starts; `kill`, after which running
-- trials end at once; `status`, the command's exit status. Ctrl-C stops and, when it comes again,
-- kills. What ends a session kills at once, as little time may be left.
local function watch_signals(control, say)
  local handles = {}
  for _, signal in ipairs(signals) do
    local name, status, words = table.unpack(signal)
    local s = uv.new_signal()
    s:start(name, function()
      control.kill = control.stop or name ~= "sigint"
      control.stop = true
      if control.status then return end
      control.status = status
      say(control.kill and words .. ": ending now"
        or words .. ": ending after the running trial; Ctrl-C again ends it now")
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

-- What a worker reads.
local function request_of(e, trial, options)
  local which = e.seeds and trial.seed or trial.round
  return {
    uses = options.used,
    files = ("%s/files/%s-%d"):format(options.whole_dir, trial.point.hash, which),
    script = options.script,
    parameters = trial.point.parameters,
    round = trial.round,
    seed = trial.seed,
    quick = options.quick or false,
    memory = e.memory,
    parent = uv.os_getpid(),
  }
end

-- Fills in what the runner knows.
local function complete(record, e, trial, home)
  local point = trial.point
  record.hash, record.index = point.hash, point.index
  record.round, record.attempt = trial.round, trial.attempt > 1 and trial.attempt or nil
  record.seed, record.parameters = trial.seed, point.parameters
  record.load = rounded((uv.loadavg()), 100)
  record.seconds = rounded(record.seconds, 1e6)
  if record.source == e.source then record.source = nil end
  if record.core_peak == 0 then record.core_peak = nil end
  if record.warnings and #record.warnings == 0 then record.warnings = nil end
  for _, name in ipairs {"reason", "output"} do
    if record[name] then record[name] = text.without_home(record[name], home) end
  end
  for i, warning in ipairs(record.warnings or {}) do
    record.warnings[i] = text.without_home(warning, home)
  end
  return record
end

local cannot_write = "%s: writing a record: %s; the results before it are kept"

-- The trials of a run: which one is next, and what has become of those before.
local Queue = {}
Queue.__index = Queue

local function new_queue(e, trials, options, control, bar, writer)
  return setmetatable({
    e = e, list = trials.list, enough = trials.enough, options = options, control = control,
    bar = bar, writer = writer, at = 0, measured = 0, left = 0, given_up = {}, begin = uv.hrtime(),
    home = uv.os_homedir(),
  }, Queue)
end

-- The next trial that is to be run; nil when there is none.
function Queue:next()
  local e, budget = self.e, self.e.budget
  while self.at < #self.list and not self.control.stop and not self.failed do
    self.at = self.at + 1
    local trial = self.list[self.at]
    if budget and (uv.hrtime() - self.begin) * 1e-9 >= budget then
      self.left = self.left + 1
    elseif self.given_up[trial.point.hash] or self.enough:done(trial.point.hash) then
      self.bar.total = self.bar.total - 1
    else
      trial.what = plan.trial_text(e, trial)
      return trial
    end
  end
end

-- Stores a record; nil and a message when it cannot be written.
function Queue:take(trial, record)
  local written, why = self.writer:write(complete(record, self.e, trial, self.home))
  if not written then return nil, cannot_write:format(self.options.dir, why) end
  self.measured = self.measured + 1
  self.enough:add(record)
  -- A point that failed once is not tried again in later rounds of this run.
  if record.status ~= "ok" then self.given_up[trial.point.hash] = true end
  self.bar:finish(trial.what, record)
  local failed = record.status ~= "ok" and record.status ~= "skipped"
  self.failed = self.failed or (failed and self.options.fail_fast)
  return true
end

-- Runs all trials in order. Returns {measured, stopped, left}, or nil and a message when a record
-- cannot be written. left: trials that did not start before the budget of seconds was spent.
local function run_trials(queue, pool)
  local e, control, round = queue.e, queue.control, nil
  while true do
    local trial = pool:is_free() and queue:next()
    if trial then
      -- Memory lies elsewhere in another process, which changes times: each round sees another.
      if e.timing and trial.round ~= round then pool:renew() end
      round = trial.round
      queue.bar:begin(trial.what)
      pool:start(trial, request_of(e, trial, queue.options))
    elseif pool:is_idle() then
      break
    else
      local ended, record = pool:next(control)
      if record then
        local ok, why = queue:take(ended, record)
        if not ok then return nil, why end
      end
    end
  end
  return {measured = queue.measured, stopped = control.stop, left = queue.left}
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

-- Says which points are measured again although the folder has records of their parameters.
local function explain(options, changed, say)
  for _, change in ipairs(changed) do
    local format = options.keep and "%s: %s with records that are kept, although %s"
      or "%s: %s to be measured again, as %s; --keep accepts the records"
    say(format:format(options.dir, text.count(change.count, "point"), change.reason))
  end
end

-- What is still to be run in a folder that this run holds; nil and a message.
local function open(options, e, points, description, say)
  local ok, why = store.open(options.dir, description)
  if ok then ok, why = store.keep_script(options.dir, options.script) end
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

-- Trials that time run alone, whatever number is asked for.
local function jobs_of(e, options, say)
  local jobs = options.jobs or 1
  if jobs > 1 and e.timing then
    say "--jobs: trials that time run alone; timing = false lets them run side by side"
    return 1
  end
  return jobs
end

-- Runs the trials. Returns what run_trials returns.
local function measure(e, trials, options, control)
  options.whole_dir = uv.fs_realpath(options.dir)
  local unwatch = watch_signals(control, to_standard_error)
  local bar = progress(#trials.list)
  local about = {host = options.host, source = e.source}
  local header = #trials.list > 0 and provenance(options.script, options.command or "", about) or {}
  local writer = store.writer(options.dir, header)
  local pool = executor.pool(e, {
    program = options.worker,
    jobs = #trials.list > 0 and jobs_of(e, options, to_standard_error) or 1,
  })
  local queue = new_queue(e, trials, options, control, bar, writer)
  local done, message = run_trials(queue, pool)
  pool:close()
  bar:close()
  local flushed, why = writer:close()
  unwatch()
  if done and not flushed then return nil, cannot_write:format(options.dir, why) end
  return done, message
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

-- The values of --set that concern a used experiment: those of parameters that it has, too.
local function set_for(script, set)
  local e = experiment.load(script)
  local own = {}
  for name, values in pairs(e and set or {}) do
    if axes.has(e, name) then own[name] = values end
  end
  return own
end

-- Runs the experiments that this one uses, each once: what they have measured stays. Returns their
-- folders by name, or nil, a message and the outcome of one that was stopped.
local function run_used(options, e)
  local folders, chain = {}, table.move(options.chain or {}, 1, #(options.chain or {}), 1, {})
  chain[#chain + 1] = e.name
  for _, name in ipairs(e.uses or {}) do
    for _, above in ipairs(chain) do
      if above == name then
        return nil, "uses: dependency cycle: " .. table.concat(chain, ", ") .. ", " .. name
      end
    end
    local dir = options.own_folder and ("%s/uses/%s"):format(options.dir, name)
      or ("%s/%s"):format(files.folder_of(options.dir), name)
    to_standard_error(("%s uses %s, in %s"):format(e.name, name, dir))
    local script = experiment.script_of(options.script, name)
    local outcome, why = runner.run {
      script = script,
      dir = dir,
      own_folder = options.own_folder,
      chain = chain,
      quick = options.quick,
      set = set_for(script, options.set),
      jobs = options.jobs,
      host = options.host,
      command = options.command,
      worker = options.worker,
    }
    if not outcome then return nil, ("uses: %s: %s"):format(name, why) end
    if outcome.lock then lock.release(outcome.lock) end
    if outcome.stopped then return nil, "stopped", outcome end
    if outcome.experiment.name ~= name then
      return nil, ("uses: %s: expected an experiment of this name, got '%s'"):format(name,
        outcome.experiment.name)
    end
    folders[name] = uv.fs_realpath(dir)
  end
  return folders
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
  local stopped
  if e.uses then
    options.used, why, stopped = run_used(options, e)
    if stopped then
      stopped.experiment, stopped.points, stopped.measured = e, points, 0
      stopped.lock = nil
      return stopped
    end
    if not options.used then return nil, why end
  end
  local held
  held, why = lock.take(options.dir, to_standard_error)
  if held == nil then return nil, why end
  local trials, done
  trials, why = open(options, e, points, description, to_standard_error)
  local control = {}
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
