--- One trial, in a process of its own: the request comes as one line of JSON on standard input, the record goes as one line to descriptor 3.
-- What the script prints stays on standard output and error, which the runner keeps for its messages.
local uv = require "luv"
local experiment = require "attune.experiment"
local json = require "attune.json"
local timing = require "attune.timing"

local worker = {}

---@class attune.Trial
---@field round integer from 1
---@field quick boolean
---@field time fun(self, fn: function, options?: attune.TimeOptions): table
---@field warn fun(self, text: string) a warning that the report shows

local function trial_handle(request, warnings)
  return {round = request.round, quick = request.quick, time = function(_, fn, options) return timing.time(fn, options) end,
    warn = function(_, text) warnings[#warnings + 1] = tostring(text) end}
end

local function out_of_memory(message) return message:find("out of memory", 1, true) or message:find("not enough memory", 1, true) end

local function check_metrics(metrics)
  if type(metrics) ~= "table" then return nil, ("trial: expected a table of metrics, or nil and a reason, got %s"):format(type(metrics)) end
  for name, value in pairs(metrics) do
    if type(name) ~= "string" then return nil, ("trial: expected names of metrics as keys, got %s"):format(tostring(name)) end
    if type(value) == "table" and not value.samples then
      if #value == 0 then return nil, ("trial: %s: expected a number or a list of numbers, got an empty table"):format(name) end
      metrics[name] = {samples = value}
    elseif type(value) ~= "number" and type(value) ~= "table" then
      return nil, ("trial: %s: expected a number, a list of numbers or what t:time returned, got a %s"):format(name, type(value))
    end
    for _, x in ipairs(type(metrics[name]) == "table" and metrics[name].samples or {}) do
      if type(x) ~= "number" then return nil, ("trial: %s: expected numbers, got a %s among them"):format(name, type(x)) end
    end
  end
  return metrics
end

-- Status, reason, metrics.
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
  if metrics == nil then return "skipped", reason and tostring(reason) or "the trial gave no reason" end
  local checked, message = check_metrics(metrics)
  if not checked then return "failed", message end
  return "ok", nil, checked
end

--- Carries out the request and returns the record.
function worker.run(request)
  local loaded, core = pcall(require, "attune.core")
  if loaded and request.memory then core.memory {limit = math.floor(request.memory)} end
  local warnings, start = json.list(), uv.hrtime()
  local status, reason, metrics = attempt(request, warnings)
  local usage = uv.getrusage()
  return {status = status, reason = reason, metrics = metrics, warnings = warnings, seconds = (uv.hrtime() - start) * 1e-9,
    peak_rss = usage and usage.maxrss * 1024, core_peak = loaded and core.memory().peak or nil}
end

--- `attune trial`: the process's whole life.
function worker.main()
  local loaded, core = pcall(require, "attune.core")
  if loaded then core._die_with_parent() end
  local request, why = json.decode(io.read "l" or "")
  if not request then
    io.stderr:write("attune trial: expected a request as one line of JSON on standard input: ", tostring(why), "\n")
    return 2
  end
  local text = json.encode(worker.run(request)) .. "\n"
  local done = 0
  while done < #text do
    local n, failed = uv.fs_write(3, text:sub(done + 1), -1)
    if not n then
      io.stderr:write("attune trial: writing the record: ", failed, "\n")
      return 1
    end
    done = done + n
  end
  return 0
end

return worker
