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

local function add_round(point, record)
  local status = record.status
  if severity[status] == nil then return end
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
      local m = point.metrics[name] or {values = {}, samples = {}, rounds = {}, cpus = {}}
      point.metrics[name] = m
      m.values[#m.values + 1] = value
      m.rounds[#m.rounds + 1] = record.round
      m.cpus[#m.rounds] = record.cpu or "unknown"
      m.samples[#m.samples + 1] = samples or {value}
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
---@return attune.Record[]
function points.in_sweep_order(records)
  local by_key, order = reader.chosen(records)
  local list = {}
  for i, key in ipairs(order) do list[i] = by_key[key] end
  table.sort(list, function(x, y)
    if x.index ~= y.index then return x.index < y.index end
    if x.hash ~= y.hash then return x.hash < y.hash end
    return x.round < y.round
  end)
  return list
end

--- Points with their values.
---@param records attune.Record[] in sweep order
---@return attune.Point[]
function points.collect(records)
  local list, by_hash = {}, {}
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
    add_round(point, record)
  end
  for _, point in ipairs(list) do
    for _, m in pairs(point.metrics) do
      for k, v in pairs(stats.summary(m.values)) do m[k] = v end
    end
  end
  return list
end

return points
