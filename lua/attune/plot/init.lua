--- Figures from results. Each kind of chart is a file in this folder that returns a gnuplot script
--- and its data; plots/*.gp defines how it looks.
local files = require "attune.util.files"
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

-- A message when the plot names a parameter or metric that the results do not have, else nil.
local function check_names(spec, results)
  local names = all_names(results)
  local expected = {
    {"x", "parameter"},
    {"y", spec.kind == "heat" and "parameter" or "metric"},
    {"value", "metric"},
    {"by", "parameter"},
    {"facet", "parameter"},
    {"also", "metric"},
  }
  for _, pair in ipairs(expected) do
    local field, kind = pair[1], pair[2]
    local name = spec[field]
    if name and names[name] ~= kind then
      return ("%s: expected a %s of the results, got '%s'"):format(field, kind, name)
    end
  end
end

--- The base name of the files of plot number i, such as "01-decode".
---@param spec attune.PlotSpec
---@param i integer
---@return string
function plot.name(spec, i) return ("%02d-%s"):format(i, spec.name or (spec.value or spec.y)) end

-- Draws one plot in every format and adds the paths to made. Returns a message on failure.
local function draw_one(results, spec, base, made)
  local wrong = check_names(spec, results)
  if wrong then return wrong end
  local kind = require("attune.plot." .. spec.kind)
  local figure, why = kind(results, spec, series.select(results, spec))
  if not figure then return why end
  for _, format in ipairs(formats) do
    local target = base .. "." .. format
    local path, failed = gnuplot.draw(target, figure.size, figure.script, figure.data)
    if not path then return failed end
    made[#made + 1] = path
  end
end

--- Draws every declared plot as SVG, PNG and PDF into dir/plots.
---@param results attune.Results
---@param dir string
---@return string[]? paths nil when none can be drawn
---@return string[]|string warnings a message when paths is nil
function plot.draw(results, dir)
  local made, warnings = {}, {}
  local ok, why = files.make_folder(dir .. "/plots")
  if not ok then return nil, why end
  for i, spec in ipairs(results.plots) do
    local name = plot.name(spec, i)
    local message = draw_one(results, spec, ("%s/plots/%s"):format(dir, name), made)
    if message and message:find "^gnuplot: expected it to be installed" then return nil, message end
    if message then warnings[#warnings + 1] = ("plot %s is left out: %s"):format(name, message) end
  end
  if #warnings > 0 and #made == 0 then return nil, table.concat(warnings, "; ") end
  return made, warnings
end

return plot
