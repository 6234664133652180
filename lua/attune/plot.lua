--- Figures from results. Each kind of chart is a file in attune/plot that gives a script and its data; how it looks is in plots/*.gp.
local files = require "attune.files"
local gnuplot = require "attune.plot.gnuplot"
local series = require "attune.plot.series"

local plot = {check = require "attune.plot.spec"}

local formats = {"svg", "png", "pdf"}

local function all_names(results)
  local names = {}
  for _, name in ipairs(results.parameters) do names[name] = "parameter" end
  for _, m in ipairs(results.metrics) do names[m.name] = "metric" end
  return names
end

-- nil and a message when the plot names what the results do not have.
local function check_names(spec, results)
  local names = all_names(results)
  local function check(field, kind)
    local name = spec[field]
    if name and names[name] ~= kind then return ("%s: expected a %s of the results, got '%s'"):format(field, kind, name) end
  end
  local y = spec.kind == "heat" and "parameter" or "metric"
  return check("x", "parameter") or check("y", y) or check("value", "metric") or check("by", "parameter") or check("facet", "parameter") or check("also", "metric")
end

--- The base name of plot number i: "01-decode".
function plot.name(spec, i) return ("%02d-%s"):format(i, spec.name or (spec.value or spec.y)) end

--- Draws every declared plot as SVG, PNG and PDF into dir/plots. Returns the files and warnings; nil and a message when none can be drawn.
---@param results table what store.read returns
---@param dir string
---@return string[]? paths
---@return string[]|string warnings
function plot.draw(results, dir)
  local made, warnings = {}, {}
  local ok, why = files.make_folder(dir .. "/plots")
  if not ok then return nil, why end
  for i, spec in ipairs(results.plots) do
    local name = plot.name(spec, i)
    local figure, message
    local wrong = check_names(spec, results)
    if wrong then message = wrong
    else figure, message = require("attune.plot." .. spec.kind)(results, spec, series.select(results, spec)) end
    for _, format in ipairs(figure and formats or {}) do
      local path
      path, message = gnuplot.draw(("%s/plots/%s.%s"):format(dir, name, format), figure.size, figure.script, figure.data)
      if not path then break end
      made[#made + 1] = path
    end
    if message then
      if message:find "^gnuplot: expected it to be installed" then return nil, message end
      warnings[#warnings + 1] = ("plot %s is left out: %s"):format(name, message)
    end
  end
  if #warnings > 0 and #made == 0 then return nil, table.concat(warnings, "; ") end
  return made, warnings
end

return plot
