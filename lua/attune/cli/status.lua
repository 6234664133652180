local cluster = require "attune.experiment.cluster"
local folder = require "attune.cli.folder"
local json = require "attune.util.json"
local lock = require "attune.results.lock"
local output = require "attune.cli.output"
local points = require "attune.results.points"
local reader = require "attune.results.reader"
local stopping = require "attune.experiment.stopping"
local store = require "attune.results.store"
local text = require "attune.util.text"

local status = {summary = "say how far the run of a folder of results is"}

function status.options(parser)
  parser:argument("dir", "a folder of results"):convert(folder)
  parser:flag("--json", "write JSON")
end

local order = {"ok", "skipped", "failed", "timeout", "oom"}

-- What is there and what is left of the last run that was asked for. Nothing is left of a point
-- that was skipped, or that stop_when says is known well enough.
local function summary(loaded)
  local description = loaded.description
  local current, superseded = reader.current(loaded.records, description.source)
  local trials, measured, closed, count = {}, {}, {}, 0
  for _, name in ipairs(order) do trials[name] = 0 end
  local counting = points.in_sweep_order(current, description)
  local enough = stopping({stop_when = description.stop_when}, counting)
  for _, record in ipairs(counting) do
    trials[record.status] = trials[record.status] + 1
    local ok = record.status == "ok" and 1 or 0
    if not measured[record.hash] then count = count + 1 end
    measured[record.hash] = (measured[record.hash] or 0) + ok
    if record.status == "skipped" or enough:done(record.hash) then closed[record.hash] = true end
  end
  local rounds = (description.rounds or 1) * #(description.seeds or {1})
  local wanted = description.points or count
  local done = 0
  for hash, ok in pairs(measured) do
    done = done + (closed[hash] and rounds or math.min(ok, rounds))
  end
  return {
    name = description.name,
    running = lock.is_held(loaded.dir),
    points = {wanted = wanted, there = count},
    rounds = rounds,
    trials = trials,
    left = math.max(0, wanted * rounds - done),
    superseded = superseded,
  }
end

local kinds = {"queued", "running", "done", "failed", "lost", "unknown"}

-- Returns whether a task may still write.
local function print_jobs(jobs)
  local alive = false
  for _, job in ipairs(jobs) do
    local parts = {}
    for _, kind in ipairs(kinds) do
      if job[kind] > 0 then parts[#parts + 1] = ("%d %s"):format(job[kind], kind) end
    end
    output.line(("Slurm job %s, %s: %s"):format(job.job or job.name,
      text.count(job.tasks, "task"), table.concat(parts, ", ")))
    alive = alive or job.queued + job.running + job.unknown > 0
  end
  if #jobs > 0 and not alive then
    output.line("All tasks have ended: the same attune run command draws the report"
      .. ", and submits again what was lost.")
  end
  return alive
end

local function print_summary(s)
  local parts = {}
  for _, name in ipairs(order) do
    if s.trials[name] > 0 then parts[#parts + 1] = ("%d %s"):format(s.trials[name], name) end
  end
  local there = #parts > 0 and table.concat(parts, ", ") or "no trial yet"
  output.line(("%s: %s; %d of %d left"):format(s.name, there, s.left, s.points.wanted * s.rounds))
  local alive = print_jobs(s.slurm)
  if s.running or not alive then
    output.line(s.running and "A run is writing to this folder."
      or "No run is writing to this folder.")
  end
  if s.superseded > 0 then
    output.line(("%d records of an earlier script or version do not count; attune gc removes them.")
      :format(s.superseded))
  end
end

function status.run(args)
  local loaded, why = store.load(args.dir)
  if not loaded then
    output.complain("attune status", why)
    return 2
  end
  local s = summary(loaded)
  local silent
  s.slurm, silent = cluster.status(args.dir)
  if silent then output.complain("attune status", silent) end
  json.list(s.slurm)
  if args.json then output.write(json.encode(s) .. "\n") else print_summary(s) end
  output.warn("attune status", loaded.warnings)
  return 0
end

return status
