--- Trials, in a process apart from the runner.
--
-- A request comes as one line of JSON on standard input: {script, parameters, round, seed, quick,
-- files, uses?, memory?, cores?}. The record goes as one line of JSON to file descriptor 3. What
-- the script prints stays on standard output and standard error, which the executor keeps. After a
-- trial that left nothing behind (experiment/leftovers.lua) the process reads the next request.
local uv = require "luv"
local axes = require "attune.experiment.axes"
local ceilings = require "attune.experiment.ceilings"
local experiment = require "attune.experiment"
local files = require "attune.util.files"
local json = require "attune.util.json"
local leftovers = require "attune.experiment.leftovers"
local rows = require "attune.results.rows"
local schema = require "attune.results.schema"
local suggest = require "attune.util.suggest"
local text = require "attune.util.text"
local timing = require "attune.experiment.timing"
local validate = require "attune.results.validate"

local worker = {}

local record_descriptor = 3

-- Results of experiments that the script uses, by folder: they do not change during a run.
local used = {}

local function results_of(request, name)
  local dir = type(request.uses) == "table" and request.uses[name]
  if not dir then
    error(("use: expected an experiment of the field `uses`, got '%s'"):format(tostring(name)), 3)
  end
  if not used[dir] then
    local results, why = require "attune.results.store".read(dir)
    if not results then error(("use: %s: %s"):format(name, why), 3) end
    used[dir] = results
  end
  return used[dir]
end

-- Raises an error, at the line of the trial, for a name that is no parameter of the results.
local function check_parameters(results, name, wanted)
  for parameter in pairs(wanted or {}) do
    local found
    for _, known in ipairs(results.parameters) do found = found or known == parameter end
    if not found then
      error(("use: '%s': unknown parameter '%s': %s"):format(name, tostring(parameter),
        suggest(tostring(parameter), results.parameters)), 3)
    end
  end
end

local function is_at(point, wanted)
  for parameter, value in pairs(wanted or {}) do
    if point.parameters[parameter] ~= value then return false end
  end
  return true
end

-- The only point of an experiment that has the wanted parameters: its parameters, the centre of
-- each metric, and a function that finds a file that it kept.
local function use(request, name, wanted)
  local results, found = results_of(request, name), {}
  check_parameters(results, name, wanted)
  for _, point in ipairs(results.points) do
    if point.status == "ok" and is_at(point, wanted) then found[#found + 1] = point end
  end
  if #found ~= 1 then
    error(("use: expected one point of '%s' with these parameters that ended ok, got %d")
      :format(name, #found), 3)
  end
  local point, metrics = found[1], {}
  for metric, value in pairs(point.metrics) do metrics[metric] = value.centre end
  local function file(_, file_name, seed)
    for _, folder in ipairs(files.list(results.dir .. "/files")) do
      local path = ("%s/files/%s/%s"):format(results.dir, folder, file_name)
      local of_point = folder:sub(1, #point.hash + 1) == point.hash .. "-"
        and (seed == nil or folder:sub(#point.hash + 2) == tostring(seed))
      if of_point and files.kind_inside(path) == "file" then return path end
    end
    error(("file: expected a file '%s' that a trial of '%s' kept, got none"):format(file_name,
      name), 2)
  end
  return {parameters = point.parameters, metrics = metrics, file = file}
end

-- The path of a file that a trial keeps, in a folder of its own.
local function kept_file(request, name)
  if type(name) ~= "string" or not name:find "^[%w_-][%w_.-]*$" then
    error(("file: expected a name of letters, digits, ., - and _, got %s"):format(tostring(name)),
      3)
  end
  -- The folder of results may come from a stranger, whose links would lead anywhere.
  local ok, why = files.make_folder_inside(files.folder_of(request.files))
  if ok then ok, why = files.make_folder_inside(request.files) end
  if not ok then error("file: " .. why, 3) end
  local path = request.files .. "/" .. name
  if files.kind_inside(path) == "link" then uv.fs_unlink(path) end
  return path
end

-- A value as a text that is the same in every run: what says where a table lies is left out.
local function in_words(value)
  local kind = type(value)
  local meta = kind ~= "string" and getmetatable(value)
  local has_words = type(meta) == "table" and rawget(meta, "__tostring") ~= nil
  if kind == "string" or kind == "number" or kind == "boolean" or kind == "nil" or has_words then
    return tostring(value)
  end
  return "a " .. kind
end

-- The second argument of a trial function.
local function trial_handle(request, warnings)
  local function warn(warning)
    if #warnings < schema.limits.list then
      warnings[#warnings + 1] = text.cut(tostring(warning), schema.limits.message)
    end
  end
  return {
    round = request.round,
    use = function(_, name, wanted) return use(request, name, wanted) end,
    file = function(_, name) return kept_file(request, name) end,
    quick = request.quick,
    time = function(_, fn, options) return timing.time(fn, options) end,
    against = function(_, fn, options)
      return ceilings.against(fn, options, request.round, warn)
    end,
    warn = function(_, warning)
      if warning == nil then error("warn: expected a text, got nil", 2) end
      warn(in_words(warning))
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
local function check_metrics(metrics, parameters)
  if type(metrics) ~= "table" then
    return nil, "trial: expected a table of metrics, or nil and a reason, got a " .. type(metrics)
  end
  local stored = {}
  for name, value in next, metrics do
    local clash = rows.taken(name, parameters, metrics)
    if clash then return nil, ("trial: metric %s: %s"):format(text.plain(name), clash) end
    if type(value) == "table" and rawget(value, "samples") == nil then
      if rawlen(value) == 0 then
        local key = next(value)
        local got = key == nil and "an empty table"
          or ("a table with a field '%s'"):format(in_words(key))
        return nil, ("trial: %s: expected a number or a list of numbers, got %s")
          :format(text.plain(name), got)
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
local function attempt(request, warnings, is_first)
  local e, why = (is_first and experiment.load or experiment.reload)(request.script)
  if not e then return "failed", why end
  local source = e.source
  local ok, metrics, reason = xpcall(function()
    return e.trial(parameters_of(request, e), trial_handle(request, warnings))
  end, function(m)
    m = in_words(m)
    return out_of_memory(m) and m or debug.traceback(m, 2)
  end)
  os.setlocale "C" -- numbers are written with a point, whatever the trial has set
  if not ok then
    metrics = tostring(metrics)
    return out_of_memory(metrics) and "oom" or "failed", metrics, nil, source
  end
  if metrics == nil then
    local given = reason and in_words(reason) or "the trial gave no reason"
    return "skipped", given, nil, source
  end
  local checked, message = check_metrics(metrics, request.parameters)
  if not checked then return "failed", message, nil, source end
  return "ok", nil, checked, source
end

-- Max resident memory since the last reset, in bytes. What getrusage says may be that of the
-- process that started this one.
local function peak_resident()
  local status = files.read("/proc/self/status", 1 << 16)
  local kib = status and status:match "VmHWM:%s*(%d+) kB"
  return kib and tonumber(kib) * 1024
end

-- Gives a trial the state of a process of its own: random numbers that follow from its seed, its
-- memory limit, and counters of memory that begin with it.
local function prepare(request, before)
  local core = before.core
  math.randomseed(request.seed or 0)
  if not core then return end
  core.set_seed(request.seed or 0)
  core.threads(before.threads)
  local limit = request.memory and math.floor(request.memory) or before.limit
  core.memory {limit = limit, reset_peak = true}
  if before.trials > 0 then
    local reset = io.open("/proc/self/clear_refs", "w")
    if reset then
      reset:write "5" -- resets VmHWM: proc(5)
      reset:close()
    end
  end
end

--- Carries out the request.
---@param request table
---@param before table the process before its first trial, see attune.experiment.leftovers
---@return attune.Record record without the fields that the runner fills in; `reusable` when the
--- process is as it was before
function worker.run(request, before)
  prepare(request, before)
  local warnings, start = json.list(), uv.hrtime()
  local status, reason, metrics, source = attempt(request, warnings, before.trials == 0)
  local seconds, core = (uv.hrtime() - start) * 1e-9, before.core
  before.trials = before.trials + 1
  local record = {
    status = status,
    reason = reason and text.cut(reason, schema.limits.message),
    metrics = metrics,
    warnings = warnings,
    source = source,
    seconds = seconds,
    peak_rss = peak_resident(),
    core_peak = core and core.memory().peak or nil,
  }
  io.stdout:flush()
  record.reusable = (status == "ok" or status == "skipped") and leftovers.none(before)
  return record
end

local function complain(message)
  io.stderr:write("attune trial: ", text.printable(message), "\n")
end

-- The request in a line; nil and a message.
local function read_request(line)
  local request, why = json.decode(line or "")
  local valid = type(request) == "table" and type(request.script) == "string"
    and type(request.parameters) == "table"
  if valid then return request end
  return nil, "expected a request as one line of JSON on standard input: "
    .. (why or "script and parameters are missing")
end

--- The command `attune trial`: reads requests, writes records, until a trial leaves something
--- behind or the input ends.
---@return integer exit status
function worker.main()
  local loaded, core = pcall(require, "attune.core")
  if loaded then core._die_with_parent() end
  local line, before = io.read "l", nil
  repeat
    local request, why = read_request(line)
    if not request then
      complain(why)
      return 2
    end
    -- The parent may have ended before _die_with_parent.
    if request.parent and request.parent ~= uv.os_getppid() then return 1 end
    if not before and loaded and request.cores then
      core._pin(request.cores)
      core.threads(#request.cores)
    end
    before = before or leftovers.now(loaded and core or nil)
    local record = worker.run(request, before)
    local written, failed = files.put(record_descriptor, json.encode(record) .. "\n")
    if not written then
      complain("writing the record: " .. failed)
      return 1
    end
    line = record.reusable and io.read "l" or nil
  until not line
  return 0
end

return worker
