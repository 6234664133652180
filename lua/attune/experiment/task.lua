--- A task of a cluster: runs the trials of some points, as a run on this machine does, and stores
--- their records in a file of its own.
--
-- `attune task FOLDER K` reads FOLDER/task-K.json (experiment/submission.lua), which has
--     dir, script, source, quick, host, command, jobs, used, seeds, fail_fast   of the run
--     file      the begin of the name of the file of records
--     points    {{hash, index, parameters}, ..}
--     trials    {{point = index into points, round, seed, attempt}, ..} in order
-- A task that Slurm starts again goes on where it was.
local Queue = require "attune.experiment.queue"
local executor = require "attune.experiment.executor.local"
local experiment = require "attune.experiment"
local files = require "attune.util.files"
local progress = require "attune.experiment.progress"
local provenance = require "attune.results.provenance"
local signals = require "attune.experiment.signals"
local stopping = require "attune.experiment.stopping"
local store = require "attune.results.store"
local submission = require "attune.experiment.submission"
local text = require "attune.util.text"

local task = {}

local function say(message) io.stderr:write("attune task: ", text.printable(message), "\n") end

-- The declaration that the run had; nil and a message when the script was edited since.
local function load_script(request)
  local e, why = experiment.load(request.script)
  if not e then return nil, why end
  if e.source ~= request.source then
    return nil, request.script .. ": expected the script as it was when the job was submitted, but "
      .. "it was edited since; run the command again"
  end
  local ok, narrowed = pcall(experiment.narrowed, e, {quick = request.quick})
  if not ok then return nil, tostring(narrowed) end
  narrowed.seeds = request.seeds
  return narrowed
end

-- The trials that have no record of this attempt yet. A point that failed before this task was
-- started again is not tried in later rounds either.
local function trials_left(e, request)
  local there, given_up, counting, list = {}, {}, {}, {}
  local chosen = store.chosen((store.records(request.dir)), e.seeds)
  for key, record in pairs(chosen) do
    local complete = store.is_complete(record, e.source)
    there[key] = complete and math.huge or record.attempt or 1
    counting[#counting + 1] = record
    if complete and record.status == "skipped" then given_up[record.hash] = true end
  end
  for _, trial in ipairs(request.trials) do
    local point = request.points[trial.point]
    local key = store.key(point.hash, trial.round, e.seeds and trial.seed)
    if (there[key] or 0) < trial.attempt then
      list[#list + 1] = {
        point = point, round = trial.round, seed = trial.seed, attempt = trial.attempt,
      }
    elseif there[key] ~= math.huge then
      given_up[point.hash] = true
    end
  end
  return {list = list, given_up = given_up, enough = stopping(e, counting)}
end

-- Runs the trials of a request. Returns what Queue.run returns, and the exit status of a signal.
local function run(request)
  local e, why = load_script(request)
  if not e then return nil, why end
  local trials = trials_left(e, request)
  local control = {}
  local unwatch = signals.watch(control, say)
  local about = {host = request.host, source = e.source}
  local header = provenance(request.script, request.command or "", about)
  local bar = progress(#trials.list)
  local side = {
    dir = request.dir, whole_dir = request.dir, enough = trials.enough,
    given_up = trials.given_up, writer = store.writer(request.dir, header, request.file),
    pool = executor.pool(e, {
      program = {"lua5.4", arg[0], "trial"},
      jobs = e.timing and 1 or request.jobs,
    }),
  }
  local options = {
    script = request.script, quick = request.quick, used = request.used,
    fail_fast = request.fail_fast, task = true,
  }
  local done, message = Queue.new(e, Queue.merged({side}, {trials.list}), options, control, bar)
    :run {side}
  side.pool:close()
  bar:close()
  local flushed, flush_why = side.writer:close()
  unwatch()
  if done and not flushed then return nil, Queue.cannot_write:format(request.dir, flush_why) end
  return done, done and control.status or message
end

--- The command `attune task FOLDER K`.
---@param arguments string[]
---@return integer exit status
function task.main(arguments)
  local folder, number = arguments[2], math.tointeger(tonumber(arguments[3]))
  if not folder or not number then
    say "expected the folder of a job and the number of a task"
    return 2
  end
  -- Slurm may have started the task again after its end.
  if files.kind_inside(("%s/done-%d.json"):format(folder, number)) then return 0 end
  local request, why = submission.task(folder, number)
  if not request then
    say(why)
    return 1
  end
  local done, status = run(request)
  if done and done.stopped then return status or 1 end
  local outcome = done and {status = "done", left = done.left}
    or {status = "failed", reason = status}
  if not done then say(status) end
  local written
  written, why = submission.finish(folder, number, outcome)
  if not written then say(why) end
  return done and written and 0 or 1
end

--- What a task reads.
---@param e attune.Experiment narrowed
---@param trials attune.PlannedTrial[]
---@param options attune.RunOptions
---@param file string begin of the name of its file of records
---@return table
function task.request(e, trials, options, file)
  local request = {
    dir = options.whole_dir, script = options.script, source = e.source, file = file,
    quick = options.quick or false, host = options.host, command = options.command,
    jobs = options.jobs, used = options.used, fail_fast = options.fail_fast, seeds = e.seeds,
    points = {}, trials = {},
  }
  local places = {}
  for i, trial in ipairs(trials) do
    local point = trial.point
    if not places[point.hash] then
      places[point.hash] = #request.points + 1
      request.points[places[point.hash]] = {
        hash = point.hash, index = point.index, parameters = point.parameters,
        environment = point.environment,
      }
    end
    request.trials[i] = {
      point = places[point.hash], round = trial.round, seed = trial.seed, attempt = trial.attempt,
    }
  end
  return request
end

--- Trials in tasks of n points each, in their order.
---@param trials attune.PlannedTrial[]
---@param n integer
---@return attune.PlannedTrial[][]
function task.split(trials, n)
  local tasks, of_point, count = {}, {}, 0
  for _, trial in ipairs(trials) do
    local hash = trial.point.hash
    if not of_point[hash] then
      count = count + 1
      of_point[hash] = (count - 1) // n + 1
    end
    local list = tasks[of_point[hash]] or {}
    tasks[of_point[hash]] = list
    list[#list + 1] = trial
  end
  return tasks
end

return task
