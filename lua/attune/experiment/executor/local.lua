--- Runs trials in processes on this machine.
--
-- A worker reads requests from standard input, one line each, and answers each with one line on
-- file descriptor 3. A worker that says in its answer that the trial left nothing behind gets the
-- next request; any other is ended, and the next trial gets a new one. What a trial prints on
-- standard output and standard error is kept in its record. Once the line is there the trial is
-- done: neither a worker that does not end nor its children, which may keep the pipes open, delay
-- the run by more than grace_seconds.
local uv = require "luv"
local core = require "attune.core"
local json = require "attune.util.json"
local schema = require "attune.results.schema"
local text = require "attune.util.text"
local validate = require "attune.results.validate"

local executor = {}

local max_answer_bytes, max_output_bytes = schema.limits.record, schema.limits.output
local grace_seconds = 2

-- Resident memory of a process in bytes; 0 once it has ended. Assumes pages of 4096 bytes.
local function resident_bytes(pid)
  local file = io.open(("/proc/%d/statm"):format(pid))
  if not file then return 0 end
  local pages = file:read "a":match "^%d+ (%d+)"
  file:close()
  return (tonumber(pages) or 0) * 4096
end

local signal_names = {
  [1] = "SIGHUP", [2] = "SIGINT", [3] = "SIGQUIT", [4] = "SIGILL", [6] = "SIGABRT", [7] = "SIGBUS",
  [8] = "SIGFPE", [9] = "SIGKILL", [11] = "SIGSEGV", [13] = "SIGPIPE", [15] = "SIGTERM",
}

local function last_line(output)
  local lines = {}
  for line in output:gmatch "[^\n]+" do lines[#lines + 1] = line end
  return lines[#lines] or "it printed nothing"
end

local function failed(format, ...) return {status = "failed", reason = format:format(...)} end

-- ---- a worker: a process, and the trial that it runs now ---------------------------------------

local Worker = {}
Worker.__index = Worker

-- Ends the worker and its children.
function Worker:kill() uv.kill(-self.pid, "sigkill") end

function Worker:add_timer(first_ms, repeat_ms, callback)
  local timer = uv.new_timer()
  timer:start(first_ms, repeat_ms, callback)
  self.timers[#self.timers + 1] = timer
end

function Worker:clear_timers()
  for _, timer in ipairs(self.timers) do timer:close() end
  self.timers = {}
end

-- The record in an answer, and whether the worker may be used again; a failed record when the
-- answer is none.
local function record_of(line)
  local value, why = json.decode(line)
  if not why then why = validate.answer(value) end
  if why then return failed("expected a record as the trial's answer: %s", why), false end
  return validate.only_known(value), value.reusable == true
end

function Worker:take_answer(chunk)
  local trial = self.trial
  self.received = self.received + #chunk
  if not trial or trial.line then return end
  trial.size = trial.size + #chunk
  trial.chunks[#trial.chunks + 1] = chunk
  if trial.size > max_answer_bytes then
    trial.too_long = true
    trial.chunks = {}
    self:kill()
  elseif chunk:find("\n", 1, true) then
    trial.line = table.concat(trial.chunks):match "^[^\n]*"
    trial.record, self.reusable = record_of(trial.line)
    if not self.reusable then
      -- Its input ends, so that it ends, too.
      if not self.input:is_closing() then self.input:close() end
      self:add_timer(grace_seconds * 1000, 0, function() self:kill() end)
    end
  end
end

function Worker:take_output(chunk)
  self.received = self.received + #chunk
  self.output = self.output .. chunk
  if #self.output > 2 * max_output_bytes then self.output = self.output:sub(-max_output_bytes) end
end

-- Kills the worker when the trial's time is over or its memory exceeds the limit.
function Worker:watch_limits(e)
  local trial = self.trial
  self:add_timer(math.ceil(e.timeout * 1000), 0, function()
    trial.timed_out = not trial.line
    self:kill()
  end)
  if not e.memory then return end
  self:add_timer(20, 50, function()
    local bytes = resident_bytes(self.pid)
    if bytes > e.memory and not trial.line then
      trial.too_big = bytes
      self:kill()
    end
  end)
end

function Worker:begin(e, request)
  self.trial = {begin = uv.hrtime(), chunks = {}, size = 0}
  self.output = ""
  self.input:write(json.encode(request) .. "\n")
  self:watch_limits(e)
end

-- Whether the trial has ended: by an answer of a worker that goes on, or with the worker.
function Worker:has_ended()
  return self.ended or (self.trial.line ~= nil and self.reusable)
end

-- Reads what the worker wrote before it ended or answered. It lies in the pipes, so that nothing is
-- waited for. A child of the worker may write on; the number of rounds bounds that.
function Worker:drain()
  local idle = 0
  for _ = 1, 100 do
    local before = self.received
    uv.run "nowait"
    idle = self.received == before and idle + 1 or 0
    if idle == 2 then return end
  end
end

function Worker:close()
  self:clear_timers()
  for _, handle in ipairs(self.handles) do
    if not handle:is_closing() then handle:close() end
  end
  uv.run "nowait"
end

-- The record for a trial that has ended; nil when it was stopped.
function Worker:outcome(e)
  local trial = self.trial
  if trial.stopped then return nil end
  if trial.too_long then
    local limit = text.quantity(max_answer_bytes, "B")
    return failed("the trial's answer is too long: expected at most %s", limit)
  end
  if trial.record then return trial.record end
  if trial.timed_out then
    local limit = text.duration(e.timeout)
    return {status = "timeout", reason = ("no answer within %s"):format(limit)}
  end
  if trial.too_big then
    local size, limit = text.quantity(trial.too_big, "B"), text.quantity(e.memory, "B")
    local reason = ("the worker grew to %s, past its limit of %s"):format(size, limit)
    return {status = "oom", reason = reason}
  end
  if self.signal and self.signal ~= 0 then
    local name = signal_names[self.signal] or "signal " .. self.signal
    local record = failed("the worker was killed by %s: %s", name, last_line(self.output))
    record.signal = name
    return record
  end
  return failed("the worker ended with status %s and no record: %s", self.code,
    last_line(self.output))
end

-- The environment of a worker as uv.spawn takes it: this process's, with other values of some
-- variables. nil: the same.
local function environment_list(variables)
  if not variables then return nil end
  local all, list = uv.os_environ(), {}
  for name, value in pairs(variables) do all[name] = value end
  for name, value in pairs(all) do list[#list + 1] = name .. "=" .. value end
  return list
end

local function same_variables(a, b)
  for name, value in pairs(a or {}) do
    if not b or b[name] ~= value then return false end
  end
  for name in pairs(b or {}) do
    if not a or a[name] == nil then return false end
  end
  return true
end

-- Starts a worker. Returns nil and a message when it cannot be started.
local function start(program, variables)
  local input, answer = uv.new_pipe(false), uv.new_pipe(false)
  local output, errors = uv.new_pipe(false), uv.new_pipe(false)
  local worker = setmetatable({
    input = input,
    output = "",
    received = 0,
    timers = {},
    handles = {input, answer, output, errors},
    variables = variables,
  }, Worker)
  local options = {
    args = {table.unpack(program, 2)},
    env = environment_list(variables),
    stdio = {input, output, errors, answer},
    detached = true, -- a process group of its own, so that its children are killed with it
  }
  core._close_on_exec()
  local handle, pid = uv.spawn(program[1], options, function(code, signal)
    worker.code, worker.signal, worker.ended = code, signal, true
  end)
  if not handle then
    worker:close()
    return nil, tostring(pid)
  end
  worker.pid = pid
  worker.handles[#worker.handles + 1] = handle
  local function read(pipe, take)
    pipe:read_start(function(_, chunk)
      if chunk then take(worker, chunk) end
    end)
  end
  read(answer, Worker.take_answer)
  read(output, Worker.take_output)
  read(errors, Worker.take_output)
  return worker
end

-- ---- a pool of workers -------------------------------------------------------------------------

local Pool = {}
Pool.__index = Pool

-- The processors of each slot: all that this process may use, dealt out in runs; where there are
-- more slots than processors, one each, from the first again.
local function cores_of(slots)
  local all, lists = core._processors(), {}
  local each = math.max(1, #all // slots)
  for i = 1, slots do
    lists[i] = {}
    for j = 1, each do lists[i][j] = all[((i - 1) * each + j - 1) % #all + 1] end
  end
  return lists
end

--- A pool that runs up to `jobs` trials at the same time. With several, each worker is pinned to
--- processors of its own.
---@param e attune.Experiment its timeout, memory and reuse apply
---@param options {program: string[], jobs: integer?}
function executor.pool(e, options)
  local jobs = options.jobs or 1
  return setmetatable({
    e = e,
    program = options.program,
    slots = {},
    jobs = jobs,
    busy = 0,
    cores = jobs > 1 and cores_of(jobs) or nil,
    done = {},
  }, Pool)
end

---@return boolean whether another trial may start
function Pool:is_free() return self.busy < self.jobs end

---@return boolean whether no trial runs, and none waits to be taken
function Pool:is_idle() return self.busy == 0 and #self.done == 0 end

-- Ends workers. One that waits for a request ends by itself once its input ends, and is killed
-- only when it does not; one with a trial is killed now.
local function end_workers(list)
  for _, worker in ipairs(list) do
    if not worker.ended and not worker.trial and not worker.input:is_closing() then
      worker.input:close()
      worker:add_timer(grace_seconds * 1000, 0, function() worker:kill() end)
    elseif not worker.ended then
      worker:kill()
    end
  end
  for _, worker in ipairs(list) do
    while not worker.ended do uv.run "once" end
    worker:kill() -- its children
    worker:close()
  end
end

--- Ends the workers that wait for a request, so that the next trials get new ones.
function Pool:renew()
  local list = {}
  for i = 1, self.jobs do
    local worker = self.slots[i]
    if worker and not worker.trial then
      list[#list + 1] = worker
      self.slots[i] = nil
    end
  end
  end_workers(list)
end

function Pool:free_slot()
  for i = 1, self.jobs do
    if not (self.slots[i] and self.slots[i].trial) then return i end
  end
end

--- Starts a trial in a free slot.
---@param trial any comes back from `next`
---@param request table what the worker reads, see attune.experiment.worker
---@param variables? table<string, string> of the worker's environment; a worker that has others is
--- not used
function Pool:start(trial, request, variables)
  local slot = self:free_slot()
  local worker, why = self.slots[slot], nil
  if worker and worker.ended then
    worker:close()
    worker = nil
  end
  if worker and not same_variables(worker.variables, variables) then
    end_workers {worker}
    worker, self.slots[slot] = nil, nil
  end
  if not worker then worker, why = start(self.program, variables) end
  if not worker then
    self.done[#self.done + 1] = {trial, failed("starting the worker: %s", why)}
    return
  end
  request.cores = self.cores and self.cores[slot] or nil
  self.slots[slot], self.busy = worker, self.busy + 1
  worker:begin(self.e, request)
  worker.trial.of = trial
end

-- Takes the record of a slot whose trial has ended.
function Pool:finish(slot)
  local worker = self.slots[slot]
  local trial = worker.trial
  local ended = worker.ended
  if ended then worker:kill() end
  worker:drain()
  worker:clear_timers()
  local record = worker:outcome(self.e)
  if record then
    record.seconds = record.seconds or (uv.hrtime() - trial.begin) * 1e-9
    if worker.output ~= "" then record.output = worker.output:sub(-max_output_bytes) end
  end
  worker.trial = nil
  self.busy = self.busy - 1
  if ended or self.e.reuse == false then
    end_workers {worker}
    self.slots[slot] = nil
  end
  self.done[#self.done + 1] = {trial.of, record}
end

--- Waits until a trial has ended.
---@param control {kill: boolean?} kill is set from outside: all trials end now
---@return any trial
---@return table? record nil when control.kill ended the trial
function Pool:next(control)
  while #self.done == 0 do
    if control.kill then
      for _, worker in pairs(self.slots) do
        if worker.trial and not worker.trial.stopped then
          worker.trial.stopped = true
          worker:kill()
        end
      end
    end
    uv.run "once"
    for i = 1, self.jobs do
      local worker = self.slots[i]
      if worker and worker.trial and worker:has_ended() then self:finish(i) end
    end
  end
  local done = table.remove(self.done, 1)
  return done[1], done[2]
end

--- Ends all workers and their trials.
function Pool:close()
  local list = {}
  for _, worker in pairs(self.slots) do list[#list + 1] = worker end
  end_workers(list)
  self.slots, self.busy = {}, 0
end

return executor
