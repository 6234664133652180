--- The samples of metrics: all rounds of a point together.
local series = require "attune.plot.series"
local text = require "attune.util.text"

local samples = {}

--- The finite samples of one point, sorted, and how many are not finite.
---@param m table a metric of a point
---@return number[] sorted
---@return integer bad
function samples.sorted(m)
  local list, bad = {}, 0
  for _, round in ipairs(m.samples) do
    for _, x in ipairs(round) do
      if x == x and math.abs(x) <= 1e100 then list[#list + 1] = x + 0.0 else bad = bad + 1 end
    end
  end
  table.sort(list)
  return list, bad
end

--- The only point with a metric among some, or nil and a message when there are several; nil alone
--- for none.
---@param results attune.Results
---@param points attune.Point[]
---@param spec attune.PlotSpec
---@param mark string such as "box"
---@param where {[1]: string?, [2]: any}[] names and values that the points have in common
---@return attune.Point?
---@return string?
function samples.point(results, points, spec, mark, where)
  local found
  for _, point in ipairs(points) do
    if point.metrics[spec.y] then
      if found then
        local parts = {}
        for _, pair in ipairs(where) do
          if pair[1] then parts[#parts + 1] = ("%s %s"):format(pair[1], text.plain(pair[2])) end
        end
        local place = #parts > 0 and table.concat(parts, ", ") or "the figure"
        return nil, series.several(results, {found, point}, mark, place)
      end
      found = point
    end
  end
  return found
end

return samples
