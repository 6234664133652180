--- When a point needs no more rounds: stop_when = {metric = width, ..}.
local points = require "attune.results.points"
local stats = require "attune.results.statistics"

local min_values = 3

local Stopping = {}
Stopping.__index = Stopping

--- Takes in the values of a record.
---@param record attune.Record
function Stopping:add(record)
  if record.status ~= "ok" then return end
  for name in pairs(self.widths) do
    local metric = record.metrics and record.metrics[name]
    local value = metric ~= nil and points.value(metric)
    if value then
      local of_point = self.values[record.hash] or {}
      self.values[record.hash] = of_point
      of_point[name] = of_point[name] or {}
      table.insert(of_point[name], value)
      of_point.known = nil
    end
  end
end

-- Whether the 95% interval lies within this share of the centre on either side.
local function narrow(values, width)
  if not values or #values < min_values then return false end
  local summary = stats.summary(values)
  if not summary.lo or not summary.hi then return false end
  return math.max(summary.hi - summary.centre, summary.centre - summary.lo)
    <= width * math.abs(summary.centre)
end

--- Whether every metric of stop_when is known well enough at a point.
---@param hash string
---@return boolean
function Stopping:done(hash)
  local of_point = self.values[hash]
  if not of_point then return false end
  if of_point.known == nil then
    of_point.known = true
    for name, width in pairs(self.widths) do
      of_point.known = of_point.known and narrow(of_point[name], width)
    end
  end
  return of_point.known
end

--- A record of values, for a declaration with stop_when; one that never stops for any other.
---@param e attune.Experiment
---@param records attune.Record[] those that count
return function(e, records)
  local stopping = setmetatable({widths = e.stop_when or {}, values = {}}, Stopping)
  if e.stop_when then
    for _, record in ipairs(records) do stopping:add(record) end
  end
  return stopping
end
