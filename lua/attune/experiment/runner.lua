--- Runs a sweep: one worker process per trial, round by round, each record stored as it comes.
---
--- A run has one side: a folder with a build of attune that measures for it. With `against` it has
--- two, and each trial is run by both builds, one right after the other. Which one is first
--- alternates from round to round, as the second may find caches or a clock that the first left.
local uv = require "luv"
local axes = require "attune.experiment.axes"
local executor = require "attune.experiment.executor.local"
local experiment = require "attune.experiment"
local files = require "attune.util.files"
local lock = require "attune.results.lock"
local other_build = require "attune.experiment.other_build"
local plan = require "attune.experiment.plan"
local progress = require "attune.experiment.progress"
local provenance = require "attune.results.provenance"
local store = require "attune.results.store"
local text = require "attune.util.text"
local copy = require "attune.util.tables".copy
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
    files = ("%s/files/%s-%d"):format(trial.side.whole_dir, trial.point.hash, which),
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

---@class attune.RunSide
---@field name? string "before" or "now"; nil where there is one side
---@field dir string
---@field whole_dir string from the root
---@field program string[] the program that runs trials
---@field about? table what the other build says of itself: provenance
---@field enough table see experiment/stopping.lua
---@field given_up table<string, true> by hash
---@field loaded table what was in the folder
---@field writer table
---@field pool table

-- The trials of all sides in the order in which they run.
local function merged(sides, lists)
  local all = {}
  for s, side in ipairs(sides) do
    for _, trial in ipairs(lists[s]) do
      trial.side, trial.order = side, trial.round % 2 == 1 and s or -s
      all[#all + 1] = trial
    end
  end
  if #sides > 1 then
    table.sort(all, function(x, y)
      if x.position ~= y.position then return x.position < y.position end
      return x.order < y.order
    end)
  end
  return all
end

-- The trials of a run: which one is next, and what has become of those before.
local Queue = {}
Queue.__index = Queue

local function new_queue(e, list, options, control, bar)
  return setmetatable({
    e = e, list = list, options = options, control = control, bar = bar, at = 0, measured = 0,
    left = 0, begin = uv.hrtime(), home = uv.os_homedir(),
  }, Queue)
end

-- The next trial that is to be run; nil when there is none.
function Queue:next()
  local e, budget = self.e, self.e.budget
  while self.at < #self.list and not self.control.stop and not self.failed do
    self.at = self.at + 1
    local trial = self.list[self.at]
    local side, hash = trial.side, trial.point.hash
    if budget and (uv.hrtime() - self.begin) * 1e-9 >= budget then
      self.left = self.left + 1
    elseif side.given_up[hash] or side.enough:done(hash) then
      self.bar.total = self.bar.total - 1
    else
      local of_side = side.name and side.name .. ": " or ""
      trial.what = of_side .. plan.trial_text(e, trial)
      return trial
    end
  end
end

-- Stores a record; nil and a message when it cannot be written.
function Queue:take(trial, record)
  local side = trial.side
  local written, why = side.writer:write(complete(record, self.e, trial, self.home))
  if not written then return nil, cannot_write:format(side.dir, why) end
  self.measured = self.measured + 1
  side.enough:add(record)
  -- A point that failed once is not tried again in later rounds of this run.
  if record.status ~= "ok" then side.given_up[trial.point.hash] = true end
  self.bar:finish(trial.what, record)
  local failed = record.status ~= "ok" and record.status ~= "skipped"
  self.failed = self.failed or (failed and self.options.fail_fast)
  return true
end

-- Runs all trials in order. Returns {measured, stopped, left}, or nil and a message when a record
-- cannot be written. left: trials that did not start before the budget of seconds was spent.
local function run_trials(queue, sides)
  local e, control, round = queue.e, queue.control, nil
  local busy = sides[1].pool -- several sides never run at the same time
  while true do
    local is_free = busy:is_free()
    if #sides > 1 then is_free = busy:is_idle() end
    local trial = is_free and queue:next()
    if trial then
      -- Memory lies elsewhere in another process, which changes times: each round sees another.
      for _, side in ipairs(sides) do
        if e.timing and trial.round ~= round then side.pool:renew() end
      end
      round, busy = trial.round, trial.side.pool
      queue.bar:begin(trial.what)
      busy:start(trial, request_of(e, trial, queue.options), trial.point.environment)
    elseif busy:is_idle() then
      break
    else
      local ended, record = busy:next(control)
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
local function explain(options, dir, changed, say)
  for _, change in ipairs(changed) do
    local format = options.keep and "%s: %s with records that are kept, although %s"
      or "%s: %s to be measured again, as %s; --keep accepts the records"
    say(format:format(dir, text.count(change.count, "point"), change.reason))
  end
end

-- The trials that are still to be run in the folder of a side, which this run holds; nil and a
-- message.
local function open(side, options, e, points, description)
  local dir = side.dir
  local ok, why = store.open(dir, description)
  if ok then ok, why = store.keep_script(dir, options.script) end
  if not ok then return nil, why end
  side.loaded, why = store.load(dir)
  if not side.loaded then return nil, why end
  if options.fresh then
    ok, why = store.clear(dir)
    if not ok then return nil, why end
  else
    local changes = plan.changes(e, points, side.loaded.records, options.keep)
    explain(options, dir, changes, to_standard_error)
  end
  local list
  list, side.enough = plan.trials(e, points, side.loaded.records, options)
  side.given_up, side.whole_dir = {}, uv.fs_realpath(dir)
  return list
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

-- The header of a side's file of records.
local function header_of(e, side, options)
  local other = side.about or {}
  local about = {host = options.host, source = e.source, folder = other.folder}
  local header = provenance(options.script, options.command or "", about)
  for name, value in pairs(other) do
    if name ~= "folder" then header[name] = value or nil end
  end
  return header
end

-- Runs the trials. Returns what run_trials returns.
local function measure(e, sides, list, options, control)
  local unwatch = watch_signals(control, to_standard_error)
  local bar = progress(#list)
  local jobs = #list > 0 and #sides == 1 and jobs_of(e, options, to_standard_error) or 1
  for _, side in ipairs(sides) do
    side.writer = store.writer(side.dir, #list > 0 and header_of(e, side, options) or {})
    side.pool = executor.pool(e, {program = side.program, jobs = jobs})
  end
  local queue = new_queue(e, list, options, control, bar)
  local done, message = run_trials(queue, sides)
  bar:close()
  for _, side in ipairs(sides) do
    side.pool:close()
    local flushed, why = side.writer:close()
    if done and not flushed then done, message = nil, cannot_write:format(side.dir, why) end
  end
  unwatch()
  return done, message
end

-- What a run would do, without a change to the folder.
local function dry_run(options, dir, e, points)
  local records = {}
  local there = store.description(dir)
  if there and there.name == e.name then records = store.records(dir) end
  explain(options, dir, plan.changes(e, points, records, options.keep), to_standard_error)
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

-- The sides of a run; nil and a message.
local function sides_of(options)
  local own = {dir = options.dir, program = options.worker}
  if not options.against then return {own} end
  local about, why = other_build(options.against)
  if not about then return nil, "--against: " .. why end
  own.name, own.dir = "now", options.dir .. "/now"
  return {
    {
      name = "before", dir = options.dir .. "/before", program = {options.against, "trial"},
      about = about,
    },
    own,
  }
end

-- The points of each side: --keep gives a point the hash of the records that are in its folder.
local function points_for(side_number, points)
  if side_number == 1 then return points end
  local list = {}
  for i, point in ipairs(points) do list[i] = copy(point) end
  return list
end

local function make_folders(sides, e)
  for _, side in ipairs(sides) do
    local ok, why = store.make(side.dir, e.name)
    if not ok then return nil, why end
  end
  return true
end

-- Locks the folders of the sides. Returns the locks; nil and a message.
local function take_folders(sides)
  local locks = {}
  for _, side in ipairs(sides) do
    local held, why = lock.take(side.dir, to_standard_error)
    if held == nil then
      for _, one in ipairs(locks) do lock.release(one) end
      return nil, why
    end
    if held then locks[#locks + 1] = held end
  end
  return locks
end

--- Runs what is still to be run. The folder stays locked until outcome.lock is closed or the
--- process ends.
---@param options attune.RunOptions
---@return attune.RunOutcome? outcome nil for misuse or a full disk
---@return string? message
function runner.run(options)
  local e, points, description = prepare(options)
  if not e then return nil, points end
  local sides, why = sides_of(options)
  if not sides then return nil, why end
  if options.dry then return dry_run(options, sides[#sides].dir, e, points) end
  local made, stopped
  made, why = make_folders(sides, e)
  if not made then return nil, why end
  if e.uses then
    options.used, why, stopped = run_used(options, e)
    if stopped then
      stopped.experiment, stopped.points, stopped.measured = e, points, 0
      stopped.lock = nil
      return stopped
    end
    if not options.used then return nil, why end
  end
  local locks
  locks, why = take_folders(sides)
  if not locks then return nil, why end
  local lists, done = {}, nil
  for i, side in ipairs(sides) do
    lists[i], why = open(side, options, e, points_for(i, points), description)
    if not lists[i] then break end
  end
  local control = {}
  if #lists == #sides then
    done, why = measure(e, sides, merged(sides, lists), options, control)
  end
  if not done then
    for _, held in ipairs(locks) do lock.release(held) end
    return nil, why
  end
  return {
    measured = done.measured,
    stopped = done.stopped,
    left = done.left,
    loaded = done.measured == 0 and not options.fresh and sides[1].loaded or nil,
    status = control.status,
    points = points,
    experiment = e,
    sides = #sides > 1 and sides or nil,
    lock = locks[1],
  }
end

return runner
