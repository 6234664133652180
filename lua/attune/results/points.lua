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

-- The positions of a point on the axes: a number per axis.
local function positions_on(axes)
  local rank_of = {}
  for i, axis in ipairs(axes) do
    rank_of[i] = {}
    for position, row in ipairs(axis.points) do rank_of[i][reader.row_key(row)] = position end
  end
  return function(parameters)
    local positions = {}
    for i, axis in ipairs(axes) do
      local row = {}
      for k, name in ipairs(axis.names) do
        row[k] = parameters[name]
        if row[k] == nil then row[k] = "nil" end
      end
      positions[i] = rank_of[i][reader.row_key(row)] or math.huge
    end
    return positions
  end
end

-- The rank of each point in the sweep that the description declares, by its hash: the index in a
-- record is that of the run that measured it, which may have been of other points.
local function ranks_of(records, description)
  local positions_of, list, rank = positions_on(description.axes or {}), {}, {}
  for _, record in ipairs(records) do
    if not rank[record.hash] then
      rank[record.hash] = true
      list[#list + 1] = {
        hash = record.hash, index = record.index, positions = positions_of(record.parameters),
      }
    end
  end
  table.sort(list, function(x, y)
    for i, position in ipairs(x.positions) do
      if position ~= y.positions[i] then return position < y.positions[i] end
    end
    if x.index ~= y.index then return x.index < y.index end
    return x.hash < y.hash
  end)
  for i, one in ipairs(list) do rank[one.hash] = i end
  return rank
end

--- The records that count, in the order of the described sweep and then by round.
---@param records attune.Record[]
---@param description attune.Description
---@return attune.Record[]
function points.in_sweep_order(records, description)
  local by_key, order = reader.chosen(records, description.seeds)
  local list = {}
  for i, key in ipairs(order) do list[i] = by_key[key] end
  local rank = ranks_of(list, description)
  local function is_before(x, y)
    if x.hash ~= y.hash then return rank[x.hash] < rank[y.hash] end
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
