--- The metrics that a table has a column for. A picture, or a curve such as a training loss, is a
--- list whose numbers are no samples of one quantity, so that their median would say nothing.

-- The names of the metrics that a plot draws as pictures or as curves.
local function lists_of(plot, lists)
  if plot.kind == "pixels" then
    lists[plot.y or ""] = true
  elseif plot.along then
    lists[plot.y or ""], lists[plot.x or ""] = true, true
  end
end

---@param results attune.Results
---@return attune.Metric[]
return function(results)
  local lists, kept = {}, {}
  for _, plot in ipairs(results.plots or {}) do lists_of(plot, lists) end
  for _, m in ipairs(results.metrics) do
    if not lists[m.name] then kept[#kept + 1] = m end
  end
  return kept
end
