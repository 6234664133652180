--- Runs a sweep: rounds over points, each trial in a worker process, each record stored as it comes.
local uv = require "luv"
local experiment = require "attune.experiment"
local json = require "attune.json"
local progress = require "attune.progress"
local provenance = require "attune.provenance"
local store = require "attune.store"
local sweep = require "attune.sweep"
local text = require "attune.text"

local runner = {}

-- ---- one trial ------------------------------------------------------------------------------------------------------

local function page_size_rss(pid)
  local file = io.open(("/proc/%d/statm"):format(pid))
  if not file then return 0 end
  local pages = file:read "a":match "^%d+ (%d+)"
  file:close()
  return (tonumber(pages) or 0) * 4096
end

local signal_names = {[1] = "SIGHUP", [2] = "SIGINT", [3] = "SIGQUIT", [4] = "SIGILL", [6] = "SIGABRT", [7] = "SIGBUS", [8] = "SIGFPE", [9] = "SIGKILL",
  [11] = "SIGSEGV", [13] = "SIGPIPE", [15] = "SIGTERM"}

-- What a worker said last, for a reason.
local function tail(output)
  local lines = {}
  for line in output:gmatch "[^\n]+" do lines[#lines + 1] = line end
  return lines[#lines] or "nothing said"
end

-- The record that a worker's end amounts to.
local function outcome(state, e)
  if state.stopped then return nil end
  local record = json.decode(state.answer)
  if state.timed_out then return {status = "timeout", reason = ("no answer within %s"):format(text.duration(e.timeout))} end
  if state.too_big then return {status = "oom", reason = ("the worker grew to %s, past its limit of %s"):format(text.quantity(state.too_big, "B"), text.quantity(e.memory, "B"))} end
  if type(record) == "table" and record.status then return record end
  if state.signal and state.signal ~= 0 then
    return {status = "failed", reason = ("the worker was killed by %s: %s"):format(signal_names[state.signal] or "signal " .. state.signal, tail(state.output))}
  end
  return {status = "failed", reason = ("the worker ended with status %s and no record: %s"):format(state.code, tail(state.output))}
end

-- Starts a worker for the request and waits for its end. control.stop is set when the run is to end.
local function run_trial(e, request, control)
  local input, answer, output, errors = uv.new_pipe(false), uv.new_pipe(false), uv.new_pipe(false), uv.new_pipe(false)
  local state = {answer = "", output = ""}
  local ended, open = false, 4
  local program = control.worker
  local handle, pid = uv.spawn(program[1], {args = {table.unpack(program, 2)}, stdio = {input, output, errors, answer}, detached = true},
    function(code, signal) state.code, state.signal, ended = code, signal, true end)
  if not handle then
    for _, pipe in ipairs {input, answer, output, errors} do pipe:close() end
    return {status = "failed", reason = "starting the worker: " .. tostring(pid)}
  end
  local start = uv.hrtime()
  local function kill_group() uv.kill(-pid, "sigkill") end
  local function drain(field, most)
    return function(_, chunk)
      if chunk then state[field] = (state[field] .. chunk):sub(-most) else open = open - 1 end
    end
  end
  answer:read_start(drain("answer", 1 << 28))
  output:read_start(drain("output", 1 << 14))
  errors:read_start(drain("output", 1 << 14))
  input:write(json.encode(request) .. "\n")
  input:shutdown(function() open = open - 1 end)
  local timer = uv.new_timer()
  timer:start(math.ceil(e.timeout * 1000), 0, function() state.timed_out = true; kill_group() end)
  local watch
  if e.memory then
    watch = uv.new_timer()
    watch:start(20, 50, function()
      local rss = page_size_rss(pid)
      if rss > e.memory then state.too_big = rss; kill_group() end
    end)
  end
  while not ended or open > 0 do
    if control.stop and not state.stopped then state.stopped = true; kill_group() end
    uv.run "once"
    -- A grandchild may keep the pipes open; its parent's end is the trial's.
    if ended and (state.stopped or state.timed_out or state.too_big) then break end
  end
  kill_group()
  for _, h in ipairs {timer, watch or timer, input, answer, output, errors, handle} do
    if not h:is_closing() then h:close() end
  end
  uv.run "nowait"
  local record = outcome(state, e)
  if record then record.seconds = record.seconds or (uv.hrtime() - start) * 1e-9 end
  return record
end

-- ---- the plan -------------------------------------------------------------------------------------------------------

-- Trials that are still to be run, round by round over all points.
local function plan(points, rounds, records, fresh)
  local chosen, ended, trials = store.chosen(records), {}, {}
  for _, record in pairs(chosen) do
    if record.status == "skipped" then ended[record.hash] = true end
  end
  for round = 1, rounds do
    for _, point in ipairs(points) do
      local record = chosen[point.hash .. ":" .. round]
      local complete = record and (record.status == "ok" or record.status == "skipped")
      if fresh or not (complete or ended[point.hash]) then trials[#trials + 1] = {point = point, round = round, attempt = record and not fresh and (record.attempt or 1) + 1 or 1} end
    end
  end
  return trials
end

local function claim_texts(e)
  local list = json.list()
  for i, claim in ipairs(e.claims or {}) do list[i] = claim[1] end
  return list
end

local function metric_list(e)
  local names, list = {}, json.list()
  for name in pairs(e.metrics or {}) do names[#names + 1] = name end
  table.sort(names)
  for i, name in ipairs(names) do
    local m = e.metrics[name]
    list[i] = {name = name, unit = m.unit, better = m.better, about = m.about}
  end
  return list
end

--- What experiment.json holds.
function runner.describe(e, options)
  return {schema = store.schema, name = e.name, about = e.about, quick = options.quick or false, script = options.script, command = options.command, rounds = e.rounds,
    parameters = json.list(e.parameters), metrics = metric_list(e), plots = json.list(e.plots), claims = claim_texts(e)}
end

function runner.point_text(e, point)
  local parts = {}
  for _, name in ipairs(e.parameters) do
    local varied = e.grid[name] and #e.grid[name] > 1
    if varied or not next(e.grid) then parts[#parts + 1] = name .. " " .. text.plain(point.parameters[name]) end
  end
  return table.concat(parts, ", ")
end

--- The points of a declaration, `only` applied: an expression over the parameters.
function runner.points(e, only)
  local points = sweep.points(e, require "attune.version")
  if not only then return points end
  local kept = {}
  for _, point in ipairs(points) do
    local chunk, why = load("return " .. only, "=--only", "t", setmetatable({}, {__index = function(_, k)
      local v = point.parameters[k]
      return v ~= nil and v or ({math = math, string = string})[k]
    end}))
    if not chunk then error("--only: " .. why, 0) end
    local ok, value = pcall(chunk)
    if not ok then error("--only: " .. tostring(value), 0) end
    if value then kept[#kept + 1] = point end
  end
  return kept
end

-- Ctrl-C, SIGTERM and a terminal that goes away set control.stop and the status that the command ends with.
local function watch_signals(control)
  local handles = {}
  for name, status in pairs {sigint = 130, sigterm = 143, sighup = 129} do
    local s = uv.new_signal()
    s:start(name, function()
      control.stop = true
      control.status = control.status or status
    end)
    s:unref()
    handles[#handles + 1] = s
  end
  return function()
    for _, s in ipairs(handles) do s:stop(); s:close() end
    uv.run "nowait"
  end
end

---@class attune.RunOptions
---@field script string
---@field dir string
---@field quick? boolean
---@field rounds? integer
---@field set? table
---@field only? string
---@field fresh? boolean
---@field fail_fast? boolean
---@field command? string
---@field worker string[] the program that runs one trial

--- Runs what is still to be run. Returns {measured, failed, stopped, points}, or nil and a message for misuse.
---@param options attune.RunOptions
function runner.run(options)
  local e, why = experiment.load(options.script)
  if not e then return nil, why end
  local ok, result = pcall(experiment.narrowed, e, options)
  if not ok then return nil, result end
  e = result
  local points
  ok, points = pcall(runner.points, e, options.only)
  if not ok then return nil, points end
  if #points == 0 then return nil, "grid: expected at least one point, got none (where, derived or --only leave none)" end
  if options.dry then return {measured = 0, points = points, experiment = e, dry = true} end

  ok, why = store.open(options.dir, runner.describe(e, options))
  if not ok then return nil, why end
  local trials = plan(points, e.rounds, (store.records(options.dir)), options.fresh)
  if options.fresh then
    ok, why = store.clear(options.dir)
    if not ok then return nil, why end
  end
  local control = {worker = options.worker}
  local unwatch = watch_signals(control)
  local bar = progress(#trials)
  local writer = store.writer(options.dir, #trials > 0 and provenance(options.script, options.command or "") or {})
  local counts, stopped, gone = {}, nil, {}
  for _, trial in ipairs(trials) do
    local point = trial.point
    if not gone[point.hash] then
      local what = ("%s (round %d)"):format(runner.point_text(e, point), trial.round)
      bar:begin(what)
      local seed = tonumber(sweep.hash(point.hash .. ":" .. trial.round):sub(1, 7), 16)
      local record = run_trial(e, {script = options.script, parameters = point.parameters, round = trial.round, seed = seed, quick = options.quick or false, memory = e.memory}, control)
      if not record then stopped = true break end
      record.schema, record.hash, record.index, record.round, record.attempt = store.schema, point.hash, point.index, trial.round, trial.attempt
      record.seed, record.parameters, record.load = seed, point.parameters, (uv.loadavg())
      record.peak_rss = record.peak_rss or nil
      local written, write_why = writer:write(record)
      if not written then
        bar:close()
        unwatch()
        writer:close()
        return nil, ("%s: writing a record: %s; the results before it are kept"):format(options.dir, write_why)
      end
      counts[record.status] = (counts[record.status] or 0) + 1
      if record.status ~= "ok" then gone[point.hash] = true end
      bar:finish(what, record)
      local failed = record.status ~= "ok" and record.status ~= "skipped"
      if failed and options.fail_fast then break end
    else
      bar.total = bar.total - 1
    end
    if control.stop then stopped = true break end
  end
  bar:close()
  writer:close()
  unwatch()
  local measured = 0
  for _, n in pairs(counts) do measured = measured + n end
  return {measured = measured, counts = counts, stopped = stopped, status = control.status, points = points, experiment = e}
end

return runner
