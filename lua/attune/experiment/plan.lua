--- Which trials a run has to do, and how it describes itself.
local uv = require "luv"
local axes = require "attune.experiment.axes"
local condition = require "attune.experiment.condition"
local json = require "attune.util.json"
local schema = require "attune.results.schema"
local stopping = require "attune.experiment.stopping"
local store = require "attune.results.store"
local sweep = require "attune.experiment.points"
local text = require "attune.util.text"
local version = require "attune.version"
local sorted_keys = require "attune.util.tables".sorted_keys

local plan = {}

---@class attune.PlannedTrial
---@field point attune.SweepPoint
---@field round integer from 1
---@field seed integer
---@field attempt integer from 1
---@field position integer among all trials of the run, from 1

-- Every trial of a run in order: round by round, in each round seed by seed, all points for each.
-- Only declared seeds are filled in.
local function all_trials(e, points)
  local trials = {}
  for round = 1, e.rounds do
    for i = 1, e.seeds and #e.seeds or 1 do
      for _, point in ipairs(points) do
        local seed = e.seeds and e.seeds[i] or nil
        local position = #trials + 1
        trials[position] = {
          point = point, round = round, seed = seed, attempt = 1, position = position,
        }
      end
    end
  end
  return trials
end

-- Fills in the seeds that follow from the points.
local function with_seeds(trials)
  for _, trial in ipairs(trials) do
    trial.seed = trial.seed or sweep.seed(trial.point, trial.round)
  end
  return trials
end

--- The trials that are still to be run, in order.
---@param e attune.Experiment narrowed
---@param points attune.SweepPoint[]
---@param records attune.Record[] of earlier runs
---@param options? {fresh?: boolean, retry_failed?: boolean} fresh: ignore the earlier records;
--- retry_failed: only trials that were tried and have no result
---@return attune.PlannedTrial[]
---@return table enough see experiment/stopping.lua: the values that are there
function plan.trials(e, points, records, options)
  options = options or {}
  local all = all_trials(e, points)
  if options.fresh then return with_seeds(all), stopping(e, {}) end
  local chosen, skipped, trials = store.chosen(records, e.seeds), {}, {}
  local counting = {}
  for _, record in pairs(chosen) do
    local complete = store.is_complete(record, e.source)
    if complete and record.status == "skipped" then skipped[record.hash] = true end
    counting[#counting + 1] = record
  end
  local enough = stopping(e, counting)
  for _, trial in ipairs(all) do
    local record = chosen[store.key(trial.point.hash, trial.round, trial.seed)]
    local hash = trial.point.hash
    local complete = store.is_complete(record, e.source)
    local wanted = not (complete or skipped[hash] or enough:done(hash))
    if wanted and (record or not options.retry_failed) then
      trial.attempt = record and (record.attempt or 1) + 1 or 1
      trials[#trials + 1] = trial
    end
  end
  return with_seeds(trials), enough
end

-- Why a point is measured again whose parameters have complete records.
local function reason_of(e, record)
  if record.schema == 1 then return "an earlier form of the files holds their records" end
  if record.version and record.version ~= version then
    return ("attune %s measured them and this is %s"):format(record.version, version)
  end
  if record.source ~= e.source then return "the script was edited since they were measured" end
  return "a table among their parameters changed"
end

--- Compares points with records of the same parameters that another script or another attune
--- measured. With `keep` such a point takes the hash of its records, so that they count.
---@param e attune.Experiment narrowed
---@param points attune.SweepPoint[]
---@param records attune.Record[]
---@param keep? boolean
---@return {reason: string, count: integer}[] changed how many points are measured again, or kept
function plan.changes(e, points, records, keep)
  local counting = store.counting(records, e.source)
  local has, last_of, changed, by_reason = {}, {}, {}, {}
  for _, record in ipairs(records) do
    if record.status == "ok" or record.status == "skipped" then
      has[record.hash], last_of[record.hash] = true, record
    end
  end
  if next(has) == nil then return changed end
  for _, point in ipairs(points) do
    if not has[point.hash] then
      local hash = counting[store.parameters_key(point.parameters)]
      local record = hash and last_of[hash]
      if record then
        local reason = reason_of(e, record)
        if not by_reason[reason] then
          by_reason[reason] = {reason = reason, count = 0}
          changed[#changed + 1] = by_reason[reason]
        end
        by_reason[reason].count = by_reason[reason].count + 1
        if keep then point.hash = hash end
      end
    end
  end
  return changed
end

--- How long trials will take, from the records of earlier ones: the mean of the same point, else
--- that of all points.
---@param trials attune.PlannedTrial[]
---@param records attune.Record[]
---@return number? seconds nil without records
---@return integer? count of the records
function plan.estimate(trials, records)
  local sum, count, sums, counts = 0, 0, {}, {}
  for _, record in ipairs(records) do
    if record.seconds and record.status ~= "skipped" then
      local hash = record.hash
      sum, count = sum + record.seconds, count + 1
      sums[hash], counts[hash] = (sums[hash] or 0) + record.seconds, (counts[hash] or 0) + 1
    end
  end
  if count == 0 then return nil end
  local seconds = 0
  for _, trial in ipairs(trials) do
    local hash = trial.point.hash
    seconds = seconds + (sums[hash] and sums[hash] / counts[hash] or sum / count)
  end
  return seconds, count
end

local function claim_texts(e)
  local list = json.list()
  for i, claim in ipairs(e.claims or {}) do list[i] = claim[1] end
  return list
end

local function metric_list(e)
  local names, list = sorted_keys(e.metrics or {}), json.list()
  for i, name in ipairs(names) do
    local m = e.metrics[name]
    list[i] = {name = name, unit = m.unit, better = m.better, about = m.about}
  end
  return list
end

--- The content of experiment.json: the declaration as data.
---@param e attune.Experiment narrowed
---@param options {quick?: boolean, script: string, command?: string}
---@param count integer number of points
---@return attune.Description
function plan.describe(e, options, count)
  local home = uv.os_homedir()
  return {
    schema = schema.version,
    name = e.name,
    about = e.about,
    quick = options.quick or false,
    script = text.without_home(options.script, home),
    command = options.command and text.without_home(options.command, home),
    source = e.source,
    rounds = e.rounds,
    stop_when = e.stop_when and next(e.stop_when) and e.stop_when or nil,
    points = count,
    seeds = e.seeds and json.list(table.move(e.seeds, 1, #e.seeds, 1, {})) or nil,
    parameters = json.list(e.parameters),
    axes = axes.listed(e),
    metrics = metric_list(e),
    plots = json.list(e.plots),
    claims = claim_texts(e),
    method = {timing = e.timing ~= false, timeout = e.timeout, memory = e.memory},
  }
end

--- A point in words: its varied parameters, or all of them when none varies.
---@return string
function plan.point_text(e, point)
  local parts, any = {}, false
  for _, name in ipairs(e.parameters) do any = any or axes.varies(e, name) end
  for _, name in ipairs(e.parameters) do
    if any == axes.varies(e, name) then
      parts[#parts + 1] = name .. " " .. text.plain(point.parameters[name])
    end
  end
  return table.concat(parts, ", ")
end

--- A trial in words: its point, its round, its seed where seeds are declared.
---@return string
function plan.trial_text(e, trial)
  local parts = {}
  if e.seeds then parts[1] = "seed " .. trial.seed end
  if not e.seeds or e.rounds > 1 then parts[#parts + 1] = "round " .. trial.round end
  return ("%s (%s)"):format(plan.point_text(e, trial.point), table.concat(parts, ", "))
end

-- The environment variables of a point's workers; nil where the script gives none. Raises an error
-- for what is no environment.
local function environment_of(e, point)
  local given = e.environment(point.values)
  if given == nil then return nil end
  if type(given) ~= "table" then
    error(("environment: expected a table of texts, or nil, got a %s"):format(type(given)), 0)
  end
  local variables = {}
  for name, value in next, given do
    if type(name) ~= "string" or not name:find "^[%a_][%w_]*$" then
      error(("environment: expected names of letters, digits and _, got %s"):format(tostring(name)),
        0)
    end
    if type(value) ~= "string" or value:find "%z" then
      error(("environment.%s: expected a text, got %s"):format(name, tostring(value)), 0)
    end
    variables[name] = value
  end
  return next(variables) and variables
end

--- The points of a declaration. Raises an error when the grid or `only` is wrong.
---@param e attune.Experiment narrowed
---@param only? string a condition over the parameters, see experiment/condition.lua; keeps the
--- points for which it holds
function plan.points(e, only)
  local holds = only and condition.compile(only, e.parameters)
  local points = sweep.points(e, version)
  local kept = {}
  for _, point in ipairs(points) do
    if not holds or holds(point.parameters) then
      point.environment = e.environment and environment_of(e, point)
      kept[#kept + 1] = point
    end
  end
  os.setlocale "C" -- `where`, `derived` and `environment` are the script's functions
  return kept
end

return plan
