--- Which trials a run has to do, and how it describes itself.
local condition = require "attune.experiment.condition"
local json = require "attune.util.json"
local schema = require "attune.results.schema"
local store = require "attune.results.store"
local sweep = require "attune.experiment.points"
local text = require "attune.util.text"

local plan = {}

local function complete(record)
  return record and (record.status == "ok" or record.status == "skipped")
end

--- The trials that are still to be run: round by round, all points in each round.
---@param points table[] see attune.experiment.points
---@param rounds integer
---@param records table[] of earlier runs
---@param fresh? boolean ignore the earlier records
---@return {point: table, round: integer, attempt: integer}[]
function plan.trials(points, rounds, records, fresh)
  local chosen, skipped, trials = store.chosen(records), {}, {}
  for _, record in pairs(chosen) do
    if record.status == "skipped" then skipped[record.hash] = true end
  end
  for round = 1, rounds do
    for _, point in ipairs(points) do
      local record = chosen[point.hash .. ":" .. round]
      if fresh or not (complete(record) or skipped[point.hash]) then
        local attempt = record and not fresh and (record.attempt or 1) + 1 or 1
        trials[#trials + 1] = {point = point, round = round, attempt = attempt}
      end
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

--- The content of experiment.json: the declaration as data.
---@param e attune.Experiment narrowed
---@param options {quick?: boolean, script: string, command?: string}
---@return attune.Description
function plan.describe(e, options)
  return {
    schema = schema.version,
    name = e.name,
    about = e.about,
    quick = options.quick or false,
    script = options.script,
    command = options.command,
    source = e.source,
    rounds = e.rounds,
    parameters = json.list(e.parameters),
    metrics = metric_list(e),
    plots = json.list(e.plots),
    claims = claim_texts(e),
  }
end

--- A point in words: its varied parameters, or all of them when none varies.
---@return string
function plan.point_text(e, point)
  local parts = {}
  for _, name in ipairs(e.parameters) do
    local varied = e.grid[name] and #e.grid[name] > 1
    if varied or not next(e.grid) then
      parts[#parts + 1] = name .. " " .. text.plain(point.parameters[name])
    end
  end
  return table.concat(parts, ", ")
end

--- The points of a declaration. Raises an error when the grid or `only` is wrong.
---@param e attune.Experiment narrowed
---@param only? string a condition over the parameters, see experiment/condition.lua; keeps the
--- points for which it holds
function plan.points(e, only)
  local holds = only and condition.compile(only, e.parameters)
  local points = sweep.points(e, require "attune.version")
  os.setlocale "C" -- `where` and `derived` are the script's functions
  if not holds then return points end
  local kept = {}
  for _, point in ipairs(points) do
    if holds(point.parameters) then kept[#kept + 1] = point end
  end
  return kept
end

return plan
