--- A Pareto front for each value of `by`: the marks of which no other mark of that front is better
--- in one direction and as good in the other. Dominated marks are hollow.
--
-- The metric's `better` says which direction is better; lower is, where nothing is declared.
local lines = require "attune.plot.lines"
local panels = require "attune.plot.panels"
local series = require "attune.plot.series"

-- The rows of the front, by x, and the others.
local function split(rows, x_sign, y_sign)
  local sorted = table.move(rows, 1, #rows, 1, {})
  -- From the best x on; among equal ones the best y first.
  table.sort(sorted, function(a, b)
    if a.x ~= b.x then return a.x * x_sign < b.x * x_sign end
    return a.y * y_sign < b.y * y_sign
  end)
  local front, others, best = {}, {}, nil
  for _, row in ipairs(sorted) do
    local last = front[#front]
    local equal = last and row.x == last.x and row.y == last.y
    if not best or row.y * y_sign < best or equal then
      front[#front + 1], best = row, row.y * y_sign
    else
      others[#others + 1] = row
    end
  end
  table.sort(front, function(a, b)
    if a.x ~= b.x then return a.x < b.x end
    return a.y < b.y
  end)
  return front, others
end

local function sign_of(axis) return axis.better == "higher" and -1 or 1 end

---@param results attune.Results
---@param spec attune.PlotSpec
---@param points attune.Point[]
---@param notes string[] what is left out so far; more is appended
---@param look attune.Look
---@return attune.Figure? figure
---@return string? message
return function(results, spec, points, notes, look)
  local data, why = lines.of(results, spec, points, notes, "points")
  if data then data, why = lines.finish(data, spec) end
  if not data then return nil, why end
  for _, axis in ipairs {data.x, data.y} do axis.better = axis.better or "lower" end
  local x_sign, y_sign = sign_of(data.x), sign_of(data.y)
  -- The front bounds what its marks dominate: to the right and up where lower is better.
  local form = x_sign > 0 and "steps" or "fsteps"
  for _, panel in ipairs(data.panels) do
    local list = {}
    for _, line in ipairs(panel.lines) do
      local front, others = split(line.rows, x_sign, y_sign)
      for _, row in ipairs(others) do row.label = nil end
      list[#list + 1] = {label = line.label, rows = front, style = line.style, form = form}
      if #others > 0 then
        list[#list + 1] = {label = line.label, rows = others, style = line.style, form = "faint"}
      end
    end
    panel.lines = list
  end
  data.what, data.legend, data.with_better = "Pareto front", true, true
  if series.metric(results, spec.x) == nil and data.x.categories then
    return nil, ("x: expected numbers for a Pareto front, got texts of %s"):format(spec.x)
  end
  data.conditions = {"filled: on the front, hollow: dominated"}
  return panels.figure(results, spec, data, points, look)
end
