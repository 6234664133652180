--- One trial, in a process of its own.
--
-- The request comes as one line of JSON on standard input: {script, parameters, round, seed, quick,
-- memory?}. The record goes as one line of JSON to file descriptor 3. What the script prints stays
-- on standard output and standard error, which the executor keeps for its messages.
local uv = require "luv"
local experiment = require "attune.experiment"
local files = require "attune.util.files"
local json = require "attune.util.json"
local timing = require "attune.experiment.timing"

local worker = {}

local record_descriptor = 3

-- The second argument of a trial function.
local function trial_handle(request, warnings)
  return {
    round = request.round,
    quick = request.quick,
    time = function(_, fn, options) return timing.time(fn, options) end,
    warn = function(_, text) warnings[#warnings + 1] = tostring(text) end,
  }
end

local function out_of_memory(message)
  return message:find("out of memory", 1, true) or message:find("not enough memory", 1, true)
end

local function fail(format, ...) return nil, ("trial: " .. format):format(...) end

-- Returns the metrics with lists as {samples = list}; nil and a message for what is no metric.
local function check_metrics(metrics)
  if type(metrics) ~= "table" then
    return fail("expected a table of metrics, or nil and a reason, got %s", type(metrics))
  end
  for name, value in pairs(metrics) do
    if type(name) ~= "string" then
      return fail("expected names of metrics as keys, got %s", tostring(name))
    end
    if type(value) == "table" and not value.samples then
      if #value == 0 then
        return fail("%s: expected a number or a list of numbers, got an empty table", name)
      end
      metrics[name] = {samples = value}
    elseif type(value) ~= "number" and type(value) ~= "table" then
      return fail("%s: expected a number, a list of numbers or the result of t:time, got a %s",
        name, type(value))
    end
    for _, x in ipairs(type(metrics[name]) == "table" and metrics[name].samples or {}) do
      if type(x) ~= "number" then
        return fail("%s: expected numbers, got a %s among them", name, type(x))
      end
    end
  end
  return metrics
end

-- Runs the trial function. Returns status, reason, metrics.
local function attempt(request, warnings)
  local e, why = experiment.load(request.script)
  if not e then return "failed", why end
  e = experiment.narrowed(e, {quick = request.quick})
  local parameters = request.parameters
  parameters.seed = parameters.seed or request.seed
  local ok, metrics, reason = xpcall(e.trial, function(m)
    return out_of_memory(tostring(m)) and tostring(m) or debug.traceback(tostring(m), 2)
  end, parameters, trial_handle(request, warnings))
  if not ok then return out_of_memory(metrics) and "oom" or "failed", metrics end
  if metrics == nil then
    return "skipped", reason and tostring(reason) or "the trial gave no reason"
  end
  local checked, message = check_metrics(metrics)
  if not checked then return "failed", message end
  return "ok", nil, checked
end

--- Carries out the request.
---@return attune.Record record without the fields that the runner fills in
function worker.run(request)
  local loaded, core = pcall(require, "attune.core")
  if loaded and request.memory then core.memory {limit = math.floor(request.memory)} end
  local warnings, start = json.list(), uv.hrtime()
  local status, reason, metrics = attempt(request, warnings)
  local usage = uv.getrusage()
  return {
    status = status,
    reason = reason,
    metrics = metrics,
    warnings = warnings,
    seconds = (uv.hrtime() - start) * 1e-9,
    peak_rss = usage and usage.maxrss * 1024, -- getrusage counts KiB
    core_peak = loaded and core.memory().peak or nil,
  }
end

--- The command `attune trial`: reads one request, writes one record.
---@return integer exit status
function worker.main()
  local loaded, core = pcall(require, "attune.core")
  if loaded then core._die_with_parent() end
  local request, why = json.decode(io.read "l" or "")
  if not request then
    io.stderr:write("attune trial: expected a request as one line of JSON on standard input: ",
      tostring(why), "\n")
    return 2
  end
  local written, failed = files.put(record_descriptor, json.encode(worker.run(request)) .. "\n")
  if not written then
    io.stderr:write("attune trial: writing the record: ", failed, "\n")
    return 1
  end
  return 0
end

return worker
