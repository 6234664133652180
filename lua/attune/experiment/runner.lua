--- Runs a sweep: one worker process per trial, round by round, each record stored as it comes.
---
--- A run has one side: a folder with a build of attune that measures for it. With `against` it has
--- two, and each trial is run by both builds, one right after the other. Which one is first
--- alternates from round to round, as the second may find caches or a clock that the first left.
local uv = require "luv"
local Queue = require "attune.experiment.queue"
local aside = require "attune.results.aside"
local axes = require "attune.experiment.axes"
local cluster = require "attune.experiment.cluster"
local executor = require "attune.experiment.executor.local"
local experiment = require "attune.experiment"
local files = require "attune.util.files"
local json = require "attune.util.json"
local lock = require "attune.results.lock"
local original = require "attune.experiment.original"
local other_build = require "attune.experiment.other_build"
local plan = require "attune.experiment.plan"
local progress = require "attune.experiment.progress"
local provenance = require "attune.results.provenance"
local signals = require "attune.experiment.signals"
local store = require "attune.results.store"
local text = require "attune.util.text"
local copy = require "attune.util.tables".copy
local validate = require "attune.results.validate"

local runner = {}

local function to_standard_error(message)
  io.stderr:write("attune run: ", text.printable(message), "\n")
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

-- Whether a run measures all points of the script, and not only some.
local function is_whole(options)
  return not (options.only or options.quick or next(options.set or {}))
end

-- Which records --fresh sets aside in a run of some points: theirs, of the seeds of this run.
local function remeasured(e, points)
  local is_seed, keys = {}, {}
  for _, seed in ipairs(e.seeds or {}) do is_seed[seed] = true end
  for _, point in ipairs(points) do keys[store.parameters_key(point.parameters)] = true end
  return function(record)
    return keys[store.parameters_key(record.parameters)] and (not e.seeds or is_seed[record.seed])
      or false
  end
end

-- Whether a script says other things of its results than the one before it in the folder.
local function is_other(before, description)
  local function said(d)
    return json.encode {
      about = d.about, metrics = d.metrics, plots = d.plots, parameters = d.parameters,
    }
  end
  return before ~= nil and said(before) ~= said(json.decode(json.encode(description)))
end

-- The trials that are still to be run in the folder of a side, which this run holds; nil and a
-- message.
local function open(side, options, e, points, description)
  local dir = side.dir
  side.redescribed = is_other(store.description(dir), description)
  local ok, why = store.open(dir, description)
  if ok then ok, why = store.keep_script(dir, options.script) end
  if not ok then return nil, why end
  side.loaded, why = store.load(dir)
  if not side.loaded then return nil, why end
  if options.fresh then
    local goes = not is_whole(options) and remeasured(e, points) or nil
    ok, why = aside(dir, side.loaded.records, goes)
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

-- Runs the trials on this machine. Returns what Queue.run returns.
local function measure(e, sides, list, options, control)
  local unwatch = signals.watch(control, to_standard_error)
  local bar = progress(#list)
  local jobs = #list > 0 and #sides == 1 and jobs_of(e, options, to_standard_error) or 1
  for _, side in ipairs(sides) do
    side.writer = store.writer(side.dir, #list > 0 and header_of(e, side, options) or {})
    side.pool = executor.pool(e, {program = side.program, jobs = jobs})
  end
  local done, message = Queue.new(e, list, options, control, bar):run(sides)
  bar:close()
  for _, side in ipairs(sides) do
    side.pool:close()
    local flushed, why = side.writer:close()
    if done and not flushed then
      done, message = nil, Queue.cannot_write:format(side.dir, why)
    end
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
    if files.kind(script) ~= "file" then
      return nil, ("uses: %s: expected its script, %s, got nothing%s"):format(name, script,
        original(options.script))
    end
    local outcome, why = runner.run {
      script = script,
      dir = dir,
      own_folder = options.own_folder,
      chain = chain,
      quick = options.quick,
      keep = options.keep,
      set = set_for(script, options.set),
      jobs = options.jobs,
      host = options.host,
      command = options.command,
      worker = options.worker,
      executor = options.executor,
      points_per_task = options.points_per_task,
      slurm = options.slurm,
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
  local lists, done, taken_in = {}, nil, nil
  local free = true
  for _, side in ipairs(sides) do
    if free then free, why, taken_in = cluster.check_free(side.dir, options, to_standard_error) end
  end
  for i, side in ipairs(free and sides or {}) do
    lists[i], why = open(side, options, e, points_for(i, points), description)
    if not lists[i] then break end
  end
  local control = {}
  if #lists == #sides then
    if options.executor == "slurm" then
      options.whole_dir = sides[1].whole_dir
      done, why = cluster.measure(e, lists[1], options, control, to_standard_error)
    else
      done, why = measure(e, sides, Queue.merged(sides, lists), options, control)
    end
  end
  if not done then
    for _, held in ipairs(locks) do lock.release(held) end
    return nil, why
  end
  return {
    measured = done.measured,
    stopped = done.stopped,
    left = done.left,
    detached = done.detached,
    lost = done.lost,
    taken_in = taken_in,
    redescribed = sides[1].redescribed,
    loaded = done.measured == 0 and not options.fresh and sides[1].loaded or nil,
    status = control.status,
    points = points,
    experiment = e,
    sides = #sides > 1 and sides or nil,
    lock = locks[1],
  }
end

return runner
