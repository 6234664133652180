--- One trial, in a process of its own.
--
-- The request comes as one line of JSON on standard input: {script, parameters, round, seed, quick,
-- memory?}. The record goes as one line of JSON to file descriptor 3. What the script prints stays
-- on standard output and standard error, which the executor keeps for its messages.
local uv = require "luv"
local axes = require "attune.experiment.axes"
local experiment = require "attune.experiment"
local files = require "attune.util.files"
local json = require "attune.util.json"
local schema = require "attune.results.schema"
local text = require "attune.util.text"
local timing = require "attune.experiment.timing"
local validate = require "attune.results.validate"

local worker = {}

local record_descriptor = 3

-- The second argument of a trial function.
local function trial_handle(request, warnings)
  return {
    round = request.round,
    quick = request.quick,
    time = function(_, fn, options) return timing.time(fn, options) end,
    warn = function(_, warning)
      if #warnings < schema.limits.list then
        warnings[#warnings + 1] = text.cut(tostring(warning), schema.limits.message)
      end
    end,
  }
end

local function out_of_memory(message)
  return message:find("out of memory", 1, true) or message:find("not enough memory", 1, true)
end

-- A list as it is stored: raw values, so that no metamethod of a trial runs.
local function raw_list(value)
  local list = {}
  for i = 1, math.min(rawlen(value), schema.limits.samples + 1) do list[i] = rawget(value, i) end
  return list
end

-- Returns the metrics as they are stored; nil and a message for what is no metric.
local function check_metrics(metrics)
  if type(metrics) ~= "table" then
    return nil, "trial: expected a table of metrics, or nil and a reason, got a " .. type(metrics)
  end
  local stored = {}
  for name, value in next, metrics do
    if type(value) == "table" and rawget(value, "samples") == nil then
      if rawlen(value) == 0 then
        return nil, ("trial: %s: expected a number or a list of numbers, got an empty table")
          :format(text.plain(name))
      end
      stored[name] = {samples = raw_list(value)}
    elseif type(value) == "table" then
      local samples = rawget(value, "samples")
      stored[name] = {samples = type(samples) == "table" and raw_list(samples) or samples}
      for _, field in ipairs {"unsteady", "cause", "warmups", "batch"} do
        stored[name][field] = rawget(value, field)
      end
    else
      stored[name] = value
    end
  end
  local why = validate.answer {status = "ok", metrics = stored}
  if why then return nil, "trial: " .. why end
  return validate.only_known({metrics = stored}).metrics
end

-- The parameters as the script declares them: JSON has no infinities, and a table has a name.
local function parameters_of(request, e)
  local parameters = axes.resolve(e, request.parameters)
  for name, value in pairs(parameters) do
    parameters[name] = type(value) == "string" and json.number(value) or value
  end
  parameters.seed = parameters.seed or request.seed
  return parameters
end

-- Runs the trial function. Returns status, reason, metrics and the script's fingerprint.
local function attempt(request, warnings)
  local e, why = experiment.load(request.script)
  if not e then return "failed", why end
  local source = e.source
  e = experiment.narrowed(e, {quick = request.quick})
  local ok, metrics, reason = xpcall(e.trial, function(m)
    return out_of_memory(tostring(m)) and tostring(m) or debug.traceback(tostring(m), 2)
  end, parameters_of(request, e), trial_handle(request, warnings))
  os.setlocale "C" -- numbers are written with a point, whatever the trial has set
  if not ok then
    metrics = tostring(metrics)
    return out_of_memory(metrics) and "oom" or "failed", metrics, nil, source
  end
  if metrics == nil then
    local given = reason and tostring(reason) or "the trial gave no reason"
    return "skipped", given, nil, source
  end
  local checked, message = check_metrics(metrics)
  if not checked then return "failed", message, nil, source end
  return "ok", nil, checked, source
end

--- Carries out the request.
---@return attune.Record record without the fields that the runner fills in
function worker.run(request)
  local loaded, core = pcall(require, "attune.core")
  if loaded and request.memory then core.memory {limit = math.floor(request.memory)} end
  local warnings, start = json.list(), uv.hrtime()
  local status, reason, metrics, source = attempt(request, warnings)
  local usage = uv.getrusage()
  return {
    status = status,
    reason = reason and text.cut(reason, schema.limits.message),
    metrics = metrics,
    warnings = warnings,
    source = source,
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
  local valid = type(request) == "table" and type(request.script) == "string"
    and type(request.parameters) == "table"
  if not valid then
    why = why or "script and parameters are missing"
    io.stderr:write("attune trial: expected a request as one line of JSON on standard input: ",
      text.printable(why), "\n")
    return 2
  end
  -- The parent may have ended before _die_with_parent.
  if request.parent and request.parent ~= uv.os_getppid() then return 1 end
  local written, failed = files.put(record_descriptor, json.encode(worker.run(request)) .. "\n")
  if not written then
    io.stderr:write("attune trial: writing the record: ", failed, "\n")
    return 1
  end
  return 0
end

return worker
