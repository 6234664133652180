--- A metric at each point over several folders of results, oldest first: each folder is compared
--- with the one before it that was measured on the same processor.
local compare = require "attune.results.compare"
local reader = require "attune.results.reader"
local stats = require "attune.results.statistics"
local suggest = require "attune.util.suggest"

local history = {}

---@class attune.HistoryEntry
---@field folder integer index into folders
---@field value attune.Centre
---@field cpu? string
---@field verdict? attune.ComparisonVerdict against the entry before; nil for the first one
---@field comparison? attune.Comparison
---@field p? number adjusted (Holm)

---@class attune.HistorySeries
---@field parameters table<string, attune.Scalar>
---@field metric string
---@field unit? string
---@field better? "lower"|"higher"
---@field entries attune.HistoryEntry[]

-- When a folder was measured last; "" where no header says.
local function time_of(results)
  local last = ""
  for _, run in ipairs(results.provenance) do
    if run.time and run.time > last then last = run.time end
  end
  return last
end

local function by_time(list)
  local order = {}
  for i, results in ipairs(list) do
    order[i] = {results = results, at = i, time = time_of(results)}
  end
  table.sort(order, function(x, y)
    if x.time ~= y.time then return x.time < y.time end
    return x.at < y.at
  end)
  local sorted = {}
  for i, one in ipairs(order) do sorted[i] = one.results end
  return sorted
end

-- The processor of all values of a metric; nil where there are several.
local function one_processor(value)
  local cpu = value.cpus and value.cpus[1]
  for _, other in ipairs(value.cpus or {}) do
    if other ~= cpu then return nil end
  end
  return cpu
end

-- Every series, in the order in which folders first have it; the rows to judge.
local function collect(folders, wanted)
  local list, at, rows, known = {}, {}, {}, {}
  for index, results in ipairs(folders) do
    local metrics = {}
    for _, m in ipairs(results.metrics) do
      metrics[#metrics + 1] = m
      known[#known + 1] = m.name
    end
    for _, point in ipairs(results.points) do
      for _, m in ipairs(metrics) do
        local value = (not wanted or m.name == wanted) and point.metrics[m.name]
        if value then
          local key = m.name .. "\n" .. compare.key(point)
          local series = at[key]
          if not series then
            series = {parameters = point.parameters, metric = m.name, entries = {}, latest = {}}
            at[key] = series
            list[#list + 1] = series
          end
          series.unit, series.better = m.unit, compare.direction(m)
          local entry = {folder = index, value = stats.centre(value.values)}
          entry.cpu = one_processor(value)
          series.entries[#series.entries + 1] = entry
          local before = series.latest[entry.cpu or ""]
          if before and entry.cpu then
            rows[#rows + 1] = {
              entry = entry, better = series.better,
              values = {
                a = before.values, b = value.values, rounds_a = before.rounds,
                rounds_b = value.rounds,
              },
            }
          end
          series.latest[entry.cpu or ""] = value
        end
      end
    end
  end
  return list, rows, known
end

---@class attune.History
---@field folders attune.Results[] oldest first
---@field parameters string[] those that tell points apart
---@field series attune.HistorySeries[]

--- The history over folders of one experiment.
---@param list attune.Results[]
---@param options? {metric: string?}
---@return attune.History? history
---@return string? message
function history.of(list, options)
  options = options or {}
  for i, results in ipairs(list) do
    if results.name ~= list[1].name then
      local format = "expected results of one experiment, got '%s' in %s and '%s' in %s"
      return nil, format:format(list[1].name, list[1].dir, results.name, results.dir)
    end
    for k = 1, i - 1 do
      local why = compare.unlike(list[k].metrics, list[k].dir, results.metrics, results.dir,
        options.metric)
      if why then return nil, why end
    end
  end
  local folders = by_time(list)
  local all, rows, known = collect(folders, options.metric)
  if #all == 0 then
    if options.metric then
      return nil, ("unknown metric '%s': %s"):format(options.metric, suggest(options.metric, known))
    end
    return nil, ("%s: expected values of a metric, got none"):format(list[1].dir)
  end
  compare.judge(rows, {})
  for _, row in ipairs(rows) do
    row.entry.comparison, row.entry.verdict, row.entry.p = row.comparison, row.verdict, row.p
  end
  local parameters = {}
  for _, name in ipairs(folders[#folders].parameters) do
    local first, differs = all[1].parameters[name], false
    for _, one in ipairs(all) do differs = differs or one.parameters[name] ~= first end
    if differs then parameters[#parameters + 1] = name end
  end
  for _, one in ipairs(all) do one.latest = nil end
  return {folders = folders, parameters = parameters, series = all}
end

--- The folders of results that a path names: itself, or those inside it.
---@param path string
---@param list fun(path: string): string[] names in a folder
---@return string[]
function history.folders(path, list)
  if reader.description(path) then return {path} end
  local found = {}
  for _, name in ipairs(list(path)) do
    if reader.description(path .. "/" .. name) then found[#found + 1] = path .. "/" .. name end
  end
  return #found > 0 and found or {path}
end

return history
