--- From records to points with their values.
local json = require "attune.util.json"
local reader = require "attune.results.reader"
local stats = require "attune.results.statistics"

local points = {}

--- One round's value of a metric: the number itself, or the median of its samples.
---@param metric number|string|{samples: (number|string)[]} as JSON gives it
---@return number? value
---@return number[]? samples
function points.value(metric)
  if type(metric) ~= "table" then return json.number(metric) end
  local samples = {}
  for i, x in ipairs(metric.samples or {}) do samples[i] = json.number(x) end
  return stats.median(samples), samples
end

local severity = {ok = 0, skipped = 1, failed = 2, oom = 3, timeout = 4}

-- Adds a round's value to a metric. Rounds of one seed are one value, their mean, as what varies
-- between seeds is what the interval is to show.
local function add_value(m, unit, value, samples)
  local at = m.at[unit]
  if not at then
    at = #m.values + 1
    m.at[unit], m.values[at], m.rounds[at] = at, 0, unit
    m.samples[at], m.counts[at] = {}, 0
  end
  local count = m.counts[at] + 1
  m.counts[at] = count
  m.values[at] = count == 1 and value or m.values[at] + (value - m.values[at]) / count
  table.move(samples, 1, #samples, #m.samples[at] + 1, m.samples[at])
end

local function add_round(point, record, unit)
  local status = record.status
  if severity[status] == nil then return end
  -- A point that is trained with some of the seeds only has a value of these.
  if status == "skipped" and point.rounds > 0 then return end
  if status == "ok" and point.status == "skipped" then point.status, point.reason = "ok", nil end
  if status ~= "ok" then
    local first = point.status == "ok" and point.rounds == 0
    if first or severity[status] > severity[point.status] then
      point.status, point.reason = status, record.reason
    end
    return
  end
  point.rounds = point.rounds + 1
  for name, metric in pairs(record.metrics or {}) do
    local value, samples = points.value(metric)
    if value then
      local m = point.metrics[name]
      if not m then
        m = {values = {}, samples = {}, rounds = {}, cpus = {}, at = {}, counts = {}}
        point.metrics[name] = m
      end
      add_value(m, unit, value, samples or {value})
      m.cpus[m.at[unit]] = record.cpu or "unknown"
      if type(metric) == "table" and metric.unsteady then
        local cause = metric.cause or "unknown"
        m.unsteady, m.causes = true, m.causes or {}
        m.causes[cause] = (m.causes[cause] or 0) + 1
      end
    end
  end
end

--- The declared metrics, then the others by name.
---@param description attune.Description
---@param list attune.Point[]
---@return attune.Metric[]
function points.metrics(description, list)
  local metrics, seen = {}, {}
  for _, m in ipairs(description.metrics or {}) do
    metrics[#metrics + 1], seen[m.name] = m, true
  end
  local extra = {}
  for _, point in ipairs(list) do
    for name in pairs(point.metrics) do
      if not seen[name] then
        seen[name] = true
        extra[#extra + 1] = name
      end
    end
  end
  table.sort(extra)
  for _, name in ipairs(extra) do metrics[#metrics + 1] = {name = name} end
  return metrics
end

--- The parameters that have more than one value.
---@param parameters string[]
---@param list attune.Point[]
---@return string[]
function points.varied(parameters, list)
  local varied = {}
  for _, name in ipairs(parameters) do
    local first, differs
    for i, point in ipairs(list) do
      local value = point.parameters[name]
      if i == 1 then first = value elseif value ~= first then differs = true end
    end
    if differs then varied[#varied + 1] = name end
  end
  return varied
end

--- The records that count, in sweep order and then by round.
---@param records attune.Record[]
---@param seeds? integer[] the declared ones
---@return attune.Record[]
function points.in_sweep_order(records, seeds)
  local by_key, order = reader.chosen(records, seeds)
  local list = {}
  for i, key in ipairs(order) do list[i] = by_key[key] end
  local function is_before(x, y)
    if x.index ~= y.index then return x.index < y.index end
    if x.hash ~= y.hash then return x.hash < y.hash end
    if x.round ~= y.round then return x.round < y.round end
    return (x.seed or 0) < (y.seed or 0)
  end
  -- Records of one round are in order already.
  for i = 2, #list do
    if is_before(list[i], list[i - 1]) then
      table.sort(list, is_before)
      break
    end
  end
  return list
end

--- Points with their values.
---@param records attune.Record[] in sweep order
---@param seeds? integer[] where declared, each seed gives one value
---@return attune.Point[]
function points.collect(records, seeds)
  local list, by_hash, index_of = {}, {}, {}
  for i, seed in ipairs(seeds or {}) do index_of[seed] = i end
  for _, record in ipairs(records) do
    local point = by_hash[record.hash]
    if not point then
      point = {
        hash = record.hash,
        index = record.index,
        parameters = record.parameters,
        status = "ok",
        rounds = 0,
        metrics = {},
      }
      by_hash[record.hash] = point
      list[#list + 1] = point
    end
    add_round(point, record, seeds and index_of[record.seed] or record.round)
  end
  for _, point in ipairs(list) do
    for _, m in pairs(point.metrics) do
      m.at, m.counts = nil, nil
      for k, v in pairs(stats.summary(m.values)) do m[k] = v end
    end
  end
  return list
end

return points
