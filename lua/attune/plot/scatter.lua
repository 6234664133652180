--- Marks over two axes, each a parameter or a metric: one mark per point.
local lines = require "attune.plot.lines"
local panels = require "attune.plot.panels"

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
  data.what, data.legend = "Scatter chart", true
  return panels.figure(results, spec, data, points, look)
end
