--- A run whose trials are measured by array jobs of Slurm.
--
-- Tasks write their records straight into DIR/trials, so that nothing has to be fetched: this
-- program submits jobs, follows their files, and submits again what was lost with a task. A run
-- that is ended, or detached, leaves jobs that the next run of the same folder goes on with.
local files = require "attune.util.files"
local json = require "attune.util.json"
local plan = require "attune.experiment.plan"
local progress = require "attune.experiment.progress"
local signals = require "attune.experiment.signals"
local slurm = require "attune.experiment.executor.slurm"
local store = require "attune.results.store"
local submission = require "attune.experiment.submission"
local task = require "attune.experiment.task"
local text = require "attune.util.text"
local uv = require "luv"

local cluster = {}

local default_points = 10
-- How often in a row a task must be found to have ended without a word until it counts as lost, as
-- files of a shared folder may arrive late: more often where Slurm says that all went well.
local lost_after, lost_after_success = 2, 10
local max_losses = 3 -- of a task that recorded nothing, one after another
local cancel_seconds = 60

-- ---- jobs of a folder --------------------------------------------------------------------------

local function job_words(s) return s.job and "Slurm job " .. s.job or "Slurm job " .. s.name end

---@class attune.JobStatus
---@field job string? its number
---@field name string
---@field tasks integer
---@field queued integer
---@field running integer
---@field done integer
---@field failed integer those that ended with a message
---@field lost integer those that ended without a word
---@field unknown integer those of which Slurm says nothing, as it does not answer

--- How far a job is.
---@param s attune.Submission
---@return attune.JobStatus
---@return string? message why Slurm does not answer
local function status_of(s)
  local counts = {
    job = s.job, name = s.name, tasks = s.tasks, queued = 0, running = 0, done = 0, failed = 0,
    lost = 0, unknown = 0,
  }
  local states, why
  for i = 1, s.tasks do
    local outcome = submission.outcome(s, i)
    local kind = outcome and outcome.status
    if not kind then
      if not states and not why then states, why = slurm.states(s.name) end
      kind = states and slurm.kind(states[i]) or "unknown"
      if kind == "ended" then kind = submission.outcome(s, i) and "done" or "lost" end
    end
    counts[kind] = counts[kind] + 1
  end
  return counts, why
end

--- How far the jobs of a folder of results are.
---@param dir string
---@return attune.JobStatus[]
---@return string? message why Slurm does not answer
function cluster.status(dir)
  local list, message = {}, nil
  for i, s in ipairs(submission.list(dir)) do
    local counts, why = status_of(s)
    list[i], message = counts, message or why
  end
  return list, message
end

local busy = "%s: expected no job that measures for this folder, got %s: wait for it (attune "
  .. "status %s tells), or cancel it with: scancel %s"

--- Checks that no job measures what a run is about to measure. The caller holds the folder's lock.
---@param dir string
---@param options attune.RunOptions
---@param say fun(message: string)
---@return true? ok
---@return string? message
---@return boolean? taken_in whether jobs have ended whose records no run has taken in
function cluster.check_free(dir, options, say)
  if options.executor == "slurm" and not options.fresh then return true end
  local taken_in = false
  for _, s in ipairs(submission.list(dir)) do
    local counts, why = status_of(s)
    if counts.queued + counts.running > 0 then
      return nil, busy:format(dir, job_words(s), dir, s.job or "--name=" .. s.name)
    end
    if counts.unknown > 0 then
      say(("%s: %s may still measure for this folder; %s"):format(dir, job_words(s), why))
    else
      submission.close(s, counts.lost + counts.failed > 0)
      taken_in = true
    end
  end
  return true, nil, taken_in
end

-- ---- a run -------------------------------------------------------------------------------------

local Run = {}
Run.__index = Run

-- A job that this run follows, and its tasks: what is known of each.
local function follow(self, s)
  local job = {submission = s, tasks = {}, open = s.tasks}
  for i = 1, s.tasks do job.tasks[i] = {index = i, keys = {}, recorded = 0, missing = 0} end
  self.jobs[#self.jobs + 1] = job
  return job
end

function Run:key(record)
  return store.key(record.hash, record.round, self.e.seeds and record.seed)
end

local function random_hex()
  return (uv.random(4):gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

-- Submits trials, in as many jobs as Slurm's limit asks for.
function Run:submit(list, losses)
  local options, e = self.options, self.e
  local tasks = task.split(list, options.points_per_task or default_points)
  for first = 1, #tasks, slurm.max_tasks do
    local base = store.next_base(options.whole_dir)
    local count, requests = math.min(slurm.max_tasks, #tasks - first + 1), {}
    for i = 1, count do
      local file = ("%s-task%04d"):format(base, i)
      requests[i] = task.request(e, tasks[first + i - 1], options, file)
    end
    local s, why = submission.submit({
      base = base, losses = losses, name = ("attune-%s-%s"):format(e.name, random_hex()),
    }, options.whole_dir, requests, {
      program = {options.worker[1], uv.fs_realpath(options.worker[2]), "task"},
      options = options.slurm or {},
      exclusive = e.timing,
    })
    if not s then return nil, why end
    local job = follow(self, s)
    for i = 1, count do
      for _, trial in ipairs(tasks[first + i - 1]) do job.tasks[i].keys[self:key {
        hash = trial.point.hash, round = trial.round, seed = trial.seed,
      }] = true end
    end
    self.say(("%s: %s in %s"):format(job_words(s), text.count(#list, "trial"),
      text.count(count, "task")))
  end
  return true
end

-- Jobs of an earlier run: those trials are not submitted again that they may still measure.
function Run:attach()
  local in_flight = {}
  for _, s in ipairs(submission.list(self.options.whole_dir)) do
    local job = follow(self, s)
    for i, known in ipairs(job.tasks) do
      local request = submission.task(s.folder, i)
      for _, trial in ipairs(request and request.trials or {}) do
        local point = type(trial) == "table" and type(request.points) == "table"
          and request.points[trial.point]
        if type(point) == "table" and type(point.hash) == "string"
          and math.type(trial.round) == "integer" then
          local key = self:key {hash = point.hash, round = trial.round, seed = trial.seed}
          known.keys[key], in_flight[key] = true, true
        end
      end
    end
    self.say(("%s was submitted before; waiting for it"):format(job_words(s)))
  end
  return in_flight
end

-- Takes in the whole lines that a file has now and did not have before.
function Run:read_file(known, path)
  local info = uv.fs_lstat(path)
  local seen = self.files[path] or {size = 0, lines = 0}
  self.files[path] = seen
  if not info or info.size == seen.size then return end
  local content = files.read_inside(path)
  if not content then return end
  seen.size = #content
  local number = 0
  for line in content:gmatch "([^\n]*)\n" do
    number = number + 1
    local record = number > seen.lines and json.decode(line)
    if type(record) == "table" and type(record.hash) == "string" and record.round then
      self:take(known, record)
    end
  end
  seen.lines = math.max(seen.lines, number)
end

function Run:take(known, record)
  local key = self:key(record)
  local complete = record.status == "ok" or record.status == "skipped"
  if self.recorded[key] == "complete" then return end
  if not self.recorded[key] then self.measured = self.measured + 1 end
  self.recorded[key] = complete and "complete" or "failed"
  known.recorded = known.recorded + 1
  local trial = self.wanted[key]
  if trial and not trial.told then
    trial.told = true
    self.bar:finish(trial.what, record)
  end
  if not complete and self.options.fail_fast then self.failed = true end
end

-- Reads what the tasks of all jobs have written.
function Run:read_records()
  local trials = self.options.whole_dir .. "/trials"
  local of_task = {}
  for _, job in ipairs(self.jobs) do
    for i, known in ipairs(job.tasks) do
      of_task[("%s-task%04d"):format(job.submission.base, i)] = known
    end
  end
  for _, name in ipairs(files.list(trials)) do
    local known = of_task[name:match "^(run%d+%-[%dTZ]+%-task%d+)[-.]"]
    if known then self:read_file(known, trials .. "/" .. name) end
  end
end

-- A task has ended. Trials that it gave up, as their point failed or is known well enough, are not
-- to be waited for.
function Run:task_ended(job, known)
  known.ended = true
  job.open = job.open - 1
  for key in pairs(known.keys) do
    local trial = self.wanted[key]
    if trial and not self.recorded[key] and not trial.told then
      trial.told = true
      self.bar.total = self.bar.total - 1
    end
  end
end

local function words_of(job, known)
  return ("task %d of %s"):format(known.index, job_words(job.submission))
end

-- Tasks that say that they have ended. What a failed one left is not tried again by this run.
function Run:read_outcomes()
  for _, job in ipairs(self.jobs) do
    for i, known in ipairs(job.tasks) do
      local outcome = not known.ended and submission.outcome(job.submission, i)
      if outcome then
        self.changed = true
        self:read_records()
        self.left = self.left + outcome.left
        if outcome.status == "failed" then
          job.keep = true
          self.trouble = self.trouble or ("%s: %s"):format(words_of(job, known), outcome.reason)
        end
        self:task_ended(job, known)
      end
    end
  end
end

-- Tasks that Slurm runs no more and that did not say that they have ended.
function Run:find_lost()
  for _, job in ipairs(self.jobs) do
    local states, why
    if job.open > 0 then states, why = slurm.states(job.submission.name) end
    if why and why ~= self.silent then self.say(why .. "; trying again") end
    self.silent = why
    for i, known in ipairs(states and job.tasks or {}) do
      local kind = slurm.kind(states[i])
      known.state, known.kind = states[i], kind
      known.missing = kind == "ended" and known.missing + 1 or 0
      local enough = states[i] == "COMPLETED" and lost_after_success or lost_after
      if not known.ended and known.missing >= enough then self:lose(job, known) end
    end
  end
end

-- Submits the trials of a lost task again.
function Run:lose(job, known)
  self:read_records()
  local list = {}
  for key in pairs(known.keys) do
    local trial = self.wanted[key]
    if trial and not self.recorded[key] then list[#list + 1] = trial end
  end
  table.sort(list, function(a, b) return a.at < b.at end)
  known.ended, job.open, self.changed = true, job.open - 1, true
  if self.cancelled or #list == 0 then return end
  job.keep = true
  local state = known.state or slurm.accounted(job.submission.name)[known.index]
  local losses = known.recorded > 0 and 1 or job.submission.losses + 1
  local what = ("%s was lost (%s) with %s"):format(words_of(job, known),
    state or "Slurm has forgotten it", text.count(#list, "trial"))
  local are = #list == 1 and "is" or "are"
  local last_words = submission.last_words(job.submission, known.index)
  if last_words then self.say(("%s printed last: %s"):format(words_of(job, known), last_words)) end
  if state == "CANCELLED" or losses >= max_losses then
    self.lost = self.lost + #list
    local why = state == "CANCELLED" and "it was cancelled"
      or ("lost %d times; %s/task-%d.out"):format(losses, job.submission.folder, known.index)
    self.say(("%s, which %s not submitted again: %s"):format(what, are, why))
    return
  end
  self.say(("%s, which %s submitted again"):format(what, are))
  local ok, why = self:submit(list, losses)
  if not ok then self.trouble = self.trouble or why end
end

function Run:open_tasks()
  local open = 0
  for _, job in ipairs(self.jobs) do open = open + job.open end
  return open
end

-- What the line of progress says between two trials.
function Run:words()
  local queued, running = 0, 0
  for _, job in ipairs(self.jobs) do
    for _, known in ipairs(job.tasks) do
      if not known.ended and known.kind == "queued" then queued = queued + 1 end
      if not known.ended and known.kind == "running" then running = running + 1 end
    end
  end
  return ("tasks: %d running, %d queued"):format(running, queued)
end

-- Waits, or until a signal comes.
local function pause(milliseconds, control)
  local timer, woke, before = uv.new_timer(), false, control.kill
  local stopped = control.stop
  timer:start(math.ceil(milliseconds), 0, function() woke = true end)
  while not woke and control.stop == stopped and control.kill == before do uv.run "once" end
  timer:close()
  uv.run "nowait"
end

local function clamp(x, low, high) return math.max(low, math.min(high, x)) end

-- Waits until all tasks have ended. The longer it takes, the more rarely it looks: every 0.3 to
-- every 30 seconds at Slurm, more often at the files.
function Run:wait(done)
  local begin, asked = uv.hrtime(), uv.hrtime()
  while true do
    self.changed = false
    self:read_records()
    self:read_outcomes()
    if self:open_tasks() == 0 or done() then return end
    local now = uv.hrtime()
    local between = clamp((now - begin) * 1e-10, 0.3, 30)
    if (now - asked) * 1e-9 >= between then
      asked = now
      self:find_lost()
      if self:open_tasks() == 0 then return end
    end
    self.bar:begin(self:words())
    if not self.changed then pause(clamp(between * 200, 100, 2000), self.control) end
  end
end

-- Cancels all jobs, and waits until their tasks have ended, so that the records are complete.
function Run:cancel()
  self.cancelled = true
  for _, job in ipairs(self.jobs) do
    local s = job.submission
    local ok, why = true, nil
    if job.open > 0 then ok, why = slurm.cancel(s.name) end
    if not ok then
      self.say(("%s; cancel it with: scancel %s"):format(why, s.job or "--name=" .. s.name))
      return
    end
  end
  local begin = uv.hrtime()
  local stopping = self.control.kill
  self:wait(function()
    return (uv.hrtime() - begin) * 1e-9 > cancel_seconds or self.control.kill and not stopping
  end)
end

-- Forgets the jobs whose tasks have all ended.
function Run:close()
  for _, job in ipairs(self.jobs) do
    if job.open == 0 then submission.close(job.submission, job.keep) end
  end
end

local words = {
  sigint = "cancelling the jobs; Ctrl-C again does not wait for their end",
  sigterm = "cancelling the jobs",
  sighup = "the jobs go on; attune status tells how far they are",
}

function Run:numbers()
  local list = {}
  for i, job in ipairs(self.jobs) do list[i] = job.submission.job or job.submission.name end
  return list
end

-- Waits for the jobs, and cancels them where a signal or --fail-fast asks for it. Returns what
-- Queue.run returns.
function Run:finish()
  local control = self.control
  self:wait(function() return control.stop or self.failed end)
  if control.signal == "sighup" then
    return {measured = self.measured, stopped = true, left = 0}
  end
  if self:open_tasks() > 0 then self:cancel() end
  self:close()
  if self.trouble then return nil, self.trouble end
  return {measured = self.measured, stopped = control.stop, left = self.left, lost = self.lost}
end

--- Runs trials on a cluster.
---@param e attune.Experiment narrowed
---@param trials attune.PlannedTrial[]
---@param options attune.RunOptions
---@param control table what signals set, see experiment/signals.lua
---@param say fun(message: string)
---@return table? done as Queue.run returns it, with `lost`: the number of trials that are not tried
--- again, as their tasks were lost; `detached`: the jobs that were left to themselves; nil when a
--- job cannot be submitted or one of its tasks failed
---@return string? message
function cluster.measure(e, trials, options, control, say)
  local self = setmetatable({
    e = e, options = options, control = control, wanted = {}, jobs = {}, files = {},
    recorded = {}, measured = 0, left = 0, lost = 0, cancelled = false,
  }, Run)
  self.bar = progress(#trials)
  self.say = function(message) self.bar:say("attune run: " .. message) end
  local unwatch = signals.watch(control, say, words)
  local in_flight, list = self:attach(), {}
  for i, trial in ipairs(trials) do
    local key = self:key {hash = trial.point.hash, round = trial.round, seed = trial.seed}
    trial.at, trial.what = i, plan.trial_text(e, trial)
    self.wanted[key] = trial
    if not in_flight[key] then list[#list + 1] = trial end
  end
  local ok, why, done = true, nil, nil
  if #list > 0 then ok, why = self:submit(list, 0) end
  if ok and options.detach and #self.jobs > 0 and not control.stop then
    self:read_records()
    self:read_outcomes()
    if self:open_tasks() > 0 then
      done = {measured = self.measured, left = 0, detached = self:numbers()}
    end
  end
  if ok and not done then done, why = self:finish() end
  self.bar:close()
  unwatch()
  return done, why
end

return cluster
