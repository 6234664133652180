--- From results and a plot's declaration to the numbers that are drawn.
local stats = require "attune.stats"

local series = {}

local function matches(point, wanted)
  for name, value in pairs(wanted or {}) do
    local have, ok = point.parameters[name], false
    if type(value) == "table" then
      for _, one in ipairs(value) do ok = ok or have == one end
    else
      ok = have == value
    end
    if not ok then return false end
  end
  return true
end

--- The points that a plot is about: those its where keeps, and that were measured.
function series.select(results, spec)
  local points = {}
  for _, point in ipairs(results.points) do
    if matches(point, spec.where) and point.status == "ok" then points[#points + 1] = point end
  end
  return points
end

--- A parameter's values among the points, numbers in order and texts as they come.
function series.distinct(points, name)
  local values, seen = {}, {}
  for _, point in ipairs(points) do
    local v = point.parameters[name]
    if v ~= nil and not seen[v] then
      seen[v] = true
      values[#values + 1] = v
    end
  end
  local numeric = true
  for _, v in ipairs(values) do numeric = numeric and type(v) == "number" end
  if numeric then table.sort(values) end
  return values
end

--- The values of a plot's `by`: as its `order` says, the others after them. {false} where it has none.
function series.by(points, spec)
  if not spec.by then return {false} end
  local found, list, listed = {}, {}, {}
  for _, v in ipairs(series.distinct(points, spec.by)) do found[v] = true end
  for _, v in ipairs(spec.order or {}) do
    if found[v] then list[#list + 1], listed[v] = v, true end
  end
  for _, v in ipairs(series.distinct(points, spec.by)) do
    if not listed[v] then list[#list + 1] = v end
  end
  return list
end

function series.metric(results, name)
  for _, m in ipairs(results.metrics) do
    if m.name == name then return m end
  end
end

-- The point to compare with: the same x, facet and where, the values of `against`, and as many other parameters in common as any has.
local function baseline(points, point, spec)
  local best, most
  for _, other in ipairs(points) do
    if matches(other, spec.against) and (not spec.x or spec.kind == "heat" or other.parameters[spec.x] == point.parameters[spec.x])
      and (not spec.facet or other.parameters[spec.facet] == point.parameters[spec.facet]) then
      local same = 0
      for name, value in pairs(point.parameters) do
        if other.parameters[name] == value then same = same + 1 end
      end
      if not most or same > most then best, most = other, same end
    end
  end
  return best
end

local function ratio(base, mine, lower)
  local by_round, values = {}, {}
  for i, round in ipairs(base.rounds) do by_round[round] = base.values[i] end
  for i, round in ipairs(mine.rounds) do
    local b = by_round[round]
    if b and mine.values[i] ~= 0 and b ~= 0 then values[#values + 1] = lower and b / mine.values[i] or mine.values[i] / b end
  end
  if #values == 0 then return nil end
  local lo, hi = stats.log_interval(values)
  return {median = stats.median(values), lo = lo, hi = hi}
end

--- A point's value of a metric as {median, lo, hi}: the metric itself, or its factor against another point.
function series.value(results, all, point, spec, metric)
  local mine = point.metrics[metric]
  if not mine then return nil end
  if not spec.against then return mine end
  local other = baseline(all, point, spec)
  local base = other and other.metrics[metric]
  if not base then return nil end
  local m = series.metric(results, metric)
  return ratio(base, mine, not (m and m.better == "higher"))
end

--- What a plot keeps constant, as texts "name value": for its sub-title.
function series.constants(points, results, spec)
  local used, list = {[spec.x] = true, [spec.y] = true, [spec.by or ""] = true, [spec.facet or ""] = true}, {}
  for _, name in ipairs(results.parameters) do
    local values = series.distinct(points, name)
    if not used[name] and #values == 1 then list[#list + 1] = ("%s %s"):format(name, require "attune.text".plain(values[1])) end
  end
  return list
end

return series
