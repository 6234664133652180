--- Runs one trial as a process on this machine and waits for its record.
--
-- The worker reads its request from standard input and answers with one line on file descriptor 3.
-- What it prints on standard output and standard error is kept for the reason of a failure. Once
-- the line is there the trial is done: neither a worker that does not end nor its children, which
-- may keep the pipes open, delay the run by more than grace_seconds.
local uv = require "luv"
local core = require "attune.core"
local json = require "attune.util.json"
local schema = require "attune.results.schema"
local text = require "attune.util.text"
local validate = require "attune.results.validate"

local executor = {}

local max_answer_bytes, max_output_bytes = schema.limits.record, 1 << 14
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

-- The record in the worker's answer; a failed one when the answer is none.
local function record_of(job)
  local value, why = json.decode(table.concat(job.answer):match "^[^\n]*")
  if not why then why = validate.answer(value) end
  if why then return failed("expected a record as the trial's answer: %s", why) end
  return validate.only_known(value)
end

-- The record for a worker that has ended; nil when the run itself was stopped.
local function outcome(job, e)
  if job.stopped then return nil end
  if job.too_long then
    local limit = text.quantity(max_answer_bytes, "B")
    return failed("the trial's answer is too long: expected at most %s", limit)
  end
  if job.answered then return record_of(job) end
  if job.timed_out then
    local limit = text.duration(e.timeout)
    return {status = "timeout", reason = ("no answer within %s"):format(limit)}
  end
  if job.too_big then
    local size, limit = text.quantity(job.too_big, "B"), text.quantity(e.memory, "B")
    local reason = ("the worker grew to %s, past its limit of %s"):format(size, limit)
    return {status = "oom", reason = reason}
  end
  if job.signal and job.signal ~= 0 then
    local name = signal_names[job.signal] or "signal " .. job.signal
    return failed("the worker was killed by %s: %s", name, last_line(job.output))
  end
  return failed("the worker ended with status %s and no record: %s", job.code,
    last_line(job.output))
end

local Job = {}
Job.__index = Job

-- Ends the worker and its children.
function Job:kill() uv.kill(-self.pid, "sigkill") end

function Job:add_timer(first_ms, repeat_ms, callback)
  local timer = uv.new_timer()
  timer:start(first_ms, repeat_ms, callback)
  self.handles[#self.handles + 1] = timer
end

function Job:take_answer(chunk)
  self.received = self.received + #chunk
  if self.answered then return end
  self.answer[#self.answer + 1] = chunk
  if self.received > max_answer_bytes then
    self.too_long = true
    self.answer = {}
    self:kill()
  elseif chunk:find("\n", 1, true) then
    self.answered = true
    self:add_timer(grace_seconds * 1000, 0, function() self:kill() end)
  end
end

function Job:take_output(chunk)
  self.received = self.received + #chunk
  self.output = (self.output .. chunk):sub(-max_output_bytes)
end

-- Reads a pipe as it fills.
local function read(job, pipe, take)
  pipe:read_start(function(_, chunk)
    if chunk and not job.too_long then take(job, chunk) end
  end)
end

-- Kills the worker when its time is over or its memory exceeds the limit.
function Job:watch_limits(e)
  self:add_timer(math.ceil(e.timeout * 1000), 0, function()
    self.timed_out = not self.answered
    self:kill()
  end)
  if not e.memory then return end
  self:add_timer(20, 50, function()
    local bytes = resident_bytes(self.pid)
    if bytes > e.memory and not self.answered then
      self.too_big = bytes
      self:kill()
    end
  end)
end

function Job:close()
  for _, handle in ipairs(self.handles) do
    if not handle:is_closing() then handle:close() end
  end
  uv.run "nowait"
end

-- Starts a worker and hands it the request. Returns nil and a message when it cannot be started.
local function start(e, request, program)
  local input, answer = uv.new_pipe(false), uv.new_pipe(false)
  local output, errors = uv.new_pipe(false), uv.new_pipe(false)
  local job = setmetatable({
    answer = {},
    output = "",
    received = 0,
    handles = {input, answer, output, errors},
  }, Job)
  local options = {
    args = {table.unpack(program, 2)},
    stdio = {input, output, errors, answer},
    detached = true, -- a process group of its own, so that its children are killed with it
  }
  core._close_on_exec()
  local handle, pid = uv.spawn(program[1], options, function(code, signal)
    job.code, job.signal, job.ended = code, signal, true
  end)
  if not handle then
    job:close()
    return nil, tostring(pid)
  end
  job.pid = pid
  job.handles[#job.handles + 1] = handle
  read(job, answer, Job.take_answer)
  read(job, output, Job.take_output)
  read(job, errors, Job.take_output)
  input:write(json.encode(request) .. "\n")
  input:shutdown()
  job:watch_limits(e)
  return job
end

-- Reads what the worker wrote before it ended. It lies in the pipes, so that nothing is waited for.
-- A child of the worker may write on; the number of rounds bounds that.
local function drain(job)
  local idle = 0
  for _ = 1, 100 do
    local before = job.received
    uv.run "nowait"
    idle = job.received == before and idle + 1 or 0
    if idle == 2 then return end
  end
end

--- Starts a worker for the request and waits for its end.
---@param e attune.Experiment its timeout and memory limit apply
---@param request table what the worker reads, see attune.experiment.worker
---@param control {worker: string[], stop: boolean?} program to start; stop is set from outside
---@return table? record nil when control.stop ended the trial
function executor.run(e, request, control)
  local begin = uv.hrtime()
  local job, why = start(e, request, control.worker)
  if not job then return failed("starting the worker: %s", why) end
  while not job.ended do
    if control.stop and not job.stopped then
      job.stopped = true
      job:kill()
    end
    uv.run "once"
  end
  job:kill()
  drain(job)
  job:close()
  local record = outcome(job, e)
  if record then record.seconds = record.seconds or (uv.hrtime() - begin) * 1e-9 end
  return record
end

return executor
