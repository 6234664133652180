--- The points of results for which a condition over parameters and metrics holds.
local condition = require "attune.experiment.condition"
local rows = require "attune.results.rows"

--- Raises an error for what is no condition. A metric that a point does not have is missing: no
--- comparison with it holds.
---@param results attune.Results
---@param expr string
---@return attune.Point[]
return function(results, expr)
  local holds = condition.compile(expr, rows.columns(results), {
    label = "condition", noun = "name", may_miss = true,
  })
  local kept = {}
  for _, point in ipairs(results.points) do
    if holds(rows.of_point(results, point)) then kept[#kept + 1] = point end
  end
  return kept
end
