--- Results as a table on the terminal.
local repeats = require "attune.results.repeats"
local scalars = require "attune.results.scalars"
local stats = require "attune.results.statistics"
local steadiness = require "attune.results.steadiness"
local text = require "attune.util.text"

local function any_without_result(results)
  for _, point in ipairs(results.points) do
    if point.status ~= "ok" then return true end
  end
  return false
end

--- One line per point: the varied parameters, the status when some point is not ok, the centre of
--- each metric.
---@param results attune.Results
---@param max_rows? integer no limit by default; with one, unstable values get a summary
---@return string[] lines
return function(results, max_rows)
  local columns, rows = {}, {}
  local names = #results.varied > 0 and results.varied or results.parameters
  local first = results.points[1]
  for _, name in ipairs(names) do
    columns[#columns + 1] = {name, right = first and type(first.parameters[name]) == "number"}
  end
  local with_status = any_without_result(results)
  if with_status then columns[#columns + 1] = {"status"} end
  local metrics = scalars(results)
  for _, m in ipairs(metrics) do columns[#columns + 1] = {m.name, right = true} end
  for i, point in ipairs(results.points) do
    if max_rows and i > max_rows then break end
    local row = {}
    for _, name in ipairs(names) do row[#row + 1] = text.plain(point.parameters[name]) end
    if with_status then row[#row + 1] = point.status end
    for _, m in ipairs(metrics) do
      local value = point.metrics[m.name]
      row[#row + 1] = text.quantity(value and value.centre, m.unit)
    end
    rows[#rows + 1] = row
  end
  local lines = text.columns(columns, rows)
  if max_rows and #results.points > max_rows then
    local left = #results.points - max_rows
    local dir = text.shell_word(results.dir)
    lines[#lines + 1] = (".. and %d more points: attune show %s"):format(left, dir)
  end
  local sentence = stats.sentence(results.points, false, repeats.word(results))
  if sentence ~= "" then lines[#lines + 1] = sentence end
  local unstable = max_rows
    and steadiness.summary(results, "The report and attune show have all.")
    or steadiness.sentences(results)
  table.move(unstable, 1, #unstable, #lines + 1, lines)
  return lines
end
