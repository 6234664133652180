--- The trials of a run: which one is next, and each record stored as it comes.
--
-- A run on this machine and a task of a cluster use the same code.
local uv = require "luv"
local plan = require "attune.experiment.plan"
local text = require "attune.util.text"

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

-- What has become of the trials before, and which one is next.
local Queue = {
  --- What a full disk is to say: the folder and the cause are filled in.
  cannot_write = "%s: writing a record: %s; the results before it are kept",
}
Queue.__index = Queue

--- The trials of all sides in the order in which they run.
---@param sides attune.RunSide[]
---@param lists attune.PlannedTrial[][] those of each side
---@return attune.PlannedTrial[]
function Queue.merged(sides, lists)
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

--- The trials of a run in their order.
---@param e attune.Experiment narrowed
---@param list attune.PlannedTrial[] each with its side
---@param options attune.RunOptions
---@param control table what signals set, see experiment/signals.lua
---@param bar table of experiment/progress.lua
function Queue.new(e, list, options, control, bar)
  local places = {} -- of the trials of each point in the list
  for i, trial in ipairs(list) do
    local hash = trial.point.hash
    places[hash] = places[hash] or {}
    table.insert(places[hash], i)
  end
  return setmetatable({
    e = e, list = list, options = options, control = control, bar = bar, at = 0, measured = 0,
    left = 0, begin = uv.hrtime(), home = uv.os_homedir(), places = places, dropped = {},
  }, Queue)
end

-- Takes a trial that is not run out of the total, once.
local function drop(self, trial)
  if self.dropped[trial] then return end
  self.dropped[trial] = true
  self.bar.total = self.bar.total - 1
end

-- No more trials of a point that ended otherwise than ok.
local function give_up(self, side, hash)
  if side.given_up[hash] then return end
  side.given_up[hash] = true
  for _, i in ipairs(self.places[hash]) do
    if i > self.at and self.list[i].side == side then drop(self, self.list[i]) end
  end
end

--- The next trial that is to be run; nil when there is none.
---@return attune.PlannedTrial?
function Queue:next()
  local e, budget = self.e, self.e.budget
  while self.at < #self.list and not self.control.stop and not self.failed do
    self.at = self.at + 1
    local trial = self.list[self.at]
    local side, hash = trial.side, trial.point.hash
    if budget and (uv.hrtime() - self.begin) * 1e-9 >= budget then
      self.left = self.left + 1
    elseif side.given_up[hash] or side.enough:done(hash) then
      drop(self, trial)
    else
      local of_side = side.name and side.name .. ": " or ""
      trial.what = of_side .. plan.trial_text(e, trial)
      return trial
    end
  end
end

--- Stores a record.
---@param trial attune.PlannedTrial
---@param record attune.Record
---@return true? ok nil when it cannot be written
---@return string? message
function Queue:take(trial, record)
  local side = trial.side
  local written, why = side.writer:write(complete(record, self.e, trial, self.home))
  if not written then return nil, Queue.cannot_write:format(side.dir, why) end
  self.measured = self.measured + 1
  side.enough:add(record)
  if record.status ~= "ok" then give_up(self, side, trial.point.hash) end
  self.bar:finish(trial.what, record)
  local failed = record.status ~= "ok" and record.status ~= "skipped"
  self.failed = self.failed or (failed and self.options.fail_fast)
  return true
end

local signal_milliseconds = 500

--- Waits a little for SIGTERM. Who ends a task of a cluster ends all its processes at the same
--- time: a worker that has ended may be seen before this process has got its own signal.
function Queue:await_signal()
  local timer, late = uv.new_timer(), false
  timer:start(signal_milliseconds, 0, function() late = true end)
  while not late and not self.control.kill do uv.run "once" end
  timer:close()
end

--- Runs all trials in order.
---@param sides attune.RunSide[]
---@return {measured: integer, stopped: boolean?, left: integer}? done left: trials that did not
--- start before the budget of seconds was spent; nil when a record cannot be written
---@return string? message
function Queue:run(sides)
  local e, control, round = self.e, self.control, nil
  local busy = sides[1].pool -- several sides never run at the same time
  while true do
    local is_free = busy:is_free()
    if #sides > 1 then is_free = busy:is_idle() end
    local trial = is_free and self:next()
    if trial then
      -- Memory lies elsewhere in another process, which changes times: each round sees another.
      for _, side in ipairs(sides) do
        if e.timing and trial.round ~= round then side.pool:renew() end
      end
      round, busy = trial.round, trial.side.pool
      self.bar:begin(trial.what)
      busy:start(trial, request_of(e, trial, self.options), trial.point.environment)
    elseif busy:is_idle() then
      break
    else
      local ended, record = busy:next(control)
      if record and record.signal == "SIGTERM" and self.options.task then self:await_signal() end
      if record and not (record.signal and control.kill) then
        local ok, why = self:take(ended, record)
        if not ok then return nil, why end
      end
    end
  end
  return {measured = self.measured, stopped = control.stop, left = self.left}
end

return Queue
