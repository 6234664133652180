--- Runs a sweep: one worker process per trial, round by round, each record stored as it comes.
local uv = require "luv"
local core = require "attune.core"
local executor = require "attune.experiment.executor.local"
local experiment = require "attune.experiment"
local plan = require "attune.experiment.plan"
local progress = require "attune.experiment.progress"
local provenance = require "attune.results.provenance"
local schema = require "attune.results.schema"
local store = require "attune.results.store"
local sweep = require "attune.experiment.points"
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

-- Runs one trial and fills in what the runner knows; nil when the run was stopped.
local function record_of(e, trial, options, control)
  local point = trial.point
  -- The seed depends on the point and the round alone: a repeated trial gets the same one.
  local seed = tonumber(sweep.hash(point.hash .. ":" .. trial.round):sub(1, 7), 16)
  local record = executor.run(e, {
    script = options.script,
    parameters = point.parameters,
    round = trial.round,
    seed = seed,
    quick = options.quick or false,
    memory = e.memory,
    parent = uv.os_getpid(),
  }, control)
  if not record then return nil end
  record.schema = schema.version
  record.hash, record.index = point.hash, point.index
  record.round, record.attempt = trial.round, trial.attempt
  record.seed, record.parameters = seed, point.parameters
  record.load = uv.loadavg()
  return record
end

-- Runs all trials in order. Returns {measured, stopped}, or nil and a message when a record cannot
-- be written.
local function run_trials(e, trials, options, control, bar, writer)
  local measured, stopped, given_up = 0, nil, {}
  for _, trial in ipairs(trials) do
    local hash = trial.point.hash
    if given_up[hash] then
      bar.total = bar.total - 1
    else
      local what = ("%s (round %d)"):format(plan.point_text(e, trial.point), trial.round)
      bar:begin(what)
      local record = record_of(e, trial, options, control)
      if not record then
        stopped = true
        break
      end
      local written, why = writer:write(record)
      if not written then
        local format = "%s: writing a record: %s; the results before it are kept"
        return nil, format:format(options.dir, why)
      end
      measured = measured + 1
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
  return {measured = measured, stopped = stopped}
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
  local description = plan.describe(e, options)
  why = validate.description(description)
  if why then return nil, why end
  return e, result, description
end

local wait_milliseconds = 100

-- Locks the folder for this run, so that no trial is recorded twice. Waits, and says so, while
-- another run holds the lock. Returns a descriptor, or false where the file system has no locks;
-- nil and a message when the folder cannot be opened.
local function lock(dir, say)
  local said
  while true do
    local fd, why, code = core._lock_folder(dir)
    if fd then
      -- The folder may have been replaced while this run waited.
      local locked, named = uv.fs_fstat(fd), uv.fs_stat(dir)
      if locked and named and locked.ino == named.ino and locked.dev == named.dev then return fd end
      uv.fs_close(fd)
      if not named then return nil, dir .. ": expected the folder to stay, but it was deleted" end
    elseif code == "unsupported" then
      say(dir .. ": this file system has no locks; do not run twice in this folder")
      return false
    elseif code ~= "busy" then
      return nil, why
    elseif not said then
      say(dir .. ": another run is writing to this folder; waiting for its end")
      said = true
    end
    uv.sleep(wait_milliseconds)
  end
end

-- The trials of records whose results this run keeps.
local function kept_records(records, points)
  local of, list = {}, {}
  for _, point in ipairs(points) do of[point.hash] = true end
  for _, record in pairs((store.chosen(records))) do
    if of[record.hash] then list[#list + 1] = record end
  end
  return list
end

-- What is still to be run in a folder that this run holds; nil and a message.
local function open(options, e, points, description, say)
  local ok, why = store.open(options.dir, description)
  if not ok then return nil, why end
  local records = store.records(options.dir)
  if options.fresh then
    ok, why = store.clear(options.dir)
    if not ok then return nil, why end
  else
    local edited = store.other_source(kept_records(records, points), e.source)
    if edited then say(options.dir .. ": " .. edited) end
  end
  return plan.trials(points, e.rounds, records, options.fresh)
end

-- Runs the trials. Returns what run_trials returns.
local function measure(e, trials, options, control)
  local unwatch = watch_signals(control)
  local bar = progress(#trials)
  local header = #trials > 0 and provenance(options.script, options.command or "") or {}
  local writer = store.writer(options.dir, header)
  local done, message = run_trials(e, trials, options, control, bar, writer)
  bar:close()
  writer:close()
  unwatch()
  return done, message
end

local function to_standard_error(message)
  io.stderr:write("attune run: ", text.printable(message), "\n")
end

--- Runs what is still to be run. The folder stays locked until outcome.lock is closed or the
--- process ends.
---@param options attune.RunOptions
---@return attune.RunOutcome? outcome nil for misuse or a full disk
---@return string? message
function runner.run(options)
  local e, points, description = prepare(options)
  if not e then return nil, points end
  if options.dry then return {measured = 0, points = points, experiment = e, dry = true} end
  local ok, why = store.make(options.dir, e.name)
  if not ok then return nil, why end
  local held
  held, why = lock(options.dir, to_standard_error)
  if held == nil then return nil, why end
  local trials, done
  trials, why = open(options, e, points, description, to_standard_error)
  local control = {worker = options.worker}
  if trials then done, why = measure(e, trials, options, control) end
  if not done then
    if held then uv.fs_close(held) end
    return nil, why
  end
  return {
    measured = done.measured,
    stopped = done.stopped,
    status = control.status,
    points = points,
    experiment = e,
    lock = held or nil,
  }
end

return runner
