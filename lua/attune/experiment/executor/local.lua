--- Runs one trial as a process on this machine and waits for its record.
--
-- The worker reads its request from standard input and answers on file descriptor 3. What it prints
-- on standard output and standard error is kept for the reason of a failure.
local uv = require "luv"
local json = require "attune.util.json"
local text = require "attune.util.text"

local executor = {}

local max_answer_bytes, max_output_bytes = 1 << 28, 1 << 14

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

-- The record for a worker that has ended; nil when the run itself was stopped.
local function outcome(state, e)
  if state.stopped then return nil end
  local record = json.decode(state.answer)
  if state.timed_out then
    local limit = text.duration(e.timeout)
    return {status = "timeout", reason = ("no answer within %s"):format(limit)}
  end
  if state.too_big then
    local size, limit = text.quantity(state.too_big, "B"), text.quantity(e.memory, "B")
    local reason = ("the worker grew to %s, past its limit of %s"):format(size, limit)
    return {status = "oom", reason = reason}
  end
  if type(record) == "table" and record.status then return record end
  if state.signal and state.signal ~= 0 then
    local name = signal_names[state.signal] or "signal " .. state.signal
    local reason = ("the worker was killed by %s: %s"):format(name, last_line(state.output))
    return {status = "failed", reason = reason}
  end
  local reason = ("the worker ended with status %s and no record: %s"):format(state.code,
    last_line(state.output))
  return {status = "failed", reason = reason}
end

-- Kills the worker when its time is over or its memory exceeds the limit. Returns the timers.
local function watch_limits(e, pid, state, kill_group)
  local timeout = uv.new_timer()
  timeout:start(math.ceil(e.timeout * 1000), 0, function()
    state.timed_out = true
    kill_group()
  end)
  if not e.memory then return {timeout} end
  local memory = uv.new_timer()
  memory:start(20, 50, function()
    local bytes = resident_bytes(pid)
    if bytes > e.memory then
      state.too_big = bytes
      kill_group()
    end
  end)
  return {timeout, memory}
end

local function close_all(handles)
  for _, handle in ipairs(handles) do
    if not handle:is_closing() then handle:close() end
  end
end

--- Starts a worker for the request and waits for its end.
---@param e attune.Experiment its timeout and memory limit apply
---@param request table what the worker reads, see attune.experiment.worker
---@param control {worker: string[], stop: boolean?} program to start; stop is set from outside
---@return table? record nil when control.stop ended the trial
function executor.run(e, request, control)
  local input, answer = uv.new_pipe(false), uv.new_pipe(false)
  local output, errors = uv.new_pipe(false), uv.new_pipe(false)
  local pipes = {input, answer, output, errors}
  local state = {answer = "", output = ""}
  local ended, open = false, #pipes
  local program = control.worker
  local options = {
    args = {table.unpack(program, 2)},
    stdio = {input, output, errors, answer},
    detached = true, -- a process group of its own, so that its children are killed with it
  }
  local handle, pid = uv.spawn(program[1], options, function(code, signal)
    state.code, state.signal, ended = code, signal, true
  end)
  if not handle then
    close_all(pipes)
    return {status = "failed", reason = "starting the worker: " .. tostring(pid)}
  end
  local start = uv.hrtime()
  local function kill_group() uv.kill(-pid, "sigkill") end
  local function collect(field, max_bytes)
    return function(_, chunk)
      if chunk then state[field] = (state[field] .. chunk):sub(-max_bytes) else open = open - 1 end
    end
  end
  answer:read_start(collect("answer", max_answer_bytes))
  output:read_start(collect("output", max_output_bytes))
  errors:read_start(collect("output", max_output_bytes))
  input:write(json.encode(request) .. "\n")
  input:shutdown(function() open = open - 1 end)
  local timers = watch_limits(e, pid, state, kill_group)
  while not ended or open > 0 do
    if control.stop and not state.stopped then
      state.stopped = true
      kill_group()
    end
    uv.run "once"
    -- A grandchild may keep the pipes open after the worker was killed: do not wait for it.
    if ended and (state.stopped or state.timed_out or state.too_big) then break end
  end
  kill_group()
  close_all(timers)
  close_all(pipes)
  close_all {handle}
  uv.run "nowait"
  local record = outcome(state, e)
  if record then record.seconds = record.seconds or (uv.hrtime() - start) * 1e-9 end
  return record
end

return executor
